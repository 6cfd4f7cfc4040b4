//! `kiln shell`: into a step of a build, as it was left when it failed, or as it ended.

mod place;
mod program;

use std::sync::Arc;

use kiln_exec::{ProcessIo, Stdio, Terminal};
use kiln_graph::llb::{ExecOp, Meta, Mount, MountType, Platform, ProxyEnv};
use kiln_report::{Event, Failure, FailureKind, Reporter};
use kiln_store::{Lease, Snapshot, Store};
use kiln_sys::root::Root;

use crate::artifact::Artifact;
use crate::blocking::blocking;
use crate::engine::Engine;
use crate::failure::environment;
use crate::frontend::Trees;
use crate::job::{Basis, Job, Result, Subject};
use crate::record::BuildRecord;
use crate::request::Context;
use crate::run::own;
use crate::session::Session;
use crate::step::{enter, view};
use crate::waiter::Waiter;
use crate::worker::Purpose;
use crate::wreck::{Input, Scene, Surroundings};
use place::Place;

/// A shell in a step, or another program.
#[derive(Debug, Clone, Default)]
pub struct ShellRequest {
    /// Which step: `BUILD`, `BUILD:STEP` or `:STEP`; by default the one that failed in the last build that did.
    pub step: Option<String>,
    /// The program and its arguments; without it a shell of the image.
    pub command: Vec<String>,
    /// Added to the step's environment, `K=V`.
    pub env: Vec<String>,
}

/// What is entered.
struct Scenery {
    build: BuildRecord,
    step: String,
    op: ExecOp,
    inputs: Vec<Artifact>,
    /// Where in `inputs` its root is.
    root: Snapshot,
    platform: Platform,
    surroundings: Surroundings,
    /// The command that failed, as one types it.
    command: Option<String>,
    notes: Vec<String>,
    /// Whatever it needs is held by this.
    _lease: Lease,
}

/// Enters; gives the code a shell would.
pub(crate) async fn shell(
    engine: &Engine,
    request: &ShellRequest,
    (session, reporter): (Arc<dyn Session>, Arc<dyn Reporter>),
    terminal: Option<Terminal>,
) -> Result<i32> {
    let store = engine.store()?;
    let (here, wanted) = (store.clone(), request.clone());
    let find = move || {
        let mut scenery = find(&here, wanted.step.as_deref())?;
        let program = match wanted.command.is_empty() {
            false => wanted.command,
            true => scenery.shell(&here)?,
        };
        scenery.set(program, wanted.env);
        Ok(scenery)
    };
    let mut scenery = blocking(find).await?;
    let say = |text: String| reporter.report(Event::Note(text));
    scenery.notes.drain(..).for_each(|note| say(format!("warning: {note}")));
    lend(&mut scenery.op, session.as_ref(), &say)?;
    if let Some(meta) = &mut scenery.op.meta {
        meta.proxy_env = Some(proxies(engine));
    }
    if terminal.is_some() {
        scenery.introduction().into_iter().for_each(say);
    }
    let waiter = Waiter::default();
    let lease = store.lease().map_err(environment)?;
    let (watch, purpose, pins) = (waiter.watch(), Purpose::Build, Arc::default());
    let basis = Basis { store, lease, session, reporter, watch, purpose, pins };
    let job = Job::new(engine, &scenery.surroundings.request(), &basis, Subject::default())?;
    let stdio = match terminal {
        Some(terminal) => Stdio::Terminal(terminal),
        None => Stdio::Streams(ProcessIo {
            stdin: Some(own(std::io::stdin())?),
            stdout: own(std::io::stdout())?,
            stderr: own(std::io::stderr())?,
        }),
    };
    let Scenery { op, platform, inputs, _lease, .. } = scenery;
    let status = enter(&job, op, platform, inputs, stdio).await?;
    Ok(status.shell_code())
}

/// Finds what is meant, and all that it needs.
fn find(store: &Store, wanted: Option<&str>) -> Result<Scenery> {
    let builds = crate::record::list(store)?;
    match place::locate(store, &builds, wanted)? {
        Place::Failed { build, scene, lease } => Scenery::failed(build, *scene, lease),
        Place::Done { build, at, root, lease } => Ok(Scenery::done(build, at, root, lease)),
    }
}

impl Scenery {
    /// A step as it was left.
    fn failed(build: &BuildRecord, scene: Scene, lease: Lease) -> Result<Self> {
        let op =
            scene.op().ok_or_else(|| Failure::new(FailureKind::Bug, "a failed step is kept that cannot be read"))?;
        let mut notes: Vec<String> = scene.absent.iter().map(|name| absent_variable(name)).collect();
        let needs_contexts = scene.inputs.iter().any(|input| matches!(input, Input::Context(_)));
        let trees = if needs_contexts { contexts(build) } else { Trees::new() };
        let mut inputs = Vec::with_capacity(scene.inputs.len() + 1);
        let mut gone = Vec::new();
        for (at, input) in (0..).zip(&scene.inputs) {
            inputs.push(match input {
                Input::Snapshot(snapshot) => Artifact::Snapshot(snapshot.clone()),
                Input::Context(name) => match trees.get(name) {
                    Some(tree) => Artifact::Tree(Arc::clone(tree)),
                    None => {
                        gone.push(at);
                        notes.push(format!("context `{name}` is not here any more, nor what the step mounted of it"));
                        Artifact::Snapshot(Snapshot::scratch())
                    }
                },
            });
        }
        let command = op.meta.as_ref().map(|meta| program::typed(&meta.args));
        let [os, architecture, variant] = scene.platform;
        let mut scenery = Self {
            build: build.clone(),
            step: scene.step,
            op,
            inputs,
            root: scene.root,
            platform: Platform { os, architecture, variant, ..Platform::default() },
            surroundings: scene.surroundings,
            command,
            notes,
            _lease: lease,
        };
        scenery.op.mounts.retain(|mount| mount.dest == "/" || !gone.contains(&mount.input));
        scenery.stand();
        Ok(scenery)
    }

