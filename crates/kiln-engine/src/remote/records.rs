//! What one cache knows: written from a build's results and facts, read back as results and facts.
//!
//! A result is kept under the digest of its key and output, without inputs: kiln's keys name their inputs already. The
//! digest of what a step reads of another is a record upon that other, and a shape is a record of nothing else.

use std::collections::{BTreeSet, HashMap, HashSet};

use kiln_graph::{Edge, VertexId};
use kiln_oci::{Descriptor, Digest};
use kiln_report::{Failure, FailureKind};
use kiln_solver::{CacheKey, ContentFact};

use crate::job::Result;
use crate::remote::Names;
use crate::remote::format::{
    CREATED, CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult, ChainedResult, DIFF_ID, output_digest,
};
use crate::remote::names::Records;

/// More layers than this has no result.
const LAYERS: usize = kiln_image::limits::LAYERS;

/// The time of what does not say its time.
pub(crate) const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A cache to be written: what it knows, and the layers it speaks of.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    pub(crate) config: CacheConfig,
    /// Each once, with the annotations that readers want.
    pub(crate) layers: Vec<Descriptor>,
    places: HashMap<(Digest, i64), usize>,
    roots: HashMap<Digest, usize>,
    contents: HashMap<Digest, usize>,
    steps: HashMap<(Digest, Vec<Vec<CacheInput>>), usize>,
}

/// Makes what is not there.
impl Records for Packed {
    fn root(&mut self, digest: Digest) -> Vec<usize> {
        vec![Self::root(self, digest)]
    }

    fn step(&mut self, digest: Digest, inputs: Vec<Vec<(usize, String)>>) -> Vec<usize> {
        let input = |(link, selector)| CacheInput { selector, link };
        let inputs: Vec<Vec<CacheInput>> = inputs.into_iter().map(|of| of.into_iter().map(input).collect()).collect();
        let next = self.config.records.len();
        let record = *self.steps.entry((digest.clone(), inputs.clone())).or_insert(next);
        if record == next {
            self.config.records.push(CacheRecord { inputs, ..record_of(digest) });
        }
        vec![record]
    }
}

impl Packed {
    /// A cache whose layers are those of an image, base first.
    pub(crate) fn of_image(layers: &[Descriptor]) -> Self {
        let mut packed = Self::default();
        packed.chain(layers);
        packed
    }

    /// Adds one output of a step: these layers, base first. A tree without layers needs no cache.
    pub(crate) fn result(&mut self, (key, output): (&CacheKey, usize), layers: &[Descriptor]) {
        let Some(layer) = self.chain(layers) else { return };
        let created_at = created(layers.last());
        let record = self.root(output_digest(&key.0, output));
        // Of several vertices with one key, one tells it.
        self.config.records[record].results = vec![CacheResult { layer, created_at }];
    }

    /// Adds one output of a step whose layers are some of those that are there already; says whether they are.
    pub(crate) fn selection(&mut self, (key, output): (&CacheKey, usize), layers: &[Digest]) -> bool {
        if layers.is_empty() || layers.iter().any(|layer| self.config.layers.iter().all(|there| there.blob != *layer)) {
            return false;
        }
        let record = Self::root(self, output_digest(&key.0, output));
        self.select(record, layers);
        true
    }

    /// Gives a record a result of layers that are there already.
    pub(crate) fn select(&mut self, record: usize, layers: &[Digest]) {
        let place = |blob: &Digest| self.config.layers.iter().position(|layer| layer.blob == *blob);
        let places: Vec<usize> = layers.iter().filter_map(place).collect();
        let Some(&layer) = places.last() else { return };
        let record = &mut self.config.records[record];
        let created_at = NO_TIME.to_owned();
        match places.iter().enumerate().all(|(index, place)| index == *place) {
            true => record.results = vec![CacheResult { layer, created_at }],
            false => record.chains = vec![ChainedResult { layers: places, created_at }],
        }
    }

    /// Adds the digest of what a step reads of another.
    pub(crate) fn content(&mut self, fact: &ContentFact, digest: &Digest) {
        let link = self.root(output_digest(&fact.input.0, fact.output));
        let next = self.config.records.len();
        let record = *self.contents.entry(digest.clone()).or_insert(next);
        if record == next {
            self.config.records.push(CacheRecord { inputs: vec![Vec::new()], ..record_of(digest.clone()) });
        }
        self.config.records[record].inputs[0].push(CacheInput { selector: fact.selector.clone(), link });
    }

