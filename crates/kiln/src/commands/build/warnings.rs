//! The findings of a build, kept for its metadata file in the form BuildKit gives them.

use std::sync::{Arc, Mutex, PoisonError};

use kiln_report::render::{RawJson, Render as _};
use kiln_report::{Event, Reporter};
use serde_json::Value;

/// Passes everything on, and keeps the findings.
pub(super) struct Warnings {
    next: Arc<dyn Reporter>,
    kept: Mutex<Vec<Value>>,
}

impl Warnings {
    pub(super) fn before(next: Arc<dyn Reporter>) -> Arc<Self> {
        Arc::new(Self { next, kept: Mutex::default() })
    }

    /// Those so far.
    pub(super) fn take(&self) -> Vec<Value> {
        std::mem::take(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reporter for Warnings {
    fn report(&self, event: Event) {
        if matches!(event, Event::Warning { .. }) {
            let mut line = Vec::new();
            // Memory takes everything.
            let _ = RawJson.event(&event, &mut line);
            let mut said: Value = serde_json::from_slice(&line).unwrap_or_default();
            if let Some(Value::Array(warnings)) = said.get_mut("warnings").map(Value::take) {
                self.kept.lock().unwrap_or_else(PoisonError::into_inner).extend(warnings);
            }
        }
        self.next.report(event);
    }

    fn has_room(&self) -> bool {
        self.next.has_room()
    }
}
