//! Sessions in instances: `kip exec`, the WebSocket behind it, and how each kind of end is met.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use kip_host::clock::boot_millis;
use kip_wire::{EXEC_ERROR, EXEC_OUTPUT, ExecClientMessage, ExecServerMessage, ExecStart, ExecTerminal};
use rustix::process::Signal;
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use crate::bodies::{self, pid};
use crate::fc::Pair;
use crate::support::{self, ChildGuard, Server, call, function, is_alive, kill, kip, manifest, run, until, until_true};

/// A client of a session that a test reads and writes message by message.
struct Client {
    socket: WebSocket<TcpStream>,
    output: Vec<u8>,
    error: Vec<u8>,
    messages: Vec<ExecServerMessage>,
    /// Boot time; pings of the server end no read.
    late: u64,
}

impl Client {
    fn open(server: &Server, path: &str, key: &str, headers: &[(&'static str, &str)]) -> Result<Self, (u16, String)> {
        connect(server.api, path, &[&[("authorization", format!("Bearer {key}").as_str())], headers].concat())
    }

    fn start(server: &Server, path: &str, start: ExecStart) -> Self {
        let mut client = Self::open(server, path, &server.key, &[]).unwrap();
        client.say(&ExecClientMessage::Start(start));
        client
    }

    fn say(&mut self, message: &ExecClientMessage) {
        self.socket.send(Message::text(serde_json::to_string(message).unwrap())).unwrap();
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).unwrap();
    }

    /// Takes the next message in. False once the connection has ended.
    fn take(&mut self) -> bool {
        assert!(boot_millis() < self.late, "{:?} {:?}", self.messages, String::from_utf8_lossy(&self.output));
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => {
                let (to, rest) = bytes.split_first().expect("a channel");
                match *to {
                    EXEC_OUTPUT => self.output.extend_from_slice(rest),
                    EXEC_ERROR => self.error.extend_from_slice(rest),
                    other => panic!("channel {other}"),
                }
                true
            }
            Ok(Message::Text(text)) => {
                self.messages.push(serde_json::from_str(&text).unwrap());
                true
            }
            Ok(_) => true,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => false,
            Err(error) => panic!("{error}: {:?} {:?}", self.messages, String::from_utf8_lossy(&self.output)),
        }
    }

