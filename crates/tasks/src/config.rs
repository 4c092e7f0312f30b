//! How a function's tasks are to be run: what is kept for it and its qualifiers, and what a single submission may say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::destination_rules::DestinationRules;

/// Retries are at most this many, as in Function Compute.
pub const MOST_RETRIES: u32 = 8;
/// Retries where nothing else is said.
pub const RETRIES: u32 = 3;
/// How long a task may wait to be run where nothing else is said, and how long one may run, seconds.
pub const DAY: u64 = 86_400;
/// The longest that either may be, seconds.
pub const LONGEST: u64 = 30 * DAY;

/// What a function, or a version or alias of it, wants for its tasks. The words are those of Function Compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AsyncConfig {
    /// Tasks have a life that can be asked for step by step; without, they are plain invocations. Both can be listed and stopped.
    pub async_task: bool,
    /// Errors of the function after which it is run again, 0 to 8.
    pub max_async_retry_attempts: u32,
    /// How long a task may wait to be run, seconds.
    pub max_async_event_age_in_seconds: u64,
    /// How long one run may take, seconds.
    pub timeout_in_seconds: u64,
    /// Who is told.
    pub destination_config: Destinations,
}

impl Default for AsyncConfig {
    fn default() -> Self {
        Self {
            async_task: false,
            max_async_retry_attempts: RETRIES,
            max_async_event_age_in_seconds: DAY,
            timeout_in_seconds: DAY,
            destination_config: Destinations::default(),
        }
    }
}

/// Who is told when a task is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Destinations {
    /// Of success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_success: Option<Destination>,
    /// Of failure, expiry, and a function that is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Destination>,
}

impl Destinations {
    /// The functions that are told.
    pub fn functions(&self) -> impl Iterator<Item = String> {
        let targets = [&self.on_success, &self.on_failure].into_iter().flatten().map(Destination::target);
        targets.filter_map(|target| match target {
            Ok(Target::Function(name)) => Some(name),
            _ => None,
        })
    }
}

/// One of those that are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// `function:NAME`, `http://HOST/PATH`, `https://HOST/PATH`, or `file:/FOLDER`.
    pub destination: String,
    /// What a webhook's signatures are made with: a secret, or two in two lines while receivers change from the second to the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// What kind of destination it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A function is invoked asynchronously.
    Function(String),
    /// A `POST` to this host and port, and path.
    Webhook {
        /// Over TLS.
        secure: bool,
        /// Host and port.
        authority: String,
        /// Path and query.
        path: String,
    },
    /// A file in this folder.
    Folder(PathBuf),
}

impl Destination {
    /// What it says.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn target(&self) -> Result<Target, String> {
        let text = self.destination.as_str();
        if let Some(name) = text.strip_prefix("function:") {
            let name: kip_spec::FunctionName = name.parse().map_err(|error| format!("{error}"))?;
            return Ok(Target::Function(name.to_string()));
        }
        if let Some(folder) = text.strip_prefix("file:") {
            let folder = PathBuf::from(folder);
            return if folder.is_absolute() {
                Ok(Target::Folder(folder))
            } else {
                Err(format!("`{text}` must name a folder by its whole path: file:/FOLDER"))
            };
        }
        let plain = text.strip_prefix("http://").map(|rest| (false, rest));
        if let Some((secure, rest)) = plain.or_else(|| text.strip_prefix("https://").map(|rest| (true, rest))) {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            let port = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
            let no_port = port.is_some_and(|(_, port)| port.parse::<u16>().map_or(true, |port| port == 0));
            let fits = !no_port && !authority.is_empty() && path.parse::<http::uri::PathAndQuery>().is_ok();
            if !fits || authority.parse::<http::uri::Authority>().is_err() || authority.contains('@') {
                return Err(format!("`{text}` is not an address: http://HOST:PORT/PATH"));
            }
            let usual = if secure { 443 } else { 80 };
            let authority = if port.is_some() { authority.to_owned() } else { format!("{authority}:{usual}") };
            return Ok(Target::Webhook { secure, authority, path });
        }
        Err(format!("`{text}` is no destination: function:NAME, http(s)://HOST:PORT/PATH or file:/FOLDER"))
    }
}

impl AsyncConfig {
    /// Whether it can be kept.
    ///
    /// # Errors
    /// A sentence about the first thing that is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.max_async_retry_attempts > MOST_RETRIES {
            return Err(format!("maxAsyncRetryAttempts is {}; 0 to {MOST_RETRIES}", self.max_async_retry_attempts));
        }
        for (name, seconds) in [
            ("maxAsyncEventAgeInSeconds", self.max_async_event_age_in_seconds),
            ("timeoutInSeconds", self.timeout_in_seconds),
        ] {
            if seconds == 0 || seconds > LONGEST {
                return Err(format!("{name} is {seconds}; 1 to {LONGEST}"));
            }
        }
        let both = [&self.destination_config.on_success, &self.destination_config.on_failure];
        both.into_iter().flatten().try_for_each(|destination| destination.target().map(drop))
    }
}

