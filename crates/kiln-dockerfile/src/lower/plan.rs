//! Which stages there are, what each begins with, and what it takes from others.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use kiln_oci::{Platform, Reference};
use kiln_report::{Diagnostic, Span};

use super::globals::expand_failure;
use super::{Context, NamedContext, transports};
use crate::instruction::{self, Command, From, Keyword};
use crate::parse::{Instruction, Word, parse_trigger};
use crate::suggest;

/// The stages of a file, then the images and contexts that instructions take from.
pub(super) struct Plan<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    /// How many of them are stages.
    pub(super) stage_count: usize,
    /// Stages by name; several may have the same.
    names: BTreeMap<String, Vec<usize>>,
    /// Whether a stage may have a name that could not be read.
    pub(super) has_lost_names: bool,
}

/// A stage, or something files are taken from.
pub(super) struct Node<'a> {
    /// Name of the stage, in lower case.
    pub(super) name: Option<String>,
    /// How step names call it.
    pub(super) label: String,
    pub(super) base: Base,
    pub(super) platform: Option<Platform>,
    /// Stages that come first, although nothing is taken from them.
    pub(super) after: Vec<usize>,
    pub(super) steps: Vec<Step<'a>>,
    /// Whether a named context takes the place of the whole stage.
    pub(super) is_replaced: bool,
    /// How many steps its names count.
    pub(super) total: usize,
    /// `FROM`, or the instruction that takes from it.
    pub(super) span: Span,
    /// Whether the triggers of its base are among its steps.
    has_triggers: bool,
    /// The image as written.
    word: Span,
    /// The stage that takes from it, when it is none itself.
    taker: Option<usize>,
}

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Base {
    Scratch,
    Stage(usize),
    Image(String),
    Context(String, NamedContext),
    /// It could not be read, which is told.
    Unknown,
}

/// An instruction of a stage.
pub(super) struct Step<'a> {
    pub(super) instruction: Cow<'a, Instruction>,
    /// The `FROM` it comes from, when it is a trigger of its base.
    pub(super) trigger: Option<Span>,
    /// The node `--from` means.
    pub(super) from: Option<usize>,
    /// The node each `--mount` takes from.
    pub(super) mounts_from: Vec<Option<usize>>,
    /// Whether both are looked up.
    is_linked: bool,
}

/// The outcome of settling the bases.
pub(super) enum Settled {
    /// All reachable stages know their base's config.
    Yes(BTreeSet<usize>),
    /// These bases must be resolved first.
    Missing(BTreeSet<usize>),
}

impl<'a> Plan<'a> {
    /// Reads the stages of a file and links them.
    pub(super) fn new(cx: &Context<'a>, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut plan = Self { nodes: Vec::new(), stage_count: 0, names: BTreeMap::new(), has_lost_names: false };
        for instruction in cx.file.instructions() {
            match instruction.meant() {
                Some(Command::From(from)) => {
                    let node = plan.stage(cx, from, (instruction.span, diagnostics));
                    plan.push_stage(node);
                }
                None if instruction.meant_keyword() == Some(Keyword::From) => plan.push_lost(instruction),
                _ => {
                    if let Some(node) = plan.nodes.last_mut().filter(|node| !node.is_replaced) {
                        node.steps.push(Step::new(Cow::Borrowed(instruction), None));
                    }
                }
            }
        }
        plan.stage_count = plan.nodes.len();
        for at in 0..plan.stage_count {
            let node = &mut plan.nodes[at];
            let begins_elsewhere = matches!(node.base, Base::Image(_) | Base::Context(..)) && !node.is_replaced;
            node.total = node.steps.iter().filter(|step| step.counts()).count() + usize::from(begins_elsewhere);
            plan.link(cx, at, diagnostics);
        }
        if let [node] = plan.nodes.as_mut_slice() {
            node.label.clear();
        }
        plan
    }

    fn push_stage(&mut self, node: Node<'a>) {
        if let Some(name) = &node.name {
            self.names.entry(name.clone()).or_default().push(self.nodes.len());
        }
        self.nodes.push(node);
    }

