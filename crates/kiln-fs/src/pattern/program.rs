//! A small regular-expression machine: just what translated ignore patterns can hold, in linear time.
//!
//! Patterns are translated to a regular expression first (see `translate`), because that is how the reference
//! implementation defines them: odd patterns such as `[*]` or `a^b*` mean what the expression means. The machine runs
//! all alternatives side by side, so no pattern takes more than `path length × pattern length` steps.

use super::PatternErrorKind;

/// A set of characters, as ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct CharSet {
    ranges: Vec<(u32, u32)>,
    negated: bool,
}

impl CharSet {
    fn holds(&self, c: u32) -> bool {
        self.ranges.iter().any(|&(low, high)| low <= c && c <= high) != self.negated
    }
}

/// One instruction of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Inst {
    Char(u32),
    Set(CharSet),
    /// Any character but a newline.
    Any,
    Split(usize, usize),
    Jump(usize),
    Begin,
    End,
    /// A word boundary, or (`false`) none.
    Boundary(bool),
    Match,
}

/// A compiled expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    insts: Vec<Inst>,
    /// Bytes every match ends with: lets most paths be refused by one comparison.
    suffix: Vec<u8>,
    prefix: Vec<u8>,
}

impl Program {
    /// Compiles the expression a pattern was translated to.
    pub(super) fn compile(expression: &str) -> Result<Self, PatternErrorKind> {
        let mut parser = Parser { rest: expression, insts: Vec::new() };
        while parser.piece()? {}
        let mut insts = parser.insts;
        insts.push(Inst::Match);
        let (prefix, suffix) = anchors(&insts);
        Ok(Self { insts, suffix, prefix })
    }

    /// Says whether the expression is found in `text`.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        text.starts_with(&self.prefix) && text.ends_with(&self.suffix) && Run::new(self, text).find()
    }
}

/// The literal bytes a match must begin and end with.
fn anchors(insts: &[Inst]) -> (Vec<u8>, Vec<u8>) {
    let literal = |inst: &Inst| match inst {
        Inst::Char(c) => char::from_u32(*c).filter(|c| *c != char::REPLACEMENT_CHARACTER),
        _ => None,
    };
    let split_at = insts.iter().position(|inst| matches!(inst, Inst::Split(..)));
    let fixed = &insts[..split_at.unwrap_or(insts.len())];
    let prefix: String = match fixed.first() {
        Some(Inst::Begin) => fixed[1..].iter().map_while(literal).collect(),
        _ => String::new(),
    };
    let [body @ .., Inst::End, Inst::Match] = insts else { return (prefix.into_bytes(), Vec::new()) };
    let tail: Vec<char> = body.iter().rev().map_while(literal).collect();
    // A jump target inside the tail would make its first characters optional: targets lie behind a loop's `Jump`,
    // so everything from the last target on is common to all ways in.
    let start = body.len() - tail.len();
    let last_target = body.iter().filter_map(|inst| if let Inst::Split(_, b) = inst { Some(*b) } else { None }).max();
    let skipped = last_target.map_or(0, |target| target.saturating_sub(start)).min(tail.len());
    let suffix: String = tail.iter().rev().skip(skipped).collect();
    (prefix.into_bytes(), suffix.into_bytes())
}

