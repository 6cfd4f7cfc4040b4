//! A small HTTP/1.1 server that does exactly what a test tells it, rude things included, and remembers who asked what.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Header fields, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, or as much of it as came.
    pub body: Vec<u8>,
    /// When its head was read.
    pub at: Instant,
}

impl Request {
    /// A header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte of `Range: bytes=N-`.
    pub fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

/// How the body of an answer goes.
#[derive(Debug, Clone)]
pub enum Body {
    /// All of it, with its length.
    Whole(Vec<u8>),
    /// The length of all of it, then only so many bytes, then the connection is reset.
    CutAfter(Vec<u8>, usize),
    /// No length; zeros until the other side has enough.
    Endless,
    /// A byte now and then.
    Trickle(Vec<u8>, Duration),
    /// Its length, and then nothing for so long.
    Silence(usize, Duration),
    /// Not even a head: the connection is closed.
    HangUp,
}

impl Reply {
    /// An empty answer.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(Vec::new()) }
    }

    /// 200 with these bytes.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::status(200).with_body(Body::Whole(bytes.into()))
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The body, when it is one that is sent whole.
    pub fn whole(&self) -> Option<&[u8]> {
        match &self.body {
            Body::Whole(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Replaces the status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Replaces the body.
    #[must_use]
    pub fn with_body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Answers a `Range` request for `bytes` as RFC 9110 wants.
    pub fn ranged(request: &Request, bytes: &[u8]) -> Self {
        match request.range_start() {
            Some(start) if start < bytes.len() => Self::status(206)
                .with("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
                .with_body(Body::Whole(bytes[start..].to_vec())),
            Some(_) => Self::status(416),
            None => Self::bytes(bytes),
        }
    }
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

/// The server. Dropping it closes its port.
pub struct HttpServer {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
    closing: Arc<AtomicBool>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl HttpServer {
    /// Serves on a free loopback port; `answer` is called for each request, from many threads.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (log, closing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (shared_log, shared_closing, answer) = (log.clone(), closing.clone(), Arc::new(answer) as Arc<Answer>);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared_closing.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, log) = (answer.clone(), shared_log.clone());
                std::thread::spawn(move || {
                    let _ = converse(stream, &*answer, &log);
                });
            }
        });
        Self { port, log, closing, accepting: Some(accepting) }
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `http://127.0.0.1:<port><path>`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().expect("no test panics while it holds this").clone()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

fn converse(stream: TcpStream, answer: &Answer, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    while let Some(request) = read_request(&mut reader)? {
        log.lock().expect("no test panics while it holds this").push(request.clone());
        if !write_reply(&mut out, &request, answer(&request))? {
            out.shutdown(Shutdown::Both)?;
            return Ok(());
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let at = Instant::now();
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let body = if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
        read_chunked(reader)?
    } else {
        let length = headers.get("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
        let mut body = Vec::new();
        reader.take(length).read_to_end(&mut body)?;
        body
    };
    Ok(Some(Request { method, path, headers, body, at }))
}

fn read_chunked(reader: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        reader.take(size).read_to_end(&mut body)?;
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Whether the connection goes on.
fn write_reply(out: &mut TcpStream, request: &Request, reply: Reply) -> std::io::Result<bool> {
    if matches!(reply.body, Body::HangUp) {
        return Ok(false);
    }
    let mut head = format!("HTTP/1.1 {} Test\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let named = reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = match &reply.body {
        Body::Whole(bytes) | Body::CutAfter(bytes, _) | Body::Trickle(bytes, _) => Some(bytes.len()),
        Body::Silence(length, _) => Some(*length),
        Body::Endless | Body::HangUp => None,
    };
    match length.filter(|_| !named) {
        Some(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
        None if !named => head.push_str("Connection: close\r\n"),
        None => {}
    }
    head.push_str("\r\n");
    out.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    match reply.body {
        Body::Whole(bytes) => out.write_all(&bytes).map(|()| true),
        Body::CutAfter(bytes, count) => out.write_all(&bytes[..count.min(bytes.len())]).map(|()| false),
        Body::Endless => loop {
            out.write_all(&[0; 65_536])?;
        },
        Body::Trickle(bytes, pause) => {
            for byte in bytes {
                out.write_all(&[byte])?;
                std::thread::sleep(pause);
            }
            Ok(true)
        }
        Body::Silence(_, pause) => {
            std::thread::sleep(pause);
            Ok(false)
        }
        Body::HangUp => Ok(false),
    }
}
