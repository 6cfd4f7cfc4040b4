//! What BuildKit calls the vertices of a graph, so that its caches can be read and written.
//!
//! It names a step by the digest of its operation, and finds its result from records of its inputs: by the input's own
//! record and a selector, or by a record of the content that is read. Sources have records without inputs: an image by
//! its manifest, and by the chain of its layers. A local directory has none that lasts, so it counts by content. What has no name here
//! (downloads, git, patterns in copies from a context) is not exchanged, nor is what stands on it.

mod json;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kiln_graph::llb::{ExecOp, FileAction, FileActionCopy, FileActionKind, FileOp, MountType, OpKind, Platform};
use kiln_graph::{Definition, Edge, Vertex, VertexId};
use kiln_oci::Digest;
use kiln_solver::CacheKey;

use crate::blocking::blocking;
use crate::frontend::{LocalTree, Trees};
use crate::job::{Images, Result};
use crate::remote::format::output_digest;

/// The names of a graph's vertices.
#[derive(Default)]
pub(crate) struct Names {
    named: BTreeMap<VertexId, Named>,
    /// Whose key is whose.
    keys: Mutex<HashMap<CacheKey, VertexId>>,
}

/// One vertex.
enum Named {
    /// Found by any of these records alone.
    Root(Vec<Digest>),
    /// Found from its inputs by this digest.
    Step { digest: Digest, inputs: Vec<Input> },
}

/// How a step is found from one input.
enum Input {
    /// From the input's record.
    Step { from: Edge, selector: String },
    /// From the content that is read of a local directory.
    Content { tree: Arc<LocalTree>, paths: BTreeSet<String>, seen: OnceLock<Option<Digest>> },
}

/// Where records are found, or made: a cache that is read, or one that is written.
pub(super) trait Records {
    /// The record of this digest without inputs.
    fn root(&mut self, digest: Digest) -> Vec<usize>;

    /// The records of this digest with these inputs, each given as records and selectors that may stand for it.
    fn step(&mut self, digest: Digest, inputs: Vec<Vec<(usize, String)>>) -> Vec<usize>;
}

impl Names {
    /// Names what can be named. Limits that count in keys are in BuildKit's names and not in our operations, so that with them
    /// no process has a name.
    pub(crate) fn of(definition: &Definition, (images, trees): (&Images, &Trees), limits: Option<&str>) -> Self {
        let named = definition.vertices().filter_map(|vertex| {
            let named = match vertex.op.op.as_ref()? {
                OpKind::Exec(_) if limits.is_some() => return None,
                OpKind::Source(source) => Named::Root(image(&source.identifier, &platform(vertex), images)?),
                _ => step(definition, vertex, trees)?,
            };
            Some((vertex.id.clone(), named))
        });
        Self { named: named.collect(), keys: Mutex::default() }
    }

