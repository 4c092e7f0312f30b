//! Models: files at a revision in the server's cache, and the pulls that bring them there.

use kip_spec::Problem;
use serde::{Deserialize, Serialize};

/// A model whose files are in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelInfo {
    /// The source and the commit: `hf:org/model@COMMIT`.
    pub id: String,
    /// The source: `hf:org/model`.
    pub source: String,
    /// The commit that its files are of.
    pub commit: String,
    /// The revisions that were asked for when it was pulled.
    pub revisions: Vec<String>,
    /// The licence, if the source names it.
    pub licence: Option<String>,
    /// The task, such as `text-generation`, if the source names it.
    pub task: Option<String>,
    /// The folder with the files, on the server's host.
    pub folder: String,
    /// Its files, by path.
    pub files: Vec<ModelFile>,
    /// Bytes of all files.
    pub size: u64,
    /// It may not be removed.
    pub pinned: bool,
    /// When it was pulled, milliseconds since 1970.
    pub pulled: i64,
    /// When all digests were checked again, milliseconds since 1970.
    pub verified: Option<i64>,
    /// Files whose content is damaged.
    pub damaged: Vec<String>,
    /// Functions with a version that uses it: one that serves, that can be rolled back to, that an alias points at, or that is kept.
    pub used_by: Vec<String>,
    /// The folder of another program in which its files are, if it was adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<String>,
    /// Where its files are.
    pub tier: ModelTier,
    /// When its files were removed from the disk and why, if they were.
    pub evicted: Option<ModelEviction>,
    /// Bytes of its files that are in the page cache; only where that was asked for and can be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident: Option<u64>,
    /// When an instance was last started from it, milliseconds since 1970.
    pub used: Option<i64>,
    /// Starts of instances from it, by where its files were.
    pub loads: ModelLoads,
}

/// A folder of another program whose models are to be used where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelAdoption {
    /// An absolute path of the server's host.
    pub folder: String,
}

/// What was adopted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AdoptedModels {
    /// The models.
    pub adopted: Vec<ModelInfo>,
    /// What looks like a model and was not taken.
    pub refused: Vec<RefusedModel>,
}

/// Something that looks like a model and was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RefusedModel {
    /// Where it is.
    pub place: String,
    /// The reason.
    pub why: String,
}

/// Where the files of a model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelTier {
    /// In the page cache.
    Memory,
    /// On the disk.
    Disk,
    /// At their source only: they were evicted.
    Remote,
}

/// When the files of a model were removed from the disk, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelEviction {
    /// Milliseconds since 1970.
    pub at: i64,
    /// The reason.
    pub why: String,
}

/// Starts of instances from a model, by where its files were before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelLoads {
    /// In the page cache.
    pub memory: LoadFigures,
    /// On the disk.
    pub disk: LoadFigures,
    /// They had to be pulled again.
    pub remote: LoadFigures,
}

/// Starts, and how long they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LoadFigures {
    /// Starts that became ready.
    pub starts: u64,
    /// From the order to start until the program was ready, pulls included; all starts together, milliseconds.
    pub total_ms: u64,
}

/// Files of a model that were read into the page cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelPrefetch {
    /// The model's id.
    pub model: String,
    /// Bytes of its files.
    pub size: u64,
    /// Bytes that were in the page cache before, if that can be found out.
    pub before: Option<u64>,
    /// Bytes that are in the page cache now.
    pub resident: Option<u64>,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelFile {
    /// Its path below the model's folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its content; none before it was downloaded, where the source has another digest.
    pub sha256: Option<String>,
}

/// A model that is to be pulled.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelRequest {
    /// The source: `hf:org/model[@revision]`, `modelscope:owner/model[@revision]`, an http address, or an absolute path of the server's host.
    pub source: String,
    /// Branch, tag or commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The hub's address, in place of the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A token for the hub. It is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The secret of the server that holds the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<String>,
    /// Patterns of the files to pull, with `*`; all files if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
}

impl std::fmt::Debug for ModelRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelRequest")
            .field("source", &self.source)
            .field("revision", &self.revision)
            .field("endpoint", &self.endpoint)
            .field("token_secret", &self.token_secret)
            .field("include", &self.include)
            .finish_non_exhaustive()
    }
}

/// How far a pull has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PullPhase {
    /// The source is asked for its files.
    Listing,
    /// Files come.
    Downloading,
    /// All files are in the cache.
    Done,
    /// It ended without the model; `error` says why.
    Failed,
}

/// A pull of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelPull {
    /// Its number, since the server started.
    pub id: u64,
    /// The source with the revision that was asked for.
    pub source: String,
    /// How far it has come.
    pub phase: PullPhase,
    /// Files that are pulled.
    pub files: u64,
    /// Bytes that are there, with those that were there before.
    pub received: u64,
    /// Bytes of all files, once they are known.
    pub total: u64,
    /// The id of the model, once it is there.
    pub model: Option<String>,
    /// Why it failed.
    pub error: Option<Problem>,
}

