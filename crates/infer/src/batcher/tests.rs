//! Batches are formed without waiting on clocks: the engine here stops at a gate until the test has queued what it wants.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;

/// Doubles its input. Tells of each run how many rows it has, then waits for leave to go on.
struct GatedEngine {
    entered: SyncSender<usize>,
    leave: Mutex<Receiver<()>>,
}

impl Engine for GatedEngine {
    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        self.entered.send(inputs[0].rows()).unwrap();
        self.leave.lock().recv().unwrap();
        let values: Vec<f32> = inputs[0].elements::<f32>().collect();
        if values.contains(&-1.0) {
            return Err("minus one".to_owned());
        }
        assert!(!values.contains(&-2.0), "minus two");
        let doubled = values.iter().map(|value| value * 2.0).collect::<Vec<_>>();
        Ok(vec![Tensor::from_elements(inputs[0].shape().to_vec(), doubled.into_iter()).unwrap()])
    }
}

struct Bench {
    batcher: Batcher,
    entered: Receiver<usize>,
    leave: SyncSender<()>,
}

fn bench(rows: usize, delay: u64, waiting: usize) -> Bench {
    let (entered_sender, entered) = sync_channel(64);
    let (leave, leave_receiver) = sync_channel(64);
    let engine = GatedEngine { entered: entered_sender, leave: Mutex::new(leave_receiver) };
    let limits = Limits { rows, delay: Millis(delay), waiting };
    Bench { batcher: Batcher::start(Box::new(engine), 1, limits).unwrap(), entered, leave }
}

fn row(values: &[f32]) -> Vec<Tensor> {
    vec![Tensor::from_elements(vec![1, values.len()], values.iter().copied()).unwrap()]
}

fn values(receiver: oneshot::Receiver<Answer>) -> Vec<f32> {
    receiver.blocking_recv().unwrap().unwrap()[0].elements().collect()
}

#[test]
fn what_waits_during_a_run_shares_the_next() {
    let bench = bench(4, 0, 100);
    let first = bench.batcher.submit(row(&[0.0]), Some(1)).unwrap();
    assert_eq!(bench.entered.recv(), Ok(1));
    let later: Vec<_> =
        [1.0, 2.0, 3.0, 4.0, 5.0].map(|value| bench.batcher.submit(row(&[value]), Some(1)).unwrap()).into();
    (0..3).for_each(|_| bench.leave.send(()).unwrap());
    assert_eq!(values(first), [0.0]);
    assert_eq!((bench.entered.recv(), bench.entered.recv()), (Ok(4), Ok(1)), "four at most, then the rest");
    let answers: Vec<f32> = later.into_iter().flat_map(values).collect();
    assert_eq!(answers, [2.0, 4.0, 6.0, 8.0, 10.0], "each caller gets its own row");
    let counts = bench.batcher.statistics().counts();
    assert_eq!((counts.rows, counts.succeeded.count), (6, 3));
}

#[test]
fn other_shapes_and_whole_requests_keep_apart() {
    let bench = bench(8, 0, 100);
    let first = bench.batcher.submit(row(&[0.0]), Some(1)).unwrap();
    bench.entered.recv().unwrap();
    let wide = bench.batcher.submit(row(&[1.0, 1.0]), Some(1)).unwrap();
    let alone = bench.batcher.submit(row(&[2.0, 2.0]), None).unwrap();
    let wide_too = bench.batcher.submit(row(&[3.0, 3.0]), Some(1)).unwrap();
    (0..3).for_each(|_| bench.leave.send(()).unwrap());
    assert_eq!(bench.entered.recv(), Ok(2), "the two of one shape");
    assert_eq!((values(first), values(wide), values(wide_too)), (vec![0.0], vec![2.0, 2.0], vec![6.0, 6.0]));
    assert_eq!(values(alone), [4.0, 4.0]);
}

#[test]
fn a_bad_request_fails_alone() {
    for bad in [-1.0, -2.0] {
        let bench = bench(8, 0, 100);
        let first = bench.batcher.submit(row(&[0.0]), Some(1)).unwrap();
        bench.entered.recv().unwrap();
        let good = bench.batcher.submit(row(&[1.0]), Some(1)).unwrap();
        let failing = bench.batcher.submit(row(&[bad]), Some(1)).unwrap();
        (0..4).for_each(|_| bench.leave.send(()).unwrap());
        assert_eq!((values(first), values(good)), (vec![0.0], vec![2.0]));
        assert!(matches!(failing.blocking_recv().unwrap(), Err(Error::Inference(_))));
        // A panic does not end the worker.
        bench.leave.send(()).unwrap();
        assert_eq!(values(bench.batcher.submit(row(&[7.0]), Some(1)).unwrap()), [14.0]);
    }
}

#[test]
fn a_delay_ends_when_the_batch_is_full() {
    // Ten hours: the test ends only because the second request fills the batch.
    let bench = bench(2, 36_000_000, 100);
    bench.leave.send(()).unwrap();
    let one = bench.batcher.submit(row(&[1.0]), Some(1)).unwrap();
    let two = bench.batcher.submit(row(&[2.0]), Some(1)).unwrap();
    assert_eq!(bench.entered.recv(), Ok(2));
    assert_eq!((values(one), values(two)), (vec![2.0], vec![4.0]));
}

#[test]
fn a_request_beyond_the_limit_is_run_in_slices() {
    let bench = bench(2, 0, 100);
    (0..3).for_each(|_| bench.leave.send(()).unwrap());
    let five = vec![Tensor::from_elements(vec![5, 1], [1f32, 2.0, 3.0, 4.0, 5.0].into_iter()).unwrap()];
    let answer = values(bench.batcher.submit(five, Some(5)).unwrap());
    assert_eq!(answer, [2.0, 4.0, 6.0, 8.0, 10.0]);
    assert_eq!(bench.entered.try_iter().collect::<Vec<_>>(), [2, 2, 1]);
}

#[test]
fn a_full_queue_refuses_and_callers_that_left_are_not_run() {
    let bench = bench(1, 0, 1);
    let first = bench.batcher.submit(row(&[0.0]), Some(1)).unwrap();
    bench.entered.recv().unwrap();
    let left = bench.batcher.submit(row(&[1.0]), Some(1)).unwrap();
    let refused = bench.batcher.submit(row(&[2.0]), Some(1));
    assert!(matches!(refused, Err(Error::QueueFull { waiting: 1 })));
    drop(left);
    bench.leave.send(()).unwrap();
    values(first);
    drop(bench.batcher);
    assert_eq!(bench.entered.try_recv().ok(), None, "the request of the caller that left was not run");
}
