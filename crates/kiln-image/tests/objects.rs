//! Stores of objects keep what they are given, under BuildKit's names, from those who may write only.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use kiln_image::objects::{
    ActionsOptions, AwsKeys, AzureOptions, ObjectOptions, ObjectStore, S3Options, Secret, StoreLayout, open,
};
use kiln_image::{ClientOptions, ErrorKind, HttpClient, MemoryBlobs, Pushed, RetryPolicy};
use kiln_oci::Descriptor;
use kiln_testkit::{ActionsServer, AzureServer, HttpServer, Reply, S3Server};

fn http() -> HttpClient {
    let retry = RetryPolicy { tries: 2, base: Duration::from_millis(10), ..RetryPolicy::default() };
    HttpClient::new(ClientOptions { retry, ..ClientOptions::default() })
}

fn bucket(server: &S3Server) -> S3Options {
    let keys = AwsKeys { id: server.keys.0.clone(), secret: Secret::new(&server.keys.1), token: None };
    S3Options { keys: Some(keys), ..bucket_at(server.url()) }
}

fn bucket_at(url: String) -> S3Options {
    let layout = StoreLayout {
        prefix: "team x/".into(),
        blobs_prefix: "blobs/".into(),
        manifests_prefix: "manifests/".into(),
        names: vec!["main".into()],
    };
    S3Options {
        bucket: S3Server::BUCKET.into(),
        region: "us-east-1".into(),
        endpoint: Some(url),
        use_path_style: true,
        layout,
        touch_refresh: Duration::from_secs(3600),
        upload_parallelism: NonZero::new(2).unwrap(),
        attempts: None,
        keys: None,
        environment: BTreeMap::new(),
    }
}

fn s3(options: S3Options) -> Arc<dyn ObjectStore> {
    open(&ObjectOptions::S3(Box::new(options)), &http()).unwrap()
}

#[tokio::test]
async fn without_keys_the_identity_of_the_machine_signs() {
    let server = HttpServer::start(|request| match request.path.as_str() {
        "/latest/api/token" => Reply::bytes("session"),
        "/latest/meta-data/iam/security-credentials/" => Reply::bytes("role"),
        "/latest/meta-data/iam/security-credentials/role" => Reply::bytes(
            r#"{"AccessKeyId":"lent","SecretAccessKey":"s","Token":"hushed","Expiration":"2286-01-01T00:00:00Z"}"#,
        ),
        "/cache/team%20x/manifests/main" => {
            let is_lent = request.header("authorization").is_some_and(|signed| signed.contains("Credential=lent/"));
            let token = request.header("x-amz-security-token").unwrap_or_default();
            match is_lent {
                true => {
                    Reply::bytes(format!("<Error><Code>X</Code><Message>{token}</Message></Error>")).with_status(418)
                }
                false => Reply::status(500),
            }
        }
        _ => Reply::status(404),
    });
    let environment = |url: &str| BTreeMap::from([("AWS_METADATA_ENDPOINT".to_owned(), Secret::new(url))]);
    let store = s3(S3Options { environment: environment(&server.url("")), ..bucket_at(server.url("")) });
    let error = store.document("main").await.unwrap_err().to_string();
    assert!(error.contains("418") && !error.contains("hushed"), "{error}");
    let nobody = s3(S3Options { environment: environment("http://127.0.0.1:1"), ..bucket_at(server.url("")) });
    let error = nobody.document("main").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
}