    /// Reads until the output has this.
    fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.output).contains(text) {
            let before = (self.messages.clone(), String::from_utf8_lossy(&self.output).into_owned());
            assert!(self.take(), "the session ended before `{text}`: {before:?}");
        }
    }

    fn until_started(&mut self) -> String {
        loop {
            let started = self.messages.iter().find_map(|message| match message {
                ExecServerMessage::Started { instance, .. } => Some(instance.clone()),
                ExecServerMessage::Failed { error } => panic!("{error}"),
                _ => None,
            });
            match started {
                Some(instance) => return instance,
                None => assert!(self.take(), "{:?}", self.messages),
            }
        }
    }

    /// Reads to the end; gives the last message.
    fn end(&mut self) -> ExecServerMessage {
        while self.take() {}
        self.messages.last().cloned().expect("a last message")
    }

    fn code(&mut self) -> Option<i32> {
        match self.end() {
            ExecServerMessage::Exited { code, .. } => code,
            other => panic!("{other:?}"),
        }
    }

    /// The code of the error that ended it.
    fn failure(&mut self) -> String {
        match self.end() {
            ExecServerMessage::Failed { error } => error.code.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn connect(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Result<Client, (u16, String)> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match tokio_tungstenite::tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(Client {
            socket,
            output: Vec::new(),
            error: Vec::new(),
            messages: Vec::new(),
            late: boot_millis() + 60_000,
        }),
        Err(tokio_tungstenite::tungstenite::HandshakeError::Failure(Error::Http(answer))) => {
            let (head, body) = answer.into_parts();
            Err((head.status.as_u16(), String::from_utf8_lossy(&body.unwrap_or_default()).into_owned()))
        }
        Err(error) => panic!("{error}"),
    }
}

fn command(words: &[&str]) -> ExecStart {
    ExecStart { command: words.iter().map(|word| (*word).to_owned()).collect(), ..ExecStart::default() }
}

fn terminal(words: &[&str]) -> ExecStart {
    let terminal = Some(ExecTerminal { columns: 91, rows: 17 });
    ExecStart { terminal, input: true, ..command(words) }
}

const PATH: &str = "/api/v1/functions/f/exec";

#[test]
pub(crate) fn bytes_go_both_ways_and_the_exit_code_comes_back() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    // What no text is, and more than any buffer on the way holds.
    let bytes: Vec<u8> = (0..2_000_000u32).map(|number| (number % 251) as u8).collect();
    let mut child = kip(&server.data())
        .args(["exec", "-i", "f", "--", "sh", "-c", "cat; echo wrong >&2; exit 7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, sent) = (child.stdin.take().unwrap(), bytes.clone());
    let writer = support::apart(move || input.write_all(&sent).unwrap());
    let ended = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(ended.status.code(), Some(7), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(ended.stdout == bytes, "{} of {} bytes", ended.stdout.len(), bytes.len());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("was started for this session") && said.ends_with("wrong\n"), "{said}");
    // Without -i its input is empty, and a signal is a code.
    let ran = server.kip(&["exec", "f", "--", "sh", "-c", "cat; kill -TERM $$"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(143), ""), "{ran:?}");
}

#[test]
fn a_program_sees_what_the_instance_sees() {
    let server = Server::start();
    server.deploy_subject(&[], "env: {COLOUR: red}");
    let instance = pid(&server.get("/pid"));
    let status = |process: u32, name: &str| {
        let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
    };
    let cwd = fs::read_link(format!("/proc/{instance}/cwd")).unwrap();
    let script = "pwd; echo $COLOUR $MORE $KIPWAKE_INSTANCE; id -u; grep NoNewPrivs /proc/self/status; readlink /proc/self/ns/mnt /proc/self/ns/user; cat /proc/self/cgroup; sleep 1000";
    let mut client = Client::start(
        &server,
        PATH,
        ExecStart { env: [("MORE".to_owned(), "so".to_owned())].into(), ..command(&["sh", "-c", script]) },
    );
    let id = client.until_started();
    client.until("0::");
    let said = String::from_utf8(client.output.clone()).unwrap();
    let user = status(instance, "Uid:").split_whitespace().nth(1).unwrap().to_owned();
    let namespace = |name: &str| fs::read_link(format!("/proc/{instance}/ns/{name}")).unwrap().display().to_string();
    let lines: Vec<String> = said.lines().map(str::to_owned).collect();
    assert_eq!(lines[..2], [cwd.display().to_string(), format!("red so {id}")], "{said}");
    assert_eq!((lines[2].as_str(), lines[3].as_str()), (user.as_str(), "NoNewPrivs:\t1"), "{said}");
    assert_eq!(lines[4..6], [namespace("mnt"), namespace("user")], "{said}");
    if server.has_cgroup() {
        assert!(said.contains(&format!("/{id}/exec-")), "{said}");
    }
    // A folder and a program that are not there.
    let ran = server.kip(&["exec", "-w", "/nowhere", "f", "true"]);
    ran.failed(&["KW-4031", "/nowhere", "-w DIR"]);
    server.kip(&["exec", "f", "no-such-program"]).failed(&["KW-4031", "no-such-program"]);
    let ran = server.kip(&["exec", "-w", "/usr", "f", "pwd"]).ok();
    assert_eq!(ran.stdout, "/usr\n");
    server.kip(&["exec", "-e", "KIPWAKE_INSTANCE=x", "f", "true"]).failed(&["KW-3038", "KIPWAKE_"]);
}

#[test]
pub(crate) fn a_terminal_is_one() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let mut client = Client::start(&server, PATH, terminal(&["sh"]));
    client.send(b"tty; stty size; echo $TERM\n");
    client.until("17 91");
    client.until("xterm");
    assert!(String::from_utf8_lossy(&client.output).contains("/dev/pts/"), "{:?}", client.output);
    client.say(&ExecClientMessage::Resize(ExecTerminal { columns: 120, rows: 50 }));
    client.send(b"stty size\n");
    client.until("50 120");
    // Ctrl-C reaches the program in front and not the shell.
    client.send(b"trap 'echo in''terrupted' INT; sleep 1013; echo a''fter $?\n");
    until_true("the program sleeps", || processes_named("sleep 1013") > 0);
    client.send(&[3]);
    client.until("interrupted");
    client.until("after 130");
    client.send(b"exit 5\n");
    assert_eq!(client.code(), Some(5));
    // Its standard error is the terminal too.
    assert!(client.error.is_empty());
}

/// Processes whose command line is this.
fn processes_named(line: &str) -> usize {
    let named = |entry: fs::DirEntry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).replace('\0', " ").trim_end() == line
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .map(named)
        .filter(|named| *named)
        .count()
}

