//! kiln as an ordinary user: with a range of ids, and with one.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kiln_testkit::{GitServer, Registry};

use crate::network::listen;
use crate::project::{Project, Run, have, run};
use crate::ssh::{bring, key};

/// Somebody whom the machine's files do not know, and so without a range of ids.
pub(crate) const NOBODY: u32 = 54_321;

/// A project of the user whom `KILN_TEST_USER` names, for whom ids are set aside.
pub(crate) fn theirs() -> Option<Project> {
    let Ok(name) = std::env::var("KILN_TEST_USER") else {
        kiln_testkit::skip("`KILN_TEST_USER` names no ordinary user");
        return None;
    };
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.split(':').next() == Some(&name)).expect("the user exists");
    let id = |at| line.split(':').nth(at).unwrap().parse().unwrap();
    Some(Project::of(id(2), id(3)))
}

/// A project of somebody with one id.
pub(crate) fn nobodys() -> Option<Project> {
    if !rustix::process::geteuid().is_root() {
        kiln_testkit::skip("only root can become somebody else");
        return None;
    }
    Some(Project::of(NOBODY, NOBODY))
}

/// Root's `busybox`, with some files of others, in the store of both.
fn with_same_base(other: &Project) -> Project {
    let root = Project::new();
    root.dockerfile(
        "FROM busybox\nRUN mkdir /shared /gone && chown 5:6 /shared && echo a >/shared/a && chown 7:8 /shared/a \
         && touch /gone/x && ln /shared/a /shared/b\n",
    );
    let context = root.context();
    root.kiln(&["build", "-q", "-t", "base", context.to_str().unwrap()]).ok();
    let archive = root.path().join("base.tar");
    root.kiln(&["save", "-o", archive.to_str().unwrap(), "base"]).ok();
    other.kiln(&["load", "-i", archive.to_str().unwrap()]).ok();
    root
}

#[test]
fn an_ordinary_user_builds_runs_and_prunes() {
    let Some(project) = theirs() else { return };
    let project = project.with_busybox();
    project.file("f", "f").file("secret", "hush");
    project.dockerfile(
        "FROM busybox AS one\n\
         RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/mem --mount=type=secret,id=s,uid=33,mode=0440 \
         stat -c '%u:%g %a' /run/secrets/s >/secret && echo x >/cache/x && echo y >/mem/y && mkdir /d && chown 33:8 /d\n\
         COPY --chown=daemon:mail f /d/f\n\
         USER daemon\n\
         RUN id >/tmp/id\n\
         FROM busybox\n\
         COPY --from=one /secret /tmp/id /d /\n\
         RUN --mount=type=cache,target=/cache cat /cache/x >/x && stat -c '%u:%g' /f >/owner\n",
    );
    let secret = format!("id=s,src={}", project.context().join("secret").display());
    project.build(&["--secret", &secret]).ok().never_says("user id");
    let said = project.sh("cat /secret /x /owner /id; cat /proc/self/uid_map");
    let lines: Vec<_> = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines[..3], ["33:0 440", "x", "1:8"]);
    assert!(lines[3].starts_with("uid=1(daemon) gid=1(daemon) groups=1(daemon),8(mail)"), "{lines:?}");
    // Its ids are those that kiln has, whose own lie elsewhere on the machine.
    assert_eq!(lines[4..], ["0 0 1", "1 1 65536"]);
    let layers = || fs::read_dir(project.state().join("layers")).unwrap().map(|entry| entry.unwrap().path());
    let owners: Vec<_> = layers().map(|layer| layer.metadata().unwrap().uid()).collect();
    assert!(!owners.is_empty() && owners.iter().all(|uid| *uid == project.path().metadata().unwrap().uid()));
    project.kiln(&["rmi", "app", "busybox"]).ok();
    project.kiln(&["prune", "--all", "--force"]).ok();
    assert_eq!(layers().count(), 0);
}

