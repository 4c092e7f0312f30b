//! What nobody gets to who does not belong there: functions the server, users of the host its key, callers what programs write.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use crate::support::{Server, apart, call, function, kip, manifest, run, subject, until, until_true};

/// A user of this host that has nothing to do with us.
pub(crate) const STRANGER: u32 = 65_534;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A function that tries things before it serves, each as a line `NAME=reached` or `NAME=denied`.
fn intruder(name: &str, tries: &[(&str, String)]) -> String {
    let lines: String = tries
        .iter()
        .map(|(name, command)| {
            format!("if ( {command} ) >/dev/null 2>&1; then echo {name}=reached; else echo {name}=denied; fi; ")
        })
        .collect();
    let script = format!("{lines} echo tried=all; exec {}", subject().display());
    let script = serde_json::to_string(&script).unwrap();
    format!("  {name}:\n    code: live\n    run: [sh, -c, {script}]\n    env: {{GREETING: secret-of-{name}}}\n")
}

/// What a function found out, once it has tried everything.
fn outcomes(server: &Server, name: &str) -> Vec<String> {
    let log = || {
        let text = server.api_get(&format!("/api/v1/functions/{name}/logs?tail=1000")).text();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.map(|line| line["line"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(call(server.gateway, "GET", &format!("/f/{name}/pid"), "", b"").status(), 200);
    until("it has tried everything", || log().contains(&"tried=all".to_owned()).then(log))
}

fn reaches_nothing(server: &Server) {
    let status = server.api_get("/api/v1/status").json();
    if status["isolated"] != true {
        eprintln!("skipped: this host keeps no function from the server: {}", status["isolation_missing"]);
        return;
    }
    let (data, server_pid) = (server.data(), server.pid);
    let victim = function("victim", &[], "env: {GREETING: secret-of-victim}");
    server.deploy(&manifest(&[victim]));
    assert_eq!(call(server.gateway, "GET", "/f/victim/pid", "", b"").status(), 200);
    let other = server.known()[0];
    let at = |name: &str| data.join(name).display().to_string();
    let tries = [
        ("key", format!("cat {}", at("admin.key"))),
        ("database", format!("cat {}", at("control.db"))),
        ("logs", format!("ls {}", at("logs/victim"))),
        ("plant", format!("touch {}", at("planted"))),
        ("through-server", format!("cat /proc/{server_pid}/root{}", at("admin.key"))),
        ("environment", format!("grep -q . /proc/{server_pid}/environ")),
        ("memory", format!("head -c 1 /proc/{server_pid}/maps")),
        ("descriptors", format!("readlink /proc/{server_pid}/fd/0")),
        ("other-environment", format!("grep -q secret-of-victim /proc/{other}/environ")),
        ("own-output", "echo x > /dev/stderr".to_owned()),
        ("own-environment", "grep -q GREETING /proc/self/environ".to_owned()),
        ("own-temporary", "touch $(mktemp)".to_owned()),
        ("own-home", "test -d \"$HOME\"".to_owned()),
    ];
    server.deploy(&manifest(&[
        intruder("intruder", &tries),
        function("victim", &[], "env: {GREETING: secret-of-victim}"),
    ]));
    let found = outcomes(server, "intruder");
    for (name, _) in &tries {
        let expected = if name.starts_with("own-") { "reached" } else { "denied" };
        assert!(found.contains(&format!("{name}={expected}")), "{name}: {found:?}");
    }
    assert!(!data.join("planted").exists());
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_function_cannot_reach_the_server_or_another_function() {
    let server = Server::start();
    reaches_nothing(&server);
    if is_root() {
        let owner = |pid: u32| fs::metadata(format!("/proc/{pid}")).unwrap().uid();
        let owners: Vec<u32> = server.known().into_iter().map(owner).collect();
        assert!(owners.len() == 2 && owners[0] != owners[1] && !owners.contains(&0), "{owners:?}");
    }
}

/// A server of an ordinary user on the folder of another one.
pub(crate) fn as_stranger(server: &mut Server) {
    server.terminate();
    give(server.folder());
    let mut command = server.serve_command();
    command.uid(STRANGER).gid(STRANGER).env("HOME", server.folder());
    server.start_by(command);
}

pub(crate) fn give(path: &Path) {
    chown(path, Some(STRANGER), Some(STRANGER)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().flatten().for_each(|entry| give(&entry.path()));
    }
}

#[test]
fn an_ordinary_users_functions_cannot_either_where_the_host_has_namespaces() {
    if !is_root() {
        println!("skipped: the test above is this one, where tests are run by an ordinary user");
        return;
    }
    let mut server = Server::start();
    as_stranger(&mut server);
    reaches_nothing(&server);
    // They are adopted, and nothing is left of them at the end.
    let before = server.known();
    server.terminate();
    let mut command = server.serve_command();
    command.uid(STRANGER).gid(STRANGER).env("HOME", server.folder());
    server.start_by(command);
    assert_eq!(server.known(), before);
}

#[test]
fn an_instance_has_limits_and_goes_before_its_server() {
    let server = Server::with("[functions]\nprocesses = 300\nfile_size = \"1MiB\"");
    let score =
        |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse::<i32>().unwrap();
    let own = score(&server.pid.to_string());
    let tries = [
        ("core", "test $(ulimit -c) != 0".to_owned()),
        ("large", "head -c 2000000 /dev/zero > $(mktemp)".to_owned()),
        ("own-small", "head -c 1000000 /dev/zero > $(mktemp)".to_owned()),
        ("own-score", format!("test $(cat /proc/self/oom_score_adj) -gt {own}")),
    ];
    server.deploy(&manifest(&[intruder("f", &tries)]));
    let found = outcomes(&server, "f");
    for (name, _) in &tries {
        let expected = if name.starts_with("own-") { "reached" } else { "denied" };
        assert!(found.contains(&format!("{name}={expected}")), "{name}: {found:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.known()[0])).unwrap();
    let processes = limits.lines().find(|line| line.starts_with("Max processes")).unwrap();
    if server.api_get("/api/v1/status").json()["isolated"] == true {
        assert_eq!(processes.split_whitespace().nth(2), Some("300"), "{processes}");
    }
}

#[test]
fn a_function_may_be_below_folders_that_only_root_may_enter() {
    let server = Server::start();
    if !is_root() || server.api_get("/api/v1/status").json()["isolation_missing"].is_string() {
        println!("skipped: it takes root with the right to mount");
        return;
    }
    let closed = server.folder().join("closed");
    let own = closed.join("model");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("part"), "of the model").unwrap();
    fs::write(closed.join("secret"), "of root").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let tries = [
        ("own-part", "cat part".to_owned()),
        ("own-whole", format!("cat {}/part", own.display())),
        ("secret", format!("cat {}/secret", closed.display())),
        ("list", format!("ls {} | grep secret", closed.display())),
    ];
    let text = manifest(&[intruder("f", &tries)]).replace("    env:", &format!("    dir: {}\n    env:", own.display()));
    server.deploy(&text);
    let found = outcomes(&server, "f");
    for (name, _) in &tries {
        let expected = if name.starts_with("own-") { "reached" } else { "denied" };
        assert!(found.contains(&format!("{name}={expected}")), "{name}: {found:?}");
    }
}

#[test]
fn a_program_that_its_user_may_not_run_is_named() {
    let server = Server::start();
    if !is_root() || server.api_get("/api/v1/status").json()["isolated"] != true {
        println!("skipped: an ordinary user's functions are the same user");
        return;
    }
    let program = server.folder().join("private");
    fs::copy(subject(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let text = format!("api: kip/v1\nfunctions:\n  f:\n    code: live\n    run: [{}]\n", program.display());
    server.deploy_without_wait(&text);
    call(server.gateway, "GET", "/f/f/pid", "", b"");
    let why = server.kip(&["why", "f"]).ok().stdout;
    assert!(why.contains("may not run it") && why.contains("user 19000"), "{why}");
}

#[test]
fn the_command_line_sends_its_key_to_its_own_server_only() {
    let mut server = Server::start();
    let api = server.api;
    server.crash();
    assert!(server.data().join("server.json").exists(), "what a crash leaves");
    let thief = TcpListener::bind(api).unwrap();
    thief.set_nonblocking(true).unwrap();
    let heard = apart(move || {
        let (mut heard, end) = (String::new(), kip_host::clock::boot_millis() + 4_000);
        while kip_host::clock::boot_millis() < end {
            if let Ok((mut caller, _)) = thief.accept() {
                let _ = caller.set_nonblocking(false);
                let _ = caller.set_read_timeout(Some(Duration::from_millis(300)));
                let mut bytes = [0; 4_096];
                let read = caller.read(&mut bytes).unwrap_or(0);
                heard.push_str(&String::from_utf8_lossy(&bytes[..read]));
                let _ = caller.write_all(b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n");
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        heard
    });
    for command in [&["ps"][..], &["ls"], &["doctor"], &["key", "ls"]] {
        let ran = run(kip(&server.data()).args(command));
        assert!(ran.code.is_some(), "{ran:?}");
    }
    let named = run(kip(&server.data()).args(["ps", "--api", &api.to_string()]));
    named.failed(&["KW-7001", "own server only", "--key"]);
    let heard = heard.join().unwrap();
    assert!(!heard.contains("kw_"), "{heard}");
}

#[test]
fn a_data_directory_that_is_not_ours_is_not_used() {
    let mut server = Server::start();
    server.terminate();
    let data = server.data();
    let victim = server.folder().join("victim");
    fs::write(&victim, "precious").unwrap();
    for name in ["reserve", "lock", "admin.key"] {
        let _ = fs::remove_file(data.join(name));
        symlink(&victim, data.join(name)).unwrap();
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    let command = server.serve_command();
    assert!(server.try_start_by(command).is_some(), "its lock is a link");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    fs::remove_file(data.join("lock")).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    server.start_again();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
    assert!(server.log().contains("others could enter the data directory"), "{}", server.log());
    server.terminate();
    if is_root() {
        chown(&data, Some(STRANGER), None).unwrap();
        let command = server.serve_command();
        assert!(server.try_start_by(command).is_some());
        assert!(format!("{}{}", server.log(), server.printed()).contains("belongs to user 65534"), "{}", server.log());
        chown(&data, Some(0), None).unwrap();
    }
}

#[test]
fn a_pipe_in_the_place_of_a_log_holds_up_nobody() {
    let server = Server::start();
    server.deploy(&manifest(&[function("f", &[], ""), function("g", &[], "")]));
    for name in ["f", "g"] {
        assert_eq!(call(server.gateway, "GET", &format!("/f/{name}/log/1"), "", b"").status(), 200);
    }
    let folder = server.data().join("logs/f");
    let log = until("there is a log", || fs::read_dir(&folder).ok()?.flatten().next().map(|entry| entry.path()));
    fs::remove_file(&log).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &log, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert_eq!(call(server.gateway, "GET", "/f/f/log/1", "", b"").status(), 200);
    assert_eq!(call(server.gateway, "GET", "/f/g/log/7", "", b"").status(), 200);
    until_true("the other one is heard", || {
        server.api_get("/api/v1/functions/g/logs?tail=50").text().contains("subject: line 6")
    });
    assert_eq!(server.api_get("/api/v1/functions/f/logs?tail=50").status(), 200);
}

#[test]
fn what_a_program_wrote_is_for_operators() {
    let server = Server::start();
    // A function for each caller: what failed is not tried again at once.
    let dies = |name: &str| {
        format!("  {name}:\n    run: [sh, -c, \"echo password-in-stderr >&2; exit 3\"]\n    timeouts: {{queue: 5s}}\n")
    };
    server.deploy_without_wait(&manifest(&["f", "g", "h"].map(dies)));
    let key = |role: &str| {
        let made = server.kip(&["key", "create", role, "--role", role]).ok();
        format!("authorization: Bearer {}\r\n", made.stdout.trim_end())
    };
    for (name, headers, told) in [("f", String::new(), false), ("g", key("invoke"), false), ("h", key("operate"), true)]
    {
        let answer = call(server.gateway, "GET", &format!("/f/{name}/"), &headers, b"");
        assert!(answer.status() >= 500, "{answer:?}");
        assert_eq!(answer.text().contains("password-in-stderr"), told, "{answer:?}");
    }
}

#[test]
fn a_report_of_progress_without_a_token_is_not_read() {
    let server = Server::start();
    let mut caller = crate::http::Caller::connect(server.api);
    // No byte of the body is sent: whoever waited for it would not answer.
    caller.send("POST", "/api/v1/progress/1/1/00000000000000000000000000000000", "content-length: 8000000\r\n");
    assert_eq!(caller.answer("POST").status(), 404);
    let mut caller = crate::http::Caller::connect(server.api);
    caller.send("GET", "/api/v1/status", "");
    let refused = caller.answer("GET");
    assert_eq!((refused.status(), refused.header("connection")), (401, Some("close")), "{refused:?}");
    until_true("the connection is closed", || caller.is_closed());
}

#[test]
fn wrong_keys_are_counted_logged_and_slowed() {
    let server = Server::start();
    let guess =
        || call(server.api, "GET", "/api/v1/status", &format!("authorization: Bearer kw_{:064x}\r\n", 7), b"").status();
    assert!((0..22).all(|_| guess() == 401));
    let metrics = server.api_get("/metrics").text();
    let line = metrics.lines().find(|line| line.contains("@unknown"));
    assert!(line.is_some_and(|line| line.ends_with(" 22")), "{line:?}");
    assert!(server.log().contains("keys that are not known"), "{}", server.log());
    // The administrator is not slowed by them for long, and not refused.
    assert_eq!(server.api_get("/api/v1/status").status(), 200);
}

#[test]
fn a_query_is_in_no_record_and_no_backup() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    assert_eq!(server.get("/pid?token=hidden-word").status(), 200);
    // A caller may take a path for the place of its key.
    let key = format!("kw_{:064x}", 7);
    server.get(&format!("/pid/{key}/x"));
    server.until_record("a key in a path is masked", |record| record["path"] == "/pid/***/x");
    call(server.gateway, "GET", &format!("/f/nobody/{key}"), "", b"");
    assert_eq!(server.call_with("GET", "/pid", &format!("x-request-id: {key}\r\n"), b"").status(), 200);
    assert!(!server.api_get("/api/v1/requests?limit=1000").text().contains(&key));
    let long = "p".repeat(8_000);
    server.get(&format!("/pid/{long}?token=hidden-word"));
    server.until_record("the first is recorded", |record| record["path"] == "/pid");
    let cut = server
        .until_record("the second is recorded", |record| record["path"].as_str().is_some_and(|path| path.len() > 100));
    assert_eq!(cut["path"].as_str().unwrap().len(), 1_024);
    let backup = server.folder().join("backup");
    server.kip(&["backup", backup.to_str().unwrap()]).ok();
    let bytes = fs::read(backup).unwrap();
    assert!(!bytes.windows(11).any(|window| window == b"hidden-word"));
    assert!(!server.api_get("/api/v1/requests").text().contains("hidden-word"));
}

#[test]
fn the_log_of_a_server_in_the_background_turns_over_while_it_runs() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    // Nearly as large as a log may be.
    let log = data.join("server.log");
    fs::File::create(&log).unwrap().set_len((16 << 20) - 64).unwrap();
    let ask = |arguments: &[&str]| run(kip(&data).env("KIPWAKE_LOG", "debug").args(arguments));
    ask(&["start", "--gateway", "127.0.0.1:0", "--api", "127.0.0.1:0"]).ok();
    until_true("it turns over", || data.join("server.log.1").exists() && fs::metadata(&log).is_ok());
    ask(&["stop"]).ok();
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("stopping"), "the new file is written to: {text}");
    assert!(fs::metadata(data.join("server.log.1")).unwrap().len() < 17 << 20, "and the old one is not");
}

#[test]
fn a_folder_is_its_functions_to_write_if_an_administrator_says_so() {
    let server = Server::start();
    if !is_root() || server.api_get("/api/v1/status").json()["isolation_missing"].is_string() {
        println!("skipped: it takes root with the right to mount");
        return;
    }
    let own = server.folder().join("own");
    let foreign = server.folder().join("foreign");
    for folder in [&own, &foreign] {
        fs::create_dir(folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(own.join("of-root"), "before").unwrap();
    let tries = [
        ("make", "echo made > made".to_owned()),
        ("change", "echo after >> of-root".to_owned()),
        ("nested", "mkdir -p a/b && echo deep > a/b/c".to_owned()),
        ("suid", "cp /bin/true tool && chmod u+s tool".to_owned()),
        ("sgid-folder", "mkdir -m 2755 shared".to_owned()),
        ("suid-made", "python3 -c 'import os; os.open(\"x\", os.O_CREAT | os.O_WRONLY, 0o4755)'".to_owned()),
        ("beside", format!("touch {}/x", foreign.display())),
        ("key", format!("cat {}", server.data().join("admin.key").display())),
    ];
    let text = manifest(&[intruder("f", &tries)]).replace("    env:", &format!("    dir: {}\n    env:", own.display()));
    server.deploy(&text);
    let found = outcomes(&server, "f");
    for (name, _) in &tries {
        let expected = if ["make", "change", "nested"].contains(name) { "reached" } else { "denied" };
        assert!(found.contains(&format!("{name}={expected}")), "{name}: {found:?}");
    }
    let about = fs::metadata(own.join("a/b/c")).unwrap();
    assert_eq!((about.uid(), about.gid()), (0, 0), "it belongs to the folder's owner");
    assert_eq!(fs::metadata(own.join("tool")).unwrap().permissions().mode() & 0o7000, 0);

    // Another role cannot give away what is not its own.
    let key = server.kip(&["key", "create", "ci", "--role", "deploy"]).ok().stdout.trim_end().to_owned();
    let text = manifest(&[intruder("g", &[("make", "echo made > made".to_owned())])])
        .replace("    env:", &format!("    dir: {}\n    env:", foreign.display()));
    fs::write(server.folder().join("kip.yaml"), text).unwrap();
    server.kip(&["deploy", "kip.yaml", "--key", &key]).ok();
    assert!(outcomes(&server, "g").contains(&"make=denied".to_owned()));
}

#[test]
fn a_job_of_root_writes_into_its_folder() {
    let server = Server::start();
    if !is_root() || server.api_get("/api/v1/status").json()["isolation_missing"].is_string() {
        println!("skipped: it takes root with the right to mount");
        return;
    }
    let text = "api: kip/v1\njobs:\n  train: {run: [sh, -c, 'echo done > result'], grace: 5s}\n";
    let own = server.folder().join("app");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("kip.yaml"), text).unwrap();
    server.kip(&["deploy", "app"]).ok();
    server.kip(&["job", "run", "train"]).ok();
    assert_eq!(fs::read_to_string(own.join("result")).unwrap(), "done\n");
    run(kip(&server.data()).args(["run", "--", "sh", "-c", "echo more >> result"]).current_dir(&own)).ok();
    assert_eq!(fs::read_to_string(own.join("result")).unwrap(), "done\nmore\n");
}
