use super::*;

fn decision(number: i64) -> Record {
    Record::Decision(DecisionRecord {
        at: number,
        function: if number % 2 == 0 { "even" } else { "odd" }.to_owned(),
        version: 1,
        label: None,
        instance: None,
        from: None,
        to: "ready".to_owned(),
        why: "done".to_owned(),
        detail: None,
        decision: serde_json::Value::Null,
    })
}

#[tokio::test]
async fn newest_first_by_function_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteRecords::open(&folder.path().join("records.db")).unwrap();
    store.append((0..100).map(decision).collect()).await.unwrap();
    let ats = |found: Vec<DecisionRecord>| found.into_iter().map(|record| record.at).collect::<Vec<_>>();
    assert_eq!(ats(store.decisions("odd".to_owned(), 3).await.unwrap()), [99, 97, 95]);
    store.prune(Retention { count: 4, age: 1_000 }, 100).await.unwrap();
    assert_eq!(ats(store.decisions("even".to_owned(), 50).await.unwrap()), [98, 96]);
    store.prune(Retention { count: 4, age: 2 }, 100).await.unwrap();
    assert_eq!(ats(store.decisions("odd".to_owned(), 50).await.unwrap()), [99]);
    assert_eq!(store.requests(RequestFilter { limit: 5, ..RequestFilter::default() }).await.unwrap(), []);
}

/// One function that is called without end pushes out no record of another one.
#[tokio::test]
async fn a_busy_function_has_its_share_of_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteRecords::open(&folder.path().join("records.db")).unwrap();
    let of = |function: &str, numbers: std::ops::Range<u16>| {
        let function = function.to_owned();
        numbers.map(move |number| Record::Request(RequestRecord { function: function.clone(), ..request(number) }))
    };
    store.append(of("quiet", 0..5).collect()).await.unwrap();
    for round in 0..5 {
        store.append(of("busy", round * 200..(round + 1) * 200).collect()).await.unwrap();
        store.prune(Retention { count: 100, age: 1 << 40 }, 0).await.unwrap();
    }
    let kept = async |function: &str| {
        let filter = RequestFilter { function: Some(function.to_owned()), limit: 1_000, ..RequestFilter::default() };
        store.requests(filter).await.unwrap()
    };
    assert_eq!(kept("quiet").await.len(), 5, "it keeps all of its own");
    let busy = kept("busy").await;
    assert_eq!((busy.len(), busy[0].id.as_str()), (95, "r999"), "the newest of the other one");
}

#[tokio::test]
async fn usage_is_kept_by_function() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteRecords::open(&folder.path().join("records.db")).unwrap();
    let usage = |function: &str, until| UsageRecord {
        function: function.to_owned(),
        version: 1,
        instance: "i-1-1-1".to_owned(),
        since: until - 7,
        until,
        served: 3,
        times: [("on-demand".to_owned(), [("ready".to_owned(), 7)].into())].into(),
    };
    store.append(vec![Record::Usage(usage("f", 10)), Record::Usage(usage("g", 20))]).await.unwrap();
    assert_eq!(store.usage("f".to_owned()).await.unwrap(), [usage("f", 10)]);
    store.prune(Retention { count: 10, age: 5 }, 16).await.unwrap();
    assert_eq!(
        (store.usage("f".to_owned()).await.unwrap().len(), store.usage("g".to_owned()).await.unwrap().len()),
        (0, 1)
    );
}

#[tokio::test]
async fn what_scaling_policies_saw_is_bounded_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.db");
    let look = |function: &str, at: i64| ScalingRecord {
        at,
        function: function.to_owned(),
        mode: "kpa".to_owned(),
        version: Some(2),
        qualifier: None,
        observation: serde_json::json!({"t_ms": at, "ready": null, "stable": 0.25}),
        decision: serde_json::Value::Null,
        actual: 1,
        in_flight: 2,
        queued: 3,
    };
    let store = SqliteRecords::open(&file).unwrap();
    let looks = (0..50).flat_map(|at| [look("f", at), look("g", at)]).map(Record::Scaling);
    store.append(looks.collect()).await.unwrap();
    drop(store);
    let store = SqliteRecords::open(&file).unwrap();
    let of = async |function: &str| store.scaling(function.to_owned(), 100).await.unwrap();
    assert_eq!(of("f").await.len(), 50);
    assert_eq!(store.scaling("f".to_owned(), 2).await.unwrap(), [look("f", 49), look("f", 48)]);
    store.prune(Retention { count: 10, age: 1_000 }, 50).await.unwrap();
    assert_eq!((of("f").await.len(), of("g").await.len()), (5, 5), "the latest ten of all");
    store.prune(Retention { count: 10, age: 2 }, 50).await.unwrap();
    assert_eq!(of("f").await, [look("f", 49), look("f", 48)]);
}

