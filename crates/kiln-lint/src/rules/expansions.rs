//! What a shell makes of words: variables, substitutions, patterns, braces.

use std::collections::BTreeMap;

use kiln_dockerfile::instruction::Command;
use kiln_report::{Edit, Level, Safety, Span};

use super::packages;
use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::script::{Script, ShellKind};
use crate::shell::{Call, Kind, Part, Quoting, Word, base_name};
use crate::view::{Step, View};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "UnquotedSubstitution",
        aliases: &["SC2046"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "the output of a command is taken apart into file names",
        why: "Without quotes the shell splits the output at every blank and fills in patterns, so a file with a blank in its name \
              becomes two others. The rule looks at programs that work on files, and leaves lists of packages alone.",
        bad: "FROM debian:12\nRUN rm $(cat files.txt)\n",
        good: "FROM debian:12\nRUN xargs -d '\\n' rm < files.txt\n",
        check: substitutions,
    },
    Rule {
        name: "UnquotedVariable",
        aliases: &["SC2086"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "a variable without quotes is taken apart at blanks",
        why: "Without quotes the shell splits a value at every blank and fills in patterns; when it is empty, the argument is gone. \
              Variables whose value is known to have no blanks, those that are named like lists, and names in capitals that nothing in \
              the file sets (the base image may) are let pass.",
        bad: "FROM debian:12\nARG DIR\nRUN mkdir $DIR\n",
        good: "FROM debian:12\nARG DIR\nRUN mkdir \"$DIR\"\n",
        check: variables,
    },
    Rule {
        name: "UnassignedVariable",
        aliases: &["SC2154"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a step uses a variable that nothing sets",
        why: "The shell takes an unset variable for an empty one, and `rm -rf $dir/bin` for `rm -rf /bin`. Each RUN has a shell of its \
              own: what one sets the next does not know. Names in capitals may come from the base image, and are let pass.",
        bad: "FROM debian:12\nRUN version=1.2\nRUN fetch \"tool-$version\"\n",
        good: "FROM debian:12\nRUN version=1.2 && fetch \"tool-$version\"\n",
        check: unassigned,
    },
    Rule {
        name: "LiteralBrace",
        aliases: &["SC1083"],
        level: Level::Warning,
        scope: Scope::Check,
        summary: "a brace means nothing to this shell",
        why: "`{a,b}` is an invention of bash; the `sh` of Debian, Ubuntu and Alpine takes it as it is, and `mkdir -p src/{a,b}` makes one \
              directory with a strange name. A brace on its own is mostly a missing blank or `;`.",
        bad: "FROM debian:12\nRUN mkdir -p /srv/{logs,data}\n",
        good: "FROM debian:12\nRUN mkdir -p /srv/logs /srv/data\n",
        check: braces,
    },
    Rule {
        name: "EchoEscapes",
        aliases: &["SC2028"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "echo is given escapes, which some shells print as they are",
        why: "dash makes a line break of `\\n`, bash prints a backslash and an `n`. What the file holds depends on which of them is \
              `/bin/sh`. `printf` does the same everywhere.",
        bad: "FROM debian:12\nRUN echo \"a\\nb\" > /etc/x\n",
        good: "FROM debian:12\nRUN printf 'a\\nb\\n' > /etc/x\n",
        check: echo,
    },
    Rule {
        name: "PatternAsOption",
        aliases: &["SC2035"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "a pattern may give a file whose name is taken for an option",
        why: "When a file is called `-rf`, `rm *` is `rm -rf`. With `./` in front, names are always names.",
        bad: "FROM debian:12\nRUN rm *.deb\n",
        good: "FROM debian:12\nRUN rm ./*.deb\n",
        check: patterns,
    },
];

/// Scripts that a shell of POSIX reads.
fn posix<'v, 'a>(view: &'v View<'a>) -> impl Iterator<Item = (&'v Step<'a>, &'v Script<'a>)> {
    let scripts = view.steps.iter().flat_map(|step| step.scripts.iter().map(move |script| (step, script)));
    scripts.filter(|(_, script)| script.shell.is_posix())
}

/// Programs whose arguments are files, or are compared as one.
const ON_FILES: [&str; 18] = [
    "rm", "cp", "mv", "chown", "chmod", "chgrp", "cat", "mkdir", "rmdir", "cd", "test", "[", "touch", "ln", "install",
    "stat", "source", ".",
];

/// Programs that print one word.
const ONE_WORD: [&str; 30] = [
    "nproc",
    "uname",
    "arch",
    "id",
    "date",
    "dpkg",
    "dpkg-architecture",
    "whoami",
    "hostname",
    "pwd",
    "mktemp",
    "getconf",
    "rpm",
    "apk",
    "expr",
    "lsb_release",
    "basename",
    "dirname",
    "which",
    "command",
    "go",
    "git",
    "wc",
    "readlink",
    "realpath",
    "php-config",
    "pg_config",
    "python3-config",
    "llvm-config",
    "ruby",
];

fn prints_one_word(inner: &str) -> bool {
    let first = inner.split_whitespace().next().unwrap_or_default();
    ONE_WORD.contains(&base_name(first))
        || inner.contains("cut ")
        || inner.contains("print $1")
        || inner.contains("_config")
}

fn substitutions(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script) in posix(view) {
        for call in script.code.calls().filter(|call| ON_FILES.contains(&call.name)) {
            let parts = call.arguments().iter().flat_map(|word| &word.parts);
            for part in parts.filter(|part| part.quoting == Quoting::None) {
                let Kind::Substitution(start, end) = part.kind else { continue };
                if prints_one_word(&script.text[start..end]) {
                    continue;
                }
                let message = format!("`{}` gets this output taken apart at every blank", call.name);
                let hint = "put it in double quotes, or hand the names over with `xargs`";
                findings.report(step.instruction, script.span(part.start, part.end), message, hint);
            }
        }
    }
}

/// Variables that a place knows: the value, where it is written down.
type Variables = BTreeMap<String, Option<String>>;

/// Arguments that every build has.
const PREDEFINED: [&str; 20] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SOURCE_DATE_EPOCH",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
];

/// Calls `each` with each step and the variables that are set there by the file.
fn with_variables<'v, 'a>(view: &'v View<'a>, mut each: impl FnMut(&'v Step<'a>, &Variables)) {
    let mut ends: Vec<Variables> = Vec::new();
    let mut steps = view.steps.iter().peekable();
    let mut heirs = vec![0_usize; view.stages.len()];
    view.stages.iter().filter_map(|stage| stage.base).for_each(|base| heirs[base] += 1);
    for (number, stage) in view.stages.iter().enumerate() {
        // The last stage that begins with another takes its variables, so that a chain of stages copies none.
        let mut variables = match stage.base.map(|base| (base, ends.get_mut(base))) {
            Some((base, Some(end))) => {
                heirs[base] -= 1;
                if heirs[base] == 0 { std::mem::take(end) } else { end.clone() }
            }
            _ => Variables::new(),
        };
        for (index, instruction) in stage.body.iter().enumerate() {
            match &instruction.command {
                Some(Command::Env(pairs)) => {
                    variables.extend(pairs.iter().map(|pair| (pair.key.text.clone(), literal(&pair.value.text))));
                }
                Some(Command::Arg(items)) => variables.extend(items.iter().map(|item| {
                    let value = item.value.as_ref().or_else(|| global(view, &item.key.text));
                    (item.key.text.clone(), value.and_then(|value| literal(&value.text)))
                })),
                Some(Command::Run(_)) => {
                    if let Some(step) = steps.next_if(|step| (step.stage, step.index) == (number, index)) {
                        each(step, &variables);
                    }
                }
                _ => {}
            }
        }
        ends.push(variables);
    }
}

fn global<'a>(view: &View<'a>, name: &str) -> Option<&'a kiln_dockerfile::Word> {
    view.preamble.iter().find_map(|instruction| match &instruction.command {
        Some(Command::Arg(items)) => items.iter().find(|item| item.key.text == name)?.value.as_ref(),
        _ => None,
    })
}

