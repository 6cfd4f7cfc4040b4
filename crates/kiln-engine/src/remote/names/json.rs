//! Operations as BuildKit writes them to digest them: JSON as Go has it, fields in the order of the wire's numbers,
//! empty ones left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_graph::llb::{
    CacheOpt, ChownOpt, ExecOp, FileActionCopy, FileActionKind, FileOp, MergeOp, Meta, Mount, MountType, Platform,
    UserKind, UserOpt,
};

/// An object being written.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn raw(mut self, name: &str, value: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&format!("\"{name}\":{value}"));
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.raw(name, &text(value)) }
    }

    fn number(self, name: &str, value: impl Into<i64>) -> Self {
        match value.into() {
            0 => self,
            value => self.raw(name, &value.to_string()),
        }
    }

    fn flag(self, name: &str, value: bool) -> Self {
        if value { self.raw(name, "true") } else { self }
    }

    fn list(self, name: &str, values: impl IntoIterator<Item = String>) -> Self {
        let values: Vec<String> = values.into_iter().collect();
        if values.is_empty() { self } else { self.raw(name, &format!("[{}]", values.join(","))) }
    }

    fn texts(self, name: &str, values: &[String]) -> Self {
        self.list(name, values.iter().map(|value| text(value)))
    }

    fn object(self, name: &str, value: Option<String>) -> Self {
        match value {
            Some(value) => self.raw(name, &value),
            None => self,
        }
    }

    fn end(self) -> String {
        self.0 + "}"
    }
}

/// An image's manifest, or index, for a platform.
pub(super) fn manifest(digest: &str, platform: &Platform) -> String {
    let object = Object::new().raw("Digest", &text(digest)).raw("OS", &text(&platform.os));
    let object = object.raw("Arch", &text(&platform.architecture)).text("Variant", &platform.variant);
    object.text("OSVersion", &platform.os_version).texts("OSFeatures", &platform.os_features).end()
}

/// Go escapes what could end a script in a page.
fn text(value: &str) -> String {
    let mut text = serde_json::to_string(value).expect("a text serialises");
    for (raw, escaped) in
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")]
    {
        if text.contains(raw) {
            text = text.replace(raw, escaped);
        }
    }
    text
}

/// What an exec op's digest is made of; nothing when it has what is not written here.
pub(super) fn exec(op: &ExecOp, platform: &Platform) -> Option<String> {
    if !op.secretenv.is_empty() || !op.cdi_devices.is_empty() {
        return None;
    }
    let mounts = if is_plain(&op.mounts) { Vec::new() } else { op.mounts.iter().map(mount).collect::<Option<_>>()? };
    let exec = Object::new()
        .object("meta", op.meta.as_ref().map(meta))
        .list("mounts", mounts)
        .number("network", op.network)
        .number("security", op.security)
        .end();
    let step = Object::new().raw("Type", "\"buildkit.exec.v0\"").raw("Exec", &exec);
    let step = step.raw("OS", &text(&platform.os)).raw("Arch", &text(&platform.architecture));
    Some(step.text("Variant", &platform.variant).end())
}

/// Whether there is nothing but a root to write on; older versions did not write mounts, and this keeps their digests.
fn is_plain(mounts: &[Mount]) -> bool {
    let [only] = mounts else { return false };
    let has_options = only.cache_opt.is_some() || only.ssh_opt.is_some() || only.secret_opt.is_some();
    only.dest == "/"
        && !only.readonly
        && only.mount_type() == MountType::Bind
        && !has_options
        && only.result_id.is_empty()
}

fn meta(meta: &Meta) -> String {
    let hosts = meta.extra_hosts.iter().map(|host| Object::new().text("Host", &host.host).end());
    let ulimits = meta.ulimit.iter().map(|ulimit| {
        Object::new().text("Name", &ulimit.name).number("Soft", ulimit.soft).number("Hard", ulimit.hard).end()
    });
    Object::new()
        .texts("args", &meta.args)
        .texts("env", &meta.env)
        .text("cwd", &meta.cwd)
        .text("user", &meta.user)
        .list("extraHosts", hosts)
        .text("hostname", &meta.hostname)
        .list("ulimit", ulimits)
        .text("cgroupParent", &meta.cgroup_parent)
        .flag("removeMountStubsRecursive", meta.remove_mount_stubs_recursive)
        .list("validExitCodes", meta.valid_exit_codes.iter().map(ToString::to_string))
        .end()
}

fn mount(mount: &Mount) -> Option<String> {
    if mount.secret_opt.is_some() || mount.ssh_opt.is_some() {
        return None;
    }
    let cache = mount.cache_opt.as_ref().map(|cache| match is_own(cache, &mount.dest) {
        true => Object::new().text("ID", &cache.id).end(),
        false => Object::new().end(),
    });
    let size = mount.tmpfs_opt.as_ref().map(|tmpfs| Object::new().number("size", tmpfs.size).end());
    let object = Object::new()
        .number("input", mount.input)
        .text("dest", &mount.dest)
        .number("output", mount.output)
        .flag("readonly", mount.readonly)
        .number("mountType", mount.mount_type)
        .object("TmpfsOpt", size)
        .object("cacheOpt", cache)
        .text("resultID", &mount.result_id)
        .number("contentCache", mount.content_cache);
    Some(object.end())
}

