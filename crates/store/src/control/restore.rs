//! A backup in the place of what there is, as one commit.

use std::collections::BTreeMap;

use kip_spec::FunctionName;
use rusqlite::{Connection, TransactionBehavior, params};

use super::commit::{begin, signed};
use crate::ids::Seq;
use crate::keys;

type Result<T> = std::result::Result<T, rusqlite::Error>;

/// What of the backup needs no thought. The server's identity and keys stay ours.
const REPLACE: &str = "
    DELETE FROM settings; DELETE FROM functions; DELETE FROM revisions; DELETE FROM documents;
    INSERT INTO documents SELECT id, text, facade FROM backup.documents;
    INSERT OR IGNORE INTO server SELECT one, id, boot FROM backup.server;
";

/// Replaces everything by what is in the attached database `backup`. Functions of this server's own backup keep their ids; those of
/// another server keep ours where the name is known here, and get new ones otherwise, because an id is never given twice.
pub(super) fn replace(c: &mut Connection, by: &str, at: i64, renew: &[FunctionName]) -> Result<Seq> {
    let transaction = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let seq = begin(&transaction, at, by, "", "restore")?;
    // While it can still be told whose backup it is.
    transaction.execute_batch(keys::MERGE)?;
    let own: bool = transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM main.server a JOIN backup.server b ON a.id = b.id)",
        [],
        |row| row.get(0),
    )?;
    let ids: BTreeMap<String, i64> = transaction
        .prepare("SELECT name, id FROM main.functions")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    transaction.execute_batch(REPLACE)?;
    let theirs: Vec<(i64, String, i64, Option<i64>)> = transaction
        .prepare("SELECT id, name, desired, serving FROM backup.functions ORDER BY id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<Result<_>>()?;
    for (their, name, desired, serving) in theirs {
        let id = if own { Some(their) } else { ids.get(&name).copied() };
        let insert = "INSERT INTO functions (id, name, desired, serving, rev) VALUES (?1, ?2, ?3, ?4, ?5)";
        transaction.execute(insert, params![id, name, desired, serving, signed(seq.0)])?;
        let id = transaction.last_insert_rowid();
        let revisions = "INSERT INTO revisions (id, function, ordinal, spec, document, created)
             SELECT id, ?2, ordinal, spec, document, created FROM backup.revisions WHERE function = ?1";
        transaction.execute(revisions, [their, id])?;
        let settings =
            "INSERT INTO settings SELECT ?2, qualifier, kind, config, ?3 FROM backup.settings WHERE function = ?1";
        transaction.execute(settings, [their, id, signed(seq.0)])?;
    }
    for name in renew {
        let copy = "INSERT INTO revisions (function, ordinal, spec, document, created)
             SELECT r.function, (SELECT max(ordinal) + 1 FROM revisions WHERE function = r.function), r.spec, r.document, r.created
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
