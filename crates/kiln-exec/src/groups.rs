//! Control groups: how much of the machine a container may take, and which limit it ran into.
//!
//! A group is made beside our own (below it in the first version, where groups may hold both) so that what limits us limits
//! containers too. It goes when it is dropped; what a kill of ours left behind goes when the next process looks.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a container may take; what is not said is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Most processes and threads.
    pub processes: Option<u64>,
    /// Most bytes of memory.
    pub memory: Option<u64>,
    /// Most bytes of memory and swap together; negative is no limit.
    pub memory_and_swap: Option<i64>,
    /// Weight beside others when processors are short; 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Length of a period of the scheduler in microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in a period; negative is no limit.
    pub cpu_quota: Option<i64>,
    /// Which processors, as `0-3,7`.
    pub cpus: Option<String>,
    /// Which nodes of memory.
    pub mems: Option<String>,
    /// The group in which it is made, in every hierarchy; else beside our own.
    pub parent: Option<String>,
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// No further process could be started.
    Processes,
    /// A process was killed for want of memory.
    Memory,
}

/// A container's groups. Dropping it removes them; the container must have ended.
#[derive(Debug)]
pub struct ControlGroup {
    places: Vec<Place>,
}

/// A group in one hierarchy.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    /// The file by which a process enters.
    entrance: File,
}

/// Where our own group is in a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Home {
    version: Version,
    controllers: Vec<String>,
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    First,
    Second,
}

