//! Registries that lie, stall, break off and lead astray: each ends in the right error, or in the right bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fake::{Fake, client, times};
use kiln_image::{
    BlobSource as _, CopyOptions, Error, ErrorKind, MemoryBlobs, Pushed, Result, copy_graph, testing::tiny_image,
};
use kiln_oci::{Digest, MediaType, Reference};
use kiln_testkit::{Body, HttpServer, Reply, Request};

fn is_blob(request: &Request) -> bool {
    request.method == "GET" && request.path.contains("/blobs/")
}

fn is_manifest(request: &Request) -> bool {
    request.method == "GET" && request.path.contains("/manifests/")
}

async fn pull_layer(fake: &Fake) -> Result<Vec<u8>> {
    client().fetch_blob(&fake.reference(), &fake.layer).await?.bytes("read", 1 << 30).await
}

#[tokio::test]
async fn a_manifest_that_is_not_the_pinned_one_is_refused() {
    let other = MemoryBlobs::new();
    let image = tiny_image(&other, "another");
    let bytes = other.fetch(&image).await.unwrap().bytes("read", 1 << 20).await.unwrap();
    let fake = Fake::start(move |request| {
        is_manifest(request)
            .then(|| Reply::bytes(bytes.clone()).with("Content-Type", MediaType::OCI_MANIFEST))
            .map(|reply| reply.with("Docker-Content-Digest", Digest::sha256("whatever").as_str()))
    })
    .await;
    let pinned = fake.reference().with_digest(fake.image.digest.clone());
    let error = client().resolve(&pinned).await.unwrap_err();
    let Error::Digest { got, want, .. } = &error else { panic!("{error:?}") };
    assert_eq!((got, want), (&image.digest, &fake.image.digest));
    assert_eq!(fake.asked("/manifests/"), 3);
    // Without a pin the registry's own word counts, and it has to keep it.
    let error = client().resolve(&fake.reference()).await.unwrap_err();
    assert!(matches!(&error, Error::Digest { want, .. } if *want == Digest::sha256("whatever")), "{error:?}");
}

