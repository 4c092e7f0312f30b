//! Whether a start can succeed at all, as far as files show it. Nothing is started.

use std::path::Path;

use crate::body::{Order, StartError, StartProblem};
use crate::{contract, expand};

/// What a start would fail with before a program runs; none if nothing speaks against it. Reads folders: not for a runtime's
/// thread.
pub fn check(order: &Order) -> Option<StartError> {
    let fail = |(problem, detail)| StartError { problem, detail, last_lines: Vec::new() };
    if !order.directory.is_dir() {
        let detail = format!("there is no folder {}", order.directory.display());
        return Some(fail((StartProblem::WorkingDirectory, detail)));
    }
    if order.program.is_some() {
        return None;
    }
    let env = contract::environment(order, "", (0, &[]), contract::HostView::default());
    let name = expand::expand(order.argv.first()?, &env);
    expand::program(&name, &order.directory, &env, Path::to_owned).err().map(fail)
}