/// Whether a cache is the one that its target has when nothing is said; any other's name does not count.
fn is_own(cache: &CacheOpt, dest: &str) -> bool {
    let is_named = cache.id == dest || cache.id.split_once('/').is_some_and(|(_, rest)| rest == dest);
    is_named && cache.sharing == 0
}

/// What a file op's digest is made of; nothing when it has what is not written here.
pub(super) fn file(op: &FileOp) -> Option<String> {
    let actions: Vec<String> =
        op.actions.iter().map(|action| self::action(action.action.as_ref()?)).collect::<Option<_>>()?;
    let indexes: Vec<[i64; 3]> = op.actions.iter().map(|a| [a.input, a.secondary_input, a.output]).collect();
    let listed = |index: &[i64; 3]| format!("[{},{},{}]", index[0], index[1], index[2]);
    let step = Object::new().raw("Type", "\"buildkit.file.v0\"");
    let actions: Vec<String> = actions.iter().map(|action| format!("\"{}\"", STANDARD.encode(action))).collect();
    let step = step.raw("Actions", &format!("[{}]", actions.join(",")));
    let is_usual = is_usual(&indexes);
    Some(step.list("indexes", indexes.iter().filter(|_| !is_usual).map(listed)).end())
}

/// Whether each action goes on from the one before and the last is the result: the order of an older format.
fn is_usual(indexes: &[[i64; 3]]) -> bool {
    let count = indexes.len() as i64;
    let fits = |(at, [input, secondary, output]): (usize, &[i64; 3])| {
        let at = at as i64;
        let goes_on = if at == 0 { *input == 0 } else { *input == count + at - 1 };
        goes_on && matches!(secondary, -1 | 1) && *output == if at == count - 1 { 0 } else { -1 }
    };
    !indexes.is_empty() && indexes.iter().enumerate().all(fits)
}

fn action(action: &FileActionKind) -> Option<String> {
    Some(match action {
        FileActionKind::Copy(copy) => self::copy(copy),
        FileActionKind::MkDir(op) => Object::new()
            .text("path", &op.path)
            .number("mode", op.mode)
            .flag("makeParents", op.make_parents)
            .object("owner", op.owner.as_ref().map(owner))
            .number("timestamp", op.timestamp)
            .end(),
        FileActionKind::MkFile(op) => {
            let data = (!op.data.is_empty()).then(|| format!("\"{}\"", STANDARD.encode(&op.data)));
            Object::new()
                .text("path", &op.path)
                .number("mode", op.mode)
                .object("data", data)
                .object("owner", op.owner.as_ref().map(owner))
                .number("timestamp", op.timestamp)
                .end()
        }
        FileActionKind::Symlink(_) | FileActionKind::Rm(_) => return None,
    })
}

/// What is copied counts by its content; only the name it has at the destination stays.
fn copy(copy: &FileActionCopy) -> String {
    let name = match copy.src.trim_end_matches('/').rsplit('/').next() {
        Some("") if copy.src.starts_with('/') => "/",
        Some("") | None => ".",
        Some(name) => name,
    };
    Object::new()
        .text("src", name)
        .text("dest", &copy.dest)
        .object("owner", copy.owner.as_ref().map(owner))
        .number("mode", copy.mode)
        .flag("followSymlink", copy.follow_symlink)
        .flag("dirCopyContents", copy.dir_copy_contents)
        .flag("attemptUnpackDockerCompatibility", copy.attempt_unpack_docker_compatibility)
        .flag("createDestPath", copy.create_dest_path)
        .flag("allowWildcard", copy.allow_wildcard)
        .flag("allowEmptyWildcard", copy.allow_empty_wildcard)
        .number("timestamp", copy.timestamp)
        .texts("include_patterns", &copy.include_patterns)
        .texts("exclude_patterns", &copy.exclude_patterns)
        .flag("alwaysReplaceExistingDestPaths", copy.always_replace_existing_dest_paths)
        .text("modeStr", &copy.mode_str)
        .texts("required_paths", &copy.required_paths)
        .end()
}

fn owner(owner: &ChownOpt) -> String {
    Object::new().object("user", owner.user.as_ref().map(user)).object("group", owner.group.as_ref().map(user)).end()
}

fn user(option: &UserOpt) -> String {
    let user = match &option.user {
        Some(UserKind::ByName(named)) => {
            let named = Object::new().text("name", &named.name).number("input", named.input).end();
            Object::new().raw("byName", &named)
        }
        Some(UserKind::ById(id)) => Object::new().number("byId", *id),
        None => Object::new(),
    };
    Object::new().raw("User", &user.end()).end()
}

/// What a merge op's digest is made of.
pub(super) fn merge(op: &MergeOp) -> String {
    let inputs = op.inputs.iter().map(|input| Object::new().number("input", input.input).end());
    let merge = Object::new().list("inputs", inputs).end();
    Object::new().raw("Type", "\"buildkit.merge.v0\"").raw("Merge", &merge).end()
}
