//! What every control store has to do, whatever it is made of. Each store is handed to [`all`] by a test of its own.

use std::sync::Arc;

use kip_spec::function::{FunctionSpec, Program};
use kip_spec::scaling::{Fc, Provision};
use kip_spec::{FunctionName, VersionId};

use crate::change::{Change, CommittedChange, ControlStore, Effect, IfMatch, Proposal, StoredRevision};
use crate::database::Error;
use crate::ids::{Object, Seq};
use crate::keys::StoredKey;

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
    Change::Deploy { specs, document: "text".to_owned(), facade: "kip.yaml" }
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
    a_commit_with_a_stale_revision_changes_nothing(&*fresh()).await;
    a_change_of_nothing_is_no_commit(&*fresh()).await;
    old_revisions_go_but_never_the_serving_one(&*fresh()).await;
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

async fn old_revisions_go_but_never_the_serving_one(store: &dyn ControlStore) {
    let first = deploy(store, &["a"]).await;
    commit(store, Change::Serve { function: name("a"), revision: first[0].id }).await;
    for _ in 0..60 {
        deploy(store, &["a"]).await;
    }
    let kept = store.revisions(name("a")).await.unwrap();
    assert_eq!(kept.len(), 51);
    assert_eq!((kept[0].id, kept[0].ordinal, kept[50].ordinal), (first[0].id, 1, 61));
}

async fn starts_are_counted(store: &dyn ControlStore) {
    assert_eq!(store.identity().await.unwrap(), None);
    let first = store.begin_boot().await.unwrap();
    let second = store.begin_boot().await.unwrap();
    assert_eq!((first.boot, second.boot), (1, 2));
    assert_eq!(first.server, second.server);
    assert_eq!(store.identity().await.unwrap(), Some(second));
}
