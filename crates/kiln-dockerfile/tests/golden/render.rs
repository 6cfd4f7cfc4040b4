//! Trees, graphs and findings as text that can be reviewed.

use std::collections::HashMap;
use std::fmt::Write as _;

use kiln_dockerfile::{Arguments, CredentialUse, Dockerfile, ImageRequest, Instruction, ItemKind, Lowered, Word};
use kiln_graph::llb::{
    ChownOpt, ExecOp, FileActionKind, FileOp, Mount, MountType, NetMode, OpKind, SecurityMode, UserKind, UserOpt,
};
use kiln_graph::{Vertex, VertexId};
use kiln_report::{Diagnostic, SourceFile, Span};

pub(crate) fn place(source: &SourceFile, span: Span) -> String {
    let ((line, column), (end_line, end_column)) = (source.position(span.start), source.position(span.end));
    format!("{line}:{column}-{end_line}:{end_column}")
}

pub(crate) fn diagnostics(all: &[Diagnostic], source: &SourceFile) -> String {
    let mut out = String::new();
    for diagnostic in all {
        let level = match diagnostic.rule {
            Some(rule) => format!("{}[{rule}]", diagnostic.level.name()),
            None => diagnostic.level.name().to_owned(),
        };
        writeln!(out, "{} {level}: {}", place(source, diagnostic.span), diagnostic.message).unwrap();
        writeln!(out, "    | {:?}", &source.text()[diagnostic.span.range()]).unwrap();
        diagnostic.hints.iter().for_each(|hint| writeln!(out, "    hint: {hint}").unwrap());
    }
    if out.is_empty() { "nothing".to_owned() } else { out }
}

pub(crate) fn tree(file: &Dockerfile, source: &SourceFile) -> String {
    let mut out = String::new();
    for item in &file.items {
        let at = place(source, item.span);
        match &item.kind {
            ItemKind::Blank => writeln!(out, "{at} blank").unwrap(),
            ItemKind::Comment(_) => writeln!(out, "{at} comment").unwrap(),
            ItemKind::Directive(d) => writeln!(out, "{at} directive {} = {:?}", d.name.text, d.value.text).unwrap(),
            ItemKind::Instruction(instruction) => {
                writeln!(out, "{} {}", place(source, instruction.span), instruction_text(instruction, source)).unwrap();
                instruction.heredocs.iter().for_each(|heredoc| {
                    let (at, end) = (place(source, heredoc.content_span), place(source, heredoc.end_span));
                    let kind = format!("expand={} chomp={} fd={}", heredoc.expand, heredoc.chomp, heredoc.descriptor);
                    writeln!(out, "    heredoc {:?} {kind} content {at} end {end}", heredoc.name).unwrap();
                });
            }
        }
    }
    out
}

fn instruction_text(instruction: &Instruction, source: &SourceFile) -> String {
    let mut out = instruction.keyword.text.clone();
    for flag in &instruction.flags {
        write!(out, " --{}", flag.name.text).unwrap();
        flag.value.iter().for_each(|value| write!(out, "={}", word(value, source)).unwrap());
    }
    write!(out, " {}", arguments(&instruction.arguments, source)).unwrap();
    if instruction.command.is_none() {
        out.push_str(" (not understood)");
    }
    out
}

/// The text, and the bytes of the file it stands for when they are others.
fn word(word: &Word, source: &SourceFile) -> String {
    let raw = &source.text()[word.span.range()];
    if raw == word.text { format!("{raw:?}") } else { format!("{:?}<{raw:?}>", word.text) }
}

fn arguments(arguments_: &Arguments, source: &SourceFile) -> String {
    let words = |words: &[Word]| words.iter().map(|w| word(w, source)).collect::<Vec<_>>().join(" ");
    match arguments_ {
        Arguments::None => "none".to_owned(),
        Arguments::Text(text) => format!("text {}", word(text, source)),
        Arguments::Words(all) => format!("words {}", words(all)),
        Arguments::Json(all) => format!("json {}", words(all)),
        Arguments::Pairs(pairs) => {
            let pair =
                |p: &kiln_dockerfile::Pair| format!("{}:{:?}:{}", word(&p.key, source), p.form, word(&p.value, source));
            format!("pairs {}", pairs.iter().map(pair).collect::<Vec<_>>().join(" "))
        }
        Arguments::Typed(kind, rest) => format!("typed {} {}", word(kind, source), arguments(rest, source)),
        Arguments::Trigger(inner) => {
            let text = instruction_text(inner, source);
            format!("trigger {}", text.trim_end_matches(" (not understood)"))
        }
    }
}

