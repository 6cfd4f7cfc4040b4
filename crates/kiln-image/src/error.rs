//! What can go wrong between here and an image, with the host, the repository and the registry's own words.

use std::path::PathBuf;
use std::time::Duration;

use kiln_oci::{Digest, DocumentError};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What a caller may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The registry, layout or archive has no such thing.
    NotFound,
    /// A login is missing, wrong, or not enough (401 and 403).
    Unauthorized,
    /// The other side could not be reached, or broke off, or was too slow.
    Network,
    /// The other side asks us to come back later than we are willing to wait.
    RateLimited,
    /// Content is not what its digest, size or type says.
    Lying,
    /// Content is larger or deeper than we accept.
    TooLarge,
    /// The other side refused or could not be understood.
    Refused,
    /// Something on this machine: a file, a helper, the certificate store.
    Environment,
    /// Nobody is asked, because the user wants it so.
    NotAsked,
}

/// Says what could not be done. `doing` names the operation and its object: ``pull blob `x` of `host/repo` ``.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("cannot {doing}: not found on `{host}`{message}")]
    NotFound {
        /// The operation and its object.
        doing: String,
        /// Who said so.
        host: String,
        /// The registry's own words, with a separator before them.
        message: String,
    },
    /// What a document names is not where the document is.
    #[error("cannot {doing}: not found on `{host}`{message}")]
    Incomplete {
        /// The operation and its object.
        doing: String,
        /// Who should have it.
        host: String,
        /// The registry's own words, with a separator before them.
        message: String,
    },
    /// An archive of something else than images.
    #[error("cannot {doing}: it has neither `oci-layout` and `index.json` nor `manifest.json`")]
    NoImages {
        /// The operation and its object.
        doing: String,
    },
    /// One image is wanted, and there are several.
    #[error("cannot {doing}: {reason}")]
    Unclear {
        /// The operation and its object.
        doing: String,
        /// What there is.
        reason: String,
    },
    /// The credentials are missing, wrong or not enough.
    #[error("cannot {doing}: `{host}` answered {status}{message}")]
    Unauthorized {
        /// The operation and its object.
        doing: String,
        /// Who said so.
        host: String,
        /// 401 or 403.
        status: u16,
        /// Whether credentials were sent.
        tried: Login,
        /// The registry's own words, with a separator before them.
        message: String,
    },
    /// Any other answer that is no success.
    #[error("cannot {doing}: `{host}` answered {status}{message}")]
    Status {
        /// The operation and its object.
        doing: String,
        /// Who said so.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own words, with a separator before them.
        message: String,
    },
    /// The registry asks for more patience than we have.
    #[error("cannot {doing}: `{host}` answered {status} and asks to come back in {} s", .after.as_secs())]
    TryLater {
        /// The operation and its object.
        doing: String,
        /// Who said so.
        host: String,
        /// 429 or 503.
        status: u16,
        /// How long it asks us to wait.
        after: Duration,
    },
    /// No connection, or it broke.
    #[error("cannot {doing}: no answer from `{host}`")]
    Network {
        /// The operation and its object.
        doing: String,
        /// Who was called.
        host: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The transfer broke off before its end.
    #[error("cannot {doing}: `{host}` broke off after {received} bytes{}", of_total(.total))]
    BrokenOff {
        /// The operation and its object.
        doing: String,
        /// Who was called.
        host: String,
        /// How much came.
        received: u64,
        /// How much should have come.
        total: Option<u64>,
        /// Why, when the connection said.
        #[source]
        source: Option<Cause>,
    },
    /// Too little moved for too long.
    #[error("cannot {doing}: next to nothing moved between us and `{host}` for {} s", .window.as_secs())]
    Stalled {
        /// The operation and its object.
        doing: String,
        /// Who was called.
        host: String,
        /// How long we watched.
        window: Duration,
    },
    /// The digest does not match.
    #[error("cannot {doing}: digest mismatch: got `{got}`, want `{want}`")]
    Digest {
        /// The operation and its object.
        doing: String,
        /// What came.
        got: Digest,
        /// What was named.
        want: Digest,
    },
    /// The size does not match.
    #[error("cannot {doing}: size mismatch: got {got}, want {want} bytes")]
    Size {
        /// The operation and its object.
        doing: String,
        /// What came, or what was announced.
        got: String,
        /// What was named.
        want: u64,
    },
    /// More than we accept.
    #[error("cannot {doing}: {what} is over the limit of {limit}")]
    TooLarge {
        /// The operation and its object.
        doing: String,
        /// What is too large.
        what: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// The bytes are no manifest or index.
    #[error("cannot {doing}")]
    Document {
        /// The operation and its object.
        doing: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// Content contradicts itself or the specification.
    #[error("cannot {doing}: {reason}")]
    Invalid {
        /// The operation and its object.
        doing: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An index has nothing for a platform.
    #[error("`{image}` has no image for `{wanted}`; it has {}", list(.available))]
    NoPlatform {
        /// The image.
        image: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// We will not go there.
    #[error("cannot {doing}: refusing `{url}`: {reason}")]
    Forbidden {
        /// The operation and its object.
        doing: String,
        /// Where it would have led, without credentials.
        url: String,
        /// Why not.
        reason: &'static str,
    },
    /// The user does not want the other side asked.
    #[error("cannot {doing}: `{host}` is not asked")]
    NotAsked {
        /// The operation and its object.
        doing: String,
        /// Who would have been asked.
        host: String,
    },
    /// Stored credentials could not be read.
    #[error("cannot use credentials for `{host}`: {reason}")]
    Credentials {
        /// Whose.
        host: String,
        /// What is wrong, without any secret.
        reason: String,
    },
    /// A local file.
    #[error("cannot {doing} `{}`", .path.display())]
    File {
        /// `read`, `write`, …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A stream of the caller's.
    #[error("cannot {doing}")]
    Io {
        /// The operation and its object.
        doing: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// HTTP or TLS could not be set up.
    #[error("cannot set up https on this machine")]
    Setup {
        /// Why.
        #[source]
        source: Cause,
    },
}

/// Whether credentials were part of a refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// None are known for the host.
    Anonymous,
    /// Some were sent.
    Sent,
    /// Some are known, but the realm that asked for them lies on a host they are not meant for.
    Withheld {
        /// That realm's host.
        realm: String,
    },
}

fn of_total(total: &Option<u64>) -> String {
    total.map(|total| format!(" of {total}")).unwrap_or_default()
}

fn list(items: &[String]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// Which kind it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Incomplete { .. } | Self::Unclear { .. } | Self::NoPlatform { .. } => {
                ErrorKind::NotFound
            }
            Self::Unauthorized { .. } => ErrorKind::Unauthorized,
            Self::TryLater { .. } | Self::Status { status: 429, .. } => ErrorKind::RateLimited,
            Self::Status { status: 500.., .. }
            | Self::Network { .. }
            | Self::BrokenOff { .. }
            | Self::Stalled { .. } => ErrorKind::Network,
            Self::Status { .. } | Self::Forbidden { .. } => ErrorKind::Refused,
            Self::Digest { .. }
            | Self::Size { .. }
            | Self::Document { .. }
            | Self::Invalid { .. }
            | Self::NoImages { .. } => ErrorKind::Lying,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::NotAsked { .. } => ErrorKind::NotAsked,
            Self::Credentials { .. } | Self::File { .. } | Self::Io { .. } | Self::Setup { .. } => {
                ErrorKind::Environment
            }
        }
    }

    /// Takes an error of ours back out of the `io::Error` that carried it through an `AsyncRead`.
    pub fn from_io(doing: impl Into<String>, error: std::io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(source) => Self::Io { doing: doing.into(), source },
        }
    }

    /// Says who sent what proved wrong, where that is not who was asked by name.
    pub(crate) fn sent_by(mut self, place: &str) -> Self {
        if let Self::Digest { doing, .. }
        | Self::Size { doing, .. }
        | Self::Document { doing, .. }
        | Self::Invalid { doing, .. } = &mut self
        {
            doing.push_str(&format!(" from `{place}`"));
        }
        self
    }

    /// Says that what is not there is part of something that is.
    pub(crate) fn of_a_part(self) -> Self {
        match self {
            Self::NotFound { doing, host, message } => Self::Incomplete { doing, host, message },
            other => other,
        }
    }

    /// Says of a failed exchange that a mirror was asked before, and what came of it.
    pub(crate) fn after_mirror(mut self, name: &str, why: &str) -> Self {
        if let Self::NotFound { doing, .. }
        | Self::Incomplete { doing, .. }
        | Self::Unauthorized { doing, .. }
        | Self::Status { doing, .. }
        | Self::TryLater { doing, .. }
        | Self::Network { doing, .. }
        | Self::BrokenOff { doing, .. }
        | Self::Stalled { doing, .. } = &mut self
        {
            doing.push_str(&format!(" (mirror `{name}` was passed over: {why})"));
        }
        self
    }

    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    pub(crate) fn invalid(doing: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { doing: doing.into(), reason: reason.into() }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => std::io::ErrorKind::NotFound,
            ErrorKind::Lying | ErrorKind::TooLarge => std::io::ErrorKind::InvalidData,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_trip_through_io() {
        let error = Error::Size { doing: "read `x`".into(), got: "2".into(), want: 3 };
        let back = Error::from_io("read", std::io::Error::from(error));
        assert_eq!(back.kind(), ErrorKind::Lying);
        assert_eq!(back.to_string(), "cannot read `x`: size mismatch: got 2, want 3 bytes");
        let other = Error::from_io("read `y`", std::io::Error::other("disk"));
        assert_eq!(other.kind(), ErrorKind::Environment);
    }
}
