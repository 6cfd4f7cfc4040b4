//! Any user, looked up in any files of accounts, is found or refused; numbers are themselves.
#![no_main]

use std::fs;

use kiln_exec::{home_of, resolve_owner, resolve_user};
use kiln_sys::root::Root;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8], &[u8])| {
    let (user, passwd, group) = input;
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
    fs::write(dir.path().join("etc/group"), group).unwrap();
    let root = Root::open_ambient(dir.path()).unwrap();
    let found = resolve_user(&root, user);
    let number = user.split(':').next().unwrap_or_default();
    if let Ok(found) = found {
        assert!(found.uid <= i32::MAX as u32 && found.groups.contains(&found.gid));
        if let Ok(number) = number.parse::<u64>() {
            assert_eq!(u64::from(found.uid), number, "{user}");
        }
        let _ = home_of(&root, found.uid);
    }
    let _ = resolve_owner(&root, user);
});
