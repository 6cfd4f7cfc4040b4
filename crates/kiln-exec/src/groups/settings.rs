//! Limits as the controllers of each version want them written.

use super::Resources;

/// A file of a controller and what is written to it: in the first version, in the second.
pub(super) type Setting = (&'static str, Option<(&'static str, String)>, Option<(&'static str, String)>);

/// What is to be written where, in an order in which the kernel takes it.
pub(super) fn settings(resources: &Resources) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    if let Some(count) = resources.processes {
        let value = Some(("pids.max", count.to_string()));
        settings.push(("pids", value.clone(), value));
    }
    if let Some(bytes) = resources.memory {
        let value = bytes.to_string();
        settings.push(("memory", Some(("memory.limit_in_bytes", value.clone())), Some(("memory.max", value))));
        // What is out of memory ends as a whole, not at some process that another waits for.
        settings.push(("memory", None, Some(("memory.oom.group", "1".to_owned()))));
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let memory = ["memory.max=1048576", "memory.oom.group=1", "memory.swap.max=2097152"];
        assert_eq!((second[0].as_str(), &second[1..4]), ("pids.max=10", &memory.map(str::to_owned)[..]));
        assert_eq!(second[4..], ["cpu.weight=39", "cpu.max=50000 100000", "cpuset.cpus=0-1"]);
    }
}
