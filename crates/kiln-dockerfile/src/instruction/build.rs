//! From an instruction's words to its meaning.

use kiln_report::{Diagnostic, Span};

use super::flags::{self, Flags, Kind};
use super::{ArgItem, Command, CommandLine, CopyKind, Device, Form, From, Keyword, Run, copy, healthcheck, mount};
use crate::check::arrays;
use crate::parse::{Arguments, Instruction, Pair, Word};

pub(super) struct Reader<'a> {
    pub(super) instruction: &'a Instruction,
    pub(super) keyword: Keyword,
    pub(super) diagnostics: &'a mut Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    pub(super) fn read(&mut self) -> Option<Command> {
        use Keyword as K;
        match self.keyword {
            K::Copy => {
                copy::read(self.instruction, CopyKind::Copy, self.diagnostics).map(|c| Command::Copy(Box::new(c)))
            }
            K::Add => copy::read(self.instruction, CopyKind::Add, self.diagnostics).map(|c| Command::Copy(Box::new(c))),
            K::Healthcheck => healthcheck::read(self.instruction, self.diagnostics).map(Command::Healthcheck),
            K::From => self.from().map(Command::From),
            K::Run => Some(Command::Run(self.run())),
            _ => {
                self.flags(&[]);
                self.without_flags()
            }
        }
    }

    fn without_flags(&mut self) -> Option<Command> {
        use Keyword as K;
        match self.keyword {
            K::Env => self.pairs().map(Command::Env),
            K::Label => self.pairs().map(Command::Label),
            K::Arg => self.args().map(Command::Arg),
            K::Workdir => self.text().map(Command::Workdir),
            K::User => self.text().map(Command::User),
            K::Stopsignal => self.text().map(Command::StopSignal),
            K::Maintainer => self.text().map(Command::Maintainer),
            K::Expose => self.words().map(Command::Expose),
            K::Volume => self.volumes().map(Command::Volume),
            K::Cmd => Some(Command::Cmd(self.command_line())),
            K::Entrypoint => Some(Command::Entrypoint(self.command_line())),
            K::Shell => self.shell().map(Command::Shell),
            K::Onbuild => self.onbuild().map(Command::Onbuild),
            K::Add | K::Copy | K::From | K::Healthcheck | K::Run => None,
        }
    }

    fn flags(&mut self, known: &[(&'static str, Kind)]) -> Flags<'a> {
        flags::read(self.instruction, known, self.diagnostics)
    }

    fn error(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message).hint(hint));
    }

    fn no_arguments<T>(&mut self, hint: &str) -> Option<T> {
        let name = self.keyword.name();
        self.error(self.instruction.keyword.span, format!("{name} has no arguments"), format!("write `{name} {hint}`"));
        None
    }

    fn from(&mut self) -> Option<From> {
        let flags = self.flags(&[("platform", Kind::Value), ("after", Kind::Values)]);
        let Arguments::Words(words) = &self.instruction.arguments else {
            return self.no_arguments("image");
        };
        let (image, as_keyword, name) = match words.as_slice() {
            [image] => (image, None, None),
            [image, word, name] if word.text.eq_ignore_ascii_case("as") => (image, Some(word), Some(name)),
            [_, rest @ ..] => {
                let span = Span::new(rest[0].span.start, rest[rest.len() - 1].span.end);
                let hint = "write `FROM image` or `FROM image AS name`; a comment needs a line of its own";
                self.error(span, "FROM takes an image and `AS name`, nothing else", hint);
                return None;
            }
            [] => return self.no_arguments("image"),
        };
        if let Some(name) = name.filter(|name| !is_stage_name(&name.text.to_lowercase())) {
            let hint = "begin with a letter and go on with letters, digits, `-`, `_` and `.`";
            self.error(name.span, format!("`{}` cannot be the name of a stage", name.text), hint);
            return None;
        }
        let (platform, after) = (flags.value("platform"), flags.values("after"));
        Some(From { image: image.clone(), as_keyword: as_keyword.cloned(), name: name.cloned(), platform, after })
    }

    fn run(&mut self) -> Run {
        let known =
            [("mount", Kind::Values), ("network", Kind::Value), ("security", Kind::Value), ("device", Kind::Values)];
        let flags = self.flags(&known);
        let run = Run {
            command: self.command_line(),
            mounts: flags.values("mount"),
            network: flags.chosen("network"),
            security: flags.chosen("security"),
            devices: flags.values("device").iter().filter_map(|flag| self.device(flag)).collect(),
        };
        run.mounts.iter().for_each(|flag| mount::check_early(flag, self.diagnostics));
        self.one_of("network", run.network.as_ref(), &["default", "none", "host"]);
        self.one_of("security", run.security.as_ref(), &["sandbox", "insecure"]);
        if run.command.form == Form::Exec && run.command.words.is_empty() {
            self.error(self.instruction.span, "RUN has nothing to run", "put a command into the array");
        }
        run
    }

    fn device(&mut self, flag: &Word) -> Option<Device> {
        Device::read(flag).map_err(|diagnostic| self.diagnostics.push(diagnostic)).ok()
    }

    fn one_of(&mut self, flag: &str, value: Option<&Word>, choices: &[&str]) {
        let Some(value) = value.filter(|value| !choices.contains(&value.text.as_str())) else { return };
        let hint = match crate::suggest::nearest(&value.text, choices.iter().copied()) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("use one of `{}`", choices.join("`, `")),
        };
        let message = match value.text.as_str() {
            "" => format!("flag `--{flag}` has no value"),
            text => format!("`{text}` is not a choice of `--{flag}`"),
        };
        self.error(value.span, message, hint);
    }

    fn command_line(&self) -> CommandLine {
        match &self.instruction.arguments {
            Arguments::Json(words) => CommandLine { words: words.clone(), form: Form::Exec },
            Arguments::Text(word) => CommandLine { words: vec![word.clone()], form: Form::Shell },
            _ => CommandLine { words: Vec::new(), form: Form::Shell },
        }
    }

    fn text(&mut self) -> Option<Word> {
        match &self.instruction.arguments {
            Arguments::Text(word) => Some(word.clone()),
            _ => self.no_arguments(match self.keyword {
                Keyword::Workdir => "/path",
                Keyword::Stopsignal => "SIGTERM",
                _ => "name",
            }),
        }
    }

    fn words(&mut self) -> Option<Vec<Word>> {
        match &self.instruction.arguments {
            Arguments::Words(words) => Some(words.clone()),
            _ => self.no_arguments("port"),
        }
    }

    fn volumes(&mut self) -> Option<Vec<Word>> {
        let words = match &self.instruction.arguments {
            Arguments::Words(words) | Arguments::Json(words) if !words.is_empty() => words,
            _ => return self.no_arguments("/path"),
        };
        let trimmed = words.iter().map(|word| Word { text: word.text.trim().to_owned(), span: word.span });
        let (empty, volumes): (Vec<_>, Vec<_>) = trimmed.partition(|word| word.text.is_empty());
        for word in empty {
            self.error(word.span, "a volume cannot be empty", "name a directory, as in `VOLUME /data`");
        }
        Some(volumes)
    }

    fn pairs(&mut self) -> Option<Vec<Pair>> {
        let Arguments::Pairs(pairs) = &self.instruction.arguments else {
            // What could not be split has been told already.
            let is_told = matches!(self.instruction.arguments, Arguments::Text(_));
            return if is_told { None } else { self.no_arguments("key=value") };
        };
        if pairs.is_empty() {
            return self.no_arguments("key=value");
        }
        for pair in pairs.iter().filter(|pair| pair.key.text.is_empty()) {
            let span = Span::new(pair.key.span.start, pair.value.span.end);
            self.error(span, format!("{} has a value without a name", self.keyword.name()), "write `key=value`");
        }
        Some(pairs.clone())
    }

    fn args(&mut self) -> Option<Vec<ArgItem>> {
        let words = match &self.instruction.arguments {
            Arguments::Words(words) if !words.is_empty() => words,
            _ => return self.no_arguments("name"),
        };
        let item = |word: &Word| match word.text.find('=') {
            None => ArgItem { key: word.clone(), value: None },
            Some(at) => {
                let piece = |start, end| Word { text: word.text[start..end].to_owned(), span: word.part(start, end) };
                ArgItem { key: piece(0, at), value: Some(piece(at + 1, word.text.len())) }
            }
        };
        let items: Vec<ArgItem> = words.iter().map(item).collect();
        for item in items.iter().filter(|item| item.key.text.is_empty()) {
            let end = item.value.as_ref().map_or(item.key.span.end, |value| value.span.end);
            let span = Span::new(item.key.span.start, end);
            self.error(span, "ARG has a value without a name", "write `ARG name=value`");
        }
        Some(items)
    }

    fn shell(&mut self) -> Option<Vec<Word>> {
        match &self.instruction.arguments {
            Arguments::Json(words) if !words.is_empty() => Some(words.clone()),
            Arguments::Text(word) => {
                let broken = arrays::broken(self.instruction);
                let error = Diagnostic::error(word.span, "SHELL takes a JSON array");
                self.diagnostics.push(match broken {
                    Some(broken) => Diagnostic { span: broken.span, hints: broken.hints, fix: broken.fix, ..error },
                    None => error.hint("write `SHELL [\"/bin/bash\", \"-c\"]`"),
                });
                None
            }
            _ => self.no_arguments("[\"/bin/sh\", \"-c\"]"),
        }
    }

    fn onbuild(&mut self) -> Option<String> {
        let Arguments::Trigger(inner) = &self.instruction.arguments else {
            return self.no_arguments("instruction");
        };
        match Keyword::of(&inner.keyword.text) {
            Some(Keyword::Onbuild) => {
                self.error(inner.keyword.span, "ONBUILD cannot trigger another ONBUILD", "leave one of them out");
                return None;
            }
            Some(keyword @ (Keyword::From | Keyword::Maintainer)) => {
                let message = format!("ONBUILD cannot trigger {}", keyword.name());
                self.error(inner.keyword.span, message, "use an instruction that may stand within a stage");
                return None;
            }
            _ => {}
        }
        let line = self.instruction.line.text().trim_start();
        let mut expression = line[self.keyword.name().len()..].trim_start().to_owned();
        for heredoc in &self.instruction.heredocs {
            expression.push('\n');
            expression.push_str(&heredoc.content);
            expression.push_str(&heredoc.name);
        }
        Some(expression)
    }
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}
