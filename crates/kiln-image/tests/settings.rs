//! Registries as they are set up: mirrors, other places, blocked names, certificates.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake;

use std::path::Path;
use std::sync::Arc;

use fake::{Fake, Known, quick};
use kiln_image::testing::tiny_image;
use kiln_image::{
    BlobSource as _, ClientOptions, CopyOptions, ErrorKind, MemoryBlobs, RegistryClient, RegistryOptions,
    SettingsFiles, copy_graph,
};
use kiln_oci::Reference;
use kiln_testkit::{Body, HttpServer, Registry, Reply, certificate};

/// A client that is set up by this text, and knows a login for a host.
fn client(dir: &Path, text: &str, login: &str) -> RegistryClient {
    let named = dir.join("registries.conf");
    std::fs::write(&named, text).unwrap();
    let settings = SettingsFiles { named: Some(named), ..SettingsFiles::default() };
    let client = ClientOptions { retry: quick(), settings, ..ClientOptions::default() };
    let credentials = Arc::new(Known::password(login.to_owned()));
    RegistryClient::new(RegistryOptions { client, credentials })
}

fn mirrored(registry: &str, mirror: &str) -> String {
    format!("[[registry]]\nprefix = \"{registry}\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\n")
}

async fn pull(client: &RegistryClient, fake: &Fake) {
    let resolved = client.resolve(&fake.reference()).await.unwrap();
    assert_eq!(resolved.descriptor, fake.image);
    let read = client.fetch_blob(&fake.reference(), &fake.layer).await.unwrap().bytes("read", 1 << 20).await;
    assert_eq!(read.unwrap(), fake.layer_bytes);
}

#[tokio::test]
async fn a_mirror_is_asked_instead_and_only_for_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, mirror) = (Fake::start(|_| None).await, Fake::start(|_| None).await);
    let (host, near) = (registry.server.host(), mirror.server.host());
    let client = client(dir.path(), &mirrored(&host, &format!("{near}/cache")), &host);
    pull(&client, &registry).await;
    assert!(registry.server.requests().is_empty());
    assert_eq!((mirror.asked("/v2/cache/img/manifests/t"), mirror.asked("/v2/cache/img/blobs/")), (1, 1));
    let before = mirror.server.requests().len();
    let options = CopyOptions { root_suffices: true, ..CopyOptions::default() };
    copy_graph(&*registry.memory, &client.sink(&registry.reference()), &registry.image, &options).await.unwrap();
    assert_eq!((mirror.server.requests().len(), registry.asked("/v2/img/manifests/t")), (before, 1));
}

#[tokio::test]
async fn a_mirror_of_a_table_hears_which_registry_it_stands_for() {
    let dir = tempfile::tempdir().unwrap();
    let image = Fake::start(|_| None).await;
    let (bytes, kind) = (image.memory.fetch(&image.image).await.unwrap(), image.image.media_type.to_string());
    let bytes = bytes.bytes("read", 1 << 20).await.unwrap();
    let mirror = HttpServer::start(move |request| match request.path.as_str() {
        "/v2/cache/img/manifests/t?ns=r.lan%3A5000" => Reply::bytes(bytes.clone()).with("Content-Type", &*kind),
        _ => Reply::status(404),
    });
    let text = format!("[registry.\"r.lan:5000\"]\nmirrors = [\"{}/cache\"]\n", mirror.host());
    let client = client(dir.path(), &text, "");
    let resolved = client.resolve(&"r.lan:5000/img:t".parse().unwrap()).await.unwrap();
    assert_eq!(resolved.descriptor, image.image);
}

#[tokio::test]
async fn where_a_mirror_fails_the_registry_is_asked_with_its_own_login() {
    const BASIC: &str = "Basic dXNlcjpodXNo";
    let dir = tempfile::tempdir().unwrap();
    let gone = HttpServer::start(|_| Reply::status(200)).host();
    for (what, mirror) in [
        ("nobody there", None),
        ("not there", Some(HttpServer::start(|_| Reply::status(404)))),
        ("a login", Some(HttpServer::start(|_| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\"")))),
        ("nonsense", Some(HttpServer::start(|_| Reply::status(500)))),
    ] {
        let registry = Fake::start(|request| {
            let is_known = request.header("authorization") == Some(BASIC);
            (!is_known).then(|| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""))
        })
        .await;
        let near = mirror.as_ref().map_or_else(|| gone.clone(), HttpServer::host);
        let host = registry.server.host();
        pull(&client(dir.path(), &mirrored(&host, &near), &host), &registry).await;
        let seen = mirror.map(|mirror| mirror.requests()).unwrap_or_default();
        assert!(seen.iter().all(|request| request.header("authorization").is_none()), "{what}");
    }
}

