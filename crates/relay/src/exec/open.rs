//! From a request for a session to a program that runs.

use std::sync::Arc;

use kip_control::{Admission, Cell, Control, ExecOrder, ExecPlace, ExecProcess, Permit, RequestRefusal, TerminalSize};
use kip_fleet::Refusal;
use kip_spec::{InstanceId, Problem, QualifierName, code};
use kip_wire::ExecStart;

use super::line::command_line;
use super::request::{SessionRecord, unfit};
use crate::answer::refusal_problem;

/// Where a session is to be.
#[derive(Debug, Clone)]
pub struct SessionTarget {
    /// The function.
    pub cell: Arc<Cell>,
    /// Which of its versions, where no instance is named.
    pub qualifier: Option<QualifierName>,
    /// In this instance and no other.
    pub instance: Option<InstanceId>,
    /// The caller may read what programs write, so that refusals may quote it.
    pub operates: bool,
}

/// A program that runs in an instance for somebody. Dropping it ends the program.
#[derive(Debug)]
pub struct Session {
    pub(super) process: Box<dyn ExecProcess>,
    pub(super) permit: Permit,
    pub(super) place: ExecPlace,
    pub(super) record: Arc<dyn SessionRecord>,
    /// What the record names.
    pub(super) object: String,
    pub(super) control: Control,
}

impl Session {
    /// Finds, wakes or starts an instance and runs the program in it; `place` is of [`Control::exec_place`]. `waits` is told when that takes a while: the instance that wakes, or none
    /// for one that starts. To be run as a task that nobody cancels.
    ///
    /// # Errors
    /// Why there is no session. The record has that as well.
    pub async fn open(
        control: &Control,
        (place, target): (ExecPlace, SessionTarget),
        start: ExecStart,
        record: Arc<dyn SessionRecord>,
        waits: impl AsyncFnOnce(Option<InstanceId>),
    ) -> Result<Self, Problem> {
        let function = target.cell.name().clone();
        let named = target.instance.map_or_else(|| "-".to_owned(), |instance| instance.to_string());
        let line = command_line(&start.command);
        let refused = async |instance: &str, problem: &Problem| {
            let object = format!("{function} {instance}: {line}");
            record.begin(object.clone()).await;
            record.end(object, problem.code.to_string()).await;
        };
        if let Some(why) = unfit(&start) {
            let problem = Problem::new(code::EXEC_REQUEST, why);
            refused(&named, &problem).await;
            return Err(problem);
        }
        let permit = match permit(control, &target, waits).await {
            Ok(permit) => permit,
            Err(problem) => {
                refused(&named, &problem).await;
                return Err(problem);
            }
        };
        let instance = permit.link().instance.to_string();
        let object = format!("{function} {instance}: {line}");
        record.begin(object.clone()).await;
        let order = ExecOrder {
            session: format!("{:032x}", kip_host::random::bits()),
            argv: start.command,
            env: start.env,
            directory: start.directory,
            terminal: start.terminal.map(|size| TerminalSize { columns: size.columns, rows: size.rows }),
            input: start.input || start.terminal.is_some(),
        };
        match permit.run_inside(&place, order).await {
            Ok(process) => {
                tracing::info!(%function, instance, command = line, "an exec session runs");
                Ok(Self { process, permit, place, record, object, control: control.clone() })
            }
            Err(problem) => {
                record.end(object, problem.code.to_string()).await;
                Err(problem)
            }
        }
    }

    /// The instance that it is in.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }
}

async fn permit(
    control: &Control,
    target: &SessionTarget,
    waits: impl AsyncFnOnce(Option<InstanceId>),
) -> Result<Permit, Problem> {
    let SessionTarget { cell, qualifier, instance, operates } = target;
    let name = cell.name().as_str();
    let unknown = || {
        let qualifier = qualifier.as_ref().map(ToString::to_string).unwrap_or_default();
        let problem = Problem::new(
            code::VERSION_NOT_FOUND,
            format!("the function `{name}` has no version or alias `{qualifier}`"),
        );
        problem.hint(format!("`kip version ls {name}` lists versions and revisions, `kip alias ls {name}` aliases"))
    };
    let refused = |refused: RequestRefusal| match refused.refusal {
        Refusal::NoVersion => unknown(),
        _ => refusal_problem(name, &refused, *operates),
    };
    match control.attach(cell, qualifier.as_ref(), *instance).await? {
        Admission::Granted(permit) => Ok(permit),
        Admission::Refused(refusal) => Err(refused(refusal)),
        Admission::Waiting(waiting) => {
            waits(*instance).await;
            waiting.await.map_err(refused)
        }
        Admission::Unloaded => Err(unknown()),
    }
}