#[tokio::test]
async fn documents_that_contradict_themselves_are_refused() {
    let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]"#;
    for (kind, body) in [
        (MediaType::OCI_INDEX, r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_owned()),
        (MediaType::OCI_MANIFEST, format!(r#"{manifest},"mediaType":"{}"}}"#, MediaType::OCI_INDEX)),
        (MediaType::DOCKER_MANIFEST, format!(r#"{manifest},"mediaType":"{}"}}"#, MediaType::OCI_MANIFEST)),
        ("text/html", "<html>login here</html>".to_owned()),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", r#"{"schemaVersion":1}"#.to_owned()),
        (MediaType::OCI_MANIFEST, "[".repeat(100_000)),
        (MediaType::OCI_MANIFEST, manifest.to_owned()),
        (
            MediaType::OCI_MANIFEST,
            r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:../../etc/shadow","size":1},"layers":[]}"#
                .to_owned(),
        ),
    ] {
        let (kind, text) = (kind.to_owned(), body.clone());
        let fake = Fake::start(move |request| {
            is_manifest(request).then(|| Reply::bytes(text.clone()).with("Content-Type", &*kind))
        })
        .await;
        let error = client().resolve(&fake.reference()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lying, "{:.80}: {error}", body);
    }
}

#[tokio::test]
async fn huge_and_endless_documents_are_left_soon() {
    for body in [Body::Endless, Body::Whole(vec![b' '; 5 << 20]), Body::Silence(1 << 30, Duration::ZERO)] {
        let shared = body.clone();
        let fake = Fake::start(move |request| {
            is_manifest(request)
                .then(|| Reply::status(200).with("Content-Type", MediaType::OCI_MANIFEST).with_body(shared.clone()))
        })
        .await;
        let begun = Instant::now();
        let error = client().resolve(&fake.reference()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(fake.asked("/manifests/"), 3);
    }
    let fake =
        Fake::start(|request| is_manifest(request).then(|| Reply::status(404).with("X-Much", "x".repeat(5_000_000))))
            .await;
    assert_eq!(client().resolve(&fake.reference()).await.unwrap_err().kind(), ErrorKind::Network);
}

#[tokio::test]
async fn blobs_that_are_not_what_they_should_be_are_refused() {
    let right = Fake::start(|_| None).await.layer_bytes;
    let mut flipped = right.clone();
    flipped[700] ^= 1;
    let long = [&right[..], b"more"].concat();
    let declared = right.len().to_string();
    for (what, reply) in [
        ("flipped", Reply::bytes(flipped)),
        ("long", Reply::bytes(long.clone())),
        ("short", Reply::bytes(&right[..right.len() - 1])),
        ("empty", Reply::bytes("")),
        ("endless", Reply::status(200).with_body(Body::Endless)),
        ("wrong length", Reply::bytes(right.clone()).with("Content-Length", (right.len() + 1).to_string())),
        (
            "a range nobody asked for",
            Reply::status(206).with("Content-Range", format!("bytes 1-{declared}/{declared}")),
        ),
        ("html", Reply::bytes("<html>welcome</html>").with("Content-Type", "text/html")),
    ] {
        let answer = reply.clone();
        let fake = Fake::start(move |request| is_blob(request).then(|| answer.clone())).await;
        let error = pull_layer(&fake).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lying, "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains(fake.layer.digest.as_str()) && text.contains(&fake.server.host()), "{text}");
        assert_eq!(fake.asked("/blobs/"), 1, "{what} is not asked for again");
    }
}

#[tokio::test]
async fn transfers_that_never_get_anywhere_end() {
    for (what, body) in [
        ("hang up", Body::HangUp),
        ("cut at once", Body::CutAfter(vec![0; 2048], 0)),
        ("trickle", Body::Trickle(vec![0; 2048], Duration::from_millis(100))),
        ("silence", Body::Silence(2048, Duration::from_secs(3))),
    ] {
        let fake =
            Fake::start(move |request| is_blob(request).then(|| Reply::status(200).with_body(body.clone()))).await;
        assert_eq!(fake.layer.size, 2048);
        let begun = Instant::now();
        let error = pull_layer(&fake).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{what}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
        assert!((2..=5).contains(&fake.asked("/blobs/")), "{what}: {}", fake.asked("/blobs/"));
    }
}

/// Gives 700 bytes from where it was asked to begin, if it listens to that, and breaks off.
fn seven_hundred(request: &Request, whole: &[u8], listens: bool) -> Option<Reply> {
    let from = request.range_start().filter(|_| listens).unwrap_or(0);
    let reply = match from {
        0 => Reply::status(200),
        _ => Reply::status(206).with("Content-Range", format!("bytes {from}-2047/2048")),
    };
    is_blob(request).then(|| reply.with_body(Body::CutAfter(whole[from..].to_vec(), 700)))
}

#[tokio::test]
async fn an_interrupted_blob_continues_even_where_ranges_are_ignored() {
    for listens in [true, false] {
        let right = Fake::start(|_| None).await.layer_bytes;
        let (cut, all) = (right.clone(), right.clone());
        let cuts = times(2, move |request| seven_hundred(request, &cut, listens));
        let deaf = move |request: &Request| (is_blob(request) && !listens).then(|| Reply::bytes(all.clone()));
        let fake = Fake::start(move |request| cuts(request).or_else(|| deaf(request))).await;
        assert_eq!(pull_layer(&fake).await.unwrap(), right, "listens: {listens}");
        let asked: Vec<_> = fake.server.requests().into_iter().filter(is_blob).map(|r| r.range_start()).collect();
        let expected = if listens { [None, Some(700), Some(1400)] } else { [None, Some(700), Some(700)] };
        assert_eq!(asked, expected);
    }
}

#[tokio::test]
async fn a_copy_gives_wrong_content_a_second_chance_and_no_fourth() {
    for (wrong, succeeds) in [(2, true), (usize::MAX, false)] {
        let fault = times(wrong, |request| is_blob(request).then(|| Reply::bytes(vec![0; 2048])));
        let fake = Fake::start(move |request| {
            let layer = request.path.ends_with(&one_layer());
            if layer { fault(request) } else { None }
        })
        .await;
        assert!(one_layer().contains(fake.layer.digest.hex()));
        let sink = MemoryBlobs::new();
        let copied = copy_graph(&client().source(&fake.reference()), &sink, &fake.image, &CopyOptions::default()).await;
        assert_eq!(copied.is_ok(), succeeds, "{copied:?}");
        assert_eq!(sink.contains(&fake.layer.digest), succeeds);
        assert_eq!(sink.contains(&fake.image.digest), succeeds);
        assert_eq!(fake.asked(&one_layer()), 3);
    }
}

/// The digest of the first layer of every fake image.
fn one_layer() -> String {
    let memory = MemoryBlobs::new();
    tiny_image(&memory, "fake");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o644);
    tar.append_data(&mut header, "one", &b"fake"[..]).unwrap();
    Digest::sha256(tar.into_inner().unwrap()).to_string()
}

#[tokio::test]
async fn passing_troubles_are_waited_out_as_asked() {
    for (status, header, least) in [
        (429, Some("1"), Duration::from_secs(2)),
        (503, None, Duration::from_millis(10)),
        (500, None, Duration::from_millis(10)),
    ] {
        for part in ["/manifests/", "/blobs/"] {
            let fault = times(2, move |request| {
                request.path.contains(part).then(|| match header {
                    Some(seconds) => Reply::status(status).with("Retry-After", seconds),
                    None => Reply::status(status),
                })
            });
            let fake = Fake::start(fault).await;
            let begun = Instant::now();
            client().resolve(&fake.reference()).await.unwrap();
            pull_layer(&fake).await.unwrap();
            assert!(begun.elapsed() >= least, "{status} {part}: {:?}", begun.elapsed());
            assert_eq!(fake.asked(part), 3);
        }
    }
}

#[tokio::test]
async fn a_wait_of_a_day_is_refused_at_once_and_no_is_never_asked_twice() {
    let fake = Fake::start(|r| is_manifest(r).then(|| Reply::status(429).with("Retry-After", "86400"))).await;
    let begun = Instant::now();
    let error = client().resolve(&fake.reference()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(error.to_string().contains("86400 s") && begun.elapsed() < Duration::from_secs(1), "{error}");
    for (status, kind) in [
        (400, ErrorKind::Refused),
        (401, ErrorKind::Unauthorized),
        (403, ErrorKind::Unauthorized),
        (404, ErrorKind::NotFound),
        (410, ErrorKind::Refused),
    ] {
        let body = r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#;
        let fake = Fake::start(move |r| is_manifest(r).then(|| Reply::bytes(body).with_status(status))).await;
        let error = client().resolve(&fake.reference()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert!(error.to_string().contains("not for you (DENIED)"), "{error}");
        assert_eq!(fake.asked("/manifests/"), 1, "{status}");
    }
    let fake = Fake::start(|r| is_manifest(r).then(|| Reply::status(502))).await;
    let error = client().resolve(&fake.reference()).await.unwrap_err();
    assert!(error.to_string().contains("502") && error.kind() == ErrorKind::Network, "{error}");
    assert_eq!(fake.asked("/manifests/"), 5);
}

#[tokio::test]
async fn nobody_there_is_a_network_error_that_names_the_host() {
    let host = HttpServer::start(|_| Reply::status(200)).host();
    let nobody: Reference = format!("{host}/app:1").parse().unwrap();
    let error = client().resolve(&nobody).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains(&host), "{error}");
}

/// A registry that takes one upload at a time and breaks off the first: it keeps 40 000 bytes of it, or forgets it.
#[derive(Default)]
struct Uploads {
    forgets: bool,
    begun: usize,
    kept: Vec<u8>,
}

impl Uploads {
    fn answer(&mut self, request: &Request) -> Reply {
        match (request.method.as_str(), request.path.as_str()) {
            ("HEAD", _) => Reply::status(404),
            ("POST", _) => {
                self.begun += 1;
                self.kept.clear();
                self.here(202)
            }
            ("GET", "/v2/a/up?s=1") if self.forgets => Reply::status(404),
            ("GET", "/v2/a/up?s=1") => self.here(204),
            ("PUT", _) if self.begun == 1 && self.kept.is_empty() => {
                self.kept.extend_from_slice(&request.body[..40_000]);
                Reply::status(200).with_body(Body::HangUp)
            }
            ("PATCH", _) if request.header("content-range") == Some("40000-99999") => {
                self.kept.extend_from_slice(&request.body);
                self.here(202)
            }
            ("PUT", path) if path.contains("s=1&digest=sha256%3A") => {
                self.kept.extend_from_slice(&request.body);
                Reply::status(201)
            }
            ("GET", "/v2/") => Reply::status(200),
            _ => Reply::status(400),
        }
    }

    fn here(&self, status: u16) -> Reply {
        let last = self.kept.len().saturating_sub(1);
        Reply::status(status).with("Location", "/v2/a/up?s=1").with("Range", format!("0-{last}"))
    }
}

#[tokio::test]
async fn pushes_continue_where_the_server_says_and_survive_its_forgetting() {
    for forgets in [false, true] {
        let memory = MemoryBlobs::new();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let blob = memory.insert(MediaType::OCI_LAYER, bytes.clone());
        let uploads = Arc::new(Mutex::new(Uploads { forgets, ..Uploads::default() }));
        let shared = uploads.clone();
        let server = HttpServer::start(move |request| shared.lock().unwrap().answer(request));
        let to: Reference = format!("{}/a:1", server.host()).parse().unwrap();
        let pushed = client().push_blob(&to, &blob, &memory, None).await.unwrap();
        assert_eq!(pushed, Pushed::Written);
        let uploads = uploads.lock().unwrap();
        assert!(uploads.kept == bytes);
        assert_eq!(uploads.begun, if forgets { 2 } else { 1 });
    }
}

/// A registry that does not take content before the request that closes an upload.
#[tokio::test]
async fn content_goes_with_the_closing_request_where_nothing_else_is_taken() {
    let memory = MemoryBlobs::new();
    let blob = memory.insert(MediaType::OCI_LAYER, vec![1; 9 << 20]);
    let server = HttpServer::start(|request| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => Reply::status(202).with("Location", "/v2/a/up"),
        "PATCH" => Reply::status(405),
        "PUT" if request.body.len() == 9 << 20 => Reply::status(201),
        _ => Reply::status(400),
    });
    let to: Reference = format!("{}/a:1", server.host()).parse().unwrap();
    assert_eq!(client().push_blob(&to, &blob, &memory, None).await.unwrap(), Pushed::Written);
}

#[tokio::test]
async fn where_the_root_stands_already_one_question_is_enough() {
    let fake = Fake::start(|_| None).await;
    let options = CopyOptions { root_suffices: true, ..CopyOptions::default() };
    let sink = client().sink(&fake.reference());
    let report = copy_graph(&*fake.memory, &sink, &fake.image, &options).await.unwrap();
    assert_eq!((report.existing, report.written), (3, 0));
    let asked: Vec<String> = fake.server.requests().iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(asked, ["GET /v2/", "HEAD /v2/img/manifests/t"]);
    // Another image under that tag is no reason to stop.
    let other = tiny_image(&fake.memory, "other");
    assert!(copy_graph(&*fake.memory, &sink, &other, &options).await.is_err());
    assert!(fake.server.requests().iter().any(|request| request.method == "POST"));
}

#[tokio::test]
async fn a_source_that_breaks_is_not_the_registry_s_fault() {
    struct Broken;
    #[async_trait::async_trait]
    impl kiln_image::BlobSource for Broken {
        async fn fetch(&self, descriptor: &kiln_oci::Descriptor) -> Result<kiln_image::BlobReader> {
            Ok(kiln_image::BlobReader::from_bytes("read the disk", descriptor, "too short".into()))
        }
    }
    let server = HttpServer::start(|request| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => Reply::status(202).with("Location", "/v2/a/up"),
        _ => Reply::status(201),
    });
    let to: Reference = format!("{}/a:1", server.host()).parse().unwrap();
    let blob = kiln_oci::Descriptor::new(MediaType::OCI_LAYER, Digest::sha256("x"), 100);
    let error = client().push_blob(&to, &blob, &Broken, None).await.unwrap_err();
    assert!(matches!(&error, Error::Size { doing, .. } if doing == "read the disk"), "{error:?}");
    assert_eq!(server.requests().iter().filter(|r| r.method == "POST").count(), 1);
}

/// Answers heads and never reads the body of a PUT.
fn deaf_server() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || half_listen(stream));
        }
    });
    host
}

fn half_listen(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    use std::io::{Read as _, Write as _};
    let mut head = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        head.push(byte[0]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let answer = match head[0] {
            b'H' => "404 No\r\nContent-Length: 0\r\n\r\n",
            b'P' if head[1] == b'O' => "202 Yes\r\nLocation: /v2/a/up\r\nContent-Length: 0\r\n\r\n",
            b'P' => {
                std::thread::sleep(Duration::from_secs(10));
                return Ok(());
            }
            _ => "200 Yes\r\nContent-Length: 0\r\n\r\n",
        };
        stream.write_all(format!("HTTP/1.1 {answer}").as_bytes())?;
        head.clear();
    }
    Ok(())
}

#[tokio::test]
async fn an_upload_nobody_reads_is_given_up() {
    let memory = MemoryBlobs::new();
    let blob = memory.insert(MediaType::OCI_LAYER, vec![1; 64 << 20]);
    let to: Reference = format!("{}/a:1", deaf_server()).parse().unwrap();
    let begun = Instant::now();
    let error = client().push_blob(&to, &blob, &memory, None).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}
