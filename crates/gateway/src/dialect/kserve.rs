//! Errors of the open inference protocol (KServe v2, REST): the error is one text.

use kip_spec::Problem;
use serde_json::json;

pub(super) fn render(problem: &Problem) -> String {
    let hint = problem.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
    json!({"error": format!("{problem}{hint}")}).to_string()
}