#[test]
fn what_root_builds_and_what_others_build_is_the_same() {
    for other in [theirs(), nobodys()].into_iter().flatten() {
        let root = with_same_base(&other);
        let built = [&root, &other].map(|project| {
            project.file("c", "c");
            project.dockerfile(
                "FROM base\nRUN rm -r /gone && mkdir /gone && echo n >/gone/n && rm /bin/yes\n\
                 RUN echo more >>/shared/a && chmod 4755 /shared/b\nCOPY c /shared/\n",
            );
            project.build(&["--reproducible"]).ok();
            project.inspect("app")["Id"].as_str().unwrap().to_owned()
        });
        assert_eq!(built[0], built[1]);
        let archive = other.path().join("out.tar");
        other.build(&["--reproducible", "-o", &format!("type=oci,dest={}", archive.display())]).ok();
        let [roots, theirs] = [&root, &other].map(|project| project.sh("ls -l /gone /shared; true"));
        assert_eq!(roots.lines().count(), theirs.lines().count(), "{roots}{theirs}");
    }
}

#[test]
fn with_one_id_what_does_not_work_is_said_once_with_the_way_to_more() {
    let Some(project) = nobodys() else { return };
    let project = project.with_busybox();
    project.dockerfile("FROM busybox\nRUN id -u >/a\nRUN --network=none id -u >/b; ! chown 1:1 /b\n");
    let run = project.build(&[]).ok().says("`/etc/subuid` sets no ids aside for `54321`");
    assert_eq!(run.stderr.matches("--add-subgids 100000-165535 54321`").count(), 1, "{}", run.stderr);
    assert_eq!(project.sh("cat /a /b"), "0\n0\n");
    project.dockerfile("FROM busybox\nUSER daemon\nRUN id\n");
    project.build(&[]).fails(3).says("there is no user 1 in this").says("usermod --add-subuids");
}

#[test]
fn a_state_directory_of_theirs_is_none_of_root_s() {
    let Some(project) = nobodys() else { return };
    project.kiln(&["prune", "--force"]).ok();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    let refused = run(command.arg("--state").arg(project.state()).args(["prune", "--force"])).fails(3);
    refused.says("belongs to user 54321").says("`--state`");
}

#[test]
fn ids_beyond_the_range_are_named() {
    let Some(project) = theirs() else { return };
    let root = Project::new();
    root.builds("FROM busybox\nRUN touch /far && chown 70000:1 /far\n");
    let archive = root.path().join("far.tar");
    root.kiln(&["save", "-o", archive.to_str().unwrap(), "app"]).ok();
    let load = project.kiln(&["load", "-i", archive.to_str().unwrap()]).fails(3);
    load.says("`far`").says("there is no user 70000").says("end at 65536").says("usermod --add-subuids");
}

#[test]
fn a_step_of_theirs_is_confined_as_one_of_root_s() {
    let Some(project) = theirs() else { return };
    let root = with_same_base(&project);
    let script = "grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status; \
                  for d in /proc/sys/kernel/hostname /sys/power/state /proc/sysrq-trigger /sys/fs/cgroup/x; \
                  do (echo 1 >$d) 2>/dev/null && echo wrote $d; done; \
                  mount -t tmpfs x /tmp 2>/dev/null && echo mounted; unshare -r true 2>/dev/null && echo unshared; \
                  cat /proc/keys /proc/kallsyms /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
                  ls /proc/self/fd | wc -l; readlink /proc/self/exe; cat /proc/1/cgroup | tail -n 1";
    let [roots, theirs] = [&root, &project].map(|project| {
        project.dockerfile(&format!("FROM base\nRUN ({script}) >/facts\n"));
        project.build(&[]).ok();
        project.sh("cat /facts")
    });
    assert_eq!(roots, theirs);
    assert!(roots.contains("Seccomp:\t2") && !roots.contains("wrote"), "{roots}");
}

#[test]
fn killed_it_leaves_nobody_behind() {
    let Some(project) = theirs() else { return };
    let project = project.with_busybox();
    project.dockerfile("FROM busybox\nRUN trap '' TERM HUP; sleep 86431 & setsid sleep 86431 & wait\n");
    let context = project.context();
    let mut command = project.command();
    command.args(["build", "-t", "app"]).arg(context).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    wait_for(|| sleepers() >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(|| sleepers() == 0);
}

fn sleepers() -> usize {
    processes(|line| line.ends_with("sleep\x0086431\0"))
}

/// How many processes have such a command line.
fn processes(is_one: impl Fn(&str) -> bool) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| is_one(line)).count()
}

