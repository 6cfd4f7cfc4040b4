//! A file as a whole: what is wrong in any of its stages, as far as that is known without images, and which of them a
//! build needs.

use kiln_report::{Diagnostic, Span};

use super::plan::Plan;
use super::{Context, ImageFacts, LowerOptions, Lowerer, names};
use crate::check::rules;
use crate::parse::Dockerfile;

/// Lowers the stages a target needs, or all of them when no target is named, and says what is wrong and what may be.
/// Images are not asked about: what is only known with them is left out.
///
/// The file must be the one `options.source` was parsed into, and without errors.
pub fn survey(file: &Dockerfile, options: &LowerOptions) -> Vec<Diagnostic> {
    let (facts, mut errors) = (ImageFacts::new(), Vec::new());
    let cx = Context::new(file, options, &facts, &mut errors);
    let mut plan = Plan::new(&cx, &mut errors);
    let target = plan.target(options.target.as_deref()).map_err(|error| errors.push(*error));
    let Ok(target) = target else { return errors };
    if !errors.is_empty() || plan.stage_count == 0 {
        return errors;
    }
    plan.add_all_triggers(&cx, &mut errors);
    let nodes = match &options.target {
        Some(_) => plan.reachable(target),
        None => (0..plan.nodes.len()).collect(),
    };
    let mut all = Lowerer::new(&cx, &plan);
    all.lower_nodes(&nodes);
    names::warn_unused_build_args(&mut all, target);
    names::warn_misspelt_stages(&mut all, &nodes);
    errors.extend(all.errors);
    errors.extend(all.warnings);
    errors.sort_by_key(|finding| finding.span);
    errors.dedup();
    errors
}

/// The stages that a build needs.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// What stands below the `FROM` of stages that are not needed.
    unneeded: Vec<Span>,
}

impl Reach {
    /// The reach of the target, or of the last stage when none is named. All of the file when its stages are wrong.
    pub fn of(file: &Dockerfile, options: &LowerOptions) -> Self {
        let (facts, mut errors) = (ImageFacts::new(), Vec::new());
        let cx = Context::new(file, options, &facts, &mut errors);
        let plan = Plan::new(&cx, &mut errors);
        let Ok(target) = plan.target(options.target.as_deref()) else { return Self::default() };
        if !errors.is_empty() {
            return Self::default();
        }
        let reachable = plan.reachable(target);
        let body = |node: usize| {
            let end = plan.nodes[..plan.stage_count].get(node + 1).map_or(file.len, |next| next.span.start);
            Span::new(plan.nodes[node].span.end, end)
        };
        let unneeded = (0..plan.stage_count).filter(|node| !reachable.contains(node)).map(body).collect();
        Self { unneeded }
    }

    /// Whether a finding concerns the build. `FROM` lines and what is wrong with the text itself always do.
    pub fn covers(&self, finding: &Diagnostic) -> bool {
        let at = finding.span.start;
        let is_needed = || !self.unneeded.iter().any(|body| (body.start..body.end).contains(&at));
        finding.rule.is_some_and(|rule| OF_THE_TEXT.contains(&rule)) || is_needed()
    }
}

