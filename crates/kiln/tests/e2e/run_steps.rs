//! `RUN`: the container it runs in, its mounts, its user, its end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::Project;

#[test]
fn shell_and_exec_forms_and_the_shell_instruction() {
    let project = Project::new();
    project.builds(
        "FROM busybox\nENV A=\"x y\"\nRUN echo \"$A\" > /shell\nRUN [\"/bin/sh\", \"-c\", \"echo exec > /exec\"]\n\
         SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $0 $- > /set\nRUN echo a && \\\n  # a comment within\n  echo b > /b\n",
    );
    assert_eq!(project.sh("cat /shell /exec /b"), "x y\nexec\nb\n");
    assert!(project.sh("cat /set").contains('e'));
}

#[test]
fn a_step_has_its_own_processes_host_name_and_no_input() {
    let project = Project::new();
    let run = project.builds(
        "FROM busybox\nRUN echo pid $$; hostname; cat; ls /proc | grep -c '^[0-9]'; readlink /proc/self/fd/0\n",
    );
    let run = run.says(" pid 1").says(" buildkitsandbox").says(" /dev/null");
    assert!(!run.stderr.contains("panicked"));
}

#[test]
fn a_step_is_confined() {
    let project = Project::new();
    let run = project.builds(
        "FROM busybox\nRUN grep -E '^(CapEff|CapInh|Seccomp):' /proc/self/status; \
         mount -t tmpfs none /tmp || echo no-mount; echo 1 > /proc/sys/kernel/panic || echo no-sysctl; \
         unshare -r true || echo no-userns; cat /proc/kcore | wc -c; touch /sys/x || echo no-sys\n\
         USER 1000\nRUN grep CapEff /proc/self/status | sed s/CapEff/User/\n",
    );
    let run = run.says("Seccomp:\t2").says("CapInh:\t0000000000000000").says("no-mount").says("no-sysctl");
    run.says("no-userns").says("no-sys").says("User:\t0000000000000000").says("CapEff:\t00000000800405fb");
}

#[test]
fn a_step_takes_no_more_than_it_was_given_and_the_limit_is_named() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN tail /dev/zero\n");
    let run = project.build(&["--memory", "48m", "--cpuset-cpus", "0"]);
    let told = run.fails(1);
    if told.stderr.contains("steps are not limited as asked") {
        println!("skipped: this machine has no control groups to limit memory with");
        return;
    }
    told.says("a process was killed by the memory limit of 50.33MB").says("raise the limit with `--memory`");
    project.build(&["--memory", "1g", "--resource", "memory=48m"]).fails(1).says("memory limit of 50.33MB");
    project.build(&["--resource", "memroy=1"]).fails(2).says("did you mean `memory`?");
    project.build(&["-m", "48m", "--memory-swap", "1m"]).fails(2).says("cannot be less than `--memory`");
    project.build(&["--cpuset-cpus", "all"]).fails(2).says("0-3,7");
}

#[test]
fn a_device_that_cannot_be_made_is_explained() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN mknod /pipe p && mknod /disk b 254 0\n");
    project.build(&[]).fails(1).says("mknod: /disk: Operation not permitted").says("--userns=host");
    project.build(&["--userns=host"]).ok();
}

#[test]
fn the_root_of_a_step_is_nobody_on_the_machine_and_its_files_are_root_s() {
    let project = Project::new();
    let run = project.builds(
        "FROM busybox\nRUN cat /proc/self/uid_map | tr -s ' ' && echo x > /made && chown 5:6 /made && mkdir /dir\n\
         RUN --mount=type=bind,target=/ctx --mount=type=cache,target=/cache,uid=7 --mount=type=tmpfs,target=/t \
         echo owners $(stat -c %u:%g /made /dir /ctx /cache /t /etc/passwd | tr '\\n' ' ')\n",
    );
    run.says(" 0 2147483647 2147483648").says("owners 5:6 0:0 0:0 7:0 0:0 0:0");
}

#[test]
fn users_come_from_the_image() {
    let project = Project::new();
    project.builds("FROM busybox\nRUN mkdir -m 777 /o\nUSER daemon\nRUN id -u > /o/u; id -G > /o/g; echo $HOME > /o/h\nUSER 4000:5000\nRUN id -u > /o/n; id -g >> /o/n\n");
    assert_eq!(project.sh("cat /o/u /o/g /o/h /o/n"), "1\n1 8\n/usr/sbin\n4000\n5000\n");
    project.dockerfile("FROM busybox\nUSER nosuch\nRUN true\n");
    project.build(&[]).fails(1).says("nosuch").says("Dockerfile:3");
    for user in ["4294967296", "2147483648"] {
        project.dockerfile(&format!("FROM busybox\nUSER {user}\nRUN true\n"));
        project.build(&[]).fails(1).says("out of range");
    }
}