/// Gives a file to whoever runs the project's kiln.
fn give(project: &Project, path: &Path) {
    let whose = project.path().metadata().unwrap();
    std::os::unix::fs::chown(path, Some(whose.uid()), Some(whose.gid())).unwrap();
}

#[test]
fn their_keys_and_agents_are_lent_to_steps_of_any_user() {
    let Some(project) = theirs() else { return };
    let project = project.with_busybox();
    let path = key(project.path(), "ed25519", "");
    give(&project, &path);
    bring(&project, "ssh-add");
    project.dockerfile(
        "FROM busybox\nCOPY root /\nRUN --mount=type=ssh ssh-add -l && ! ssh-add -D\n\
         USER daemon\nRUN --mount=type=ssh,uid=1 ssh-add -l | sed s/ED25519/daemon/ && stat -c '%u %a' $SSH_AUTH_SOCK\n",
    );
    let lent = format!("default={}", path.display());
    let run = project.build(&["--ssh", &lent]).ok();
    run.says("(ED25519)").says("(daemon)").says(" 1 600");
}

#[test]
fn a_repository_is_their_context_and_is_added() {
    let (Some(project), server) = (theirs(), GitServer::start()) else { return };
    let project = project.with_busybox();
    let repository = server.repository("app", &[("f", "in git"), ("sub/g", "below")]);
    repository
        .commit(&[("Dockerfile", &format!("FROM busybox\nCOPY f /f\nADD {}#main:sub /added\n", server.url("app")))]);
    project.kiln(&["build", "--progress=plain", "-t", "app", &server.url("app")]).ok();
    assert_eq!(project.sh("cat /f /added/g"), "in gitbelow");
    assert!(project.kiln(&["build", "--progress=plain", "-t", "app", &server.url("app")]).ok().cached() >= 2);
}

#[test]
fn a_directory_that_is_written_is_all_theirs() {
    for project in [theirs(), nobodys()].into_iter().flatten() {
        let project = project.with_busybox();
        project.dockerfile(
            "FROM busybox AS made\nRUN mkdir -p /out/d && echo f >/out/d/f && chmod 4755 /out/d/f && ln -s d/f /out/l && \
             ln /out/d/f /out/h && (chown -R 1:8 /out/d || true)\nFROM scratch\nCOPY --from=made /out /\n",
        );
        let out = project.tree(&[]);
        let whose = project.path().metadata().unwrap().uid();
        let entries = ["", "d", "d/f", "l", "h"].map(|name| out.join(name).symlink_metadata().unwrap());
        assert!(entries.iter().all(|entry| entry.uid() == whose), "{:?}", entries.map(|entry| entry.uid()));
        assert_eq!(fs::read_to_string(out.join("l")).unwrap(), "f\n");
        // And theirs to write anew, and to remove.
        project.build(&["-o", &format!("type=local,dest={}", out.display())]).ok();
        let mut remove = Command::new("setpriv");
        remove.args(["--reuid", &whose.to_string(), "--clear-groups", "rm", "-r"]).arg(&out);
        run(&mut remove).ok();
    }
}

#[test]
fn what_they_push_is_what_root_pulls() {
    for project in [theirs(), nobodys()].into_iter().flatten() {
        let Some(registry) = Registry::start() else { return };
        let project = project.with_busybox();
        let name = format!("{}/team/app:1", registry.host());
        project.dockerfile("FROM busybox\nRUN mkdir /d && echo f >/d/f && (chown 1:8 /d/f || true)\n");
        project.kiln(&["build", "--push", "-t", &name, project.context().to_str().unwrap()]).ok();
        let root = Project::bare();
        root.kiln(&["pull", &name]).ok();
        assert_eq!(root.inspect(&name)["Id"], project.inspect(&name)["Id"]);
        assert_eq!(root.kiln(&["run", "--rm", &name, "cat", "/d/f"]).ok().stdout, "f\n");
        let other = format!("{}/team/app:2", registry.host());
        project.kiln(&["tag", &name, &other]).ok();
        project.kiln(&["push", &other]).ok();
        root.kiln(&["pull", &other]).ok();
    }
}

