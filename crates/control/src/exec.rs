//! Sessions of people in instances: their places, their instances and their programs. What goes over a session is none of this room's
//! business.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kip_engine::{ExecError, ExecOrder, ExecProcess};
use kip_spec::{InstanceId, Problem, QualifierName, code};
use tokio::sync::watch;

use crate::cell::{Admission, Cell};
use crate::control::Control;
use crate::exec_table::{ExecEnd, ExecOptions, OpenSession};
use crate::permit::Permit;

/// A session's part of what there may be at once. Dropping it gives that back.
#[derive(Debug)]
pub struct ExecPlace {
    control: Control,
    number: u64,
    end: watch::Receiver<Option<ExecEnd>>,
}

impl ExecPlace {
    /// Waits until the session must end.
    pub async fn must_end(&self) -> ExecEnd {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or(ExecEnd::Server),
            Err(_) => ExecEnd::Server,
        }
    }

    /// The session is in this instance.
    ///
    /// # Errors
    /// As many are there already as may be.
    fn enter(&self, instance: InstanceId) -> Result<(), Problem> {
        let most = self.control.exec_options().of_instance;
        let mut open = self.control.shared.execs.open.lock();
        let there = open.values().filter(|session| session.instance == Some(instance)).count();
        if there >= most {
            return Err(too_many(format!("instance {instance} has {there} exec sessions"), "exec.of_instance"));
        }
        if let Some(session) = open.get_mut(&self.number) {
            session.instance = Some(instance);
        }
        Ok(())
    }
}

impl Drop for ExecPlace {
    fn drop(&mut self) {
        self.control.shared.execs.open.lock().remove(&self.number);
        self.control.shared.execs.ended.notify_waiters();
    }
}

fn too_many(message: String, setting: &str) -> Problem {
    let problem = Problem::new(code::EXEC_TOO_MANY, message);
    let problem = problem.hint(format!("end one of them, or raise {setting} in kipwake.toml"));
    Problem { retry_after: Some(5), ..problem }
}

impl Control {
    /// What bounds sessions.
    pub fn exec_options(&self) -> ExecOptions {
        self.shared.options.exec
    }

    /// A place for a session, before it has an instance.
    ///
    /// # Errors
    /// As many run already as may, or the server ends.
    pub fn exec_place(&self) -> Result<ExecPlace, Problem> {
        let execs = &self.shared.execs;
        let most = self.exec_options().sessions;
        let number = execs.next.fetch_add(1, Ordering::Relaxed);
        let (tell, end) = watch::channel(None);
        let mut open = execs.open.lock();
        if execs.closed.load(Ordering::SeqCst) {
            return Err(crate::Error::ShuttingDown.into());
        }
        if open.len() >= most {
            return Err(too_many(format!("{most} exec sessions run at once"), "exec.sessions"));
        }
        open.insert(number, OpenSession { instance: None, end: tell });
        drop(open);
        Ok(ExecPlace { control: self.clone(), number, end })
    }

    /// The function that an instance belongs to.
    pub fn owner(&self, instance: InstanceId) -> Option<Arc<Cell>> {
        self.shared.owner(instance).filter(|cell| cell.has(instance))
    }

    /// Asks for an instance that a session can be in: the one that is named, or one of what a qualifier means. A sleeping one wakes, and one
    /// is started where there is none. Dropping what this gives, at any time, lets go of it.
    ///
    /// # Errors
    /// The instance is not the function's, or there is no such version.
    pub async fn attach(
        &self,
        cell: &Arc<Cell>,
        asked: Option<&QualifierName>,
        instance: Option<InstanceId>,
    ) -> Result<Admission, Problem> {
        if let Some(instance) = instance
            && !self.owner(instance).is_some_and(|owner| Arc::ptr_eq(&owner, cell))
        {
            return Err(no_instance(cell, instance));
        }
        let is_job = cell.serving().spec.job.is_some();
        if is_job && instance.is_none() && !cell.has_hot() {
            let message = format!("the job `{}` has no instance now", cell.name());
            return Err(Problem::new(code::INSTANCE_NOT_FOUND, message)
                .hint("a job has an instance only while one of its runs is under way: kip run, or kip job run"));
        }
        let admission = cell.attach(asked, instance);
        match (admission, asked) {
            (Admission::Unloaded, Some(qualifier)) => {
                // Once for each version: the cell knows it from then on.
                self.load_version(cell, qualifier).await.map_err(Problem::from)?;
                Ok(cell.attach(asked, instance))
            }
            (admission, _) => Ok(admission),
        }
    }
}

/// The refusal of an instance that a function does not have.
fn no_instance(cell: &Cell, instance: InstanceId) -> Problem {
    let message = format!("the function `{}` has no instance {instance}", cell.name());
    Problem::new(code::INSTANCE_NOT_FOUND, message).hint("`kip ps` lists the instances there are")
}

impl Permit {
    /// Runs a program in the instance, for a session. This is not to be dropped before it is over: a program that has just begun would
    /// have nobody to end it.
    ///
    /// # Errors
    /// The instance has too many sessions, or the program cannot be started there.
    pub async fn run_inside(&self, place: &ExecPlace, order: ExecOrder) -> Result<Box<dyn ExecProcess>, Problem> {
        let instance = self.link().instance;
        place.enter(instance)?;
        let body = place.control.shared.bodies.at(self.cell().place_of(instance)).clone();
        body.exec(instance, order).await.map_err(|error| problem(&error))
    }
}

fn problem(error: &ExecError) -> Problem {
    let text = error.to_string();
    match error {
        ExecError::Unknown(_) => {
            Problem::new(code::INSTANCE_NOT_FOUND, text).hint("`kip ps` lists the instances there are")
        }
        ExecError::NoProgram(_) => Problem::new(code::EXEC_COMMAND, text)
            .hint("the name is looked for in the PATH of the instance; images may have no shell at all"),
        ExecError::NotExecutable { .. } => Problem::new(code::EXEC_COMMAND, text)
            .hint("the program runs as the user of the function, who must be allowed to run it"),
        ExecError::Directory(_) => {
            Problem::new(code::EXEC_COMMAND, text).hint("name a folder that the instance sees: -w DIR")
        }
        ExecError::Failed(_) => Problem::new(code::EXEC_FAILED, "the program could not be started in the instance")
            .cause(text)
            .hint("server.log and `kip doctor` say what this host allows"),
    }
}