/// A value with its quotes taken off, unless it holds variables whose values may hold anything.
fn literal(value: &str) -> Option<String> {
    let value = value.trim_matches(['"', '\'']);
    let is_path = value.split('$').skip(1).all(|rest| rest.starts_with("PATH") || rest.starts_with("{PATH"));
    (is_path || !value.contains('$')).then(|| value.to_owned())
}

/// Ends of names that tell of lists, whose parts are meant to be taken apart.
const LISTS: [&str; 7] = ["S", "LIST", "ARG", "OPT", "EXT", "@", "*"];

/// Programs that take lists, or do not mind blanks.
const TAKING_LISTS: [&str; 30] = [
    "apt-get",
    "apt",
    "apk",
    "yum",
    "dnf",
    "microdnf",
    "zypper",
    "pip",
    "pip3",
    "npm",
    "yarn",
    "gem",
    "apt-mark",
    "make",
    "echo",
    "printf",
    "set",
    "export",
    "local",
    "readonly",
    "declare",
    "[[",
    "docker-php-ext-install",
    "docker-php-ext-enable",
    "pecl",
    "configure",
    "cmake",
    "gcc",
    "cc",
    "return",
];

fn variables(view: &View<'_>, findings: &mut Findings<'_>) {
    with_variables(view, |step, known| {
        for script in step.scripts.iter().filter(|script| script.shell.is_posix()) {
            for part in split(script, known) {
                let written = &script.text[part.start..part.end];
                let message = format!("`{written}` is taken apart at every blank, and gone when it is empty");
                let span = script.span(part.start, part.end);
                findings.report(step.instruction, span, message, "put it in double quotes");
            }
        }
    });
}

