//! Applies the fixes that findings bring, as long as each of them does what it says.

use std::collections::BTreeMap;

use kiln_report::{Diagnostic, Edit, Fix, Level, Safety, Span};

/// Which fixes may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consent {
    /// Those that change nothing about the image but what was surely meant.
    #[default]
    Safe,
    /// All.
    All,
}

impl Consent {
    /// Whether a fix may be made.
    pub fn allows(self, fix: &Fix) -> bool {
        self == Self::All || fix.safety == Safety::Safe
    }
}

/// What became of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The text.
    pub text: String,
    /// The fixes that were made, in the order they were.
    pub made: Vec<Made>,
    /// What is still found in it.
    pub left: Vec<Diagnostic>,
}

/// A fix that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The rule of the finding it mended.
    pub rule: Option<&'static str>,
    /// What it did.
    pub description: String,
}

/// A fix may bring up what another can mend, so findings are looked for again after each round.
const MOST_ROUNDS: usize = 10;
/// How often a text is looked at in all; beyond that, fixes that cannot be made together are not made.
const MOST_LOOKS: usize = 200;

/// Fixes a text. `find` gives the findings of a text, in any order.
///
/// Fixes that overlap are made one after the other. One that brings an error, or does not take its finding away, is not
/// made; its finding is still in [`Fixed::left`].
pub fn fix<E>(text: &str, consent: Consent, find: impl FnMut(&str) -> Result<Vec<Diagnostic>, E>) -> Result<Fixed, E> {
    let mut fixer = Fixer { find, looks: 0 };
    let mut fixed = Fixed { text: text.to_owned(), made: Vec::new(), left: fixer.look(text)? };
    for _ in 0..MOST_ROUNDS {
        let chosen = choose(&fixed.text, &fixed.left, consent);
        let base = State { text: &fixed.text, counts: Counts::of(&fixed.left) };
        let mut accepted = Vec::new();
        let mut after = None;
        fixer.accept(&base, &chosen, &mut accepted, &mut after)?;
        let Some((text, left)) = after else { break };
        let made = |finding: &&Diagnostic| {
            let description = finding.fix.as_ref().map(|fix| fix.description.clone()).unwrap_or_default();
            Made { rule: finding.rule, description }
        };
        let made: Vec<Made> = accepted.iter().map(made).collect();
        fixed.made.extend(made);
        (fixed.text, fixed.left) = (text, left);
    }
    Ok(fixed)
}

/// A text that fixes are applied to, and what is found in it.
struct State<'a> {
    text: &'a str,
    counts: Counts,
}

struct Fixer<F> {
    find: F,
    looks: usize,
}

impl<F> Fixer<F> {
    fn look<E>(&mut self, text: &str) -> Result<Vec<Diagnostic>, E>
    where
        F: FnMut(&str) -> Result<Vec<Diagnostic>, E>,
    {
        self.looks += 1;
        (self.find)(text)
    }

    /// Adds those of `chosen` to `accepted` that do what they say, trying all at once first and halves of them then.
    /// `after` is the text with what was accepted.
    fn accept<'f, E>(
        &mut self,
        base: &State<'_>,
        chosen: &[&'f Diagnostic],
        accepted: &mut Vec<&'f Diagnostic>,
        after: &mut Option<(String, Vec<Diagnostic>)>,
    ) -> Result<(), E>
    where
        F: FnMut(&str) -> Result<Vec<Diagnostic>, E>,
    {
        if chosen.is_empty() || self.looks >= MOST_LOOKS {
            return Ok(());
        }
        let all: Vec<&Diagnostic> = accepted.iter().chain(chosen).copied().collect();
        let text = applied(base.text, &all);
        let found = self.look(&text)?;
        if base.counts.are_mended(&Counts::of(&found), &all) {
            accepted.extend(chosen);
            *after = Some((text, found));
            return Ok(());
        }
        if let (half @ 1.., rest) = (chosen.len() / 2, chosen) {
            self.accept(base, &rest[..half], accepted, after)?;
            self.accept(base, &rest[half..], accepted, after)?;
        }
        Ok(())
    }
}

/// How many errors there are, and findings of each rule.
struct Counts {
    errors: usize,
    rules: BTreeMap<Option<&'static str>, usize>,
}

