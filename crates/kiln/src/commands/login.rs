//! `kiln login` and `kiln logout`.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use clap::Args;
use kiln_report::{Failure, FailureKind};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::{run as ui_run, stdout};

const DEFAULT_REGISTRY: &str = "docker.io";

/// Log in to a registry
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The registry
    #[arg(value_name = "REGISTRY", default_value = DEFAULT_REGISTRY)]
    registry: String,

    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,

    /// Password; other users of the machine can see it, `--password-stdin` hides it
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,

    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Log out of a registry
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry
    #[arg(value_name = "REGISTRY", default_value = DEFAULT_REGISTRY)]
    registry: String,
}

/// Logs in: the registry is asked whether the password is right, then it is kept.
pub(crate) fn run(args: &LoginArgs, setting: &Setting) -> Outcome {
    let registry = registry(&args.registry);
    let (username, password) = credentials(args)?;
    let engine = setting.engine()?;
    ui_run::block_on(engine.login(registry, &username, &password))?;
    stdout::print("Login Succeeded\n")?;
    Ok(0)
}

/// Logs out.
pub(crate) fn logout(args: &LogoutArgs, setting: &Setting) -> Outcome {
    let registry = registry(&args.registry);
    let engine = setting.engine()?;
    let text = match ui_run::block_on(engine.logout(registry))? {
        true => format!("Removing login credentials for {registry}\n"),
        false => format!("Not logged in to {registry}\n"),
    };
    stdout::print(&text)?;
    Ok(0)
}

/// A registry is a host; addresses that are pasted with more around it are read as one.
fn registry(text: &str) -> &str {
    let host = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "index.docker.io" | "registry-1.docker.io" | "" => DEFAULT_REGISTRY,
        host => host,
    }
}

fn credentials(args: &LoginArgs) -> Result<(String, String), Failure> {
    if args.password_stdin {
        let Some(username) = args.username.clone() else {
            return Err(usage("`--password-stdin` needs a user name").hint("name the user with `-u`"));
        };
        let mut password = String::new();
        io::stdin().take(64 << 10).read_to_string(&mut password).map_err(cannot_ask)?;
        return given(username, password.trim_end_matches(['\r', '\n']).to_owned());
    }
    if let (Some(username), Some(password)) = (&args.username, &args.password) {
        return given(username.clone(), password.clone());
    }
    if !io::stdin().is_terminal() {
        return Err(
            usage("there is no terminal to ask for the user name and password").hint("use `-u NAME --password-stdin`")
        );
    }
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("Username: ")?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None => ask_hidden("Password: ")?,
    };
    given(username, password)
}

fn given(username: String, password: String) -> Result<(String, String), Failure> {
    match () {
        () if username.is_empty() => Err(usage("the user name is empty")),
        () if password.is_empty() => Err(usage("the password is empty")),
        () => Ok((username, password)),
    }
}

/// Asks on standard error; standard output is for data.
pub(crate) fn ask(question: &str) -> Result<String, Failure> {
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(cannot_ask)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(cannot_ask)?;
    Ok(answer.trim().to_owned())
}

fn ask_hidden(question: &str) -> Result<String, Failure> {
    let _hidden = Hidden::new().map_err(|errno| cannot_ask(errno.into()))?;
    let answer = ask(question)?;
    let _ = writeln!(io::stderr());
    Ok(answer)
}

/// While it lives, the terminal does not show what is typed.
struct Hidden(Termios);

impl Hidden {
    fn new() -> rustix::io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

fn usage(message: &str) -> Failure {
    Failure::new(FailureKind::Usage, message)
}

fn cannot_ask(error: io::Error) -> Failure {
    let mut failure = Failure::new(FailureKind::Environment, "cannot ask for credentials");
    failure.causes.push(error.to_string());
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_hosts() {
        for (typed, host) in [
            ("ghcr.io", "ghcr.io"),
            ("https://ghcr.io/v2/", "ghcr.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("localhost:5000", "localhost:5000"),
        ] {
            assert_eq!(registry(typed), host);
        }
    }
}
