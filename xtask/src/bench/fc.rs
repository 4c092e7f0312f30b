//! The API of Function Compute: control operations on many functions, and signed invocations beside an anonymous trigger on the same function.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::percentile;
use super::server::{Server, binary, until};
use crate::command::{command, read};

/// Callers at once.
const CALLERS: usize = 4;
/// Calls of each way in a round.
const CALLS: usize = 500;
const LIMIT: Duration = Duration::from_secs(300);

pub(super) fn run(functions: usize, rounds: usize) -> Result<()> {
    let commit = read(command("git", &["rev-parse", "--short", "HEAD"]))?;
    println!("commit: {}; {functions} functions, {CALLERS} callers, {rounds} rounds of {CALLS} calls", commit.trim());
    let server = Server::start(&[])?;
    let pair = Pair::make(&server)?;
    println!("| operation | a second | p50 | p99 |\n|---|---|---|---|");
    control(&server, &pair, functions)?;
    invocations(&server, &pair, rounds)
}

/// An access-key pair.
struct Pair {
    id: String,
    key: hmac::Key,
}

impl Pair {
    fn make(server: &Server) -> Result<Self> {
        let printed = server.kip(&["key", "create", "bench", "--role", "deploy", "--access-key"])?;
        let value = |name: &str| {
            let line = printed.lines().find_map(|line| line.strip_prefix(name));
            line.map(|line| line.trim_start_matches('=').to_owned()).context("a pair has two parts")
        };
        let secret = value("ALIBABA_CLOUD_ACCESS_KEY_SECRET")?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Ok(Self { id: value("ALIBABA_CLOUD_ACCESS_KEY_ID")?, key })
    }

    /// The headers of a signed request.
    fn headers(&self, method: &str, path: &str, query: &str, body: &[u8]) -> Result<String> {
        let now = jiff::Timestamp::from_millisecond(kip_host::clock::wall_millis())?;
        let date = format!("{now:.0}");
        let nonce = format!("{:032x}", kip_host::random::bits());
        let content = hex(&Sha256::digest(body));
        let signed = "host;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce";
        let lines =
            format!("host:x\nx-acs-content-sha256:{content}\nx-acs-date:{date}\nx-acs-signature-nonce:{nonce}\n");
        let text = format!("{method}\n{path}\n{query}\n{lines}\n{signed}\n{content}");
        let to_sign = format!("ACS3-HMAC-SHA256\n{}", hex(&Sha256::digest(text.as_bytes())));
        let tag = hex(hmac::sign(&self.key, to_sign.as_bytes()).as_ref());
        Ok(format!(
            "x-acs-content-sha256: {content}\r\nx-acs-date: {date}\r\nx-acs-signature-nonce: {nonce}\r\nauthorization: ACS3-HMAC-SHA256 Credential={},SignedHeaders={signed},Signature={tag}\r\n",
            self.id
        ))
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// A connection that stays.
struct Caller(BufReader<TcpStream>);

impl Caller {
    fn connect(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// One exchange: the status and the body.
    fn ask(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let head = format!("{method} {target} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n", body.len());
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no answer")?;
        let (mut length, mut chunked) = (0, false);
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse()?,
                "transfer-encoding" => chunked = true,
                _ => {}
            }
        }
        let mut answer = Vec::new();
        loop {
            if chunked {
                line.clear();
                self.0.read_line(&mut line)?;
                length = usize::from_str_radix(line.trim(), 16)?;
            }
            let begin = answer.len();
            answer.resize(begin + length, 0);
            self.0.read_exact(&mut answer[begin..])?;
            if !chunked {
                return Ok((status, answer));
            }
            line.clear();
            self.0.read_line(&mut line)?;
            if length == 0 {
                return Ok((status, answer));
            }
        }
    }

    fn signed(&mut self, pair: &Pair, (method, path, query): (&str, &str, &str), body: &[u8]) -> Result<Vec<u8>> {
        let headers = pair.headers(method, path, query, body)?;
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let (status, answer) = self.ask(method, &target, &headers, body)?;
        if status >= 300 {
            bail!("{method} {target}: {status} {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }
}

/// Has callers do something so many times, each with its number. Gives the microseconds of each, and of all.
fn timed(
    to: SocketAddr,
    count: usize,
    work: impl Fn(&mut Caller, usize) -> Result<()> + Sync,
) -> Result<(Vec<u64>, u64)> {
    let next = AtomicUsize::new(0);
    let one = || -> Result<Vec<u64>> {
        let mut caller = Caller::connect(to)?;
        let mut times = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(times);
            }
            let begin = kip_host::clock::monotonic_micros();
            work(&mut caller, number)?;
            times.push(kip_host::clock::monotonic_micros() - begin);
        }
    };
    let begin = kip_host::clock::monotonic_micros();
    let all: Vec<Result<Vec<u64>>> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(one)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap_or_else(|_| bail!("a caller panicked"))).collect()
    });
    let took = kip_host::clock::monotonic_micros() - begin;
    Ok((all.into_iter().collect::<Result<Vec<_>>>()?.concat(), took))
}