/// The first use of each variable that may be taken apart.
fn split<'s>(script: &'s Script<'_>, known: &Variables) -> Vec<&'s Part> {
    let mut names = Vec::new();
    let mut found = Vec::new();
    let calls = script.code.calls().filter(|call| !TAKING_LISTS.contains(&call.name));
    for (variable, part) in calls.flat_map(|call| call.arguments().iter().flat_map(Word::variables)) {
        let name = variable.name.as_str();
        let is_number = variable.operator.starts_with('#');
        if part.quoting == Quoting::None && !is_number && !names.contains(&name) && !has_no_blanks(name, script, known)
        {
            names.push(name);
            found.push(part);
        }
    }
    found
}

/// Whether a variable surely holds one word, or a list on purpose.
fn has_no_blanks(name: &str, script: &Script<'_>, known: &Variables) -> bool {
    let upper = name.to_uppercase();
    let is_special = ["#", "?", "!", "$", "-", ""].contains(&name);
    if is_special || PREDEFINED.contains(&name) || LISTS.iter().any(|end| upper.ends_with(end)) {
        return true;
    }
    let is_word = |value: &str| !value.is_empty() && !value.contains([' ', '\t', '*', '?', '[']);
    let mut assigned = script.code.assigned.iter().filter(|assignment| assignment.name == name).peekable();
    if assigned.peek().is_none() {
        return match known.get(name) {
            Some(value) => value.as_deref().is_some_and(is_word),
            // From the base image, mostly a path or a version.
            None => !name.starts_with(|c: char| c.is_ascii_digit()) && name == upper,
        };
    }
    // What is read or looped over is one word mostly.
    assigned.all(|assignment| assignment.value.as_ref().is_none_or(|value| !has_blanks(value, script)))
}

/// Whether a value that is given to a variable may have blanks.
fn has_blanks(value: &Word, script: &Script<'_>) -> bool {
    let may = |part: &Part| match part.kind {
        Kind::Substitution(start, end) => !prints_one_word(&script.text[start..end]),
        Kind::Text => script.text[part.start..part.end].contains([' ', '\t']),
        Kind::Variable(_) | Kind::Arithmetic => false,
    };
    value.parts.iter().any(may)
}

fn unassigned(view: &View<'_>, findings: &mut Findings<'_>) {
    with_variables(view, |step, known| {
        for script in step.scripts.iter().filter(|script| script.shell.is_posix()) {
            // What is read from elsewhere may set anything.
            let reads = |call: Call<'_>| ["source", ".", "eval"].contains(&call.name);
            if script.code.calls().any(reads) {
                continue;
            }
            let mut told = Vec::new();
            for (variable, part) in words(script).flat_map(Word::variables) {
                let name = variable.name.as_str();
                let is_lower = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && name.contains(|c: char| c.is_ascii_lowercase());
                let has_default = variable.operator.starts_with([':', '-', '=', '+', '?', '!']);
                let is_set = script.code.assigned.iter().any(|assignment| assignment.name == name)
                    || known.contains_key(name)
                    || PREDEFINED.contains(&name)
                    || step.mounts.iter().any(|mount| mount.env.as_deref() == Some(name));
                if !is_lower || has_default || is_set || told.contains(&name) {
                    continue;
                }
                told.push(name);
                let message = format!("nothing sets `${name}` here, so it is empty");
                let hint = format!("set `{name}` in this RUN, or declare it with ARG or ENV");
                findings.report(step.instruction, script.span(part.start, part.end), message, hint);
            }
        }
    });
}

/// All words of a script.
fn words<'s>(script: &'s Script<'_>) -> impl Iterator<Item = &'s Word> {
    let commands = script.code.commands.iter().flat_map(|command| {
        let values = command.assignments.iter().filter_map(|assignment| assignment.value.as_ref());
        values.chain(&command.words).chain(command.redirects.iter().map(|redirect| &redirect.target))
    });
    commands.chain(&script.code.loose)
}

