//! From tree to graph: stages, what they begin with, and each instruction as operations and config.

mod base;
mod budget;
mod builtin;
mod copy;
mod elsewhere;
mod epoch;
mod expose;
mod git;
mod globals;
mod names;
mod options;
mod outline;
mod owner;
mod plan;
mod reads;
mod remote;
mod run;
mod run_mounts;
mod settings;
mod stage;
mod survey;
mod text;
mod transports;
mod urls;

use std::collections::BTreeSet;
use std::sync::Arc;

use kiln_graph::llb::ProxyEnv;
use kiln_graph::{Builder, Edge};
use kiln_oci::{Platform, Reference};
use kiln_report::{Diagnostic, Span};

pub use elsewhere::{BadContext, DOWNLOADED, is_remote_context, remote_context};
pub(crate) use globals::{Globals, Seed, expand_failure};
pub use options::{
    CredentialUse, Fetch, ImageFacts, ImageRequest, LowerOptions, Lowered, LoweredStage, Lowering, NamedContext,
    NoCache, PlatformInNames, ResolvedImage,
};
pub use outline::{Outline, OutlineArg, outline};
pub use reads::{ContextRead, Reader, context_reads};
pub use stage::ARGS;
pub use survey::{Breadth, Reach, all_errors, survey};
pub use transports::ArchivedImage;

use crate::check::CheckConfig;
use crate::expand::{Lexer, Variables as _};
use crate::instruction::Command;
use crate::parse::{Dockerfile, Word};
use crate::suggest;
use budget::Budget;
use builtin::Builtin;
use plan::{Base, Node, Plan, Settled};
use stage::State;

/// Turns a Dockerfile into a graph, or says which images have to be known first, or what is wrong.
///
/// The file must be the one `options.source` was parsed into, and without errors.
pub fn lower(file: &Dockerfile, options: &LowerOptions, facts: &ImageFacts) -> Result<Lowering, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let cx = Context::new(file, options, facts, &mut errors);
    let mut plan = Plan::new(&cx, &mut errors);
    let target = plan.target(options.target.as_deref()).map_err(|error| errors.push(*error));
    let Ok(target) = target else { return Err(errors) };
    let incomplete = file.instructions().filter(|instruction| instruction.command.is_none());
    errors.extend(incomplete.map(|i| Diagnostic::error(i.span, "this instruction could not be read")));
    if plan.stage_count == 0 && errors.is_empty() {
        errors.push(Diagnostic::error(Span::default(), "the Dockerfile has no FROM"));
    }
    // What can be told without asking about images is told before anything is fetched.
    if plan.stage_count > 0 && (!errors.is_empty() || facts.is_empty()) {
        errors.extend(Lowerer::new(&cx, &plan).errors_of(&plan.reachable(target)));
    }
    if errors.is_empty() {
        let settled = plan.settle(&cx, target, &mut errors);
        match settled {
            _ if !errors.is_empty() => {}
            Settled::Missing(nodes) => return Ok(Lowering::NeedsImages(requests(&cx, &plan, &nodes))),
            Settled::Yes(reachable) => return Lowerer::new(&cx, &plan).run(target, &reachable).map(Lowering::Done),
        }
    }
    errors.sort_by_key(|error| error.span);
    errors.dedup();
    Err(errors)
}

/// What all of lowering sees.
struct Context<'a> {
    file: &'a Dockerfile,
    options: &'a LowerOptions,
    facts: &'a ImageFacts,
    globals: Globals,
    lexer: Lexer,
    check: CheckConfig,
    proxies: Option<ProxyEnv>,
    builtin: Builtin<'a>,
    epoch: Option<i64>,
}

impl<'a> Context<'a> {
    fn new(
        file: &'a Dockerfile,
        options: &'a LowerOptions,
        facts: &'a ImageFacts,
        errors: &mut Vec<Diagnostic>,
    ) -> Self {
        let last_stage = file.instructions().filter_map(|instruction| match instruction.meant() {
            Some(Command::From(from)) => Some(from.stage_name()),
            _ => None,
        });
        let last_stage = last_stage.last().flatten();
        let globals = Globals::read(file, &Seed::of(options, last_stage.as_deref()), errors);
        let check = check(file, options).unwrap_or_else(|error| {
            errors.push(*error);
            CheckConfig::default()
        });
        let epoch = epoch::read(file, options, &globals).unwrap_or_else(|error| {
            errors.push(*error);
            None
        });
        let builtin = Builtin::read(&options.build_args).unwrap_or_else(|error| {
            errors.push(*error);
            Builtin::default()
        });
        let (lexer, proxies) = (Lexer::new(file.escape), globals::proxies(&options.build_args));
        Self { file, options, facts, globals, lexer, check, proxies, builtin, epoch }
    }

    /// Fills global arguments in.
    fn expand_global(&self, word: &Word) -> Result<String, Box<Diagnostic>> {
        let expansion = self.lexer.expand(&word.text, &self.globals.env);
        expansion.map(|expansion| expansion.text).map_err(|error| expand_failure(word, &error))
    }

