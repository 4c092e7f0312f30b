//! The cache within its quota, and models whose files come again at a start.

#[expect(unreachable_pub, dead_code, reason = "tests of other rooms use it too, each a part of it")]
mod standin;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use kip_models::{Behaviour, CacheLimits, Error, ModelUsers, Models, Options, Record, Request};
use kip_spec::named_secret::NoSecrets;
use kip_wire::ModelTier;
use parking_lot::Mutex;
use standin::{Hub, noise};

const MIB: u64 = 1 << 20;

/// Models that are said to be needed, by a part of the names of their folders.
#[derive(Debug, Default)]
struct Needed(Mutex<BTreeSet<String>>);

impl ModelUsers for Needed {
    fn users(&self, folders: Vec<PathBuf>) -> BoxFuture<'static, Option<BTreeMap<PathBuf, BTreeSet<String>>>> {
        let needed = self.0.lock().clone();
        let is_needed = |folder: &PathBuf| needed.iter().any(|part| folder.to_string_lossy().contains(part));
        let users = folders.iter().filter(|folder| is_needed(folder));
        let users = users.map(|folder| (folder.clone(), BTreeSet::from(["f".to_owned()]))).collect();
        async move { Some(users) }.boxed()
    }
}

fn open(folder: &Path, limits: CacheLimits, needed: &Arc<Needed>) -> Models {
    let behaviour = Behaviour { patience: Duration::from_secs(5), ..Behaviour::default() };
    let options = Options {
        folder: folder.join("models"),
        endpoints: BTreeMap::new(),
        buckets: BTreeMap::new(),
        reserve: 0,
        limits,
        prefetch: true,
        foreign_ids: false,
        certificates: None,
        behaviour,
    };
    let models = Models::open(options).expect("a cache");
    models.serve(needed.clone());
    models
}

fn hub() -> Hub {
    let hub = Hub::start();
    for (seed, name) in (1..).step_by(2).zip(["alpha", "beta", "gamma", "delta"]) {
        hub.add(&format!("org/{name}"), &[("model.bin", noise(4 << 20, seed)), ("config.json", b"{}".to_vec())]);
    }
    hub
}

async fn pull(models: &Models, hub: &Hub, source: &str) -> Result<Record, Error> {
    let request = Request { endpoint: Some(hub.endpoint()), ..Request::of(source.parse().expect("a source")) };
    models.pulled(models.pull(request).id).await
}

