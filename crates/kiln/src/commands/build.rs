//! `kiln build`.

mod agents;
mod answer;
mod call;
mod deletion;
mod dry_run;
mod lend;
mod stdin;
mod warnings;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_engine::{BuildResult, Context, Engine, Gathered, ShellRequest};
use kiln_report::{Failure, FailureKind, render};
use serde_json::Value;

use self::lend::Lender;
pub(crate) use self::lend::check_context;
use self::warnings::Warnings;
use super::login::ask;
use super::shell;
use crate::args::SecretSource;
use crate::args::build::{BuildArgs, BuildPlan, DryRun, OnFailure, writes_to_stdout};
use crate::setting::Setting;
use crate::ui::age::size;
use crate::ui::exit::{Exit, Outcome};
use crate::ui::progress::{Choice, Progress};
use crate::ui::{console, run as ui_run, stdout, terminal};

/// Builds, or only checks.
pub(crate) fn run(args: &BuildArgs, setting: &Setting) -> Outcome {
    let mut plan = args.plan(&setting.environment)?;
    if let Context::Dir(dir) = &plan.request.context {
        check_context(dir)?;
    }
    deletion::check(&plan.request.outputs, plan.may_delete)?;
    let has_data = plan.request.outputs.iter().any(writes_to_stdout);
    if has_data && args.dry_run.is_none() {
        stdout::refuse_terminal("an archive")?;
    }
    let input = stdin::settle(&mut plan)?;
    if let Some(call) = args.call() {
        let gathered = gather(args, &mut plan, (input, setting))?;
        return call::run(call, &gathered, setting);
    }
    let lender = lender(std::mem::take(&mut plan.secrets), &plan.agents, input)?;
    if let Some(format) = args.dry_run.filter(|asked| *asked != DryRun::No) {
        let engine = setting.engine_on(args.network_use())?;
        return dry_run::run(format, &plan, lender, (setting, &engine));
    }
    if args.on_failure == OnFailure::Shell {
        require_console()?;
    }
    if let Some(path) = &args.iidfile {
        answer::forget(path)?;
    }
    let prints_id = plan.progress == Choice::Quiet && !has_data;
    let engine = setting.engine_on(args.network_use())?;
    let built = build(&plan, Arc::clone(&lender), setting, &engine);
    let outcome = built.and_then(|(result, warnings)| answer(args, &result, warnings, prints_id));
    if !matches!(outcome, Err(Exit::Signal(_))) {
        // Nobody waits any more for what was built.
        collect(&engine, plan.progress);
    }
    match outcome {
        Err(Exit::Failure(failure)) if args.on_failure == OnFailure::Shell => {
            let code = look(*failure, args, (&engine, lender), setting)?;
            drop(engine);
            // Whoever mended something goes on from there: what is before it is cached by now.
            code.map_or_else(|| run(args, setting), Ok)
        }
        outcome => outcome,
    }
}

/// Fails where nobody could type into a shell.
fn require_console() -> Result<(), Failure> {
    if console::is_there() {
        return Ok(());
    }
    let message = "`--on-failure=shell` needs a terminal on standard input and output";
    Err(Failure::new(FailureKind::Usage, message)
        .hint("leave it out: `kiln shell` opens the step that failed afterwards, or runs a command in it"))
}

/// Opens a shell, or another program, in the step that failed, and asks what is next. The exit code when the build has failed all the
/// same; nothing when it is to be tried again.
fn look(
    failure: Failure,
    args: &BuildArgs,
    (engine, lender): (&Engine, Arc<Lender>),
    setting: &Setting,
) -> Result<Option<u8>, Exit> {
    let Some(build) = failure.kept.clone() else { return Err(failure.into()) };
    let color = terminal::color(&setting.environment);
    let say = |failure: &Failure| {
        let _ = std::io::stderr().write_all(render::failure(failure, color).as_bytes());
    };
    say(&failure);
    let command = args.invoke.iter().cloned().collect();
    let request = ShellRequest { step: Some(build), command, ..ShellRequest::default() };
    match shell::enter(engine, request, lender, &setting.environment) {
        Err(Exit::Failure(why)) => say(&why),
        Err(exit) => return Err(exit),
        // Standard input cannot be read a second time.
        Ok(_) if !args.reads_stdin() && wants_again()? => return Ok(None),
        Ok(_) => {}
    }
    Ok(Some(failure.exit_code()))
}

