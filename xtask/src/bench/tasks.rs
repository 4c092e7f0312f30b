//! Tasks: what a durable accept costs, and accept, claim and complete, beside a raw log on the same disk; and the same end to end,
//! through the gateway of a server with a function behind it; and how long a server with many waiting tasks takes to go on after
//! a restart. `bench/peers`, which this starts, measures other systems beside the store.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::gpu::target;
use super::server::{Server, until};
use super::{millis, percentile};
use crate::command::{command, root, show};

/// Bytes of a payload.
const PAYLOAD: usize = 1024;

/// `bench tasks [SECONDS] [ROWS] [FOLDER]`: seconds a figure, rows that wait in the last part (0 leaves it out), and where.
/// `bench tasks api [SECONDS [PROGRAM]]`: end to end, with this `kip` or one that is built.
/// `bench tasks restart [ROWS [PROGRAM]]`: a server that finds so many waiting tasks; of this `kip`, or of one that is built.
/// `bench tasks peers [SECONDS [ROUNDS]]`: beside PostgreSQL, RabbitMQ and NATS, as far as they are installed.
pub(super) fn run(arguments: &[&str]) -> Result<()> {
    let (seconds, rows, folder) = match arguments {
        ["api"] => return api(3, None),
        ["api", seconds] => return api(seconds.parse()?, None),
        ["api", seconds, program] => return api(seconds.parse()?, Some(program)),
        ["peers", rest @ ..] => return peers(rest),
        ["restart", rest @ ..] => return restart(rest),
        [] => ("2", "1000000", None),
        [seconds] => (*seconds, "1000000", None),
        [seconds, rows] => (*seconds, *rows, None),
        [seconds, rows, folder] => (*seconds, *rows, Some(*folder)),
        _ => bail!(
            "bench tasks [SECONDS] [ROWS] [FOLDER] | bench tasks api [SECONDS [PROGRAM]] | bench tasks restart [ROWS [PROGRAM]] | bench tasks peers [SECONDS [ROUNDS]]"
        ),
    };
    let own = target()?.display().to_string();
    show(command(&store_bench()?, &[folder.unwrap_or(&own), seconds, rows]))
}

/// The program that measures the store alone.
pub(super) fn store_bench() -> Result<String> {
    show(command("cargo", &["build", "--release", "--quiet", "-p", "kip-store", "--example", "tasks_bench"]))?;
    Ok(target()?.join("release/examples/tasks_bench").display().to_string())
}

/// Other systems need clients that nobody else here needs, so this is built apart.
fn peers(words: &[&str]) -> Result<()> {
    let target = target()?;
    let mut build = command("cargo", &["build", "--release", "--quiet", "--locked"]);
    build.current_dir(root().join("bench/peers")).env("CARGO_TARGET_DIR", target.join("peers"));
    show(build)?;
    let program = target.join("peers/release/kip-bench-peers").display().to_string();
    let folder = target.display().to_string();
    show(command(&program, &[&[folder.as_str()], words].concat()))
}

/// A function that takes one call, then a server that is killed, and the next one, which finds this many more of the same.
fn restart(words: &[&str]) -> Result<()> {
    let (rows, program) = match words {
        [] => ("1000000", None),
        [rows] => (*rows, None),
        [rows, program] => (*rows, Some(*program)),
        _ => bail!("bench tasks restart [ROWS [PROGRAM]]"),
    };
    let fill = store_bench()?;
    let mut server = serving(program)?;
    load(server.gateway, 1, 1)?;
    println!("| waiting tasks | start to ready | start to first task over | server resident |");
    println!("|---|---|---|---|");
    for rows in ["1000", rows] {
        until("none is left", || {
            let summary = server.ask("/api/v1/tasks/summary").ok()?;
            (summary["queued"] == 0 && summary["functions"][0]["running"] == 0).then_some(())
        })?;
        let mut begun = 0;
        server.replace_after(|data| {
            let file = data.join("tasks.db").display().to_string();
            show(command(&fill, &["fill", &file, rows]))?;
            begun = kip_host::clock::monotonic_micros();
            Ok(())
        })?;
        server.settle()?;
        let ready = kip_host::clock::monotonic_micros() - begun;
        until("the first is over", || (ended(&server).ok()? > 0).then_some(()))?;
        let first = kip_host::clock::monotonic_micros() - begun;
        println!("| {rows} | {} | {} | {} MiB |", millis(ready), millis(first), server.resident() >> 20);
    }
    println!("{}", server.logged("earlier server"));
    Ok(())
}

