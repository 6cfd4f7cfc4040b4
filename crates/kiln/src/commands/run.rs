//! `kiln run`.

use std::path::PathBuf;

use clap::Args;
use kiln_engine::{NetworkMode, RunRequest, Ulimit, Volume};
use kiln_oci::Platform;
use kiln_report::{Failure, FailureKind};

use crate::args::Environment;
use crate::args::build::network;
use crate::args::later::{Flag, Later, Table, Takes};
use crate::args::resources::ContainerResourceArgs;
use crate::args::value::{self, Wrong};
use crate::setting::Setting;
use crate::ui::exit::Outcome;
use crate::ui::progress::{Choice, Progress};
use crate::ui::run as ui_run;

/// Run a command in a container of an image, to try the image
#[derive(Debug, Args)]
#[command(override_usage = "kiln run [OPTIONS] IMAGE [COMMAND]...")]
pub(crate) struct RunArgs {
    /// The image, then the command that replaces the image's own
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true)]
    image_and_command: Vec<String>,

    /// Set a variable; without a value it is taken from the environment
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = value::pair)]
    env: Vec<(String, Option<String>)>,

    /// Start in this directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// Show a path of the machine in the container
    #[arg(short, long, value_name = "PATH:TARGET[:ro]", value_parser = volume)]
    volume: Vec<Volume>,

    /// Network of the container: default, none or host
    #[arg(long, value_name = "MODE", value_parser = network, default_value = "default")]
    network: NetworkMode,

    /// Run this instead of the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,

    /// Name the container's host
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    hostname: Option<String>,

    /// The platform, when the name stands for several images
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:IP", value_parser = value::host)]
    add_host: Vec<(String, String)>,

    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = value::bytes)]
    shm_size: Option<u64>,

    /// Limit a resource, as nofile=1024:2048
    #[arg(long, value_name = "LIMIT", value_parser = value::ulimit)]
    ulimit: Vec<Ulimit>,

    /// Keep nothing of the container, as is done anyway
    #[arg(long)]
    rm: bool,

    #[command(flatten, next_help_heading = "Limits of the container")]
    resources: ContainerResourceArgs,

    #[command(flatten)]
    later: Later<RunTable>,
}

#[derive(Debug)]
pub(crate) struct RunTable;

impl Table for RunTable {
    // tidy: table
    const REFUSED: &'static [Flag] = &[
        ("attach", Some('a'), Takes::Value),
        ("cap-add", None, Takes::Value),
        ("cap-drop", None, Takes::Value),
        ("detach", Some('d'), Takes::Nothing),
        ("device", None, Takes::Value),
        ("dns", None, Takes::Value),
        ("env-file", None, Takes::Value),
        ("gpus", None, Takes::Value),
        ("group-add", None, Takes::Value),
        ("health-cmd", None, Takes::Value),
        ("init", None, Takes::Nothing),
        ("interactive", Some('i'), Takes::Nothing),
        ("ipc", None, Takes::Value),
        ("label", Some('l'), Takes::Value),
        ("mount", None, Takes::Value),
        ("name", None, Takes::Value),
        ("pid", None, Takes::Value),
        ("privileged", None, Takes::Nothing),
        ("publish", Some('p'), Takes::Value),
        ("publish-all", Some('P'), Takes::Nothing),
        ("pull", None, Takes::Value),
        ("read-only", None, Takes::Nothing),
        ("restart", None, Takes::Value),
        ("security-opt", None, Takes::Value),
        ("tmpfs", None, Takes::Value),
        ("tty", Some('t'), Takes::Nothing),
    ];
    const HARMLESS: &'static [Flag] = &[("disable-content-trust", None, Takes::Nothing)];
}

