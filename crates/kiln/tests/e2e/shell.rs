//! `kiln shell` and `--on-failure=shell`: steps to look into.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::project::Project;

/// A step that fails halfway, seen by a user in a directory of their own.
const HALFWAY: &str = "FROM busybox\nENV A=\"x y\"\nRUN echo before > /before\nWORKDIR /w\nRUN chown daemon /w\nUSER daemon\n\
                       RUN --mount=type=tmpfs,target=/t --mount=type=cache,target=/c,uid=1 \
                       echo half > made && rm -f /tmp/x && echo kept > /c/n && echo \"a  b\" && exit 3\n";

fn layers(project: &Project) -> usize {
    fs::read_dir(project.state().join("layers")).unwrap().count()
}

/// The id of the last build.
fn last(project: &Project) -> String {
    let ids = project.kiln(&["builds", "-q"]).ok().stdout;
    ids.lines().next().unwrap().to_owned()
}

#[test]
fn a_failed_step_is_entered_as_it_was_left() {
    let project = Project::new();
    project.dockerfile(HALFWAY).build(&[]).fails(1).says(&format!("with `kiln shell {}`", last(&project)));
    let sh = |script: &str| project.kiln(&["shell", "--", "sh", "-c", script]);
    let seen = sh("cat made /c/n; echo \"$A\"; pwd; id -un; stat -f -c %T /t; ls /before").ok();
    assert_eq!(seen.stdout, "half\nkept\nx y\n/w\ndaemon\ntmpfs\n/before\n");
    assert_eq!(seen.stderr, "", "nothing is told to a script");
    assert_eq!(sh("exit 9").fails(9).stdout, "");
    let again = project.kiln_with_input(&["shell"], b"eval \"$KILN_COMMAND\"\n").fails(3);
    assert_eq!(again.stdout, "a  b\n");
    sh("rm made; echo new > new").ok();
    assert_eq!(sh("ls").ok().stdout, "made\n", "what is changed there is not kept");
    assert_eq!(project.kiln(&["shell", "-e", "A=2", "--", "sh", "-c", "echo $A"]).ok().stdout, "2\n");
    // The next build begins where this one ended, and with nothing of what it left.
    project.dockerfile(&HALFWAY.replace("exit 3", "ls /w > /c/seen"));
    assert_eq!(project.build(&[]).ok().cached(), 5);
    assert_eq!(project.sh("cat /w/made; ls /w"), "half\nmade\n");
}

#[test]
fn one_failed_step_of_a_dockerfile_is_kept_until_it_is_pruned() {
    let project = Project::new();
    let fails =
        |text: &str| project.dockerfile(&format!("FROM busybox\nRUN echo {text} > /f; exit 1\n")).build(&[]).fails(1);
    fails("one");
    let (first, count) = (last(&project), layers(&project));
    fails("two");
    assert_eq!(layers(&project), count);
    assert_eq!(project.kiln(&["shell", "--", "cat", "/f"]).ok().stdout, "two\n");
    project.kiln(&["shell", &first, "--", "true"]).fails(1).says("its files are not kept").says("hint: build it again");
    let listed = project.kiln(&["du", "--verbose"]).ok().stdout;
    assert!(listed.contains("RUN echo two > /f; exit 1 (failed)"), "{listed}");
    // Another Dockerfile has one of its own.
    project.file("other", "FROM busybox\nRUN echo other > /f; exit 1\n");
    let context = project.context();
    project.kiln(&["build", "-f", context.join("other").to_str().unwrap(), context.to_str().unwrap()]).fails(1);
    assert_eq!(project.kiln(&["shell", "--", "cat", "/f"]).ok().stdout, "other\n");
    project.kiln(&["prune", "-f"]).ok();
    project.kiln(&["shell", "--", "true"]).fails(1).says("no failed step is kept");
    project.kiln(&["fsck"]).ok();
}

#[test]
fn a_step_that_ended_is_entered_by_its_place() {
    let project = Project::new();
    project.file("f", "f").builds(
        "FROM busybox AS one\nENV A=1\nRUN echo a > /a\nRUN echo b > /b\nFROM busybox\nENV A=2\nCOPY f /f\nCOPY --from=one /b /\n\
         RUN test $A = 2\n",
    );
    let see = |step: &str| project.kiln(&["shell", step, "--", "sh", "-c", "ls -d /[abf]; echo $A"]);
    assert_eq!(see(":one 2").ok().stdout, "/a\n1\n");
    assert_eq!(see(&format!("{}:[one 3/3]", last(&project))).ok().stdout, "/a\n/b\n1\n");
    assert_eq!(see("^0:stage-1 2/4").ok().stdout, "/f\n2\n");
    see(":2").fails(2).says("has several steps `2`").says("`one 2/3`");
    see(":nine").fails(2).says("has no step `nine`");
    see("^0").fails(2).says("no step of build").says(":2/4`, or run an image with `kiln run`");
    see("nosuch").fails(1).says("no build or image `nosuch` is recorded").says("`kiln run IMAGE sh`");
    // Of the same image no step is kept after it was pruned.
    project.kiln(&["rmi", "app"]).ok();
    project.kiln(&["prune", "-af"]).ok();
    see(":one 2").fails(1).says("its result is not kept");
}

