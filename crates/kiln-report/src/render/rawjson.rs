//! One JSON object a line for each event, in the fields of BuildKit's `client.SolveStatus`.

use std::io::{self, Write};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_oci::Digest;
use serde::Serialize;

use super::{Render, Screen};
use crate::credentials::{covered_credentials, without_credentials};
use crate::{Diagnostic, Event, Excerpt, LogStream, VertexState};

/// Writes events for other programs. Logs are raw bytes in base64, never altered.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawJson;

impl Render for RawJson {
    fn event(&mut self, event: &Event, out: &mut dyn Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(&SolveStatus::of(event)).map_err(io::Error::other)?;
        line.push(b'\n');
        out.write_all(&line)
    }

    fn tick(&mut self, _screen: Screen, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        out.flush()
    }
}

#[derive(Debug, Default, Serialize)]
struct SolveStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertexes: Option<[Vertex; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<[Status; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[Log; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[Warning; 1]>,
}

#[derive(Debug, Serialize)]
struct Vertex {
    digest: Digest,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Digest>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    // Ours; readers that do not know it pass over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    id: String,
    vertex: Digest,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Log {
    vertex: Digest,
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Debug, Serialize)]
struct Warning {
    level: u8,
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(rename = "sourceInfo")]
    source_info: SourceInfo,
    range: [Range; 1],
}

#[derive(Debug, Serialize)]
struct SourceInfo {
    filename: String,
    data: String,
}

#[derive(Debug, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Debug, Serialize)]
struct Position {
    line: usize,
    #[serde(skip_serializing_if = "is_zero_column")]
    character: usize,
}

impl SolveStatus {
    fn of(event: &Event) -> Self {
        match event {
            Event::Vertex { id, name, inputs, state } => {
                let mut vertex = Vertex::pending(id.clone(), name.clone());
                vertex.inputs.clone_from(inputs);
                vertex.enter(state);
                Self { vertexes: Some([vertex]), ..Self::default() }
            }
            Event::Status { vertex, id, current, total, started, completed, at } => {
                let status = Status {
                    id: id.clone(),
                    vertex: vertex.clone(),
                    total: *total,
                    current: *current,
                    timestamp: time(*at),
                    started: time(*started),
                    completed: completed.map(time),
                };
                Self { statuses: Some([status]), ..Self::default() }
            }
            Event::Log { vertex, stream, data, at } => {
                let stream = match stream {
                    LogStream::Stdout => 1,
                    LogStream::Stderr => 2,
                };
                let log = Log { vertex: vertex.clone(), stream, data: STANDARD.encode(data), timestamp: time(*at) };
                Self { logs: Some([log]), ..Self::default() }
            }
            Event::Warning { diagnostic, excerpt } => {
                Self { warnings: Some([Warning::of(diagnostic, excerpt)]), ..Self::default() }
            }
            // BuildKit has no word for it; a vertex that never starts is shown by nobody and lost by nobody.
            Event::Note(text) => {
                let vertex = Vertex::pending(Digest::sha256(text), text.clone());
                Self { vertexes: Some([vertex]), ..Self::default() }
            }
        }
    }
}

impl Vertex {
    fn pending(digest: Digest, name: String) -> Self {
        Self {
            digest,
            inputs: Vec::new(),
            name,
            started: None,
            completed: None,
            cached: false,
            error: None,
            reason: None,
        }
    }

    fn enter(&mut self, state: &VertexState) {
        match state {
            VertexState::Pending => {}
            VertexState::Started { at, reason } => {
                self.started = Some(time(*at));
                self.reason.clone_from(reason);
            }
            VertexState::Completed { started, at, cached, error, reason } => {
                self.started = Some(time(*started));
                self.completed = Some(time(*at));
                self.cached = *cached;
                self.error.clone_from(error);
                self.reason.clone_from(reason);
            }
        }
    }
}

impl Warning {
    fn of(diagnostic: &Diagnostic, excerpt: &Excerpt) -> Self {
        let short = match diagnostic.rule {
            Some(rule) => format!("{rule}: {}", without_credentials(&diagnostic.message)),
            None => without_credentials(&diagnostic.message),
        };
        let part = excerpt.file.part(excerpt.span.start);
        let position = |offset| {
            let (line, column) = excerpt.file.position(offset);
            Position { line, character: column - 1 }
        };
        Self {
            level: 1,
            short: STANDARD.encode(short),
            detail: diagnostic.hints.iter().map(|hint| STANDARD.encode(without_credentials(hint))).collect(),
            source_info: SourceInfo {
                filename: part.name.to_owned(),
                data: STANDARD.encode(covered_credentials(part.text)),
            },
            range: [Range { start: position(excerpt.span.start), end: position(excerpt.span.end) }],
        }
    }
}

/// RFC 3339 with as many decimals as it takes, as Go writes times.
fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_zero_column(value: &usize) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{SourceFile, Span};

    fn line(event: &Event) -> String {
        let mut out = Vec::new();
        RawJson.event(event, &mut out).unwrap();
        String::from_utf8(out).unwrap().replace(&Digest::sha256(b"v").to_string(), "DIGEST")
    }

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + ms)
    }

    #[test]
    fn a_vertex_has_buildkit_s_fields() {
        let event =
            |state| Event::Vertex { id: Digest::sha256(b"v"), name: "[1/2] RUN a".into(), inputs: vec![], state };
        insta::assert_snapshot!(line(&event(VertexState::Pending)), @r#"{"vertexes":[{"digest":"DIGEST","name":"[1/2] RUN a"}]}"#);
        let completed =
            VertexState::Completed { started: at(0), at: at(1500), cached: true, error: None, reason: None };
        insta::assert_snapshot!(line(&event(completed)), @r#"{"vertexes":[{"digest":"DIGEST","name":"[1/2] RUN a","started":"2023-11-14T22:13:20Z","completed":"2023-11-14T22:13:21.5Z","cached":true}]}"#);
    }

    #[test]
    fn logs_keep_their_bytes() {
        let event = Event::Log {
            vertex: Digest::sha256(b"v"),
            stream: LogStream::Stderr,
            data: b"a\xff\n".to_vec(),
            at: at(0),
        };
        insta::assert_snapshot!(line(&event), @r#"{"logs":[{"vertex":"DIGEST","stream":2,"data":"Yf8K","timestamp":"2023-11-14T22:13:20Z"}]}"#);
    }

    #[test]
    fn progress_and_warnings_are_said() {
        let status = Event::Status {
            vertex: Digest::sha256(b"v"),
            id: "sha256:1".into(),
            current: 0,
            total: 7,
            started: at(0),
            completed: None,
            at: at(1),
        };
        insta::assert_snapshot!(line(&status), @r#"{"statuses":[{"id":"sha256:1","vertex":"DIGEST","total":7,"current":0,"timestamp":"2023-11-14T22:13:20.001Z","started":"2023-11-14T22:13:20Z"}]}"#);
        let span = Span::new(5, 7);
        let warning = Event::Warning {
            diagnostic: Diagnostic::warning("Rule", span, "no"),
            excerpt: Excerpt { file: Arc::new(SourceFile::new("Dockerfile", "FROM ab\n")), span },
        };
        insta::assert_snapshot!(line(&warning), @r#"{"warnings":[{"level":1,"short":"UnVsZTogbm8=","sourceInfo":{"filename":"Dockerfile","data":"RlJPTSBhYgo="},"range":[{"start":{"line":1,"character":5},"end":{"line":1,"character":7}}]}]}"#);
    }
}
