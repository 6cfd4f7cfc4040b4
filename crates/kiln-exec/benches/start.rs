//! Milliseconds to start a container and see it end, by parts and by ways; the figures of ADRs 5 and 14.
//!
//! `cargo bench -p kiln-exec --bench start [rounds]`, as root, with a static `/bin/busybox`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and one that cannot go on stops")]
#![allow(clippy::disallowed_methods, reason = "one candidate is to start ourselves again")]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "a bench needs less than the tests")]
mod support;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_exec::{ControlGroup, Executor, Network, Networks, ProcessIo, Resources, Security};
use support::Image;

/// The size a program of ours has, so that starting it again costs what it would.
static BALLAST: [u8; 12 << 20] = [1; 12 << 20];

/// What is timed: each gives how long one round took.
type Case<'a> = (&'static str, Box<dyn Fn() -> Duration + 'a>);

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some("again") {
        std::hint::black_box(&BALLAST);
        return;
    }
    if let Some(why) = support::obstacle() {
        println!("skipped: {why}");
        return;
    }
    let rounds = first.and_then(|rounds| rounds.parse().ok()).unwrap_or(200);
    let (image, executor, runtime) = (Image::new(), Executor::new(), support::runtime());
    let hosts = Image::with_host_ids();
    let container = |image: &Image, network: Network, security: Security| {
        let mut spec = image.spec(&["true"]);
        (spec.network, spec.security) = (network, security);
        let null = || std::fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
        let io = ProcessIo { stdin: None, stdout: null(), stderr: null() };
        let start = Instant::now();
        assert!(runtime.block_on(executor.run(spec, io)).unwrap().is_success());
        start.elapsed()
    };
    let limited = |image: &Image, processes: Option<u64>, memory: Option<u64>| {
        timed(|| {
            let limits = Resources { processes, memory, ..Resources::default() };
            let group = processes.map(|_| Arc::new(ControlGroup::new(&limits).unwrap()));
            let mut spec = image.spec(&["true"]);
            spec.group = group.clone();
            let null = || std::fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
            let io = ProcessIo { stdin: None, stdout: null(), stderr: null() };
            assert!(runtime.block_on(executor.run(spec, io)).unwrap().is_success());
        })
    };
    let (networks, _inside) = (Networks::default(), runtime.enter());
    let network = || networks.begin().unwrap().ready().unwrap();
    let cases: Vec<Case<'_>> = vec![
        ("overlay, mount and unmount", Box::new(|| timed(|| drop(image.mount(&[]))))),
        ("the same with the host's ids", Box::new(|| timed(|| drop(hosts.mount(&[]))))),
        ("container", Box::new(|| container(&image, Network::Host, Security::Sandbox))),
        ("container with the host's ids", Box::new(|| container(&hosts, Network::Host, Security::Sandbox))),
        ("container without filter and masks", Box::new(|| container(&hosts, Network::Host, Security::Insecure))),
        ("container with its own network", Box::new(|| container(&image, Network::None, Security::Sandbox))),
        (
            "container with a network and a way out",
            Box::new(|| container(&image, Network::Private(network()), Security::Sandbox)),
        ),
        ("container, its overlay included", Box::new(|| limited(&image, None, None))),
        ("the same with limits of processes and memory", Box::new(|| limited(&image, Some(8192), Some(1 << 33)))),
        ("the same with a limit of processes", Box::new(|| limited(&image, Some(8192), None))),
        ("a network and a way out, made and dropped", Box::new(|| timed(|| drop(network())))),
        ("our program again, doing nothing", Box::new(|| timed(again))),
        ("the same program on the host", Box::new(|| timed(|| wait(Command::new("/bin/busybox").arg("true"))))),
    ];
    measure("", rounds, &cases);
    let mut heavy = vec![0u8; 256 << 20];
    heavy.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    measure(" (256 MiB in use)", rounds, &cases);
    std::hint::black_box(heavy);
}

/// Runs the cases in turn, so that what else the machine does meets all of them.
fn measure(note: &str, rounds: usize, cases: &[Case<'_>]) {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (times, (_, case)) in times.iter_mut().zip(cases) {
            times.push(case());
        }
    }
    println!("{:>8} {:>8}  ms, of {rounds} rounds{note}", "min", "median");
    for (times, (name, _)) in times.iter_mut().zip(cases) {
        times.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!("{:>8.2} {:>8.2}  {name}", ms(times[0]), ms(times[times.len() / 2]));
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn again() {
    wait(Command::new(std::env::current_exe().unwrap()).arg("again"));
}

fn wait(command: &mut Command) {
    let null = Stdio::null;
    assert!(command.stdin(null()).stdout(null()).stderr(null()).status().unwrap().success());
}