    /// Whether what is wrong with a word of global arguments may follow from one that could not be read.
    fn may_follow(&self, word: &Word) -> bool {
        self.globals.has_gaps && word.text.contains('$')
    }

    /// The first variable of a word that is no global argument with a value.
    fn unset_global(&self, word: &Word) -> Option<String> {
        let uses = self.lexer.expand(&word.text, &self.globals.env).ok()?.uses;
        uses.into_iter().find(|used| !used.is_set).map(|used| used.name)
    }

    /// How to mend a word of global arguments that came to nothing.
    fn global_way_out(&self, word: &Word) -> String {
        let Some(name) = self.unset_global(word) else {
            return "give the argument a value with `--build-arg`".to_owned();
        };
        if self.globals.declared.contains(&name) {
            return format!("give `ARG {name}` a default, or a value with `--build-arg`");
        }
        match suggest::nearest(&name, self.globals.env.names()) {
            Some(nearest) => format!("did you mean `${nearest}`?"),
            None => format!("declare it before the first FROM with `ARG {name}=…`: no other argument is seen here"),
        }
    }

    /// The context that stands for a name, by the name as given or as Docker shortens it. One that is for this very
    /// platform, `name::platform`, comes before one that is for all.
    fn named_context(&self, name: &str, platform: &Platform) -> Option<(String, NamedContext)> {
        let contexts = &self.options.contexts;
        if contexts.is_empty() || name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let short = |name: &str| {
            let familiar = name.parse::<Reference>().ok()?.familiar();
            Some(familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned())
        };
        let wanted = short(name);
        let is_meant = |key: &str| key.eq_ignore_ascii_case(name) || wanted.is_some() && short(key) == wanted;
        let is_for_platform = |key: &&String| match key.split_once("::") {
            Some((key, of)) => is_meant(key) && of.parse().is_ok_and(|of: Platform| of.normalized() == *platform),
            None => false,
        };
        let is_for_all = |key: &&String| is_meant(key.as_str());
        let key = contexts.keys().find(is_for_platform).or_else(|| contexts.keys().find(is_for_all))?;
        Some((key.clone(), contexts[key].clone()))
    }

    /// The platform a node is for, unless its base has its own.
    fn platform<'n>(&'n self, node: &'n Node<'_>) -> &'n Platform {
        node.platform.as_ref().unwrap_or(&self.options.platform)
    }

    /// How a node's image is asked for.
    fn reference(&self, node: &Node<'_>) -> Option<String> {
        match &node.base {
            Base::Image(name) => Some(name.clone()),
            Base::Context(_, NamedContext::Image { reference }) if reference == "scratch" => None,
            Base::Context(_, NamedContext::Image { reference }) => Some(reference.clone()),
            Base::Context(_, NamedContext::OciLayout { reference }) => Some(format!("oci-layout://{reference}")),
            Base::Context(_, NamedContext::Local { .. } | NamedContext::Stage { .. }) => None,
            Base::Scratch | Base::Stage(_) | Base::Unknown => None,
        }
    }

    fn image(&self, node: &Node<'_>) -> Option<&'a ResolvedImage> {
        self.facts.find(&self.reference(node)?, self.platform(node))
    }

    fn needs_image(&self, node: &Node<'_>) -> bool {
        self.reference(node).is_some() && self.image(node).is_none()
    }
}

/// The check settings: the caller's, else those given as a build argument, else the file's.
fn check(file: &Dockerfile, options: &LowerOptions) -> Result<CheckConfig, Box<Diagnostic>> {
    let given = CheckConfig::given(&options.build_args)
        .map_err(|error| Diagnostic::error(Span::default(), format!("`BUILDKIT_DOCKERFILE_CHECK`: {error}")))?;
    options.check.clone().or(given).map_or_else(|| CheckConfig::of(file), Ok)
}

fn requests(cx: &Context<'_>, plan: &Plan<'_>, nodes: &BTreeSet<usize>) -> Vec<ImageRequest> {
    let mut requests: Vec<ImageRequest> = Vec::new();
    for node in nodes.iter().map(|node| &plan.nodes[*node]) {
        let Some(reference) = cx.reference(node) else { continue };
        let platform = cx.platform(node).clone();
        if requests.iter().any(|request| request.reference == reference && request.platform == platform) {
            continue;
        }
        let similar_stage = plan.similar_stage(&reference);
        requests.push(ImageRequest { reference, platform, span: node.span, similar_stage });
    }
    requests
}

/// What a build will fetch by `ADD`, as far as that is known without asking about images.
///
/// The file must be the one `options.source` was parsed into, and without errors.
pub fn fetches(file: &Dockerfile, options: &LowerOptions) -> Vec<Fetch> {
    let (facts, mut errors) = (ImageFacts::new(), Vec::new());
    let cx = Context::new(file, options, &facts, &mut errors);
    let plan = Plan::new(&cx, &mut errors);
    let Ok(target) = plan.target(options.target.as_deref()) else { return Vec::new() };
    let mut all = Lowerer::new(&cx, &plan);
    if plan.stage_count > 0 {
        all.lower_nodes(&plan.reachable(target));
    }
    all.fetches
}

