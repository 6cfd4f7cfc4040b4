//! One stage: its state, and its instructions one by one.

use std::collections::{BTreeMap, BTreeSet};

use kiln_graph::llb::OpKind;
use kiln_graph::{Edge, VertexMeta};
use kiln_oci::{History, ImageConfig, Platform};
use kiln_report::{Diagnostic, Span};

use super::plan::{Node, Step};
use super::{Lowerer, base, expand_failure, text};
use crate::check::{fixes, rules};
use crate::expand::{Env, Expansion, Lexer, Variables};
use crate::instruction::{Command, Keyword};
use crate::parse::Word;
use crate::suggest;

/// The key of a vertex's description that lists, between spaces, the build arguments its step sees. It is in no key.
pub const ARGS: &str = "kiln.args";

/// What a stage is so far.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Its files; `None` when there are none.
    pub(super) root: Option<Edge>,
    /// What expansion and steps see: `ENV` and `ARG`.
    pub(super) env: Env,
    /// Working directory of steps.
    pub(super) dir: String,
    /// User of steps.
    pub(super) user: String,
    pub(super) platform: Platform,
    pub(super) config: ImageConfig,
    pub(super) base_config: Option<ImageConfig>,
    /// The `ARG`s so far, in the order they were first declared, and where each stands.
    pub(super) args: Vec<(String, Option<String>)>,
    pub(super) arg_index: BTreeMap<String, usize>,
    /// Where each variable stands in the config.
    pub(super) env_index: BTreeMap<String, usize>,
    /// Variables of the image that an `ARG` has set since.
    pub(super) shadowed: BTreeSet<String>,
    /// Whether a `WORKDIR` of this file has been seen.
    pub(super) has_workdir: bool,
    /// Whether it may have other variables and another directory: its base is an image nobody was asked about, or an
    /// instruction could not be read.
    pub(super) has_gaps: bool,
}

pub(super) type Fail = Box<Diagnostic>;

/// A stage while its instructions are lowered.
pub(super) struct Stage<'l, 'c, 'a> {
    pub(super) all: &'l mut Lowerer<'c, 'a>,
    pub(super) node: &'c Node<'a>,
    pub(super) state: State,
    /// How many steps have been named.
    pub(super) named: usize,
    /// Whether a `CMD` of this stage has been seen.
    pub(super) has_cmd: bool,
    /// Whether the current step is a trigger of the base.
    pub(super) is_trigger: bool,
    /// Words of the current step whose variables may have a value that is not known.
    guessed: Vec<Span>,
}

/// Lowers a node: what it begins with, then its instructions.
pub(super) fn lower(all: &mut Lowerer<'_, '_>, node: usize) -> State {
    let plan = all.plan;
    let (node, state) = (&plan.nodes[node], State::default());
    let mut stage = Stage { all, node, state, named: 0, has_cmd: false, is_trigger: false, guessed: Vec::new() };
    base::begin(&mut stage);
    for step in &node.steps {
        let (before, first) = (stage.all.warnings.len(), stage.all.errors.len());
        stage.is_trigger = step.trigger.is_some();
        let outcome = stage.step(step);
        stage.tell(outcome);
        stage.settle_errors(step, first);
        if stage.all.budget.is_exhausted() {
            return stage.state;
        }
        for warning in stage.all.warnings.split_off(before) {
            let allows = |rule| stage.all.cx.check.allows(rule, &step.instruction.comments);
            if warning.rule.is_none_or(allows) {
                stage.all.warnings.push(step.placed(warning));
            }
        }
    }
    stage.state
}

impl State {
    /// Notes an `ARG`; the last value counts, the first place stays.
    pub(super) fn declare(&mut self, name: String, value: Option<String>) {
        match self.arg_index.get(&name) {
            Some(at) => self.args[*at].1 = value,
            None => {
                self.arg_index.insert(name.clone(), self.args.len());
                self.args.push((name, value));
            }
        }
    }

    /// The variable or argument that was probably meant.
    fn nearest(&self, name: &str) -> Option<&str> {
        let args = self.arg_index.keys().map(String::as_str);
        suggest::nearest(name, self.env.names().into_iter().chain(args))
    }

    /// Sets a variable of the image.
    pub(super) fn set_image_env(&mut self, name: &str, value: &str) {
        self.shadowed.remove(name);
        let lines = &mut self.config.config.env;
        let line = format!("{name}={value}");
        match self.env_index.get(name) {
            Some(at) => lines[*at] = line,
            None => {
                self.env_index.insert(name.to_owned(), lines.len());
                lines.push(line);
            }
        }
    }
}

