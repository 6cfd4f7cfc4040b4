//! The live view for a terminal: a header, a line for each step, the last output of those that run.
//!
//! A frame is made of what is known and the time; drawing replaces the frame before it. Nothing here asks the
//! terminal anything, so the whole view runs on a virtual clock in tests.

mod frame;
mod screen_log;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::SystemTime;

use unicode_width::UnicodeWidthStr;

use self::frame::Frame;
use self::screen_log::ScreenLog;
use super::sanitize::{Escapes, one_line, sanitize};
use super::trace::{Outcome, Trace};
use super::{Color, Render, Screen, snippet};
use crate::Event;

/// The live view.
#[derive(Debug)]
pub struct Tty {
    color: Color,
    log_lines: usize,
    trace: Trace,
    logs: Vec<ScreenLog>,
    /// The places of steps in the order they began.
    order: Vec<usize>,
    began: Option<SystemTime>,
    notes: Vec<String>,
    /// The widths of the lines now on the screen.
    drawn: Vec<usize>,
}

impl Tty {
    /// A view that has seen nothing, showing at most `log_lines` lines of output of each running step.
    pub fn new(color: Color, log_lines: usize) -> Self {
        Self {
            color,
            log_lines,
            trace: Trace::default(),
            logs: Vec::new(),
            order: Vec::new(),
            began: None,
            notes: Vec::new(),
            drawn: Vec::new(),
        }
    }

    /// What erases the frame on the screen; lines may have wrapped when the terminal became narrower since.
    fn erase(&mut self, width: usize) -> String {
        let width = width.max(1);
        let rows: usize = self.drawn.iter().map(|line| line.div_ceil(width).max(1)).sum();
        self.drawn.clear();
        match rows {
            0 => String::new(),
            rows => format!("\u{1b}[{rows}A\r\u{1b}[J"),
        }
    }

    fn draw(&mut self, frame: &Frame, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        // One write: a half-drawn frame is never seen, and the cursor is never left hidden.
        let mut text = String::from("\u{1b}[?25l");
        text.push_str(&self.erase(screen.width));
        for note in std::mem::take(&mut self.notes) {
            writeln!(text, "{note}").expect("writing to a string");
        }
        for row in &frame.rows {
            let line = row.fit(screen.width);
            self.drawn.push(line.width());
            match (self.color, row.style) {
                (Color::On, Some(style)) => writeln!(text, "{style}{line}{style:#}"),
                _ => writeln!(text, "{line}"),
            }
            .expect("writing to a string");
        }
        text.push_str("\u{1b}[?25h");
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn frame(&self, screen: Screen) -> Frame {
        Frame::new(self, screen)
    }

    /// The whole output of the steps that failed, so that nobody has to run the build again to see it.
    fn failed_logs(&self) -> String {
        let mut text = String::new();
        for at in &self.order {
            let vertex = &self.trace.vertices[*at];
            if !matches!(vertex.outcome, Some(Outcome::Failed(_))) {
                continue;
            }
            writeln!(text, "------\n > {}:", vertex.name).expect("writing to a string");
            let (dropped, log) = self.logs[*at].whole();
            if dropped > 0 {
                writeln!(text, "({dropped} bytes before this are in no memory; `--progress=plain` shows all)")
                    .expect("writing to a string");
            }
            for line in log.split(|b| *b == b'\n') {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                writeln!(text, "{}", sanitize(line, Escapes::KeepColors)).expect("writing to a string");
            }
            text.push_str("------\n");
        }
        text
    }
}

impl Render for Tty {
    fn event(&mut self, event: &Event, _out: &mut dyn Write) -> io::Result<()> {
        if let Event::Note(text) = event {
            self.notes.push(one_line(text));
            return Ok(());
        }
        let Some(at) = self.trace.apply(event) else { return Ok(()) };
        self.logs.resize_with(self.trace.vertices.len(), ScreenLog::default);
        let vertex = &self.trace.vertices[at];
        if let Some(started) = vertex.started {
            self.began = Some(self.began.map_or(started, |began| began.min(started)));
            if !self.order.contains(&at) {
                self.order.push(at);
            }
        }
        match event {
            Event::Log { data, .. } => self.logs[at].push(data),
            _ if vertex.ended.is_some() && !matches!(vertex.outcome, Some(Outcome::Failed(_))) => {
                self.logs[at] = ScreenLog::default();
            }
            _ => {}
        }
        Ok(())
    }

    fn tick(&mut self, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        if self.order.is_empty() && self.notes.is_empty() {
            return Ok(());
        }
        let frame = self.frame(screen).fit(screen);
        self.draw(&frame, screen, out)
    }

    fn finish(&mut self, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        self.trace.cancel_running(screen.now);
        if !self.order.is_empty() {
            let frame = self.frame(screen);
            self.draw(&frame, screen, out)?;
            self.drawn.clear();
        }
        out.write_all(self.failed_logs().as_bytes())?;
        snippet::write_warnings(&self.trace.warnings, self.color, out)?;
        out.flush()
    }
}
