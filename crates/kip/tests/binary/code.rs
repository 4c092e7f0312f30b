//! A version holds its code: what its folder had when it was deployed, whatever becomes of the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::bodies;
use crate::http::Answer;
use crate::support::{Server, apart, call, kill, subject, until, until_true};

/// A folder with a program that tells what its release is.
fn folder(server: &Server) -> PathBuf {
    let app = server.folder().join("app");
    fs::create_dir_all(&app).unwrap();
    let text = format!(
        "#!/bin/sh\nRELEASE=$(cat release.txt) FOUND=$(ls -A | tr '\\n' ' ') exec {} \"$@\"\n",
        subject().display()
    );
    fs::write(app.join("start"), text).unwrap();
    fs::set_permissions(app.join("start"), fs::Permissions::from_mode(0o755)).unwrap();
    app
}

fn release(app: &std::path::Path, number: u32) {
    fs::write(app.join("release.txt"), number.to_string()).unwrap();
}

fn manifest(settings: &str) -> String {
    manifest_of("./start", settings)
}

fn manifest_of(run: &str, settings: &str) -> String {
    let settings: String = settings.lines().map(|line| format!("    {line}\n")).collect();
    format!("api: kip/v1\nfunctions:\n  f:\n    dir: app\n    run: [{run}]\n{settings}")
}

fn seen(server: &Server, qualifier: &str) -> (String, String) {
    let answer = call(server.gateway, "GET", &format!("/f/f{qualifier}/env"), "", b"");
    assert_eq!(answer.status(), 200, "{qualifier}: {answer:?}\n{}", server.log());
    let text = |name: &str| answer.json()[name].as_str().unwrap_or_default().to_owned();
    (text("RELEASE"), text("FOUND"))
}

fn end_instances(server: &Server) {
    server.known().into_iter().for_each(|process| kill(process, rustix::process::Signal::KILL));
    server.until_no_instance();
}

/// Why there is nothing to test here.
#[expect(clippy::print_stdout, reason = "a test that cannot run here says so")]
fn skipped(server: &Server) -> bool {
    let mounts = server.api_get("/api/v1/status").json()["mounts"] == true;
    if !mounts {
        println!("skipped: this host gives no mount namespaces");
    }
    !mounts || bodies::engine().is_some()
}

#[test]
fn a_version_runs_the_files_that_it_was_deployed_with() {
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 1);
    server.deploy(&manifest(""));
    server.kip(&["version", "publish", "f"]).ok();
    assert_eq!(seen(&server, "").0, "1");
    end_instances(&server);
    release(&app, 2);
    fs::write(app.join("more.txt"), "x").unwrap();
    assert_eq!(seen(&server, "").0, "1", "an edit changes nothing that was deployed");
    server.deploy(&manifest(""));
    server.kip(&["version", "publish", "f"]).ok();
    assert_eq!(seen(&server, ""), ("2".to_owned(), "more.txt release.txt start ".to_owned()));
    assert_eq!(seen(&server, "@1"), ("1".to_owned(), "release.txt start ".to_owned()));
    let diff = server.ask(&["version", "diff", "f", "1", "2"]);
    let fields: Vec<&str> =
        diff["fields"].as_array().unwrap().iter().map(|field| field["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["code.snapshot.digest", "code: more.txt", "code: release.txt"]);
    assert_eq!(
        server.kip(&["version", "publish", "f"]).ok().stdout,
        "f r2 is version 2 already; nothing was changed\n"
    );

    // Back to the first release: the same files are the same snapshot, and what is the same already is not deployed again.
    release(&app, 1);
    fs::remove_file(app.join("more.txt")).unwrap();
    server.kip(&["rollback", "f"]).ok();
    until_true("the first version serves", || seen(&server, "").0 == "1");
    let snapshots = fs::read_dir(server.data().join("snapshots")).unwrap().flatten();
    let kept = snapshots.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count();
    assert_eq!(kept, 2);
}

#[test]
fn a_version_outlives_its_folder_and_its_server() {
    let mut server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 7);
    server.deploy(&manifest("code: snapshot"));
    fs::remove_dir_all(&app).unwrap();
    // The folder is a place that can be shown as long as the root has few others; below it, this test made its own.
    let answer = server.get("/env");
    if answer.status() == 200 {
        assert_eq!(answer.json()["RELEASE"], "7");
    } else {
        assert!(server.function().to_string().contains("KW-4008"), "{answer:?}");
    }
    fs::create_dir(&app).unwrap();
    server.terminate();
    server.start_again();
    until("it runs from its snapshot", || (server.get("/env").json()["RELEASE"] == "7").then_some(()));
}

