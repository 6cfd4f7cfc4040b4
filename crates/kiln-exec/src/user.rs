//! What `USER` means in an image, by the image's own `/etc/passwd` and `/etc/group`.
//!
//! The files are strangers' bytes: they are read inside the root, up to a limit, and only if they are regular files.
//! A number is an id and never a name, and an id over 2³¹−1 is none.

use kiln_sys::root::Root;

use crate::Error;
use crate::spec::User;

/// No honest user database is larger.
const LIMIT: u64 = 10 << 20;
const MAX_ID: u64 = i32::MAX as u64;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Resolves `user`, `uid`, `user:group`, `uid:gid` and the mixtures. Empty is root.
///
/// A user of the image that is named without a group gets its groups from `/etc/group`; so does an id that
/// `/etc/passwd` knows.
pub fn resolve_user(root: &Root, spec: &str) -> Result<User, Error> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user_id = number(user)?;
    let group_id = group.map(number).transpose()?.flatten();
    // Two numbers need no file, so they work in an image that has none.
    if let (Some(uid), Some(gid)) = (user_id, group_id) {
        return Ok(User { uid, gid, groups: vec![gid] });
    }
    if user.is_empty() && group.is_none() {
        return Ok(User { uid: 0, gid: 0, groups: vec![0] });
    }
    let wanted = if user.is_empty() { Some(0) } else { user_id };
    let passwd = read(root, PASSWD)?;
    let entry = accounts(&passwd).find(|entry| match wanted {
        Some(uid) => entry.uid == uid,
        None => entry.name == user,
    });
    let (uid, own_gid) = match (&entry, wanted) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(Error::NoSuchUser { name: user.to_string() }),
    };
    let Some(group) = group else {
        let groups = entry.map(|entry| memberships(root, entry.name)).transpose()?.unwrap_or_default();
        return Ok(with_primary(uid, own_gid, groups));
    };
    let gid = match group_id {
        Some(gid) => gid,
        None => group_named(root, group)?,
    };
    Ok(with_primary(uid, gid, Vec::new()))
}

/// Resolves whom files are given to, as `--chown` says it: a number alone is user and group, a name brings its group.
/// Any id a file can have is allowed.
pub fn resolve_owner(root: &Root, spec: &str) -> Result<(u32, u32), Error> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let (uid, own_gid) = match file_id(user)? {
        Some(id) => (id, id),
        None if user.is_empty() => (0, 0),
        None => {
            let passwd = read(root, PASSWD)?;
            let entry = accounts(&passwd).find(|entry| entry.name == user);
            let entry = entry.ok_or_else(|| Error::NoSuchUser { name: user.to_string() })?;
            (entry.uid, entry.gid)
        }
    };
    let gid = match group.map(|group| Ok((group, file_id(group)?))).transpose()? {
        None => own_gid,
        Some((_, Some(id))) => id,
        Some((name, None)) => group_named(root, name)?,
    };
    Ok((uid, gid))
}

/// Finds the home directory of a user id; `/` if the image knows none.
pub fn home_of(root: &Root, uid: u32) -> Result<String, Error> {
    let passwd = read(root, PASSWD)?;
    let home = accounts(&passwd).find(|entry| entry.uid == uid).map(|entry| entry.home);
    Ok(home.filter(|home| !home.is_empty()).unwrap_or("/").to_string())
}

fn with_primary(uid: u32, gid: u32, mut groups: Vec<u32>) -> User {
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    User { uid, gid, groups }
}

fn memberships(root: &Root, user: &str) -> Result<Vec<u32>, Error> {
    let text = read(root, GROUP)?;
    let mine = groups(&text).filter(|(_, _, members)| members.split(',').any(|member| member == user));
    Ok(mine.map(|(_, gid, _)| gid).collect())
}

fn group_named(root: &Root, name: &str) -> Result<u32, Error> {
    let text = read(root, GROUP)?;
    let found = groups(&text).find(|(group, _, _)| *group == name).map(|(_, gid, _)| gid);
    found.ok_or_else(|| Error::NoSuchGroup { name: name.to_string() })
}

/// Reads the id of a process if it is written as one.
fn number(text: &str) -> Result<Option<u32>, Error> {
    parse_id(text, MAX_ID)
}

/// Reads the id of a file if it is written as one; only the very last number is none.
fn file_id(text: &str) -> Result<Option<u32>, Error> {
    parse_id(text, u64::from(u32::MAX) - 1)
}

/// Digits, with or without a sign, are an id and never a name.
fn parse_id(text: &str, max: u64) -> Result<Option<u32>, Error> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let id = text.parse::<u64>().ok().filter(|id| *id <= max && !text.starts_with('+'));
    let id = id.and_then(|id| u32::try_from(id).ok());
    id.map(Some).ok_or_else(|| Error::IdOutOfRange { id: text.to_string(), max })
}

/// An id out of a file: lines with impossible ones are no entries.
fn id(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|id| u64::from(*id) <= MAX_ID)
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
        Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some((name, id(fields.next()?)?, fields.next().unwrap_or("")))
    })
}

