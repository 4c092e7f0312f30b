//! What only records and explains: requests, decisions, usage, traces, the access log, and advice made from them.
//!
//! Everything here is handed in by others and may be lost without harm: nothing that a restart needs is recovered from this room. It
//! never decides, and it never holds up whoever hands something in.

pub mod access_log;
pub mod advice;
pub mod cost;
pub mod decision;
mod ledger;
pub mod metrics;
mod recorder;
mod traces;
pub mod usage;

pub use access_log::{AccessLogOptions, AccessLogTarget};
pub use ledger::{KeyLedger, KeyShard, KeySum};
pub use recorder::Recorder;
pub use traces::{RequestSpans, TraceOptions, Traces};

/// The records themselves, as the store keeps them.
pub use kip_store::{
    DecisionRecord, Record, RecordStore, RequestFilter, RequestRecord, Retention, ScalingRecord, UsageRecord,
};
