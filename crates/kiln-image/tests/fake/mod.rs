//! A registry in memory, over the test server, that misbehaves where a test wants it to.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_image::testing::tiny_image;
use kiln_image::{
    BlobSource as _, ClientOptions, Credential, Credentials, MemoryBlobs, RegistryClient, RegistryOptions, Result,
    RetryPolicy,
};
use kiln_oci::{Descriptor, Document, Reference};
use kiln_testkit::{HttpServer, Reply, Request};

/// An image served read-only, with faults.
pub(crate) struct Fake {
    pub(crate) server: HttpServer,
    pub(crate) image: Descriptor,
    pub(crate) layer: Descriptor,
    pub(crate) layer_bytes: Vec<u8>,
    pub(crate) memory: Arc<MemoryBlobs>,
}

/// A fault: asked first; `None` lets the registry answer as it should.
pub(crate) type Fault = dyn Fn(&Request) -> Option<Reply> + Send + Sync;

impl Fake {
    pub(crate) async fn start(fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let memory = Arc::new(MemoryBlobs::new());
        let image = tiny_image(&memory, "fake");
        Self::serving(memory, image, fault).await
    }

    pub(crate) async fn serving(
        memory: Arc<MemoryBlobs>,
        image: Descriptor,
        fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let manifest = read(&memory, &image).await;
        let Ok(Document::Manifest(parsed)) = Document::parse(&image.media_type, manifest.clone()) else {
            panic!("a manifest")
        };
        let mut blobs = Vec::new();
        for blob in parsed.value().layers.iter().chain([&parsed.value().config]) {
            blobs.push((blob.clone(), read(&memory, blob).await));
        }
        let (layer, layer_bytes) = blobs[0].clone();
        let root = image.clone();
        let server = HttpServer::start(move |request| {
            fault(request).unwrap_or_else(|| answer(request, &root, &manifest, &blobs))
        });
        Self { server, image, layer, layer_bytes, memory }
    }

    pub(crate) fn reference(&self) -> Reference {
        format!("{}/img:t", self.server.host()).parse().unwrap()
    }

    /// How often a path was asked for that contains `part`.
    pub(crate) fn asked(&self, part: &str) -> usize {
        self.server.requests().iter().filter(|request| request.path.contains(part)).count()
    }
}

async fn read(memory: &MemoryBlobs, descriptor: &Descriptor) -> Vec<u8> {
    memory.fetch(descriptor).await.unwrap().bytes("read", 1 << 30).await.unwrap()
}

fn answer(request: &Request, image: &Descriptor, manifest: &[u8], blobs: &[(Descriptor, Vec<u8>)]) -> Reply {
    if request.path == "/v2/" {
        return Reply::status(200);
    }
    if request.path.ends_with("/manifests/t") || request.path.ends_with(image.digest.as_str()) {
        return Reply::bytes(manifest)
            .with("Content-Type", image.media_type.as_str())
            .with("Docker-Content-Digest", image.digest.as_str());
    }
    let found = blobs.iter().find(|(blob, _)| request.path.ends_with(blob.digest.as_str()));
    match found {
        Some((_, bytes)) => Reply::ranged(request, bytes),
        None => Reply::status(404).with("Content-Type", "application/json"),
    }
}

/// Answers with `fault` as long as it lasts, `times` times.
pub(crate) fn times(count: usize, fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Box<Fault> {
    let left = Mutex::new(count);
    Box::new(move |request| {
        let mut left = left.lock().unwrap();
        let reply = if *left > 0 { fault(request) } else { None };
        *left -= usize::from(reply.is_some());
        reply
    })
}

/// Patience in milliseconds.
pub(crate) fn quick() -> RetryPolicy {
    RetryPolicy {
        base: Duration::from_millis(10),
        answer: Duration::from_millis(800),
        stall: Duration::from_millis(800),
        ..RetryPolicy::default()
    }
}

pub(crate) fn client() -> RegistryClient {
    knowing(Known::default())
}

pub(crate) fn knowing(known: Known) -> RegistryClient {
    let client = ClientOptions { retry: quick(), ..ClientOptions::default() };
    RegistryClient::new(RegistryOptions { client, credentials: Arc::new(known) })
}

/// Credentials for some registries; remembers for whom it was asked.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) entries: Vec<(String, Credential)>,
}

impl Known {
    pub(crate) fn password(registry: String) -> Self {
        let credential = Credential::Password { username: "user".into(), password: "hush".into() };
        Self { entries: vec![(registry, credential)] }
    }
}

#[async_trait::async_trait]
impl Credentials for Known {
    async fn lookup(&self, registry: &str, _repository: &str) -> Result<Option<Credential>> {
        Ok(self.entries.iter().find(|(known, _)| known == registry).map(|(_, credential)| credential.clone()))
    }
}
