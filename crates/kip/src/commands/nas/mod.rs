//! `kip nas`: the shares of a project, their folders, and the files that belong there.

mod copy;

use std::path::{Path, PathBuf};

use kip_spec::{Problem, code, people};
use serde::Serialize;

use self::copy::CopyReport;
use crate::arguments::{Connection, FileArguments, Nas, ProjectArgument};
use crate::client::Client;
use crate::commands::files::{self, ProjectFile, ProjectMount, find_place, mounts, share_of};
use crate::output::{Output, table};
use crate::progress::Progress;

pub(crate) async fn run(connection: &Connection, command: &Nas, output: Output) -> anyhow::Result<()> {
    match command {
        Nas::Init { project } => init(&Client::find(connection)?, &open(project)?, output).await,
        Nas::Info { project } => info(&Client::find(connection)?, &open(project)?, output).await,
        Nas::Sync { place, service, mount_dirs, project } => {
            let file = open(project)?;
            let chosen = chosen(&file, place.as_deref(), service.as_deref(), mount_dirs)?;
            sync(&Client::find(connection)?, &chosen, output).await
        }
        Nas::Ls { place, all, project } => list(&Client::find(connection)?, &open(project)?, place, *all, output).await,
    }
}

/// The file of a project, read without a server.
pub(crate) fn open(project: &ProjectArgument) -> anyhow::Result<ProjectFile> {
    let arguments = FileArguments { template: project.template.clone(), ..FileArguments::default() };
    let path = files::wanted(Path::new("."), &arguments).ok_or_else(|| {
        Problem::new(code::MANIFEST_UNREADABLE, "there is no s.yaml or template.yml in this folder")
            .hint("name it: -t FILE")
    })?;
    files::read(&path, project.runtime_map.as_ref(), "127.0.0.1")
}

/// A share of a project.
#[derive(Debug, Serialize)]
struct ShareRow {
    share: String,
    mount: String,
    read_only: bool,
    functions: Vec<String>,
    /// The copy of the project.
    local: PathBuf,
    /// The folder on the machine of the server.
    folder: String,
    exists: bool,
}

async fn rows(client: &Client, file: &ProjectFile) -> anyhow::Result<Vec<ShareRow>> {
    let mut rows: Vec<ShareRow> = Vec::new();
    for mount in mounts(file)? {
        let share = mount.share.to_string();
        if let Some(known) = rows.iter_mut().find(|row| row.share == share && row.mount == mount.target) {
            known.functions.push(mount.function);
            continue;
        }
        let there = share_of(client, &mount).await?;
        rows.push(ShareRow {
            share,
            mount: mount.target,
            read_only: mount.read_only,
            functions: vec![mount.function],
            local: mount.twin,
            folder: there.folder,
            exists: there.exists,
        });
    }
    Ok(rows)
}

