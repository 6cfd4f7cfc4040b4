//! Control groups: how much of the machine a container may take, and which limit it ran into.
//!
//! A group is made beside our own (below it in the first version, where groups may hold both) so that what limits us limits
//! containers too. It goes when it is dropped; what a kill of ours left behind goes when the next process looks.
#![expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]

mod budget;
mod home;
mod settings;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_sys::container::UnifiedGroup;
use rustix::fs::{AtFlags, CWD, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use home::{Hierarchy, Home, Version, hierarchies, inherit_cpuset};
use settings::settings;

pub use budget::memory_budget;

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
    /// No process could be started beyond so many.
    Processes(u64),
    /// A process was killed for want of memory, of which there may be so many bytes.
    Memory(u64),
    /// A process was killed although the limit was not reached: the machine had no memory left.
    MachineMemory,
}

/// A container's groups. Dropping it removes them; the container must have ended.
#[derive(Debug)]
pub struct ControlGroup {
    places: Vec<Place>,
    processes: Option<u64>,
    memory: Option<u64>,
}

/// A group in one hierarchy.
#[derive(Debug)]
struct Place {
    version: Version,
    directory: PathBuf,
    /// What it is in: who removes it may be where no path leads here.
    above: File,
    /// The file by which a process enters.
    entrance: File,
    /// The directory itself, locked: so others know that we live, in whatever pid namespace they are.
    _lock: File,
}

/// Whether containers can be limited by a controller.
#[derive(Debug)]
pub struct Controller {
    /// Its name: `pids`, `memory`, `cpu`, `cpuset`.
    pub name: &'static str,
    /// The version of the hierarchy it is in, 1 or 2; `None` if it is in none.
    pub version: Option<u8>,
    /// What came of making a group with a limit that limits nothing.
    pub tried: io::Result<()>,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl ControlGroup {
    /// Makes a group with these limits. The error says which controller is missing, or what it does not take.
    pub fn new(resources: &Resources) -> io::Result<ControlGroup> {
        let homes: Vec<Home> = match &resources.parent {
            None => ours()?.iter().map(Home::usual).collect(),
            Some(parent) => {
                let wanted = settings(resources);
                let is_wanted = |it: &&Hierarchy| {
                    let has = |name: &str| it.controllers.iter().any(|has| has == name);
                    it.version == Version::Second || wanted.iter().any(|(name, ..)| has(name))
                };
                ours()?.iter().filter(is_wanted).map(|hierarchy| Home::named(hierarchy, parent)).collect()
            }
        };
        ControlGroup::in_homes(resources, &homes)
    }

    /// Tries all controllers that limits need.
    pub fn survey() -> Vec<Controller> {
        let homes: Vec<Home> = ours().unwrap_or_default().iter().map(Home::usual).collect();
        let tries = [
            ("pids", Resources { processes: Some(1 << 20), ..Resources::default() }),
            ("memory", Resources { memory: Some(1 << 50), ..Resources::default() }),
            ("cpu", Resources { cpu_shares: Some(1024), ..Resources::default() }),
            ("cpuset", Resources { cpus: Some("0".into()), ..Resources::default() }),
        ];
        let controller = |(name, resources): (&'static str, Resources)| {
            let home = homes.iter().find(|home| home.has(name));
            let version = home.map(|home| if home.version == Version::First { 1 } else { 2 });
            Controller { name, version, tried: ControlGroup::in_homes(&resources, &homes).map(drop) }
        };
        tries.map(controller).into()
    }

    fn in_homes(resources: &Resources, homes: &[Home]) -> io::Result<ControlGroup> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            homes.iter().for_each(|home| forget_the_dead(&home.directory));
        }
        let name = format!("kiln-{}-{number}", std::process::id());
        let (processes, memory) = (resources.processes, resources.memory);
        let mut group = ControlGroup { places: Vec::new(), processes, memory };
        for (controller, first, second) in settings(resources) {
            let home = homes.iter().find(|home| home.has(controller));
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
        let make = || {
            std::fs::create_dir(&directory)?;
            let lock = File::open(&directory)?;
            lock.lock_shared()?;
            if home.version == Version::First && home.has("cpuset") {
                inherit_cpuset(&home.directory, &directory)?;
            }
            // A thread alone, as whoever enters is, needs no lock of the whole machine.
            let entrance = if home.version == Version::First { "tasks" } else { "cgroup.procs" };
            let entrance = OpenOptions::new().write(true).open(directory.join(entrance))?;
            Ok((File::open(&home.directory)?, entrance, lock))
        };
        match make() {
            Ok((above, entrance, lock)) => {
                let place = Place { version: home.version, directory: directory.clone(), above, entrance, _lock: lock };
                self.places.push(place);
                Ok(directory)
            }
            Err::<_, io::Error>(error) => {
                let _ = std::fs::remove_dir(&directory);
                let text = format!("cannot make the control group `{}`: {error}", directory.display());
                Err(io::Error::new(error.kind(), text))
            }
        }
    }

