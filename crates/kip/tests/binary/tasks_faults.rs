//! Tasks when things go wrong: the server killed at every moment, the disk full or failing, receivers that are down.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base64::Engine as _;
use kip_host::environment::FAIL_POINT;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::json;

use crate::storage::FaultyServer;
use crate::support::{Server, apart, call, kill, manifest, until, until_true};
use crate::tasks::{Bench, by_task, noted, submit};

/// Submitters hammer the server while it is killed again and again. Whatever was answered with 202 must end, once, and be run
/// no more often than kills and retries explain.
#[test]
fn killed_again_and_again_nothing_accepted_is_lost() {
    rounds_of_kills(3, 16);
}

#[test]
#[ignore = "takes minutes; `cargo xtask soak` runs it"]
fn fifty_kills_under_sixty_four_submitters() {
    rounds_of_kills(50, 64);
}

fn rounds_of_kills(rounds: u32, submitters: u32) {
    let mut bench = Bench::start("instances: {max: 4, concurrency: {hard: 4, soft: 4}}");
    let gateway = Arc::new(Mutex::new(bench.server.gateway));
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..submitters)
        .map(|number| {
            let (gateway, over) = (gateway.clone(), over.clone());
            apart(move || {
                let mut taken = Vec::new();
                for n in 0.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let id = format!("s{number}-{n}");
                    let address = *gateway.lock();
                    let Ok(mut stream) = TcpStream::connect(address) else {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        continue;
                    };
                    // One in ten fails once.
                    let script = if n % 10 == 0 { "fail-until 1" } else { "sleep 5" };
                    let text = format!(
                        "POST /f/f/task HTTP/1.1\r\nhost: x\r\nx-fc-invocation-type: Async\r\nx-fc-async-task-id: {id}\r\n\
                         content-length: {}\r\nconnection: close\r\n\r\n{script}",
                        script.len()
                    );
                    let mut answer = String::new();
                    let asked = stream.write_all(text.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
                    if asked.is_ok() && answer.starts_with("HTTP/1.1 202") {
                        taken.push(id);
                    }
                }
                taken
            })
        })
        .collect();
    let mut kills = 0;
    for round in 0..rounds {
        let before = noted(&bench.ledger).len();
        until_true("work is done", || noted(&bench.ledger).len() > before + 40);
        std::thread::sleep(std::time::Duration::from_millis(u64::from(round * 37 % 100)));
        bench.server.crash();
        kills += 1;
        bench.server.start_again();
        *gateway.lock() = bench.server.gateway;
    }
    over.store(true, Ordering::SeqCst);
    let taken: BTreeSet<String> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    assert!(taken.len() > 50, "{}", taken.len());
    crate::support::until_within(std::time::Duration::from_secs(180), "all are over", || {
        let stat = bench.server.ask(&["tasks", "stat"]);
        let of = &stat["functions"][0];
        (of["ready"] == 0 && of["later"] == 0 && of["running"] == 0).then_some(())
    });
    let lines = noted(&bench.ledger);
    let runs = by_task(&lines);
    for id in &taken {
        let task = bench.show(id);
        let capped = task["status"] == "Failed" && task["crashes"] == 3;
        assert!(task["status"] == "Succeeded" || capped, "{task}");
        let (errors, crashes) = (task["errors"].as_u64().unwrap(), task["crashes"].as_u64().unwrap());
        assert!(crashes <= kills, "{task}");
        let begun = runs.get(id.as_str()).map_or(0, |lines| lines.iter().filter(|line| line.what == "begin").count());
        // A claim that was committed and never sent counts as a crash too.
        assert!(begun >= 1 && begun as u64 <= 1 + errors + crashes, "{begun} runs of {task}");
        let epochs: BTreeSet<u64> = runs[id.as_str()].iter().map(|line| line.epoch).collect();
        assert!(epochs.len() as u64 <= task["epoch"].as_u64().unwrap(), "{task}");
        let ends = task["events"].as_array().unwrap().iter().filter(|event| event["status"] == task["status"]).count();
        assert_eq!(ends, 1, "{task}");
    }
}

