//! Models of other programs: the layouts of their folders, used in place, and what is wrong with some of them.

#[expect(unreachable_pub, dead_code, reason = "tests of other rooms use it too, each a part of it")]
mod standin;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kip_models::{Adoptions, Behaviour, CacheLimits, Error, Models, Options, Record, Request};
use kip_spec::named_secret::NoSecrets;
use kip_wire::ModelTier;
use serde_json::json;
use standin::{Hub, git, noise, sha256};

fn open(folder: &Path, foreign_ids: bool) -> Models {
    let options = Options {
        folder: folder.join("models"),
        endpoints: BTreeMap::new(),
        buckets: BTreeMap::new(),
        reserve: 0,
        limits: CacheLimits::default(),
        prefetch: true,
        foreign_ids,
        certificates: None,
        behaviour: Behaviour { patience: Duration::from_secs(5), ..Behaviour::default() },
    };
    Models::open(options).expect("a cache")
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, content).expect("written");
}

/// The cache of huggingface_hub, as it leaves it after a download.
fn hugging_face(root: &Path, repository: &str, commit: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let folder = root.join("hub").join(format!("models--{}", repository.replace('/', "--")));
    write(&folder.join("refs/main"), commit.as_bytes());
    for (path, content) in files {
        let name = if content.len() < 1 << 10 { git(content) } else { sha256(content) };
        write(&folder.join("blobs").join(&name), content);
        let link = folder.join("snapshots").join(commit).join(path);
        fs::create_dir_all(link.parent().expect("a folder")).expect("made");
        let up = "../".repeat(path.matches('/').count() + 2);
        symlink(format!("{up}blobs/{name}"), link).expect("a link");
    }
    folder
}

async fn pull(models: &Models, hub: &Hub, source: &str) -> Result<Record, Error> {
    let request = Request { endpoint: Some(hub.endpoint()), ..Request::of(source.parse().expect("a source")) };
    models.pulled(models.pull(request).id).await
}

async fn adopt(models: &Models, folder: &Path) -> Adoptions {
    models.adopt(folder.to_owned()).await.expect("adopted")
}

