//! The gateway beside nginx, haproxy and a direct connection, all in front of the same instance, taking turns.

mod alike;
mod balance;
mod load;
mod proxies;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::load::{Kind, Load, Outcome};
use self::proxies::{Choice, Target};
use super::percentile;
use super::server::{Server, binary};
use super::upstream::EVENTS;

/// A line of the report.
struct Case {
    name: &'static str,
    path: &'static str,
    kind: Kind,
    connections: usize,
    rate: Option<u64>,
}

const fn case(name: &'static str, path: &'static str, connections: usize) -> Case {
    Case { name, path, kind: Kind::Get, connections, rate: None }
}

const CASES: [Case; 14] = [
    case("1 KiB", "/small", 1),
    case("1 KiB", "/small", 32),
    case("1 KiB", "/small", 256),
    case("1 KiB after 1 ms", "/delay/1000", 1),
    case("1 KiB after 1 ms", "/delay/1000", 32),
    case("1 KiB after 1 ms", "/delay/1000", 256),
    case("1 MiB", "/large", 1),
    case("1 MiB", "/large", 32),
    case("1 MiB", "/large", 256),
    Case { rate: Some(1_000), ..case("1 KiB at 1,000/s", "/small", 32) },
    case("1,000 events", "/events", 8),
    Case { kind: Kind::Grpc, ..case("gRPC unary", "/grpc", 32) },
    Case { kind: Kind::WebSocket, ..case("WebSocket echo", "/websocket", 32) },
    Case { rate: None, ..case("TLS, 1 KiB", "/small", 32) },
];

/// How a run is cut down or stretched.
struct Plan {
    rounds: usize,
    time: Duration,
    only: Option<String>,
}

/// The program of each instance: this one, by another name.
fn function(name: &str, settings: &str) -> Result<String> {
    let program = std::env::current_exe()?;
    Ok(format!("  {name}:\n    run: [{}, upstream]\n{settings}", program.display()))
}

pub(super) fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["balance"] => return balance::run(),
        ["builds", old, rest @ ..] => return alike::builds(old, rest),
        ["qualifiers", rest @ ..] => return alike::qualifiers(rest),
        ["soak"] => return soak(600, None),
        ["soak", seconds] => return soak(seconds.parse()?, None),
        ["soak", seconds, rate] => return soak(seconds.parse()?, Some(rate.parse()?)),
        _ => {}
    }
    let mut plan = Plan { rounds: 5, time: Duration::from_secs(2), only: None };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match *word {
            "--rounds" => plan.rounds = value.parse()?,
            "--seconds" => plan.time = Duration::from_secs_f64(value.parse()?),
            "--only" => plan.only = Some((*value).to_owned()),
            _ => bail!(
                "bench gateway [--program KIP] [--rounds N] [--seconds S] [--only CASE] | bench gateway soak [SECONDS [RATE]] | bench gateway balance | bench gateway builds OLD [ROUNDS] | bench gateway qualifiers [ROUNDS]"
            ),
        }
    }
    compare(&plan)
}

/// A server with one busy function, and the address of its instance.
fn prepared(folder: &std::path::Path, settings: &str) -> Result<(Server, SocketAddr, SocketAddr)> {
    let tls = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let text = format!(
        "[server]\nthreads = 2\n[tls]\nlisten = \"{tls}\"\ncertificate = \"{0}/cert.pem\"\nkey = \"{0}/key.pem\"\n",
        folder.display()
    );
    let server = Server::start_with(&text)?;
    server.deploy(&function("f", settings)?)?;
    server.call("/f/f/small")?;
    let instances = server.ask("/api/v1/instances")?;
    let address = instances.as_array().into_iter().flatten().find_map(|instance| instance["address"].as_str());
    let address = address.context("an instance has an address")?.parse()?;
    Ok((server, address, tls))
}

const ONE: &str = "    instances: {max: 1, concurrency: 10000}\n    queue: {depth: 10000}\n    idle: {pause: never}\n";

