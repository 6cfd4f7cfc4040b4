//! A Dockerfile as rules look at it: stages with their instructions, steps with their scripts.

use std::collections::HashMap;

use kiln_dockerfile::instruction::{Command, From, Mount};
use kiln_dockerfile::{Dockerfile, Instruction};

use crate::script::{Script, Shell, scripts};
use crate::shell::Call;

/// A Dockerfile as rules look at it.
#[derive(Debug)]
pub struct View<'a> {
    /// The tree.
    pub file: &'a Dockerfile,
    /// What stands before the first `FROM`.
    pub preamble: Vec<&'a Instruction>,
    /// The stages, in order.
    pub stages: Vec<Stage<'a>>,
    /// The `RUN`s of all stages, in order.
    pub(crate) steps: Vec<Step<'a>>,
    /// The numbers of the stages of each name, in order.
    named: HashMap<String, Vec<usize>>,
}

/// A stage.
#[derive(Debug)]
pub struct Stage<'a> {
    /// Its `FROM`.
    pub from: &'a From,
    /// The instruction of its `FROM`.
    pub head: &'a Instruction,
    /// What follows, up to the next `FROM`.
    pub body: Vec<&'a Instruction>,
    /// The stage it is based on, if it is one of the file.
    pub base: Option<usize>,
    /// Whether its layers end in an image: it is the last one, the base of such a one, or nothing takes from it.
    pub ships: bool,
    /// The shell at its end.
    shell: Shell,
}

/// A `RUN`.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    /// The number of its stage.
    pub(crate) stage: usize,
    /// Its number among the stage's instructions.
    pub(crate) index: usize,
    pub(crate) instruction: &'a Instruction,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) scripts: Vec<Script<'a>>,
}

impl<'a> View<'a> {
    /// Sorts a file's instructions into stages and reads the scripts.
    pub fn of(file: &'a Dockerfile) -> Self {
        let mut view =
            Self { file, preamble: Vec::new(), stages: Vec::new(), steps: Vec::new(), named: HashMap::new() };
        for instruction in file.instructions() {
            match &instruction.command {
                Some(Command::From(from)) => view.begin(from, instruction),
                _ if view.stages.is_empty() => view.preamble.push(instruction),
                _ => view.add(instruction),
            }
        }
        view.mark_shipping();
        view
    }

    fn begin(&mut self, from: &'a From, head: &'a Instruction) {
        let base = self.stage(&from.image.text);
        let shell = match base {
            Some(base) => self.stages[base].shell,
            None if is_windows(self.file, from) => Shell::OTHER,
            None => Shell::DEFAULT,
        };
        if let Some(name) = from.stage_name() {
            self.named.entry(name).or_default().push(self.stages.len());
        }
        self.stages.push(Stage { from, head, body: Vec::new(), base, ships: false, shell });
    }

    fn add(&mut self, instruction: &'a Instruction) {
        let number = self.stages.len() - 1;
        let stage = &mut self.stages[number];
        match &instruction.command {
            Some(Command::Shell(words)) => stage.shell = Shell::of(words.iter().map(|word| word.text.as_str())),
            Some(Command::Run(run)) => self.steps.push(Step {
                stage: number,
                index: stage.body.len(),
                instruction,
                mounts: run.mounts.iter().filter_map(|flag| Mount::as_written(flag).ok()).collect(),
                scripts: scripts(instruction, run, stage.shell),
            }),
            _ => {}
        }
        stage.body.push(instruction);
    }

    fn mark_shipping(&mut self) {
        let mut is_used = vec![false; self.stages.len()];
        let mounted = self.steps.iter().flat_map(|step| {
            step.mounts.iter().filter_map(|mount| Some((step.stage, mount.from.as_ref()?.text.as_str())))
        });
        let copied = self.stages.iter().enumerate().flat_map(|(number, stage)| {
            stage.body.iter().filter_map(move |instruction| match &instruction.command {
                Some(Command::Copy(copy)) => Some((number, copy.from.as_ref()?.text.as_str())),
                _ => None,
            })
        });
        let bases = self.stages.iter().filter_map(|stage| stage.base);
        let taken = mounted.chain(copied).filter_map(|(number, name)| self.source(number, name));
        taken.chain(bases).collect::<Vec<_>>().into_iter().for_each(|number| is_used[number] = true);
        let last = self.stages.len().saturating_sub(1);
        for number in (0..self.stages.len()).rev() {
            self.stages[number].ships |= number == last || !is_used[number];
            if let Some(base) = self.stages[number].base.filter(|_| self.stages[number].ships) {
                self.stages[base].ships = true;
            }
        }
    }

