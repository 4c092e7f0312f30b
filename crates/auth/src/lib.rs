//! Who may call, and what, and the secrets of functions. Bearer keys are 256 random bits; only their SHA-256 is kept, which is enough for secrets that
//! cannot be guessed. The first start makes an administrator key in a file that only its owner can read.
//!
//! Checking a key is one lookup in memory: this room touches a disk when keys change, and once a minute to keep when they
//! were used. `access.rs` is the one table that every door asks: roles, functions, tenants and limits.

mod access;
mod audit;
mod error;
mod jwt;
mod key;
mod manage;
mod seal;
mod secrets;
mod signature;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use kip_host::clock::wall_millis;
use kip_spec::named_secret::SecretText;
use kip_spec::{Problem, code};
use kip_store::{Changes, StoredKey};
use kip_wire::{KeyInfo, Role};
use parking_lot::RwLock;
use sha2::{Digest, Sha256};

pub use access::{Access, LimitRefusal, Refusal};
pub use error::Error;
pub use jwt::{SettingsError, TokenClaims, TokenPolicies, TokenPolicy};
pub use key::{DEFAULT_TENANT, Key};
pub use kip_store::{AuditFilter, AuditRecord, Author};
pub use manage::{IssuedKey, KeyChange, NewKey};
pub use seal::{SEAL_KEY, Seal, seal_key_file};
pub use secrets::Secrets;
pub use signature::{BodyHash, NoSignatures, SignatureCheck, SignedHead, Signer};

/// What a key begins with, so that one in a log or a repository is recognised.
const PREFIX: &str = "kw_";
/// The name of the key that the first start makes.
const ADMINISTRATOR: &str = "admin";
/// Bytes of the administrator key's file at most.
const LARGEST_FILE: u64 = 4 << 10;
/// Where clients send keys besides `Authorization`: Anthropic's and Azure's.
const OTHER_HEADERS: [&str; 2] = ["x-api-key", "api-key"];

/// The keys that this server knows. Cheap to clone; asking asks no disk.
#[derive(Debug, Clone)]
pub struct Keys {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The one way to the store: a change and the table are one unit.
    changes: Changes,
    data: PathBuf,
    seal: Seal,
    tokens: TokenPolicies,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By the hash of a secret; a time is when this secret, which was replaced, ends.
    by_hash: HashMap<[u8; 32], (Arc<Key>, Option<i64>)>,
    by_name: BTreeMap<String, Arc<Key>>,
    /// Access-key pairs, by their access-key id.
    by_access_id: HashMap<String, Arc<Key>>,
}

impl Table {
    fn insert(&mut self, key: Key) {
        let key = Arc::new(key);
        if let Some((previous, until)) = key.stored.previous {
            self.by_hash.insert(previous, (key.clone(), Some(until)));
        }
        self.by_hash.insert(key.stored.hash, (key.clone(), None));
        if let Some(pair) = &key.stored.pair {
            self.by_access_id.insert(pair.id.clone(), key.clone());
        }
        self.by_name.insert(key.stored.name.clone(), key);
    }

    /// Takes a key out, by its number.
    fn remove(&mut self, id: u64) -> Option<Arc<Key>> {
        self.by_hash.retain(|_, (key, _)| key.id() != id);
        self.by_access_id.retain(|_, key| key.id() != id);
        let name = self.by_name.iter().find(|(_, key)| key.id() == id).map(|(name, _)| name.clone())?;
        self.by_name.remove(&name)
    }

    /// Puts a key as it was committed in the place of what it was.
    fn put(&mut self, stored: StoredKey) {
        let live = self.remove(stored.id).map(|earlier| earlier.live.clone()).unwrap_or_default();
        self.insert(Key::new(stored, live));
    }
}

/// Where the administrator key of a data directory is.
pub fn administrator_file(data: &Path) -> PathBuf {
    data.join("admin.key")
}

