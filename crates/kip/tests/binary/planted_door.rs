//! The generated test of all doors, on doors that are not its own: the interface of Function Compute on the same listener, and one that is
//! planted without its check, which the test must find.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::doors::{Probe, Zoo};
use crate::support::{apart, call};

/// Where the planted door is: it shows a function to whoever asks, as a route does whose check was forgotten.
const PLANTED: &str = "/api/v1/functions/{name}/planted";

/// An API with one door more than the one behind it has.
fn plant(api: SocketAddr, key: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    let key = key.to_owned();
    apart(move || {
        for caller in listener.incoming().flatten() {
            let _ = pass(caller, api, &key);
        }
    });
    own
}

/// Passes one request on, with another path and key where it comes through the planted door.
fn pass(caller: TcpStream, api: SocketAddr, key: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(caller.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let (line, headers) = head.split_once("\r\n").unwrap_or_default();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let admin = format!("authorization: Bearer {key}\r\n");
    let answer = match target.split('?').next().and_then(|path| path.strip_suffix("/planted")) {
        Some(function) => call(api, "GET", function, &admin, b""),
        None => {
            let own = ["authorization", "content-type"];
            let kept = headers.lines().filter(|line| own.iter().any(|name| line.starts_with(name)));
            let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
            call(api, method, target, &kept, &body)
        }
    };
    let mut text = answer.body;
    if target == "/api/v1/openapi.json" {
        let mut document: Value = serde_json::from_slice(&text).unwrap();
        document["paths"][PLANTED] = json!({"get": {"parameters": []}});
        text = document.to_string().into_bytes();
    }
    let head =
        format!("HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.head.status, text.len());
    (&caller).write_all(head.as_bytes())?;
    (&caller).write_all(&text)
}

#[test]
fn a_planted_door_without_its_check_is_found() {
    let mut zoo = Zoo::open();
    let visitors = zoo.visitors();
    let through = |zoo: &Zoo| -> Vec<Probe> {
        let near = |probe: &Probe| probe.target.contains("/planted") || probe.target.contains("/usage");
        zoo.probes().into_iter().filter(near).collect()
    };
    assert!(zoo.faults(&visitors, &through(&zoo)).is_empty(), "without it, nothing is found");
    zoo.api = plant(zoo.server.api, &zoo.server.key);
    let probes = through(&zoo);
    assert!(probes.iter().any(|probe| probe.target.contains("/planted")), "nothing else names it: {probes:?}");
    let faults = zoo.faults(&visitors, &probes);
    let of_it = |fault: &String| fault.contains("/planted");
    assert!(faults.iter().any(|fault| of_it(fault) && fault.contains("is told of `zebra`")), "{faults:?}");
    assert!(faults.iter().any(|fault| of_it(fault) && fault.contains("can tell by")), "{faults:?}");
    assert!(faults.iter().all(of_it), "and nothing else is: {faults:?}");
}

/// All operations of the interface, with something foreign in each place that can have it.
fn facade_probes(zoo: &Zoo) -> Vec<Probe> {
    let document: Value = serde_json::from_str(include_str!("../../../../docs/api/fc.json")).unwrap();
    let arn = "acs:fc:local:0:functions/@";
    let bodies = [
        "{}".to_owned(),
        json!({"functionName": "@", "handler": "x", "runtime": "custom"}).to_string(),
        json!({"destinationConfig": {"onSuccess": {"destination": arn}}}).to_string(),
        json!({"resourceType": "function", "resourceId": [arn], "tags": [{"key": "a", "value": "b"}]}).to_string(),
    ];
    let functions = Some(("zebrafn".to_owned(), "hyenafn".to_owned()));
    let mut probes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let fill = |function: &str, task: &str| {
                let mut target = path.replace("{functionName}", function).replace("{taskId}", task);
                for name in ["aliasName", "triggerName", "versionId", "vpcId", "layerName", "domainName", "arn"] {
                    target = target.replace(&format!("{{{name}}}"), if name == "versionId" { "1" } else { "x" });
                }
                target
            };
            let mut add = |target: String, names: &Option<(String, String)>, body: &str| {
                probes.push(Probe {
                    method: method.to_uppercase(),
                    target,
                    body: body.to_owned(),
                    names: names.clone(),
                });
            };
            let is_get = method == "get";
            let sent: &[String] = if is_get { &[String::new()] } else { &bodies };
            if path.contains("{functionName}") {
                sent.iter().for_each(|body| add(fill("@", "zebra-task"), &functions, body));
                // Tasks of another tenant of a function that the caller is for.
                for task in ["okapi-task", "zebra-task"].iter().filter(|_| path.contains("{taskId}")) {
                    add(fill("mine", task), &None, "");
                }
                if is_get && !path.contains("{taskId}") {
                    add(fill("mine", "t1"), &None, "");
                }
                continue;
            }
            for body in sent.iter().filter(|body| is_get || body.contains('@')) {
                add(fill("", ""), if body.contains('@') { &functions } else { &None }, body);
            }
            for field in operation["parameters"].as_array().into_iter().flatten().filter(|field| field["in"] == "query")
            {
                let field = field["name"].as_str().unwrap();
                // Where a list goes on is a place in the order of names, whoever has them.
                let is_place = field.eq_ignore_ascii_case("nextToken");
                add(format!("{}?{field}=true", fill("", "")), &None, "");
                for (there, not) in zoo.words() {
                    if is_place {
                        add(format!("{}?{field}={there}", fill("", "")), &None, "");
                        continue;
                    }
                    let names = Some((there, not));
                    add(format!("{}?{field}=@", fill("", "")), &names, "");
                    add(format!("{}?ResourceType=function&{field}={arn}", fill("", "")), &names, "");
                }
            }
        }
    }
    probes
}

#[test]
fn no_operation_of_function_compute_tells_or_changes_what_is_foreign() {
    let zoo = Zoo::open();
    let visitors = zoo.visitors();
    let (probes, before) = (facade_probes(&zoo), zoo.state());
    assert!(probes.len() > 200, "{}", probes.len());
    let faults = zoo.faults(&visitors, &probes);
    assert!(faults.is_empty(), "{} faults, of which:\n{}", faults.len(), faults[..faults.len().min(12)].join("\n"));
    assert_eq!(zoo.state(), before);
}
