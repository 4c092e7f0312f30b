//! What every control store has to do, whatever it is made of. Each store is handed to [`all`] by a test of its own.

use std::sync::Arc;

use kip_spec::function::{FunctionSpec, Program};
use kip_spec::scaling::{Fc, Provision};
use kip_spec::{FunctionName, VersionId};

use crate::change::{Change, CommittedChange, ControlStore, Effect, IfMatch, Proposal, StoredRevision};
use crate::database::Error;
use crate::ids::{Object, Seq};
use crate::keys::StoredKey;
use crate::version::{AliasTarget, TrafficShare};

pub(crate) fn name(name: &str) -> FunctionName {
    name.parse().unwrap()
}

pub(crate) fn spec(function: &str) -> FunctionSpec {
    let program = Program::Command { argv: vec!["true".to_owned()], dir: "/".into() };
    let env = [("A".to_owned(), "ä".to_owned())].into();
    FunctionSpec { env, ..FunctionSpec::new(name(function), program) }
}

fn fc(target: u32) -> Fc {
    Fc::new(Provision { default_target: target, ..Default::default() })
}

pub(crate) fn deployment(names: &[&str]) -> Change {
    let specs = names.iter().map(|name| spec(name)).collect();
    Change::Deploy {
        specs,
        document: "text".to_owned(),
        facade: "kip.yaml",
        traffic: std::collections::BTreeMap::new(),
        held: false,
        keep: Vec::new(),
        extra: std::collections::BTreeMap::new(),
    }
}

fn provision(function: &str, qualifier: &str, settings: Option<Fc>) -> Change {
    let (function, qualifier) = (name(function), qualifier.to_owned());
    match settings {
        Some(settings) => Change::PutProvision { function, qualifier, settings: Box::new(settings) },
        None => Change::RemoveProvision { function, qualifier },
    }
}

pub(crate) async fn commit(store: &dyn ControlStore, change: Change) -> CommittedChange {
    store.commit(Proposal::own(change)).await.unwrap()
}