#[tokio::test]
async fn a_mirror_that_sends_something_else_is_left_for_the_registry_and_named_when_nobody_has_it() {
    let dir = tempfile::tempdir().unwrap();
    for registry_has_it in [true, false] {
        let registry =
            Fake::start(move |r| (!registry_has_it && r.path.contains("/blobs/")).then(|| Reply::status(404))).await;
        let mirror = Fake::start(|request| {
            let is_layer = request.path.contains("/blobs/") && request.method == "GET";
            is_layer.then(|| Reply::bytes(vec![0; 2048]))
        })
        .await;
        let (host, near) = (registry.server.host(), format!("{}/cache", mirror.server.host()));
        let client = client(dir.path(), &mirrored(&host, &near), &host);
        let source = client.source(&registry.reference());
        let read = async { source.fetch(&registry.layer).await?.bytes("read", 1 << 20).await };
        let digest = registry.layer.digest.as_str();
        match read.await {
            Ok(bytes) => assert!(registry_has_it && bytes == registry.layer_bytes),
            Err(error) => {
                let text = error.to_string();
                let zeros = kiln_oci::Digest::sha256([0; 2048]);
                let told = [digest, zeros.as_str(), &near, "digest mismatch"];
                assert!(!registry_has_it && told.iter().all(|part| text.contains(part)), "{text}");
            }
        }
        assert_eq!((mirror.asked(digest), registry.asked(digest)), (2, 1));
    }
}

#[tokio::test]
async fn what_a_mirror_breaks_off_again_and_again_the_registry_ends() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Fake::start(|_| None).await;
    let bytes = registry.layer_bytes.clone();
    let mirror = Fake::start(move |request| {
        let reply = match request.range_start() {
            None => Reply::status(200).with_body(Body::CutAfter(bytes.clone(), 700)),
            Some(_) => Reply::status(200).with_body(Body::HangUp),
        };
        request.path.contains("/blobs/").then_some(reply)
    })
    .await;
    let host = registry.server.host();
    let client = client(dir.path(), &mirrored(&host, &mirror.server.host()), &host);
    pull(&client, &registry).await;
    let last = registry.server.requests().pop().unwrap();
    assert_eq!(last.range_start(), Some(700));
}

#[tokio::test]
async fn a_manifest_that_a_mirror_changed_comes_from_the_registry() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Fake::start(|_| None).await;
    let right = registry.image.digest.to_string();
    let mirror = Fake::start(move |request| {
        let changed = Reply::bytes("{}").with("Docker-Content-Digest", &*right);
        request.path.contains("/manifests/").then_some(changed)
    })
    .await;
    let host = registry.server.host();
    let client = client(dir.path(), &mirrored(&host, &mirror.server.host()), &host);
    pull(&client, &registry).await;
    assert_eq!((mirror.asked("/manifests/"), registry.asked("/manifests/")), (3, 1));
    assert_eq!(registry.asked("/blobs/"), 0);
}

#[tokio::test]
async fn blocked_names_are_neither_read_nor_written() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_| None).await;
    let text = format!("[[registry]]\nprefix = \"{}/img\"\nblocked = true\n", fake.server.host());
    let client = client(dir.path(), &text, "");
    let error = client.resolve(&fake.reference()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("block"), "{error}");
    let sink = client.sink(&fake.reference());
    let error = copy_graph(&*fake.memory, &sink, &fake.image, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(fake.server.requests().iter().all(|request| request.path == "/v2/"), "{:?}", fake.server.requests());
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_told_before_anybody_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_| None).await;
    let error = client(dir.path(), "[[registry", "").resolve(&fake.reference()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Environment && error.to_string().contains("registries.conf"), "{error}");
    assert!(fake.server.requests().is_empty());
}

