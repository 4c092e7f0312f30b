//! `kip backup` and `kip restore`: by the server if one runs, else on the data directory itself.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kip_auth::{Seal, Secrets};
use kip_control::{BEFORE_RESTORE, BackupManifest, added_keys, backup_problem, code_problem, settle_keys};
use kip_host::directory::DataDirectory;
use kip_snapshot::{Archives, Snapshots};
use kip_spec::{Problem, code};
use kip_store::tasks::SqliteTasks;
use kip_store::{
    Changes, ControlFile as _, ControlReader as _, RecordsFile as _, SqliteControl, SqliteRecords, backup,
};
use kip_wire::{RestoreReport, RestoredKey};

use crate::arguments::{Backup, Connection, Restore};
use crate::client::{Client, data_directory};
use crate::output::Output;
use crate::serve::{SNAPSHOTS, directory_problem, store_problem};
use crate::start;

/// Where tasks are.
const TASKS: &str = "tasks.db";

/// The server to ask; none where nobody runs on the data directory.
async fn server(connection: &Connection) -> anyhow::Result<Option<Client>> {
    if connection.api.is_some() {
        return Ok(Some(Client::find(connection)?));
    }
    Ok(start::running(&data_directory(connection)?).await)
}

fn absolute(file: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(file)?;
    let text = path.to_str().ok_or_else(|| Problem::new(code::COMMAND_INPUT, "the file's name is not UTF-8"))?;
    Ok(text.to_owned())
}

pub(crate) async fn backup(connection: &Connection, options: &Backup, output: Output) -> anyhow::Result<()> {
    let file = absolute(&options.file)?;
    let made: BackupManifest = match server(connection).await? {
        Some(client) => {
            let body = kip_wire::Backup { file: file.clone(), force: options.force, no_code: options.no_code };
            client.post("/api/v1/backup", &body).await?
        }
        None => {
            let data = existing(connection)?;
            let directory = DataDirectory::lock(&data).map_err(directory_problem)?;
            let (control, records) = open(directory.path()).map_err(store_problem)?;
            let by = env!("CARGO_PKG_VERSION");
            let tasks = tasks_of(directory.path()).map_err(store_problem)?;
            let file = Path::new(&file);
            let digests = if options.no_code { Vec::new() } else { control.codes().await.map_err(store_problem)? };
            let archives = Archives::write(&snapshots(directory.path()), &digests, directory.path())?;
            let (tasks, code) = (tasks.as_ref().map(|tasks| tasks as _), archives.files.as_slice());
            let files = backup::Files { control: &control, records: &records, tasks, code };
            backup::write(file, options.force, by, &control, files).await.map_err(backup_problem)?
        }
    };
    output.result(&made, |made| {
        let bytes: u64 = made.files.iter().map(|part| part.bytes).sum();
        format!("wrote {file}: {} functions, {bytes} bytes of state; `kip restore` puts it back\n", made.functions)
    })
}

pub(crate) async fn restore(connection: &Connection, options: &Restore, output: Output) -> anyhow::Result<()> {
    let file = absolute(&options.file)?;
    let said = match (options.yes, options.without_keys) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    let restored = match restore_once(connection, options, &file, said).await {
        Err(error) if adds_keys(&error) => {
            let consent = ask_for_keys(&error, output).ok_or(error)?;
            restore_once(connection, options, &file, Some(consent)).await?
        }
        done => done?,
    };
    output.result(&restored, |restored: &RestoreReport| {
        let again = match restored.unreadable_secrets.as_slice() {
            [] => String::new(),
            names => format!("secrets to set again, with `kip secret set`: {}\n", names.join(", ")),
        };
        let mut text = format!(
            "restored {file}: {} kept as they were, {} deployed, {} removed; what was there before is in {BEFORE_RESTORE} \
             of the data directory\n{again}",
            restored.kept.len(),
            restored.deployed.len(),
            restored.removed.len()
        );
        for RestoredKey { name, role } in &restored.keys {
            text += &format!("added the key {name} ({role}), which is valid at once; `kip key rm {name}` removes it\n");
        }
        text
    })
}

fn adds_keys(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Problem>().is_some_and(|problem| problem.code == code::RESTORE_ADDS_KEYS)
}

/// Asks a person; none where nobody can be asked, or nobody answered.
fn ask_for_keys(error: &anyhow::Error, output: Output) -> Option<bool> {
    let stdin = std::io::stdin();
    if output.is_json() || !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    output.say(&format!("{error}\nadd these keys? yes, no (restore without them), or enter to stop:"));
    let mut line = String::new();
    stdin.lock().read_line(&mut line).ok()?;
    match line.trim() {
        "yes" | "y" => Some(true),
        "no" | "n" => Some(false),
        _ => None,
    }
}

