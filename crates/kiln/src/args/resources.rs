//! What RUN steps may take of the machine, by the names of `docker build`.

use clap::Args;
use kiln_engine::Resources;
use kiln_report::Failure;

use super::value::{self, Wrong, usage};

#[derive(Debug, Clone, Args)]
pub(crate) struct ResourceArgs {
    /// Most memory of a RUN step
    #[arg(short, long, value_name = "BYTES", value_parser = value::bytes)]
    memory: Option<u64>,

    /// Most memory and swap of a RUN step together; -1 is no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes_or_none, allow_hyphen_values = true, requires = "memory")]
    memory_swap: Option<i64>,

    /// Weight of a RUN step when processors are short, 1024 as usual
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,

    /// Length of the scheduler's period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,

    /// Processor time of a RUN step in each period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,

    /// Processors for RUN steps, as 0-3,7
    #[arg(long, value_name = "LIST", value_parser = list)]
    cpuset_cpus: Option<String>,

    /// Memory nodes for RUN steps, as 0-1
    #[arg(long, value_name = "LIST", value_parser = list)]
    cpuset_mems: Option<String>,

    /// Control group in which those of RUN steps are made
    #[arg(long, value_name = "PATH", value_parser = group)]
    cgroup_parent: Option<String>,
}

impl ResourceArgs {
    /// What they ask for.
    pub(crate) fn resources(&self) -> Result<Resources, Failure> {
        if let (Some(memory), Some(both)) = (self.memory, self.memory_swap)
            && u64::try_from(both).is_ok_and(|both| both < memory)
        {
            return Err(usage("`--memory-swap` is memory and swap together, so it cannot be less than `--memory`"));
        }
        Ok(Resources {
            processes: None,
            memory: self.memory,
            memory_and_swap: self.memory_swap,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpus: self.cpuset_cpus.clone(),
            mems: self.cpuset_mems.clone(),
            parent: self.cgroup_parent.clone(),
        })
    }
}

fn bytes_or_none(text: &str) -> Result<i64, Wrong> {
    if text == "-1" { Ok(-1) } else { value::bytes(text).map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)) }
}

/// Numbers and ranges of numbers.
fn list(text: &str) -> Result<String, Wrong> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(part),
    };
    if text.split(',').all(is_part) {
        Ok(text.to_owned())
    } else {
        Err(Wrong("expected numbers and ranges, as in `0-3,7`".into()))
    }
}

/// A path that stays in its hierarchy.
fn group(text: &str) -> Result<String, Wrong> {
    let is_plain = !text.is_empty() && text.split('/').all(|name| name != ".." && !name.contains('\0'));
    if is_plain { Ok(text.to_owned()) } else { Err(Wrong("expected the path of a control group, without `..`".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_paths_are_what_they_say() {
        assert!(["0", "0-3,7", "1,2"].iter().all(|text| list(text).is_ok()));
        assert!(["", "0-", "a", "1,,2", "0\n1"].iter().all(|text| list(text).is_err()));
        assert!(group("/builds/one").is_ok() && group("/a/../b").is_err() && group("").is_err());
        assert_eq!((bytes_or_none("-1").unwrap(), bytes_or_none("1k").unwrap()), (-1, 1024));
    }
}