#[test]
fn the_command_line_has_the_terminal_of_its_user() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
    let server = Server::start();
    server.deploy_subject(&[], "");
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
    tcsetwinsize(&ours, Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let end = || Stdio::from(theirs.try_clone().unwrap());
    // No -t and no -i: its standard input and output are a terminal.
    let mut child = ChildGuard::spawn(
        kip(&server.data()).args(["exec", "f", "sh"]).env("TERM", "vt100").stdin(end()).stdout(end()).stderr(end()),
    );
    let mut terminal = fs::File::from(ours);
    let mut screen = String::new();
    let mut show = |terminal: &mut fs::File, text: &str| {
        let mut piece = [0; 4_096];
        while !screen.contains(text) {
            let length = terminal.read(&mut piece).unwrap();
            screen.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    };
    until_true("keys are passed on", || !tcgetattr(&theirs).unwrap().local_modes.contains(LocalModes::ICANON));
    terminal.write_all(b"stty size; echo $TERM\n").unwrap();
    show(&mut terminal, "33 101");
    show(&mut terminal, "vt100");
    tcsetwinsize(&terminal, Winsize { ws_row: 44, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    kill(child.pid(), Signal::WINCH);
    until_true("the other size is known", || {
        terminal.write_all(b"stty size\n").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let mut piece = [0; 4_096];
        let length = terminal.read(&mut piece).unwrap();
        String::from_utf8_lossy(&piece[..length]).contains("44 111")
    });
    terminal.write_all(b"exit 9\n").unwrap();
    assert_eq!(until("it has ended", || child.ended()).code(), Some(9));
    assert!(tcgetattr(&theirs).unwrap().local_modes.contains(LocalModes::ICANON), "the terminal is as it was");
}

#[test]
pub(crate) fn a_sleeping_instance_wakes_and_stays_awake() {
    let server = Server::start();
    // Long enough to be looked at and attached to, however busy the host is.
    server.deploy_subject(&[], "idle: {pause: 50ms, stop: 3s}\ninstances: {max: 2}");
    let process = pid(&server.get("/pid"));
    let sleeper = server.until_state("paused");
    let id = sleeper["id"].as_str().unwrap();
    let mut client =
        Client::start(&server, &format!("{PATH}?instance={id}"), command(&["sh", "-c", "read line; echo $line"]));
    assert_eq!(client.until_started(), id);
    assert!(
        client
            .messages
            .iter()
            .any(|message| matches!(message, ExecServerMessage::Started { start, .. } if start == "woken")),
        "{:?}",
        client.messages
    );
    drop(client);
    server.until_no_instance();
    let mut client = Client::start(&server, PATH, ExecStart { input: true, ..command(&["cat"]) });
    let id = client.until_started();
    let begun = server.decisions().len();
    // Far longer than `idle.stop`: a request makes sure that time has passed for the server too.
    for _ in 0..12 {
        assert_ne!(pid(&server.get("/pid")), process);
        std::thread::sleep(Duration::from_millis(300));
        let states: Vec<Value> = server.instances().iter().map(|line| line["state"].clone()).collect();
        assert_eq!(states, ["busy"], "{states:?}");
    }
    assert_eq!(server.decisions().len(), begun, "nothing was decided meanwhile");
    assert_eq!(server.instances()[0]["id"], id.as_str());
    client.say(&ExecClientMessage::InputEnd);
    assert_eq!(client.code(), Some(0));
    server.until_no_instance();
    // Told on standard error, beside the output.
    let ran = server.kip(&["exec", "f", "--", "sh", "-c", "echo here"]).ok();
    assert_eq!(ran.stdout, "here\n");
    assert!(ran.stderr.contains("was started for this session"), "{ran:?}");
}

/// A program that starts others, which leave its group, its session and its terminal.
const FAMILY: &str = "setsid sleep 7777 >/dev/null 2>&1 & sleep 7777 & echo ready; wait";

#[test]
pub(crate) fn what_a_session_started_ends_with_its_client() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let mut child = kip(&server.data())
        .args(["exec", "f", "--", "sh", "-c", &FAMILY.replace("7777", "7771")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    until_true("both have begun", || processes_named("sleep 7771") == 2);
    kill(child.id(), Signal::KILL);
    child.wait().unwrap();
    until_true("nothing of it is left", || processes_named("sleep 7771") == 0);
    server.until_quiet();
    let record = audited(&server);
    assert_eq!(record["result"], "the client left", "{record}");
    // And with its own program, whose output they keep open.
    let script = FAMILY.replace("7777", "7772").replace("wait", "exit 3").replace(">/dev/null 2>&1", "");
    let ran = server.kip(&["exec", "f", "--", "sh", "-c", &script]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), "ready\n"), "{ran:?}");
    until_true("nothing of it is left", || processes_named("sleep 7772") == 0);
    if server.has_cgroup() && bodies::engine().is_none() {
        let id = server.instances()[0]["id"].as_str().unwrap().to_owned();
        let process = pid(&server.get("/pid"));
        let own = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
        let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        assert!(path.ends_with(&id), "{path}");
    }
}

/// The newest record of a session.
fn audited(server: &Server) -> Value {
    until("the record has the session's end", || {
        let records = server.ask(&["audit", "--action", "function.exec"]);
        let newest = records.as_array()?.first()?.clone();
        (newest["result"] != "unknown").then_some(newest)
    })
}

#[test]
fn the_record_has_who_where_and_what_and_no_variables() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    server.kip(&["exec", "-e", "PASSWORD=hunter2", "f", "--", "sh", "-c", "exit 4"]);
    let record = audited(&server);
    let id = server.instances()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(record["key"], "admin", "{record}");
    assert_eq!(record["object"], format!("f {id}: sh -c 'exit 4'"), "{record}");
    assert_eq!(record["result"], "exit 4", "{record}");
    let all = server.kip(&["audit", "-o", "json"]).ok();
    assert!(!all.stdout.contains("hunter2") && !server.log().contains("hunter2"), "{}", all.stdout);
}

#[test]
pub(crate) fn a_session_ends_with_its_instance_and_with_its_server() {
    let mut server = Server::start();
    server.deploy_subject(&[], "");
    let script = |number: &str| FAMILY.replace("7777", number);
    let open = |server: &Server, number: &str| {
        let mut client = Client::start(server, PATH, command(&["sh", "-c", &script(number)]));
        client.until("ready");
        client
    };
    let mut client = open(&server, "7773");
    // A new version replaces the instance: the session does not hold it back.
    server.deploy_subject(&[], "env: {A: b}");
    assert_eq!(client.failure(), "KW-3039");
    assert_eq!(processes_named("sleep 7773"), 0);
    let mut client = open(&server, "7774");
    kill(pid(&server.get("/pid")), Signal::KILL);
    assert_eq!(client.failure(), "KW-3039");
    until_true("nothing of it is left", || processes_named("sleep 7774") == 0);
    let mut client = open(&server, "7775");
    let process = pid(&server.get("/pid"));
    // One that has not begun does not hold up the end either.
    let mut silent = Client::open(&server, PATH, &server.key, &[]).unwrap();
    server.signal(Signal::TERM);
    assert_eq!(client.failure(), "KW-3039");
    assert_eq!(silent.failure(), "KW-2012");
    assert!(server.wait().success());
    assert_eq!(processes_named("sleep 7775"), 0);
    assert!(is_alive(process), "the instance stays");
    server.start_again();
    assert_eq!(pid(&server.get("/pid")), process);
    // Killed, it can end nothing: the next server does.
    let client = open(&server, "7776");
    server.crash();
    server.start_again();
    until_true("nothing of it is left", || processes_named("sleep 7776") == 0);
    assert_eq!(pid(&server.get("/pid")), process);
    drop(client);
}

#[test]
fn who_may_not_is_refused() {
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], ""), function("g", &[], "")]));
    let key = |name: &str, more: &[&str]| {
        let ran = server.kip(&[&["key", "create", name], more].concat()).ok();
        ran.stdout.trim().to_owned()
    };
    let operate = key("operator", &["--role", "operate"]);
    let deploy = key("deployer", &["--role", "deploy", "--functions", "g"]);
    let refused = |path: &str, key: &str, headers: &[(&'static str, &str)], status: u16, code: &str| {
        let (answered, body) = Client::open(&server, path, key, headers).err().expect("a refusal");
        assert!(answered == status && body.contains(code), "{path}: {answered} {body}");
    };
    refused(PATH, "kw_wrong", &[], 401, "KW-7002");
    refused(PATH, &operate, &[], 403, "KW-7008");
    refused(PATH, &deploy, &[], 403, "KW-7009");
    refused(PATH, &server.key, &[("origin", "https://evil.example")], 403, "KW-2031");
    refused("/api/v1/functions/nobody/exec", &server.key, &[], 404, "KW-3001");
    refused(&format!("{PATH}?instance=x"), &server.key, &[], 400, "KW-7003");
    let answer = call(server.api, "GET", PATH, &format!("authorization: Bearer {}\r\n", server.key), b"");
    assert!(answer.status() == 400 && answer.text().contains("KW-3038"), "{answer:?}");
    // Refusals are recorded with the key.
    let records = server.ask(&["audit", "--by", "operator"]);
    assert_eq!(records[0]["result"], "KW-7008", "{records}");
    // Another function's instance is as unknown as one that is not there.
    server.kip(&["exec", "g", "true"]).ok();
    let id = server.instances()[0]["id"].as_str().unwrap().to_owned();
    server.kip(&["exec", "--instance", &id, "f", "true"]).failed(&["KW-3002", &id, "kip ps"]);
    server.kip(&["exec", "--instance", "i-1-1-99", "g", "true"]).failed(&["KW-3002"]);
    server.kip(&["exec", "f@nobody", "true"]).failed(&["KW-3007", "nobody"]);
    assert_eq!(audited(&server)["result"], "KW-3007");
}

