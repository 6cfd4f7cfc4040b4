//! Docker's groups of commands, so that scripts written for it run: `image ls`, `buildx build`, `system prune`.

use clap::Subcommand;

use super::later::Rest;
use super::{Command, build};
use crate::commands::{builds, du, history, images, imagetools, inspect, load, prune, pull, push, rmi, save, tag};

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Docker's `buildx`
    #[command(hide = true, subcommand)]
    Buildx(Builder),
    /// Docker's `builder`
    #[command(hide = true, subcommand)]
    Builder(Builder),
    /// Docker's `image`
    #[command(hide = true, subcommand)]
    Image(Image),
    /// Docker's `system`
    #[command(hide = true, subcommand)]
    System(System),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Builder {
    Bake(Rest),
    #[command(alias = "b")]
    Build(Box<build::BuildArgs>),
    #[command(subcommand)]
    History(Builds),
    Du(du::DuArgs),
    #[command(subcommand)]
    Imagetools(imagetools::ImagetoolsCommand),
    Prune(prune::PruneArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Builds {
    Ls(builds::BuildsArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    Build(Box<build::BuildArgs>),
    History(history::HistoryArgs),
    Inspect(inspect::InspectArgs),
    Load(load::LoadArgs),
    #[command(alias = "list")]
    Ls(images::ImagesArgs),
    Prune(prune::PruneArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    #[command(alias = "remove")]
    Rm(rmi::RmiArgs),
    Save(save::SaveArgs),
    Tag(tag::TagArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum System {
    Prune(prune::PruneArgs),
}

impl Group {
    pub(crate) fn into_command(self) -> Command {
        match self {
            Self::Buildx(Builder::Build(args))
            | Self::Builder(Builder::Build(args))
            | Self::Image(Image::Build(args)) => Command::Build(args),
            Self::Buildx(Builder::History(Builds::Ls(args))) | Self::Builder(Builder::History(Builds::Ls(args))) => {
                Command::Builds(args)
            }
            Self::Buildx(Builder::Bake(rest)) | Self::Builder(Builder::Bake(rest)) => Command::Bake(rest),
            Self::Buildx(Builder::Imagetools(command)) | Self::Builder(Builder::Imagetools(command)) => {
                Command::Imagetools(command)
            }
            Self::Buildx(Builder::Du(args)) | Self::Builder(Builder::Du(args)) => Command::Du(args),
            Self::Buildx(Builder::Prune(args))
            | Self::Builder(Builder::Prune(args))
            | Self::Image(Image::Prune(args))
            | Self::System(System::Prune(args)) => Command::Prune(args),
            Self::Image(Image::History(args)) => Command::History(args),
            Self::Image(Image::Inspect(args)) => Command::Inspect(args),
            Self::Image(Image::Load(args)) => Command::Load(args),
            Self::Image(Image::Ls(args)) => Command::Images(args),
            Self::Image(Image::Pull(args)) => Command::Pull(args),
            Self::Image(Image::Push(args)) => Command::Push(args),
            Self::Image(Image::Rm(args)) => Command::Rmi(args),
            Self::Image(Image::Save(args)) => Command::Save(args),
            Self::Image(Image::Tag(args)) => Command::Tag(args),
        }
    }
}
