//! `kiln explain`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use kiln_engine::{BuildOutcome, Cause, Fate, MissReason, Step, Story, Summary, place_of_files};
use kiln_oci::Reference;

use super::builds::{name, short_id};
use crate::setting::Setting;
use crate::ui::age::{duration, since_millis};
use crate::ui::exit::Outcome;
use crate::ui::table::ellipsis;
use crate::ui::{stdout, terminal};

/// So many changed files are named under their cause.
const FILES: usize = 10;
/// So many followers are named.
const FOLLOWERS: usize = 4;
/// Fewer characters of a step's name say nothing.
const NARROWEST: usize = 20;

/// Say why the steps of a build ran, what that cost, and what would make it less
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The build: its id, `^1` for the one before the last, or the image it made [default: the last]
    #[arg(value_name = "BUILD|IMAGE")]
    build: Option<String>,

    /// Say what differs from this build instead
    #[arg(long, value_name = "BUILD|IMAGE")]
    vs: Option<String>,

    /// How the answer is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Explains.
pub(crate) fn run(args: &ExplainArgs, setting: &Setting) -> Outcome {
    let story = setting.engine()?.explain(args.build.as_deref(), args.vs.as_deref())?;
    let text = match args.format {
        Format::Text => tell(&story, SystemTime::now(), terminal::stdout_width(&setting.environment)),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&story).expect("plain data serialises")),
    };
    stdout::print(&text)?;
    Ok(0)
}

/// The story as text; names of steps are cut where lines have a width.
fn tell(story: &Story, now: SystemTime, width: Option<usize>) -> String {
    let mut text = heading(story, now);
    for cause in &story.causes {
        text.push('\n');
        text.push_str(&cause_lines(cause, width));
    }
    if !story.not_reached.is_empty() {
        writeln!(text, "\n         not reached:").expect("writing to a string");
        some_steps(&story.not_reached, width, &mut |line| {
            writeln!(text, "{INDENT}{line}").expect("writing to a string")
        });
    }
    for advice in &story.advice {
        let cost = if advice.milliseconds > 0 { format!(" ({})", time(advice.milliseconds)) } else { String::new() };
        writeln!(text, "\nadvice: {}{cost}", advice.text).expect("writing to a string");
    }
    text
}

fn heading(story: &Story, now: SystemTime) -> String {
    let build = &story.build;
    let mut text = format!("{}: {}\n", line(build, now), outcome(build));
    if let Some(other) = &story.compared_with {
        let what = if story.causes.is_empty() { "no step differs from" } else { "what differs from" };
        return format!("{text}{what} {}\n", line(other, now));
    }
    if let Some(previous) = &story.previous {
        writeln!(text, "before it: {}: {}", line(previous, now), outcome(previous)).expect("writing to a string");
    }
    let sum = match (story.ran, story.cached) {
        (0, 0) => "it came to no step".to_owned(),
        (0, _) => "every step was cached: nothing had to run".to_owned(),
        (ran, cached) => format!("{} ran, in {} altogether; {cached} cached", steps(ran), time(story.milliseconds)),
    };
    text + &sum + "\n"
}

/// `build 0123456789ab of app (test), 2 minutes ago`.
fn line(build: &Summary, now: SystemTime) -> String {
    let when = since_millis(build.started, now);
    format!("build {} of {}, {}", short_id(&build.id), name(&build.target), when.to_lowercase())
}

fn outcome(build: &Summary) -> String {
    let took = time(build.milliseconds);
    match &build.outcome {
        BuildOutcome::Done { image, names, .. } => {
            let familiar =
                |name: &String| name.parse::<Reference>().map_or_else(|_| name.clone(), |name| name.familiar());
            let what = match (image, names.as_slice()) {
                (_, [_, ..]) => format!(", made {}", names.iter().map(familiar).collect::<Vec<_>>().join(", ")),
                (Some(image), _) => format!(", made {}", image.short()),
                _ => String::new(),
            };
            format!("done in {took}{what}")
        }
        BuildOutcome::Failed { message } => {
            format!("failed after {took}: {}", message.lines().next().unwrap_or_default())
        }
        BuildOutcome::Canceled => format!("stopped after {took}"),
    }
}

/// What stands before all that belongs to a cause.
const INDENT: &str = "         ";

