//! Registries that break, forget and limit uploads: what is pushed is there in the end, or the error says why not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fake::client;
use kiln_image::testing::tiny_image;
use kiln_image::{CopyOptions, Error, ErrorKind, MemoryBlobs, Pushed, Result, copy_graph};
use kiln_oci::{Descriptor, Digest, MediaType, Reference};
use kiln_testkit::{Body, HttpServer, Reply, Request};

/// A registry that takes uploads as the specification has it: in sessions, by PATCH and PUT.
#[derive(Default)]
struct Desk {
    /// Bytes a request may have.
    most: Option<usize>,
    /// Bytes a part must have that is not the last, as it says.
    least: Option<usize>,
    /// Whether content comes with the closing request only.
    refuses_patches: bool,
    sessions: HashMap<String, Vec<u8>>,
    content: HashMap<String, Vec<u8>>,
    opened: usize,
}

impl Desk {
    fn answer(&mut self, request: &Request) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let name = path.rsplit('/').next().unwrap_or_default();
        if self.most.is_some_and(|most| request.body.len() > most) {
            return Reply::bytes("<html>too large</html>").with_status(413);
        }
        match request.method.as_str() {
            "GET" if path == "/v2/" => Reply::status(200),
            "HEAD" => Reply::status(if self.content.contains_key(name) { 200 } else { 404 }),
            "POST" => {
                self.opened += 1;
                let id = self.opened.to_string();
                self.sessions.insert(id.clone(), Vec::new());
                let reply = self.here(&id, 202);
                match self.least {
                    Some(least) => reply.with("OCI-Chunk-Min-Length", least.to_string()),
                    None => reply,
                }
            }
            "PUT" if path.contains("/manifests/") => self.keep(Digest::sha256(&request.body).as_str(), &request.body),
            _ if !self.sessions.contains_key(name) => Reply::status(404),
            "GET" => self.here(name, 204),
            "PATCH" if self.refuses_patches => Reply::status(405),
            "PATCH" => self.patch(name, request),
            "PUT" => {
                let whole = [&self.sessions.remove(name).unwrap()[..], &request.body].concat();
                let wanted = query.rsplit_once("digest=").unwrap().1.replace("%3A", ":");
                if Digest::sha256(&whole).as_str() == wanted { self.keep(&wanted, &whole) } else { Reply::status(400) }
            }
            _ => Reply::status(405),
        }
    }

    fn keep(&mut self, digest: &str, bytes: &[u8]) -> Reply {
        self.content.insert(digest.to_owned(), bytes.to_vec());
        Reply::status(201).with("Docker-Content-Digest", digest)
    }

    fn patch(&mut self, name: &str, request: &Request) -> Reply {
        let session = self.sessions.get_mut(name).unwrap();
        let start =
            request.header("content-range").map_or(0, |range| range.split('-').next().unwrap().parse().unwrap());
        if start != session.len() {
            return Reply::status(416);
        }
        session.extend_from_slice(&request.body);
        self.here(name, 202)
    }

    fn here(&self, id: &str, status: u16) -> Reply {
        let last = self.sessions[id].len().saturating_sub(1);
        Reply::status(status).with("Location", format!("/v2/a/blobs/uploads/{id}")).with("Range", format!("0-{last}"))
    }
}

struct Fixture {
    server: HttpServer,
    desk: Arc<Mutex<Desk>>,
    memory: MemoryBlobs,
    blob: Descriptor,
}

impl Fixture {
    /// `fault` is asked after the registry has done what was asked of it, or before; what it answers counts.
    fn new(
        desk: Desk,
        size: usize,
        fault: impl Fn(&Request, &mut Desk) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let memory = MemoryBlobs::new();
        let bytes: Vec<u8> = (0..size as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let blob = memory.insert(MediaType::OCI_LAYER, bytes);
        let desk = Arc::new(Mutex::new(desk));
        let shared = Arc::clone(&desk);
        let server = HttpServer::start(move |request| {
            let mut desk = shared.lock().unwrap();
            fault(request, &mut desk).unwrap_or_else(|| desk.answer(request))
        });
        Self { server, desk, memory, blob }
    }

    fn to(&self) -> Reference {
        format!("{}/a:1", self.server.host()).parse().unwrap()
    }

    async fn push(&self) -> Result<Pushed> {
        client().push_blob(&self.to(), &self.blob, &self.memory, None).await
    }

    fn has_it(&self) -> bool {
        self.desk.lock().unwrap().content.contains_key(self.blob.digest.as_str())
    }

    fn sizes(&self, method: &str) -> Vec<usize> {
        let requests = self.server.requests();
        requests.iter().filter(|request| request.method == method).map(|request| request.body.len()).collect()
    }
}

/// Answers so, so often, where method and path fit.
fn fault(
    count: usize,
    method: &'static str,
    part: &'static str,
    reply: Reply,
) -> impl Fn(&Request, &mut Desk) -> Option<Reply> + Send + Sync + 'static {
    let left = Mutex::new(count);
    move |request, _| {
        let mut left = left.lock().unwrap();
        let is_it = *left > 0 && request.method == method && request.path.contains(part);
        *left -= usize::from(is_it);
        is_it.then(|| reply.clone())
    }
}

