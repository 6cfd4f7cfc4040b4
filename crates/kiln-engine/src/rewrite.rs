//! Times in images: the layers that a build made, with other modification times. Layers of bases stay as they are.

use std::io::{PipeWriter, Write};
use std::sync::Arc;

use kiln_fs::layer::{self, PackOptions, Times};
use kiln_fs::{Limits, layer::PackStats};
use kiln_oci::{Digest, Hasher};
use kiln_report::Event;
use kiln_store::{LayerId, Lease, Snapshot, Store};

use crate::base::held_layer;
use crate::blocking::blocking;
use crate::failure::{Context as _, environment};
use crate::job::{Job, Result};
use crate::request::{BuildRequest, Rewrite};
use crate::scratch::{Scratch, open_dir};

/// Facts about layers: the digest they have with other times.
const REWRITTEN: &str = "rewritten layer";

/// What becomes of times by this request, once it is known which time stands for all.
pub(crate) fn times(request: &BuildRequest, epoch: Option<i64>) -> Times {
    match (request.rewrite, epoch) {
        (_, Some(epoch)) if request.reproducible => Times::Exactly(epoch),
        (Rewrite::Exactly, Some(epoch)) => Times::Exactly(epoch),
        (Rewrite::NotAfter, Some(epoch)) => Times::NotAfter(epoch),
        (Rewrite::Never, _) | (_, None) => Times::Keep,
    }
}

/// The time that stands for all others, if one does; `of_file` is what the Dockerfile says.
pub(crate) fn epoch(request: &BuildRequest, of_file: Option<i64>) -> Option<i64> {
    request.source_date_epoch.or(of_file).or(request.reproducible.then_some(0))
}

/// Whether layers are to have other times.
pub(crate) fn is_asked(request: &BuildRequest) -> bool {
    request.reproducible || request.rewrite != Rewrite::Never
}

/// The snapshot with new times in its new layers.
pub(crate) async fn rewrite(
    job: &Arc<Job>,
    request: &BuildRequest,
    (snapshot, epoch): (&Snapshot, Option<i64>),
) -> Result<Snapshot> {
    let times = times(request, epoch);
    if times == Times::Keep {
        if request.rewrite != Rewrite::Never {
            let note = "warning: times are not rewritten: there is no `SOURCE_DATE_EPOCH` to rewrite them to";
            job.reporter.report(Event::Note(note.into()));
        }
        return Ok(snapshot.clone());
    }
    let base = base_layers(job, snapshot)?;
    let mut layers = Vec::with_capacity(snapshot.layers().len());
    for (index, layer) in snapshot.layers().iter().cloned().enumerate() {
        let (store, lease) = (job.store.clone(), job.lease.clone());
        let work = move || if index < base { Ok(layer) } else { rewritten(&store, &lease, &layer, times) };
        layers.push(tokio::spawn(blocking(work)));
    }
    let mut made = Vec::with_capacity(layers.len());
    for layer in layers {
        made.push(layer.await.map_err(environment)??);
    }
    Ok(Snapshot::new(made))
}

/// How many layers, from the bottom, came with a base image: the longest one that the snapshot begins with.
pub(crate) fn base_layers(job: &Job, snapshot: &Snapshot) -> Result<usize> {
    let diff_id = |layer: &LayerId| job.store.layer(layer).map(|info| info.diff_id).map_err(environment);
    let diff_ids = snapshot.layers().iter().map(diff_id).collect::<Result<Vec<_>>>()?;
    let begins_with = |base: &[Digest]| {
        base.len() <= diff_ids.len() && base.iter().zip(&diff_ids).all(|(base, own)| own.as_ref() == Some(base))
    };
    let bases = job.images.layers();
    Ok(bases.iter().filter(|base| begins_with(base)).map(Vec::len).max().unwrap_or_default())
}

