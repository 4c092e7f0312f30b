//! The program that tests of the real binary run as an instance: a small web server with switches for every way in which
//! a program can misbehave. One thread a connection.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Requests under way, and the most there ever were.
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// Requests that `/drop` swallowed.
static DROPPED: AtomicUsize = AtomicUsize::new(0);
/// Calls of `/initialize`.
static INITIALIZED: AtomicUsize = AtomicUsize::new(0);

/// Its port is to be closed.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// A small engine that holds device memory and can give it back.
mod engine {
    use std::io::{self, BufRead, BufReader, Write};
    use std::process::{Child, ChildStdout, Command, Stdio};

    use parking_lot::Mutex;

    #[derive(Default)]
    struct Engine {
        /// Who holds the memory of the device, and what it says.
        holder: Option<(Child, BufReader<ChildStdout>)>,
        asleep: bool,
        slept: u64,
        wrong: bool,
    }

    static ENGINE: Mutex<Option<Engine>> = Mutex::new(None);

    /// Starts the process that holds so many bytes.
    pub(super) fn hold(bytes: u64) -> io::Result<()> {
        let own = std::env::current_exe()?;
        let kip = own.parent().and_then(|folder| folder.parent()).map(|folder| folder.join("kip"));
        let mut command = Command::new(kip.unwrap_or_default());
        command.args(["gpu-probe", &bytes.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let out = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut engine = Engine { holder: Some((child, out)), ..Engine::default() };
        let said = engine.read()?;
        if said.contains("failed") {
            super::say(&format!("subject: no device memory: {said}"));
            super::end(5);
        }
        *ENGINE.lock() = Some(engine);
        Ok(())
    }

    impl Engine {
        fn read(&mut self) -> io::Result<String> {
            let mut line = String::new();
            if let Some((_, out)) = &mut self.holder {
                out.read_line(&mut line)?;
            }
            Ok(line)
        }

        fn ask(&mut self, what: &str) -> io::Result<String> {
            if let Some((child, _)) = &mut self.holder {
                let input = child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
                writeln!(input, "{what}")?;
            }
            self.read()
        }
    }

    pub(super) fn answer(verb: &str) -> io::Result<(u16, String)> {
        let mut engine = ENGINE.lock();
        let engine = engine.get_or_insert_default();
        Ok(match verb {
            "slept" => (200, format!("{{\"slept\": {}, \"asleep\": {}}}", engine.slept, engine.asleep)),
            "generate" if engine.asleep => (500, "{\"error\": \"the engine sleeps\"}".to_owned()),
            "generate" => {
                let said = engine.ask("sum")?;
                let sum = said.split("\"sum\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
                let text = if engine.wrong { "wrong" } else { "right" };
                (200, format!("{{\"text\": \"{text}\", \"sum\": \"{}\"}}", sum.unwrap_or("0")))
            }
            "sleep" => {
                engine.ask("drop")?;
                (engine.asleep, engine.slept) = (true, engine.slept + 1);
                (200, String::new())
            }
            // Says yes and does nothing.
            "sleep-nothing" => (200, String::new()),
            "wake_up" | "wake-wrong" => {
                let said = if engine.asleep { engine.ask("reload")? } else { String::new() };
                (engine.asleep, engine.wrong) = (false, verb == "wake-wrong");
                (if said.contains("failed") { 500 } else { 200 }, said)
            }
            _ => (500, "no".to_owned()),
        })
    }
}

/// What the command line asks for.
#[derive(Debug, Default)]
struct Switches {
    wrong_port: bool,
    any: bool,
    never_listen: bool,
    ready_after: u64,
    initialize_status: u16,
    initialize_delay: u64,
    one_connection: bool,
    fail_work: bool,
    /// Milliseconds.
    slow_work: u64,
    /// Whoever does not say its token is refused.
    closed: bool,
}

#[expect(clippy::exit, reason = "ending at once, in the midst of things, is what it is for")]
fn end(code: i32) -> ! {
    std::process::exit(code)
}

fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

fn main() -> io::Result<()> {
    let all: Vec<String> = std::env::args().skip(1).collect();
    let mut switches = Switches { initialize_status: 200, ..Switches::default() };
    let mut arguments = all.iter();
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        match argument.as_str() {
            "--wrong-port" => switches.wrong_port = true,
            "--any" => switches.any = true,
            "--exit-now" => {
                let _ = writeln!(io::stderr(), "subject: told to give up at once");
                end(i32::try_from(number()).unwrap_or(1));
            }
            "--exit-after-start" => {
                let pause = Duration::from_millis(number());
                in_background(move || {
                    std::thread::sleep(pause);
                    end(7);
                });
            }
            "--never-listen" => switches.never_listen = true,
            "--one-connection" => switches.one_connection = true,
            "--closed" => switches.closed = true,
            "--fail-work" => switches.fail_work = true,
            "--slow-work" => switches.slow_work = number(),
            "--ready-after" => switches.ready_after = number(),
            "--initialize-status" => switches.initialize_status = u16::try_from(number()).unwrap_or(500),
            "--initialize-delay" => switches.initialize_delay = number(),
            // An ignored signal stays ignored over exec, and a shell can ignore one without any unsafe code here.
            "--ignore-term" => {
                let rest: Vec<&String> = all.iter().filter(|word| *word != "--ignore-term").collect();
                let own = std::env::current_exe()?;
                return Err(Command::new("sh")
                    .args(["-c", "trap '' TERM; exec \"$0\" \"$@\""])
                    .arg(own)
                    .args(rest)
                    .exec());
            }
            "--spin" => in_background(|| {
                loop {
                    std::hint::spin_loop();
                }
            }),
            "--fork" => {
                Command::new("sh").args(["-c", "setsid sleep 1000 &"]).status()?;
            }
            // A numbered line every so many microseconds, from the beginning on.
            "--tick" => {
                let pause = Duration::from_micros(number());
                in_background(move || {
                    for tick in 0u64.. {
                        say(&format!("tick {tick}"));
                        std::thread::sleep(pause);
                    }
                });
            }
            "--eat" => eat(number()),
            // So many bytes of a device, in a process of its own.
            "--device-memory" => engine::hold(number())?,
            "--port-file" => {
                let file = arguments.next().cloned().unwrap_or_default();
                std::fs::write(format!("{file}.new"), port().to_string())?;
                std::fs::rename(format!("{file}.new"), file)?;
            }
            _ => {}
        }
    }
    say("subject: begins");
    if switches.never_listen {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    serve(switches)
}

/// Takes so many MiB of memory and keeps them.
fn eat(mebibytes: u64) {
    let bytes = usize::try_from(mebibytes << 20).unwrap_or(usize::MAX);
    let mut memory = vec![0u8; bytes];
    memory.iter_mut().step_by(4_096).for_each(|byte| *byte = 1);
    Box::leak(memory.into_boxed_slice());
}

/// Writes so many MiB to standard output, in lines of 64 bytes or without an end.
fn write_much(mebibytes: u64, line: &[u8; 64]) -> io::Result<()> {
    let piece: Vec<u8> = line.iter().copied().cycle().take(1 << 20).collect();
    let mut out = io::stdout().lock();
    for _ in 0..mebibytes {
        out.write_all(&piece)?;
    }
    out.flush()
}

fn port() -> u16 {
    variable("PORT").parse().unwrap_or_default()
}

fn variable(name: &str) -> String {
    std::env::vars().find(|(known, _)| known == name).map(|(_, value)| value).unwrap_or_default()
}

fn in_background(work: impl FnOnce() + Send + 'static) {
    if std::thread::Builder::new().spawn(work).is_err() {
        end(70);
    }
}

/// Pauses between the beginning of an answer and its break, so that callers see both and not just the break.
fn let_it_through() {
    std::thread::sleep(Duration::from_millis(300));
}

fn serve(switches: Switches) -> io::Result<()> {
    // In a container nobody reaches its loopback.
    let ip =
        if switches.any || !variable("SUBJECT_ANY").is_empty() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    // Port 0 is another one than its own, whichever is free.
    let accept: Box<dyn Fn() -> io::Result<TcpStream>> = match variable("KIPWAKE_SOCKET") {
        path if path.is_empty() || switches.wrong_port => {
            let listener = TcpListener::bind((ip, if switches.wrong_port { 0 } else { port() }))?;
            Box::new(move || Ok(listener.accept()?.0))
        }
        path => {
            let listener = UnixListener::bind(path)?;
            // What it does with a connection is the same for both.
            Box::new(move || Ok(OwnedFd::from(listener.accept()?.0).into()))
        }
    };
    say("subject: listens");
    let switches: &'static Switches = Box::leak(Box::new(switches));
    let ready: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(usize::from(switches.ready_after == 0))));
    if switches.ready_after > 0 {
        in_background(|| {
            std::thread::sleep(Duration::from_millis(switches.ready_after));
            ready.store(1, Ordering::SeqCst);
        });
    }
    loop {
        let stream = accept()?;
        if CLOSED.load(Ordering::SeqCst) {
            drop(accept);
            loop {
                std::thread::park();
            }
        }
        // As the servers of some languages do it: the next one when this one closes.
        if switches.one_connection {
            let _ = connection(stream, switches, ready);
            continue;
        }
        in_background(move || {
            let _ = connection(stream, switches, ready);
        });
    }
}

/// A request whose body has not been read.
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut request = Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new() };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(Some(request)) };
            request.headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Reads the body piece by piece.
    fn body(&self, reader: &mut impl BufRead, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let chunked = self.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
        if !chunked {
            let length = self.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
            return exactly(reader, length, &mut each);
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
                .map_err(|_| io::ErrorKind::InvalidData)?;
            exactly(reader, length, &mut each)?;
            let mut end = String::new();
            reader.read_line(&mut end)?;
            if length == 0 {
                return Ok(());
            }
        }
    }
}

