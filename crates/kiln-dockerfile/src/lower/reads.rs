//! What a build takes from directories of the machine, instruction by instruction.

use kiln_graph::llb::FileActionCopy;
use kiln_report::{Diagnostic, Span};

use super::copy::Copying;
use super::plan::{Base, Plan, Step};
use super::stage::Stage;
use super::{Context, ImageFacts, LowerOptions, Lowerer, NamedContext};
use crate::check::rules;
use crate::instruction::{CopyKind, Mount};
use crate::parse::{Arguments, Dockerfile, Word};
use crate::path;

/// The name of the build context among all directories.
const BUILD_CONTEXT: &str = "context";

/// A path that an instruction takes from a directory of the machine.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextRead {
    /// The directory, as the graph calls it: `context`, or what a named context is called.
    pub context: String,
    /// What takes it.
    pub by: Reader,
    /// The path as written, variables filled in.
    pub path: String,
    /// Where it is written; for triggers of a base, its `FROM`.
    pub span: Span,
    /// What is looked for, as the graph has it.
    pub copy: FileActionCopy,
    /// Whether all its variables are known. An image that was not asked about may set others.
    pub is_certain: bool,
    /// The comments above the instruction, where checks are switched off.
    pub comments: Vec<String>,
}

impl ContextRead {
    /// The path from the top of its context, without detours; empty for all of it.
    pub fn clean_path(&self) -> String {
        path::absolute("/", &self.path).trim_matches('/').to_owned()
    }

    /// Whether it takes the context as a whole.
    pub fn takes_all(&self) -> bool {
        self.clean_path().is_empty()
    }
}

/// What takes a path from a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// `COPY`.
    Copy,
    /// `ADD`.
    Add,
    /// `RUN --mount=type=bind`.
    Mount,
}

impl Reader {
    /// As it is written.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Copy => "COPY",
            Self::Add => "ADD",
            Self::Mount => "RUN --mount",
        }
    }
}

/// Lists what all stages of a file take from contexts. Images are not asked about: what is only known with them, such
/// as their variables and triggers, is left out.
///
/// The file must be the one `options.source` was parsed into, and without errors.
pub fn context_reads(file: &Dockerfile, options: &LowerOptions) -> Vec<ContextRead> {
    let (facts, mut errors) = (ImageFacts::new(), Vec::<Diagnostic>::new());
    let cx = Context::new(file, options, &facts, &mut errors);
    let mut plan = Plan::new(&cx, &mut errors);
    if !errors.is_empty() {
        return Vec::new();
    }
    plan.add_all_triggers(&cx, &mut errors);
    let mut all = Lowerer::new(&cx, &plan);
    all.lower_nodes(&(0..plan.nodes.len()).collect());
    all.reads
}

impl Stage<'_, '_, '_> {
    /// Notes a source of `COPY` or `ADD`, if it is one of a context.
    pub(super) fn note_source(&mut self, copying: &Copying<'_>, source: &Word, action: &FileActionCopy) {
        if copying.sources_end.is_some_and(|end| source.span.start >= end) {
            return;
        }
        let (step, copy) = (copying.step, copying.filled.copy);
        let by = if copy.kind == CopyKind::Add { Reader::Add } else { Reader::Copy };
        // Sources stand in order of their places, and there may be very many; those of triggers are all at one.
        let at = copy.sources.partition_point(|word| word.span < source.span);
        let written = copy.sources.get(at).filter(|word| word.span == source.span);
        let is_certain = written.is_none_or(|word| self.knows_all(word));
        self.note(step, step.from, (by, source, is_certain), action.clone());
    }

    /// Where the sources end before what was meant for a comment, which is told as one mistake; the word before it was
    /// meant for the destination.
    pub(super) fn sources_end(&self, step: &Step<'_>) -> Option<usize> {
        let Arguments::Words(words) = &step.instruction.arguments else { return None };
        let at = words.iter().skip(2).position(|word| word.text.starts_with('#'))?;
        let is_told = self.all.cx.check.allows(rules::INLINE_COMMENT, &step.instruction.comments);
        is_told.then(|| words[at + 1].span.start)
    }

    /// Notes the source of a bind mount, if it is one of a context.
    pub(super) fn note_mount(&mut self, step: &Step<'_>, from: Option<usize>, (mount, flag): (&Mount, &Word)) {
        // Without a name to take from, a mount takes from the build context.
        let from = from.filter(|_| mount.from.is_some());
        let path = path::absolute("/", &mount.source);
        let copy = FileActionCopy { src: path, follow_symlink: true, ..FileActionCopy::default() };
        let source = Word { text: mount.source.clone(), span: mount.span };
        let is_certain = self.knows_all(flag);
        self.note(step, from, (Reader::Mount, &source, is_certain), copy);
    }

    fn note(
        &mut self,
        step: &Step<'_>,
        from: Option<usize>,
        (by, source, is_certain): (Reader, &Word, bool),
        copy: FileActionCopy,
    ) {
        let context = match from.map(|node| &self.all.plan.nodes[node]) {
            None => BUILD_CONTEXT.to_owned(),
            Some(node) => match &node.base {
                Base::Context(_, NamedContext::Local { name }) if node.steps.is_empty() => name.clone(),
                _ => return,
            },
        };
        let span = step.trigger.unwrap_or(source.span);
        let comments = step.instruction.comments.clone();
        let path = source.text.clone();
        self.all.reads.push(ContextRead { context, by, path, span, copy, is_certain, comments });
    }

    fn knows_all(&self, word: &Word) -> bool {
        if !word.text.contains('$') {
            return true;
        }
        let expansion = self.all.cx.lexer.expand(&word.text, &self.state.env);
        expansion.is_ok_and(|expansion| expansion.uses.iter().all(|used| used.is_set))
    }
}