/// A layer with the same files and other times; the layer itself when its times are these.
fn rewritten(store: &Store, lease: &Lease, layer: &LayerId, times: Times) -> Result<LayerId> {
    let doing = || format!("cannot rewrite the times of layer `{layer}`");
    let key = format!("{layer} {times:?}");
    let known = store.records().get_fact(REWRITTEN, &key).ok().flatten();
    let known = known.and_then(|digest| String::from_utf8(digest).ok()?.parse::<Digest>().ok());
    if let Some(known) = known
        && let Some(held) = held_layer(store, lease, &known)?
        && let Some(layer) = held.layers().first()
    {
        return Ok(layer.clone());
    }
    let from = open_dir(&store.layer_dir(layer))?;
    if layer::has_times(&from, times).or_environment(doing)? {
        return Ok(layer.clone());
    }
    let tree = Scratch::layer(store, lease)?;
    let into = open_dir(&tree.tree())?;
    let (reader, writer) = std::io::pipe().or_environment(doing)?;
    let (packed, unpacked) = std::thread::scope(|scope| {
        let packing = scope.spawn(|| pack(&from, writer, times));
        let unpacked = layer::apply(reader, &into, &Limits::of_known());
        (packing.join(), unpacked)
    });
    // When unpacking fails, packing only meets a pipe that nobody reads.
    unpacked.or_environment(doing)?;
    let packed =
        packed.map_err(|_| environment(std::io::Error::other("a thread died"))).and_then(|p| p.or_environment(doing));
    let (stats, diff_id) = packed?;
    let unpacked = kiln_store::Unpacked { diff_id: &diff_id, size: stats.content, blob: None };
    let made = store.commit_layer(tree.take(), &unpacked).or_environment(doing)?;
    store.records().put_fact(REWRITTEN, &key, diff_id.as_str().as_bytes());
    Ok(made)
}

fn pack(from: &kiln_sys::root::Root, into: PipeWriter, times: Times) -> layer::Result<(PackStats, Digest)> {
    let mut out = Hashed { inner: std::io::BufWriter::with_capacity(64 << 10, into), hasher: Hasher::new() };
    let stats = layer::pack_with(from, &mut out, &PackOptions { whiteouts: true, times, ..PackOptions::default() })?;
    out.flush().map_err(|source| layer::LayerError::Write { source })?;
    Ok((stats, out.hasher.finish()))
}

struct Hashed<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.inner.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// A layer with a file of each time.
    fn layer(store: &Store, lease: &Lease, times: &[(&str, u64)]) -> LayerId {
        let tree = Scratch::upon(store, None, lease).unwrap();
        for (name, secs) in times {
            let path = tree.upper_dir().join(name);
            std::fs::write(&path, *name).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::new(*secs, 5);
            std::fs::File::open(path).unwrap().set_modified(time).unwrap();
        }
        tree.commit().unwrap().layers()[0].clone()
    }

    fn mtimes(store: &Store, layer: &LayerId) -> Vec<(i64, i64)> {
        let look = |name| std::fs::metadata(store.layer_dir(layer).join(name)).unwrap();
        ["new", "old"].map(look).iter().map(|file| (file.mtime(), file.mtime_nsec())).collect()
    }

    #[test]
    fn new_times_make_another_layer_once_and_the_first_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let lease = store.lease().unwrap();
        let one = layer(&store, &lease, &[("new", 100), ("old", 5)]);
        let clamped = rewritten(&store, &lease, &one, Times::NotAfter(10)).unwrap();
        assert_eq!(mtimes(&store, &clamped), [(10, 0), (5, 5)]);
        assert_eq!(mtimes(&store, &one), [(100, 5), (5, 5)]);
        assert_eq!(rewritten(&store, &lease, &one, Times::NotAfter(10)).unwrap(), clamped, "it is known");
        let exact = rewritten(&store, &lease, &one, Times::Exactly(10)).unwrap();
        assert_eq!(mtimes(&store, &exact), [(10, 0), (10, 0)]);
        assert_eq!(rewritten(&store, &lease, &one, Times::NotAfter(1000)).unwrap(), one, "nothing is newer");
        assert_eq!(rewritten(&store, &lease, &exact, Times::Exactly(10)).unwrap(), exact);
        // What it is called is what its tar is.
        let mut tar = Vec::new();
        layer::pack(&open_dir(&store.layer_dir(&clamped)).unwrap(), &mut tar).unwrap();
        assert_eq!(store.layer(&clamped).unwrap().diff_id, Some(Digest::sha256(&tar)));
    }

    #[test]
    fn two_layers_that_differ_in_new_times_alone_are_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let lease = store.lease().unwrap();
        let made = [100, 200].map(|secs| {
            let layer = layer(&store, &lease, &[("new", secs), ("old", 5)]);
            rewritten(&store, &lease, &layer, Times::NotAfter(10)).unwrap()
        });
        assert_eq!(made[0], made[1]);
    }
}