/// The models of the cache, and the pulls of this server since its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelList {
    /// The models, by source.
    pub models: Vec<ModelInfo>,
    /// The pulls, newest first.
    pub pulls: Vec<ModelPull>,
}

/// What the cache takes on its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelUsage {
    /// The folder of the cache.
    pub folder: String,
    /// Bytes of all files, each content once.
    pub used: u64,
    /// Bytes of downloads that are not complete.
    pub partial: u64,
    /// Bytes that are free on the disk.
    pub free: u64,
    /// Bytes that the cache may take, if there is a limit.
    pub quota: Option<u64>,
    /// Above so many bytes, models are evicted.
    pub high: Option<u64>,
    /// Until the cache takes at most so many bytes.
    pub low: Option<u64>,
    /// The models, the largest first.
    pub models: Vec<ModelSize>,
}

/// What a model takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelSize {
    /// The model's id.
    pub model: String,
    /// Bytes of its files.
    pub size: u64,
    /// Bytes that its removal would free: no other model has these contents.
    pub own: u64,
    /// Why it is not evicted, if it is not: `pinned`, or the functions that need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_for: Option<String>,
}

/// A model that is to be served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelDeployment {
    /// The model. `include` is left empty: the preset says which files it needs.
    pub model: ModelRequest,
    /// The function's name; made of the model's if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The preset; chosen by the model's files if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The file that the engine is given, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Instances that are kept; none are if left out, and the first request starts one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned: Option<u32>,
    /// Device memory that an instance reserves, such as `6GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<String>,
    /// Type of the device, such as `a100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// The engine of the preset may be installed if it is missing. That takes an administrator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub install_engine: bool,
}

/// What a deployment of a model would do. Nothing was downloaded for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelPlan {
    /// The source with its revision.
    pub source: String,
    /// The commit.
    pub commit: String,
    /// The licence, if the source names it.
    pub licence: Option<String>,
    /// The task, if the source names it.
    pub task: Option<String>,
    /// The files that are needed.
    pub files: Vec<ModelFile>,
    /// Bytes of these.
    pub size: u64,
    /// Files that the source has beside these.
    pub other_files: u64,
    /// The preset.
    pub preset: String,
    /// Why this preset and these files.
    pub why: String,
    /// Bytes of memory that an instance takes, estimated.
    pub memory: u64,
    /// Bytes of memory that this host has for instances.
    pub host_memory: u64,
    /// The function.
    pub function: String,
    /// Further names of its model.
    pub names: Vec<String>,
}

/// How far a deployment of a model has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentPhase {
    /// The source is asked for its files, and a preset is chosen.
    Planning,
    /// The engine of the preset is installed.
    Installing,
    /// Files come.
    Downloading,
    /// The function is made.
    Deploying,
    /// Its first instance starts.
    Starting,
    /// An instance is ready.
    Deployed,
    /// It ended; `error` says why.
    Failed,
}

/// A deployment of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelDeploymentInfo {
    /// Its number, since the server started.
    pub id: u64,
    /// The source.
    pub source: String,
    /// How far it has come.
    pub phase: DeploymentPhase,
    /// The plan, once it is made.
    pub plan: Option<ModelPlan>,
    /// Bytes that are there.
    pub received: u64,
    /// Bytes of all files.
    pub total: u64,
    /// The deployed version.
    pub deployed: Option<crate::DeployedVersion>,
    /// The question that shows that it works.
    pub question: Option<ModelQuestion>,
    /// What is to be known, and is no error.
    pub warnings: Vec<Problem>,
    /// Why it failed.
    pub error: Option<Problem>,
}

/// A request that shows that a model works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelQuestion {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// A body of JSON.
    pub json: Option<serde_json::Value>,
    /// A JSON pointer to the answer; the whole answer without one.
    pub answer: Option<String>,
}

/// What is known about an engine that serves models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PresetInfo {
    /// Its name.
    pub name: String,
    /// The engine, in a few words.
    pub about: String,
    /// `run`: the real engine ran with it; `unproven`: only its text was checked.
    pub evidence: String,
    /// What it serves.
    pub formats: Vec<String>,
    /// The tasks that it serves; all if empty.
    pub tasks: Vec<String>,
    /// The engine's program; none for the built-in one.
    pub engine: Option<String>,
    /// Where the engine's program was found.
    pub installed: Option<String>,
    /// How to install it.
    pub install: Option<String>,
    /// It is a preset of this server's folder.
    pub own: bool,
    /// All its fields.
    pub fields: serde_json::Value,
}
