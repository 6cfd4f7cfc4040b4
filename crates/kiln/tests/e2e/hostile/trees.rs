//! Trees that are hard to take away, or lead out of themselves: whatever steps, images and killed builds leave in the state
//! directory goes with a prune, and nothing else does.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use kiln_testkit::{Forge, ForgedImage};

use super::attack::Attack;
use crate::space::disk;

/// Below the current directory: directories nobody may enter, a path longer than any that the kernel takes, links to the canary
/// under every name a walk might look for, and names that are hard to say.
fn hostile(canary: &str) -> String {
    let long = "d".repeat(200);
    format!(
        "mkdir -p locked/in/side && echo x >locked/in/side/f; \
         mkdir t; i=0; while [ $i -lt 60 ]; do mkdir n && mv t n/{long} && mv n t; i=$((i+1)); done; \
         ln -s {canary} canary; ln -s {canary}/secret secret; ln -s / root; ln -s .. up; ln -s . dot; ln -s /proc/1/root proc; \
         mkdir thicket; i=0; while [ $i -lt 300 ]; do ln -s {canary} thicket/$i; i=$((i+1)); done; \
         mkdir work fs; ln -s {canary} work/fs; ln -s {canary} fs/fs; \
         touch ' ' '-rf' \"$(printf 'a\\nb')\" \"$(printf '\\377')\"; mkdir -p -- '-rf.d/ x'; \
         chmod 000 locked/in/side locked/in locked thicket"
    )
}

/// How many entries a directory of the state has.
fn entries(attack: &Attack, name: &str) -> usize {
    fs::read_dir(attack.project.state().join(name)).map_or(0, Iterator::count)
}

/// All is pruned, and nothing is left.
#[track_caller]
fn prunes(attack: &Attack) {
    attack.kiln(&["prune", "-af"]).ok();
    let left = ["layers", "work", "tmp", "ingest", "cache-mounts", "leases"].map(|name| (name, entries(attack, name)));
    assert_eq!(left.map(|(_, count)| count), [0; 6], "{left:?}");
    let bytes = disk(&attack.project.state());
    assert!(bytes < 2 << 20, "{bytes} bytes are left");
}

#[test]
fn trees_that_steps_and_images_leave_go_and_their_links_targets_stay() {
    for attack in Attack::by_everybody() {
        let canary = attack.canary();
        let links = Forge::new().dir("x").link("x/canary", &canary).link("x/fs", "/").link("x/work", &canary);
        attack.image(ForgedImage::busybox().layer(links.dir("x/deep").link("x/deep/up", "../../../..").end()));
        let make = hostile(&canary);
        // Kept, thrown away with a step that fails, in a cache that outlives both.
        attack
            .build(&format!("FROM evil\nWORKDIR /w\nRUN {make}\nRUN cp -r /x /y; test -d /w/t && rm -rf /w/up\n"))
            .ok();
        attack.build(&format!("FROM evil\nWORKDIR /w\nRUN {make}; exit 3\n")).fails(1);
        assert_eq!(entries(&attack, "work"), 0);
        attack.build(&format!("FROM evil\nWORKDIR /c\nRUN --mount=type=cache,target=/c {make}\n")).ok();
        attack.build("FROM evil\nRUN --mount=type=cache,target=/c ls /c/canary 2>/dev/null; test -d /c/fs\n").ok();
        attack.kiln(&["du", "--verbose"]).ok();
        attack.kiln(&["fsck", "--deep"]).ok();
        attack.kiln(&["rmi", "app"]).ok();
        prunes(&attack);
    }
}

#[test]
fn trees_of_a_build_that_was_killed_go_and_their_links_targets_stay() {
    for attack in Attack::by_everybody() {
        attack.image(ForgedImage::busybox());
        let make = hostile(&attack.canary());
        attack.project.dockerfile(&format!(
            "FROM evil\nWORKDIR /w\nRUN --mount=type=cache,target=/c {make}; cd /c; {make}; sleep 62\n"
        ));
        let evil = format!("evil=oci-layout://{}:t", attack.project.path().join("evil").display());
        let mut command = attack.project.command();
        command.args(["build", "-q", "--build-context", &evil]).arg(attack.project.context());
        let mut build = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let sleeps = || Attack::processes().iter().any(|process| process.ends_with(" sleep 62 "));
        let start = Instant::now();
        while !sleeps() && build.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(sleeps(), "{:?}", Attack::processes());
        build.kill().unwrap();
        build.wait().unwrap();
        let work = entries(&attack, "work");
        assert!(work > 0, "there is nothing to take away");
        // Somebody has put a link where something that was left would be.
        let state = attack.project.state();
        std::os::unix::fs::symlink(attack.canary(), state.join("tmp").join("planted")).unwrap();
        std::os::unix::fs::symlink(Path::new("/"), state.join("work").join("planted")).unwrap();
        prunes(&attack);
    }
}
