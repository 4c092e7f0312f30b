//! Images: pinned at a deployment, listed, removed; and what is refused where no engine answers.

use crate::bodies::{IMAGE, engine};
use crate::support::{Server, function, manifest, subject, until_true};

super::each_engine!(a_version_keeps_its_image, images_are_listed_and_removed, images_that_cannot_be_had);

/// Gives the image of the subject another name, or that name another content.
fn tag(name: &str, extra: Option<&str>) {
    let engine = engine().unwrap();
    let (repo, tag) = name.split_once(':').unwrap();
    match extra {
        None => {
            let (status, _) =
                engine.ask("POST", &format!("/v1.41/images/{IMAGE}/tag?repo={repo}&tag={tag}"), Vec::new());
            assert_eq!(status, 201);
        }
        Some(variable) => {
            let body = serde_json::json!({"Image": IMAGE, "Cmd": ["/bin/sh"]}).to_string().into_bytes();
            let (_, made) = engine.ask("POST", "/v1.41/containers/create", body);
            let made: serde_json::Value = serde_json::from_slice(&made).unwrap();
            let container = made["Id"].as_str().unwrap();
            let path =
                format!("/v1.41/commit?container={container}&repo={repo}&tag={tag}&changes=ENV%20{variable}%3D1");
            assert_eq!(engine.ask("POST", &path, b"{}".to_vec()).0, 201);
            engine.ask("DELETE", &format!("/v1.41/containers/{container}?force=true"), Vec::new());
        }
    }
}

fn a_version_keeps_its_image() {
    let server = Server::start();
    tag("kip-moving:test", None);
    let text = manifest(&[format!(
        "  f:\n    image: kip-moving:test\n    run: [{}]\n    idle: {{stop: 100ms}}\n",
        subject().display()
    )]);
    server.deploy(&text);
    assert!(server.get("/env").json()["MOVED"].is_null());
    server.until_no_instance();
    tag("kip-moving:test", Some("MOVED"));
    assert!(server.get("/env").json()["MOVED"].is_null(), "the version means what its name meant when it was made");
    server.deploy(&text);
    assert_eq!(server.get("/env").json()["MOVED"], "1", "a new version follows the name");
}

fn images_are_listed_and_removed() {
    let server = Server::start();
    tag("kip-listed:test", None);
    server.deploy(&manifest(&[function("f", &[], "")]));
    let has = |name: &str| {
        let list = server.ask(&["image", "ls"]);
        let images = list["images"].as_array().unwrap().clone();
        images
            .into_iter()
            .find(|image| image["tags"].as_array().unwrap().iter().any(|tag| tag.as_str().unwrap().ends_with(name)))
    };
    let image = has(IMAGE).expect("the image of the subject");
    assert_eq!(image["functions"][0], "f", "{image}");
    assert!(image["size"].as_u64().unwrap() > 1 << 20, "{image}");
    assert!(has("kip-listed:test").is_some());
    server.kip(&["image", "rm", "kip-listed:test"]).ok();
    assert!(has("kip-listed:test").is_none() && has(IMAGE).is_some(), "one name is gone");
    server.kip(&["image", "rm", "kip-listed:test"]).failed(&["KW-4022", "try: "]);
}

fn images_that_cannot_be_had() {
    let server = Server::start();
    let deploy = |image: &str, more: &str| {
        server.try_deploy(&manifest(&[format!("  f:\n    image: {image}\n    run: [x]\n{more}")]))
    };
    deploy("kip-none:test", "    pull: never\n").failed(&["KW-4022", "`f` cannot run", "kip-none:test", "try: "]);
    // Nobody listens on this port.
    deploy("127.0.0.1:1/none:1", "").failed(&["KW-4023", "127.0.0.1:1/none:1", "try: "]);
    server.kip(&["image", "pull", "127.0.0.1:1/none:1"]).failed(&["KW-4023", "try: "]);
    let mount = "    container: {mounts: ['/etc:/host']}\n";
    deploy(IMAGE, mount).failed(&["KW-4027", "/etc", "containers.mounts"]);
    assert!(server.ask(&["ls"]).as_array().unwrap().is_empty(), "nothing was deployed");
    let plan = manifest(&["  f:\n    image: 127.0.0.1:1/none:1\n".to_owned()]);
    std::fs::write(server.folder().join("kip.yaml"), plan).unwrap();
    let planned = server.kip(&["plan", "kip.yaml"]).ok();
    assert!(planned.stderr.contains("a deployment pulls it"), "{planned:?}");
}

#[test]
fn without_an_engine_it_is_refused_with_what_to_install() {
    let server = Server::with("[containers]\nengine = \"/no/such/engine.sock\"");
    let refused = server.try_deploy(&manifest(&["  f:\n    image: some/thing:1\n".to_owned()]));
    refused.failed(&["KW-4021", "/no/such/engine.sock", "docker.io", "podman"]);
    server.kip(&["image", "ls"]).failed(&["KW-4021"]);
    let doctor = server.doctor();
    let line = doctor.as_array().unwrap().iter().find(|line| line["what"] == "containers").expect("a line").clone();
    assert_eq!(line["state"], "note", "{line}");
    // Everything else works.
    server.deploy_subject(&[], "");
    until_true("a process serves", || server.get("/pid").status() == 200);
}