fn cause_lines(cause: &Cause, width: Option<usize>) -> String {
    let cost = if cause.milliseconds > 0 { time(cause.milliseconds) } else { String::new() };
    let mut text = format!("{cost:>7}  {}\n", cause.text);
    let mut indented = |line: String| writeln!(text, "{INDENT}{line}").expect("writing to a string");
    for (at, reason) in cause.reason.each().iter().enumerate() {
        if at > 0 {
            indented(format!("  {reason}"));
        }
        more_files(reason, &mut indented);
    }
    cause.steps.iter().for_each(|step| indented(step_line(step, width, 0)));
    if !cause.followers.is_empty() {
        let cost = cause.followers.iter().map(|step| step.milliseconds).sum();
        let verb = if cause.followers.len() == 1 { "follows" } else { "follow" };
        let cost = if cost > 0 { format!(" ({})", time(cost)) } else { String::new() };
        indented(format!("{} {verb}{cost}:", steps(cause.followers.len())));
        some_steps(&cause.followers, width, &mut indented);
    }
    text
}

/// The changed files but the first, which stands with the cause.
fn more_files(reason: &MissReason, indented: &mut impl FnMut(String)) {
    let MissReason::FilesChanged { input, files, count } = reason else { return };
    let place = place_of_files(input);
    files.iter().take(FILES).skip(1).for_each(|file| indented(format!("  {place}{file}")));
    if *count > FILES.min(files.len()) && *count > 1 {
        indented(format!("  and {} more", count - FILES.min(files.len())));
    }
}

fn some_steps(steps: &[Step], width: Option<usize>, indented: &mut impl FnMut(String)) {
    steps.iter().take(FOLLOWERS).for_each(|step| indented(format!("  {}", step_line(step, width, 2))));
    if steps.len() > FOLLOWERS {
        indented(format!("  and {} more", steps.len() - FOLLOWERS));
    }
}

/// A step, and what is to be noted of it. What is too wide is cut from its name.
fn step_line(step: &Step, width: Option<usize>, indent: usize) -> String {
    let name = step.name.replace(['\n', '\t', '\r'], " ");
    let note = match step.fate {
        _ if step.same_result => "; same result as before",
        Fate::Canceled => "; canceled",
        Fate::Failed => "; failed",
        Fate::Cached | Fate::NotNeeded | Fate::Ran | Fate::NotReached => "",
    };
    let note = step.attempts.map(|attempts| format!("; {attempts} attempts")).unwrap_or_default() + note;
    let room = |width: usize| width.saturating_sub(INDENT.len() + indent + note.len()).max(NARROWEST);
    width.map_or_else(|| name.clone(), |width| ellipsis(&name, room(width))) + &note
}

fn steps(count: usize) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