/// The key that a request brings: as a bearer token, in `x-api-key` or in `api-key`. What looks like one of ours wins, since
/// a function may want a credential of its own in the same request.
pub fn credential(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let others = OTHER_HEADERS.iter().map(|name| Some(headers.get(*name)?.to_str().ok()?.trim()));
    let mut first = None;
    for sent in std::iter::once(bearer).chain(others).flatten() {
        if is_ours(sent) {
            return Some(sent);
        }
        first = first.or(Some(sent));
    }
    first
}

/// Whether a text looks like one of our keys.
pub fn is_ours(credential: &str) -> bool {
    credential.starts_with(PREFIX)
}

impl Keys {
    /// Reads the keys; makes the administrator's if its file is missing, or if no administrator key can be used any more.
    /// Gives the secret of that file too, for whoever starts the server.
    ///
    /// # Errors
    /// When the store or the file fails.
    pub async fn open(changes: Changes, data: &Path, seal: Seal) -> Result<(Self, String), Error> {
        let shared =
            Shared { changes, data: data.to_owned(), seal, tokens: TokenPolicies::default(), table: RwLock::default() };
        let keys = Self { shared: Arc::new(shared) };
        keys.reload().await?;
        let path = administrator_file(data);
        let now = wall_millis();
        let kept = kip_host::directory::read_regular_text(&path, LARGEST_FILE).map(|text| text.trim().to_owned()).ok();
        let is_known = |secret: &String| keys.lookup(&hash(secret)).is_some_and(|(_, until)| until.is_none());
        let all = keys.all();
        let someone = all.iter().any(|key| key.role() == Role::Admin && key.usable(now).is_ok());
        if let Some(secret) = kept.filter(|secret| someone && is_known(secret)) {
            return Ok((keys, secret));
        }
        let numbered = |number: usize| match number {
            1 => ADMINISTRATOR.to_owned(),
            _ => format!("{ADMINISTRATOR}-{number}"),
        };
        let name = (1..).map(numbered).find(|name| keys.find(name).is_err()).unwrap_or_default();
        let made = keys.create(NewKey::bearer(name, Role::Admin), Author::default()).await?;
        kip_host::directory::write_whole(&path, format!("{}\n", made.secret).as_bytes())
            .map_err(|source| Error::File { path, source })?;
        Ok((keys, made.secret))
    }

    /// Reads the keys anew: at the start, and after a restore.
    ///
    /// # Errors
    /// When the store fails; the keys stay as they were.
    pub async fn reload(&self) -> Result<(), Error> {
        let stored = self.shared.changes.read().keys().await?;
        let mut table = self.shared.table.write();
        let earlier: HashMap<u64, Arc<Key>> = table.by_name.values().map(|key| (key.id(), key.clone())).collect();
        let mut fresh = Table::default();
        for stored in stored {
            let live = earlier.get(&stored.id).map(|key| key.live.clone()).unwrap_or_default();
            fresh.insert(Key::new(stored, live));
        }
        *table = fresh;
        Ok(())
    }

    /// The key whose secret this is.
    ///
    /// # Errors
    /// A problem with code KW-7001 if nothing was sent, KW-7002 if it is not known, KW-7010 or KW-7011 if it is not taken now.
    pub fn check(&self, credential: Option<&str>) -> Result<Arc<Key>, Problem> {
        let Some(secret) = credential else {
            return Err(Problem::new(code::KEY_MISSING, "a key is needed and none was sent")
                .hint("send the header `Authorization: Bearer <key>`; `kip key create NAME` makes one, and the administrator's is in admin.key in the data directory"));
        };
        // Looking up a hash tells a caller nothing about other keys, whatever the time it takes.
        let Some((key, until)) = self.lookup(&hash(secret)) else {
            return Err(Problem::new(code::KEY_WRONG, "the key is not known to this server")
                .hint("`kip key ls` lists the keys there are, `kip key create NAME` makes one; the administrator's is in admin.key in the data directory of the server that is asked"));
        };
        let now = wall_millis();
        key.usable(now)?;
        if until.is_some_and(|until| now >= until) {
            let said = format!(
                "the key `{}` has a new secret, and the time in which the old one was taken is over",
                key.name()
            );
            return Err(Problem::new(code::KEY_EXPIRED, said).hint("use the secret that `kip key rotate` printed"));
        }
        key.touch(now);
        Ok(key)
    }

