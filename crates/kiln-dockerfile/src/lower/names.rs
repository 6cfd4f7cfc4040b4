//! Names of steps as people see them, and what the command line says in vain.

use std::collections::BTreeSet;

use kiln_oci::Platform;
use kiln_report::{Diagnostic, without_credentials};

use super::globals::is_predefined;
use super::stage::Stage;
use super::{Lowerer, PlatformInNames};
use crate::check::rules;
use crate::expand::{Lexer, Variables};
use crate::instruction::Command;

/// Variables that are longer than this are not shown in names.
const MAX_GROWTH: usize = 16 << 10;

impl Stage<'_, '_, '_> {
    /// Names the next step: `[build 2/4] RUN go build`.
    pub(super) fn name_step(&mut self, text: &str) -> String {
        if self.node.total > 0 {
            self.named += 1;
        }
        self.name_same_step(text)
    }

    /// Names another part of the step that was named last.
    pub(super) fn name_same_step(&self, text: &str) -> String {
        let (text, total) = (without_credentials(text), self.node.total);
        if total == 0 {
            return text;
        }
        let mut name = "[".to_owned();
        let cx = self.all.cx;
        if cx.options.platform_in_names == PlatformInNames::Shown || cx.builtin.multi_platform {
            let is_begun = !self.state.platform.os.is_empty();
            let own = if is_begun { &self.state.platform } else { cx.platform(self.node) };
            name.push_str(&format!("{own}{} ", built_for(own, &self.state.env)));
        }
        if !self.node.label.is_empty() {
            name.push_str(&format!("{} ", self.node.label));
        }
        let width = total.ilog10() as usize + 1;
        let trigger = if self.is_trigger { "ONBUILD " } else { "" };
        name.push_str(&format!("{:width$}/{total}] {trigger}{text}", self.named));
        name
    }
}

/// `->arm64` when a step on one platform works for another.
fn built_for(own: &Platform, env: &dyn Variables) -> String {
    let named = env.value("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok());
    let part = |name| env.value(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let (os, architecture, variant) = (part("TARGETOS"), part("TARGETARCH"), part("TARGETVARIANT"));
    let parts = (os.is_some() || architecture.is_some() || variant.is_some()).then(|| Platform {
        os: os.unwrap_or_else(|| own.os.clone()),
        architecture: architecture.unwrap_or_else(|| own.architecture.clone()),
        variant,
        ..Platform::default()
    });
    let Some(target) = named.or(parts).map(Platform::normalized) else { return String::new() };
    match (target.os == own.os, target.architecture == own.architecture) {
        (true, true) => String::new(),
        (true, false) => match &target.variant {
            Some(variant) => format!("->{}/{variant}", target.architecture),
            None => format!("->{}", target.architecture),
        },
        (false, _) => format!("->{target}"),
    }
}

/// An instruction's text for its name: keyword in upper case, variables filled in as far as they are set.
pub(super) fn shown(lexer: Lexer, text: &str, env: &dyn Variables) -> String {
    let expansion = lexer.expand(text, env).ok().map(|expansion| expansion.text);
    let text = expansion.filter(|filled| filled.len() <= text.len() + MAX_GROWTH).unwrap_or_else(|| text.to_owned());
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// Warns about images that were probably meant for stages.
pub(super) fn warn_misspelt_stages(all: &mut Lowerer<'_, '_>, nodes: &BTreeSet<usize>) {
    let plan = all.plan;
    let found = nodes.iter().filter_map(|node| plan.misspelt(*node));
    let warnings: Vec<Diagnostic> =
        found.map(|(span, image, stage)| rules::misspelt_stage(image, stage, span)).collect();
    all.warnings.extend(warnings.into_iter().filter(|w| w.rule.is_none_or(|rule| all.cx.check.allows(rule, &[]))));
}

/// Warns about build arguments that no `ARG` declares.
pub(super) fn warn_unused_build_args(all: &mut Lowerer<'_, '_>, target: usize) {
    let declared: BTreeSet<&str> = all
        .plan
        .nodes
        .iter()
        .flat_map(|node| &node.steps)
        .filter_map(|step| match &step.instruction.command {
            Some(Command::Arg(items)) => Some(items),
            _ => None,
        })
        .flatten()
        .map(|item| item.key.text.as_str())
        .chain(all.cx.globals.declared.iter().map(String::as_str))
        .collect();
    let given = all.cx.options.build_args.keys();
    let unused = given.filter(|name| !declared.contains(name.as_str()) && !is_predefined(name));
    let span = all.plan.nodes[target].span;
    let warnings: Vec<Diagnostic> =
        unused.map(|name| rules::unused_build_arg(name, declared.iter().copied(), span)).collect();
    all.warnings.extend(warnings.into_iter().filter(|w| w.rule.is_none_or(|rule| all.cx.check.allows(rule, &[]))));
}