fn time(milliseconds: u64) -> String {
    duration(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use kiln_engine::{Advice, Became, BuildTarget, Change, FileChange};

    use super::*;

    fn summary(id: &str, outcome: BuildOutcome) -> Summary {
        let target = BuildTarget {
            project: "p".into(),
            context: "/home/me/app".into(),
            dockerfile: "Dockerfile".into(),
            stage: Some("web".into()),
            platform: "linux/amd64".into(),
        };
        Summary { id: id.to_owned(), started: 0, milliseconds: 12_345, target, outcome }
    }

    fn step(name: &str, milliseconds: u64) -> Step {
        Step {
            name: name.to_owned(),
            fate: Fate::Ran,
            lines: Some((1, 1)),
            milliseconds,
            attempts: (milliseconds == 8).then_some(3),
            same_result: milliseconds == 7,
        }
    }

    fn story(causes: Vec<Cause>) -> Story {
        let done =
            BuildOutcome::Done { image: None, images: vec![], names: vec!["docker.io/library/app:latest".into()] };
        Story {
            build: summary("0123456789abcdef", done),
            previous: Some(summary("ff", BuildOutcome::Failed { message: "process failed\nbadly".into() })),
            compared_with: None,
            ran: causes.len(),
            cached: 3,
            milliseconds: 9000,
            causes,
            found: vec![],
            not_reached: vec![],
            advice: vec![],
        }
    }

    fn files(count: usize) -> Cause {
        let file = |n: usize| FileChange { path: format!("src/{n}.rs"), became: Became::Changed };
        let reason = MissReason::FilesChanged {
            input: "[internal] load build context".into(),
            files: (0..count.min(100)).map(file).collect(),
            count,
        };
        let followers = (0..6).map(|n| step(&format!("[build {n}/6] RUN make\nall"), 1000)).collect();
        let steps = vec![step("[build 4/6] COPY . .", 100)];
        Cause { text: reason.to_string(), reason, steps, followers, milliseconds: 6100 }
    }

    fn told(story: &Story) -> String {
        tell(story, UNIX_EPOCH + Duration::from_secs(120), None)
    }

    #[test]
    fn causes_come_with_what_followed_them_and_what_they_cost() {
        let arg = MissReason::CommandChanged;
        let arg = Cause {
            text: arg.to_string(),
            reason: arg,
            steps: vec![step("[build 2/6] RUN x", 7)],
            followers: vec![],
            milliseconds: 7,
        };
        let advice = Advice { text: "do better".into(), line: 3, milliseconds: 1500 };
        let story = Story { advice: vec![advice], ..story(vec![files(12), arg]) };
        insta::assert_snapshot!(told(&story), @"
        build 0123456789ab of app (web), 2 minutes ago: done in 12.3s, made app:latest
        before it: build ff of app (web), 2 minutes ago: failed after 12.3s: process failed
        2 steps ran, in 9.0s altogether; 3 cached

           6.1s  src/0.rs changed (12 files in all)
                   src/1.rs changed
                   src/2.rs changed
                   src/3.rs changed
                   src/4.rs changed
                   src/5.rs changed
                   src/6.rs changed
                   src/7.rs changed
                   src/8.rs changed
                   src/9.rs changed
                   and 2 more
                 [build 4/6] COPY . .
                 6 steps follow (6.0s):
                   [build 0/6] RUN make all
                   [build 1/6] RUN make all
                   [build 2/6] RUN make all
                   [build 3/6] RUN make all
                   and 2 more

            7ms  command changed
                 [build 2/6] RUN x; same result as before

        advice: do better (1.5s)
        ");
    }

    #[test]
    fn a_cached_build_says_so_and_a_comparison_says_what_it_is() {
        insta::assert_snapshot!(told(&story(vec![])), @"
        build 0123456789ab of app (web), 2 minutes ago: done in 12.3s, made app:latest
        before it: build ff of app (web), 2 minutes ago: failed after 12.3s: process failed
        every step was cached: nothing had to run
        ");
        let other = Some(summary("ee", BuildOutcome::Canceled));
        let same = Story { compared_with: other.clone(), ..story(vec![]) };
        insta::assert_snapshot!(told(&same), @"
        build 0123456789ab of app (web), 2 minutes ago: done in 12.3s, made app:latest
        no step differs from build ee of app (web), 2 minutes ago
        ");
        let mut cause = files(1);
        (cause.milliseconds, cause.followers) = (0, vec![]);
        insta::assert_snapshot!(told(&Story { compared_with: other, ..story(vec![cause]) }), @"
        build 0123456789ab of app (web), 2 minutes ago: done in 12.3s, made app:latest
        what differs from build ee of app (web), 2 minutes ago

                 src/0.rs changed
                 [build 4/6] COPY . .
        ");
    }

    #[test]
    fn all_that_changed_is_told_and_what_was_canceled_and_not_reached() {
        let variable = |name: &str| Change { name: name.into(), old: None, new: None };
        let reason = MissReason::Several(vec![
            MissReason::ArgChanged(variable("A")),
            MissReason::EnvChanged(variable("B")),
            files(2).reason,
        ]);
        let canceled = Step { fate: Fate::Canceled, ..step("[build 2/6] RUN x", 5) };
        let text = reason.to_string();
        let cause = Cause { text, reason, steps: vec![canceled], followers: vec![], milliseconds: 5 };
        let left = Step { fate: Fate::NotReached, ..step("[build 3/6] RUN y", 0) };
        let story = Story { not_reached: vec![left], ..story(vec![cause]) };
        insta::assert_snapshot!(told(&story), @"
        build 0123456789ab of app (web), 2 minutes ago: done in 12.3s, made app:latest
        before it: build ff of app (web), 2 minutes ago: failed after 12.3s: process failed
        1 step ran, in 9.0s altogether; 3 cached

            5ms  ARG A is gone (3 changes in all)
                   ENV B is gone
                   src/0.rs changed (2 files in all)
                   src/1.rs changed
                 [build 2/6] RUN x; canceled

                 not reached:
                   [build 3/6] RUN y
        ");
    }

    #[test]
    fn a_name_is_cut_to_the_terminal_s_width_and_its_note_is_not() {
        let long = step(&format!("[1/2] RUN {}", "x".repeat(100)), 7);
        assert!(step_line(&long, None, 0).ends_with("xxx; same result as before"));
        let cut = step_line(&long, Some(80), 2);
        assert_eq!((cut.chars().count(), cut.ends_with("x…; same result as before")), (80 - 9 - 2, true), "{cut}");
        assert!(step_line(&long, Some(5), 0).starts_with("[1/2] RUN xxx"));
    }
}
