//! Images: pinned at a deployment, listed, removed; and what is refused where no engine answers.

use std::net::SocketAddr;

use crate::bodies::{IMAGE, engine};
use crate::support::{Server, function, manifest, subject, until_true};

super::each_engine!(
    a_version_keeps_its_image,
    images_are_listed_and_removed,
    images_that_cannot_be_had,
    images_of_a_registry,
);

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

/// One after the other: Podman has one registry in the tests.
fn images_of_a_registry() {
    let names = ["kip-foreign", "kip-kept", "kip-free", "kip-needed", "kip-later"];
    let address = super::registry::serve(&names);
    an_image_for_another_architecture(address);
    declared_images_are_kept_and_what_nothing_needs_goes(address);
}

fn declared_images_are_kept_and_what_nothing_needs_goes(address: SocketAddr) {
    let names = ["kip-kept", "kip-free", "kip-needed", "kip-later"];
    let remove_all = || {
        for name in names {
            engine().unwrap().ask("DELETE", &format!("/v1.41/images/{address}/{name}:1?force=true"), Vec::new());
        }
    };
    remove_all();
    let server = Server::with(&format!("[images]\nkeep = \"{address}/kip-kept:1\"\nsize = \"1B\"\n"));
    let find = |name: &str| {
        let list = server.ask(&["image", "ls"]);
        let images = list["images"].as_array().unwrap().clone();
        let end = format!("{address}/{name}:1");
        images
            .into_iter()
            .find(|image| image["tags"].as_array().unwrap().iter().any(|tag| tag.as_str().unwrap().ends_with(&end)))
    };
    let kept = crate::support::until("a declared image is there before anybody asks for it", || find("kip-kept"));
    assert_eq!((&kept["kept"], &kept["needed"]), (&true.into(), &false.into()), "{kept}");
    let text = manifest(&[format!("  f:\n    image: {address}/kip-needed:1\n    run: [/none]\n")]);
    server.deploy_without_wait(&text);
    let needed = find("kip-needed").expect("the deployment has pulled it");
    assert_eq!((&needed["needed"], &needed["pulled"]), (&true.into(), &true.into()), "{needed}");
    // Beyond the limit, what was pulled and is not needed goes at once; what a version needs, or is declared, does not.
    server.kip(&["image", "pull", &format!("{address}/kip-free:1")]).ok();
    until_true("it is removed", || find("kip-free").is_none());
    assert!(find("kip-needed").is_some() && find("kip-kept").is_some() && find_subject(&server));
    server.kip(&["image", "rm", &format!("{address}/kip-needed:1")]).failed(&["KW-4061", "kip-needed", "try: "]);
    let room = server.ask(&["image", "du"]);
    let why: Vec<&str> = room.as_array().unwrap().iter().map(|one| one["why"].as_str().unwrap()).collect();
    assert!(why.contains(&"a version needs it") && why.contains(&"declared") && why.contains(&"not ours"), "{room}");
    server.kip(&["rm", "f"]).ok();
    server.kip(&["image", "pull", &format!("{address}/kip-later:1")]).ok();
    until_true("nothing needs it any more", || find("kip-needed").is_none());
    assert!(find("kip-kept").is_some() && find_subject(&server));
    remove_all();
}

fn an_image_for_another_architecture(address: SocketAddr) {
    let server = Server::start();
    let text = manifest(&[format!("  f:\n    image: {address}/kip-foreign:1\n    run: [/none]\n")]);
    server.try_deploy(&text).failed(&["KW-4024", "s390x", "kip-foreign"]);
    engine().unwrap().ask("DELETE", &format!("/v1.41/images/{address}/kip-foreign:1?force=true"), Vec::new());
}

/// The image of the subject is nobody's but the tests'.
fn find_subject(server: &Server) -> bool {
    let list = server.ask(&["image", "ls"]);
    list.to_string().contains(IMAGE)
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
