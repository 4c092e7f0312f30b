//! Credentials for registries, from where the engines' own commands keep them: `docker login` and `podman login`. They are read at
//! each pull and kept nowhere.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

/// How long a helper that keeps credentials may take.
const HELPER_LIMIT: Duration = Duration::from_secs(10);
/// Where Docker's own registry keeps its credentials.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The credentials for the registry of an image; none if nobody has logged in there.
pub(super) async fn of(image: &str) -> Option<DockerCredentials> {
    let registry = registry(image);
    for file in files() {
        let Ok(text) = tokio::fs::read(&file).await else { continue };
        let Ok(store) = serde_json::from_slice::<Value>(&text) else {
            tracing::warn!(file = %file.display(), "credentials of registries cannot be read: this is not JSON");
            continue;
        };
        if let Some(found) = stored(&store, registry) {
            return Some(found);
        }
        if let Some(helper) = helper(&store, registry)
            && let Some(found) = ask(&helper, registry).await
        {
            return Some(found);
        }
    }
    None
}

/// The files of `docker login` and `podman login`, in the order in which they are looked at.
fn files() -> Vec<PathBuf> {
    let variable = |name: &str| kip_host::environment::read(name).map(PathBuf::from);
    let home = variable("HOME");
    let candidates = [
        variable("REGISTRY_AUTH_FILE"),
        variable("DOCKER_CONFIG").map(|folder| folder.join("config.json")),
        variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
        home.as_ref().map(|home| home.join(".config/containers/auth.json")),
        home.as_ref().map(|home| home.join(".docker/config.json")),
        Some("/run/containers/0/auth.json".into()),
    ];
    candidates.into_iter().flatten().collect()
}

/// The registry that a reference names, in the words of the files.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB,
    }
}

/// Names by which a registry may be kept.
fn names(registry: &str) -> Vec<String> {
    match registry {
        DOCKER_HUB => vec![DOCKER_HUB.to_owned(), "docker.io".to_owned(), "index.docker.io".to_owned()],
        other => vec![
            other.to_owned(),
            format!("https://{other}"),
            format!("https://{other}/v1/"),
            format!("https://{other}/v2/"),
        ],
    }
}

fn stored(store: &Value, registry: &str) -> Option<DockerCredentials> {
    let entry = names(registry).into_iter().find_map(|name| store["auths"].get(name))?;
    let text = |key: &str| entry[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (mut username, mut password) = (text("username"), text("password"));
    if let Some(both) = text("auth").and_then(|auth| STANDARD.decode(auth).ok()) {
        let both = String::from_utf8(both).ok()?;
        let (name, word) = both.split_once(':')?;
        (username, password) = (Some(name.to_owned()), Some(word.trim_end_matches('\0').to_owned()));
    }
    let identitytoken = text("identitytoken");
    (password.is_some() || identitytoken.is_some()).then(|| DockerCredentials {
        username,
        password,
        identitytoken,
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    })
}

/// The helper that keeps the credentials of a registry: a program `docker-credential-<name>`.
fn helper(store: &Value, registry: &str) -> Option<String> {
    let own = names(registry).into_iter().find_map(|name| store["credHelpers"].get(name)?.as_str());
    let name = own.or_else(|| store["credsStore"].as_str()).filter(|name| !name.is_empty())?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    plain.then(|| format!("docker-credential-{name}"))
}

async fn ask(program: &str, registry: &str) -> Option<DockerCredentials> {
    let call = async {
        let mut child = tokio::process::Command::new(program)
            .arg("get")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        child.stdin.take()?.write_all(registry.as_bytes()).await.ok()?;
        let output = child.wait_with_output().await.ok()?;
        output.status.success().then(|| serde_json::from_slice::<Value>(&output.stdout).ok()).flatten()
    };
    let said = tokio::time::timeout(HELPER_LIMIT, call).await.ok().flatten()?;
    let text = |key: &str| said[key].as_str().map(str::to_owned);
    let (username, secret) = (text("Username"), text("Secret")?);
    let is_token = username.as_deref() == Some("<token>");
    Some(DockerCredentials {
        username: username.filter(|_| !is_token),
        password: (!is_token).then(|| secret.clone()),
        identitytoken: is_token.then_some(secret),
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_the_registry_of_the_image() {
        let store = serde_json::json!({
            "auths": {
                "localhost:5000": {"auth": STANDARD.encode("me:pass:word")},
                "https://index.docker.io/v1/": {"username": "hub", "password": "secret"},
                "empty.example": {},
            },
            "credHelpers": {"ghcr.io": "pass"},
        });
        let found = stored(&store, registry("localhost:5000/a/b:1")).expect("known");
        assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("me"), Some("pass:word")));
        assert_eq!(stored(&store, registry("ubuntu")).expect("known").username.as_deref(), Some("hub"));
        assert_eq!(stored(&store, registry("team/app")).expect("known").username.as_deref(), Some("hub"));
        assert_eq!(stored(&store, registry("empty.example/a")), None);
        assert_eq!(helper(&store, registry("ghcr.io/a/b")).as_deref(), Some("docker-credential-pass"));
        assert_eq!(helper(&store, registry("other.example/a")), None);
        assert_eq!(helper(&serde_json::json!({"credsStore": "../x y"}), "a.b"), None);
    }
}
