//! Advises how a Dockerfile could make fewer steps run again. Only what the build at hand has shown, and only what is
//! certain.

mod install;

use std::collections::BTreeSet;

use kiln_dockerfile::instruction::Keyword;
use kiln_dockerfile::{Dockerfile, Instruction, parse};
use kiln_lint::View;
use kiln_report::SourceFile;
use kiln_solver::{Became, Fate, FileChange, MissReason};
use serde::Serialize;

use super::story::followed;
use crate::record::{BuildRecord, StepRecord};
use install::install;

/// A way to have fewer steps run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What to do, and why.
    pub text: String,
    /// The line of the Dockerfile it is about.
    pub line: usize,
    /// How long the steps took that would not have run.
    pub milliseconds: u64,
}

/// What the build shows to be better done otherwise, the most expensive first.
pub(super) fn advise(build: &BuildRecord, reasons: &[Option<MissReason>]) -> Vec<Advice> {
    let source = SourceFile::new("Dockerfile", build.dockerfile.as_str());
    let (file, _) = parse(&build.dockerfile);
    let steps = Steps { build, reasons, stages: stages(&file, &source) };
    let mut advice = steps.variables();
    advice.extend(steps.copies());
    advice.sort_by_key(|advice| std::cmp::Reverse(advice.milliseconds));
    advice
}

/// An instruction as advice looks at it.
struct Line<'a> {
    keyword: Option<Keyword>,
    text: &'a str,
    first: usize,
    last: usize,
}

/// The stages, each with its instructions after `FROM`.
fn stages<'a>(file: &Dockerfile, source: &'a SourceFile) -> Vec<Vec<Line<'a>>> {
    let line = |instruction: &&Instruction| {
        let span = instruction.span;
        Some(Line {
            keyword: Keyword::of(&instruction.keyword.text),
            text: source.text().get(span.range())?,
            first: source.position(span.start).0,
            last: source.position(span.end.max(span.start + 1) - 1).0,
        })
    };
    View::of(file).stages.iter().map(|stage| stage.body.iter().filter_map(line).collect()).collect()
}

/// What ran, and the text it was made of.
struct Steps<'a> {
    build: &'a BuildRecord,
    reasons: &'a [Option<MissReason>],
    stages: Vec<Vec<Line<'a>>>,
}

