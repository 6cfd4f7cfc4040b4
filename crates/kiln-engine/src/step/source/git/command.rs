//! Runs git for one repository: no prompts, no hooks, no configuration of the machine, no credentials where others look.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_exec::HostCommand;
use kiln_report::{Failure, FailureKind};

use super::remote::{self, Kind, PROTOCOLS};
use super::wanted::Wanted;
use crate::blocking::blocking;
use crate::job::{Job, Result};
use crate::offline::not_here;
use crate::redact::Redactor;
use crate::ssh::Socket;

/// How long one command may take; what stalls ends sooner.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Settings that hold for every command, submodules' too.
const SETTINGS: [(&str, &str); 15] = [
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.protectNTFS", "true"),
    ("core.protectHFS", "true"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "main"),
    ("fetch.recurseSubmodules", "false"),
    // A server that sends nothing for two minutes sends nothing more.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "120"),
];

/// What a command may talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocols {
    /// Servers.
    Remote,
    /// Repositories of our own state directory.
    Ours,
}

/// Git, set up for one repository.
pub(super) struct Git {
    env: Vec<(String, OsString)>,
    cwd: PathBuf,
    secrets: Redactor,
    has_credentials: bool,
    is_offline: bool,
    pub(super) wanted: Wanted,
    /// The agent for ssh, and the hosts that are known: gone when this is dropped.
    _lent: Option<Socket>,
    _known_hosts: Option<tempfile::NamedTempFile>,
}

impl Git {
    /// Fetches the credentials the client lends for this repository.
    pub(super) async fn new(job: &Arc<Job>, wanted: &Wanted) -> Result<Self> {
        let (job, wanted) = (Arc::clone(job), wanted.clone());
        blocking(move || Self::set_up(&job, wanted)).await
    }

    fn set_up(job: &Arc<Job>, wanted: Wanted) -> Result<Self> {
        let authorization = authorization(job, &wanted)?;
        let (lent, known_hosts) = match wanted.remote.kind() {
            Kind::Ssh if !job.registry.is_offline() => (Some(agent(job, &wanted)?), known_hosts(&wanted)?),
            Kind::Ssh | Kind::Web | Kind::Git => (None, None),
        };
        let mut settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let mut secrets = Vec::new();
        if let Some(value) = &authorization {
            let scope = wanted.remote.scope();
            settings.push((format!("http.{scope}.extraHeader"), format!("Authorization: {value}")));
            // Git sends the header wherever a redirect leads.
            settings.push((format!("http.{scope}.followRedirects"), "false".to_owned()));
            secrets.push(value.as_bytes().to_vec());
            secrets.extend(value.split_once(' ').map(|(_, value)| value.as_bytes().to_vec()));
        }
        let mut env = job.host_env.clone();
        env.extend(fixed_env());
        pass_by_proxies(&mut env);
        env.push(("GIT_SSH_COMMAND".into(), ssh_command(known_hosts.as_ref().map(|file| file.path())).into()));
        env.extend(lent.iter().map(|socket| ("SSH_AUTH_SOCK".to_owned(), socket.address().into_os_string())));
        // By the environment, which only we and the superuser can read; arguments are for all to see.
        env.push(("GIT_CONFIG_COUNT".into(), settings.len().to_string().into()));
        for (index, (name, value)) in settings.into_iter().enumerate() {
            env.push((format!("GIT_CONFIG_KEY_{index}"), name.into()));
            env.push((format!("GIT_CONFIG_VALUE_{index}"), value.into()));
        }
        Ok(Self {
            env,
            cwd: job.store.root(),
            secrets: Redactor::new(secrets.iter().map(Vec::as_slice)),
            has_credentials: authorization.is_some(),
            is_offline: job.registry.is_offline(),
            wanted,
            _lent: lent,
            _known_hosts: known_hosts,
        })
    }

    /// Runs a command and gives what it printed; a command that fails is the build's failure.
    pub(super) async fn answer(&self, args: &[&str], protocols: Protocols) -> Result<String> {
        self.run(args, protocols).await?.map_err(|stderr| self.failure(&stderr))
    }

