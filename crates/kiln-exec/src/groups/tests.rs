//! Groups that a kiln left behind.

use super::*;

#[test]
fn what_lives_in_groups_of_the_dead_is_killed_and_what_another_kiln_holds_is_left() {
    let home = Path::new("/sys/fs/cgroup/pids");
    let make = |name: &str| {
        let group = home.join(format!("kiln-{name}"));
        std::fs::create_dir(&group).map(|()| group)
    };
    // Nobody has these numbers: they are beyond those of processes. Only this test's own groups are looked at, in one.
    let Ok(home) = make(&format!("test-{}", std::process::id())) else {
        println!("skipped: needs root and the control groups of the first version");
        return;
    };
    let [dead, held] = ["kiln-4194305-0", "kiln-4194306-0"].map(|name| home.join(name));
    let mut sleepers = [&dead, &held].map(|group| {
        std::fs::create_dir(group).unwrap();
        let sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        std::fs::write(group.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        sleeper
    });
    let lock = File::open(&held).unwrap();
    lock.lock_shared().unwrap();
    forget_the_dead(&home);
    assert!(!dead.exists() && held.exists() && sleepers[1].try_wait().unwrap().is_none());
    drop(lock);
    forget_the_dead(&home);
    assert!(!held.exists());
    sleepers.iter_mut().for_each(|sleeper| drop(sleeper.wait()));
    std::fs::remove_dir(home).unwrap();
}