fn exactly(reader: &mut impl BufRead, length: u64, each: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut left = length;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = reader.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        each(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(())
}

/// Counts a request while it is under way.
struct RequestCounter;

impl RequestCounter {
    fn new() -> Self {
        let now = NOW.fetch_add(1, Ordering::SeqCst) + 1;
        MOST.fetch_max(now, Ordering::SeqCst);
        Self
    }
}

impl Drop for RequestCounter {
    fn drop(&mut self) {
        NOW.fetch_sub(1, Ordering::SeqCst);
    }
}

fn connection(stream: TcpStream, switches: &Switches, ready: &AtomicUsize) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        if !answer(&request, &mut reader, &mut writer, switches, ready)? {
            return writer.shutdown(std::net::Shutdown::Both);
        }
    }
    Ok(())
}

/// Answers a request; false if the connection is to be closed.
fn answer(
    request: &Request,
    reader: &mut impl BufRead,
    out: &mut TcpStream,
    switches: &Switches,
    ready: &AtomicUsize,
) -> io::Result<bool> {
    let path = request.target.split('?').next().unwrap_or_default();
    // The style of a caller says nothing about what is wanted.
    let mut parts = path.trim_start_matches("/v1").trim_start_matches('/').split('/');
    let verb = parts.next().unwrap_or_default();
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).unwrap_or_default();
    let counted = (!matches!(verb, "count" | "ready" | "live" | "initialize" | "pre-stop" | "sleep" | "wake_up"))
        .then(RequestCounter::new);
    if switches.closed && request.header("x-kip-instance-token") != Some(&variable("KIPWAKE_INSTANCE_TOKEN")) {
        text(request, out, 403, "not of my server\n")?;
        return Ok(false);
    }
    if verb == "tee" {
        return tee(request, reader, out);
    }
    let (mut length, mut sum) = (0u64, Sum::default());
    let is_work = matches!(verb, "invoke" | "task");
    let mut script = Vec::new();
    request.body(reader, |piece| {
        if is_work {
            script.extend_from_slice(piece);
        }
        length += piece.len() as u64;
        sum.add(piece);
        Ok(())
    })?;
    match verb {
        "invoke" | "task" => work(request, &String::from_utf8_lossy(&script), out),
        "echo" => text(request, out, 200, &echo(request, length, &sum)),
        "delay" => {
            std::thread::sleep(Duration::from_millis(number()));
            // Once the answer is out, the caller may send the next request.
            drop(counted);
            text(request, out, 200, "delayed\n")
        }
        // Uses the CPU all the time.
        "burn" => {
            let end = kip_host::clock::boot_millis() + number();
            while kip_host::clock::boot_millis() < end {
                std::hint::spin_loop();
            }
            drop(counted);
            text(request, out, 200, "burnt\n")
        }
        "stream" => stream(out, number(), number()),
        "big" => big(out, number()),
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        "die" => {
            write!(out, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}", "x".repeat(500))?;
            let_it_through();
            end(9);
        }
        // Half of what it announced, and then the connection ends.
        "half" => {
            write!(out, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf \r\n")?;
            let_it_through();
            Ok(false)
        }
        // Something, and then nothing more.
        "stall" => {
            write!(out, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbeginning")?;
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        "drop" => {
            DROPPED.fetch_add(1, Ordering::SeqCst);
            Ok(false)
        }
        "drops" => text(request, out, 200, &DROPPED.load(Ordering::SeqCst).to_string()),
        // Says nothing of closing, and closes.
        "once" => {
            // Both in one segment: whoever has the answer can know that the connection is over.
            rustix::net::sockopt::set_tcp_cork(&*out, true)?;
            text(request, out, 200, "once\n").map(|_| false)
        }
        "garbage" => {
            out.write_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n")?;
            Ok(false)
        }
        // Heads that could be taken for two.
        "split" => {
            let head: &[u8] = match parts.next().unwrap_or_default() {
                "feed" => b"HTTP/1.1 200 OK\r\nx-a: 1\rx-injected: 1\r\ncontent-length: 0\r\n\r\n",
                "nul" => b"HTTP/1.1 200 OK\r\nx-a: 1\0x-injected: 1\r\ncontent-length: 0\r\n\r\n",
                "both" => {
                    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"
                }
                "list" => b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello",
                "coding" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
                "fold" => b"HTTP/1.1 200 OK\r\nx-a: 1\r\n x-injected: 1\r\ncontent-length: 0\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 50\r\n\r\nhello",
            };
            out.write_all(head)?;
            Ok(false)
        }
        // A WebSocket's beginning, and then every byte back. Who does not ask for one is told so.
        "websocket" => {
            let asks = request.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
            if !asks || path.ends_with("/refuse") {
                return text(request, out, 426, "no\n");
            }
            let key = request.header("sec-websocket-key").unwrap_or_default();
            write!(
                out,
                "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: of {key}\r\n\r\n"
            )?;
            let mut piece = [0; 4_096];
            loop {
                let read = reader.read(&mut piece)?;
                if read == 0 {
                    say("subject: websocket over");
                    return Ok(false);
                }
                out.write_all(&piece[..read])?;
                if piece[..read].ends_with(b"die") {
                    end(9);
                }
            }
        }
        // Trailers behind a body in chunks.
        "trailers" => {
            write!(
                out,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"
            )?;
            Ok(true)
        }
        // So many small headers.
        "many-headers" => {
            let headers: String = (0..number()).map(|number| format!("x-{number}: y\r\n")).collect();
            write!(out, "HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\nok")?;
            Ok(true)
        }
        // Goes on after the answer, and says so.
        "keep-awake" => {
            write!(out, "HTTP/1.1 202 Accepted\r\nx-kip-keep-awake: 10m\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(true)
        }
        "worse" => {
            std::thread::sleep(Duration::from_millis(switches.slow_work));
            text(request, out, if switches.fail_work { 500 } else { 200 }, "")
        }
        "pid" => text(request, out, 200, &std::process::id().to_string()),
        // An engine with the requests of vLLM, and ways in which one can fail.
        "generate" | "sleep" | "sleep-refuse" | "sleep-nothing" | "wake_up" | "wake-refuse" | "wake-wrong"
        | "slept" => {
            let (status, said) = engine::answer(verb)?;
            text(request, out, status, &said)
        }
        "env" => {
            let all: BTreeMap<String, String> = std::env::vars().collect();
            let entries: Vec<String> =
                all.iter().map(|(name, value)| format!("{}:{}", json(name), json(value))).collect();
            text(request, out, 200, &format!("{{{}}}", entries.join(",")))
        }
        "count" => {
            let (now, most) = (NOW.load(Ordering::SeqCst), MOST.load(Ordering::SeqCst));
            let initialized = INITIALIZED.load(Ordering::SeqCst);
            text(request, out, 200, &format!("{{\"now\":{now},\"most\":{most},\"initialized\":{initialized}}}"))
        }
        // The first one of all instances together; the next ones answer.
        "hang-once" => {
            if std::fs::OpenOptions::new().write(true).create_new(true).open(variable("HANG_FILE")).is_ok() {
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            text(request, out, 200, &std::process::id().to_string())
        }
        // Well, unless the file names this process.
        "live" => {
            let dead = std::fs::read_to_string(variable("DEAD_FILE")).unwrap_or_default();
            text(request, out, if dead == std::process::id().to_string() { 503 } else { 200 }, "")
        }
        "ready" => {
            let unready = std::fs::exists(variable("UNREADY_FILE")).unwrap_or(false);
            let status = if ready.load(Ordering::SeqCst) == 1 && !unready { 200 } else { 503 };
            text(request, out, status, "")
        }
        "initialize" => {
            say(&format!("subject: initialize by {}", request.method));
            INITIALIZED.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(switches.initialize_delay));
            text(request, out, switches.initialize_status, "")
        }
        "pre-stop" => {
            std::fs::write(variable("PRE_STOP_FILE"), format!("{} {}", request.method, request.target))?;
            text(request, out, 200, "")
        }
        "log" => {
            for line in 0..number() {
                say(&format!("subject: line {line}"));
            }
            text(request, out, 200, "logged\n")
        }
        "write" => {
            write_much(number(), b"012345678901234567890123456789012345678901234567890123456789012\n")?;
            say("subject: written");
            text(request, out, 200, "written\n")
        }
        "endless" => {
            write_much(number(), &[b'x'; 64])?;
            say("");
            say("subject: written");
            text(request, out, 200, "written\n")
        }
        // Lines between Function Compute's marks, which do not name the request themselves.
        "marked" => {
            let id = request.header("x-fc-request-id").unwrap_or_default();
            say(&format!("FC Invoke Start RequestId: {id}"));
            say("subject: marked work");
            say(&format!("FC Invoke End RequestId: {id}"));
            text(request, out, 200, id)
        }
        "json" => {
            let id = request.header("x-fc-request-id").unwrap_or_default();
            say(&format!("{{\"level\":\"WARN\",\"message\":\"as JSON\",\"request_id\":{}}}", json(id)));
            text(request, out, 200, id)
        }
        "unnamed" => {
            say("subject: unnamed work");
            text(request, out, 200, request.header("x-fc-request-id").unwrap_or_default())
        }
        "traceback" => {
            let lines = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\nValueError: no\n";
            io::stderr().lock().write_all(lines.as_bytes())?;
            text(request, out, 200, "traced\n")
        }
        "eat" => {
            eat(number());
            text(request, out, 200, "eaten\n")
        }
        "close-port" => {
            CLOSED.store(true, Ordering::SeqCst);
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port())));
            text(request, out, 200, "closed\n").map(|_| false)
        }
        "status" => {
            let status = u16::try_from(number()).unwrap_or(500);
            text(request, out, status, if matches!(status, 204 | 304) { "" } else { "as asked\n" })
        }
        // What reaches over its own path, if a browser is told so.
        "reach" => {
            out.write_all(
                b"HTTP/1.1 200 OK\r\nservice-worker-allowed: /\r\nclear-site-data: \"*\"\r\nset-cookie: a=1; Path=/; HttpOnly\r\nset-cookie: b=2; Path=/own; Domain=localhost\r\nset-cookie: c=3\r\ncontent-length: 2\r\n\r\nok",
            )?;
            Ok(true)
        }
        // Headers that concern one connection, and ones that only the gateway may say.
        "headers" => {
            out.write_all(
                b"HTTP/1.1 200 OK\r\nconnection: x-mine\r\nx-mine: 1\r\nkeep-alive: timeout=5\r\nx-kept: 1\r\nx-kip-instance: forged\r\ncontent-length: 2\r\n\r\nok",
            )?;
            Ok(true)
        }
        _ => text(request, out, 200, "subject\n"),
    }
}

