//! Pushes and pulls while every fifth request goes wrong: never a wrong image, hardly ever an error.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::quick;
use kiln_image::testing::tiny_image;
use kiln_image::{
    BlobSource as _, ClientOptions, CopyOptions, MemoryBlobs, RegistryClient, RegistryOptions, RetryPolicy, copy_graph,
};
use kiln_oci::{Descriptor, Digest, MediaType, Reference};
use kiln_testkit::{Body, HttpServer, Reply, Request};

/// What goes wrong is a matter of these numbers alone, whatever the order of requests.
const SEEDS: [u64; 3] = [1, 20, 300];
const ROUNDS: usize = 25;
/// One in so many requests goes wrong.
const ONE_IN: u32 = 5;

/// A registry that keeps what it is given.
#[derive(Default)]
struct Shelf {
    content: HashMap<String, Vec<u8>>,
    asked: HashMap<String, u32>,
    faults: u32,
}

impl Shelf {
    fn answer(&mut self, seed: u64, request: &Request) -> Reply {
        let place = format!("{} {}", request.method, request.path);
        let times = self.asked.entry(place.clone()).or_default();
        *times += 1;
        let dice = Digest::sha256(format!("{seed} {place} {times}"));
        let dice = u32::from_str_radix(&dice.hex()[..8], 16).unwrap();
        if !dice.is_multiple_of(ONE_IN) {
            return self.honest(request);
        }
        self.faults += 1;
        let kind = dice / ONE_IN;
        match request.method.as_str() {
            "GET" | "HEAD" => self.spoilt(request, kind),
            _ => self.lost(request, kind),
        }
    }

    fn honest(&mut self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap().to_owned();
        let name = path.rsplit('/').next().unwrap().to_owned();
        match request.method.as_str() {
            _ if path == "/v2/" => Reply::status(200),
            "GET" | "HEAD" if path == "/token" => Reply::bytes(r#"{"token":"t"}"#),
            "GET" | "HEAD" => match self.content.get(&name) {
                Some(bytes) if path.contains("/manifests/") => Reply::bytes(bytes.clone())
                    .with("Content-Type", MediaType::OCI_MANIFEST)
                    .with("Docker-Content-Digest", Digest::sha256(bytes).as_str()),
                Some(bytes) => Reply::ranged(request, bytes),
                None => Reply::status(404),
            },
            "POST" => Reply::status(202).with("Location", format!("{path}session")),
            "PUT" => {
                let wanted = request.path.split_once("digest=").map(|(_, digest)| digest.replace("%3A", ":"));
                let got = Digest::sha256(&request.body).to_string();
                if wanted.is_some_and(|wanted| wanted != got) {
                    return Reply::status(400);
                }
                self.content.insert(got, request.body.clone());
                self.content.insert(name, request.body.clone());
                Reply::status(201)
            }
            _ => Reply::status(405),
        }
    }

    fn spoilt(&mut self, request: &Request, kind: u32) -> Reply {
        let good = self.honest(request);
        let bytes = good.whole().map(<[u8]>::to_vec).unwrap_or_default();
        let half = bytes.len() / 2;
        match kind % 11 {
            0 => Reply::status(500),
            1 => Reply::status(503).with("Retry-After", "0"),
            2 => Reply::status(429).with("Retry-After", "0"),
            3 => Reply::status(200).with_body(Body::HangUp),
            4 => good.with_body(Body::CutAfter(bytes, half)),
            5 if request.path.contains("/blobs/") && !bytes.is_empty() => {
                let mut flipped = bytes;
                flipped[half] ^= 1;
                good.with_body(Body::Whole(flipped))
            }
            6 => good.with("Content-Length", (bytes.len() + 7).to_string()),
            7 if !request.path.contains('?') => Reply::status(307).with("Location", format!("{}?again", request.path)),
            8 => good.with("Docker-Content-Digest", Digest::sha256("x").as_str()),
            9 if request.header("authorization").is_none() && !request.path.starts_with("/token") => {
                Reply::status(401).with("WWW-Authenticate", "Bearer realm=\"/token\"")
            }
            _ => Reply::status(504),
        }
    }

    /// Half of what is lost was done all the same.
    fn lost(&mut self, request: &Request, kind: u32) -> Reply {
        if kind.is_multiple_of(2) {
            self.honest(request);
        }
        match kind % 3 {
            0 => Reply::status(200).with_body(Body::HangUp),
            1 => Reply::status(502),
            _ => Reply::status(503).with("Retry-After", "0"),
        }
    }
}

fn client() -> RegistryClient {
    let retry = RetryPolicy { base: Duration::from_millis(1), ..quick() };
    let client = ClientOptions { retry, ..ClientOptions::default() };
    RegistryClient::new(RegistryOptions { client, ..RegistryOptions::default() })
}

/// Pushes an image, and pulls it by its digest.
async fn there_and_back(host: &str, round: usize) -> kiln_image::Result<bool> {
    let (memory, back) = (MemoryBlobs::new(), MemoryBlobs::new());
    let image = tiny_image(&memory, &round.to_string());
    let name: Reference = format!("{host}/r{round}:t").parse().unwrap();
    copy_graph(&memory, &client().sink(&name), &image, &CopyOptions::default()).await?;
    let resolved = client().resolve(&name.with_digest(image.digest.clone())).await?;
    copy_graph(&client().source(&name), &back, &resolved.descriptor, &CopyOptions::default()).await?;
    Ok(resolved.descriptor == image && read(&back, &image).await == read(&memory, &image).await)
}

async fn read(memory: &MemoryBlobs, image: &Descriptor) -> Vec<u8> {
    memory.fetch(image).await.unwrap().bytes("read", 1 << 20).await.unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn faults_cost_time_and_never_a_wrong_image() {
    let before = descriptors();
    for seed in SEEDS {
        let shelf: Arc<Mutex<Shelf>> = Arc::default();
        let shared = Arc::clone(&shelf);
        let server = HttpServer::start(move |request| shared.lock().unwrap().answer(seed, request));
        let mut failed = Vec::new();
        for round in 0..ROUNDS {
            match there_and_back(&server.host(), round).await {
                Ok(is_right) => assert!(is_right, "seed {seed}, round {round}"),
                Err(error) => failed.push(format!("round {round}: {error}")),
            }
        }
        let faults = shelf.lock().unwrap().faults;
        assert!(faults > 2 * ROUNDS as u32, "only {faults} faults");
        assert!(failed.len() <= 1, "seed {seed}: {failed:?}");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let after = descriptors();
    assert!(after < before + 20, "{before} descriptors became {after}");
}