/// The server kills itself between two steps. Each point has its own outcome.
#[test]
fn between_the_steps_of_a_task() {
    // Point, whether the caller has its 202, how often the task may have been run, how many crashes are counted.
    for (point, runs, crashes, words) in [
        ("task: before accept", 0, 0, 0),
        ("task: accepted", 1, 0, 1),
        ("task: before claim", 1, 0, 1),
        ("task: claimed", 1, 1, 1),
        ("task: answered", 2, 1, 1),
        ("task: ended", 1, 0, 1),
        ("task: before word", 1, 0, 1),
        ("task: word sent", 1, 0, 1),
    ] {
        let mut bench = Bench::start("");
        let receiver = Receiver::start(&[]);
        bench.configure(&json!({"destinationConfig": {"onSuccess": {"destination": receiver.address()}}}));
        bench.server.signal(Signal::INT);
        bench.server.wait();
        let mut command = bench.server.serve_command();
        command.env(FAIL_POINT, point);
        bench.server.start_by(command);
        let gateway = bench.server.gateway;
        let caller = apart(move || {
            let mut stream = TcpStream::connect(gateway).unwrap();
            let text = "POST /f/f/task HTTP/1.1\r\nhost: x\r\nx-fc-invocation-type: Async\r\nx-fc-async-task-id: x\r\n\
                        content-length: 0\r\nconnection: close\r\n\r\n";
            let mut answer = String::new();
            let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
            answer.starts_with("HTTP/1.1 202")
        });
        assert!(!bench.server.wait().success(), "the server killed itself at `{point}`");
        let taken = caller.join().unwrap();
        bench.server.start_again();
        if runs == 0 {
            assert!(!taken, "`{point}`: 202 before it was on the disk");
            assert_eq!(bench.show("x")["error"]["code"], "KW-5001", "{point}");
            continue;
        }
        let task = bench.until("x", "Succeeded");
        assert_eq!((bench.runs("x"), task["crashes"].as_u64()), (runs, Some(crashes)), "{point}: {task}");
        receiver.until(words);
        until_true("the word is noted as delivered", || bench.show("x")["destinationStatus"].is_string());
        // Once acknowledged it is not sent again, except where the server died before it could note that: the delivery may be on
        // its way as soon as the end is committed.
        let most = if matches!(point, "task: ended" | "task: word sent") { 2 } else { 1 };
        assert!(receiver.taken() <= most, "{point}: {} words", receiver.taken());
    }
}

/// A receiver of words that behaves as it is told, then well.
struct Receiver {
    port: u16,
    taken: Arc<AtomicU32>,
    heads: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

impl Receiver {
    /// The first callers are treated so: `500`, `close`, `slow`.
    fn start(manners: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, manners)
    }

