//! What control asks the room of tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Who knows the open tasks.
pub trait OpenTasks: std::fmt::Debug + Send + Sync {
    /// The qualifiers that open tasks of a function name, and how many name each.
    fn qualifiers(&self, function: &str) -> BTreeMap<Arc<str>, u64>;
}