    /// The key of an access-key pair and its secret, for checking a signature. Whether it is taken now is not looked at: only who
    /// knows the secret learns that.
    pub fn pair(&self, access_id: &str) -> Option<(Arc<Key>, SecretText)> {
        let key = self.shared.table.read().by_access_id.get(access_id).cloned()?;
        let pair = key.stored.pair.as_ref()?;
        let secret = self.shared.seal.reveal(&manage::sealed_as(&pair.id), &pair.sealed)?;
        Some((key, secret))
    }

    /// What triggers and domains ask of tokens that others issue.
    pub fn tokens(&self) -> &TokenPolicies {
        &self.shared.tokens
    }

    /// Seals a text that a facade keeps, as digits. Nothing but this `what` opens it again.
    ///
    /// # Errors
    /// [`Error::Unsealable`].
    pub fn seal_text(&self, what: &str, text: &str) -> Result<String, Error> {
        let sealed = self.shared.seal.seal(what, &SecretText::new(text.to_owned()))?;
        Ok(data_encoding::HEXLOWER.encode(&sealed))
    }

    /// Opens it; none if it was sealed with another key.
    pub fn reveal_text(&self, what: &str, sealed: &str) -> Option<SecretText> {
        self.shared.seal.reveal(what, &data_encoding::HEXLOWER.decode(sealed.as_bytes()).ok()?)
    }

    /// Notes that a key was used that was found by its access-key id.
    ///
    /// # Errors
    /// A problem with code KW-7010 or KW-7011 if it is not taken now.
    pub fn use_pair(&self, key: &Key) -> Result<(), Problem> {
        let now = wall_millis();
        key.usable(now)?;
        key.touch(now);
        Ok(())
    }

    /// All keys as people see them, by name.
    pub fn list(&self) -> Vec<KeyInfo> {
        let now = wall_millis();
        self.all().iter().map(|key| key.info(now)).collect()
    }

    /// A key as people see it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn show(&self, name: &str) -> Result<KeyInfo, Error> {
        Ok(self.find(name)?.info(wall_millis()))
    }

    /// Writes down when keys were last used, those only that were used since this was last done.
    ///
    /// # Errors
    /// When the store fails; it is tried again the next time.
    pub async fn write_uses(&self) -> Result<(), Error> {
        let keys = self.clone();
        let unit = self.shared.changes.unit(move |turn| async move {
            let now = wall_millis();
            let uses: Vec<(u64, i64)> = keys
                .all()
                .iter()
                .filter_map(|key| {
                    let used = key.info(now).last_use?;
                    (Some(used) > key.stored.last_use).then_some((key.id(), used))
                })
                .collect();
            if uses.is_empty() {
                return Ok(());
            }
            turn.keys_used(uses.clone()).await?;
            let mut table = keys.shared.table.write();
            for (id, used) in uses {
                let stored = table.by_name.values().find(|key| key.id() == id).map(|key| key.stored.clone());
                stored.into_iter().for_each(|stored| table.put(StoredKey { last_use: Some(used), ..stored }));
            }
            Ok(())
        });
        unit.await
    }

    fn lookup(&self, hash: &[u8; 32]) -> Option<(Arc<Key>, Option<i64>)> {
        self.shared.table.read().by_hash.get(hash).cloned()
    }

    fn find(&self, name: &str) -> Result<Arc<Key>, Error> {
        let table = self.shared.table.read();
        table.by_name.get(name).cloned().ok_or_else(|| Error::NotFound { name: name.to_owned() })
    }

    fn all(&self) -> Vec<Arc<Key>> {
        self.shared.table.read().by_name.values().cloned().collect()
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn generate() -> String {
    let mut secret = [0u8; 32];
    kip_host::random::fill(&mut secret);
    secret.iter().fold(PREFIX.to_owned(), |key, byte| key + &format!("{byte:02x}"))
}
