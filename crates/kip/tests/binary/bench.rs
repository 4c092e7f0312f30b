//! Load tests: what is sent, what is counted.

use std::fs;

use serde_json::json;

use crate::support::Server;

#[test]
fn phases_are_measured_counted_and_drawn() {
    let server = Server::start();
    server.deploy_subject(&[], "instances: {max: 1, concurrency: 100}");
    let url = format!("http://{}/f/f/delay/20", server.gateway);
    let words = [
        "bench",
        &url,
        "--phase",
        "cold=5/s@400ms",
        "--phase",
        "warm=50/s@1s",
        "--phase",
        "busy=4@500ms",
        "--html",
        "bench.html",
    ];
    let figures = server.ask(&words);
    let [cold, warm, busy] = figures.as_array().unwrap().as_slice() else { panic!("{figures}") };
    assert_eq!((&cold["requests"], &warm["requests"]), (&json!(2), &json!(50)), "each request of a rate is sent");
    assert_eq!((&cold["from"], &busy["from"]), (&json!("schedule"), &json!("send")));
    let starts: u64 = ["warm", "woken", "cold"].iter().map(|start| warm[*start].as_u64().unwrap()).sum();
    assert_eq!(starts, 50);
    assert!(cold["cold"].as_u64().unwrap() >= 1, "{cold}");
    for phase in [cold, warm, busy] {
        let value = |name: &str| phase[name].as_u64().unwrap();
        assert_eq!((value("errors"), value("without_answer")), (0, 0), "{phase}");
        assert!(20_000 <= value("p50") && value("p50") <= value("p99") && value("p99") <= value("max"), "{phase}");
    }
    // Four callers, each with one request of at least 20 ms at a time.
    assert!(busy["requests"].as_u64().unwrap() <= 100, "{busy}");
    let page = fs::read_to_string(server.folder().join("bench.html")).unwrap();
    assert!(page.contains("<h2>cold: 5/s</h2>") && page.contains("<rect "), "{page}");
    let shown = server.kip(&["bench", &url, "--rate", "20", "--duration", "200ms"]).ok().stdout;
    assert!(shown.contains("load   20/s") && shown.contains("the highest latency"), "{shown}");
}

#[test]
fn a_stall_is_charged_to_the_requests_that_came_meanwhile() {
    let server = Server::start();
    // One request at a time: with a rate of twice that, the last ones wait for half of the phase.
    server.deploy_subject(&[], "instances: {max: 1, concurrency: 1}\nqueue: {depth: 1000}");
    server.get("/");
    let url = format!("http://{}/f/f/delay/50", server.gateway);
    let figures = server.ask(&["bench", &url, "--rate", "40", "--duration", "1s"]);
    assert_eq!(figures[0]["errors"], 0, "{figures}");
    assert!(figures[0]["max"].as_u64().unwrap() > 700_000, "{figures}");
    // Errors and requests without an answer are counted.
    let missing = format!("http://{}/f/none/", server.gateway);
    assert_eq!(server.ask(&["bench", &missing, "--rate", "10", "--duration", "300ms"])[0]["errors"], 3);
    server.kip(&["bench", "http://127.0.0.1:1/", "--rate", "5", "--duration", "200ms"]).failed(&["KW-7005"]);
    server.kip(&["bench", "127.0.0.1:1"]).failed(&["KW-7007"]);
}
