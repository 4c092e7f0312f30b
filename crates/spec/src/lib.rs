//! The vocabulary that every room shares: ids, units, validated declarations and error codes.
//!
//! Values of these types are valid by construction: wire types live at the edges (`manifest`, `wire`) and become these
//! once. This crate knows no clock, file, socket or random number, and no other room.

pub mod account;
pub mod code;
pub mod container;
pub mod escape;
pub mod fc_code;
pub mod finite;
pub mod function;
pub mod id;
pub mod job;
pub mod limiter;
pub mod model_name;
pub mod named_secret;
pub mod origin;
pub mod people;
pub mod probe;
pub mod problem;
pub mod qualifier;
pub mod rate;
pub mod reference;
pub mod round;
pub mod scaling;
mod schema;
pub mod secret;
pub mod share;
pub mod sleep;
pub mod snapshot;
pub mod sticky;
pub mod task;
pub mod tenant;
pub mod terminal;
pub mod units;

pub use code::Code;
pub use finite::Finite;
pub use id::{FunctionName, InstanceId, RequestId, VersionId};
pub use model_name::ModelName;
pub use problem::Problem;
pub use qualifier::{AliasName, QualifierName};
pub use rate::Rate;
pub use units::{Bytes, MilliCpu, Millis};
