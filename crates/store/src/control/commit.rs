//! A change inside its transaction.

use kip_spec::function::FunctionSpec;
use kip_spec::scaling::Fc;
use kip_spec::{FunctionName, VersionId};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::change::{Change, CommittedChange, Effect, Proposal, StoredRevision};
use crate::ids::{FunctionId, Object, Seq};
use crate::keys;

type Result<T> = std::result::Result<T, rusqlite::Error>;

/// Documents that no revision was made from any more.
pub(super) const DROP_DOCUMENTS: &str = "DELETE FROM documents WHERE id NOT IN (SELECT document FROM revisions)";
/// Earlier revisions of a function that are kept.
pub(super) const KEPT_REVISIONS: u32 = 50;
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
        Change::Serve { function, .. } | Change::RemoveFunction(function) => {
            Object::Function(function.clone()).to_string()
        }
        Change::PutProvision { function, qualifier, .. } | Change::RemoveProvision { function, qualifier } => {
            provision(function, qualifier).to_string()
        }
        // The number of a new key is not known yet; its name is.
        Change::PutKey(key) if key.id == 0 => format!("key/{}", key.name),
        Change::PutKey(key) => Object::Key(key.id).to_string(),
        Change::RemoveKey(id) => Object::Key(*id).to_string(),
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
        Object::Key(id) => {
            c.query_row("SELECT rev FROM keys WHERE id = ?1", [signed(*id)], |row| row.get(0)).optional()?
        }
    };
    Ok(Seq(found.unwrap_or_default().unsigned_abs()))
}

fn apply(c: &Connection, seq: Seq, at: i64, change: &Change) -> Result<Effect> {
    let done = |changed: bool| if changed { Effect::Done } else { Effect::Nothing };
    match change {
        Change::Deploy { specs, document, facade } => deploy(c, seq, at, specs, document, facade),
        Change::Serve { function, revision } => serve(c, function, *revision).map(done),
        Change::RemoveFunction(function) => remove_function(c, function).map(done),
        Change::PutProvision { function, qualifier, settings } => {
            put_provision(c, seq, function, qualifier, settings).map(done)
        }
        Change::RemoveProvision { function, qualifier } => remove_provision(c, function, qualifier).map(done),
        Change::PutKey(key) => keys::put(c, key, seq).map(Effect::Key),
        Change::RemoveKey(id) => keys::remove(c, *id).map(done),
    }
}

fn deploy(c: &Connection, seq: Seq, at: i64, specs: &[FunctionSpec], document: &str, facade: &str) -> Result<Effect> {
    // Once for all of them: a document may declare thousands of functions.
    c.execute("INSERT INTO documents (text, facade) VALUES (?1, ?2)", [document, facade])?;
    let document = c.last_insert_rowid();
    let made = specs.iter().map(|spec| add_revision(c, seq, at, spec, document)).collect::<Result<Vec<_>>>()?;
    c.execute(DROP_DOCUMENTS, [])?;
    Ok(Effect::Deployed(made))
}

fn add_revision(c: &Connection, seq: Seq, at: i64, spec: &FunctionSpec, document: i64) -> Result<StoredRevision> {
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
    c.prepare_cached("INSERT INTO revisions (function, ordinal, spec, document, created) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![function, ordinal, text, document, at])?;
    let id = c.last_insert_rowid();
    c.prepare_cached("UPDATE functions SET desired = ?2 WHERE id = ?1")?.execute([function, id])?;
    c.prepare_cached(
        "DELETE FROM revisions WHERE function = ?1
         AND id IS NOT (SELECT serving FROM functions WHERE id = ?1)
         AND id NOT IN (SELECT id FROM revisions WHERE function = ?1 ORDER BY id DESC LIMIT ?2)",
    )?
    .execute(params![function, KEPT_REVISIONS])?;
    Ok(StoredRevision {
        id: VersionId(id.unsigned_abs()),
        function: FunctionId(function.unsigned_abs()),
        ordinal: ordinal.unsigned_abs(),
        spec: spec.clone(),
    })
}

/// The function or the revision may have been removed since the revision proved itself.
fn serve(c: &Connection, function: &FunctionName, revision: VersionId) -> Result<bool> {
    let serve = "UPDATE functions SET serving = ?2 WHERE name = ?1
                 AND EXISTS (SELECT 1 FROM revisions WHERE id = ?2 AND function = functions.id)";
    Ok(c.execute(serve, params![function.as_str(), signed(revision.0)])? > 0)
}

fn id_of(c: &Connection, function: &FunctionName) -> Result<Option<i64>> {
    c.query_row("SELECT id FROM functions WHERE name = ?1", [function.as_str()], |row| row.get(0)).optional()
}

fn remove_function(c: &Connection, function: &FunctionName) -> Result<bool> {
    let Some(id) = id_of(c, function)? else { return Ok(false) };
    c.execute("DELETE FROM settings WHERE function = ?1", [id])?;
    c.execute("DELETE FROM functions WHERE id = ?1", [id])?;
    c.execute("DELETE FROM revisions WHERE function = ?1", [id])?;
    c.execute(DROP_DOCUMENTS, [])?;
    Ok(true)
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

/// SQLite counts with a sign; our numbers never come near its limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
