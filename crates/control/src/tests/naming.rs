//! Names of functions, versions and aliases that callers can tell apart.

use std::sync::Arc;

use kip_spec::QualifierName;
use kip_store::{Author, Changes, SqliteControl, SqliteRecords};

use crate::testing::{open, spec};
use crate::{AliasChange, Control, Error, Stores};

/// A control room with the function `f`, in real time: the store is waited for.
async fn room(folder: &tempfile::TempDir) -> Control {
    let store = SqliteControl::open(&folder.path().join("control.db")).unwrap();
    let records = Arc::new(SqliteRecords::open(&folder.path().join("records.db")).unwrap());
    let stores = Stores { changes: Changes::new(Arc::new(store)), records, files: None };
    let (control, _) = open(folder.path(), 1, stores, false).await;
    deploy(&control, &["f"]).await.unwrap();
    control
}

async fn deploy(control: &Control, names: &[&str]) -> Result<(), Error> {
    let specs = names.iter().map(|name| spec(name)).collect();
    control.deploy(specs, String::new(), "kip.yaml", Author::default()).await.map(drop)
}

fn taken(result: Result<(), Error>) -> String {
    match result {
        Err(Error::HostNameTaken { name, existing }) => format!("{name} {existing}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_label_of_a_host_name_is_one_thing() {
    let folder = tempfile::tempdir().unwrap();
    let control = &room(&folder).await;
    let targets = vec![(QualifierName::Latest, 1_000_000)];
    control
        .set_alias("f", "prod", AliasChange { targets: targets.clone(), ..AliasChange::default() }, Author::default())
        .await
        .unwrap();
    assert_eq!(taken(deploy(control, &["F--Prod"]).await), "F--Prod f@prod");
    assert_eq!(taken(deploy(control, &["f--3"]).await), "f--3 f@3");
    assert!(matches!(deploy(control, &["F"]).await, Err(Error::NameCase { .. })));
    deploy(control, &["f--other", "g--3", "f"]).await.unwrap();
    assert_eq!(taken(deploy(control, &["g"]).await), "g g--3");
    assert_eq!(taken(deploy(control, &["h--r2", "h"]).await), "h h--r2", "within one manifest too");
    let alias = control
        .set_alias("f", "other", AliasChange { targets, ..AliasChange::default() }, Author::default())
        .await
        .map(drop);
    assert_eq!(taken(alias), "f@other f--other");
    let found = |label: &str| {
        let (cell, qualifier) = control.cell_by_host(label)?;
        Some((cell.name().to_string(), qualifier.map(|qualifier| qualifier.to_string())))
    };
    assert_eq!(found("f--other"), Some(("f--other".to_owned(), None)));
    assert_eq!(found("f--prod"), Some(("f".to_owned(), Some("prod".to_owned()))));
    assert_eq!(found("nobody--prod"), None);
}

#[tokio::test]
async fn a_label_that_is_too_long_is_found_by_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let control = &room(&folder).await;
    let long = "a".repeat(64);
    deploy(control, &[&long]).await.unwrap();
    let targets = vec![(QualifierName::Latest, 1_000_000)];
    let info = control
        .set_alias(&long, "prod", AliasChange { targets, ..AliasChange::default() }, Author::default())
        .await
        .unwrap();
    let label = info.host.strip_suffix(".localhost").unwrap();
    assert_eq!(label.len(), 63);
    let (cell, qualifier) = control.cell_by_host(label).unwrap();
    assert_eq!((cell.name().as_str(), qualifier.unwrap().to_string().as_str()), (long.as_str(), "prod"));
    control.remove_alias(&long, "prod", Author::default()).await.unwrap();
    assert!(control.cell_by_host(label).is_none());
}
