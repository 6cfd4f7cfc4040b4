//! What a `RUN` hands to a shell, with the way back to the file.

use kiln_dockerfile::instruction::{Form, Run};
use kiln_dockerfile::{Instruction, Word as Argument};
use kiln_report::Span;

use crate::shell::{Code, RedirectKind, Word, base_name};

/// A script with the way back to the file.
#[derive(Debug)]
pub(crate) struct Script<'a> {
    pub(crate) text: String,
    pub(crate) code: Code,
    pub(crate) shell: Shell,
    instruction: &'a Instruction,
    place: Place,
}

/// Where a script's text stands.
#[derive(Debug)]
enum Place {
    /// In the instruction's joined line, from here on.
    Line(usize),
    /// In the file, from here on, byte by byte.
    File(usize),
    /// In arguments, each beginning in the text at its number.
    Arguments(Vec<(usize, Argument)>),
}

/// Who reads scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shell {
    pub(crate) kind: ShellKind,
    /// Whether it stops at the first command that fails.
    pub(crate) stops_on_error: bool,
    /// Whether a pipeline fails with any of its commands.
    pub(crate) has_pipefail: bool,
}

/// Kinds of shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShellKind {
    /// What POSIX says, and little more.
    Sh,
    Bash,
    /// Nobody: the arguments are taken as they are.
    None,
    /// Another language.
    Other,
}

impl Shell {
    /// `/bin/sh -c`.
    pub(crate) const DEFAULT: Self = Self::plain(ShellKind::Sh);
    pub(crate) const OTHER: Self = Self::plain(ShellKind::Other);

    const fn plain(kind: ShellKind) -> Self {
        Self { kind, stops_on_error: false, has_pipefail: false }
    }

    /// The shell of a command line such as `SHELL ["/bin/bash", "-o", "pipefail", "-c"]`.
    pub(crate) fn of<'w>(words: impl IntoIterator<Item = &'w str>) -> Self {
        let mut words = words.into_iter();
        let kind = match base_name(words.next().unwrap_or_default()) {
            "sh" | "ash" | "dash" => ShellKind::Sh,
            "bash" | "zsh" | "ksh" => ShellKind::Bash,
            _ => ShellKind::Other,
        };
        let mut shell = Self::plain(kind);
        for word in words {
            let is_cluster = word.starts_with('-') && !word.starts_with("--");
            shell.stops_on_error |= word == "errexit" || is_cluster && word.contains('e');
            shell.has_pipefail |= word == "pipefail";
        }
        shell
    }

    /// Whether it reads the language of POSIX.
    pub(crate) fn is_posix(self) -> bool {
        matches!(self.kind, ShellKind::Sh | ShellKind::Bash)
    }
}

impl Script<'_> {
    /// The place of a part of the text.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        match &self.place {
            Place::Line(at) => self.instruction.line.span(at + start, at + end),
            Place::File(at) => Span::new(at + start, at + end),
            Place::Arguments(arguments) => {
                let part = |at: usize| {
                    let after = arguments.partition_point(|(begin, _)| *begin <= at);
                    arguments.get(after.saturating_sub(1))
                };
                let (Some((first, from)), Some((last, to))) = (part(start), part(end.saturating_sub(1))) else {
                    return self.instruction.span;
                };
                if first == last {
                    return within(from, start.saturating_sub(*first), end.saturating_sub(*first));
                }
                let begin = within(from, start.saturating_sub(*first), from.text.len()).start;
                Span::new(begin, within(to, 0, end.saturating_sub(*last)).end)
            }
        }
    }

    /// Whether a shell stops at the first command that fails, at a place.
    pub(crate) fn stops_on_error(&self, at: usize) -> bool {
        self.shell.stops_on_error || self.code.errexit.is_some_and(|from| from < at)
    }

    /// Whether a pipeline at a place fails with any of its commands.
    pub(crate) fn has_pipefail(&self, at: usize) -> bool {
        self.shell.has_pipefail || self.code.pipefail.is_some_and(|from| from < at)
    }
}

/// The place of a part of an argument: exact when nothing but its quotes was taken off.
fn within(argument: &Argument, start: usize, end: usize) -> Span {
    let is_part = start > 0 || end < argument.text.len();
    if is_part && argument.span.end - argument.span.start == argument.text.len() + 2 {
        return Span::new(argument.span.start + 1 + start, argument.span.start + 1 + end);
    }
    argument.part(start, end)
}

/// The scripts of a step: its command, and the heredocs that a shell reads.
pub(crate) fn scripts<'a>(instruction: &'a Instruction, run: &Run, shell: Shell) -> Vec<Script<'a>> {
    if run.command.form == Form::Exec {
        return vec![arguments(instruction, &run.command.words)];
    }
    let [word] = run.command.words.as_slice() else { return Vec::new() };
    if shell.kind == ShellKind::Other {
        return Vec::new();
    }
    let at = instruction.line.text().trim_end().len().saturating_sub(word.text.len());
    let code = Code::parse(&word.text);
    let readers = heredoc_readers(&code, shell);
    let mut scripts = vec![Script { text: word.text.clone(), code, shell, instruction, place: Place::Line(at) }];
    for (heredoc, reader) in instruction.heredocs.iter().zip(readers) {
        let Some(reader) = shebang(&heredoc.content).or(reader).filter(|shell| shell.is_posix()) else { continue };
        scripts.push(Script {
            text: heredoc.content.clone(),
            code: Code::parse(&heredoc.content),
            shell: reader,
            instruction,
            place: Place::File(heredoc.content_span.start),
        });
    }
    scripts
}

