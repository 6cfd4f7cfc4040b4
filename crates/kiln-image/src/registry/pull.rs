//! Reading from a registry: manifests by tag or digest, blobs as verified streams.

use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use kiln_oci::{Descriptor, Digest, Document, MediaType, Reference};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, StatusCode};

use super::{Access, RegistryClient, Resolved, TRIES, Target};
use crate::http::{Opener, Patience, Reply, Transfer, answer_bytes, is_worth_retrying, status_error};
use crate::settings::Place;
use crate::verify::Verifier;
use crate::{BlobReader, Error, ErrorKind, Result, limits};

const ACCEPTED: &str = concat!(
    "application/vnd.oci.image.index.v1+json, ",
    "application/vnd.docker.distribution.manifest.list.v2+json, ",
    "application/vnd.oci.image.manifest.v1+json, ",
    "application/vnd.docker.distribution.manifest.v2+json"
);

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

impl RegistryClient {
    /// Reads what a reference points at. A digest in the reference must match; without one, the digest found is the
    /// digest of the bytes; a registry that says it is another has sent something else.
    ///
    /// Content that is not what a digest says is asked for again: a flipped bit on the way is not a lie.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let doing = format!("pull manifest `{reference}`");
        let read = |announced: Option<MediaType>, bytes: Vec<u8>| {
            let unknown = || Error::invalid(&doing, "the registry does not say its type");
            let media_type = announced.or_else(|| inner_type(&bytes)).ok_or_else(unknown)?;
            let mut descriptor = Descriptor::of(media_type, &bytes);
            if let Some(pin) = &reference.digest {
                descriptor.digest = pin.clone();
                crate::verify(&doing, &descriptor, &bytes)?;
            }
            let document = Document::parse(&descriptor.media_type, bytes)
                .map_err(|source| Error::Document { doing: doing.clone(), source })?;
            limits::validate(&document)?;
            Ok(Resolved { reference: reference.clone(), descriptor, document })
        };
        self.manifest(reference, reference.tag_or_digest(), (&doing, &read)).await
    }

    /// Asks what a reference points at, without reading it: cheap, and not counted as a pull. What it says is the
    /// registry's word only; `None` when it has none.
    pub async fn peek(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let doing = format!("look up `{reference}`");
        let mut places = self.places(reference, reference.digest.as_ref(), &doing)?;
        loop {
            let place = places.next().expect("the registry itself is the last");
            match self.peek_at(&place, reference.tag_or_digest(), &doing).await {
                Err(error) if places.len() > 0 => self.pass_over(&place, &error),
                found => return found.map_err(|error| self.after_mirrors(error, reference)),
            }
        }
    }

    async fn peek_at(&self, place: &Place, name: &str, doing: &str) -> Result<Option<Descriptor>> {
        let target = place.target(Access::Pull);
        let mut call = self.request(&target, doing, Method::HEAD, &format!("manifests/{name}")).await?;
        call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let reply = self.send(&target, call).await?;
        if reply.status() != StatusCode::OK {
            return Err(status_error(doing, reply).await);
        }
        let text = |name: HeaderName| reply.headers().get(name).and_then(|value| value.to_str().ok());
        let digest = announced_digest(reply.headers());
        let size = text(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let media_type = content_type(reply.headers());
        Ok(digest.zip(size).zip(media_type).map(|((digest, size), kind)| Descriptor::new(kind, digest, size)))
    }

    /// Reads a manifest or index known by descriptor.
    pub(crate) async fn fetch_document(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobReader> {
        let doing = format!("pull manifest `{}@{}`", reference.name(), descriptor.digest);
        limits::check_size(&doing, "the manifest", descriptor.size, limits::DOCUMENT)?;
        let read = |announced: Option<MediaType>, bytes: Vec<u8>| {
            if let Some(announced) = announced.filter(|announced| *announced != descriptor.media_type) {
                let reason = format!("the registry calls it `{announced}`, its parent `{}`", descriptor.media_type);
                return Err(Error::invalid(&doing, reason));
            }
            Ok(bytes)
        };
        let bytes = self.manifest(reference, descriptor.digest.as_str(), (&doing, &read)).await;
        let bytes = bytes.map_err(Error::of_a_part)?;
        Ok(BlobReader::from_bytes(doing, descriptor, bytes.into()))
    }

    /// Asks one place after the other. One that proved wrong is told rather than that the others have nothing better.
    async fn manifest<T>(&self, reference: &Reference, name: &str, reading: Reading<'_, T>) -> Result<T> {
        let mut places = self.places(reference, name.parse().ok().as_ref(), reading.0)?;
        let mut lie = None;
        loop {
            let place = places.next().expect("the registry itself is the last");
            match self.manifest_at(&place, name, reading).await {
                Err(error) if error.kind() == ErrorKind::Lying => {
                    if places.len() > 0 {
                        self.pass_over(&place, &error);
                    }
                    lie = Some(told_of(error, &place, reference));
                }
                Err(error) if places.len() > 0 => self.pass_over(&place, &error),
                Err(error) => return Err(lie.unwrap_or_else(|| self.after_mirrors(error, reference))),
                found => return found,
            }
            if let Some(lie) = lie.take_if(|_| places.len() == 0) {
                return Err(lie);
            }
        }
    }

    async fn manifest_at<T>(&self, place: &Place, name: &str, (doing, read): Reading<'_, T>) -> Result<T> {
        let target = place.target(Access::Pull);
        let mut patience = Patience::new(&self.http().options().retry);
        let mut tries = 0;
        loop {
            let mut call = self.request(&target, doing, Method::GET, &format!("manifests/{name}")).await?;
            call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
            let reply = self.send(&target, call).await?;
            if reply.status() != StatusCode::OK {
                return Err(status_error(doing, reply).await);
            }
            let (media_type, digest) = (content_type(reply.headers()), announced_digest(reply.headers()));
            let wanted = name.parse().ok().or(digest);
            tries += 1;
            let bytes = answer_bytes(&self.http().options().retry, doing, reply, limits::DOCUMENT).await;
            let found = bytes.and_then(|bytes| {
                wanted.map_or(Ok(()), |wanted| check_digest(doing, &wanted, &bytes))?;
                read(media_type, bytes)
            });
            match found {
                Err(error) if matches!(error.kind(), ErrorKind::Lying | ErrorKind::TooLarge) && tries < TRIES => {}
                Err(error) if is_worth_retrying(&error) => patience.wait(error).await?,
                found => return found,
            }
        }
    }

    /// Opens a blob. The stream continues by Range after interruptions, and ends in an error unless size and digest
    /// are right.
    pub async fn fetch_blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobReader> {
        self.fetch_rest(reference, descriptor, Verifier::new(&descriptor.digest)).await
    }

    /// Opens a blob after the bytes a verifier has seen already, to continue what an earlier process began. All of
    /// it is verified, the earlier part included.
    pub async fn fetch_rest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        seen: Verifier,
    ) -> Result<BlobReader> {
        let doing = format!("pull blob `{}` of `{}`", descriptor.digest, reference.name());
        if seen.seen() > 0 && seen.seen() == descriptor.size {
            seen.finish(&doing, &descriptor.digest)?;
            return Ok(BlobReader::trusted(futures::stream::empty()));
        }
        let offset = seen.seen();
        let opener = BlobOpener {
            client: self.clone(),
            reference: reference.clone(),
            digest: descriptor.digest.clone(),
            doing: doing.clone(),
            is_whole: offset == 0,
            asked: Mutex::default(),
        };
        let policy = self.http().options().retry.clone();
        let reply = opener.open(offset, None).await?;
        let transfer = Transfer::new(doing, policy, Box::new(opener))
            .of_size(descriptor.size)
            .of_digest(&descriptor.digest)
            .after(seen)
            .begun(reply)?;
        Ok(BlobReader::trusted(transfer.into_stream()))
    }

    /// Whether a repository has a blob. One of another size than it should be is not there;
    /// some registries say 0 of all.
    pub async fn has_blob(&self, reference: &Reference, descriptor: &Descriptor, doing: &str) -> Result<bool> {
        let found = self.ask(reference, doing, &format!("blobs/{}", descriptor.digest)).await?;
        Ok(found.is_some_and(|headers| is_of_size(&headers, descriptor)))
    }

    /// Whether a repository has this document under a name, as far as the registry says.
    pub(super) async fn has_under(&self, reference: &Reference, name: &str, wanted: &Descriptor) -> Result<bool> {
        let doing = format!("look up `{}` of `{}`", name, reference.name());
        let found = self.ask(reference, &doing, &format!("manifests/{name}")).await?;
        let is_it = |said: Digest| said.algorithm() != wanted.digest.algorithm() || said == wanted.digest;
        let fits = |headers: HeaderMap| is_of_size(&headers, wanted) && announced_digest(&headers).is_none_or(is_it);
        Ok(found.is_some_and(fits))
    }

    /// Whether a repository has a manifest of this digest.
    pub async fn has_manifest(&self, reference: &Reference, descriptor: &Descriptor) -> Result<bool> {
        let doing = format!("look up `{}@{}`", reference.name(), descriptor.digest);
        self.head(reference, &doing, &format!("manifests/{}", descriptor.digest)).await
    }

    /// Whether a tag points at this very document, as far as the registry says.
    pub(crate) async fn points_at(&self, reference: &Reference, tag: &str, wanted: &Descriptor) -> Result<bool> {
        let doing = format!("look up `{}:{tag}`", reference.name());
        match self.ask(reference, &doing, &format!("manifests/{tag}")).await {
            Ok(found) => Ok(found.is_some_and(|headers| announced_digest(&headers).as_ref() == Some(&wanted.digest))),
            // Some registries say so of repositories that are not there yet.
            Err(Error::Unauthorized { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn head(&self, reference: &Reference, doing: &str, path: &str) -> Result<bool> {
        Ok(self.ask(reference, doing, path).await?.is_some())
    }

    /// The headers of what is there; `None` when it is not.
    async fn ask(&self, reference: &Reference, doing: &str, path: &str) -> Result<Option<HeaderMap>> {
        // Asked before a push as a rule; a token for both spares a second one.
        let target = Target::of(reference, Access::Push);
        let mut call = self.request(&target, doing, Method::HEAD, path).await?;
        call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let reply = self.send(&target, call).await?;
        match reply.status() {
            StatusCode::OK => Ok(Some(reply.headers().clone())),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(status_error(doing, reply).await),
        }
    }
}

/// Whether content may be of this size, by what is said of it.
fn is_of_size(headers: &HeaderMap, descriptor: &Descriptor) -> bool {
    let said = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    said.is_none_or(|size| size == 0 || size == descriptor.size)
}

/// What is done with a manifest's type and bytes, and what that is called.
type Reading<'a, T> = (&'a str, &'a (dyn Fn(Option<MediaType>, Vec<u8>) -> Result<T> + Sync));

/// Names the place that sent something wrong, unless that is the one that was asked for.
fn told_of(error: Error, place: &Place, reference: &Reference) -> Error {
    let is_own = (&place.registry, &place.repository) == (&reference.registry, &reference.repository);
    if is_own { error } else { error.sent_by(&place.name()) }
}

fn check_digest(doing: &str, wanted: &Digest, bytes: &[u8]) -> Result<()> {
    let mut verifier = Verifier::new(wanted);
    verifier.update(bytes);
    verifier.finish(doing, wanted)
}

pub(super) fn announced_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// Content-Type without its parameters.
fn content_type(headers: &HeaderMap) -> Option<MediaType> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = text.split(';').next().unwrap_or_default().trim();
    (!kind.is_empty()).then(|| MediaType::new(kind))
}

fn inner_type(bytes: &[u8]) -> Option<MediaType> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    value["mediaType"].as_str().map(MediaType::new)
}

struct BlobOpener {
    client: RegistryClient,
    reference: Reference,
    digest: Digest,
    doing: String,
    /// Whether all of it comes from here, and nothing from an earlier process.
    is_whole: bool,
    /// Who has given some of it, and whether somebody else could be asked for the rest.
    asked: Mutex<Vec<(Place, bool)>>,
}

impl BlobOpener {
    fn asked(&self) -> MutexGuard<'_, Vec<(Place, bool)>> {
        self.asked.lock().expect("no thread panics while it holds this")
    }
}

#[async_trait]
impl Opener for BlobOpener {
    async fn open(&self, offset: u64, validator: Option<&str>) -> Result<Reply> {
        let mut places = self.client.places(&self.reference, Some(&self.digest), &self.doing)?;
        loop {
            let place = places.next().expect("the registry itself is the last");
            let has_another = places.len() > 0;
            match self.open_at(&place, offset, validator).await {
                Err(error) if has_another => self.client.pass_over(&place, &error),
                Err(error) => return Err(self.client.after_mirrors(error, &self.reference)),
                Ok(reply) => {
                    self.asked().retain(|(known, _)| *known != place);
                    self.asked().push((place, has_another));
                    return Ok(reply);
                }
            }
        }
    }

    fn lied(&self, error: Error) -> Error {
        let asked = self.asked();
        for (place, is_mirror) in asked.iter().filter(|_| self.is_whole) {
            self.client.note_lie(place, &self.digest);
            if *is_mirror {
                self.client.pass_over(place, &error);
            }
        }
        asked.iter().fold(error, |error, (place, _)| told_of(error, place, &self.reference))
    }

    fn has_another(&self, error: &Error) -> bool {
        let asked = self.asked();
        let Some((place, true)) = asked.last() else { return false };
        self.client.pass_over(place, error);
        true
    }
}

impl BlobOpener {
    async fn open_at(&self, place: &Place, offset: u64, validator: Option<&str>) -> Result<Reply> {
        let target = place.target(Access::Pull);
        let mut call =
            self.client.request(&target, &self.doing, Method::GET, &format!("blobs/{}", self.digest)).await?;
        call.headers.insert(reqwest::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0 {
            call.headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={offset}-")).expect("digits are text"));
            if let Some(validator) = validator.and_then(|v| HeaderValue::from_str(v).ok()) {
                call.headers.insert(IF_RANGE, validator);
            }
        }
        let reply = self.client.send(&target, call).await?;
        match reply.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(reply),
            _ => Err(status_error(&self.doing, reply).await.of_a_part()),
        }
    }
}
