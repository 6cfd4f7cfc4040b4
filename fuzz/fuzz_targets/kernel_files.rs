//! What the kernel and the machine say of groups, mounts and ids is read without harm: groups are made below what is mounted,
//! and no more ids are set aside than there are.
#![no_main]

use kiln_exec::rootless::ranges;
use kiln_exec::testing::group_homes;
use kiln_sys::userns::IdMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str, &str, u32)| {
    let (cgroup, mountinfo, subuid, uid_map, uid) = input;
    for (top, home) in group_homes(cgroup, mountinfo) {
        assert!(home.starts_with(&top), "{} is not in {}", home.display(), top.display());
    }
    for user in ["anna", "", "0"] {
        let rows = ranges(subuid, user, uid);
        let all: u64 = rows.iter().map(|row| u64::from(row.count)).sum();
        assert!(all <= u64::from(i32::MAX.cast_unsigned()), "{rows:?}");
        assert!(rows.iter().all(|row| row.count > 0 && row.first.checked_add(row.count).is_some()), "{rows:?}");
    }
    let map = IdMap::parse(uid_map);
    let last = map.last();
    assert!(last == 0 || map.has(last), "{map:?}");
    assert!(!(map.is_whole() && map.is_single()));
    let _ = map.has(uid);
});