#[test]
fn bind_mounts_show_files_and_leave_nothing() {
    let project = Project::new();
    project.file("src/a", "a").file("hidden", "h").file(".dockerignore", "hidden\n");
    project.builds(
        "FROM busybox AS other\nRUN mkdir /o && echo other > /o/f\nFROM busybox\n\
         RUN --mount=type=bind,target=/c cat /c/src/a > /a; ls /c > /ls; touch /c/x || echo ro > /ro\n\
         RUN --mount=from=other,source=/o,target=/mnt/deep/o cat /mnt/deep/o/f > /of\n\
         RUN --mount=target=/rw,rw sh -c 'echo changed > /rw/src/a && cat /rw/src/a > /changed'\n\
         RUN --mount=type=bind,source=src/a,target=/file cat /file > /one\n",
    );
    assert_eq!(project.sh("cat /a /of /changed /one /ro; cat /ls"), "aother\nchanged\naro\nDockerfile\nsrc\n");
    assert_eq!(project.sh("ls -d /c /mnt /rw /file 2>/dev/null; true"), "");
    assert_eq!(std::fs::read_to_string(project.context().join("src/a")).unwrap(), "a");
}

#[test]
fn cache_mounts_last_and_are_in_no_layer() {
    let project = Project::new();
    let dockerfile = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/cache,uid=7,mode=0711 \
                      echo $N >> /cache/log; cat /cache/log > /seen; stat -c '%u %a' /cache >> /seen\n";
    project.dockerfile(dockerfile).build(&["--build-arg", "N=1"]).ok();
    project.build(&["--build-arg", "N=2"]).ok();
    assert_eq!(project.sh("cat /seen; ls -d /cache 2>/dev/null; true"), "1\n2\n7 711\n");
}

#[test]
fn a_locked_cache_mount_serves_one_step_at_a_time() {
    let project = Project::new();
    let stage = |name: &str| {
        format!(
            "FROM busybox AS {name}\nRUN --mount=type=cache,id=x,target=/c,sharing=locked \
             test ! -e /c/busy && touch /c/busy && sleep 0.3 && rm /c/busy && echo {name} > /{name}\n"
        )
    };
    project.builds(&format!("{}{}FROM busybox\nCOPY --from=a /a /a\nCOPY --from=b /b /b\n", stage("a"), stage("b")));
    assert_eq!(project.sh("cat /a /b"), "a\nb\n");
}

#[test]
fn tmpfs_mounts_have_a_size_and_vanish() {
    let project = Project::new();
    let run = project.builds("FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=1m dd if=/dev/zero of=/t/x bs=1k count=2000 || echo full\n");
    run.says("full");
    assert_eq!(project.sh("ls -d /t 2>/dev/null; true"), "");
}

#[test]
fn secrets_are_seen_by_their_step_and_kept_nowhere() {
    let project = Project::new();
    let value = "SECRET-9c1e44aa77";
    std::fs::write(project.path().join("s"), value).unwrap();
    let source = format!("id=a,src={}", project.path().join("s").display());
    project.dockerfile(
        "FROM busybox\nRUN --mount=type=secret,id=a test $(wc -c < /run/secrets/a) = 17 && stat -f -c %T /run/secrets/a && stat -c %a:%u:%g /run/secrets/a\n\
         RUN --mount=type=secret,id=a,target=/s,uid=5,mode=0440 stat -c %a:%u:%g /s\n\
         RUN --mount=type=secret,id=a,env=TOKEN test ${#TOKEN} = 17\nRUN test ! -e /run/secrets/a\n",
    );
    project.build(&["--secret", &source]).ok().says("tmpfs").says("400:0:0").says("440:5:0").never_says(value);
    let found = Command::new("grep").args(["-rl", value]).arg(project.state()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    std::fs::write(project.path().join("s"), "OTHER-VALUE-OF-17").unwrap();
    assert!(project.build(&["--secret", &source]).ok().cached() >= 4, "a secret's value is in a key");
    project.dockerfile("FROM busybox\nRUN --mount=type=secret,id=zz,required cat /run/secrets/zz\n");
    project.build(&["--secret", &source]).fails(1).says("zz").says("--secret id=zz");
    project.dockerfile("FROM busybox\nRUN --mount=type=secret,id=zz test ! -e /run/secrets/zz\n").build(&[]).ok();
}

#[test]
fn network_none_has_only_its_own_loopback() {
    let project = Project::new();
    project.builds("FROM busybox\nRUN --network=none ls /sys/class/net > /net\n");
    assert_eq!(project.sh("cat /net"), "lo\n");
}

#[test]
fn a_failing_step_says_where_what_and_how_it_ended() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN echo fine\nRUN echo last words && exit 7\nRUN never\n");
    let run = project.build(&[]).fails(1);
    run.says("Dockerfile:3").says("exit 7").says("last words").says("exit code: 7").never_says("] RUN never DONE");
    project
        .dockerfile("FROM busybox\nRUN nosuchprogram\n")
        .build(&[])
        .fails(1)
        .says("exit code: 127")
        .says("not found");
    project.dockerfile("FROM busybox\nRUN [\"/no/such\"]\n").build(&[]).fails(1).says("/no/such");
    project.dockerfile("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n").build(&[]).fails(1).says("137");
    assert!(project.kiln(&["images", "-q", "app"]).ok().stdout.is_empty());
}