    /// Keeps the place, and the name, of a stage whose `FROM` could not be read.
    fn push_lost(&mut self, instruction: &Instruction) {
        let mut words = instruction.line.text().split_whitespace().skip(1);
        let name = words.by_ref().find(|word| word.eq_ignore_ascii_case("as")).and_then(|_| words.next());
        self.has_lost_names |= name.is_none();
        let name = name.map(str::to_lowercase);
        self.push_stage(Node { name, ..Node::new(Base::Unknown, instruction.span) });
    }

    fn stage(&self, cx: &Context<'_>, from: &From, (span, diagnostics): (Span, &mut Vec<Diagnostic>)) -> Node<'a> {
        let mut tell = |word: &Word, error: Box<Diagnostic>| {
            if !cx.may_follow(word) {
                diagnostics.push(*error);
            }
        };
        let platform = from.platform.as_ref().map(|word| platform(cx, word).map_err(|error| tell(word, error)));
        let platform = platform.and_then(Result::ok);
        let after = from.after.iter().map(|word| self.earlier(cx, word).map_err(|error| tell(word, error)));
        let after = after.filter_map(Result::ok).flatten().collect();
        let name = from.stage_name();
        let wanted = platform.as_ref().unwrap_or(&cx.options.platform);
        let base = self.base(cx, from, wanted).map_err(|error| tell(&from.image, error)).unwrap_or(Base::Unknown);
        let replaced = name.as_deref().and_then(|name| cx.named_context(name, wanted));
        let is_replaced = replaced.is_some();
        let replaced = replaced.map(|context| self.standing_in(context, self.nodes.len(), from.image.span));
        let replaced = replaced.map(|base| base.map_err(|error| tell(&from.image, error)).unwrap_or(Base::Unknown));
        let base = replaced.unwrap_or(base);
        let label = name.clone().unwrap_or_else(|| format!("stage-{}", self.nodes.len()));
        Node { name, label, platform, after, is_replaced, word: from.image.span, ..Node::new(base, span) }
    }

    fn base(&self, cx: &Context<'_>, from: &From, wanted: &Platform) -> Result<Base, Box<Diagnostic>> {
        let image = cx.expand_global(&from.image)?;
        if image.is_empty() {
            let message = format!("`{}` leaves no image to begin with", from.image.text);
            return Err(Box::new(Diagnostic::error(from.image.span, message).hint(cx.global_way_out(&from.image))));
        }
        // A name that a context stands for is nobody else's.
        if from.stage_name().is_some_and(|name| cx.named_context(&name, wanted).is_some()) {
            return Ok(Base::Unknown);
        }
        if let Some(stage) = self.find_before(&image, self.nodes.len()) {
            return Ok(Base::Stage(stage));
        }
        let word = Word { text: image, span: from.image.span };
        self.outside(cx, &word, (wanted, self.nodes.len())).map_err(|error| {
            let is_whole = cx.unset_global(&from.image).is_none();
            if is_whole { error } else { Box::new(error.hint(cx.global_way_out(&from.image))) }
        })
    }

    /// The stage that `--after` names; none if it may have one of the names that are lost.
    fn earlier(&self, cx: &Context<'_>, word: &Word) -> Result<Option<usize>, Box<Diagnostic>> {
        let text = cx.expand_global(word)?;
        let number = text.parse::<usize>().ok().filter(|number| *number < self.nodes.len());
        let found = self.find_before(&text, self.nodes.len()).or(number.map(|number| self.stood_for(number)));
        if found.is_some() || self.has_lost_names {
            return Ok(found);
        }
        let error = Diagnostic::error(word.span, format!("no stage above is called `{text}`"));
        Err(Box::new(match self.similar_stage(&text.to_lowercase()) {
            Some(stage) => error.hint(format!("did you mean stage `{stage}`?")),
            None => error.hint("`--after` takes the name of a stage that is defined before this one"),
        }))
    }

    /// What a name means that is no stage's. `by` is the stage that says it.
    fn outside(
        &self,
        cx: &Context<'_>,
        name: &Word,
        (platform, by): (&Platform, usize),
    ) -> Result<Base, Box<Diagnostic>> {
        if name.text == "scratch" {
            return Ok(Base::Scratch);
        }
        if let Some(context) = cx.named_context(&name.text, platform) {
            return self.standing_in(context, by, name.span);
        }
        if transports::ArchivedImage::read(&name.text).is_some() {
            return Ok(Base::Image(name.text.clone()));
        }
        if let Some((message, hint)) = transports::refused(&name.text) {
            return Err(Box::new(Diagnostic::error(name.span, message).hint(hint)));
        }
        let Err(error) = name.text.parse::<Reference>() else { return Ok(Base::Image(name.text.clone())) };
        let error = Diagnostic::error(name.span, error.to_string());
        Err(Box::new(match self.similar_stage(&name.text.to_lowercase()) {
            Some(stage) => error.hint(format!("did you mean stage `{stage}`?")),
            None => error,
        }))
    }

    /// What a context gives to the stage `by`: itself, or the stage of this file that it stands for.
    fn standing_in(
        &self,
        (name, context): (String, NamedContext),
        by: usize,
        span: Span,
    ) -> Result<Base, Box<Diagnostic>> {
        let NamedContext::Stage { name: stage } = &context else { return Ok(Base::Context(name, context)) };
        let number = || stage.parse::<usize>().ok().filter(|number| *number < by);
        if let Some(found) = self.find_before(stage, by).or_else(number) {
            return Ok(Base::Stage(self.stood_for(found)));
        }
        let error =
            Diagnostic::error(span, format!("context `{name}` is stage `{stage}`, and no stage above has that name"));
        Err(Box::new(match self.similar_stage(&stage.to_lowercase()) {
            Some(near) if near != *stage => error.hint(format!("did you mean stage `{near}`?")),
            _ => error.hint("name a stage that is defined before the one that takes it"),
        }))
    }

    /// The stage of a name that stands before another; the last one when several do.
    fn find_before(&self, name: &str, before: usize) -> Option<usize> {
        let stages = self.names.get(&name.to_lowercase())?;
        let count = stages.partition_point(|stage| *stage < before);
        count.checked_sub(1).map(|last| self.stood_for(stages[last]))
    }

    /// The stage itself, or the one that a context has put in its place.
    fn stood_for(&self, stage: usize) -> usize {
        match self.nodes[stage] {
            Node { base: Base::Stage(other), is_replaced: true, .. } => other,
            _ => stage,
        }
    }

    /// Links a stage's instructions with what they take from.
    fn link(&mut self, cx: &Context<'_>, node: usize, diagnostics: &mut Vec<Diagnostic>) {
        let mut steps = std::mem::take(&mut self.nodes[node].steps);
        for step in steps.iter_mut().filter(|step| !step.is_linked) {
            let wrong = self.link_step(cx, node, step);
            diagnostics.extend(wrong.into_iter().map(|diagnostic| step.placed(diagnostic)));
        }
        self.nodes[node].steps = steps;
    }

    /// Gives all that is wrong.
    fn link_step(&mut self, cx: &Context<'_>, node: usize, step: &mut Step<'_>) -> Vec<Diagnostic> {
        let at = step.trigger.unwrap_or(step.instruction.span);
        let mut wrong = Vec::new();
        step.is_linked = true;
        match step.instruction.meant() {
            Some(Command::Copy(copy)) => {
                let Some(from) = &copy.from else { return wrong };
                let source = self.copy_source(cx, node, from, at);
                step.from = source.map_err(|error| wrong.push(*error)).ok();
                if cx.may_follow(from) {
                    wrong.clear();
                }
            }
            Some(Command::Run(run)) => {
                for flag in &run.mounts {
                    let source = match mount_from(flag) {
                        Some(from) => self.named_source(cx, node, &from, at),
                        None => Ok(self.source(Base::Scratch, at)),
                    };
                    step.mounts_from.push(source.map_err(|error| wrong.push(*error)).ok());
                }
            }
            _ => {}
        }
        wrong
    }

    fn copy_source(&mut self, cx: &Context<'_>, node: usize, from: &Word, at: Span) -> Result<usize, Box<Diagnostic>> {
        let text = cx.expand_global(from)?;
        if text.is_empty() {
            let error = Diagnostic::error(from.span, format!("`--from={}` names nothing", from.text));
            return Err(Box::new(error.hint(cx.global_way_out(from))));
        }
        let Ok(number) = text.parse::<usize>() else {
            return self.named_source(cx, node, &Word { text, span: from.span }, at);
        };
        if number >= self.stage_count {
            let message = format!("there is no stage number {number}");
            let hint = format!("stages are numbered from 0; this one is number {node}");
            return Err(Box::new(Diagnostic::error(from.span, message).hint(hint)));
        }
        self.must_be_before(self.stood_for(number), node, from.span)
    }

    fn named_source(&mut self, cx: &Context<'_>, node: usize, from: &Word, at: Span) -> Result<usize, Box<Diagnostic>> {
        if let Some(stage) = self.find_before(&from.text, node).or(self.find_before(&from.text, self.stage_count)) {
            return self.must_be_before(stage, node, from.span);
        }
        let base = self.outside(cx, from, (&cx.options.platform, node))?;
        if let Base::Stage(stage) = base {
            return Ok(stage);
        }
        let source = self.source(base, at);
        // A trigger's own text is not in this file.
        let range = at.range();
        self.nodes[source].word = if range.contains(&from.span.start) { from.span } else { at };
        self.nodes[source].taker = Some(node);
        Ok(source)
    }

    fn must_be_before(&self, stage: usize, node: usize, span: Span) -> Result<usize, Box<Diagnostic>> {
        let label = self.nodes[stage].name.clone().unwrap_or_else(|| format!("stage-{stage}"));
        if stage < node {
            return Ok(stage);
        }
        let (message, hint) = if stage == node {
            (format!("stage `{label}` takes from itself"), "take from an earlier stage")
        } else {
            (format!("stage `{label}` is defined only below"), "move it above this stage")
        };
        Err(Box::new(Diagnostic::error(span, message).hint(hint)))
    }

    fn source(&mut self, base: Base, span: Span) -> usize {
        self.nodes.push(Node::new(base, span));
        self.nodes.len() - 1
    }

    /// Finds the target stage.
    pub(super) fn target(&self, wanted: Option<&str>) -> Result<usize, Box<Diagnostic>> {
        let Some(wanted) = wanted else {
            return Ok(self.stage_count.checked_sub(1).map_or(0, |last| self.stood_for(last)));
        };
        if let Some(found) = self.find_before(wanted, self.stage_count) {
            return Ok(found);
        }
        if let Some(number) = wanted.parse::<usize>().ok().filter(|number| *number < self.stage_count) {
            return Ok(self.stood_for(number));
        }
        let error = Diagnostic::error(Span::default(), format!("there is no stage `{wanted}` to build"));
        let names: Vec<&str> = self.names.keys().map(String::as_str).collect();
        let error = match suggest::nearest(wanted, names.iter().copied()) {
            Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
            None => error,
        };
        Err(Box::new(match names.is_empty() {
            true => error.hint("no stage has a name; give one with `FROM image AS name`"),
            false => error.hint(format!("the stages are `{}`", names.join("`, `"))),
        }))
    }

    /// The first stage that declares or sets a variable.
    pub(super) fn stage_that_sets(&self, name: &str) -> Option<&str> {
        let sets = |step: &Step<'_>| match &step.instruction.command {
            Some(Command::Env(pairs)) => pairs.iter().any(|pair| pair.key.text == name),
            Some(Command::Arg(items)) => items.iter().any(|item| item.key.text == name),
            _ => false,
        };
        let mut stages = self.nodes[..self.stage_count].iter();
        stages.find(|node| node.steps.iter().any(sets)).map(|node| node.label.as_str())
    }

