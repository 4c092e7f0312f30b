//! The server as a process: quick to start, small, and gone when asked to go.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use common::{adder, digits, options};
use kip_host::{clock, environment, sockets};

/// Not a test: what the tests below run as a child process. It is ignored, and given its work by the environment.
#[test]
#[ignore = "a child process of the other tests"]
fn child() {
    let Some(model) = environment::read("KIPWAKE_TEST_MODEL") else { return };
    kip_infer::run(&options(std::path::Path::new(&model))).unwrap();
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(model: &std::path::Path) -> Process {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("KIPWAKE_TEST_MODEL", model)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(child.unwrap())
}

/// Connects to the port that the process has opened, once it has.
fn connect(process: &mut Process) -> TcpStream {
    let deadline = clock::monotonic_micros() + 20_000_000;
    loop {
        let own = sockets::inodes_of(&[process.0.id()]);
        let listeners = sockets::listeners().unwrap();
        if let Some(found) = listeners.into_iter().find(|listener| own.contains(&listener.inode)) {
            assert!(found.address.ip().is_loopback(), "{found:?}");
            return TcpStream::connect(found.address).unwrap();
        }
        assert_eq!(process.0.try_wait().unwrap(), None, "the server ended");
        assert!(clock::monotonic_micros() < deadline, "the server does not listen");
        std::thread::yield_now();
    }
}

fn ask(mut stream: &TcpStream) -> String {
    std::io::Write::write_all(&mut stream, b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn terminate(process: &Process) {
    let status = Command::new("kill").args(["-TERM", &process.0.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn the_digits_model_is_ready_at_once_and_small() {
    let model = digits().join("model");
    let started = clock::monotonic_micros();
    let mut process = spawn(&model);
    let stream = connect(&mut process);
    assert_eq!(ask(&stream), "HTTP/1.1 200 OK");
    let millis = (clock::monotonic_micros() - started) / 1_000;
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let resident: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap()
        .parse()
        .unwrap();
    println!("ready after {millis} ms, {resident} KiB resident");
    // The budget is 100 ms on a free machine; a shared one under load gets more.
    assert!(millis < 1_000, "{millis} ms");
    assert!(resident < 64 << 10, "{resident} KiB");
}

#[test]
fn asked_to_end_it_ends_cleanly() {
    let folder = adder();
    let mut process = spawn(folder.path());
    let mut stream = connect(&mut process);
    let address = stream.peer_addr().unwrap();
    assert_eq!(ask(&stream), "HTTP/1.1 200 OK");
    terminate(&process);
    assert!(process.0.wait().unwrap().success());
    // The connection that was open and idle is closed.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(TcpStream::connect(address).is_err());
}
