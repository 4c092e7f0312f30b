//! What facades keep of functions, in their tables.

use kip_spec::FunctionName;
use kip_spec::function::FunctionSpec;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::numbers::{id_of, signed};
use crate::facade::{RevisionExtra, StoredResource, StoredSetting, StoredTrigger};
use crate::ids::Seq;

type Result<T> = std::result::Result<T, rusqlite::Error>;

pub(super) fn put_trigger(c: &Connection, seq: Seq, trigger: &StoredTrigger) -> Result<bool> {
    let StoredTrigger { function, name, kind, qualifier, config, created, changed, .. } = trigger;
    let Some(id) = id_of(c, function)? else { return Ok(false) };
    let put = "INSERT INTO triggers (function, name, type, qualifier, config, created, changed, rev)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (function, name) DO UPDATE SET type = excluded.type,
         qualifier = excluded.qualifier, config = excluded.config, changed = excluded.changed, rev = excluded.rev";
    c.execute(put, params![id, name, kind, qualifier, config, created, changed, signed(seq.0)])?;
    Ok(true)
}

pub(super) fn remove_trigger(c: &Connection, function: &FunctionName, name: &str) -> Result<bool> {
    let Some(id) = id_of(c, function)? else { return Ok(false) };
    Ok(c.execute("DELETE FROM triggers WHERE function = ?1 AND name = ?2", params![id, name])? > 0)
}

pub(super) fn triggers(c: &Connection, function: Option<&FunctionName>) -> Result<Vec<StoredTrigger>> {
    let query = "SELECT t.id, f.name, t.name, t.type, t.qualifier, t.config, t.created, t.changed, t.rev
         FROM triggers t JOIN functions f ON f.id = t.function WHERE ?1 IS NULL OR f.name = ?1 ORDER BY 2, 3";
    let read = |row: &Row<'_>| {
        Ok(StoredTrigger {
            id: row.get::<_, i64>(0)?.unsigned_abs(),
            function: function_of(row, 1)?,
            name: row.get(2)?,
            kind: row.get(3)?,
            qualifier: row.get(4)?,
            config: row.get(5)?,
            created: row.get(6)?,
            changed: row.get(7)?,
            rev: Seq(row.get::<_, i64>(8)?.unsigned_abs()),
        })
    };
    c.prepare(query)?.query_map([function.map(FunctionName::as_str)], read)?.collect()
}

pub(super) fn put_setting(c: &Connection, seq: Seq, setting: &StoredSetting) -> Result<bool> {
    let StoredSetting { function, qualifier, kind, config, .. } = setting;
    let Some(id) = id_of(c, function)? else { return Ok(false) };
    let put = "INSERT OR REPLACE INTO settings (function, qualifier, kind, config, rev) VALUES (?1, ?2, ?3, ?4, ?5)";
    c.execute(put, params![id, qualifier, kind, config, signed(seq.0)])?;
    Ok(true)
}

pub(super) fn remove_setting(c: &Connection, function: &FunctionName, qualifier: &str, kind: &str) -> Result<bool> {
    let Some(id) = id_of(c, function)? else { return Ok(false) };
    let remove = "DELETE FROM settings WHERE function = ?1 AND qualifier = ?2 AND kind = ?3";
    Ok(c.execute(remove, params![id, qualifier, kind])? > 0)
}

pub(super) fn settings(c: &Connection, kind: &str, function: Option<&FunctionName>) -> Result<Vec<StoredSetting>> {
    let query =
        "SELECT f.name, s.qualifier, s.kind, s.config, s.rev FROM settings s JOIN functions f ON f.id = s.function
         WHERE s.kind = ?1 AND (?2 IS NULL OR f.name = ?2) ORDER BY 1, 2";
    let read = |row: &Row<'_>| {
        Ok(StoredSetting {
            function: function_of(row, 0)?,
            qualifier: row.get(1)?,
            kind: row.get(2)?,
            config: row.get(3)?,
            rev: Seq(row.get::<_, i64>(4)?.unsigned_abs()),
        })
    };
    c.prepare(query)?.query_map(params![kind, function.map(FunctionName::as_str)], read)?.collect()
}

pub(super) fn put_resource(c: &Connection, seq: Seq, resource: &StoredResource) -> Result<()> {
    let StoredResource { kind, name, config, code, .. } = resource;
    let put = "INSERT OR REPLACE INTO resources (kind, name, config, code, rev) VALUES (?1, ?2, ?3, ?4, ?5)";
    c.execute(put, params![kind, name, config, code, signed(seq.0)])?;
    Ok(())
}

pub(super) fn remove_resource(c: &Connection, kind: &str, name: &str) -> Result<bool> {
    Ok(c.execute("DELETE FROM resources WHERE kind = ?1 AND name = ?2", [kind, name])? > 0)
}

pub(super) fn resources(c: &Connection, kind: &str) -> Result<Vec<StoredResource>> {
    let query = "SELECT kind, name, config, code, rev FROM resources WHERE kind = ?1 ORDER BY name";
    let read = |row: &Row<'_>| {
        Ok(StoredResource {
            kind: row.get(0)?,
            name: row.get(1)?,
            config: row.get(2)?,
            code: row.get(3)?,
            rev: Seq(row.get::<_, i64>(4)?.unsigned_abs()),
        })
    };
    c.prepare(query)?.query_map([kind], read)?.collect()
}

pub(super) fn extra(c: &Connection, revision: u64) -> Result<Option<RevisionExtra>> {
    let query = "SELECT extra, code FROM revisions WHERE id = ?1 AND extra IS NOT NULL";
    let read = |row: &Row<'_>| Ok(RevisionExtra { text: row.get(0)?, code: row.get(1)? });
    c.query_row(query, [signed(revision)], read).optional()
}

pub(super) fn codes(c: &Connection) -> Result<Vec<String>> {
    let query = "SELECT code FROM revisions WHERE code IS NOT NULL
         UNION SELECT code FROM resources WHERE code IS NOT NULL
         UNION SELECT f.value ->> '$.source' FROM revisions r, json_each(r.spec, '$.folders') f
         UNION SELECT spec ->> '$.code.snapshot.digest' FROM revisions WHERE spec ->> '$.code.snapshot.digest' IS NOT NULL
         ORDER BY 1";
    c.prepare(query)?.query_map([], |row| row.get(0))?.collect()
}

pub(super) fn images(c: &Connection) -> Result<Vec<String>> {
    let query = "SELECT DISTINCT spec ->> '$.program.image.id' FROM revisions
         WHERE spec ->> '$.program.image.id' IS NOT NULL ORDER BY 1";
    c.prepare(query)?.query_map([], |row| row.get(0))?.collect()
}

pub(super) fn revisions_with(c: &Connection, texts: &[String]) -> Result<Vec<FunctionSpec>> {
    let query =
        "SELECT spec FROM revisions r WHERE EXISTS (SELECT 1 FROM json_each(?1) t WHERE instr(r.spec, t.value) > 0)";
    let texts = serde_json::to_string(texts).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let read: Result<Vec<String>> = c.prepare(query)?.query_map([texts], |row| row.get(0))?.collect();
    // A declaration of a later version of this program cannot be read, and nothing of it is started.
    Ok(read?.iter().filter_map(|spec| serde_json::from_str(spec).ok()).collect())
}

fn function_of(row: &Row<'_>, column: usize) -> Result<FunctionName> {
    let name: String = row.get(column)?;
    name.parse().map_err(|error: kip_spec::id::IdError| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    })
}
