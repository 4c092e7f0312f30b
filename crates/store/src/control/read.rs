//! Questions about control objects.

use kip_spec::qualifier::QualifierError;
use kip_spec::sticky::StickyError;
use kip_spec::{FunctionName, VersionId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::numbers::signed;
use crate::change::{StoredProvision, StoredRevision, UnreadableRow};
use crate::ids::{FunctionId, Seq};
use crate::version::{StoredAlias, StoredTraffic, StoredVersion};
use crate::{Identity, VersionSource};

type Result<T> = std::result::Result<T, rusqlite::Error>;

const CURRENT: &str = "SELECT r.id, r.function, r.ordinal, r.spec
    FROM functions f JOIN revisions r ON r.id = coalesce(f.serving, f.desired) ORDER BY f.name";

pub(super) fn current_revisions(c: &Connection) -> Result<Vec<StoredRevision>> {
    c.prepare(CURRENT)?.query_map([], revision_of)?.collect()
}

pub(super) fn revision(c: &Connection, revision: VersionId) -> Result<Option<StoredRevision>> {
    let query = "SELECT id, function, ordinal, spec FROM revisions WHERE id = ?1";
    c.query_row(query, [signed(revision.0)], revision_of).optional()
}

pub(super) fn revision_at(c: &Connection, function: &FunctionName, ordinal: u64) -> Result<Option<StoredRevision>> {
    let query = "SELECT r.id, r.function, r.ordinal, r.spec FROM revisions r JOIN functions f ON f.id = r.function
                 WHERE f.name = ?1 AND r.ordinal = ?2";
    c.query_row(query, params![function.as_str(), signed(ordinal)], revision_of).optional()
}

pub(super) fn revision_of(row: &Row<'_>) -> Result<StoredRevision> {
    let text: String = row.get(3)?;
    let spec = serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, error.into()))?;
    Ok(StoredRevision {
        id: VersionId(row.get::<_, i64>(0)?.unsigned_abs()),
        function: FunctionId(row.get::<_, i64>(1)?.unsigned_abs()),
        ordinal: row.get::<_, i64>(2)?.unsigned_abs(),
        spec,
    })
}

pub(super) fn revisions(c: &Connection, function: &FunctionName) -> Result<Vec<VersionSource>> {
    let query = "SELECT r.id, r.ordinal, r.created, d.facade, d.text, v.number, coalesce(v.description, '')
                 FROM revisions r JOIN functions f ON f.id = r.function JOIN documents d ON d.id = r.document
                 LEFT JOIN versions v ON v.revision = r.id
                 WHERE f.name = ?1 ORDER BY r.id";
    let read = |row: &Row<'_>| {
        Ok(VersionSource {
            id: VersionId(row.get::<_, i64>(0)?.unsigned_abs()),
            ordinal: row.get::<_, i64>(1)?.unsigned_abs(),
            created: row.get(2)?,
            facade: row.get(3)?,
            source: row.get(4)?,
            number: row.get::<_, Option<i64>>(5)?.map(i64::unsigned_abs),
            description: row.get(6)?,
        })
    };
    c.prepare(query)?.query_map([function.as_str()], read)?.collect()
}

/// A published version, from (name of the function, number, revision, ordinal, description, created).
pub(super) fn version_of(row: &Row<'_>) -> Result<StoredVersion> {
    Ok(StoredVersion {
        function: function_of(&row.get::<_, String>(0)?)?,
        number: row.get::<_, i64>(1)?.unsigned_abs(),
        revision: VersionId(row.get::<_, i64>(2)?.unsigned_abs()),
        ordinal: row.get::<_, i64>(3)?.unsigned_abs(),
        description: row.get(4)?,
        created: row.get(5)?,
    })
}

fn function_of(name: &str) -> Result<FunctionName> {
    name.parse().map_err(|error: kip_spec::id::IdError| unreadable(0, error.into()))
}

fn unreadable(column: usize, error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
}

pub(super) fn versions(c: &Connection) -> Result<Vec<StoredVersion>> {
    let query = "SELECT f.name, v.number, v.revision, r.ordinal, v.description, v.created
                 FROM versions v JOIN functions f ON f.id = v.function JOIN revisions r ON r.id = v.revision ORDER BY 1, 2";
    c.prepare(query)?.query_map([], version_of)?.collect()
}