/// kiln, where only these programs are found. The device of tunnels is everybody's, as on most machines.
fn with_programs(project: &Project, programs: &[&str]) -> Command {
    const SCRIPT: &str = "set -e; user=$1 group=$2 dir=$3; shift 3; mount --make-rprivate /; mount -t tmpfs none $dir/tunnels; \
        mknod -m 666 $dir/tunnels/tun c 10 200; mount --bind $dir/tunnels/tun /dev/net/tun; \
        exec setpriv --reuid $user --regid $group --clear-groups env PATH=$dir/programs \"$@\"";
    let dir = project.path();
    let (tunnels, bin) = (dir.join("tunnels"), dir.join("programs"));
    fs::create_dir_all(&tunnels).unwrap();
    let _ = fs::remove_dir_all(&bin);
    fs::create_dir(&bin).unwrap();
    for program in programs.iter().chain(&["newuidmap", "newgidmap"]) {
        symlink(Path::new("/usr/bin").join(program), bin.join(program)).unwrap();
    }
    let kiln = project.command();
    let mut command = Command::new("unshare");
    let whose = dir.metadata().unwrap();
    command.args(["-m", "sh", "-c", SCRIPT, "sh", &whose.uid().to_string(), &whose.gid().to_string()]).arg(dir);
    command.arg(kiln.get_program()).args(kiln.get_args()).env("HOME", dir).stdin(Stdio::null());
    command
}

fn build_with(project: &Project, programs: &[&str], args: &[&str]) -> Run {
    let mut command = with_programs(project, programs);
    run(command.args(["build", "--progress=plain", "-t", "app"]).args(args).arg(project.context()))
}

#[test]
fn steps_have_networks_of_their_own_by_what_is_installed() {
    let Some(project) = theirs() else { return };
    let project = project.with_busybox();
    let (open, open_hits) = listen("0.0.0.0:0");
    let (own, own_hits) = listen("127.0.0.1:0");
    // Each address that could stand for the machine's loopback is tried. The last `nc` does not hang up first: older `pasta`
    // may then lose that the other did.
    project.dockerfile(&format!(
        "FROM busybox\nRUN ls /sys/class/net | tr '\\n' ' ' >/net; gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); \
         for at in 127.0.0.1 machine $gateway 10.213.64.1 10.0.2.2; do timeout 1 nc -w 1 $at {own} </dev/null; done; \
         timeout 1 nc -w 1 169.254.169.254 80 </dev/null; sleep 1 | timeout 2 nc -w 1 machine {open} >/hello; true\n"
    ));
    for (index, program) in ["pasta", "slirp4netns"].into_iter().enumerate() {
        if have(program) {
            build_with(&project, &[program], &["--no-cache", "--add-host", "machine:host-gateway"])
                .ok()
                .never_says("network of their own");
            assert_eq!(project.sh("cat /net /hello"), "eth0 lo hello\n", "{program}");
            let hits = (own_hits.load(Ordering::Relaxed), open_hits.load(Ordering::Relaxed));
            assert_eq!(hits, (0, index + 1), "{program}");
        }
    }
    build_with(&project, &[], &["--no-cache", "--add-host", "machine:host-gateway"])
        .ok()
        .says("neither `pasta` (of the package `passt`) nor `slirp4netns` is installed; they have this machine's");
}

#[test]
fn what_leads_out_of_their_networks_ends_with_kiln() {
    let Some(project) = theirs() else { return };
    let project = project.with_busybox();
    project.dockerfile("FROM busybox\nRUN echo up; sleep 600\n");
    let leaders = |program: &str| {
        let dir = project.path().join("programs");
        processes(|line| line.split('\0').next().is_some_and(|name| dir.join(program).to_str() == Some(name)))
            + processes(|line| line.starts_with(&format!("{program}\0")))
    };
    for program in ["pasta", "slirp4netns"].into_iter().filter(|program| have(program)) {
        let before = leaders(program);
        let mut command = with_programs(&project, &[program]);
        command.args(["build", "--no-cache"]).arg(project.context()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        wait_for(|| leaders(program) > before);
        std::thread::sleep(Duration::from_millis(300));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for(|| leaders(program) == before);
    }
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
}
