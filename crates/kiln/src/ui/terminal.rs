//! What kiln asks of the terminal: whether there is one, its size, and whether it shows colours.

use std::io::{self, IsTerminal};
use std::time::SystemTime;

use kiln_report::render::{Color, Screen};

use crate::args::Environment;

/// Whether standard error is a terminal that can draw.
pub(crate) fn can_draw(environment: &Environment) -> bool {
    io::stderr().is_terminal() && environment.text("TERM") != Some("dumb")
}

/// Whether text on standard error is coloured.
pub(crate) fn color(environment: &Environment) -> Color {
    match environment.text("NO_COLOR").is_none() && can_draw(environment) {
        true => Color::On,
        false => Color::Off,
    }
}

/// Whether text on standard output is coloured.
pub(crate) fn stdout_color(environment: &Environment) -> Color {
    let can_draw = io::stdout().is_terminal() && environment.text("TERM") != Some("dumb");
    match environment.text("NO_COLOR").is_none() && can_draw {
        true => Color::On,
        false => Color::Off,
    }
}

/// How wide lines on standard output may be: `COLUMNS`, or what the terminal says; as wide as they are when it is none.
pub(crate) fn stdout_width(environment: &Environment) -> Option<usize> {
    io::stdout().is_terminal().then(|| {
        let asked = environment.text("COLUMNS").and_then(|text| text.parse().ok()).filter(|width| *width > 0);
        let size = || rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0);
        asked.or_else(|| size().map(|size| size.ws_col.into())).unwrap_or(80)
    })
}

/// The time, and the size of the terminal; 80 × 24 when it does not say.
pub(crate) fn screen() -> Screen {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    let (width, height) = size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()));
    Screen { now: SystemTime::now(), width, height }
}
