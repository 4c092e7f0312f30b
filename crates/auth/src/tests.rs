//! Keys over a real store: what is taken, what is refused, what stays on disk.

use std::os::unix::fs::PermissionsExt;

use http::HeaderValue;
use kip_spec::{Code, Millis};
use kip_store::{Changes, SqliteControl};

use super::*;

mod leaving;

async fn open(data: &Path) -> (Keys, String) {
    let store = SqliteControl::open(&data.join("control.db")).unwrap();
    Keys::open(Changes::of_file(Arc::new(store)), data, Seal::open(data).unwrap()).await.unwrap()
}

fn new(name: &str, role: Role) -> NewKey {
    NewKey::bearer(name.to_owned(), role)
}

fn author() -> Author {
    Author::default()
}

fn code_of<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    Problem::from(result.unwrap_err()).code
}

#[tokio::test]
async fn the_administrator_key_is_made_once_kept_private_and_works() {
    let data = tempfile::tempdir().unwrap();
    let (keys, key) = open(data.path()).await;
    let (_, again) = open(data.path()).await;
    assert_eq!(key, again);
    let mode = std::fs::metadata(administrator_file(data.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let found = keys.check(Some(&key)).unwrap();
    assert_eq!((found.name().as_ref(), found.role()), ("admin", Role::Admin));
    assert_eq!(keys.check(None).unwrap_err().code, code::KEY_MISSING);
    assert_eq!(keys.check(Some("kw_nope")).unwrap_err().code, code::KEY_WRONG);
    for file in ["control.db", "control.db-wal"] {
        let stored = std::fs::read(data.path().join(file)).unwrap_or_default();
        assert!(!stored.windows(key.len()).any(|window| window == key.as_bytes()), "the key itself is never stored");
    }
}

#[tokio::test]
async fn a_lost_key_file_is_made_anew() {
    let data = tempfile::tempdir().unwrap();
    let (_, first) = open(data.path()).await;
    std::fs::remove_file(administrator_file(data.path())).unwrap();
    let (keys, second) = open(data.path()).await;
    assert_ne!(first, second);
    assert_eq!(keys.check(Some(&second)).unwrap().name().as_ref(), "admin-2");
}

#[test]
fn keys_are_found_where_clients_send_them() {
    let find = |headers: &[(&'static str, &'static str)]| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        credential(&map).map(str::to_owned)
    };
    for headers in [
        [("authorization", "Bearer kw_1")].as_slice(),
        &[("authorization", "bearer  kw_1 ")],
        &[("x-api-key", "kw_1")],
        &[("api-key", "kw_1")],
        &[("authorization", "Basic eDp5"), ("x-api-key", "kw_1")],
        &[("authorization", "Bearer of-the-function"), ("api-key", "kw_1")],
    ] {
        assert_eq!(find(headers).as_deref(), Some("kw_1"), "{headers:?}");
    }
    assert_eq!(find(&[("authorization", "Bearer other"), ("x-api-key", "more")]).as_deref(), Some("other"));
    assert_eq!(find(&[("authorization", "Basic kw_1")]), None);
    assert_eq!(find(&[]), None);
}

#[tokio::test]
async fn a_key_lives_is_changed_and_goes() {
    let data = tempfile::tempdir().unwrap();
    let (keys, _) = open(data.path()).await;
    let functions = ["a".parse().unwrap(), "b".parse().unwrap()];
    let change = KeyChange {
        functions: Some(Some(functions.into())),
        rate: Some(Some("10/s".parse().unwrap())),
        concurrency: Some(Some(4)),
        tenant: Some("team".to_owned()),
        ..KeyChange::default()
    };
    let made = keys.create(NewKey { change, ..new("ci", Role::Deploy) }, author()).await.unwrap();
    assert_eq!((made.info.burst, made.info.state.as_str(), made.info.last_use), (Some(10), "active", None));
    let key = keys.check(Some(&made.secret)).unwrap();
    assert!(key.sees("a") && !key.sees("c"));
    let allows = |role, function| key.allows(Access { role, function }).map_err(Problem::from);
    assert_eq!(allows(Role::Invoke, Some("c")).unwrap_err().code, code::KEY_OTHER_FUNCTION);
    assert!(allows(Role::Operate, None).is_ok() && allows(Role::Deploy, Some("a")).is_ok());
    let refused = allows(Role::Admin, None).unwrap_err();
    assert!(refused.code == code::ROLE_TOO_LOW && refused.message.contains("role admin"), "{refused}");
    assert_eq!(code_of(keys.create(new("ci", Role::Invoke), author()).await), code::KEY_EXISTS);

    let off = KeyChange { disabled: Some(true), rate: Some(None), ..KeyChange::default() };
    let info = keys.change("ci", off, author()).await.unwrap();
    assert_eq!(
        (info.state.as_str(), info.rate, info.burst, info.functions.map(|names| names.len())),
        ("disabled", None, None, Some(2))
    );
    assert_eq!(keys.check(Some(&made.secret)).unwrap_err().code, code::KEY_DISABLED);
    keys.change("ci", KeyChange { disabled: Some(false), ..KeyChange::default() }, author()).await.unwrap();
    assert!(keys.check(Some(&made.secret)).is_ok());
    keys.remove("ci", author()).await.unwrap();
    assert_eq!(keys.check(Some(&made.secret)).unwrap_err().code, code::KEY_WRONG);
    assert_eq!(code_of(keys.remove("ci", author()).await), code::KEY_NOT_FOUND);
}

#[tokio::test]
async fn the_last_use_is_kept_over_a_restart_and_written_only_if_there_was_one() {
    let data = tempfile::tempdir().unwrap();
    let (keys, _) = open(data.path()).await;
    let made = keys.create(new("k", Role::Invoke), author()).await.unwrap();
    keys.write_uses().await.unwrap();
    assert_eq!(keys.show("k").unwrap().last_use, None);
    keys.check(Some(&made.secret)).unwrap();
    let used = keys.show("k").unwrap().last_use;
    assert!(used.is_some_and(|used| (wall_millis() - used) < 60_000), "{used:?}");
    assert_eq!(keys.shared.changes.read().keys().await.unwrap().iter().filter(|key| key.last_use.is_some()).count(), 0);
    keys.write_uses().await.unwrap();
    let (again, _) = open(data.path()).await;
    assert_eq!(again.show("k").unwrap().last_use, used);
    assert_eq!(again.show("admin").unwrap().last_use, None);
}

#[tokio::test]
async fn a_rotated_key_takes_both_secrets_for_a_while() {
    let data = tempfile::tempdir().unwrap();
    let (keys, administrator) = open(data.path()).await;
    let first = keys.create(new("k", Role::Invoke), author()).await.unwrap();
    let second = keys.rotate("k", Millis(3_600_000), author()).await.unwrap();
    assert_ne!(first.secret, second.secret);
    assert!(second.info.previous_until.is_some() && second.info.rotated.is_some());
    let ids = [&first.secret, &second.secret].map(|secret| keys.check(Some(secret)).unwrap().id());
    assert_eq!(ids[0], ids[1], "both are the same key, with one set of limits");
    let third = keys.rotate("k", Millis(0), author()).await.unwrap();
    for gone in [&first.secret, &second.secret] {
        assert_eq!(keys.check(Some(gone)).unwrap_err().code, code::KEY_WRONG);
    }
    assert!(keys.check(Some(&third.secret)).is_ok());
    let fourth = keys.rotate("k", Millis(1), author()).await.unwrap();
    while wall_millis() < fourth.info.rotated.unwrap() + 1 {}
    assert_eq!(keys.check(Some(&third.secret)).unwrap_err().code, code::KEY_EXPIRED);
    assert!(keys.check(Some(&fourth.secret)).is_ok());

    let rotated = keys.rotate("admin", Millis(0), author()).await.unwrap();
    assert_eq!(keys.check(Some(&administrator)).unwrap_err().code, code::KEY_WRONG);
    let (_, kept) = open(data.path()).await;
    assert_eq!(kept, rotated.secret, "the file of the data directory follows");
}

#[tokio::test]
async fn an_administrator_stays() {
    let data = tempfile::tempdir().unwrap();
    let (keys, _) = open(data.path()).await;
    let demote = KeyChange { role: Some(Role::Deploy), ..KeyChange::default() };
    let disable = KeyChange { disabled: Some(true), ..KeyChange::default() };
    keys.create(new("d", Role::Deploy), author()).await.unwrap();
    let second = keys.create(new("second", Role::Admin), author()).await.unwrap();
    keys.change("second", disable.clone(), author()).await.unwrap();
    assert_eq!(
        code_of(keys.remove("admin", author()).await),
        code::KEY_LAST_ADMINISTRATOR,
        "a disabled one does not count"
    );
    for change in [demote.clone(), disable.clone()] {
        assert_eq!(code_of(keys.change("admin", change, author()).await), code::KEY_LAST_ADMINISTRATOR);
    }
    keys.remove("d", author()).await.unwrap();
    keys.change("second", KeyChange { disabled: Some(false), ..KeyChange::default() }, author()).await.unwrap();
    keys.change("admin", demote, author()).await.unwrap();
    assert_eq!(code_of(keys.change("second", disable, author()).await), code::KEY_LAST_ADMINISTRATOR);
    assert!(keys.check(Some(&second.secret)).is_ok());
}

#[tokio::test]
async fn where_no_administrator_is_left_a_start_makes_one() {
    let data = tempfile::tempdir().unwrap();
    let (keys, first) = open(data.path()).await;
    let soon = wall_millis() + 50;
    keys.change("admin", KeyChange { expires: Some(Some(soon)), ..KeyChange::default() }, author()).await.unwrap();
    while wall_millis() < soon {}
    assert_eq!(keys.check(Some(&first)).unwrap_err().code, code::KEY_EXPIRED);
    let (again, second) = open(data.path()).await;
    assert_eq!(again.check(Some(&second)).unwrap().role(), Role::Admin);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let data = tempfile::tempdir().unwrap();
    let (keys, _) = open(data.path()).await;
    let all = KeyChange::default();
    let wrong = [
        ("", Role::Invoke, all.clone()),
        ("../x", Role::Invoke, all.clone()),
        ("-x", Role::Invoke, all.clone()),
        ("x", Role::Admin, KeyChange { functions: Some(Some(["f".parse().unwrap()].into())), ..all.clone() }),
        ("x", Role::Invoke, KeyChange { burst: Some(Some(1)), ..all.clone() }),
        ("x", Role::Invoke, KeyChange { concurrency: Some(Some(0)), ..all.clone() }),
        ("x", Role::Invoke, KeyChange { tenant: Some("a b".to_owned()), ..all.clone() }),
        ("x", Role::Invoke, KeyChange { expires: Some(Some(wall_millis())), ..all.clone() }),
    ];
    for (name, role, change) in wrong {
        let refused =
            keys.create(NewKey { change: change.clone(), ..NewKey::bearer(name.to_owned(), role) }, author()).await;
        assert_eq!(code_of(refused), code::KEY_INVALID, "{name} {change:?}");
    }
    assert_eq!(keys.list().len(), 1);
}

#[test]
fn threads_share_one_bucket() {
    use kip_spec::limiter::{Allowance, Limiter};
    const SECOND: u64 = 1_000_000_000;
    let limiter = Arc::new(Limiter::default());
    let allowance = Allowance { rate: Some((SECOND, 1_000)), concurrency: None };
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let limiter = limiter.clone();
            let count = move || (0..1_000).filter(|_| limiter.admit(allowance, SECOND).is_ok()).count();
            kip_host::tasks::thread("limits", count).unwrap()
        })
        .collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 1_000);
}
