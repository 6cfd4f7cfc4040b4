//! The cache service of GitHub's actions, version 2, as its clients know it: entries are reserved, sent in blocks to a
//! signed address, closed, and found by the beginning of their key, the newest first. It insists on every step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::http::{HttpServer, Reply, Request};

const SERVICE: &str = "/twirp/github.actions.results.api.v1.CacheService/";

/// What makes an address of this server a signed one.
const SIGNATURE: &str = "sig=signed-and-hushed";

/// A running service. Dropping it closes its port.
pub struct ActionsServer {
    server: HttpServer,
    entries: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Debug, Default)]
struct Entry {
    key: String,
    version: String,
    blocks: BTreeMap<String, Vec<u8>>,
    bytes: Option<Vec<u8>>,
    is_closed: bool,
}

impl ActionsServer {
    /// A token for the branch `refs/heads/main`, unsigned, until the year 2286.
    pub const TOKEN: &str = concat!(
        "eyJhbGciOiJub25lIn0",
        ".eyJhYyI6Ilt7XCJTY29wZVwiOlwicmVmcy9oZWFkcy9tYWluXCIsXCJQZXJtaXNzaW9uXCI6M31dIiwiZXhwIjo5OT",
        "k5OTk5OTk5LCJuYmYiOjB9",
        ".hushed"
    );

    /// Starts one.
    pub fn start() -> Self {
        let entries: Arc<Mutex<Vec<Entry>>> = Arc::default();
        let shared = Arc::clone(&entries);
        let server = HttpServer::start(move |request| {
            let mut entries = shared.lock().expect("no test panics while it holds this");
            match request.path.strip_prefix(SERVICE) {
                Some(method) => serve(request, method, &mut entries),
                None => store(request, &mut entries),
            }
        });
        Self { server, entries }
    }

    /// `http://127.0.0.1:<port>/`.
    pub fn url(&self) -> String {
        self.server.url("/")
    }

    /// The attributes of a cache there.
    pub fn attributes(&self) -> String {
        format!("type=gha,url_v2={},token={}", self.url(), Self::TOKEN)
    }

    /// The keys of all entries that are closed, in their order.
    pub fn keys(&self) -> Vec<String> {
        let entries = self.entries.lock().expect("no test panics while it holds this");
        entries.iter().filter(|entry| entry.is_closed).map(|entry| entry.key.clone()).collect()
    }

    /// Changes the content of entries.
    pub fn spoil(&self, mut change: impl FnMut(&str, &mut Vec<u8>)) {
        let mut entries = self.entries.lock().expect("no test panics while it holds this");
        for entry in entries.iter_mut() {
            entry.bytes.iter_mut().for_each(|bytes| change(&entry.key, bytes));
        }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }
}

fn serve(request: &Request, method: &str, entries: &mut Vec<Entry>) -> Reply {
    if request.header("authorization") != Some(format!("Bearer {}", ActionsServer::TOKEN).as_str()) {
        let token = request.header("authorization").unwrap_or_default();
        return Reply::bytes(format!(r#"{{"code":"unauthenticated","msg":"who is {token}?"}}"#)).with_status(401);
    }
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let (key, version) = (field(&text, "key"), field(&text, "version"));
    if request.header("content-type") != Some("application/json") || key.is_empty() || version.len() != 64 {
        return Reply::bytes(r#"{"code":"malformed","msg":"that is no request"}"#).with_status(400);
    }
    let base = format!("http://{}", request.header("host").unwrap_or_default());
    let found = entries.iter().position(|entry| entry.key == key && entry.version == version);
    match (method, found) {
        ("CreateCacheEntry", Some(_)) => {
            Reply::bytes(r#"{"code":"already_exists","msg":"cache entry already exists"}"#).with_status(409)
        }
        ("CreateCacheEntry", None) => {
            entries.push(Entry { key, version, ..Entry::default() });
            let url = format!("{base}/upload/{}?se=soon&{SIGNATURE}", entries.len() - 1);
            Reply::bytes(format!(r#"{{"ok":true,"signed_upload_url":"{url}"}}"#))
        }
        ("FinalizeCacheEntryUpload", Some(at)) => {
            let entry = &mut entries[at];
            let size = entry.bytes.as_ref().map(Vec::len);
            entry.is_closed = size.is_some_and(|size| text.contains(&format!("\"size_bytes\":{size}")));
            Reply::bytes(format!(r#"{{"ok":{},"entry_id":"{at}"}}"#, entry.is_closed))
        }
        ("GetCacheEntryDownloadURL", _) => {
            let is_meant =
                |entry: &Entry| entry.is_closed && entry.version == version && entry.key.starts_with(key.as_str());
            let Some(at) = entries.iter().rposition(is_meant) else { return Reply::bytes(r#"{"ok":false}"#) };
            let url = format!("{base}/download/{at}?{SIGNATURE}");
            let matched = &entries[at].key;
            Reply::bytes(format!(r#"{{"ok":true,"signed_download_url":"{url}","matched_key":"{matched}"}}"#))
        }
        _ => Reply::bytes(r#"{"code":"not_found","msg":"no such entry"}"#).with_status(404),
    }
}

/// Azure's part: only what is signed may be read and written, and nobody else's token is wanted.
fn store(request: &Request, entries: &mut [Entry]) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let has = |pair: &str| query.split('&').any(|part| part == pair);
    if !has(SIGNATURE) || request.header("authorization").is_some() {
        return Reply::bytes("<Error><Code>AuthenticationFailed</Code><Message>denied</Message></Error>")
            .with_status(403);
    }
    let entry = path.rsplit('/').next().and_then(|at| entries.get_mut(at.parse::<usize>().ok()?));
    let Some(entry) = entry else { return Reply::status(404) };
    let is_upload = path.starts_with("/upload/") && !entry.is_closed;
    match (request.method.as_str(), is_upload) {
        ("GET", false) => match &entry.bytes {
            Some(bytes) => Reply::ranged(request, bytes),
            None => Reply::status(404),
        },
        ("PUT", true) if has("comp=block") => {
            let id = query.split('&').find_map(|part| part.strip_prefix("blockid=")).unwrap_or_default();
            entry.blocks.insert(id.replace("%3D", "="), request.body.clone());
            Reply::status(201)
        }
        ("PUT", true) if has("comp=blocklist") => {
            let list = String::from_utf8_lossy(&request.body).into_owned();
            let ids = list.split("<Latest>").skip(1).filter_map(|rest| rest.split('<').next());
            let blocks: Option<Vec<&Vec<u8>>> = ids.map(|id| entry.blocks.get(id)).collect();
            let Some(blocks) = blocks else { return Reply::status(400) };
            entry.bytes = Some(blocks.into_iter().flatten().copied().collect());
            Reply::status(201)
        }
        ("PUT", true) if request.header("x-ms-blob-type") == Some("BlockBlob") => {
            entry.bytes = Some(request.body.clone());
            Reply::status(201)
        }
        _ => Reply::status(400),
    }
}

/// A member that is text. The texts of this protocol hold nothing that is escaped.
fn field(json: &str, name: &str) -> String {
    let (_, rest) = json.split_once(&format!("\"{name}\":\"")).unwrap_or_default();
    rest.split('"').next().unwrap_or_default().to_owned()
}