/// Images whose `sh` is bash, by parts of their names.
const BASH_AS_SH: [&str; 17] = [
    "fedora", "centos", "rocky", "alma", "amazon", "ubi", "redhat", "rhel", "oracle", "suse", "arch", "bash", "mageia",
    "photon", "clefos", "sl", "alt",
];

/// Whether the shell of a stage knows no braces: it is that of an official image with another `sh` than bash.
fn has_plain_sh(view: &View<'_>, mut stage: usize) -> bool {
    while let Some(base) = view.stages[stage].base {
        stage = base;
    }
    let image = view.stages[stage].from.image.text.as_str();
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let image = image.strip_prefix("library/").unwrap_or(image);
    !image.contains(['/', '$']) && !BASH_AS_SH.iter().any(|name| image.contains(name)) && !image.contains("oracl")
}

fn braces(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script) in posix(view) {
        let is_plain = script.shell.kind == ShellKind::Sh && has_plain_sh(view, step.stage);
        for call in script.code.calls() {
            let is_pattern = ["grep", "egrep", "sed", "[["].contains(&call.name);
            for word in call.words.iter().filter(|_| !is_pattern) {
                let Some((message, hint)) = brace(&unquoted(script, word), is_plain) else { continue };
                findings.report(step.instruction, script.span(word.start, word.end), message, hint);
            }
        }
    }
}

/// What is not quoted in a word.
fn unquoted(script: &Script<'_>, word: &Word) -> String {
    let parts = word.parts.iter().filter(|part| part.quoting == Quoting::None && part.kind == Kind::Text);
    parts.map(|part| &script.text[part.start..part.end]).collect()
}

fn brace(text: &str, is_plain: bool) -> Option<(String, &'static str)> {
    if !text.contains(['{', '}']) {
        return None;
    }
    let (opened, closed) = (text.matches('{').count(), text.matches('}').count());
    if opened != closed {
        let which = if opened > closed { '{' } else { '}' };
        return Some((format!("`{which}` is nothing but a character here"), "put blanks around it, or quote it"));
    }
    let inner = text.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(inner, _)| inner)?;
    let expands = inner.contains(',') || inner.contains("..");
    let message = "`sh` does not take braces apart: this is one word".to_owned();
    (expands && is_plain).then_some((message, "write the words out"))
}

fn echo(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script) in posix(view) {
        for call in script.code.calls().filter(|call| call.name == "echo") {
            let first = call.arguments().first().map_or("", |word| &word.text);
            if first.starts_with('-') && first[1..].bytes().all(|b| b"neE".contains(&b)) && first.contains(['e', 'E']) {
                continue;
            }
            let has_escape = |word: &&Word| {
                let parts = word.parts.iter().filter(|part| matches!(part.quoting, Quoting::Single | Quoting::Double));
                let texts: String = parts.map(|part| &script.text[part.start..part.end]).collect();
                ["\\n", "\\t", "\\r", "\\033", "\\x1b", "\\e["].iter().any(|escape| texts.contains(escape))
            };
            let Some(word) = call.arguments().iter().find(has_escape) else { continue };
            let message = "it depends on the shell what `echo` makes of these escapes";
            findings.report(step.instruction, script.span(word.start, word.end), message, "use `printf`");
        }
    }
}

/// Programs that take patterns, or no options.
const NOT_CONFUSED: [&str; 12] =
    ["echo", "printf", "find", "test", "[", "[[", "set", "expr", "let", "git", "unzip", "return"];

fn patterns(view: &View<'_>, findings: &mut Findings<'_>) {
    for (step, script) in posix(view) {
        for call in script.code.calls().filter(|call| !NOT_CONFUSED.contains(&call.name)) {
            let options = call.arguments().iter().take_while(|word| word.text != "--");
            let begins = |word: &&Word| unquoted(script, word).starts_with('*') && word.text.starts_with('*');
            let Some(word) = options.into_iter().find(begins) else { continue };
            let message = format!("a file that `{}` matches may begin with `-`", word.text);
            let hint = format!("write `./{}`", word.text);
            let span = script.span(word.start, word.end);
            findings.report(step.instruction, span, message, hint);
            let edit = Edit { span: Span::new(span.start, span.start), text: "./".to_owned() };
            findings.mend(packages::fix("put `./` in front", edit, Safety::Safe));
        }
    }
}