    /// Runs a command in a repository.
    pub(super) async fn run_in(
        &self,
        repository: &Repository,
        args: &[&str],
        protocols: Protocols,
    ) -> Result<std::result::Result<String, String>> {
        let mut all = repository.arguments();
        all.extend(args.iter().map(OsString::from));
        self.start(all, repository.cwd().to_owned(), protocols).await
    }

    /// The same; a command that fails is the build's failure.
    pub(super) async fn answer_in(
        &self,
        repository: &Repository,
        args: &[&str],
        protocols: Protocols,
    ) -> Result<String> {
        self.run_in(repository, args, protocols).await?.map_err(|stderr| self.failure(&stderr))
    }

    /// Runs a command. What it printed, or what it complained of.
    async fn run(&self, args: &[&str], protocols: Protocols) -> Result<std::result::Result<String, String>> {
        self.start(args.iter().map(OsString::from).collect(), self.cwd.clone(), protocols).await
    }

    async fn start(
        &self,
        args: Vec<OsString>,
        cwd: PathBuf,
        protocols: Protocols,
    ) -> Result<std::result::Result<String, String>> {
        let mut env = self.env.clone();
        let allowed = match protocols {
            Protocols::Remote => {
                self.must_be_online()?;
                PROTOCOLS
            }
            Protocols::Ours => "file",
        };
        env.push(("GIT_ALLOW_PROTOCOL".into(), allowed.into()));
        let command = HostCommand { program: "git".into(), args, env, cwd, patience: PATIENCE };
        let output = command.run().await.map_err(|error| cannot_run(&error))?;
        let text = |bytes: Vec<u8>| {
            let mut redactor = self.secrets.clone();
            let mut shown = redactor.push(bytes);
            shown.extend(redactor.finish());
            String::from_utf8_lossy(&shown).into_owned()
        };
        Ok(if output.status.is_success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) })
    }

    /// Fails when nobody may be asked.
    pub(super) fn must_be_online(&self) -> Result<()> {
        if self.is_offline { Err(not_here(&format!("all of {}", self.wanted.shown()))) } else { Ok(()) }
    }

    /// What a complaint of git means for whoever builds.
    pub(super) fn failure(&self, stderr: &str) -> Failure {
        let kind = if is_unreachable(stderr) { FailureKind::Environment } else { FailureKind::Build };
        let mut failure = Failure::new(kind, format!("cannot fetch {}", self.wanted.shown()));
        failure.causes = complaints(stderr);
        match hint(stderr, &self.wanted, self.has_credentials) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// A repository on disk, and where its files are.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    pub(super) git_dir: PathBuf,
    pub(super) work_tree: Option<PathBuf>,
}

impl Repository {
    fn cwd(&self) -> &Path {
        self.work_tree.as_deref().unwrap_or(&self.git_dir)
    }

    fn arguments(&self) -> Vec<OsString> {
        let option = |name: &str, path: &Path| {
            let mut option = OsString::from(name);
            option.push(path);
            option
        };
        let tree = self.work_tree.iter().map(|path| option("--work-tree=", path));
        std::iter::once(option("--git-dir=", &self.git_dir)).chain(tree).collect()
    }
}

fn fixed_env() -> impl Iterator<Item = (String, OsString)> {
    let fixed = [
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_PROTOCOL_FROM_USER", "0"),
        ("SSH_ASKPASS_REQUIRE", "never"),
        ("HOME", "/dev/null"),
        ("LC_ALL", "C"),
    ];
    fixed.into_iter().map(|(name, value)| (name.to_owned(), value.into()))
}

/// What is on this machine is reached without a proxy, as with all that kiln fetches itself.
fn pass_by_proxies(env: &mut Vec<(String, OsString)>) {
    for name in ["NO_PROXY", "no_proxy"] {
        let known = env.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.to_string_lossy().into_owned());
        let known = known.filter(|known| !known.is_empty()).map(|known| format!("{known},")).unwrap_or_default();
        env.push((name.to_owned(), format!("{known}localhost,127.0.0.1,::1").into()));
    }
}

