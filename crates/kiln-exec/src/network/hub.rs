//! A way out for who may not change the machine's network: a namespace between the machine's and the containers'.
//!
//! A program of the machine, pasta or slirp4netns, carries what leaves it; there is one for all containers of this process, and they
//! are linked to it as they are to the machine's where we are its root. It takes nothing in and does not lead to the
//! machine's loopback.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln_sys::net::{Links, Namespace};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::apart;

/// How long a program may take until there is a way out. It takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked whether there is.
const LOOK: Duration = Duration::from_micros(200);
/// The largest packets, which the program splits as it must.
const MTU: &str = "65520";
const LINK: &str = "out";
/// The device by which programs are given packets.
const TUN: &str = "/dev/net/tun";

/// The namespace, and the program that leads out of it.
#[derive(Debug)]
pub(super) struct Hub {
    namespace: Namespace,
    _way_out: WayOut,
}

/// A program that runs until this is dropped, or we die.
#[derive(Debug)]
struct WayOut {
    process: OwnedFd,
    /// It waits for the program, and the program dies with it.
    thread: Option<JoinHandle<()>>,
}

/// What is heard of a program: its end, and what it said.
#[derive(Debug)]
struct Signs {
    ended: Receiver<()>,
    said: File,
}

impl Hub {
    /// Makes it, with the first addresses of a network of 24 bits. The calling thread must be in the machine's network.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
    pub(super) fn start(network: Ipv4Addr, path: Option<&OsStr>) -> Result<Hub, String> {
        let is_there = File::options().read(true).write(true).open(TUN);
        is_there.map_err(|error| format!("`{TUN}` cannot be opened ({error}); as root, run `chmod 666 {TUN}`"))?;
        let namespace = apart(forwarding)?.map_err(super::ground::told)?;
        let mut why = None;
        for (program, arguments) in [("pasta", pasta(network)), ("slirp4netns", slirp(network))] {
            let arguments = arguments.into_iter().chain(place(program)).collect();
            match WayOut::start(program, arguments, (&namespace, path)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => why = why.or(Some(format!("`{program}` cannot be started: {error}"))),
                Ok((way_out, signs)) => match signs.wait(&namespace) {
                    Ok(()) => return Ok(Hub { namespace, _way_out: way_out }),
                    Err(said) => why = why.or(Some(format!("`{program}` made none: {said}"))),
                },
            }
        }
        Err(why.unwrap_or_else(|| "neither `pasta` (of the package `passt`) nor `slirp4netns` is installed".to_owned()))
    }

    /// Moves the calling thread into it.
    pub(super) fn enter(&self) -> kiln_sys::Result<()> {
        self.namespace.enter()
    }
}

/// Makes a namespace in which packets are passed on, which is ours to say there.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
fn forwarding() -> kiln_sys::Result<Namespace> {
    let namespace = Namespace::enter_new()?;
    for links in ["all", "default"] {
        // If it stays off, that is found where it is looked at.
        let _ = std::fs::write(format!("/proc/sys/net/ipv4/conf/{links}/forwarding"), "1");
    }
    Ok(namespace)
}

/// Nothing comes in, and no address stands for the machine's loopback.
fn pasta(network: Ipv4Addr) -> Vec<String> {
    let [address, gateway] = [2, 1].map(|n| (Ipv4Addr::from(u32::from(network) + n)).to_string());
    let words = "--foreground --quiet --config-net --ipv4-only --no-map-gw --no-dhcp --no-ndp --no-ra --no-dhcpv6 \
                 -t none -u none -T none -U none";
    let options = ["--ns-ifname", LINK, "--mtu", MTU, "--address", &address, "--netmask", "24", "--gateway", &gateway];
    words.split_whitespace().chain(options).map(str::to_owned).collect()
}

fn slirp(network: Ipv4Addr) -> Vec<String> {
    let mtu = format!("--mtu={MTU}");
    let cidr = format!("--cidr={network}/24");
    let words = [
        "--configure",
        "--disable-host-loopback",
        "--disable-dns",
        "--enable-sandbox",
        "--enable-seccomp",
        &mtu,
        &cidr,
    ];
    words.map(str::to_owned).into()
}

/// How each is told of the namespace: it is their standard input, since who has given up most of his rights may open nothing
/// of a process that has them, and may have closed the rest.
fn place(program: &str) -> Vec<String> {
    const FILE: &str = "/proc/self/fd/0";
    let words: &[&str] = match program {
        "pasta" => &["--netns-only", "--no-netns-quit", "--netns", FILE],
        _ => &["--netns-type=path", FILE, LINK],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl WayOut {
    fn start(
        program: &'static str,
        arguments: Vec<String>,
        (namespace, path): (&Namespace, Option<&OsStr>),
    ) -> std::io::Result<(WayOut, Signs)> {
        let namespace = namespace.as_fd().try_clone_to_owned()?;
        let said = File::from(rustix::fs::memfd_create("said", MemfdFlags::CLOEXEC)?);
        let (output, path) = (said.try_clone()?, path.map(OsString::from));
        let (tell, started) = channel();
        let (end, ended) = channel();
        let life = move || {
            let mut child = match launch((program, &arguments), path.as_deref(), namespace, output) {
                Err(error) => return drop(tell.send(Err(error))),
                Ok(child) => child,
            };
            let pid = Pid::from_child(&child);
            // Who asked waits for the answer, and before it is waited for its number is nobody else's.
            let _ = tell.send(pidfd_open(pid, PidfdFlags::empty()).map_err(std::io::Error::from));
            let _ = child.wait();
            let _ = end.send(());
        };
        let thread = std::thread::Builder::new().name("kiln-way-out".into()).spawn(life)?;
        let process = started.recv().unwrap_or(Err(std::io::ErrorKind::Other.into()))?;
        Ok((WayOut { process, thread: Some(thread) }, Signs { ended, said }))
    }
}

impl Signs {
    /// Waits until a route leads out.
    fn wait(mut self, namespace: &Namespace) -> Result<(), String> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if apart(|| namespace.enter().is_ok() && leads_out())? {
                return Ok(());
            }
            if !matches!(self.ended.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
                return Err(self.last_words());
            }
        }
        Err(format!("nothing within {} seconds", PATIENCE.as_secs()))
    }

    fn last_words(&mut self) -> String {
        let mut text = String::new();
        // What cannot be read was not said.
        let _ = self.said.rewind().and_then(|()| self.said.read_to_string(&mut text));
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it ended").trim().to_owned()
    }
}

fn leads_out() -> bool {
    let routes = Links::open().and_then(|links| links.routes());
    routes.is_ok_and(|routes| routes.iter().any(|route| route.is_main && route.prefix == 0 && route.to.is_ipv4()))
}

fn launch(
    (program, arguments): (&str, &[String]),
    path: Option<&OsStr>,
    namespace: OwnedFd,
    output: File,
) -> std::io::Result<Child> {
    #[expect(clippy::disallowed_methods, reason = "this is a place where programs of the host are started")]
    let mut command = std::process::Command::new(program);
    command.args(arguments).env_clear().envs(path.map(|path| ("PATH", path)));
    command.current_dir("/").stdin(namespace).stdout(output.try_clone()?).stderr(output);
    kiln_sys::command::tie_to_us(&mut command);
    command.spawn()
}

impl Drop for WayOut {
    fn drop(&mut self) {
        // It may have ended, which is what is wanted.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
