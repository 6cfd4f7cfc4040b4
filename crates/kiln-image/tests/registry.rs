//! Against a real registry: push, pull, mount, log in, and continue after broken connections.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_image::testing::tiny_image;
use kiln_image::{
    AuthFiles, BlobSink as _, BlobSource as _, ClientOptions, CopyOptions, Credential, Error, ErrorKind, HttpClient,
    MemoryBlobs, Progress, Pushed, RegistryClient, RegistryOptions, RetryPolicy, Transfer, TransferState, copy_graph,
    login,
};
use kiln_oci::{Descriptor, Digest, Document, Index, MediaType, Platform, Raw, Reference};
use kiln_testkit::{FlakyProxy, Registry, Tool, certificate};

fn client() -> RegistryClient {
    RegistryClient::new(RegistryOptions::default())
}

fn quick() -> RetryPolicy {
    RetryPolicy { base: Duration::from_millis(20), ..RetryPolicy::default() }
}

fn with_file(config: &Path) -> RegistryClient {
    let credentials = Arc::new(AuthFiles::new([config.to_owned()]));
    RegistryClient::new(RegistryOptions { credentials, ..RegistryOptions::default() })
}

fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

async fn push(client: &RegistryClient, to: &Reference, salt: &str) -> (MemoryBlobs, Descriptor) {
    let memory = MemoryBlobs::new();
    let image = tiny_image(&memory, salt);
    copy_graph(&memory, &client.sink(to), &image, &CopyOptions::default()).await.unwrap();
    (memory, image)
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled_by_tag_and_by_digest() {
    let Some(registry) = Registry::start() else { return };
    let client = client();
    let tagged = reference(&registry.host(), "team/app:1.0");
    let (memory, image) = push(&client, &tagged, "pull").await;
    let resolved = client.resolve(&tagged).await.unwrap();
    assert_eq!(resolved.descriptor, image);
    let pinned = client.resolve(&tagged.with_digest(image.digest.clone())).await.unwrap();
    assert_eq!(pinned.descriptor, image);
    assert_eq!(client.peek(&tagged).await.unwrap(), Some(image.clone()));
    let copy = MemoryBlobs::new();
    let report = copy_graph(&client.source(&tagged), &copy, &image, &CopyOptions::default()).await.unwrap();
    assert_eq!(report.written, 3);
    let Document::Manifest(manifest) = resolved.document else { panic!("a manifest was pushed") };
    for layer in &manifest.value().layers {
        let read = async |from: &MemoryBlobs| from.fetch(layer).await.unwrap().bytes("read", 1 << 20).await.unwrap();
        assert_eq!(read(&copy).await, read(&memory).await);
    }
}

#[tokio::test]
async fn skopeo_pulls_what_we_push_and_we_pull_what_it_pushes() {
    let (Some(registry), Some(skopeo)) = (Registry::start(), Tool::find("skopeo")) else { return };
    let client = client();
    let ours = reference(&registry.host(), "ours:1");
    let (_, image) = push(&client, &ours, "skopeo").await;
    let raw = skopeo.run(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{ours}")]).unwrap();
    assert_eq!(Digest::sha256(raw), image.digest);
    let theirs = reference(&registry.host(), "theirs:1");
    for (format, kind) in [("oci", MediaType::OCI_MANIFEST), ("v2s2", MediaType::DOCKER_MANIFEST)] {
        let flags = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "-f", format];
        let ends = [format!("docker://{ours}"), format!("docker://{theirs}")];
        skopeo.run(&[&flags[..], &[&ends[0], &ends[1]]].concat()).unwrap();
        let resolved = client.resolve(&theirs).await.unwrap();
        assert_eq!(resolved.descriptor.media_type.as_str(), kind);
        let memory = MemoryBlobs::new();
        let root = &resolved.descriptor;
        let report = copy_graph(&client.source(&theirs), &memory, root, &CopyOptions::default()).await.unwrap();
        assert_eq!(report.written, 3);
    }
}

#[tokio::test]
async fn an_index_is_pushed_children_first_and_picked_from_by_platform() {
    let Some(registry) = Registry::start() else { return };
    let client = client();
    let memory = MemoryBlobs::new();
    let mut entries = vec![tiny_image(&memory, "amd64"), tiny_image(&memory, "arm64")];
    entries[0].platform = Some(Platform::linux("amd64"));
    entries[1].platform = Some(Platform::linux("arm64"));
    let index = Raw::new(Index {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX.into()),
        manifests: entries.clone(),
        annotations: Default::default(),
    });
    let root = memory.insert(MediaType::OCI_INDEX, index.bytes().to_vec());
    let to = reference(&registry.host(), "multi:1");
    copy_graph(&memory, &client.sink(&to), &root, &CopyOptions::default()).await.unwrap();
    let resolved = client.resolve(&to).await.unwrap();
    assert_eq!(resolved.descriptor, root);
    assert_eq!(resolved.for_platform(&Platform::linux("arm64")).unwrap(), entries[1]);
    let error = resolved.for_platform(&Platform::linux("s390x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("`linux/amd64`, `linux/arm64`"), "{error}");
}

#[tokio::test]
async fn blobs_of_another_repository_are_mounted_and_a_refused_mount_becomes_an_upload() {
    let Some(registry) = Registry::start() else { return };
    let client = client();
    let (memory, image) = push(&client, &reference(&registry.host(), "base:1"), "mount").await;
    let mounting = client.sink(&reference(&registry.host(), "copy:1")).mounting_from("base");
    let report = copy_graph(&memory, &mounting, &image, &CopyOptions::default()).await.unwrap();
    assert_eq!((report.mounted, report.written), (3, 0));
    let elsewhere = client.sink(&reference(&registry.host(), "other:1")).mounting_from("nobody/here");
    let report = copy_graph(&memory, &elsewhere, &image, &CopyOptions::default()).await.unwrap();
    assert_eq!((report.mounted, report.written), (0, 3));
}

#[tokio::test]
async fn pushing_what_is_there_reads_nothing_and_is_quick() {
    let Some(registry) = Registry::start() else { return };
    let client = client();
    let to = reference(&registry.host(), "app:1");
    let (memory, image) = push(&client, &to, "again").await;
    let heard: Arc<Mutex<Vec<Transfer>>> = Arc::default();
    let log = heard.clone();
    let progress: Arc<dyn Progress> = Arc::new(move |transfer| log.lock().unwrap().push(transfer));
    let options = CopyOptions { progress: Some(progress), ..CopyOptions::default() };
    let begun = Instant::now();
    let report = copy_graph(&memory, &client.sink(&to), &image, &options).await.unwrap();
    assert_eq!((report.existing, report.written), (3, 0));
    assert!(heard.lock().unwrap().iter().all(|t| t.state == TransferState::Done(Pushed::Existing)));
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn progress_runs_from_nothing_to_all_for_each_blob() {
    let Some(registry) = Registry::start() else { return };
    let memory = MemoryBlobs::new();
    let image = tiny_image(&memory, "progress");
    let heard: Arc<Mutex<Vec<Transfer>>> = Arc::default();
    let log = heard.clone();
    let progress: Arc<dyn Progress> = Arc::new(move |transfer| log.lock().unwrap().push(transfer));
    let options = CopyOptions { progress: Some(progress), ..CopyOptions::default() };
    let sink = client().sink(&reference(&registry.host(), "app:1"));
    copy_graph(&memory, &sink, &image, &options).await.unwrap();
    let heard = heard.lock().unwrap();
    let ends: Vec<_> = heard.iter().filter(|t| t.state == TransferState::Done(Pushed::Written)).collect();
    assert_eq!(ends.len(), 3);
    for end in ends {
        assert_eq!(end.done, end.descriptor.size);
        let steps: Vec<u64> = heard.iter().filter(|t| t.descriptor == end.descriptor).map(|t| t.done).collect();
        assert!(steps[0] == 0 && steps.is_sorted(), "{steps:?}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_named_in_full() {
    let Some(registry) = Registry::start() else { return };
    let client = client();
    let missing = reference(&registry.host(), "no/such:1");
    let error = client.resolve(&missing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.contains(&missing.to_string()) && text.contains("MANIFEST_UNKNOWN"), "{text}");
    assert_eq!(client.peek(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
    let blob = Descriptor::new(MediaType::OCI_LAYER, Digest::sha256("x"), 1);
    assert_eq!(client.fetch_blob(&missing, &blob).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_manifest_whose_blobs_are_missing_is_refused_in_the_registry_s_words() {
    let Some(registry) = Registry::start() else { return };
    let memory = MemoryBlobs::new();
    let image = tiny_image(&memory, "orphan");
    let bytes = memory.fetch(&image).await.unwrap().bytes("read", 1 << 20).await.unwrap();
    let sink = client().sink(&reference(&registry.host(), "app:1"));
    let error = sink.push_document(&image, &bytes, kiln_image::Role::Root).await.unwrap_err();
    assert!(matches!(error, Error::Status { status: 400, .. } | Error::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("BLOB_UNKNOWN"), "{error}");
}

#[tokio::test]
async fn a_registry_that_wants_a_login_gets_the_one_of_its_host_only() {
    let Some(registry) = Registry::with_login() else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let to = reference(&registry.host(), "app:1");
    let memory = MemoryBlobs::new();
    let image = tiny_image(&memory, "login");
    let attempt = async || {
        let client = with_file(&config);
        copy_graph(&memory, &client.sink(&to), &image, &CopyOptions::default()).await
    };
    let anonymous = attempt().await.unwrap_err();
    assert_eq!(anonymous.kind(), ErrorKind::Unauthorized);
    assert!(matches!(anonymous, Error::Unauthorized { tried: kiln_image::Login::Anonymous, .. }));

    let (username, password) = Registry::login();
    let wrong = Credential::Password { username: username.into(), password: "guess".into() };
    let right = Credential::Password { username: username.into(), password: password.into() };
    let refused = login::verify(&client(), &registry.host(), &wrong).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthorized);
    assert!(!format!("{refused:?}").contains("guess"));
    login::store(&config, "127.0.0.1:1", &right).await.unwrap();
    assert_eq!(attempt().await.unwrap_err().kind(), ErrorKind::Unauthorized);

    let verified = login::verify(&client(), &registry.host(), &right).await.unwrap();
    assert!(verified.was_asked && verified.keep == right);
    login::store(&config, &registry.host(), &verified.keep).await.unwrap();
    assert_eq!(attempt().await.unwrap().written, 3);
    assert_eq!(with_file(&config).resolve(&to).await.unwrap().descriptor, image);
    assert!(login::remove(&config, &registry.host()).await.unwrap());
    assert_eq!(attempt().await.unwrap_err().kind(), ErrorKind::Unauthorized);
}

#[tokio::test]
async fn a_registry_without_a_login_says_so() {
    let Some(registry) = Registry::start() else { return };
    let any = Credential::Password { username: "u".into(), password: "p".into() };
    assert!(!login::verify(&client(), &registry.host(), &any).await.unwrap().was_asked);
}

#[tokio::test]
async fn tls_is_spoken_where_it_is_and_verified_unless_it_is_a_loopback_registry() {
    let dir = tempfile::tempdir().unwrap();
    let Some((cert, key)) = certificate(dir.path()) else { return };
    let Some(registry) = Registry::with_tls(cert.as_ref(), key.as_ref()) else { return };
    // A registry on this machine needs no known certificate.
    let to = reference(&registry.host(), "app:1");
    let (_, image) = push(&client(), &to, "tls").await;
    assert_eq!(client().resolve(&to).await.unwrap().descriptor, image);
    // A download does.
    let url = format!("https://{}/v2/", registry.host());
    let request = kiln_image::DownloadRequest { url, ..Default::default() };
    let begun = Instant::now();
    let stranger = HttpClient::new(ClientOptions::default()).download(&request).await.unwrap_err();
    assert_eq!(stranger.kind(), ErrorKind::Network);
    assert!(begun.elapsed() < Duration::from_millis(300), "a wrong certificate is not tried again");
    let extra_roots = vec![std::fs::read(&cert).unwrap()];
    let knowing = HttpClient::new(ClientOptions { extra_roots, ..ClientOptions::default() });
    knowing.download(&request).await.unwrap();
    let extra_roots = vec![b"no certificate".to_vec()];
    let confused = HttpClient::new(ClientOptions { extra_roots, ..ClientOptions::default() });
    assert!(confused.download(&request).await.is_err());
}

fn big_blob(size: usize) -> (MemoryBlobs, Descriptor) {
    let memory = MemoryBlobs::new();
    let bytes: Vec<u8> = (0..size as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let descriptor = memory.insert(MediaType::OCI_LAYER, bytes);
    (memory, descriptor)
}

fn impatient(policy: RetryPolicy) -> RegistryClient {
    let client = ClientOptions { retry: policy, ..ClientOptions::default() };
    RegistryClient::new(RegistryOptions { client, ..RegistryOptions::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_continues_where_the_connection_broke() {
    let Some(registry) = Registry::start() else { return };
    const SIZE: usize = 24 << 20;
    let (memory, blob) = big_blob(SIZE);
    let direct = reference(&registry.host(), "big:1");
    client().push_blob(&direct, &blob, &memory, None).await.unwrap();
    // More breaks than tries: progress in between buys new patience.
    let proxy = FlakyProxy::start(&registry.host(), &[3 << 20, 2 << 20, 5 << 20, 1_500_000, 2 << 20, 1_500_000]);
    let through = reference(&proxy.host(), "big:1");
    let reader = impatient(quick()).fetch_blob(&through, &blob).await.unwrap();
    assert_eq!(reader.bytes("read", 1 << 30).await.unwrap().len(), SIZE);
    assert_eq!(proxy.cuts_left(), 0);
    // Resumed, not begun again: at most what was in flight at a break is sent twice.
    assert!(proxy.forwarded() < SIZE as u64 + 6 * (1 << 20), "{}", proxy.forwarded());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_survives_broken_connections() {
    let Some(registry) = Registry::start() else { return };
    const SIZE: usize = 24 << 20;
    let (memory, blob) = big_blob(SIZE);
    // This registry forgets uploads that broke off; hostile.rs has one that does not.
    let proxy = FlakyProxy::start(&registry.host(), &[9 << 20, 4 << 20, 3 << 20]);
    let through = reference(&proxy.host(), "big:1");
    let pushed = impatient(quick()).push_blob(&through, &blob, &memory, None).await.unwrap();
    assert_eq!((pushed, proxy.cuts_left()), (Pushed::Written, 0));
    let back = client().fetch_blob(&reference(&registry.host(), "big:1"), &blob).await.unwrap();
    assert_eq!(back.bytes("read", 1 << 30).await.unwrap().len(), SIZE);
}

#[tokio::test]
async fn a_second_process_fetches_only_the_rest() {
    let Some(registry) = Registry::start() else { return };
    let (memory, blob) = big_blob(3 << 20);
    let to = reference(&registry.host(), "big:1");
    client().push_blob(&to, &blob, &memory, None).await.unwrap();
    let bytes = memory.fetch(&blob).await.unwrap().bytes("read", 1 << 30).await.unwrap();
    let half = bytes.len() / 2;
    for (kept, right) in [(&bytes[..half], true), (&bytes[1..=half], false), (&bytes[..0], true)] {
        let mut seen = kiln_image::Verifier::new(&blob.digest);
        seen.update(kept);
        let rest = async { client().fetch_rest(&to, &blob, seen).await?.bytes("read", 1 << 30).await };
        match rest.await {
            Ok(rest) => assert!(right && rest == bytes[kept.len()..]),
            Err(error) => assert!(!right && error.kind() == ErrorKind::Lying, "{error}"),
        }
    }
}
