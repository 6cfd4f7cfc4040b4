//! What a target can be given: its arguments, secrets, agents and caches, those of the stages it needs included.

use std::collections::{BTreeMap, BTreeSet};

use kiln_graph::llb::OpKind;
use kiln_report::{Diagnostic, Span};

use super::plan::{Base, Plan};
use super::{Context, CredentialUse, ImageFacts, LowerOptions, Lowerer};
use crate::check::description;
use crate::expand::Variables as _;
use crate::instruction::{ArgItem, Command};
use crate::parse::{Dockerfile, Instruction, Word};

/// What a target can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name.
    pub name: Option<String>,
    /// The comment above its `FROM` that begins with the name, without the name.
    pub description: Option<String>,
    /// The arguments that have an effect, in the file's order.
    pub args: Vec<OutlineArg>,
    /// The secrets steps want.
    pub secrets: Vec<CredentialUse>,
    /// The SSH agents steps want.
    pub ssh: Vec<CredentialUse>,
    /// The cache mounts of steps: id and place.
    pub caches: Vec<(String, Span)>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The comment above it that begins with the name, without the name.
    pub description: Option<String>,
    /// The value it has with these options, if any.
    pub value: Option<String>,
    /// Its `ARG`.
    pub span: Span,
}

/// Says what the target of a file can be given. Images are not asked about: their triggers and variables are left out.
///
/// The file must be the one `options.source` was parsed into, and without errors.
pub fn outline(file: &Dockerfile, options: &LowerOptions) -> Result<Outline, Vec<Diagnostic>> {
    let (facts, mut errors) = (ImageFacts::new(), Vec::new());
    let cx = Context::new(file, options, &facts, &mut errors);
    let mut plan = Plan::new(&cx, &mut errors);
    let target = plan.target(options.target.as_deref()).map_err(|error| errors.push(*error));
    let Ok(target) = target else { return Err(errors) };
    plan.add_all_triggers(&cx, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let nodes = plan.reachable(target);
    let mut all = Lowerer::new(&cx, &plan);
    // All states are looked into at the end, so each is kept for one heir more.
    nodes.iter().for_each(|node| all.heirs[*node] += 1);
    all.lower_nodes(&nodes);
    if !all.errors.is_empty() {
        return Err(all.errors);
    }
    let mut collector = Collector { all: &all, globals: globals(&cx), args: BTreeMap::new() };
    collector.visit(target, &mut BTreeSet::new());
    let mut args: Vec<OutlineArg> = collector.args.into_values().collect();
    args.sort_by_key(|arg| arg.span);
    let name = plan.nodes[target].name.clone();
    let stages = crate::targets::targets(file);
    let described = stages.get(target).and_then(|stage| stage.description.clone());
    let mut outline = Outline { name, description: described, args, ..Outline::default() };
    outline.secrets = std::mem::take(&mut all.secrets);
    outline.ssh = std::mem::take(&mut all.ssh);
    outline.caches = caches(all);
    outline.secrets.sort_by_key(|secret| secret.span);
    outline.ssh.sort_by_key(|agent| agent.span);
    Ok(outline)
}

fn caches(all: Lowerer<'_, '_>) -> Vec<(String, Span)> {
    let namespace = format!("{}/", all.cx.options.cache_namespace);
    let graph = all.graph.finish();
    let mut caches = BTreeMap::new();
    for vertex in graph.vertices() {
        let Some(OpKind::Exec(op)) = &vertex.op.op else { continue };
        let span = vertex.meta.source.map_or(Span::default(), |(_, span)| span);
        for cache in op.mounts.iter().filter_map(|mount| mount.cache_opt.as_ref()) {
            let id = cache.id.strip_prefix(&namespace).unwrap_or(&cache.id);
            let first = caches.entry(id.to_owned()).or_insert(span);
            *first = span.min(*first);
        }
    }
    let mut caches: Vec<(String, Span)> = caches.into_iter().collect();
    caches.sort_by_key(|(_, span)| *span);
    caches
}

/// An argument before the first `FROM`, and the arguments its default is made of.
struct Global {
    arg: OutlineArg,
    parts: BTreeSet<String>,
}

fn globals(cx: &Context<'_>) -> BTreeMap<String, Global> {
    let mut globals: BTreeMap<String, Global> = BTreeMap::new();
    let early = cx.file.instructions().take_while(|i| !matches!(i.command, Some(Command::From(_))));
    for instruction in early {
        let Some(Command::Arg(items)) = &instruction.command else { continue };
        for item in items {
            let name = item.key.text.clone();
            let is_given = cx.options.build_args.contains_key(&name);
            let default = item.value.as_ref().filter(|_| !is_given);
            let mut parts = default.map(|default| uses(cx, default)).unwrap_or_default();
            // What it was made of before is still part of it.
            if parts.remove(&name) {
                parts.extend(globals.get(&name).map(|old| old.parts.clone()).unwrap_or_default());
            }
            let value = cx.globals.env.value(&name).map(str::to_owned);
            let arg = argument(&name, value, instruction);
            globals.insert(name, Global { arg, parts });
        }
    }
    globals
}

/// The global arguments a word uses.
fn uses(cx: &Context<'_>, word: &Word) -> BTreeSet<String> {
    let expansion = cx.lexer.expand(&word.text, &cx.globals.env);
    expansion.map(|expansion| expansion.uses.into_iter().map(|used| used.name).collect()).unwrap_or_default()
}

fn argument(name: &str, value: Option<String>, instruction: &Instruction) -> OutlineArg {
    let description = description(&instruction.comments, name).map(str::to_owned);
    OutlineArg { name: name.to_owned(), description, value, span: instruction.span }
}

struct Collector<'l, 'c, 'a> {
    all: &'l Lowerer<'c, 'a>,
    globals: BTreeMap<String, Global>,
    /// By name; the first found counts, the target's own before those of other stages.
    args: BTreeMap<String, OutlineArg>,
}