impl Stage<'_, '_, '_> {
    fn step(&mut self, step: &Step<'_>) -> Result<(), Fail> {
        let Some(command) = step.instruction.meant() else {
            let lost = step.instruction.meant_keyword();
            self.state.has_gaps |= matches!(lost, None | Some(Keyword::Arg | Keyword::Env | Keyword::Workdir));
            return Ok(());
        };
        match command {
            // A stage begins with it; it is no step.
            Command::From(_) => Ok(()),
            Command::Run(run) => self.run(step, run),
            Command::Copy(copy) => self.copy(step, copy),
            Command::Workdir(path) => self.workdir(step, path),
            Command::Env(pairs) => self.env(pairs),
            Command::Label(pairs) => self.label(pairs),
            Command::Arg(items) => self.arg(items),
            Command::User(user) => self.user(user),
            Command::Expose(ports) => self.expose(ports),
            Command::Volume(volumes) => self.volume(volumes),
            Command::Cmd(line) => self.cmd(line),
            Command::Entrypoint(line) => self.entrypoint(line),
            Command::Shell(words) => self.shell(words),
            Command::StopSignal(signal) => self.stop_signal(signal),
            Command::Healthcheck(check) => self.healthcheck(check),
            Command::Onbuild(trigger) => {
                self.state.config.config.on_build.push(trigger.clone());
                Ok(())
            }
            Command::Maintainer(name) => self.maintainer(name),
        }
    }

    /// Tells what is wrong, and goes on without.
    pub(super) fn tell<T>(&mut self, outcome: Result<T, Fail>) -> Option<T> {
        outcome.map_err(|error| self.all.errors.push(*error)).ok()
    }

    /// Places the errors of a step, in the order of the file. Those that may only follow from what is not known go.
    fn settle_errors(&mut self, step: &Step<'_>, first: usize) {
        let mut guessed = std::mem::take(&mut self.guessed);
        guessed.sort_unstable();
        let mut errors = self.all.errors.split_off(first);
        errors.sort_by_key(|error| error.span);
        if self.all.budget.is_exhausted() {
            errors.dedup_by(|error, other| error.message == other.message);
        }
        // What a flag of COPY and ADD means depends on the sources.
        let is_all_guessed = !guessed.is_empty() && matches!(step.instruction.meant(), Some(Command::Copy(_)));
        let is_guess = |span: Span| {
            let before = guessed.partition_point(|word| word.start < span.end);
            before.checked_sub(1).is_some_and(|last| guessed[last].end > span.start)
        };
        errors.retain(|error| !is_all_guessed && !is_guess(error.span));
        self.all.errors.extend(errors.into_iter().map(|error| step.placed(error)));
    }

    /// Whether a word of the current step has variables whose values are not known.
    pub(super) fn is_guessed(&self, word: Span) -> bool {
        self.guessed.iter().any(|guessed| guessed.start < word.end && word.start < guessed.end)
    }

    /// Fills variables in as [`expand`](Self::expand) does; tells what is wrong.
    pub(super) fn filled(&mut self, word: &Word) -> Option<String> {
        let outcome = self.expand(word);
        self.tell(outcome)
    }

    /// Fills variables in and undoes quotes; variables that are not set are warned about.
    pub(super) fn expand(&mut self, word: &Word) -> Result<String, Fail> {
        self.expand_as(self.all.cx.lexer, word).map(|expansion| expansion.text)
    }

    pub(super) fn expand_as(&mut self, lexer: Lexer, word: &Word) -> Result<Expansion, Fail> {
        let expansion = lexer.expand(&word.text, &self.state.env).map_err(|error| expand_failure(word, &error))?;
        self.all.budget.take(expansion.text.len(), word.span)?;
        for used in expansion.uses.iter().filter(|used| !used.is_set) {
            if self.state.arg_index.contains_key(&used.name) || NOT_IN_ENV.contains(&used.name.as_str()) {
                continue;
            }
            if self.state.has_gaps {
                self.guessed.push(word.span);
            }
            // Looking through all names for each of thousands of findings would take ages and help nobody.
            self.all.guesses += 1;
            let is_early = self.all.guesses <= 100;
            let nearest = if is_early { self.state.nearest(&used.name) } else { None };
            let global = if is_early && nearest.is_none() { self.nearest_global(&used.name) } else { None };
            let cx = self.all.cx;
            let has_value = cx.globals.declared.contains(&used.name) || cx.options.build_args.contains_key(&used.name);
            let is_slip = nearest.or(global).is_some_and(|nearest| suggest::is_slip(&used.name, nearest));
            if self.state.has_gaps && !is_slip && !has_value {
                continue;
            }
            let fix = nearest.and_then(|nearest| fixes::rename_variable(word, used.start, &used.name, nearest));
            let finding = rules::undefined_variable(&used.name, nearest.or(global), word.part(used.start, used.end));
            let finding = fixes::mend(finding, fix);
            let hint = is_early.then(|| self.where_to_get(&used.name, nearest, global)).flatten();
            self.all.warnings.push(match hint {
                Some(hint) => finding.hint(hint),
                None => finding,
            });
        }
        Ok(expansion)
    }

    /// The argument before the first `FROM` that was probably meant.
    fn nearest_global(&self, name: &str) -> Option<&str> {
        let declared = self.all.cx.globals.declared.iter().map(String::as_str);
        suggest::nearest(name, declared)
    }

    /// How a stage comes by a variable that it does not have.
    fn where_to_get(&self, name: &str, own: Option<&str>, global: Option<&str>) -> Option<String> {
        let cx = self.all.cx;
        if cx.globals.declared.contains(name) || cx.options.build_args.contains_key(name) {
            return Some(format!("declare it in this stage with `ARG {name}`"));
        }
        if own.or(global).is_some() {
            return global.map(|global| format!("declare it in this stage with `ARG {global}`"));
        }
        Some(match self.all.plan.stage_that_sets(name) {
            Some(own) if own == self.node.label => "it is set only below this line".to_owned(),
            Some(stage) => format!("stage `{stage}` sets it for itself: set it here too, or begin with that stage"),
            None => format!("declare it in this stage with `ARG {name}`, or set it with ENV"),
        })
    }

    /// How to mend a word that came to nothing: the variable to declare, if there is one that is not set.
    pub(super) fn way_out(&self, word: &Word, otherwise: &str) -> String {
        let uses = self.all.cx.lexer.expand(&word.text, &self.state.env).map(|expansion| expansion.uses);
        match uses.unwrap_or_default().iter().find(|used| !used.is_set) {
            Some(used) => match (self.state.nearest(&used.name), self.nearest_global(&used.name)) {
                (Some(nearest), _) => format!("did you mean `${nearest}`?"),
                (None, Some(nearest)) => {
                    format!("did you mean `${nearest}`? declare it in this stage with `ARG {nearest}`")
                }
                (None, None) => format!("declare it in this stage with `ARG {}`, or set it with ENV", used.name),
            },
            None => otherwise.to_owned(),
        }
    }

    /// Adds a vertex whose place is the instruction.
    pub(super) fn add(&mut self, op: OpKind, inputs: Vec<Edge>, vertex: Vertex<'_>) -> Edge {
        let args = Some(vertex.args).filter(|args| !args.is_empty());
        let meta = VertexMeta {
            name: vertex.name,
            source: vertex.span.map(|span| (self.all.source, span)),
            ignore_cache: vertex.ignore_cache,
            description: args.map(|args| (ARGS.to_owned(), args.join(" "))).into_iter().collect(),
        };
        self.all.graph.add(op, inputs, vertex.platform, meta)
    }

    /// Whether steps of this stage must not use cached results.
    pub(super) fn ignores_cache(&self) -> bool {
        self.all.cx.options.no_cache.covers(self.node.name.as_deref())
    }

    /// Writes a step into the image's history.
    pub(super) fn record(&mut self, created_by: String, layer: Layer) {
        self.all.budget.spend(created_by.len());
        self.state.config.history.push(History {
            created: self.all.cx.epoch.map(text::rfc3339),
            created_by: Some(created_by),
            author: None,
            comment: Some("buildkit.dockerfile.v0".to_owned()),
            empty_layer: layer == Layer::None,
        });
    }
}

/// Arguments that steer the build and are in no environment.
pub(super) const NOT_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// What is said about a vertex.
#[derive(Default)]
pub(super) struct Vertex<'p> {
    pub(super) name: String,
    pub(super) span: Option<Span>,
    pub(super) platform: Option<&'p Platform>,
    pub(super) ignore_cache: bool,
    /// Build arguments it sees, by name.
    pub(super) args: Vec<String>,
}

impl Step<'_> {
    /// Where people look for it.
    pub(super) fn span(&self) -> Span {
        self.trigger.unwrap_or(self.instruction.span)
    }

    /// Its joined text.
    pub(super) fn text(&self) -> &str {
        self.instruction.line.text().trim()
    }
}

/// Whether a step of the history made a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Made,
    None,
}
