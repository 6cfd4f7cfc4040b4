//! `kiln rmi`.

use clap::Args;
use kiln_engine::{Engine, Removed};
use kiln_report::{Failure, FailureKind};

use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::stdout;

/// Remove names, and images that have no name left
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// The images: names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    /// Remove an image by its id although it has several names; say nothing of images that are not there
    #[arg(short, long)]
    force: bool,
}

/// Removes each, and goes on after one that cannot be.
pub(crate) fn run(args: &RmiArgs, setting: &Setting) -> Outcome {
    let engine = setting.engine()?;
    let mut failures: Vec<Failure> = Vec::new();
    for image in &args.images {
        match engine.remove_image(image, args.force) {
            Ok(removed) => stdout::print(&lines(&removed))?,
            Err(_) if args.force && is_absent(&engine, image) => {}
            Err(failure) => failures.push(failure),
        }
    }
    all_or(failures)
}

/// Whether the store can be read, and has no such image.
fn is_absent(engine: &Engine, image: &str) -> bool {
    engine.images().is_ok() && engine.inspect(image, None).is_err()
}

/// Success, or one failure that says all.
pub(crate) fn all_or(mut failures: Vec<Failure>) -> Outcome {
    match failures.len() {
        0 => Ok(0),
        1 => Err(failures.remove(0).into()),
        count => {
            let kind = failures.first().map_or(FailureKind::Build, |failure| failure.kind);
            let mut all = Failure::new(kind, format!("{count} images could not be served"));
            all.causes = failures.iter().map(ToString::to_string).collect();
            all.hints = failures.into_iter().flat_map(|failure| failure.hints).collect();
            Err(all.into())
        }
    }
}

fn lines(removed: &[Removed]) -> String {
    let line = |removed: &Removed| match removed {
        Removed::Untagged(name) => format!("Untagged: {name}\n"),
        Removed::Deleted(id) => format!("Deleted: {id}\n"),
    };
    removed.iter().map(line).collect()
}
