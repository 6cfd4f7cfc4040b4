//! One SQLite database for what kiln knows about the things it keeps; several processes use it at once.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use kiln_sys::lock::LockMode;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Error, Result};
use crate::image::column;
use crate::layout::Layout;
use crate::lock;
use crate::schema::{APPLICATION_ID, MIGRATIONS, VERSION};

/// The database: one connection that writes, and readers opened when that one is busy.
pub(crate) struct Db {
    path: PathBuf,
    log: PathBuf,
    main: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

/// How long a transaction may wait for other processes before it is an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a reader waits for the first connection: to open another takes longer.
const BRIEFLY: Duration = Duration::from_micros(200);

/// Length of the write-ahead log beyond which a commit folds it into the database and empties it. Small, because the first
/// process after a pause reads the log through, and no process folds it on exit. Emptied, because that process can't tell
/// what of it was folded before, and would fold all of it again.
const LONGEST_LOG: u64 = 1 << 20;

impl Db {
    /// Opens the database of a state directory, making or migrating it when needed.
    pub(crate) fn open(layout: &Layout) -> Result<Self> {
        let path = layout.db();
        let mut main = match connect(&path) {
            Ok(connection) => connection,
            Err(Error::Database { source, .. }) if is_missing(&source) => {
                layout.furnish()?;
                connect(&path)?
            }
            Err(error) => return Err(error),
        };
        let db = |source| Error::database(&path, source);
        if main.is_readonly("main").map_err(db)? {
            return Err(layout.not_writable(std::io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        if marks(&main).map_err(db)? != (VERSION, APPLICATION_ID) {
            bring_up_to_date(&mut main, layout)?;
        }
        let mut log = path.clone().into_os_string();
        log.push("-wal");
        Ok(Self { path, log: log.into(), main: Mutex::new(main), readers: Mutex::default() })
    }

    /// Runs a reading closure, all of which sees one state of the database, whatever other processes write meanwhile. It
    /// never waits for this process's writers.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let read = |connection: &Connection| {
            let state = connection.unchecked_transaction()?;
            let answer = read(&state)?;
            state.commit()?;
            Ok(answer)
        };
        if let Some(main) = self.main_soon() {
            return read(&main).map_err(|source| self.error(source));
        }
        let idle = locked(&self.readers).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => connect(&self.path)?,
        };
        let answer = read(&reader).map_err(|source| self.error(source));
        locked(&self.readers).push(reader);
        answer
    }

    /// The first connection, if it is free within less than another one would take to open.
    fn main_soon(&self) -> Option<MutexGuard<'_, Connection>> {
        let since = Instant::now();
        loop {
            match self.main.try_lock() {
                Ok(main) => return Some(main),
                Err(TryLockError::Poisoned(main)) => return Some(main.into_inner()),
                Err(TryLockError::WouldBlock) if since.elapsed() > BRIEFLY => return None,
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
    }

    /// Runs one writing transaction; an error rolls it back.
    pub(crate) fn write<T>(&self, write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let mut main = locked(&self.main);
        let run = || {
            let transaction = main.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answer = write(&transaction)?;
            transaction.commit()?;
            self.fold(&mut main);
            Ok(answer)
        };
        run().map_err(|source| self.error(source))
    }

    /// Folds the log when it has become long. Nobody is waited for, and the commit stands: while others read, or the disk
    /// is full, the next one tries again.
    #[expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]
    fn fold(&self, main: &mut Connection) {
        if std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len()) > LONGEST_LOG
            && main.busy_handler(None::<fn(i32) -> bool>).is_ok()
        {
            let _ = main.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            let _ = main.busy_handler(Some(patience()));
        }
    }

    /// Runs one writing transaction and undoes it: what it would do, without doing it.
    pub(crate) fn rehearse<T>(&self, write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let mut main = locked(&self.main);
        let run = || {
            let transaction = main.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let answer = write(&transaction)?;
            transaction.rollback()?;
            Ok(answer)
        };
        run().map_err(|source| self.error(source))
    }