/// By the server if one runs, else on the data directory. `keys`: what becomes of keys that are not known here.
async fn restore_once(
    connection: &Connection,
    options: &Restore,
    file: &str,
    keys: Option<bool>,
) -> anyhow::Result<RestoreReport> {
    match server(connection).await? {
        Some(_) if options.tasks => {
            Err(Problem::new(code::COMMAND_INPUT, "tasks cannot be put back while a server runs")
                .hint("`kip stop` ends it; its data directory is enough to restore")
                .into())
        }
        Some(client) => {
            let (force, records) = (options.force, options.records);
            let body = kip_wire::Restore { file: file.to_owned(), force, records, keys };
            client.post("/api/v1/restore", &body).await
        }
        None => alone(&data_directory(connection)?, Path::new(file), options, keys).await,
    }
}

/// The code of versions in a data directory.
fn snapshots(data: &Path) -> Snapshots {
    Snapshots::new(data.join(SNAPSHOTS))
}

/// A data directory with state in it.
fn existing(connection: &Connection) -> anyhow::Result<PathBuf> {
    let data = data_directory(connection)?;
    if data.join("control.db").is_file() {
        return Ok(data);
    }
    let problem = Problem::new(code::BACKUP_FILE, format!("there is nothing to back up in {}", data.display()));
    Err(problem.hint("name the server's data directory: --data-dir DIR").into())
}

/// The tasks of a data directory, if it has any.
fn tasks_of(data: &Path) -> Result<Option<SqliteTasks>, kip_store::Error> {
    let file = data.join(TASKS);
    file.exists().then(|| SqliteTasks::open(&file)).transpose()
}

fn open(data: &Path) -> Result<(SqliteControl, SqliteRecords), kip_store::Error> {
    Ok((SqliteControl::open(&data.join("control.db"))?, SqliteRecords::open(&data.join("records.db"))?))
}

/// Without a server. State that cannot be read any more is what a restore is for: it is set aside.
async fn alone(data: &Path, file: &Path, options: &Restore, consent: Option<bool>) -> anyhow::Result<RestoreReport> {
    let directory = DataDirectory::lock(data).map_err(directory_problem)?;
    let data = directory.path();
    // Looked at before anything is set aside: what is not whole must change nothing.
    drop(backup::stage(file, data, None).map_err(backup_problem)?);
    for name in ["control.db", "records.db", TASKS] {
        if !backup::is_usable(&data.join(name)) {
            set_aside(data, name)?;
        }
    }
    let (control, records) = open(data).map_err(store_problem)?;
    let identity = control.identity().await.map_err(store_problem)?;
    let fresh = identity.is_none();
    let own = identity.map(|identity| identity.server);
    let ours = own.clone().filter(|_| !options.force);
    let staged = backup::stage(file, data, ours.as_deref()).map_err(backup_problem)?;
    let keys = control.keys().await.map_err(store_problem)?;
    settle_keys(&staged, &keys, own.as_deref(), consent)?;
    if !fresh {
        let copy = data.join(BEFORE_RESTORE);
        let by = env!("CARGO_PKG_VERSION");
        let tasks = if options.tasks { None } else { tasks_of(data).map_err(store_problem)? };
        let tasks = tasks.as_ref().map(|tasks| tasks as _);
        let files = backup::Files { control: &control, records: &records, tasks, code: &[] };
        backup::write(&copy, true, by, &control, files).await.map_err(backup_problem)?;
    }
    Archives::read(&snapshots(data), &staged.code()).map_err(|error| code_problem(&error))?;
    let before = control.current_revisions().await.map_err(store_problem)?;
    control.replace(String::new(), &staged, Vec::new()).await.map_err(store_problem)?;
    let after = control.current_revisions().await.map_err(store_problem)?;
    if options.records || fresh {
        records.replace(&staged).await.map_err(store_problem)?;
    }
    if staged.has_tasks() && (options.tasks || !data.join(TASKS).exists()) {
        set_aside(data, TASKS)?;
        set_aside(data, "tasks.blobs")?;
        staged.put_tasks(data).map_err(backup_problem)?;
    }
    let mut restored = RestoreReport::default();
    for version in &after {
        // On a fresh directory everything is new.
        let same = before.iter().any(|earlier| earlier.id == version.id && earlier.spec == version.spec);
        if same { &mut restored.kept } else { &mut restored.deployed }.push(version.spec.name.clone());
    }
    let gone = before.iter().filter(|earlier| !after.iter().any(|version| version.spec.name == earlier.spec.name));
    restored.keys = added_keys(&keys, control.keys().await.map_err(store_problem)?);
    let seal = Seal::open(data).map_err(Problem::from)?;
    let secrets = Secrets::open(Changes::of_file(Arc::new(control)), seal).await.map_err(Problem::from)?;
    restored.unreadable_secrets = secrets.unreadable();
    restored.removed = gone.map(|earlier| earlier.spec.name.clone()).collect();
    Ok(restored)
}

/// Renames a database and what SQLite keeps beside it.
fn set_aside(data: &Path, name: &str) -> anyhow::Result<()> {
    let now = kip_host::clock::wall_millis();
    for name in [name.to_owned(), format!("{name}-wal"), format!("{name}-shm")] {
        match std::fs::rename(data.join(&name), data.join(format!("{name}.unreadable-{now}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
