//! Moves what goes out of sight, in microseconds each; removing comes later.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_oci::Digest;

use super::mark::Marked;
use super::{PruneReport, PrunedKind};
use crate::clean::{disk_usage, remove_dir};
use crate::error::{IoContext as _, Result};
use crate::layout::Layout;
use crate::lease::{Lease, Live};
use crate::lock;
use crate::snapshot::LayerId;

/// Where things go before they are removed.
pub(super) struct Graves<'a> {
    layout: &'a Layout,
    lease: &'a Lease,
    dry_run: bool,
    dug: Vec<PathBuf>,
    /// What nobody has measured, by its place in the report.
    unmeasured: Vec<(usize, PathBuf)>,
}

impl<'a> Graves<'a> {
    pub(super) fn new(layout: &'a Layout, lease: &'a Lease, dry_run: bool) -> Self {
        Self { layout, lease, dry_run, dug: Vec::new(), unmeasured: Vec::new() }
    }

    /// What a process left when it died: work, ingests and temporary files of leases that are not live. Content that
    /// broke off is spared when somebody goes on with it, and when it is younger than `spared`.
    pub(super) fn bury_leftovers(&mut self, live: &Live, spared: Duration, report: &mut PruneReport) -> Result<()> {
        for dir in [self.layout.work(), self.layout.ingest(), self.layout.tmp()] {
            for name in names(&dir)? {
                let Some(text) = name.to_str().filter(|text| !live.owns(text)) else { continue };
                let path = dir.join(text);
                if is_partial(text) && (is_younger(&path, spared) || lock::is_held(&path)?) {
                    continue;
                }
                self.bury_leftover(&path, text, report)?;
            }
        }
        Ok(())
    }

    /// What was moved into place but got no row, its process having died in between.
    pub(super) fn bury_orphans(&mut self, live: &Live, marked: &Marked, report: &mut PruneReport) -> Result<()> {
        let layers = self.layout.layers();
        for name in names(&layers)? {
            let Some(id) = name.to_str().and_then(|text| text.parse::<LayerId>().ok()) else { continue };
            if !marked.known_layers.contains(id.as_str()) && !live.layers.contains(&id) {
                self.bury_leftover(&layers.join(id.as_str()), id.as_str(), report)?;
            }
        }
        let blobs = self.layout.blobs();
        for name in names(&blobs)? {
            let digest = name.to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            let Some(digest) = digest else { continue };
            if !marked.known_blobs.contains(digest.as_str()) && !live.blobs.contains(&digest) {
                self.bury_leftover(&blobs.join(digest.hex()), digest.as_str(), report)?;
            }
        }
        Ok(())
    }

    /// What lost its row just now.
    pub(super) fn bury(&mut self, marked: Marked, report: &mut PruneReport) -> Result<()> {
        for id in marked.images {
            report.add(PrunedKind::Image, id, 0);
        }
        for key in marked.results {
            report.add(PrunedKind::Result, key, 0);
        }
        for (layer, bytes) in marked.layers {
            report.add(PrunedKind::Layer, layer.as_str(), bytes);
            self.dig(&self.layout.layer(&layer))?;
        }
        for (digest, bytes) in marked.blobs {
            report.add(PrunedKind::Blob, digest.as_str(), bytes);
            self.dig(&self.layout.blob(&digest))?;
        }
        for (name, bytes) in marked.foreign {
            report.add(PrunedKind::Foreign, name, bytes);
        }
        (report.left, report.named) = (marked.left, marked.named);
        Ok(())
    }

    /// Removes what was buried, when nobody waits any more. What is left at `until` is left to the next sweep.
    pub(super) fn empty(self, report: &mut PruneReport, until: Option<Instant>) -> Result<()> {
        for (place, path) in self.unmeasured {
            report.items[place].bytes = disk_usage(&path);
        }
        let is_late = || until.is_some_and(|until| Instant::now() >= until);
        self.dug.iter().take_while(|_| !is_late()).try_for_each(|grave| remove_dir(grave))
    }

    /// Its size is asked later: walking a large tree takes long.
    fn bury_leftover(&mut self, path: &Path, id: &str, report: &mut PruneReport) -> Result<()> {
        self.dig(path)?;
        let now = if self.dry_run { path } else { self.dug.last().map_or(path, PathBuf::as_path) };
        self.unmeasured.push((report.items.len(), now.to_owned()));
        report.add(PrunedKind::Leftover, id, 0);
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
    fn dig(&mut self, path: &Path) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        let grave = self.layout.tmp().join(self.lease.fresh_name());
        match std::fs::rename(path, &grave) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            outcome => outcome.context("rename", path)?,
        }
        self.dug.push(grave);
        Ok(())
    }
}

/// Whether it is the name of content that may be continued.
fn is_partial(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
fn is_younger(path: &Path, age: Duration) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|file| file.modified());
    modified.is_ok_and(|modified| modified.elapsed().unwrap_or_default() < age)
}

#[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
fn names(dir: &Path) -> Result<Vec<OsString>> {
    let entries = std::fs::read_dir(dir).context("list", dir)?;
    entries.map(|entry| Ok(entry.context("list", dir)?.file_name())).collect()
}