    /// What the database finds wrong with itself, in one line.
    pub(crate) fn trouble(&self) -> Result<Option<String>> {
        let found = self.read(|db| {
            let mut found = column(db, "SELECT integrity_check FROM pragma_integrity_check LIMIT 3", [])?;
            found.retain(|line| line != "ok");
            let strays = "SELECT DISTINCT \"table\" FROM pragma_foreign_key_check";
            found
                .extend(column(db, strays, [])?.into_iter().map(|table| format!("rows of `{table}` refer to nothing")));
            Ok(found)
        })?;
        Ok((!found.is_empty()).then(|| found.join("; ").replace('\n', " ")))
    }

    /// Gives freed pages back to the file system. Others may be reading: then as much as can be done now.
    pub(crate) fn shrink(&self) -> Result<()> {
        let main = locked(&self.main);
        let run = || {
            // Each step gives back one page.
            let mut vacuum = main.prepare("PRAGMA incremental_vacuum")?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
            main.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        };
        run().map_err(|source| self.error(source))
    }

    fn error(&self, source: rusqlite::Error) -> Error {
        Error::database(&self.path, source)
    }
}

/// Seconds since 1970, as the tables keep time.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Locks a mutex; what a panicking holder left is consistent, since transactions roll back.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> Result<Connection> {
    let run = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_handler(Some(patience()))?;
        // A process that lives for milliseconds must not pay for folding the log (three fsyncs) when it ends.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // Plans do not depend on what is bound: else statements are prepared anew whenever that changes.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection
            .execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0")?;
        Ok(connection)
    };
    run().map_err(|source| Error::database(path, source))
}

/// Waits for a lock in short naps first: transactions are shorter than SQLite's own first sleep of a millisecond.
fn patience() -> impl FnMut(i32) -> bool + Send + 'static {
    let mut since = Instant::now();
    move |attempt| {
        if attempt == 0 {
            since = Instant::now();
        }
        let nap = match attempt {
            0..10 => Duration::from_micros(100),
            10..50 => Duration::from_micros(500),
            _ => Duration::from_millis(3),
        };
        std::thread::sleep(nap);
        since.elapsed() < PATIENCE
    }
}

fn is_missing(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen)
}

/// The schema version and the mark of the program that made the file; both 0 in a new one.
fn marks(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok((version, connection.query_row("PRAGMA application_id", [], |row| row.get(0))?))
}

/// Creates the tables, or adds what older kilns did not have. One process at a time does it.
fn bring_up_to_date(connection: &mut Connection, layout: &Layout) -> Result<()> {
    layout.furnish()?;
    let _alone = lock::wait(&layout.locks().join("schema"), LockMode::Exclusive)?;
    let path = layout.db();
    let db = |source| Error::database(&path, source);
    let (found, program) = marks(connection).map_err(db)?;
    if program != 0 && program != APPLICATION_ID {
        return Err(Error::ForeignDatabase { path });
    }
    if found > VERSION {
        return Err(Error::NewerSchema { path: layout.root().to_owned(), found, supported: VERSION });
    }
    if found == 0 {
        check_is_empty(connection, &path)?;
        if !layout.is_bare()? {
            return Err(Error::LostDatabase { path });
        }
        // Both live in the file's header, so they are said once: before the first table, and outside a transaction.
        connection
            .execute_batch("PRAGMA auto_vacuum = INCREMENTAL")
            .and_then(|()| connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())))
            .map_err(db)?;
    }
    let from = usize::try_from(found).map_err(|_| Error::ForeignDatabase { path: path.clone() })?;
    let migrate = |connection: &mut Connection| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for step in &MIGRATIONS[from..] {
            transaction.execute_batch(step)?;
        }
        transaction
            .execute_batch(&format!("PRAGMA user_version = {VERSION}; PRAGMA application_id = {APPLICATION_ID}"))?;
        transaction.commit()
    };
    migrate(connection).map_err(db)
}

fn check_is_empty(connection: &Connection, path: &Path) -> Result<()> {
    let tables = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .map_err(|source| Error::database(path, source))?;
    if tables == 0 { Ok(()) } else { Err(Error::ForeignDatabase { path: path.to_owned() }) }
}
