//! Signed requests to a store, and what its refusals say.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use kiln_oci::Descriptor;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::Secret;
use super::signer::Sign;
use crate::error::Login;
use crate::http::{AMAZON_TOKEN, Call, HttpClient, Opener, Reply, Transfer, Trust, answer_bytes, authority};
use crate::{BlobReader, Error, Result, limits};

/// Sends requests that a signer has signed.
pub(super) struct Wire {
    http: HttpClient,
    sign: Box<dyn Sign>,
    /// What a server may send back to us, and nobody may read in a message.
    hidden: Mutex<Vec<Secret>>,
}

impl Wire {
    pub(super) fn new(http: HttpClient, sign: impl Sign + 'static, hidden: Vec<Secret>) -> Self {
        Self { http, sign: Box::new(sign), hidden: Mutex::new(hidden) }
    }

    /// The client for requests that need another signature, or none.
    pub(super) fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Sends a request; any answer is one.
    pub(super) async fn send(&self, mut call: Call) -> Result<Reply> {
        self.sign.sign(&mut call).await.map_err(|error| self.hide(error))?;
        self.remember_tokens(&call);
        self.http.send(&call).await.map_err(|error| self.hide(error))
    }

    /// Sends a request; what is no success is an error.
    pub(super) async fn succeed(&self, call: Call) -> Result<Reply> {
        let doing = call.doing.clone();
        let reply = self.send(call).await?;
        if reply.status().is_success() { Ok(reply) } else { Err(self.refusal(&doing, reply).await) }
    }

    /// Reads something small; `None` when there is no such thing.
    pub(super) async fn read(&self, call: Call) -> Result<Option<Vec<u8>>> {
        let doing = call.doing.clone();
        let reply = self.send(call).await?;
        match reply.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => self.body(&doing, reply).await.map(Some),
            _ => Err(self.refusal(&doing, reply).await),
        }
    }

    /// Reads an answer that is a document.
    pub(super) async fn body(&self, doing: &str, reply: Reply) -> Result<Vec<u8>> {
        answer_bytes(self.http.retry(), doing, reply, limits::CONFIG).await
    }

    /// What an answer that is no success says.
    pub(super) async fn refusal(&self, doing: &str, reply: Reply) -> Error {
        let (doing, host) = (doing.to_owned(), authority(reply.response.url()));
        let status = reply.status().as_u16();
        let body = answer_bytes(self.http.retry(), &doing, reply, 64 << 10).await.unwrap_or_default();
        let message = said(&body).map(|said| format!(": {said}")).unwrap_or_default();
        self.hide(match status {
            404 => Error::NotFound { doing, host, message },
            401 | 403 => Error::Unauthorized { doing, host, status, tried: Login::Sent, message },
            _ => Error::Status { doing, host, status, message },
        })
    }

    /// What is lent is known when it was lent, and another after a while.
    fn remember_tokens(&self, call: &Call) {
        let text = |name: HeaderName| call.headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        for token in bearer.into_iter().chain(text(AMAZON_TOKEN)) {
            if !hidden.iter().any(|known| known.expose() == token) {
                hidden.push(Secret::new(token));
            }
        }
    }

    /// Takes secrets out of what a server said: it may have said what it was sent.
    pub(super) fn hide(&self, mut error: Error) -> Error {
        let text = match &mut error {
            Error::NotFound { message, .. } | Error::Status { message, .. } | Error::Unauthorized { message, .. } => {
                message
            }
            Error::Credentials { reason, .. } | Error::Invalid { reason, .. } => reason,
            _ => return error,
        };
        let hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in hidden.iter().map(Secret::expose).filter(|secret| !secret.is_empty()) {
            *text = text.replace(secret, "***");
        }
        error
    }
}

/// A request without a body.
pub(super) fn call(doing: impl Into<String>, method: Method, url: Url) -> Call {
    Call { doing: doing.into(), method, url, headers: HeaderMap::new(), body: None, trust: Trust::Everyone }
}

/// The same with a body.
pub(super) fn with_body(call: Call, body: Bytes) -> Call {
    Call { body: Some(body), ..call }
}

/// The same with a header field.
pub(super) fn with_header(mut call: Call, name: &'static str, value: &str) -> Call {
    if let Ok(value) = HeaderValue::from_str(value) {
        call.headers.insert(HeaderName::from_static(name), value);
    }
    call
}

