//! Becoming root of a user namespace of our own, where we are not the machine's.
//!
//! Whoever may mount and give files to others stays who he is. Everybody else gets a user namespace: with the ids that
//! `/etc/subuid` and `/etc/subgid` set aside for him and two programs of the machine hand out, or with those of the
//! container we are in, or with his own alone.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::{Child, Stdio};

use kiln_sys::caps::{self, CapabilitySet};
use kiln_sys::userns::{Empty, is_machine_root};
use rustix::io::Errno;
use rustix::process::{getgid, getuid};

use crate::Error;
use crate::spec::Isolation;

/// Where ranges of ids are set aside, and the program that hands them out: of users, of groups.
const KINDS: [(&str, &str); 2] = [("/etc/subuid", "newuidmap"), ("/etc/subgid", "newgidmap")];

/// What kiln can do here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// All that the user may whom it was started by.
    AsBefore,
    /// All that root of a container may who cannot mount: enough for a `chroot`.
    Confined,
    /// It is root of a namespace with many ids.
    Range,
    /// It is root of a namespace with one id.
    Single {
        /// Whose it is.
        user: String,
        /// Why there are no more.
        why: NoRange,
    },
}

/// Why there is but one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRange {
    /// No ids are set aside.
    NoEntry {
        /// Where they would be.
        file: &'static str,
        /// For whom.
        user: String,
    },
    /// Nobody hands them out.
    NoProgram(&'static str),
    /// They are not handed out.
    Refused {
        /// By which program.
        program: &'static str,
        /// What it said.
        said: String,
    },
}

impl fmt::Display for NoRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEntry { file, user } => write!(f, "`{file}` sets no ids aside for `{user}`"),
            Self::NoProgram(program) => write!(f, "there is no `{program}`"),
            Self::Refused { program, said } => write!(f, "`{program}` refused: {said}"),
        }
    }
}

/// What keeps users of this machine from having user namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// `user.max_user_namespaces` is reached, or 0.
    Count,
    /// `kernel.unprivileged_userns_clone` is 0.
    Switch,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1.
    AppArmor,
    /// A filter of system calls, as in a container.
    Filter,
    /// Something else.
    Unknown,
}

/// A row of ids that is set aside for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// What it takes to write the files of others, and to run steps as others in another root.
const FOR_CHROOT: CapabilitySet = CapabilitySet::SYS_CHROOT
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID);

/// Whether we may run steps in another root without namespaces.
pub fn may_chroot() -> bool {
    caps::permitted().is_ok_and(|may| may.contains(FOR_CHROOT))
}

/// Enters a user namespace if that takes one. This process must have one thread, and nothing of its own to handle signals.
/// Programs are looked for in `path`.
pub fn enter(path: Option<&OsStr>, isolation: Isolation) -> Result<Standing, Error> {
    // Asked before anything is entered: a namespace with all ids of a container looks like the machine's.
    let _ = is_machine_root();
    let may = caps::permitted().map_err(blocked)?;
    if may.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(Standing::AsBefore);
    }
    if isolation == Isolation::Chroot && may.contains(FOR_CHROOT) {
        return Ok(Standing::Confined);
    }
    let empty = Empty::new().map_err(blocked)?;
    let (standing, empty) = give_ids(empty, may, path)?;
    empty.enter().map_err(blocked)?;
    Ok(standing)
}

fn give_ids(empty: Empty, may: CapabilitySet, path: Option<&OsStr>) -> Result<(Standing, Empty), Error> {
    // Root of a container has the ids of the container.
    if may.contains(CapabilitySet::SETUID | CapabilitySet::SETGID) && empty.give_all_ids().is_ok() {
        return Ok((Standing::Range, empty));
    }
    let user = user_name();
    match hand_out(empty.process(), &user, path) {
        Ok(()) => Ok((Standing::Range, empty)),
        Err(why) => {
            // One that was given ids of one kind takes no others.
            let empty = Empty::new().map_err(blocked)?;
            empty.give_own_ids().map_err(blocked)?;
            Ok((Standing::Single { user, why }, empty))
        }
    }
}

/// Has the programs of the machine give a process's namespace our own ids as its root, and after them what is set aside.
#[expect(clippy::disallowed_methods, reason = "files of the machine, by names that are written here")]
fn hand_out(process: u32, user: &str, path: Option<&OsStr>) -> Result<(), NoRange> {
    let own = [getuid().as_raw(), getgid().as_raw()];
    let wanted = KINDS.into_iter().zip(own).map(|((file, program), own)| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let ranges = ranges(&text, user, getuid().as_raw());
        if ranges.is_empty() {
            return Err(NoRange::NoEntry { file, user: user.to_owned() });
        }
        Ok((program, arguments(process, own, &ranges)))
    });
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let started: Vec<_> =
        wanted.into_iter().map(|(program, arguments)| (program, start(program, &arguments, path))).collect();
    let mut result = Ok(());
    for (program, child) in started {
        let ended = child.and_then(Child::wait_with_output);
        let outcome = match ended {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.trim().trim_start_matches(program).trim_start_matches(": ").to_owned();
                Err(NoRange::Refused { program, said })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(NoRange::NoProgram(program)),
            Err(error) => Err(NoRange::Refused { program, said: error.to_string() }),
        };
        result = result.and(outcome);
    }
    result
}

