//! What is packed and unpacked again packs to the same bytes.
#![no_main]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use kiln_fs::Limits;
use kiln_fs::layer::{apply, pack};
use kiln_sys::root::Root;
use libfuzzer_sys::fuzz_target;

/// Makes one file of a tree; what cannot be made is left out.
fn make(root: &Path, (kind, name, other, mode): &(u8, u8, u8, u16)) -> std::io::Result<()> {
    let path = |number: u8| {
        let depth = usize::from(number % 4);
        let parts = (0..=depth).map(|at| char::from(b'a' + (number >> at) % 3).to_string());
        root.join(parts.collect::<Vec<_>>().join("/"))
    };
    let (path, other) = (path(*name), path(*other));
    fs::create_dir_all(path.parent().unwrap_or(root))?;
    match kind % 6 {
        0 => fs::write(&path, vec![b'x'; usize::from(*mode)])?,
        1 => return symlink(format!("../{mode}"), &path),
        2 => return fs::hard_link(other, &path),
        3 => fs::create_dir(&path)?,
        4 => fs::File::create(&path)?.set_len(u64::from(*mode) * 16)?,
        // A deletion, as overlays have it.
        _ => {
            let device = rustix::fs::makedev(0, 0);
            let mode = rustix::fs::Mode::empty();
            return Ok(rustix::fs::mknodat(
                rustix::fs::CWD,
                &path,
                rustix::fs::FileType::CharacterDevice,
                mode,
                device,
            )?);
        }
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(u32::from(*mode) & 0o7777))
}

fn packed(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(&Root::open_ambient(dir).unwrap(), &mut bytes).unwrap();
    bytes
}

fuzz_target!(|files: Vec<(u8, u8, u8, u16)>| {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    for file in files.iter().take(20) {
        let _ = make(&one, file);
    }
    let first = packed(&one);
    apply(&first[..], &Root::open_ambient(&two).unwrap(), &Limits::default()).unwrap();
    assert!(packed(&two) == first, "another archive came back");
});