    fn on(listener: TcpListener, manners: &[&'static str]) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (taken, heads, over): (Arc<AtomicU32>, Arc<Mutex<Vec<String>>>, Arc<AtomicBool>) = Default::default();
        let (count, kept, stop, manners) = (taken.clone(), heads.clone(), over.clone(), manners.to_vec());
        drop(apart(move || {
            let mut manners = manners.into_iter();
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let manner = manners.next().unwrap_or("well");
                if manner == "close" {
                    continue;
                }
                let text = read_request(&mut stream);
                if manner == "slow" {
                    // Longer than anybody waits for a receiver; the next caller is served all the same.
                    drop(apart(move || {
                        std::thread::sleep(std::time::Duration::from_secs(15));
                        drop(stream);
                    }));
                    continue;
                }
                let status = if manner == "500" { "500 No" } else { "200 Well" };
                if manner == "well" {
                    count.fetch_add(1, Ordering::SeqCst);
                    kept.lock().push(text);
                }
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        }));
        Self { port, taken, heads, over }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    fn taken(&self) -> u32 {
        self.taken.load(Ordering::SeqCst)
    }

    fn until(&self, words: u32) {
        crate::support::until_within(std::time::Duration::from_secs(60), "the words are there", || {
            (self.taken() >= words).then_some(())
        });
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut piece = [0; 8_192];
    loop {
        let read = stream.read(&mut piece).unwrap_or(0);
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            body.len() >= length.unwrap_or(0)
        });
        if read == 0 || whole {
            return text;
        }
    }
}

#[test]
fn a_word_reaches_a_receiver_that_is_down_slow_or_wrong_at_first() {
    let mut bench = Bench::start("");
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = place.local_addr().unwrap().port();
    // Nobody listens for now.
    drop(place);
    let to = format!("http://127.0.0.1:{port}/hook");
    bench.configure(&json!({"destinationConfig": {"onSuccess": {"destination": to, "secret": "s3cret-of-16-bytes"}}}));
    let shown = bench.api("GET", "/api/v1/functions/f/async-invoke-config", "").text();
    assert!(shown.contains("***") && !shown.contains("s3cret"), "{shown}");
    // Read, changed in part and written back, the secret stays; so it does by the command line. The signature below shows which it is.
    bench.configure(&serde_json::from_str(&shown).unwrap());
    bench.server.kip(&["tasks", "config", "set", "f", "--retries", "2"]).ok();
    let kept = bench.api("GET", "/api/v1/functions/f/async-invoke-config", "").json();
    assert_eq!(
        (&kept["maxAsyncRetryAttempts"], &kept["destinationConfig"]["onSuccess"]["destination"]),
        (&2.into(), &to.clone().into())
    );
    for secret in ["", "short", "***"] {
        let other = json!({"destinationConfig": {"onFailure": {"destination": to, "secret": secret}}}).to_string();
        let refused = bench.api("PUT", "/api/v1/functions/f/async-invoke-config", &other);
        assert_eq!(refused.status(), 400, "{secret}: {refused:?}");
        assert!(refused.text().contains("KW-5006"), "{secret}: {refused:?}");
    }
    let id = bench.task("", "answer 7");
    let task = bench.until(&id, "Succeeded");
    assert_eq!(bench.runs(&id), 1, "{task}");
    until_true("it was tried", || {
        bench.show(&id)["destinationStatus"].as_str().is_some_and(|status| status.contains("tried 1 times"))
    });
    // What is still to be sent outlives the server.
    bench.server.crash();
    let receiver = Receiver::on(TcpListener::bind(("127.0.0.1", port)).unwrap(), &["close", "500"]);
    bench.server.start_again();
    receiver.until(1);
    let done = until("the outcome is noted", || {
        let task = bench.show(&id);
        task["destinationStatus"].as_str().filter(|status| status.ends_with(": 200")).map(str::to_owned)
    });
    assert!(done.contains("/hook"), "{done}");
    let text = receiver.heads.lock()[0].clone();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let said = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap();
    let (id, at) = (said("webhook-id"), said("webhook-timestamp"));
    let signature = said("webhook-signature").strip_prefix("v1,").unwrap();
    let signature = base64::engine::general_purpose::STANDARD.decode(signature).unwrap();
    let sum: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", "s3cret-of-16-bytes"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    if let Ok(mut openssl) = expected {
        openssl.stdin.take().unwrap().write_all(format!("{id}.{at}.{body}").as_bytes()).unwrap();
        let output = openssl.wait_with_output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).trim().ends_with(&sum), "{output:?}: {sum}");
    }
    assert_eq!(receiver.taken(), 1);
}

#[test]
fn a_slow_receiver_holds_up_no_task() {
    let bench = Bench::start("");
    let receiver = Receiver::start(&["slow"]);
    bench.configure(&json!({"destinationConfig": {"onSuccess": {"destination": receiver.address()}}}));
    for _ in 0..3 {
        let id = bench.task("", "");
        bench.until(&id, "Succeeded");
    }
    receiver.until(2);
}