#[test]
fn what_a_step_read_besides_its_root_is_there_or_told_to_be_missing() {
    let project = Project::new();
    project.file("src/f", "from the context\n").file(".dockerignore", "src/hidden\n").file("src/hidden", "x");
    project.dockerfile(
        "FROM busybox AS tools\nRUN echo tool > /tool\nFROM busybox\nARG API_TOKEN\nARG PLAIN\n\
         RUN --mount=target=/src,source=src --mount=from=tools,target=/tools --mount=type=ssh true && exit 1\n",
    );
    project.build(&["--build-arg", "API_TOKEN=hush-7f3", "--build-arg", "PLAIN=yes"]).fails(1);
    let script = "ls /src; cat /src/f /tools/tool; echo $PLAIN-$API_TOKEN";
    let seen = project.kiln(&["shell", "--", "sh", "-c", script]).ok();
    assert_eq!(seen.stdout, "f\nfrom the context\ntool\nyes-\n");
    let seen = seen.says("warning: the value of `API_TOKEN` is not kept; give it with `-e API_TOKEN=VALUE`");
    seen.says("warning: ssh agent `default` is not here");
    let state = String::from_utf8_lossy(&fs::read(project.state().join("kiln.db")).unwrap()).into_owned();
    assert!(!state.contains("hush-7f3"));
    fs::remove_dir_all(project.context().join("src")).unwrap();
    fs::remove_file(project.context().join("Dockerfile")).unwrap();
    let seen = project.kiln(&["shell", "--", "sh", "-c", "cat /tools/tool"]);
    seen.fails(1).says("src");
}

#[test]
fn secrets_are_lent_anew_and_what_holds_one_is_not_kept() {
    let project = Project::new();
    fs::write(project.path().join("token"), "hush-9f4e-of-the-shell").unwrap();
    let step = |command: &str| {
        project.dockerfile(&format!("FROM busybox\nRUN --mount=type=secret,id=t,required {command}; exit 1\n"));
        project.build(&["--secret", "id=t,src=token"]).fails(1)
    };
    step("echo half > /made").says("with `kiln shell ");
    let see = |args: &[&str]| {
        let mut all = vec!["shell"];
        all.extend(args);
        all.extend(["--", "sh", "-c", "cat /made /run/secrets/t"]);
        project.kiln(&all)
    };
    assert_eq!(see(&["--secret", "id=t,src=token"]).ok().stdout, "half\nhush-9f4e-of-the-shell");
    assert_eq!(
        see(&[]).fails(1).says("warning: secret `t` is not here; give it with `--secret id=t,").stdout,
        "half\n"
    );
    step("cp /run/secrets/t /copy").never_says("kiln shell");
    let copies = Command::new("grep").args(["-rlF", "hush-9f4e"]).arg(project.state()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&copies.stdout), "");
}

#[test]
fn an_image_without_a_shell_says_so() {
    let project = Project::new();
    project.file("busybox", fs::read("/bin/busybox").unwrap());
    project
        .dockerfile("FROM scratch\nCOPY --chmod=755 busybox /opt/busybox\nRUN [\"/opt/busybox\", \"false\"]\n")
        .build(&[])
        .fails(1);
    project.kiln(&["shell"]).fails(1).says("there is no shell in the files of").says("-- PROGRAM`");
    assert_eq!(project.kiln(&["shell", "--", "/opt/busybox", "echo", "hi"]).ok().stdout, "hi\n");
    project.kiln(&["shell", "--", "nosuch"]).fails(127);
}

/// kiln on a terminal, and what is typed there.
struct Typist {
    end: File,
    theirs: OwnedFd,
    shown: String,
}

