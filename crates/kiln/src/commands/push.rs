//! `kiln push`.

use clap::Args;
use kiln_oci::{Platform, Reference};

use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::progress::{Choice, Progress};
use crate::ui::{run as ui_run, stdout};

/// Send an image of the local store to the registry of its name
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The image, as `registry/name:tag`
    #[arg(value_name = "IMAGE")]
    image: Reference,

    /// Only the image for this platform, when the name stands for several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Print only the image's name
    #[arg(short, long)]
    quiet: bool,

    /// How progress is shown: auto, plain, tty, rawjson or quiet
    #[arg(long, value_name = "VIEW", default_value = "auto")]
    progress: Choice,
}

/// Pushes, and prints the digest the registry has it by.
pub(crate) fn run(args: &PushArgs, setting: &Setting) -> Outcome {
    let engine = setting.engine()?;
    let choice = if args.quiet { Choice::Quiet } else { args.progress };
    let progress = Progress::start(choice, &setting.environment)?;
    let pushed = ui_run::block_on(engine.push(&args.image, args.platform.as_ref(), progress.reporter()));
    progress.finish();
    let pushed = pushed?;
    let name = &args.image;
    match args.quiet {
        true => stdout::print(&format!("{name}\n"))?,
        false => {
            let tag = name.tag.as_deref().unwrap_or("latest");
            stdout::print(&format!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size))?;
        }
    }
    Ok(0)
}
