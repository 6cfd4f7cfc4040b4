//! Variables: where expansion looks names up.

use std::collections::BTreeMap;

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
    values: BTreeMap<String, (usize, String)>,
    sets: usize,
}

impl Env {
    /// Nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable; it moves to the end.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.sets += 1;
        self.values.insert(name.into(), (self.sets, value.into()));
    }

    /// `NAME=value`, in order.
    pub fn to_lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.values.iter().map(|(name, (at, value))| (*at, name, value)).collect();
        lines.sort_by_key(|(at, ..)| *at);
        lines.into_iter().map(|(_, name, value)| format!("{name}={value}")).collect()
    }
}

impl Variables for Env {
    fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(_, value)| value.as_str())
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.values.iter().map(|(name, (at, _))| (*at, name.as_str())).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
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