#[test]
fn a_failed_sync_is_no_202_and_nothing_is_taken_until_a_new_start() {
    let Some(mut faulty) = FaultyServer::start("") else { return };
    let ledger = faulty.server.folder().join("ledger");
    let function = crate::support::function("f", &[], &format!("env: {{LEDGER: {}}}", ledger.display()));
    faulty.server.deploy(&manifest(&[function]));
    let taken = submit(faulty.server.gateway, "x-fc-async-task-id: a\r\n", "");
    assert_eq!(taken.status(), 202);
    until_true("it has run", || noted(&ledger).iter().any(|line| line.what == "end"));
    faulty.rules("lost tasks.db-wal");
    let refused = submit(faulty.server.gateway, "x-fc-async-task-id: b\r\n", "");
    assert_eq!((refused.status(), refused.code().as_str()), (503, "KW-8012"), "{refused:?}");
    faulty.rules("");
    let refused = submit(faulty.server.gateway, "x-fc-async-task-id: c\r\n", "");
    assert_eq!(refused.code(), "KW-8012", "a failed sync is never tried again as if nothing had been");
    let stat = faulty.server.ask(&["tasks", "stat"]);
    assert!(stat["store"].as_str().unwrap().starts_with("not durable"), "{stat}");
    let known = faulty.server.api_get("/api/v1/functions/f/tasks/a").json();
    assert_eq!(known["taskId"], "a", "it can be asked for");
    assert_eq!(faulty.server.get("/pid").status(), 200, "functions serve on");
    faulty.start_again_without_faults();
    assert_eq!(submit(faulty.server.gateway, "x-fc-async-task-id: d\r\n", "").status(), 202);
    assert!(!noted(&ledger).iter().any(|line| line.id == "c"), "what was refused is not run");
}

#[test]
fn a_full_disk_refuses_tasks_and_takes_them_again() {
    let Some(faulty) = FaultyServer::start("") else { return };
    let ledger = faulty.server.folder().join("ledger");
    let function = crate::support::function("f", &[], &format!("env: {{LEDGER: {}}}", ledger.display()));
    faulty.server.deploy(&manifest(&[function]));
    faulty.rules("full tasks.db-wal\nfull /reserve");
    until_true("it is refused", || {
        let answer = submit(faulty.server.gateway, "", "");
        assert!(answer.status() == 202 || answer.code() == "KW-8011", "{answer:?}");
        answer.status() != 202
    });
    faulty.rules("");
    let id = until("it is taken again", || {
        let answer = submit(faulty.server.gateway, "", "");
        answer.header("x-fc-async-task-id").map(str::to_owned)
    });
    until_true("it has run", || noted(&ledger).iter().any(|line| line.what == "end" && line.id == id));
}

#[test]
fn a_backup_under_load_holds_tasks_that_can_be_put_back() {
    let bench = Bench::start("instances: {max: 2}");
    let gateway = bench.server.gateway;
    let over = Arc::new(AtomicBool::new(false));
    let stop = over.clone();
    let load = apart(move || {
        while !stop.load(Ordering::SeqCst) {
            let _ = submit(gateway, "", "");
        }
    });
    let kept = bench.task("x-fc-async-task-id: kept\r\nx-kip-task-delay: 1h\r\n", "answer later");
    let file = bench.server.folder().join("one.backup");
    bench.server.ask(&["backup", file.to_str().unwrap()]);
    over.store(true, Ordering::SeqCst);
    load.join().unwrap();
    let fresh = tempfile::tempdir().unwrap();
    let data = fresh.path().join("data");
    crate::support::run(crate::support::kip(&data).arg("restore").arg(&file).args(["--yes", "-o", "json"])).ok();
    let store = kip_store::tasks::SqliteTasks::open(&data.join("tasks.db")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use kip_store::tasks::TaskReader;
        let found = store.find("f".to_owned(), None, kept.clone()).await.unwrap();
        let [(_, number)] = found[..] else { panic!("the task is in the backup: {found:?}") };
        assert_eq!(store.payload(number).await.unwrap().unwrap(), "answer later");
    });
}

