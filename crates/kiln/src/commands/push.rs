//! `kiln push`.

use clap::Args;
use kiln_engine::Engine;
use kiln_oci::{Platform, Reference, ReferenceError};
use kiln_report::{Failure, FailureKind};

use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::progress::{Choice, Progress};
use crate::ui::{run as ui_run, stdout};

/// Send an image of the local store to the registry of its name
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The image, as `registry/name:tag`
    #[arg(value_name = "IMAGE", value_parser = name)]
    image: String,

    /// Only the image for this platform, when the name stands for several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Push all tags that the repository has in the local store; IMAGE names none
    #[arg(short, long)]
    all_tags: bool,

    /// Print only the image's name
    #[arg(short, long)]
    quiet: bool,

    /// How progress is shown: auto, plain, tty, rawjson or quiet
    #[arg(long, value_name = "VIEW", default_value = "auto")]
    progress: Choice,
}

/// Pushes, and prints the digests the registry has images by.
pub(crate) fn run(args: &PushArgs, setting: &Setting) -> Outcome {
    let engine = setting.engine()?;
    let names = match args.all_tags {
        true => all_tags(&args.image, &engine)?,
        false => args.image.parse().into_iter().collect(),
    };
    let choice = if args.quiet { Choice::Quiet } else { args.progress };
    for name in &names {
        let progress = Progress::start(choice, &setting.environment)?;
        let pushed = ui_run::block_on(engine.push(name, args.platform.as_ref(), progress.reporter()));
        progress.finish();
        let pushed = pushed?;
        let tag = name.tag.as_deref().unwrap_or("latest");
        match args.quiet {
            true => stdout::print(&format!("{name}\n"))?,
            false => stdout::print(&format!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size))?,
        }
    }
    Ok(0)
}

/// The names of a repository in the local store.
fn all_tags(text: &str, engine: &Engine) -> Result<Vec<Reference>, Failure> {
    let usage = |message: String| Failure::new(FailureKind::Usage, message);
    if text.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) {
        return Err(usage(format!("`{text}` is one image, and `--all-tags` pushes all of a repository"))
            .hint("leave out the tag, or `--all-tags`"));
    }
    let image: Reference = text.parse().map_err(|error: ReferenceError| usage(error.to_string()))?;
    let names = engine.images()?.into_iter().flat_map(|image| image.names);
    let mut names: Vec<Reference> = names.filter_map(|name| name.parse().ok()).collect();
    names.retain(|name| name.name() == image.name());
    names.sort_by(|a, b| a.tag.cmp(&b.tag));
    if names.is_empty() {
        let failure = Failure::new(FailureKind::Build, format!("no image here has a tag of `{}`", image.name()));
        return Err(failure.hint("see `kiln images`"));
    }
    Ok(names)
}

/// As it is typed: whether there is a tag counts.
fn name(text: &str) -> Result<String, ReferenceError> {
    text.parse::<Reference>().map(|_| text.to_owned())
}
