//! Tells what a solve would do, running nothing and keeping nothing.

use std::sync::Arc;

use kiln_graph::{Edge, VertexId};
use kiln_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::error::{Cause, SolveError};
use crate::explain::{MissReason, short_name};
use crate::graph::{Graph, Node};
use crate::job::Shared;
use crate::key::{CacheKey, CacheMap, InputKey, Outline, Part};
use crate::parts::{Files, InputPart};
use crate::past::Past;
use crate::plan::Plan;
use crate::store::ContentFact;

/// What a solve would do with a vertex.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// The vertex.
    pub id: VertexId,
    /// What people call it.
    pub name: String,
    /// What would become of it.
    pub verdict: Verdict,
    /// Why it would run.
    pub reason: Option<MissReason>,
    /// The same in words, or what it depends on.
    pub text: Option<String>,
}

/// What would become of a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its result is kept.
    Cached,
    /// All that reads it is cached.
    NotNeeded,
    /// It is there without work.
    AtHand,
    /// It would run.
    WouldRun,
    /// It may be kept: that depends on what another vertex makes.
    MayHit,
}

/// What is known of a vertex without running anything.
struct Known<R> {
    map: CacheMap,
    outline: Outline,
    at_hand: Option<Vec<R>>,
    /// The part of each input, as far as it can be known, and the files it names.
    parts: Vec<Option<(Part, Files)>>,
    key: Option<CacheKey>,
    /// The vertex whose result would have to be seen to know the key.
    depends_on: Option<usize>,
}

/// A forecast in the making.
struct Oracle<'a, R, E: std::error::Error + 'static> {
    shared: &'a Shared<R>,
    graph: Graph<R, E>,
    known: Vec<Known<R>>,
}

/// Tells what a solve would do with each vertex, inputs first.
pub(crate) async fn forecast<R, E>(
    shared: &Arc<Shared<R>>,
    plan: &Plan<R, E>,
    roots: &[Edge],
) -> Result<Vec<Forecast>, SolveError<E>>
where
    R: Clone + Send + Sync + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut oracle = Oracle { shared, graph: Graph::new(plan, roots)?, known: Vec::new() };
    for node in 0..oracle.graph.nodes.len() {
        let known = oracle.know(node).await?;
        oracle.known.push(known);
    }
    let verdicts = oracle.verdicts().await;
    let forecast = |node: usize| {
        let vertex = &oracle.graph.nodes[node];
        let (reason, text) = match verdicts[node] {
            Verdict::WouldRun => oracle.reason(node, &verdicts),
            Verdict::MayHit => (None, oracle.dependence(node)),
            Verdict::Cached | Verdict::NotNeeded | Verdict::AtHand => (None, None),
        };
        Forecast { id: vertex.id.clone(), name: vertex.name.clone(), verdict: verdicts[node], reason, text }
    };
    Ok((0..verdicts.len()).map(forecast).collect())
}