const SMALL: usize = 100_000;
const LARGE: usize = 9 << 20;

#[tokio::test]
async fn each_request_of_a_push_survives_what_passes() {
    for (method, part, size) in [
        ("HEAD", "/blobs/", SMALL),
        ("POST", "/uploads/", SMALL),
        ("PUT", "/uploads/", SMALL),
        ("PATCH", "/uploads/", LARGE),
        ("PUT", "/uploads/", LARGE),
    ] {
        for reply in [
            Reply::status(500),
            Reply::status(502),
            Reply::status(503).with("Retry-After", "0"),
            Reply::status(429).with("Retry-After", "0"),
            Reply::status(200).with_body(Body::HangUp),
        ] {
            let told = format!("{method} {size} {reply:?}");
            let f = Fixture::new(Desk::default(), size, fault(2, method, part, reply));
            let pushed = f.push().await;
            assert!(matches!(pushed, Ok(Pushed::Written)) && f.has_it(), "{told}: {pushed:?}");
        }
    }
}

#[tokio::test]
async fn an_upload_waits_as_long_as_it_is_asked_to() {
    for (method, part, size) in [("POST", "/uploads/", SMALL), ("PUT", "/uploads/", SMALL), ("PATCH", "", LARGE)] {
        let asked = Reply::status(429).with("Retry-After", "1");
        let f = Fixture::new(Desk::default(), size, fault(1, method, part, asked));
        f.push().await.unwrap();
        let requests = f.server.requests();
        let refused = requests.iter().position(|request| request.method == method).unwrap();
        let gap = requests[refused + 1].at - requests[refused].at;
        assert!(gap >= Duration::from_secs(1), "{method}: {gap:?}");
    }
    let day = Reply::status(429).with("Retry-After", "86400");
    let f = Fixture::new(Desk::default(), LARGE, fault(1, "PATCH", "", day));
    let begun = Instant::now();
    let error = f.push().await.unwrap_err();
    assert!(error.kind() == ErrorKind::RateLimited && begun.elapsed() < Duration::from_secs(1), "{error}");
}