#[test]
fn instances_write_what_is_writable_and_nothing_else() {
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 1);
    let run =
        format!("sh, -c, \"echo a > outputs/a; echo b > b || echo denied > outputs/b; exec {}\"", subject().display());
    server.deploy(&manifest_of(&run, "code: snapshot\nwritable: [outputs]"));
    assert_eq!(server.get("/").status(), 200);
    assert_eq!(fs::read_to_string(app.join("outputs/a")).unwrap(), "a\n", "what is writable is the live folder's");
    assert_eq!(fs::read_to_string(app.join("outputs/b")).unwrap(), "denied\n");
    assert!(!app.join("b").exists());
    // A program that cannot go without is told the reason.
    server.deploy_without_wait(&manifest_of(&format!("sh, -c, \"echo b > b && exec {}\"", subject().display()), ""));
    let problem = until("the failure is known", || {
        let text = server.function().to_string();
        text.contains("KW-4036").then_some(text)
    });
    assert!(problem.contains("writable"), "{problem}");
    assert_eq!(server.get("/").status(), 200, "the version before serves on");

    let told = server.kip(&["deploy", "f"]).stderr;
    assert!(!told.contains("KW-1053"), "{told}");
}

#[test]
fn live_code_is_what_is_there_at_a_start_and_a_change_to_snapshots_is_told() {
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 1);
    server.deploy(&manifest("code: live"));
    assert_eq!(seen(&server, "").0, "1");
    end_instances(&server);
    release(&app, 2);
    assert_eq!(seen(&server, "").0, "2");
    let told = server.try_deploy(&manifest("")).ok();
    assert!(told.stderr.contains("KW-1053") && told.stderr.contains("writable:"), "{}", told.stderr);
    server.try_deploy(&manifest("code: live\nwritable: [a]")).failed(&["KW-1009", "writable"]);
    server.try_deploy(&manifest("writable: [../a]")).failed(&["KW-1004", "writable"]);
}

#[test]
fn a_large_file_is_the_live_one_and_may_not_change() {
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 1);
    let model = app.join("model.bin");
    let make = || fs::File::create(&model).unwrap().set_len(65 << 20).unwrap();
    make();
    let run = format!("sh, -c, \"SIZE=$(stat -c %s model.bin) exec {}\"", subject().display());
    server.deploy(&manifest_of(&run, "code: snapshot"));
    assert_eq!(server.get("/env").json()["SIZE"], (65u64 << 20).to_string());
    end_instances(&server);
    fs::remove_file(&model).unwrap();
    make();
    let refused = server.get("/env");
    assert_eq!((refused.status(), refused.code().as_str()), (502, "KW-4034"), "{refused:?}");
    assert!(refused.text().contains("model.bin"), "{refused:?}");
    server.deploy(&manifest_of(&run, "code: snapshot"));
    assert_eq!(server.get("/env").status(), 200);
}

#[test]
fn what_cannot_be_captured_is_live_with_a_warning_or_refused_where_it_was_asked_for() {
    let server = Server::with("[functions]\ncode_files = 20\n");
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 1);
    for number in 0..30 {
        fs::write(app.join(format!("{number}.txt")), "x").unwrap();
    }
    let told = server.try_deploy(&manifest("")).ok();
    assert!(told.stderr.contains("KW-1050") && told.stderr.contains("20 files"), "{}", told.stderr);
    server.try_deploy(&manifest("code: snapshot")).failed(&["KW-1051", ".kipignore"]);
    fs::write(app.join(".kipignore"), "[0-9]*.txt\n").unwrap();
    server.deploy(&manifest("code: snapshot"));
    assert_eq!(seen(&server, "").1, ".kipignore release.txt start ");
}