/// Runs it in the foreground. The exit code is the container's.
pub(crate) fn run(args: &RunArgs, setting: &Setting) -> Outcome {
    let request = args.request(&setting.environment)?;
    let engine = setting.engine()?;
    // The container has the streams; a view would write between its lines.
    let progress = Progress::start(Choice::Quiet, &setting.environment)?;
    let code = ui_run::block_on(engine.run(&request, progress.reporter()))?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

impl RunArgs {
    fn request(&self, environment: &Environment) -> Result<RunRequest, Failure> {
        self.later.refuse()?;
        let (image, command) = self.image_and_command.split_first().expect("clap wants one");
        if self.entrypoint.as_deref().is_some_and(|entrypoint| entrypoint.contains('\0')) {
            return Err(Failure::new(FailureKind::Usage, "the entrypoint has a NUL character in it"));
        }
        Ok(RunRequest {
            image: image.clone(),
            command: command.to_vec(),
            // An empty entrypoint is none at all.
            entrypoint: self
                .entrypoint
                .clone()
                .map(|one| Some(one).filter(|one| !one.is_empty()).into_iter().collect()),
            env: variables(&self.env, environment),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            volumes: self.volume.clone(),
            network: self.network,
            hostname: self.hostname.clone().filter(|name| !name.is_empty()),
            platform: self.platform.clone(),
            extra_hosts: self.add_host.clone(),
            shm_size: self.shm_size.filter(|bytes| *bytes != 0),
            ulimits: self.ulimit.clone(),
            resources: self.resources.resources()?,
        })
    }
}

/// Variables for a container; those without a value, here or in the environment, are left out.
pub(super) fn variables(typed: &[(String, Option<String>)], environment: &Environment) -> Vec<String> {
    let variable = |(key, value): &(String, Option<String>)| {
        let value = value.clone().or_else(|| Some(environment.raw(key)?.to_string_lossy().into_owned()))?;
        Some(format!("{key}={value}"))
    };
    typed.iter().filter_map(variable).collect()
}

/// An empty name is none, as in docker.
fn host_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() { Ok(String::new()) } else { value::host_name(text) }
}

fn volume(text: &str) -> Result<Volume, Wrong> {
    let wrong = |why: &str| Err(Wrong(why.to_owned()));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, readonly) = match parts[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        [_, _, other] => return wrong(&format!("`{other}` is no mode of a volume: expected `ro` or `rw`")),
        _ => return wrong("expected `path:target`, as in `/srv/data:/data:ro`"),
    };
    if !target.starts_with('/') {
        return wrong("the target in the container is not absolute");
    }
    if source.is_empty() {
        return wrong("the path of the machine is empty");
    }
    if !source.starts_with(['/', '.', '~']) {
        return wrong("named volumes are not supported yet; a path of the machine begins with `/` or `./`");
    }
    let source = std::path::absolute(source).unwrap_or_else(|_| PathBuf::from(source));
    Ok(Volume { source, target: target.to_owned(), readonly })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::{Command, parse};

    fn request(line: &str) -> Result<RunRequest, String> {
        let typed = line.split(' ').map(OsString::from).collect();
        match parse(typed).map_err(|e| e.to_string())?.command {
            Command::Run(args) => args.request(&Environment::from([("HERE", "yes")])).map_err(|e| e.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_follows_the_image_is_the_command_whatever_it_looks_like() {
        let run =
            request("kiln run --rm -e A=1 -eHERE -e GONE -w /w -u 1:2 busybox ls --rm -e X=2 --unknown -- x").unwrap();
        assert_eq!(run.image, "busybox");
        assert_eq!(run.command, ["ls", "--rm", "-e", "X=2", "--unknown", "--", "x"]);
        assert_eq!(run.env, ["A=1", "HERE=yes"]);
        assert_eq!((run.workdir.as_deref(), run.user.as_deref()), (Some("/w"), Some("1:2")));
        assert_eq!(request("kiln run busybox -l").unwrap().command, ["-l"]);
    }

    #[test]
    fn an_empty_entrypoint_takes_the_images_away_and_an_empty_host_name_is_none() {
        assert_eq!(request("kiln run --entrypoint= a").unwrap().entrypoint, Some(vec![]));
        assert_eq!(request("kiln run --entrypoint sh a").unwrap().entrypoint, Some(vec!["sh".into()]));
        assert_eq!(request("kiln run a").unwrap().entrypoint, None);
        let names = ["kiln run --hostname= a", "kiln run --hostname b a"].map(|line| request(line).unwrap().hostname);
        assert_eq!(names, [None, Some("b".into())]);
    }

    #[test]
    fn volumes_are_paths_of_the_machine() {
        let run = request("kiln run -v /a:/b -v ./c:/d:ro a").unwrap();
        assert_eq!((run.volumes[0].target.as_str(), run.volumes[0].readonly), ("/b", false));
        assert!(run.volumes[1].source.is_absolute() && run.volumes[1].readonly);
        for bad in ["/a", "/a:b", "/a:/b:z", "name:/b", ":/b"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_kiln_lacks_is_refused_by_name() {
        for (line, name) in
            [("-it a sh", "--interactive"), ("-p 80:80 a", "--publish"), ("--privileged a", "--privileged")]
        {
            let refusal = request(&format!("kiln run {line}")).unwrap_err();
            assert_eq!(refusal, format!("`{name}` is not supported yet"));
        }
        assert!(request("kiln run --envv A=1 a").unwrap_err().contains("--env"));
    }
}