fn evicted(models: &Models) -> Vec<String> {
    let gone = models.list().into_iter().filter(|info| info.evicted.is_some());
    gone.map(|info| info.source).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_evicts_what_was_used_longest_ago_and_never_what_is_needed_or_pinned() {
    let (hub, folder, needed) = (hub(), tempfile::tempdir().unwrap(), Arc::new(Needed::default()));
    // The marks are out of the way: only pulls make room here.
    let limits = CacheLimits { quota: Some(13 * MIB), high: 100, low: 100 };
    let models = open(folder.path(), limits, &needed);
    needed.0.lock().insert("alpha".to_owned());
    for name in ["alpha", "beta", "gamma"] {
        pull(&models, &hub, &format!("hf:org/{name}")).await.unwrap();
    }
    assert_eq!(evicted(&models), Vec::<String>::new());
    // `beta` is older than `gamma`, and used after it was pulled.
    let (beta, gamma) = (models.find("hf:org/beta").unwrap(), models.find("hf:org/gamma").unwrap());
    while kip_host::clock::wall_millis() <= gamma.pulled {
        tokio::task::yield_now().await;
    }
    assert_eq!(models.provide(&beta, &NoSecrets).await.unwrap().tier, ModelTier::Memory);
    pull(&models, &hub, "hf:org/delta").await.unwrap();
    assert_eq!(evicted(&models), ["hf:org/gamma"]);
    let why = models.list().into_iter().find_map(|info| info.evicted).unwrap().why;
    assert!(why.contains("hf:org/delta") && why.contains("quota"), "{why}");
    assert!(!models.folder(&models.find("hf:org/gamma").unwrap()).exists());
    assert!(models.taken().await.unwrap() < 13 * MIB);
    assert_eq!(models.evictions(), 1);
    // Nothing more may go: the pull ends before its first byte.
    for name in ["beta", "delta"] {
        models.pin(models.find(&format!("hf:org/{name}")).unwrap(), true).await.unwrap();
    }
    hub.seen();
    let refused = pull(&models, &hub, "hf:org/gamma").await.unwrap_err();
    assert!(matches!(refused, Error::Quota { quota, .. } if quota == 13 * MIB), "{refused}");
    assert!(hub.seen().iter().all(|seen| !seen.storage));
    let usage = models.usage().await.unwrap();
    let kept: Vec<Option<String>> = usage.models.into_iter().map(|model| model.kept_for).collect();
    assert_eq!(kept, [Some("f".to_owned()), Some("pinned".to_owned()), Some("pinned".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_high_mark_the_cache_shrinks_to_the_low_one() {
    let (hub, folder, needed) = (hub(), tempfile::tempdir().unwrap(), Arc::new(Needed::default()));
    let models = open(folder.path(), CacheLimits { quota: Some(20 * MIB), high: 50, low: 45 }, &needed);
    for name in ["alpha", "beta"] {
        pull(&models, &hub, &format!("hf:org/{name}")).await.unwrap();
    }
    pull(&models, &hub, "hf:org/gamma").await.unwrap();
    for _ in 0..4_000 {
        if evicted(&models) == ["hf:org/alpha"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(evicted(&models), ["hf:org/alpha"]);
    let why = models.list().into_iter().find_map(|info| info.evicted).unwrap().why;
    assert!(why.contains("50 %"), "{why}");
    // Nobody says what is needed: nothing goes.
    drop(models);
    let options = Options {
        folder: folder.path().join("models"),
        endpoints: BTreeMap::new(),
        buckets: BTreeMap::new(),
        reserve: 0,
        limits: CacheLimits { quota: Some(9 * MIB), high: 50, low: 45 },
        prefetch: true,
        foreign_ids: false,
        certificates: None,
        behaviour: Behaviour::default(),
    };
    let models = Models::open(options).unwrap();
    assert!(matches!(pull(&models, &hub, "hf:org/delta").await, Err(Error::Quota { .. })));
    assert_eq!(evicted(&models), ["hf:org/alpha"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_on_the_disk_come_again_at_their_commit() {
    let (hub, folder, needed) = (hub(), tempfile::tempdir().unwrap(), Arc::new(Needed::default()));
    let models = open(folder.path(), CacheLimits::default(), &needed);
    for source in ["hf:org/alpha", "modelscope:org/beta"] {
        let record = pull(&models, &hub, source).await.unwrap();
        models.evict(record.clone()).await.unwrap();
        let file = models.folder(&record).join("model.bin");
        assert!(!file.exists());
        let record = models.find(source).unwrap();
        assert!(matches!(models.verify(record.clone()).await, Err(Error::Evicted(_))));
        assert!(matches!(models.prefetch(record.clone()).await, Err(Error::Evicted(_))));
        let load = models.provide(&record, &NoSecrets).await.unwrap();
        assert_eq!((load.tier, file.exists()), (ModelTier::Remote, true));
        let record = models.find(source).unwrap();
        assert_eq!((record.evicted.as_ref(), record.files.len()), (None, 2));
        // Somebody removed a file by hand.
        std::fs::remove_file(&file).unwrap();
        assert_eq!(models.provide(&record, &NoSecrets).await.unwrap().tier, ModelTier::Remote);
        assert!(file.exists());
        let load = models.provide(&record, &NoSecrets).await.unwrap();
        assert_eq!(load.tier, ModelTier::Memory);
        models.loaded(&[load], 40);
        let info = models.info(&record);
        assert_eq!((info.loads.memory.starts, info.loads.memory.total_ms), (1, 40));
        assert!(info.used.is_some());
    }
    // The hub has another commit meanwhile.
    for source in ["hf:org/alpha", "modelscope:org/beta"] {
        let record = models.find(source).unwrap();
        models.evict(record.clone()).await.unwrap();
        let repository = source.split_once(':').unwrap().1;
        hub.add(repository, &[("model.bin", noise(1 << 20, 77)), ("config.json", b"{}".to_vec())]);
        let error = models.provide(&models.find(source).unwrap(), &NoSecrets).await.unwrap_err();
        let told = matches!(error, Error::UnknownRevision { .. } | Error::Moved { .. });
        assert!(told, "{source}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_an_evicted_model_brings_all_of_it() {
    let (hub, folder, needed) = (hub(), tempfile::tempdir().unwrap(), Arc::new(Needed::default()));
    let models = open(folder.path(), CacheLimits::default(), &needed);
    let record = pull(&models, &hub, "hf:org/alpha").await.unwrap();
    models.evict(record.clone()).await.unwrap();
    let some = Request {
        endpoint: Some(hub.endpoint()),
        include: vec!["*.json".to_owned()],
        ..Request::of("hf:org/alpha".parse().unwrap())
    };
    let again = models.pulled(models.pull(some).id).await.unwrap();
    assert_eq!(again.files, record.files);
    assert!(models.folder(&again).join("model.bin").exists());
}
