//! What sleeping costs: a request to a paused instance against one to a hot one, and one that starts an instance against
//! the same program started by hand.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use anyhow::Result;

use super::server::{Server, binary, exchange, until};
use super::{millis, percentile};

/// Hides the cgroup v2 trees, so that the server must use signals.
const WITHOUT: &str = "for mount in $(sed -n 's/^[^ ]* \\([^ ]*\\) cgroup2 .*/\\1/p' /proc/self/mounts); do umount -l $mount || exit 9; done; exec \"$0\" \"$@\"";

pub(super) fn run(rounds: usize) -> Result<()> {
    for prefix in [&[] as &[&str], &["unshare", "--mount", "sh", "-c", WITHOUT]] {
        let server = match Server::start(prefix) {
            Ok(server) => server,
            Err(error) => {
                println!("skipped: cgroups cannot be hidden here ({error})");
                continue;
            }
        };
        wake(&server, rounds)?;
        if prefix.is_empty() {
            start(&server, rounds / 4)?;
        }
    }
    Ok(())
}

fn wake(server: &Server, rounds: usize) -> Result<()> {
    let method = server.ask("/api/v1/status")?["pause_method"].as_str().unwrap_or_default().to_owned();
    let subject = binary("examples/subject");
    server.deploy(&format!("  f:\n    run: [{}]\n    idle: {{pause: 30ms}}\n", subject.display()))?;
    server.call("/f/f/pid")?;
    let (mut hot, mut woken) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        until("it sleeps", || (server.states("paused").ok()? == 1).then_some(()))?;
        woken.push(server.call("/f/f/pid")?);
        hot.push(server.call("/f/f/pid")?);
    }
    let (p50_hot, p50_woken) = (percentile(&mut hot, 50), percentile(&mut woken, 50));
    println!(
        "{method}: hot p50 {} p99 {}, paused p50 {} p99 {}; waking adds {} at p50",
        millis(p50_hot),
        millis(percentile(&mut hot, 99)),
        millis(p50_woken),
        millis(percentile(&mut woken, 99)),
        millis(p50_woken.saturating_sub(p50_hot))
    );
    Ok(())
}

fn start(server: &Server, rounds: usize) -> Result<()> {
    let subject = binary("examples/subject");
    server.deploy(&format!("  z:\n    run: [{}]\n    idle: {{stop: 10ms}}\n", subject.display()))?;
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        until("nothing of it runs", || {
            let all = server.ask("/api/v1/instances").ok()?;
            all.as_array()?.iter().all(|one| one["function"] != "z").then_some(())
        })?;
        ours.push(server.call("/f/z/pid")?);
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let begin = kip_host::clock::monotonic_micros();
        let mut child =
            Command::new(&subject).env("PORT", port.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        while exchange(address, "GET", "/pid", "", b"").is_err() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        by_hand.push(kip_host::clock::monotonic_micros() - begin);
        child.kill()?;
        child.wait()?;
    }
    let (ours, by_hand) = (percentile(&mut ours, 50), percentile(&mut by_hand, 50));
    println!(
        "from zero: p50 {} through the server, {} by hand: {} more",
        millis(ours),
        millis(by_hand),
        millis(ours.saturating_sub(by_hand))
    );
    Ok(())
}