fn start(program: &str, arguments: &[String], path: Option<&OsStr>) -> std::io::Result<Child> {
    #[expect(clippy::disallowed_methods, reason = "this is a place where programs of the host are started")]
    let mut command = std::process::Command::new(program);
    command.args(arguments).env_clear().envs(path.map(|path| ("PATH", path)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    kiln_sys::command::tie_to_us(&mut command);
    command.spawn()
}

fn arguments(process: u32, own: u32, ranges: &[Range]) -> Vec<String> {
    let mut words = vec![process, 0, own, 1];
    let mut inside = 1;
    for range in ranges {
        words.extend([inside, range.first, range.count]);
        inside += range.count;
    }
    words.into_iter().map(|word| word.to_string()).collect()
}

/// The rows that a file sets aside for a user, who is in it by name or by number. No more than 31 bits in all.
pub fn ranges(text: &str, user: &str, uid: u32) -> Vec<Range> {
    let uid = uid.to_string();
    let mut room = i32::MAX.cast_unsigned();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        if !fields.next().is_some_and(|name| name == user || name == uid) {
            continue;
        }
        let mut number = || fields.next().and_then(|number| number.parse::<u32>().ok());
        if let (Some(first), Some(count)) = (number(), number()) {
            let count = count.min(room).min(u32::MAX - first);
            room -= count;
            found.extend((count > 0).then_some(Range { first, count }));
        }
    }
    found
}

/// The name of who we are; a number where the machine's file has none.
#[expect(clippy::disallowed_methods, reason = "files of the machine, by names that are written here")]
pub fn user_name() -> String {
    let uid = getuid().as_raw();
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&text, uid).unwrap_or_else(|| uid.to_string())
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[expect(clippy::disallowed_methods, reason = "files of the machine, by names that are written here")]
fn blocked(source: kiln_sys::Error) -> Error {
    let read =
        |name: &str| std::fs::read_to_string(Path::new("/proc").join(name)).unwrap_or_default().trim().to_owned();
    Error::NoUserNamespace { obstacle: obstacle(source.errno(), &read), source }
}

/// Tells by what the kernel says of itself why it gave no namespace.
fn obstacle(errno: Option<i32>, read: &dyn Fn(&str) -> String) -> Obstacle {
    let is = |error: Errno| errno == Some(error.raw_os_error());
    if is(Errno::NOSPC) || is(Errno::USERS) || read("sys/user/max_user_namespaces") == "0" {
        return Obstacle::Count;
    }
    if read("sys/kernel/unprivileged_userns_clone") == "0" {
        return Obstacle::Switch;
    }
    if read("sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return Obstacle::AppArmor;
    }
    let is_filtered = read("self/status").lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"]));
    if is_filtered { Obstacle::Filter } else { Obstacle::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "root:100000:65536\nanna:165536:65536\n1001:1:0\n 1001:300000:1000\nanna:x:1\n\nbert:1\n";

    #[test]
    fn rows_are_found_by_name_and_by_number() {
        let of = |user, uid| ranges(FILE, user, uid).into_iter().map(|r| (r.first, r.count)).collect::<Vec<_>>();
        assert_eq!(of("anna", 1001), [(165_536, 65536), (300_000, 1000)]);
        assert_eq!(of("root", 0), [(100_000, 65536)]);
        assert_eq!(of("bert", 7), []);
        let all = ranges("a:0:4294967295\na:1:4294967295\n", "a", 1);
        assert_eq!(all, [Range { first: 0, count: i32::MAX as u32 }]);
    }

    #[test]
    fn rows_follow_each_other_after_the_own_id() {
        let rows = [Range { first: 100_000, count: 65536 }, Range { first: 7, count: 3 }];
        assert_eq!(arguments(9, 1000, &rows).join(" "), "9 0 1000 1 1 100000 65536 65537 7 3");
    }

    #[test]
    fn names_are_in_the_file_of_users() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nanna:x:1001:1001::/home/anna:/bin/sh\n";
        assert_eq!(name_in(passwd, 1001).as_deref(), Some("anna"));
        assert_eq!(name_in(passwd, 1002), None);
    }

    #[test]
    fn what_is_in_the_way_is_told_by_settings_of_the_kernel() {
        let with = |errno: Errno, name: &'static str, text: &'static str| {
            obstacle(Some(errno.raw_os_error()), &move |asked| {
                if asked == name { text.to_owned() } else { String::new() }
            })
        };
        assert_eq!(with(Errno::NOSPC, "", ""), Obstacle::Count);
        assert_eq!(with(Errno::PERM, "sys/user/max_user_namespaces", "0"), Obstacle::Count);
        assert_eq!(with(Errno::PERM, "sys/kernel/unprivileged_userns_clone", "0"), Obstacle::Switch);
        assert_eq!(with(Errno::ACCESS, "sys/kernel/apparmor_restrict_unprivileged_userns", "1"), Obstacle::AppArmor);
        assert_eq!(with(Errno::PERM, "self/status", "Name:\tkiln\nSeccomp:\t2\n"), Obstacle::Filter);
        assert_eq!(with(Errno::PERM, "", ""), Obstacle::Unknown);
    }
}