fn shown(rows: &[ShareRow], directory: &Path) -> String {
    if rows.is_empty() {
        return "no function of the file mounts a share\n".to_owned();
    }
    let row = |row: &ShareRow| {
        let local = row.local.strip_prefix(directory).unwrap_or(&row.local);
        vec![
            row.share.clone(),
            row.mount.clone(),
            row.functions.join(","),
            local.display().to_string(),
            row.folder.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    table(&["SHARE", "MOUNT", "FUNCTIONS", "LOCAL", "FOLDER"], &rows)
}

async fn info(client: &Client, file: &ProjectFile, output: Output) -> anyhow::Result<()> {
    let rows = rows(client, file).await?;
    output.result(&rows, |rows| shown(rows, &file.directory))
}

async fn init(client: &Client, file: &ProjectFile, output: Output) -> anyhow::Result<()> {
    let mut rows = rows(client, file).await?;
    for row in &mut rows {
        make(&row.local)?;
        make(Path::new(&row.folder))?;
        row.exists = true;
    }
    output.result(&rows, |rows| shown(rows, &file.directory))?;
    if let Some(first) = rows.first() {
        output.remark(&format!("next: put files into {}, then `kip nas sync`", first.local.display()));
    }
    Ok(())
}

/// Makes a folder. What root makes belongs to whoever the folder around it belongs to: the server may be an ordinary user's.
fn make(folder: &Path) -> anyhow::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
    let around = missing.last().and_then(|first| first.parent()?.metadata().ok());
    if let Some(owner) = around {
        missing.iter().rev().for_each(|made| copy::give(made, &owner));
    }
    Ok(())
}

/// A folder of a share that this user cannot write.
fn unusable(folder: &Path, error: &std::io::Error) -> Problem {
    Problem::new(code::SHARE_COPY, format!("files cannot be copied into {}", folder.display()))
        .cause(error.to_string())
        .hint("run the command on the machine of the server and as its user, or set a folder that you can write: kip deploy --mount SHARE=FOLDER")
}

/// The shares that a sync is about: all, those of a place, or those of a service or a path.
fn chosen(
    file: &ProjectFile,
    place: Option<&str>,
    service: Option<&str>,
    mount_dirs: &[String],
) -> anyhow::Result<Vec<(ProjectMount, PathBuf)>> {
    let all = mounts(file)?;
    if let Some(place) = place {
        return Ok(vec![find_place(&all, place)?]);
    }
    let plain = |path: &str| path.trim_end_matches('/').to_owned();
    let mut chosen: Vec<(ProjectMount, PathBuf)> = Vec::new();
    for mount in all {
        let fits = service.is_none_or(|service| mount.service.as_deref() == Some(service) || mount.function == service)
            && (mount_dirs.is_empty() || mount_dirs.iter().any(|path| plain(path) == mount.target))
            && !chosen.iter().any(|(known, _)| known.share == mount.share);
        if fits {
            chosen.push((mount, PathBuf::new()));
        }
    }
    if chosen.is_empty() {
        let problem = Problem::new(code::SHARE_UNKNOWN, "no share of the file is meant");
        return Err(problem.hint("`kip nas info` lists the shares; write `NasConfig: Auto` for one").into());
    }
    Ok(chosen)
}

/// What was copied to a share.
#[derive(Debug, Serialize)]
struct SyncRow {
    share: String,
    from: PathBuf,
    to: PathBuf,
    #[serde(flatten)]
    report: CopyReport,
}

async fn sync(client: &Client, chosen: &[(ProjectMount, PathBuf)], output: Output) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (mount, below) in chosen {
        let there = share_of(client, mount).await?;
        let (from, to) = (mount.twin.join(below), Path::new(&there.folder).join(below));
        if !from.exists() {
            output.remark(&format!("nothing is in {}: put files there, or run `kip install`", from.display()));
            make(&mount.twin)?;
        }
        make(to.parent().filter(|_| from.is_file()).unwrap_or(&to))?;
        if from.exists() && from.canonicalize().ok() == to.canonicalize().ok() {
            output.remark(&format!("{} is the folder of {} itself", from.display(), mount.share));
            continue;
        }
        let mut progress = Progress::new(output);
        let report = copy::tree(&from, &to, &mut |done, total, name| {
            let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
            let bar = "#".repeat(usize::try_from(percent / 5).unwrap_or(0));
            progress.say(&format!("{} [{bar:<20}] {percent} % of {}, {name}", mount.share, people::size(total)));
        });
        let report = report.map_err(|error| unusable(&to, &error))?;
        rows.push(SyncRow { share: mount.share.to_string(), from, to, report });
    }
    output.result(&rows, |rows| rows.iter().map(line).collect())
}

fn line(row: &SyncRow) -> String {
    let CopyReport { copied, same, bytes, resumed, left_out } = &row.report;
    let mut text =
        format!("{}: {copied} copied ({}), {same} were there  {}\n", row.share, people::size(*bytes), row.to.display());
    if *resumed > 0 {
        text.push_str(&format!("  {} of an earlier copy were kept\n", people::size(*resumed)));
    }
    for name in left_out {
        text.push_str(&format!("  left out: {name} (a link out of the folder, or no file)\n"));
    }
    text
}

/// A file of a share.
#[derive(Debug, Serialize)]
struct FileRow {
    name: String,
    folder: bool,
    bytes: u64,
}

async fn list(client: &Client, file: &ProjectFile, place: &str, all: bool, output: Output) -> anyhow::Result<()> {
    let (mount, below) = find_place(&mounts(file)?, place)?;
    let folder = Path::new(&share_of(client, &mount).await?.folder).join(below);
    let unreadable = |error: std::io::Error| {
        Problem::new(code::SHARE_UNKNOWN, format!("{place} cannot be listed: {}", folder.display()))
            .cause(error.to_string())
            .hint("`kip nas sync` copies the files of the project there")
    };
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let entry = entry?;
        let (name, about) = (entry.file_name().to_string_lossy().into_owned(), entry.metadata()?);
        if all || !name.starts_with('.') {
            rows.push(FileRow { name, folder: about.is_dir(), bytes: if about.is_dir() { 0 } else { about.len() } });
        }
    }
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    output.result(&rows, |rows| {
        let line = |row: &FileRow| match row.folder {
            true => format!("{:>10}  {}/\n", "-", row.name),
            false => format!("{:>10}  {}\n", people::size(row.bytes), row.name),
        };
        rows.iter().map(line).collect()
    })
}
