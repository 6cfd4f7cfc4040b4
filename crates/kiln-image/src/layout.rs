//! OCI image layouts: directories of blobs and one `index.json` (OCI image-spec, image-layout.md).

mod sink;
mod sweep;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kiln_oci::{Descriptor, Digest, Index, MediaType, Raw, Reference};
use tokio::io::AsyncSeekExt as _;

pub use self::sink::LayoutSink;
use self::sink::Pointers;
pub use self::sweep::Swept;
use crate::{BlobReader, BlobSource, Error, Result, limits, regular};

/// The annotation that holds an image's full name.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation that holds its tag; some tools put the full name here.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What `oci-layout` says.
pub(crate) const LAYOUT_VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// A layout directory.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
}

/// One entry of a layout's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutEntry {
    /// What it points at.
    pub descriptor: Descriptor,
    /// The image's full name, if it has one.
    pub name: Option<String>,
    /// Its tag, if it has one.
    pub tag: Option<String>,
}

/// Which entry is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The only one there is.
    Only,
    /// The one of this tag or full name.
    Name(String),
    /// The one of this digest, whether the index names it or not.
    Digest(Digest),
}

impl Layout {
    /// Opens a layout that is there.
    pub async fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("oci-layout");
        let text = read_small(&path, 4096).await?;
        let version: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        match version["imageLayoutVersion"].as_str() {
            Some(v) if v == "1" || v.starts_with("1.") => Ok(Self { dir: dir.to_owned() }),
            _ => Err(Error::invalid(format!("open layout `{}`", dir.display()), "its `oci-layout` is not version 1")),
        }
    }

    /// Opens a layout, making it first if it is not there.
    pub async fn create(dir: &Path) -> Result<Self> {
        let marker = dir.join("oci-layout");
        if tokio::fs::try_exists(&marker).await.unwrap_or(false) {
            return Self::open(dir).await;
        }
        let layout = Self { dir: dir.to_owned() };
        let make = move || {
            layout.make_blobs()?;
            let _lock = layout.lock()?;
            let index = layout.dir.join("index.json");
            // Another may have made it, and pointed it at an image.
            if !index.exists() {
                replace(&index, Raw::new(empty_index()).bytes())?;
            }
            // Last, because it is what makes the directory a layout.
            replace(&marker, LAYOUT_VERSION.as_bytes())?;
            Ok(layout)
        };
        tokio::task::spawn_blocking(make).await.expect("making a layout does not panic")
    }

    /// Makes the directory of blobs. A link there leads to what is no part of the layout, and is refused.
    fn make_blobs(&self) -> Result<()> {
        let (blobs, sha256) = (self.dir.join("blobs"), self.dir.join("blobs/sha256"));
        for path in [&blobs, &sha256] {
            if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_dir()) {
                return Err(Error::file("write into", path)(std::io::ErrorKind::NotADirectory.into()));
            }
        }
        std::fs::create_dir_all(&sha256).map_err(Error::file("make directory", &sha256))
    }

    /// Tells a directory from the name of an image behind it, as in `DIR:TAG`. Where colons leave a choice, as in
    /// `DIR:docker.io/library/app:1`, what holds a layout is the directory.
    pub fn split(text: &str) -> (&Path, Option<&str>) {
        let plain = match text.rsplit_once(':') {
            Some((dir, tag)) if !tag.contains('/') => (Path::new(dir), Some(tag)),
            _ => (Path::new(text), None),
        };
        let colons = text.rmatch_indices(':');
        let others = colons.map(|(at, _)| (Path::new(&text[..at]), Some(&text[at + 1..])));
        let mut all = [plain, (Path::new(text), None)].into_iter().chain(others);
        all.find(|(dir, _)| dir.join("oci-layout").is_file()).unwrap_or(plain)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A sink that points these full image names, or nothing but the index, at the root of what is copied. As long as
    /// there is one, nothing is swept; one that is wanted during a sweep is waited for.
    pub async fn sink(&self, names: impl IntoIterator<Item = String>) -> Result<LayoutSink> {
        LayoutSink::open(self, Pointers::Names(names.into_iter().collect())).await
    }

    /// A sink that points this tag, which is no image's name, at the root of what is copied. See [`Layout::sink`].
    pub async fn tagged_sink(&self, tag: impl Into<String>) -> Result<LayoutSink> {
        LayoutSink::open(self, Pointers::Tag(tag.into())).await
    }

    /// The entries of the index.
    pub async fn entries(&self) -> Result<Vec<LayoutEntry>> {
        let path = self.dir.join("index.json");
        let bytes = read_small(&path, limits::DOCUMENT).await?;
        Ok(parse_index(&path.display().to_string(), bytes)?.manifests.into_iter().map(LayoutEntry::from).collect())
    }

    /// Finds an entry.
    pub async fn resolve(&self, selector: &Selector) -> Result<Descriptor> {
        let entries = self.entries().await?;
        let doing = || format!("find an image in layout `{}`", self.dir.display());
        let names = || {
            let shown = |e: &LayoutEntry| match (&e.tag, &e.name) {
                (Some(tag), Some(name)) if tag != name => Some(format!("`{tag}` (`{name}`, {})", e.descriptor.digest)),
                (tag, name) => tag.as_ref().or(name.as_ref()).map(|name| format!("`{name}`")),
            };
            entries.iter().filter_map(shown).collect::<Vec<_>>().join(", ")
        };
        let has = || if names().is_empty() { "no names".into() } else { names() };
        let unclear = |what: String| Error::Unclear { doing: doing(), reason: format!("{what}; it has {}", has()) };
        let host = || self.dir.display().to_string();
        match selector {
            Selector::Only => {
                let mut digests: Vec<_> = entries.iter().map(|e| &e.descriptor.digest).collect();
                digests.dedup();
                match digests.len() {
                    1 => Ok(entries[0].descriptor.clone()),
                    0 => Err(Error::Incomplete { doing: doing(), host: host(), message: ": it is empty".into() }),
                    _ => Err(unclear("it holds several images and none was named".into())),
                }
            }
            Selector::Name(name) => {
                let mut found: Vec<_> = entries.iter().filter(|e| e.is_named(name)).collect();
                found.dedup_by(|a, b| a.descriptor.digest == b.descriptor.digest);
                match found[..] {
                    [entry] => Ok(entry.descriptor.clone()),
                    [] => {
                        let message = format!(": there is no `{name}`; it has {}", has());
                        Err(Error::NotFound { doing: doing(), host: host(), message })
                    }
                    _ => Err(unclear(format!("`{name}` stands for several images"))),
                }
            }
            Selector::Digest(digest) => match entries.iter().find(|e| e.descriptor.digest == *digest) {
                Some(entry) => Ok(entry.descriptor.clone()),
                None => self.describe(digest).await,
            },
        }
    }

    /// The descriptor of a document that no index entry names; its type is what it says itself.
    async fn describe(&self, digest: &Digest) -> Result<Descriptor> {
        let path = self.blob_path(digest);
        let bytes = read_small(&path, limits::DOCUMENT).await?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let kind = match value["mediaType"].as_str() {
            Some(kind) => kind.to_owned(),
            None if value["manifests"].is_array() => MediaType::OCI_INDEX.to_owned(),
            None => MediaType::OCI_MANIFEST.to_owned(),
        };
        let descriptor = Descriptor::new(MediaType::new(kind), digest.clone(), bytes.len() as u64);
        crate::verify(&format!("read `{}`", path.display()), &descriptor, &bytes)?;
        Ok(descriptor)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        // A digest is validated: neither part can lead elsewhere.
        self.dir.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    fn not_found(&self, digest: &Digest) -> Error {
        Error::Incomplete {
            doing: format!("read blob `{digest}`"),
            host: self.dir.display().to_string(),
            message: String::new(),
        }
    }

    async fn open_blob(&self, descriptor: &Descriptor, offset: u64) -> Result<tokio::fs::File> {
        let path = self.blob_path(&descriptor.digest);
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => self.not_found(&descriptor.digest),
            _ => Error::file("read", &path)(error),
        };
        let doing = || format!("read blob `{}`", path.display());
        let opened = tokio::task::spawn_blocking({
            let path = path.clone();
            move || regular::open(&path)
        });
        let file = opened.await.expect("opening a file does not panic").map_err(failed)?;
        let file = file.ok_or_else(|| Error::invalid(doing(), "it is not a file"))?;
        let size = file.metadata().map_err(failed)?.len();
        if size != descriptor.size {
            return Err(Error::Size { doing: doing(), got: size.to_string(), want: descriptor.size });
        }
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(256 << 10);
        if offset > 0 {
            file.seek(std::io::SeekFrom::Start(offset)).await.map_err(failed)?;
        }
        Ok(file)
    }
}

