//! The flags of an instruction: which it knows, what they are set to.

use kiln_report::Diagnostic;

use crate::parse::{Arguments, Flag, Instruction, Word};
use crate::suggest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, `true` or `false`.
    Switch,
    /// One value.
    Value,
    /// A value each time it is given.
    Values,
}

/// Flags that people look for elsewhere, and the instruction that has them.
const OWNERS: [(&[&str], &str); 5] = [
    (&["from", "parents"], "COPY"),
    (&["checksum", "keep-git-dir", "unpack"], "ADD"),
    (&["mount", "network", "security", "device"], "RUN"),
    (&["platform", "after"], "FROM"),
    (&["interval", "timeout", "start-period", "start-interval", "retries"], "HEALTHCHECK"),
];

/// The flags an instruction was given, checked.
#[derive(Debug)]
pub(crate) struct Flags<'a> {
    given: Vec<&'a Flag>,
}

/// Dashes that word processors and web pages make of hyphens.
const DASHES: [char; 4] = ['\u{2012}', '\u{2013}', '\u{2014}', '\u{2015}'];

/// Words that were meant for flags and begin with a dash that is no hyphen, and how they are written.
pub(crate) fn dashed(instruction: &Instruction) -> Vec<(Word, String)> {
    let words = match &instruction.arguments {
        Arguments::Words(words) => words.clone(),
        Arguments::Typed(first, _) => vec![first.clone()],
        Arguments::Text(word) => {
            let end = word.text.find(char::is_whitespace).unwrap_or(word.text.len());
            vec![Word { text: word.text[..end].to_owned(), span: word.part(0, end) }]
        }
        _ => return Vec::new(),
    };
    let flag = |word: Word| {
        let name = word.text.trim_start_matches(|c| c == '-' || DASHES.contains(&c));
        let is_name = name.starts_with(|c: char| c.is_ascii_lowercase());
        let has_dash = word.text[..word.text.len() - name.len()].contains(DASHES);
        let flag = format!("--{name}");
        (is_name && has_dash).then_some((word, flag))
    };
    words.into_iter().map_while(flag).collect()
}

/// Checks an instruction's flags against those it knows.
pub(crate) fn read<'a>(
    instruction: &'a Instruction,
    known: &[(&'static str, Kind)],
    diagnostics: &mut Vec<Diagnostic>,
) -> Flags<'a> {
    let mut given: Vec<&Flag> = Vec::new();
    for flag in &instruction.flags {
        match check(flag, known, &given, &instruction.keyword.text) {
            Ok(()) => given.push(flag),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    Flags { given }
}

fn check(flag: &Flag, known: &[(&'static str, Kind)], given: &[&Flag], keyword: &str) -> Result<(), Diagnostic> {
    let name = &flag.name.text;
    let Some((_, kind)) = known.iter().find(|(known, _)| known == name) else {
        let diagnostic = Diagnostic::error(flag.name.span, format!("{keyword} has no flag `--{name}`"));
        let owner = OWNERS.iter().find(|(flags, _)| flags.contains(&name.as_str()));
        return Err(match suggest::nearest(name, known.iter().map(|(known, _)| *known)) {
            Some(nearest) => diagnostic.hint(format!("did you mean `--{nearest}`?")),
            None if owner.is_some_and(|(_, owner)| !owner.eq_ignore_ascii_case(keyword)) => {
                diagnostic.hint(format!("it is a flag of {}", owner.map_or("", |(_, owner)| owner)))
            }
            None if known.is_empty() => diagnostic.hint(format!("{keyword} takes no flags")),
            None => {
                let names: Vec<String> = known.iter().map(|(known, _)| format!("`--{known}`")).collect();
                diagnostic.hint(format!("{keyword} knows {}", names.join(", ")))
            }
        });
    };
    if *kind != Kind::Values && given.iter().any(|other| other.name.text == *name) {
        let error = Diagnostic::error(flag.span, format!("flag `--{name}` is given twice"));
        return Err(error.hint("keep one of them"));
    }
    match (kind, &flag.value) {
        (Kind::Switch, Some(value)) if value.text.is_empty() => {
            Err(Diagnostic::error(flag.span, format!("flag `--{name}` has no value"))
                .hint(format!("write `--{name}` or `--{name}=false`")))
        }
        (Kind::Switch, Some(value)) if switch(&value.text).is_none() => {
            let message = format!("`--{name}` is on or off, not `{}`", value.text);
            Err(Diagnostic::error(value.span, message).hint(format!("write `--{name}` or `--{name}=false`")))
        }
        (Kind::Value | Kind::Values, None) => {
            Err(Diagnostic::error(flag.span, format!("flag `--{name}` has no value"))
                .hint(format!("write `--{name}=…`")))
        }
        _ => Ok(()),
    }
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

impl Flags<'_> {
    /// The value of a flag; an empty one counts as none.
    pub(crate) fn value(&self, name: &str) -> Option<Word> {
        self.values(name).into_iter().next().filter(|value| !value.text.is_empty())
    }

    /// The value of a flag for which an empty one is no choice.
    pub(crate) fn chosen(&self, name: &str) -> Option<Word> {
        self.values(name).into_iter().next()
    }

    /// The values of a flag that may be given many times.
    pub(crate) fn values(&self, name: &str) -> Vec<Word> {
        self.given.iter().filter(|flag| flag.name.text == name).filter_map(|flag| flag.value.clone()).collect()
    }

    /// Whether a switch is on; `None` when it is not given.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        let flag = self.given.iter().find(|flag| flag.name.text == name)?;
        Some(flag.value.as_ref().is_none_or(|value| switch(&value.text).unwrap_or(true)))
    }
}
