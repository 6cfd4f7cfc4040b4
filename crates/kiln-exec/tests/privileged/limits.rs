//! What a container may take of the machine, and what is told of the limit it met.
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

use std::sync::Arc;

use kiln_exec::{ControlGroup, Limit, Reached, Resources, Ulimit};

use crate::require_containers;
use crate::support::{Image, eventually, run};

/// A group, or a word that this machine has none.
fn group(resources: &Resources) -> Option<Arc<ControlGroup>> {
    match ControlGroup::new(resources) {
        Ok(group) => Some(Arc::new(group)),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn groups() -> usize {
    let own = format!("kiln-{}-", std::process::id());
    let found = ["pids", "memory", "cpu", "cpuset"].map(|name| {
        let entries = std::fs::read_dir(format!("/sys/fs/cgroup/{name}")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own)).count()
    });
    found.iter().sum()
}

#[test]
fn a_storm_of_processes_ends_at_the_limit_which_is_named() {
    require_containers!();
    let Some(group) = group(&Resources { processes: Some(20), ..Resources::default() }) else { return };
    let image = Image::new();
    let mut spec = image.spec(&["sh", "-c", "i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done; echo all"]);
    spec.group = Some(Arc::clone(&group));
    let ran = run(spec).unwrap();
    assert!(!ran.stdout.contains("all"), "{}", ran.stdout);
    assert!(ran.stderr.contains("fork"), "{}", ran.stderr);
    assert_eq!(group.reached(), [Reached::Processes(20)]);
    drop(group);
    assert_eq!(groups(), 0);
}

#[test]
fn memory_ends_at_the_limit_which_is_named_and_processors_are_as_asked() {
    require_containers!();
    let resources =
        Resources { memory: Some(32 << 20), cpus: Some("0".into()), cpu_shares: Some(512), ..Resources::default() };
    let Some(group) = group(&resources) else { return };
    let image = Image::new();
    let script = "grep Cpus_allowed_list /proc/self/status; tail /dev/zero; echo $?";
    let mut spec = image.spec(&["sh", "-c", script]);
    spec.group = Some(Arc::clone(&group));
    let ran = run(spec).unwrap();
    assert!(ran.stdout.starts_with("Cpus_allowed_list:\t0\n"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("137\n"), "{} {}", ran.stdout, ran.stderr);
    assert_eq!(group.reached(), [Reached::Memory(32 << 20)]);
    drop(group);
    assert_eq!(groups(), 0);
}

#[test]
fn a_container_sees_no_group_above_its_own_and_is_killed_before_us() {
    require_containers!();
    let Some(group) = group(&Resources { processes: Some(100), ..Resources::default() }) else { return };
    let image = Image::new();
    let mut spec =
        image.spec(&["sh", "-c", "cat /proc/self/cgroup; cat /proc/self/oom_score_adj; ulimit -n; ulimit -H -n"]);
    spec.group = Some(group);
    let ran = run(spec).unwrap();
    let (groups, rest): (Vec<&str>, Vec<&str>) = ran.stdout.lines().partition(|line| line.contains(':'));
    assert!(!groups.is_empty() && groups.iter().all(|line| line.ends_with(":/")), "{}", ran.stdout);
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    assert_eq!(rest[0], (own + 300).min(1000).to_string());
    assert_eq!(rest[1], "1024", "{}", ran.stdout);
    assert!(rest[2].parse::<u64>().is_ok_and(|hard| hard <= 1 << 20), "{}", ran.stdout);
}

#[test]
fn limits_are_the_program_s_however_low_and_the_last_word_counts() {
    require_containers!();
    let image = Image::new();
    let limit = |limit, soft, hard| Ulimit { limit, soft: Some(soft), hard: Some(hard) };
    let mut spec = image.spec(&["sh", "-c", "ulimit -n; ulimit -H -n; ulimit -f; ulimit -c"]);
    spec.ulimits = vec![
        limit(Limit::NoFile, 1, 1),
        limit(Limit::FileSize, 512, 1024),
        limit(Limit::NoFile, 4, 8),
        limit(Limit::Core, 0, 0),
    ];
    let ran = run(spec).unwrap();
    assert_eq!(ran.stdout, "4\n8\n1\n0\n", "{}", ran.stderr);
}

#[test]
fn a_group_in_which_others_are_made_is_made_when_it_is_missing() {
    require_containers!();
    let parent = format!("kiln-test-{}", std::process::id());
    let resources = Resources { processes: Some(100), parent: Some(format!("{parent}/inner")), ..Resources::default() };
    let Some(group) = group(&resources) else { return };
    let found: Vec<_> = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()).collect();
    let made = |parent: &str| {
        let places = found.iter().map(|top| top.join(parent)).filter(|place| place.is_dir());
        places.chain(Some(std::path::Path::new("/sys/fs/cgroup").join(parent)).filter(|place| place.is_dir())).collect()
    };
    let places: Vec<std::path::PathBuf> = made(&parent);
    assert!(!places.is_empty());
    let image = Image::new();
    let mut spec = image.spec(&["true"]);
    spec.group = Some(group);
    assert!(run(spec).unwrap().status.is_success());
    for place in &places {
        assert!(eventually(|| std::fs::remove_dir(place.join("inner")).is_ok()));
        std::fs::remove_dir(place).unwrap();
    }
}