impl Steps<'_> {
    /// Steps that ran, with why.
    fn ran(&self) -> impl Iterator<Item = (&StepRecord, &MissReason)> {
        let steps = self.build.steps.iter().zip(self.reasons).filter(|(step, _)| step.fate == Fate::Ran);
        steps.filter_map(|(step, reason)| Some((step, reason.as_ref()?)))
    }

    /// Variables that stand above steps which never name them.
    fn variables(&self) -> Vec<Advice> {
        let mut seen: Vec<&MissReason> = Vec::new();
        let mut advice = Vec::new();
        for (_, reason) in self.ran() {
            let variable = |reason: &'_ MissReason| match reason {
                MissReason::ArgChanged(change) => Some((Keyword::Arg, change.name.clone())),
                MissReason::EnvChanged(change) => Some((Keyword::Env, change.name.clone())),
                _ => None,
            };
            let Some(variables) = reason.each().iter().map(variable).collect::<Option<Vec<_>>>() else { continue };
            if !seen.contains(&reason) {
                seen.push(reason);
                advice.extend(self.stages.iter().filter_map(|stage| self.moved(stage, &variables, reason)));
            }
        }
        advice
    }

    /// What to say of variables of one stage, when steps below all of them, and above the first use of any, ran because
    /// of them: to move one of several down would spare nothing.
    fn moved(&self, stage: &[Line<'_>], variables: &[(Keyword, String)], reason: &MissReason) -> Option<Advice> {
        let declares = |line: &Line<'_>, (keyword, name): &(Keyword, String)| {
            line.keyword == Some(*keyword) && mentions(line.text, name)
        };
        let lines = variables.iter().map(|variable| stage.iter().position(|line| declares(line, variable)));
        let lines: Vec<usize> = lines.collect::<Option<_>>()?;
        let below = &stage[lines.iter().max()? + 1..];
        let is_use = |line: &&Line<'_>, (at, (_, name)): (&usize, &(Keyword, String))| {
            line.first > stage[*at].last && mentions(line.text, name)
        };
        let first_use = stage.iter().find(|line| lines.iter().zip(variables).any(|variable| is_use(line, variable)));
        let end = first_use.map_or(usize::MAX, |line| line.first);
        let is_of_stage = |step: &StepRecord| {
            below.iter().any(|line| Some(line.first) == step.lines.map(|lines| lines.0) && line.first < end)
        };
        let busted: Vec<&StepRecord> =
            self.ran().filter(|(step, why)| *why == reason && is_of_stage(step)).map(|(step, _)| step).collect();
        if busted.is_empty() {
            return None;
        }
        let declared: Vec<(String, usize)> = variables
            .iter()
            .zip(&lines)
            .map(|((keyword, name), at)| (format!("{} {name}", keyword.name()), stage[*at].first))
            .collect();
        let used = first_use.map(|line| line.first);
        let text = match declared.as_slice() {
            [(what, line)] => format!("`{what}` (line {line}) {}", one_way(busted.len(), &variables[0].1, used)),
            all => {
                let all: Vec<String> = all.iter().map(|(what, line)| format!("`{what}` (line {line})")).collect();
                format!("{} together {}", all.join(", "), common_way(busted.len(), used))
            }
        };
        Some(Advice { text, line: declared.first()?.1, milliseconds: total(&busted) })
    }

    /// Copies of the whole context before what installs dependencies, and copies of what no step needs.
    fn copies(&self) -> Vec<Advice> {
        let mut advice = Vec::new();
        for (at, step) in self.build.steps.iter().enumerate() {
            let Some(MissReason::FilesChanged { files, count, .. }) = &self.reasons[at] else { continue };
            if step.fate != Fate::Ran || files.is_empty() || files.len() != *count {
                continue;
            }
            let Some((stage, line)) = self.line_of(step).filter(|(_, line)| copies_everything(line)) else { continue };
            if let Some(names) = self.about_the_build(files) {
                let milliseconds = total(&self.followers(at));
                let text = leave_out(&names, line.first);
                advice.extend(text.map(|text| Advice { text, line: line.first, milliseconds }));
                continue;
            }
            for follower in self.followers(at) {
                let below = stage.iter().find(|below| Some(below.first) == follower.lines.map(|lines| lines.0));
                let below = below.filter(|below| below.first > line.last && below.keyword == Some(Keyword::Run));
                let Some((below, install)) = below.and_then(|below| Some((below, install(below.text)?))) else {
                    continue;
                };
                if !files.iter().any(|file| install.reads(&file.path)) {
                    let text = install.advice(line.text.trim(), line.first, below.first);
                    advice.push(Advice { text, line: line.first, milliseconds: total(&[follower]) });
                }
            }
        }
        advice
    }

    /// The instruction a step was made of, and its stage.
    fn line_of(&self, step: &StepRecord) -> Option<(&[Line<'_>], &Line<'_>)> {
        let (first, _) = step.lines?;
        self.stages.iter().find_map(|stage| Some((stage.as_slice(), stage.iter().find(|line| line.first == first)?)))
    }

    /// The steps that ran only because one did.
    fn followers(&self, cause: usize) -> Vec<&StepRecord> {
        let steps = &self.build.steps;
        let mut is_of_it = vec![false; steps.len()];
        is_of_it[cause] = true;
        for (at, step) in steps.iter().enumerate() {
            let input = self.reasons[at].as_ref().and_then(|reason| followed(steps, step, reason));
            is_of_it[at] |= step.fate == Fate::Ran && input.is_some_and(|input| is_of_it[input]);
        }
        steps.iter().enumerate().filter(|(at, _)| *at != cause && is_of_it[*at]).map(|(_, step)| step).collect()
    }

    /// What of the context changed, if all of that is about the build and not for it. What is gone is left out already.
    fn about_the_build(&self, files: &[FileChange]) -> Option<Vec<String>> {
        let dockerfile = self.build.target.dockerfile.as_str();
        let ignored = [".dockerignore", ".containerignore"];
        let name_of = |file: &FileChange| match file.path.as_str() {
            path if path.starts_with(".git/") => Some((".git".to_owned(), file.became)),
            path if path == dockerfile || ignored.contains(&path) => Some((path.to_owned(), file.became)),
            _ => None,
        };
        let names = files.iter().map(name_of).collect::<Option<Vec<_>>>()?;
        let here = names.into_iter().filter(|(_, became)| *became != Became::Removed);
        Some(here.map(|(name, _)| name).collect::<BTreeSet<String>>().into_iter().collect())
    }
}