/// The instances are frozen for longer than a lease holds, and the server's clock is put forward by hours: the runs go on, once each.
#[test]
fn a_frozen_instance_and_a_stepped_clock_cost_no_run() {
    let Some(faulty) = FaultyServer::start("") else { return };
    let ledger = faulty.server.folder().join("ledger");
    let settings = format!("instances: {{max: 2}}\nenv: {{LEDGER: {}}}", ledger.display());
    faulty.server.deploy(&manifest(&[crate::support::function("f", &[], &settings)]));
    let gate = faulty.server.folder().join("gate");
    let script = format!("wait {}", gate.display());
    let headers = format!("authorization: Bearer {}\r\nx-fc-async-task-id: long\r\n", faulty.server.key);
    let path = "/api/v1/functions/f/tasks?stateful=true";
    assert_eq!(call(faulty.server.api, "POST", path, &headers, script.as_bytes()).status(), 202);
    assert_eq!(submit(faulty.server.gateway, "x-fc-async-task-id: short\r\n", &script).status(), 202);
    let pids = until("both run", || {
        let pids: Vec<u32> = noted(&ledger).iter().map(|line| line.pid).collect();
        (pids.len() == 2).then_some(pids)
    });
    pids.iter().for_each(|pid| kill(*pid, Signal::STOP));
    faulty.rules("clock 7200");
    let then = kip_host::clock::boot_millis() + kip_tasks::LEASE + 1_500;
    until_true("a lease would be over", || kip_host::clock::boot_millis() > then);
    pids.iter().for_each(|pid| kill(*pid, Signal::CONT));
    fs::write(&gate, "").unwrap();
    for id in ["long", "short"] {
        let show = || faulty.server.api_get(&format!("/api/v1/functions/f/tasks/{id}")).json();
        let task = until("it is over", || Some(show()).filter(|task| task["endTime"].is_number()));
        assert_eq!((&task["status"], &task["crashes"], &task["epoch"]), (&json!("Succeeded"), &json!(0), &json!(1)));
        let begun = noted(&ledger).iter().filter(|line| line.what == "begin" && line.id == id).count();
        assert_eq!(begun, 1, "{id}");
    }
}

/// Many that fail in one moment do not come back in one.
#[test]
fn failures_of_one_moment_are_retried_spread() {
    const COUNT: usize = 120;
    let bench = Bench::start("instances: {max: 2, concurrency: 60}");
    let gate = bench.server.folder().join("gate");
    let script = format!("wait {}\nfail-until 1", gate.display());
    let ids: Vec<String> = (0..COUNT).map(|_| bench.task("", &script)).collect();
    until_true("all run", || noted(&bench.ledger).len() == COUNT);
    fs::write(&gate, "").unwrap();
    let mut times = Vec::new();
    for id in &ids {
        let task = bench.until(id, "Succeeded");
        let events = task["events"].as_array().unwrap();
        let retrying = events.iter().find(|event| event["status"] == "Retrying").unwrap();
        let detail: serde_json::Value = serde_json::from_str(retrying["eventDetail"].as_str().unwrap()).unwrap();
        times.push(detail["runAt"].as_i64().unwrap());
        assert_eq!(bench.runs(id), 2);
    }
    times.sort_unstable();
    let most = times.iter().map(|at| times.iter().filter(|other| (*at..*at + 250).contains(*other)).count()).max();
    assert!(most.unwrap() < COUNT / 2, "{most:?} within a quarter of a second: {times:?}");
}