struct Parser<'a> {
    rest: &'a str,
    insts: Vec<Inst>,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(text) else { return false };
        self.rest = rest;
        true
    }

    /// Compiles one atom with its repetition; false at the end.
    fn piece(&mut self) -> Result<bool, PatternErrorKind> {
        if self.eat("(.*/)?") {
            let at = self.insts.len();
            let loop_body = [
                Inst::Split(at + 1, at + 5),
                Inst::Split(at + 2, at + 4),
                Inst::Any,
                Inst::Jump(at + 1),
                Inst::Char('/' as u32),
            ];
            self.insts.extend(loop_body);
            return Ok(true);
        }
        if self.eat("\\Q") {
            let end = self.rest.find("\\E");
            let literal = &self.rest[..end.unwrap_or(self.rest.len())];
            self.insts.extend(literal.chars().map(|c| Inst::Char(c as u32)));
            self.rest = end.map_or("", |end| &self.rest[end + 2..]);
            return Ok(true);
        }
        let Some(c) = self.next() else { return Ok(false) };
        let atom = match c {
            '^' => Inst::Begin,
            '$' => Inst::End,
            '.' => Inst::Any,
            '[' => Inst::Set(self.class()?),
            '\\' => self.escape()?,
            '(' | ')' | '*' | '?' | '+' | '{' | '}' | '|' => return Err(PatternErrorKind::Syntax),
            c => Inst::Char(c as u32),
        };
        let at = self.insts.len();
        if self.eat("*") {
            self.insts.extend([Inst::Split(at + 1, at + 3), atom, Inst::Jump(at)]);
        } else {
            self.insts.push(atom);
        }
        Ok(true)
    }

    /// What stands after a backslash, outside a class.
    fn escape(&mut self) -> Result<Inst, PatternErrorKind> {
        let ahead = self.rest.chars().next().ok_or(PatternErrorKind::Syntax)?;
        let inst = match ahead {
            'A' => Inst::Begin,
            'z' => Inst::End,
            'b' => Inst::Boundary(true),
            'B' => Inst::Boundary(false),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => Inst::Set(perl_class(ahead)),
            _ => return self.escaped_char().map(Inst::Char),
        };
        self.next();
        Ok(inst)
    }

    /// An escape that stands for one character.
    fn escaped_char(&mut self) -> Result<u32, PatternErrorKind> {
        let c = self.next().ok_or(PatternErrorKind::Syntax)?;
        let octal = |c: char| c.to_digit(8);
        match c {
            '1'..='7' if self.rest.chars().next().and_then(octal).is_none() => Err(PatternErrorKind::Syntax),
            '0'..='7' => {
                let mut value = octal(c).ok_or(PatternErrorKind::Syntax)?;
                for _ in 0..2 {
                    let Some(digit) = self.rest.chars().next().and_then(octal) else { break };
                    value = value * 8 + digit;
                    self.next();
                }
                Ok(value)
            }
            'x' => {
                let mut digit = || self.next().and_then(|c| c.to_digit(16)).ok_or(PatternErrorKind::Syntax);
                Ok(digit()? * 16 + digit()?)
            }
            'a' => Ok(7),
            'f' => Ok(12),
            'n' => Ok(10),
            'r' => Ok(13),
            't' => Ok(9),
            'v' => Ok(11),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(c as u32),
            _ => Err(PatternErrorKind::Syntax),
        }
    }

    /// A bracket class, after its `[`.
    fn class(&mut self) -> Result<CharSet, PatternErrorKind> {
        let mut set = CharSet { negated: self.eat("^"), ..CharSet::default() };
        let mut is_first = true;
        loop {
            if !is_first && self.eat("]") {
                return Ok(set);
            }
            is_first = false;
            if self.rest.starts_with("[:") && self.named_class(&mut set)? {
                continue;
            }
            if let Some(class) = self.rest.strip_prefix('\\').and_then(|rest| rest.chars().next())
                && "dDsSwW".contains(class)
            {
                self.rest = &self.rest[2..];
                add(&mut set, &perl_class(class));
                continue;
            }
            let low = self.class_char()?;
            let is_range = self.rest.starts_with('-') && !self.rest.starts_with("-]") && self.rest.len() > 1;
            let high = if is_range {
                self.next();
                self.class_char()?
            } else {
                low
            };
            if high < low {
                return Err(PatternErrorKind::Syntax);
            }
            set.ranges.push((low, high));
        }
    }

    fn class_char(&mut self) -> Result<u32, PatternErrorKind> {
        if self.eat("\\") {
            return self.escaped_char();
        }
        self.next().map(|c| c as u32).ok_or(PatternErrorKind::Syntax)
    }

    /// `[:name:]` inside a class; false when it is not closed, and so is ordinary text.
    fn named_class(&mut self, set: &mut CharSet) -> Result<bool, PatternErrorKind> {
        let Some(end) = self.rest.find(":]") else { return Ok(false) };
        if end < 2 {
            return Ok(false);
        }
        let name = &self.rest[2..end];
        let (name, negated) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
        let ranges = posix_class(name).ok_or(PatternErrorKind::Syntax)?;
        add(set, &CharSet { ranges, negated });
        self.rest = &self.rest[end + 2..];
        Ok(true)
    }
}

