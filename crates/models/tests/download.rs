//! Pulls from a stand-in hub, with what hubs and networks do wrong.

#[expect(unreachable_pub, reason = "tests of other rooms use it too")]
mod standin;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use kip_models::{Behaviour, CacheLimits, Error, Models, Options, Record, Request};
use kip_spec::named_secret::SecretText;
use kip_wire::PullPhase;
use standin::{Faults, Hub, TOKEN, noise};

fn open(folder: &Path) -> Models {
    let behaviour = Behaviour { patience: Duration::from_secs(5), ..Behaviour::default() };
    let options = Options {
        folder: folder.join("models"),
        endpoints: BTreeMap::new(),
        buckets: BTreeMap::new(),
        reserve: 0,
        limits: CacheLimits::default(),
        prefetch: true,
        foreign_ids: false,
        certificates: None,
        behaviour,
    };
    Models::open(options).expect("a cache")
}

fn request(hub: &Hub, source: &str) -> Request {
    Request {
        source: source.parse().expect("a source"),
        endpoint: Some(hub.endpoint()),
        token: None,
        token_secret: None,
        include: Vec::new(),
        commit: None,
    }
}

async fn pull(models: &Models, request: Request) -> Result<Record, Error> {
    models.pulled(models.pull(request).id).await
}