    /// The files by which a process enters those of the first version.
    pub(crate) fn entrances(&self) -> io::Result<Vec<OwnedFd>> {
        let first = self.places.iter().filter(|place| place.version == Version::First);
        first.map(|place| place.entrance.try_clone().map(OwnedFd::from)).collect()
    }

    /// The one of the second version, in which a process begins.
    pub(crate) fn unified(&self) -> io::Result<Option<UnifiedGroup>> {
        let unified = self.places.iter().find(|place| place.version == Version::Second);
        let group = unified.map(|place| {
            Ok(UnifiedGroup {
                directory: File::open(&place.directory)?.into(),
                entrance: place.entrance.try_clone()?.into(),
            })
        });
        group.transpose()
    }

    /// The limits that were reached.
    pub fn reached(&self) -> Vec<Reached> {
        let read = |file: &str| {
            let texts = self.places.iter().map(|place| std::fs::read_to_string(place.directory.join(file)));
            texts.filter_map(Result::ok).next().unwrap_or_default()
        };
        let counted = |file: &str, name: &str| {
            read(file).lines().filter_map(|line| line.split_once(' ')).any(|(key, count)| key == name && count != "0")
        };
        let killed = counted("memory.events", "oom_kill") || counted("memory.oom_control", "oom_kill");
        let is_ours = || counted("memory.events", "oom") || !matches!(read("memory.failcnt").trim(), "" | "0");
        let memory = killed.then(|| self.memory.filter(|_| is_ours()).map_or(Reached::MachineMemory, Reached::Memory));
        let processes = self.processes.filter(|_| counted("pids.events", "max")).map(Reached::Processes);
        processes.into_iter().chain(memory).collect()
    }
}

/// The top of each hierarchy, and where groups would be made in it.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn homes(own: &str, mounts: &str) -> Vec<(std::path::PathBuf, std::path::PathBuf)> {
    hierarchies(own, mounts).into_iter().map(|found| (found.top.clone(), Home::usual(&found).directory)).collect()
}

fn ours() -> io::Result<Vec<Hierarchy>> {
    let read = |path: &str| std::fs::read_to_string(path);
    Ok(hierarchies(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?))
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for Place { directory, above, .. } in &self.places {
            remove(above, Path::new(directory.file_name().unwrap_or_default()));
        }
    }
}

/// Removes groups whose kiln is no more, and what still lives in them.
fn forget_the_dead(home: &Path) {
    for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("kiln-")?.split_once('-')).map(|(pid, _)| pid);
        let is_dead = |pid: &str| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists();
        if !pid.is_some_and(is_dead) {
            continue;
        }
        // A kiln of another pid namespace has other numbers, but it holds the lock.
        let Some(_lock) = File::open(entry.path()).ok().filter(|group| group.try_lock().is_ok()) else { continue };
        let members = std::fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        remove(CWD, &entry.path());
    }
}

/// Removes a group. The kernel counts the dead as members for a moment.
fn remove(above: impl AsFd, path: &Path) {
    for _ in 0..50 {
        match unlinkat(&above, path, AtFlags::REMOVEDIR) {
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(2)),
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests;