/// What to say of these names. What was just edited by hand would have been edited anyway: that alone is no reason.
fn leave_out(names: &[String], line: usize) -> Option<String> {
    let names = names.iter().any(|name| name == ".git").then(|| names.join("`, `"))?;
    Some(format!("all that changed for the copy of line {line} is `{names}`: leave it out with `.dockerignore`"))
}

/// What to do with a variable that steps do not name.
fn one_way(steps: usize, name: &str, used: Option<usize>) -> String {
    let way = match used {
        Some(line) => format!("move it down to line {line}, where `{name}` is first used"),
        None => "nothing below names it: remove it, or move it down to the step whose program reads it".to_owned(),
    };
    format!("makes {} run that never name it: {way}", counted(steps))
}

/// What to do with several.
fn common_way(steps: usize, used: Option<usize>) -> String {
    let way = match used {
        Some(line) => format!("move all of them down to line {line}, where the first is used"),
        None => {
            "nothing below names them: remove them, or move them down to the step whose program reads them".to_owned()
        }
    };
    format!("make {} run that name none of them: {way}", counted(steps))
}

fn counted(steps: usize) -> String {
    if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") }
}

fn total(steps: &[&StepRecord]) -> u64 {
    steps.iter().map(|step| u64::try_from(step.time.as_millis()).unwrap_or(u64::MAX)).sum()
}

/// Whether a text names a variable.
fn mentions(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_whole =
        |(at, _): (usize, &str)| !text[..at].ends_with(is_word) && !text[at + name.len()..].starts_with(is_word);
    !name.is_empty() && text.match_indices(name).any(is_whole)
}

