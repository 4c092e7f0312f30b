//! State and the disk below it: backups, full and failing disks, older and newer files, a stepped clock, request records.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Server, apart, call, function, is_alive, kip, manifest, run, until_true};

/// A library that makes a server's writes and syncs fail as a file says; see `faults.c`. `None` without a C compiler.
fn faults_library() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("faults.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/binary/faults.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        built.ok()?.success().then_some((folder, library))
    });
    built.as_ref().map(|(_, library)| library.as_path())
}

/// A server on a disk, or with a clock, that can be made to misbehave.
pub(crate) struct FaultyServer {
    pub(crate) server: Server,
    rules: PathBuf,
}

impl FaultyServer {
    pub(crate) fn start(settings: &str) -> Option<Self> {
        let library = faults_library();
        if library.is_none() {
            eprintln!("skipped: there is no C compiler to build the library that makes the disk fail");
        }
        let library = library?;
        let mut server = Server::with(settings);
        stop(&mut server);
        let rules = server.folder().join("faults");
        fs::write(&rules, "").unwrap();
        let mut command = server.serve_command();
        command.env("LD_PRELOAD", library).env("FAULTS", &rules);
        server.start_by(command);
        Some(Self { server, rules })
    }

    /// From now on these rules hold, and no others.
    pub(crate) fn rules(&self, rules: &str) {
        let new = self.rules.with_extension("new");
        fs::write(&new, rules).unwrap();
        fs::rename(new, &self.rules).unwrap();
    }

    pub(crate) fn start_again_without_faults(&mut self) {
        self.rules("");
        stop(&mut self.server);
        self.server.start_again();
    }
}

fn stop(server: &mut Server) {
    server.signal(Signal::INT);
    assert!(server.wait().success());
}

fn names(server: &Server) -> Vec<String> {
    let list = server.ask(&["ls"]);
    list.as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect()
}

fn ready(server: &Server) -> (u16, Value) {
    let answer = call(server.api, "GET", "/readyz", "", b"");
    (answer.status(), answer.json())
}

fn disk(server: &Server) -> Value {
    server.api_get("/api/v1/status").json()["host"]["disk"].clone()
}

fn events(server: &Server) -> String {
    server.api_get("/api/v1/status").json()["events"].to_string()
}

fn deploy_one(server: &Server, name: &str) -> crate::support::CommandOutput {
    server.try_deploy(&manifest(&[function(name, &[], "")]))
}

#[test]
fn a_backup_is_put_back_while_the_server_runs() {
    let server = Server::start();
    server.deploy(&manifest(&[
        function("f", &[], ""),
        function("gone", &[], ""),
        function("changed", &[], "env: {WHICH: first}"),
    ]));
    let get = |name: &str, path: &str| call(server.gateway, "GET", &format!("/f/{name}{path}"), "", b"");
    let kept = get("f", "/pid").text();
    let backup = server.ask(&["backup", "one.backup"]);
    assert_eq!(backup["functions"], 3, "{backup}");
    server.deploy(&manifest(&[function("changed", &[], "env: {WHICH: second}"), function("new", &[], "")]));
    server.kip(&["rm", "gone"]).ok();
    let changed_before = server.ask(&["inspect", "changed"])["version"].clone();

    let restored = server.ask(&["restore", "one.backup"]);
    assert_eq!(restored["kept"], serde_json::json!(["f"]), "{restored}");
    assert_eq!(restored["deployed"], serde_json::json!(["changed", "gone"]), "{restored}");
    assert_eq!(restored["removed"], serde_json::json!(["new"]), "{restored}");
    assert_eq!(names(&server), ["changed", "f", "gone"]);
    let after = get("f", "/pid");
    assert_eq!((after.text(), after.header("x-kip-start")), (kept, Some("warm")), "its instance was kept");
    assert_eq!(get("gone", "/pid").status(), 200);
    assert_eq!(get("new", "/").code(), "KW-2001");
    let changed = server.ask(&["inspect", "changed"]);
    assert_eq!(changed["spec"]["env"]["WHICH"], "first", "{changed}");
    assert_ne!(changed["version"], changed_before, "numbers of versions are never reused");

    // What was there before the restore is in a copy, and comes back in the same way.
    server.kip(&["restore", "data/before-restore.backup"]).ok();
    assert_eq!(names(&server), ["changed", "f", "new"]);
    let requests = server.ask(&["requests", "gone"]);
    assert_eq!(requests.as_array().unwrap().len(), 1, "records stay unless asked for: {requests}");
}

