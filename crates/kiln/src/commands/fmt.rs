//! `kiln fmt`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use kiln_dockerfile::format::{Style, format};
use kiln_report::render;
use kiln_report::{Diagnostic, Excerpt, Failure, FailureKind, SourceFile};

use crate::setting::Setting;
use crate::text_file::TextFile;
use crate::ui::exit::{Exit, Outcome};
use crate::ui::{stdout, terminal};

/// Write Dockerfiles in one way, and change nothing about what they build
#[derive(Debug, Args)]
pub(crate) struct FmtArgs {
    /// Files, directories with a Dockerfile, or `-` for standard input [default: the Dockerfile here]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Change nothing; name the files that would change, and exit with 1 if there are any
    #[arg(long)]
    check: bool,

    /// Change nothing; show what would change
    #[arg(long)]
    diff: bool,

    /// Indent the lines on which commands go on by N spaces, too; their steps then run again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    indent: Option<u8>,
}

/// Formats each file. One that cannot be formatted does not keep the others from it.
pub(crate) fn run(args: &FmtArgs, setting: &Setting) -> Outcome {
    let here = [PathBuf::from(".")];
    let files = if args.files.is_empty() { here.as_slice() } else { &args.files };
    let mut code = 0;
    for file in files {
        code = code.max(match one(args, file, setting) {
            Ok(code) => code,
            Err(Exit::Failure(failure)) => {
                say(&render::failure(&failure, terminal::color(&setting.environment)));
                failure.exit_code()
            }
            Err(other) => return Err(other),
        });
    }
    Ok(code)
}

fn one(args: &FmtArgs, path: &Path, setting: &Setting) -> Outcome {
    let file = TextFile::read(path)?;
    let style = Style { command_indent: args.indent.map(usize::from) };
    if let Err(error) = kiln_dockerfile::frontend(file.text(), None) {
        return Err(broken(&file, vec![*error]).into());
    }
    let formatted = format(file.text(), style).map_err(|errors| broken(&file, errors))?;
    let is_changed = formatted != file.text();
    if args.diff {
        let color = terminal::stdout_color(&setting.environment);
        stdout::print(&render::diff(file.name(), file.text(), &formatted, color))?;
    }
    if args.check {
        if is_changed && !args.diff {
            stdout::print(&format!("{}\n", file.name()))?;
        }
        return Ok(u8::from(is_changed));
    }
    if args.diff {
        return Ok(0);
    }
    if file.is_stdin() {
        stdout::print(&formatted)?;
    } else if is_changed {
        say(&format!("formatted `{}`\n", file.replace(&formatted)?));
    }
    Ok(0)
}

fn broken(file: &TextFile, errors: Vec<Diagnostic>) -> Failure {
    let source = Arc::new(SourceFile::new(file.name(), file.text()));
    let placed = |error: Diagnostic| {
        let excerpt = Excerpt { file: source.clone(), span: error.span };
        (error, excerpt)
    };
    let message = format!("`{}` cannot be formatted", file.name());
    Failure { diagnostics: errors.into_iter().map(placed).collect(), ..Failure::new(FailureKind::Build, message) }
}

/// Says something on standard error; where nobody listens nobody is told.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