fn refusals(done: &Adoptions) -> String {
    done.refused.iter().map(|(place, why)| format!("{}: {why}\n", place.display())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_hugging_faces_client_is_used_without_a_download() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    let large = noise(3 << 20, 5);
    let files = [("onnx/model.onnx", large.clone()), ("config.json", b"{}".to_vec())];
    hub.add("org/alpha", &files);
    let commit = hub.commit("org/alpha");
    let root = folder.path().join("huggingface");
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, content)| (*path, content.as_slice())).collect();
    let theirs = hugging_face(&root, "org/alpha", &commit, &files);
    let models = open(folder.path(), false);
    let done = adopt(&models, &root).await;
    assert_eq!((done.adopted.len(), refusals(&done)), (1, String::new()));
    let record = models.find("hf:org/alpha@main").unwrap();
    assert_eq!((record.commit.as_str(), record.adopted.is_some()), (commit.as_str(), true));
    let own = models.folder(&record).join("onnx/model.onnx");
    let blob = theirs.join("blobs").join(sha256(&large));
    assert_eq!(fs::metadata(&own).unwrap().ino(), fs::metadata(&blob).unwrap().ino(), "nothing is copied");
    assert_eq!(models.taken().await.unwrap(), 0);
    // A pull of the same commit finds everything there.
    let pulled = pull(&models, &hub, "hf:org/alpha").await.unwrap();
    assert!(hub.seen().iter().all(|seen| !seen.storage && !seen.target.contains("/resolve/")));
    assert_eq!((pulled.files.len(), pulled.adopted.is_some()), (2, true));
    // The first start checks what the names claim, and a content that is another one comes from the hub.
    let record = models.find("hf:org/alpha").unwrap();
    assert_eq!(models.provide(&record, &NoSecrets).await.unwrap().tier, ModelTier::Memory);
    let verified = |damaged: usize| {
        let record = models.find("hf:org/alpha").unwrap();
        record.verified.is_some() && record.damaged.len() == damaged
    };
    for _ in 0..4_000 {
        if verified(0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(verified(0));
    fs::write(&blob, noise(3 << 20, 7)).unwrap();
    models.verify(models.find("hf:org/alpha").unwrap()).await.unwrap();
    assert!(verified(1));
    assert_eq!(
        models.provide(&models.find("hf:org/alpha").unwrap(), &NoSecrets).await.unwrap().tier,
        ModelTier::Remote
    );
    assert!(fs::read(&own).unwrap() == large);
    // Without the model, the other program's files are as they were.
    models.remove(models.find("hf:org/alpha").unwrap()).await.unwrap();
    assert!(fs::read(&blob).unwrap() == noise(3 << 20, 7) && !own.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn ollama_modelscope_and_plain_folders_are_adopted_too() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    let models = open(folder.path(), false);
    let weights = noise(2 << 20, 9);
    let store = folder.path().join("ollama/models");
    let digest = sha256(&weights);
    write(&store.join("blobs").join(format!("sha256-{digest}")), &weights);
    let layer = |kind: &str, size: usize| json!({"mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size});
    let manifest =
        |size| json!({"schemaVersion": 2, "layers": [layer("model", size), layer("license", 3)]}).to_string();
    let manifests = store.join("manifests/registry.ollama.ai");
    write(&manifests.join("library/tiny/7b"), manifest(weights.len()).as_bytes());
    write(&manifests.join("me/other/latest"), manifest(5).as_bytes());
    let done = adopt(&models, &folder.path().join("ollama")).await;
    assert_eq!(done.adopted.iter().map(|record| record.source.as_str()).collect::<Vec<_>>(), ["ollama:tiny:7b"]);
    assert!(refusals(&done).contains("other/latest") && refusals(&done).contains("bytes"), "{}", refusals(&done));
    let record = pull(&models, &hub, "ollama:tiny:7b").await.unwrap();
    assert!(fs::read(models.folder(&record).join("tiny-7b.gguf")).unwrap() == weights);
    assert!(matches!(pull(&models, &hub, "ollama:none").await, Err(Error::NotCached(_))));
    // ModelScope's client keeps no digests: files are read when a hub names theirs.
    let files = [("model.bin", noise(1 << 20, 11)), ("config.json", b"{}".to_vec())];
    hub.add("org/beta", &files);
    let theirs = folder.path().join("modelscope/hub/models/org/beta");
    files.iter().for_each(|(path, content)| write(&theirs.join(path), content));
    write(&theirs.join(".msc"), b"x");
    let done = adopt(&models, &folder.path().join("modelscope")).await;
    assert_eq!(done.adopted[0].source, "modelscope:org/beta");
    let record = pull(&models, &hub, "modelscope:org/beta").await.unwrap();
    assert!(hub.seen().iter().all(|seen| !seen.storage), "nothing is downloaded");
    assert!(record.files.iter().all(|file| file.place.is_some() && !file.sha256.is_empty()));
    // A folder is one model.
    let plain = folder.path().join("plain");
    write(&plain.join("model.gguf"), &weights);
    let done = adopt(&models, &plain).await;
    assert_eq!(models.adopted_at(&plain).unwrap().id(), done.adopted[0].id());
    assert!(matches!(models.adopt(folder.path().join("none")).await, Err(Error::Adoption { .. })));
    assert!(matches!(models.adopt(folder.path().to_owned()).await, Err(Error::Adoption { .. })), "the cache is in it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_out_of_a_folder_or_cannot_be_read_by_functions_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let models = open(folder.path(), false);
    let commit = "a".repeat(40);
    let secret = folder.path().join("secret");
    write(&secret, b"secret");
    let root = folder.path().join("huggingface");
    hugging_face(&root, "org/good", &commit, &[("config.json", b"{}")]);
    let out = hugging_face(&root, "org/out", &commit, &[("config.json", b"{}")]);
    symlink(&secret, out.join("snapshots").join(&commit).join("model.bin")).unwrap();
    let neighbour = hugging_face(&root, "org/neighbour", &commit, &[("config.json", b"{}")]);
    symlink("../../../models--org--good/refs/main", neighbour.join("snapshots").join(&commit).join("x")).unwrap();
    let pipe = hugging_face(&root, "org/pipe", &commit, &[("config.json", b"{}")]);
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        pipe.join("snapshots").join(&commit).join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    );
    made.unwrap();
    fs::create_dir_all(root.join("hub/models--..--x/snapshots").join(&commit)).unwrap();
    // The folder of a snapshot is a link.
    fs::create_dir_all(root.join("hub/models--org--linked/snapshots")).unwrap();
    symlink(folder.path(), root.join("hub/models--org--linked/snapshots").join(&commit)).unwrap();
    let done = adopt(&models, &root).await;
    assert_eq!(done.adopted.iter().map(|record| record.source.as_str()).collect::<Vec<_>>(), ["hf:org/good"]);
    let refused = refusals(&done);
    for part in
        ["org--out", "leads out of the folder", "org--neighbour", "org--pipe", "no regular file", "models--..--x"]
    {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert!(models.list().iter().all(|info| !info.source.contains("linked")));
    // Functions with ids of their own.
    let models = open(&folder.path().join("foreign"), true);
    let private = folder.path().join("private");
    write(&private.join("model.gguf"), b"GGUF");
    fs::set_permissions(private.join("model.gguf"), fs::Permissions::from_mode(0o600)).unwrap();
    let Err(Error::Adoption { reason, .. }) = models.adopt(private.clone()).await else { panic!("it is adopted") };
    assert!(reason.contains("chmod o+r"), "{reason}");
    fs::set_permissions(private.join("model.gguf"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(adopt(&models, &private).await.adopted.len(), 1);
}