/// Adds all of `other` to `set`, whose own negation stays outermost.
fn add(set: &mut CharSet, other: &CharSet) {
    if !other.negated {
        set.ranges.extend(&other.ranges);
        return;
    }
    let mut sorted = other.ranges.clone();
    sorted.sort_unstable();
    let mut from = 0;
    for (low, high) in sorted {
        if from < low {
            set.ranges.push((from, low - 1));
        }
        from = from.max(high + 1);
    }
    set.ranges.push((from, u32::MAX));
}

fn ascii(pairs: &[(char, char)]) -> Vec<(u32, u32)> {
    pairs.iter().map(|&(low, high)| (low as u32, high as u32)).collect()
}

fn perl_class(letter: char) -> CharSet {
    let ranges = match letter.to_ascii_lowercase() {
        'd' => ascii(&[('0', '9')]),
        's' => ascii(&[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')]),
        _ => ascii(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
    };
    CharSet { ranges, negated: letter.is_ascii_uppercase() }
}

fn posix_class(name: &str) -> Option<Vec<(u32, u32)>> {
    Some(ascii(match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    }))
}

/// One search: the set of places in the program that are alive.
struct Run<'a> {
    program: &'a Program,
    text: &'a [u8],
    alive: Vec<usize>,
    seen: Vec<bool>,
}

impl<'a> Run<'a> {
    fn new(program: &'a Program, text: &'a [u8]) -> Self {
        Self { program, text, alive: Vec::with_capacity(8), seen: vec![false; program.insts.len()] }
    }

    fn find(mut self) -> bool {
        let mut at = 0;
        let mut stack = Vec::with_capacity(8);
        let mut current = Vec::with_capacity(8);
        loop {
            // The expression may begin anywhere; a leading `^` is what ties it to the start.
            stack.push(0);
            if self.close(&mut stack, at) {
                return true;
            }
            if at == self.text.len() {
                return false;
            }
            let (c, width) = decode(&self.text[at..]);
            std::mem::swap(&mut self.alive, &mut current);
            self.alive.clear();
            self.seen.fill(false);
            at += width;
            for &pc in &current {
                let passes = match &self.program.insts[pc] {
                    Inst::Char(wanted) => *wanted == c,
                    Inst::Set(set) => set.holds(c),
                    _ => c != '\n' as u32,
                };
                if passes {
                    stack.push(pc + 1);
                }
            }
            if stack.is_empty() && matches!(self.program.insts.first(), Some(Inst::Begin)) {
                return false;
            }
        }
    }

    /// Follows everything that consumes no character; true when a match is reached.
    fn close(&mut self, stack: &mut Vec<usize>, at: usize) -> bool {
        while let Some(pc) = stack.pop() {
            if std::mem::replace(&mut self.seen[pc], true) {
                continue;
            }
            match &self.program.insts[pc] {
                Inst::Match => return true,
                Inst::Jump(to) => stack.push(*to),
                Inst::Split(a, b) => stack.extend([*a, *b]),
                Inst::Begin if at == 0 => stack.push(pc + 1),
                Inst::End if at == self.text.len() => stack.push(pc + 1),
                Inst::Boundary(wanted) if self.is_boundary(at) == *wanted => stack.push(pc + 1),
                Inst::Begin | Inst::End | Inst::Boundary(_) => {}
                Inst::Char(_) | Inst::Set(_) | Inst::Any => self.alive.push(pc),
            }
        }
        false
    }

    fn is_boundary(&self, at: usize) -> bool {
        let is_word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        is_word(at.checked_sub(1).and_then(|before| self.text.get(before))) != is_word(self.text.get(at))
    }
}

/// The first character of `text` and its width; a byte that is no UTF-8 counts as U+FFFD, one byte wide.
pub(super) fn decode(text: &[u8]) -> (u32, usize) {
    let Some(&first) = text.first() else { return (char::REPLACEMENT_CHARACTER as u32, 0) };
    if first < 0x80 {
        return (u32::from(first), 1);
    }
    let head = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(all) => all,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().next().map_or((char::REPLACEMENT_CHARACTER as u32, 1), |c| (c as u32, c.len_utf8()))
}
