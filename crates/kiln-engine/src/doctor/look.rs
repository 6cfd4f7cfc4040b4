//! Finding out: what files of the kernel and the machine say, and what comes of doing what builds do.

use std::path::Path;

use kiln_exec::{ControlGroup, Networks, PrivateNetwork};
use kiln_oci::Platform;
use kiln_sys::userns::{UserNamespace, is_machine_root};

use super::arrival::{Search, read};
use super::facts::{Agent, Controller, Emulation, Facts, Filter, Logins, Network, Refusal, Standing, Switches, Trial};
use super::{Arrival, DoctorRequest, state};
use crate::EngineConfig;
use crate::emulation::{self, Running};

/// The platforms that images are mostly for.
const PLATFORMS: [&str; 7] =
    ["linux/amd64", "linux/386", "linux/arm64", "linux/arm/v7", "linux/riscv64", "linux/ppc64le", "linux/s390x"];

/// Finds out all of it.
pub(super) async fn look(config: &EngineConfig, request: &DoctorRequest) -> Facts {
    let own = Networks::new(config.search_path.clone());
    // Tried first, because it wants to be on a thread where the runtime is.
    let network = own.begin().and_then(kiln_exec::PendingNetwork::ready);
    let search = Search(config.search_path.as_deref());
    let standing = standing(request.arrival.as_ref());
    let arrival = request.arrival.clone().unwrap_or_default();
    let users = match (&standing, arrival.refused) {
        (Standing::User { .. }, refused) => refused.map_or(Ok(()), Err),
        (Standing::Root, _) => UserNamespace::new().map(drop).map_err(Refusal::from),
        (Standing::RootOfSome, _) => UserNamespace::nested().map(drop).map_err(Refusal::from),
    };
    Facts {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        users,
        way_in: arrival.way_in,
        note: arrival.note,
        ranges: arrival.ranges,
        standing,
        container: container(request),
        filter: filter(),
        isolation: config.isolation,
        may_chroot: kiln_exec::rootless::may_chroot(),
        switches: switches(),
        state: state::look(&config.state),
        groups: groups(),
        network: network_of(network, &search),
        platforms: PLATFORMS.iter().map(|platform| ((*platform).to_owned(), emulated(platform))).collect(),
        agent: request.ssh_agent.as_deref().map_or(Agent::NotNamed, agent),
        logins: logins(config.docker_config.as_deref(), &search).await,
    }
}

fn number(path: &str) -> Option<u64> {
    read(path).trim().parse().ok()
}

fn standing(arrival: Option<&Arrival>) -> Standing {
    match arrival {
        Some(Arrival { name, uid, .. }) => Standing::User { name: name.clone(), uid: *uid },
        None if is_machine_root() => Standing::Root,
        None => Standing::RootOfSome,
    }
}

/// As the container says itself, or its engine left as a sign.
#[expect(clippy::disallowed_methods, reason = "the machine's own files are what is looked at")]
fn container(request: &DoctorRequest) -> Option<String> {
    if request.container.is_some() {
        return request.container.clone();
    }
    let signs = [
        ("/run/.containerenv", "podman"),
        ("/.dockerenv", "docker"),
        ("/var/run/secrets/kubernetes.io", "kubernetes"),
        ("/run/systemd/container", "systemd"),
    ];
    signs.iter().find(|(sign, _)| Path::new(sign).exists()).map(|(_, name)| (*name).to_owned())
}

fn filter() -> Filter {
    let status = read("/proc/self/status");
    let says = |key: &str, value: &str| {
        status.lines().filter_map(|line| line.split_once(':')).any(|(name, is)| name == key && is.trim() == value)
    };
    Filter {
        is_available: kiln_sys::seccomp::is_available(),
        is_around_us: says("Seccomp", "2"),
        no_new_rights: says("NoNewPrivs", "1"),
    }
}

fn switches() -> Switches {
    Switches {
        most: number("/proc/sys/user/max_user_namespaces"),
        for_anybody: number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    }
}

fn groups() -> Vec<Controller> {
    let controller = |found: kiln_exec::Controller| Controller {
        name: found.name,
        version: found.version,
        tried: found.tried.map_err(Refusal::from),
    };
    ControlGroup::survey().into_iter().map(controller).collect()
}

fn network_of(own: Result<PrivateNetwork, kiln_exec::Error>, search: &Search<'_>) -> Network {
    let pool = own.as_ref().ok().map(PrivateNetwork::pool);
    let tables = kiln_sys::net::Table::names().unwrap_or_default();
    Network {
        pool,
        own: tried(own),
        has_firewalld: tables.iter().any(|table| table == "firewalld"),
        program: ["pasta", "slirp4netns"].into_iter().find(|name| search.find(name).is_some()),
    }
}

fn tried<T>(outcome: Result<T, kiln_exec::Error>) -> Trial {
    let error = match outcome {
        Ok(_) => return Ok(()),
        Err(kiln_exec::Error::NoNetwork { why }) => return Err(Refusal { errno: None, why }),
        Err(error) => error,
    };
    let sources = std::iter::successors(std::error::Error::source(&error), |source| source.source());
    let why = sources.fold(error.to_string(), |text, source| format!("{text}: {source}"));
    Err(Refusal { errno: None, why })
}

fn emulated(platform: &str) -> Emulation {
    let platform: Platform = platform.parse().expect("the platforms are written above");
    match emulation::running(&platform) {
        Running::Natively => Emulation::Native,
        Running::Emulated => Emulation::Emulated,
        Running::Unfixed(interpreter) => Emulation::Unfixed(interpreter),
        Running::Not => Emulation::Missing,
    }
}

#[expect(clippy::disallowed_methods, reason = "the machine's own files are what is looked at")]
fn agent(socket: &Path) -> Agent {
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => Agent::Listens(socket.to_path_buf()),
        Err(error) => Agent::Silent(socket.to_path_buf(), error.to_string()),
    }
}

async fn logins(file: Option<&Path>, search: &Search<'_>) -> Logins {
    let Some(path) = file else { return Logins::default() };
    let mut logins = Logins { file: Some(path.to_path_buf()), ..Logins::default() };
    match kiln_image::credential_helpers(path).await {
        Ok(None) => {}
        Ok(Some(helpers)) => {
            logins.exists = true;
            let is_there = |name: &String| search.find(&format!("docker-credential-{name}")).is_some();
            logins.helpers = helpers.into_iter().map(|name| (name.clone(), is_there(&name))).collect();
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            (logins.exists, logins.broken) = (true, Some(format!("{error}{source}")));
        }
    }
    logins
}
