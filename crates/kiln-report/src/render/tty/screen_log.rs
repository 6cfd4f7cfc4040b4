//! The output of one step as the live view keeps it: the last lines to show, and all of it for when the step fails.

use std::collections::VecDeque;

use crate::render::sanitize::{Escapes, sanitize};

/// Lines kept to be shown; more than any view asks for.
const LINES: usize = 64;
/// Bytes kept for the case of failure.
const WHOLE: usize = 8 << 20;

#[derive(Debug, Default)]
pub(super) struct ScreenLog {
    lines: VecDeque<String>,
    line: Vec<u8>,
    /// The next byte begins the line anew: a carriage return came.
    is_rewound: bool,
    whole: VecDeque<u8>,
    dropped: u64,
}

impl ScreenLog {
    pub(super) fn push(&mut self, data: &[u8]) {
        self.whole.extend(data);
        let excess = self.whole.len().saturating_sub(WHOLE);
        self.whole.drain(..excess);
        self.dropped += excess as u64;
        for byte in data {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => self.is_rewound = true,
                byte => {
                    if std::mem::take(&mut self.is_rewound) {
                        self.line.clear();
                    }
                    // No terminal is that wide; what follows would not be seen.
                    if self.line.len() < 4096 {
                        self.line.push(*byte);
                    }
                }
            }
        }
    }

    fn end_line(&mut self) {
        self.is_rewound = false;
        let line = sanitize(&std::mem::take(&mut self.line), Escapes::Strip);
        self.lines.push_back(line);
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }

    /// The last lines that are not blank, the unfinished one included, oldest first.
    pub(super) fn last(&self, count: usize) -> Vec<String> {
        let current = sanitize(&self.line, Escapes::Strip);
        let lines = self.lines.iter().map(String::as_str).chain([current.as_str()]);
        let filled: Vec<String> =
            lines.filter(|line| !line.trim().is_empty()).map(|line| line.replace('\t', "    ")).collect();
        filled[filled.len().saturating_sub(count)..].to_vec()
    }

    /// How many bytes were dropped, and all after them without the last line break.
    pub(super) fn whole(&self) -> (u64, Vec<u8>) {
        let mut bytes: Vec<u8> = self.whole.iter().copied().collect();
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        (self.dropped, bytes)
    }
}
