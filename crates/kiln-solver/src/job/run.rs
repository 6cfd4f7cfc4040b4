//! Runs one step, keeps what came of it, and says why it had to run.

use std::sync::atomic::Ordering;

use super::{Job, Keyed, Outputs, Ran, Work, answer};
use crate::explain::{MissReason, short_name};
use crate::graph::Node;
use crate::key::{CacheKey, InputKey, Outline, Part};
use crate::parts::{Files, InputPart, KeyParts};
use crate::past::Past;
use crate::progress::Why;
use crate::store::Claim;
use crate::turns::Turn;

/// What a step that wants to run comes to.
enum Chance<'a, R> {
    /// It may.
    Run(Turn<'a>, Claim),
    /// Somebody else did meanwhile.
    Done(Outputs<R>),
}

impl<R, E> Job<R, E>
where
    R: Clone + Send + Sync + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    /// Runs a step whose inputs are there, when it is its turn.
    pub(super) async fn run(&self, node: usize, work: Work<'_, R>) -> Ran<R> {
        let (vertex, answers) = (&self.graph.nodes[node], &self.answers[node]);
        let (outline, keyed) = (answers.outline.wait().await, answers.key.wait().await);
        let (turn, claim) = match self.claim(node, outline, work.key).await {
            Chance::Run(turn, claim) => (turn, claim),
            Chance::Done(outputs) => {
                return Ran { key: self.shared.keys.same_as(work.key).unwrap_or_else(|| work.key.clone()), outputs };
            }
        };
        let mut parts = self.whole_parts(vertex, outline, keyed, work.parts.iter());
        let past = parts.as_ref().map(|parts| Past::of(self.shared.keys.as_ref(), parts)).unwrap_or_default();
        self.progress.start(node, self.why((vertex, &work), (outline, keyed), parts.clone(), &past).await);
        let ran = answer(vertex.step.run(work.inputs.clone())).await;
        drop(turn);
        let outputs: Outputs<R> = match ran {
            Ok(outputs) => outputs.into(),
            Err(cause) => return self.fail(node, cause).await,
        };
        if let Some(parts) = &mut parts {
            for (index, input) in parts.inputs.iter_mut().enumerate() {
                if let Part::Content(_) = input.part {
                    input.files = vertex.step.listing(index, &work.inputs[index]).await;
                }
            }
        }
        self.check_outputs(node, &outputs).await;
        let mut ran = Ran { key: work.key.clone(), outputs };
        if outline.is_lasting {
            let is_new = |old: &KeyParts| parts.as_ref().is_some_and(|parts| is_surely_new(vertex, old, parts));
            let like = past.sets.iter().filter(|old| !is_new(old)).filter_map(KeyParts::key);
            let same = self.same_as_before(outline, like.collect(), &ran.outputs).await;
            if let Some(before) = same {
                self.shared.keys.put_same_as(work.key, &before.key);
                ran = before;
            }
            self.shared.results.save(work.key, &ran.outputs, &vertex.name).await;
            self.shared.keys.put_shape(&outline.shape);
        }
        drop(claim);
        if let Some(parts) = parts {
            past.go_on(self.shared.keys.as_ref(), parts);
        }
        let is_same = ran.key != *work.key;
        self.progress.finish(node, is_same);
        ran
    }

    /// The result of an earlier run of this step, when this one gave the same: then what follows that one follows this
    /// one.
    async fn same_as_before(&self, outline: &Outline, before: Vec<CacheKey>, outputs: &[R]) -> Option<Ran<R>> {
        if !outline.may_load() {
            return None;
        }
        for key in before {
            if let Some(outputs) = self.shared.results.same(&key, outputs).await {
                return Some(Ran { key, outputs: outputs.into() });
            }
        }
        None
    }

    /// Waits for a turn to run, and for anybody who does the same work already, in this process or another: then there
    /// is nothing left to do. Nobody who waits for a claim has a turn, and who has a claim has a turn, so no two solves
    /// wait for each other.
    async fn claim(&self, node: usize, outline: &Outline, key: &CacheKey) -> Chance<'_, R> {
        let results = &self.shared.results;
        loop {
            let turn = self.shared.turns.take().await;
            if self.is_over.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            if !outline.may_load() {
                return Chance::Run(turn, Claim::free());
            }
            let Some(claim) = results.try_claim(key) else {
                drop(turn);
                results.unclaimed(key, &|who| self.progress.note(node, who)).await;
                continue;
            };
            // It was not there a moment ago; but between then and the claim somebody may have finished.
            let done = results.load(key).await.filter(|outputs| outputs.len() >= self.graph.nodes[node].wanted);
            return done.map_or_else(|| Chance::Run(turn, claim), |outputs| Chance::Done(outputs.into()));
        }
    }

    /// The ingredients of the key, whole but for the names of files. What does not last has none: they would be written
    /// in every build.
    pub(super) fn whole_parts<'a>(
        &self,
        vertex: &Node<R, E>,
        outline: &Outline,
        keyed: &Keyed,
        inputs: impl Iterator<Item = &'a Part>,
    ) -> Option<KeyParts> {
        if !outline.is_lasting || keyed.map.parts.identity.is_empty() {
            return None;
        }
        let named = vertex.inputs.iter().map(|input| self.graph.nodes[input.node].name.clone());
        let part = |(name, part): (String, &Part)| InputPart { name, part: part.clone(), files: Files::new() };
        let digest = Some(keyed.map.digest.clone());
        Some(KeyParts { digest, inputs: named.zip(inputs).map(part).collect(), ..keyed.map.parts.clone() })
    }

    /// Why it is about to run. A step that is never kept needs no reason.
    async fn why(
        &self,
        (vertex, work): (&Node<R, E>, &Work<'_, R>),
        (outline, keyed): (&Outline, &Keyed),
        parts: Option<KeyParts>,
        past: &Past,
    ) -> Option<Why> {
        if !keyed.map.pinned {
            return None;
        }
        let reason = if vertex.ignore_cache {
            MissReason::NoCacheAsked
        } else if !outline.may_load() {
            self.inherited(vertex, keyed)?
        } else {
            let mut parts = parts?;
            for (index, input) in parts.inputs.iter_mut().enumerate() {
                // Files are listed only where that tells which of them changed.
                input.files = match past.files(index, &input.part) {
                    Some(known) => known,
                    None => vertex.step.listing(index, &work.inputs[index]).await,
                };
            }
            past.reason(self.shared.keys.as_ref(), &parts)
        };
        Some(Why { text: self.folded(vertex, &reason), reason })
    }

    /// The input that a step's key names and that must run, so that the step must too.
    fn inherited(&self, vertex: &Node<R, E>, keyed: &Keyed) -> Option<MissReason> {
        let counted = vertex.inputs.iter().zip(&keyed.map.inputs);
        let named = counted.filter(|(_, how)| **how == InputKey::Definition);
        let mut outlines = named.filter_map(|(input, _)| Some((input.node, self.answers[input.node].outline.get()?)));
        let (node, _) = outlines.find(|(_, outline)| !outline.may_load())?;
        Some(MissReason::InputChanged { input: self.graph.nodes[node].name.clone() })
    }

    /// A step whose input ran before its eyes only follows; the cause is told there.
    fn folded(&self, vertex: &Node<R, E>, reason: &MissReason) -> String {
        let ran = |name: &str| {
            vertex.inputs.iter().any(|input| self.graph.nodes[input.node].name == name && self.progress.ran(input.node))
        };
        match reason {
            MissReason::InputChanged { input } if ran(input) => format!("follows {}", short_name(input)),
            _ => reason.to_string(),
        }
    }
}

/// Whether a step cannot have given what it gave before: it did the same, and read something that shows.
fn is_surely_new<R, E>(vertex: &Node<R, E>, old: &KeyParts, new: &KeyParts) -> bool {
    let mut inputs = old.inputs.iter().zip(&new.inputs).enumerate();
    let is_other = |old: &Part, new: &Part| matches!((old, new), (Part::Content(_), Part::Content(_))) && old != new;
    (old.digest.is_some() && old.digest == new.digest)
        && inputs.any(|(input, (old, new))| is_other(&old.part, &new.part) && vertex.step.shows(input))
}
