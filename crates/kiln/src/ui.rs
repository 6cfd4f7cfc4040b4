//! The terminal: what is shown, how a run is stopped, and how a command ends.

pub(crate) mod age;
pub(crate) mod console;
pub(crate) mod exit;
pub(crate) mod progress;
pub(crate) mod run;
pub(crate) mod stdout;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod terminal;