/// Rules about the text, whichever stage it is in.
const OF_THE_TEXT: [&str; 4] =
    [rules::NO_EMPTY_CONTINUATION, rules::CONSISTENT_CASING, rules::MAINTAINER, rules::DEFINITION_DESCRIPTION];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_report::SourceFile;

    use super::*;
    use crate::{CheckConfig, check, parse};

    fn options(text: &str, target: Option<&str>) -> LowerOptions {
        let source = Arc::new(SourceFile::new("Dockerfile", text));
        LowerOptions { target: target.map(str::to_owned), ..LowerOptions::new(source) }
    }

    /// Lines and rules of what a survey finds.
    fn found(text: &str, target: Option<&str>) -> Vec<(usize, &'static str)> {
        let (file, errors) = parse(text);
        assert!(errors.is_empty(), "{errors:?}");
        let line = |finding: &Diagnostic| text[..finding.span.start].split('\n').count();
        survey(&file, &options(text, target)).iter().map(|f| (line(f), f.rule.unwrap_or("error"))).collect()
    }

    const STAGES: &str = "FROM scratch AS one\nCOPY $a /\nFROM scratch AS two\nCOPY $b /\nFROM scratch AS three\n\
                          COPY --from=two /x /\nCOPY --chmod=9 x /\n";

    #[test]
    fn all_stages_are_surveyed_also_those_no_build_needs() {
        assert_eq!(found(STAGES, None), [(2, "UndefinedVar"), (4, "UndefinedVar"), (7, "error")]);
        assert_eq!(found(STAGES, Some("two")), [(4, "UndefinedVar")]);
        assert_eq!(found(STAGES, Some("three")), [(4, "UndefinedVar"), (7, "error")]);
        assert_eq!(found(STAGES, Some("four")), [(1, "error")]);
    }

    #[test]
    fn variables_of_an_unknown_base_are_only_told_when_they_are_surely_meant_otherwise() {
        let text = "ARG GLOBAL=1\nFROM golang:1\nENV PATH=$GOPATH/bin:$PATH\nARG SOURCE\nCOPY $SORUCE $OTHER/ /\nLABEL a=$GLOBAL\n";
        assert_eq!(found(text, None), [(5, "UndefinedVar"), (6, "UndefinedVar")]);
        assert_eq!(found(&text.replace("golang:1", "scratch"), None).len(), 4);
        let second = "FROM golang:1 AS base\nFROM base\nCOPY $GOPATH /\n";
        assert_eq!(found(second, None), []);
    }

    #[test]
    fn a_misspelt_stage_is_told_unless_the_name_is_a_context_s_an_image_s_or_far_from_all() {
        let names = |image: &str| {
            let text = format!("FROM busybox:1 AS build\nFROM busybox:1 AS nodes\nFROM {image}\n");
            let (file, _) = parse(&text);
            let mut options = options(&text, None);
            options.contexts.insert("buildx".to_owned(), crate::NamedContext::Local { name: "buildx".to_owned() });
            survey(&file, &options).into_iter().map(|found| (found.rule, found.hints)).collect::<Vec<_>>()
        };
        assert_eq!(names("biuld"), [(Some(rules::MISSPELT_STAGE), vec!["did you mean `build`?".to_owned()])]);
        for image in ["buildx", "build1", "node", "biuld:1", "me/biuld", "debian", "BUILD"] {
            assert_eq!(names(image), [], "{image}");
        }
    }

    #[test]
    fn a_variable_that_is_nearly_a_global_argument_is_met_with_both_steps() {
        let text = "ARG VERSION=1\nFROM busybox:1\nLABEL v=${VERSON}\n";
        let (file, _) = parse(text);
        let found = survey(&file, &options(text, None));
        let hints = ["did you mean `$VERSION`?", "declare it in this stage with `ARG VERSION`"];
        assert_eq!(found.iter().map(|finding| finding.hints.clone()).collect::<Vec<_>>(), [hints.map(str::to_owned)]);
    }

    #[test]
    fn findings_below_unneeded_stages_do_not_concern_a_build() {
        let text = "FROM scratch AS a\nENV b c\nFROM scratch as d\nMAINTAINER e\nCMD f\nFROM a\nENV g h\n";
        let (file, _) = parse(text);
        let reach = Reach::of(&file, &options(text, None));
        let findings = check(&file, &CheckConfig::default());
        let line = |finding: &Diagnostic| text[..finding.span.start].split('\n').count();
        let concerning: Vec<usize> = findings.iter().filter(|finding| reach.covers(finding)).map(line).collect();
        assert_eq!((findings.len(), concerning), (5, vec![2, 3, 4, 7]));
    }
}
