//! Plain downloads, as `ADD https://…` needs them: one file, its name, its times, its digest.

use std::time::SystemTime;

use async_trait::async_trait;
use base64::Engine as _;
use kiln_oci::Digest;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_DISPOSITION, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Method, StatusCode, Url};

use super::answer::{status_error, words};
use super::client::{Call, HttpClient, Reply, Trust, authority, plain_url};
use super::retry::parse_date;
use super::transfer::{Opener, Transfer};
use crate::error::Login;
use crate::{BlobReader, Error, Result};

/// What to download.
#[derive(Debug, Clone, Default)]
pub struct DownloadRequest {
    /// `http://` or `https://`; a name and password in it go to its host only.
    pub url: String,
    /// The digest the file must have.
    pub checksum: Option<Digest>,
    /// The most bytes the file may have.
    pub limit: Option<u64>,
    /// The `ETag` of the copy we have.
    pub etag: Option<String>,
    /// The `Last-Modified` of the copy we have, as it was sent.
    pub last_modified: Option<String>,
    /// A whole `Authorization` value; it goes to the URL's host only.
    pub authorization: Option<String>,
}

/// The answer.
#[derive(Debug)]
pub enum Fetched {
    /// The copy we have is still good.
    NotModified,
    /// Here it comes.
    File(Box<Download>),
}

/// A file on its way.
#[derive(Debug)]
pub struct Download {
    /// A safe base name: from `Content-Disposition`, else the URL's path, else `download`.
    pub file_name: String,
    /// Its `ETag`, as sent.
    pub etag: Option<String>,
    /// Its `Last-Modified`, as sent.
    pub last_modified: Option<String>,
    /// The same as a time.
    pub modified: Option<SystemTime>,
    /// Its size, when the server says.
    pub size: Option<u64>,
    /// Its bytes; reading ends in an error when size or checksum is wrong.
    pub body: BlobReader,
}

impl HttpClient {
    /// Downloads a file. Redirects are followed five times, never from https to http, never with credentials
    /// to another host, never to this machine or link-local addresses.
    pub async fn download(&self, request: &DownloadRequest) -> Result<Fetched> {
        let call = prepare(request)?;
        let doing = call.doing.clone();
        let reply = self.send(&call).await?;
        match reply.status() {
            StatusCode::NOT_MODIFIED => return Ok(Fetched::NotModified),
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(unauthorized(&call, reply).await),
            _ => return Err(status_error(&doing, reply).await),
        }
        let text = |name: HeaderName| Some(reply.headers().get(name)?.to_str().ok()?.to_owned());
        // Some servers send all of it although it is what we have.
        if request.etag.as_deref().is_some_and(|have| is_strong(have) && text(ETAG).as_deref() == Some(have)) {
            return Ok(Fetched::NotModified);
        }
        let last_modified = text(LAST_MODIFIED);
        let mut download = Download {
            file_name: file_name(text(CONTENT_DISPOSITION).as_deref(), &call.url),
            etag: text(ETAG),
            modified: last_modified.as_deref().and_then(parse_date),
            last_modified,
            size: reply.response.content_length(),
            body: BlobReader::trusted(futures::stream::empty()),
        };
        let opener = Reopen { client: self.clone(), call };
        let mut transfer = Transfer::new(doing, self.retry().clone(), Box::new(opener));
        if let Some(limit) = request.limit {
            transfer = transfer.at_most(limit);
        }
        if let Some(checksum) = &request.checksum {
            transfer = transfer.of_digest(checksum);
        }
        download.body = BlobReader::trusted(transfer.begun(reply)?.into_stream());
        Ok(Fetched::File(Box::new(download)))
    }
}

/// Whether equal tags mean equal bytes (RFC 9110 section 8.8.1).
fn is_strong(etag: &str) -> bool {
    !etag.starts_with("W/")
}

