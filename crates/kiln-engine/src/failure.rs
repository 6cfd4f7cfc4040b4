//! Turns the errors of the crates below into failures that say whose turn it is and the way out.

use std::error::Error;

use kiln_image::ErrorKind;
use kiln_report::{Failure, FailureKind};

/// The machine, network or disk is in the way.
pub(crate) fn environment(error: impl Error + 'static) -> Failure {
    ways_out(&error).fold(Failure::from_error(FailureKind::Environment, &error), Failure::hint)
}

/// The build cannot succeed as written.
pub(crate) fn build(error: impl Error) -> Failure {
    Failure::from_error(FailureKind::Build, &error)
}

/// The way out when a name leads to nothing.
pub(crate) const CHECK_NAME: &str = "check the spelling of the name and tag";
/// The way out when something lacks a part of itself.
const INCOMPLETE: &str = "have the image pushed, or its layout or archive written, anew: a part of it is missing";
/// The way out when something is not what it was said to be.
pub(crate) const DO_NOT_TRUST: &str = "its content is not what was announced: do not trust this source; have a file or layout \
     written anew, and take a mirror out of the settings of registries";

/// A failure of the exchange with a registry, layout or archive, with the way out that fits its kind.
pub(crate) fn registry(error: kiln_image::Error) -> Failure {
    told(&error, crate::offline::WAY_OUT)
}

/// The same, for who asks for the network by name.
pub(crate) fn sending(error: kiln_image::Error) -> Failure {
    told(&error, crate::offline::GO_ONLINE)
}

fn told(error: &kiln_image::Error, when_offline: &'static str) -> Failure {
    use kiln_image::Error as ImageError;
    exchange(error, |kind| match kind {
        _ if matches!(error, ImageError::Status { status: 413, .. }) => Some(
            "even small requests are too large for it: raise the limit at the registry, or at a proxy before it \
             (`client_max_body_size` of nginx)",
        ),
        _ if matches!(error, ImageError::Incomplete { .. }) => Some(INCOMPLETE),
        _ if matches!(error, ImageError::NoImages { .. }) => Some(
            "make an image of it if it is a tree of files: put it into a directory beside a Dockerfile with \
             `FROM scratch` and `ADD FILE /`, and run `kiln build`",
        ),
        _ if matches!(error, ImageError::NoPlatform { .. }) => Some("ask for one of those with `--platform`"),
        _ if matches!(error, ImageError::Unclear { .. }) => Some("write which one after it: `DIR:TAG` or `DIR@DIGEST`"),
        ErrorKind::Unauthorized => Some("log in with `kiln login`, and check that the account may use this repository"),
        ErrorKind::NotFound => Some(CHECK_NAME),
        ErrorKind::Lying => Some(DO_NOT_TRUST),
        ErrorKind::NotAsked => Some(when_offline),
        _ => None,
    })
}

/// A failure of the exchange with somebody elsewhere. `hint` knows the ways out that are special to them.
pub(crate) fn exchange(error: &kiln_image::Error, hint: impl Fn(ErrorKind) -> Option<&'static str>) -> Failure {
    let kind = match error.kind() {
        ErrorKind::Network | ErrorKind::RateLimited | ErrorKind::Environment | ErrorKind::NotAsked => {
            FailureKind::Environment
        }
        _ => FailureKind::Build,
    };
    let network = || (error.kind() == ErrorKind::Network).then_some("check the network, the host name and any proxy");
    let failure = Failure::from_error(kind, error);
    hint(error.kind()).or_else(network).into_iter().fold(failure, Failure::hint)
}

/// Puts what was being done before what went wrong.
pub(crate) trait Context<T> {
    /// `doing` says what could not be done, as in "cannot read the build context `…`".
    fn or_environment(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;

    /// The same, when the user's input is to blame.
    fn or_build(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Error + 'static> Context<T> for Result<T, E> {
    fn or_environment(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| wrap(FailureKind::Environment, doing(), &error))
    }

    fn or_build(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| wrap(FailureKind::Build, doing(), &error))
    }
}

/// What can be done about trouble with the machine, whoever met it.
fn ways_out(error: &(dyn Error + 'static)) -> impl Iterator<Item = &'static str> + use<> {
    use kiln_store::Error as StoreError;
    let stores: Vec<&StoreError> = chain(error).filter_map(|error| error.downcast_ref()).collect();
    let is = |kind: fn(&StoreError) -> bool| stores.iter().any(|error| kind(error));
    let repair = is(StoreError::is_damaged_index).then_some("run `kiln fsck --repair`");
    let elsewhere = is(StoreError::is_about_place).then_some("name another state directory with `--state`");
    let more_ids = chain(error).any(is_about_ids).then_some(
        "have root set more ids aside for you: `usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST USER`",
    );
    repair.into_iter().chain(elsewhere).chain(more_ids)
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| Error::source(*cause))
}

/// Whether an id was missing. Errors of files hold what caused them out of the chain's sight.
fn is_about_ids(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let known = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
    matches!(known, Some(kiln_sys::Error::NoId { .. }))
}

fn wrap(kind: FailureKind, message: String, error: &(dyn Error + 'static)) -> Failure {
    // Who has few ids cannot build what others can.
    let kind = if chain(error).any(is_about_ids) { FailureKind::Environment } else { kind };
    let inner = Failure::from_error(kind, error);
    let causes = std::iter::once(inner.message).chain(inner.causes).collect();
    ways_out(error).fold(Failure { message, causes, ..Failure::new(kind, "") }, Failure::hint)
}

#[cfg(test)]
mod tests {
    use kiln_image::{BlobSource as _, CopyOptions, Error as ImageError, Layout, MemoryBlobs, Selector, copy_graph};
    use kiln_oci::{Manifest, MediaType, Raw};

    use super::*;

    async fn written(dir: &std::path::Path, salt: &str) -> Layout {
        let (memory, layout) = (MemoryBlobs::new(), Layout::create(dir).await.unwrap());
        let config = memory.insert(MediaType::OCI_CONFIG, format!(r#"{{"author":"{salt}"}}"#).into_bytes());
        let manifest = Raw::new(Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OCI_MANIFEST.into()),
            artifact_type: None,
            config,
            layers: Vec::new(),
            subject: None,
            annotations: Default::default(),
        });
        let image = memory.insert(MediaType::OCI_MANIFEST, manifest.bytes().to_vec());
        let sink = layout.tagged_sink(salt).await.unwrap();
        copy_graph(&memory, &sink, &image, &CopyOptions::default()).await.unwrap();
        layout
    }

    #[tokio::test]
    async fn what_is_not_found_has_the_way_out_of_its_own_case() {
        let dir = tempfile::tempdir().unwrap();
        let layout = written(dir.path(), "a").await;
        let hint = |error: ImageError| registry(error).hints.join("; ");
        let find = async |name: &str| layout.resolve(&Selector::Name(name.into())).await;
        assert_eq!(hint(find("b").await.unwrap_err()), CHECK_NAME);
        let image = find("a").await.unwrap();
        std::fs::remove_file(dir.path().join("blobs/sha256").join(image.digest.hex())).unwrap();
        assert_eq!(hint(layout.fetch(&image).await.err().unwrap()), INCOMPLETE);
        written(dir.path(), "b").await;
        assert!(hint(layout.resolve(&Selector::Only).await.unwrap_err()).contains("`DIR:TAG`"));
        let absent = ImageError::NoPlatform { image: "a".into(), wanted: "linux/vax".into(), available: Vec::new() };
        assert!(hint(absent).contains("`--platform`"));
    }
}