#[test]
fn fifty_updates_of_the_code_and_twenty_moves_under_load_are_each_seen_whole() {
    const UPDATES: u32 = 50;
    const CALLERS: usize = 32;
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    // Two files that must be of one release.
    let text =
        format!("#!/bin/sh\nRELEASE=$(cat release.txt) OTHER=$(cat other.txt) exec {} \"$@\"\n", subject().display());
    fs::write(app.join("start"), text).unwrap();
    let write = |number: u32| {
        release(&app, number);
        fs::write(app.join("other.txt"), number.to_string()).unwrap();
    };
    write(1);
    let settings = "instances: {max: 4, concurrency: 16}\ncode: snapshot";
    server.deploy(&manifest(settings));
    server.kip(&["alias", "set", "f", "prod", "LATEST"]).ok();
    let (stop, gateway) = (Arc::new(AtomicBool::new(false)), server.gateway);
    // What the callers have seen: of each version its release, and no other.
    let ledger = Arc::new(Mutex::new(BTreeMap::new()));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (stop, ledger) = (stop.clone(), ledger.clone());
            let path = if caller % 2 == 0 { "/f/f/env" } else { "/f/f@prod/env" };
            apart(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer: Answer = call(gateway, "GET", path, "", b"");
                    assert_eq!(answer.status(), 200, "{answer:?}");
                    let json = answer.json();
                    assert_eq!(json["RELEASE"], json["OTHER"], "files of two releases");
                    let release: u32 = json["RELEASE"].as_str().unwrap().parse().unwrap();
                    let version = answer.header("x-kip-version").unwrap().to_owned();
                    let known = *ledger.lock().entry(version.clone()).or_insert(release);
                    assert_eq!(known, release, "one version {version} with two releases");
                }
            })
        })
        .collect();
    let seen_by_callers = |release: u32| ledger.lock().values().any(|seen| *seen == release);
    for number in 2..=UPDATES {
        write(number);
        server.deploy(&manifest(settings));
        until_true("callers see the update", || seen_by_callers(number));
        if number % 5 == 0 {
            let older = number - 1;
            server.kip(&["alias", "set", "f", "prod", &format!("r{older}=60,LATEST=40")]).ok();
            server.kip(&["alias", "set", "f", "prod", "LATEST"]).ok();
        }
    }
    stop.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let seen: Vec<u32> = ledger.lock().values().copied().collect();
    assert_eq!(BTreeSet::from_iter(seen), (1..=UPDATES).collect(), "callers saw every release");
}

#[test]
fn a_change_of_a_file_is_deployed_while_somebody_watches() {
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 1);
    let text = manifest("writable: [outputs]");
    fs::write(server.folder().join("kip.yaml"), &text).unwrap();
    let mut command = crate::support::kip(&server.data());
    command.args(["up", server.folder().to_str().unwrap(), "--watch"]).stdout(std::process::Stdio::null());
    let watching = crate::support::ChildGuard::spawn(&mut command);
    until_true("it is deployed", || server.get("/env").status() == 200);
    let revisions = || server.ask(&["version", "ls", "f"]).as_array().unwrap().len();
    release(&app, 2);
    until_true("the change serves", || seen(&server, "").0 == "2");
    fs::write(app.join("outputs/result"), "x").unwrap();
    // What is wrong is told, and the next change is another attempt.
    fs::write(server.folder().join("kip.yaml"), text.replace("run:", "rnu:")).unwrap();
    release(&app, 3);
    fs::write(server.folder().join("kip.yaml"), text).unwrap();
    until_true("the next change serves", || seen(&server, "").0 == "3");
    assert!(revisions() <= 4, "what instances write is no change");
    drop(watching);
}

