//! One file that holds the databases, and what tasks keep beside theirs: a SQLite file with a manifest and the pieces of each, so that it can be checked and
//! looked at with ordinary tools. It is written under another name, synced and then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use sha2::{Digest, Sha256};

use crate::change::ControlReader;
use crate::database::{self, migrate};
use crate::sqlite::SqliteFile;
use crate::staged::{BLOBS, CODE, TASKS};
pub use crate::staged::{BackupPart, Error, Manifest, StagedBackup};
use crate::tasks::BlobHold;
use crate::time_limit::TimeLimit;
use crate::{control, records};

/// Marks the file as ours: `KipB`.
const APPLICATION: i32 = 0x4B69_7042;
/// Where SQLite keeps that mark.
const APPLICATION_AT: usize = 68;
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The form of the file that this version writes.
const FORMAT: u32 = 1;
/// Bytes of a piece.
const PIECE: usize = 1 << 20;

const TABLES: &str = "
    CREATE TABLE manifest (one INTEGER PRIMARY KEY CHECK (one = 1), text TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT;
    CREATE TABLE pieces (file TEXT NOT NULL, number INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (file, number)) STRICT;
";

/// A file or folder that goes unless it is kept.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}.{ending}", std::process::id()));
    name.into()
}

/// The files that go into a backup.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// Control objects.
    pub control: &'a dyn SqliteFile,
    /// Records.
    pub records: &'a dyn SqliteFile,
    /// Tasks, if they are to be in it.
    pub tasks: Option<&'a dyn SqliteFile>,
    /// Archives of the code of revisions, by digest.
    pub code: &'a [(String, PathBuf)],
}

/// Writes a backup of the stores. Each database is consistent in itself; control objects are copied first.
///
/// # Errors
/// [`Error::Exists`] unless `overwrite`; [`Error::Io`] or [`Error::Store`]. No file is left behind then.
pub async fn write(
    file: &Path,
    overwrite: bool,
    by: &str,
    reader: &dyn ControlReader,
    files: Files<'_>,
) -> Result<Manifest, Error> {
    let Files { control, records, tasks, code } = files;
    let exists = || Error::Exists { path: file.to_owned() };
    if !overwrite && fs::symlink_metadata(file).is_ok() {
        return Err(exists());
    }
    let mut copies = vec![
        ("control.db", Temporary(beside(file, "control.new"))),
        ("records.db", Temporary(beside(file, "records.new"))),
    ];
    if tasks.is_some() {
        copies.push((TASKS, Temporary(beside(file, "tasks.new"))));
    }
    let failed = |error: database::Error| {
        let detail = match error {
            database::Error::Full { .. } => "there is no room on its disk".to_owned(),
            database::Error::Database { detail, .. } => detail,
            other => return Error::Store(other),
        };
        Error::Io { path: file.to_owned(), detail }
    };
    for (_, copy) in &copies {
        // Left by a process that had our id before.
        let _ = fs::remove_file(&copy.0);
        database::keep_private(&copy.0).map_err(failed)?;
    }
    control.copy_to(copies[0].1.0.clone()).await.map_err(failed)?;
    records.copy_to(copies[1].1.0.clone()).await.map_err(failed)?;
    // What tasks keep in files stays until it is packed.
    let hold = match tasks {
        Some(tasks) => tasks.copy_to(copies[2].1.0.clone()).await.map_err(failed)?,
        None => None,
    };
    let identity = reader.identity().await?;
    let functions = reader.current_revisions().await?.len();
    let mut manifest = Manifest {
        format: FORMAT,
        server: identity.map(|identity| identity.server).unwrap_or_default(),
        made: kip_host::clock::wall_millis(),
        by: by.to_owned(),
        functions: functions as u64,
        files: Vec::new(),
    };
    let (file, code) = (file.to_owned(), code.to_vec());
    let packed = kip_host::tasks::blocking("backup", move || {
        let blobs = hold.as_ref().map(BlobHold::folder);
        pack(&file, overwrite, &copies, (blobs, &code), &mut manifest).map(|()| manifest)
    });
    packed
        .await
        .unwrap_or_else(|| Err(Error::Io { path: PathBuf::new(), detail: "the work on it broke off".to_owned() }))
}