/// What is kept for functions: by name and qualifier.
pub(crate) type Configs = BTreeMap<(String, String), AsyncConfig>;

/// The qualifier where none is said.
pub const LATEST: &str = "LATEST";

/// How runs are held.
#[derive(Debug, Clone)]
pub struct Holders {
    /// Our own program.
    pub program: PathBuf,
    /// The hidden command of it that holds, which takes a folder.
    pub command: String,
    /// Where each has a folder of its own.
    pub folder: PathBuf,
}

impl Holders {
    pub(crate) fn folder_of(&self, number: kip_store::tasks::TaskNumber, epoch: u32) -> PathBuf {
        self.folder.join(format!("{}-{epoch}", number.0))
    }
}

/// What bounds tasks as a whole.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tasks of a function that may wait.
    pub per_function: u64,
    /// Tasks that may wait.
    pub overall: u64,
    /// Bytes of a payload.
    pub payload: usize,
    /// Bytes of payloads and headers of all tasks that may wait.
    pub overall_bytes: u64,
    /// The same for a tenant's tasks.
    pub tenant_bytes: u64,
    /// The same for the tasks of all callers without a key together.
    pub anonymous_bytes: u64,
    /// Bytes of a result that are kept; a larger one is cut, and says so.
    pub result: usize,
    /// Bytes of results of all tasks that are kept; further ones are not kept, and their tasks say so.
    pub results: u64,
    /// The same for the tasks of a function.
    pub function_results: u64,
    /// The same for a tenant's tasks.
    pub tenant_results: u64,
    /// How long what is over can be asked for.
    pub retention: Duration,
    /// Threads that run tasks.
    pub threads: usize,
    /// How runs that may take hours are held over a restart; none where they are not.
    pub holders: Option<Holders>,
    /// Tasks in a row that a tenant may have when its turn comes; 1 for those that are not here.
    pub weights: BTreeMap<String, u32>,
    /// Where destinations may be.
    pub destinations: DestinationRules,
    /// Tells our progress addresses from others'. At least 16 bytes nobody else knows.
    pub secret: Vec<u8>,
    /// The id of this server: claims carry it.
    pub server: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            per_function: 1_000_000,
            overall: 2_000_000,
            payload: 16 << 20,
            overall_bytes: 16 << 30,
            tenant_bytes: 8 << 30,
            anonymous_bytes: 1 << 30,
            result: 16 << 20,
            results: 64 << 30,
            function_results: 32 << 30,
            tenant_results: 32 << 30,
            retention: Duration::from_secs(7 * DAY),
            threads: 2,
            holders: None,
            weights: BTreeMap::new(),
            destinations: DestinationRules::default(),
            secret: Vec::new(),
            server: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<Target, String> {
        Destination { destination: text.to_owned(), secret: None }.target()
    }

    #[test]
    fn destinations_are_functions_addresses_and_folders() {
        assert_eq!(target("function:resize"), Ok(Target::Function("resize".to_owned())));
        let hook = |authority: &str, path: &str| {
            Ok(Target::Webhook { secure: false, authority: authority.to_owned(), path: path.to_owned() })
        };
        let secure = Target::Webhook { secure: true, authority: "a:443".to_owned(), path: "/x".to_owned() };
        assert_eq!(target("https://a/x"), Ok(secure));
        assert_eq!(target("http://a.example/x?y=1"), hook("a.example:80", "/x?y=1"));
        assert_eq!(target("http://127.0.0.1:81"), hook("127.0.0.1:81", "/"));
        assert_eq!(target("file:/tmp/out"), Ok(Target::Folder("/tmp/out".into())));
        for bad in [
            "file:out",
            "http://",
            "http://a b/",
            "https://u@a/",
            "ftp://a/",
            "http://a:99999/",
            "queue:x",
            "function:1",
            "",
            "http://u@h/",
        ] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn configurations_are_checked() {
        let parse = |text: &str| serde_json::from_str::<AsyncConfig>(text).unwrap().check();
        assert_eq!(parse("{}"), Ok(()));
        assert_eq!(parse(r#"{"asyncTask":true,"maxAsyncRetryAttempts":8}"#), Ok(()));
        for bad in [
            r#"{"maxAsyncRetryAttempts":9}"#,
            r#"{"maxAsyncEventAgeInSeconds":0}"#,
            r#"{"timeoutInSeconds":99999999}"#,
            r#"{"destinationConfig":{"onSuccess":{"destination":"x"}}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<AsyncConfig>(r#"{"retries":1}"#).is_err(), "no key is overlooked");
    }
}
