//! A program that a command runs, with its arguments.

use super::{Simple, Word};

/// A program that a command runs, with its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// The program's name without its directory.
    pub(crate) name: &'a str,
    /// The program and its arguments.
    pub(crate) words: &'a [Word],
    pub(crate) command: &'a Simple,
}

/// Programs that only prepare another one, and their options that take a value.
const PREPARING: [(&str, &[&str]); 15] = [
    ("exec", &["-a"]),
    ("sudo", &["-u", "-g", "-h", "-p", "-C", "-r", "-t"]),
    ("doas", &["-u"]),
    ("env", &["-u", "-C", "-S"]),
    ("nohup", &[]),
    ("command", &[]),
    ("builtin", &[]),
    ("time", &[]),
    ("nice", &["-n"]),
    ("ionice", &["-c", "-n"]),
    ("eatmydata", &[]),
    ("chronic", &[]),
    ("setarch", &[]),
    ("fakeroot", &[]),
    ("stdbuf", &["-i", "-o", "-e"]),
];

impl<'a> Call<'a> {
    /// What a command runs; nothing when it only sets variables.
    pub(crate) fn of(command: &'a Simple) -> Option<Self> {
        let words = command.words.get(command.program..)?;
        Some(Self { name: base_name(&words.first()?.text), words, command })
    }

    /// What follows the program's name.
    pub(crate) fn arguments(&self) -> &'a [Word] {
        &self.words[1..]
    }

    /// Arguments that are neither options nor values of options; `valued` are the options that take the next argument.
    pub(crate) fn operands(&self, valued: &[&str]) -> Vec<&'a Word> {
        let mut operands = Vec::new();
        let mut words = self.arguments().iter();
        while let Some(word) = words.next() {
            match word.text.as_str() {
                "--" => {
                    operands.extend(words);
                    break;
                }
                text if text.starts_with('-') && text.len() > 1 => {
                    if valued.contains(&text) {
                        words.next();
                    }
                }
                _ => operands.push(word),
            }
        }
        operands
    }

    /// Whether it has an option, by its letter or by its long name.
    pub(crate) fn has(&self, letter: char, names: &[&str]) -> bool {
        let is_it = |word: &Word| match word.text.strip_prefix("--") {
            Some(long) => names.contains(&long.split('=').next().unwrap_or(long)),
            None => {
                let letters = word.text.strip_prefix('-').unwrap_or_default();
                // Another character begins a value.
                letters
                    .split(|c: char| !c.is_ascii_alphabetic())
                    .next()
                    .is_some_and(|cluster| cluster.len() < 6 && cluster.contains(letter))
            }
        };
        self.arguments().iter().any(is_it)
    }

    /// The value of an option: `-v x`, `--version x`, `--version=x`.
    pub(crate) fn value(&self, names: &[&str]) -> Option<&'a str> {
        let arguments = self.arguments();
        arguments.iter().enumerate().find_map(|(index, word)| match word.text.split_once('=') {
            Some((name, value)) if names.contains(&name) => Some(value),
            _ if names.contains(&word.text.as_str()) => arguments.get(index + 1).map(|next| next.text.as_str()),
            _ => None,
        })
    }

    /// The arguments after a subcommand, when it is the first operand.
    pub(crate) fn subcommand(&self, valued: &[&str]) -> Option<&'a Word> {
        self.operands(valued).first().copied()
    }
}

/// The number of the word that names what a command runs.
pub(super) fn program(all: &[Word]) -> usize {
    let mut words = all;
    while let Some((_, valued)) = words.first().and_then(|word| preparing(&word.text)) {
        let rest = without_options(&words[1..], valued);
        if rest.is_empty() {
            break;
        }
        words = rest;
    }
    all.len() - words.len()
}

/// The last part of a path.
pub(crate) fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

fn preparing(word: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    PREPARING.iter().find(|(name, _)| *name == base_name(word))
}

fn without_options<'a>(words: &'a [Word], valued: &[&str]) -> &'a [Word] {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match word.text.as_str() {
            "--" => return &words[at + 1..],
            text if valued.contains(&text) => at += 2,
            text if text.starts_with('-') || is_assignment(text) => at += 1,
            _ => break,
        }
    }
    words.get(at..).unwrap_or_default()
}

/// Whether a word is `NAME=value`.
pub(super) fn is_assignment(word: &str) -> bool {
    assigned_name(word).is_some()
}

/// The name in `NAME=value` or `NAME+=value`.
pub(super) fn assigned_name(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let name = name.strip_suffix('+').unwrap_or(name);
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some(name)
}
