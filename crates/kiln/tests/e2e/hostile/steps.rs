//! What steps find of the machine and of kiln: their users, descriptors, environment and leftovers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use kiln_testkit::{Forge, ForgedImage};
use serde_json::json;

use super::attack::{Attack, SECRET, link_of, printed};

fn with_busybox() -> Attack {
    let attack = Attack::new();
    attack.image(ForgedImage::busybox());
    attack
}

#[test]
fn a_step_that_runs_is_seen_by_the_check_for_leftovers() {
    let attack = with_busybox();
    attack.project.dockerfile("FROM evil\nRUN sleep 61\n");
    let evil = format!("evil=oci-layout://{}:t", attack.project.path().join("evil").display());
    let mut command = attack.project.command();
    command.args(["build", "-q", "--build-context", &evil]).arg(attack.project.context());
    let mut build = command.spawn().unwrap();
    let start = Instant::now();
    let sleeps = || Attack::processes().iter().any(|process| process.ends_with(" sleep 61 "));
    while !sleeps() && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(sleeps(), "{:?}", Attack::processes());
    let mut links = fs::read_dir("/sys/class/net").unwrap().flatten().map(|link| link.file_name());
    let has_links = links.any(|name| name.to_string_lossy().starts_with("kiln-"));
    let is_found = link_of(build.id()).exists();
    build.kill().unwrap();
    build.wait().unwrap();
    while sleeps() && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!sleeps(), "{:?}", Attack::processes());
    assert!(is_found || !has_links, "its link has another name");
}

#[test]
fn nothing_of_kiln_is_open_to_a_step() {
    for attack in Attack::by_everybody() {
        attack.image(ForgedImage::busybox());
        let binary = fs::metadata(env!("CARGO_BIN_EXE_kiln")).unwrap();
        let look = "echo fds $(for f in /proc/1/fd/*; do echo ${f##*/}; done); \
                    for exe in /proc/1/exe /proc/self/exe /proc/$$/exe; do (exec 9>>$exe) 2>/dev/null && echo opened $exe; done; \
                    readlink /proc/1/exe; grep -c [k]iln /proc/1/cmdline; echo end";
        // The shell has the directory itself open while it expands.
        let run = attack.build(&format!("FROM evil\nRUN {look}\n")).ok();
        let told = printed(&run);
        assert!(["fds 0 1 2", "fds 0 1 2 3"].contains(&told[0]), "{told:?}");
        assert_eq!(told[1..], ["/bin/busybox", "0", "end"]);
        let after = fs::metadata(env!("CARGO_BIN_EXE_kiln")).unwrap();
        assert_eq!((binary.ino(), binary.len(), binary.mtime()), (after.ino(), after.len(), after.mtime()));
    }
}

#[test]
fn the_environment_of_whoever_builds_is_theirs_alone() {
    for attack in Attack::by_everybody() {
        attack.image(ForgedImage::busybox());
        attack.project.dockerfile(
            "FROM evil\nRUN env; cat /proc/*/environ | tr '\\\\0' '\\n'; hostname; cat /proc/1/cgroup; cat /proc/self/mountinfo; \
             cat /proc/*/cmdline | tr '\\\\0' ' '; ls /home /Users 2>/dev/null; cat /etc/hosts /etc/hostname; echo end\n",
        );
        let (context, evil) = (attack.project.context(), attack.project.path().join("evil"));
        let mut command = attack.project.command();
        command.args([
            "build",
            "--progress=plain",
            "--build-context",
            &format!("evil=oci-layout://{}:t", evil.display()),
        ]);
        command
            .arg(context)
            .env("KT_HOST", SECRET)
            .env("USER", "machine-user-7f3a")
            .env("LOGNAME", "machine-user-7f3a");
        let run = attack.run(&mut command).ok().says(" end");
        let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let shown = run
            .stderr
            .lines()
            .filter(|line| line.starts_with("#") && !line.contains("["))
            .collect::<Vec<_>>()
            .join("\n");
        for private in ["machine-user-7f3a", "DOCKER_CONFIG", "CARGO", "KILN_", machine.trim()] {
            assert!(!shown.contains(private), "`{private}` is in\n{shown}");
        }
        // Of the machine's paths the overlay's options have some; no mount shows a place in it.
        let mounts = shown.lines().filter(|line| line.contains(" - ") && line.contains(" / "));
        for line in mounts {
            let root = line.split(' ').skip_while(|field| !field.contains(':')).nth(1).unwrap();
            assert!(
                root == "/" || ["/hosts", "/hostname", "/resolv.conf"].contains(&root) || !root.contains("kiln-e2e"),
                "{line}"
            );
        }
    }
}

