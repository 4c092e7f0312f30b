//! Who changed what. A record is begun before the change and ended after it, so that a crash in between hides nothing.

use kip_host::clock::wall_millis;
use kip_store::{AuditFilter, AuditRecord};

use crate::{Error, Key, Keys};

/// The result of a change of which nothing more is known.
const UNKNOWN: &str = "unknown";

/// Characters of an object that are recorded. Names are shorter; the commands of sessions are bounded.
const LONGEST_OBJECT: usize = 1_280;

/// An object as it is recorded: cut, and without what looks like a secret. Callers choose it, and paste what they have at hand.
fn recorded(object: &str) -> String {
    let cut: String = object.chars().take(LONGEST_OBJECT).collect();
    kip_spec::secret::masked_text(&cut).into_owned()
}

impl Keys {
    /// Notes that a key asks for a change. Gives the number of the record.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn audit_begin(&self, key: &Key, action: &str, object: &str, peer: String) -> Result<i64, Error> {
        let record = AuditRecord {
            id: 0,
            at: wall_millis(),
            key: key.name().to_string(),
            key_id: key.id(),
            action: action.to_owned(),
            object: recorded(object),
            peer,
            result: UNKNOWN.to_owned(),
        };
        Ok(self.shared.changes.audit_begin(record).await?)
    }

    /// Notes what was changed and how that ended: `done`, or the code of the refusal.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn audit_end(&self, record: i64, object: String, result: String) -> Result<(), Error> {
        Ok(self.shared.changes.audit_end(record, recorded(&object), result).await?)
    }

    /// The records that fit, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRecord>, Error> {
        Ok(self.shared.changes.read().audit(filter).await?)
    }
}
