//! Docker's options that kiln does not have yet: known by name, refused by name, never silently ignored.

use std::marker::PhantomData;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use kiln_report::{Failure, FailureKind};

/// A table of options.
pub(crate) trait Table {
    /// Options that ask for something kiln cannot do yet.
    const REFUSED: &'static [Flag];
    /// Options that ask for what kiln does anyway, or for nothing.
    const HARMLESS: &'static [Flag];
}

/// An option: its long name, its short one, and whether it takes a value.
pub(crate) type Flag = (&'static str, Option<char>, Takes);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Takes {
    Nothing,
    Value,
}

/// The refused options that were typed.
#[derive(Debug)]
pub(crate) struct Later<T> {
    typed: Vec<&'static str>,
    table: PhantomData<T>,
}

impl<T> Later<T> {
    /// Fails when there are any.
    pub(crate) fn refuse(&self) -> Result<(), Failure> {
        match self.typed.first() {
            None => Ok(()),
            Some(name) => Err(not_yet(&format!("--{name}"))),
        }
    }
}

/// Whatever follows a command that kiln does not have yet.
#[derive(Debug, Args)]
pub(crate) struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _typed: Vec<std::ffi::OsString>,
}

/// The refusal of something by name.
pub(crate) fn not_yet(what: &str) -> Failure {
    Failure::new(FailureKind::Usage, format!("`{what}` is not supported yet"))
}

impl<T: Table> Args for Later<T> {
    fn augment_args(command: Command) -> Command {
        let hidden = T::REFUSED.iter().chain(T::HARMLESS).map(|(name, short, takes)| {
            let arg = Arg::new(*name).long(*name).hide(true);
            let arg = match short {
                Some(short) => arg.short(*short),
                None => arg,
            };
            match takes {
                Takes::Nothing => arg.action(ArgAction::SetTrue),
                Takes::Value => arg.action(ArgAction::Append),
            }
        });
        command.args(hidden)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: Table> FromArgMatches for Later<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_asked_for = |(name, _, takes): &&Flag| match takes {
            Takes::Nothing => matches.get_flag(name),
            Takes::Value => matches.contains_id(name),
        };
        let typed = T::REFUSED.iter().filter(is_asked_for).map(|(name, ..)| *name).collect();
        Ok(Self { typed, table: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