    /// A vertex has this key.
    pub(crate) fn identified(&self, vertex: &VertexId, key: &CacheKey) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), vertex.clone());
    }

    /// The vertex of a key.
    pub(super) fn vertex(&self, key: &CacheKey) -> Option<VertexId> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Reads all that steps read of local directories. Only the first time takes long.
    pub(crate) async fn read(self: &Arc<Self>) -> Result<()> {
        let names = Arc::clone(self);
        blocking(move || {
            let steps = names.named.values().filter_map(|named| match named {
                Named::Step { inputs, .. } => Some(inputs),
                Named::Root(_) => None,
            });
            for input in steps.flatten() {
                if let Input::Content { tree, paths, seen } = input {
                    content(tree, paths, seen);
                }
            }
            Ok(())
        })
        .await
    }

    /// The records of a vertex's output. Reads local directories that [`Self::read`] has not read.
    pub(super) fn records(&self, edge: &Edge, records: &mut dyn Records) -> Vec<usize> {
        self.walk(edge, records, &mut HashMap::new())
    }

    fn walk(
        &self,
        edge: &Edge,
        records: &mut dyn Records,
        walked: &mut HashMap<(VertexId, usize), Vec<usize>>,
    ) -> Vec<usize> {
        let place = (edge.vertex.clone(), edge.output);
        if let Some(found) = walked.get(&place) {
            return found.clone();
        }
        let found = match self.named.get(&edge.vertex) {
            None => Vec::new(),
            Some(Named::Root(digests)) => {
                digests.iter().flat_map(|digest| records.root(output_digest(digest, edge.output))).collect()
            }
            Some(Named::Step { digest, inputs }) => {
                let mut links = Vec::with_capacity(inputs.len());
                for input in inputs {
                    let found = match input {
                        Input::Step { from, selector } => {
                            let found = self.walk(from, records, walked);
                            found.into_iter().map(|record| (record, selector.clone())).collect()
                        }
                        Input::Content { tree, paths, seen } => {
                            let digest = content(tree, paths, seen);
                            let found = digest.map_or_else(Vec::new, |digest| records.root(digest));
                            found.into_iter().map(|record| (record, String::new())).collect::<Vec<_>>()
                        }
                    };
                    links.push(found);
                }
                match links.iter().any(Vec::is_empty) {
                    true => Vec::new(),
                    false => records.step(output_digest(digest, edge.output), links),
                }
            }
        };
        walked.insert(place, found.clone());
        found
    }
}

/// An image by the chain of its layers, and by its manifest: some builders write the one, some the other, some both.
fn image(identifier: &str, platform: &Platform, images: &Images) -> Option<Vec<Digest>> {
    let image = images.find(identifier, platform)?;
    let mut diff_ids = image.config.rootfs.diff_ids.iter();
    let first = diff_ids.next()?.clone();
    let chain = diff_ids.fold(first, |below, diff_id| Digest::sha256(format!("{below} {diff_id}")));
    let manifest = identifier.rsplit_once('@').map(|(_, digest)| Digest::sha256(json::manifest(digest, platform)));
    let keys = std::iter::once(chain).chain(manifest);
    Some(keys.map(|key| Digest::sha256(format!("buildkit.source.v0:{key}"))).collect())
}

fn platform(vertex: &Vertex) -> Platform {
    vertex.op.platform.clone().unwrap_or_else(|| Platform::from(&kiln_oci::Platform::host()))
}

fn step(definition: &Definition, vertex: &Vertex, trees: &Trees) -> Option<Named> {
    let (json, reads) = match vertex.op.op.as_ref()? {
        OpKind::Exec(op) => {
            (json::exec(op, &platform(vertex))?, (0..vertex.inputs.len()).map(|input| mounted(op, input)).collect())
        }
        OpKind::File(op) => (json::file(op)?, copied(op, vertex.inputs.len())?),
        OpKind::Merge(op) => (json::merge(op), vec![Reads::default(); vertex.inputs.len()]),
        _ => return None,
    };
    let reads: Vec<Reads> = reads;
    let inputs = vertex.inputs.iter().zip(reads).map(|(from, reads)| {
        let local = definition.vertex(&from.vertex).and_then(|vertex| match &vertex.op.op {
            Some(OpKind::Source(source)) => source.identifier.strip_prefix("local://"),
            _ => None,
        });
        match local {
            None => Some(Input::Step { from: from.clone(), selector: reads.selector }),
            Some(name) => {
                let tree = Arc::clone(trees.get(name)?);
                Some(Input::Content { tree, paths: reads.paths?, seen: OnceLock::new() })
            }
        }
    });
    Some(Named::Step { digest: Digest::sha256(json), inputs: inputs.collect::<Option<_>>()? })
}

/// What a step reads of an input.
#[derive(Debug, Clone, Default)]
struct Reads {
    selector: String,
    /// The paths, when they name what is read.
    paths: Option<BTreeSet<String>>,
}

