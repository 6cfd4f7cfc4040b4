//! What a stage begins with, and what the config is in the end.

use kiln_graph::Edge;
use kiln_graph::llb::{MergeInput, MergeOp, OpKind, SourceOp};
use kiln_oci::{ContainerConfig, ImageConfig, Platform, RootFs};

use super::plan::Base;
use super::stage::{Stage, State, Vertex};
use super::{Context, NamedContext, ResolvedImage};
use crate::check::rules;
use crate::expand::Variables;
use crate::path;

/// Where programs are looked for when the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Sets a stage's first state.
pub(super) fn begin(stage: &mut Stage<'_, '_, '_>) {
    let cx = stage.all.cx;
    let node = stage.node;
    stage.state = match &node.base {
        Base::Scratch => State { platform: cx.options.platform.clone(), ..empty(&cx.options.platform) },
        Base::Stage(base) => from_stage(stage.all.inherit(*base)),
        Base::Context(name, NamedContext::Local { name: directory }) => {
            let mut state = empty(cx.platform(node));
            let identifier = format!("local://{directory}");
            let vertex = Vertex { name: format!("[context {name}] load from client"), ..Vertex::default() };
            let op = OpKind::Source(SourceOp { identifier, attrs: Default::default() });
            state.root = Some(stage.add(op, Vec::new(), vertex));
            state
        }
        Base::Image(_) | Base::Context(..) => match cx.image(node) {
            Some(image) => from_image(stage, image),
            // A context may stand for `scratch`; all else has been resolved before, unless nobody was asked.
            None => State { has_gaps: cx.needs_image(node), ..empty(cx.platform(node)) },
        },
        Base::Unknown => State { has_gaps: true, ..empty(cx.platform(node)) },
    };
    match &node.base {
        // A context that stands for a whole stage has no steps that would need it.
        _ if node.is_replaced => {}
        Base::Stage(base) if !stage.all.plan.nodes[*base].is_replaced => unshadow(&mut stage.state),
        _ => take_over_config(&mut stage.state),
    }
    wait(stage);
}

/// Puts the stages of `--after` before the first step: they are inputs of a vertex that hands on nothing but the base.
fn wait(stage: &mut Stage<'_, '_, '_>) {
    let node = stage.node;
    let others: Vec<Edge> = node.after.iter().filter_map(|other| stage.all.root_of(*other)).collect();
    if others.is_empty() {
        return;
    }
    let base = stage.state.root.take();
    let inputs = base.iter().map(|_| MergeInput { input: 0 }).collect();
    let names: Vec<&str> = node.after.iter().map(|other| stage.all.plan.nodes[*other].label.as_str()).collect();
    let name = format!("[internal] {} after {}", node.label, names.join(", "));
    let vertex = Vertex { name, span: Some(node.span), ..Vertex::default() };
    let op = OpKind::Merge(MergeOp { inputs });
    stage.state.root = Some(stage.add(op, base.into_iter().chain(others).collect(), vertex));
}

/// An image with nothing in it.
fn empty(platform: &Platform) -> State {
    let config = ContainerConfig {
        working_dir: "/".to_owned(),
        env: vec![format!("PATH={DEFAULT_PATH}")],
        ..ContainerConfig::default()
    };
    let image = ImageConfig { platform: platform.clone(), config, ..ImageConfig::default() };
    State { platform: platform.clone(), config: image, ..State::default() }
}

fn from_stage(mut state: State) -> State {
    // Its triggers have become steps.
    state.config.config.on_build.clear();
    state
}

