//! BuildKit's plain progress: every line carries its step's number, logs are whole, one step speaks at a time.
//!
//! ```text
//! #5 [build 2/4] RUN make
//! #5 0.123 cc main.c
//! #5 DONE 0.4s
//! ```
//! A step that is not speaking is held back until the speaker ends, has said its share, or kept others waiting for
//! ten seconds; then `#5 ...` closes it and the next one's header follows.

mod lane;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use self::lane::Lane;
use super::quantity::{progress, seconds, stamp};
use super::sanitize::{Escapes, one_line, sanitize};
use super::trace::{Outcome, Trace};
use super::{Color, Render, Screen, snippet};
use crate::Event;

/// A speaker is not interrupted before this time, however much others have to say.
const ANTI_FLICKER: Duration = Duration::from_secs(5);
/// Nobody waits longer than this.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Nobody who has more bytes than this to say waits at all.
const MAX_HELD: usize = 4 << 20;
/// Progress of a part is said again after this time…
const PART_EVERY: Duration = Duration::from_secs(5);
/// …or this share of the whole.
const PART_STEP: f64 = 0.05;

/// The plain view.
#[derive(Debug, Default)]
pub struct Plain {
    color: Color,
    trace: Trace,
    lanes: Vec<Lane>,
    speaker: Option<usize>,
    numbers: usize,
    has_spoken: bool,
    /// The lane and stream whose line was written without its end.
    open_line: Option<(usize, usize)>,
}

impl Plain {
    /// A view that has seen nothing. `color` is for the warnings at its end.
    pub fn new(color: Color) -> Self {
        Self { color, ..Self::default() }
    }

    /// Makes `at` the speaker: closes the line and block before it, writes its header and all it was held back with.
    fn switch_to(&mut self, at: usize, out: &mut dyn Write) -> io::Result<()> {
        if self.speaker == Some(at) {
            return Ok(());
        }
        self.close_block(out)?;
        if self.lanes[at].number == 0 {
            self.numbers += 1;
            self.lanes[at].number = self.numbers;
        }
        self.speaker = Some(at);
        let number = self.lanes[at].number;
        writeln!(out, "#{number} {}", self.trace.vertices[at].name)?;
        self.say_reason(at, out)?;
        self.say_parts(at, out)?;
        for line in self.lanes[at].take_held() {
            writeln!(out, "#{number} {line}")?;
        }
        self.lanes[at].has_news = false;
        Ok(())
    }

    /// Ends the speaker's block, and leaves the blank line that parts blocks.
    fn close_block(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.close_line(out)?;
        if let Some(old) = self.speaker.take() {
            self.lanes[old].rest();
            writeln!(out, "#{} ...", self.lanes[old].number)?;
        }
        if self.has_spoken {
            writeln!(out)?;
        }
        self.has_spoken = true;
        Ok(())
    }

    fn close_line(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let Some((lane, stream)) = self.open_line.take() else { return Ok(()) };
        self.lanes[lane].streams[stream].is_broken = true;
        writeln!(out)
    }

    /// Writes a whole line of the speaker, or holds it back.
    fn say_line(&mut self, at: usize, stream: usize, text: &str, out: &mut dyn Write) -> io::Result<()> {
        if self.open_line == Some((at, stream)) {
            self.open_line = None;
            return writeln!(out, "{text}");
        }
        let is_tail = std::mem::take(&mut self.lanes[at].streams[stream].is_broken);
        if is_tail && text.is_empty() {
            return Ok(());
        }
        let line = format!("{} {text}", self.lanes[at].streams[stream].stamp);
        if self.speaker != Some(at) {
            self.lanes[at].hold(line);
            return Ok(());
        }
        self.close_line(out)?;
        writeln!(out, "#{} {line}", self.lanes[at].number)
    }

    fn log(&mut self, at: usize, event: &Event, out: &mut dyn Write) -> io::Result<()> {
        let Event::Log { stream, data, at: when, .. } = event else { return Ok(()) };
        let stream = *stream as usize;
        let age = stamp(self.trace.vertices[at].elapsed(*when));
        let mut rest = data.as_slice();
        while !rest.is_empty() {
            let taken;
            (taken, rest) = self.lanes[at].streams[stream].take_line(rest, &age, *when);
            if let Some(line) = taken {
                self.say_line(at, stream, &sanitize(&line, Escapes::KeepColors), out)?;
            }
            if self.lanes[at].streams[stream].is_long() {
                self.say_partial(at, stream, out)?;
            }
        }
        Ok(())
    }

    /// Writes the beginning of a line that is not over, so that a prompt or a row of dots is seen.
    fn say_partial(&mut self, at: usize, stream: usize, out: &mut dyn Write) -> io::Result<()> {
        let bytes = self.lanes[at].streams[stream].take_shown();
        if bytes.is_empty() {
            return Ok(());
        }
        let text = sanitize(&bytes, Escapes::KeepColors);
        if self.speaker != Some(at) {
            return self.say_line(at, stream, &text, out);
        }
        if self.open_line != Some((at, stream)) {
            self.close_line(out)?;
            let lane = &mut self.lanes[at];
            lane.streams[stream].is_broken = false;
            write!(out, "#{} {} ", lane.number, lane.streams[stream].stamp)?;
            self.open_line = Some((at, stream));
        }
        write!(out, "{text}")
    }

    /// Says why the speaker runs, or what has come to be known of that since it was said.
    fn say_reason(&mut self, at: usize, out: &mut dyn Write) -> io::Result<()> {
        let Some(reason) = self.trace.vertices[at].reason.clone() else { return Ok(()) };
        let number = self.lanes[at].number;
        let said = std::mem::replace(&mut self.lanes[at].reason, reason.clone());
        if said == reason {
            return Ok(());
        }
        self.close_line(out)?;
        match reason.strip_prefix(&format!("{said}; ")).filter(|_| !said.is_empty()) {
            Some(more) => writeln!(out, "#{number} {more}"),
            None => writeln!(out, "#{number} miss: {reason}"),
        }
    }

