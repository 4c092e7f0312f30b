use super::*;
use crate::control::contract::{commit, deploy, put_key};
use crate::{
    Change, ControlFile as _, ControlStore as _, DecisionRecord, Effect, Record, RecordStore as _, RecordsFile as _,
    RequestFilter, Seq, SqliteControl, SqliteRecords, StoredKey, StoredRevision,
};

struct World {
    folder: tempfile::TempDir,
    control: SqliteControl,
    records: SqliteRecords,
    server: String,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = SqliteControl::open(&folder.path().join("control.db")).unwrap();
        let records = SqliteRecords::open(&folder.path().join("records.db")).unwrap();
        let server = control.begin_boot().await.unwrap().server;
        Self { folder, control, records, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn deploy(&self, names: &[&str]) -> Vec<u64> {
        deploy(&self.control, names).await.iter().map(|made| made.id.0).collect()
    }

    async fn write(&self, file: &Path, overwrite: bool) -> Result<Manifest, Error> {
        let files = Files { control: &self.control, records: &self.records, tasks: None, code: &[] };
        write(file, overwrite, "0.1.0", &self.control, files).await
    }

    /// Restores a backup of the control objects; the revisions that serve then.
    async fn replace(&self, staged: &StagedBackup, renew: &[&str]) -> Vec<StoredRevision> {
        let renew = renew.iter().map(|name| name.parse().unwrap()).collect();
        match self.control.replace(String::new(), staged, renew).await.unwrap().effect {
            Effect::Replaced(revisions) => revisions,
            other => panic!("{other:?}"),
        }
    }

    /// The keys without their revisions.
    async fn keys(&self) -> Vec<StoredKey> {
        let keys = self.control.keys().await.unwrap();
        keys.into_iter().map(|key| StoredKey { rev: Seq(0), ..key }).collect()
    }

    async fn backup(&self, name: &str) -> PathBuf {
        self.write(&self.path(name), false).await.unwrap();
        self.path(name)
    }

    fn stage(&self, file: &Path) -> Result<StagedBackup, Error> {
        stage(file, self.folder.path(), Some(&self.server))
    }

    fn left_behind(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.starts_with("control.db") && !name.starts_with("records.db"));
        names.sort();
        names
    }
}

