//! What a file may grow to when its variables are filled in.
//!
//! `ENV B=$A$A`, `ENV C=$B$B` and so on double with every line, and every step carries all of its environment: a few
//! lines could fill any memory. What is made of a file is counted, and too much of it is an error.

use kiln_report::{Diagnostic, Span};

/// As many bytes may be made of a file.
const LIMIT: usize = 128 << 20;

/// Counts what is made of a file.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    spent: usize,
}

impl Budget {
    /// Counts bytes.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.spent = self.spent.saturating_add(bytes);
    }

    /// Counts bytes, and fails at a place when there are too many.
    pub(crate) fn take(&mut self, bytes: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        self.spend(bytes);
        if !self.is_exhausted() {
            return Ok(());
        }
        let message = format!("variables make more than {} MiB of the file up to here", LIMIT >> 20);
        let hint = "look for a variable that holds itself twice, or for one that is far too long";
        Err(Box::new(Diagnostic::error(span, message).hint(hint)))
    }

    /// Whether there were too many.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.spent > LIMIT
    }
}