impl Typist {
    fn new(command: &mut Command) -> (Self, std::process::Child) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let end = openpt(flags).unwrap();
        unlockpt(&end).unwrap();
        let theirs = ioctl_tiocgptpeer(&end, flags).unwrap();
        tcsetwinsize(&end, Winsize { ws_row: 41, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        rustix::fs::fcntl_setfl(&end, OFlags::NONBLOCK).unwrap();
        let stream = || theirs.try_clone().unwrap();
        let child = command.env("TERM", "kiln-test").stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        (Self { end: end.into(), theirs, shown: String::new() }, child)
    }

    /// Reads until this is shown.
    #[track_caller]
    fn waits_for(&mut self, text: &str) {
        let (begun, mut buffer) = (Instant::now(), [0; 4096]);
        while !self.shown.contains(text) {
            assert!(begun.elapsed() < Duration::from_secs(20), "`{text}` is not in\n{}", self.shown);
            match self.end.read(&mut buffer) {
                Ok(count) => self.shown.push_str(&String::from_utf8_lossy(&buffer[..count])),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        // What was shown so far is not waited for again.
        let rest = self.shown.split_once(text).unwrap().1.to_owned();
        self.shown = rest;
    }

    fn types(&mut self, text: &str) {
        self.end.write_all(text.as_bytes()).unwrap();
    }

    /// Whether the terminal is as one leaves it to a shell.
    fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }
}

#[test]
fn a_build_that_fails_on_a_terminal_opens_a_shell_there() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c echo half > /made; test -e /c/mended\n");
    let context = project.context();
    let mut command = project.command();
    command.args(["build", "--on-failure=shell", "--progress=plain", "-t", "app", context.to_str().unwrap()]);
    let (mut typist, mut kiln) = Typist::new(&mut command);
    typist.waits_for("exit code: 1");
    typist.waits_for("test -e /c/mended of build ");
    typist.waits_for("as it was left");
    typist.waits_for("# ");
    assert!(!typist.is_cooked());
    typist.types("cat /made; stty size; tty; echo $TERM-\r");
    typist.waits_for("half\r\n41 97\r\n/dev/pts/0\r\nkiln-test-\r\n");
    // Control-C is for what runs in the shell, and for nobody else.
    typist.types("sh -c 'echo ready; exec sleep 74401'\r");
    typist.waits_for("ready\r\n");
    typist.types("\u{3}");
    typist.waits_for("# ");
    typist.types(
        "eval \"$KILN_COMMAND\" || echo still; touch /c/mended /more; eval \"$KILN_COMMAND\" && echo mended; exit 5\r",
    );
    typist.waits_for("still\r\n");
    typist.waits_for("mended\r\n");
    typist.waits_for("build again, from the step that failed? [y/N] ");
    typist.types("\r");
    assert_eq!(kiln.wait().unwrap().code(), Some(1), "the build has failed, whatever the shell says");
    assert!(typist.is_cooked());
    project.build(&[]).ok();
    assert_eq!(project.sh("ls /more /made 2>/dev/null || true"), "/made\n");
}

#[test]
fn buildx_s_debugger_opens_the_program_that_it_names() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN echo half > /made; exit 1\n");
    let mut command = project.command();
    command.args(["buildx", "debug", "--on=error", "--invoke", "/bin/ash", "build", "--progress=plain"]);
    let (mut typist, mut kiln) = Typist::new(command.arg(project.context()));
    typist.waits_for("as it was left");
    typist.waits_for("# ");
    typist.types("cat /made /proc/1/cmdline; exit 5\r");
    typist.waits_for("half\r\n/bin/ash");
    typist.waits_for("[y/N] ");
    typist.types("no\r");
    assert_eq!(kiln.wait().unwrap().code(), Some(1));
}

#[test]
fn what_was_mended_is_built_on_from_the_step_that_failed() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN echo slow >/slow\nRUN exit 1\n");
    let context = project.context();
    let mut command = project.command();
    command.args(["build", "--on-failure=shell", "--progress=plain", "-t", "app", context.to_str().unwrap()]);
    let (mut typist, mut kiln) = Typist::new(&mut command);
    for mended in [
        "FROM busybox\nRUN echo slow >/slow\nRUN exit 2\n",
        "FROM busybox\nRUN echo slow >/slow\nRUN echo well >/well\n",
    ] {
        typist.waits_for("as it was left");
        typist.waits_for("# ");
        typist.types("exit\r");
        typist.waits_for("[y/N] ");
        project.dockerfile(mended);
        typist.types("y\r");
        typist.waits_for("RUN echo slow >/slow");
        typist.waits_for("CACHED");
    }
    assert_eq!(kiln.wait().unwrap().code(), Some(0));
    assert_eq!(project.sh("cat /slow /well"), "slow\nwell\n");
    // A signal ends the question as it ends a build.
    project.dockerfile("FROM busybox\nRUN exit 3\n");
    let (mut typist, mut kiln) = Typist::new(&mut command);
    typist.waits_for("# ");
    typist.types("exit\r");
    typist.waits_for("[y/N] ");
    kill_process(Pid::from_child(&kiln), Signal::INT).unwrap();
    assert_eq!(kiln.wait().unwrap().code(), Some(130));
}

#[test]
fn a_signal_ends_the_shell_and_gives_the_terminal_back() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN exit 1\n").build(&[]).fails(1);
    let (mut typist, mut kiln) = Typist::new(project.command().arg("shell"));
    typist.waits_for("# ");
    typist.types("trap '' TERM INT HUP; setsid sleep 74402 & echo be''gun\r");
    typist.waits_for("begun");
    let began = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&kiln), rustix::process::Signal::TERM).unwrap();
    assert_eq!(kiln.wait().unwrap().code(), Some(143));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(typist.is_cooked());
    assert!(!crate::failed::is_running(74402));
}

#[test]
fn without_a_terminal_no_shell_is_promised() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN exit 1\n");
    let run = project.build(&["--on-failure=shell"]).fails(2);
    run.says("`--on-failure=shell` needs a terminal").says("hint: leave it out: `kiln shell`").never_says("RUN exit 1");
}

#[test]
fn an_ordinary_user_enters_steps() {
    let Some(project) = crate::rootless::theirs() else { return };
    let project = project.with_busybox();
    project.dockerfile("FROM busybox\nRUN echo left >/x; exit 1\n");
    project.build(&[]).fails(1);
    assert_eq!(project.kiln(&["shell", "--", "cat", "/x"]).ok().stdout, "left\n");
}