#[test]
fn a_backup_under_load_is_whole() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    let (gateway, folder) = (server.gateway, server.folder().to_owned());
    let callers: Vec<_> = (0..3)
        .map(|_| apart(move || (0..200).filter(|_| call(gateway, "GET", "/f/f/pid", "", b"").status() == 200).count()))
        .collect();
    for number in 0..5 {
        deploy_one(&server, &format!("g{number}")).ok();
        let file = format!("{number}.backup");
        assert_eq!(server.ask(&["backup", &file])["functions"], number + 2);
    }
    assert!(callers.into_iter().all(|caller| caller.join().unwrap() == 200), "a backup disturbs no request");
    for number in 0..5 {
        let fresh = tempfile::tempdir().unwrap();
        let file = folder.join(format!("{number}.backup"));
        let ran = run(kip(fresh.path()).arg("restore").arg(&file).args(["--yes", "-o", "json"])).ok();
        assert_eq!(ran.json()["deployed"].as_array().unwrap().len(), number + 2);
    }
}

#[test]
fn a_backup_brings_a_data_directory_back_without_a_server() {
    let mut server = Server::start();
    server.deploy_subject(&[], "");
    server.get("/pid");
    let key = server.key.clone();
    stop(&mut server);
    server.kip(&["backup", "one.backup"]).ok();
    fs::write(server.data().join("control.db"), vec![b'x'; 10_000]).unwrap();
    let _ = fs::remove_file(server.data().join("control.db-wal"));
    server.kip(&["restore", "one.backup", "--yes"]).ok();
    server.start_again();
    assert_eq!((names(&server), &server.key), (vec!["f".to_owned()], &key));
    assert_eq!(server.get("/pid").status(), 200);
    let kept = fs::read_dir(server.data()).unwrap().flatten();
    assert!(kept.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("control.db.unreadable-")));
    server.kip(&["ls", "--key", &key]).ok();
}

