//! One value out of libpod's SQLite database, `db.sql` (podman 4.8 and later).
//!
//! Podman may be in the middle of a transaction (`_txlock=exclusive`), and this hook may be what it waits for: nothing here
//! waits for a lock. The first try opens the database read-only in the ordinary way, which also understands a journal that
//! a crash left. If that is busy, the file is read as if nobody wrote to it (`immutable=1`, sqlite.org/uri.html). A
//! container's configuration was committed before its runtime was started, so the row itself is at rest; a page of the tree
//! above it may be torn for the moment of a commit, which shows as damage or absence and is tried again.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::podman::MAX_CONFIG_JSON_BYTES;

/// Tries, and the pause between them: together a small part of the hook's deadline.
const MAX_TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteError {
    /// What SQLite says.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A value over its limit.
    #[error("the container's entry is larger than {MAX_CONFIG_JSON_BYTES} bytes")]
    TooLarge,
}

/// `JSON` of `ContainerConfig` for a container; `None` when the database does not have the container.
pub fn container_config(path: &Path, id: &str) -> Result<Option<Vec<u8>>, SqliteError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let read = match query(path, id, false) {
            Err(SqliteError::Sqlite(error)) if is_in_use(&error) => query(path, id, true),
            // An answer under SQLite's own locks is final.
            answer => return answer,
        };
        let torn = match &read {
            Ok(found) => found.is_none(),
            Err(SqliteError::Sqlite(_)) => true,
            Err(SqliteError::TooLarge) => false,
        };
        if !torn || tries == MAX_TRIES {
            return read;
        }
        std::thread::sleep(PAUSE);
    }
}

fn query(path: &Path, id: &str, immutable: bool) -> Result<Option<Vec<u8>>, SqliteError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let database = Connection::open_with_flags(uri(path, immutable), flags)?;
    database.busy_timeout(Duration::ZERO)?;
    // The schema is somebody else's: nothing in it may run.
    database.pragma_update(None, "trusted_schema", false)?;
    let row: Option<(i64, Option<Vec<u8>>)> = database
        .query_row(
            "SELECT length(CAST(JSON AS BLOB)), CASE WHEN length(CAST(JSON AS BLOB)) <= ?2 THEN CAST(JSON AS BLOB) END \
             FROM ContainerConfig WHERE ID = ?1",
            (id, MAX_CONFIG_JSON_BYTES as i64),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    match row {
        None => Ok(None),
        Some((_, Some(json))) => Ok(Some(json)),
        Some((_, None)) => Err(SqliteError::TooLarge),
    }
}

/// Locked by a writer, or by a journal that only somebody with write access may roll back.
fn is_in_use(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::ReadOnly | ErrorCode::CannotOpen)
    )
}

fn uri(path: &Path, immutable: bool) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            // Writing to a String cannot fail.
            other => drop(write!(uri, "%{other:02x}")),
        }
    }
    uri.push_str(if immutable { "?mode=ro&immutable=1" } else { "?mode=ro" });
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(dir: &Path) -> (std::path::PathBuf, Connection) {
        let path = dir.join("db ?#%.sql");
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch(
                "CREATE TABLE ContainerConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, PodID TEXT, JSON TEXT NOT NULL);
                 INSERT INTO ContainerConfig VALUES ('c1', 'web', NULL, '{\"name\":\"web\"}');",
            )
            .unwrap();
        (path, writer)
    }

    #[test]
    fn the_row_is_read_in_every_state_of_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let (path, writer) = database(dir.path());
        let expected = Some(b"{\"name\":\"web\"}".to_vec());
        assert_eq!(container_config(&path, "c1").unwrap(), expected);
        assert_eq!(container_config(&path, "c2").unwrap(), None);
        for lock in ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
            writer.execute_batch(lock).unwrap();
            if lock != "BEGIN" {
                writer.execute("UPDATE ContainerConfig SET JSON = 'x' WHERE ID = 'c1'", ()).unwrap();
            }
            let start = std::time::Instant::now();
            assert_eq!(container_config(&path, "c1").unwrap(), expected, "{lock}");
            assert!(start.elapsed() < Duration::from_millis(500), "{lock}");
            writer.execute_batch("ROLLBACK").unwrap();
        }
    }

    #[test]
    fn a_database_in_wal_mode_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (path, writer) = database(dir.path());
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer.execute("INSERT INTO ContainerConfig VALUES ('c2', 'b', NULL, '{}')", ()).unwrap();
        assert_eq!(container_config(&path, "c2").unwrap(), Some(b"{}".to_vec()));
    }

    #[test]
    fn damage_is_an_error_and_not_an_absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sql");
        assert!(container_config(&path, "c1").is_err());
        std::fs::write(&path, vec![7; 8192]).unwrap();
        assert!(container_config(&path, "c1").unwrap_err().to_string().contains("not a database"));
        Connection::open(dir.path().join("other")).unwrap().execute_batch("CREATE TABLE x(y)").unwrap();
        assert!(container_config(&dir.path().join("other"), "c1").unwrap_err().to_string().contains("no such table"));
    }

    #[test]
    fn a_row_over_the_limit_is_refused_by_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let (path, writer) = database(dir.path());
        writer
            .execute("INSERT INTO ContainerConfig VALUES ('big', 'big', NULL, zeroblob(?1))", [MAX_CONFIG_JSON_BYTES as i64 + 1])
            .unwrap();
        assert!(matches!(container_config(&path, "big"), Err(SqliteError::TooLarge)));
    }
}