fn pack(
    file: &Path,
    overwrite: bool,
    copies: &[(&str, Temporary)],
    (blobs, code): (Option<&Path>, &[(String, PathBuf)]),
    manifest: &mut Manifest,
) -> Result<(), Error> {
    let failed = |path: &Path, detail: String| Error::Io { path: path.to_owned(), detail };
    let new = Temporary(beside(file, "new"));
    let _ = fs::remove_file(&new.0);
    database::keep_private(&new.0)?;
    let packing = |manifest: &mut Manifest| -> Result<(), rusqlite::Error> {
        let mut c = Connection::open(&new.0)?;
        // The file is synced once, when it is whole.
        c.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
        c.pragma_update(None, "application_id", APPLICATION)?;
        let transaction = c.transaction()?;
        transaction.execute_batch(TABLES)?;
        for (name, copy) in copies {
            let schema = Connection::open(&copy.0)?.pragma_query_value(None, "user_version", |row| row.get(0))?;
            manifest.files.push(pack_one(&transaction, name, &copy.0, schema)?);
        }
        if let Some(((_, copy), folder)) = copies.get(2).zip(blobs) {
            let copy = Connection::open(&copy.0)?;
            let mut hashes = copy.prepare("SELECT hash FROM blobs ORDER BY hash")?;
            for hash in hashes.query_map([], |row| row.get::<_, String>(0))? {
                let hash = hash?;
                manifest.files.push(pack_one(&transaction, &format!("{BLOBS}/{hash}"), &folder.join(&hash), 0)?);
            }
        }
        for (digest, archive) in code {
            manifest.files.push(pack_one(&transaction, &format!("{CODE}/{digest}"), archive, 0)?);
        }
        let text = serde_json::to_string_pretty(manifest)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let sum = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
        transaction.execute("INSERT INTO manifest VALUES (1, ?1, ?2)", params![text, sum])?;
        transaction.commit()
    };
    packing(manifest).map_err(|error| failed(file, error.to_string()))?;
    let io = |error: std::io::Error| failed(file, error.to_string());
    File::open(&new.0).and_then(|new| new.sync_all()).map_err(io)?;
    if overwrite {
        fs::rename(&new.0, file).map_err(io)?;
    } else {
        // A link, unlike a rename, takes nobody's place.
        match fs::hard_link(&new.0, file) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { path: file.to_owned() });
            }
            // A file system without links.
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::Unsupported | std::io::ErrorKind::PermissionDenied) =>
            {
                fs::rename(&new.0, file).map_err(io)?;
            }
            other => other.map_err(io)?,
        }
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

fn pack_one(c: &Connection, name: &str, copy: &Path, schema: u32) -> Result<BackupPart, rusqlite::Error> {
    let io = |error: std::io::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
    let mut file = File::open(copy).map_err(io)?;
    let mut digest = Sha256::new();
    let mut insert = c.prepare("INSERT INTO pieces VALUES (?1, ?2, ?3)")?;
    let (mut number, mut bytes) = (0u32, 0u64);
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece).map_err(io)?;
        if read == 0 {
            break;
        }
        digest.update(&piece);
        insert.execute(params![name, number, piece])?;
        number += 1;
        bytes += read as u64;
    }
    Ok(BackupPart { name: name.to_owned(), schema, bytes, sha256: HEXLOWER.encode(&digest.finalize()) })
}