fn compare(plan: &Plan) -> Result<()> {
    let folder = tempfile::tempdir()?;
    proxies::certificate(folder.path())?;
    let (server, instance, tls) = prepared(folder.path(), ONE)?;
    let mut kip = Target::new("kip", server.gateway, "f.localhost", vec![server.pid]);
    kip.tls = Some(tls);
    let targets = [
        Target::new("direct", instance, "localhost", vec![]),
        proxies::nginx(folder.path(), &[instance])?,
        proxies::haproxy(folder.path(), &[instance], Choice::RoundRobin)?,
        kip,
    ];
    println!(
        "program: {}; each figure is the median of {} turns of {:?}",
        binary("kip").display(),
        plan.rounds,
        plan.time
    );
    println!(
        "CPU is that of the proxy's processes, kernel included; its ratio is to nginx in the same turn, with its range\n"
    );
    println!("| case | connections | target | requests/s | p50 | p99 | CPU a request | CPU over nginx's |");
    println!("|---|---|---|---|---|---|---|---|");
    for case in CASES.iter().filter(|case| plan.only.as_deref().is_none_or(|only| case.name == only)) {
        let mut turns: Vec<Vec<Turn>> = (0..targets.len()).map(|_| Vec::new()).collect();
        for round in 0..plan.rounds {
            for place in 0..targets.len() {
                // Nobody always runs first.
                let which = (place + round) % targets.len();
                turns[which].push(turn(case, &targets[which], plan.time)?);
            }
        }
        for (target, mine) in targets.iter().zip(&turns) {
            print_row(case, target, mine, &turns[1]);
        }
    }
    drop(targets);
    println!("\nload after: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    Ok(())
}

/// One target's figures of one turn.
struct Turn {
    /// Requests a second.
    rate: u64,
    p50: u64,
    p99: u64,
    /// Nanoseconds a request.
    cpu: u64,
}

fn turn(case: &Case, target: &Target, time: Duration) -> Result<Turn> {
    let before = target.cpu();
    let outcome = if case.name.starts_with("TLS") {
        let Some(tls) = target.tls else { return Ok(Turn { rate: 0, p50: 0, p99: 0, cpu: 0 }) };
        over_tls(case, &target.host, tls, time)?
    } else {
        let load = Load { kind: case.kind, connections: case.connections, time, rate: case.rate };
        let to = if case.kind == Kind::Grpc { target.http2 } else { target.address };
        load.run(to, &target.host, case.path).with_context(|| format!("{} through {}", case.name, target.name))?
    };
    let used = target.cpu() - before;
    // nginx ends an HTTP/2 connection now and then, and the requests on their way with it.
    if outcome.failed * 100 > outcome.times.len() || outcome.times.is_empty() {
        bail!("{} through {}: {} of {} failed", case.name, target.name, outcome.failed, outcome.times.len());
    }
    let Outcome { mut times, elapsed, .. } = outcome;
    let count = times.len() as u64;
    Ok(Turn {
        rate: count * 1_000_000 / elapsed.max(1),
        p50: percentile(&mut times, 50),
        p99: percentile(&mut times, 99),
        cpu: used / count,
    })
}

/// h2load speaks TLS without asking who is there; HTTP/1.1, as most of the others.
fn over_tls(case: &Case, host: &str, to: SocketAddr, time: Duration) -> Result<Outcome> {
    let log = tempfile::NamedTempFile::new()?;
    let clients = case.connections.to_string();
    let output = std::process::Command::new("h2load")
        .args(["--h1", "-c", &clients, "-D", &format!("{}", time.as_secs_f64().ceil()), "--log-file"])
        .arg(log.path())
        .args([&format!("--connect-to={to}"), &format!("https://{host}{}", case.path)])
        .output()
        .context("h2load cannot be started: apt-get install nghttp2-client")?;
    let text = std::fs::read_to_string(log.path())?;
    let mut outcome = Outcome { elapsed: u64::try_from(time.as_micros())?, ..Outcome::default() };
    for line in text.lines() {
        let mut fields = line.split('\t').skip(1);
        match (fields.next(), fields.next().and_then(|micros| micros.parse().ok())) {
            (Some("200"), Some(micros)) => outcome.times.push(micros),
            _ => outcome.failed += 1,
        }
    }
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(outcome)
}

fn print_row(case: &Case, target: &Target, turns: &[Turn], nginx: &[Turn]) {
    let median = |of: &dyn Fn(&Turn) -> u64| percentile(&mut turns.iter().map(of).collect::<Vec<_>>(), 50);
    if turns.iter().all(|turn| turn.rate == 0) {
        return;
    }
    let mut ratios: Vec<u64> = turns
        .iter()
        .zip(nginx)
        .filter(|(_, nginx)| nginx.cpu > 0)
        .map(|(turn, nginx)| turn.cpu * 1_000 / nginx.cpu)
        .collect();
    let ratio = |thousandths: u64| format!("{:.2}", thousandths as f64 / 1_000.0);
    let middle = percentile(&mut ratios, 50);
    let (cpu, over) = if target.processes.is_empty() {
        ("-".to_owned(), "-".to_owned())
    } else {
        let range = format!("{} to {}", ratio(percentile(&mut ratios, 0)), ratio(percentile(&mut ratios, 100)));
        (format!("{:.1} µs", median(&|turn| turn.cpu) as f64 / 1_000.0), format!("{} ({range})", ratio(middle)))
    };
    let name = if case.path == "/events" { format!("{} ({EVENTS} pieces)", case.name) } else { case.name.to_owned() };
    println!(
        "| {name} | {} | {} | {} | {} | {} | {cpu} | {over} |",
        case.connections,
        target.name,
        median(&|turn| turn.rate),
        super::millis(median(&|turn| turn.p50)),
        super::millis(median(&|turn| turn.p99)),
    );
}

/// A steady load for long, so many requests a second or as many as there can be, and the server's memory meanwhile.
fn soak(seconds: u64, rate: Option<u64>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    proxies::certificate(folder.path())?;
    let (server, _, _) = prepared(folder.path(), ONE)?;
    let part = Duration::from_secs((seconds / 10).max(1));
    println!("| seconds | requests | memory |");
    println!("|---|---|---|");
    let mut requests = 0;
    for round in 1..=10 {
        let load = Load { kind: Kind::Get, connections: 64, time: part, rate };
        requests += load.run(server.gateway, "f.localhost", "/small")?.times.len();
        println!("| {} | {requests} | {} KiB |", part.as_secs() * round, server.resident() >> 10);
    }
    Ok(())
}