#[test]
fn where_a_host_gives_no_mounts_an_instance_runs_in_the_snapshot() {
    let server = Server::with("[functions]\nuser = \"server\"\n");
    if bodies::engine().is_some() {
        return;
    }
    let app = folder(&server);
    release(&app, 1);
    let run = format!("sh, -c, \"echo a > outputs/a; RELEASE=$(cat release.txt) exec {}\"", subject().display());
    server.deploy(&manifest_of(&run, "code: snapshot\nwritable: [outputs]"));
    release(&app, 2);
    assert_eq!(seen(&server, "").0, "1");
    assert_eq!(fs::read_to_string(app.join("outputs/a")).unwrap(), "a\n");
    // An environment knows its own path.
    fs::create_dir(app.join(".venv")).unwrap();
    fs::write(app.join(".venv/pyvenv.cfg"), "").unwrap();
    server.try_deploy(&manifest_of(&run, "code: snapshot")).failed(&["KW-1052", ".venv"]);
    let told = server.try_deploy(&manifest_of(&run, "")).ok().stderr;
    assert!(told.contains("KW-1050") && told.contains(".venv"), "{told}");
}

#[test]
fn an_environment_with_an_editable_install_works_at_its_own_path() {
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = server.folder().join("app");
    fs::create_dir_all(app.join("src")).unwrap();
    let made =
        std::process::Command::new("python3").args(["-m", "venv", "--without-pip", "env"]).current_dir(&app).status();
    assert!(made.is_ok_and(|status| status.success()), "Python makes an environment");
    let packages = fs::read_dir(app.join("env/lib")).unwrap().next().unwrap().unwrap().path().join("site-packages");
    fs::write(packages.join("editable.pth"), format!("{}\n", app.join("src").display())).unwrap();
    // A program of the environment knows its interpreter by its path.
    let program = format!(
        "#!{}/env/bin/python\nimport mine, os, http.server\nclass Handler(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        body = mine.RELEASE.encode()\n        self.send_response(200); self.send_header('content-length', str(len(body))); self.end_headers(); self.wfile.write(body)\nhttp.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()\n",
        app.display()
    );
    fs::write(app.join("env/bin/serve"), program).unwrap();
    fs::set_permissions(app.join("env/bin/serve"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(app.join("src/mine.py"), "RELEASE = 'one'\n").unwrap();
    server.deploy(&manifest_of("env/bin/serve", "code: snapshot"));
    fs::write(app.join("src/mine.py"), "RELEASE = 'another'\n").unwrap();
    assert_eq!(server.get("/").text(), "one");
    end_instances(&server);
    assert_eq!(server.get("/").text(), "one", "a start later finds what was deployed");
    server.deploy(&manifest_of("env/bin/serve", "code: snapshot"));
    assert_eq!(server.get("/").text(), "another");
}

#[test]
fn a_server_of_root_that_may_not_mount_runs_live_code() {
    let mut server = Server::start();
    if !rustix::process::geteuid().is_root() || bodies::engine().is_some() {
        return;
    }
    server.terminate();
    let plain = server.serve_command();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]).arg(plain.get_program());
    command.args(plain.get_args());
    for (name, value) in plain.get_envs() {
        value.map(|value| command.env(name, value));
    }
    server.start_by(command);
    assert_eq!(server.api_get("/api/v1/status").json()["mounts"], false);
    let app = folder(&server);
    release(&app, 1);
    let told = server.try_deploy(&manifest("")).ok().stderr;
    assert!(told.contains("KW-1050") && told.contains("mount namespaces"), "{told}");
    open_for_all(server.folder());
    assert_eq!(seen(&server, "").0, "1");
    server.try_deploy(&manifest("code: snapshot")).failed(&["KW-1052"]);
}

