//! `kiln load`.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;
use kiln_engine::{Loaded, Platforms};
use kiln_oci::Platform;
use kiln_report::{Failure, FailureKind};

use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::{run as ui_run, stdout};

/// Bring images of an archive into the local store
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Read a file [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Only the images for this platform; several are separated by commas [default: all]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,

    /// Show no progress, as docker has it; none is shown
    #[arg(short, long, hide = true)]
    quiet: bool,
}

/// Loads, and prints what came.
pub(crate) fn run(args: &LoadArgs, setting: &Setting) -> Outcome {
    let input = input(args)?;
    let engine = setting.engine()?;
    let platforms = match args.platform.as_slice() {
        [] => Platforms::All,
        these => Platforms::These(these.to_vec()),
    };
    let loaded = ui_run::block_on(engine.load(input, &platforms))?;
    stdout::print(&loaded.iter().map(line).collect::<String>())?;
    Ok(0)
}

fn input(args: &LoadArgs) -> Result<Box<dyn Read + Send>, Failure> {
    let Some(path) = &args.input else {
        if io::stdin().is_terminal() {
            return Err(Failure::new(FailureKind::Usage, "standard input is a terminal")
                .hint("name an archive with `-i FILE`, or send one to standard input"));
        }
        return Ok(Box::new(io::stdin()));
    };
    let file = File::open(path).map_err(|error| {
        let mut failure = Failure::new(FailureKind::Usage, format!("cannot read `{}`", path.display()));
        failure.causes.push(error.to_string());
        failure
    })?;
    Ok(Box::new(file))
}

fn line(loaded: &Loaded) -> String {
    match &loaded.name {
        Some(name) => format!("Loaded image: {name}\n"),
        None => format!("Loaded image ID: {}\n", loaded.id),
    }
}
