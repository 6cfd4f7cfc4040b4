//! `kiln save`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use kiln_report::{Failure, FailureKind};

use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::{run as ui_run, stdout};

/// Write images to an archive that `kiln load` and `docker load` read
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// The images: names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    /// Write to a file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Saves. A file is there whole, or not at all.
pub(crate) fn run(args: &SaveArgs, setting: &Setting) -> Outcome {
    let Some(path) = &args.output else {
        stdout::refuse_terminal("an archive")?;
        return save(args, setting, Box::new(io::stdout()));
    };
    if path.exists() && !path.is_file() {
        let device = OpenOptions::new().write(true).open(path).map_err(|error| cannot_write(path, &error))?;
        return save(args, setting, Box::new(device));
    }
    let mut part = path.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = File::create(&part).map_err(|error| cannot_write(&part, &error))?;
    let outcome = save(args, setting, Box::new(BufWriter::with_capacity(1 << 20, file)));
    if outcome.is_err() {
        // The failure is told; what cannot be removed is not worse than it.
        let _ = std::fs::remove_file(&part);
        return outcome;
    }
    std::fs::rename(&part, path).map_err(|error| cannot_write(path, &error))?;
    outcome
}

fn save(args: &SaveArgs, setting: &Setting, out: Box<dyn Write + Send>) -> Outcome {
    let engine = setting.engine()?;
    ui_run::block_on(engine.save(&args.images, out))?;
    Ok(0)
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let mut failure = Failure::new(FailureKind::Environment, format!("cannot write `{}`", path.display()));
    failure.causes.push(error.to_string());
    failure
}