#[test]
fn backups_that_cannot_be_used_change_nothing() {
    let server = Server::start();
    server.deploy_subject(&[], "");
    server.kip(&["backup", "one.backup"]).ok();
    server.kip(&["backup", "one.backup"]).failed(&["KW-8013", "one.backup", "--force"]);
    server.kip(&["backup", "one.backup", "--force"]).ok();
    server.kip(&["backup", "nowhere/one.backup"]).failed(&["KW-8014", "nowhere"]);
    let path = |name: &str| server.folder().join(name);
    let mut whole = fs::read(path("one.backup")).unwrap();
    fs::write(path("short.backup"), &whole[..whole.len() / 2]).unwrap();
    let middle = whole.len() / 2;
    whole[middle..middle + 64].fill(0xA5);
    fs::write(path("scratched.backup"), &whole).unwrap();
    fs::write(path("text.backup"), "not a backup").unwrap();
    fs::copy(server.data().join("control.db"), path("other.backup")).unwrap();
    fs::copy(path("one.backup"), path("newer.backup")).unwrap();
    let newer = rusqlite::Connection::open(path("newer.backup")).unwrap();
    let manifest: String = newer.query_row("SELECT text FROM manifest", [], |row| row.get(0)).unwrap();
    let mut manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["format"] = 99.into();
    let text = manifest.to_string();
    let sum = run(Command::new("sha256sum").arg({
        let file = path("manifest");
        fs::write(&file, &text).unwrap();
        file
    }))
    .ok()
    .stdout;
    let sum = sum.split_whitespace().next().unwrap();
    newer.execute("UPDATE manifest SET text = ?1, sha256 = ?2", [&text, sum]).unwrap();
    drop(newer);
    deploy_one(&server, "g").ok();
    for (file, code) in [
        ("short", "KW-8015"),
        ("scratched", "KW-8015"),
        ("text", "KW-8015"),
        ("other", "KW-8015"),
        ("newer", "KW-8016"),
        ("nothing", "KW-8014"),
    ] {
        server.kip(&["restore", &format!("{file}.backup")]).failed(&[code, file]);
        assert_eq!(names(&server), ["f", "g"], "{file}");
    }
    let stranger = Server::start();
    let file = path("one.backup");
    stranger.kip(&["restore", file.to_str().unwrap()]).failed(&["KW-8017", "--force"]);
    assert_eq!(names(&stranger), Vec::<String>::new());
    // Keys come only if somebody says so.
    let before = stranger.ask(&["key", "ls"]);
    stranger.kip(&["restore", file.to_str().unwrap(), "--force"]).failed(&["KW-7070", "admin (admin)", "--yes"]);
    assert_eq!((names(&stranger), stranger.ask(&["key", "ls"])), (Vec::new(), before.clone()), "nothing was changed");
    stranger.kip(&["restore", file.to_str().unwrap(), "--force", "--without-keys"]).ok();
    assert_eq!(names(&stranger), ["f"]);
    let keys =
        |list: &serde_json::Value| list.as_array().unwrap().iter().map(|key| key["name"].clone()).collect::<Vec<_>>();
    assert_eq!(keys(&stranger.ask(&["key", "ls"])), keys(&before), "and no key came");
    let told = stranger.kip(&["restore", file.to_str().unwrap(), "--force", "--yes"]).ok().stdout;
    assert!(told.contains("added the key admin") && told.contains("(admin), which is valid at once"), "{told}");
    assert_eq!((names(&stranger), stranger.get("/pid").status()), (vec!["f".to_owned()], 200));
    for key in [&stranger.key, &server.key] {
        stranger.kip(&["ls", "--key", key]).ok();
    }
    fs::remove_file(stranger.data().join("server.json")).unwrap();
    stranger.kip(&["restore", file.to_str().unwrap()]).failed(&["KW-8001", "kip stop"]);
    let left: Vec<_> = fs::read_dir(server.data()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("restore")), "{left:?}");
}

#[test]
fn state_of_an_older_version_is_copied_before_it_is_changed() {
    let mut server = Server::start();
    stop(&mut server);
    let file = server.data().join("records.db");
    for name in ["records.db", "records.db-wal", "records.db-shm"] {
        let _ = fs::remove_file(server.data().join(name));
    }
    let old = rusqlite::Connection::open(&file).unwrap();
    let schema = "CREATE TABLE requests (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL) STRICT;
        CREATE INDEX requests_by_function ON requests (function, id);
        CREATE TABLE decisions (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL) STRICT;
        CREATE INDEX decisions_by_function ON decisions (function, id);
        PRAGMA user_version = 1;";
    old.execute_batch(schema).unwrap();
    let at = kip_host::clock::wall_millis();
    let record = serde_json::json!({"id": "old", "at": at, "function": "f", "version": 1, "instance": null, "method": "GET",
        "path": "/", "status": 503, "code": "KW-3004", "start": null, "queue_us": 1, "first_byte_us": 0, "total_us": 2,
        "bytes": 0, "outcome": "refused"});
    old.execute("INSERT INTO requests (function, record) VALUES ('f', ?1)", [record.to_string()]).unwrap();
    drop(old);
    server.start_again();
    let found = server.ask(&["requests", "--code", "KW-3004"]);
    assert_eq!((&found[0]["id"], found.as_array().unwrap().len()), (&"old".into(), 1), "{found}");
    let is_copy = |path: &PathBuf| path.to_string_lossy().contains("/records.before-schema-");
    let copy = fs::read_dir(server.data()).unwrap().map(|entry| entry.unwrap().path()).find(is_copy).unwrap();
    let copy = rusqlite::Connection::open(copy).unwrap();
    let schema: u32 = copy.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(schema, 1);
}