#[test]
fn no_process_is_left_and_a_background_child_holds_nothing_up() {
    let project = Project::new();
    let start = Instant::now();
    project.builds("FROM busybox\nRUN (trap '' TERM HUP; sleep 1234567) & echo ok\n").says("ok");
    assert!(start.elapsed() < Duration::from_secs(30));
    let alive = Command::new("pgrep").args(["-f", "sleep 1234567"]).output().unwrap();
    assert!(alive.stdout.is_empty(), "{}", String::from_utf8_lossy(&alive.stdout));
}

#[test]
fn logs_arrive_whole() {
    let project = Project::new();
    let run = project.builds("FROM busybox\nRUN seq 1 100000\n");
    assert!(run.stderr.lines().filter(|line| line.contains(" 77777")).count() >= 1);
    assert!(run.stderr.lines().count() > 100_000);
}

#[test]
fn output_that_nobody_reads_waits_in_the_step_and_not_in_memory() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN yes 'a line of some length, printed again and again'\n");
    let mut build = project.command();
    let mut child =
        build.args(["build", "--progress=plain"]).arg(project.context()).stderr(Stdio::piped()).spawn().unwrap();
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    // A peak never falls, so the last one tells.
    std::thread::sleep(Duration::from_secs(2));
    let most = peak();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(most < 150, "{most} MiB");
}

#[test]
fn killing_kiln_kills_the_step_and_leaves_no_mount() {
    let project = Project::new();
    project.dockerfile("FROM busybox\nRUN echo started; sleep 7654321\n");
    let mut child = project.command().args(["build", "-t", "app"]).arg(project.context()).spawn().unwrap();
    let sleeping = || !Command::new("pgrep").args(["-f", "sleep 7654321"]).output().unwrap().stdout.is_empty();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !sleeping() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(sleeping(), "the step never started");
    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!sleeping(), "the step outlived kiln");
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(project.path().to_str().unwrap()), "{mounts}");
    project.builds("FROM busybox\nRUN true\n");
}

#[test]
fn a_secret_that_is_printed_is_masked_in_logs_and_errors() {
    let project = Project::new();
    let value = "SECRET-9c1e44aa77";
    std::fs::write(project.path().join("s"), format!("{value}\n")).unwrap();
    let source = format!("id=a,src={}", project.path().join("s").display());
    project.dockerfile(
        "FROM busybox\nRUN --mount=type=secret,id=a,env=TOKEN --mount=type=secret,id=a \\\n\
         cat /run/secrets/a; echo \"<$TOKEN>\"; exit 1\n",
    );
    for progress in ["plain", "rawjson"] {
        let run = project.build(&["--progress", progress, "--secret", &source]).fails(1).never_says(value);
        assert!(!run.stdout.contains(value) && run.stderr.contains("exit code: 1"));
    }
    project.build(&["--secret", &source]).fails(1).says("<****").never_says(value);
}

#[test]
fn a_place_in_a_cache_mount_is_mounted_and_no_link_leads_out_of_it() {
    let project = Project::new();
    let cache = "--mount=type=cache,id=c,target=/m";
    project.builds(&format!(
        "FROM busybox\nRUN {cache} mkdir /m/sub && touch /m/sub/inside && ln -s /etc /m/out\n\
         RUN {cache},source=sub ls /m > /ls\n"
    ));
    assert_eq!(project.sh("cat /ls"), "inside\n");
    project.dockerfile(&format!("FROM busybox\nRUN {cache},source=out ls /m\n")).build(&[]).fails(1);
}

#[test]
fn built_in_arguments_name_the_host_and_keep_caches_apart() {
    let project = Project::new();
    let text =
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c echo $N >> /c/seen; hostname > /h; cp /c/seen /seen\n";
    project.dockerfile(text);
    let build = |n: &str, namespace: &str| {
        let (n, namespace) = (format!("N={n}"), format!("BUILDKIT_CACHE_MOUNT_NS={namespace}"));
        let host = "BUILDKIT_SANDBOX_HOSTNAME=builder";
        project.build(&["--build-arg", &n, "--build-arg", &namespace, "--build-arg", host]).ok();
        project.sh("cat /h /seen")
    };
    assert_eq!(build("1", "a"), "builder\n1\n");
    assert_eq!(build("2", "b"), "builder\n2\n");
    assert_eq!(build("3", "a"), "builder\n1\n3\n");
    assert!(!project.inspect("app")["Config"]["Env"].to_string().contains("BUILDKIT"));
}
