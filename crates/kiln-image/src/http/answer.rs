//! Reads answers that are no content: small documents, and the words of a refusal.

use std::time::Duration;

use reqwest::Response;

use super::client::{Reply, authority, stalled};
use super::retry::RetryPolicy;
use crate::{Error, Result};

/// A status that is no success, with the server's words.
pub(crate) async fn status_error(doing: &str, reply: Reply) -> Error {
    let (doing, host) = (doing.to_owned(), authority(reply.response.url()));
    let status = reply.status();
    let message = words(reply.response).await;
    match status.as_u16() {
        404 => Error::NotFound { doing, host, message },
        status => Error::Status { doing, host, status, message },
    }
}

/// The server's own words from an error body, bounded, without control characters, after a separator.
pub(crate) async fn words(response: Response) -> String {
    let body = tokio::time::timeout(Duration::from_secs(5), bounded(response, 16 << 10)).await.unwrap_or_default();
    let text = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(value) => from_json(&value),
        Err(_) => match std::str::from_utf8(&body) {
            Ok(text) if !text.trim_start_matches('\u{feff}').trim_start().starts_with('<') => text.to_owned(),
            _ => String::new(),
        },
    };
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    let clean = clean.trim();
    if clean.is_empty() { String::new() } else { format!(": {clean}") }
}

/// `{"errors":[{"code","message","detail"}]}` (distribution-spec, error codes), or `{"message"}`, `{"details"}`.
fn from_json(value: &serde_json::Value) -> String {
    let text = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap_or_default().trim().to_owned();
    let Some(errors) = value["errors"].as_array() else {
        return ["message", "details", "error_description", "error"]
            .iter()
            .map(|key| text(value, key))
            .find(|found| !found.is_empty())
            .unwrap_or_default();
    };
    let one = |error: &serde_json::Value| match (text(error, "code"), text(error, "message")) {
        (code, message) if message.is_empty() => code,
        (code, message) if code.is_empty() => message,
        (code, message) => format!("{message} ({code})"),
    };
    errors.iter().map(one).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
}

async fn bounded(mut response: Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]);
        if body.len() == limit {
            break;
        }
    }
    body
}

/// Reads a small answer whole; over `limit` it is refused, before it is read if it says so itself.
pub(crate) async fn answer_bytes(policy: &RetryPolicy, doing: &str, reply: Reply, limit: u64) -> Result<Vec<u8>> {
    let Reply { mut response, .. } = reply;
    let too_large =
        || Error::TooLarge { doing: doing.into(), what: "the answer".into(), limit: format!("{} MiB", limit >> 20) };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let announced = response.content_length();
    let mut body = Vec::new();
    loop {
        let chunk = tokio::time::timeout(policy.stall, response.chunk()).await;
        let chunk = chunk.map_err(|_| stalled(doing, response.url(), policy.stall))?;
        let chunk = chunk.map_err(|error| Error::BrokenOff {
            doing: doing.into(),
            host: authority(response.url()),
            received: body.len() as u64,
            total: announced,
            source: Some(error.without_url().into()),
        })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_s_words_are_found_and_cleaned() {
        for (body, words) in [
            (r#"{"errors":[{"code":"DENIED","message":"no\u001b[2J"}]}"#, "no\u{1b}[2J (DENIED)"),
            (r#"{"errors":[{"code":"A"},{"message":"b"}]}"#, "A; b"),
            (r#"{"message":"m"}"#, "m"),
            (r#"{"error":"invalid_grant","error_description":"bad"}"#, "bad"),
            ("[]", ""),
        ] {
            assert_eq!(from_json(&serde_json::from_str(body).unwrap()), words);
        }
    }
}