/// Asks whether to build again. On a thread of its own, so that a signal ends the waiting.
fn wants_again() -> Result<bool, Exit> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || tell.send(ask("build again, from the step that failed? [y/N] ")));
    let answer = ui_run::block_on(async { told.await.expect("the thread answers") })?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Has the contexts here, for those who only look at them.
fn gather(
    args: &BuildArgs,
    plan: &mut BuildPlan,
    (input, setting): (Option<Box<dyn Read + Send>>, &Setting),
) -> Result<Gathered, Exit> {
    if plan.request.is_here() {
        return Ok(Gathered::here(plan.request.clone()));
    }
    let lender = lender(std::mem::take(&mut plan.secrets), &plan.agents, input)?;
    let engine = setting.engine_on(args.network_use())?;
    let progress = Progress::start(plan.progress, &setting.environment)?;
    let gathered = ui_run::block_on(engine.gather(&plan.request, (lender, progress.reporter())));
    progress.finish();
    gathered
}

/// What is lent: secrets, agents by the paths of their sockets or keys, and standard input.
pub(crate) fn lender(
    secrets: BTreeMap<String, SecretSource>,
    agents: &BTreeMap<String, Vec<PathBuf>>,
    input: Option<Box<dyn Read + Send>>,
) -> Result<Arc<Lender>, Failure> {
    let agents = agents.iter().map(|(id, paths)| Ok((id.clone(), agents::lend(id, paths)?)));
    let agents = agents.collect::<Result<_, Failure>>()?;
    Lender::new(secrets, agents, input).map(Arc::new)
}

/// Says what was built to whoever asked.
fn answer(args: &BuildArgs, result: &BuildResult, warnings: Vec<Value>, prints_id: bool) -> Outcome {
    if let Some(path) = &args.iidfile {
        answer::write_id(path, result)?;
    }
    if let Some(path) = &args.metadata_file {
        answer::write_metadata(path, result, warnings)?;
    }
    if let Some(id) = result.image_id.as_ref().filter(|_| prints_id) {
        stdout::print(&format!("{id}\n"))?;
    }
    Ok(0)
}

/// Keeps the cache within its limits. Trouble with this is none of the build's.
fn collect(engine: &Engine, progress: Choice) {
    let Ok(Some(collected)) = engine.collect() else { return };
    let is_for_people = !matches!(progress, Choice::Quiet | Choice::RawJson);
    if is_for_people && collected.named > collected.most {
        let (named, most) = (size(collected.named, 3), size(collected.most, 3));
        let _ = writeln!(
            std::io::stderr(),
            "warning: images with names take {named}, and {most} are to be kept at most\n\
             hint: remove some with `kiln rmi`, or raise `KILN_GC_MAX_USED_SPACE`"
        );
    }
}

type Built = (BuildResult, Vec<Value>);

fn build(plan: &BuildPlan, lender: Arc<Lender>, setting: &Setting, engine: &Engine) -> Result<Built, Exit> {
    let progress = Progress::start(plan.progress, &setting.environment)?;
    let warnings = Warnings::before(progress.reporter());
    let outcome = ui_run::block_on(engine.build(&plan.request, lender, warnings.clone()));
    let (is_for_people, shows_output) = (progress.is_for_people, progress.shows_failed_output);
    progress.finish();
    // A last line parts the view from what follows; where nobody listens nobody is told.
    if is_for_people {
        let last = outcome.as_ref().map(answer::closing_line).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "{last}");
    }
    match outcome {
        Err(Exit::Failure(failure)) if shows_output => Err(Failure { output: Vec::new(), ..*failure }.into()),
        outcome => {
            let are_wanted = setting.environment.wants_warnings();
            outcome.map(|result| (result, if are_wanted { warnings.take() } else { Vec::new() }))
        }
    }
}