#[tokio::test]
async fn what_was_backed_up_comes_back_and_numbers_are_never_reused() {
    let world = World::new().await;
    world.deploy(&["a", "b"]).await;
    let file = world.backup("one").await;
    assert_eq!(world.left_behind(), ["one"]);
    let newer = world.deploy(&["a", "c"]).await;
    let key = StoredKey::new("later", [7; 32], 1, "admin", "default");
    let key = StoredKey { id: put_key(&world.control, key.clone()).await, ..key };

    let staged = world.stage(&file).unwrap();
    assert_eq!((staged.manifest.functions, staged.manifest.by.as_str()), (2, "0.1.0"));
    let restored = world.replace(&staged, &["a"]).await;
    drop(staged);
    let names: Vec<&str> = restored.iter().map(|version| version.spec.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(restored[0].id.0 > newer[1], "a renewed version has a number of its own: {restored:?}");
    assert_eq!(restored[1].id.0, 2, "what did not change keeps its number");
    assert_eq!(world.keys().await, [key], "keys that open the server stay");
    assert_eq!(world.control.identity().await.unwrap().unwrap().server, world.server);
    assert_eq!(world.left_behind(), ["one"]);
    assert!(world.deploy(&["d"]).await[0] > restored[0].id.0);
}

#[tokio::test]
async fn keys_of_another_server_come_along_but_what_was_taken_from_a_key_stays_taken() {
    let (world, other) = (World::new().await, World::new().await);
    let key = |name: &str, secret: u8| StoredKey::new(name, [secret; 32], 1, "deploy", "default");
    let gone = put_key(&world.control, key("gone", 1)).await;
    let rotated = put_key(&world.control, key("rotated", 2)).await;
    let file = world.backup("one").await;
    commit(&world.control, Change::RemoveKey(gone)).await;
    let fresh = StoredKey { id: rotated, previous: Some(([2; 32], 9)), ..key("rotated", 3) };
    put_key(&world.control, fresh.clone()).await;
    world.replace(&world.stage(&file).unwrap(), &[]).await;
    assert_eq!(world.keys().await, [fresh], "a removed key does not come back, nor an old secret");

    put_key(&other.control, StoredKey { previous: Some(([2; 32], 9)), ..key("gone", 5) }).await;
    let staged = stage(&file, other.folder.path(), None).unwrap();
    other.replace(&staged, &[]).await;
    let keys = other.keys().await;
    let found: Vec<(&str, u8, &str)> =
        keys.iter().map(|key| (key.name.as_str(), key.hash[0], key.role.as_str())).collect();
    assert_eq!(found, [("gone", 5, "deploy"), ("gone-0101010101010101", 1, "deploy")]);
}

#[tokio::test]
async fn records_come_back_when_asked_for() {
    let world = World::new().await;
    let decision = |at: i64| {
        Record::Decision(DecisionRecord {
            at,
            function: "a".to_owned(),
            version: 1,
            label: None,
            instance: None,
            from: None,
            to: "ready".to_owned(),
            why: "done".to_owned(),
            detail: None,
            decision: serde_json::Value::Null,
        })
    };
    world.records.append(vec![decision(1)]).await.unwrap();
    let file = world.backup("one").await;
    world.records.append(vec![decision(2)]).await.unwrap();
    world.records.replace(&world.stage(&file).unwrap()).await.unwrap();
    let found = world.records.decisions("a".to_owned(), 9).await.unwrap();
    assert_eq!(found.iter().map(|record| record.at).collect::<Vec<_>>(), [1]);
    assert_eq!(world.records.requests(RequestFilter { limit: 1, ..RequestFilter::default() }).await.unwrap(), []);
}

#[tokio::test]
async fn a_file_is_never_overwritten_unasked() {
    let world = World::new().await;
    let file = world.path("one");
    fs::write(&file, "mine").unwrap();
    let again = world.write(&file, false).await;
    assert!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    world.write(&file, true).await.unwrap();
    world.stage(&file).unwrap();
    let nowhere = world.write(&world.path("no/where"), false).await;
    assert!(nowhere.is_err());
    assert_eq!(world.left_behind(), ["one"]);
}

#[tokio::test]
async fn a_backup_that_would_keep_a_query_busy_or_wait_is_refused() {
    let world = World::new().await;
    world.deploy(&["a"]).await;
    let file = world.backup("one").await;
    let endless = "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x)";
    let views = [
        format!(
            "ALTER TABLE manifest RENAME TO m; CREATE VIEW manifest AS {endless} SELECT 'a' AS text, 'b' AS sha256 FROM x"
        ),
        format!(
            "ALTER TABLE pieces RENAME TO p; CREATE VIEW pieces AS {endless} SELECT '' AS file, n AS number, x'' AS bytes FROM x"
        ),
        "CREATE TRIGGER t AFTER INSERT ON pieces BEGIN SELECT 1; END".to_owned(),
    ];
    for (number, view) in views.iter().enumerate() {
        let hostile = world.path(&format!("hostile-{number}"));
        fs::copy(&file, &hostile).unwrap();
        Connection::open(&hostile).unwrap().execute_batch(view).unwrap();
        let refused = world.stage(&hostile);
        assert!(
            matches!(&refused, Err(Error::Damaged { detail, .. }) if detail.contains("plain tables")),
            "{refused:?}"
        );
        fs::remove_file(hostile).unwrap();
    }
    let link = world.path("link");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    assert!(matches!(world.stage(&link), Err(Error::Io { .. })), "a device is no backup");
    assert_eq!(world.left_behind(), ["link", "one"]);
}

#[tokio::test]
async fn no_damaged_backup_is_taken_for_whole() {
    let world = World::new().await;
    world.deploy(&["a"]).await;
    let whole = fs::read(world.backup("one").await).unwrap();
    let broken = world.path("broken");
    let mut refused = 0;
    // A flipped bit in every page, three times, at different places; those in free room change nothing and may pass.
    for (at, place) in (0..whole.len()).step_by(4096).flat_map(|page| [(page, 200), (page, 1500), (page, 3900)]) {
        let mut copy = whole.clone();
        let Some(byte) = copy.get_mut(at + place) else { continue };
        *byte ^= 0x10;
        fs::write(&broken, &copy).unwrap();
        match world.stage(&broken) {
            Err(Error::Damaged { .. }) => refused += 1,
            Ok(staged) => {
                let mut sums = staged.manifest.files.iter().zip([&staged.control, &staged.records]);
                assert!(sums.all(|(part, file)| part.schema > 1
                    || HEXLOWER.encode(&Sha256::digest(fs::read(file).unwrap())) == part.sha256));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 10, "{refused} of the damaged copies were refused");
    for length in [0, 50, 4096, whole.len() / 2, whole.len() - 4096] {
        fs::write(&broken, &whole[..length]).unwrap();
        assert!(matches!(world.stage(&broken), Err(Error::Damaged { .. })), "{length} bytes of it");
    }
    fs::copy(world.path("control.db"), &broken).unwrap();
    assert!(matches!(world.stage(&broken), Err(Error::Damaged { .. })), "another database");
    assert!(matches!(world.stage(&world.path("nothing")), Err(Error::Io { .. })));
    assert_eq!(world.left_behind(), ["broken", "one"]);
}

#[tokio::test]
async fn newer_and_foreign_ones_are_refused() {
    let world = World::new().await;
    world.deploy(&["a"]).await;
    let file = world.backup("one").await;
    let other = World::new().await;
    assert!(matches!(other.stage(&file), Err(Error::Foreign { .. })));
    assert!(stage(&file, other.folder.path(), None).is_ok(), "a server that is not yet anybody takes it");

    let edit = |name: &str, change: fn(&mut Manifest)| {
        let copy = world.path(name);
        fs::copy(&file, &copy).unwrap();
        let c = Connection::open(&copy).unwrap();
        let mut manifest = read_manifest(&c, &copy).unwrap();
        change(&mut manifest);
        let text = serde_json::to_string(&manifest).unwrap();
        let sum = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
        c.execute("UPDATE manifest SET text = ?1, sha256 = ?2", [text, sum]).unwrap();
        copy
    };
    let form = edit("form", |manifest| manifest.format = 9);
    assert!(matches!(world.stage(&form), Err(Error::Newer { .. })));
    let schema = edit("schema", |manifest| manifest.files[0].schema = 99);
    assert!(matches!(world.stage(&schema), Err(Error::Newer { .. })));
    assert_eq!(world.left_behind(), ["form", "one", "schema"]);
}

#[tokio::test]
async fn a_backup_of_an_older_schema_is_brought_along() {
    let world = World::new().await;
    let old = world.path("old-records.db");
    let c = Connection::open(&old).unwrap();
    c.execute_batch(records::MIGRATIONS[0]).unwrap();
    c.pragma_update(None, "user_version", 1).unwrap();
    c.execute("INSERT INTO requests (function, record) VALUES ('f', '{\"id\": \"r1\", \"at\": 5}')", []).unwrap();
    drop(c);
    let control = world.path("control-copy");
    world.control.copy_to(control.clone()).await.unwrap();
    let mut manifest = Manifest {
        format: FORMAT,
        server: world.server.clone(),
        made: 0,
        by: "0.1.0".to_owned(),
        functions: 0,
        files: Vec::new(),
    };
    let file = world.path("backup");
    pack(
        &file,
        false,
        &[("control.db", Temporary(control)), ("records.db", Temporary(old))],
        (None, &[]),
        &mut manifest,
    )
    .unwrap();
    let staged = world.stage(&file).unwrap();
    world.records.replace(&staged).await.unwrap();
    let c = Connection::open(world.path("records.db")).unwrap();
    let at: i64 = c.query_row("SELECT at FROM requests WHERE request = 'r1'", [], |row| row.get(0)).unwrap();
    assert_eq!(at, 5);
}
