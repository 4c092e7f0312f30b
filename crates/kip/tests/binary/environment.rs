//! What instances get of the environment, of whom, and what is masked.

use std::fs;

use serde_json::Value;

use crate::support::{CommandOutput, Server, function, kip, manifest, run};

/// Deploys as a person with these variables would.
fn deploy_with(server: &Server, text: &str, variables: &[(&str, &str)]) -> CommandOutput {
    fs::write(server.folder().join("kip.yaml"), text).unwrap();
    let mut command = kip(&server.data());
    run(command.args(["deploy", "kip.yaml"]).envs(variables.iter().copied()).current_dir(server.folder()))
}

fn start_with(variables: &[(&str, &str)]) -> Server {
    let mut server = Server::start();
    server.crash();
    let mut command = server.serve_command();
    command.envs(variables.iter().copied());
    server.start_by(command);
    server
}

#[test]
fn instances_get_the_listed_variables_and_no_secret_of_the_server() {
    let server = start_with(&[
        ("HF_HOME", "/models"),
        ("OMP_NUM_THREADS", "3"),
        ("XDG_CACHE_HOME", "/cache"),
        ("SSL_CERT_FILE", "/own.pem"),
        ("no_proxy", "127.0.0.1"),
        ("HF_TOKEN", "hf_of_the_operator"),
        ("OPENAI_API_KEY", "sk-of-the-operator"),
        ("https_proxy", "http://user:word@proxy:3128"),
        ("VLLM_ENDPOINT_HINT", "hf_0123456789abcdefXYZ"),
        ("SOMETHING_ELSE", "1"),
    ]);
    server.deploy_subject(&[], "");
    let env: Value = server.get("/env").json();
    for (name, value) in [("HF_HOME", "/models"), ("OMP_NUM_THREADS", "3"), ("XDG_CACHE_HOME", "/cache")] {
        assert_eq!(env[name], value, "{name}");
    }
    assert_eq!((&env["SSL_CERT_FILE"], &env["no_proxy"]), (&"/own.pem".into(), &"127.0.0.1".into()));
    for name in ["HF_TOKEN", "OPENAI_API_KEY", "https_proxy", "VLLM_ENDPOINT_HINT", "SOMETHING_ELSE", "KIPWAKE_KEY"] {
        assert_eq!(env[name], Value::Null, "{name}");
    }
}

#[test]
fn a_manifest_takes_what_it_names_from_its_deployer() {
    let server = start_with(&[("HF_TOKEN", "of-the-operator"), ("MODE", "of-the-operator")]);
    fs::write(server.folder().join("own.env"), "FROM_FILE='a b'\nLITERAL=${HF_TOKEN}\nMODE=file\n").unwrap();
    let settings = "env_file: own.env
        env: {TOKEN: \"${HF_TOKEN}\", NAME: \"${NAME:-nobody}\", URL: \"http://127.0.0.1:${PORT}/${BASE}\", BASE: v1, PLAIN: \"$${HF_TOKEN}\"}";
    let text = manifest(&[function("f", &[], settings)]);
    let missing = deploy_with(&server, &text, &[]);
    missing.failed(&["KW-1004", "`${HF_TOKEN}` is not set", "kip.yaml:"]);
    deploy_with(&server, &text, &[("HF_TOKEN", "hf_of_the_deployer")]).ok();
    let env: Value = server.get("/env").json();
    let port = env["PORT"].as_str().unwrap();
    for (name, value) in [
        ("TOKEN", "hf_of_the_deployer"),
        ("NAME", "nobody"),
        ("URL", &format!("http://127.0.0.1:{port}/v1")),
        ("BASE", "v1"),
        ("PLAIN", "${HF_TOKEN}"),
        ("FROM_FILE", "a b"),
        ("LITERAL", "${HF_TOKEN}"),
        ("MODE", "file"),
    ] {
        assert_eq!(env[name], value, "{name}");
    }
    assert_eq!(env["HF_TOKEN"], Value::Null);
    let documents = server.api_get("/api/v1/functions/f/versions").text();
    assert!(documents.contains("${HF_TOKEN}") && !documents.contains("hf_of_the_deployer"), "{documents}");
    fs::remove_file(server.folder().join("own.env")).unwrap();
    let missing = deploy_with(&server, &text, &[("HF_TOKEN", "x")]);
    missing.failed(&["KW-1006", "`own.env` was not found", "functions.f.env_file"]);
}

#[test]
fn what_looks_like_a_secret_is_masked_in_every_output() {
    let server = Server::start();
    let secret = "hf_0123456789abcdefXYZ";
    let settings = format!("env: {{HF_TOKEN: {secret}, DB: \"postgres://me:word@db/x\", DB_PASSWORD: \"pa ss\"}}");
    server.deploy(&manifest(&[function("f", &["--api-key", secret], &settings)]));
    let hidden = |text: &str| {
        for part in [secret, "me:word", "pa ss"] {
            assert!(!text.contains(part), "{part} is shown: {text}");
        }
    };
    let documents = server.api_get("/api/v1/functions/f/versions").text();
    assert!(documents.contains("***"), "{documents}");
    hidden(&documents);
    for arguments in [["inspect", "f"], ["why", "f"], ["ls", "-o"]] {
        let arguments: Vec<&str> = arguments.iter().copied().chain((arguments[1] == "-o").then_some("json")).collect();
        let ran = server.kip(&arguments).ok();
        hidden(&(ran.stdout + &ran.stderr));
    }
    // A problem shows its line, without the secret in it.
    let wrong = server.try_deploy(&manifest(&[function("f", &[], &format!("env: {{HF_TOKEN: {secret}, PORT: 1}}"))]));
    hidden(&wrong.stderr);
    wrong.failed(&["KW-1004", "***"]);
    // The command of a job is shown with it.
    server
        .kip(&["run", "--detach", "--name", "one", "--env", &format!("HF_TOKEN={secret}"), "true", "--token", secret])
        .ok();
    let shown = server.kip(&["job", "show", "one"]).ok().stdout;
    assert!(shown.contains("true --token ***"), "{shown}");
    hidden(&shown);
    hidden(&server.log());
}
