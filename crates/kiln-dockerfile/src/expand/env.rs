//! Variables: where expansion looks names up.

use std::collections::{BTreeMap, HashMap};

/// Values by name.
pub trait Variables {
    /// The value of a variable, if it is set.
    fn value(&self, name: &str) -> Option<&str>;

    /// All names, for suggestions.
    fn names(&self) -> Vec<&str>;
}

/// Nothing is set.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn value(&self, _name: &str) -> Option<&str> {
        None
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// An environment: names with values, ordered by when each was last set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env {
    /// `NAME=value` by when it was set, and how long the name is.
    lines: BTreeMap<usize, (String, usize)>,
    /// When each was set.
    names: HashMap<String, usize>,
    sets: usize,
}

impl Env {
    /// Nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable; it moves to the end.
    pub fn set(&mut self, name: impl Into<String>, value: impl AsRef<str>) {
        let name = name.into();
        self.sets += 1;
        self.lines.insert(self.sets, (format!("{name}={}", value.as_ref()), name.len()));
        if let Some(before) = self.names.insert(name, self.sets) {
            self.lines.remove(&before);
        }
    }

    /// `NAME=value`, in order.
    pub fn to_lines(&self) -> Vec<String> {
        self.lines.values().map(|(line, _)| line.clone()).collect()
    }
}

impl Variables for Env {
    fn value(&self, name: &str) -> Option<&str> {
        let (line, length) = self.lines.get(self.names.get(name)?)?;
        Some(&line[length + 1..])
    }

    fn names(&self) -> Vec<&str> {
        self.lines.values().map(|(line, length)| &line[..*length]).collect()
    }
}

/// One set of variables before another.
#[derive(Clone, Copy)]
pub struct Layered<'a> {
    /// Looked at first.
    pub over: &'a dyn Variables,
    /// Looked at when the first has no such name.
    pub under: &'a dyn Variables,
}

impl Variables for Layered<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.over.value(name).or_else(|| self.under.value(name))
    }

    fn names(&self) -> Vec<&str> {
        let mut names = self.under.names();
        names.retain(|name| self.over.value(name).is_none());
        names.extend(self.over.names());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_set_again_moves_to_the_end() {
        let mut env = Env::new();
        env.set("A", "1");
        env.set("B", "2");
        env.set("A", "3");
        assert_eq!(env.to_lines(), ["B=2", "A=3"]);
        assert_eq!(env.names(), ["B", "A"]);
    }
}