#[test]
fn sessions_are_bounded_and_end_in_silence() {
    let server = Server::with("[exec]\nidle = \"1s\"\nof_instance = 2\nsessions = 3");
    server.deploy(&manifest(&[function("f", &[], ""), function("g", &[], "")]));
    let sleeping = || command(&["sleep", "1000"]);
    let mut one = Client::start(&server, PATH, sleeping());
    one.until_started();
    let mut two = Client::start(&server, PATH, sleeping());
    two.until_started();
    assert_eq!(Client::start(&server, PATH, sleeping()).failure(), "KW-3037");
    let mut three = Client::start(&server, "/api/v1/functions/g/exec", sleeping());
    three.until_started();
    let (status, body) = Client::open(&server, PATH, &server.key, &[]).err().expect("a refusal");
    assert!(status == 429 && body.contains("KW-3037") && body.contains("exec.sessions"), "{body}");
    // Bytes in either direction keep it.
    let mut talks = None;
    for client in [&mut one, &mut two, &mut three] {
        assert_eq!(client.failure(), "KW-3039");
        talks.get_or_insert_with(|| {
            Client::start(
                &server,
                PATH,
                command(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.3; done"]),
            )
        });
    }
    assert_eq!(talks.unwrap().code(), Some(0));
}

#[test]
fn a_client_that_sends_nonsense_is_ended() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let mut client = Client::open(&server, PATH, &server.key, &[]).unwrap();
    client.socket.send(Message::text("{\"type\":\"start\",\"command\":[\"true\"],\"colour\":1}")).unwrap();
    assert_eq!(client.failure(), "KW-3038");
    let mut client = Client::open(&server, PATH, &server.key, &[]).unwrap();
    client.send(b"ls");
    assert_eq!(client.failure(), "KW-3038");
    let mut client = Client::start(&server, PATH, command(&[""]));
    assert_eq!(client.failure(), "KW-3038");
    // A flood of control frames.
    let mut client = Client::start(&server, PATH, command(&["sleep", "1000"]));
    client.until_started();
    let flooded = (0..100_000).any(|_| client.socket.send(Message::Ping(vec![1; 100].into())).is_err());
    if !flooded {
        assert_eq!(client.failure(), "KW-3038");
    }
    server.until_quiet();
    // A message that is too long.
    let mut client = Client::start(&server, PATH, ExecStart { input: true, ..command(&["cat"]) });
    client.until_started();
    let _ = client.socket.send(Message::binary(vec![0; 4 << 20]));
    until_true("the session has ended", || audited(&server)["result"] == "KW-3038");
}