/// The receiver is a function of our own behind TLS.
#[test]
fn a_word_goes_over_tls_to_whom_a_trusted_certificate_vouches_for() {
    let made = tempfile::tempdir().unwrap();
    let folder = made.path();
    fs::write(folder.join("of"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    let openssl = |words: &str| {
        let made = std::process::Command::new("openssl").args(words.split(' ')).current_dir(folder).output();
        let made = made.expect("openssl is installed");
        assert!(made.status.success(), "{words}: {}", String::from_utf8_lossy(&made.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
    openssl(&format!("req {key} -subj /CN=hook -keyout key.pem -out hook.csr"));
    openssl("x509 -req -in hook.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile of -out cert.pem");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = |ca: &str| {
        format!(
            "[tasks]\nca = \"{ca}\"\nweights = \"team-a=3\"\n[tls]\nlisten = \"127.0.0.1:{port}\"\n\
             certificate = \"{0}/cert.pem\"\nkey = \"{0}/key.pem\"",
            folder.display()
        )
    };
    let mut bench = Bench::with(&settings(&folder.join("ca.pem").display().to_string()), "");
    let hook = format!("https://localhost:{port}/f/f/task");
    bench.configure(&json!({"destinationConfig": {"onSuccess": {"destination": hook}}}));
    let outcome = |id: &str, part: &str| {
        until("the word was sent", || {
            bench.show(id)["destinationStatus"].as_str().filter(|status| status.contains(part)).map(str::to_owned)
        })
    };
    let id = bench.task("", "answer 1");
    assert_eq!(outcome(&id, "200"), format!("{hook}: 200"));
    // By the system's certificates nobody vouches for it.
    let text = fs::read_to_string(bench.server.data().join("kipwake.toml")).unwrap();
    let other = text.replace(&folder.join("ca.pem").display().to_string(), "system");
    fs::write(bench.server.data().join("kipwake.toml"), other).unwrap();
    bench.server.terminate();
    bench.server.start_again();
    let id = bench.task("", "answer 2");
    let tried = until("the word was tried", || {
        bench.show(&id)["destinationStatus"].as_str().filter(|status| status.contains("tried")).map(str::to_owned)
    });
    assert!(tried.contains("certificate"), "{tried}");
}

#[test]
fn destinations_on_this_host_are_named_by_the_operator_or_set_by_an_administrator() {
    let server = Server::with("[tasks]\ndestinations = \"127.0.0.1:9, /srv/named\"\n");
    server.deploy_subject(&[], "");
    let key = server.kip(&["key", "create", "deployer", "--role", "deploy"]).ok().stdout.trim_end().to_owned();
    let put = |key: &str, to: &str, secret: &str| {
        let headers = format!("authorization: Bearer {key}\r\ncontent-type: application/json\r\n");
        let body = json!({"destinationConfig": {"onFailure": {"destination": to, "secret": secret}}}).to_string();
        call(server.api, "PUT", "/api/v1/functions/f/async-invoke-config", &headers, body.as_bytes())
    };
    let secret = "s3cret-of-16-bytes";
    for to in
        ["http://127.0.0.1:8080/x", "http://localhost/", "http://[::1]:9/", "file:/tmp/out", "http://169.254.169.254/"]
    {
        let refused = put(&key, to, secret);
        assert_eq!(
            (refused.status(), refused.json()["error"]["code"].as_str()),
            (403, Some("KW-7035")),
            "{to}: {refused:?}"
        );
    }
    for to in ["http://127.0.0.1:9/x", "file:/srv/named/out", "https://hooks.example.com/x"] {
        assert_eq!(put(&key, to, secret).status(), 200, "{to}");
    }
    for to in ["http://127.0.0.1:8080/x", "file:/tmp/out"] {
        assert_eq!(put(&server.key, to, secret).status(), 200, "{to}");
    }
    assert_eq!(put(&server.key, "http://169.254.169.254/", secret).json()["error"]["code"], "KW-7035");
    // While a secret changes there are two, and never more.
    let to = "https://hooks.example.com/x";
    assert_eq!(put(&key, to, &format!("another-secret-16\n{secret}\n")).status(), 200);
    assert_eq!(put(&key, to, &format!("another-secret-16\n{secret}\n{secret}")).status(), 400);
    assert_eq!(put(&key, to, &format!("short\n{secret}")).status(), 400);
}
