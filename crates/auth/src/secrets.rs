//! Secrets by name: sealed in the store and in memory, opened only for the start of an instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use kip_host::clock::wall_millis;
use kip_spec::named_secret::{LONGEST_VALUE, SecretName, SecretProblem, SecretSource, SecretText};
use kip_store::{Author, Change, Changes, Object, StoredSecret};
use kip_wire::SecretInfo;
use parking_lot::RwLock;

use crate::Error;
use crate::seal::Seal;

/// The secrets of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Secrets {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    changes: Changes,
    seal: Seal,
    table: RwLock<BTreeMap<String, StoredSecret>>,
}

/// What a value is sealed as: its name and its generation.
fn sealed_as(name: &str, generation: u64) -> String {
    format!("secret/{name}/{generation}")
}

impl Secrets {
    /// Reads the secrets.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open(changes: Changes, seal: Seal) -> Result<Self, Error> {
        let secrets = Self { shared: Arc::new(Shared { changes, seal, table: RwLock::default() }) };
        secrets.reload().await?;
        Ok(secrets)
    }

    /// Reads them anew, after a restore.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reload(&self) -> Result<(), Error> {
        let stored = self.shared.changes.read().secrets().await?;
        *self.shared.table.write() = stored.into_iter().map(|secret| (secret.name.clone(), secret)).collect();
        Ok(())
    }

    /// Sets the value of a secret. Instances that start from now on get it.
    ///
    /// # Errors
    /// [`Error::SecretInvalid`] or [`Error::Store`].
    pub async fn set(&self, name: &str, value: SecretText, author: Author) -> Result<SecretInfo, Error> {
        let name: SecretName = name.parse().map_err(|error| invalid(&error))?;
        let length = value.reveal().len();
        if length == 0 || length > LONGEST_VALUE || value.reveal().contains('\0') {
            return Err(invalid(&format!("a value has 1 to {LONGEST_VALUE} bytes of text without a zero byte")));
        }
        let secrets = self.clone();
        let unit = self.shared.changes.unit(move |turn| async move {
            let name = name.to_string();
            let generation = secrets.shared.table.read().get(&name).map_or(0, |known| known.generation) + 1;
            let sealed = secrets.shared.seal.seal(&sealed_as(&name, generation), &value)?;
            let secret =
                StoredSecret { name: name.clone(), generation, sealed, changed: wall_millis(), rev: kip_store::Seq(0) };
            let change = Change::PutSecret(secret.clone());
            let committed = turn.commit(author.proposal(Object::Secret(name.clone()), change)).await?;
            let secret = StoredSecret { rev: committed.seq, ..secret };
            secrets.shared.table.write().insert(name.clone(), secret);
            secrets.show(&name)
        });
        unit.await
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// [`Error::SecretNotFound`] or [`Error::Store`].
    pub async fn remove(&self, name: &str, author: Author) -> Result<(), Error> {
        let (secrets, name) = (self.clone(), name.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            secrets.show(&name)?;
            turn.commit(author.proposal(Object::Secret(name.clone()), Change::RemoveSecret(name.clone()))).await?;
            secrets.shared.table.write().remove(&name);
            Ok(())
        });
        unit.await
    }

    /// A secret, without its value.
    ///
    /// # Errors
    /// [`Error::SecretNotFound`].
    pub fn show(&self, name: &str) -> Result<SecretInfo, Error> {
        let table = self.shared.table.read();
        let found = table.get(name).ok_or_else(|| Error::SecretNotFound { name: name.to_owned() })?;
        Ok(self.info(found))
    }

    /// All secrets, by name, without their values.
    pub fn list(&self) -> Vec<SecretInfo> {
        self.shared.table.read().values().map(|secret| self.info(secret)).collect()
    }

    /// The names of secrets that this server cannot open: they were sealed with another key and must be set again.
    pub fn unreadable(&self) -> Vec<String> {
        self.list().into_iter().filter(|secret| !secret.readable).map(|secret| secret.name).collect()
    }

    fn value(&self, secret: &StoredSecret) -> Option<SecretText> {
        self.shared.seal.reveal(&sealed_as(&secret.name, secret.generation), &secret.sealed)
    }

    fn info(&self, secret: &StoredSecret) -> SecretInfo {
        SecretInfo {
            name: secret.name.clone(),
            generation: secret.generation,
            changed: secret.changed,
            readable: self.value(secret).is_some(),
            rev: secret.rev.0,
            used_by: Vec::new(),
        }
    }
}

impl SecretSource for Secrets {
    fn reveal(&self, name: &SecretName) -> Result<SecretText, SecretProblem> {
        let table = self.shared.table.read();
        let secret = table.get(name.as_str()).ok_or(SecretProblem::Missing)?;
        self.value(secret).ok_or(SecretProblem::Unreadable)
    }
}

fn invalid(what: &dyn std::fmt::Display) -> Error {
    Error::SecretInvalid { what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use kip_store::SqliteControl;

    use super::*;

    fn text(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    async fn open(data: &std::path::Path) -> Secrets {
        let store = SqliteControl::open(&data.join("control.db")).unwrap();
        Secrets::open(Changes::of_file(Arc::new(store)), Seal::open(data).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_value_is_nowhere_in_the_files_and_comes_back_after_a_restart() {
        let data = tempfile::tempdir().unwrap();
        let secrets = open(data.path()).await;
        let first = secrets.set("hf", text("hf_first-value"), Author::default()).await.unwrap();
        let second = secrets.set("hf", text("hf_second-value"), Author::default()).await.unwrap();
        assert_eq!((first.generation, second.generation, second.readable), (1, 2, true));
        assert!(!format!("{secrets:?}").contains("value"));
        drop(secrets);
        for entry in std::fs::read_dir(data.path()).unwrap() {
            // The store closes in the background, and its log goes with it.
            let Ok(bytes) = std::fs::read(entry.unwrap().path()) else { continue };
            assert!(!bytes.windows(6).any(|six| six == b"-value"));
        }
        let secrets = open(data.path()).await;
        let name = "hf".parse().unwrap();
        assert_eq!(secrets.reveal(&name), Ok(text("hf_second-value")));
        assert_eq!(secrets.reveal(&"other".parse().unwrap()), Err(SecretProblem::Missing));
        secrets.remove("hf", Author::default()).await.unwrap();
        assert_eq!(secrets.reveal(&name), Err(SecretProblem::Missing));
        assert!(matches!(secrets.remove("hf", Author::default()).await, Err(Error::SecretNotFound { .. })));
    }

    #[tokio::test]
    async fn without_its_key_a_secret_is_listed_to_be_set_again() {
        let data = tempfile::tempdir().unwrap();
        open(data.path()).await.set("hf", text("x"), Author::default()).await.unwrap();
        std::fs::remove_file(crate::seal_key_file(data.path())).unwrap();
        let secrets = open(data.path()).await;
        assert_eq!(secrets.unreadable(), ["hf"]);
        assert_eq!(secrets.reveal(&"hf".parse().unwrap()), Err(SecretProblem::Unreadable));
        secrets.set("hf", text("y"), Author::default()).await.unwrap();
        assert_eq!(secrets.unreadable(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn values_that_no_variable_can_hold_are_refused() {
        let data = tempfile::tempdir().unwrap();
        let secrets = open(data.path()).await;
        for (name, value) in [("a b", "x"), ("a", ""), ("a", "x\0y"), ("a", &"x".repeat(LONGEST_VALUE + 1))] {
            assert!(matches!(
                secrets.set(name, text(value), Author::default()).await,
                Err(Error::SecretInvalid { .. })
            ));
        }
    }
}