/// Hosts are believed at sight unless the op says which are known; keys are the lent agent's only.
fn ssh_command(known_hosts: Option<&Path>) -> String {
    let known = match known_hosts {
        Some(path) => format!("-o UserKnownHostsFile={} -o StrictHostKeyChecking=yes", path.display()),
        None => "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no".to_owned(),
    };
    format!(
        "ssh -F /dev/null -o BatchMode=yes -o LogLevel=ERROR -o IdentityFile=none -o ConnectTimeout=30 \
         -o ServerAliveInterval=15 -o ServerAliveCountMax=4 {known}"
    )
}

/// The first of the secrets that there is; else what the URL says.
fn authorization(job: &Job, wanted: &Wanted) -> Result<Option<String>> {
    if wanted.remote.kind() != Kind::Web {
        return Ok(None);
    }
    let host = wanted.remote.host();
    let scoped = |name: &Option<String>| name.as_ref().map(|name| format!("{name}.{host}"));
    let candidates = [
        (scoped(&wanted.header_secret), false),
        (scoped(&wanted.token_secret), true),
        (wanted.header_secret.clone(), false),
        (wanted.token_secret.clone(), true),
    ];
    for (name, is_token) in candidates {
        let Some(name) = name else { continue };
        let Some(value) = crate::session::text_secret(job.session.as_ref(), &name)? else { continue };
        return Ok(Some(if is_token { remote::basic(&format!("x-access-token:{value}")) } else { value }));
    }
    Ok(wanted.remote.authorization().map(str::to_owned))
}