#[async_trait]
impl BlobSource for Layout {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        let file = self.open_blob(descriptor, 0).await?;
        Ok(BlobReader::from_read(format!("read blob `{}`", descriptor.digest), descriptor, file))
    }
}

impl LayoutEntry {
    fn is_named(&self, name: &str) -> bool {
        let full = name.parse::<Reference>().ok().map(|reference| reference.to_string());
        let is = |text: &Option<String>| text.as_deref().is_some_and(|t| t == name || Some(t) == full.as_deref());
        is(&self.tag) || is(&self.name)
    }

    fn is_nameless(&self) -> bool {
        self.name.is_none() && self.tag.is_none()
    }
}

impl From<Descriptor> for LayoutEntry {
    fn from(descriptor: Descriptor) -> Self {
        let name = descriptor.annotations.get(IMAGE_NAME).cloned();
        let tag = descriptor.annotations.get(REF_NAME).cloned();
        Self { descriptor, name, tag }
    }
}

/// The index entries of an image: one for each name, annotated as containerd and BuildKit do; or one without.
pub(crate) fn named_entries(root: &Descriptor, names: &[String]) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![root.clone()];
    }
    let named = |name: &String| {
        let mut entry = root.clone();
        entry.annotations.insert(IMAGE_NAME.into(), name.clone());
        if let Some(tag) = name.parse::<Reference>().ok().and_then(|reference| reference.tag) {
            entry.annotations.insert(REF_NAME.into(), tag);
        }
        entry
    };
    names.iter().map(named).collect()
}

