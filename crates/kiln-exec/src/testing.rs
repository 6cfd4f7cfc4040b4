//! What is read of the kernel's files, for tests that write such files themselves.

use std::path::PathBuf;

/// The top of each hierarchy of control groups that these two files tell of (`/proc/self/cgroup`, `/proc/self/mountinfo`), and
/// the group in it in which others would be made.
pub fn group_homes(cgroup: &str, mountinfo: &str) -> Vec<(PathBuf, PathBuf)> {
    crate::groups::homes(cgroup, mountinfo)
}