/// Finds where a blob is, each time it is opened: an address may hold for some minutes only.
#[async_trait]
pub(super) trait Locate: Send + Sync {
    /// The address, and who may ask for it.
    async fn locate(&self) -> Result<(Arc<Wire>, Url)>;
}

struct ObjectOpener<L> {
    doing: String,
    at: L,
}

#[async_trait]
impl<L: Locate> Opener for ObjectOpener<L> {
    async fn open(&self, offset: u64, validator: Option<&str>) -> Result<Reply> {
        let (wire, url) = self.at.locate().await?;
        let mut call = call(&self.doing, Method::GET, url);
        if offset > 0 {
            call.headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={offset}-")).expect("digits are text"));
            if let Some(validator) = validator.and_then(|validator| HeaderValue::from_str(validator).ok()) {
                call.headers.insert(IF_RANGE, validator);
            }
        }
        wire.succeed(call).await
    }
}

/// Opens a blob: a stream that goes on after interruptions, and ends in an error unless size and digest are right.
pub(super) async fn fetch(http: &HttpClient, blob: &Descriptor, at: impl Locate + 'static) -> Result<BlobReader> {
    let doing = format!("read blob `{}`", blob.digest);
    let opener = ObjectOpener { doing: doing.clone(), at };
    let reply = opener.open(0, None).await?;
    let transfer = Transfer::new(doing, http.retry().clone(), Box::new(opener))
        .of_size(blob.size)
        .of_digest(&blob.digest)
        .begun(reply)?;
    Ok(BlobReader::trusted(transfer.into_stream()))
}

/// What a refusal says of itself: code and message. All else stays unsaid: some servers tell what they had expected to
/// be signed.
pub(super) fn said(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (code, message) = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(json) => {
            let field = |name: &str| json[name].as_str().map(str::to_owned);
            (field("code"), field("msg").or_else(|| field("message")))
        }
        Err(_) => (element(text, "Code"), element(text, "Message")),
    };
    let said = match (code, message) {
        (Some(code), Some(message)) => format!("{} ({code})", message.lines().next().unwrap_or_default()),
        (code, message) => code.or(message)?,
    };
    let clean: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    Some(clean.trim().to_owned()).filter(|said| !said.is_empty())
}

/// The text of the first element of this name. The answers of stores are flat, and their names are not nested.
pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let unescaped = text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&apos;", "'");
    Some(unescaped.replace("&#34;", "\"").replace("&amp;", "&"))
}

/// A path of a URL: all but letters, digits, `-._~` and slashes is escaped, so that it is signed as it is sent.
pub(super) fn escaped(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_refusal_code_and_message_are_said() {
        for (body, expected) in [
            (
                "<Error><Code>SignatureDoesNotMatch</Code><Message>no &amp; no</Message>\
                 <CanonicalRequest>x-amz-security-token:hush</CanonicalRequest></Error>",
                Some("no & no (SignatureDoesNotMatch)"),
            ),
            (
                "\u{feff}<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code>\
                 <Message>denied.\nRequestId:1</Message><AuthenticationErrorDetail>hush</AuthenticationErrorDetail></Error>",
                Some("denied. (AuthenticationFailed)"),
            ),
            (r#"{"code":"already_exists","msg":"taken"}"#, Some("taken (already_exists)")),
            (r#"{"message":"no"}"#, Some("no")),
            ("<html>hush</html>", None),
            ("", None),
        ] {
            assert_eq!(said(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn what_a_server_says_back_is_hidden() {
        let http = HttpClient::new(Default::default());
        let wire = Wire::new(http, super::super::signer::Unsigned, vec![Secret::new("hush"), Secret::new("")]);
        let (doing, host) = ("write".to_owned(), "h".to_owned());
        let error = wire.hide(Error::Status { doing, host, status: 400, message: ": you sent hush".into() });
        assert_eq!(error.to_string(), "cannot write: `h` answered 400: you sent ***");
    }

    #[test]
    fn paths_are_escaped_as_they_are_signed() {
        assert_eq!(escaped("a b/blobs/sha256:0+é"), "a%20b/blobs/sha256%3A0%2B%C3%A9");
    }
}
