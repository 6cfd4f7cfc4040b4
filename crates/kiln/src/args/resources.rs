//! What RUN steps may take of the machine, by the names of `docker build`.

use clap::Args;
use kiln_engine::Resources;
use kiln_report::Failure;

use super::value::{self, Wrong, usage};

#[derive(Debug, Clone, Args)]
pub(crate) struct ResourceArgs {
    /// Most memory
    #[arg(short, long, value_name = "BYTES", value_parser = value::bytes)]
    memory: Option<u64>,

    /// Most memory and swap together; -1 is no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes_or_none, allow_hyphen_values = true)]
    memory_swap: Option<i64>,

    /// Weight when processors are short, 1024 as usual
    #[arg(short, long, value_name = "WEIGHT", value_parser = weight)]
    cpu_shares: Option<u64>,

    /// Length of the scheduler's period in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = period)]
    cpu_period: Option<u64>,

    /// Processor time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = time, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,

    /// Processors, as 0-3,7
    #[arg(long, value_name = "LIST", value_parser = list)]
    cpuset_cpus: Option<String>,

    /// Memory nodes, as 0-1
    #[arg(long, value_name = "LIST", value_parser = list)]
    cpuset_mems: Option<String>,

    /// Control group in which others are made; one that is missing is made, too
    #[arg(long, value_name = "PATH", value_parser = group)]
    cgroup_parent: Option<String>,
}

/// All of them in one option, as buildx has it.
#[derive(Debug, Clone, Args)]
pub(crate) struct StepResourceArgs {
    #[command(flatten)]
    each: ResourceArgs,

    /// One of these limits by its name, as memory=2g or cpu-quota=50000; may be repeated
    #[arg(long = "resource", value_name = "LIMIT=VALUE", value_parser = named)]
    named: Vec<Named>,
}

/// What `kiln run` takes, too.
#[derive(Debug, Clone, Args)]
pub(crate) struct ContainerResourceArgs {
    #[command(flatten)]
    each: ResourceArgs,

    /// How many processors may be busy, as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = quota, conflicts_with_all = ["cpu_quota", "cpu_period"])]
    cpus: Option<i64>,

    /// Most processes; -1 is no limit
    #[arg(long, value_name = "COUNT", value_parser = count, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
}

/// One limit, to be put where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Memory(u64),
    MemorySwap(i64),
    CpuShares(u64),
    CpuPeriod(u64),
    CpuQuota(i64),
    Cpus(String),
    Mems(String),
}

const NAMES: [&str; 7] =
    ["memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"];

/// Docker's least memory.
const LEAST_MEMORY: u64 = 6 << 20;

/// The period that processors are counted in, in microseconds.
const PERIOD: f64 = 100_000.0;

impl ResourceArgs {
    fn all(&self) -> Resources {
        Resources {
            processes: None,
            memory: self.memory,
            memory_and_swap: self.memory_swap,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpus: self.cpuset_cpus.clone(),
            mems: self.cpuset_mems.clone(),
            parent: self.cgroup_parent.clone().filter(|path| !path.is_empty()),
        }
    }
}

impl StepResourceArgs {
    /// What they ask for.
    pub(crate) fn resources(&self) -> Result<Resources, Failure> {
        let mut all = self.each.all();
        for named in self.named.iter().cloned() {
            match named {
                Named::Memory(bytes) => all.memory = Some(bytes),
                Named::MemorySwap(bytes) => all.memory_and_swap = Some(bytes),
                Named::CpuShares(weight) => all.cpu_shares = Some(weight),
                Named::CpuPeriod(length) => all.cpu_period = Some(length),
                Named::CpuQuota(time) => all.cpu_quota = Some(time),
                Named::Cpus(list) => all.cpus = Some(list),
                Named::Mems(list) => all.mems = Some(list),
            }
        }
        sensible(all)
    }
}

impl ContainerResourceArgs {
    /// What they ask for.
    pub(crate) fn resources(&self) -> Result<Resources, Failure> {
        let mut all = self.each.all();
        all.cpu_quota = all.cpu_quota.or(self.cpus);
        all.processes = self.pids_limit.and_then(|count| u64::try_from(count).ok()).filter(|count| *count > 0);
        sensible(all)
    }
}

/// What is 0 is not limited, as in docker.
fn sensible(asked: Resources) -> Result<Resources, Failure> {
    let all = Resources {
        memory: asked.memory.filter(|bytes| *bytes != 0),
        memory_and_swap: asked.memory_and_swap.filter(|bytes| *bytes != 0),
        cpu_shares: asked.cpu_shares.filter(|weight| *weight != 0),
        cpu_period: asked.cpu_period.filter(|time| *time != 0),
        cpu_quota: asked.cpu_quota.filter(|time| *time != 0),
        ..asked
    };
    if all.memory.is_some_and(|bytes| bytes < LEAST_MEMORY) {
        return Err(usage("`--memory` must be 6m or more, as in docker: no program starts with less"));
    }
    match (all.memory, all.memory_and_swap) {
        (None, Some(_)) => Err(usage("`--memory-swap` is memory and swap together, so it needs `--memory`")),
        (Some(memory), Some(both)) if u64::try_from(both).is_ok_and(|both| both < memory) => {
            Err(usage("`--memory-swap` is memory and swap together, so it cannot be less than `--memory`"))
        }
        _ => Ok(all),
    }
}

