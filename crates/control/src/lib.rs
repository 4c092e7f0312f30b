//! The shell around the brain. It hosts one core for each function that is in use, hands in events with the time,
//! carries out effects through the engine, and writes down what was decided and why.
//!
//! A [`Cell`] is one function: a short mutex around its core. A request to a hot instance locks its cell twice (arrive,
//! leave) and touches nothing else. Whatever an effect costs is done outside the lock, on the control runtime. This
//! room decides nothing by itself: no state of an instance changes here without the core having said so.

mod accounts;
mod adopt;
mod advice;
mod aliases;
mod bodies;
mod budgets;
mod canary;
mod capture;
mod cell;
mod check;
mod checks;
mod containers;
mod control;
mod costs;
mod device_book;
mod device_status;
mod device_use;
mod devices;
mod differences;
mod disk;
mod domains;
mod driver;
mod error;
mod exec;
mod exec_table;
mod execute;
mod facade;
mod figures;
mod fit;
mod fits;
mod host_names;
mod http_triggers;
mod image_cache;
mod image_rounds;
mod info;
#[cfg(test)]
mod leaving;
mod link;
mod measuring;
mod memo;
mod meter;
mod models;
mod named;
mod naming;
mod open_tasks;
mod options;
mod outcomes;
mod permit;
mod pools;
mod qualifiers;
mod ready;
mod reasons;
mod reminder;
mod restore;
mod roles;
mod rollout_table;
mod rollouts;
mod rounds;
mod rungs;
mod scaling;
mod shared;
mod shares;
mod stores;
mod tally;
mod task_targets;
#[cfg(any(test, feature = "fake"))]
pub mod testing;
mod timers;
mod traffic;
mod unused;
mod usage;
mod version;
mod versions;
mod working;
mod yields;

#[cfg(test)]
mod tests;

pub use bodies::Bodies;
pub use capture::Capture;
pub use cell::{Admission, Cell};
pub use containers::engine_problem;
pub use control::{Control, Direction};
pub use device_book::{QuotaChange, Yielded};
pub use disk::DiskOptions;
pub use domains::{Domain, DomainRoute, Domains, Rewrite};
pub use driver::DriverRung;
pub use error::Error;
pub use exec::ExecPlace;
pub use exec_table::{ExecEnd, ExecOptions};
pub use figures::Figures;
pub use http_triggers::{HttpRule, HttpTriggers, QualifiedTrigger};
pub use image_rounds::ImageUse;
pub use kip_engine::{ContainerEngine, ImageInfo, PullProgress};
pub use kip_engine::{ExecExit, ExecOrder, ExecProcess, ExecStream, TerminalSize};
pub use open_tasks::OpenTasks;
pub use options::{CodeOptions, ImageOptions, Options, OverUse, PoolOptions};
pub use shared::DeployResult;
pub use stores::{Files, Stores};
pub use task_targets::TaskTargets;

pub use aliases::{AliasChange, AskedTarget};
pub use differences::differences;
pub use kip_spec::qualifier::LATEST;
pub use link::{DirectionGuard, Link};
pub use permit::{Brake, Permit, QueuedRequest, RequestRefusal};
pub use restore::{BEFORE_RESTORE, KeyConsent, added_keys, backup_problem, code_problem, settle_keys};
pub use scaling::ProvisionInfo;
pub use usage::InstanceLives;
pub use version::{RESULTS, Version};

/// Logs as they are read.
pub use kip_engine::{LogFile, Record as LogRecord};

/// Records as they are asked for.
pub use kip_records::{
    AccessLogOptions, AccessLogTarget, DecisionRecord, Recorder, RequestFilter, RequestRecord, RequestSpans, Retention,
    ScalingRecord, TraceOptions, Traces, UsageRecord,
};
pub use kip_store::VersionSource;
pub use kip_store::backup::Manifest as BackupManifest;
