//! Models: from a name that people write to files on this host, and to a declaration that runs them.
//!
//! Pure parts read sources (`source`), the protocols of hubs (`hub`), paths and patterns; the shell around them downloads
//! (`client`, `partial`, `download`) into a cache in which each content is kept once (`cache`, `record`). [`Models`] is the one way in.
//! This room knows no function and no instance: it gives folders, and texts of declarations.

mod adopt;
#[cfg(feature = "s3")]
mod bucket;
mod cache;
mod client;
mod digest;
mod download;
pub mod engines;
mod error;
mod hub;
mod layouts;
mod links;
mod listing;
mod partial;
mod path;
mod pattern;
pub mod preset;
mod provide;
mod record;
mod residency;
mod room;
mod service;
mod source;
mod unsafe_residency;
mod uses;

pub use adopt::Adoptions;
pub use digest::Digest;
pub use download::Behaviour;
pub use error::Error;
pub use hub::{ListedFile, Listing};
pub use path::{FilePath, FilePathError};
pub use provide::ModelLoad;
pub use record::{Eviction, Record, RecordedFile};
pub use room::{CacheLimits, ModelUsers, SourceHold};
pub use service::{Models, Options, Request};
pub use source::{Hub, Source, SourceError};