/// What is left of a node when all of it is lowered: what others may take from.
struct End {
    root: Option<Edge>,
    platform: Platform,
}

/// Everything that grows while stages are lowered.
struct Lowerer<'c, 'a> {
    cx: &'c Context<'a>,
    plan: &'c Plan<'a>,
    graph: Builder,
    /// The Dockerfile's number among the graph's texts.
    source: usize,
    /// What became of the nodes so far.
    ends: Vec<Option<End>>,
    /// The states of nodes that others still begin with.
    states: Vec<Option<State>>,
    /// How many nodes have yet to begin with each.
    heirs: Vec<usize>,
    budget: Budget,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    secrets: Vec<CredentialUse>,
    ssh: Vec<CredentialUse>,
    reads: Vec<ContextRead>,
    fetches: Vec<Fetch>,
    /// How many variables were looked for among those of like names.
    guesses: usize,
}

impl<'c, 'a> Lowerer<'c, 'a> {
    fn new(cx: &'c Context<'a>, plan: &'c Plan<'a>) -> Self {
        let mut graph = Builder::new();
        let source = graph.source(Arc::clone(&cx.options.source));
        let ends = plan.nodes.iter().map(|_| None).collect();
        let states = plan.nodes.iter().map(|_| None).collect();
        let heirs = vec![0; plan.nodes.len()];
        Self {
            cx,
            plan,
            graph,
            source,
            ends,
            states,
            heirs,
            budget: Budget::default(),
            errors: Vec::new(),
            warnings: Vec::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            reads: Vec::new(),
            fetches: Vec::new(),
            guesses: 0,
        }
    }

    fn run(mut self, target: usize, reachable: &BTreeSet<usize>) -> Result<Box<Lowered>, Vec<Diagnostic>> {
        self.heirs[target] += 1;
        let stages = self.lower_nodes(reachable);
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        names::warn_unused_build_args(&mut self, target);
        names::warn_misspelt_stages(&mut self, reachable);
        Ok(Box::new(self.finish(target, &stages)))
    }

    /// All that is wrong with these nodes.
    fn errors_of(mut self, nodes: &BTreeSet<usize>) -> Vec<Diagnostic> {
        self.lower_nodes(nodes);
        self.errors
    }

    /// Lowers these nodes; gives those that are stages.
    fn lower_nodes(&mut self, nodes: &BTreeSet<usize>) -> Vec<usize> {
        for node in nodes {
            if let Base::Stage(base) = self.plan.nodes[*node].base {
                self.heirs[base] += 1;
            }
        }
        // What files are taken from has no steps of its own, so it can come first.
        let (stages, sources): (Vec<usize>, Vec<usize>) = nodes.iter().partition(|n| **n < self.plan.stage_count);
        for node in sources.into_iter().chain(stages.iter().copied()) {
            let state = stage::lower(self, node);
            self.ends[node] = Some(End { root: state.root.clone(), platform: state.platform.clone() });
            self.states[node] = Some(state).filter(|_| self.heirs[node] > 0);
        }
        stages
    }

    /// The state a node has come to, for one that begins with it. The last one takes it instead of a copy, so that
    /// a chain of stages costs no more than its steps.
    fn inherit(&mut self, node: usize) -> State {
        self.heirs[node] -= 1;
        let state = if self.heirs[node] == 0 { self.states[node].take() } else { self.states[node].clone() };
        state.expect("stages come in order, and heirs are counted")
    }

    /// The files a node ends with.
    fn root_of(&self, node: usize) -> Option<Edge> {
        self.ends[node].as_ref()?.root.clone()
    }

    fn finish(mut self, target: usize, stages: &[usize]) -> Lowered {
        let name = |node: usize| self.plan.nodes[node].name.clone().unwrap_or_else(|| format!("stage-{node}"));
        let stage_of = |node: &usize| {
            let End { root, platform } = self.ends[*node].as_ref()?;
            let (name, span) = (name(*node), self.plan.nodes[*node].span);
            Some(LoweredStage { name, root: root.clone(), platform: platform.clone(), span })
        };
        let lowered_stages: Vec<LoweredStage> = stages.iter().filter_map(stage_of).collect();
        let target_name = name(target);
        let state = self.inherit(target);
        self.warnings.sort_by_key(|warning| warning.span);
        self.warnings.dedup();
        Lowered {
            config: base::finish_config(self.cx, state.config),
            base_config: state.base_config,
            definition: self.graph.finish(),
            root: state.root,
            target_name,
            stages: lowered_stages,
            warnings: self.warnings,
            secrets: self.secrets,
            ssh: self.ssh,
            context_reads: self.reads,
            fetches: self.fetches,
            epoch: self.cx.epoch,
        }
    }
}