#[test]
fn a_full_disk_takes_the_reserve_and_the_change_goes_through() {
    let Some(mut faulty) = FaultyServer::start("") else { return };
    let server = &faulty.server;
    let reserve = server.data().join("reserve");
    assert!(reserve.is_file());
    faulty.rules(&format!("full control.db {}", reserve.display()));
    server.deploy_subject(&[], "");
    faulty.rules("");
    until_true("the reserve is held again", || reserve.is_file() && disk(server)["level"] == "ok");
    assert_eq!(server.get("/pid").status(), 200);
    faulty.start_again_without_faults();
    assert_eq!(names(&faulty.server), ["f"], "what was acknowledged is there");
}

#[test]
fn without_any_room_changes_are_refused_until_there_is_some() {
    let Some(mut faulty) = FaultyServer::start("") else { return };
    let server = &faulty.server;
    server.deploy_subject(&[], "");
    let instance = server.get("/pid").text();
    faulty.rules("full control.db\nfull reserve\nfull records.db");
    deploy_one(server, "g").failed(&["KW-8011", "make room"]);
    deploy_one(server, "g").failed(&["KW-8011"]);
    server.kip(&["rm", "f"]).failed(&["KW-8011"]);
    for _ in 0..20 {
        assert_eq!(server.get("/pid").text(), instance, "functions go on serving");
    }
    let (status, health) = ready(server);
    assert_eq!((status, &health["state"], &health["serving"]), (503, &"full".into(), &true.into()), "{health}");
    let doctor = server.doctor().to_string();
    assert!(doctor.contains("KW-8011"), "{doctor}");
    until_true("it is said", || events(server).contains("deployments and removals are refused"));
    let shed = server.api_get("/api/v1/status").json()["host"]["shed_records"].as_u64().unwrap();
    assert!(shed >= 20, "records are left out and counted: {shed}");

    faulty.rules("");
    until_true("changes are taken again by themselves", || ready(server).0 == 200);
    deploy_one(server, "g").ok();
    assert!(events(server).contains("again"), "{}", events(server));
    assert!(server.data().join("reserve").is_file());
    faulty.start_again_without_faults();
    assert_eq!(names(&faulty.server), ["f", "g"]);
}

#[test]
fn a_failed_sync_ends_all_changes_until_a_new_start() {
    for rule in ["lost control.db-wal", "broken control.db-wal"] {
        let Some(mut faulty) = FaultyServer::start("") else { return };
        let server = &faulty.server;
        server.deploy_subject(&[], "");
        let instance = server.get("/pid").text();
        faulty.rules(rule);
        deploy_one(server, "unsure").failed(&["KW-8012", "start the server again"]);
        // The disk is well again, but nobody knows what it kept.
        faulty.rules("");
        deploy_one(server, "g").failed(&["KW-8012"]);
        server.kip(&["rm", "f"]).failed(&["KW-8012"]);
        assert_eq!(server.get("/pid").text(), instance, "functions go on serving");
        let (status, health) = ready(server);
        assert_eq!((status, &health["state"]), (503, &"not_durable".into()), "{health}");
        assert!(server.doctor().to_string().contains("KW-8012"));
        until_true("it is said", || events(server).contains("not durable"));
        faulty.start_again_without_faults();
        let after = names(&faulty.server);
        assert!(after.contains(&"f".to_owned()) && !after.contains(&"g".to_owned()), "{after:?}");
        deploy_one(&faulty.server, "g").ok();
    }
}

#[test]
fn a_failed_sync_of_the_database_itself_ends_changes_too() {
    let Some(mut faulty) = FaultyServer::start("") else { return };
    let server = &faulty.server;
    server.deploy_subject(&[], "");
    // The log is synced, and so what is acknowledged; moving it into the database fails, which SQLite alone would not say.
    faulty.rules("lost control.db$");
    let large = "x".repeat(20_000);
    let many: Vec<String> =
        (0..40).map(|number| function(&format!("g{number}"), &[], &format!("env: {{LARGE: {large}}}"))).collect();
    let text = manifest(&many);
    // The move may fail in the midst of a deployment: that one is refused, the ones before were acknowledged.
    let deployed = (0..10).take_while(|_| ready(server).0 == 200 && server.try_deploy(&text).code == Some(0)).count();
    assert!((1..10).contains(&deployed), "{deployed}");
    until_true("changes are refused", || ready(server).0 != 200);
    faulty.rules("");
    deploy_one(server, "late").failed(&["KW-8012"]);
    assert_eq!(ready(server).1["state"], "not_durable");
    faulty.start_again_without_faults();
    let after = names(&faulty.server);
    assert_eq!(after.len(), 41, "what was acknowledged is there");
    assert!(!after.contains(&"late".to_owned()));
}