impl Collector<'_, '_, '_> {
    fn visit(&mut self, node: usize, seen: &mut BTreeSet<usize>) {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if !seen.insert(node) {
                continue;
            }
            let plan = self.all.plan;
            let stage = &plan.nodes[node];
            let (mut own, mut global) = (BTreeMap::new(), self.used_in_from(node));
            for step in &stage.steps {
                if let Some(Command::Copy(copy)) = &step.instruction.command {
                    global.extend(copy.from.iter().flat_map(|from| uses(self.all.cx, from)));
                }
                let Some(Command::Arg(items)) = &step.instruction.command else { continue };
                for item in items {
                    match self.is_inherited(item) {
                        true => global.extend([item.key.text.clone()]),
                        false => own.extend([(item.key.text.clone(), self.own(node, item, &step.instruction))]),
                    }
                }
            }
            for (name, arg) in own {
                self.args.entry(name).or_insert(arg);
            }
            self.add_globals(global);
            let sources = stage
                .steps
                .iter()
                .flat_map(|step| step.from.into_iter().chain(step.mounts_from.iter().flatten().copied()));
            open.extend(sources.filter(|source| *source < plan.stage_count));
            open.extend(match stage.base {
                Base::Stage(base) => Some(base),
                _ => None,
            });
        }
    }

    /// An `ARG` without a value takes on the global one's.
    fn is_inherited(&self, item: &ArgItem) -> bool {
        let (cx, name) = (self.all.cx, item.key.text.as_str());
        item.value.is_none() && !cx.options.build_args.contains_key(name) && cx.globals.env.value(name).is_some()
    }

    fn own(&self, node: usize, item: &ArgItem, instruction: &Instruction) -> OutlineArg {
        let name = item.key.text.as_str();
        let state = self.all.states[node].as_ref();
        let place = state.and_then(|state| Some((state, *state.arg_index.get(name)?)));
        let value = place.and_then(|(state, at)| state.args[at].1.clone());
        argument(name, value, instruction)
    }

    fn used_in_from(&self, node: usize) -> BTreeSet<String> {
        let froms = self.all.cx.file.instructions().filter_map(|instruction| match &instruction.command {
            Some(Command::From(from)) => Some(from),
            _ => None,
        });
        let Some(from) = froms.into_iter().nth(node) else { return BTreeSet::new() };
        let words = std::iter::once(&from.image).chain(&from.platform);
        words.flat_map(|word| uses(self.all.cx, word)).collect()
    }

    fn add_globals(&mut self, names: BTreeSet<String>) {
        let mut open: Vec<String> = names.into_iter().collect();
        while let Some(name) = open.pop() {
            let Some(global) = self.globals.remove(&name) else { continue };
            self.args.entry(name).or_insert(global.arg);
            open.extend(global.parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_report::SourceFile;

    use super::*;
    use crate::parse;

    fn outlined(text: &str, target: &str, args: &[(&str, &str)]) -> Outline {
        let (file, errors) = parse(text);
        assert!(errors.is_empty(), "{errors:?}");
        let mut options = LowerOptions::new(Arc::new(SourceFile::new("Dockerfile", text)));
        options.target = Some(target.to_owned());
        options.build_args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        outline(&file, &options).unwrap()
    }

    const FILE: &str = "ARG inherited=box\nARG inherited2=box2\nARG unused=abc${inherited2}\n# sfx is a suffix\n\
                        ARG sfx=\"usy${inherited}\"\n\nFROM b${sfx} AS first\n# this is not it\nARG FOO=123\n\
                        # BAR is a number\nARG BAR=456\nRUN true\n\nFROM alpine${unused} AS second\nARG BAZ\n\n\
                        FROM scratch AS third\nARG ABC=a$ABC\nARG password\nARG TARGETARCH inherited2\n\n\
                        # target defines build target\nFROM third AS target\nCOPY --from=first /etc/passwd /\n";

    #[test]
    fn arguments_of_the_target_and_of_what_it_needs_are_listed_with_values_and_descriptions() {
        let found = outlined(FILE, "target", &[("BAR", "678")]);
        assert_eq!(
            (found.name.as_deref(), found.description.as_deref()),
            (Some("target"), Some("defines build target"))
        );
        let line = |arg: &OutlineArg| FILE[..arg.span.start].split('\n').count();
        let args: Vec<_> = found
            .args
            .iter()
            .map(|arg| (line(arg), arg.name.as_str(), arg.value.as_deref(), arg.description.as_deref()))
            .collect();
        assert_eq!(
            args,
            [
                (1, "inherited", Some("box"), None),
                (2, "inherited2", Some("box2"), None),
                (5, "sfx", Some("usybox"), Some("is a suffix")),
                (9, "FOO", Some("123"), None),
                (11, "BAR", Some("678"), Some("is a number")),
                (18, "ABC", Some("a"), None),
                (19, "password", None, None),
            ]
        );
    }

    #[test]
    fn arguments_of_the_file_that_name_what_is_copied_from_are_listed() {
        let text = "ARG SUFFIX=er\nARG BUILDER=build$SUFFIX\nARG OTHER=1\nFROM scratch\nCOPY --from=$BUILDER /a /\n";
        let found = outlined(text, "0", &[]);
        let names: Vec<&str> = found.args.iter().map(|arg| arg.name.as_str()).collect();
        assert_eq!(names, ["SUFFIX", "BUILDER"]);
    }

    #[test]
    fn secrets_agents_and_caches_are_listed_by_their_ids_with_variables_filled_in() {
        let text = "FROM busybox AS one\nRUN --mount=type=secret,id=other true\nFROM busybox AS two\nARG N=4\n\
                    RUN --mount=type=secret,id=first$N,required true\nRUN --mount=type=cache,target=/c --mount=type=ssh true\n\
                    RUN --mount=type=cache,id=pip,target=/p true\nFROM two AS three\nRUN --mount=type=secret,id=last true\n";
        let found = outlined(text, "three", &[]);
        let ids = |uses: &[CredentialUse]| uses.iter().map(|used| (used.id.clone(), used.required)).collect::<Vec<_>>();
        assert_eq!(ids(&found.secrets), [("first4".to_owned(), true), ("last".to_owned(), false)]);
        assert_eq!(ids(&found.ssh), [("default".to_owned(), false)]);
        let caches: Vec<&str> = found.caches.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(caches, ["/c", "pip"]);
    }
}