/// A server of this program, or of one that is built, whose function answers at once. Its instance is there and stays there, so that
/// its own start is no part of what follows.
pub(super) fn serving(program: Option<&str>) -> Result<Server> {
    match program {
        Some(program) => super::server::use_program(program)?,
        None => show(command("cargo", &["build", "--release", "--quiet", "-p", "kip", "--bins"]))?,
    }
    let server = Server::start(&[])?;
    let own = std::env::current_exe()?;
    server.deploy(&format!(
        "  f:\n    run: [{}, upstream]\n    instances: {{max: 1, concurrency: {{hard: 256, soft: 256}}}}\n    idle: {{pause: never}}\n    trigger: {{http: {{tasks: anonymous}}}}\n",
        own.display()
    ))?;
    server.call("/f/f/small")?;
    Ok(server)
}

/// The load generator, the server and the function share the machine.
fn api(seconds: u64, program: Option<&str>) -> Result<()> {
    let server = serving(program)?;
    println!("| callers | accepted/s | accept p50 | accept p99 | ended/s meanwhile | all ended after |");
    println!("|---|---|---|---|---|---|");
    for callers in [1, 64, 1_024] {
        let before = ended(&server)?;
        let (accepted, mut times) = load(server.gateway, callers, seconds)?;
        let meanwhile = ended(&server)? - before;
        let begun = kip_host::clock::boot_millis();
        until("all have ended", || (ended(&server).ok()? - before >= accepted).then_some(()))?;
        println!(
            "| {callers} | {} | {} | {} | {} | {} s |",
            accepted / seconds,
            millis(percentile(&mut times, 50)),
            millis(percentile(&mut times, 99)),
            meanwhile / seconds,
            (kip_host::clock::boot_millis() - begun) / 1_000
        );
    }
    let summary = server.ask("/api/v1/tasks/summary")?;
    println!("store: {}", summary["sync"]);
    println!("server: {} MiB resident", server.resident() >> 20);
    Ok(())
}

fn ended(server: &Server) -> Result<u64> {
    let summary = server.ask("/api/v1/tasks/summary")?;
    Ok(summary["functions"][0]["succeeded"].as_u64().unwrap_or_default())
}

/// Callers with a connection each submit until the time is over: how many were taken, and what each took in microseconds.
pub(super) fn load(to: SocketAddr, callers: usize, seconds: u64) -> Result<(u64, Vec<u64>)> {
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..callers)
        .map(|_| {
            let over = over.clone();
            kip_host::tasks::thread("caller", move || caller(to, &over))
        })
        .collect::<std::io::Result<_>>()?;
    std::thread::sleep(Duration::from_secs(seconds));
    over.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for thread in threads {
        times.extend(thread.join().ok().context("a caller failed")??);
    }
    Ok((times.len() as u64, times))
}

fn caller(to: SocketAddr, over: &AtomicBool) -> Result<Vec<u64>> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let head = format!(
        "POST /f/f/small HTTP/1.1\r\nhost: x\r\nx-fc-invocation-type: Async\r\ncontent-length: {PAYLOAD}\r\n\r\n"
    );
    let request = [head.as_bytes(), &[b'x'; PAYLOAD]].concat();
    let mut times = Vec::new();
    let mut line = String::new();
    while !over.load(Ordering::Relaxed) {
        let begun = kip_host::clock::monotonic_micros();
        writer.write_all(&request)?;
        let mut length = 0;
        line.clear();
        reader.read_line(&mut line)?;
        if !line.contains(" 202 ") {
            bail!("a task was refused: {line}");
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
        times.push(kip_host::clock::monotonic_micros() - begun);
    }
    Ok(times)
}
