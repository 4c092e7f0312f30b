//! A change inside its transaction.

use std::collections::BTreeMap;

use kip_spec::function::FunctionSpec;
use kip_spec::scaling::Fc;
use kip_spec::sticky::Sticky;
use kip_spec::{AliasName, FunctionName, VersionId};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::facade;
use super::numbers::{id_of, signed};
use crate::change::{Change, CommittedChange, Effect, Proposal, StoredRevision};
use crate::facade::{RevisionExtra, SettingChange, StoredSetting};
use crate::ids::{FunctionId, Object, Seq};
use crate::keys;
use crate::secrets;
use crate::version::{AliasTarget, StoredAlias, StoredVersion, TrafficShare};

type Result<T> = std::result::Result<T, rusqlite::Error>;

/// Documents that no revision was made from any more.
pub(super) const DROP_DOCUMENTS: &str = "DELETE FROM documents WHERE id NOT IN (SELECT document FROM revisions)";
/// The newest revisions of a function are kept, however old they are.
const NEWEST: u32 = 10;
/// Those that are younger than this are kept too, milliseconds.
const YOUNG: i64 = 30 * 24 * 60 * 60 * 1_000;
/// But not more than so many: a script may deploy every minute.
const MOST: u32 = 1_000;
/// Rows of `changes` that are kept.
const KEPT_CHANGES: u32 = 10_000;
/// The kind of provisioned instances in `settings`.
const PROVISION: &str = "provision";

/// A condition that does not hold.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) object: Object,
    pub(super) expected: Seq,
    pub(super) found: Seq,
}

/// Makes a change in a transaction of its own.
pub(super) fn commit(
    c: &mut Connection,
    proposal: &Proposal,
    at: i64,
) -> Result<std::result::Result<CommittedChange, Mismatch>> {
    let transaction = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for condition in &proposal.if_match {
        let found = rev(&transaction, &condition.object)?;
        if found != condition.rev {
            let (object, expected) = (condition.object.clone(), condition.rev);
            return Ok(Err(Mismatch { object, expected, found }));
        }
    }
    let last = last(&transaction)?;
    let seq = begin(&transaction, at, &proposal.by, &objects(&proposal.change), proposal.change.op())?;
    let effect = apply(&transaction, seq, at, &proposal.change)?;
    if effect == Effect::Nothing {
        return Ok(Ok(CommittedChange { seq: last, effect }));
    }
    transaction.commit()?;
    Ok(Ok(CommittedChange { seq, effect }))
}

/// The number of the last commit.
pub(super) fn last(c: &Connection) -> Result<Seq> {
    c.query_row("SELECT coalesce(max(seq), 0) FROM changes", [], |row| row.get::<_, i64>(0))
        .map(|seq| Seq(seq.unsigned_abs()))
}

