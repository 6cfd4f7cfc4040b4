//! `kiln debug`: what the language makes of a text, in a form for programs that compare.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use kiln_dockerfile::expand::{Env, Lexer};
use kiln_dockerfile::parse_shape;
use kiln_report::{Excerpt, Failure, FailureKind, SourceFile};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::text_file::TextFile;
use crate::ui::exit::Outcome;
use crate::ui::stdout;

/// Show what kiln makes of a text, for comparison with other programs
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print a Dockerfile's tree as BuildKit's parser prints it
    Parse {
        /// Dockerfile; `-` reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Fill variables into words
    ///
    /// Reads objects as {"env":["NAME=value"],"words":true,"in":"text"} on standard input, and answers each with a line
    /// as {"out":…} or {"error":…}. With `words`, the answer is an array: the text split as a shell splits it.
    Expand,
    /// Match paths with ignore patterns
    ///
    /// Reads objects as {"patterns":["*.md","!README.md"],"path":"a/b"} on standard input, and answers each with a line:
    /// {"out":true} when the path is left out, else {"out":false}, or {"error":…}.
    Ignore,
}

/// Does it.
pub(crate) fn run(args: &DebugArgs) -> Outcome {
    match &args.what {
        What::Parse { file } => parse(file),
        What::Expand => each(r#"{"env":["NAME=value"],"words":false,"in":"$NAME"}"#, answer),
        What::Ignore => each(r#"{"patterns":["*.md"],"path":"a/b"}"#, judge),
    }
}

fn parse(path: &Path) -> Outcome {
    let text = read(path)?;
    let (file, errors) = parse_shape(&text);
    if !errors.is_empty() {
        let source = Arc::new(SourceFile::new(path.to_string_lossy(), text));
        let place = |span| Excerpt { file: Arc::clone(&source), span };
        let diagnostics = errors.into_iter().map(|error| (error.clone(), place(error.span))).collect();
        let message = format!("cannot parse `{}`", path.display());
        return Err(Failure { diagnostics, ..Failure::new(FailureKind::Build, message) }.into());
    }
    stdout::print(&format!("{}\n", file.dump()))?;
    Ok(0)
}

fn read(path: &Path) -> Result<String, Failure> {
    TextFile::read(path).map(|file| file.text().to_owned())
}

/// A word to expand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    words: bool,
    #[serde(rename = "in")]
    text: String,
}

/// A path to match.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Candidate {
    patterns: Vec<String>,
    path: String,
}

/// What became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    #[serde(rename = "out")]
    Word(String),
    #[serde(rename = "out")]
    Words(Vec<String>),
    #[serde(rename = "out")]
    Ignored(bool),
    Error(String),
}

/// Answers all questions on standard input.
fn each<Q: DeserializeOwned>(example: &str, answer: fn(&Q) -> Reply) -> Outcome {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).map_err(|error| cannot("read standard input", &error))?;
    for question in serde_json::Deserializer::from_slice(&input).into_iter::<Q>() {
        let question = question.map_err(|error| {
            cannot("read the question on standard input", &error).hint(format!("send objects as {example}"))
        })?;
        let reply = serde_json::to_string(&answer(&question)).expect("texts are always JSON");
        stdout::print(&format!("{reply}\n"))?;
    }
    Ok(0)
}

fn answer(question: &Question) -> Reply {
    let mut env = Env::new();
    for line in &question.env {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        env.set(name, value);
    }
    match Lexer::new('\\').expand(&question.text, &env) {
        Ok(expansion) if question.words => Reply::Words(expansion.words),
        Ok(expansion) => Reply::Word(expansion.text),
        Err(error) => Reply::Error(error.to_string()),
    }
}

fn judge(candidate: &Candidate) -> Reply {
    match kiln_engine::is_ignored(&candidate.patterns, &candidate.path) {
        Ok(is_ignored) => Reply::Ignored(is_ignored),
        Err(failure) => Reply::Error(failure.to_string()),
    }
}

fn cannot(what: impl std::fmt::Display, error: &dyn std::error::Error) -> Failure {
    let mut failure = Failure::new(FailureKind::Usage, format!("cannot {what}"));
    failure.causes.push(error.to_string());
    failure
}
