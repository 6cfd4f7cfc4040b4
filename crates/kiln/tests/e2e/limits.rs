//! Options that say what a step may take and what it is told of its machine: seen from within, for root and for others.

use std::fs;
use std::path::{Path, PathBuf};

use crate::project::{Project, Run};
use crate::rootless::theirs;

/// What a step finds out, a line each.
const LOOK: &str = "(df -k /dev/shm | tail -n 1 | awk '{print $2}'; hostname; cat /etc/hostname; ulimit -n; ulimit -H -n; ulimit -f; \
     ulimit -H -f; grep -E '[[:space:]](db|six|here)$' /etc/hosts; true)";

fn projects() -> impl Iterator<Item = Project> {
    std::iter::once(Project::new()).chain(theirs().map(Project::with_busybox))
}

#[test]
fn each_option_has_its_effect_in_a_step_and_in_a_container() {
    const COMMON: [&str; 14] = [
        "--shm-size",
        "1GB",
        "--ulimit",
        "nofile=50:100",
        "--ulimit",
        "nofile=60:120",
        "--ulimit",
        "fsize=8192",
        "--add-host",
        "db:10.0.0.7",
        "--add-host",
        "six=[fd00::1]",
        "--add-host",
        "here:127.0.0.1",
    ];
    let wanted = "1048576\nbox-1.lan\nbox-1.lan\n60\n120\n16\n16\n10.0.0.7\tdb\nfd00::1\tsix\n127.0.0.1\there\n";
    for project in projects() {
        project.dockerfile(&format!("FROM busybox\nRUN {LOOK} >/seen\n"));
        let name = ["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=box-1.lan"];
        project.build(&[&COMMON[..], &name].concat()).ok();
        assert_eq!(project.sh("cat /seen"), wanted);
        let run = [&["run", "--hostname", "box-1.lan"], &COMMON[..], &["busybox", "sh", "-c", LOOK]].concat();
        assert_eq!(project.kiln(&run).ok().stdout, wanted);
        // Nothing, and 0, are what is usual.
        project.dockerfile(&format!("FROM busybox\nRUN ({LOOK}) >/seen # plain\n"));
        for args in [&[][..], &["--no-cache", "--shm-size", "0", "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME="]] {
            project.build(args).ok();
            let seen = project.sh("cat /seen");
            assert!(seen.starts_with("65536\nbuildkitsandbox\nbuildkitsandbox\n1024\n"), "{seen}");
        }
    }
}

