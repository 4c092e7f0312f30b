//! Our own JSON.

use kip_spec::Problem;
use kip_spec::problem::Envelope;

/// The same text as the API answers with.
pub(super) fn render(problem: Problem) -> String {
    serde_json::to_string(&Envelope { error: problem }).unwrap_or_default()
}