fn named(text: &str) -> Result<Named, Wrong> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| Wrong("expected `limit=value`, as in `memory=2g`".into()))?;
    Ok(match name {
        "memory" => Named::Memory(value::bytes(value)?),
        "memory-swap" => Named::MemorySwap(bytes_or_none(value)?),
        "cpu-shares" => Named::CpuShares(weight(value)?),
        "cpu-period" => Named::CpuPeriod(period(value)?),
        "cpu-quota" => Named::CpuQuota(time(value)?),
        "cpuset-cpus" => Named::Cpus(list(value)?),
        "cpuset-mems" => Named::Mems(list(value)?),
        other => return Err(Wrong(format!("no limit is called `{other}`{}", value::did_you_mean(other, NAMES)))),
    })
}

/// Processors as time in a period.
fn quota(text: &str) -> Result<i64, Wrong> {
    match text.parse::<f64>() {
        Ok(count) if (0.01..=100_000.0).contains(&count) => Ok((count * PERIOD).round() as i64),
        _ => Err(Wrong("expected a number of processors, as in `1.5`".into())),
    }
}

fn weight(text: &str) -> Result<u64, Wrong> {
    text.parse().map_err(|_| Wrong("expected a whole number, as in `512`".into()))
}

/// A period that the kernel takes.
fn period(text: &str) -> Result<u64, Wrong> {
    let is_one = |time: &u64| *time == 0 || (1000..=1_000_000).contains(time);
    let time = text.parse().ok().filter(is_one);
    time.ok_or_else(|| Wrong("expected microseconds from 1000 to 1000000, as in `100000`".into()))
}

/// Time in a period that the kernel takes; a negative one is no limit.
fn time(text: &str) -> Result<i64, Wrong> {
    let is_one = |time: &i64| *time <= 0 || *time >= 1000;
    let time = text.parse().ok().filter(is_one);
    time.ok_or_else(|| Wrong("expected 1000 microseconds or more, as in `50000`, or -1 for no limit".into()))
}

fn count(text: &str) -> Result<i64, Wrong> {
    text.parse().map_err(|_| Wrong("expected a whole number, or -1 for no limit".into()))
}

fn bytes_or_none(text: &str) -> Result<i64, Wrong> {
    if text == "-1" { Ok(-1) } else { value::bytes(text).map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)) }
}

/// Numbers and ranges of numbers.
fn list(text: &str) -> Result<String, Wrong> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    let is_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => number(part).is_some(),
    };
    if text.split(',').all(is_part) {
        Ok(text.to_owned())
    } else {
        Err(Wrong("expected numbers and ranges, as in `0-3,7`".into()))
    }
}

/// A path that stays in its hierarchy; an empty one is none, as in docker.
fn group(text: &str) -> Result<String, Wrong> {
    let is_plain = text.split('/').all(|name| name != ".." && !name.contains('\0'));
    if is_plain { Ok(text.to_owned()) } else { Err(Wrong("expected the path of a control group, without `..`".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_known_by_buildx_s_names() {
        assert_eq!(named("memory=2k").unwrap(), Named::Memory(2048));
        assert_eq!(named("memory-swap=-1").unwrap(), Named::MemorySwap(-1));
        assert_eq!(named("cpuset-cpus=0-1").unwrap(), Named::Cpus("0-1".into()));
        assert_eq!(named("memroy=1").unwrap_err().0, "no limit is called `memroy`; did you mean `memory`?");
        let bad = ["memory", "cpu-shares=many", "cpu-shares=-1", "cpu-period=999", "cpu-quota=10", "cpuset-mems=a"];
        assert!(bad.iter().all(|text| named(text).is_err()));
    }

    #[test]
    fn swap_counts_with_memory_only() {
        let all = |memory, memory_and_swap| sensible(Resources { memory, memory_and_swap, ..Resources::default() });
        let most = Some(LEAST_MEMORY);
        assert!(all(None, Some(1)).is_err() && all(most, Some(1)).is_err() && all(Some(4096), None).is_err());
        assert!(all(most, Some(-1)).is_ok() && all(most, Some(6 << 20)).is_ok() && all(None, None).is_ok());
    }

    #[test]
    fn nothing_is_no_limit() {
        let nothing = Resources {
            memory: Some(0),
            memory_and_swap: Some(0),
            cpu_shares: Some(0),
            cpu_period: Some(0),
            cpu_quota: Some(0),
            ..Resources::default()
        };
        assert_eq!(sensible(nothing).unwrap(), Resources::default());
    }

    #[test]
    fn processors_are_time_in_a_period() {
        assert_eq!((quota("1.5").unwrap(), quota("0.01").unwrap()), (150_000, 1000));
        assert!(["0", "-1", "many", "nan"].iter().all(|text| quota(text).is_err()));
    }

    #[test]
    fn lists_and_paths_are_what_they_say() {
        assert!(["0", "0-3,7", "1,2"].iter().all(|text| list(text).is_ok()));
        assert!(["", "0-", "3-1", "a", "1,,2", "0\n1", "65536"].iter().all(|text| list(text).is_err()));
        assert!(group("/builds/one").is_ok() && group("/a/../b").is_err() && group("").is_ok());
        assert_eq!((bytes_or_none("-1").unwrap(), bytes_or_none("1k").unwrap()), (-1, 1024));
    }
}
