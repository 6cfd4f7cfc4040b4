//! `kiln save`.

use std::io;
use std::path::PathBuf;

use clap::Args;
use kiln_oci::Platform;

use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::{run as ui_run, stdout};

/// Write images to an archive that `kiln load` and `docker load` read
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// The images: names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    /// Only the images for this platform, when names stand for several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Write to a file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Saves. A file is there whole, or not at all.
pub(crate) fn run(args: &SaveArgs, setting: &Setting) -> Outcome {
    let Some(path) = &args.output else {
        stdout::refuse_terminal("an archive")?;
        ui_run::block_on(setting.engine()?.save(&args.images, args.platform.as_ref(), Box::new(io::stdout())))?;
        return Ok(0);
    };
    ui_run::block_on(setting.engine()?.save_to_file(&args.images, args.platform.as_ref(), path))?;
    Ok(0)
}