/// Bytes that are not all alike.
fn noise(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

async fn read(store: &dyn ObjectStore, blob: &Descriptor) -> Vec<u8> {
    store.fetch(blob).await.unwrap().bytes("read", u64::MAX).await.unwrap()
}

/// Sends a small blob and one of several pieces, and reads them back.
async fn keeps_blobs(store: &dyn ObjectStore) {
    let memory = MemoryBlobs::new();
    for bytes in [Vec::new(), noise(1000), noise((16 << 20) + 5)] {
        let blob = memory.insert("x", bytes.clone());
        assert!(!store.has(&blob).await.unwrap());
        assert_eq!(store.push(&blob, &memory).await.unwrap(), Pushed::Written);
        assert!(store.has(&blob).await.unwrap());
        assert_eq!(store.push(&blob, &memory).await.unwrap(), Pushed::Existing);
        assert!(read(store, &blob).await == bytes, "{} bytes came back changed", bytes.len());
    }
}

async fn keeps_documents(store: &dyn ObjectStore) {
    let name = &store.own_names()[0];
    assert_eq!(store.document(name).await.unwrap(), None);
    for text in ["one", "two"] {
        store.write_document(name, text.into()).await.unwrap();
        assert_eq!(store.document(name).await.unwrap().unwrap(), text.as_bytes());
    }
}

#[tokio::test]
async fn a_bucket_keeps_what_it_is_given() {
    let Some(server) = S3Server::start() else { return };
    let store = s3(bucket(&server));
    keeps_documents(store.as_ref()).await;
    keeps_blobs(store.as_ref()).await;
    // What is there but cut short is written again.
    let memory = MemoryBlobs::new();
    let blob = memory.insert("x", noise(3000));
    let claimed = Descriptor { size: 2999, ..blob.clone() };
    store.push(&blob, &memory).await.unwrap();
    assert!(!store.has(&claimed).await.unwrap());
    let error = read_error(store.as_ref(), &claimed).await;
    assert_eq!(error, ErrorKind::Lying);
}

async fn read_error(store: &dyn ObjectStore, blob: &Descriptor) -> ErrorKind {
    match store.fetch(blob).await {
        Err(error) => error.kind(),
        Ok(reader) => reader.bytes("read", u64::MAX).await.unwrap_err().kind(),
    }
}

#[tokio::test]
async fn an_old_object_is_touched_when_it_is_used_again() {
    let Some(server) = S3Server::start() else { return };
    let memory = MemoryBlobs::new();
    let blob = memory.insert("x", noise(1000));
    let store = s3(S3Options { touch_refresh: Duration::ZERO, ..bucket(&server) });
    store.push(&blob, &memory).await.unwrap();
    // The source is empty now: what is touched is copied within the bucket.
    assert_eq!(store.push(&blob, &MemoryBlobs::new()).await.unwrap(), Pushed::Existing);
    assert_eq!(read(store.as_ref(), &blob).await, noise(1000));
}

#[tokio::test]
async fn a_bucket_refuses_strangers_and_says_no_secrets() {
    let Some(server) = S3Server::start() else { return };
    let memory = MemoryBlobs::new();
    let blob = memory.insert("x", noise(10));
    let keys = |secret: &str| AwsKeys { id: server.keys.0.clone(), secret: Secret::new(secret), token: None };
    let store = s3(S3Options { keys: Some(keys("wrong-and-hushed")), ..bucket(&server) });
    let refused = [
        store.push(&blob, &memory).await.map(drop).unwrap_err(),
        store.write_document("main", "x".into()).await.unwrap_err(),
        store.document("main").await.map(drop).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(!format!("{error:?}").contains("hushed"), "{error:?}");
    }
    let elsewhere = s3(S3Options { bucket: "nosuch".into(), ..bucket(&server) });
    let error = elsewhere.document("main").await.unwrap_err().to_string();
    assert!(error.contains("no such bucket"), "{error}");
    assert!(elsewhere.push(&blob, &memory).await.is_err());
}

fn container(server: &AzureServer, key: &str) -> AzureOptions {
    let layout = StoreLayout {
        prefix: "team x".into(),
        blobs_prefix: "blobs".into(),
        manifests_prefix: "manifests".into(),
        names: vec!["main".into()],
    };
    AzureOptions {
        account_url: server.url(),
        account: AzureServer::ACCOUNT.into(),
        container: "cache".into(),
        layout,
        key: Some(Secret::new(key)),
        environment: BTreeMap::new(),
    }
}

fn azure(options: AzureOptions) -> Arc<dyn ObjectStore> {
    open(&ObjectOptions::Azure(Box::new(options)), &http()).unwrap()
}

#[tokio::test]
async fn a_container_is_made_and_keeps_what_it_is_given() {
    let Some(server) = AzureServer::start() else { return };
    let store = azure(container(&server, AzureServer::KEY));
    keeps_documents(store.as_ref()).await;
    keeps_blobs(store.as_ref()).await;
    let error = azure(container(&server, "d3JvbmctYW5kLWh1c2hlZA==")).document("main").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(!format!("{error:?}").contains("d3Jvbmc"), "{error:?}");
}

fn actions(server: &ActionsServer, token: &str, scope: &str) -> Arc<dyn ObjectStore> {
    let options = ActionsOptions {
        url: Some(server.url()),
        token: Some(Secret::new(token)),
        scope: scope.into(),
        timeout: Duration::from_secs(5),
    };
    open(&ObjectOptions::Actions(Box::new(options)), &http()).unwrap()
}

#[tokio::test]
async fn the_cache_of_actions_keeps_blobs_and_rows_of_documents() {
    let server = ActionsServer::start();
    let store = actions(&server, ActionsServer::TOKEN, "app");
    keeps_documents(store.as_ref()).await;
    keeps_blobs(store.as_ref()).await;
    let keys = server.keys();
    // The names are BuildKit's: the scope, and the digest of the branch.
    assert_eq!(keys[..2], ["index-app-1-f921bd05#1", "index-app-1-f921bd05#2"]);
    assert!(keys[2..].iter().all(|key| key.starts_with("buildkit-blob-1-sha256:")), "{keys:?}");
    let other = actions(&server, ActionsServer::TOKEN, "other");
    assert_eq!(other.document(&other.names()[0]).await.unwrap(), None);
}

#[tokio::test]
async fn neither_tokens_nor_signed_addresses_are_in_errors() {
    let server = ActionsServer::start();
    let wrong = format!("{}-more", ActionsServer::TOKEN);
    let error = actions(&server, &wrong, "app").document("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(!format!("{error:?}").contains("hushed"), "{error:?}");
    let store = actions(&server, ActionsServer::TOKEN, "app");
    let memory = MemoryBlobs::new();
    let blob = memory.insert("x", noise(1000));
    store.push(&blob, &memory).await.unwrap();
    server.spoil(|_, bytes| bytes.truncate(10));
    let Err(error) = store.fetch(&blob).await else { panic!("it is cut short") };
    assert_eq!(error.kind(), ErrorKind::Lying);
    assert!(!format!("{error:?}").contains("hushed"), "{error:?}");
}
