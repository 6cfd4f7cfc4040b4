//! A file as a whole: what is wrong in any of its stages, as far as that is known without images, and which of them a
//! build needs.

use kiln_report::{Diagnostic, Level, Span};

use super::plan::Plan;
use super::{Context, ImageFacts, LowerOptions, Lowerer, names};
use crate::check::rules;
use crate::parse::Dockerfile;

/// Lowers the stages a target needs, or all of them when no target is named, and says what is wrong and what may be.
/// Images are not asked about: what is only known with them is left out.
///
/// The file must be the one `options.source` was parsed into, and without errors.
pub fn survey(file: &Dockerfile, options: &LowerOptions) -> Vec<Diagnostic> {
    find(file, options, Breadth::All)
}

/// How many stages are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// All, unless a target is named.
    All,
    /// Those that the target needs.
    Needed,
}

/// All that is wrong with a file that is not right: the errors that [`parse`](crate::parse) has `told`, and those of
/// the instructions that could be read. What may only follow from those that could not be is left out.
///
/// The file must be the one `options.source` was parsed into.
pub fn all_errors(
    file: &Dockerfile,
    options: &LowerOptions,
    told: Vec<Diagnostic>,
    breadth: Breadth,
) -> Vec<Diagnostic> {
    let mut errors = told;
    errors.sort_by_key(|error| error.span);
    // The end of the furthest of the first so many.
    let reached = errors.iter().scan(0, |end, error| {
        *end = error.span.end.max(*end);
        Some(*end)
    });
    let reached: Vec<usize> = reached.collect();
    let is_told = |span: Span| {
        let before = errors.partition_point(|error| error.span.start < span.end);
        before.checked_sub(1).is_some_and(|last| reached[last] > span.start)
    };
    let mut more = find(file, options, breadth);
    more.retain(|error| error.level == Level::Error && !is_told(error.span));
    errors.extend(more);
    errors.sort_by_key(|error| error.span);
    errors.dedup();
    errors
}

fn find(file: &Dockerfile, options: &LowerOptions, breadth: Breadth) -> Vec<Diagnostic> {
    let (facts, mut errors) = (ImageFacts::new(), Vec::new());
    let cx = Context::new(file, options, &facts, &mut errors);
    let mut plan = Plan::new(&cx, &mut errors);
    if plan.stage_count == 0 {
        return errors;
    }
    let target = match plan.target(options.target.as_deref()) {
        Ok(target) => Some(target),
        // It may be one of those whose name is lost.
        Err(_) if plan.has_lost_names => None,
        Err(error) => {
            errors.push(*error);
            return errors;
        }
    };
    plan.add_all_triggers(&cx, &mut errors);
    let nodes = match target {
        Some(target) if options.target.is_some() || breadth == Breadth::Needed => plan.reachable(target),
        _ => (0..plan.nodes.len()).collect(),
    };
    let mut all = Lowerer::new(&cx, &plan);
    all.lower_nodes(&nodes);
    names::warn_unused_build_args(&mut all, target.unwrap_or(0));
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

    /// Lines of all that is wrong with a file that cannot be read.
    fn wrong(text: &str) -> Vec<usize> {
        let (file, told) = parse(text);
        assert!(!told.is_empty());
        let line = |error: &Diagnostic| text[..error.span.start].split('\n').count();
        all_errors(&file, &options(text, None), told, Breadth::Needed).iter().map(line).collect()
    }

    #[test]
    fn what_can_be_read_of_a_broken_file_is_looked_at_too() {
        assert_eq!(wrong("FROM scratch\nCOPY --lnik a /\nCOPY --chmod=999 a /\nCOPY --from=7 a /\n"), [2, 3, 4]);
        assert_eq!(wrong("FROM scratch\nRUN --netwrok=none --mount=type=bnid --mount=tagret=/x x\n"), [2, 2, 2]);
        assert_eq!(wrong("FORM scratch AS a\nEXPOSE x\nFROM a\nCOPY --from=a --chmod=9 b /\n"), [1, 2, 4]);
        assert_eq!(wrong("FROM scratch AS 1a\nEXPOSE x y\nFROM scratch\nCOPY --from=3 b /\n"), [1, 4]);
    }

    #[test]
    fn what_may_only_follow_from_what_could_not_be_read_is_not_told() {
        for text in [
            "FROM scratch\nENV A\nVOLUME $A\nSTOPSIGNAL $A\nRUN --mount=type=tmpfs,target=$A x\n",
            "FROM scratch\nAGR A\nVOLUME $A\n",
            "AGR A=scratch\nFROM $A\nCOPY --from=$A a /\n",
            "ARG =1\nFROM --platform=$B scratch\n",
            "FROM scratch a b\nFROM --after=b scratch\n",
            "FROM scratch\nRUN --mount=from=$A,target=/b x\n",
            "FROM scratch\nWORKDIR\nRUN --mount=type=tmpfs,target=. x\n",
        ] {
            assert_eq!(wrong(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn errors_of_stages_that_no_build_needs_are_left_out_where_only_what_is_needed_counts() {
        let text = "FROM scratch AS a\nEXPOSE x\nFROM scratch\nCOPY --lnik a /\n";
        assert_eq!(wrong(text), [4]);
        let (file, told) = parse(text);
        assert_eq!(all_errors(&file, &options(text, None), told, Breadth::All).len(), 2);
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
