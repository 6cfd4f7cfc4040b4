//! Caches in OCI layout directories.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_image::{BlobSource, CopyOptions, Either, Layout, Selector, Swept, copy_graph, fetch_document};
use kiln_oci::Platform;

use crate::export::meter;
use crate::failure::registry;
use crate::job::Result;
use crate::progress::Work;
use crate::remote::manifest::{Shape, documents, read};
use crate::remote::records::Packed;
use crate::remote::{CacheSink, CacheSource, Found};
use crate::request::CacheEntry;

/// A cache to read.
pub(super) struct Source {
    dir: PathBuf,
    entry: CacheEntry,
}

impl Source {
    /// Reads one entry of a directory.
    pub(super) fn new(dir: PathBuf, entry: CacheEntry) -> Self {
        Self { dir, entry }
    }
}

#[async_trait]
impl CacheSource for Source {
    fn name(&self) -> String {
        match &self.entry {
            CacheEntry::Tag(tag) if tag == "latest" => self.dir.display().to_string(),
            CacheEntry::Tag(tag) => format!("{}:{tag}", self.dir.display()),
            CacheEntry::Digest(digest) => format!("{}@{digest}", self.dir.display()),
        }
    }

    async fn read(&self, platforms: &[Platform]) -> Result<Found> {
        let layout = Layout::open(&self.dir).await.map_err(registry)?;
        let selector = match &self.entry {
            CacheEntry::Tag(tag) => Selector::Name(tag.clone()),
            CacheEntry::Digest(digest) => Selector::Digest(digest.clone()),
        };
        let root = layout.resolve(&selector).await.map_err(registry)?;
        let document = fetch_document(&layout, &root).await.map_err(registry)?;
        Ok(Found { caches: read(document, &layout, platforms).await?, blobs: Arc::new(layout) })
    }
}

/// A cache to write.
pub(super) struct Sink {
    dir: PathBuf,
    tag: String,
    reset: bool,
    shape: Shape,
}

impl Sink {
    /// Writes into a directory, under a tag.
    pub(super) fn new((dir, tag): (PathBuf, String), reset: bool, shape: Shape) -> Self {
        Self { dir, tag, reset, shape }
    }
}

#[async_trait]
impl CacheSink for Sink {
    fn title(&self) -> String {
        format!("exporting cache to client directory {}", self.dir.display())
    }

    #[expect(clippy::disallowed_methods, reason = "whoever runs us names where the cache is")]
    async fn write(&self, cache: Packed, blobs: &dyn BlobSource, work: &Work) -> Result<()> {
        let (documents, root) = documents(&cache, self.shape);
        let layout = Layout::create(&self.dir).await.map_err(|error| {
            let failure = registry(error);
            let is_dir = self.dir.is_dir();
            if is_dir { failure } else { failure.hint("name a directory with `dest=DIR` of `--cache-to type=local`") }
        })?;
        let options = CopyOptions { progress: Some(meter(work)), ..CopyOptions::default() };
        let sink = layout.tagged_sink(&self.tag).await.map_err(registry)?;
        copy_graph(&Either(&documents, blobs), &sink, &root, &options).await.map_err(registry)?;
        work.part(format!("writing cache manifest {}", root.digest));
        if self.reset {
            drop(sink);
            work.part(match layout.sweep().await.map_err(registry)? {
                Swept::Removed(count) => format!("removing {count} blobs that no cache needs"),
                Swept::InUse => "removing no blobs: another export is writing into the directory".into(),
            });
        }
        Ok(())
    }
}
