//! Renderers: events and failures made into text for a given `Write`. The time comes in, the terminal stays outside.

pub mod call;
mod checkstyle;
mod diff;
mod github;
mod lint_json;
#[cfg(test)]
mod lint_sample;
mod plain;
mod quantity;
mod rawjson;
mod sanitize;
mod sarif;
mod snippet;
mod trace;
mod tty;

use std::io::{self, Write};
use std::time::SystemTime;

use crate::Event;

pub use checkstyle::checkstyle;
pub use diff::diff;
pub use github::github;
pub use lint_json::lint_json;
pub use plain::Plain;
pub use quantity::{decimal_size, seconds};
pub use rawjson::RawJson;
pub use sanitize::{Escapes, one_line, sanitize};
pub use sarif::sarif;
pub use snippet::{diagnostic, failure, warnings};
pub use tty::Tty;

/// Whether text carries ANSI colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Color {
    /// Text only.
    #[default]
    Off,
    /// ANSI colours.
    On,
}

/// The terminal at a moment: what a renderer may know of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// The time.
    pub now: SystemTime,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// Makes text of a build's events. Calls come in the order of the events, from one thread.
pub trait Render: Send {
    /// Takes an event, and writes what can be said at once.
    fn event(&mut self, event: &Event, out: &mut dyn Write) -> io::Result<()>;

    /// Says what time does to the view. Wants to be called some ten times a second.
    fn tick(&mut self, screen: Screen, out: &mut dyn Write) -> io::Result<()>;

    /// Says the rest. Steps still running were cancelled.
    fn finish(&mut self, screen: Screen, out: &mut dyn Write) -> io::Result<()>;
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Render for Quiet {
    fn event(&mut self, _event: &Event, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn tick(&mut self, _screen: Screen, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _screen: Screen, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}
