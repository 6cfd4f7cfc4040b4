//! Packages that rpm lists: a header of each, in a table of a SQLite database.

use std::io::Write as _;

use rusqlite::{Connection, OpenFlags};

/// Tags of a header's entries (rpm, `rpmtag.h`).
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCH: u32 = 1022;

/// No image has as many packages.
const MOST: usize = 100_000;

/// A package: its name, its version, its architecture.
pub(super) type Package = (String, String, String);

/// What a database lists; nothing when it is none.
pub(super) fn list(mut database: Vec<u8>) -> Option<Vec<Package>> {
    // A log of later changes is not looked for: whoever made the image left none, and a file alone opens without one
    // (https://www.sqlite.org/fileformat2.html, 1.3.3).
    database.get_mut(18..20)?.fill(1);
    let mut file = tempfile::NamedTempFile::new().ok()?;
    file.write_all(&database).ok()?;
    let database = Connection::open_with_flags(file.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    // The database is a stranger's: it may run nothing of its own.
    database.pragma_update(None, "trusted_schema", false).ok()?;
    let is_table =
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'Packages' AND sql NOT LIKE '%VIRTUAL%'";
    let tables: i64 = database.query_row(is_table, [], |row| row.get(0)).ok()?;
    let mut rows = database.prepare("SELECT blob FROM Packages").ok().filter(|_| tables == 1)?;
    let headers = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).ok()?;
    headers.take(MOST).map(|header| package(&header.ok()?)).collect()
}

/// Reads a header: the number of entries and of bytes of data, entries of tag, type, place and count, data. Numbers have their
/// largest byte first.
fn package(header: &[u8]) -> Option<Package> {
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let entries = usize::try_from(number(0)?).ok()?;
    let data = entries.checked_mul(16)?.checked_add(8).filter(|at| *at <= header.len())?;
    let place = |tag: u32| {
        let entry = (0..entries).map(|index| 8 + index * 16).find(|entry| number(*entry) == Some(tag))?;
        data.checked_add(usize::try_from(number(entry + 8)?).ok()?)
    };
    let text = |tag: u32| {
        let bytes = header.get(place(tag)?..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    let epoch = place(EPOCH).and_then(number).map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let version = format!("{epoch}{}-{}", text(VERSION)?, text(RELEASE)?);
    Some((text(NAME)?, version, text(ARCH).unwrap_or_default()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What rpm 4.18 wrote for packages `tool` and `lib`.
    const HEADERS: [&[u8]; 2] = [include_bytes!("rpm/tool.bin"), include_bytes!("rpm/lib.bin")];

    /// A database as rpm makes it, with a log that is empty.
    pub(in crate::diff) fn database(headers: &[&[u8]]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rpmdb.sqlite");
        let database = Connection::open(&path).unwrap();
        database.pragma_update(None, "journal_mode", "WAL").unwrap();
        database
            .execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL)", [])
            .unwrap();
        for header in headers {
            database.execute("INSERT INTO Packages (blob) VALUES (?)", [header]).unwrap();
        }
        database.close().unwrap();
        std::fs::read(path).unwrap()
    }

    pub(in crate::diff) fn installed() -> Vec<u8> {
        database(&HEADERS)
    }

    #[test]
    fn headers_are_read_as_rpm_writes_them() {
        let wanted = [("tool", "1:2.1-3", "noarch"), ("lib", "0.9-1", "noarch")];
        let wanted = wanted.map(|(name, version, arch)| (name.to_owned(), version.to_owned(), arch.to_owned()));
        assert_eq!(list(installed()), Some(wanted.to_vec()));
    }

    #[test]
    fn what_is_no_list_says_nothing() {
        assert_eq!(list(Vec::new()), None);
        assert_eq!(list(b"SQLite format 3\0 and then nothing that is one".to_vec()), None);
        for length in [0, 7, 8, 40, HEADERS[0].len() / 2] {
            assert_eq!(list(database(&[&HEADERS[0][..length]])), None, "{length}");
        }
        let mut wild = HEADERS[0].to_vec();
        wild[..4].fill(0xff);
        assert_eq!(list(database(&[&wild])), None);
        // One that would count for ever.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("view");
        let view = "CREATE VIEW Packages AS WITH RECURSIVE n(blob) AS (SELECT 1 UNION ALL SELECT blob + 1 FROM n) SELECT blob FROM n";
        Connection::open(&path).unwrap().execute(view, []).unwrap();
        assert_eq!(list(std::fs::read(path).unwrap()), None);
    }
}
