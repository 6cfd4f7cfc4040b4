//! `kiln shell`.

use std::io::Write as _;
use std::sync::Arc;

use clap::Args;
use kiln_engine::{Engine, Session, ShellRequest};
use kiln_report::render::one_line;
use kiln_report::{Event, Failure, FailureKind, Reporter};

use super::build::lender;
use super::run::variables;
use crate::args::build::{agents, secrets};
use crate::args::{Environment, SecretArg, SshArg, value};
use crate::setting::Setting;
use crate::ui::console;
use crate::ui::exit::Outcome;
use crate::ui::run as ui_run;

/// Open a shell in a step of a build: as it was left when it failed, or as it ended
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// The step, as `kiln builds` and `kiln explain` write builds and steps: b3d246fecb46, b3d246fecb46:2/4, :build 2 [default:
    /// the one that failed last]
    #[arg(value_name = "BUILD[:STEP]")]
    step: Option<String>,

    /// Run this instead of a shell
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<String>,

    /// Set a variable; without a value it is taken from the environment
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = value::pair)]
    env: Vec<(String, Option<String>)>,

    /// Lend a secret that the step mounts: id=ID[,src=PATH|env=NAME]
    #[arg(long, value_name = "SECRET", value_parser = SecretArg::parse)]
    secret: Vec<SecretArg>,

    /// Lend an ssh agent or keys that the step mounts: default, or ID[=SOCKET|KEY[,KEY]]
    #[arg(long, value_name = "SSH", value_parser = SshArg::parse)]
    ssh: Vec<SshArg>,
}

/// Opens it. The exit code is the shell's.
pub(crate) fn run(args: &ShellArgs, setting: &Setting) -> Outcome {
    let environment = &setting.environment;
    let lender = lender(secrets(&args.secret, environment)?, &agents(&args.ssh, environment)?, None)?;
    let (command, env) = (args.command.clone(), variables(&args.env, environment));
    let request = ShellRequest { step: args.step.clone(), command, env };
    enter(&setting.engine()?, request, lender, environment)
}

/// Opens it on the terminal, or on the standard streams where there is none.
pub(crate) fn enter(
    engine: &Engine,
    mut request: ShellRequest,
    session: Arc<dyn Session>,
    environment: &Environment,
) -> Outcome {
    let (terminal, console) = console::is_there().then(console::terminal).unzip();
    if terminal.is_some() {
        // What the terminal can do is for whoever draws on it.
        request.env.splice(0..0, environment.text("TERM").map(|term| format!("TERM={term}")));
    }
    let lend = async {
        match console {
            Some(console) => console.lend().await,
            None => Ok(()),
        }
    };
    let code = ui_run::block_on(async {
        let shell = engine.shell(&request, (session, Arc::new(Notes)), terminal);
        let (code, lent) = tokio::join!(shell, lend);
        let code = code?;
        lent.map_err(|error| Failure {
            causes: vec![error.to_string()],
            ..Failure::new(FailureKind::Environment, "cannot lend the terminal to a container")
        })?;
        Ok(code)
    });
    code.map(|code| u8::try_from(code).unwrap_or(u8::MAX))
}

/// Says what is to be known before the shell has the terminal.
struct Notes;

impl Reporter for Notes {
    fn report(&self, event: Event) {
        if let Event::Note(text) = event {
            let _ = writeln!(std::io::stderr(), "{}", one_line(&text));
        }
    }
}
