//! `RUN --mount`.

use kiln_graph::Edge;
use kiln_graph::llb::{
    CacheOpt, CacheSharing as Sharing, FileAction, FileActionKind, FileActionMkDir, FileOp, Mount as MountOp,
    MountType, OpKind, SecretEnv, SecretOpt, SshOpt, TmpfsOpt,
};
use kiln_report::Diagnostic;

use super::CredentialUse;
use super::owner::owner;
use super::plan::Step;
use super::run::mount;
use super::stage::{Fail, Stage, State, Vertex};
use crate::instruction::{CacheSharing, Mount, MountKind, Run};
use crate::parse::Word;
use crate::path;

/// The mounts of a step while they are collected.
pub(super) struct Mounts {
    inputs: Vec<Edge>,
    mounts: Vec<MountOp>,
    /// Secrets and agents, which come last, in the order they are given.
    credentials: Vec<MountOp>,
    pub(super) secret_env: Vec<SecretEnv>,
}

impl Mounts {
    /// Begins with the root.
    pub(super) fn new(state: &State) -> Self {
        let (inputs, mounts, credentials, secret_env) = Default::default();
        let mut all = Self { inputs, mounts, credentials, secret_env };
        let input = all.input(state.root.as_ref());
        all.push(MountOp { input, dest: "/".to_owned(), output: 0, ..mount(MountType::Bind) });
        all
    }

    fn input(&mut self, edge: Option<&Edge>) -> i64 {
        let Some(edge) = edge else { return -1 };
        let at = self.inputs.iter().position(|input| input == edge).unwrap_or_else(|| {
            self.inputs.push(edge.clone());
            self.inputs.len() - 1
        });
        at as i64
    }

    pub(super) fn push(&mut self, mount: MountOp) {
        self.mounts.push(mount);
    }

    /// Shows the program a heredoc is.
    pub(super) fn bind_program(&mut self, edge: Edge) {
        let input = self.input(Some(&edge));
        let dest = "/dev/pipes".to_owned();
        self.push(MountOp { input, dest, output: -1, readonly: true, ..mount(MountType::Bind) });
    }

    /// Where the first agent listens.
    pub(super) fn agent_socket(&self) -> Option<&str> {
        let agent = self.credentials.iter().find(|mount| mount.mount_type == MountType::Ssh as i32)?;
        Some(&agent.dest)
    }

    /// All mounts, parents before what is in them, and the edges they read in that order.
    pub(super) fn finish(mut self) -> (Vec<MountOp>, Vec<Edge>) {
        self.mounts.sort_by(|a, b| a.dest.cmp(&b.dest));
        let mut inputs: Vec<Edge> = Vec::new();
        for mount in self.mounts.iter_mut().filter(|mount| mount.input >= 0) {
            let edge = &self.inputs[mount.input as usize];
            let at = inputs.iter().position(|input| input == edge).unwrap_or_else(|| {
                inputs.push(edge.clone());
                inputs.len() - 1
            });
            mount.input = at as i64;
        }
        self.mounts.append(&mut self.credentials);
        (self.mounts, inputs)
    }
}