    fn say_parts(&mut self, at: usize, out: &mut dyn Write) -> io::Result<()> {
        for id in std::mem::take(&mut self.lanes[at].news) {
            let lane = &mut self.lanes[at];
            let Some(part) = self.trace.vertices[at].parts.iter().find(|part| part.id == id) else { continue };
            if part.completed.is_none() && lane.has_said(part) {
                continue;
            }
            lane.said.insert(id, (part.current, part.at));
            let took = super::quantity::between(part.started, part.completed.unwrap_or(part.at));
            let amount = progress(part.current, part.total).map(|text| format!(" {text}")).unwrap_or_default();
            let time = if took.as_millis() > 10 { format!(" {}", seconds(took)) } else { String::new() };
            let done = if part.completed.is_some() { " done" } else { "" };
            let line = format!("#{} {}{amount}{time}{done}", lane.number, part.id);
            self.close_line(out)?;
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    fn say_end(&mut self, at: usize, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::replace(&mut self.lanes[at].is_over, true) {
            return Ok(());
        }
        self.switch_to(at, out)?;
        self.say_parts(at, out)?;
        for stream in 0..2 {
            if let Some(line) = self.lanes[at].streams[stream].take_rest() {
                self.say_line(at, stream, &sanitize(&line, Escapes::KeepColors), out)?;
            }
        }
        self.close_line(out)?;
        self.say_reason(at, out)?;
        let number = self.lanes[at].number;
        let vertex = &self.trace.vertices[at];
        match &vertex.outcome {
            Some(Outcome::Cached) => writeln!(out, "#{number} CACHED")?,
            Some(Outcome::Canceled) => writeln!(out, "#{number} CANCELED")?,
            Some(Outcome::Failed(error)) => writeln!(out, "#{number} ERROR: {error}")?,
            Some(Outcome::Done) | None => {
                let end = vertex.ended.unwrap_or(SystemTime::UNIX_EPOCH);
                writeln!(out, "#{number} DONE {}", seconds(vertex.elapsed(end)))?;
            }
        }
        self.lanes[at].rest();
        self.lanes[at].has_news = false;
        self.speaker = None;
        Ok(())
    }

    /// Gives the word to who waited too long, or has much more to say than the speaker.
    fn balance(&mut self, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
        let waiting = |lane: &Lane| lane.has_news && !lane.is_over;
        let candidates: Vec<usize> = (0..self.lanes.len()).filter(|at| waiting(&self.lanes[*at])).collect();
        let fastest = |of: &[usize]| {
            of.iter()
                .copied()
                .reduce(|best, at| if self.lanes[at].speed(now) > self.lanes[best].speed(now) { at } else { best })
        };
        let Some(next) = fastest(&candidates) else { return Ok(()) };
        let Some(speaker) = self.speaker else { return self.switch_to(next, out) };
        if let Some(patient) = candidates.iter().find(|at| self.lanes[**at].is_out_of_patience(now)) {
            return self.switch_to(*patient, out);
        }
        let own = self.lanes[speaker].speed(now);
        let all: f64 = own + candidates.iter().map(|at| self.lanes[*at].speed(now)).sum::<f64>();
        let share = if all > 0.0 { own / all } else { 0.0 };
        let turn = ANTI_FLICKER.as_secs_f64() / (1.0 - share).max(f64::EPSILON);
        if turn < self.lanes[speaker].waited(now).as_secs_f64() {
            return self.switch_to(next, out);
        }
        Ok(())
    }

    fn note(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        self.close_block(out)?;
        writeln!(out, "#0 {}", one_line(text))
    }
}

impl Render for Plain {
    fn event(&mut self, event: &Event, out: &mut dyn Write) -> io::Result<()> {
        if let Event::Note(text) = event {
            return self.note(text, out);
        }
        let Some(at) = self.trace.apply(event) else { return Ok(()) };
        self.lanes.resize_with(self.trace.vertices.len(), Lane::default);
        if self.lanes[at].is_over {
            return Ok(());
        }
        let now = match event {
            Event::Log { at: now, .. } => {
                self.lanes[at].stir(*now);
                self.log(at, event, out)?;
                *now
            }
            Event::Status { id, at: now, .. } => {
                self.lanes[at].stir(*now);
                self.lanes[at].news.insert(one_line(id));
                if self.speaker == Some(at) {
                    self.say_parts(at, out)?;
                }
                *now
            }
            _ if self.trace.vertices[at].ended.is_some() => return self.say_end(at, out),
            // A header alone says little: it waits for the first output or the next tick.
            _ => {
                if let Some(started) = self.trace.vertices[at].started {
                    self.lanes[at].stir(started);
                }
                return if self.speaker == Some(at) { self.say_reason(at, out) } else { Ok(()) };
            }
        };
        if self.speaker == Some(at) {
            self.lanes[at].has_news = false;
        }
        self.balance(now, out)
    }

    fn tick(&mut self, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        if let Some(speaker) = self.speaker {
            for stream in 0..2 {
                if self.lanes[speaker].streams[stream].is_stale(screen.now) {
                    self.say_partial(speaker, stream, out)?;
                }
            }
        }
        self.balance(screen.now, out)?;
        out.flush()
    }

    fn finish(&mut self, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
        for at in self.trace.cancel_running(screen.now) {
            self.say_end(at, out)?;
        }
        self.close_line(out)?;
        snippet::write_warnings(&self.trace.warnings, self.color, out)?;
        out.flush()
    }
}