fn text(request: &Request, out: &mut TcpStream, status: u16, body: &str) -> io::Result<bool> {
    let without_body = matches!(status, 204 | 304);
    let length = if without_body { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let body = if request.method == "HEAD" || without_body { "" } else { body };
    write!(out, "HTTP/1.1 {status} Subject\r\nx-subject: 1\r\n{length}\r\n{body}")?;
    out.flush()?;
    Ok(true)
}

fn stream(out: &mut TcpStream, pieces: u64, pause: u64) -> io::Result<bool> {
    write!(out, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
    for number in 0..pieces {
        let piece = format!("data: {number}\n\n");
        write!(out, "{:x}\r\n{piece}\r\n", piece.len())?;
        out.flush()?;
        std::thread::sleep(Duration::from_millis(pause));
    }
    write!(out, "0\r\n\r\n")?;
    Ok(true)
}

/// Sends each piece of the body back while the rest is still coming.
/// Work as its own body describes it, a step a line. What is begun and ended is written into the file LEDGER, synced: that
/// is what tests count by, whatever the server thinks.
fn work(request: &Request, script: &str, out: &mut TcpStream) -> io::Result<bool> {
    let header = |name: &str| request.header(name).unwrap_or("-").to_owned();
    let (id, attempt, epoch) = (header("x-kip-task-id"), header("x-kip-task-attempt"), header("x-kip-task-epoch"));
    let note = |what: &str| {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(variable("LEDGER"));
        let line = format!("{what} {id} {attempt} {epoch} {}\n", std::process::id());
        if let Ok(mut file) = file {
            let _ = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
        }
    };
    note("begin");
    let mut answer = "done\n".to_owned();
    for step in script.lines() {
        let (step, argument) = step.split_once(' ').unwrap_or((step, ""));
        let number = argument.parse::<u64>().unwrap_or_default();
        match step {
            "sleep" => std::thread::sleep(Duration::from_millis(number)),
            "wait" => {
                while !std::fs::exists(argument).unwrap_or(false) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            "die" => {
                note("dies");
                end(9);
            }
            "hang" => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            // Runs up to this one fail.
            "fail-until" if attempt.parse::<u64>().unwrap_or_default() <= number => {
                note("failed");
                return text(request, out, 500, "not yet\n");
            }
            "fail" => {
                note("failed");
                return text(request, out, u16::try_from(number).unwrap_or(500), "no\n");
            }
            "later" => {
                note("later");
                write!(out, "HTTP/1.1 503 Later\r\nretry-after: {number}\r\ncontent-length: 0\r\n\r\n")?;
                return Ok(true);
            }
            "progress" => note(&format!("progress-{}", report(request, argument)?)),
            "large" => answer = "x".repeat(usize::try_from(number).unwrap_or_default()),
            "answer" => answer = argument.to_owned(),
            _ => {}
        }
    }
    note("end");
    text(request, out, 200, &answer)
}

/// Says how far it has come, where the request says that this is to be said, and gives the status of the answer.
fn report(request: &Request, what: &str) -> io::Result<String> {
    let address = request.header("x-kip-task-progress").unwrap_or_default().trim_start_matches("http://");
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let mut stream = TcpStream::connect(host)?;
    let length = what.len();
    write!(
        stream,
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{what}"
    )?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.split_whitespace().nth(1).unwrap_or_default().to_owned())
}

fn tee(request: &Request, reader: &mut impl BufRead, out: &mut TcpStream) -> io::Result<bool> {
    write!(out, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
    request.body(reader, |piece| {
        write!(out, "{:x}\r\n", piece.len())?;
        out.write_all(piece)?;
        out.write_all(b"\r\n")?;
        out.flush()
    })?;
    write!(out, "0\r\n\r\n")?;
    Ok(true)
}

fn big(out: &mut TcpStream, length: u64) -> io::Result<bool> {
    write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")?;
    let piece = vec![b'b'; 64 << 10];
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        out.write_all(&piece[..most])?;
        left -= most as u64;
    }
    Ok(true)
}

fn echo(request: &Request, length: u64, sum: &Sum) -> String {
    let headers: Vec<String> =
        request.headers.iter().map(|(name, value)| format!("[{},{}]", json(name), json(value))).collect();
    format!(
        "{{\"method\":{},\"target\":{},\"headers\":[{}],\"length\":{length},\"sum\":\"{:016x}\"}}",
        json(&request.method),
        json(&request.target),
        headers.join(","),
        sum.0
    )
}

/// FNV-1a of 64 bits: enough to see that bytes came through as they were.
struct Sum(u64);

impl Default for Sum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

fn json(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if u32::from(control) < 32 => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}
