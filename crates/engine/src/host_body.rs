//! The body of one host: its instances are child processes, or containers of its engine, as each order says.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use kip_spec::InstanceId;
use kip_spec::function::Hook;
use kip_spec::reference::escaped;
use kip_spec::sleep::InstanceCall;
use parking_lot::Mutex;

use crate::ProcessBody;
use crate::adoption::Adoption;
use crate::body::{
    Body, CallAnswer, Error, Health, LocalBody, Measure, Order, ReadyInstance, StartError, StartProblem, StopOrder,
    Termination,
};
use crate::containers::ContainerEngine;
use crate::docker::{DockerBody, job};
use crate::exec::{ExecError, ExecOrder, ExecProcess};

/// Child processes and containers.
#[derive(Debug)]
pub struct HostBody {
    processes: ProcessBody,
    containers: DockerBody,
    /// Instances of jobs that run containers, those of an earlier server included where nobody knows.
    jobs: Mutex<HashSet<InstanceId>>,
}

impl HostBody {
    /// One of both.
    pub fn new(processes: ProcessBody, containers: DockerBody) -> Self {
        Self { processes, containers, jobs: Mutex::default() }
    }

    fn of(&self, instance: InstanceId) -> &dyn Body {
        if self.containers.has(instance) { &self.containers } else { &self.processes }
    }

    /// The order as the process of a job understands it.
    async fn with_job(&self, order: Order) -> Result<Order, StartError> {
        let fail = |(problem, detail)| StartError { problem, detail, last_lines: Vec::new() };
        let job = self.containers.job(&order).await;
        let Some(job) = job.map_err(|reason| fail((StartProblem::EngineUnavailable, reason)))? else {
            return Ok(order);
        };
        self.jobs.lock().insert(order.instance);
        let text = serde_json::to_string(&job);
        let text = text.map_err(|error| fail((StartProblem::SpawnFailed, error.to_string())))?;
        // Values stand for themselves in a declaration if nothing in them is a reference.
        let env = order.env.into_iter().chain([(job::JOB.to_owned(), escaped(&text))]).collect();
        // The limits are those of the container.
        Ok(Order { env, memory: None, cpu: None, ..order })
    }

    /// What the process of a job ran ends with it.
    async fn sweep_job(&self, instance: InstanceId) {
        if self.jobs.lock().remove(&instance) {
            self.containers.sweep_jobs(Some(instance), &BTreeSet::new()).await;
        }
    }

    /// Whether neither knows it: its start has not said yet which of both it is, and both must refuse it.
    fn is_unknown(&self, instance: InstanceId) -> bool {
        !self.containers.has(instance) && !self.processes.has(instance)
    }
}

#[async_trait]
impl Body for HostBody {
    async fn adopt(&self) -> Adoption {
        let (mut processes, containers) = tokio::join!(self.processes.adopt(), self.containers.adopt());
        let alive = processes.found.iter().filter(|found| found.state.is_ok()).map(|found| found.instance).collect();
        self.containers.sweep_jobs(None, &alive).await;
        self.jobs.lock().extend(processes.found.iter().map(|found| found.instance));
        processes.found.extend(containers.found);
        processes.inherited.0.extend(containers.inherited.0);
        processes
    }

    async fn start(&self, order: Order) -> Result<ReadyInstance, StartError> {
        match &order.container {
            Some(_) => self.containers.start(order).await,
            None => self.processes.start(self.with_job(order).await?).await,
        }
    }

    async fn initialize(&self, instance: InstanceId, hook: &Hook) -> Result<(), Error> {
        self.of(instance).initialize(instance, hook).await
    }

    async fn call(&self, instance: InstanceId, what: &'static str, call: &InstanceCall) -> Result<CallAnswer, Error> {
        self.of(instance).call(instance, what, call).await
    }

    async fn remember(&self, instance: InstanceId, memo: &str) -> Result<(), Error> {
        self.of(instance).remember(instance, memo).await
    }

    async fn probe(&self, instance: InstanceId, path: &str, limit: Duration) -> Health {
        self.of(instance).probe(instance, path, limit).await
    }

    async fn measure(&self, instances: &[InstanceId], what: Measure) -> HashMap<InstanceId, u64> {
        let mut measured = self.processes.measure(instances, what).await;
        measured.extend(self.containers.measure(instances, what).await);
        measured
    }

    async fn stacks(&self, instance: InstanceId) -> Vec<String> {
        self.of(instance).stacks(instance).await
    }

    async fn settle_logs(&self, function: &str, instance: Option<InstanceId>) {
        tokio::join!(self.processes.settle_logs(function, instance), self.containers.settle_logs(function, instance));
    }

    async fn pause(&self, instance: InstanceId) -> Result<(), Error> {
        self.of(instance).pause(instance).await
    }

    async fn resume(&self, instance: InstanceId) -> Result<(), Error> {
        self.of(instance).resume(instance).await
    }

    async fn stop(&self, instance: InstanceId, order: StopOrder) -> Result<Termination, Error> {
        if self.is_unknown(instance) {
            self.containers.kill(instance).await?;
        }
        let stopped = self.of(instance).stop(instance, order).await;
        self.sweep_job(instance).await;
        stopped
    }

    async fn kill(&self, instance: InstanceId) -> Result<(), Error> {
        if self.is_unknown(instance) {
            self.containers.kill(instance).await?;
        }
        let killed = self.of(instance).kill(instance).await;
        self.sweep_job(instance).await;
        killed
    }

    async fn exec(&self, instance: InstanceId, order: ExecOrder) -> Result<Box<dyn ExecProcess>, ExecError> {
        self.of(instance).exec(instance, order).await
    }

    async fn clean_up(&self) {
        self.containers.clean_up().await;
        self.processes.clean_up().await;
    }

    fn local(&self) -> Option<&dyn LocalBody> {
        Some(self)
    }

    fn engine(&self) -> Option<&dyn ContainerEngine> {
        self.containers.engine()
    }
}

impl LocalBody for HostBody {
    fn process(&self, instance: InstanceId) -> Option<u32> {
        self.containers.process(instance).or_else(|| self.processes.process(instance))
    }

    fn members(&self, instances: &[InstanceId]) -> HashMap<InstanceId, Vec<u32>> {
        let mut members = self.processes.members(instances);
        members.extend(self.containers.members(instances));
        members
    }

    fn limit_memory(&self, instance: InstanceId, bytes: u64) -> std::io::Result<()> {
        self.containers.limit_memory(instance, bytes)?;
        self.processes.limit_memory(instance, bytes)
    }
}
