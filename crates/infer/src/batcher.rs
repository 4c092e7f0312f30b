//! Rows of several requests in one run of the model.
//!
//! Requests wait in one queue. A worker takes the oldest and all that fit with it, up to the limit; with a delay it
//! lets others come first. A batch that fails is run again request by request, so that one bad input fails alone.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use kip_host::{clock, tasks};
use kip_spec::Millis;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::engine::Engine;
use crate::error::Error;
use crate::statistics::Statistics;
use crate::tensor::Tensor;

/// The limits of batching.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most rows in a run.
    pub(crate) rows: usize,
    /// How long the oldest may wait for others.
    pub(crate) delay: Millis,
    /// Most requests in the queue.
    pub(crate) waiting: usize,
}

type Answer = Result<Vec<Tensor>, Error>;

struct Job {
    inputs: Vec<Tensor>,
    /// Rows, if it may join others.
    rows: Option<usize>,
    /// When it came, on the clock of `clock::monotonic_micros`.
    since: u64,
    answer: oneshot::Sender<Answer>,
}

struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    limits: Limits,
    engine: Box<dyn Engine>,
    statistics: Statistics,
}

/// Hands requests to the threads that run the model. Dropping it ends them after the last request.
pub(crate) struct Batcher {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Batcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

impl Batcher {
    /// Starts the threads.
    pub(crate) fn start(engine: Box<dyn Engine>, workers: usize, limits: Limits) -> std::io::Result<Self> {
        let queue = Mutex::new(Queue { jobs: VecDeque::new(), closed: false });
        let shared =
            Arc::new(Shared { queue, changed: Condvar::new(), limits, engine, statistics: Statistics::default() });
        let mut batcher = Self { shared, workers: Vec::new() };
        for _ in 0..workers.max(1) {
            let shared = Arc::clone(&batcher.shared);
            batcher.workers.push(tasks::thread("kip-infer model", move || shared.work())?);
        }
        Ok(batcher)
    }

    /// Queues a request now; the answer comes later. `rows` is given if it may join others.
    pub(crate) fn submit(&self, inputs: Vec<Tensor>, rows: Option<usize>) -> Result<oneshot::Receiver<Answer>, Error> {
        let (answer, receiver) = oneshot::channel();
        let job = Job { inputs, rows, since: clock::monotonic_micros(), answer };
        let mut queue = self.shared.lock();
        let waiting = self.shared.limits.waiting;
        if queue.jobs.len() >= waiting {
            return Err(Error::QueueFull { waiting });
        }
        queue.jobs.push_back(job);
        drop(queue);
        // All, because a worker that waits for its batch to fill must look again too.
        self.shared.changed.notify_all();
        Ok(receiver)
    }

