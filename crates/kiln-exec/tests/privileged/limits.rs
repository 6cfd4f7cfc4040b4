//! What a container may take of the machine, and what is told of the limit it met.
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

use std::sync::Arc;

use kiln_exec::{ControlGroup, Reached, Resources};

use crate::require_containers;
use crate::support::{Image, run};

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
    assert_eq!(group.reached(), [Reached::Processes]);
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
    assert_eq!(group.reached(), [Reached::Memory]);
    drop(group);
    assert_eq!(groups(), 0);
}
