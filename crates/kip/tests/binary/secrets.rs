//! Secrets: they reach instances, and nothing that anybody reads.

use std::fs::{self, File};
use std::path::Path;

use crate::support::{Server, call, function, kip, manifest, run};

const VALUE: &str = "correct horse ${PORT} battery";

impl Server {
    /// Sets a secret from standard input.
    fn set_secret(&self, name: &str, value: &str) {
        let file = self.folder().join("value");
        fs::write(&file, value).unwrap();
        let mut command = kip(&self.data());
        command.args(["secret", "set", name]).stdin(File::open(&file).unwrap());
        run(&mut command).ok();
        fs::remove_file(file).unwrap();
    }

    fn environment(&self) -> serde_json::Value {
        let answer = self.get("/env");
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.json()
    }
}

/// The files below a folder that hold a text.
fn holders(folder: &Path, text: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            holders(&entry.path(), text, found);
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(entry.path().display().to_string());
            }
        }
    }
}

#[test]
fn a_secret_reaches_instances_and_nothing_that_anybody_reads() {
    let server = Server::start();
    server.set_secret("main", &format!("{VALUE}\n"));
    let declared = "env: {TOKEN: {secret: main}, URL: \"x?${TOKEN}\"}";
    server.deploy(&manifest(&[function("f", &[], declared)]));
    let environment = server.environment();
    assert_eq!(environment["TOKEN"], VALUE, "one line end is left out, and nothing in it is a reference");
    assert_eq!(environment["URL"], format!("x?{VALUE}"));
    let listed = server.ask(&["secret", "ls"]);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["used_by"][0], &listed[0]["generation"]),
        (&"main".into(), &"f".into(), &1.into())
    );
    for said in [
        server.kip(&["inspect", "f"]).ok().stdout,
        server.kip(&["version", "ls", "f", "-o", "json"]).ok().stdout,
        server.kip(&["why", "f"]).ok().stdout,
        server.kip(&["audit"]).ok().stdout,
        server.api_get("/api/v1/functions/f").text(),
        server.api_get("/api/v1/secrets").text(),
        server.log(),
    ] {
        assert!(!said.contains("correct horse"), "{said}");
    }
    let mut found = Vec::new();
    holders(server.folder(), "correct horse", &mut found);
    assert_eq!(found, Vec::<String>::new());
    // The next value is for the next instances.
    server.set_secret("main", "second");
    assert_eq!(server.environment()["TOKEN"], VALUE);
    server.kip(&["rotate", "f"]).ok();
    crate::support::until_true("the new value is there", || server.environment()["TOKEN"] == "second");
}

#[test]
fn a_start_without_its_secret_is_refused_and_says_which() {
    let server = Server::start();
    server.deploy_without_wait(&manifest(&[function("f", &[], "env: {TOKEN: {secret: absent}}")]));
    let answer = server.get("/env");
    assert_eq!((answer.status(), answer.code().as_str()), (502, "KW-4029"), "{answer:?}");
    assert!(server.kip(&["why", "f"]).ok().stdout.contains("absent"));
    server.kip(&["secret", "rm", "absent"]).failed(&["KW-7020", "kip secret ls"]);
    server.kip(&["secret", "set", "absent"]).failed(&["KW-7021", "--from-file"]);
    server.try_deploy(&manifest(&[function("f", &[], "env: {TOKEN: {secret: \"a b\"}}")])).failed(&["KW-1004", "a b"]);
    server.try_deploy(&manifest(&[function("f", &[], "env: {TOKEN: {name: a}}")])).failed(&["KW-1003", "secret: NAME"]);
    let made = server.kip(&["key", "create", "dev", "--role", "deploy"]).ok();
    let headers = format!("authorization: Bearer {}\r\n", made.stdout.trim());
    assert_eq!(call(server.api, "GET", "/api/v1/secrets", &headers, b"").status(), 403);
}

#[test]
fn a_backup_holds_sealed_secrets_and_a_restore_without_the_key_lists_them() {
    let server = Server::start();
    server.set_secret("main", VALUE);
    server.deploy_subject(&[], "env: {TOKEN: {secret: main}}");
    let file = server.folder().join("all.backup");
    let file = file.to_str().unwrap();
    server.kip(&["backup", file]).ok();
    let bytes = fs::read(file).unwrap();
    assert!(!bytes.windows(13).any(|window| window == b"correct horse"));
    let other = Server::start();
    let report = other.ask(&["restore", file, "--force", "--yes"]);
    assert_eq!(report["unreadable_secrets"], serde_json::json!(["main"]));
    assert_eq!(other.get("/env").code(), "KW-4029");
    assert!(other.kip(&["secret", "ls"]).ok().stdout.contains("set again"));
    other.set_secret("main", "here");
    crate::support::until_true("the function starts with the new value", || {
        let answer = other.get("/env");
        answer.status() == 200 && answer.json()["TOKEN"] == "here"
    });
}

#[test]
fn the_seal_key_may_be_a_file_of_the_operator_and_nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let mut server = Server::start();
    let key = server.folder().join("given.key");
    fs::write(&key, "11".repeat(32)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    crate::support::kill(server.pid, rustix::process::Signal::TERM);
    server.wait();
    let mut command = server.serve_command();
    command.env("KIPWAKE_SEAL_KEY_FILE", &key);
    assert!(server.try_start_by(command).is_some_and(|status| !status.success()));
    let said = format!("{}{}", server.log(), server.printed());
    assert!(said.contains("KW-7022"), "{said}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = server.serve_command();
    command.env("KIPWAKE_SEAL_KEY_FILE", &key);
    server.start_by(command);
    server.set_secret("main", VALUE);
    server.deploy_subject(&[], "env: {TOKEN: {secret: main}}");
    assert_eq!(server.environment()["TOKEN"], VALUE);
}