/// Adds the row of a commit and gives its number.
pub(super) fn begin(c: &Connection, at: i64, by: &str, object: &str, op: &str) -> Result<Seq> {
    c.prepare_cached("INSERT INTO changes (at, key, object, op) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![at, by, object, op])?;
    let seq = c.last_insert_rowid();
    c.prepare_cached("DELETE FROM changes WHERE seq <= ?1")?.execute([seq - i64::from(KEPT_CHANGES)])?;
    Ok(Seq(seq.unsigned_abs()))
}

/// The objects of a change, apart by spaces.
fn objects(change: &Change) -> String {
    let provision =
        |function: &FunctionName, qualifier: &str| Object::Provision(function.clone(), qualifier.to_owned());
    match change {
        Change::Deploy { specs, .. } => {
            let all: Vec<String> = specs.iter().map(|spec| Object::Function(spec.name.clone()).to_string()).collect();
            all.join(" ")
        }
        Change::Serve { function, .. } | Change::RemoveFunction(function) | Change::Rollback(function) => {
            Object::Function(function.clone()).to_string()
        }
        Change::PutProvision { function, qualifier, .. } | Change::RemoveProvision { function, qualifier } => {
            provision(function, qualifier).to_string()
        }
        // The number is not known yet, where the version is new.
        Change::PublishVersion { function, .. } => format!("version/{function}"),
        Change::RemoveVersion { function, number } => format!("version/{function}/{number}"),
        Change::PutAlias { function, name, .. } | Change::RemoveAlias { function, name } => {
            Object::Alias(function.clone(), name.clone()).to_string()
        }
        // The number of a new key is not known yet; its name is.
        Change::PutKey(key) if key.id == 0 => format!("key/{}", key.name),
        Change::PutKey(key) => Object::Key(key.id).to_string(),
        Change::RemoveKey(id) => Object::Key(*id).to_string(),
        Change::PutSecret(secret) => Object::Secret(secret.name.clone()).to_string(),
        Change::RemoveSecret(name) => Object::Secret(name.clone()).to_string(),
        Change::PutTrigger(trigger) => Object::Trigger(trigger.function.clone(), trigger.name.clone()).to_string(),
        Change::RemoveTrigger { function, name } => Object::Trigger(function.clone(), name.clone()).to_string(),
        Change::PutSetting(setting) => {
            Object::Setting(setting.function.clone(), setting.qualifier.clone(), setting.kind.clone()).to_string()
        }
        Change::RemoveSetting { function, qualifier, kind } => {
            Object::Setting(function.clone(), qualifier.clone(), kind.clone()).to_string()
        }
        Change::Together { main, settings } => {
            let of = |setting: &SettingChange| match setting {
                SettingChange::Put(StoredSetting { function, qualifier, kind, .. })
                | SettingChange::Remove { function, qualifier, kind } => {
                    Object::Setting(function.clone(), qualifier.clone(), kind.clone()).to_string()
                }
            };
            std::iter::once(objects(main)).chain(settings.iter().map(of)).collect::<Vec<_>>().join(" ")
        }
        Change::PutResource(resource) => Object::Resource(resource.kind.clone(), resource.name.clone()).to_string(),
        Change::RemoveResource { kind, name } => Object::Resource(kind.clone(), name.clone()).to_string(),
    }
}

/// The revision of an object; 0 if it does not exist.
pub(super) fn rev(c: &Connection, object: &Object) -> Result<Seq> {
    let found: Option<i64> = match object {
        Object::Function(name) => {
            c.query_row("SELECT rev FROM functions WHERE name = ?1", [name.as_str()], |row| row.get(0)).optional()?
        }
        Object::Provision(name, qualifier) => c
            .query_row(
                "SELECT s.rev FROM settings s JOIN functions f ON f.id = s.function
                 WHERE f.name = ?1 AND s.qualifier = ?2 AND s.kind = ?3",
                [name.as_str(), qualifier, PROVISION],
                |row| row.get(0),
            )
            .optional()?,
        Object::Alias(function, name) => c
            .query_row(
                "SELECT a.rev FROM aliases a JOIN functions f ON f.id = a.function WHERE f.name = ?1 AND a.name = ?2",
                [function.as_str(), name.as_str()],
                |row| row.get(0),
            )
            .optional()?,
        Object::Key(id) => {
            c.query_row("SELECT rev FROM keys WHERE id = ?1", [signed(*id)], |row| row.get(0)).optional()?
        }
        Object::Secret(name) => {
            c.query_row("SELECT rev FROM secrets WHERE name = ?1", [name], |row| row.get(0)).optional()?
        }
        Object::Trigger(function, name) => c
            .query_row(
                "SELECT t.rev FROM triggers t JOIN functions f ON f.id = t.function WHERE f.name = ?1 AND t.name = ?2",
                [function.as_str(), name],
                |row| row.get(0),
            )
            .optional()?,
        Object::Setting(function, qualifier, kind) => c
            .query_row(
                "SELECT s.rev FROM settings s JOIN functions f ON f.id = s.function
                 WHERE f.name = ?1 AND s.qualifier = ?2 AND s.kind = ?3",
                [function.as_str(), qualifier, kind],
                |row| row.get(0),
            )
            .optional()?,
        Object::Resource(kind, name) => c
            .query_row("SELECT rev FROM resources WHERE kind = ?1 AND name = ?2", [kind, name], |row| row.get(0))
            .optional()?,
    };
    Ok(Seq(found.unwrap_or_default().unsigned_abs()))
}

fn apply(c: &Connection, seq: Seq, at: i64, change: &Change) -> Result<Effect> {
    let done = |changed: bool| if changed { Effect::Done } else { Effect::Nothing };
    match change {
        Change::Deploy { specs, document, facade, traffic, held: true, keep, extra } => {
            debug_assert!(traffic.is_empty(), "a deployment without traffic moves none");
            deploy(c, seq, at, specs, (document, facade), (true, keep), extra)
        }
        Change::Deploy { specs, document, facade, traffic, held: false, keep, extra } => {
            let effect = deploy(c, seq, at, specs, (document, facade), (false, keep), extra)?;
            specs.iter().try_for_each(|spec| put_traffic(c, &spec.name, traffic.get(&spec.name)))?;
            Ok(effect)
        }
        Change::Serve { function, revision } => serve(c, function, *revision).map(done),
        Change::RemoveFunction(function) => remove_function(c, function).map(done),
        Change::PutProvision { function, qualifier, settings } => {
            put_provision(c, seq, function, qualifier, settings).map(done)
        }
        Change::RemoveProvision { function, qualifier } => remove_provision(c, function, qualifier).map(done),
        Change::Rollback(function) => rollback(c, seq, function),
        Change::PublishVersion { function, revision, description } => {
            let published = publish(c, at, function, *revision, description)?;
            Ok(published.map_or(Effect::Nothing, Effect::Published))
        }
        Change::RemoveVersion { function, number } => {
            let Some(id) = id_of(c, function)? else { return Ok(Effect::Nothing) };
            let remove = "DELETE FROM versions WHERE function = ?1 AND number = ?2";
            Ok(done(c.execute(remove, params![id, signed(*number)])? > 0))
        }
        Change::PutAlias { function, name, targets, description, sticky, rollout } => {
            if let Some(rollout) = rollout {
                facade::put_setting(c, seq, rollout)?;
            }
            Ok(put_alias(c, seq, (function, name), targets, (description, sticky.as_ref()))?
                .map_or(Effect::Nothing, Effect::Alias))
        }
        Change::RemoveAlias { function, name } => {
            let Some(id) = id_of(c, function)? else { return Ok(Effect::Nothing) };
            c.execute(
                "DELETE FROM settings WHERE function = ?1 AND qualifier = ?2 AND kind = 'rollout'",
                params![id, name.as_str()],
            )?;
            let remove = "DELETE FROM aliases WHERE function = ?1 AND name = ?2";
            Ok(done(c.execute(remove, params![id, name.as_str()])? > 0))
        }
        Change::PutKey(key) => keys::put(c, key, seq).map(Effect::Key),
        Change::RemoveKey(id) => keys::remove(c, *id).map(done),
        Change::PutSecret(secret) => secrets::put(c, secret, seq).map(|()| Effect::Done),
        Change::RemoveSecret(name) => secrets::remove(c, name).map(done),
        Change::PutTrigger(trigger) => facade::put_trigger(c, seq, trigger).map(done),
        Change::RemoveTrigger { function, name } => facade::remove_trigger(c, function, name).map(done),
        Change::PutSetting(setting) => facade::put_setting(c, seq, setting).map(done),
        Change::RemoveSetting { function, qualifier, kind } => {
            facade::remove_setting(c, function, qualifier, kind).map(done)
        }
        Change::Together { main, settings } => {
            let effect = apply(c, seq, at, main)?;
            let mut changed = false;
            for setting in settings {
                changed |= match setting {
                    SettingChange::Put(setting) => facade::put_setting(c, seq, setting)?,
                    SettingChange::Remove { function, qualifier, kind } => {
                        facade::remove_setting(c, function, qualifier, kind)?
                    }
                };
            }
            Ok(if effect == Effect::Nothing { done(changed) } else { effect })
        }
        Change::PutResource(resource) => facade::put_resource(c, seq, resource).map(|()| Effect::Done),
        Change::RemoveResource { kind, name } => facade::remove_resource(c, kind, name).map(done),
    }
}

/// Deletes the revisions of a function that nothing needs: not those that serve, that are published, that an alias points at, of which
/// instances live, the newest, and the young.
const COLLECT: &str = "DELETE FROM revisions WHERE function = ?1
     AND id IS NOT (SELECT serving FROM functions WHERE id = ?1)
     AND id IS NOT (SELECT before FROM functions WHERE id = ?1)
     AND id NOT IN (SELECT id FROM revisions WHERE function = ?1 ORDER BY id DESC LIMIT ?2)
     AND (created < ?3 OR id NOT IN (SELECT id FROM revisions WHERE function = ?1 ORDER BY id DESC LIMIT ?4))
     AND id NOT IN (SELECT revision FROM versions WHERE function = ?1)
     AND id NOT IN (SELECT t.value ->> '$.revision' FROM aliases a, json_each(a.targets) t
                    WHERE a.function = ?1 AND t.value ->> '$.revision' IS NOT NULL)
     AND id NOT IN (SELECT t.value ->> '$.revision' FROM aliases a, json_each(a.before) t
                    WHERE a.function = ?1 AND t.value ->> '$.revision' IS NOT NULL)
     AND id NOT IN (SELECT value FROM json_each(?5))";

fn deploy(
    c: &Connection,
    seq: Seq,
    at: i64,
    specs: &[FunctionSpec],
    (document, facade): (&str, &str),
    (held, keep): (bool, &[VersionId]),
    extra: &BTreeMap<FunctionName, RevisionExtra>,
) -> Result<Effect> {
    let keep = serde_json::to_string(keep).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    // Once for all of them: a document may declare thousands of functions.
    c.execute("INSERT INTO documents (text, facade) VALUES (?1, ?2)", [document, facade])?;
    let document = c.last_insert_rowid();
    let add = |spec: &FunctionSpec| add_revision(c, (seq, at), spec, document, (held, &keep), extra.get(&spec.name));
    let made = specs.iter().map(add).collect::<Result<Vec<_>>>()?;
    c.execute(DROP_DOCUMENTS, [])?;
    Ok(Effect::Deployed(made))
}

fn add_revision(
    c: &Connection,
    (seq, at): (Seq, i64),
    spec: &FunctionSpec,
    document: i64,
    (held, keep): (bool, &str),
    extra: Option<&RevisionExtra>,
) -> Result<StoredRevision> {
    let text = serde_json::to_string(spec).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    // References are checked at the commit: the function's row comes first, because its id is needed.
    let function: i64 = c
        .prepare_cached(
            "INSERT INTO functions (name, desired, rev) VALUES (?1, 0, ?2)
             ON CONFLICT (name) DO UPDATE SET rev = excluded.rev RETURNING id",
        )?
        .query_row(params![spec.name.as_str(), signed(seq.0)], |row| row.get(0))?;
    let ordinal: i64 = c
        .prepare_cached("SELECT coalesce(max(ordinal), 0) + 1 FROM revisions WHERE function = ?1")?
        .query_row([function], |row| row.get(0))?;
    // What one facade keeps stays when another one deploys.
    let insert = "INSERT INTO revisions (function, ordinal, spec, document, created, extra, code)
         SELECT ?1, ?2, ?3, ?4, ?5, coalesce(?6, r.extra), coalesce(?7, r.code) FROM functions f
         LEFT JOIN revisions r ON r.id = f.desired WHERE f.id = ?1";
    let (kept, code) = (extra.map(|extra| &extra.text), extra.and_then(|extra| extra.code.as_ref()));
    c.prepare_cached(insert)?.execute(params![function, ordinal, text, document, at, kept, code])?;
    let id = c.last_insert_rowid();
    if !held {
        c.prepare_cached("UPDATE functions SET desired = ?2 WHERE id = ?1")?.execute([function, id])?;
    }
    c.prepare_cached(COLLECT)?.execute(params![function, NEWEST, at - YOUNG, MOST, keep])?;
    Ok(StoredRevision {
        id: VersionId(id.unsigned_abs()),
        function: FunctionId(function.unsigned_abs()),
        ordinal: ordinal.unsigned_abs(),
        spec: spec.clone(),
    })
}

/// What served before is to serve again.
fn rollback(c: &Connection, seq: Seq, function: &FunctionName) -> Result<Effect> {
    let query = "SELECT r.id, r.function, r.ordinal, r.spec FROM functions f JOIN revisions r ON r.id = f.before
                 WHERE f.name = ?1";
    let Some(before) = c.query_row(query, [function.as_str()], super::read::revision_of).optional()? else {
        return Ok(Effect::Nothing);
    };
    let update = "UPDATE functions SET desired = ?2, rev = ?3 WHERE name = ?1";
    c.execute(update, params![function.as_str(), signed(before.id.0), signed(seq.0)])?;
    Ok(Effect::Deployed(vec![before]))
}

/// The function or the revision may have been removed since the revision proved itself.
fn serve(c: &Connection, function: &FunctionName, revision: VersionId) -> Result<bool> {
    // What served before is what a rollback returns to; to serve once more changes nothing of that.
    let serve = "UPDATE functions SET before = iif(serving = ?2, before, serving), serving = ?2 WHERE name = ?1
                 AND EXISTS (SELECT 1 FROM revisions WHERE id = ?2 AND function = functions.id)";
    Ok(c.execute(serve, params![function.as_str(), signed(revision.0)])? > 0)
}

fn remove_function(c: &Connection, function: &FunctionName) -> Result<bool> {
    let Some(id) = id_of(c, function)? else { return Ok(false) };
    for table in ["settings", "versions", "aliases", "triggers"] {
        c.execute(&format!("DELETE FROM {table} WHERE function = ?1"), [id])?;
    }
    c.execute("DELETE FROM functions WHERE id = ?1", [id])?;
    c.execute("DELETE FROM revisions WHERE function = ?1", [id])?;
    c.execute(DROP_DOCUMENTS, [])?;
    Ok(true)
}

fn put_traffic(c: &Connection, function: &FunctionName, traffic: Option<&Vec<TrafficShare>>) -> Result<()> {
    let text = traffic.map(serde_json::to_string).transpose();
    let text = text.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    c.prepare_cached("UPDATE functions SET traffic = ?2 WHERE name = ?1")?.execute(params![function.as_str(), text])?;
    Ok(())
}

fn publish(
    c: &Connection,
    at: i64,
    function: &FunctionName,
    revision: VersionId,
    description: &str,
) -> Result<Option<StoredVersion>> {
    let publish = "INSERT INTO versions (function, number, revision, description, created)
         SELECT f.id, f.next_number, r.id, ?3, ?4 FROM functions f JOIN revisions r ON r.function = f.id
         WHERE f.name = ?1 AND r.id = ?2 AND r.id NOT IN (SELECT revision FROM versions)";
    if c.execute(publish, params![function.as_str(), signed(revision.0), description, at])? == 0 {
        return Ok(None);
    }
    c.execute("UPDATE functions SET next_number = next_number + 1 WHERE name = ?1", [function.as_str()])?;
    let query = "SELECT f.name, v.number, v.revision, r.ordinal, v.description, v.created
         FROM versions v JOIN functions f ON f.id = v.function JOIN revisions r ON r.id = v.revision WHERE v.revision = ?1";
    c.query_row(query, [signed(revision.0)], super::read::version_of).optional()
}

fn put_alias(
    c: &Connection,
    seq: Seq,
    (function, name): (&FunctionName, &AliasName),
    targets: &[AliasTarget],
    (description, sticky): (&str, Option<&Sticky>),
) -> Result<Option<StoredAlias>> {
    let Some(id) = id_of(c, function)? else { return Ok(None) };
    let text = serde_json::to_string(targets).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let put = "INSERT INTO aliases (function, name, targets, description, sticky, rev) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (function, name) DO UPDATE
         SET before = iif(targets = excluded.targets, before, targets), targets = excluded.targets, description = excluded.description, sticky = excluded.sticky, rev = excluded.rev";
    c.execute(put, params![id, name.as_str(), text, description, sticky.map(ToString::to_string), signed(seq.0)])?;
    let query = "SELECT f.name, a.id, a.name, a.targets, a.description, a.rev, a.before, a.sticky
         FROM aliases a JOIN functions f ON f.id = a.function WHERE a.function = ?1 AND a.name = ?2";
    c.query_row(query, params![id, name.as_str()], super::read::alias_of).optional()
}

fn put_provision(c: &Connection, seq: Seq, function: &FunctionName, qualifier: &str, settings: &Fc) -> Result<bool> {
    let Some(id) = id_of(c, function)? else { return Ok(false) };
    let text =
        serde_json::to_string(settings).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let put = "INSERT OR REPLACE INTO settings (function, qualifier, kind, config, rev) VALUES (?1, ?2, ?3, ?4, ?5)";
    c.execute(put, params![id, qualifier, PROVISION, text, signed(seq.0)])?;
    Ok(true)
}

fn remove_provision(c: &Connection, function: &FunctionName, qualifier: &str) -> Result<bool> {
    let Some(id) = id_of(c, function)? else { return Ok(false) };
    let remove = "DELETE FROM settings WHERE function = ?1 AND qualifier = ?2 AND kind = ?3";
    Ok(c.execute(remove, params![id, qualifier, PROVISION])? > 0)
}