    /// The last stage so far with a name, whatever its case.
    pub fn stage(&self, name: &str) -> Option<usize> {
        self.named.get(&name.to_lowercase())?.last().copied()
    }

    /// The stage that `--from` means in a stage: an earlier one, by name or by number.
    pub fn source(&self, stage: usize, name: &str) -> Option<usize> {
        let named = self.named.get(&name.to_lowercase());
        let before = named.and_then(|numbers| numbers[..numbers.partition_point(|number| *number < stage)].last());
        before.copied().or_else(|| name.parse().ok().filter(|number| *number < stage))
    }

    /// All instructions of all stages.
    pub fn instructions(&self) -> impl Iterator<Item = &'a Instruction> + '_ {
        self.stages.iter().flat_map(|stage| stage.body.iter().copied())
    }

    /// A stage and what it is based on, as far as the file has it; each with how many of its instructions count for a
    /// place in the first.
    pub(crate) fn lineage(&self, stage: usize, before: usize) -> impl Iterator<Item = &'a Instruction> + '_ {
        let stages = std::iter::successors(Some((stage, before)), |(stage, _)| {
            self.stages[*stage].base.map(|base| (base, self.stages[base].body.len()))
        });
        stages.flat_map(|(stage, before)| self.stages[stage].body[..before].iter().rev().copied())
    }

    /// From where on each stage has had an instruction of a kind, its bases included.
    pub(crate) fn since(&self, is_it: impl Fn(&Instruction) -> bool) -> Since {
        let mut firsts: Vec<Option<usize>> = Vec::new();
        for stage in &self.stages {
            let inherited = stage.base.and_then(|base| firsts[base]).map(|_| 0);
            let own = || stage.body.iter().position(|instruction| is_it(instruction)).map(|index| index + 1);
            firsts.push(inherited.or_else(own));
        }
        Since(firsts)
    }

    /// The value that `ENV` gives a variable at a place, quotes still in it.
    pub(crate) fn env(&self, step: &Step<'_>, name: &str) -> Option<&'a str> {
        self.lineage(step.stage, step.index).find_map(|instruction| match &instruction.command {
            Some(Command::Env(pairs)) => pairs.iter().rfind(|pair| pair.key.text == name).map(|pair| &*pair.value.text),
            _ => None,
        })
    }

    /// The steps of a stage.
    pub(crate) fn steps_of(&self, stage: usize) -> &[Step<'a>] {
        let start = self.steps.partition_point(|step| step.stage < stage);
        let length = self.steps[start..].partition_point(|step| step.stage == stage);
        &self.steps[start..start + length]
    }

    /// Every program that a step runs.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&Step<'a>, &Script<'a>, Call<'_>)> {
        self.steps.iter().flat_map(|step| {
            step.scripts.iter().flat_map(move |script| script.code.calls().map(move |call| (step, script, call)))
        })
    }
}

/// From where on stages have had an instruction of a kind.
pub(crate) struct Since(Vec<Option<usize>>);

impl Since {
    /// Whether one stands before an instruction of a stage.
    pub(crate) fn holds(&self, stage: usize, index: usize) -> bool {
        self.0[stage].is_some_and(|first| first <= index)
    }
}

impl Step<'_> {
    /// Whether a directory is outside of the layer: a mount covers it.
    pub(crate) fn covers(&self, dir: &str) -> bool {
        self.mounts.iter().any(|mount| {
            let target = mount.target.trim_end_matches('/');
            !target.is_empty() && dir.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// Whether a stage's default shell is that of Windows.
fn is_windows(file: &Dockerfile, from: &From) -> bool {
    let image = from.image.text.to_lowercase();
    let platform = from.platform.as_ref().is_some_and(|platform| platform.text.starts_with("windows"));
    file.escape == '`'
        || platform
        || ["/windows", "nanoserver", "servercore", "windowsservercore"].iter().any(|name| image.contains(name))
}
