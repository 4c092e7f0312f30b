//! Making, changing, replacing and removing keys. One change at a time; each is in the store before it is in force.

use std::collections::BTreeSet;

use kip_host::clock::wall_millis;
use kip_spec::named_secret::SecretText;
use kip_spec::{FunctionName, Millis, Rate};
use kip_store::{AccessPair, Author, Change, CommitTurn, Effect, Object, StoredKey};
use kip_wire::{KeyInfo, Role};

use crate::key::{DEFAULT_TENANT, Key};
use crate::{Error, Keys, administrator_file, generate, hash};

/// A key that is wanted.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Everything else of it.
    pub change: KeyChange,
    /// It is an access-key pair: callers sign with its secret in place of sending it.
    pub pair: bool,
}

impl NewKey {
    /// A bearer key without limits.
    pub fn bearer(name: String, role: Role) -> Self {
        Self { name, role, change: KeyChange::default(), pair: false }
    }
}

/// What the secret of a pair is sealed as.
pub(crate) fn sealed_as(access_id: &str) -> String {
    format!("pair/{access_id}")
}

/// What access-key ids begin with.
const ACCESS_ID: &str = "KWAK";

/// What is to be different of a key; what is `None` stays. An inner `None` takes a limit away.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    /// What it may do.
    pub role: Option<Role>,
    /// The only functions it is for; an empty list is none.
    pub functions: Option<Option<BTreeSet<FunctionName>>>,
    /// How many requests it may send.
    pub rate: Option<Option<Rate>>,
    /// How many of them at once.
    pub burst: Option<Option<u32>>,
    /// How many it may have in flight.
    pub concurrency: Option<Option<u32>>,
    /// Whose it is.
    pub tenant: Option<String>,
    /// When it ends, milliseconds since 1970.
    pub expires: Option<Option<i64>>,
    /// Whether it is not taken.
    pub disabled: Option<bool>,
}

/// A key with a new secret, which is never shown again.
#[derive(Debug)]
pub struct IssuedKey {
    /// The key.
    pub info: KeyInfo,
    /// Its secret.
    pub secret: String,
    /// Why the file of the administrator key, which held the earlier secret, could not be written.
    pub file: Option<Error>,
}

impl Keys {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Invalid`] or [`Error::Store`].
    pub async fn create(&self, new: NewKey, author: Author) -> Result<IssuedKey, Error> {
        let keys = self.clone();
        let unit = self.shared.changes.unit(move |turn| async move {
            check_label("a key's name", &new.name)?;
            if keys.find(&new.name).is_ok() {
                return Err(Error::Exists { name: new.name });
            }
            let secret = generate();
            let now = wall_millis();
            let mut stored = StoredKey::new(&new.name, hash(&secret), now, new.role.name(), DEFAULT_TENANT);
            if new.pair {
                let id = format!("{ACCESS_ID}{:020X}", kip_host::random::bits() >> 48);
                keys.make_pair(&mut stored, id, &secret)?;
            }
            apply(&mut stored, &new.change);
            check(&stored, new.role, &new.change, now)?;
            keys.put(&turn, stored, &author).await?;
            Ok(IssuedKey { info: keys.show(&new.name)?, secret, file: None })
        });
        unit.await
    }

    /// Changes what a key may do.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::LastAdministrator`], [`Error::Invalid`] or [`Error::Store`].
    pub async fn change(&self, name: &str, change: KeyChange, author: Author) -> Result<KeyInfo, Error> {
        let (keys, name) = (self.clone(), name.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let key = keys.find(&name)?;
            let now = wall_millis();
            let mut stored = key.stored.clone();
            apply(&mut stored, &change);
            let changed = Key::new(stored.clone(), key.live.clone());
            check(&stored, changed.role(), &change, now)?;
            keys.keep_an_administrator(&key, Some(&changed), now)?;
            keys.put(&turn, stored, &author).await?;
            keys.show(&name)
        });
        unit.await
    }

    /// Gives a key a new secret. The one it had is taken for `overlap` more.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::Store`].
    pub async fn rotate(&self, name: &str, overlap: Millis, author: Author) -> Result<IssuedKey, Error> {
        let (keys, name) = (self.clone(), name.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let key = keys.find(&name)?;
            let now = wall_millis();
            let secret = generate();
            let until = now.saturating_add(i64::try_from(overlap.0).unwrap_or(i64::MAX));
            let mut stored = key.stored.clone();
            if let Some(pair) = stored.pair.take() {
                if overlap > Millis(0) {
                    return Err(Error::Invalid {
                        what: format!("`{name}` is an access-key pair, whose earlier secret cannot be taken too"),
                        hint: "rotate it without an overlap, or make another pair: kip key create NAME --access-key",
                    });
                }
                keys.make_pair(&mut stored, pair.id, &secret)?;
                stored.rotated = Some(now);
                keys.put(&turn, stored, &author).await?;
                return Ok(IssuedKey { info: keys.show(&name)?, secret, file: None });
            }
            let earlier = std::mem::replace(&mut stored.hash, hash(&secret));
            stored.previous = (until > now).then_some((earlier, until));
            stored.rotated = Some(now);
            keys.put(&turn, stored, &author).await?;
            let path = administrator_file(&keys.shared.data);
            // The command line on this machine finds its key there.
            let mut file = None;
            let read = kip_host::directory::read_regular_text(&path, crate::LARGEST_FILE);
            if read.is_ok_and(|kept| hash(kept.trim()) == earlier) {
                let written = kip_host::directory::write_whole(&path, format!("{secret}\n").as_bytes());
                file = written.err().map(|source| Error::File { path, source });
            }
            Ok(IssuedKey { info: keys.show(&name)?, secret, file })
        });
        unit.await
    }

    /// Removes a key; both its secrets are worth nothing from now on.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::LastAdministrator`] or [`Error::Store`].
    pub async fn remove(&self, name: &str, author: Author) -> Result<(), Error> {
        let (keys, name) = (self.clone(), name.to_owned());
        let unit = self.shared.changes.unit(move |turn| async move {
            let key = keys.find(&name)?;
            keys.keep_an_administrator(&key, None, wall_millis())?;
            turn.commit(author.proposal(Object::Key(key.id()), Change::RemoveKey(key.id()))).await?;
            keys.shared.table.write().remove(key.id());
            Ok(())
        });
        unit.await
    }

    /// Makes an access-key pair of a key: its secret is sealed, and no bearer token is its hash's.
    fn make_pair(&self, stored: &mut StoredKey, id: String, secret: &str) -> Result<(), Error> {
        let sealed = self.shared.seal.seal(&sealed_as(&id), &SecretText::new(secret.to_owned()))?;
        kip_host::random::fill(&mut stored.hash);
        stored.pair = Some(AccessPair { id, sealed });
        Ok(())
    }

    /// Stores a key, then holds it: from the value, so that no failed reading leaves an old secret in force.
    async fn put(&self, turn: &CommitTurn, stored: StoredKey, author: &Author) -> Result<(), Error> {
        let proposal = author.proposal(Object::Key(stored.id), Change::PutKey(Box::new(stored.clone())));
        let committed = turn.commit(proposal).await?;
        if let Effect::Key(id) = committed.effect {
            self.shared.table.write().put(StoredKey { id, rev: committed.seq, ..stored });
        }
        Ok(())
    }

    /// Refuses a change after which no usable key could manage the others, if one can now.
    fn keep_an_administrator(&self, key: &Key, becomes: Option<&Key>, now: i64) -> Result<(), Error> {
        let is_usable = |key: &Key| key.role() == Role::Admin && key.usable(now).is_ok();
        let another = self.all().iter().any(|other| other.id() != key.id() && is_usable(other));
        if another || !is_usable(key) || becomes.is_some_and(is_usable) {
            return Ok(());
        }
        Err(Error::LastAdministrator { name: key.name().to_string() })
    }
}