#[test]
fn a_slow_client_costs_no_memory() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let resident = || {
        let text = fs::read_to_string(format!("/proc/{}/status", server.pid)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
    };
    let mut client =
        Client::start(&server, PATH, command(&["sh", "-c", "echo ready; head -c 1073741824 /dev/zero; echo done >&2"]));
    client.until("ready");
    let before = resident();
    // Nothing is read: whatever the server took in by itself would be seen here.
    let blocked = || {
        let text = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            line.starts_with("head\0-c\x001073741824").then(|| fs::read_to_string(entry.path().join("io")).ok())?
        });
        text.and_then(|text| text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok()))
    };
    let mut last = 0;
    until_true("the program waits", || {
        let written = blocked().unwrap_or(0);
        let waits = written > 0 && written == last;
        last = written;
        std::thread::sleep(Duration::from_millis(300));
        waits
    });
    assert!(last < 64 << 20, "{last} bytes were taken from the program");
    assert!(resident() < before + 32, "{before} MiB became {} MiB", resident());
    // The other way: a program that reads nothing.
    let mut deaf = Client::start(&server, PATH, ExecStart { input: true, ..command(&["sleep", "1000"]) });
    deaf.until_started();
    deaf.socket.get_ref().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let piece = vec![0u8; 128 << 10];
    let sent = (0..8_192).take_while(|_| deaf.socket.send(Message::binary(piece.clone())).is_ok()).count();
    assert!(sent < 512, "{sent} pieces of 128 KiB were taken");
    assert!(resident() < before + 32, "{before} MiB became {} MiB", resident());
    assert_eq!(server.get("/pid").status(), 200);
    assert_eq!(run(kip(&server.data()).args(["exec", "f", "true"])).code, Some(0));
}

