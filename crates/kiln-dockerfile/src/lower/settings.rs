//! Instructions that change the config and no files: `ENV`, `ARG`, `CMD`, `USER` and their kind. And `WORKDIR`.

use kiln_graph::llb::{FileAction, FileActionKind, FileActionMkDir, FileOp, OpKind};
use kiln_oci::Empty;
use kiln_report::Diagnostic;

use super::owner::owner;
use super::plan::Step;
use super::stage::{Fail, Layer, NOT_IN_ENV, Stage, Vertex};
use super::{names, text};
use crate::check::{fixes, rules};
use crate::expand::Variables;
use crate::instruction::{ArgItem, CommandLine, Form, HealthcheckCommand};
use crate::parse::{Pair, Word};
use crate::path;

impl Stage<'_, '_, '_> {
    /// Fills keys and values in, all from the environment as it was before the instruction.
    fn expand_pairs(&mut self, pairs: &[Pair]) -> Option<Vec<(String, String)>> {
        let filled = pairs.iter().map(|pair| (self.filled(&pair.key), self.filled(&pair.value)));
        let filled: Vec<_> = filled.collect();
        filled.into_iter().map(|(key, value)| key.zip(value)).collect()
    }

    pub(super) fn env(&mut self, pairs: &[Pair]) -> Result<(), Fail> {
        let Some(pairs) = self.expand_pairs(pairs) else {
            self.state.has_gaps = true;
            return Ok(());
        };
        let mut history = "ENV".to_owned();
        for (name, value) in pairs {
            history.push_str(&format!(" {name}={value}"));
            self.state.set_image_env(&name, &value);
            self.state.env.set(name, value);
        }
        self.record(history, Layer::None);
        Ok(())
    }

    pub(super) fn label(&mut self, pairs: &[Pair]) -> Result<(), Fail> {
        let mut history = "LABEL".to_owned();
        for (name, value) in self.expand_pairs(pairs).into_iter().flatten() {
            history.push_str(&format!(" {name}={value}"));
            self.state.config.config.labels.insert(name, value);
        }
        self.record(history, Layer::None);
        Ok(())
    }

    pub(super) fn arg(&mut self, items: &[ArgItem]) -> Result<(), Fail> {
        let mut shown = Vec::new();
        for item in items {
            let name = item.key.text.clone();
            let options = self.all.cx.options;
            let value = match (options.build_args.get(&name), &item.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    let value = self.filled(default);
                    self.state.has_gaps |= value.is_none();
                    value
                }
                (None, None) => self.all.cx.globals.env.value(&name).map(str::to_owned),
            };
            if let Some(value) = value.as_ref().filter(|_| !NOT_IN_ENV.contains(&name.as_str())) {
                self.state.env.set(name.clone(), value.clone());
                if self.state.env_index.contains_key(&name) {
                    self.state.shadowed.insert(name.clone());
                }
            }
            shown.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            self.state.declare(name, value);
        }
        self.record(format!("ARG {}", shown.join(" ")), Layer::None);
        Ok(())
    }

    pub(super) fn workdir(&mut self, step: &Step<'_>, word: &Word) -> Result<(), Fail> {
        let wanted = self.expand(word)?;
        if !self.state.has_workdir && !wanted.starts_with('/') {
            self.all.warnings.push(fixes::mend(rules::relative_workdir(&wanted, word.span), fixes::absolute(word)));
        }
        self.state.has_workdir = true;
        let directory = path::workdir(&self.state.config.config.working_dir, &wanted);
        self.state.config.config.working_dir.clone_from(&directory);
        self.state.dir.clone_from(&directory);
        if directory == "/" {
            self.record("WORKDIR /".to_owned(), Layer::None);
            return Ok(());
        }
        let input = self.state.root.as_ref().map_or(-1, |_| 0);
        let user = self.state.config.config.user.clone();
        let make = FileActionMkDir {
            path: path::clean(&directory),
            mode: 0o755,
            make_parents: true,
            owner: (!user.is_empty()).then(|| owner(&user, input)),
            timestamp: self.all.cx.epoch.map_or(-1, |seconds| seconds.saturating_mul(1_000_000_000)),
        };
        let action = FileAction { input, secondary_input: -1, output: 0, action: Some(FileActionKind::MkDir(make)) };
        let name = names::shown(self.all.cx.lexer, step.text(), &self.state.env);
        let vertex = Vertex { name: self.name_step(&name), span: Some(step.span()), ..Vertex::default() };
        let inputs = self.state.root.iter().cloned().collect();
        self.state.root = Some(self.add(OpKind::File(FileOp { actions: vec![action] }), inputs, vertex));
        self.record(format!("WORKDIR {directory}"), Layer::Made);
        Ok(())
    }

    pub(super) fn user(&mut self, word: &Word) -> Result<(), Fail> {
        let user = self.expand(word)?;
        self.state.user.clone_from(&user);
        self.record(format!("USER {user}"), Layer::None);
        self.state.config.config.user = user;
        Ok(())
    }

    pub(super) fn volume(&mut self, words: &[Word]) -> Result<(), Fail> {
        let mut paths = Vec::new();
        for word in words {
            let Some(path) = self.filled(word) else { continue };
            if path.is_empty() {
                let message = format!("volume `{}` is empty once its variables are filled in", word.text);
                let error = Diagnostic::error(word.span, message).hint(self.way_out(word, "name a directory"));
                self.all.errors.push(error);
            }
            paths.push(path);
        }
        self.record(format!("VOLUME {}", text::list(&paths)), Layer::None);
        self.state.config.config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        Ok(())
    }

    /// The arguments of a process: the shell's before a command in shell form.
    pub(super) fn with_shell(&self, line: Vec<String>, form: Form) -> Vec<String> {
        if form == Form::Exec {
            return line;
        }
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        let shell = self.state.config.config.shell.clone().filter(|shell| !shell.is_empty());
        let mut arguments = shell.unwrap_or_else(default);
        arguments.push(line.join(" "));
        arguments
    }

    fn arguments(&self, line: &CommandLine) -> Vec<String> {
        self.with_shell(line.words.iter().map(|word| word.text.clone()).collect(), line.form)
    }

    pub(super) fn cmd(&mut self, line: &CommandLine) -> Result<(), Fail> {
        let arguments = self.arguments(line);
        self.record(format!("CMD {}", text::quoted_list(&arguments)), Layer::None);
        self.state.config.config.cmd = Some(arguments);
        self.state.config.config.args_escaped = Some(true);
        self.has_cmd = true;
        Ok(())
    }

    pub(super) fn entrypoint(&mut self, line: &CommandLine) -> Result<(), Fail> {
        let arguments = self.arguments(line);
        self.record(format!("ENTRYPOINT {}", text::quoted_list(&arguments)), Layer::None);
        self.state.config.config.entrypoint = Some(arguments).filter(|arguments| !arguments.is_empty());
        // A command that was inherited was meant for another entrypoint.
        if !self.has_cmd {
            self.state.config.config.cmd = None;
        }
        Ok(())
    }

    pub(super) fn shell(&mut self, words: &[Word]) -> Result<(), Fail> {
        let shell: Vec<String> = words.iter().map(|word| word.text.clone()).collect();
        self.record(format!("SHELL {}", text::list(&shell)), Layer::None);
        self.state.config.config.shell = Some(shell);
        Ok(())
    }

    pub(super) fn stop_signal(&mut self, word: &Word) -> Result<(), Fail> {
        let signal = self.expand(word)?;
        if !is_signal(&signal) {
            let error = Diagnostic::error(word.span, format!("`{signal}` is no signal"));
            let upper = signal.to_ascii_uppercase();
            let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
            return Err(Box::new(match crate::suggest::nearest(bare, SIGNALS) {
                Some(nearest) => error.hint(format!("did you mean `SIG{nearest}`?")),
                None => error.hint("use a name or a number, as in `SIGTERM` or `15`"),
            }));
        }
        self.record(format!("STOPSIGNAL {signal}"), Layer::None);
        self.state.config.config.stop_signal = Some(signal);
        Ok(())
    }

    pub(super) fn healthcheck(&mut self, command: &HealthcheckCommand) -> Result<(), Fail> {
        self.record(format!("HEALTHCHECK {}", command.printed()), Layer::None);
        self.state.config.config.healthcheck = Some(command.check.clone());
        Ok(())
    }

    pub(super) fn maintainer(&mut self, name: &Word) -> Result<(), Fail> {
        self.record(format!("MAINTAINER {}", name.text), Layer::None);
        self.state.config.author = Some(name.text.clone());
        Ok(())
    }
}

const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// A signal by name, with or without `SIG`, or by number; `RTMIN+1` to `RTMIN+15`, `RTMAX-1` to `RTMAX-14`.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix, last| {
        let digits: Option<&str> = name.strip_prefix(prefix);
        digits.is_some_and(|d| !d.starts_with(['0', '+']) && d.parse::<u8>().is_ok_and(|n| (1..=last).contains(&n)))
    };
    SIGNALS.contains(&name) || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for good in ["SIGTERM", "term", "15", "RTMIN+3", "SIGRTMAX-14", "9"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["0", "SIGFOO", "", "SIG", "RTMIN+16", "RTMIN+0", "1.5"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
