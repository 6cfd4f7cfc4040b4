//! `kiln pull`.

use clap::Args;
use kiln_engine::Platforms;
use kiln_oci::{Platform, Reference};
use kiln_report::Failure;

use crate::args::Environment;
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::progress::{Choice, Progress};
use crate::ui::{run as ui_run, stdout};

/// Bring an image from its registry into the local store
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The image, as `name:tag`
    #[arg(value_name = "IMAGE")]
    image: Reference,

    /// The platform to bring; several are separated by commas [default: the machine's]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,

    /// Bring the images for all platforms
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,

    /// Print only the image's name
    #[arg(short, long)]
    quiet: bool,

    /// How progress is shown: auto, plain, tty, rawjson or quiet
    #[arg(long, value_name = "VIEW", default_value = "auto")]
    progress: Choice,
}

/// Pulls, and prints what came.
pub(crate) fn run(args: &PullArgs, setting: &Setting) -> Outcome {
    let engine = setting.engine()?;
    let choice = if args.quiet { Choice::Quiet } else { args.progress };
    let progress = Progress::start(choice, &setting.environment)?;
    let pulled =
        ui_run::block_on(engine.pull(&args.image, &platforms(args, &setting.environment)?, progress.reporter()));
    progress.finish();
    let pulled = pulled?;
    let name = &args.image;
    if args.quiet {
        stdout::print(&format!("{name}\n"))?;
        return Ok(0);
    }
    let status = if pulled.up_to_date { "Image is up to date for" } else { "Downloaded newer image for" };
    stdout::print(&format!("Digest: {}\nStatus: {status} {}\n{name}\n", pulled.digest, name.familiar()))?;
    Ok(0)
}

fn platforms(args: &PullArgs, environment: &Environment) -> Result<Platforms, Failure> {
    if args.all_platforms {
        return Ok(Platforms::All);
    }
    let these = if args.platform.is_empty() { environment.platforms()? } else { args.platform.clone() };
    Ok(if these.is_empty() { Platforms::Host } else { Platforms::These(these) })
}
