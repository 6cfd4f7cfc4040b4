//! Makes a database anew from what can still be read of a damaged one, and from the content that is there.
#![expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]

use std::fs::File;
use std::path::PathBuf;

use kiln_oci::{Digest, Hasher};
use kiln_sys::lock::LockMode;
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params, params_from_iter};

use crate::clean::remove_dir;
use crate::db::{Db, now};
use crate::error::{Error, IoContext as _, Result};
use crate::image::column;
use crate::layout::Layout;
use crate::lease::Live;
use crate::lock;
use crate::testing::reached;

/// Where the new one is made.
const DRAFT: &str = "salvage";

/// Reads what can be read; says what that is. With `install` the new database takes the place of the old one: nobody
/// may use the state directory then.
pub(super) fn salvage(layout: &Layout, install: bool) -> Result<String> {
    layout.furnish()?;
    let _alone = lock::wait(&layout.locks().join("sweep"), LockMode::Exclusive)?;
    let live = Live::read(&layout.leases())?;
    if install && !live.leases.is_empty() {
        return Err(Error::InUse { path: layout.root().to_owned(), builds: live.leases.len() });
    }
    let draft = layout.tmp().join(DRAFT);
    remove_dir(&draft)?;
    let made = make(layout, &Layout::open(&draft)?);
    if let (true, Ok(_)) = (install, &made) {
        put_in_place(layout, draft.join("kiln.db"))?;
    }
    remove_dir(&draft)?;
    made
}

fn make(layout: &Layout, draft: &Layout) -> Result<String> {
    let new = Db::open(draft)?;
    let old = Connection::open_with_flags(layout.db(), OpenFlags::SQLITE_OPEN_READ_WRITE).ok();
    if let Some(old) = &old {
        // What is damaged stays as it is until there is something better.
        let _ = old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
    // Twice: a row is taken when what it refers to is there.
    for _ in 0..2 {
        for table in
            new.read(|db| column(db, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name", []))?
        {
            let Some(old) = old.as_ref().filter(|_| table != "stat_pages") else { continue };
            let columns = new.read(|db| column(db, "SELECT name FROM pragma_table_info(?1) ORDER BY cid", [&table]))?;
            let rows = readable(old, &table, &columns);
            let marks = vec!["?"; columns.len()].join(", ");
            let sql = format!("INSERT OR IGNORE INTO {table} ({}) VALUES ({marks})", columns.join(", "));
            new.write(|db| {
                let mut insert = db.prepare_cached(&sql)?;
                // One that breaks a law of the tables is damaged.
                rows.iter().for_each(|row| drop(insert.execute(params_from_iter(row))));
                Ok(())
            })?;
        }
    }
    index_content(layout, &new)?;
    let count = |table: &str| {
        let counted =
            new.read(|db| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)));
        counted.map(|count| format!("{count} {table}"))
    };
    let counted: Vec<_> = ["images", "layers", "blobs", "results"].into_iter().map(count).collect::<Result<_>>()?;
    new.shrink()?;
    Ok(counted.join(", "))
}

/// The rows before the first damaged place, and those after the last.
fn readable(old: &Connection, table: &str, columns: &[String]) -> Vec<Vec<Value>> {
    let columns = columns.join(", ");
    let read = |sql: &str| -> Vec<Vec<Value>> {
        let Ok(mut select) = old.prepare(sql) else { return Vec::new() };
        let width = select.column_count();
        let values = select.query_map([], |row| (0..width).map(|index| row.get(index)).collect());
        values.map(|rows| rows.map_while(rusqlite::Result::ok).collect()).unwrap_or_default()
    };
    let mut rows = read(&format!("SELECT {columns} FROM {table} NOT INDEXED"));
    rows.extend(read(&format!("SELECT {columns} FROM {table} NOT INDEXED ORDER BY {} DESC", key_of(old, table))));
    rows
}

fn key_of(old: &Connection, table: &str) -> String {
    let sql = "SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk";
    let key = column(old, sql, [table]).unwrap_or_default();
    if key.is_empty() { "1".to_owned() } else { key.join(" DESC, ") }
}

/// Content proves itself.
fn index_content(layout: &Layout, new: &Db) -> Result<()> {
    let dir = layout.blobs();
    for entry in std::fs::read_dir(&dir).context("list", &dir)? {
        let path = entry.context("list", &dir)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else { continue };
        let mut hasher = Hasher::new();
        let Ok(size) = File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut hasher)) else { continue };
        if hasher.finish() != digest {
            continue;
        }
        new.write(|db| {
            let sql = "INSERT OR IGNORE INTO blobs (digest, size, media_type, created) VALUES (?1, ?2, ?3, ?4)";
            db.prepare_cached(sql)?.execute(params![digest.as_str(), size, "application/octet-stream", now()])
        })?;
    }
    Ok(())
}

/// The old log goes first: it must never meet the new database.
fn put_in_place(layout: &Layout, new: PathBuf) -> Result<()> {
    File::open(&new).and_then(|file| file.sync_all()).context("sync", &new)?;
    reached("salvage: made");
    let db = layout.db();
    for log in ["-wal", "-shm"] {
        let mut path = db.clone().into_os_string();
        path.push(log);
        remove_dir(&PathBuf::from(path))?;
    }
    reached("salvage: log removed");
    std::fs::rename(&new, &db).context("rename", &new)?;
    let root = layout.root();
    File::open(root).and_then(|root| root.sync_all()).context("sync", root)
}
