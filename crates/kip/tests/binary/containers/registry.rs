//! A registry of images as small as can be: what an engine asks for at a pull, from memory.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::bodies::{Engine, engine};
use crate::support::apart;

/// Podman speaks HTTP with this one only, as its settings in the tests say; Docker does with all of this host.
const FOR_PODMAN: &str = "127.0.0.1:39291";

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Serves images of these names, each with the tag `1`, until the tests end. Gives its address.
pub(crate) fn serve(names: &[&str]) -> SocketAddr {
    let address = if engine() == Some(Engine::Podman) { FOR_PODMAN } else { "127.0.0.1:0" };
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    let mut answers: BTreeMap<String, (&'static str, Vec<u8>)> = BTreeMap::new();
    for name in names {
        let layer = layer(name);
        let config = json!({
            "architecture": if name.ends_with("-foreign") { "s390x" } else { architecture() }, "os": "linux", "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/none"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "a test"}],
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": digest(&config)},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar", "size": layer.len(), "digest": digest(&layer)}],
        })
        .to_string()
        .into_bytes();
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        for reference in ["1".to_owned(), digest(&manifest)] {
            answers.insert(format!("/v2/{name}/manifests/{reference}"), (kind, manifest.clone()));
        }
        for blob in [config, layer] {
            answers.insert(format!("/v2/{name}/blobs/{}", digest(&blob)), ("application/octet-stream", blob));
        }
    }
    apart(move || {
        for stream in listener.incoming().flatten() {
            let answers = answers.clone();
            apart(move || exchange(stream, &answers));
        }
    });
    address
}

fn exchange(stream: TcpStream, answers: &BTreeMap<String, (&'static str, Vec<u8>)>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            line.clear();
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let empty = (if path == "/v2/" { "application/json" } else { "" }, b"{}".to_vec());
        let found = answers.get(path).or_else(|| (path == "/v2/").then_some(&empty));
        let (status, kind, body) = match found {
            Some((kind, body)) => ("200 OK", *kind, body.as_slice()),
            None => ("404 Not Found", "application/json", b"{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}".as_slice()),
        };
        let hash = digest(body);
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ndocker-distribution-api-version: registry/2.0\r\ndocker-content-digest: {hash}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let body = if method == "HEAD" { &[] } else { body };
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_err() {
            return;
        }
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An archive with one file.
fn layer(name: &str) -> Vec<u8> {
    let content = format!("{name}\n").into_bytes();
    let mut head = [0u8; 512];
    head[..4].copy_from_slice(b"name");
    head[100..108].copy_from_slice(b"0000644\0");
    head[108..116].copy_from_slice(b"0000000\0");
    head[116..124].copy_from_slice(b"0000000\0");
    head[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    head[136..148].copy_from_slice(b"00000000000\0");
    head[148..156].copy_from_slice(b"        ");
    head[156] = b'0';
    head[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = head.to_vec();
    archive.extend(&content);
    archive.resize(512 + content.len().div_ceil(512) * 512 + 1_024, 0);
    archive
}