    /// The result of a step.
    fn done(build: &BuildRecord, at: usize, root: Snapshot, lease: Lease) -> Self {
        let step = &build.steps[at];
        let meta = place::meta(&build.steps, at);
        let mount = Mount { dest: "/".into(), ..Mount::default() };
        let platform = step.parts.as_ref().and_then(|parts| parts.platform.as_ref()?.parse().ok());
        let platform = platform.unwrap_or_else(kiln_oci::Platform::host);
        let mut scenery = Self {
            build: build.clone(),
            step: step.name.clone(),
            op: ExecOp { meta: Some(meta), mounts: vec![mount], ..ExecOp::default() },
            inputs: Vec::new(),
            root,
            platform: Platform::from(&platform),
            surroundings: Surroundings::default(),
            command: None,
            notes: Vec::new(),
            _lease: lease,
        };
        scenery.stand();
        scenery
    }

    /// Has the root be what was left, and nothing that is written a result.
    fn stand(&mut self) {
        let at = self.inputs.len() as i64;
        self.inputs.push(Artifact::Snapshot(self.root.clone()));
        for mount in &mut self.op.mounts {
            mount.output = -1;
            if mount.dest == "/" {
                (mount.input, mount.selector) = (at, String::new());
            }
        }
    }

    /// A shell that its files have.
    fn shell(&self, store: &Store) -> Result<Vec<String>> {
        let root = Root::new(view(store, &self.root)?);
        let meta = self.op.meta.clone().unwrap_or_default();
        program::shell(&root, &meta.args, &meta.env).ok_or_else(|| {
            let message = format!("there is no shell in the files of `{}`", self.step);
            let hint = format!("name a program that is: `kiln shell {} -- PROGRAM`", self.build.short_id());
            Failure::new(FailureKind::Build, message).hint(hint)
        })
    }

    fn set(&mut self, program: Vec<String>, env: Vec<String>) {
        let meta = self.op.meta.get_or_insert_default();
        meta.args = program;
        let command = self.command.iter().map(|command| format!("KILN_COMMAND={command}"));
        for pair in command.chain(env) {
            let name = pair.split('=').next().unwrap_or(&pair);
            meta.env.retain(|had| had.split('=').next() != Some(name));
            meta.env.push(pair);
        }
    }

    /// What people are told before they type.
    fn introduction(&self) -> Vec<String> {
        let step = kiln_report::render::one_line(&self.step);
        let what = if self.command.is_some() { "as it was left" } else { "as it ended" };
        let again = self.command.is_some().then_some("; `eval \"$KILN_COMMAND\"` runs its command again");
        vec![
            format!("{step} of build {}, {what}", self.build.short_id()),
            format!("nothing that you change here is kept{}", again.unwrap_or_default()),
        ]
    }
}

fn absent_variable(name: &str) -> String {
    format!("the value of `{name}` is not kept; give it with `-e {name}=VALUE`")
}

/// The contexts of a build that are directories of this machine, as they are now.
fn contexts(build: &BuildRecord) -> Trees {
    let Some(request) = build.recipe.as_ref().map(|recipe| recipe.places()) else { return Trees::new() };
    let directory = match &request.context {
        Context::Dir(path) => Some(path.as_path()),
        _ => None,
    };
    crate::frontend::trees(&request, directory).unwrap_or_default()
}

/// What nobody lends is left out, and said.
fn lend(op: &mut ExecOp, session: &dyn Session, say: &dyn Fn(String)) -> Result<()> {
    for mount in &mut op.mounts {
        match mount.mount_type() {
            MountType::Secret => {
                let opt = mount.secret_opt.get_or_insert_default();
                opt.optional = true;
                absent_secret(&opt.id, session, say)?;
            }
            MountType::Ssh => {
                let opt = mount.ssh_opt.get_or_insert_default();
                opt.optional = true;
                let id = if opt.id.is_empty() { crate::ssh::DEFAULT } else { &opt.id };
                if session.ssh(id)?.is_none() {
                    say(format!("warning: ssh agent `{id}` is not here; give it with `--ssh {id}`"));
                }
            }
            MountType::Bind | MountType::Tmpfs | MountType::Cache => {}
        }
    }
    for secret in &mut op.secretenv {
        secret.optional = true;
        absent_secret(&secret.id, session, say)?;
    }
    Ok(())
}

fn absent_secret(id: &str, session: &dyn Session, say: &dyn Fn(String)) -> Result<()> {
    if session.secret(id)?.is_none() {
        say(format!("warning: secret `{id}` is not here; give it with `--secret id={id},src=FILE`"));
    }
    Ok(())
}

/// As they are for builds now.
fn proxies(engine: &Engine) -> ProxyEnv {
    let mut proxies = ProxyEnv::default();
    for (name, value) in engine.proxies() {
        match name.to_ascii_lowercase().as_str() {
            "http_proxy" => proxies.http_proxy = value,
            "https_proxy" => proxies.https_proxy = value,
            "ftp_proxy" => proxies.ftp_proxy = value,
            "no_proxy" => proxies.no_proxy = value,
            "all_proxy" => proxies.all_proxy = value,
            _ => {}
        }
    }
    proxies
}

/// What a step that is only looked at stands in, when it ran nothing itself.
fn bare() -> Meta {
    Meta { env: vec![crate::run::PATH.to_owned()], cwd: "/".into(), ..Meta::default() }
}
