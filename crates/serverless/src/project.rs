//! What a file declares.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kip_spec::problem::Place;
use kip_spec::{FunctionName, Problem};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::Effect;

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `s.yaml` with `edition: 3.0.0`.
    Edition3,
    /// `s.yaml` with `edition: 1.0.0`.
    Edition1,
    /// `template.yml` of Fun.
    Template,
}

/// A file's functions with all that belongs to them.
#[derive(Debug, Clone)]
pub struct Project {
    /// The format it was written in.
    pub format: Format,
    /// The name that the file gives itself; empty if none.
    pub name: String,
    /// In the order of their deployment.
    pub functions: Vec<DeclaredFunction>,
    /// Commands of the whole file.
    pub actions: Vec<Action>,
    /// Each leaf key of the file, once, with its effect.
    pub keys: Vec<KeyEffect>,
    /// What a conversion from an older format changed, in sentences.
    pub changes: Vec<String>,
    /// What is allowed but hardly meant.
    pub warnings: Vec<Problem>,
}

/// A function with its triggers and settings.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredFunction {
    /// Its key in the file.
    pub key: String,
    /// Where it stands.
    pub place: Place,
    /// Its name on the server.
    pub name: FunctionName,
    /// The configuration in the words of CreateFunction, without the code.
    pub config: Map<String, Value>,
    /// Its code; none for an image.
    pub code: Option<CodeSource>,
    /// In the order of the file.
    pub triggers: Vec<DeclaredTrigger>,
    /// The qualifier and the input of PutAsyncInvokeConfig.
    pub asynchronous: Option<(String, Value)>,
    /// Inputs of PutProvisionConfig by qualifier.
    pub provisions: BTreeMap<String, Value>,
    /// The input of PutScalingConfig.
    pub scaling: Option<Value>,
    /// The most instances.
    pub concurrency: Option<u64>,
    /// Networks that it is bound to.
    pub networks: Vec<String>,
    /// Its custom domains in the words of CreateCustomDomain, each with a `route` of its own.
    pub domains: Vec<Map<String, Value>>,
    /// Tags by key.
    pub tags: BTreeMap<String, String>,
    /// Names for versions, which are published for them.
    pub aliases: Vec<DeclaredAlias>,
    /// Commands around the deployment.
    pub actions: Vec<Action>,
}

/// An archive that is not on this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteCode {
    /// At an address, with `http` or `https`.
    Address(String),
    /// An object of a bucket.
    Bucket {
        /// The bucket.
        bucket: String,
        /// The object.
        object: String,
    },
}

/// Code of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeSource {
    /// Absolute: a folder, a file or an archive. Empty while it is elsewhere.
    pub path: PathBuf,
    /// Where it is, if it is not on this disk.
    pub from: Option<RemoteCode>,
    /// Where the file names it.
    pub place: Place,
}

/// A trigger.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredTrigger {
    /// Its name, unique in the function.
    pub name: String,
    /// `http`, `timer` and so on.
    pub kind: String,
    /// The version or alias that it calls.
    pub qualifier: String,
    /// The vendor's `triggerConfig`.
    pub config: Value,
    /// Other fields that are kept: description, invocationRole, sourceArn.
    pub other: Map<String, Value>,
}

/// A name for a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredAlias {
    /// The alias.
    pub name: String,
    /// The version; the one that is published with the deployment if none.
    pub version: Option<String>,
    /// A note.
    pub description: String,
}

/// A command before or after a verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// `pre-deploy`, `post-deploy` and so on, as written.
    pub when: String,
    /// The kind.
    pub kind: ActionKind,
    /// The command.
    pub text: String,
    /// Where it runs, absolute.
    pub directory: PathBuf,
}

/// The kind of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionKind {
    /// A command of the shell.
    Run,
    /// A verb of the component.
    Component,
    /// An extension of the vendor's tool, which is not run.
    Plugin,
}

/// A leaf key of a file and its effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyEffect {
    /// The way to it: `resources.web.props.triggers[0].triggerName`.
    pub path: String,
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// The effect.
    pub effect: Effect,
    /// The consequence, where there is one to know; empty otherwise.
    pub note: &'static str,
}

impl Action {
    /// Whether it belongs before (`pre`) or after (`post`) this verb.
    pub fn is_for(&self, phase: &str, verb: &str) -> bool {
        let Some((when, of)) = self.when.split_once('-') else { return false };
        let before = when == "pre";
        let matches = of == verb || of.contains("regex") || of == "*";
        matches && (before == (phase == "pre")) && when != "fail"
    }
}