#[test]
fn users_are_the_image_s_and_numbers_are_never_names() {
    let attack = Attack::new();
    let passwd =
        "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n1000:x:0:0::/root:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n";
    let group = "root:x:0:\ndaemon:x:1:\nmail:x:8:daemon\n2000:x:0:\n";
    let accounts = Forge::new().file("etc/passwd", passwd).file("etc/group", group).end();
    attack.image(ForgedImage::busybox().layer(accounts));
    let id = "RUN echo $(id -u) $(id -g) $(id -G)\n";
    for (user, said) in [
        ("daemon", " 1 1 1 8"),
        ("1000:2000", " 1000 2000 2000"),
        ("1000", " 1000 0 0"),
        ("daemon:mail", " 1 8 8"),
        ("0", " 0 0 0"),
    ] {
        attack.build(&format!("FROM evil\nUSER {user}\n{id}")).ok().says(said);
    }
    for (user, said) in [
        ("nosuch", "`nosuch`"),
        ("daemon:nosuch", "`nosuch`"),
        ("4294967296", "out of range"),
        ("2147483648", "out of range"),
        ("0:4294967296", "out of range"),
        ("-1", "-1"),
    ] {
        attack.build(&format!("FROM evil\nUSER {user}\n{id}")).fails(1).says(said).says("Dockerfile:3");
        let owner = user.to_owned();
        attack.image(ForgedImage::busybox().config(move |config| config["config"]["User"] = json!(owner)));
        attack.build(&format!("FROM evil\n{id}")).fails(1).says(said);
        let accounts = Forge::new().file("etc/passwd", passwd).file("etc/group", group).end();
        attack.image(ForgedImage::busybox().layer(accounts));
    }
}

#[test]
fn accounts_are_read_within_the_image_and_only_so_far() {
    let attack = Attack::new();
    let linked = Forge::new().link("etc/passwd", &attack.secret()).link("etc/group", &attack.secret()).end();
    let endless = Forge::new().link("etc/passwd", "/dev/zero").link("etc/group", "/dev/zero").end();
    let pipe = Forge::new().device(b'6', "etc/passwd", 0, 0).device(b'6', "etc/group", 0, 0).end();
    let lines = |line: &str| line.repeat((11 << 20) / line.len());
    let huge =
        Forge::new().file("etc/passwd", lines("a:x:1:1::/:/bin/sh\n")).file("etc/group", lines("g:x:1:root\n")).end();
    for (layer, user, said) in [
        (linked.clone(), "daemon", "no user `daemon`"),
        (endless, "daemon", "`daemon`"),
        (pipe, "daemon", "`/etc/passwd`"),
        (huge, "daemon", "`/etc/passwd` is larger than"),
    ] {
        attack.image(ForgedImage::busybox().layer(layer));
        attack.build(&format!("FROM evil\nUSER {user}\nRUN id\n")).fails(1).says(said).says("Dockerfile:3");
        attack.build(&format!("FROM evil\nCOPY --chown={user} Dockerfile /x\n")).fails(1).says("Dockerfile:2");
    }
    // Two numbers need no file.
    attack.image(ForgedImage::busybox().layer(linked));
    assert_eq!(printed(&attack.build("FROM evil\nUSER 1000:1000\nRUN id -u\n").ok()), ["1000"]);
}

#[test]
fn more_than_usual_is_denied_whoever_asks_and_no_step_runs() {
    for attack in Attack::by_everybody() {
        attack.image(ForgedImage::busybox());
        let plain = ["--security=insecure", "--network=host", "--security=$S", "--network=$N"];
        for flag in plain {
            let text = format!("ARG S=insecure\nARG N=host\nFROM evil\nARG S\nARG N\nRUN echo first\nRUN {flag} id\n");
            let run = attack.build(&text).fails(1);
            assert!(run.stderr.contains("--allow") || run.stderr.contains('$'), "{flag}: {}", run.stderr);
            assert_eq!(printed(&run), [""; 0], "{flag}");
            let trigger = format!("RUN {flag} id");
            attack.image(ForgedImage::busybox().config(move |config| config["config"]["OnBuild"] = json!([trigger])));
            assert_eq!(printed(&attack.build("FROM evil\nRUN echo first\n").fails(1)), [""; 0], "{flag}");
            attack.image(ForgedImage::busybox());
        }
        for flag in [
            "--security=2",
            "--security=-1",
            "--security=INSECURE ",
            "--network=container:1",
            "--security=sandbox,insecure",
        ] {
            let run = attack.build(&format!("FROM evil\nRUN echo first\nRUN {flag} id\n")).fails(1);
            assert_eq!(printed(&run), [""; 0], "{flag}");
        }
    }
}

#[test]
fn what_a_step_leaves_running_ends_with_it() {
    for attack in Attack::by_everybody() {
        attack.image(ForgedImage::busybox());
        for step in [
            "sleep 1000 & setsid sleep 1000 & (trap '' TERM HUP INT; sleep 1000) & exec >/dev/null; true",
            // It keeps the output open.
            "(trap '' TERM HUP; sleep 1000; echo late) & setsid sh -c 'sleep 1000' & echo ok",
        ] {
            let start = Instant::now();
            attack.build(&format!("FROM evil\nRUN {step}\nRUN echo next\n")).ok().says(" next").never_says(" late\n");
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        }
    }
}