#[test]
fn how_a_host_is_reached_runs_no_step_again_and_what_a_step_may_look_at_does() {
    let project = Project::new();
    let base = ["--add-host", "db:10.0.0.7", "--ulimit", "nofile=50", "--shm-size", "1m", "--memory", "1g"];
    project.dockerfile("FROM busybox\nRUN true\n").build(&base).ok();
    let steps = |change: &[(usize, &'static str)], more: &[&'static str]| {
        let mut args = base.to_vec();
        change.iter().for_each(|(at, value)| args[*at] = value);
        args.extend(more);
        project.build(&args).ok().cached()
    };
    let parent = format!("kiln-test-{}", std::process::id());
    let parent: &'static str = parent.leak();
    for (change, more, is_cached) in [
        (&[][..], &[][..], true),
        (&[(1, "db:10.0.0.8")], &[], true),
        (&[(1, "queue:10.0.0.7")], &[], false),
        (&[(3, "nofile=51")], &[], false),
        (&[(5, "2m")], &[], false),
        (&[(7, "2g")], &[], true),
        (&[], &["--cpuset-cpus", "0"], true),
        (&[], &["--cgroup-parent", parent], true),
        (&[], &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=other"], false),
    ] {
        assert_eq!(steps(change, more), 1 + usize::from(is_cached), "{change:?} {more:?}");
    }
}

#[test]
fn what_was_made_within_limits_is_no_result_without_them_in_a_cache_of_others_either() {
    let maker = Project::new();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    let dockerfile = "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nRUN [\"/bin/busybox\", \"touch\", \"/x\"]\n";
    let hits = |made_with: &[&str], used_with: &[&str]| {
        let cache = maker.path().join(format!("cache-{}", made_with.join("")));
        let (to, from) =
            (format!("type=local,dest={}", cache.display()), format!("type=local,src={}", cache.display()));
        let user = Project::bare();
        for project in [&maker, &user] {
            project.file("busybox", fs::read(busybox).unwrap()).dockerfile(dockerfile);
        }
        maker.build(&[&["--no-cache", "--cache-to", &to], made_with].concat()).ok();
        user.build(&[&["--cache-from", &from], used_with].concat()).ok().cached()
    };
    let limit = ["--ulimit", "nofile=99"];
    assert_eq!((hits(&[], &[]), hits(&limit, &limit)), (2, 2));
    assert_eq!((hits(&limit, &[]), hits(&[], &limit)), (1, 1));
}

/// The groups of this name, in every hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let all = hierarchies.chain(Some(PathBuf::from("/sys/fs/cgroup"))).map(|top| top.join(name));
    all.filter(|group| group.is_dir()).collect()
}

fn remove(groups: &[PathBuf]) {
    groups.iter().for_each(|group| fs::remove_dir(group).unwrap());
}

#[test]
fn control_groups_are_made_where_they_are_asked_for_and_hold_what_they_say() {
    let project = Project::new();
    let parent = format!("kiln-test-{}", std::process::id());
    project.dockerfile("FROM busybox\nRUN grep Cpus_allowed_list /proc/self/status >/cpus; touch /here; sleep 2\n");
    let args = ["--cgroup-parent", &parent, "-m", "64m", "--resource", "cpuset-cpus=0", "--cpu-quota", "50000"];
    let inside = || {
        let within = |group: &PathBuf| {
            fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
        };
        groups(&parent).iter().flat_map(within).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let read = |group: &Path, file: &str| fs::read_to_string(group.join(file)).ok().map(|text| text.trim().to_owned());
    let (run, found) = std::thread::scope(|scope| {
        let build = scope.spawn(|| project.build(&args));
        let mut found = std::collections::BTreeMap::new();
        while !build.is_finished() {
            for group in inside() {
                for file in ["memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "cpuset.cpus"] {
                    found.extend(read(&group, file).map(|value| (file, value)));
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        (build.join().unwrap(), found)
    });
    let run: Run = run.ok();
    if run.stderr.contains("steps are not limited as asked") {
        kiln_testkit::skip("this machine has no control groups to limit with");
        return;
    }
    assert_eq!(project.sh("cat /cpus"), "Cpus_allowed_list:\t0\n");
    let either = |one: &str, other: &str| found.get(one).or(found.get(other)).cloned().unwrap_or_default();
    assert_eq!(either("memory.limit_in_bytes", "memory.max"), "67108864", "{found:?}");
    assert!(either("cpu.cfs_quota_us", "cpu.max").starts_with("50000"), "{found:?}");
    assert_eq!(found.get("cpuset.cpus").map(String::as_str), Some("0"), "{found:?}");
    let made = groups(&parent);
    assert!(!made.is_empty());
    remove(&made);
}

#[test]
fn limits_that_are_not_theirs_to_set_are_told_to_an_ordinary_user() {
    let Some(project) = theirs() else { return };
    let project = project.with_busybox();
    project.dockerfile("FROM busybox\nRUN true\n");
    // Where their group is theirs to divide, it is so; else a line says why not.
    let run = project.build(&["-m", "64m", "--resource", "cpuset-cpus=0", "--cgroup-parent", "kiln-theirs"]).ok();
    let is_told = run.stderr.matches("steps are not limited as asked").count() == 1;
    assert!(is_told || !groups("kiln-theirs").is_empty(), "{}", run.stderr);
    remove(&groups("kiln-theirs"));
}
