//! `kiln cache`: what is kept between builds.

use clap::Subcommand;

use super::cache_mounts;
use crate::setting::Setting;
use crate::ui::exit::Outcome;

/// Look after what is kept between builds
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    #[command(subcommand)]
    Mounts(cache_mounts::MountsCommand),
}

/// Does what was asked for.
pub(crate) fn run(command: &CacheCommand, setting: &Setting) -> Outcome {
    match command {
        CacheCommand::Mounts(command) => cache_mounts::run(command, setting),
    }
}