pub(crate) async fn deploy(store: &dyn ControlStore, names: &[&str]) -> Vec<StoredRevision> {
    match commit(store, deployment(names)).await.effect {
        Effect::Deployed(revisions) => revisions,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn put_key(store: &dyn ControlStore, key: StoredKey) -> u64 {
    match commit(store, Change::PutKey(Box::new(key))).await.effect {
        Effect::Key(id) => id,
        other => panic!("{other:?}"),
    }
}

/// Runs everything, each part on a store that is empty.
pub(crate) async fn all(fresh: impl Fn() -> Arc<dyn ControlStore>) {
    revisions_belong_to_an_id_that_never_comes_back(&*fresh()).await;
    a_candidate_is_not_current_before_it_serves(&*fresh()).await;
    a_deployment_is_all_or_nothing_and_one_commit(&*fresh()).await;
    settings_go_with_their_function(&*fresh()).await;
    resources_belong_to_no_function(&*fresh()).await;
    a_commit_with_a_stale_revision_changes_nothing(&*fresh()).await;
    a_change_of_nothing_is_no_commit(&*fresh()).await;
    numbers_of_versions_are_never_given_again(&*fresh()).await;
    aliases_have_a_revision_and_go_with_their_function(&*fresh()).await;
    traffic_is_of_the_latest_deployment(&*fresh()).await;
    a_rollback_returns_to_what_served_before(&*fresh()).await;
    a_deployment_without_traffic_serves_nothing(&*fresh()).await;
    starts_are_counted(&*fresh()).await;
}

async fn revisions_belong_to_an_id_that_never_comes_back(store: &dyn ControlStore) {
    let first = deploy(store, &["a", "b"]).await;
    let second = deploy(store, &["a"]).await;
    assert_eq!((first[0].ordinal, second[0].ordinal, first[1].ordinal), (1, 2, 1));
    assert_eq!(first[0].function, second[0].function);
    assert!(second[0].id > first[1].id, "numbers of revisions are counted over all functions");
    let kept = store.revisions(name("a")).await.unwrap();
    let ids: Vec<(VersionId, u64)> = kept.iter().map(|revision| (revision.id, revision.ordinal)).collect();
    assert_eq!(ids, [(first[0].id, 1), (second[0].id, 2)]);
    assert!(kept.iter().all(|revision| revision.source == "text" && revision.facade == "kip.yaml"));

    assert_eq!(commit(store, Change::RemoveFunction(name("a"))).await.effect, Effect::Done);
    assert_eq!(store.revision(second[0].id).await.unwrap(), None);
    let again = deploy(store, &["a"]).await;
    assert!(again[0].function > first[1].function, "a name made again is another function");
    assert!(again[0].id > second[0].id && again[0].ordinal == 1);
    let late = Change::Serve { function: name("a"), revision: first[1].id };
    assert_eq!(commit(store, late).await.effect, Effect::Nothing, "a revision of another function never serves");
}

async fn a_candidate_is_not_current_before_it_serves(store: &dyn ControlStore) {
    let made = deploy(store, &["a", "b"]).await;
    commit(store, Change::Serve { function: name("a"), revision: made[0].id }).await;
    let newer = deploy(store, &["a"]).await;
    assert_eq!(store.current_revisions().await.unwrap(), made);
    assert_eq!(store.revision(newer[0].id).await.unwrap(), Some(newer[0].clone()));
    assert_eq!(store.revision(VersionId(1_000)).await.unwrap(), None);
    let rev = store.rev(Object::Function(name("a"))).await.unwrap();
    commit(store, Change::Serve { function: name("a"), revision: newer[0].id }).await;
    assert_eq!(store.current_revisions().await.unwrap()[0], newer[0]);
    assert_eq!(store.rev(Object::Function(name("a"))).await.unwrap(), rev, "serving is a state, not a declaration");
}

async fn a_deployment_is_all_or_nothing_and_one_commit(store: &dyn ControlStore) {
    let first = commit(store, deployment(&["a", "b"])).await;
    for function in ["a", "b"] {
        assert_eq!(store.rev(Object::Function(name(function))).await.unwrap(), first.seq);
    }
    let stale = IfMatch { object: Object::Function(name("b")), rev: Seq(0) };
    let proposal = Proposal { if_match: vec![stale], ..Proposal::own(deployment(&["a", "b", "c"])) };
    assert!(store.commit(proposal).await.is_err());
    assert_eq!(store.current_revisions().await.unwrap().len(), 2);
    assert_eq!(commit(store, deployment(&["c"])).await.seq, Seq(first.seq.0 + 1), "what was refused has no number");
}

/// Resources are told apart by kind and name, are compared by their revision, and name code that is in use.
async fn resources_belong_to_no_function(store: &dyn ControlStore) {
    let resource = |kind: &str, name: &str, code: Option<&str>| {
        Change::PutResource(Box::new(crate::StoredResource {
            kind: kind.to_owned(),
            name: name.to_owned(),
            config: "{}".to_owned(),
            code: code.map(str::to_owned),
            rev: crate::Seq(0),
        }))
    };
    commit(store, resource("layer", "a", Some("ab12"))).await;
    let second = commit(store, resource("domain", "a", None)).await.seq;
    let names = |found: Vec<crate::StoredResource>| found.into_iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!(names(store.resources("layer").await.unwrap()), ["a"]);
    assert_eq!(store.codes().await.unwrap(), ["ab12"]);
    let object = crate::Object::Resource("domain".to_owned(), "a".to_owned());
    assert_eq!(store.rev(object.clone()).await.unwrap(), second);
    let remove = || Change::RemoveResource { kind: "layer".to_owned(), name: "a".to_owned() };
    assert_eq!(commit(store, remove()).await.effect, Effect::Done);
    assert_eq!(commit(store, remove()).await.effect, Effect::Nothing);
    assert!(store.resources("layer").await.unwrap().is_empty() && store.codes().await.unwrap().is_empty());
    assert_eq!(names(store.resources("domain").await.unwrap()), ["a"]);
}

async fn settings_go_with_their_function(store: &dyn ControlStore) {
    deploy(store, &["a", "b"]).await;
    for (function, qualifier, target) in [("b", "LATEST", 1), ("b", "LATEST", 2), ("a", "v1", 2)] {
        let put = commit(store, provision(function, qualifier, Some(fc(target)))).await;
        let object = Object::Provision(name(function), qualifier.to_owned());
        assert_eq!(store.rev(object).await.unwrap(), put.seq);
    }
    let (all, unreadable) = store.provisions().await.unwrap();
    assert_eq!(all, [(name("a"), "v1".to_owned(), fc(2)), (name("b"), "LATEST".to_owned(), fc(2))]);
    assert_eq!(unreadable, []);
    assert_eq!(commit(store, provision("nobody", "LATEST", Some(fc(1)))).await.effect, Effect::Nothing);
    assert_eq!(commit(store, provision("a", "v1", None)).await.effect, Effect::Done);
    commit(store, Change::RemoveFunction(name("b"))).await;
    deploy(store, &["b"]).await;
    assert_eq!(store.provisions().await.unwrap().0, [], "another function of the name begins without settings");
}

async fn a_commit_with_a_stale_revision_changes_nothing(store: &dyn ControlStore) {
    let made = commit(store, deployment(&["a"])).await;
    let id = put_key(store, StoredKey::new("k", [1; 32], 1, "invoke", "default")).await;
    let newer = commit(store, deployment(&["a"])).await;
    let object = Object::Function(name("a"));
    let remove = |rev| Proposal {
        if_match: vec![IfMatch { object: object.clone(), rev }],
        ..Proposal::own(Change::RemoveFunction(name("a")))
    };
    match store.commit(remove(made.seq)).await {
        Err(Error::Stale { object: told, expected, found }) => {
            assert_eq!((told, expected, found), (object.clone(), made.seq, newer.seq));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.current_revisions().await.unwrap().len(), 1);
    store.commit(remove(newer.seq)).await.unwrap();
    let key = IfMatch { object: Object::Key(id), rev: Seq(0) };
    let proposal = Proposal { if_match: vec![key], ..Proposal::own(Change::RemoveKey(id)) };
    assert!(matches!(store.commit(proposal).await, Err(Error::Stale { .. })));
    let fresh = IfMatch { object, rev: Seq(0) };
    let proposal = Proposal { if_match: vec![fresh], ..Proposal::own(deployment(&["a"])) };
    store.commit(proposal).await.unwrap();
}

async fn a_change_of_nothing_is_no_commit(store: &dyn ControlStore) {
    let made = commit(store, deployment(&["a"])).await;
    for nothing in [
        Change::RemoveFunction(name("b")),
        Change::RemoveKey(9),
        provision("a", "LATEST", None),
        Change::Serve { function: name("a"), revision: VersionId(99) },
    ] {
        let op = nothing.op();
        let done = commit(store, nothing).await;
        assert_eq!((done.seq, done.effect), (made.seq, Effect::Nothing), "{op}");
    }
}

async fn numbers_of_versions_are_never_given_again(store: &dyn ControlStore) {
    let made = deploy(store, &["a", "b"]).await;
    let publish = |function: &str, revision| Change::PublishVersion {
        function: name(function),
        revision,
        description: format!("of {function}"),
    };
    let published = |effect| match effect {
        Effect::Published(version) => version,
        other => panic!("{other:?}"),
    };
    let first = published(commit(store, publish("a", made[0].id)).await.effect);
    assert_eq!((first.number, first.revision, first.ordinal, first.description.as_str()), (1, made[0].id, 1, "of a"));
    assert_eq!(commit(store, publish("a", made[0].id)).await.effect, Effect::Nothing, "it has a number");
    assert_eq!(commit(store, publish("a", made[1].id)).await.effect, Effect::Nothing, "of another function");
    assert_eq!(published(commit(store, publish("b", made[1].id)).await.effect).number, 1, "each function counts");
    let remove = |number| Change::RemoveVersion { function: name("a"), number };
    assert_eq!(commit(store, remove(1)).await.effect, Effect::Done);
    assert_eq!(commit(store, remove(1)).await.effect, Effect::Nothing);
    assert_eq!(published(commit(store, publish("a", made[0].id)).await.effect).number, 2, "1 was given");
    let kept = store.revisions(name("a")).await.unwrap();
    assert_eq!((kept[0].number, kept[0].description.as_str()), (Some(2), "of a"));
    let all = store.versions().await.unwrap();
    let all: Vec<(&str, u64)> = all.iter().map(|version| (version.function.as_str(), version.number)).collect();
    assert_eq!(all, [("a", 2), ("b", 1)]);
    assert_eq!(store.revision_at(name("a"), 1).await.unwrap(), Some(made[0].clone()));
    assert_eq!(store.revision_at(name("a"), 2).await.unwrap(), None);
    commit(store, Change::RemoveFunction(name("a"))).await;
    assert_eq!(store.versions().await.unwrap().len(), 1, "they go with their function");
}

async fn aliases_have_a_revision_and_go_with_their_function(store: &dyn ControlStore) {
    let made = deploy(store, &["a"]).await;
    let targets = vec![
        AliasTarget { revision: Some(made[0].id), millionths: 900_000 },
        AliasTarget { revision: None, millionths: 100_000 },
    ];
    let put = |function: &str, alias: &str| Change::PutAlias {
        function: name(function),
        name: alias.parse().unwrap(),
        targets: targets.clone(),
        description: "d".to_owned(),
        sticky: None,
        rollout: None,
    };
    let first = commit(store, put("a", "prod")).await;
    let Effect::Alias(alias) = first.effect else { panic!("{first:?}") };
    assert_eq!((&alias.targets, alias.rev, alias.name.as_str()), (&targets, first.seq, "prod"));
    let object = Object::Alias(name("a"), "prod".parse().unwrap());
    assert_eq!(store.rev(object.clone()).await.unwrap(), first.seq);
    let second = commit(store, put("a", "prod")).await;
    let Effect::Alias(again) = second.effect else { panic!("{second:?}") };
    assert_eq!((again.id, again.rev), (alias.id, second.seq), "it is the same alias");
    assert!(alias.before.is_empty() && again.before.is_empty(), "it did not move");
    let (function, elsewhere) = (name("a"), vec![AliasTarget { revision: None, millionths: 1_000_000 }]);
    let moved = Change::PutAlias {
        function,
        name: "prod".parse().unwrap(),
        targets: elsewhere.clone(),
        description: String::new(),
        sticky: None,
        rollout: None,
    };
    let Effect::Alias(moved) = commit(store, moved).await.effect else { panic!("not moved") };
    assert_eq!((&moved.targets, &moved.before), (&elsewhere, &targets));
    let if_match = vec![IfMatch { object: object.clone(), rev: first.seq }];
    let stale = Proposal { by: String::new(), change: put("a", "prod"), if_match };
    assert!(matches!(store.commit(stale).await, Err(Error::Stale { .. })));
    assert_eq!(commit(store, put("no", "prod")).await.effect, Effect::Nothing);
    let remove = Change::RemoveAlias { function: name("a"), name: "prod".parse().unwrap() };
    assert_eq!(commit(store, remove.clone()).await.effect, Effect::Done);
    assert_eq!(commit(store, remove).await.effect, Effect::Nothing);
    let third = commit(store, put("a", "prod")).await;
    let Effect::Alias(new) = third.effect else { panic!("{third:?}") };
    assert!(new.id > alias.id, "its number is never given again");
    commit(store, Change::RemoveFunction(name("a"))).await;
    assert_eq!(store.aliases().await.unwrap(), (Vec::new(), Vec::new()));
}

async fn a_rollback_returns_to_what_served_before(store: &dyn ControlStore) {
    let rollback = || Change::Rollback(name("a"));
    let first = deploy(store, &["a"]).await.remove(0);
    let serve = |revision| Change::Serve { function: name("a"), revision };
    commit(store, serve(first.id)).await;
    assert_eq!(commit(store, rollback()).await.effect, Effect::Nothing, "nothing served before");
    let second = deploy(store, &["a"]).await.remove(0);
    assert_eq!(commit(store, rollback()).await.effect, Effect::Nothing, "the second has not served yet");
    commit(store, serve(second.id)).await;
    commit(store, serve(second.id)).await;
    assert_eq!(commit(store, rollback()).await.effect, Effect::Deployed(vec![first.clone()]));
    commit(store, serve(first.id)).await;
    assert_eq!(store.current_revisions().await.unwrap(), [first]);
    assert_eq!(commit(store, rollback()).await.effect, Effect::Deployed(vec![second]), "and back again");
}

async fn a_deployment_without_traffic_serves_nothing(store: &dyn ControlStore) {
    let first = deploy(store, &["a"]).await;
    let Change::Deploy { specs, document, facade, traffic, keep, extra, .. } = deployment(&["a"]) else {
        unreachable!()
    };
    let held = Change::Deploy { specs, document, facade, traffic, held: true, keep, extra };
    let Effect::Deployed(made) = commit(store, held).await.effect else { panic!("nothing was made") };
    assert_eq!(made[0].ordinal, 2);
    assert_eq!(store.current_revisions().await.unwrap(), first);
}

async fn traffic_is_of_the_latest_deployment(store: &dyn ControlStore) {
    let shares = vec![TrafficShare { to: "prod".parse().unwrap(), millionths: 1_000_000 }];
    let Change::Deploy { specs, document, facade, keep, held, extra, .. } = deployment(&["a", "b"]) else {
        unreachable!()
    };
    let traffic = [(name("a"), shares.clone())].into();
    commit(store, Change::Deploy { specs, document, facade, traffic, held, keep, extra }).await;
    assert_eq!(store.traffic().await.unwrap(), (vec![(name("a"), shares)], Vec::new()));
    deploy(store, &["a"]).await;
    assert_eq!(store.traffic().await.unwrap().0, []);
}

async fn starts_are_counted(store: &dyn ControlStore) {
    assert_eq!(store.identity().await.unwrap(), None);
    let first = store.begin_boot().await.unwrap();
    let second = store.begin_boot().await.unwrap();
    assert_eq!((first.boot, second.boot), (1, 2));
    assert_eq!(first.server, second.server);
    assert_eq!(store.identity().await.unwrap(), Some(second));
}