fn request(number: u16) -> RequestRecord {
    RequestRecord {
        id: format!("r{number}"),
        at: i64::from(number) * 1_000,
        function: "f".to_owned(),
        version: Some(u64::from(number % 2)),
        label: None,
        qualifier: None,
        instance: Some(format!("i-1-1-{}", number % 3)),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        status: if number.is_multiple_of(10) { 500 + number / 10 } else { 200 },
        code: (number == 10).then(|| "KW-2009".to_owned()),
        start: Some(if number == 0 { "cold" } else { "warm" }.to_owned()),
        queue_us: 0,
        first_byte_us: 0,
        total_us: u64::from(number),
        bytes: 0,
        bytes_in: 7,
        kind: Some("on-demand".to_owned()),
        peak_memory: None,
        outcome: if number == 20 { "left" } else { "done" }.to_owned(),
        key: (number == 30).then(|| "k".to_owned()),
        tenant: (number == 31).then(|| "t".to_owned()),
    }
}

/// Changes a filter.
type Set = fn(&mut RequestFilter);

#[tokio::test]
async fn filters_choose_and_use_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteRecords::open(&folder.path().join("records.db")).unwrap();
    store.append((0..40).map(|number| Record::Request(request(number))).collect()).await.unwrap();
    let cases: [(Set, &[&str], &str); 13] = [
        (|f| f.key = Some("k".to_owned()), &["r30"], "requests_by_key"),
        (|f| f.tenant = Some("t".to_owned()), &["r31"], "requests_by_tenant"),
        (|f| (f.among, f.limit) = (vec!["f".to_owned(), "g".to_owned()], 1), &["r39"], ""),
        (|f| f.id = Some("r7".to_owned()), &["r7"], "requests_by_id"),
        (|f| f.since = Some(38_000), &["r39", "r38"], "requests_by_time"),
        (|f| f.status = "5xx".parse().ok(), &["r30", "r20", "r10", "r0"], "requests_failed"),
        (|f| f.status = "502".parse().ok(), &["r20"], "requests_failed"),
        (|f| f.code = Some("KW-2009".to_owned()), &["r10"], "requests_with_code"),
        (|f| f.start = Some("cold".to_owned()), &["r0"], "requests_not_warm"),
        (|f| f.slower_than = Some(37), &["r39", "r38"], "requests_by_total"),
        (|f| (f.instance, f.limit) = (Some("i-1-1-1".to_owned()), 2), &["r37", "r34"], "requests_by_instance"),
        (|f| (f.function, f.limit) = (Some("f".to_owned()), 1), &["r39"], "requests_by_function"),
        (
            |f| (f.outcome, f.version, f.kind) = (Some("left".to_owned()), Some(0), Some("on-demand".to_owned())),
            &["r20"],
            "",
        ),
    ];
    for (set, expected, index) in cases {
        let mut filter = RequestFilter { limit: 100, ..RequestFilter::default() };
        set(&mut filter);
        let ids: Vec<String> =
            store.requests(filter.clone()).await.unwrap().into_iter().map(|record| record.id).collect();
        assert_eq!(ids, expected, "{filter:?}");
        let (query, values) = filter.query();
        let plan: Vec<String> = store
            .database
            .read(move |c| {
                let mut plan = c.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
                plan.query_map(params_from_iter(values), |row| row.get(3))?.collect()
            })
            .await
            .unwrap();
        assert!(plan.join("; ").contains(index), "{filter:?} is not answered by {index}: {plan:?}");
    }
}

#[tokio::test]
async fn records_of_the_first_schema_are_brought_along_after_a_copy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(MIGRATIONS[0]).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let mut shape = serde_json::to_value(request(3)).unwrap();
    for newer in ["bytes_in", "kind", "peak_memory"] {
        shape.as_object_mut().unwrap().remove(newer);
    }
    old.execute("INSERT INTO requests (function, record) VALUES ('f', ?1)", [shape.to_string()]).unwrap();
    drop(old);

    let store = SqliteRecords::open(&path).unwrap();
    let filter = RequestFilter { id: Some("r3".to_owned()), limit: 9, ..RequestFilter::default() };
    let found = store.requests(filter).await.unwrap();
    assert_eq!(found, [RequestRecord { bytes_in: 0, kind: None, ..request(3) }]);
    let copy = rusqlite::Connection::open(folder.path().join(format!("records.before-schema-{}.db", MIGRATIONS.len())))
        .unwrap();
    let version: u32 = copy.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let kept: u32 = copy.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)).unwrap();
    assert_eq!((version, kept), (1, 1));
}