pub(crate) fn empty_index() -> Index {
    Index {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX.into()),
        manifests: Vec::new(),
        annotations: Default::default(),
    }
}

pub(crate) fn parse_index(place: &str, bytes: Vec<u8>) -> Result<Index> {
    let doing = format!("read index `{place}`");
    let document = kiln_oci::Document::parse(&MediaType::OCI_INDEX.into(), bytes);
    let document = document.map_err(|source| Error::Document { doing: doing.clone(), source })?;
    limits::validate(&document)?;
    match document {
        kiln_oci::Document::Index(index) => Ok(index.into_parts().1),
        kiln_oci::Document::Manifest(_) => Err(Error::invalid(doing, "it is no index")),
    }
}

async fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_small_now(&path, limit));
    read.await.expect("reading a file does not panic")
}

fn read_small_now(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::file("read", path)(error);
    let doing = || format!("read `{}`", path.display());
    let file = regular::open(path).map_err(failed)?.ok_or_else(|| Error::invalid(doing(), "it is not a file"))?;
    limits::check_size(&doing(), "the file", file.metadata().map_err(failed)?.len(), limit)?;
    let mut bytes = Vec::new();
    // It may have grown.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    limits::check_size(&doing(), "the file", bytes.len() as u64, limit)?;
    Ok(bytes)
}

/// Puts a file in place in one step.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().expect("files of a layout lie in a directory");
    let write = || -> std::io::Result<tempfile::NamedTempFile> {
        std::fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new().prefix(".part-").tempfile_in(dir)?;
        file.write_all(bytes)?;
        Ok(file)
    };
    publish(write().map_err(Error::file("write", path))?, path)
}

/// Gives a finished temporary file its name, readable as any exported file.
fn publish(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let publish = || -> std::io::Result<()> {
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.persist(path)?;
        Ok(())
    };
    publish().map_err(Error::file("write", path))
}
