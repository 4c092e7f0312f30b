//! What hot requests and the control runtime feel of a backup and of wide lists: the same measured without and with them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kip_host::clock::monotonic_micros;

use super::server::Server;
use super::tasks::{load, serving, store_bench};
use super::{millis, percentile};
use crate::command::{command, show};

/// Between two requests of one caller.
const APART: Duration = Duration::from_millis(2);

/// `bench stores [ROWS [SECONDS [PROGRAM]]]`: tasks that wait, with 1 KiB each, and seconds a figure; of this `kip`, or of one that is built.
pub(super) fn run(arguments: &[&str]) -> Result<()> {
    let (rows, seconds, program) = match arguments {
        [] => ("1000000", 20, None),
        [rows] => (*rows, 20, None),
        [rows, seconds] => (*rows, seconds.parse()?, None),
        [rows, seconds, program] => (*rows, seconds.parse()?, Some(*program)),
        _ => bail!("bench stores [ROWS [SECONDS [PROGRAM]]]"),
    };
    let fill = store_bench()?;
    let mut server = serving(program)?;
    load(server.gateway, 1, 1)?;
    let mut bytes = 0;
    server.replace_after(|data| {
        let file = data.join("tasks.db").display().to_string();
        show(command(&fill, &["fill-later", &file, rows]))?;
        bytes = std::fs::metadata(file)?.len();
        Ok(())
    })?;
    server.settle()?;
    server.call("/f/f/small")?;
    println!("{rows} tasks wait; tasks.db has {} MiB\n", bytes >> 20);
    println!("| | backups | lists | hot request p50 | p99 | worst | control runtime p50 | p99 | worst |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for busy in [false, true, false] {
        line(&server, seconds, busy)?;
    }
    Ok(())
}

fn line(server: &Server, seconds: u64, busy: bool) -> Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let (backups, lists) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let hot = caller(server.gateway, "/f/f/small", &over)?;
    // Its handler asks nobody: what it takes is what a timer of that runtime waits.
    let control = caller(server.api, "/healthz", &over)?;
    let mut work = Vec::new();
    if busy {
        let file = server.folder().join("backup").display().to_string();
        let body = serde_json::json!({"file": file, "force": true}).to_string();
        work.push(again(server, &over, &backups, "POST", "/api/v1/backup".to_owned(), body)?);
        // Nobody has such an id: all rows are looked at.
        let all = "/api/v1/tasks?prefix=nobody&limit=10".to_owned();
        work.push(again(server, &over, &lists, "GET", all, String::new())?);
        let page = "/api/v1/tasks?limit=1000".to_owned();
        work.push(again(server, &over, &lists, "GET", page, String::new())?);
    }
    std::thread::sleep(Duration::from_secs(seconds));
    over.store(true, Ordering::Relaxed);
    let mut hot = hot.join().ok().context("a caller failed")??;
    let mut control = control.join().ok().context("a caller failed")??;
    for work in work {
        work.join().ok().context("a worker failed")??;
    }
    let mut columns = vec![if busy { "with" } else { "without" }.to_owned()];
    columns.extend([&backups, &lists].map(|count| count.load(Ordering::Relaxed).to_string()));
    for times in [&mut hot, &mut control] {
        columns.extend([50, 99, 100].map(|percent| millis(percentile(times, percent))));
    }
    println!("| {} |", columns.join(" | "));
    Ok(())
}

type Worker<T> = std::thread::JoinHandle<Result<T>>;

/// Does the same again and again until it is over, and counts.
fn again(
    server: &Server,
    over: &Arc<AtomicBool>,
    count: &Arc<AtomicU64>,
    method: &'static str,
    path: String,
    body: String,
) -> Result<Worker<()>> {
    let (api, key) = (server.api, server.key().to_owned());
    let (over, count) = (over.clone(), count.clone());
    Ok(kip_host::tasks::thread("worker", move || {
        while !over.load(Ordering::Relaxed) {
            let (status, answer) = super::server::exchange(api, method, &path, &key, body.as_bytes())?;
            if status != 200 {
                bail!("{path}: {status} {answer}");
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?)
}

/// A caller with one connection; what each request took, in microseconds.
fn caller(to: SocketAddr, path: &str, over: &Arc<AtomicBool>) -> Result<Worker<Vec<u64>>> {
    let over = over.clone();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    Ok(kip_host::tasks::thread("caller", move || {
        let mut writer = TcpStream::connect(to)?;
        writer.set_nodelay(true)?;
        let mut reader = BufReader::new(writer.try_clone()?);
        let mut times = Vec::new();
        let mut line = String::new();
        while !over.load(Ordering::Relaxed) {
            let begun = monotonic_micros();
            writer.write_all(request.as_bytes())?;
            let mut length = 0;
            line.clear();
            reader.read_line(&mut line)?;
            if !line.contains(" 200 ") {
                bail!("{request}: {line}");
            }
            loop {
                line.clear();
                reader.read_line(&mut line)?;
                let Some((name, value)) = line.trim_end().split_once(':') else { break };
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse()?;
                }
            }
            std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
            times.push(monotonic_micros() - begun);
            std::thread::sleep(APART);
        }
        Ok(times)
    })?)
}
