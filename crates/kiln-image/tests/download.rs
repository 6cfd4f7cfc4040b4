//! Plain downloads, as `ADD https://…` makes them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use kiln_image::{
    ClientOptions, Download, DownloadRequest, Error, ErrorKind, Fetched, HttpClient, Login, Result, RetryPolicy,
};
use kiln_oci::Digest;
use kiln_testkit::{Body, FileServer, FlakyProxy, HttpServer, Reply};

fn client() -> HttpClient {
    let retry =
        RetryPolicy { base: Duration::from_millis(10), stall: Duration::from_millis(600), ..Default::default() };
    HttpClient::new(ClientOptions { retry, ..ClientOptions::default() })
}

fn of(url: impl Into<String>) -> DownloadRequest {
    DownloadRequest { url: url.into(), ..DownloadRequest::default() }
}

async fn file(request: &DownloadRequest) -> Result<Download> {
    match client().download(request).await? {
        Fetched::File(download) => Ok(*download),
        Fetched::NotModified => panic!("nothing was said about a copy"),
    }
}

async fn bytes(request: &DownloadRequest) -> Result<Vec<u8>> {
    file(request).await?.body.bytes("read", 1 << 30).await
}

#[tokio::test]
async fn a_file_comes_with_its_name_and_times() {
    let files = FileServer::start();
    let url = files.put("/dir/tool%2B.tar", "content");
    let download = file(&of(&url)).await.unwrap();
    assert_eq!((download.file_name.as_str(), download.size), ("tool+.tar", Some(7)));
    let modified = download.modified.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(modified.as_secs(), 784_111_777);
    assert_eq!(download.last_modified.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    let etag = download.etag.clone();
    assert_eq!(download.body.bytes("read", 100).await.unwrap(), b"content");
    let again = client().download(&DownloadRequest { etag, ..of(&url) }).await.unwrap();
    assert!(matches!(again, Fetched::NotModified));
    let missing = file(&of(format!("http://{}/none?token=hush", files.host()))).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("/none`") && !missing.to_string().contains("hush"), "{missing}");
}

#[tokio::test]
async fn what_is_sent_again_under_the_tag_we_have_is_not_read() {
    let server = |etag: &'static str| HttpServer::start(move |_| Reply::bytes("same").with("ETag", etag));
    for (sent, have, is_known) in [("\"1\"", "\"1\"", true), ("\"2\"", "\"1\"", false), ("W/\"1\"", "W/\"1\"", false)] {
        let server = server(sent);
        let request = DownloadRequest { etag: Some(have.into()), ..of(server.url("/f")) };
        let fetched = client().download(&request).await.unwrap();
        assert_eq!(matches!(fetched, Fetched::NotModified), is_known, "{sent}");
    }
}

#[tokio::test]
async fn checksums_and_limits_hold() {
    let files = FileServer::start();
    let url = files.put("/f", "content");
    let good = DownloadRequest { checksum: Some(Digest::sha256("content")), ..of(&url) };
    assert_eq!(bytes(&good).await.unwrap(), b"content");
    let bad = DownloadRequest { checksum: Some(Digest::sha256("other")), ..of(&url) };
    let error = bytes(&bad).await.unwrap_err();
    assert!(matches!(&error, Error::Digest { got, .. } if *got == Digest::sha256("content")), "{error}");
    let small = DownloadRequest { limit: Some(6), ..of(&url) };
    assert_eq!(bytes(&small).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(bytes(&DownloadRequest { limit: Some(7), ..of(&url) }).await.unwrap(), b"content");
    let endless = HttpServer::start(|_| Reply::status(200).with_body(Body::Endless));
    let error = bytes(&DownloadRequest { limit: Some(1 << 20), ..of(endless.url("/")) }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_continues_and_notices_a_changed_file() {
    let files = FileServer::start();
    let content = vec![b'x'; 8 << 20];
    files.put("/f", content.clone());
    let proxy = FlakyProxy::start(&files.host(), &[3 << 20, 2 << 20]);
    let got = bytes(&of(format!("http://{}/f", proxy.host()))).await.unwrap();
    assert!(got == content && proxy.forwarded() < 11 << 20, "{}", proxy.forwarded());

    let proxy = FlakyProxy::start(&files.host(), &[3 << 20]);
    let mut download = file(&of(format!("http://{}/f", proxy.host()))).await.unwrap();
    download.body.chunk().await.unwrap().unwrap();
    files.put("/f", vec![b'y'; 8 << 20]);
    let error = download.body.bytes("read", 1 << 30).await.unwrap_err();
    assert!(error.to_string().contains("changed while"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_five_times_without_credentials_to_others() {
    let other = FileServer::start();
    let target = other.put("/f", "there");
    let first = HttpServer::start(move |request| match request.path.as_str() {
        "/elsewhere" => Reply::status(302).with("Location", &target),
        "/file" => Reply::status(307).with("Location", "file:///etc/passwd"),
        "/metadata" => Reply::status(302).with("Location", "http://169.254.169.254/latest"),
        path => {
            let left: u32 = path.trim_start_matches("/hops/").parse().unwrap();
            match left {
                0 => Reply::bytes("here"),
                left => Reply::status(302).with("Location", format!("/hops/{}", left - 1)),
            }
        }
    });
    let with_secret = |path: &str| of(format!("http://user:hush@{}{path}", first.host()));
    assert_eq!(bytes(&with_secret("/hops/5")).await.unwrap(), b"here");
    assert!(first.requests().iter().all(|r| r.header("authorization") == Some("Basic dXNlcjpodXNo")));
    let error = bytes(&with_secret("/hops/6")).await.unwrap_err();
    assert!(error.to_string().contains("redirects") && !error.to_string().contains("hush"), "{error}");
    assert_eq!(bytes(&with_secret("/elsewhere")).await.unwrap(), b"there");
    assert!(other.requests().iter().all(|r| r.header("authorization").is_none()));
    for path in ["/file", "/metadata"] {
        let error = bytes(&with_secret(path)).await.unwrap_err();
        assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    }
    for url in ["http://169.254.169.254/x", "file:///etc/passwd", "ftp://h/x", "http://0.0.0.0/", "not a url"] {
        assert!(matches!(bytes(&of(url)).await.unwrap_err(), Error::Forbidden { .. }), "{url}");
    }
}

#[tokio::test]
async fn refusals_say_whether_credentials_were_sent() {
    let server = HttpServer::start(|_| Reply::status(401));
    for (authorization, login) in [(None, Login::Anonymous), (Some("Bearer hush".to_owned()), Login::Sent)] {
        let error = bytes(&DownloadRequest { authorization, ..of(server.url("/f")) }).await.unwrap_err();
        assert!(matches!(&error, Error::Unauthorized { tried, .. } if *tried == login), "{error:?}");
        assert!(!format!("{error:?}").contains("hush"));
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_silent_server_is_left_soon() {
    let server = HttpServer::start(|_| Reply::status(200).with_body(Body::Silence(1000, Duration::from_secs(5))));
    let begun = std::time::Instant::now();
    let error = bytes(&of(server.url("/f"))).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn content_that_says_it_is_encoded_is_kept_as_it_is() {
    let server = HttpServer::start(|request| {
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        Reply::bytes(b"\x1f\x8bnot really".to_vec()).with("Content-Encoding", "gzip")
    });
    assert_eq!(bytes(&of(server.url("/f"))).await.unwrap(), b"\x1f\x8bnot really");
}
