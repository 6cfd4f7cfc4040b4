//! Who sees our credentials: the registry they are for, its token server, and nobody else.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake;

use std::sync::Arc;

use fake::{Fake, Known, client, knowing, times};
use kiln_image::{
    ClientOptions, Credential, Credentials, Error, ErrorKind, Login, RegistryClient, RegistryOptions, Result, login,
};
use kiln_testkit::{HttpServer, Reply, Request};

const BASIC: &str = "Basic dXNlcjpodXNo";

/// Wants `Bearer good`, and says where tokens are.
fn wants_token(realm: &str) -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    let challenge = format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"registry:catalog:*\"");
    move |request| {
        let known = request.header("authorization") == Some("Bearer good");
        (!known && request.path.starts_with("/v2/"))
            .then(|| Reply::status(401).with("WWW-Authenticate", challenge.clone()))
    }
}

fn token_server() -> HttpServer {
    HttpServer::start(|_| Reply::bytes(r#"{"token":"good","expires_in":300}"#))
}

#[tokio::test]
async fn a_token_is_fetched_once_for_its_repository_with_our_name() {
    let fake = Fake::start(|request| {
        if request.path.starts_with("/token") {
            return Some(Reply::bytes(r#"{"access_token":"good","expires_in":300}"#));
        }
        wants_token("/token")(request)
    })
    .await;
    let client = knowing(Known::password(fake.server.host()));
    client.resolve(&fake.reference()).await.unwrap();
    let reads =
        (0..4).map(|_| async { client.fetch_blob(&fake.reference(), &fake.layer).await?.bytes("read", 1 << 20).await });
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap(), fake.layer_bytes);
    }
    let tokens: Vec<Request> =
        fake.server.requests().into_iter().filter(|request| request.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].header("authorization"), Some(BASIC));
    // Our own scope, not what the challenge would like to have signed.
    assert!(tokens[0].path.contains("service=reg") && tokens[0].path.contains("scope=repository%3Aimg%3Apull"));
    assert!(!tokens[0].path.contains("catalog") && !tokens[0].path.contains("hush"), "{}", tokens[0].path);
}

#[tokio::test]
async fn public_images_need_no_name() {
    let tokens = token_server();
    let fake = Fake::start(wants_token(&tokens.url("/token"))).await;
    client().resolve(&fake.reference()).await.unwrap();
    assert!(tokens.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn a_realm_on_another_host_never_sees_our_name() {
    let elsewhere = HttpServer::start(|_| Reply::status(401));
    let fake = Fake::start(wants_token(&elsewhere.url("/token"))).await;
    let error = knowing(Known::password(fake.server.host())).resolve(&fake.reference()).await.unwrap_err();
    let withheld = Login::Withheld { realm: elsewhere.host() };
    assert!(matches!(&error, Error::Unauthorized { tried, .. } if *tried == withheld), "{error:?}");
    assert!(!elsewhere.requests().is_empty());
    assert!(elsewhere.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(elsewhere.requests().iter().all(|request| !request.path.contains("user")));

    // Unless the user has named that host.
    let tokens = HttpServer::start(|request| match request.header("authorization") {
        Some(BASIC) => Reply::bytes(r#"{"token":"good"}"#),
        _ => Reply::status(401),
    });
    let fake = Fake::start(wants_token(&tokens.url("/token"))).await;
    let options = ClientOptions { auth_realms: vec![tokens.host()], retry: fake::quick(), ..Default::default() };
    let credentials = Arc::new(Known::password(fake.server.host()));
    let client = RegistryClient::new(RegistryOptions { client: options, credentials });
    client.resolve(&fake.reference()).await.unwrap();
}

#[tokio::test]
async fn a_redirect_to_another_host_loses_our_name_for_good() {
    let memory = Fake::start(|_| None).await;
    let bytes = memory.layer_bytes.clone();
    let cdn = HttpServer::start(move |_| Reply::bytes(bytes.clone()));
    let (away, basic) = (cdn.url("/blob"), |r: &Request| r.header("authorization") == Some(BASIC));
    let fake = Fake::start(move |request| {
        if !basic(request) {
            return Some(Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
        }
        request.path.contains("/blobs/").then(|| Reply::status(307).with("Location", &away))
    })
    .await;
    let client = knowing(Known::password(fake.server.host()));
    let read = client.fetch_blob(&fake.reference(), &fake.layer).await.unwrap().bytes("read", 1 << 20).await;
    assert_eq!(read.unwrap(), fake.layer_bytes);
    assert!(cdn.requests().iter().all(|request| request.header("authorization").is_none()));

    // The place it leads to cannot ask for it either, nor send us back with it.
    let greedy = HttpServer::start(|_| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"give\""));
    let away = greedy.url("/blob");
    let fake = Fake::start(move |request| {
        if !basic(request) {
            return Some(Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
        }
        request.path.contains("/blobs/").then(|| Reply::status(302).with("Location", &away))
    })
    .await;
    let client = knowing(Known::password(fake.server.host()));
    let error = client.fetch_blob(&fake.reference(), &fake.layer).await.unwrap_err();
    assert!(matches!(&error, Error::Unauthorized { host, tried: Login::Anonymous, .. } if *host == greedy.host()));
    assert!(greedy.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn an_upload_elsewhere_goes_without_our_name() {
    let storage = HttpServer::start(|_| Reply::status(201));
    let there = storage.url("/bucket?signature=1");
    let fake = Fake::start(move |request| {
        let known = request.header("authorization") == Some(BASIC);
        Some(match request.method.as_str() {
            _ if !known => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""),
            "HEAD" => Reply::status(404),
            "POST" => Reply::status(202).with("Location", &there),
            _ => Reply::status(500),
        })
    })
    .await;
    let client = knowing(Known::password(fake.server.host()));
    client.push_blob(&fake.reference(), &fake.layer, &*fake.memory, None).await.unwrap();
    let requests = storage.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].header("authorization").is_none() && requests[0].body == fake.layer_bytes);
    assert!(requests[0].path.contains("signature=1&digest=sha256%3A"));
}

#[tokio::test]
async fn an_expired_token_is_renewed_once() {
    let stale = times(1, |request| {
        let old = request.header("authorization") == Some("Bearer good") && request.path.contains("/blobs/");
        old.then(|| Reply::status(401).with("WWW-Authenticate", "Bearer realm=\"/token\",service=\"reg\""))
    });
    let count = std::sync::atomic::AtomicUsize::new(0);
    let fake = Fake::start(move |request| {
        if request.path.starts_with("/token") {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let token = if number == 0 { "good" } else { "fresh" };
            return Some(Reply::bytes(format!(r#"{{"token":"{token}","expires_in":300}}"#)));
        }
        if request.header("authorization") == Some("Bearer fresh") {
            return None;
        }
        stale(request).or_else(|| wants_token("/token")(request))
    })
    .await;
    let client = client();
    client.resolve(&fake.reference()).await.unwrap();
    let read = client.fetch_blob(&fake.reference(), &fake.layer).await.unwrap().bytes("read", 1 << 20).await;
    assert_eq!(read.unwrap(), fake.layer_bytes);
    assert_eq!(fake.asked("/token"), 2);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_and_a_registry_token_used() {
    let fake = Fake::start(|request| {
        if request.path == "/token" {
            let body = String::from_utf8(request.body.clone()).unwrap();
            let right = request.method == "POST"
                && body.contains("grant_type=refresh_token")
                && body.contains("refresh_token=ID")
                && body.contains("scope=repository%3Aimg%3Apull");
            return Some(if right { Reply::bytes(r#"{"access_token":"good"}"#) } else { Reply::status(400) });
        }
        wants_token("/token")(request)
    })
    .await;
    for credential in [Credential::IdentityToken("ID".into()), Credential::RegistryToken("good".into())] {
        let client = knowing(Known { entries: vec![(fake.server.host(), credential)] });
        client.resolve(&fake.reference()).await.unwrap();
    }
    assert_eq!(fake.asked("/token"), 1);
}

#[tokio::test]
async fn a_token_server_s_refusal_and_nonsense_are_errors_without_secrets() {
    let long = format!(r#"{{"token":"{}"}}"#, "x".repeat(2 << 20));
    for (reply, kind) in [
        (Reply::bytes(r#"{"details":"incorrect username or password"}"#).with_status(401), ErrorKind::Unauthorized),
        (Reply::bytes("{}"), ErrorKind::Lying),
        (Reply::bytes("<html>"), ErrorKind::Lying),
        (Reply::bytes(r#"{"token":"a\nb"}"#), ErrorKind::Environment),
        (Reply::bytes(long), ErrorKind::TooLarge),
        (Reply::status(404), ErrorKind::NotFound),
    ] {
        let fake = Fake::start(move |request| {
            if request.path.starts_with("/token") {
                return Some(reply.clone());
            }
            wants_token("/token")(request)
        })
        .await;
        let error = knowing(Known::password(fake.server.host())).resolve(&fake.reference()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        assert_eq!(fake.asked("/token"), 1);
    }
}

#[tokio::test]
async fn broken_credentials_are_an_error_and_not_anonymity() {
    struct Broken;
    #[async_trait::async_trait]
    impl Credentials for Broken {
        async fn lookup(&self, registry: &str, _repository: &str) -> Result<Option<Credential>> {
            Err(Error::Credentials { host: registry.into(), reason: "the helper is broken".into() })
        }
    }
    let fake = Fake::start(|request| {
        if request.path.starts_with("/token") {
            return Some(Reply::bytes(r#"{"token":"good"}"#));
        }
        wants_token("/token")(request)
    })
    .await;
    let client = RegistryClient::new(RegistryOptions { credentials: Arc::new(Broken), ..Default::default() });
    let error = client.resolve(&fake.reference()).await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error:?}");
    assert_eq!(fake.asked("/token"), 0);
    // A registry that asks for nothing is read without asking for credentials.
    let open = Fake::start(|_| None).await;
    client.resolve(&open.reference()).await.unwrap();
}

#[tokio::test]
async fn a_login_keeps_the_identity_token_it_was_given() {
    let fake = Fake::start(|request| {
        if request.path.starts_with("/token") {
            assert_eq!(request.header("authorization"), Some(BASIC));
            return Some(Reply::bytes(r#"{"token":"good","refresh_token":"KEEP"}"#));
        }
        wants_token("/token")(request)
    })
    .await;
    let credential = Credential::Password { username: "user".into(), password: "hush".into() };
    let verified = login::verify(&client(), &fake.server.host(), &credential).await.unwrap();
    assert_eq!(verified.keep, Credential::IdentityToken("KEEP".into()));
    let wrong = HttpServer::start(|_| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
    let error = login::verify(&client(), &wrong.host(), &credential).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
}
