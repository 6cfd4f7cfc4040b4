//! `RUN`: a process, its mounts and its place in the history.

use kiln_graph::Edge;
use kiln_graph::llb::{
    CdiDevice, ExecOp, FileAction, FileActionKind, FileActionMkFile, FileOp, HostIp, Meta, Mount, MountType, NetMode,
    OpKind, SecurityMode, TmpfsOpt,
};
use kiln_report::{Diagnostic, Span};

use super::names;
use super::plan::Step;
use super::run_mounts::Mounts;
use super::stage::{Fail, Layer, Stage, Vertex};
use crate::expand::{Env, Layered, Lexer, Variables};
use crate::instruction::{Device, Form, Run};
use crate::parse::{Heredoc, Word, heredoc};

/// What a step runs, and what people are told of it.
struct Script {
    arguments: Vec<String>,
    /// What its name says beyond the instruction's text.
    summary: String,
    /// The document that is run as a program.
    program: Option<(String, Edge)>,
}

impl Stage<'_, '_, '_> {
    pub(super) fn run(&mut self, step: &Step<'_>, run: &Run) -> Result<(), Fail> {
        let script = self.script(step, run);
        let mut mounts = Mounts::new(&self.state);
        if let Some((_, edge)) = &script.program {
            mounts.bind_program(edge.clone());
        }
        let first = self.all.errors.len();
        self.run_mounts(step, run, &mut mounts);
        if let Some(size) = self.all.cx.options.shm_size {
            let tmpfs_opt = Some(TmpfsOpt { size: i64::try_from(size).unwrap_or(i64::MAX) });
            let dest = "/dev/shm".to_owned();
            mounts.push(Mount { input: -1, dest, output: -1, tmpfs_opt, ..mount(MountType::Tmpfs) });
        }
        let (network, security) = (self.network(run.network.as_ref()), self.security(run.security.as_ref()));
        let (Some(network), Some(security)) = (self.tell(network), self.tell(security)) else { return Ok(()) };
        if self.all.errors.len() > first {
            return Ok(());
        }
        let name = self.run_name(step, &script.summary, &mounts);
        let history = self.run_history(&script.arguments);
        let meta = self.meta(script.arguments, &mounts);
        let carried: usize = meta.env.iter().map(String::len).sum();
        self.all.budget.take(carried + name.len(), step.span())?;
        let op = ExecOp {
            meta: Some(meta),
            network: network as i32,
            security: security as i32,
            secretenv: std::mem::take(&mut mounts.secret_env),
            cdi_devices: run.devices.iter().map(cdi_device).collect(),
            mounts: Vec::new(),
        };
        let (mounts, inputs) = mounts.finish();
        let op = OpKind::Exec(ExecOp { mounts, ..op });
        let platform = self.state.platform.clone();
        let ignore_cache = self.ignores_cache();
        let args = self.state.args.iter().map(|(name, _)| name.clone()).collect();
        let vertex = Vertex { name, span: Some(step.span()), platform: Some(&platform), ignore_cache, args };
        self.state.root = Some(self.add(op, inputs, vertex));
        self.record(format!("RUN {history} # buildkit"), Layer::Made);
        Ok(())
    }

    /// The process's arguments; a heredoc becomes the shell's text, or a program when it begins with `#!`.
    fn script(&mut self, step: &Step<'_>, run: &Run) -> Script {
        let line: Vec<String> = run.command.words.iter().map(|word| word.text.clone()).collect();
        let heredocs = &step.instruction.heredocs;
        let (Form::Shell, Some(first)) = (run.command.form, heredocs.first()) else {
            let arguments = self.with_shell(line, run.command.form);
            return Script { arguments, summary: String::new(), program: None };
        };
        let text = line.concat();
        if heredoc::start(&text).is_none() {
            let arguments = self.with_shell(vec![with_documents(text, heredocs)], Form::Shell);
            return Script { arguments, summary: String::new(), program: None };
        }
        let document = first.text();
        let summary = format!(" ({})", summary(&first.content));
        if !document.starts_with("#!") {
            return Script { arguments: self.with_shell(vec![document], Form::Shell), summary, program: None };
        }
        let edge = self.document(&first.name, 0o755, document);
        let arguments = self.with_shell(vec![format!("/dev/pipes/{}", first.name)], Form::Shell);
        Script { arguments, summary, program: Some((first.name.clone(), edge)) }
    }

    /// A tree with one file.
    pub(super) fn document(&mut self, name: &str, mode: i32, text: String) -> Edge {
        let path = crate::path::absolute("/", name);
        let make = FileActionMkFile { path, mode, data: text.into_bytes(), owner: None, timestamp: -1 };
        let action =
            FileAction { input: -1, secondary_input: -1, output: 0, action: Some(FileActionKind::MkFile(make)) };
        let name = "[internal] preparing inline document".to_owned();
        let op = OpKind::File(FileOp { actions: vec![action] });
        self.add(op, Vec::new(), Vertex { name, ..Vertex::default() })
    }

    fn network(&self, flag: Option<&Word>) -> Result<NetMode, Fail> {
        match flag.map(|flag| (flag.text.as_str(), flag.span)) {
            Some(("none", _)) => Ok(NetMode::None),
            Some(("host", span)) => self.needs_entitlement("network.host", span).map(|()| NetMode::Host),
            _ => Ok(self.all.cx.options.network),
        }
    }

    fn security(&self, flag: Option<&Word>) -> Result<SecurityMode, Fail> {
        match flag.filter(|flag| flag.text == "insecure") {
            Some(flag) => self.needs_entitlement("security.insecure", flag.span).map(|()| SecurityMode::Insecure),
            None => Ok(SecurityMode::Sandbox),
        }
    }

    fn needs_entitlement(&self, name: &str, span: Span) -> Result<(), Fail> {
        if self.all.cx.options.entitlements.contains(name) {
            return Ok(());
        }
        let error = Diagnostic::error(span, format!("this step wants `{name}`, which was not allowed"));
        Err(Box::new(error.hint(format!("allow it with `--allow {name}`"))))
    }

    /// The name shows variables that are set, and stars for secrets.
    fn run_name(&mut self, step: &Step<'_>, summary: &str, mounts: &Mounts) -> String {
        let lexer = Lexer { keeps_quotes: true, keeps_unset: true, ..self.all.cx.lexer };
        let mut masked = Env::new();
        mounts.secret_env.iter().for_each(|secret| masked.set(secret.name.clone(), "****"));
        let env = Layered { over: &masked, under: &self.state.env };
        let text = names::shown(lexer, &format!("{}{summary}", step.text()), &env);
        self.name_step(&text)
    }

    /// `|2 A=1 B=2 /bin/sh -c make`.
    fn run_history(&self, arguments: &[String]) -> String {
        let args = &self.state.args;
        let mut parts: Vec<String> = Vec::new();
        if !args.is_empty() {
            parts.push(format!("|{}", args.len()));
        }
        parts.extend(args.iter().map(|(name, value)| {
            let value = self.state.env.value(name).or(value.as_deref()).unwrap_or_default();
            format!("{name}={value}")
        }));
        parts.extend(arguments.iter().cloned());
        parts.join(" ")
    }

    fn meta(&self, args: Vec<String>, mounts: &Mounts) -> Meta {
        let options = self.all.cx.options;
        let mut env = self.state.env.to_lines();
        let has_socket = self.state.env.value("SSH_AUTH_SOCK").is_some();
        env.extend(mounts.agent_socket().filter(|_| !has_socket).map(|socket| format!("SSH_AUTH_SOCK={socket}")));
        let host = |(host, ip): &(String, String)| HostIp { host: host.clone(), ip: ip.clone() };
        Meta {
            args,
            env,
            cwd: if self.state.dir.is_empty() { "/".to_owned() } else { self.state.dir.clone() },
            user: self.state.user.clone(),
            proxy_env: self.all.cx.proxies.clone(),
            extra_hosts: options.extra_hosts.iter().map(host).collect(),
            hostname: self.all.cx.builtin.hostname.or(options.hostname.as_deref()).unwrap_or_default().to_owned(),
            ulimit: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone().unwrap_or_default(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: Vec::new(),
        }
    }
}

pub(super) fn mount(kind: MountType) -> Mount {
    Mount { mount_type: kind as i32, ..Mount::default() }
}

fn cdi_device(device: &Device) -> CdiDevice {
    CdiDevice { name: device.name.text.clone(), optional: !device.required }
}

/// The documents put back behind the command, for the shell to read.
fn with_documents(command: String, heredocs: &[Heredoc]) -> String {
    heredocs.iter().fold(command, |text, heredoc| format!("{text}\n{}{}", heredoc.content, heredoc.name))
}

/// The first line of a document, for people.
fn summary(document: &str) -> String {
    let document = document.trim();
    match document.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => document.to_owned(),
    }
}