fn mounted(op: &ExecOp, input: usize) -> Reads {
    let is_file_system = |kind| matches!(kind, MountType::Bind | MountType::Cache);
    let mounts = op.mounts.iter().filter(|mount| mount.input == input as i64 && is_file_system(mount.mount_type()));
    let paths: Vec<String> = mounts.map(|mount| absolute(&mount.selector)).collect();
    if paths.is_empty() {
        return Reads::default();
    }
    let selector = Digest::sha256(paths.join("\0")).to_string();
    let whole = paths.iter().any(|path| path == "/");
    let paths = if whole { BTreeSet::from(["/".to_owned()]) } else { outermost(paths) };
    Reads { selector, paths: Some(paths) }
}

/// What a file op reads of each input; an input that is written on counts whole.
fn copied(op: &FileOp, inputs: usize) -> Option<Vec<Reads>> {
    let is_written = |input: usize| op.actions.iter().any(|action| action.input == input as i64);
    if op.actions.iter().any(|action| !owners_are_of_the_target(action)) {
        return None;
    }
    let reads = (0..inputs).map(|input| {
        let copies: Vec<&FileActionCopy> = op.actions.iter().filter_map(|action| copy_of(action, input)).collect();
        if copies.is_empty() || is_written(input) {
            return Reads::default();
        }
        let mut paths: Vec<&str> = copies.iter().map(|copy| copy.src.as_str()).collect();
        paths.sort_unstable();
        paths.reverse();
        let selector = Digest::sha256(paths.join("\0")).to_string();
        let has_pattern = |copy: &&FileActionCopy| {
            let is_wild = copy.allow_wildcard && copy.src.contains(['*', '?', '[', '\\']);
            is_wild || !copy.include_patterns.is_empty() || !copy.exclude_patterns.is_empty() || !copy.follow_symlink
        };
        let names = copies.iter().map(|copy| copy.src.clone()).collect();
        Reads { selector, paths: (!copies.iter().any(has_pattern)).then(|| outermost(names)) }
    });
    Some(reads.collect())
}

fn copy_of(action: &FileAction, input: usize) -> Option<&FileActionCopy> {
    match &action.action {
        Some(FileActionKind::Copy(copy)) if action.secondary_input == input as i64 => Some(copy),
        _ => None,
    }
}

/// Owners by name are looked up in what is written on, which counts whole; elsewhere they would be read too.
fn owners_are_of_the_target(action: &FileAction) -> bool {
    use kiln_graph::llb::UserKind;
    let owner = match &action.action {
        Some(FileActionKind::Copy(op)) => op.owner.as_ref(),
        Some(FileActionKind::MkDir(op)) => op.owner.as_ref(),
        Some(FileActionKind::MkFile(op)) => op.owner.as_ref(),
        _ => None,
    };
    let names = owner.into_iter().flat_map(|owner| [&owner.user, &owner.group]).flatten();
    names.into_iter().all(|name| match &name.user {
        Some(UserKind::ByName(named)) => named.input == action.input,
        _ => true,
    })
}

fn absolute(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

/// The paths that are in none of the others.
fn outermost(paths: Vec<String>) -> BTreeSet<String> {
    let all: BTreeSet<String> = paths.into_iter().collect();
    let is_below = |path: &str, other: &str| {
        path != other && path.starts_with(&if other.ends_with('/') { other.to_owned() } else { format!("{other}/") })
    };
    all.iter().filter(|path| !all.iter().any(|other| is_below(path, other))).cloned().collect()
}

/// The record of what is read of a local directory; nothing when it cannot be read, which is for its step to say.
fn content(tree: &LocalTree, paths: &BTreeSet<String>, seen: &OnceLock<Option<Digest>>) -> Option<Digest> {
    let see = || {
        let digests = paths.iter().map(|path| Some(kiln_fs::tarsum(tree.tree(), path).ok()?.to_string()));
        let digest = Digest::sha256(digests.collect::<Option<Vec<String>>>()?.join("\0"));
        Some(Digest::sha256(format!("{digest}@-1")))
    };
    seen.get_or_init(see).clone()
}

#[cfg(test)]
mod tests;