fn prepare(request: &DownloadRequest) -> Result<Call> {
    let unfit = |url: &str, reason| Error::Forbidden { doing: "download a file".into(), url: url.into(), reason };
    let mut url: Url = request.url.parse().map_err(|_| unfit("that address", "it is not a URL"))?;
    let doing = format!("download `{}`", plain_url(&url));
    let mut headers = HeaderMap::new();
    // Bytes are kept as served; a decoded body would not match its checksum.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let secret = request.authorization.clone().or_else(|| user_info(&url));
    if let Some(secret) = secret {
        let mut value = HeaderValue::from_str(&secret)
            .map_err(|_| unfit(&plain_url(&url), "the authorization is no header value"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    for (name, value) in [(IF_NONE_MATCH, &request.etag), (IF_MODIFIED_SINCE, &request.last_modified)] {
        if let Some(value) = value.as_deref().and_then(|v| HeaderValue::from_str(v).ok()) {
            headers.insert(name, value);
        }
    }
    Ok(Call { doing, method: Method::GET, url, headers, body: None, trust: Trust::Everyone })
}

fn user_info(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let pair = format!("{}:{}", percent_decoded(url.username()), percent_decoded(url.password().unwrap_or_default()));
    Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn unauthorized(call: &Call, reply: Reply) -> Error {
    Error::Unauthorized {
        doing: call.doing.clone(),
        host: authority(reply.response.url()),
        status: reply.status().as_u16(),
        tried: if call.headers.contains_key(AUTHORIZATION) && !reply.crossed { Login::Sent } else { Login::Anonymous },
        message: words(reply.response).await,
    }
}

/// Opens the same URL again at an offset.
struct Reopen {
    client: HttpClient,
    call: Call,
}

#[async_trait]
impl Opener for Reopen {
    async fn open(&self, offset: u64, validator: Option<&str>) -> Result<Reply> {
        let mut call = self.call.clone();
        call.headers.remove(IF_NONE_MATCH);
        call.headers.remove(IF_MODIFIED_SINCE);
        // Without a validator the file may have changed in between: the whole of it comes again, and the known
        // part is dropped; only a checksum could tell the difference then.
        if let Some(validator) = validator.and_then(|v| HeaderValue::from_str(v).ok())
            && offset > 0
        {
            call.headers.insert(IF_RANGE, validator);
            call.headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={offset}-")).expect("digits are text"));
        }
        let reply = self.client.send(&call).await?;
        match reply.status() {
            StatusCode::OK if offset > 0 && validator.is_some() => {
                Err(Error::invalid(&self.call.doing, "the file changed while it was downloaded"))
            }
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(reply),
            _ => Err(status_error(&self.call.doing, reply).await),
        }
    }
}

/// A name that is safe as one path component, whatever the server says.
fn file_name(disposition: Option<&str>, url: &Url) -> String {
    let announced = disposition.and_then(disposition_name);
    let of_path = || url.path().rsplit('/').next().map(percent_decoded);
    announced
        .as_deref()
        .and_then(safe)
        .or_else(|| of_path().as_deref().and_then(safe))
        .unwrap_or_else(|| "download".into())
}

fn safe(name: &str) -> Option<String> {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = !base.is_empty() && base != "." && base != ".." && base.len() <= 255;
    (plain && !base.chars().any(char::is_control)).then(|| base.to_owned())
}

/// `filename="…"` of a Content-Disposition; `filename*=UTF-8''…` wins (RFC 6266 §4.3).
fn disposition_name(header: &str) -> Option<String> {
    let mut plain = None;
    for part in split_parameters(header) {
        let Some((key, value)) = part.split_once('=') else { continue };
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "filename*" => {
                let encoded = value.split_once("''").filter(|(charset, _)| charset.eq_ignore_ascii_case("utf-8"));
                if let Some((_, encoded)) = encoded {
                    return Some(percent_decoded(encoded));
                }
            }
            "filename" => plain = Some(unquoted(value)),
            _ => {}
        }
    }
    plain
}

fn split_parameters(header: &str) -> Vec<String> {
    let (mut parts, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for c in header.chars() {
        match c {
            ';' if !quoted => {
                parts.push(String::new());
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        parts.last_mut().expect("it begins with one part").push(c);
    }
    parts
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) else { return value.to_owned() };
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_single_components() {
        let url: Url = "https://h.example/dir/a%20b.tar.gz?x=/y".parse().unwrap();
        let bare: Url = "https://h.example/".parse().unwrap();
        for (header, expected) in [
            (None, "a b.tar.gz"),
            (Some("attachment; filename=\"../../x\""), "x"),
            (Some("attachment; filename=\"/etc/shadow\""), "shadow"),
            (Some("attachment; filename=\"..\\\\..\\\\x\""), "x"),
            (Some("attachment; filename=\"\""), "a b.tar.gz"),
            (Some("attachment; filename=\"..\""), "a b.tar.gz"),
            (Some("attachment; filename=plain.bin"), "plain.bin"),
            (Some("attachment; filename=\"a;b\\\"c\""), "a;b\"c"),
            (Some("attachment; filename=old; filename*=utf-8''%e2%82%ac.txt"), "€.txt"),
            (Some("attachment; filename*=UTF-8''%2e%2e%2fx"), "x"),
            (Some("inline"), "a b.tar.gz"),
        ] {
            assert_eq!(file_name(header, &url), expected, "{header:?}");
        }
        assert_eq!(file_name(None, &bare), "download");
        assert_eq!(file_name(None, &"https://h.example/%2e%2e%2f".parse().unwrap()), "download");
    }

    #[test]
    fn credentials_in_urls_become_a_header_and_leave_the_url() {
        let request = DownloadRequest { url: "https://us%40er:p%3Aw@h.example/f#x".into(), ..Default::default() };
        let call = prepare(&request).unwrap();
        assert_eq!(call.url.as_str(), "https://h.example/f");
        assert_eq!(call.headers[AUTHORIZATION], "Basic dXNAZXI6cDp3");
        assert!(!format!("{call:?}").contains("dXNA"));
        assert!(!call.doing.contains("user"));
    }
}