/// A request for a session as clients of Function Compute sign it, by the scheme of version 2.0.
fn signed(pair: &Pair, path: &str, at: jiff::Timestamp) -> [(&'static str, String); 3] {
    use base64::Engine as _;
    let date = at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    let text = format!("GET\n\n\n{date}\nx-fc-account-id:1\n{path}");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, pair.1.as_bytes());
    let tag = ring::hmac::sign(&key, text.as_bytes());
    let tag = base64::engine::general_purpose::STANDARD.encode(tag);
    [("date", date), ("x-fc-account-id", "1".to_owned()), ("authorization", format!("FC {}:{tag}", pair.0))]
}

fn headers<'a>(headers: &'a [(&'static str, String); 3]) -> [(&'static str, &'a str); 3] {
    std::array::from_fn(|at| (headers[at].0, headers[at].1.as_str()))
}

#[test]
fn clients_of_function_compute_have_a_shell() {
    let server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 50ms}");
    server.get("/pid");
    let id = server.until_state("paused")["id"].as_str().unwrap().to_owned();
    let pair = server.make_pair(&["ci", "--role", "deploy"]);
    let now = jiff::Timestamp::now();
    let at = |seconds: i64| now + jiff::SignedDuration::from_secs(seconds);
    let path = format!("/2023-03-30/functions/f/instances/{id}/exec");
    let asks = |command: &str| {
        format!("{path}?command=sh&command=-c&command={command}&stdin=true&stdout=true&stderr=true&qualifier=LATEST")
    };
    let target = asks("cat%3B+echo+wrong+%3E%262");
    let mut client = connect(server.api, &target, &headers(&signed(&pair, &target, at(0)))).unwrap();
    client.send(b"hello\x00\xff\n");
    while client.output.len() < 8 {
        assert!(client.take());
    }
    assert_eq!(client.output, b"hello\x00\xff\n");
    // There is no message for the end of the input, and none for the exit code: the client leaves.
    client.socket.close(None).unwrap();
    while client.take() {}
    let target = asks("echo+wrong+%3E%262%3B+exit+3");
    let mut client = connect(server.api, &target, &headers(&signed(&pair, &target, at(1)))).unwrap();
    while client.take() {}
    assert_eq!((client.error.as_slice(), client.messages.len()), (b"wrong\n".as_slice(), 0));
    let target = format!("{path}?command=sh&tty=true&stdin=true&stdout=true&stderr=true");
    let mut client = connect(server.api, &target, &headers(&signed(&pair, &target, at(2)))).unwrap();
    client.send(b"tty; stty size; exit\n");
    client.until("/dev/pts/");
    client.until("24 80");
    while client.take() {}
    // The tool itself, by the same sessions.
    let props = "props: {region: cn-x, functionName: f, runtime: custom, handler: x, code: ., customRuntimeConfig: {command: [x]}}";
    let file =
        format!("edition: 3.0.0\nname: app\naccess: default\nresources:\n  f:\n    component: fc3\n    {props}\n");
    fs::write(server.folder().join("s.yaml"), file).unwrap();
    let ran = server.kip(&[
        "s",
        "instance",
        "exec",
        "-t",
        "s.yaml",
        "--instance-id",
        &id,
        "--cmd",
        "echo by the tool; exit 6",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(6), "by the tool\n"), "{ran:?}");
    let records = until("the record has all ends", || {
        let records = server.ask(&["audit", "--action", "fc.InstanceExec"]);
        let ended = records.as_array()?.iter().all(|record| record["result"] != "unknown");
        ended.then_some(records)
    });
    assert_eq!(records[1]["object"], format!("f {id}: sh -c 'echo wrong >&2; exit 3'"), "{records}");
    assert_eq!((&records[1]["result"], &records[1]["key"]), (&"exit 3".into(), &"ci".into()), "{records}");
    // Refusals have the shape of version 2.0, and a signature opens one session.
    let refused = |target: &str, headers: &[(&'static str, &str)], status: u16, code: &str| {
        let (answered, body) = connect(server.api, target, headers).err().expect("a refusal");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((answered, body["ErrorCode"].as_str()), (status, Some(code)), "{body}");
        assert!(body["ErrorMessage"].is_string() && body["RequestId"].is_string(), "{body}");
    };
    refused(&target, &headers(&signed(&pair, &target, at(2))), 403, "AccessDenied");
    refused(
        &target,
        &headers(&signed(&Pair(pair.0.clone(), "x".to_owned()), &target, at(3))),
        403,
        "SignatureNotMatch",
    );
    refused(&target, &headers(&signed(&pair, &target, at(-3_600))), 403, "AccessDenied");
    refused(&target, &[], 403, "AccessDenied");
    let foreign = signed(&pair, &target, at(4));
    let foreign = [&headers(&foreign)[..], &[("origin", "https://evil.example")]].concat();
    let (answered, body) = connect(server.api, &target, &foreign).err().expect("a refusal");
    assert!(answered == 403 && body.contains("KW-2031"), "pages of elsewhere come to no interface: {body}");
    let unknown = "/2023-03-30/functions/f/instances/i-9-9-9/exec?command=ls";
    refused(unknown, &headers(&signed(&pair, unknown, at(5))), 404, "PathNotSupported");
    let none = asks("x").replace("command=sh&command=-c&command=x", "command=no-such-program");
    refused(&none, &headers(&signed(&pair, &none, at(6))), 400, "InvalidArgument");
    let reader = server.make_pair(&["reader", "--role", "operate"]);
    refused(&target, &headers(&signed(&reader, &target, at(7))), 403, "AccessDenied");
    // This scheme is for nothing else.
    let list = "/2023-03-30/functions";
    let lines: String = signed(&pair, list, at(8)).iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    assert_eq!(call(server.api, "GET", list, &lines, b"").status(), 403);
}

#[test]
fn a_session_ends_when_nobody_reads_its_output_any_more() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let mut command = kip(&server.data());
    command.args(["exec", "f", "--", "yes"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut some = [0; 16];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    drop(child.stdout.take());
    let ended = until("the command has ended", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(128 + 13));
}
