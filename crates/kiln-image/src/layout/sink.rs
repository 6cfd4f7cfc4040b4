//! Writes into a layout, side by side with others.

use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_oci::{Descriptor, Raw};
use tokio::io::AsyncWriteExt as _;

use super::{Layout, LayoutEntry, REF_NAME, named_entries, parse_index, publish, read_small_now, replace};
use crate::blob::Role;
use crate::{BlobReader, BlobSink, BlobSource, Error, Pushed, Result, limits};

/// How often a sweep is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// Writes into a layout.
#[derive(Debug, Clone)]
pub struct LayoutSink {
    layout: Layout,
    pointers: Pointers,
    /// Keeps out who sweeps: what is written, or found to be there, has nothing leading to it yet.
    _no_sweep: Arc<File>,
}

impl LayoutSink {
    pub(super) async fn open(layout: &Layout, pointers: Pointers) -> Result<Self> {
        layout.make_blobs()?;
        let blobs = layout.blobs()?;
        loop {
            match blobs.try_lock_shared() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
                Err(TryLockError::Error(error)) => return Err(Error::file("lock", &layout.dir)(error)),
            }
        }
        Ok(Self { layout: layout.clone(), pointers, _no_sweep: Arc::new(blobs) })
    }
}

/// What points at the root.
#[derive(Debug, Clone)]
pub(super) enum Pointers {
    Names(Vec<String>),
    Tag(String),
}

impl Pointers {
    fn entries(&self, root: &Descriptor) -> Vec<Descriptor> {
        match self {
            Self::Names(names) => named_entries(root, names),
            Self::Tag(tag) => {
                let mut entry = root.clone();
                entry.annotations.insert(REF_NAME.into(), tag.clone());
                vec![entry]
            }
        }
    }

    /// Whether an older entry is one of these.
    fn take(&self, entry: &LayoutEntry) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| entry.name.as_deref() == Some(name)),
            Self::Tag(tag) => entry.name.is_none() && entry.tag.as_deref() == Some(tag),
        }
    }
}

#[async_trait]
impl BlobSource for LayoutSink {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        self.layout.fetch(descriptor).await
    }
}

#[async_trait]
impl BlobSink for LayoutSink {
    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        // What cannot be read, or is not what its name says, is as good as not there: it is written anew.
        let Ok(mut reader) = self.layout.fetch(descriptor).await else { return Ok(false) };
        loop {
            match reader.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
    }

    async fn push(&self, descriptor: &Descriptor, from: &dyn BlobSource) -> Result<Pushed> {
        if self.has(descriptor).await? {
            return Ok(Pushed::Existing);
        }
        let path = self.layout.blob_path(&descriptor.digest);
        let dir = path.parent().expect("blobs lie in a directory").to_owned();
        let failed = Error::file("write", &path);
        let temporary = async {
            tokio::fs::create_dir_all(&dir).await?;
            tempfile::Builder::new().prefix(".part-").tempfile_in(&dir)
        };
        let temporary = temporary.await.map_err(failed)?;
        let mut reader = from.fetch(descriptor).await?;
        let handle = temporary.as_file().try_clone().map_err(Error::file("write", &path))?;
        let mut file = tokio::fs::File::from_std(handle);
        file.set_max_buf_size(1 << 20);
        while let Some(chunk) = reader.chunk().await? {
            file.write_all(&chunk).await.map_err(Error::file("write", &path))?;
        }
        file.flush().await.map_err(Error::file("write", &path))?;
        publish(temporary, &path)?;
        Ok(Pushed::Written)
    }

    async fn push_document(&self, descriptor: &Descriptor, bytes: &[u8], role: Role) -> Result<()> {
        let path = self.layout.blob_path(&descriptor.digest);
        crate::verify(&format!("write `{}`", path.display()), descriptor, bytes)?;
        if !self.has(descriptor).await? {
            replace(&path, bytes)?;
        }
        if role == Role::Root {
            self.layout.point(&self.pointers, descriptor).await?;
        }
        Ok(())
    }
}

impl Layout {
    /// What is locked against sweeps: shared by who writes, alone by who sweeps. The lock goes with the descriptor.
    pub(super) fn blobs(&self) -> Result<File> {
        let dir = self.dir.join("blobs");
        File::open(&dir).map_err(Error::file("open", &dir))
    }

    /// Several who write one index take turns. The lock goes with the descriptor.
    pub(super) fn lock(&self) -> Result<File> {
        let dir = File::open(&self.dir).map_err(Error::file("open", &self.dir))?;
        dir.lock().map_err(Error::file("lock", &self.dir))?;
        Ok(dir)
    }

    /// Adds entries for a root whose content is all there; takes its names away from others.
    async fn point(&self, pointers: &Pointers, root: &Descriptor) -> Result<()> {
        let (layout, root, pointers) = (self.clone(), root.clone(), pointers.clone());
        let update = move || {
            let _lock = layout.lock()?;
            let path = layout.dir.join("index.json");
            let bytes = read_small_now(&path, limits::DOCUMENT)?;
            let mut index = parse_index(&path.display().to_string(), bytes)?;
            let added = pointers.entries(&root);
            index.manifests.retain(|old| {
                let entry = LayoutEntry::from(old.clone());
                let doubled = added.contains(old) || (old.digest == root.digest && entry.is_nameless());
                !pointers.take(&entry) && !doubled
            });
            index.manifests.extend(added);
            replace(&path, Raw::new(index).bytes())
        };
        tokio::task::spawn_blocking(update).await.expect("updating an index does not panic")
    }
}