/// An alias, from (name of the function, id, name, targets, description, rev, before, sticky).
pub(super) fn alias_of(row: &Row<'_>) -> Result<StoredAlias> {
    Ok(StoredAlias {
        function: function_of(&row.get::<_, String>(0)?)?,
        id: row.get::<_, i64>(1)?.unsigned_abs(),
        name: row.get::<_, String>(2)?.parse().map_err(|error: QualifierError| unreadable(2, error.into()))?,
        targets: serde_json::from_str(&row.get::<_, String>(3)?).map_err(|error| unreadable(3, error.into()))?,
        description: row.get(4)?,
        rev: Seq(row.get::<_, i64>(5)?.unsigned_abs()),
        before: match row.get::<_, Option<String>>(6)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| unreadable(6, error.into()))?,
            None => Vec::new(),
        },
        sticky: match row.get::<_, Option<String>>(7)? {
            Some(text) => Some(text.parse().map_err(|error: StickyError| unreadable(7, error.into()))?),
            None => None,
        },
    })
}

pub(super) fn aliases(c: &Connection) -> Result<(Vec<StoredAlias>, Vec<UnreadableRow>)> {
    let query = "SELECT f.name, a.id, a.name, a.targets, a.description, a.rev, a.before, a.sticky
                 FROM aliases a JOIN functions f ON f.id = a.function ORDER BY 1, 3";
    each(c, query, |row| Ok(format!("alias/{}/{}", row.get::<_, String>(0)?, row.get::<_, String>(2)?)), alias_of)
}

pub(super) fn traffic(c: &Connection) -> Result<(Vec<StoredTraffic>, Vec<UnreadableRow>)> {
    let query = "SELECT name, traffic FROM functions WHERE traffic IS NOT NULL ORDER BY 1";
    let read = |row: &Row<'_>| {
        let shares = serde_json::from_str(&row.get::<_, String>(1)?).map_err(|error| unreadable(1, error.into()))?;
        Ok((function_of(&row.get::<_, String>(0)?)?, shares))
    };
    each(c, query, |row| Ok(format!("traffic of function/{}", row.get::<_, String>(0)?)), read)
}

/// Rows as values, and apart from them those that cannot be read.
fn each<T>(
    c: &Connection,
    query: &str,
    object: impl Fn(&Row<'_>) -> Result<String>,
    read: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<(Vec<T>, Vec<UnreadableRow>)> {
    let (mut all, mut unreadable) = (Vec::new(), Vec::new());
    let mut query = c.prepare(query)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(value) => all.push(value),
            Err(error) => unreadable.push(UnreadableRow { object: object(row)?, detail: error.to_string() }),
        }
    }
    Ok((all, unreadable))
}

pub(super) fn provisions(c: &Connection) -> Result<(Vec<StoredProvision>, Vec<UnreadableRow>)> {
    let query = "SELECT f.name, s.qualifier, s.config FROM settings s JOIN functions f ON f.id = s.function
                 WHERE s.kind = 'provision' ORDER BY 1, 2";
    let mut query = c.prepare(query)?;
    let (mut all, mut unreadable) = (Vec::new(), Vec::new());
    for row in query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?)))? {
        let (name, qualifier, text): (String, String, String) = row?;
        let read = || -> std::result::Result<StoredProvision, String> {
            let function: FunctionName = name.parse().map_err(|error: kip_spec::id::IdError| error.to_string())?;
            let settings = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            Ok((function, qualifier.clone(), settings))
        };
        match read() {
            Ok(provision) => all.push(provision),
            Err(detail) => unreadable.push(UnreadableRow { object: format!("provision/{name}/{qualifier}"), detail }),
        }
    }
    Ok((all, unreadable))
}

pub(super) fn identity(c: &Connection) -> Result<Option<Identity>> {
    let read = |row: &Row<'_>| Ok(Identity { server: row.get(0)?, boot: row.get(1)? });
    c.query_row("SELECT id, boot FROM server", [], read).optional()
}