/// Reads a file of the image; one that is not there is empty.
fn read(root: &Root, path: &'static str) -> Result<String, Error> {
    match root.read_to_limit(path, LIMIT) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.is_not_found() => Ok(String::new()),
        Err(source) => Err(Error::UserFile { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD_TEXT: &str = "root:x:0:0:root:/root:/bin/sh\n\
        daemon:x:1:1::/usr/sbin:/x\n\
        # a comment\n\
        broken:x:12\n\
        4000000000:x:7:7::/n:/x\n\
        1234:x:0:0::/trap:/x\n\
        app:x:1000:1001::/home/app:/x\n\
        huge:x:4294967296:0::/x:/x\n";
    const GROUP_TEXT: &str = "root:x:0:\ndaemon:x:1:\nadm:x:4:daemon,app\nvideo:x:44:app\nstaff:x:50:\n7777:x:0:\n";

    fn image() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), PASSWD_TEXT).unwrap();
        std::fs::write(dir.path().join("etc/group"), GROUP_TEXT).unwrap();
        let root = Root::open_ambient(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn users_and_groups_resolve_as_docker_does() {
        let (_dir, root) = image();
        let cases: &[(&str, u32, u32, &[u32])] = &[
            ("", 0, 0, &[0]),
            ("root", 0, 0, &[0]),
            ("0", 0, 0, &[0]),
            ("daemon", 1, 1, &[1, 4]),
            ("app", 1000, 1001, &[1001, 4, 44]),
            ("1000", 1000, 1001, &[1001, 4, 44]),
            ("1000:2000", 1000, 2000, &[2000]),
            ("app:2000", 1000, 2000, &[2000]),
            ("app:staff", 1000, 50, &[50]),
            ("5555", 5555, 0, &[0]),
            ("5555:staff", 5555, 50, &[50]),
            (":staff", 0, 50, &[50]),
            ("app:", 1000, 1001, &[1001, 4, 44]),
            ("2147483647", 2_147_483_647, 0, &[0]),
            ("1234", 1234, 0, &[0]),
            ("app:7777", 1000, 7777, &[7777]),
        ];
        for (spec, uid, gid, groups) in cases {
            let user = resolve_user(&root, spec).unwrap();
            assert_eq!(user, User { uid: *uid, gid: *gid, groups: groups.to_vec() }, "{spec}");
        }
    }

    #[test]
    fn what_is_no_user_is_named() {
        let (_dir, root) = image();
        let cases = [
            ("nosuch", "the image has no user `nosuch`"),
            ("app:nosuch", "the image has no group `nosuch`"),
            ("4294967296", "the id `4294967296` is out of range (0 to 2147483647)"),
            ("4000000000", "the id `4000000000` is out of range (0 to 2147483647)"),
            ("2147483648", "the id `2147483648` is out of range (0 to 2147483647)"),
            ("-1", "the id `-1` is out of range (0 to 2147483647)"),
            ("+1", "the id `+1` is out of range (0 to 2147483647)"),
            ("app:4294967295", "the id `4294967295` is out of range (0 to 2147483647)"),
            ("99999999999999999999999", "the id `99999999999999999999999` is out of range (0 to 2147483647)"),
            ("huge", "the image has no user `huge`"),
        ];
        for (spec, message) in cases {
            assert_eq!(resolve_user(&root, spec).unwrap_err().to_string(), message, "{spec}");
        }
    }

    #[test]
    fn numbers_need_no_files_and_names_do() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open_ambient(dir.path()).unwrap();
        assert_eq!(resolve_user(&root, "7:8").unwrap().gid, 8);
        assert_eq!(resolve_user(&root, "7").unwrap(), User { uid: 7, gid: 0, groups: vec![0] });
        assert!(matches!(resolve_user(&root, "root"), Err(Error::NoSuchUser { .. })));
        assert_eq!(home_of(&root, 0).unwrap(), "/");
    }

    #[test]
    fn owners_of_files_resolve_as_chown_says() {
        let (_dir, root) = image();
        let cases = [
            ("55", (55, 55)),
            ("55:7", (55, 7)),
            ("app", (1000, 1001)),
            ("app:video", (1000, 44)),
            ("1000", (1000, 1000)),
            ("1000:staff", (1000, 50)),
            (":staff", (0, 50)),
            ("4294967294", (4_294_967_294, 4_294_967_294)),
        ];
        for (spec, owner) in cases {
            assert_eq!(resolve_owner(&root, spec).unwrap(), owner, "{spec}");
        }
        for bad in ["nosuch", "app:nosuch", "4294967295", "-1", "1:-2"] {
            assert!(resolve_owner(&root, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn homes_come_from_the_image() {
        let (_dir, root) = image();
        assert_eq!(home_of(&root, 0).unwrap(), "/root");
        assert_eq!(home_of(&root, 1000).unwrap(), "/home/app");
        assert_eq!(home_of(&root, 4242).unwrap(), "/");
    }

    #[test]
    fn hostile_files_are_refused_or_looked_up_inside() {
        let (dir, root) = image();
        let passwd = dir.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", &passwd).unwrap();
        assert!(matches!(resolve_user(&root, "root"), Err(Error::NoSuchUser { .. })));
        std::fs::remove_file(&passwd).unwrap();
        std::fs::File::create(&passwd).unwrap().set_len(LIMIT + 1).unwrap();
        let error = resolve_user(&root, "root").unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/etc/passwd` of the image");
        std::fs::remove_file(&passwd).unwrap();
        std::fs::create_dir(&passwd).unwrap();
        assert!(matches!(resolve_user(&root, "root"), Err(Error::UserFile { .. })));
    }
}
