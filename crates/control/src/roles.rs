//! Roles of Function Compute whose credentials are secrets of this server. A role is mapped to a name; its parts are the secrets `NAME.id`,
//! `NAME.secret` and, if there is one, `NAME.token`.

use std::collections::BTreeMap;

use kip_spec::named_secret::SecretName;
use kip_store::{Author, Change, Object, Seq, StoredResource};
use kip_wire::RoleInfo;

use crate::control::Control;
use crate::error::Error;

/// Mapped roles among the resources of the store.
const KIND: &str = "kip.role";
/// The longest name of a role, characters.
const LONGEST: usize = 256;
/// The variables of an instance by the parts of a role's secrets.
const PARTS: [(&str, &str); 3] = [
    ("ALIBABA_CLOUD_ACCESS_KEY_ID", "id"),
    ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret"),
    ("ALIBABA_CLOUD_SECURITY_TOKEN", "token"),
];

/// The name of a role: the last part of `acs:ram::ACCOUNT:role/NAME`.
fn short(role: &str) -> &str {
    role.rsplit_once("role/").map_or(role, |(_, name)| name)
}

impl Control {
    /// Mapped roles with their secrets.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn roles(&self) -> Result<Vec<RoleInfo>, Error> {
        let stored = self.resources(KIND).await?;
        Ok(stored.into_iter().map(|one| RoleInfo { role: one.name, secret: one.config }).collect())
    }

    /// Maps a role, by its name or its whole ARN, to secrets. Functions have them from their next deployment on.
    ///
    /// # Errors
    /// [`Error::RoleInvalid`] or [`Error::Store`].
    pub async fn set_role(&self, role: &str, secret: &str, author: Author) -> Result<RoleInfo, Error> {
        let wrong = |detail: String| Error::RoleInvalid { detail };
        if role.is_empty() || role.len() > LONGEST || role.contains(char::is_control) {
            return Err(wrong(format!("`{role}` is no name of a role")));
        }
        for (_, part) in &PARTS[..2] {
            let name: SecretName = format!("{secret}.{part}").parse().map_err(|error| wrong(format!("{error}")))?;
            if self.shared.options.secrets.reveal(&name).is_err() {
                return Err(wrong(format!("there is no secret `{name}` for the role {role}")));
            }
        }
        let object = Object::Resource(KIND.to_owned(), role.to_owned());
        let resource = StoredResource {
            kind: KIND.to_owned(),
            name: role.to_owned(),
            config: secret.to_owned(),
            code: None,
            rev: Seq::default(),
        };
        self.change_resource(object, Change::PutResource(Box::new(resource)), author).await?;
        Ok(RoleInfo { role: role.to_owned(), secret: secret.to_owned() })
    }

    /// Forgets the mapping of a role. False if there was none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn forget_role(&self, role: &str, author: Author) -> Result<bool, Error> {
        let object = Object::Resource(KIND.to_owned(), role.to_owned());
        let change = Change::RemoveResource { kind: KIND.to_owned(), name: role.to_owned() };
        self.change_resource(object, change, author).await
    }

    /// The secrets of a role by the variables that they are for; none of a role that is not mapped.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn credentials(&self, role: &str) -> Result<BTreeMap<String, SecretName>, Error> {
        let roles = self.roles().await?;
        let exact = roles.iter().find(|known| known.role == role);
        let Some(found) = exact.or_else(|| roles.iter().find(|known| known.role == short(role))) else {
            return Ok(BTreeMap::new());
        };
        let secret = |(variable, part): &(&str, &str)| {
            let name: SecretName = format!("{}.{part}", found.secret).parse().ok()?;
            let is_there = *part != "token" || self.shared.options.secrets.reveal(&name).is_ok();
            is_there.then(|| ((*variable).to_owned(), name))
        };
        Ok(PARTS.iter().filter_map(secret).collect())
    }

    /// The variables of credentials.
    pub fn credential_variables() -> [&'static str; 3] {
        PARTS.map(|(variable, _)| variable)
    }
}