#[tokio::test]
async fn a_registry_that_must_show_a_certificate_may_do_without_when_a_push_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let Some((cert, _)) = certificate(dir.path()) else { return };
    let fake = Fake::start(|_| None).await;
    let host = fake.server.host();
    let client = client(dir.path(), &format!("[registry.\"{host}\"]\nca = [\"{cert}\"]\n"), "");
    let options = CopyOptions { root_suffices: true, ..CopyOptions::default() };
    let push = async |client: &RegistryClient| {
        copy_graph(&*fake.memory, &client.sink(&fake.reference()), &fake.image, &options).await
    };
    assert_eq!(push(&client).await.unwrap_err().kind(), ErrorKind::Network);
    assert_eq!(push(&client.allowing_insecure(&host)).await.unwrap().existing, 3);
    assert!(push(&client.allowing_insecure("other.lan")).await.is_err());
}

#[tokio::test]
async fn certificates_are_shown_and_held_against_the_authorities_of_their_host() {
    let dir = tempfile::tempdir().unwrap();
    let Some((cert, key)) = certificate(dir.path()) else { return };
    let Some(registry) = Registry::with_client_certificates(cert.as_ref(), key.as_ref()) else { return };
    let host = registry.host();
    let to: Reference = format!("{host}/app:1").parse().unwrap();
    let memory = MemoryBlobs::new();
    let image = tiny_image(&memory, "tls");
    let push = async |text: &str| {
        let client = client(dir.path(), text, "");
        copy_graph(&memory, &client.sink(&to), &image, &CopyOptions::default()).await
    };
    assert!(push("").await.is_err(), "it wants a certificate");
    let pair = format!("keypair = [{{ key = \"{key}\", cert = \"{cert}\" }}]");
    let ours = format!("[registry.\"{host}\"]\nca = [\"{cert}\"]\n{pair}\n");
    assert_eq!(push(&ours).await.unwrap().written, 3);
    let other = tempfile::tempdir().unwrap();
    let (stranger, _) = certificate(other.path()).unwrap();
    let wrong = format!("[registry.\"{host}\"]\nca = [\"{stranger}\"]\n{pair}\n");
    assert_eq!(push(&wrong).await.unwrap_err().kind(), ErrorKind::Network);

    let certs = dir.path().join("certs.d");
    std::fs::create_dir_all(certs.join(&host)).unwrap();
    for (from, name) in [(&cert, "ca.crt"), (&cert, "client.cert"), (&key, "client.key")] {
        std::fs::copy(from, certs.join(&host).join(name)).unwrap();
    }
    let settings = SettingsFiles { certificates: vec![certs], ..SettingsFiles::default() };
    let client = ClientOptions { settings, retry: quick(), ..ClientOptions::default() };
    let client = RegistryClient::new(RegistryOptions { client, ..RegistryOptions::default() });
    assert_eq!(client.resolve(&to).await.unwrap().descriptor, image);
}

#[tokio::test]
async fn a_mirror_that_is_passed_over_is_told_once_and_again_when_the_registry_fails() {
    let dir = tempfile::tempdir().unwrap();
    let gone = HttpServer::start(|_| Reply::status(200)).host();
    let empty = HttpServer::start(|_| Reply::status(404));
    let registry = Fake::start(|request| request.path.contains("lacking").then(|| Reply::status(404))).await;
    let host = registry.server.host();
    for (near, told, why) in [
        (gone.clone(), gone, "no answer from"),
        (format!("{}/cache", empty.host()), format!("{}/cache/img", empty.host()), "not found on"),
    ] {
        let client = client(dir.path(), &mirrored(&host, &near), &host);
        pull(&client, &registry).await;
        let notes = client.passed_over();
        let start = format!("mirror `{told}` is passed over: {why}");
        assert!(notes.len() == 1 && notes[0].starts_with(&start), "{notes:?}");
        pull(&client, &registry).await;
        assert_eq!(client.passed_over(), Vec::<String>::new());
        let error = client.resolve(&format!("{host}/lacking:t").parse().unwrap()).await.unwrap_err().to_string();
        let mirror = told.replace("/img", "/lacking");
        assert!(error.contains(&format!("(mirror `{mirror}` was passed over: {why}")), "{error}");
    }
}