pub(crate) fn lowered(lowered: &Lowered, asked: &[ImageRequest], source: &SourceFile) -> String {
    let mut out = String::new();
    for request in asked {
        let similar = request.similar_stage.as_ref().map(|s| format!(" (like stage {s})")).unwrap_or_default();
        let at = place(source, request.span);
        writeln!(out, "asks {} for {} at {at}{similar}", request.reference, request.platform).unwrap();
    }
    let order = lowered.root.as_ref().map(|root| lowered.definition.reachable(root)).unwrap_or_default();
    let numbers: HashMap<VertexId, usize> = order.iter().cloned().zip(0..).collect();
    for id in &order {
        vertex(&mut out, lowered.definition.vertex(id).unwrap(), &numbers, source);
    }
    match &lowered.root {
        Some(root) => writeln!(out, "root v{}.{}", numbers[&root.vertex], root.output).unwrap(),
        None => writeln!(out, "root none").unwrap(),
    }
    let stages: Vec<String> =
        lowered.stages.iter().map(|stage| format!("{} ({})", stage.name, stage.platform)).collect();
    writeln!(out, "target {} of stages {}", lowered.target_name, stages.join(", ")).unwrap();
    credentials(&mut out, "secret", &lowered.secrets);
    credentials(&mut out, "ssh", &lowered.ssh);
    let mut config = serde_json::to_value(&lowered.config).unwrap();
    let history = config.as_object_mut().unwrap().remove("history");
    config.as_object_mut().unwrap().remove("rootfs");
    writeln!(out, "config {}", serde_json::to_string_pretty(&config).unwrap()).unwrap();
    for step in history.iter().flat_map(|history| history.as_array().unwrap()) {
        let layer = if step["empty_layer"] == true { "     " } else { "layer" };
        let created = step["created"].as_str().map(|created| format!(" at {created}")).unwrap_or_default();
        writeln!(out, "history {layer} {}{created}", step["created_by"].as_str().unwrap()).unwrap();
    }
    out
}

fn credentials(out: &mut String, kind: &str, all: &[CredentialUse]) {
    for used in all {
        writeln!(out, "{kind} {} required={}", used.id, used.required).unwrap();
    }
}

fn vertex(out: &mut String, vertex: &Vertex, numbers: &HashMap<VertexId, usize>, source: &SourceFile) {
    let inputs: Vec<String> =
        vertex.inputs.iter().map(|edge| format!("v{}.{}", numbers[&edge.vertex], edge.output)).collect();
    let at = vertex.meta.source.map(|(_, span)| format!(" at {}", place(source, span))).unwrap_or_default();
    let no_cache = if vertex.meta.ignore_cache { " no-cache" } else { "" };
    writeln!(out, "v{} {:?}{at}{no_cache}", numbers[&vertex.id], vertex.meta.name).unwrap();
    if !inputs.is_empty() {
        writeln!(out, "    inputs {}", inputs.join(" ")).unwrap();
    }
    if let Some(platform) = &vertex.op.platform {
        writeln!(out, "    platform {}/{}{}", platform.os, platform.architecture, platform.variant).unwrap();
    }
    match vertex.op.op.as_ref().unwrap() {
        OpKind::Source(op) => {
            writeln!(out, "    source {}", op.identifier).unwrap();
            op.attrs.iter().for_each(|(key, value)| writeln!(out, "    attr {key}={value}").unwrap());
        }
        OpKind::Exec(op) => exec(out, op),
        OpKind::File(op) => file(out, op),
        OpKind::Merge(op) => {
            let inputs: Vec<i64> = op.inputs.iter().map(|input| input.input).collect();
            writeln!(out, "    merge {inputs:?}").unwrap();
        }
        other => writeln!(out, "    {other:?}").unwrap(),
    }
}

fn exec(out: &mut String, op: &ExecOp) {
    let meta = op.meta.as_ref().unwrap();
    writeln!(out, "    exec {:?}", meta.args).unwrap();
    writeln!(out, "    env {:?}", meta.env).unwrap();
    let user = if meta.user.is_empty() { String::new() } else { format!(" user {}", meta.user) };
    writeln!(out, "    cwd {}{user}", meta.cwd).unwrap();
    if !meta.hostname.is_empty() {
        writeln!(out, "    hostname {}", meta.hostname).unwrap();
    }
    meta.proxy_env.iter().for_each(|proxy| writeln!(out, "    {proxy:?}").unwrap());
    if op.network() != NetMode::Unset || op.security() != SecurityMode::Sandbox {
        writeln!(out, "    network {:?} security {:?}", op.network(), op.security()).unwrap();
    }
    op.secretenv
        .iter()
        .for_each(|s| writeln!(out, "    secretenv {}={} optional={}", s.name, s.id, s.optional).unwrap());
    op.cdi_devices.iter().for_each(|d| writeln!(out, "    device {} optional={}", d.name, d.optional).unwrap());
    op.mounts.iter().for_each(|mount| writeln!(out, "    mount {}", mount_text(mount)).unwrap());
}