#[tokio::test]
async fn what_was_reached_is_kept_once_and_never_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.db");
    let store = SqliteRecords::open(&file).unwrap();
    let reached = |function: &str, target, at| ReachedTarget {
        function: function.to_owned(),
        qualifier: "LATEST".to_owned(),
        target,
        at,
    };
    let all = (0..50).map(|at| Record::Reached(reached("f", u32::try_from(at).unwrap(), at)));
    store.append(all.chain([Record::Reached(reached("g", 1, 1))]).collect()).await.unwrap();
    store.prune(Retention { count: 0, age: 0 }, 1_000).await.unwrap();
    drop(store);
    let store = SqliteRecords::open(&file).unwrap();
    assert_eq!(store.reached().await.unwrap(), [reached("f", 49, 49), reached("g", 1, 1)]);
    store.forget_reached(vec!["f".to_owned()]).await.unwrap();
    assert_eq!(store.reached().await.unwrap(), [reached("g", 1, 1)]);
}

#[tokio::test]
async fn what_the_log_of_an_earlier_version_tells_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    for script in &MIGRATIONS[..5] {
        old.execute_batch(script).unwrap();
    }
    old.pragma_update(None, "user_version", 5).unwrap();
    for (at, target) in [(1, "3"), (3, "5"), (2, "4"), (4, "null")] {
        let record = format!(
            r#"{{"at":{at},"function":"f","mode":"fc","qualifier":"LATEST","decision":{{"target":{target}}}}}"#
        );
        old.execute("INSERT INTO scaling (function, record) VALUES ('f', ?1)", [record]).unwrap();
    }
    drop(old);
    let found = SqliteRecords::open(&path).unwrap().reached().await.unwrap();
    assert_eq!(found.iter().map(|reached| (reached.target, reached.at)).collect::<Vec<_>>(), [(5, 3)]);
}

#[tokio::test]
async fn what_was_learnt_is_replaced_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteRecords::open(&folder.path().join("records.db")).unwrap();
    let learnt = |function: &str, history: &str, at| LearntHistory {
        function: function.to_owned(),
        history: history.to_owned(),
        at,
    };
    let batch = [learnt("f", "{}", 1), learnt("g", "{}", 1), learnt("f", "{\"a\":1}", 2)];
    store.append(batch.into_iter().map(Record::Learnt).collect()).await.unwrap();
    assert_eq!(store.learnt().await.unwrap(), [learnt("f", "{\"a\":1}", 2), learnt("g", "{}", 1)]);
    store.forget_learnt(vec!["f".to_owned()]).await.unwrap();
    assert_eq!(store.learnt().await.unwrap(), [learnt("g", "{}", 1)]);
}

#[tokio::test]
async fn time_adds_up_by_day_and_old_days_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteRecords::open(&folder.path().join("records.db")).unwrap();
    let time = |day, state: &str, millis| InstanceTime {
        day,
        function: "f".to_owned(),
        version: 3,
        state: state.to_owned(),
        millis,
    };
    let key = |day, key: &str, requests, micros| KeyTime {
        day,
        function: "f".to_owned(),
        version: 3,
        key: key.to_owned(),
        requests,
        micros,
    };
    let version = PricedVersion { version: 3, label: "2".to_owned(), resources: "{}".to_owned(), pauses: true };
    let batch = vec![
        Record::InstanceTime(time(20_000, "busy", 5)),
        Record::InstanceTime(time(20_000, "busy", 7)),
        Record::InstanceTime(time(20_001, "ready", 1)),
        Record::KeyTime(key(20_000, "", 1, 10)),
        Record::KeyTime(key(20_000, "", 2, 30)),
        Record::KeyTime(key(20_000, "anna", 1, 5)),
        Record::PricedVersion(version.clone()),
    ];
    store.append(batch).await.unwrap();
    let spent = store.spent(20_000, 20_000).await.unwrap();
    assert_eq!(spent.instances, [time(20_000, "busy", 12)]);
    assert_eq!(spent.keys, [key(20_000, "", 3, 40), key(20_000, "anna", 1, 5)]);
    assert_eq!(spent.versions, [version]);
    let prune = |day: i64| store.prune(Retention::default(), day * DAY);
    prune(20_400).await.unwrap();
    assert_eq!(store.spent(0, i64::MAX).await.unwrap().instances.len(), 2);
    prune(20_401).await.unwrap();
    assert_eq!(store.spent(0, i64::MAX).await.unwrap().instances, [time(20_001, "ready", 1)]);
    assert_eq!(store.spent(0, i64::MAX).await.unwrap().versions.len(), 1);
    prune(20_402).await.unwrap();
    assert_eq!(store.spent(0, i64::MAX).await.unwrap(), SpentDays::default());
}