/// Whoever runs the program has to get there, where nothing can be shown to it.
fn open_for_all(folder: &std::path::Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_program_that_writes_cannot_have_more_shown_to_it_by_links() {
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 1);
    let (other, outside) = (server.folder().join("other"), server.folder().join("outside"));
    fs::create_dir_all(other.join("f")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    server.try_deploy(&manifest("writable: [out, out/a/f]")).failed(&["KW-1009", "out/a/f"]);
    server.deploy(&manifest("writable: [out/a]"));
    assert_eq!(seen(&server, "").0, "1");
    end_instances(&server);
    // As an instance of an earlier version with live code could have done.
    fs::remove_dir_all(app.join("out")).unwrap();
    std::os::unix::fs::symlink(&other, app.join("out")).unwrap();
    let refused = server.get("/env");
    assert!(refused.status() >= 500, "a start follows no link: {refused:?}");
    server.try_deploy(&manifest("writable: [out/a]")).failed(&["KW-1052", "link"]);
    assert!(!other.join("a").exists(), "nothing is made behind a link");
    std::os::unix::fs::symlink(&outside, app.join("esc")).unwrap();
    server.try_deploy(&manifest("writable: [esc]")).failed(&["KW-1052", "link"]);
}

#[test]
fn a_program_may_be_behind_links_that_leave_the_folder() {
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 3);
    let programs = server.folder().join("programs");
    fs::create_dir(&programs).unwrap();
    fs::rename(app.join("start"), programs.join("start")).unwrap();
    std::os::unix::fs::symlink("../programs", app.join("bin")).unwrap();
    std::os::unix::fs::symlink("bin/start", app.join("begin")).unwrap();
    for run in ["bin/start", "./begin"] {
        server.deploy(&manifest_of(run, "code: snapshot"));
        assert_eq!(seen(&server, "").0, "3", "{run}");
        end_instances(&server);
    }
}

#[test]
fn an_instance_whose_folder_goes_is_replaced_by_one_that_sees_its_version() {
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 7);
    server.deploy(&manifest("code: snapshot\ninstances: {min: 1}\nidle: {pause: never}"));
    until_true("it runs", || server.get("/env").status() == 200);
    let running = || server.instances().iter().find_map(|one| (one["state"] == "ready").then(|| one["id"].clone()));
    let replaced = |before: &Option<serde_json::Value>| {
        until_true("its successor serves", || running().is_some_and(|now| Some(&now) != before.as_ref()));
        assert_eq!(server.get("/env").json()["RELEASE"], "7");
    };
    // It is looked at from time to time: the first look finds what is right.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let first = running();
    fs::rename(&app, server.folder().join("away")).unwrap();
    fs::create_dir(&app).unwrap();
    release(&app, 8);
    replaced(&first);
    let why = server.api_get("/api/v1/functions/f/decisions?limit=1000").text();
    assert!(why.contains("its folder was deleted, moved or replaced"), "{why}");
    // What is right is left alone.
    std::thread::sleep(std::time::Duration::from_secs(7));
    let second = running();
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(running(), second);
}

#[test]
fn a_backup_holds_the_code_of_versions() {
    let server = Server::start();
    if skipped(&server) {
        return;
    }
    let app = folder(&server);
    release(&app, 1);
    server.deploy(&manifest("code: snapshot"));
    let (whole, bare) = (server.folder().join("whole.backup"), server.folder().join("bare.backup"));
    server.kip(&["backup", whole.to_str().unwrap()]).ok();
    server.kip(&["backup", bare.to_str().unwrap(), "--no-code"]).ok();
    release(&app, 2);
    let other = Server::start();
    other.kip(&["restore", whole.to_str().unwrap(), "--force", "--yes"]).ok();
    assert_eq!(seen(&other, "").0, "1", "what was deployed, though the folder has changed");
    let third = Server::start();
    third.kip(&["restore", bare.to_str().unwrap(), "--force", "--yes"]).ok();
    let answer = call(third.gateway, "GET", "/f/f/env", "", b"");
    assert!(answer.text().contains("KW-4035"), "{answer:?}");
    // Without a server, too.
    let mut fourth = Server::start();
    fourth.terminate();
    fourth.kip(&["restore", whole.to_str().unwrap(), "--force", "--yes"]).ok();
    fourth.start_again();
    assert_eq!(seen(&fourth, "").0, "1");
}