/// 40 MiB, which is two ranges, a file of LFS and two of git.
fn add(hub: &Hub) -> Vec<u8> {
    let large = noise(40 << 20, 7);
    let files = [
        ("onnx/model.onnx", large.clone()),
        ("config.json", b"{}\n".to_vec()),
        ("tokenizer.json", noise(5_000, 3)),
        ("empty", Vec::new()),
    ];
    hub.add("org/model", &files);
    large
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_whole_from_both_protocols_and_is_kept_once() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    let large = add(&hub);
    let models = open(folder.path());
    for source in ["hf:org/model", "modelscope:org/model"] {
        let record = pull(&models, request(&hub, source)).await.unwrap();
        assert_eq!(record.files.len(), 4);
        let tree = models.folder(&record);
        assert!(std::fs::read(tree.join("onnx/model.onnx")).unwrap() == large);
        assert_eq!(std::fs::read(tree.join("config.json")).unwrap(), b"{}\n");
        let mode = std::fs::metadata(tree.join("onnx/model.onnx")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        assert!(record.licence.is_some() && record.task.as_deref() == Some("image-classification"), "{record:?}");
    }
    let seen = hub.seen();
    let contents = seen.iter().filter(|seen| seen.storage && seen.target.contains("model.onnx"));
    assert_eq!(contents.clone().count(), 2, "two ranges of the first pull, none of the second: {contents:?}");
    assert_eq!(models.find("hf:org/model").unwrap().commit, hub.commit("org/model"));
    let usage = models.usage().await.unwrap();
    assert_eq!((usage.models.len(), usage.partial), (2, 0));
    assert_eq!(usage.used, (40 << 20) + 3 + 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_in_pages_and_patterns_choose_files() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    hub.add("org/many", &["a.json", "b.json", "c.bin", "d/e.json"].map(|path| (path, path.as_bytes().to_vec())));
    hub.set(Faults { page: 1, ..Faults::default() });
    let models = open(folder.path());
    let some = Request { include: vec!["*.json".to_owned()], ..request(&hub, "hf:org/many") };
    assert_eq!(pull(&models, some).await.unwrap().files.len(), 3);
    let all = pull(&models, request(&hub, "hf:org/many")).await.unwrap();
    assert_eq!(all.files.len(), 4, "a later pull adds to the same model");
    assert_eq!(models.list().len(), 1);
    let none = Request { include: vec!["*.gguf".to_owned()], ..request(&hub, "hf:org/many") };
    assert!(matches!(pull(&models, none).await, Err(Error::Empty { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_go_on_at_the_missing_byte() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    let large = add(&hub);
    hub.set(Faults { cuts: 3, cut_after: 1_234_567, ..Faults::default() });
    let models = open(folder.path());
    let record = pull(&models, request(&hub, "hf:org/model")).await.unwrap();
    assert!(std::fs::read(models.folder(&record).join("onnx/model.onnx")).unwrap() == large);
    let ranges: Vec<String> =
        hub.seen().into_iter().filter(|seen| seen.storage).filter_map(|seen| seen.range).collect();
    let begins = |at: usize| ranges.iter().any(|range| range.starts_with(&format!("bytes={at}-")));
    assert!(begins(1_234_567) || begins((20 << 20) + 1_234_567), "{ranges:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_leaves_no_model_and_goes_on_in_the_next_server() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    let large = add(&hub);
    hub.set(Faults { pause: Some(Duration::from_millis(5)), ..Faults::default() });
    let models = open(folder.path());
    let begun = models.pull(request(&hub, "hf:org/model"));
    while models.pull_info(begun.id).unwrap().received < 4 << 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    models.cancel(begun.id).unwrap();
    assert!(matches!(models.pulled(begun.id).await, Err(Error::Cancelled)));
    assert_eq!(models.pull_info(begun.id).unwrap().phase, PullPhase::Failed);
    assert!(models.list().is_empty());
    let there = models.usage().await.unwrap().partial;
    assert!(there >= 3 << 20, "{there}");
    drop(models);
    hub.set(Faults::default());
    hub.seen();
    let models = open(folder.path());
    let record = pull(&models, request(&hub, "hf:org/model")).await.unwrap();
    assert!(std::fs::read(models.folder(&record).join("onnx/model.onnx")).unwrap() == large);
    let asked = |seen: &standin::RequestRecord| {
        let (from, to) = seen.range.as_deref()?.strip_prefix("bytes=")?.split_once('-')?;
        Some(to.parse::<u64>().ok()? + 1 - from.parse::<u64>().ok()?)
    };
    let asked: u64 = hub.seen().iter().filter(|seen| seen.storage).filter_map(asked).sum();
    // A write that was under way at the cancellation may come after the first look.
    let missing = (40 << 20) - there;
    assert!(asked <= missing && asked + (4 << 20) >= missing, "{asked} of {missing}");
    assert_eq!(models.usage().await.unwrap().partial, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_listed_is_refused_and_not_kept() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    add(&hub);
    let models = open(folder.path());
    for faults in [Faults { wrong_sizes: true, ..Faults::default() }, Faults { flips: 100, ..Faults::default() }] {
        hub.set(faults.clone());
        for source in ["hf:org/model", "modelscope:org/model"] {
            let error = pull(&models, request(&hub, source)).await.unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{faults:?} {error:?}");
        }
        assert!(models.list().is_empty());
    }
    hub.set(Faults { flips: 1, ..Faults::default() });
    pull(&models, request(&hub, "hf:org/model")).await.expect("one flipped byte costs another try");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_sends_the_whole_file() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    let large = add(&hub);
    hub.set(Faults { ignore_ranges: true, ..Faults::default() });
    let models = open(folder.path());
    let record = pull(&models, request(&hub, "hf:org/model")).await.unwrap();
    assert!(std::fs::read(models.folder(&record).join("onnx/model.onnx")).unwrap() == large);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_hub_is_asked_again_when_it_says_and_not_for_ever() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    hub.add("org/small", &[("config.json", b"{}".to_vec())]);
    hub.set(Faults { unavailable: 2, ..Faults::default() });
    let models = open(folder.path());
    pull(&models, request(&hub, "hf:org/small")).await.unwrap();
    hub.set(Faults { unavailable: 1_000, ..Faults::default() });
    let error = pull(&models, request(&hub, "modelscope:org/small")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_to_the_hub_and_to_no_other_host() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    add(&hub);
    hub.gate("org/model");
    let models = open(folder.path());
    let error = pull(&models, request(&hub, "hf:org/model")).await.unwrap_err();
    assert!(matches!(error, Error::Gated { token: false, .. }), "{error:?}");
    let problem = kip_spec::Problem::from(error);
    assert!(problem.hint.as_deref().is_some_and(|hint| hint.contains("/org/model")), "{problem:?}");
    hub.seen();
    let with = Request { token: Some(SecretText::new(TOKEN.to_owned())), ..request(&hub, "hf:org/model") };
    pull(&models, with).await.unwrap();
    let seen = hub.seen();
    assert!(seen.iter().any(|seen| seen.storage) && seen.iter().any(|seen| !seen.storage));
    for seen in seen {
        assert_eq!(seen.authorization.is_some(), !seen.storage, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_not_is_said() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    add(&hub);
    let models = open(folder.path());
    for source in ["hf:org/none", "modelscope:org/none"] {
        assert!(matches!(pull(&models, request(&hub, source)).await, Err(Error::Unknown { .. })), "{source}");
    }
    for source in ["hf:org/model@v9", "modelscope:org/model@v9"] {
        assert!(matches!(pull(&models, request(&hub, source)).await, Err(Error::UnknownRevision { .. })), "{source}");
    }
    hub.set(Faults { redirect_for_ever: true, ..Faults::default() });
    assert!(matches!(pull(&models, request(&hub, "hf:org/model")).await, Err(Error::Answer { .. })));
    hub.add("org/trick", &[("../../etc/passwd", b"x".to_vec())]);
    assert!(matches!(pull(&models, request(&hub, "hf:org/trick")).await, Err(Error::Answer { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_the_same_files_join() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    add(&hub);
    let files: Vec<(&str, Vec<u8>)> = vec![("other.onnx", noise(40 << 20, 7))];
    hub.add("org/same", &files);
    hub.set(Faults { pause: Some(Duration::from_micros(200)), ..Faults::default() });
    let models = open(folder.path());
    let (one, two) = (models.pull(request(&hub, "hf:org/model")), models.pull(request(&hub, "hf:org/model")));
    assert_eq!(one.id, two.id);
    let other = models.pull(request(&hub, "hf:org/same"));
    models.pulled(one.id).await.unwrap();
    models.pulled(other.id).await.unwrap();
    let contents = hub.seen().iter().filter(|seen| seen.storage && seen.target.contains(".onnx")).count();
    assert_eq!(contents, 2, "the content comes once, in two ranges");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_and_a_folder_are_sources_too() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    let large = add(&hub);
    let models = open(folder.path());
    let url = format!("http://{}/org/model/onnx/model.onnx", hub.storage);
    let of_url = |url: &str| Request::of(url.parse().unwrap());
    let record = pull(&models, of_url(&url)).await.unwrap();
    assert!(std::fs::read(models.folder(&record).join("model.onnx")).unwrap() == large);
    hub.seen();
    pull(&models, of_url(&url)).await.unwrap();
    assert!(hub.seen().iter().all(|seen| seen.method == "HEAD"), "what is there does not come again");
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("model.onnx"), &large).unwrap();
    let record = pull(&models, of_url(&own.display().to_string())).await.unwrap();
    assert_eq!((record.files.len(), record.commit.len()), (1, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_disk_is_found_and_mended() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    add(&hub);
    let models = open(folder.path());
    let record = pull(&models, request(&hub, "hf:org/model")).await.unwrap();
    assert!(models.verify(record.clone()).await.unwrap().damaged.is_empty());
    let file = models.folder(&record).join("tokenizer.json");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&file, noise(5_000, 4)).unwrap();
    let verified = models.verify(record.clone()).await.unwrap();
    assert_eq!(verified.damaged, ["tokenizer.json"]);
    pull(&models, request(&hub, "hf:org/model")).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), noise(5_000, 3));
    assert!(models.verify(record.clone()).await.unwrap().damaged.is_empty());
    models.remove(record).await.unwrap();
    assert_eq!(models.usage().await.unwrap().used, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_is_asked_before_the_first_byte() {
    let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
    add(&hub);
    let options = Options {
        folder: folder.path().join("models"),
        endpoints: BTreeMap::new(),
        buckets: BTreeMap::new(),
        reserve: u64::MAX / 2,
        limits: CacheLimits::default(),
        prefetch: true,
        foreign_ids: false,
        certificates: None,
        behaviour: Behaviour::default(),
    };
    let models = Models::open(options).unwrap();
    assert!(matches!(pull(&models, request(&hub, "hf:org/model")).await, Err(Error::NoRoom { .. })));
    assert!(hub.seen().iter().all(|seen| !seen.storage));
}
