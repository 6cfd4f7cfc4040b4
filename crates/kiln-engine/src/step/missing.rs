//! Why a step cannot read a path: it is ignored, misspelt, missing, or in trouble.

use kiln_report::{Failure, FailureKind};

use super::Opened;
use crate::base::MORE;

/// What to do when a context changes under a build.
pub(crate) const QUIET: &str = "build again when nothing writes to the build context any more";

/// What a step does with a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doing<'a> {
    verb: &'static str,
    src: &'a str,
    dest: &'a str,
}

impl<'a> Doing<'a> {
    /// `COPY` and `ADD`.
    pub(super) fn copy(src: &'a str, dest: &'a str) -> Self {
        Self { verb: "copy", src, dest }
    }

    /// `RUN --mount`.
    pub(super) fn mount(src: &'a str, dest: &'a str) -> Self {
        Self { verb: "mount", src, dest }
    }

    /// Why it cannot be done.
    pub(super) fn failure(self, error: &kiln_fs::Error, opened: &Opened) -> Failure {
        if let kiln_fs::Error::NotFound { path, ignored_by, similar } = error {
            return self.not_found(path, ignored_by.as_ref(), similar, opened);
        }
        let mut failure = Failure::from_error(FailureKind::Build, error);
        failure.causes.insert(0, failure.message);
        failure.message = format!("cannot {} `{}` to `{}`", self.verb, self.src, self.dest);
        match error {
            kiln_fs::Error::ChangedWhileRead { .. } => failure.hint(QUIET),
            kiln_fs::Error::Unpack { source, .. } if source.is_too_much() => failure.hint(MORE),
            _ => failure,
        }
    }

    fn not_found(
        self,
        path: &str,
        ignored_by: Option<&(usize, String)>,
        similar: &[String],
        opened: &Opened,
    ) -> Failure {
        let verb = self.verb;
        let place = match opened {
            Opened::Tree(tree) => tree.title(),
            Opened::Snapshot(_) => "the stage or image it is taken from".into(),
        };
        // Paths are absolute in a graph, and relative to the context in the eyes of whoever wrote them.
        let shown = match opened {
            Opened::Tree(_) => path.trim_start_matches('/'),
            Opened::Snapshot(_) => path,
        };
        let missing = |why: &str| Failure::new(FailureKind::Build, format!("cannot {verb} `{shown}`: {why}"));
        match (ignored_by, opened) {
            (Some((index, pattern)), Opened::Tree(tree)) => {
                let rule = tree.rule(*index).map_or_else(String::new, |rule| format!(" at {}", rule.place));
                missing(&format!("it is left out of {place} by the pattern `{pattern}`{rule}"))
                    .hint("remove or narrow the pattern, or take files back in with `!` below it")
            }
            _ if similar.is_empty() => {
                missing(&format!("it is not in {place}")).hint(format!("check the path; paths are relative to {place}"))
            }
            _ => missing(&format!("it is not in {place}")).hint(format!("did you mean {}?", quoted(similar))),
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}
