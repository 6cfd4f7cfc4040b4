//! A static file server with ETag, Last-Modified and Range, for `ADD https://…` and downloads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kiln_oci::Digest;

use crate::{HttpServer, Reply, Request};

/// Serves files from memory under their paths.
pub struct FileServer {
    server: HttpServer,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

/// The `Last-Modified` of every file.
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

impl FileServer {
    /// Starts an empty one.
    pub fn start() -> Self {
        let files: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
        let shared = files.clone();
        let server = HttpServer::start(move |request| {
            let path = request.path.split('?').next().unwrap_or_default();
            let files = shared.lock().expect("no test panics while it holds this");
            files.get(path).map_or_else(|| Reply::status(404), |bytes| serve(request, bytes))
        });
        Self { server, files }
    }

    /// Puts a file under an absolute path, and says its URL.
    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) -> String {
        self.files.lock().expect("no test panics while it holds this").insert(path.to_owned(), bytes.into());
        self.server.url(path)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        self.server.host()
    }
}

fn serve(request: &Request, bytes: &[u8]) -> Reply {
    let etag = format!("\"{}\"", Digest::sha256(bytes).short());
    if request.header("if-none-match") == Some(&etag) {
        return Reply::status(304).with("ETag", etag);
    }
    let changed = request.header("if-range").is_some_and(|validator| validator != etag);
    let reply = if changed { Reply::bytes(bytes) } else { Reply::ranged(request, bytes) };
    reply.with("ETag", etag).with("Last-Modified", MODIFIED)
}