impl<R, E> Oracle<'_, R, E>
where
    R: Clone + Send + Sync + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    /// Makes the key of a vertex, as far as it can be made. Its inputs are known.
    async fn know(&self, node: usize) -> Result<Known<R>, SolveError<E>> {
        let vertex = &self.graph.nodes[node];
        let failed = |source| SolveError { vertex: vertex.id.clone(), name: vertex.name.clone(), source };
        let map = vertex.step.cache_map().await.map_err(|error| failed(Cause::Step(error)))?;
        let (mapped, inputs) = (map.inputs.len(), vertex.inputs.len());
        if mapped != inputs {
            return Err(failed(Cause::InputCount { mapped, inputs }));
        }
        let outlines = vertex.inputs.iter().zip(&map.inputs).map(|(input, how)| match how {
            InputKey::Definition => Some((&self.known[input.node].outline, input.output)),
            InputKey::Content { .. } => None,
        });
        let outline = Outline::new(&map, vertex.ignore_cache, &outlines.collect::<Vec<_>>());
        let (mut parts, mut depends_on) = (Vec::with_capacity(inputs), None);
        for (index, how) in map.inputs.iter().enumerate() {
            let part = self.part(vertex, index, how).await.map_err(|error| failed(Cause::Step(error)))?;
            if part.is_none() {
                let input = vertex.inputs[index].node;
                depends_on = depends_on.or(self.known[input].depends_on).or(Some(input));
            }
            parts.push(part);
        }
        let whole: Option<Vec<&Part>> = parts.iter().map(|part| part.as_ref().map(|(part, _)| part)).collect();
        let key = whole.map(|parts| CacheKey::new(&map.digest, parts));
        if let Some(key) = &key {
            self.shared.keys.identified(&vertex.id, key, &outline.shape);
        }
        Ok(Known { at_hand: vertex.step.at_hand().await, map, outline, parts, key, depends_on })
    }

    /// The part of one input: recalled, or seen where that takes no work.
    async fn part(&self, vertex: &Node<R, E>, index: usize, how: &InputKey) -> Result<Option<(Part, Files)>, E> {
        let input = vertex.inputs[index];
        let known = &self.known[input.node];
        let Some(key) = known.key.clone() else { return Ok(None) };
        let InputKey::Content { selector } = how else {
            return Ok(Some((Part::Definition { key, output: input.output }, Files::new())));
        };
        if let Some(result) = known.at_hand.as_ref().and_then(|outputs| outputs.get(input.output)) {
            let digest = vertex.step.content_digest(index, result).await?;
            return Ok(Some((Part::Content(digest), vertex.step.listing(index, result).await)));
        }
        if !known.outline.may_load() {
            return Ok(None);
        }
        let fact = ContentFact { input: key.clone(), output: input.output, selector: selector.clone() };
        if let Some(digest) = self.shared.keys.content(&fact) {
            return Ok(Some((Part::Content(digest), Files::new())));
        }
        let kept = self.shared.results.load(&key).await;
        let Some(result) = kept.as_ref().and_then(|outputs| outputs.get(input.output)) else { return Ok(None) };
        Ok(Some((Part::Content(vertex.step.content_digest(index, result).await?), Files::new())))
    }

    /// What would become of each vertex, from the roots down: nobody asks for what lies below a hit.
    async fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::NotNeeded; self.known.len()];
        let mut is_needed = vec![false; self.known.len()];
        self.graph.roots.iter().for_each(|root| is_needed[root.node] = true);
        for node in (0..self.known.len()).rev() {
            if !is_needed[node] {
                continue;
            }
            verdicts[node] = self.verdict(node).await;
            if matches!(verdicts[node], Verdict::WouldRun | Verdict::MayHit) {
                self.graph.nodes[node].inputs.iter().for_each(|input| is_needed[input.node] = true);
            }
        }
        verdicts
    }

    async fn verdict(&self, node: usize) -> Verdict {
        let known = &self.known[node];
        if known.at_hand.is_some() {
            return Verdict::AtHand;
        }
        if !known.outline.may_load() {
            return Verdict::WouldRun;
        }
        match &known.key {
            // Of a shape that was never saved there is no result, whatever is not known of the key.
            None if self.shared.keys.has_shape(&known.outline.shape) => Verdict::MayHit,
            None => Verdict::WouldRun,
            Some(key) => {
                let kept = self.shared.results.count(key).await;
                if kept > 0 && kept >= self.graph.nodes[node].wanted { Verdict::Cached } else { Verdict::WouldRun }
            }
        }
    }

    /// What a vertex that may hit depends on, in words.
    fn dependence(&self, node: usize) -> Option<String> {
        let name = &self.graph.nodes[self.known[node].depends_on?].name;
        Some(format!("depends on what {} makes", short_name(name)))
    }

    /// Why a vertex would run.
    fn reason(&self, node: usize, verdicts: &[Verdict]) -> (Option<MissReason>, Option<String>) {
        let (vertex, known) = (&self.graph.nodes[node], &self.known[node]);
        let reason = if vertex.ignore_cache {
            Some(MissReason::NoCacheAsked)
        } else if !known.outline.may_load() {
            self.inherited(vertex, known)
        } else {
            self.compared(vertex, known)
        };
        let follows = |name: &str| {
            vertex.inputs.iter().any(|input| {
                let is_it = self.graph.nodes[input.node].name == name;
                is_it && matches!(verdicts[input.node], Verdict::WouldRun | Verdict::MayHit)
            })
        };
        let text = reason.as_ref().map(|reason| match reason {
            MissReason::InputChanged { input } if follows(input) => format!("follows {}", short_name(input)),
            _ => reason.to_string(),
        });
        (reason, text)
    }

    /// The input that a key names and that must run, so that the vertex must too.
    fn inherited(&self, vertex: &Node<R, E>, known: &Known<R>) -> Option<MissReason> {
        let named = vertex.inputs.iter().zip(&known.map.inputs).filter(|(_, how)| **how == InputKey::Definition);
        let mut inputs = named.map(|(input, _)| input.node);
        let input = inputs.find(|input| !self.known[*input].outline.may_load())?;
        Some(MissReason::InputChanged { input: self.graph.nodes[input].name.clone() })
    }

    /// What differs from the nearest of the last times it ran. What cannot be known is taken as unchanged, unless nothing
    /// else has changed.
    fn compared(&self, vertex: &Node<R, E>, known: &Known<R>) -> Option<MissReason> {
        let mut parts = known.map.parts.clone();
        if parts.identity.is_empty() {
            return None;
        }
        parts.digest = Some(known.map.digest.clone());
        let unknown = || Part::Content(Digest::sha256("unknown"));
        parts.inputs = (vertex.inputs.iter().zip(&known.parts))
            .map(|(input, part)| {
                let (part, files) = part.clone().unwrap_or_else(|| (unknown(), Files::new()));
                InputPart { name: self.graph.nodes[input.node].name.clone(), part, files }
            })
            .collect();
        let past = Past::of(self.shared.keys.as_ref(), &parts);
        let Some(before) = past.nearest(&parts) else { return Some(past.unknown()) };
        for (index, part) in known.parts.iter().enumerate() {
            if let (None, Some(old)) = (part, before.inputs.get(index)) {
                parts.inputs[index].part = old.part.clone();
            }
        }
        Some(match (past.reason(self.shared.keys.as_ref(), &parts), known.depends_on) {
            (MissReason::ResultPruned, Some(input)) if known.key.is_none() => {
                MissReason::InputChanged { input: self.graph.nodes[input].name.clone() }
            }
            (reason, _) => reason,
        })
    }
}
