//! A process's life: its command, its streams, its end, and that nothing survives it.

use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use kiln_exec::{Executor, ExitStatus, Limit, ProcessIo, Stdio, Terminal, Ulimit, User};

use crate::require_containers;
use crate::support::{self, Image, eventually, processes, run, user};

#[test]
fn codes_and_signals_are_told() {
    require_containers!();
    let image = Image::new();
    for code in [0, 1, 3, 127, 255] {
        assert_eq!(image.sh(&format!("exit {code}")).status, ExitStatus::Code(code));
    }
    // The first process of a pid namespace ignores what it has no handler for, but not what the kernel itself sends.
    let killed = image.sh("sh -c 'kill -TERM $$'; echo $?");
    assert_eq!(killed.stdout, "143\n");
    assert_eq!(image.sh("ulimit -t 1; while :; do :; done").status, ExitStatus::Signal(9));
}

#[test]
fn output_goes_where_it_was_sent_and_input_is_empty() {
    require_containers!();
    let ran = Image::new().sh("echo out; echo err >&2; cat; echo more; readlink /proc/self/fd/0");
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\nmore\n/dev/null\n", "err\n"));
}

#[test]
fn input_can_be_given() {
    require_containers!();
    let image = Image::new();
    let (read, mut write) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut write, b"hello").unwrap();
    drop(write);
    let (mut io, output) = support::piped();
    io.stdin = Some(read.into());
    let status = support::runtime().block_on(Executor::new().run(image.spec(&["cat"]), io)).unwrap();
    assert!(status.is_success());
    assert_eq!(output().0, "hello");
}

#[test]
fn the_environment_and_the_command_are_exactly_what_was_given() {
    require_containers!();
    let image = Image::new();
    let mut spec = image.spec(&["env"]);
    spec.env = vec!["PATH=/bin".into(), "A=1".into(), "B=x y".into(), "EMPTY=".into()];
    assert_eq!(run(spec).unwrap().stdout, "PATH=/bin\nA=1\nB=x y\nEMPTY=\n");
    let spec = image.spec(&["sh", "-c", "echo \"$0|$1|$2\"; cat /proc/1/cmdline; true", "a b", "", "ü"]);
    let ran = run(spec).unwrap();
    assert!(ran.stdout.starts_with("a b||ü\nsh\0-c\0"), "{:?}", ran.stdout);
}