fn agent(job: &Arc<Job>, wanted: &Wanted) -> Result<Socket> {
    let id = wanted.agent.as_deref().unwrap_or(crate::ssh::DEFAULT);
    let lent = Socket::lend(job, id, crate::ssh::Access { mode: 0o600, uid: own_uid(), gid: own_gid() })?;
    lent.ok_or_else(|| {
        let message = format!("`{}` is reached by ssh, and no agent was lent", wanted.remote.shown());
        Failure::new(FailureKind::Build, message).hint(crate::ssh::how_to_lend(id))
    })
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

fn known_hosts(wanted: &Wanted) -> Result<Option<tempfile::NamedTempFile>> {
    use std::io::Write as _;
    let Some(lines) = &wanted.known_hosts else { return Ok(None) };
    let written = tempfile::NamedTempFile::new().and_then(|mut file| {
        file.write_all(lines.as_bytes())?;
        Ok(file)
    });
    let cannot = |error: std::io::Error| Failure::from_error(FailureKind::Environment, &error);
    written.map(Some).map_err(cannot)
}

fn cannot_run(error: &kiln_exec::Error) -> Failure {
    let failure = Failure::from_error(FailureKind::Environment, error);
    match error {
        kiln_exec::Error::HostProgram { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            failure.hint("install git: repositories are fetched with it")
        }
        _ => failure,
    }
}

/// What git complained of, without its counting.
fn complaints(stderr: &str) -> Vec<String> {
    let told = |line: &&str| ["fatal: ", "error: ", "remote: ", "ERROR: ", "ssh: "].iter().any(|p| line.starts_with(p));
    let said: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut shown: Vec<String> = said.iter().filter(|line| told(line)).map(|line| (*line).to_owned()).collect();
    if shown.is_empty() {
        shown.extend(said.last().map(|line| (*line).to_owned()));
    }
    shown.truncate(6);
    shown
}

/// Whether git met nobody, or somebody who could not help just then.
fn is_unreachable(stderr: &str) -> bool {
    [
        "Could not resolve host",
        "Name or service not known",
        "Temporary failure in name resolution",
        "Failed to connect",
        "Couldn't connect",
        "unable to connect",
        "Connection refused",
        "Connection reset",
        "timed out",
        "Network is unreachable",
        "No route to host",
        "error: 50",
        "unexpected disconnect",
    ]
    .iter()
    .any(|sign| stderr.contains(sign))
}

/// The way out of what went wrong.
fn hint(stderr: &str, wanted: &Wanted, has_credentials: bool) -> Option<String> {
    let says = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    let host = wanted.remote.host();
    if is_unreachable(stderr) {
        return Some(format!("check that `{host}` can be reached: the network, the name, any proxy; then try again"));
    }
    if says(&[
        "could not read Username",
        "Authentication failed",
        "error: 401",
        "error: 403",
        "terminal prompts disabled",
    ]) {
        return Some(match has_credentials {
            true => format!("check the token that was lent for `{host}`: the server does not take it"),
            false => format!("lend a token with `--secret id=GIT_AUTH_TOKEN.{host},env=NAME`"),
        });
    }
    if says(&["error: 301", "error: 302", "error: 307", "error: 308"]) && has_credentials {
        return Some("name the address it leads to: credentials are not carried along".to_owned());
    }
    if says(&["cannot run ssh", "ssh: not found", "ssh: command not found"]) {
        return Some("install an ssh client: git reaches this address with it".to_owned());
    }
    if says(&["Permission denied (publickey", "Too many authentication failures"]) {
        let id = wanted.agent.as_deref().unwrap_or(crate::ssh::DEFAULT);
        return Some(format!("check that the agent lent as `{id}` has a key that `{host}` knows: `ssh-add -l`"));
    }
    if says(&["not found", "does not exist", "error: 404", "does not appear to be a git repository"]) {
        return Some(match has_credentials || wanted.remote.kind() != Kind::Web {
            true => "check the address".to_owned(),
            false => format!(
                "check the address; a private repository needs a token: `--secret id=GIT_AUTH_TOKEN.{host},env=NAME`"
            ),
        });
    }
    let is_transport = says(&["transport 'file' not allowed", "transport 'ext' not allowed", "not allowed"]);
    is_transport.then(|| {
        "fetch submodules by http, https, ssh or git only, or leave them out with `?submodules=false`".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(url: &str) -> Wanted {
        let attrs = [("git.fullurl".to_owned(), url.to_owned())].into();
        Wanted::read(kiln_graph::llb::SourceOp { identifier: "git://h/a.git#v1".into(), attrs }).unwrap()
    }

    #[test]
    fn a_failure_tells_what_git_said_and_what_to_do() {
        let web = wanted("https://git.example/a.git");
        let private = "fatal: could not read Username for 'https://git.example': terminal prompts disabled\n";
        let wants_token = "lend a token with `--secret id=GIT_AUTH_TOKEN.git.example,env=NAME`";
        assert_eq!(hint(private, &web, false).as_deref(), Some(wants_token));
        let down = "fatal: unable to access 'https://h/a/': Failed to connect to h port 443: Connection refused\n";
        assert!(is_unreachable(down) && hint(down, &web, false).unwrap().contains("can be reached"));
        assert!(hint("fatal: Authentication failed for 'x'\n", &web, true).unwrap().starts_with("check the token"));
        let moved = "fatal: unable to access 'x': The requested URL returned error: 301";
        assert!(hint(moved, &web, true).unwrap().contains("the address it leads to"));
        assert_eq!(hint(moved, &web, false), None);
        assert!(!is_unreachable(private) && !is_unreachable(moved));
        let denied = "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.\n";
        assert!(hint(denied, &wanted("git@h:a"), false).unwrap().contains("ssh-add -l"));
        let counting = "remote: Counting objects: 5\nfatal: early EOF\nplease make sure\n";
        assert_eq!(complaints(counting), ["remote: Counting objects: 5", "fatal: early EOF"]);
        assert_eq!(complaints("\nsomething\nelse\n"), ["else"]);
    }

    #[test]
    fn this_machine_is_reached_without_a_proxy() {
        let mut env = vec![("NO_PROXY".to_owned(), OsString::from("corp.example"))];
        pass_by_proxies(&mut env);
        let last = |name: &str| env.iter().rfind(|(known, _)| known == name).unwrap().1.to_str().unwrap();
        assert_eq!(last("NO_PROXY"), "corp.example,localhost,127.0.0.1,::1");
        assert_eq!(last("no_proxy"), "localhost,127.0.0.1,::1");
    }

    #[test]
    fn no_setting_but_ours_is_known_to_ssh() {
        let any = ssh_command(None);
        assert!(
            any.contains("-F /dev/null") && any.contains("BatchMode=yes") && any.contains("StrictHostKeyChecking=no")
        );
        let known = ssh_command(Some(Path::new("/k")));
        assert!(known.contains("UserKnownHostsFile=/k -o StrictHostKeyChecking=yes"));
    }
}