fn row(name: &str, (mut times, took): (Vec<u64>, u64)) {
    let rate = (times.len() as u64).saturating_mul(1_000_000) / took.max(1);
    let [p50, p99] = [50, 99].map(|percent| super::millis(percentile(&mut times, percent)));
    println!("| {name} | {rate} | {p50} | {p99} |");
}

/// A ZIP archive with one empty file: the program is the host's.
fn archive() -> String {
    const NAME: &[u8; 5] = b"empty";
    /// Of the local header and of the entry in the directory, with the name.
    const LOCAL: u8 = 30 + 5;
    const ENTRY: u8 = 46 + 5;
    let mut out = b"PK\x03\x04\x14\0\0\0\0\0\0\0\x21\0".to_vec();
    out.extend([0; 12]);
    out.extend([5, 0, 0, 0]);
    out.extend(NAME);
    out.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\x21\0");
    out.extend([0; 12]);
    out.extend([5, 0]);
    out.extend([0; 16]);
    out.extend(NAME);
    out.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    out.extend([ENTRY, 0, 0, 0, LOCAL, 0, 0, 0, 0, 0]);
    BASE64_STANDARD.encode(out)
}

fn function(name: &str) -> Value {
    json!({
        "functionName": name, "runtime": "custom.debian12", "handler": "h", "timeout": 60, "memorySize": 512, "cpu": 0.35,
        "instanceConcurrency": 16, "environmentVariables": {"KIPWAKE_FIXED_PORT": "false"},
        "customRuntimeConfig": {"command": [binary("examples/subject")]}, "code": {"zipFile": archive()},
    })
}

const FUNCTIONS: &str = "/2023-03-30/functions";

fn control(server: &Server, pair: &Pair, functions: usize) -> Result<()> {
    let path = |number: usize| format!("{FUNCTIONS}/f-{number:05}");
    let create = |caller: &mut Caller, number: usize| {
        let body = function(&format!("f-{number:05}")).to_string();
        caller.signed(pair, ("POST", FUNCTIONS, ""), body.as_bytes()).map(drop)
    };
    row("CreateFunction", timed(server.api, functions, create)?);
    row(
        "GetFunction",
        timed(server.api, functions, |caller, number| caller.signed(pair, ("GET", &path(number), ""), b"").map(drop))?,
    );
    let list = |caller: &mut Caller, number: usize| {
        let after = format!("limit=100&nextToken=f-{:05}", number * 100 % functions.max(1));
        caller.signed(pair, ("GET", FUNCTIONS, &after), b"").map(drop)
    };
    row("ListFunctions, 100 of them", timed(server.api, functions.div_ceil(100).max(20), list)?);
    let update = |caller: &mut Caller, number: usize| {
        caller.signed(pair, ("PUT", &path(number), ""), br#"{"timeout": 30}"#).map(drop)
    };
    row("UpdateFunction", timed(server.api, functions, update)?);
    row(
        "DeleteFunction",
        timed(server.api, functions, |caller, number| {
            caller.signed(pair, ("DELETE", &path(number), ""), b"").map(drop)
        })?,
    );
    Ok(())
}

/// Both ways to the same instance, in turns: what else the machine does meets both.
fn invocations(server: &Server, pair: &Pair, rounds: usize) -> Result<()> {
    let mut caller = Caller::connect(server.api)?;
    caller.signed(pair, ("POST", FUNCTIONS, ""), function("bench").to_string().as_bytes())?;
    let trigger =
        json!({"triggerName": "open", "triggerType": "http", "triggerConfig": "{\"authType\": \"anonymous\"}"});
    let path = format!("{FUNCTIONS}/bench/triggers");
    caller.signed(pair, ("POST", &path, ""), trigger.to_string().as_bytes())?;
    let signed = |caller: &mut Caller, _: usize| {
        caller.signed(pair, ("POST", "/2023-03-30/functions/bench/invocations", ""), b"").map(drop)
    };
    let open = |caller: &mut Caller, _: usize| match caller.ask("POST", "/f/bench/invoke", "", b"")? {
        (200, _) => Ok(()),
        (status, answer) => bail!("the trigger: {status} {}", String::from_utf8_lossy(&answer)),
    };
    until("the function answers", || timed(server.gateway, 20, open).ok())?;
    timed(server.api, 20, signed)?;
    let (mut by_api, mut by_trigger) = ((Vec::new(), 0), (Vec::new(), 0));
    for _ in 0..rounds {
        for (all, found) in
            [(&mut by_api, timed(server.api, CALLS, signed)?), (&mut by_trigger, timed(server.gateway, CALLS, open)?)]
        {
            all.0.extend(found.0);
            all.1 += found.1;
        }
    }
    row("InvokeFunction, signed and synchronous", by_api);
    row("anonymous HTTP trigger, the same function", by_trigger);
    Ok(())
}