impl Counts {
    fn of(findings: &[Diagnostic]) -> Self {
        let mut counts = Self { errors: 0, rules: BTreeMap::new() };
        for finding in findings {
            *counts.rules.entry(finding.rule).or_default() += 1;
            counts.errors += usize::from(finding.level == Level::Error && finding.rule.is_none());
        }
        counts
    }

    /// Whether no error has come, and each fix has taken its finding away.
    fn are_mended(&self, after: &Self, fixes: &[&Diagnostic]) -> bool {
        let mut wanted = self.rules.clone();
        for finding in fixes {
            wanted.entry(finding.rule).and_modify(|count| *count = count.saturating_sub(1));
        }
        let is_mended = |finding: &&Diagnostic| {
            let count = |counts: &BTreeMap<_, usize>| counts.get(&finding.rule).copied().unwrap_or(0);
            count(&after.rules) <= count(&wanted)
        };
        after.errors <= self.errors && fixes.iter().all(is_mended)
    }
}

/// The findings with fixes that may be made, in the order of the text, without those that overlap an earlier one.
fn choose<'f>(text: &str, findings: &'f [Diagnostic], consent: Consent) -> Vec<&'f Diagnostic> {
    let has_fix = |finding: &&Diagnostic| {
        finding.fix.as_ref().is_some_and(|fix| consent.allows(fix) && is_sound(text, &fix.edits))
    };
    let mut candidates: Vec<&Diagnostic> = findings.iter().filter(has_fix).collect();
    candidates.sort_by_key(|finding| finding.span);
    // Where each edit that was taken begins, and where it ends.
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    candidates.retain(|finding| {
        let edits = || finding.fix.iter().flat_map(|fix| &fix.edits);
        let is_free = !edits().any(|edit| is_taken(&taken, edit.span));
        if is_free {
            taken.extend(edits().map(|edit| (edit.span.start, edit.span.end)));
        }
        is_free
    });
    candidates
}

/// Whether an edit touches one that was taken. Two insertions at one place would have no order.
fn is_taken(taken: &BTreeMap<usize, usize>, span: Span) -> bool {
    let before =
        taken.range(..=span.start).next_back().is_some_and(|(start, end)| *end > span.start || *start == span.start);
    let within = taken.range(span.start..span.end).next().is_some();
    before || within
}

/// Whether edits are within the text, at characters, and do not overlap.
fn is_sound(text: &str, edits: &[Edit]) -> bool {
    let mut spans: Vec<Span> = edits.iter().map(|edit| edit.span).collect();
    spans.sort();
    let overlap = spans.windows(2).any(|pair| pair[1].start < pair[0].end || pair[1] == pair[0]);
    !edits.is_empty() && !overlap && spans.iter().all(|span| text.get(span.range()).is_some())
}

