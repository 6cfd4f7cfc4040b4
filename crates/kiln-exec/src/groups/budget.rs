//! How much memory there is for us: the machine's, or what the groups around us leave of it.
#![expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]

use super::home::{Hierarchy, Version, hierarchies};

/// Bytes of memory that we and what we start may take together. `None` if nobody says.
pub fn memory_budget() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let ours = hierarchies(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    ours.iter().filter_map(limit).chain(total(&read("/proc/meminfo"))).min()
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The lowest limit of our group and of those above it.
fn limit(hierarchy: &Hierarchy) -> Option<u64> {
    if hierarchy.version == Version::First {
        let stat = std::fs::read_to_string(hierarchy.own.join("memory.stat")).ok()?;
        return stat.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit ")?.trim().parse().ok());
    }
    let groups = hierarchy.own.ancestors().take_while(|group| group.starts_with(&hierarchy.top));
    let limits = groups.filter_map(|group| std::fs::read_to_string(group.join("memory.max")).ok());
    limits.filter_map(|limit| limit.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_around_us_counts() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("outer/inner");
        std::fs::create_dir_all(&own).unwrap();
        let write = |path: &str, text: &str| std::fs::write(dir.path().join(path), text).unwrap();
        write("outer/memory.max", "1000\n");
        write("outer/inner/memory.max", "max\n");
        let top = dir.path().to_path_buf();
        let unified = Hierarchy { version: Version::Second, controllers: vec![], top, own };
        assert_eq!(limit(&unified), Some(1000));
        write("outer/inner/memory.max", "900\n");
        assert_eq!(limit(&unified), Some(900));
        write("outer/inner/memory.stat", "cache 1\nhierarchical_memory_limit 800\n");
        assert_eq!(limit(&Hierarchy { version: Version::First, ..unified }), Some(800));
    }

    #[test]
    fn without_a_limit_it_is_the_machines() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24 kB\n"), Some(24 << 10));
        assert_eq!(total(""), None);
        assert!(memory_budget().is_some_and(|bytes| bytes > 1 << 20));
    }
}
