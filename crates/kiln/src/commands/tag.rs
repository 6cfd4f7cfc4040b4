//! `kiln tag`.

use clap::Args;
use kiln_oci::Reference;
use kiln_report::{Failure, FailureKind};

use crate::setting::Setting;
use crate::ui::exit::Outcome;

/// Give an image one more name
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image: a name or an id
    #[arg(value_name = "IMAGE")]
    image: String,

    /// The new name, as `name:tag`
    #[arg(value_name = "NAME")]
    name: Reference,
}

/// Tags.
pub(crate) fn run(args: &TagArgs, setting: &Setting) -> Outcome {
    if args.name.digest.is_some() {
        let message = format!("`{}` cannot be given as a name: it has a digest", args.name.familiar());
        return Err(Failure::new(FailureKind::Usage, message).into());
    }
    setting.engine()?.tag(&args.image, &args.name)?;
    Ok(0)
}
