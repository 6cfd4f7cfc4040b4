//! A Dockerfile as rules look at it: stages with their instructions.

use kiln_dockerfile::instruction::{Command, From};
use kiln_dockerfile::{Dockerfile, Instruction};

/// A Dockerfile as rules look at it.
#[derive(Debug)]
pub struct View<'a> {
    /// The tree.
    pub file: &'a Dockerfile,
    /// What stands before the first `FROM`.
    pub preamble: Vec<&'a Instruction>,
    /// The stages, in order.
    pub stages: Vec<Stage<'a>>,
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
}

impl<'a> View<'a> {
    /// Sorts a file's instructions into stages.
    pub fn of(file: &'a Dockerfile) -> Self {
        let mut view = Self { file, preamble: Vec::new(), stages: Vec::new() };
        for instruction in file.instructions() {
            match (&instruction.command, view.stages.last_mut()) {
                (Some(Command::From(from)), _) => {
                    let base = view.stage(&from.image.text);
                    view.stages.push(Stage { from, head: instruction, body: Vec::new(), base });
                }
                (_, Some(stage)) => stage.body.push(instruction),
                (_, None) => view.preamble.push(instruction),
            }
        }
        view
    }

    /// The last stage so far with a name, whatever its case.
    pub fn stage(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.stages.iter().rposition(|stage| stage.from.stage_name().is_some_and(|stage| stage == name))
    }

    /// All instructions of all stages.
    pub fn instructions(&self) -> impl Iterator<Item = &'a Instruction> + '_ {
        self.stages.iter().flat_map(|stage| stage.body.iter().copied())
    }
}