    /// What was run so far.
    pub(crate) fn statistics(&self) -> &Statistics {
        &self.shared.statistics
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    fn work(&self) {
        while let Some(jobs) = self.next_batch() {
            self.run_batch(jobs);
        }
    }

    /// The oldest request and those that fit with it; `None` once closed and empty.
    fn next_batch(&self) -> Option<Vec<Job>> {
        let mut queue = self.lock();
        loop {
            // Callers that went away need no answer.
            queue.jobs.retain(|job| !job.answer.is_closed());
            let Some(first) = queue.jobs.front() else {
                if queue.closed {
                    return None;
                }
                self.changed.wait(&mut queue);
                continue;
            };
            let delay = self.limits.delay.0.saturating_mul(1_000);
            let waited = clock::monotonic_micros().saturating_sub(first.since);
            let is_full = first.rows.is_none() || self.fitting(&queue.jobs).1 >= self.limits.rows;
            if waited >= delay || is_full || queue.closed {
                let (places, _) = self.fitting(&queue.jobs);
                let mut taken = Vec::with_capacity(places.len());
                for place in places.into_iter().rev() {
                    taken.extend(queue.jobs.remove(place));
                }
                taken.reverse();
                return Some(taken);
            }
            let rest = std::time::Duration::from_micros(delay - waited);
            self.changed.wait_for(&mut queue, rest);
        }
    }

    /// The places in the queue of the first and of those that fit with it, and their rows.
    fn fitting(&self, jobs: &VecDeque<Job>) -> (Vec<usize>, usize) {
        let Some(first) = jobs.front() else { return (Vec::new(), 0) };
        let Some(mut rows) = first.rows else { return (vec![0], 1) };
        let mut places = vec![0];
        for (place, job) in jobs.iter().enumerate().skip(1) {
            if rows >= self.limits.rows {
                break;
            }
            let Some(more) = job.rows.filter(|more| rows + more <= self.limits.rows) else { continue };
            let alike = first.inputs.iter().zip(&job.inputs).all(|(one, other)| one.shape()[1..] == other.shape()[1..]);
            if alike {
                rows += more;
                places.push(place);
            }
        }
        (places, rows)
    }

    fn run_batch(&self, mut jobs: Vec<Job>) {
        if jobs.len() == 1 {
            for job in jobs {
                let _ = job.answer.send(self.run_one(job.inputs, job.rows));
            }
            return;
        }
        let counts: Vec<usize> = jobs.iter().map(|job| job.rows.unwrap_or(1)).collect();
        let joined: Option<Vec<Tensor>> = (0..jobs[0].inputs.len())
            .map(|index| Tensor::join(&jobs.iter().map(|job| &job.inputs[index]).collect::<Vec<_>>()))
            .collect();
        let outputs = joined.ok_or_else(|| Error::Inference("the inputs do not join".to_owned()));
        let outputs = outputs.and_then(|joined| self.run_engine(joined, counts.iter().sum()));
        let parted: Option<Vec<Vec<Tensor>>> =
            outputs.ok().and_then(|outputs| outputs.iter().map(|output| output.part(&counts)).collect());
        let Some(parted) = parted else {
            tracing::warn!(requests = jobs.len(), "a batch failed; its requests are run one by one");
            for job in jobs {
                let _ = job.answer.send(self.run_one(job.inputs, job.rows));
            }
            return;
        };
        let mut parted: Vec<_> = parted.into_iter().map(Vec::into_iter).collect();
        for job in jobs.drain(..) {
            let own = parted.iter_mut().filter_map(Iterator::next).collect();
            let _ = job.answer.send(Ok(own));
        }
    }

    /// One request; in slices if it has more rows than a run may have.
    fn run_one(&self, inputs: Vec<Tensor>, rows: Option<usize>) -> Answer {
        let limit = self.limits.rows;
        let Some(rows) = rows.filter(|rows| *rows > limit) else {
            return self.run_engine(inputs, rows.unwrap_or(1));
        };
        let counts: Vec<usize> = (0..rows).step_by(limit).map(|start| limit.min(rows - start)).collect();
        let does_not_part = || Error::Inference("the model's rows do not part".to_owned());
        let parts: Vec<Vec<Tensor>> =
            inputs.iter().map(|input| input.part(&counts)).collect::<Option<_>>().ok_or_else(does_not_part)?;
        let mut outputs: Vec<Vec<Tensor>> = Vec::new();
        for (index, count) in counts.iter().enumerate() {
            let slice = parts.iter().filter_map(|part| part.get(index).cloned()).collect();
            for (place, output) in self.run_engine(slice, *count)?.into_iter().enumerate() {
                if output.rows() != *count {
                    return self.run_engine(inputs, rows);
                }
                if place == outputs.len() {
                    outputs.push(Vec::new());
                }
                outputs[place].push(output);
            }
        }
        outputs
            .iter()
            .map(|pieces| Tensor::join(&pieces.iter().collect::<Vec<_>>()))
            .collect::<Option<_>>()
            .ok_or_else(does_not_part)
    }

    fn run_engine(&self, inputs: Vec<Tensor>, rows: usize) -> Answer {
        let started = clock::monotonic_micros();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.engine.run(inputs)));
        let took = clock::monotonic_micros().saturating_sub(started);
        let answer = match outcome {
            Ok(Ok(outputs)) => Ok(outputs),
            Ok(Err(reason)) => Err(Error::Inference(reason)),
            Err(_) => Err(Error::Inference("the runtime panicked; the log has the place".to_owned())),
        };
        self.statistics.ran(rows, took, answer.is_ok());
        answer
    }
}

#[cfg(test)]
mod tests;
