//! The `kiln` command: reads what was typed, has the engine do it, shows what happens, ends with a code that says so.
#![forbid(unsafe_code)]
#![allow(clippy::result_large_err, reason = "a failure is made once, and ends the command")]

mod args;
mod commands;
mod setting;
mod text_file;
mod ui;

use std::io::Write;
use std::process::ExitCode;

use kiln_engine::Isolation;
use kiln_report::{render, without_credentials};

use args::Environment;
use setting::Setting;
use ui::exit::Exit;
use ui::terminal;

/// The code for a defect of kiln.
const BUG: u8 = 70;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    std::panic::catch_unwind(run).unwrap_or(BUG).into()
}

fn run() -> u8 {
    let cli = match args::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output, errors to standard error; where nobody listens nobody is told.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let mut setting = Setting {
        environment: Environment::read(),
        state: cli.state,
        registry_config: cli.registry_config,
        max_layer_size: cli.max_layer_size,
        is_root: rustix::process::geteuid().is_root(),
        ids_note: None,
        has_become_root: false,
        isolation: Isolation::default(),
        arrival: None,
    };
    let command = cli.command.ungrouped();
    match become_root(&command, &mut setting).and_then(|()| commands::run(command, &setting)) {
        Ok(code) => code,
        Err(Exit::NobodyListens) => 0,
        Err(Exit::Signal(signal)) => {
            let _ = writeln!(std::io::stderr(), "interrupted");
            signal.exit_code()
        }
        Err(Exit::Failure(failure)) => {
            let mut text = render::failure(&failure, terminal::color(&setting.environment));
            if cli.debug {
                text.push_str(&without_credentials(&format!("{failure:#?}\n")));
            }
            let _ = std::io::stderr().write_all(text.as_bytes());
            failure.exit_code()
        }
    }
}

/// Takes the rights that a command needs over files of others, while there is one thread.
fn become_root(command: &args::Command, setting: &mut Setting) -> Result<(), Exit> {
    setting.isolation = command.isolation().map_or_else(|| setting.environment.isolation(), Ok)?;
    if matches!(command, args::Command::Doctor(_)) {
        setting.arrival = kiln_engine::arrive(setting.environment.raw("PATH"), setting.isolation);
    } else if command.touches_layers() {
        setting.ids_note = kiln_engine::become_root(setting.environment.raw("PATH"), setting.isolation)?;
        setting.has_become_root = true;
    }
    Ok(())
}

fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("no message");
    let _ = writeln!(
        std::io::stderr(),
        "error: this is a defect of kiln{place}: {message}\nhint: please report it together with the command line"
    );
}
