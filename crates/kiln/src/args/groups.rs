//! Docker's groups of commands, so that scripts written for it run: `image ls`, `buildx build`, `system prune`.

use clap::{Args, Subcommand};

use super::later::Rest;
use super::value::Wrong;
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
    Debug(Debugged),
    #[command(subcommand)]
    History(Builds),
    Du(du::DuArgs),
    #[command(subcommand)]
    Imagetools(imagetools::ImagetoolsCommand),
    Prune(prune::PruneArgs),
}

/// Buildx's way to say `--on-failure=shell`.
#[derive(Debug, Args)]
pub(crate) struct Debugged {
    /// When to open a shell: error
    #[arg(long, value_name = "WHEN", value_parser = on)]
    on: Option<()>,

    /// Open this instead of a shell, as /bin/bash
    #[arg(long, value_name = "PROGRAM", value_parser = program)]
    invoke: Option<Invoked>,

    #[command(subcommand)]
    command: Debuggable,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Debuggable {
    #[command(alias = "b")]
    Build(Box<build::BuildArgs>),
}

/// What is opened; nothing is a shell.
#[derive(Debug, Clone)]
struct Invoked(Option<String>);

fn on(text: &str) -> Result<(), Wrong> {
    match text {
        "error" => Ok(()),
        _ => Err(Wrong("expected `error`; a step that ended well is entered by `kiln shell BUILD:STEP`".into())),
    }
}

fn program(text: &str) -> Result<Invoked, Wrong> {
    match text {
        "" | "default" | "on-error" => Ok(Invoked(None)),
        _ if text.contains(['=', ',', '"']) => Err(Wrong("expected a program, as in `/bin/sh`".into())),
        _ => Ok(Invoked(Some(text.to_owned()))),
    }
}

impl Debugged {
    fn into_command(self) -> Command {
        let Debuggable::Build(mut args) = self.command;
        args.on_failure = build::OnFailure::Shell;
        args.invoke = self.invoke.and_then(|Invoked(program)| program);
        Command::Build(args)
    }
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
            Self::Buildx(Builder::Debug(debugged)) | Self::Builder(Builder::Debug(debugged)) => debugged.into_command(),
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
