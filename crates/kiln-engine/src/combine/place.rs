//! Where images are that are joined or looked at: in registries, or in layout directories.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use kiln_image::{BlobSource, ErrorKind, Layout, Selector, fetch_document};
use kiln_oci::{Descriptor, Digest, Document, Reference};
use kiln_report::{Failure, FailureKind};

use crate::engine::Engine;
use crate::failure::registry;
use crate::job::Result;

const LAYOUT: &str = "oci-layout://";

/// Where an image is, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePlace {
    /// In a registry.
    Registry(Reference),
    /// In a layout directory: `oci-layout://DIR`, with `:TAG` or `@DIGEST`.
    Layout {
        /// The directory.
        dir: PathBuf,
        /// Its tag there, or its name.
        tag: Option<String>,
        /// Its digest.
        digest: Option<Digest>,
    },
}

impl ImagePlace {
    /// The repository or directory, without what the image is called in it.
    pub fn repository(&self) -> String {
        match self {
            Self::Registry(reference) => reference.name(),
            Self::Layout { dir, .. } => format!("{LAYOUT}{}", dir.display()),
        }
    }

    /// The same repository or directory, and in it the image of a digest.
    pub fn at(&self, digest: Digest) -> Self {
        match self {
            Self::Registry(reference) => {
                Self::Registry(Reference { tag: None, ..reference.clone() }.with_digest(digest))
            }
            Self::Layout { dir, .. } => Self::Layout { dir: dir.clone(), tag: None, digest: Some(digest) },
        }
    }

    /// What the image is, and its document.
    pub(super) async fn resolve(&self, engine: &Engine) -> Result<(Descriptor, Document)> {
        match self {
            Self::Registry(reference) => {
                let resolved = engine.registry().client().resolve(reference).await.map_err(registry)?;
                Ok((resolved.descriptor, resolved.document))
            }
            Self::Layout { dir, tag, digest } => {
                let layout = Layout::open(dir).await.map_err(registry)?;
                let found = find(&layout, tag.as_deref(), digest.as_ref()).await.map_err(registry)?;
                let document = fetch_document(&layout, &found).await.map_err(registry)?;
                Ok((Descriptor::new(found.media_type, found.digest, found.size), document))
            }
        }
    }

    /// Where its documents and blobs are read from.
    pub(super) async fn source(&self, engine: &Engine) -> Result<Arc<dyn BlobSource>> {
        match self {
            Self::Registry(reference) => Ok(Arc::new(engine.registry().client().source(reference))),
            Self::Layout { dir, .. } => Ok(Arc::new(open(dir).await?)),
        }
    }
}

async fn open(dir: &Path) -> Result<Layout> {
    Layout::open(dir).await.map_err(registry)
}

/// By its digest or tag; without either, what is called `latest`, or the only one.
async fn find(layout: &Layout, tag: Option<&str>, digest: Option<&Digest>) -> kiln_image::Result<Descriptor> {
    if let Some(digest) = digest {
        return layout.resolve(&Selector::Digest(digest.clone())).await;
    }
    match layout.resolve(&Selector::Name(tag.unwrap_or("latest").to_owned())).await {
        Err(error) if tag.is_none() && error.kind() == ErrorKind::NotFound => layout.resolve(&Selector::Only).await,
        found => found,
    }
}

impl FromStr for ImagePlace {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |error: &(dyn std::error::Error + 'static)| Failure::from_error(FailureKind::Usage, error);
        let Some(place) = text.strip_prefix(LAYOUT) else {
            return text.parse().map(Self::Registry).map_err(|error: kiln_oci::ReferenceError| wrong(&error));
        };
        let (place, digest) = match place.rsplit_once('@') {
            Some((place, digest)) => {
                (place, Some(digest.parse().map_err(|error: kiln_oci::DigestError| wrong(&error))?))
            }
            None => (place, None),
        };
        let (dir, tag) = Layout::split(place);
        if dir.as_os_str().is_empty() {
            return Err(Failure::new(FailureKind::Usage, format!("`{text}` names no directory")));
        }
        Ok(Self::Layout { dir: dir.into(), tag: tag.map(str::to_owned), digest })
    }
}

impl fmt::Display for ImagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout { tag, digest, .. } => {
                f.write_str(&self.repository())?;
                tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
                digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_from_registries() {
        let digest = Digest::sha256("x");
        for (text, repository, shown) in [
            ("r/a".to_owned(), "docker.io/r/a", "docker.io/r/a:latest"),
            ("oci-layout://d".into(), "oci-layout://d", "oci-layout://d"),
            ("oci-layout:///d:x/e:1".into(), "oci-layout:///d:x/e", "oci-layout:///d:x/e:1"),
            (format!("oci-layout:///d:1@{digest}"), "oci-layout:///d", &format!("oci-layout:///d:1@{digest}")),
        ] {
            let place: ImagePlace = text.parse().unwrap();
            assert_eq!((place.repository().as_str(), place.to_string().as_str()), (repository, shown), "{text}");
            assert_eq!(place.at(digest.clone()).to_string(), format!("{repository}@{digest}"));
        }
        for text in ["oci-layout://", "oci-layout://:1", "oci-layout://d@x", "A"] {
            assert_eq!(text.parse::<ImagePlace>().unwrap_err().kind, FailureKind::Usage, "{text}");
        }
    }
}