/// Which shell reads each heredoc of a line, if one does. One that is the whole command is read by the step's own.
fn heredoc_readers(code: &Code, shell: Shell) -> Vec<Option<Shell>> {
    let is_whole = code.commands.len() == 1;
    let mut readers = Vec::new();
    for command in &code.commands {
        let words = command.program();
        let reader = match words {
            [] if is_whole => Some(shell),
            // What is given by `-c` or as a file is not what is read.
            _ if words.iter().skip(1).any(|word| !word.text.starts_with('-') || word.text == "-c") => None,
            _ => Some(Shell::of(words.iter().map(|word| word.text.as_str()))),
        };
        let heredocs = command.redirects.iter().filter(|redirect| redirect.kind == RedirectKind::Heredoc);
        readers.extend(heredocs.map(|_| reader));
    }
    readers
}

fn shebang(script: &str) -> Option<Shell> {
    let line = script.strip_prefix("#!")?.lines().next()?;
    let words = line.split_whitespace().skip_while(|word| base_name(word) == "env" || *word == "-S");
    Some(Shell::of(words))
}

/// The arguments of the exec form: a command of their own, unless they begin with a shell that gets a script.
fn arguments<'a>(instruction: &'a Instruction, words: &[Argument]) -> Script<'a> {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let shell = Shell::of(texts.iter().copied());
    if let Some(at) =
        texts.iter().position(|text| text.starts_with('-') && text.ends_with('c')).filter(|_| shell.is_posix())
        && let Some(script) = words.get(at + 1)
    {
        let place = Place::Arguments(vec![(0, script.clone())]);
        return Script { text: script.text.clone(), code: Code::parse(&script.text), shell, instruction, place };
    }
    let (mut text, mut places, mut literals) = (String::new(), Vec::new(), Vec::new());
    for word in words {
        places.push((text.len(), word.clone()));
        literals.push(Word::literal(&word.text, text.len(), text.len() + word.text.len()));
        text.push_str(&word.text);
        text.push(' ');
    }
    let shell = Shell { kind: ShellKind::None, ..Shell::DEFAULT };
    Script { text, code: Code::of_arguments(literals), shell, instruction, place: Place::Arguments(places) }
}

#[cfg(test)]
mod tests {
    use crate::view::View;

    use super::*;

    fn found(text: &str) -> Vec<(String, ShellKind)> {
        let (file, errors) = kiln_dockerfile::parse(text);
        assert!(errors.is_empty(), "{errors:?}");
        let view = View::of(&file);
        let mut found = Vec::new();
        for script in view.steps.iter().flat_map(|step| &step.scripts) {
            for command in &script.code.commands {
                let words = command.words.iter().map(|word| &text[script.span(word.start, word.end).range()]);
                found.push((words.collect::<Vec<_>>().join("|"), script.shell.kind));
            }
        }
        found
    }

    #[test]
    fn words_lead_back_to_the_file() {
        use ShellKind::{Bash, None, Sh};
        for (text, wanted) in [
            ("FROM a\nRUN b c \\\n # x\n  d\n", vec![("b|c|d", Sh)]),
            ("FROM a\nRUN [\"b\", \"c\\\"d\"]\n", vec![("\"b\"|\"c\\\"d\"", None)]),
            (
                "FROM a\nRUN [\"/bin/bash\", \"-ec\", \"b\"]\nRUN [\"bash\", \"-c\", \"b c\"]\n",
                vec![("\"b\"", Bash), ("b|c", Bash)],
            ),
            ("FROM a\nRUN <<EOF\nb c\nEOF\n", vec![("", Sh), ("b|c", Sh)]),
            ("FROM a\nRUN <<EOF\n#!/usr/bin/env bash\nb c\nEOF\n", vec![("", Sh), ("b|c", Bash)]),
            (
                "FROM a\nRUN <<EOF\n#!/usr/bin/python3\nb c\nEOF\nRUN python3 <<EOF\nd\nEOF\n",
                vec![("", Sh), ("python3", Sh)],
            ),
            ("FROM a\nRUN bash -ex <<EOF && d\nb c\nEOF\n", vec![("bash|-ex", Sh), ("d", Sh), ("b|c", Bash)]),
            ("FROM a\nRUN cat <<A >x && sh <<B\nb\nA\nc\nB\n", vec![("cat", Sh), ("sh", Sh), ("c", Sh)]),
            ("FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nRUN b\nFROM a\nRUN c\n", vec![("b", Bash), ("c", Sh)]),
            (
                "FROM a AS x\nSHELL [\"powershell\", \"-Command\"]\nRUN b\nFROM x\nRUN c\nRUN [\"d\"]\n",
                vec![("\"d\"", None)],
            ),
            ("FROM mcr.microsoft.com/windows/servercore:ltsc2022\nRUN b\n", vec![]),
        ] {
            let found = found(text);
            let found: Vec<_> = found.iter().map(|(words, kind)| (words.as_str(), *kind)).collect();
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn options_of_shells_are_read() {
        let shell = Shell::of(["/bin/bash", "-eo", "pipefail", "-c"]);
        assert!(shell.stops_on_error && shell.has_pipefail && shell.kind == ShellKind::Bash);
        assert_eq!(Shell::of(["pwsh", "-Command"]).kind, ShellKind::Other);
    }
}