fn mount_text(mount: &Mount) -> String {
    let mut text = format!("{:?} {} input={} output={}", mount.mount_type(), mount.dest, mount.input, mount.output);
    if !mount.selector.is_empty() {
        write!(text, " selector={}", mount.selector).unwrap();
    }
    if mount.readonly {
        text.push_str(" readonly");
    }
    let kind = mount.mount_type();
    assert_eq!(kind == MountType::Tmpfs, mount.tmpfs_opt.is_some());
    mount.tmpfs_opt.iter().for_each(|opt| write!(text, " size={}", opt.size).unwrap());
    mount.cache_opt.iter().for_each(|opt| write!(text, " id={} {:?}", opt.id, opt.sharing()).unwrap());
    mount.secret_opt.iter().for_each(|opt| {
        write!(text, " id={} {}:{} {:04o} optional={}", opt.id, opt.uid, opt.gid, opt.mode, opt.optional).unwrap();
    });
    mount.ssh_opt.iter().for_each(|opt| {
        write!(text, " id={} {}:{} {:04o} optional={}", opt.id, opt.uid, opt.gid, opt.mode, opt.optional).unwrap();
    });
    text
}

fn file(out: &mut String, op: &FileOp) {
    for action in &op.actions {
        let flow = format!("[{},{}>{}]", action.input, action.secondary_input, action.output);
        match action.action.as_ref().unwrap() {
            FileActionKind::Copy(copy) => {
                write!(out, "    copy {flow} {} -> {}{}", copy.src, copy.dest, owner(&copy.owner)).unwrap();
                match (&copy.mode_str, copy.mode) {
                    (text, _) if !text.is_empty() => write!(out, " mode {text}").unwrap(),
                    (_, -1) => {}
                    (_, mode) => write!(out, " mode {mode:04o}").unwrap(),
                }
                let switches = [
                    ("follow", copy.follow_symlink),
                    ("contents", copy.dir_copy_contents),
                    ("unpack", copy.attempt_unpack_docker_compatibility),
                    ("mkdir", copy.create_dest_path),
                    ("wildcard", copy.allow_wildcard),
                    ("empty-wildcard", copy.allow_empty_wildcard),
                ];
                let on: Vec<&str> = switches.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
                writeln!(out, " ({})", on.join(" ")).unwrap();
                for (name, patterns) in [
                    ("include", &copy.include_patterns),
                    ("exclude", &copy.exclude_patterns),
                    ("required", &copy.required_paths),
                ] {
                    if !patterns.is_empty() {
                        writeln!(out, "        {name} {patterns:?}").unwrap();
                    }
                }
                assert_eq!(copy.timestamp, -1);
            }
            FileActionKind::MkFile(make) => {
                let data = String::from_utf8_lossy(&make.data);
                writeln!(out, "    mkfile {flow} {} {:04o} {data:?}{}", make.path, make.mode, owner(&make.owner))
                    .unwrap();
            }
            FileActionKind::MkDir(make) => {
                let time = if make.timestamp == -1 { String::new() } else { format!(" time {}", make.timestamp) };
                let parents = if make.make_parents { " parents" } else { "" };
                writeln!(out, "    mkdir {flow} {} {:04o}{parents}{}{time}", make.path, make.mode, owner(&make.owner))
                    .unwrap();
            }
            other => writeln!(out, "    {flow} {other:?}").unwrap(),
        }
    }
}

fn owner(owner: &Option<ChownOpt>) -> String {
    let one = |user: &UserOpt| match user.user.as_ref().unwrap() {
        UserKind::ById(id) => id.to_string(),
        UserKind::ByName(named) => format!("{:?}@{}", named.name, named.input),
    };
    let Some(owner) = owner else { return String::new() };
    let part = |user: &Option<UserOpt>| user.as_ref().map_or_else(|| "-".to_owned(), one);
    format!(" owner {}:{}", part(&owner.user), part(&owner.group))
}