#[test]
fn the_process_is_the_first_in_its_own_session_with_plain_habits() {
    require_containers!();
    let image = Image::new();
    let ran = image.sh("echo $$; umask; pwd; hostname; cut -d' ' -f6 /proc/self/stat; ulimit -c");
    assert_eq!(ran.stdout, "1\n0022\n/\nbox\n1\n0\n", "{}", ran.stderr);
    // A shell has habits of its own, so this one is asked without.
    let ran = run(image.spec(&["grep", "-E", "^Sig(Ign|Blk)", "/proc/1/status"])).unwrap();
    assert_eq!(ran.stdout, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn users_get_their_ids_and_groups_and_no_more() {
    require_containers!();
    let image = Image::new();
    let mut spec = image.spec(&["sh", "-c", "id -u; id -g; id -G; touch /tmp/mine; echo x > /root/x"]);
    spec.user = User { uid: 1000, gid: 1000, groups: vec![1000, 44] };
    let ran = run(spec).unwrap();
    assert_eq!(ran.stdout, "1000\n1000\n1000 44\n");
    assert!(ran.stderr.contains("ermission denied"), "{}", ran.stderr);
    let metadata = std::fs::metadata(image.upper("tmp/mine")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), 1000);
    let mut spec = image.spec(&["id", "-G"]);
    spec.user = User { uid: 7, gid: 8, groups: vec![] };
    assert_eq!(run(spec).unwrap().stdout, "8\n");
}

#[test]
fn a_user_can_open_the_standard_streams_anew() {
    require_containers!();
    let image = Image::new();
    let mut spec = image.spec(&["sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr; echo x > /dev/null"]);
    spec.user = user(1000, 1000);
    let ran = run(spec).unwrap();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn limits_are_set_and_never_fail() {
    require_containers!();
    let image = Image::new();
    let mut spec = image.spec(&["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"]);
    spec.ulimits = vec![
        Ulimit { limit: Limit::NoFile, soft: Some(100), hard: Some(200) },
        Ulimit { limit: Limit::Core, soft: Some(0), hard: Some(0) },
        Ulimit { limit: Limit::NProc, soft: None, hard: Some(u64::MAX - 1) },
    ];
    assert_eq!(run(spec).unwrap().stdout, "100\n200\n0\n");
}

#[test]
fn children_in_the_background_die_with_the_first_process() {
    require_containers!();
    let image = Image::new();
    let start = Instant::now();
    let ran =
        image.sh("sleep 71717 & setsid sleep 71717 & (trap '' TERM HUP INT; sleep 71717) & exec >/dev/null; echo ok");
    assert!(ran.status.is_success());
    // This one keeps our pipe open; without its death the reader would wait for ever.
    let ran = image.sh("sleep 71717 & echo kept");
    assert_eq!(ran.stdout, "kept\n");
    assert!(start.elapsed() < Duration::from_secs(4), "took {:?}", start.elapsed());
    assert_eq!(processes("sleep 71717"), Vec::<u32>::new());
}

#[test]
fn a_dropped_run_kills_its_container_and_leaves_no_zombie() {
    require_containers!();
    let image = Image::new();
    let script = "trap '' TERM INT HUP; (trap '' TERM; sleep 72727) & while :; do sleep 72727; done";
    support::runtime().block_on(async {
        let (io, output) = support::piped();
        let executor = Executor::new();
        let running = executor.run(image.spec(&["sh", "-c", script]), io);
        let waited = tokio::time::timeout(Duration::from_millis(400), running).await;
        assert!(waited.is_err(), "it ended by itself");
        // The drop has waited: it is gone now, not soon, and the pipes have no writer.
        assert_eq!(processes("sleep 72727"), Vec::<u32>::new());
        output();
    });
    assert_eq!(zombies(), 0);
}

#[test]
fn a_run_dropped_at_any_moment_leaves_nothing() {
    require_containers!();
    let image = Image::new();
    support::runtime().block_on(async {
        let executor = Executor::new();
        for micros in (0..60).map(|n| n * 60) {
            let (io, output) = support::piped();
            let running = executor.run(image.spec(&["sleep", "73737"]), io);
            assert!(tokio::time::timeout(Duration::from_micros(micros), running).await.is_err());
            output();
        }
    });
    assert_eq!(processes("sleep 73737"), Vec::<u32>::new());
    assert_eq!(zombies(), 0);
}

fn zombies() -> usize {
    let children = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = children.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let pids: Vec<String> =
        lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let is_zombie =
        |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    pids.iter().filter(|pid| is_zombie(pid)).count()
}

/// What the next test's victim is told by.
const VICTIM: &str = "KILN_EXEC_TEST_VICTIM";

/// Not a test of its own: the process that is killed by the next one.
#[test]
fn victim() {
    #[allow(clippy::disallowed_methods, reason = "the other test's way to talk to this one")]
    let Ok(command) = std::env::var(VICTIM) else { return };
    let image = Image::new();
    let null = || std::fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let io = ProcessIo { stdin: None, stdout: null(), stderr: null() };
    let _ = support::runtime().block_on(Executor::new().run(image.spec(&["sh", "-c", &command]), io));
}

#[test]
fn the_death_of_kiln_is_the_death_of_its_containers() {
    require_containers!();
    // The second sheds the kernel's own rule by changing the user, as `su` does; the third is a group of its own.
    let commands = [
        "exec sleep 74741",
        "exec su app -c 'exec sleep 74742'",
        "trap '' TERM INT HUP; setsid sleep 74743 & sleep 74743",
    ];
    // Who is killed cannot tidy up, so its files are in a place of ours.
    let dir = tempfile::tempdir().unwrap();
    for (command, sleep) in commands.into_iter().zip(["sleep 74741", "sleep 74742", "sleep 74743"]) {
        let mut kiln = kiln_with(command, dir.path());
        assert!(eventually(|| !sleeping(sleep).is_empty()), "`{command}` did not start");
        // All of it, as a terminal or a job runner does.
        let group = rustix::process::Pid::from_child(&kiln);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        let killed = Instant::now();
        kiln.wait().unwrap();
        assert!(eventually(|| sleeping(sleep).is_empty()), "`{command}` outlived kiln");
        assert!(killed.elapsed() < Duration::from_secs(1), "took {:?}", killed.elapsed());
        let ours = kiln.id();
        assert!(eventually(|| !std::path::Path::new(&format!("/proc/{ours}")).exists()));
    }
    assert!(eventually(|| processes("life::victim").is_empty()), "a watchdog is left");
}

#[test]
fn a_container_that_nobody_watches_is_killed() {
    require_containers!();
    let dir = tempfile::tempdir().unwrap();
    let mut kiln = kiln_with("exec su app -c 'exec sleep 74744'", dir.path());
    assert!(eventually(|| !sleeping("sleep 74744").is_empty()));
    let status = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let is_watchdog =
        |status: &str| status.contains("Name:\twatchdog\n") && status.contains(&format!("PPid:\t{}\n", kiln.id()));
    let watchdog = processes("life::victim").into_iter().find(|pid| is_watchdog(&status(pid))).unwrap();
    let watchdog = rustix::process::Pid::from_raw(watchdog as i32).unwrap();
    rustix::process::kill_process(watchdog, rustix::process::Signal::KILL).unwrap();
    assert!(eventually(|| sleeping("sleep 74744").is_empty()), "it lives on");
    kiln.wait().unwrap();
}

/// A process that runs a container with this command, in a process group of its own.
fn kiln_with(command: &str, dir: &std::path::Path) -> std::process::Child {
    #[allow(clippy::disallowed_methods, reason = "a process to kill")]
    let mut kiln = std::process::Command::new(std::env::current_exe().unwrap());
    kiln.args(["--exact", "life::victim", "--nocapture", "--test-threads=1"]).env(VICTIM, command).env("TMPDIR", dir);
    kiln.process_group(0).stdout(std::process::Stdio::null()).spawn().unwrap()
}

/// Processes that are this sleep, not shells that mention it.
fn sleeping(sleep: &str) -> Vec<u32> {
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim_end() == sleep
    };
    processes(sleep).into_iter().filter(is_it).collect()
}

/// Types on the terminal of a container as it asks for it, and gives what it showed.
fn on_terminal(image: &Image, script: &str, typed: &[(&str, &[u8])]) -> (ExitStatus, String) {
    let (other_end, end) = tokio::sync::oneshot::channel();
    let terminal = Terminal { size: (33, 101), other_end };
    let mut spec = image.spec(&["sh", "-c", script]);
    spec.user = user(1000, 1000);
    let typed: Vec<(String, Vec<u8>)> = typed.iter().map(|(after, text)| ((*after).into(), text.to_vec())).collect();
    let typist = std::thread::spawn(move || {
        let mut end = std::fs::File::from(end.blocking_recv().unwrap());
        let (mut shown, mut typed, mut buffer) = (String::new(), typed.into_iter().peekable(), [0; 4096]);
        // Reading fails when the container is gone.
        while let Ok(count @ 1..) = std::io::Read::read(&mut end, &mut buffer) {
            shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
            while let Some((_, text)) = typed.next_if(|(after, _)| shown.contains(after.as_str())) {
                std::io::Write::write_all(&mut end, &text).unwrap();
            }
        }
        shown
    });
    let status = support::runtime().block_on(Executor::new().run(spec, Stdio::Terminal(terminal))).unwrap();
    (status, typist.join().unwrap())
}

#[test]
fn a_container_may_have_a_terminal_of_its_own() {
    require_containers!();
    for image in [Image::new(), Image::with_host_ids()] {
        let script = "busybox tty; busybox stty size; echo x > /dev/tty; read a; echo \"<$a>\"; exit 5";
        let (status, shown) = on_terminal(&image, script, &[("x\r\n", b"hello\r")]);
        assert_eq!(status, ExitStatus::Code(5));
        assert_eq!(shown, "/dev/pts/0\r\n33 101\r\nx\r\nhello\r\n<hello>\r\n");
    }
}

#[test]
fn control_c_on_a_terminal_is_for_what_runs_there() {
    require_containers!();
    let script = "trap 'echo caught' INT; sh -c 'echo ready; exec sleep 86862'; echo after";
    let began = Instant::now();
    let (status, shown) = on_terminal(&Image::new(), script, &[("ready", b"\x03")]);
    assert!(began.elapsed() < Duration::from_secs(5) && processes("sleep 86862").is_empty());
    assert_eq!(status, ExitStatus::Code(0), "{shown}");
    assert!(shown.ends_with("caught\r\nafter\r\n"), "{shown:?}");
}
