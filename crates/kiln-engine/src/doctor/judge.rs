//! From facts to verdicts: what works, what does not, and the command that mends it.

mod isolation;
mod surroundings;

use super::facts::{Facts, Standing};

/// One verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub mark: Mark,
    /// What was found.
    pub found: String,
    /// What will not work.
    pub lost: Option<String>,
    /// The way out.
    pub mend: Option<String>,
    /// Whether nothing can be built without it.
    pub is_needed: bool,
}

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// All of it works.
    Ok,
    /// Some of it works, or in another way.
    Degraded,
    /// It is not there.
    Missing,
}

impl Mark {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Mark::Ok => "ok",
            Mark::Degraded => "degraded",
            Mark::Missing => "missing",
        }
    }
}

/// What a verdict says of something that is not as it should be.
struct Trouble {
    found: String,
    lost: String,
    mend: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, mark: Mark::Ok, found: found.into(), lost: None, mend: None, is_needed: false }
    }

    fn bad(name: &'static str, mark: Mark, trouble: Trouble) -> Check {
        let Trouble { found, lost, mend } = trouble;
        Check { mark, lost: Some(lost), mend: Some(mend), ..Check::ok(name, found) }
    }

    fn needed(self) -> Check {
        Check { is_needed: true, ..self }
    }
}

/// All verdicts, in the order in which they are told.
pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    let needed = [isolation::kernel(facts), isolation::filter(facts)].map(Check::needed);
    let mut checks: Vec<Check> = needed.into();
    checks.extend(facts.container.as_deref().map(|name| Check::ok("container", name)));
    checks.push(isolation::users(facts));
    checks.extend(isolation::used(facts));
    // Without a namespace nothing of users can be tried that takes one.
    let may_try = facts.users.is_ok() || !matches!(facts.standing, Standing::User { .. });
    if may_try {
        checks.extend(isolation::ranges(facts));
    }
    checks.push(surroundings::state(facts).needed());
    if may_try && facts.state.writable.is_ok() {
        checks.push(isolation::overlay(facts));
        checks.extend(isolation::shifted(facts));
    }
    checks.push(isolation::groups(facts));
    checks.extend(may_try.then(|| isolation::network(facts)));
    checks.push(surroundings::emulators(facts));
    checks.push(surroundings::agent(facts));
    checks.push(surroundings::logins(facts));
    checks
}

#[cfg(test)]
mod tests;
