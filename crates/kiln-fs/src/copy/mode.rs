//! `--chmod`: octal and symbolic modes.

use std::str::FromStr;

/// How permission bits are changed.
///
/// ```
/// use kiln_fs::copy::ModeChange;
/// let change: ModeChange = "u=rwX,go=rX".parse().unwrap();
/// assert_eq!(change.apply(0o600, false), 0o644);
/// assert_eq!(change.apply(0o700, true), 0o755);
/// assert_eq!("0755".parse::<ModeChange>().unwrap().apply(0o600, false), 0o755);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModeChange {
    /// The new bits, at most `0o7777`.
    Octal(u32),
    /// Clauses, applied in order.
    Symbolic(Vec<ModeClause>),
}

/// One action of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModeClause {
    /// The bits the action may touch.
    who: u32,
    operator: Operator,
    bits: u32,
    /// `X`: execute, if it is a directory or someone could execute it before.
    conditional_execute: bool,
    /// `u`, `g` or `o` behind the operator, as shifts.
    copies: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operator {
    Add,
    Remove,
    Set,
}

/// Says why a text is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a mode: expected octal digits up to 7777, or clauses such as `u=rwX,go=rX`")]
pub struct ModeError {
    /// The text.
    pub text: String,
}

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const ALL: u32 = SETUID | SETGID | 0o777;

impl ModeChange {
    /// The bits after the change. `mode` and the result are within `0o7777`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let clauses = match self {
            Self::Octal(mode) => return *mode,
            Self::Symbolic(clauses) => clauses,
        };
        let may_execute = is_directory || mode & 0o111 != 0;
        clauses.iter().fold(mode, |mode, clause| clause.apply(mode, may_execute))
    }
}

impl ModeClause {
    fn apply(&self, mode: u32, may_execute: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional_execute && may_execute {
            bits |= 0o111;
        }
        for shift in &self.copies {
            bits |= (mode >> shift & 0o7) * 0o111;
        }
        bits &= self.who;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => mode & !self.who | bits,
        }
    }
}

impl FromStr for ModeChange {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        let refuse = || ModeError { text: text.chars().take(80).collect() };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| refuse())?;
            return if mode <= 0o7777 { Ok(Self::Octal(mode)) } else { Err(refuse()) };
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut clauses).ok_or_else(refuse)?;
        }
        Ok(Self::Symbolic(clauses))
    }
}

/// Parses `who` and the actions behind it.
fn parse_clause(text: &str, clauses: &mut Vec<ModeClause>) -> Option<()> {
    let actions_at = text.find(['+', '-', '='])?;
    let mut who = 0;
    for letter in text[..actions_at].chars() {
        who |= match letter {
            'u' => SETUID | 0o700,
            'g' => SETGID | 0o070,
            'o' => 0o007,
            'a' => ALL,
            _ => return None,
        };
    }
    let mut rest = &text[actions_at..];
    while !rest.is_empty() {
        let operator = match rest.as_bytes()[0] {
            b'+' => Operator::Add,
            b'-' => Operator::Remove,
            _ => Operator::Set,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        clauses.push(parse_action(&rest[1..end], operator, who)?);
        rest = &rest[end..];
    }
    Some(())
}

fn parse_action(permissions: &str, operator: Operator, who: u32) -> Option<ModeClause> {
    let only_others = who != 0 && who & !0o007 == 0;
    let mut clause = ModeClause {
        who: if who == 0 { ALL } else { who },
        operator,
        bits: 0,
        conditional_execute: false,
        copies: Vec::new(),
    };
    for letter in permissions.chars() {
        match letter {
            'r' => clause.bits |= 0o444,
            'w' => clause.bits |= 0o222,
            'x' => clause.bits |= 0o111,
            'X' => clause.conditional_execute = true,
            's' if only_others => {}
            's' => clause.bits |= SETUID | SETGID,
            't' if only_others => {}
            't' => {
                clause.bits |= STICKY;
                clause.who |= STICKY;
            }
            'u' => clause.copies.push(6),
            'g' => clause.copies.push(3),
            'o' => clause.copies.push(0),
            _ => return None,
        }
    }
    Some(clause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_change_what_they_name() {
        let cases = [
            ("+x", 0o644, false, 0o755),
            ("u+x", 0o644, false, 0o744),
            ("go-rwx", 0o777, false, 0o700),
            ("a=r", 0o4755, false, 0o444),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o610, false, 0o755),
            ("g=u", 0o741, false, 0o771),
            ("o=g,u-w", 0o752, false, 0o555),
            ("u+s,g+s", 0o755, false, 0o6755),
            ("+t", 0o777, true, 0o1777),
            ("o+t", 0o777, true, 0o777),
            ("u=rw-x+s", 0o755, false, 0o4655),
            ("u=", 0o755, false, 0o055),
            ("-x,u+X", 0o755, false, 0o744),
        ];
        for (text, before, is_directory, after) in cases {
            let change: ModeChange = text.parse().unwrap();
            assert_eq!(change.apply(before, is_directory), after, "{text} on {before:o}");
        }
    }

    #[test]
    fn texts_that_are_no_modes_are_refused() {
        for text in ["", "8", "10000", "0o755", "755x", "z+x", "u", "u+q", "+x,", "é=r", "u+é", "-1"] {
            assert!(text.parse::<ModeChange>().is_err(), "{text}");
        }
        assert_eq!("7777".parse(), Ok(ModeChange::Octal(0o7777)));
    }
}