/// A file of a controller and what is written to it: in the first version, in the second.
type Setting = (&'static str, Option<(&'static str, String)>, Option<(&'static str, String)>);

static NEXT: AtomicU64 = AtomicU64::new(0);

impl ControlGroup {
    /// Makes a group with these limits. The error says which controller is missing, or what it does not take.
    pub fn new(resources: &Resources) -> io::Result<ControlGroup> {
        let read = |path: &str| std::fs::read_to_string(path);
        let homes = homes(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?, resources.parent.as_deref());
        ControlGroup::in_homes(resources, &homes)
    }

    /// Tells whether the hierarchy of processes is of the first version, in which entering a group costs nothing.
    pub fn is_cheap() -> bool {
        std::fs::read_to_string("/proc/self/cgroup").is_ok_and(|own| own.lines().any(|line| line.contains(":pids:")))
    }

    fn in_homes(resources: &Resources, homes: &[Home]) -> io::Result<ControlGroup> {
        let name = format!("kiln-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut group = ControlGroup { places: Vec::new() };
        for (controller, first, second) in settings(resources) {
            let home = homes.iter().find(|home| home.controllers.iter().any(|has| has == controller));
            let home = home.ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("there is no control group for `{controller}` here"))
            })?;
            let directory = group.enter(home, &name)?;
            let setting = if home.version == Version::First { first } else { second };
            if let Some((file, value)) = setting {
                let place = directory.join(file);
                let named = |e: io::Error| {
                    io::Error::new(e.kind(), format!("cannot set `{}` to {value}: {e}", place.display()))
                };
                std::fs::write(&place, &value).map_err(named)?;
            }
        }
        Ok(group)
    }

    /// Makes our directory in a hierarchy, once.
    fn enter(&mut self, home: &Home, name: &str) -> io::Result<PathBuf> {
        let directory = home.directory.join(name);
        if self.places.iter().any(|place| place.directory == directory) {
            return Ok(directory);
        }
        forget_the_dead(&home.directory);
        std::fs::create_dir(&directory)?;
        if home.version == Version::First && home.controllers.iter().any(|has| has == "cpuset") {
            // Nobody can enter a group that has no processors or no memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                std::fs::write(directory.join(file), std::fs::read(home.directory.join(file))?)?;
            }
        }
        // A thread alone, as whoever enters is, needs no lock of the whole machine.
        let entrance = if home.version == Version::First { "tasks" } else { "cgroup.procs" };
        let entrance = OpenOptions::new().write(true).open(directory.join(entrance));
        match entrance {
            Ok(entrance) => self.places.push(Place { directory: directory.clone(), entrance }),
            Err(error) => {
                let _ = std::fs::remove_dir(&directory);
                return Err(error);
            }
        }
        Ok(directory)
    }

    /// The files by which a process enters.
    pub(crate) fn entrances(&self) -> io::Result<Vec<OwnedFd>> {
        self.places.iter().map(|place| place.entrance.try_clone().map(OwnedFd::from)).collect()
    }

    /// The limits that were reached.
    pub fn reached(&self) -> Vec<Reached> {
        let counted = |file: &str, name: &str| {
            self.places.iter().any(|place| {
                let text = std::fs::read_to_string(place.directory.join(file)).unwrap_or_default();
                text.lines().filter_map(|line| line.split_once(' ')).any(|(key, count)| key == name && count != "0")
            })
        };
        let processes = counted("pids.events", "max").then_some(Reached::Processes);
        let memory = counted("memory.events", "oom_kill") || counted("memory.oom_control", "oom_kill");
        processes.into_iter().chain(memory.then_some(Reached::Memory)).collect()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for place in &self.places {
            // The kernel counts the dead as members for a moment.
            for _ in 0..50 {
                match std::fs::remove_dir(&place.directory) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Removes groups whose kiln is no more.
fn forget_the_dead(home: &Path) {
    for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("kiln-")?.split_once('-')).map(|(pid, _)| pid);
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            // One in which somebody still lives stays.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// What is to be written where, in an order in which the kernel takes it.
fn settings(resources: &Resources) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    if let Some(count) = resources.processes {
        let value = Some(("pids.max", count.to_string()));
        settings.push(("pids", value.clone(), value));
    }
    if let Some(bytes) = resources.memory {
        let value = bytes.to_string();
        settings.push(("memory", Some(("memory.limit_in_bytes", value.clone())), Some(("memory.max", value))));
    }
    if let Some(bytes) = resources.memory_and_swap {
        let swap = u64::try_from(bytes).map(|bytes| bytes.saturating_sub(resources.memory.unwrap_or(0)).to_string());
        let swap = swap.unwrap_or_else(|_| "max".to_owned());
        settings.push((
            "memory",
            Some(("memory.memsw.limit_in_bytes", bytes.to_string())),
            Some(("memory.swap.max", swap)),
        ));
    }
    if let Some(shares) = resources.cpu_shares {
        let shares = shares.clamp(2, 262_144);
        let weight = 1 + (shares - 2) * 9999 / 262_142;
        settings.push(("cpu", Some(("cpu.shares", shares.to_string())), Some(("cpu.weight", weight.to_string()))));
    }
    settings.extend(bandwidth(resources));
    for (file, list) in [("cpuset.cpus", &resources.cpus), ("cpuset.mems", &resources.mems)] {
        let value = list.clone().map(|list| (file, list));
        settings.extend(value.map(|value| ("cpuset", Some(value.clone()), Some(value))));
    }
    settings
}

/// Period and quota, which the second version wants in one line.
fn bandwidth(resources: &Resources) -> Vec<Setting> {
    const PERIOD: u64 = 100_000;
    if resources.cpu_period.is_none() && resources.cpu_quota.is_none() {
        return Vec::new();
    }
    let quota = resources.cpu_quota.and_then(|quota| u64::try_from(quota).ok());
    let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
    let both = format!("{quota} {}", resources.cpu_period.unwrap_or(PERIOD));
    let period = resources.cpu_period.map(|period| ("cpu.cfs_period_us", period.to_string()));
    let first = resources.cpu_quota.map(|quota| ("cpu.cfs_quota_us", quota.to_string()));
    vec![("cpu", period, Some(("cpu.max", both))), ("cpu", first, None)]
}

/// Finds where groups can be made, by `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn homes(own: &str, mounts: &str, parent: Option<&str>) -> Vec<Home> {
    let home = |line: &str| {
        let (controllers, own) = line.split_once(':')?.1.split_once(':')?;
        let version = if controllers.is_empty() { Version::Second } else { Version::First };
        let mut names: Vec<String> =
            controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let (root, place) = mounts.lines().find_map(|mount| mounted(mount, version, &names))?;
        let below = |path: &str| place.join(path.strip_prefix(root).unwrap_or(path).trim_start_matches('/'));
        let directory = match (parent, version) {
            (Some(parent), _) => place.join(parent.trim_start_matches('/')),
            (None, Version::First) => below(own),
            // A group that hands controllers on may hold no processes, so ours has no room; the one it is in has.
            (None, Version::Second) => below(Path::new(own).parent().and_then(Path::to_str).unwrap_or(own)),
        };
        if version == Version::Second {
            let given = std::fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
            names = given.split_whitespace().map(str::to_owned).collect();
        }
        Some(Home { version, controllers: names, directory })
    };
    own.lines().filter_map(home).collect()
}

/// The root and the place of a mount, if it is that of the hierarchy.
fn mounted<'a>(mount: &'a str, version: Version, names: &[String]) -> Option<(&'a str, PathBuf)> {
    let (head, tail) = mount.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let (root, place) = (head.next()?, head.next()?);
    let mut tail = tail.split(' ');
    let (kind, options) = (tail.next()?, tail.nth(1)?);
    let is_it = match version {
        Version::First => kind == "cgroup" && names.iter().all(|name| options.split(',').any(|option| option == name)),
        Version::Second => kind == "cgroup2",
    };
    is_it.then(|| (root, PathBuf::from(place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_groups_are_found_in_both_versions() {
        let mounts = "31 25 0:27 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
            32 25 0:28 /outer /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            33 25 0:29 / /nowhere/unified rw - cgroup2 cgroup2 rw\n";
        let own = "8:pids:/\n3:cpu,cpuacct:/outer/inner\n2:name=systemd:/x\n0::/user.slice/session\n";
        let found = homes(own, mounts, None);
        let directories: Vec<_> = found.iter().map(|home| home.directory.to_str().unwrap()).collect();
        assert_eq!(directories, ["/sys/fs/cgroup/pids/", "/sys/fs/cgroup/cpu/inner", "/nowhere/unified/user.slice"]);
        let found = homes(own, mounts, Some("/builds"));
        assert_eq!(found[0].directory.to_str(), Some("/sys/fs/cgroup/pids/builds"));
    }

    #[test]
    fn limits_are_written_as_each_version_wants_them() {
        let resources = Resources {
            processes: Some(10),
            memory: Some(1 << 20),
            memory_and_swap: Some(3 << 20),
            cpu_shares: Some(1024),
            cpu_period: None,
            cpu_quota: Some(50_000),
            cpus: Some("0-1".into()),
            mems: None,
            parent: None,
        };
        let line = |value: &Option<(&str, String)>| value.as_ref().map(|(file, value)| format!("{file}={value}"));
        let all = settings(&resources);
        let first: Vec<_> = all.iter().filter_map(|(_, first, _)| line(first)).collect();
        let second: Vec<_> = all.iter().filter_map(|(_, _, second)| line(second)).collect();
        let common = ["pids.max=10", "memory.limit_in_bytes=1048576", "memory.memsw.limit_in_bytes=3145728"];
        assert_eq!(first[..3], common);
        assert_eq!(first[3..], ["cpu.shares=1024", "cpu.cfs_quota_us=50000", "cpuset.cpus=0-1"]);
        assert_eq!(second[..3], ["pids.max=10", "memory.max=1048576", "memory.swap.max=2097152"]);
        assert_eq!(second[3..], ["cpu.weight=39", "cpu.max=50000 100000", "cpuset.cpus=0-1"]);
    }
}