fn apply(stored: &mut StoredKey, change: &KeyChange) {
    let KeyChange { role, functions, rate, burst, concurrency, tenant, expires, disabled } = change.clone();
    if let Some(role) = role {
        stored.role = role.name().to_owned();
    }
    stored.functions = functions.unwrap_or_else(|| stored.functions.take());
    stored.rate = rate.unwrap_or(stored.rate);
    // A burst belongs to the rate it was given with.
    let kept = if rate == Some(None) { None } else { stored.burst };
    stored.burst = burst.unwrap_or(kept);
    stored.concurrency = concurrency.unwrap_or(stored.concurrency);
    stored.tenant = tenant.unwrap_or_else(|| std::mem::take(&mut stored.tenant));
    stored.expires = expires.unwrap_or(stored.expires);
    stored.disabled = disabled.unwrap_or(stored.disabled);
}

fn check(stored: &StoredKey, role: Role, change: &KeyChange, now: i64) -> Result<(), Error> {
    let invalid = |what: &str, hint: &'static str| Err(Error::Invalid { what: what.to_owned(), hint });
    check_label("a tenant", &stored.tenant)?;
    if role == Role::Admin && stored.functions.is_some() {
        return invalid(
            "an administrator key cannot be for some functions only",
            "give it the role deploy or a lower one, or leave the functions out",
        );
    }
    if stored.burst.is_some() && stored.rate.is_none() {
        return invalid("a burst means nothing without a rate", "give a rate too: --rate 10/s --burst 20");
    }
    if stored.burst == Some(0) || stored.concurrency == Some(0) {
        return invalid(
            "a burst or a concurrency of 0 would let nothing through",
            "write 1 or more; `kip key disable` is for a key that is not to be taken",
        );
    }
    if change.expires.flatten().is_some_and(|expires| expires <= now) {
        return invalid("the key would have expired already", "write a time to come, such as 30d");
    }
    Ok(())
}

/// Names and tenants stand in paths, records and metrics.
fn check_label(what: &str, label: &str) -> Result<(), Error> {
    let begins = label.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if begins && rest && label.len() <= 63 {
        return Ok(());
    }
    let hint = "1 to 63 letters, digits, `-`, `_` or `.`, beginning with a letter or digit";
    Err(Error::Invalid { what: format!("`{label}` cannot be {what}"), hint })
}
