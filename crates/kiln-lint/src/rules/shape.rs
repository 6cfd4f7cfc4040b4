//! The shape of a file: what it lacks, and what could be one.

use kiln_dockerfile::Instruction;
use kiln_dockerfile::instruction::{Command, Run};
use kiln_report::{Level, Span};

use crate::finding::Findings;
use crate::rule::{Rule, Scope};
use crate::view::View;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "HealthcheckMissing",
        aliases: &["DL3057"],
        level: Level::Info,
        scope: Scope::Asked,
        summary: "the image does not say how its health is checked",
        why: "With a HEALTHCHECK, Docker and Swarm know a hanging program from a working one. Kubernetes does not read it, and a \
              base image may have one, so the rule only runs where it is given a level.",
        bad: "FROM debian:12\nCMD [\"server\"]\n",
        good: "FROM debian:12\nHEALTHCHECK CMD [\"check-health\"]\nCMD [\"server\"]\n",
        check: healthcheck,
    },
    Rule {
        name: "ConsecutiveRuns",
        aliases: &["DL3059"],
        level: Level::Info,
        scope: Scope::Check,
        summary: "several RUNs stand one after the other and could be one",
        why: "Each RUN makes a layer, and what one leaves behind a later one cannot take back. Steps that always change together \
              are better one; those that change at different times are better apart, for the cache. A comment between them \
              says that it is on purpose.",
        bad: "FROM debian:12\nRUN ./configure\nRUN make\nRUN make install\n",
        good: "FROM debian:12\nRUN ./configure && make && make install\n",
        check: consecutive,
    },
];

fn healthcheck(view: &View<'_>, findings: &mut Findings<'_>) {
    let Some(last) = view.stages.len().checked_sub(1) else { return };
    let stage = &view.stages[last];
    let has_one = view.lineage(last, stage.body.len()).any(|i| matches!(i.command, Some(Command::Healthcheck(_))));
    if !has_one {
        let message = "nothing says how the health of this image is checked";
        findings.report(stage.head, stage.from.image.span, message, "add `HEALTHCHECK CMD …`, or `HEALTHCHECK NONE`");
    }
}

fn consecutive(view: &View<'_>, findings: &mut Findings<'_>) {
    for stage in view.stages.iter().filter(|stage| stage.ships) {
        for row in stage.body.chunk_by(|a, b| could_be_one(a, b)).filter(|row| row.len() > 1) {
            let message = format!("{} RUNs in a row make {} layers", row.len(), row.len());
            let span = Span::new(row[1].keyword.span.start, row[1].keyword.span.end);
            findings.report(
                row[1],
                span,
                message,
                "join them with `&&`, or put a comment between them that says why not",
            );
        }
    }
}

fn could_be_one(a: &Instruction, b: &Instruction) -> bool {
    let (Some(Command::Run(first)), Some(Command::Run(second))) = (&a.command, &b.command) else { return false };
    let flags = |run: &Run| (run.mounts.len(), run.network.is_some(), run.security.is_some());
    let is_plain = |run: &Run| flags(run) == (0, false, false) && run.devices.is_empty();
    is_plain(first)
        && is_plain(second)
        && first.command.form == second.command.form
        && b.comments.is_empty()
        && a.heredocs.is_empty()
        && b.heredocs.is_empty()
}
