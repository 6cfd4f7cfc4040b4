//! What refers to an image, where registries list it and where they do not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake;

use fake::client;
use kiln_image::testing::tiny_image;
use kiln_image::{BlobSink as _, CopyOptions, ErrorKind, MemoryBlobs, RegistryClient, Role, copy_graph};
use kiln_oci::{Descriptor, Manifest, MediaType, Raw, Reference};
use kiln_testkit::{HttpServer, Registry, Reply, Request};

const SIGNATURE: &str = "application/vnd.example.signature";

/// A manifest of an artifact that refers to `subject`.
fn artifact(memory: &MemoryBlobs, subject: &Descriptor, kind: &str) -> (Descriptor, Vec<u8>) {
    let manifest = Raw::new(Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OCI_MANIFEST.into()),
        artifact_type: Some(kind.into()),
        config: memory.insert("application/vnd.oci.empty.v1+json", b"{}".to_vec()),
        layers: vec![memory.insert("text/plain", kind.as_bytes().to_vec())],
        subject: Some(Descriptor::new(subject.media_type.clone(), subject.digest.clone(), subject.size)),
        annotations: [("made".to_owned(), "here".to_owned())].into(),
    });
    let bytes = manifest.bytes().to_vec();
    (memory.insert(MediaType::OCI_MANIFEST, bytes.clone()), bytes)
}

async fn listed(client: &RegistryClient, image: &Reference, of: &Descriptor, kind: Option<&str>) -> Vec<Descriptor> {
    client.referrers(image, &of.digest, kind).await.unwrap()
}

/// Debian's registry is of a version that lists nothing itself.
#[tokio::test]
async fn where_the_registry_lists_nothing_an_index_is_kept_under_a_tag() {
    let Some(registry) = Registry::start() else { return };
    let image: Reference = format!("{}/app:1", registry.host()).parse().unwrap();
    let (client, memory) = (client(), MemoryBlobs::new());
    let subject = tiny_image(&memory, "subject");
    copy_graph(&memory, &client.sink(&image), &subject, &CopyOptions::default()).await.unwrap();
    assert_eq!(listed(&client, &image, &subject, None).await, []);
    let untagged = Reference { tag: None, ..image.clone() };
    for kind in [SIGNATURE, "text/spdx", SIGNATURE] {
        let (root, _) = artifact(&memory, &subject, kind);
        copy_graph(&memory, &client.sink(&untagged), &root, &CopyOptions::default()).await.unwrap();
    }
    let all = listed(&client, &image, &subject, None).await;
    let kinds: Vec<_> = all.iter().map(|entry| entry.artifact_type.as_deref().unwrap()).collect();
    assert_eq!(kinds, [SIGNATURE, "text/spdx"]);
    assert_eq!(all[0].annotations["made"], "here");
    let only = listed(&client, &image, &subject, Some("text/spdx")).await;
    assert_eq!(only, all[1..]);
    let tag = subject.digest.to_string().replace(':', "-");
    let index = client.resolve(&Reference { tag: Some(tag), ..image }).await.unwrap();
    assert_eq!(index.descriptor.media_type.as_str(), MediaType::OCI_INDEX);
}

#[tokio::test]
async fn a_registry_that_lists_is_read_page_by_page_and_keeps_no_tag() {
    let memory = MemoryBlobs::new();
    let subject = tiny_image(&memory, "subject");
    let (first, bytes) = artifact(&memory, &subject, SIGNATURE);
    let (second, _) = artifact(&memory, &subject, "text/spdx");
    let page = |entry: &Descriptor, kind: &str| {
        let (digest, size) = (&entry.digest, entry.size);
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{digest}","size":{size},"artifactType":"{kind}"}}]}}"#,
            MediaType::OCI_MANIFEST
        )
    };
    let pages = [page(&first, SIGNATURE), page(&second, "text/spdx")];
    let server = HttpServer::start(move |request: &Request| {
        let path = request.path.as_str();
        match (request.method.as_str(), path.contains("/referrers/")) {
            ("GET", true) if path.contains("page=2") => Reply::bytes(pages[1].clone()),
            ("GET", true) => Reply::bytes(pages[0].clone()).with("Link", "</v2/app/referrers/x?page=2>; rel=\"next\""),
            ("PUT", false) => Reply::status(201).with("OCI-Subject", "sha256:whatever"),
            ("GET", false) if path == "/v2/" => Reply::status(200),
            _ => Reply::status(404),
        }
    });
    let image: Reference = format!("{}/app", server.host()).parse().unwrap();
    let all = listed(&client(), &image, &subject, None).await;
    assert_eq!(all.iter().map(|entry| &entry.digest).collect::<Vec<_>>(), [&first.digest, &second.digest]);
    assert_eq!(listed(&client(), &image, &subject, Some(SIGNATURE)).await.len(), 1);
    client().sink(&image).push_document(&first, &bytes, Role::Root).await.unwrap();
    assert_eq!(server.requests().iter().filter(|request| request.method == "PUT").count(), 1);
}

#[tokio::test]
async fn a_list_without_end_and_nonsense_are_errors() {
    let subject = Descriptor::of(MediaType::OCI_MANIFEST, b"x");
    let endless = r#"{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"DIGEST","size":1}]}"#;
    let endless = endless.replace("DIGEST", subject.digest.as_str());
    for (body, kind) in [(endless.as_str(), ErrorKind::Lying), ("<html>", ErrorKind::Lying)] {
        let body = body.to_owned();
        let server = HttpServer::start(move |request: &Request| match request.path.as_str() {
            "/v2/" => Reply::status(200),
            _ => Reply::bytes(body.clone()).with("Link", "</v2/app/referrers/more>; rel=\"next\""),
        });
        let image: Reference = format!("{}/app", server.host()).parse().unwrap();
        let error = client().referrers(&image, &subject.digest, None).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}
