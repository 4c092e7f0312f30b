//! The JSON types of the native API with their schemas, for the server and its clients alike.
//!
//! The conventions are in `docs/decisions/0010-wire.md`. A type is only data: the room that fills it has the code that does so. This room
//! knows no other but `spec`.

mod cost;
mod device;
mod exec;
mod fit;
mod function;
mod host;
mod image;
mod job;
mod keys;
mod model;
mod pool;
mod provision;
mod role_map;
mod rollout;
mod secret;
mod server;
mod share;
mod task;
mod usage;
mod version;

pub use cost::{
    Budget, BudgetKind, BudgetPeriod, BudgetSettings, Cost, CostBy, CostReport, CostRow, CostTable, FunctionCost,
    VersionCost,
};
pub use device::{DeviceReading, DeviceStatus, DeviceUser, DeviceYield, OtherProgram, QuotaSettings};
pub use exec::{EXEC_ERROR, EXEC_OUTPUT, EXEC_PROTOCOL, ExecClientMessage, ExecServerMessage, ExecStart, ExecTerminal};
pub use fit::{FitReport, FunctionFit};
pub use function::{DecisionRecording, FunctionInfo, InstanceInfo, ScalingInfo, VersionStatus, WaitInfo};
pub use host::{DeviceInfo, DiskInfo, HostInfo, QuotaInfo, RestoreReport, RestoredKey, ServerEvent};
pub use image::{ImageInfo, ImageList, ImageName, PullInfo};
pub use job::{JobInfo, JobRun, ScheduleInfo, SkippedRun};
pub use keys::{KeyAnswer, KeyInfo, KeyRotation, KeySettings, Role};
pub use model::{
    AdoptedModels, DeploymentPhase, LoadFigures, ModelAdoption, ModelDeployment, ModelDeploymentInfo, ModelEviction,
    ModelFile, ModelInfo, ModelList, ModelLoads, ModelPlan, ModelPrefetch, ModelPull, ModelQuestion, ModelRequest,
    ModelSize, ModelTier, ModelUsage, PresetInfo, PullPhase, RefusedModel,
};
pub use pool::{PoolHost, PoolStatus};
pub use provision::{PolicyStatus, Provision};
pub use role_map::{RoleInfo, RoleSettings};
pub use rollout::{RolloutAction, RolloutInfo, RolloutOrder, RolloutSettings, RolloutTraffic};
pub use secret::{SecretInfo, SecretValue};
pub use server::{
    Backup, DeployedVersion, Deployment, DeploymentResult, Errors, Gateway, Health, LogLine, Restore, Rotation,
    ServerInfo, Status,
};
pub use share::{ShareInfo, ShareSettings};
pub use task::{AcceptedTask, Attempt, StopResult, TaskCounts, TaskEvent, TaskInfo, TaskList};
pub use usage::{Advice, FunctionUsage, LatencySummary, Measurements, Recommendation, RevisionEvidence, VersionUsage};
pub use version::{
    AliasInfo, AliasSettings, DeploymentPlan, FieldChange, PlannedFunction, Publication, Published, RevisionInfo,
    Rollback, RollbackResult, TargetInfo, VersionDiff, VersionInfo,
};
