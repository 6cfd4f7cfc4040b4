//! What must stand in a file at all, and what must come first.

use kiln_report::{Diagnostic, Span};

use super::{Dockerfile, Instruction};
use crate::instruction::{Command, Keyword};

/// A file without instructions is none.
pub(super) fn check_any(file: &Dockerfile) -> Option<Diagnostic> {
    if file.instructions().next().is_some() {
        return None;
    }
    Some(Diagnostic::error(Span::default(), "the Dockerfile has no instructions").hint(BEGIN))
}

const BEGIN: &str = "begin with `FROM image` or `FROM scratch`";

/// The first stage begins with `FROM`; only `ARG` may stand before it.
pub(super) fn check(file: &Dockerfile) -> Vec<Diagnostic> {
    if let Some(diagnostic) = check_any(file) {
        return vec![diagnostic];
    }
    // A word that is no instruction may be meant as one; that is told already.
    let is_from = |instruction: &&Instruction| instruction.meant_keyword() == Some(Keyword::From);
    let early = file.instructions().take_while(|instruction| !is_from(instruction));
    let early = early.filter(|i| !matches!(i.command, Some(Command::Arg(_)) | None));
    let mut diagnostics: Vec<Diagnostic> = early.map(too_early).collect();
    let is_known = |instruction: &Instruction| Keyword::of(&instruction.keyword.text).is_some();
    if file.instructions().all(is_known) && !file.instructions().any(|instruction| is_from(&instruction)) {
        diagnostics.push(Diagnostic::error(Span::default(), "the Dockerfile has no FROM").hint(BEGIN));
    }
    diagnostics
}

fn too_early(instruction: &Instruction) -> Diagnostic {
    let message = format!("`{}` stands before the first FROM", instruction.keyword.text);
    let hint = "only ARG may stand there; move this below a FROM";
    Diagnostic::error(instruction.keyword.span, message).hint(hint)
}
