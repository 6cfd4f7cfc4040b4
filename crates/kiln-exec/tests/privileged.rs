//! Containers run for real: what a process sees, may, and leaves behind.
#![allow(clippy::disallowed_methods, reason = "tests name files of the machine")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

#[allow(dead_code, reason = "shared with other tests")]
mod support;

#[path = "privileged/confinement.rs"]
mod confinement;
#[path = "privileged/failures.rs"]
mod failures;
#[path = "privileged/hostile.rs"]
mod hostile;
#[path = "privileged/life.rs"]
mod life;
#[path = "privileged/limits.rs"]
mod limits;
#[path = "privileged/mounts.rs"]
mod mounts;
#[path = "privileged/network.rs"]
mod network;
#[path = "privileged/users.rs"]
mod users;

/// Leaves a test with a word where containers cannot run.
macro_rules! require_containers {
    () => {
        if let Some(why) = crate::support::obstacle() {
            println!("skipped: {why}");
            return;
        }
    };
}
use require_containers;