#[test]
fn a_server_killed_in_a_restore_has_all_of_it_or_nothing() {
    for (rule, may_be_new) in [("hang control.db-wal", false), ("hangsync control.db-wal", true)] {
        let Some(mut faulty) = FaultyServer::start("") else { return };
        let server = &faulty.server;
        server.deploy(&manifest(&[function("f", &[], ""), function("old", &[], "")]));
        server.kip(&["backup", "one.backup"]).ok();
        server.kip(&["rm", "old"]).ok();
        deploy_one(server, "new").ok();
        faulty.rules(rule);
        let (data, file) = (server.data(), server.folder().join("one.backup"));
        let restoring = apart(move || run(kip(&data).arg("restore").arg(file)));
        until_true("it hangs", || faulty.rules.with_extension("hangs").exists());
        server.signal(Signal::KILL);
        faulty.server.wait();
        assert_eq!(restoring.join().unwrap().code, Some(1), "nothing was acknowledged");
        faulty.rules("");
        faulty.server.start_again();
        let after = names(&faulty.server);
        assert!(after == ["f", "new"] || (may_be_new && after == ["f", "old"]), "{rule}: {after:?}");
        let left: Vec<String> = fs::read_dir(faulty.server.data())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("restore."))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(faulty.server.get("/pid").status(), 200);
    }
}

#[test]
fn a_server_killed_in_a_backup_leaves_no_half_one() {
    let Some(mut faulty) = FaultyServer::start("") else { return };
    faulty.server.deploy_subject(&[], "");
    faulty.rules("hangsync one.backup");
    let (data, file) = (faulty.server.data(), faulty.server.folder().join("one.backup"));
    let backing_up = apart({
        let file = file.clone();
        move || run(kip(&data).arg("backup").arg(file))
    });
    until_true("it hangs", || faulty.rules.with_extension("hangs").exists());
    faulty.server.signal(Signal::KILL);
    faulty.server.wait();
    assert_eq!(backing_up.join().unwrap().code, Some(1));
    assert!(!file.exists(), "a backup has its name only once it is whole");
    faulty.rules("");
    faulty.server.start_again();
    faulty.server.kip(&["backup", "one.backup"]).ok();
}

#[test]
fn records_that_cannot_be_written_disturb_nobody() {
    let Some(faulty) = FaultyServer::start("") else { return };
    let server = &faulty.server;
    server.deploy_subject(&[], "");
    faulty.rules("broken records.db");
    for _ in 0..20 {
        assert_eq!(server.get("/pid").status(), 200);
    }
    until_true("they are counted", || {
        server.api_get("/api/v1/status").json()["host"]["shed_records"].as_u64().unwrap_or_default() > 0
    });
    deploy_one(server, "g").ok();
    assert_eq!(ready(server).0, 200, "state is well");
}

