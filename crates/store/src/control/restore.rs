//! A backup in the place of what there is, as one commit.

use std::collections::BTreeMap;

use kip_spec::FunctionName;
use rusqlite::{Connection, TransactionBehavior, params};

use super::commit::begin;
use super::numbers::signed;
use crate::ids::Seq;
use crate::keys;
use crate::secrets;

type Result<T> = std::result::Result<T, rusqlite::Error>;

/// What of the backup needs no thought. The server's identity and keys stay ours.
const REPLACE: &str = "
    DELETE FROM settings; DELETE FROM versions; DELETE FROM aliases; DELETE FROM triggers; DELETE FROM functions; DELETE FROM revisions; DELETE FROM documents;
    INSERT INTO documents SELECT id, text, facade FROM backup.documents;
    INSERT OR IGNORE INTO server SELECT one, id, boot FROM backup.server;
    DELETE FROM resources;
";

/// Replaces everything by what is in the attached database `backup`. Functions of this server's own backup keep their ids; those of
/// another server keep ours where the name is known here, and get new ones otherwise, because an id is never given twice.
pub(super) fn replace(c: &mut Connection, by: &str, at: i64, renew: &[FunctionName]) -> Result<Seq> {
    let transaction = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let seq = begin(&transaction, at, by, "", "restore")?;
    // While it can still be told whose backup it is.
    transaction.execute_batch(keys::MERGE)?;
    transaction.execute_batch(secrets::MERGE)?;
    let own: bool = transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM main.server a JOIN backup.server b ON a.id = b.id)",
        [],
        |row| row.get(0),
    )?;
    let ids: BTreeMap<String, (i64, i64)> = transaction
        .prepare("SELECT name, id, next_number FROM main.functions")?
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
        .collect::<Result<_>>()?;
    transaction.execute_batch(REPLACE)?;
    let theirs: Vec<(i64, String)> = transaction
        .prepare("SELECT id, name FROM backup.functions ORDER BY id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    for (their, name) in theirs {
        let ours = ids.get(&name).copied();
        let id = if own { Some(their) } else { ours.map(|(id, _)| id) };
        // A number that was given since the backup is not given again.
        let least = ours.filter(|(known, _)| Some(*known) == id).map_or(1, |(_, next)| next);
        let insert = "INSERT INTO functions (id, name, desired, serving, rev, next_number, traffic, before)
             SELECT ?1, name, desired, serving, ?3, max(next_number, ?4), traffic, before FROM backup.functions WHERE id = ?2";
        transaction.execute(insert, params![id, their, signed(seq.0), least])?;
        let id = transaction.last_insert_rowid();
        let revisions = "INSERT INTO revisions (id, function, ordinal, spec, document, created, extra, code)
             SELECT id, ?2, ordinal, spec, document, created, extra, code FROM backup.revisions WHERE function = ?1";
        transaction.execute(revisions, [their, id])?;
        let settings =
            "INSERT INTO settings SELECT ?2, qualifier, kind, config, ?3 FROM backup.settings WHERE function = ?1";
        transaction.execute(settings, [their, id, signed(seq.0)])?;
        let versions = "INSERT INTO versions (function, number, revision, description, created)
             SELECT ?2, number, revision, description, created FROM backup.versions WHERE function = ?1";
        transaction.execute(versions, [their, id])?;
        // The numbers of another server's aliases may be those of ours.
        let aliases = "INSERT INTO aliases (id, function, name, targets, before, description, sticky, rev)
             SELECT iif(?4, id, NULL), ?2, name, targets, before, description, sticky, ?3 FROM backup.aliases WHERE function = ?1 ORDER BY id";
        transaction.execute(aliases, params![their, id, signed(seq.0), own])?;
        let triggers = "INSERT INTO triggers (id, function, name, type, qualifier, config, created, changed, rev)
             SELECT iif(?4, id, NULL), ?2, name, type, qualifier, config, created, changed, ?3
             FROM backup.triggers WHERE function = ?1 ORDER BY id";
        transaction.execute(triggers, params![their, id, signed(seq.0), own])?;
    }
    let resources = "INSERT INTO resources SELECT kind, name, config, code, ?1 FROM backup.resources";
    transaction.execute(resources, [signed(seq.0)])?;
    for name in renew {
        let copy = "INSERT INTO revisions (function, ordinal, spec, document, created, extra, code)
             SELECT r.function, (SELECT max(ordinal) + 1 FROM revisions WHERE function = r.function), r.spec, r.document, r.created, r.extra, r.code
             FROM functions f JOIN revisions r ON r.id = coalesce(f.serving, f.desired) WHERE f.name = ?1";
        transaction.execute(copy, [name.as_str()])?;
        let desired = transaction.last_insert_rowid();
        transaction.execute(
            "UPDATE functions SET desired = ?2, serving = NULL WHERE name = ?1",
            params![name.as_str(), desired],
        )?;
    }
    transaction.commit()?;
    Ok(seq)
}
