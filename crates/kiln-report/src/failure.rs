//! Failures: why a build or command ended, said so that the way out is clear.

use std::string::FromUtf8Error;
use std::sync::Arc;

use crate::{Diagnostic, Excerpt, SourceFile, Span, without_credentials};

/// Whose turn it is to act; the command line makes it the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The build cannot succeed as written. Exit code 1.
    Build,
    /// The command line was not understood. Exit code 2.
    Usage,
    /// The machine, network or disk is in the way. Exit code 3.
    Environment,
    /// Stopped by the user. Exit code 130.
    Interrupted,
    /// A defect of kiln. Exit code 70.
    Bug,
    /// The program of a container could not be started. Exit code 126 or 127, as a shell has it.
    NotStarted(u8),
}

/// Why it ended.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Whose turn it is.
    pub kind: FailureKind,
    /// What could not be done: lower case, no full stop, values in backticks.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// Where in a source text.
    pub excerpt: Option<Excerpt>,
    /// Findings that make up the failure, such as all syntax errors of a Dockerfile, with their places.
    pub diagnostics: Vec<(Diagnostic, Excerpt)>,
    /// The step's last output, when a step failed.
    pub output: Vec<String>,
    /// Ways out, each one imperative sentence.
    pub hints: Vec<String>,
    /// The build whose failed step is kept as it was left, to be looked at.
    pub kept: Option<String>,
}

impl Failure {
    /// A failure with nothing but a message.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            excerpt: None,
            diagnostics: Vec::new(),
            output: Vec::new(),
            hints: Vec::new(),
            kept: None,
        }
    }

    /// A failure that says all of an error and its sources.
    pub fn from_error(kind: FailureKind, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string).collect();
        Self { causes, ..Self::new(kind, error.to_string()) }
    }

    /// That a file is no text, and where that begins.
    pub fn not_utf8(name: &str, error: &FromUtf8Error) -> Self {
        let start = error.utf8_error().valid_up_to();
        let shown = String::from_utf8_lossy(error.as_bytes());
        // What replaces the bad bytes.
        let span = Span::new(start, start + char::REPLACEMENT_CHARACTER.len_utf8());
        let file = Arc::new(SourceFile::new(name, shown));
        Self::new(FailureKind::Build, format!("`{name}` is not UTF-8 text"))
            .at(Excerpt { file, span })
            .hint("save the file as UTF-8")
    }

    /// Adds a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, excerpt: Excerpt) -> Self {
        self.excerpt = Some(excerpt);
        self
    }

    /// The exit code a command ends with.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            FailureKind::Build => 1,
            FailureKind::Usage => 2,
            FailureKind::Environment => 3,
            FailureKind::Bug => 70,
            FailureKind::NotStarted(code) => code,
            FailureKind::Interrupted => 130,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&without_credentials(&self.message))?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {}", without_credentials(cause)))
    }
}

/// The causes are part of the text, so there is no source to follow.
impl std::error::Error for Failure {}