/// A small file system of its own; gone when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None` where we may not mount.
    fn new(folder: &Path, options: &str) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: a small file system cannot be mounted here, which only root may");
            return None;
        }
        Some(Self(folder.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_sheds_records_and_keeps_state() {
    let mut server = Server::start();
    stop(&mut server);
    let Some(_mount) = Mount::new(&server.data(), "size=48m,mode=700") else {
        return server.start_again();
    };
    fs::write(server.data().join("kipwake.toml"), "[disk]\nlow = \"8MiB\"\nreserve = \"4MiB\"\n").unwrap();
    server.start_again();
    server.deploy_subject(&[], "");
    assert_eq!(server.get("/pid").status(), 200);
    server.until_record("a record", |record| record["status"] == 200);
    let filler = server.data().join("filler");
    let fill = |leave: u64| {
        let free = kip_host::disk::space(&server.data()).unwrap().free;
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
        let bytes = usize::try_from(free.saturating_sub(leave)).unwrap();
        let _ = std::io::Write::write_all(&mut file, &vec![0; bytes]);
    };
    fill(4 << 20);
    until_true("it is noticed", || disk(&server)["level"] == "low");
    assert_eq!(server.get("/pid/shed").status(), 200);
    deploy_one(&server, "g").ok();
    fill(0);
    until_true("it is noticed", || disk(&server)["level"] == "full");
    for number in 0..5 {
        deploy_one(&server, &format!("h{number}")).ok();
    }
    assert!(!server.data().join("reserve").is_file(), "state was written into the room of the reserve");
    assert_eq!(server.get("/pid/shed").status(), 200);
    fs::remove_file(&filler).unwrap();
    until_true("all is well again", || disk(&server)["level"] == "ok" && server.data().join("reserve").is_file());
    assert_eq!(server.get("/pid/after").status(), 200);
    server.until_record("records are written again", |record| record["path"] == "/pid/after");
    let requests = server.ask(&["requests", "f"]).to_string();
    assert!(!requests.contains("shed"), "{requests}");
    let said = events(&server);
    assert!(said.contains("nearly full") && said.contains("has room again"), "{said}");
    let doctor = server.doctor().to_string();
    assert!(doctor.contains("in memory (tmpfs)") && server.log().contains("in memory"), "{doctor}");

    // A start on a disk that is full to the last byte.
    stop(&mut server);
    let mut file = fs::File::create(&filler).unwrap();
    let _ = std::io::copy(&mut std::io::repeat(0), &mut file);
    server.start_again();
    assert_eq!(names(&server).len(), 7);
    deploy_one(&server, "last").ok();
    assert!(is_alive(server.pid));
    fs::remove_file(&filler).unwrap();
    stop(&mut server);
}

#[test]
fn a_read_only_data_directory_is_named() {
    let mut server = Server::start();
    stop(&mut server);
    let Some(_mount) = Mount::new(&server.data(), "size=48m,mode=700") else { return };
    let again = Command::new("mount").args(["-o", "remount,ro"]).arg(server.data()).status().unwrap();
    assert!(again.success());
    let ran = run(kip(&server.data()).args(["serve", "--gateway", "127.0.0.1:0", "--api", "127.0.0.1:0"]));
    ran.failed(&["KW-8003", "--data-dir"]);
}

#[test]
fn a_stepped_clock_fires_nothing_early() {
    for step in ["clock 3600", "clock -3600"] {
        let Some(faulty) = FaultyServer::start("") else { return };
        let server = &faulty.server;
        server.deploy(&manifest(&[
            function("f", &[], "idle: {pause: 10m}\ntimeouts: {total: 10m}"),
            function("g", &[], "idle: {pause: 50ms}"),
        ]));
        assert_eq!(server.get("/pid").status(), 200);
        let streaming = server.later("GET", "/stream/20/30");
        until_true("it is in flight", || server.function()["in_flight"] == 1);
        let before = kip_host::clock::wall_millis();
        faulty.rules(step);
        let answer = streaming.join().unwrap();
        assert!(answer.clean && answer.text().contains("data: 19"), "{answer:?}");
        assert_eq!(call(server.gateway, "GET", "/f/g/pid", "", b"").status(), 200);
        until_true("timers of after the step fire", || {
            server.instances().iter().any(|line| line["function"] == "g" && line["state"] == "paused")
        });
        let f = server.instances().into_iter().find(|line| line["function"] == "f").unwrap();
        assert_eq!(f["state"], "ready", "{f}");
        assert_eq!(server.get("/pid").header("x-kip-start"), Some("warm"));
        let record = server.ask(&["requests", "g"])[0].clone();
        let seconds: i64 = step.trim_start_matches("clock ").parse().unwrap();
        let off = record["at"].as_i64().unwrap() - before - seconds * 1_000;
        assert!((0..60_000).contains(&off), "records carry wall time: {record}");
        assert!(record["total_us"].as_u64().unwrap() < 60_000_000, "phases do not: {record}");
    }
}

#[test]
fn records_are_found_by_what_they_say() {
    let server = Server::start();
    server.deploy(&manifest(&[
        function("f", &[], "instances: {max: 1}"),
        "  bad:\n    run: no-such-program\n".to_owned(),
    ]));
    assert_eq!(server.get("/pid").status(), 200);
    let body = vec![b'x'; 100_000];
    assert_eq!(server.call_with("POST", "/echo", "x-request-id: mine\r\n", &body).status(), 200);
    assert_eq!(server.get("/status/404").status(), 404);
    assert_eq!(call(server.gateway, "GET", "/f/bad/", "", b"").status(), 502);
    let found = |arguments: &[&str]| {
        let list = server.ask(&[&["requests"], arguments].concat());
        list.as_array().unwrap().clone()
    };
    assert_eq!(found(&[]).len(), 4);
    let mine = found(&["--id", "mine"]);
    let record = &mine[0];
    assert_eq!((mine.len(), &record["kind"], &record["start"]), (1, &"on-demand".into(), &"warm".into()), "{record}");
    assert_eq!(record["bytes_in"], 100_000, "{record}");
    let cold = found(&["f", "--start", "cold"]);
    assert_eq!((cold.len(), &cold[0]["path"]), (1, &"/pid".into()));
    assert!(cold[0]["total_us"].as_u64() >= cold[0]["queue_us"].as_u64(), "{cold:?}");
    assert_eq!(found(&["--status", "5xx"]).len(), 1);
    assert_eq!(found(&["--status", ">=400"]).len(), 2);
    assert_eq!(found(&["--status", "404"]).len(), 1);
    assert_eq!(found(&["--code", "kw-4001", "--outcome", "broken"]).len(), 1);
    assert_eq!(found(&["--kind", "on-demand", "--limit", "2"]).len(), 2);
    assert_eq!(found(&["--kind", "provisioned"]).len(), 0);
    assert_eq!(found(&["--since", "1h"]).len(), 4);
    assert_eq!(found(&["--since", "2999-01-01T00:00:00Z"]).len(), 0);
    let instance = record["instance"].as_str().unwrap();
    assert_eq!(found(&["--instance", instance, "--version", "v1"]).len(), 3);
    assert_eq!(found(&["--slower-than", "0ms", "f"]).len(), 3);
    assert_eq!(found(&["--slower-than", "1h"]).len(), 0);
    server.kip(&["requests", "--status", "many"]).failed(&["KW-7003", "5xx"]);
    server.kip(&["requests", "--start", "hot"]).failed(&["KW-7003", "woken"]);
    server.kip(&["requests", "--since", "yesterday"]).failed(&["KW-7007", "10m"]);
    let unknown = server.api_get("/api/v1/requests?colour=red");
    assert_eq!(unknown.json()["error"]["code"], "KW-7003", "{unknown:?}");
}

/// Standard error on a full disk: where the log of a server in the background lies beside its state.
#[test]
fn a_log_that_cannot_be_written_costs_nothing_but_its_lines() {
    let mut server = Server::start();
    server.deploy_subject(&[], "idle: {pause: 10ms}");
    server.terminate();
    let serve = server.serve_command();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 2>/dev/full"]).arg(serve.get_program()).args(serve.get_args());
    server.start_by(command);
    for _ in 0..3 {
        assert_eq!(server.get("/pid").status(), 200);
        server.until_state("paused");
    }
    let status = server.api_get("/api/v1/status").json();
    assert!(status["host"]["dropped_log_lines"].as_u64() > Some(0), "{status}");
    let doctor = server.kip(&["doctor"]);
    assert!(doctor.stdout.contains("lines could not be written"), "{doctor:?}");
    server.deploy_subject(&[], "idle: {pause: never}");
    assert_eq!(server.get("/pid").status(), 200);
}

#[test]
fn doctor_says_that_a_server_does_not_answer() {
    let server = Server::start();
    server.signal(Signal::STOP);
    let doctor = server.kip(&["doctor"]);
    server.signal(Signal::CONT);
    assert!(
        doctor.stdout.contains(&format!("process {} holds the data directory and does not answer", server.pid)),
        "{doctor:?}"
    );
}