    /// Gives a record a result.
    pub(crate) fn add(&mut self, record: usize, layers: &[Descriptor]) {
        let Some(layer) = self.chain(layers) else { return };
        self.config.records[record].results = vec![CacheResult { layer, created_at: created(layers.last()) }];
    }

    /// Adds that kiln wrote it.
    pub(crate) fn sign(&mut self) {
        Self::root(self, own_mark());
    }

    /// Adds that there is a result of this shape.
    pub(crate) fn shape(&mut self, shape: &Digest) {
        self.root(shape.clone());
    }

    fn root(&mut self, digest: Digest) -> usize {
        let records = &mut self.config.records;
        *self.roots.entry(digest).or_insert_with_key(|digest| {
            records.push(record_of(digest.clone()));
            records.len() - 1
        })
    }

    /// The place of the topmost layer.
    fn chain(&mut self, layers: &[Descriptor]) -> Option<usize> {
        let mut parent = -1;
        for layer in layers {
            let next = self.config.layers.len();
            let place = *self.places.entry((layer.digest.clone(), parent)).or_insert(next);
            if place == next {
                self.config.layers.push(CacheLayer { blob: layer.digest.clone(), parent, annotations: None });
            }
            if !self.layers.iter().any(|known| known.digest == layer.digest) {
                self.layers.push(layer.clone());
            }
            parent = place as i64;
        }
        usize::try_from(parent).ok()
    }
}

/// The record that a cache has when kiln wrote it, so that its results are there under kiln's names too.
fn own_mark() -> Digest {
    Digest::sha256("kiln.cache.1")
}

fn record_of(digest: Digest) -> CacheRecord {
    CacheRecord { results: Vec::new(), chains: Vec::new(), digest, inputs: Vec::new() }
}

fn created(layer: Option<&Descriptor>) -> String {
    layer.and_then(|layer| layer.annotations.get(CREATED)).cloned().unwrap_or_else(|| NO_TIME.to_owned())
}

/// A layer that a cache has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
}

/// The outputs of a step, each as layers, base first.
pub(crate) type Outputs<'a> = Vec<&'a [Layer]>;

/// What a cache that was read knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    results: HashMap<Digest, Vec<Layer>>,
    names: HashSet<Digest>,
    contents: HashMap<(Digest, String), Digest>,
    records: Vec<CacheRecord>,
    by_digest: HashMap<Digest, Vec<usize>>,
    /// Results of records that have inputs.
    stepped: HashMap<usize, Vec<Layer>>,
    /// Results with layers that are not described.
    unusable: usize,
}

/// Finds what is there.
impl Records for &Known {
    fn root(&mut self, digest: Digest) -> Vec<usize> {
        let records = self.by_digest.get(&digest).into_iter().flatten();
        records.copied().filter(|record| self.records[*record].inputs.is_empty()).collect()
    }

    fn step(&mut self, digest: Digest, inputs: Vec<Vec<(usize, String)>>) -> Vec<usize> {
        let leads = |links: &Vec<CacheInput>, found: &Vec<(usize, String)>| {
            links.iter().any(|link| found.iter().any(|(record, by)| *record == link.link && *by == link.selector))
        };
        let is_meant = |record: &usize| {
            let links = &self.records[*record].inputs;
            links.len() == inputs.len() && links.iter().zip(&inputs).all(|(links, found)| leads(links, found))
        };
        self.by_digest.get(&digest).into_iter().flatten().copied().filter(is_meant).collect()
    }
}

