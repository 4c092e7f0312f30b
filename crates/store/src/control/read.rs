//! Questions about control objects.

use kip_spec::{FunctionName, VersionId};
use rusqlite::{Connection, OptionalExtension, Row};

use super::commit::signed;
use crate::change::{StoredProvision, StoredRevision, UnreadableRow};
use crate::ids::FunctionId;
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

fn revision_of(row: &Row<'_>) -> Result<StoredRevision> {
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
    let query = "SELECT r.id, r.ordinal, r.created, d.facade, d.text
                 FROM revisions r JOIN functions f ON f.id = r.function JOIN documents d ON d.id = r.document
                 WHERE f.name = ?1 ORDER BY r.id";
    let read = |row: &Row<'_>| {
        Ok(VersionSource {
            id: VersionId(row.get::<_, i64>(0)?.unsigned_abs()),
            ordinal: row.get::<_, i64>(1)?.unsigned_abs(),
            created: row.get(2)?,
            facade: row.get(3)?,
            source: row.get(4)?,
        })
    };
    c.prepare(query)?.query_map([function.as_str()], read)?.collect()
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