/// Checks a backup and unpacks it into a new folder inside `within`. `ours` is who we are, where that matters.
///
/// # Errors
/// Any of [`Error`]; nothing is left behind then.
pub fn stage(file: &Path, within: &Path, ours: Option<&str>) -> Result<StagedBackup, Error> {
    let io = |error: std::io::Error| Error::Io { path: file.to_owned(), detail: error.to_string() };
    let damaged = |detail: String| Error::Damaged { path: file.to_owned(), detail };
    let mut head = [0u8; 100];
    // Somebody names this file: nothing waits for a pipe.
    let opened = kip_host::directory::open_regular(file, OpenOptions::new().read(true));
    let read = opened.and_then(|mut file| file.read(&mut head)).map_err(io)?;
    let mark = &head[APPLICATION_AT..APPLICATION_AT + 4];
    if read < head.len() || !head.starts_with(MAGIC) || mark != APPLICATION.to_be_bytes() {
        return Err(damaged("it does not begin like one".to_owned()));
    }
    let broken = |error: rusqlite::Error| damaged(error.to_string());
    let c = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(broken)?;
    let _limit = TimeLimit::of(&c, file);
    distrust(&c).map_err(&damaged)?;
    let manifest = read_manifest(&c, file)?;
    let newer = |what: String| Error::Newer { path: file.to_owned(), by: manifest.by.clone(), what };
    if manifest.format > FORMAT {
        return Err(newer(format!("form {}", manifest.format)));
    }
    if let Some(ours) = ours.filter(|ours| *ours != manifest.server) {
        return Err(Error::Foreign { path: file.to_owned(), found: manifest.server, ours: ours.to_owned() });
    }
    let folder = within.join(format!("restore.{}.new", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    kip_host::directory::create_private(&folder).map_err(io)?;
    for kind in [BLOBS, CODE] {
        kip_host::directory::create_private(&folder.join(kind)).map_err(io)?;
    }
    // Backups of earlier versions have no tasks.
    let tasks = manifest.files.iter().any(|part| part.name == TASKS).then(|| folder.join(TASKS));
    let (control, records) = (folder.join("control.db"), folder.join("records.db"));
    let staged = StagedBackup { control, records, tasks, manifest, folder };
    let databases = [(&staged.control, control::MIGRATIONS), (&staged.records, records::MIGRATIONS)];
    let tasks = staged.tasks.as_ref().map(|tasks| (tasks, crate::tasks::MIGRATIONS));
    for (target, migrations) in databases.into_iter().chain(tasks) {
        let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let part = staged.manifest.files.iter().find(|part| part.name == name);
        let part = part.ok_or_else(|| damaged(format!("{name} is missing")))?;
        if part.schema as usize > migrations.len() {
            let what = format!("schema {} of {name}", part.schema);
            return Err(Error::Newer { path: file.to_owned(), by: staged.manifest.by.clone(), what });
        }
        unpack(&c, part, target).map_err(&damaged)?;
        prepare(target, migrations).map_err(|error| damaged(format!("{name}: {error}")))?;
    }
    for part in &staged.manifest.files {
        let Some((kind @ (BLOBS | CODE), hash)) = part.name.split_once('/') else { continue };
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(damaged(format!("{} is no name of a payload or of code", part.name)));
        }
        unpack(&c, part, &staged.folder.join(kind).join(hash)).map_err(&damaged)?;
    }
    Ok(staged)
}

/// Whether a database of a data directory can be worked with: one that is not there can.
pub fn is_usable(database: &Path) -> bool {
    if !database.exists() {
        return true;
    }
    let look = || -> Result<bool, rusqlite::Error> {
        let c = Connection::open(database)?;
        let check: String = c.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        let schema: u32 = c.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let newest = match database.file_name().and_then(|name| name.to_str()) {
            Some("records.db") => records::MIGRATIONS.len(),
            Some(TASKS) => crate::tasks::MIGRATIONS.len(),
            _ => control::MIGRATIONS.len(),
        };
        Ok(check == "ok" && schema as usize <= newest)
    };
    look().unwrap_or(false)
}

fn read_manifest(c: &Connection, file: &Path) -> Result<Manifest, Error> {
    let damaged = |detail: String| Error::Damaged { path: file.to_owned(), detail };
    let found: Option<(String, String)> = c
        .query_row("SELECT text, sha256 FROM manifest", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(|error| damaged(error.to_string()))?;
    let (text, sum) = found.ok_or_else(|| damaged("it has no manifest".to_owned()))?;
    if HEXLOWER.encode(&Sha256::digest(text.as_bytes())) != sum {
        return Err(damaged("its manifest was changed".to_owned()));
    }
    // A newer form may have another shape.
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    let format = value["format"].as_u64().unwrap_or_default();
    if format > u64::from(FORMAT) {
        let by = value["by"].as_str().unwrap_or("of a newer version").to_owned();
        return Err(Error::Newer { path: file.to_owned(), by, what: format!("form {format}") });
    }
    serde_json::from_value(value).map_err(|error| damaged(error.to_string()))
}

fn unpack(c: &Connection, part: &BackupPart, target: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let open = OpenOptions::new().create_new(true).write(true).mode(0o600).open(target);
    let mut out = open.map_err(|error| text(&error))?;
    let mut digest = Sha256::new();
    let mut pieces =
        c.prepare("SELECT bytes FROM pieces WHERE file = ?1 ORDER BY number").map_err(|error| text(&error))?;
    let mut rows = pieces.query([part.name.as_str()]).map_err(|error| text(&error))?;
    let mut bytes = 0;
    while let Some(row) = rows.next().map_err(|error| text(&error))? {
        let piece = row.get_ref(0).and_then(|value| Ok(value.as_blob()?)).map_err(|error| text(&error))?;
        digest.update(piece);
        bytes += piece.len() as u64;
        out.write_all(piece).map_err(|error| text(&error))?;
    }
    if bytes != part.bytes || HEXLOWER.encode(&digest.finalize()) != part.sha256 {
        return Err(format!("the checksum of {} does not fit", part.name));
    }
    out.sync_all().map_err(|error| text(&error))
}

/// What others made holds data and nothing that runs: a view in the place of a table could keep a query busy for ever. Asked before
/// anything else is.
fn distrust(c: &Connection) -> Result<(), String> {
    let text = |error: rusqlite::Error| error.to_string();
    c.pragma_update(None, "trusted_schema", false).map_err(text)?;
    c.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(text)?;
    let query = "SELECT type, name FROM sqlite_schema
                 WHERE type NOT IN ('table', 'index') OR sql LIKE 'create virtual%' LIMIT 1";
    let found: Option<(String, String)> =
        c.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(text)?;
    match found {
        None => Ok(()),
        Some((kind, name)) => Err(format!("it has the {kind} `{name}`, and backups have plain tables only")),
    }
}

/// Checks a database and brings it to our schema.
fn prepare(target: &Path, migrations: &[&str]) -> Result<(), String> {
    let mut c = Connection::open(target).map_err(|error| error.to_string())?;
    let _limit = TimeLimit::of(&c, target);
    distrust(&c)?;
    let check: String =
        c.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| error.to_string())?;
    if check != "ok" {
        return Err(check);
    }
    migrate(&mut c, target, migrations).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