/// The text with fixes applied, in the line breaks it has.
fn applied(text: &str, findings: &[&Diagnostic]) -> String {
    let mut edits: Vec<&Edit> =
        findings.iter().filter_map(|finding| finding.fix.as_ref()).flat_map(|f| &f.edits).collect();
    edits.sort_by_key(|edit| edit.span);
    let is_windows = text.matches("\r\n").count() * 2 > text.matches('\n').count();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for edit in edits {
        out.push_str(&text[at..edit.span.start]);
        match is_windows {
            true => out.push_str(&edit.text.replace('\n', "\r\n")),
            false => out.push_str(&edit.text),
        }
        at = edit.span.end;
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const RULE: &str = "Rule";

    fn finding(rule: &'static str, safety: Safety, edits: &[(usize, usize, &str)]) -> Diagnostic {
        let edit =
            |(start, end, text): &(usize, usize, &str)| Edit { span: Span::new(*start, *end), text: (*text).into() };
        let edits: Vec<Edit> = edits.iter().map(edit).collect();
        let span = edits[0].span;
        Diagnostic::warning(rule, span, "").fix(Fix { description: "do".into(), edits, safety })
    }

    /// One finding for each `a`, which becomes what `to` is.
    fn each_a(text: &str, to: &str) -> Vec<Diagnostic> {
        text.match_indices('a').map(|(at, _)| finding(RULE, Safety::Safe, &[(at, at + 1, to)])).collect()
    }

    fn run(text: &str, consent: Consent, find: impl Fn(&str) -> Vec<Diagnostic>) -> Fixed {
        fix(text, consent, |text| Ok::<_, Infallible>(find(text))).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn all_fixes_that_may_be_made_are_made() {
        let fixed = run("a-a", Consent::Safe, |text| each_a(text, "bb"));
        assert_eq!((fixed.text.as_str(), fixed.made.len(), fixed.left.len()), ("bb-bb", 2, 0));
        let risky = |text: &str| match text {
            "a" => vec![finding(RULE, Safety::Unsafe, &[(0, 1, "b")])],
            _ => Vec::new(),
        };
        assert_eq!(run("a", Consent::Safe, risky).left.len(), 1);
        assert_eq!(run("a", Consent::All, risky).text, "b");
    }

    #[test]
    fn fixes_that_overlap_are_made_one_after_the_other() {
        let find = |text: &str| -> Vec<Diagnostic> {
            let ab = text.find("ab").map(|at| finding("One", Safety::Safe, &[(at, at + 2, "xb")]));
            let b = text.find('b').map(|at| finding("Two", Safety::Safe, &[(at, at + 1, "y")]));
            ab.into_iter().chain(b).collect()
        };
        let fixed = run("ab", Consent::Safe, find);
        assert_eq!((fixed.text.as_str(), fixed.made.len()), ("xy", 2));
    }

    #[test]
    fn a_fix_that_does_not_do_what_it_says_is_not_made_and_keeps_no_other_from_it() {
        // `a` before `!` only becomes another `a`.
        let find = |text: &str| -> Vec<Diagnostic> {
            let to = |at: usize| if text[at + 1..].starts_with('!') { "aa" } else { "b" };
            text.match_indices('a').map(|(at, _)| finding(RULE, Safety::Safe, &[(at, at + 1, to(at))])).collect()
        };
        let fixed = run("a a a! a", Consent::Safe, find);
        assert_eq!((fixed.text.as_str(), fixed.made.len(), fixed.left.len()), ("b b a! b", 3, 1));
    }

    #[test]
    fn a_fix_that_brings_an_error_is_not_made() {
        let find = |text: &str| match text.contains('b') {
            true => vec![Diagnostic::error(Span::default(), "broken")],
            false => each_a(text, "b"),
        };
        assert_eq!(run("a", Consent::Safe, find).text, "a");
    }

    #[test]
    fn fixes_that_go_round_in_circles_come_to_an_end() {
        let find = |text: &str| match text {
            "a" => vec![finding("One", Safety::Safe, &[(0, 1, "b")])],
            _ => vec![finding("Two", Safety::Safe, &[(0, 1, "a")])],
        };
        assert_eq!(run("a", Consent::Safe, find).made.len(), MOST_ROUNDS);
        let mut looks = 0;
        let text = "a".repeat(1000);
        let fixed = fix(&text, Consent::Safe, |text| {
            looks += 1;
            Ok::<_, Infallible>(each_a(text, "aa"))
        });
        assert_eq!(fixed.map(|fixed| fixed.text), Ok(text));
        assert!(looks <= MOST_LOOKS, "{looks}");
    }

    #[test]
    fn edits_that_are_not_in_the_text_are_not_made() {
        for edits in [&[(0, 99, "")][..], &[(1, 2, "")], &[(0, 2, ""), (1, 3, "")], &[(0, 0, "x"), (0, 0, "y")]] {
            let fixed = run("éa", Consent::Safe, |_| vec![finding(RULE, Safety::Safe, edits)]);
            assert_eq!(fixed.text, "éa", "{edits:?}");
        }
    }

    #[test]
    fn lines_that_are_put_in_end_as_the_others_do() {
        let find = |text: &str| match text.starts_with('#') {
            true => Vec::new(),
            false => vec![finding(RULE, Safety::Safe, &[(0, 0, "#\n"), (1, 2, "")])],
        };
        assert_eq!(run("a b\r\n", Consent::Safe, find).text, "#\r\nab\r\n");
        assert_eq!(run("a b\n", Consent::Safe, find).text, "#\nab\n");
    }
}
