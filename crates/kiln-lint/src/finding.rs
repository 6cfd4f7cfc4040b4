//! The findings so far.

use kiln_dockerfile::Instruction;
use kiln_report::{Diagnostic, Fix, Span};

use crate::rule::Rule;
use crate::settings::Settings;
use crate::view::View;

/// The findings so far.
#[derive(Debug)]
pub struct Findings<'a> {
    settings: &'a Settings,
    rule: Option<&'static Rule>,
    all: Vec<Diagnostic>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        Self { settings, rule: None, all: Vec::new() }
    }

    pub(crate) fn run(&mut self, rule: &'static Rule, view: &View<'_>) {
        self.rule = Some(rule);
        (rule.check)(view, self);
    }

    pub(crate) fn into_all(self) -> Vec<Diagnostic> {
        self.all
    }

    /// What the file is checked against.
    pub fn settings(&self) -> &'a Settings {
        self.settings
    }

    /// Keeps a finding of the running rule, with its way out. Whether it is wanted is seen at the end, for all rules alike.
    pub fn report(
        &mut self,
        instruction: &Instruction,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let Some(rule) = self.rule else { return };
        // A finding belongs to its instruction, whose comments may switch it off.
        let span = if instruction.span.range().contains(&span.start) { span } else { instruction.span };
        let mut finding = Diagnostic::warning(rule.name, span, message).hint(hint);
        finding.level = rule.level;
        self.all.push(finding);
    }

    /// Keeps a finding about what is in no instruction.
    pub(crate) fn report_comment(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        let Some(rule) = self.rule else { return };
        let finding = Diagnostic::warning(rule.name, span, message).hint(hint);
        self.all.push(Diagnostic { level: rule.level, ..finding });
    }

    /// Adds a change that mends what was reported last.
    pub fn mend(&mut self, fix: impl Into<Option<Fix>>) {
        if let Some(last) = self.all.last_mut() {
            last.fix = fix.into();
        }
    }
}
