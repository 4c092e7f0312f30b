//! Examples on pages: a block of commands runs as it is written, and the block of text behind it is what its last command prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{KIP, Server, run};

/// Commands of a page and what it says that the last of them prints.
struct Example {
    commands: Vec<String>,
    printed: Option<Printed>,
}

enum Printed {
    /// To the letter.
    Text(String),
    /// With other numbers.
    Form(String),
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The blocks of a page: what stands behind the fence, and the text.
pub(crate) fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push((info.to_owned(), block.join("\n") + "\n"));
    }
    blocks
}

/// What a page lets its readers type, block by block, without comments.
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for (info, text) in blocks(page) {
        match (info.as_str(), examples.last_mut()) {
            ("sh", _) => {
                let text = text.replace("\\\n", " ");
                let commands = text.lines().map(|line| line.split("  #").next().unwrap_or_default().trim().to_owned());
                let commands = commands.filter(|line| !line.is_empty()).collect();
                examples.push(Example { commands, printed: None });
            }
            ("text", Some(example)) => example.printed = Some(Printed::Text(text)),
            ("text form", Some(example)) => example.printed = Some(Printed::Form(text)),
            _ => {}
        }
    }
    examples
}

/// A text with `#` in the place of each number with its unit, and with single spaces.
fn form(text: &str) -> String {
    const UNITS: [&str; 8] = ["ms", "s", "min", "h", "d", "%", "MiB", "GiB"];
    let mut words: Vec<&str> = Vec::new();
    for line in text.lines() {
        for word in line.split_whitespace() {
            let plain = word.trim_matches(|letter: char| matches!(letter, '(' | ')' | ';' | ':' | ','));
            let number = !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_digit() || b".:-".contains(&byte));
            let unit = UNITS.contains(&plain) && words.last() == Some(&"#");
            match (number, unit) {
                (true, _) if words.last() == Some(&"#") => {}
                (true, _) => words.push("#"),
                (false, true) => {}
                (false, false) => words.push(word),
            }
        }
        words.push("\n");
    }
    words.join(" ")
}

/// Runs what a page says in a folder, each block in a shell of its own, and compares. Answers how many outputs were compared.
fn follow(name: &str, folder: &Path, data: &Path) -> usize {
    follow_text(name, &page(name), folder, data)
}

/// The same for a page in which names were replaced.
fn follow_text(name: &str, page: &str, folder: &Path, data: &Path) -> usize {
    let mut compared = 0;
    for example in examples(page) {
        let Some((last, before)) = example.commands.split_last() else { continue };
        let before: String = before.iter().map(|command| format!("{{ {command}\n}} > /dev/null\n")).collect();
        let script = format!("set -e\nkip() {{ \"$KIP\" --data-dir \"$DATA\" \"$@\"; }}\n{before}{last}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("KIP", KIP).env("DATA", data).env("TZ", "UTC").current_dir(folder);
        let printed = run(&mut shell).ok().stdout;
        match &example.printed {
            Some(Printed::Text(text)) => assert_eq!(&printed, text, "{name}: {script}"),
            Some(Printed::Form(text)) => assert_eq!(form(&printed), form(text), "{name}: {script}\n{printed}"),
            None => continue,
        }
        compared += 1;
    }
    compared
}

#[test]
fn numbers_have_the_same_form() {
    assert_eq!(form("15 min used,  2 min awake (4 %)\n"), form("3 s used, 1 min 2 s awake (40 %)\n"));
    assert_ne!(form("15 min used\n"), form("15 min asleep\n"));
}

#[test]
fn the_example_of_economics_runs_from_its_page() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(root().join("examples/economics/day.csv"), folder.path().join("day.csv")).unwrap();
    assert_eq!(follow("examples/economics/README.md", folder.path(), &folder.path().join("data")), 3);
    assert!(folder.path().join("day.html").exists());
}

/// A server whose function `ocr` has served requests and slept in between.
fn ocr() -> Server {
    let server = Server::start();
    server.deploy(&crate::support::manifest(&[crate::support::function(
        "ocr",
        &[],
        "idle: {pause: 20ms, stop: never}\nresources: {cpu: 1, memory: 1GiB}",
    )]));
    for _ in 0..4 {
        let answer = crate::support::call(server.gateway, "GET", "/f/ocr/delay/20", "", b"");
        assert_eq!(answer.status(), 200, "{answer:?}");
        crate::support::until_true("it sleeps", || {
            server.instances().iter().all(|instance| instance["state"] == "paused")
        });
    }
    server
}

#[test]
fn simulate_prints_what_its_page_shows() {
    let server = ocr();
    let rows = (0..400).map(|row| format!("{},1,{},{}\n", row * 30, 200 + row % 7 * 100, 20 + row % 11 * 10));
    let trace = format!("t_s,service_s,context_tokens,generated_tokens\n{}", rows.collect::<String>());
    let folder = server.folder().join("examples/economics");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(root().join("examples/economics/day.csv"), folder.join("day.csv")).unwrap();
    fs::write(server.folder().join("trace.csv"), &trace).unwrap();
    assert!(Command::new("gzip").args(["-k", "trace.csv"]).current_dir(server.folder()).status().unwrap().success());
    assert_eq!(follow("docs/simulate.md", server.folder(), &server.data()), 2);
}

#[test]
fn cost_prints_what_its_page_shows() {
    let server = ocr();
    let secret = server.kip(&["key", "create", "anna", "--role", "invoke"]).ok().stdout;
    let bearer = format!("Authorization: Bearer {}\r\n", secret.trim());
    let answer = crate::support::call(server.gateway, "GET", "/f/ocr/delay/20", &bearer, b"");
    assert_eq!(answer.status(), 200, "{answer:?}");
    let instance = server.instances()[0]["id"].as_str().unwrap().to_owned();
    let page = page("docs/cost.md").replace("i-1-4-2", &instance);
    // `kip cost`, by key, budgets, a plan for a curve, and the published comparison.
    assert_eq!(follow_text("docs/cost.md", &page, server.folder(), &server.data()), 5);
    let book = fs::read_to_string(server.data().join("prices.toml")).unwrap();
    assert!(book.contains("EUR") && server.data().join("../prices.toml").exists(), "{book}");
}
