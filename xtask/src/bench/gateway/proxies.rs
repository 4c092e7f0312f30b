//! The proxies that are compared, each as it is commonly set up for this: two workers, connections kept on both sides, no log.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::super::server::until;

/// A proxy, or the instance itself.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    /// Where TLS is spoken.
    pub(super) tls: Option<SocketAddr>,
    /// Where it forwards HTTP/2, if that is another port.
    pub(super) http2: SocketAddr,
    pub(super) host: String,
    /// Whose CPU time counts.
    pub(super) processes: Vec<u32>,
    child: Option<Child>,
}

impl Target {
    pub(super) fn new(name: &'static str, address: SocketAddr, host: &str, processes: Vec<u32>) -> Self {
        let host = host.to_owned();
        Self { name, address, tls: None, http2: address, host, processes, child: None }
    }

    /// CPU time so far in nanoseconds, of threads that are there.
    pub(super) fn cpu(&self) -> u64 {
        let threads = self.processes.iter().flat_map(|process| {
            std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten().map(|entry| entry.path())
        });
        threads
            .filter_map(|thread| std::fs::read_to_string(thread.join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Its workers end with it; a kill would leave them.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// nginx in front of the instances.
pub(super) fn nginx(folder: &Path, instances: &[SocketAddr]) -> Result<Target> {
    let [plain, tls, http2] = [free_port()?, free_port()?, free_port()?];
    let servers: String = instances.iter().map(|at| format!("server {at};")).collect();
    let certificate = folder.join("cert.pem");
    let key = folder.join("key.pem");
    let text = format!(
        "worker_processes 2; daemon off; pid {pid}; error_log {log};
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; client_max_body_size 0;
  upstream instance {{ {servers} keepalive 256; keepalive_requests 1000000; }}
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    location / {{
      proxy_pass http://instance; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Host $host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr;
    }}
  }}
  server {{ listen 127.0.0.1:{http2} http2; location / {{ grpc_pass grpc://instance; }} }}
}}
",
        pid = folder.join("nginx.pid").display(),
        log = folder.join("nginx.log").display(),
        certificate = certificate.display(),
        key = key.display(),
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(&file);
    let mut target = started("nginx", command, plain, 2)?;
    (target.tls, target.http2) = (Some(local(tls)), local(http2));
    Ok(target)
}

/// How haproxy chooses among instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Each in turn, whatever it has to do.
    RoundRobin,
    /// One with the fewest, and one request at a time; the others wait in front of all.
    LeastOfOne,
}

/// haproxy in front of the instances.
pub(super) fn haproxy(folder: &Path, instances: &[SocketAddr], choice: Choice) -> Result<Target> {
    let [plain, tls, http2] = [free_port()?, free_port()?, free_port()?];
    let (balance, most, file) = match choice {
        Choice::RoundRobin => ("roundrobin", "", "haproxy.cfg"),
        Choice::LeastOfOne => ("leastconn", " maxconn 1", "haproxy-one.cfg"),
    };
    let servers = |protocol: &str| -> String {
        let line = |(number, at): (usize, &SocketAddr)| format!("  server s{number} {at}{protocol}{most}\n");
        instances.iter().enumerate().map(line).collect()
    };
    let both = folder.join("both.pem");
    let text = format!(
        "global
  nbthread 2
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
  timeout queue 60s
  http-reuse always
frontend plain
  bind 127.0.0.1:{plain}
  bind 127.0.0.1:{tls} ssl crt {both}
  default_backend instance
backend instance
  balance {balance}
  option forwardfor
{servers}
frontend http2
  bind 127.0.0.1:{http2} proto h2
  default_backend instance2
backend instance2
{servers2}",
        both = both.display(),
        servers = servers(""),
        servers2 = servers(" proto h2"),
    );
    let file = folder.join(file);
    std::fs::write(&file, text)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let mut target = started("haproxy", command, plain, 0)?;
    (target.tls, target.http2) = (Some(local(tls)), local(http2));
    Ok(target)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn started(name: &'static str, mut command: Command, port: u16, workers: usize) -> Result<Target> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.with_context(|| format!("{name} cannot be started: apt-get install {name}"))?;
    let parent = child.id();
    let mut target = Target::new(name, local(port), "localhost", vec![parent]);
    target.child = Some(child);
    until("the proxy listens", || TcpStream::connect(local(port)).ok())?;
    // It may listen before it has workers.
    let workers = until("the proxy has its workers", || {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        let children: Vec<u32> = children.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        (children.len() >= workers).then_some(children)
    })?;
    target.processes.extend(workers);
    Ok(target)
}

/// A certificate for localhost, in the files that the proxies read.
pub(super) fn certificate(folder: &Path) -> Result<()> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"))
        .output()
        .context("openssl cannot be started")?;
    anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let [key, cert] = ["key.pem", "cert.pem"].map(|name| std::fs::read_to_string(folder.join(name)));
    Ok(std::fs::write(folder.join("both.pem"), cert? + &key?)?)
}