    /// The name of a stage that is nearly `name`.
    pub(super) fn similar_stage(&self, name: &str) -> Option<String> {
        suggest::nearest(name, self.names.keys().map(String::as_str)).map(str::to_owned)
    }

    /// Whether a node's image was probably meant for a stage above: its place, its name, and the stage's.
    pub(super) fn misspelt(&self, node: usize) -> Option<(Span, &str, &str)> {
        let Node { base: Base::Image(image), word, taker, .. } = &self.nodes[node] else { return None };
        let is_plain = image.len() > 3 && image.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !is_plain || KNOWN_IMAGES.contains(&image.as_str()) {
            return None;
        }
        let before = taker.unwrap_or(node);
        let above = self.names.iter().filter(|(_, stages)| stages[0] < before).map(|(name, _)| name.as_str());
        let nearest = suggest::nearest(&image.to_lowercase(), above)?;
        // `python` beside `python3` is meant.
        let letters = |name: &str| name.chars().filter(char::is_ascii_alphabetic).collect::<String>();
        (letters(image) != letters(nearest)).then_some((*word, image, nearest))
    }

    /// A node and everything it needs.
    pub(super) fn reachable(&self, target: usize) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut stack = vec![target];
        while let Some(node) = stack.pop() {
            if !seen.insert(node) {
                continue;
            }
            if let Base::Stage(base) = self.nodes[node].base {
                stack.push(base);
            }
            stack.extend(&self.nodes[node].after);
            let steps = &self.nodes[node].steps;
            stack.extend(
                steps.iter().flat_map(|step| step.from.into_iter().chain(step.mounts_from.iter().flatten().copied())),
            );
        }
        seen
    }

    /// Adds the triggers of bases until no more come up, or until a base has to be resolved first.
    pub(super) fn settle(&mut self, cx: &Context<'_>, target: usize, diagnostics: &mut Vec<Diagnostic>) -> Settled {
        loop {
            let reachable = self.reachable(target);
            let missing = reachable.iter().copied().filter(|node| cx.needs_image(&self.nodes[*node]));
            let missing: BTreeSet<usize> = missing.collect();
            if !missing.is_empty() {
                return Settled::Missing(missing);
            }
            let open: Vec<usize> =
                reachable.iter().copied().filter(|n| *n < self.stage_count && !self.nodes[*n].has_triggers).collect();
            if open.is_empty() {
                return Settled::Yes(reachable);
            }
            for node in open {
                self.add_triggers(cx, node, diagnostics);
            }
        }
    }

    /// Adds the triggers of all stages' bases, as far as the bases are known.
    pub(super) fn add_all_triggers(&mut self, cx: &Context<'a>, diagnostics: &mut Vec<Diagnostic>) {
        (0..self.stage_count).for_each(|node| self.add_triggers(cx, node, diagnostics));
    }

    fn add_triggers(&mut self, cx: &Context<'_>, node: usize, diagnostics: &mut Vec<Diagnostic>) {
        self.nodes[node].has_triggers = true;
        let triggers = match &self.nodes[node].base {
            Base::Stage(base) => self.nodes[*base].steps.iter().filter_map(Step::trigger_text).collect(),
            _ if self.nodes[node].is_replaced => Vec::new(),
            _ => cx.image(&self.nodes[node]).map(|image| image.config.config.on_build.clone()).unwrap_or_default(),
        };
        let span = self.nodes[node].span;
        let mut steps = Vec::new();
        for trigger in &triggers {
            let unreadable = |error: Diagnostic| {
                let message = format!("trigger `{}` of the base cannot be read: {}", excerpt(trigger), error.message);
                Diagnostic { message, span, fix: None, ..error }
            };
            match parse_trigger(trigger) {
                Ok(instruction) if matches!(instruction.command, Some(Command::From(_))) => {
                    diagnostics.push(unreadable(Diagnostic::error(span, "a stage cannot begin within another")));
                }
                Ok(instruction) => steps.push(Step::new(Cow::Owned(*instruction), Some(span))),
                Err(errors) => diagnostics.extend(errors.into_iter().map(unreadable)),
            }
        }
        self.nodes[node].total += steps.len();
        steps.append(&mut self.nodes[node].steps);
        self.nodes[node].steps = steps;
        self.link(cx, node, diagnostics);
    }
}

