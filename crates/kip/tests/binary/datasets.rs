//! Data outside of the code: shares that kip.yaml mounts by their names.

use serde_json::json;

use crate::support::{Server, call, function, manifest};

#[test]
fn a_function_sees_a_share_by_its_name() {
    let server = Server::start();
    if server.api_get("/api/v1/status").json()["server"]["mounts"] == json!(false) {
        eprintln!("skipped: this host gives instances no mounts");
        return;
    }
    let data = |text: &str| manifest(&[function("f", &[], &format!("data: {text}"))]);
    let cat = || server.kip(&["exec", "f", "--", "cat", "/mnt/photos/cat.txt"]).ok().stdout;
    server.deploy(&data("{/mnt/photos: \"oss://photos/train\"}"));
    let folder = server.data().join("storage/oss/photos/train");
    std::fs::write(folder.join("cat.txt"), "a cat").unwrap();
    assert_eq!(cat(), "a cat");
    let written = server.kip(&["exec", "f", "--", "touch", "/mnt/photos/dog.txt"]);
    assert_ne!(written.code, Some(0), "{written:?}");
    // The operator names another folder; the next deployment takes it.
    let other = server.folder().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("cat.txt"), "another cat").unwrap();
    let headers = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", server.key);
    let body = json!({"folder": other}).to_string();
    let set = call(server.api, "PUT", "/api/v1/shares/oss%3A%2F%2Fphotos%2Ftrain", &headers, body.as_bytes());
    assert_eq!(set.status(), 200, "{set:?}");
    server.deploy(&data("{/mnt/photos: {share: \"oss://photos/train\", writable: true}}"));
    assert_eq!(cat(), "another cat");
    server.kip(&["exec", "f", "--", "touch", "/mnt/photos/dog.txt"]).ok();
    assert!(other.join("dog.txt").exists());
    for (wrong, part) in [
        ("{/etc: \"oss://photos\"}", "/etc"),
        ("{/mnt/a: photos}", "oss://BUCKET"),
        ("{/mnt/a: \"oss://a\", /mnt/a/b: \"oss://b\"}", "inside"),
        ("{/mnt/a: {share: \"oss://a\", write: true}}", "write"),
    ] {
        server.try_deploy(&data(wrong)).failed(&["KW-10", part]);
    }
}
