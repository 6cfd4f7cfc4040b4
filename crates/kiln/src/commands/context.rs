//! `kiln context`: what a build would see of the files around it.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kiln_engine::{BuildRequest, Context, DockerfileSource, LeftOutFile, NamedContext, PathVerdict, SentFile};
use kiln_report::render::decimal_size;
use serde_json::json;

use super::build::check_context;
use super::check::{gather, place};
use crate::args::build::named_context;
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::stdout;
use crate::ui::table::table;

/// The build context's name.
const MAIN: &str = "context";

/// Look at the files a build would see
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    Ls(LsArgs),
}

/// List the files of a build context that a build sees, or say why it sees one or not
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Directory or URL of the context
    #[arg(value_name = "CONTEXT", default_value = ".")]
    context: PathBuf,

    /// Dockerfile, whose own ignore file counts first [default: Containerfile or Dockerfile of CONTEXT]
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,

    /// Ignore file [default: the Dockerfile's own, else .containerignore or .dockerignore of CONTEXT]
    #[arg(long, value_name = "FILE")]
    ignorefile: Option<PathBuf>,

    /// Also list this directory, which the Dockerfile calls NAME
    #[arg(long, value_name = "NAME=WHERE", value_parser = named_context)]
    build_context: Vec<(String, NamedContext)>,

    /// Say which rule decides about a path, given from the top of CONTEXT; NAME=PATH asks about another context
    #[arg(long, value_name = "PATH", conflicts_with = "ignored")]
    why: Option<String>,

    /// List what is left out, and by which rule
    #[arg(long)]
    ignored: bool,

    /// Print a table, or a line of JSON for each file
    #[arg(long, value_name = "FORMAT", value_parser = ["table", "json"], default_value = "table", hide_default_value = true)]
    format: String,
}

/// Looks, and changes nothing.
pub(crate) fn run(command: &ContextCommand, setting: &Setting) -> Outcome {
    let ContextCommand::Ls(args) = command;
    let request = args.request();
    if let Context::Dir(directory) = &request.context {
        check_context(directory)?;
    }
    let gathered = gather(request, setting)?;
    let contexts = gathered.contexts()?;
    let is_json = args.format == "json";
    let (text, total) = if let Some(path) = &args.why {
        let (context, path) = args.asked(path);
        (show_verdict(&contexts.why(context, &path)?, is_json), None)
    } else if args.ignored {
        let found = contexts.left_out()?;
        let total = format!("{} left out", counted(found.len(), "path"));
        (show_left_out(&found, is_json), Some(total))
    } else {
        let found = contexts.sent()?;
        let bytes = found.iter().map(|file| file.size).sum();
        let files = found.iter().filter(|file| !file.path.ends_with('/')).count();
        let total = format!("{}, {}", counted(files, "file"), decimal_size(bytes));
        (show_sent(&found, is_json), Some(total))
    };
    stdout::print(&text)?;
    if let Some(total) = total {
        // Where nobody listens nobody is told.
        let _ = writeln!(std::io::stderr(), "{total}");
    }
    Ok(0)
}

impl LsArgs {
    fn request(&self) -> BuildRequest {
        let context = place(&self.context);
        BuildRequest {
            dockerfile: match (&self.file, &context) {
                (None, _) => DockerfileSource::Default,
                (Some(file), Context::Remote(_)) => DockerfileSource::InContext(file.to_string_lossy().into_owned()),
                (Some(file), _) => DockerfileSource::Path(file.clone()),
            },
            context,
            ignorefile: self.ignorefile.clone(),
            contexts: self.build_context.iter().cloned().collect(),
            ..BuildRequest::default()
        }
    }

    /// The context and the path in it that `--why` asks about.
    fn asked<'a>(&'a self, typed: &'a str) -> (&'a str, String) {
        if let Some((name, path)) = typed.split_once('=')
            && let Some((name, _)) = self.build_context.iter().find(|(known, _)| known == name)
        {
            return (name, path.to_owned());
        }
        let inside = Path::new(typed).is_absolute().then(|| std::fs::canonicalize(&self.context).ok()).flatten();
        let relative = inside.and_then(|dir| Path::new(typed).strip_prefix(dir).ok());
        (MAIN, relative.map_or_else(|| typed.to_owned(), |path| path.to_string_lossy().into_owned()))
    }
}

fn show_verdict(verdict: &PathVerdict, is_json: bool) -> String {
    let PathVerdict { path, is_sent, rule, taken_back } = verdict;
    if is_json {
        let (pattern, place) = (rule.as_ref().map(|rule| &rule.pattern), rule.as_ref().map(|rule| &rule.place));
        return format!("{}\n", json!({"Path": path, "Sent": is_sent, "Pattern": pattern, "Rule": place}));
    }
    let decision = if *is_sent { "sent" } else { "left out" };
    let reason = match rule {
        None => "no pattern matches it".to_owned(),
        Some(rule) => format!("`{}` at {} decides", visible(&rule.pattern), rule.place),
    };
    let but = match taken_back {
        0 => String::new(),
        1 => ", but 1 file in it is taken back".to_owned(),
        some => format!(", but {some} files in it are taken back"),
    };
    let path = visible(path);
    format!("`{path}` is {decision}: {reason}{but}\n")
}

fn show_left_out(found: &[LeftOutFile], is_json: bool) -> String {
    if is_json {
        let line = |file: &LeftOutFile| {
            let LeftOutFile { context, path, rule } = file;
            json!({"Context": context, "Path": path, "Pattern": rule.pattern, "Rule": rule.place})
        };
        return found.iter().map(|file| format!("{}\n", line(file))).collect();
    }
    let rows = found
        .iter()
        .map(|file| (&file.context, &file.path, format!("{}: {}", file.rule.place, visible(&file.rule.pattern))));
    by_context("RULE", rows.collect())
}

fn show_sent(found: &[SentFile], is_json: bool) -> String {
    if is_json {
        let line = |file: &SentFile| json!({"Context": file.context, "Path": file.path, "Size": file.size});
        return found.iter().map(|file| format!("{}\n", line(file))).collect();
    }
    by_context("SIZE", found.iter().map(|file| (&file.context, &file.path, decimal_size(file.size))).collect())
}

/// A table that names contexts only when there are several.
fn by_context(heading: &str, files: Vec<(&String, &String, String)>) -> String {
    let has_others = files.iter().any(|(context, ..)| *context != MAIN);
    let row = |context: &str, path: &str, last: String| match has_others {
        true => vec![context.to_owned(), visible(path), last],
        false => vec![visible(path), last],
    };
    let mut rows = vec![row("CONTEXT", "PATH", heading.to_owned())];
    rows.extend(files.into_iter().map(|(context, path, last)| row(context, path, last)));
    table(&rows)
}

/// Names may hold what breaks lines or moves a cursor.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