impl Node<'_> {
    fn new(base: Base, span: Span) -> Self {
        Self {
            name: None,
            label: String::new(),
            base,
            platform: None,
            after: Vec::new(),
            steps: Vec::new(),
            is_replaced: false,
            total: 0,
            span,
            has_triggers: false,
            word: span,
            taker: None,
        }
    }
}

impl<'a> Step<'a> {
    fn new(instruction: Cow<'a, Instruction>, trigger: Option<Span>) -> Self {
        Self { instruction, trigger, from: None, mounts_from: Vec::new(), is_linked: false }
    }

    /// Whether step names count it.
    fn counts(&self) -> bool {
        matches!(self.instruction.command, Some(Command::Run(_) | Command::Copy(_) | Command::Workdir(_)))
    }

    fn trigger_text(&self) -> Option<String> {
        match &self.instruction.command {
            Some(Command::Onbuild(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// Puts a finding about a trigger where the user can see it: at the `FROM` that brought it.
    pub(super) fn placed(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        if let Some(span) = self.trigger {
            diagnostic.span = span;
            // The base is not ours to change.
            diagnostic.fix = None;
            let text = excerpt(self.instruction.line.text().trim());
            diagnostic.hints.push(format!("this is about `ONBUILD {text}` of the base"));
        }
        diagnostic
    }
}

/// Images that people name without a tag, and that stages may nearly be called like.
const KNOWN_IMAGES: [&str; 26] = [
    "alpine", "busybox", "caddy", "centos", "composer", "debian", "docker", "fedora", "golang", "gradle", "haproxy",
    "httpd", "mariadb", "maven", "mongo", "mysql", "nginx", "node", "perl", "postgres", "python", "redis", "registry",
    "ruby", "rust", "ubuntu",
];

/// As much of a text that may be long as a message has room for.
fn excerpt(text: &str) -> Cow<'_, str> {
    const ROOM: usize = 200;
    let line = text.lines().next().unwrap_or_default();
    let end = line.char_indices().nth(ROOM).map_or(line.len(), |(at, _)| at);
    if end == text.len() { Cow::Borrowed(text) } else { Cow::Owned(format!("{}…", &line[..end])) }
}

/// The value of `from` in a mount, before variables are filled in.
fn mount_from(flag: &Word) -> Option<Word> {
    let fields = instruction::csv_fields(&flag.text).ok()?;
    fields.into_iter().rev().find_map(|field| {
        let (key, value) = field.text.split_once('=')?;
        let is_from = key.eq_ignore_ascii_case("from") && !value.is_empty();
        is_from.then(|| Word { text: value.to_owned(), span: flag.part(field.start, field.end) })
    })
}

fn platform(cx: &Context<'_>, word: &Word) -> Result<Platform, Box<Diagnostic>> {
    let expansion = cx.lexer.expand(&word.text, &cx.globals.env).map_err(|error| expand_failure(word, &error))?;
    let unset = expansion.uses.iter().find(|used| !used.is_set);
    let message = if expansion.text.is_empty() {
        format!("`--platform={}` names no platform", word.text)
    } else {
        match expansion.text.parse::<Platform>() {
            Ok(platform) => return Ok(platform),
            Err(error) => error.to_string(),
        }
    };
    let error = Diagnostic::error(word.span, message);
    let nearest = unset.and_then(|used| suggest::nearest(&used.name, crate::expand::Variables::names(&cx.globals.env)));
    Err(Box::new(match nearest {
        Some(nearest) => error.hint(format!("did you mean `${nearest}`?")),
        None => error,
    }))
}
