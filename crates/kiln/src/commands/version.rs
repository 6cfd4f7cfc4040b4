//! `kiln version`.

use clap::Args;
use kiln_oci::Platform;
use serde_json::json;

use super::images::by_template;
use crate::ui::exit::Outcome;
use crate::ui::stdout;
use crate::ui::template::Missing;

/// Print the version
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Print it by a template such as `{{.Version}}`, or as `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Prints it.
pub(crate) fn run(args: &VersionArgs) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    let platform = Platform::host();
    let value = json!({ "Version": version, "Os": platform.os, "Arch": platform.architecture });
    let text = match args.format.as_deref() {
        None => format!("kiln {version} {platform}\n"),
        Some("json") => format!("{value}\n"),
        Some(format) => by_template(format, std::iter::once(value), Missing::NoValue)?,
    };
    stdout::print(&text)?;
    Ok(0)
}