impl Stage<'_, '_, '_> {
    /// Adds the mounts of a step; tells what is wrong with any.
    pub(super) fn run_mounts(&mut self, step: &Step<'_>, run: &Run, mounts: &mut Mounts) {
        for (at, flag) in run.mounts.iter().enumerate() {
            match Mount::read(flag, &mut |word: &Word| self.expand(word)) {
                Ok(wanted) => {
                    let from = step.mounts_from.get(at).copied().flatten();
                    if wanted.kind == MountKind::Bind {
                        self.note_mount(step, from, (&wanted, flag));
                    }
                    let outcome = self.run_mount(&wanted, from, mounts);
                    self.tell(outcome);
                }
                Err(wrong) => self.all.errors.extend(wrong),
            }
        }
    }

    fn run_mount(&mut self, wanted: &Mount, from: Option<usize>, mounts: &mut Mounts) -> Result<(), Fail> {
        match wanted.kind {
            MountKind::Secret => self.secret(wanted, mounts),
            MountKind::Ssh => self.agent(wanted, mounts),
            MountKind::Tmpfs => {
                let (dest, readonly) = (self.mount_target(wanted)?, wanted.readonly);
                let tmpfs_opt = Some(TmpfsOpt { size: wanted.size });
                let kind = mount(MountType::Tmpfs);
                mounts.push(MountOp { input: -1, dest, output: -1, readonly, tmpfs_opt, ..kind });
            }
            MountKind::Bind | MountKind::Cache => self.tree(wanted, from, mounts)?,
        }
        Ok(())
    }

    /// A bind or cache mount: a tree from elsewhere.
    fn tree(&mut self, wanted: &Mount, from: Option<usize>, mounts: &mut Mounts) -> Result<(), Fail> {
        let dest = self.mount_target(wanted)?;
        let is_cache = wanted.kind == MountKind::Cache;
        let mut edge = match (&wanted.from, from) {
            (Some(_), Some(node)) => self.all.root_of(node),
            _ if is_cache => None,
            _ => Some(self.build_context()),
        };
        let mut selector = path::absolute("/", &wanted.source);
        let changes_owner = wanted.mode.is_some() || wanted.uid.is_some() || wanted.gid.is_some();
        if selector == "/" {
            selector.clear();
            if changes_owner {
                edge = Some(self.cache_directory(wanted, edge));
                selector.push_str("/cache");
            }
        }
        let input = mounts.input(edge.as_ref());
        let kind = if is_cache { MountType::Cache } else { MountType::Bind };
        let cache_opt = is_cache.then(|| self.cache_opt(wanted));
        let readonly = wanted.readonly;
        mounts.push(MountOp { input, selector, dest, output: -1, readonly, cache_opt, ..mount(kind) });
        Ok(())
    }

    fn cache_opt(&self, wanted: &Mount) -> CacheOpt {
        let id = if wanted.id.is_empty() { path::clean(&wanted.target) } else { wanted.id.clone() };
        let sharing = match wanted.sharing {
            None | Some(CacheSharing::Shared) => Sharing::Shared,
            Some(CacheSharing::Private) => Sharing::Private,
            Some(CacheSharing::Locked) => Sharing::Locked,
        };
        let cx = self.all.cx;
        let namespace = cx.builtin.cache_namespace.unwrap_or(&cx.options.cache_namespace);
        CacheOpt { id: format!("{namespace}/{id}"), sharing: sharing as i32 }
    }

    /// What a cache begins with when it is to have an owner or permissions of its own.
    fn cache_directory(&mut self, wanted: &Mount, base: Option<Edge>) -> Edge {
        let ids = format!("{}:{}", wanted.uid.unwrap_or(0), wanted.gid.unwrap_or(0));
        let make = FileActionMkDir {
            path: "/cache".to_owned(),
            mode: (wanted.mode.unwrap_or(0o755) & 0o777) as i32,
            make_parents: false,
            owner: Some(owner(&ids, -1)),
            timestamp: -1,
        };
        let input = base.as_ref().map_or(-1, |_| 0);
        let action = FileAction { input, secondary_input: -1, output: 0, action: Some(FileActionKind::MkDir(make)) };
        let name = "[internal] setting cache mount permissions".to_owned();
        let op = OpKind::File(FileOp { actions: vec![action] });
        self.add(op, base.into_iter().collect(), Vertex { name, ..Vertex::default() })
    }

    fn mount_target(&self, wanted: &Mount) -> Result<String, Fail> {
        let target = path::absolute(&self.state.dir, &wanted.target);
        // What a relative one means is not known without the directory it begins at.
        if target != "/" || self.state.has_gaps && !wanted.target.starts_with('/') {
            return Ok(target);
        }
        let error = Diagnostic::error(wanted.span, "a mount cannot cover the whole root directory");
        Err(Box::new(error.hint("name a directory with `target=`")))
    }

    fn secret(&mut self, wanted: &Mount, mounts: &mut Mounts) {
        let id = [&wanted.source, &wanted.id].into_iter().find(|id| !id.is_empty());
        let id = id.map_or_else(|| path::base_name(&wanted.target).to_owned(), Clone::clone);
        note_use(&mut self.all.secrets, &id, wanted);
        let optional = !wanted.required;
        if let Some(name) = &wanted.env {
            mounts.secret_env.push(SecretEnv { id: id.clone(), name: name.clone(), optional });
            if wanted.target.is_empty() {
                return;
            }
        }
        let dest = match wanted.target.as_str() {
            "" => format!("/run/secrets/{}", path::base_name(&id)),
            target => path::absolute(&self.state.dir, target),
        };
        let (uid, gid) = (wanted.uid.unwrap_or(0), wanted.gid.unwrap_or(0));
        let secret_opt = Some(SecretOpt { id, uid, gid, mode: wanted.mode.unwrap_or(0o400), optional });
        mounts.credentials.push(MountOp { input: -1, dest, output: -1, secret_opt, ..mount(MountType::Secret) });
    }

    fn agent(&mut self, wanted: &Mount, mounts: &mut Mounts) {
        let id = if wanted.id.is_empty() { "default".to_owned() } else { wanted.id.clone() };
        note_use(&mut self.all.ssh, &id, wanted);
        let agents = mounts.credentials.iter().filter(|mount| mount.ssh_opt.is_some()).count();
        let dest = match wanted.target.as_str() {
            "" => format!("/run/buildkit/ssh_agent.{agents}"),
            target => path::absolute(&self.state.dir, target),
        };
        let (uid, gid) = (wanted.uid.unwrap_or(0), wanted.gid.unwrap_or(0));
        let ssh_opt = Some(SshOpt { id, uid, gid, mode: wanted.mode.unwrap_or(0o600), optional: !wanted.required });
        mounts.credentials.push(MountOp { input: -1, dest, output: -1, ssh_opt, ..mount(MountType::Ssh) });
    }
}

/// Notes that a secret or agent is wanted; who must have it decides.
fn note_use(uses: &mut Vec<CredentialUse>, id: &str, wanted: &Mount) {
    match uses.iter_mut().find(|known| known.id == id) {
        Some(known) => known.required |= wanted.required,
        None => uses.push(CredentialUse { id: id.to_owned(), required: wanted.required, span: wanted.span }),
    }
}