fn from_image(stage: &mut Stage<'_, '_, '_>, image: &ResolvedImage) -> State {
    let cx = stage.all.cx;
    let platform = cx.platform(stage.node).clone();
    let mut config = image.config.clone();
    config.created = None;
    config.config.on_build.clear();
    let mut state =
        State { platform: platform.clone(), config, base_config: Some(image.config.clone()), ..State::default() };
    warn_other_platform(stage, &platform, image);
    if has_layers(&image.config) {
        let shown = image.identifier.split_once("://").map_or(image.identifier.as_str(), |(_, name)| name);
        let (name, span) = match &stage.node.base {
            Base::Context(name, NamedContext::OciLayout { .. }) => {
                (format!("[context {name}] OCI load from client"), None)
            }
            Base::Context(name, _) => (format!("[context {name}] {shown}"), None),
            Base::Image(name) if image.is_local => (stage.name_step(&format!("FROM {name}")), Some(stage.node.span)),
            _ => (stage.name_step(&format!("FROM {shown}")), Some(stage.node.span)),
        };
        let op = OpKind::Source(SourceOp { identifier: image.identifier.clone(), attrs: Default::default() });
        let vertex = Vertex { name, span, platform: Some(&platform), ignore_cache: false, args: Vec::new() };
        state.root = Some(stage.add(op, Vec::new(), vertex));
    }
    state
}

fn warn_other_platform(stage: &mut Stage<'_, '_, '_>, wanted: &Platform, image: &ResolvedImage) {
    let Base::Image(name) = &stage.node.base else { return };
    let found = &image.config.platform;
    let is_told = !found.os.is_empty() && !found.architecture.is_empty();
    let check = &stage.all.cx.check;
    if is_told && !found.satisfies(wanted) && check.allows(rules::INVALID_BASE_PLATFORM, &[]) {
        stage.all.warnings.push(rules::invalid_base_platform(name, wanted, found, stage.node.span));
    }
}

/// An image without layers is `scratch` with a config.
fn has_layers(config: &ImageConfig) -> bool {
    !config.rootfs.diff_ids.is_empty() || config.history.iter().any(|step| !step.empty_layer)
}

/// Gives variables of the image that arguments have hidden their values back: a stage sees those of its base as the
/// image has them.
fn unshadow(state: &mut State) {
    for name in std::mem::take(&mut state.shadowed) {
        let line = &state.config.config.env[state.env_index[&name]];
        let value = line.get(name.len() + 1..).unwrap_or_default();
        state.env.set(name.as_str(), value);
    }
}

/// Makes the config's environment, directory and user those of the steps to come.
fn take_over_config(state: &mut State) {
    state.env_index.clear();
    for (at, line) in state.config.config.env.iter().enumerate() {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        state.env.set(name, value);
        state.env_index.entry(name.to_owned()).or_insert(at);
    }
    if state.env.value("PATH").is_none() && state.platform.os != "windows" {
        state.set_image_env("PATH", DEFAULT_PATH);
        state.env.set("PATH", DEFAULT_PATH);
    }
    let config = &mut state.config.config;
    if !config.working_dir.is_empty() {
        config.working_dir = path::workdir("", &config.working_dir);
        state.dir.clone_from(&config.working_dir);
    }
    if !config.user.is_empty() {
        state.user.clone_from(&config.user);
    }
}

/// The config of the image to be.
pub(super) fn finish_config(cx: &Context<'_>, mut config: ImageConfig) -> ImageConfig {
    config.config.labels.extend(cx.options.labels.clone());
    config.rootfs = RootFs::default();
    config.created = None;
    let wanted = &cx.options.platform;
    let have = &mut config.platform;
    if cx.options.platform_is_chosen || have.os.is_empty() || have.architecture.is_empty() {
        let is_same = have.os == wanted.os && have.architecture == wanted.architecture;
        have.os.clone_from(&wanted.os);
        have.architecture.clone_from(&wanted.architecture);
        if wanted.variant.is_some() || !is_same {
            have.variant.clone_from(&wanted.variant);
        }
        if wanted.os_version.is_some() || !is_same {
            have.os_version.clone_from(&wanted.os_version);
        }
        if !wanted.os_features.is_empty() {
            have.os_features.clone_from(&wanted.os_features);
        }
    }
    config.platform = config.platform.normalized();
    config
}
