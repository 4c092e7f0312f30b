//! Work that was accepted and must not be lost: tasks, their payloads and results, and the words to be sent when they
//! are over.
//!
//! Every method that returns `Ok` after a change has it on disk. Nothing is decided here: whoever changes a task says from
//! which state and epoch, and a change that comes too late is refused by saying so. The store is written so that another
//! database can follow: the suite in `contract.rs` is what it has to pass.

mod apply;
pub(crate) mod blobs;
mod checkpoint;
mod events;
mod model;
mod read;
mod sqlite;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use apply::MIGRATIONS;
pub use model::{
    Delivery, DeliveryOutcome, NewDelivery, NewEvent, NewTask, Output, Step, StepOutcome, StoredEvent, SubmitOutcome,
    SyncTimes, Task, TaskFilter, TaskReader, TaskStore,
};
pub use sqlite::{SqliteTasks, Tuning};

pub use kip_spec::task::{TaskNumber, TaskProgress, TaskState};

pub use blobs::BlobRetention as BlobHold;
