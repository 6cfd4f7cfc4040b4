//! What the plain view keeps for one step: lines that are not over, lines held back, and how much it has said.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use super::{MAX_HELD, MAX_WAIT, PART_EVERY, PART_STEP};
use crate::render::quantity::between;
use crate::render::sanitize::complete_len;
use crate::render::trace::Part;

/// A line that is not over is shown after this time.
const STALE: Duration = Duration::from_secs(1);
/// A line that is not over is shown beyond this length.
const LONG: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The step's number; 0 before its first line.
    pub(super) number: usize,
    /// Standard output and standard error: each has its own unfinished line.
    pub(super) streams: [Stream; 2],
    /// Parts with progress not said yet.
    pub(super) news: BTreeSet<String>,
    /// What was last said of each part.
    pub(super) said: HashMap<String, (u64, SystemTime)>,
    /// The reason that was said.
    pub(super) reason: String,
    pub(super) has_news: bool,
    pub(super) is_over: bool,
    /// Lines for when it is this step's turn, and their length.
    held: (Vec<String>, usize),
    count: u32,
    since: Option<SystemTime>,
}

impl Lane {
    /// Something happened here.
    pub(super) fn stir(&mut self, now: SystemTime) {
        if self.count == 0 {
            self.since = Some(now);
        }
        self.count += 1;
        self.has_news = true;
    }

    /// Its turn is over; it counts anew.
    pub(super) fn rest(&mut self) {
        self.count = 0;
    }

    /// Events a second since its turn or its waiting began.
    pub(super) fn speed(&self, now: SystemTime) -> f64 {
        f64::from(self.count) / self.waited(now).as_secs_f64().max(1e-3)
    }

    pub(super) fn waited(&self, now: SystemTime) -> Duration {
        self.since.map_or(Duration::ZERO, |since| between(since, now))
    }

    /// Keeps a line for its turn.
    pub(super) fn hold(&mut self, line: String) {
        self.held.1 += line.len();
        self.held.0.push(line);
    }

    /// The lines kept, as its turn has come.
    pub(super) fn take_held(&mut self) -> Vec<String> {
        std::mem::take(&mut self.held).0
    }

    /// Whether it has waited too long, or keeps too much.
    pub(super) fn is_out_of_patience(&self, now: SystemTime) -> bool {
        self.waited(now) > MAX_WAIT || self.held.1 > MAX_HELD
    }

    /// Whether the state of a running part is too close to what was last said of it.
    pub(super) fn has_said(&self, part: &Part) -> bool {
        let Some((current, at)) = self.said.get(&part.id) else { return false };
        let step = if part.total > 0 { part.current.saturating_sub(*current) as f64 / part.total as f64 } else { 0.0 };
        step < PART_STEP && between(*at, part.at) < PART_EVERY
    }
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// When the unfinished line began, as its prefix has it.
    pub(super) stamp: String,
    /// Its beginning was shown, then another line came between.
    pub(super) is_broken: bool,
    bytes: Vec<u8>,
    since: Option<SystemTime>,
    /// The last byte was a carriage return; a line feed after it ends no second line.
    is_after_cr: bool,
}

impl Stream {
    /// Takes bytes up to the end of a line. Carriage returns end lines, so that what they would overwrite stays.
    pub(super) fn take_line<'a>(
        &mut self,
        data: &'a [u8],
        stamp: &str,
        now: SystemTime,
    ) -> (Option<Vec<u8>>, &'a [u8]) {
        let data = if std::mem::take(&mut self.is_after_cr) { data.strip_prefix(b"\n").unwrap_or(data) } else { data };
        if data.is_empty() {
            return (None, data);
        }
        if self.since.is_none() {
            self.since = Some(now);
            stamp.clone_into(&mut self.stamp);
        }
        let Some(end) = data.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
            self.bytes.extend_from_slice(data);
            return (None, &[]);
        };
        self.bytes.extend_from_slice(&data[..end]);
        self.is_after_cr = data[end] == b'\r';
        self.since = None;
        let line = std::mem::take(&mut self.bytes);
        // A bare carriage return between two pictures of a progress bar is no empty line.
        let is_nothing = line.is_empty() && self.is_after_cr && data.get(end + 1).is_some_and(|next| *next != b'\n');
        (Some(line).filter(|_| !is_nothing), &data[end + 1..])
    }

    /// What is left at the end of the step.
    pub(super) fn take_rest(&mut self) -> Option<Vec<u8>> {
        self.since = None;
        Some(std::mem::take(&mut self.bytes)).filter(|bytes| !bytes.is_empty())
    }

    /// What can be shown of the unfinished line without cutting characters.
    pub(super) fn take_shown(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(complete_len(&self.bytes));
        std::mem::replace(&mut self.bytes, rest)
    }

    pub(super) fn is_stale(&self, now: SystemTime) -> bool {
        !self.bytes.is_empty() && self.since.is_some_and(|since| between(since, now) >= STALE)
    }

    pub(super) fn is_long(&self) -> bool {
        self.bytes.len() > LONG
    }
}