impl Known {
    /// Makes sense of a cache. `blobs` describes its layers; results with layers that are not described do not count.
    pub(crate) fn read(config: &CacheConfig, blobs: &[Descriptor]) -> Result<Self> {
        let described: HashMap<&Digest, Layer> =
            blobs.iter().filter_map(|blob| Some((&blob.digest, layer(blob)?))).collect();
        let mut known = Self { records: config.records.clone(), ..Self::default() };
        for (place, record) in config.records.iter().enumerate() {
            known.by_digest.entry(record.digest.clone()).or_default().push(place);
            let layers = result(config, record, &described)?;
            let has_result = !record.results.is_empty() || !record.chains.is_empty();
            known.unusable += usize::from(has_result && layers.is_none());
            if !record.inputs.is_empty()
                && let Some(layers) = &layers
            {
                known.stepped.insert(place, layers.clone());
            }
            match record.inputs.as_slice() {
                [] => {
                    known.names.insert(record.digest.clone());
                    if let Some(layers) = layers {
                        known.results.entry(record.digest.clone()).or_insert(layers);
                    }
                }
                [upon] => {
                    for input in upon {
                        let of = config.records.get(input.link);
                        let of = of.ok_or_else(|| wrong(format!("a record leads to record {}", input.link)))?;
                        let about = (of.digest.clone(), input.selector.clone());
                        known.contents.entry(about).or_insert_with(|| record.digest.clone());
                    }
                }
                _ => {}
            }
        }
        Ok(known)
    }

    /// The outputs of the step of a key; nothing when there are none.
    pub(crate) fn outputs(&self, key: &CacheKey) -> Outputs<'_> {
        (0..).map_while(|output| self.results.get(&output_digest(&key.0, output)).map(Vec::as_slice)).collect()
    }

    /// The outputs of a vertex by BuildKit's names for it; nothing when there are none.
    pub(crate) fn named_outputs(&self, vertex: &VertexId, names: &Names) -> Outputs<'_> {
        let output = |output| {
            let found = names.records(&Edge { vertex: vertex.clone(), output }, &mut &*self);
            found.into_iter().find_map(|record| self.stepped.get(&record)).map(Vec::as_slice)
        };
        (0..).map_while(output).collect()
    }

    /// Whether it has results that kiln's own keys do not name, because another builder wrote it.
    pub(crate) fn has_strangers(&self) -> bool {
        !self.stepped.is_empty() && !self.names.contains(&own_mark())
    }

    /// The digest of what a step reads of another.
    pub(crate) fn content(&self, fact: &ContentFact) -> Option<&Digest> {
        self.contents.get(&(output_digest(&fact.input.0, fact.output), fact.selector.clone()))
    }

    /// Whether there is a result of this shape.
    pub(crate) fn has_shape(&self, shape: &Digest) -> bool {
        self.names.contains(shape)
    }

    /// How many results cannot be used, because the cache does not say of a layer of theirs what it unpacks to.
    pub(crate) fn unusable(&self) -> usize {
        self.unusable
    }

    /// How many results it has, whoever can use them.
    pub(crate) fn len(&self) -> usize {
        self.results.len() + self.stepped.len()
    }
}

fn layer(blob: &Descriptor) -> Option<Layer> {
    let diff_id = blob.annotations.get(DIFF_ID)?.parse().ok()?;
    Some(Layer { blob: blob.clone(), diff_id })
}

/// The layers of a record's result, if it has one that can be used.
fn result(
    config: &CacheConfig,
    record: &CacheRecord,
    described: &HashMap<&Digest, Layer>,
) -> Result<Option<Vec<Layer>>> {
    let places = match (record.results.first(), record.chains.first()) {
        (Some(result), _) => chain(config, result.layer)?,
        (None, Some(result)) => result.layers.clone(),
        (None, None) => return Ok(None),
    };
    let mut layers = Vec::with_capacity(places.len());
    for place in places {
        let layer = config.layers.get(place).ok_or_else(|| no_layer(place))?;
        layers.push(described.get(&layer.blob).cloned());
    }
    Ok(layers.into_iter().collect())
}

/// A layer and all below it, base first.
fn chain(config: &CacheConfig, top: usize) -> Result<Vec<usize>> {
    let (mut places, mut seen) = (Vec::new(), BTreeSet::new());
    let mut next = top as i64;
    while next >= 0 {
        let place = next as usize;
        let layer = config.layers.get(place).ok_or_else(|| no_layer(place))?;
        if !seen.insert(place) || places.len() >= LAYERS {
            return Err(wrong(format!("layer {place} stands on itself, or on more than {LAYERS} others")));
        }
        places.push(place);
        next = layer.parent;
    }
    places.reverse();
    Ok(places)
}

fn no_layer(place: usize) -> Failure {
    wrong(format!("there is no layer {place}"))
}

fn wrong(what: String) -> Failure {
    Failure::new(FailureKind::Build, format!("the cache contradicts itself: {what}"))
}

#[cfg(test)]
mod tests;