/// Whether an instruction copies all of the context.
fn copies_everything(line: &Line<'_>) -> bool {
    let mut words = line.text.split_whitespace().skip(1).skip_while(|word| word.starts_with("--"));
    let is_from = line.text.split_whitespace().any(|word| word.starts_with("--from"));
    let sources: Vec<&str> = words.by_ref().collect();
    let is_whole = matches!(sources.split_last(), Some((_, [source])) if matches!(*source, "." | "./" | "/"));
    matches!(line.keyword, Some(Keyword::Copy | Keyword::Add)) && is_whole && !is_from
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::story::tests::{arg, build, files, follows, step};

    fn advice(dockerfile: &str, steps: Vec<StepRecord>) -> Vec<String> {
        let mut build = build("x", &steps);
        build.dockerfile = dockerfile.to_owned();
        let reasons: Vec<_> = build.steps.iter().map(|step| step.reason.clone()).collect();
        let shown = |advice: Advice| format!("{} [{} ms]", advice.text, advice.milliseconds);
        advise(&build, &reasons).into_iter().map(shown).collect()
    }

    #[test]
    fn a_variable_above_steps_that_never_name_it_goes_down() {
        let dockerfile = "FROM a\nARG SHA\nRUN one\nCOPY x /x\nRUN two\nLABEL sha=$SHA\nRUN three\n";
        let steps = || vec![step(3, arg("SHA")), step(5, arg("SHA")), step(7, arg("SHA"))];
        assert_eq!(
            advice(dockerfile, steps()),
            [
                "`ARG SHA` (line 2) makes 2 steps run that never name it: move it down to line 6, where `SHA` is first used [200 ms]"
            ]
        );
        assert_eq!(advice(&dockerfile.replace("RUN one", "RUN one ${SHA:-1}"), steps()), [""; 0], "it is used at once");
        assert_eq!(advice(&dockerfile.replace("RUN one", "RUN one $SHAPE"), steps()).len(), 1);
        let unused = advice(&dockerfile.replace("LABEL sha=$SHA", "LABEL a=b"), steps());
        assert!(unused[0].contains("3 steps run that never name it: nothing below names it"), "{unused:?}");
        assert_eq!(advice(&dockerfile.replace("ARG SHA", "ARG OTHER"), steps()), [""; 0], "it is declared elsewhere");
        assert_eq!(advice(dockerfile, vec![step(7, arg("SHA"))]), [""; 0]);
        let mut found = step(3, arg("SHA"));
        found.fate = Fate::Cached;
        assert_eq!(advice(dockerfile, vec![found]), [""; 0]);
    }

    #[test]
    fn variables_that_changed_together_are_advised_together() {
        let dockerfile = "FROM a\nARG A\nARG B\nRUN one\nRUN two $B\nRUN three $A\n";
        let both = || MissReason::Several(vec![arg("A"), arg("B")]);
        let steps = |reason: MissReason| vec![step(4, reason.clone()), step(5, reason.clone()), step(6, reason)];
        assert_eq!(
            advice(dockerfile, steps(both())),
            [
                "`ARG A` (line 2), `ARG B` (line 3) together make 1 step run that name none of them: move all of them down to \
                 line 5, where the first is used [100 ms]"
            ]
        );
        let mixed = MissReason::Several(vec![arg("A"), MissReason::CommandChanged]);
        assert_eq!(advice(dockerfile, steps(mixed)), [""; 0], "it would have run anyway");
    }

    #[test]
    fn dependencies_are_installed_before_everything_is_copied() {
        let dockerfile = |copy: &str, run: &str| format!("FROM a\n{copy}\nRUN {run}\nRUN build\n");
        let ran = |copy: &str, run: &str, changed: &[&str]| {
            let steps = vec![step(2, files(changed)), follows(3, 0), follows(4, 1)];
            advice(&dockerfile(copy, run), steps)
        };
        assert_eq!(
            ran("COPY . .", "npm ci", &["src/a.js"]),
            [
                "`COPY . .` (line 2) makes `npm ci` (line 3) run whenever any file changes: copy `package.json` and its lock file \
             first, install, and copy the rest then [100 ms]"
            ]
        );
        assert_eq!(ran("COPY . .", "npm ci", &["package.json"]), [""; 0], "it had to run anyway");
        assert_eq!(ran("COPY src .", "npm ci", &["src/a.js"]), [""; 0]);
        assert_eq!(ran("COPY --from=x . .", "npm ci", &["src/a.js"]), [""; 0]);
        assert_eq!(ran("COPY --chown=1 . /app", "cd x && pip install -r dev.txt", &["a.py"]).len(), 1);
        assert_eq!(ran("COPY . /app", "pip install -r dev.txt", &["dev.txt"]), [""; 0]);
        assert_eq!(ran("COPY . /app", "make", &["a.py"]), [""; 0]);
        assert!(ran("COPY . /app", "apt-get update && apt-get install -y gcc", &["a"])[0].contains("above line 2"));
        let other_stage = "FROM a\nCOPY . .\nFROM b\nRUN npm ci\n";
        assert_eq!(advice(other_stage, vec![step(2, files(&["a"])), follows(4, 0)]), [""; 0]);
    }

    #[test]
    fn what_only_describes_the_build_is_left_out() {
        let dockerfile = "FROM a\nCOPY . .\nRUN npm ci\n";
        let ran_with = |reason| advice(dockerfile, vec![step(2, reason), follows(3, 0)]);
        let ran = |changed: &[&str]| ran_with(files(changed));
        assert_eq!(
            ran(&[".git/index", ".git/HEAD", "Dockerfile"]),
            [
                "all that changed for the copy of line 2 is `.git`, `Dockerfile`: leave it out with `.dockerignore` [100 ms]"
            ]
        );
        assert!(ran(&[".git/index", "a"])[0].contains("npm ci"));
        assert_eq!(ran_with(files(&["Dockerfile", ".dockerignore"])), [""; 0], "they were just edited");
        let mut gone = files(&[".dockerignore", ".git/HEAD"]);
        if let MissReason::FilesChanged { files, .. } = &mut gone {
            files[1].became = Became::Removed;
        }
        assert_eq!(ran_with(gone), [""; 0], "it is left out already");
    }
}