#[tokio::test]
async fn manifests_and_tokens_of_a_push_survive_what_passes() {
    let faults = [
        fault(2, "PUT", "/manifests/", Reply::status(503)),
        fault(2, "GET", "/token", Reply::status(429).with("Retry-After", "0")),
    ];
    let f = Fixture::new(Desk::default(), SMALL, move |request, desk| {
        let wants_token = || Reply::status(401).with("WWW-Authenticate", "Bearer realm=\"/token\"");
        let given = || Reply::bytes(r#"{"token":"t"}"#);
        let is_token = request.path.starts_with("/token");
        let faulty = faults.iter().find_map(|fault| fault(request, desk));
        faulty.or_else(|| is_token.then(given)).or_else(|| request.header("authorization").is_none().then(wants_token))
    });
    let image = tiny_image(&f.memory, "push");
    copy_graph(&f.memory, &client().sink(&f.to()), &image, &CopyOptions::default()).await.unwrap();
    assert!(f.desk.lock().unwrap().content.contains_key(image.digest.as_str()));
}

#[tokio::test]
async fn a_registry_has_a_moment_to_find_what_it_has_taken() {
    let unknown = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
    for (times, is_found) in [(2, true), (100, false)] {
        let unknown = Reply::bytes(unknown).with_status(400);
        let f = Fixture::new(Desk::default(), SMALL, fault(times, "PUT", "/manifests/", unknown));
        let image = tiny_image(&f.memory, "behind");
        let pushed = copy_graph(&f.memory, &client().sink(&f.to()), &image, &CopyOptions::default()).await;
        assert_eq!(pushed.is_ok(), is_found, "{pushed:?}");
        let tries = f.server.requests().iter().filter(|r| r.method == "PUT" && r.path.contains("/manifests/")).count();
        assert!(if is_found { tries == 3 } else { (2..10).contains(&tries) }, "{tries}");
    }
}

#[tokio::test]
async fn what_was_done_although_the_answer_was_lost_is_not_done_again() {
    let once = Mutex::new(true);
    let f = Fixture::new(Desk::default(), LARGE, move |request, desk| {
        let is_close = request.method == "PUT" && std::mem::take(&mut *once.lock().unwrap());
        is_close.then(|| {
            desk.answer(request);
            Reply::status(200).with_body(Body::HangUp)
        })
    });
    assert_eq!(f.push().await.unwrap(), Pushed::Written);
    assert_eq!((f.sizes("PATCH"), f.sizes("PUT")), (vec![LARGE], vec![0]));
}

#[tokio::test]
async fn an_upload_that_the_registry_forgot_begins_anew() {
    for method in ["PATCH", "PUT"] {
        let once = Mutex::new(true);
        let f = Fixture::new(Desk::default(), LARGE, move |request, desk| {
            if request.method == method && std::mem::take(&mut *once.lock().unwrap()) {
                desk.sessions.clear();
            }
            None
        });
        f.push().await.unwrap();
        assert!(f.has_it() && f.desk.lock().unwrap().opened == 2, "{method}");
    }
}

#[tokio::test]
async fn content_is_sent_in_parts_where_requests_may_not_be_large() {
    for (most, size, part) in [(10 << 20, 20 << 20, 8 << 20), (1 << 20, LARGE, 1 << 20), (1 << 20, 3 << 20, 1 << 20)] {
        let f = Fixture::new(Desk { most: Some(most), ..Desk::default() }, size, |_, _| None);
        f.push().await.unwrap();
        assert!(f.has_it());
        let sizes = f.sizes("PATCH");
        let taken = sizes.iter().filter(|sent| **sent == part).count();
        assert_eq!(taken, size / part, "{sizes:?}");
    }
}

#[tokio::test]
async fn no_part_but_the_last_is_smaller_than_the_registry_wants() {
    let desk = Desk { most: Some(7 << 20), least: Some(5 << 20), ..Desk::default() };
    let f = Fixture::new(desk, 12 << 20, |_, _| None);
    f.push().await.unwrap();
    assert!(f.has_it());
    let taken: Vec<usize> = f.sizes("PATCH").into_iter().filter(|sent| *sent <= 7 << 20).collect();
    assert_eq!(taken, [5 << 20, 5 << 20, 2 << 20]);
}

#[tokio::test]
async fn parts_go_on_after_one_was_lost() {
    let desk = Desk { most: Some(1 << 20), ..Desk::default() };
    let count = Mutex::new(0);
    let f = Fixture::new(desk, 4 << 20, move |request, _| {
        let mut count = count.lock().unwrap();
        *count += usize::from(request.body.len() == 1 << 20);
        (*count == 3 && request.method == "PATCH").then(|| Reply::status(200).with_body(Body::HangUp))
    });
    f.push().await.unwrap();
    assert!(f.has_it() && f.desk.lock().unwrap().opened == 2, "one that was too large, one in parts");
    assert_eq!(f.sizes("PATCH").len(), 5);
}

#[tokio::test]
async fn where_even_parts_are_too_large_the_answer_is_told() {
    for refuses_patches in [false, true] {
        let desk = Desk { most: Some(1000), refuses_patches, ..Desk::default() };
        let f = Fixture::new(desk, LARGE, |_, _| None);
        let error = f.push().await.unwrap_err();
        assert!(matches!(error, Error::Status { status: 413, .. }), "{error:?}");
        assert!(f.server.requests().len() < 12);
    }
}

#[tokio::test]
async fn a_registry_that_hangs_up_on_much_gets_it_in_parts() {
    let f = Fixture::new(Desk::default(), LARGE, |request, _| {
        (request.body.len() > 8 << 20).then(|| Reply::status(200).with_body(Body::HangUp))
    });
    f.push().await.unwrap();
    assert!(f.has_it());
}

#[tokio::test]
async fn a_mount_that_is_refused_in_any_way_becomes_an_upload() {
    for status in [202, 400, 401, 403, 404, 405] {
        let f = Fixture::new(Desk::default(), SMALL, move |request, desk| {
            let is_mount = request.path.contains("mount=");
            is_mount.then(|| if status == 202 { desk.answer(request) } else { Reply::status(status) })
        });
        let pushed = client().push_blob(&f.to(), &f.blob, &f.memory, Some("other")).await;
        assert!(matches!(pushed, Ok(Pushed::Written)) && f.has_it(), "{status}: {pushed:?}");
    }
}

#[tokio::test]
async fn what_stands_there_in_another_size_is_uploaded() {
    let f = Fixture::new(Desk::default(), SMALL, fault(1, "HEAD", "/blobs/", Reply::bytes("half")));
    assert_eq!(f.push().await.unwrap(), Pushed::Written);
    assert!(f.has_it());
}

#[tokio::test]
async fn a_manifest_counts_as_pushed_only_when_the_registry_says_so_or_has_it() {
    // What is answered to the PUT, whether it is done, whether that is enough.
    let cases = [
        (201, false, false, true),
        (200, true, false, true),
        (202, false, true, true),
        (200, false, true, true),
        (202, false, false, false),
        (204, false, false, false),
    ];
    for (status, says_digest, is_done, is_enough) in cases {
        let f = Fixture::new(Desk::default(), SMALL, move |request, desk| {
            let is_put = request.method == "PUT" && request.path.contains("/manifests/");
            let digest = Digest::sha256(&request.body).to_string();
            if is_put && is_done {
                desk.content.insert("1".into(), request.body.clone());
            }
            let reply = Reply::status(status);
            is_put.then(|| if says_digest { reply.with("Docker-Content-Digest", digest) } else { reply })
        });
        let image = tiny_image(&f.memory, "said");
        let pushed = copy_graph(&f.memory, &client().sink(&f.to()), &image, &CopyOptions::default()).await;
        let told = format!("{status} {says_digest} {is_done}: {pushed:?}");
        assert_eq!(pushed.is_ok(), is_enough, "{told}");
        assert!(is_enough || told.contains(&format!("answered {status}, and does not have it")), "{told}");
    }
}
