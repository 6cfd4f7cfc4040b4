//! The test servers do what they say, so that what they show of others can be believed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use kiln_testkit::{Body, FileServer, FlakyProxy, HttpServer, Registry, Reply};

fn ask(host: &str, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(format!("{request}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn text(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).into_owned()
}

#[test]
fn a_server_says_what_it_is_told_and_remembers_who_asked() {
    let server = HttpServer::start(|request| match request.path.as_str() {
        "/cut" => Reply::status(200).with_body(Body::CutAfter(b"hello".to_vec(), 2)),
        "/echo" => Reply::bytes(request.body.clone()).with("X-Test", "yes"),
        _ => Reply::status(404),
    });
    let echoed = text(&ask(&server.host(), "POST /echo HTTP/1.1\r\nContent-Length: 0\r\nA: b"));
    assert!(echoed.starts_with("HTTP/1.1 200") && echoed.contains("X-Test: yes"), "{echoed}");
    let cut = text(&ask(&server.host(), "GET /cut HTTP/1.1"));
    assert!(cut.contains("Content-Length: 5") && cut.ends_with("\r\n\r\nhe"), "{cut}");
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].header("a"), Some("b"));
}

#[test]
fn files_are_served_with_ranges_and_validators() {
    let files = FileServer::start();
    files.put("/f", "0123456789");
    let whole = text(&ask(&files.host(), "GET /f HTTP/1.1"));
    assert!(whole.contains("Last-Modified: ") && whole.ends_with("0123456789"), "{whole}");
    let part = text(&ask(&files.host(), "GET /f HTTP/1.1\r\nRange: bytes=7-"));
    assert!(part.contains("206") && part.contains("bytes 7-9/10") && part.ends_with("789"), "{part}");
    let etag = whole.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let same = text(&ask(&files.host(), &format!("GET /f HTTP/1.1\r\nIf-None-Match: {etag}")));
    assert!(same.contains(" 304 "), "{same}");
    assert!(text(&ask(&files.host(), "GET /none HTTP/1.1")).contains(" 404 "));
}

#[test]
fn a_proxy_breaks_as_often_as_it_was_told() {
    let files = FileServer::start();
    files.put("/f", vec![b'x'; 300_000]);
    let proxy = FlakyProxy::start(&files.host(), &[100_000]);
    assert!(ask(&proxy.host(), "GET /f HTTP/1.1").len() < 100_000);
    assert_eq!(proxy.cuts_left(), 0);
    assert!(ask(&proxy.host(), "GET /f HTTP/1.1").len() > 300_000);
}

#[test]
fn a_registry_answers_and_is_gone_when_dropped() {
    let Some(registry) = Registry::start() else { return };
    let host = registry.host();
    assert!(text(&ask(&host, "GET /v2/ HTTP/1.1\r\nHost: x")).starts_with("HTTP/1.1 200"));
    drop(registry);
    assert!(TcpStream::connect(&host).is_err());
    let Some(closed) = Registry::with_login() else { return };
    assert!(text(&ask(&closed.host(), "GET /v2/ HTTP/1.1\r\nHost: x")).starts_with("HTTP/1.1 401"));
}
