use super::*;

fn entry(tenant: &str) -> Entry {
    Entry {
        id: None,
        function: Arc::from("f"),
        function_id: 1,
        step: 0,
        qualifier: Arc::from("LATEST"),
        tenant: Arc::from(tenant),
        priority: 1,
        kind: 0,
        order: None,
        size: 3,
        created: 0,
        expires_at: 1_000_000,
        state: TaskState::Enqueued,
        epoch: 0,
        run_at: 0,
        started: 0,
        errors: 0,
        crashes: 0,
        refusals: 0,
    }
}

fn keyed(order: &str) -> Entry {
    Entry { order: Some(Arc::from(order)), ..entry("a") }
}

fn book(entries: impl IntoIterator<Item = Entry>) -> Book {
    let mut book = Book::default();
    for (number, entry) in (1..).zip(entries) {
        book.admit(TaskNumber(number), entry, 0);
    }
    book
}

fn drain(book: &mut Book) -> Vec<u64> {
    std::iter::from_fn(|| book.take("f", "LATEST", |_| true)).map(|number| number.0).collect()
}

fn end(book: &mut Book, number: u64) {
    book.settle(TaskNumber(number), |entry| entry.state = TaskState::Succeeded, 0);
}

#[test]
fn first_come_first_served_and_urgent_ones_before_until_others_have_waited() {
    let mut two = book([entry("a"), Entry { priority: 0, ..entry("a") }, entry("a")]);
    assert_eq!(drain(&mut two), [2, 1, 3]);
    let old = Entry { priority: 2, run_at: -30_000, ..entry("a") };
    assert_eq!(drain(&mut book([Entry { priority: 0, ..entry("a") }, old])), [2, 1], "ageing");
}

#[test]
fn a_flood_of_one_tenant_does_not_hold_up_another() {
    let mut many = book((0..1_000).map(|_| entry("flood")));
    for number in 0..10 {
        many.admit(TaskNumber(2_000 + number), entry("quiet"), 0);
    }
    let order = drain(&mut many);
    let last_quiet = order.iter().rposition(|number| *number >= 2_000).unwrap();
    assert!(last_quiet <= 20, "{last_quiet}");
    // One with a weight of three has three in a row.
    let mut heavy = Book::weighted([("quiet".to_owned(), 3)].into());
    for number in 0..40 {
        heavy.admit(TaskNumber(number + 1), entry(if number < 20 { "flood" } else { "quiet" }), 0);
    }
    let weighted = drain(&mut heavy);
    let quiet = weighted[..20].iter().filter(|number| **number > 20).count();
    assert_eq!(quiet, 15, "{weighted:?}");
    assert_eq!(order.len(), 1_010);
}

#[test]
fn delayed_ones_come_in_when_their_time_has_come() {
    let mut later = book([Entry { run_at: 500, ..entry("a") }, entry("a")]);
    assert_eq!(drain(&mut later), [2]);
    assert_eq!((later.counts("f").later, later.next_due()), (1, Some(500)));
    assert!(later.due(499).is_empty());
    assert_eq!(later.due(500).len(), 1);
    assert_eq!(drain(&mut later), [1]);
    assert_eq!(later.counts("f").running, 2);
    assert_eq!(later.next_due(), None);
}

#[test]
fn of_one_ordering_key_one_runs_at_a_time_and_a_retry_blocks_it() {
    let mut keys = book([keyed("x"), keyed("x"), keyed("y"), keyed("x")]);
    assert_eq!(drain(&mut keys), [1, 3]);
    let retry = |entry: &mut Entry| (entry.state, entry.run_at) = (TaskState::Retrying, 100);
    keys.settle(TaskNumber(1), retry, 0);
    assert_eq!(drain(&mut keys), [] as [u64; 0], "a retry keeps its key");
    keys.due(100);
    assert_eq!(drain(&mut keys), [1]);
    end(&mut keys, 1);
    assert_eq!(drain(&mut keys), [2]);
    // Stopped while it waits: the next one is not confused by it.
    keys.settle(TaskNumber(4), |entry| entry.state = TaskState::Stopped, 0);
    end(&mut keys, 2);
    end(&mut keys, 3);
    assert_eq!(drain(&mut keys), [] as [u64; 0]);
    assert_eq!((keys.queued(), keys.functions().count()), (0, 0));
}

#[test]
fn ordering_keys_belong_to_tenants() {
    let of = |tenant: &str| Entry { order: Some(Arc::from("x")), ..entry(tenant) };
    let mut keys = book([of("a"), of("b"), of("a"), of("b")]);
    assert_eq!(drain(&mut keys), [1, 2], "the key of one tenant holds up no other");
    end(&mut keys, 2);
    assert_eq!(drain(&mut keys), [4]);
}

#[test]
fn bytes_that_wait_are_counted_by_tenant() {
    let mut two = book([Entry { size: 10, ..entry("a") }, Entry { size: 5, ..entry("b") }, entry("b")]);
    let bytes = |book: &Book| (book.queued_bytes(), book.queued_bytes_of("a"), book.queued_bytes_of("b"));
    assert_eq!(bytes(&two), (18, 10, 8));
    assert_eq!(two.take("f", "LATEST", |_| true), Some(TaskNumber(1)));
    assert_eq!(bytes(&two), (8, 0, 8), "what runs does not wait");
    two.settle(TaskNumber(1), |entry| (entry.state, entry.run_at) = (TaskState::Retrying, 9), 0);
    assert_eq!(bytes(&two), (18, 10, 8), "a retry waits");
    two.settle(TaskNumber(2), |entry| entry.state = TaskState::Stopped, 0);
    assert_eq!(bytes(&two), (13, 10, 3));
    two.settle(TaskNumber(3), |entry| entry.state = TaskState::Stopped, 0);
    two.settle(TaskNumber(1), |entry| entry.state = TaskState::Stopped, 0);
    assert_eq!(bytes(&two), (0, 0, 0));
}

#[test]
fn what_waits_expires_and_what_runs_does_not() {
    let mut book = book([Entry { expires_at: 50, ..entry("a") }, Entry { expires_at: 50, ..entry("a") }]);
    assert_eq!(book.take("f", "LATEST", |_| true), Some(TaskNumber(1)));
    assert_eq!(book.expired(50, 10), []);
    assert_eq!(book.expired(51, 10), [TaskNumber(2)]);
    assert_eq!(book.next_due(), Some(51));
}

#[test]
fn a_claim_that_was_not_stored_comes_back() {
    let mut book = book([entry("a"), entry("a")]);
    assert_eq!(book.take("f", "LATEST", |_| true), Some(TaskNumber(1)));
    book.settle(TaskNumber(1), |entry| entry.run_at = 10, 0);
    assert_eq!(book.counts("f"), Counts { ready: 1, later: 1, oldest: Some(0), ..Counts::default() });
    assert_eq!(book.ahead(TaskNumber(2)), Some(0));
}

#[test]
fn positions_count_what_goes_before() {
    let mut book = book((0..5).map(|_| entry("a")));
    book.admit(TaskNumber(9), entry("b"), 0);
    assert_eq!(book.ahead(TaskNumber(5)), Some(5), "four of its own and one of the other tenant");
    assert_eq!(book.ahead(TaskNumber(9)), Some(0));
    assert_eq!(book.ahead(TaskNumber(7)), None);
}

mod any_order {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever happens in whatever order: no task is lost or given out twice, and the counts are those of the tasks.
        #[test]
        fn nothing_is_lost(steps in prop::collection::vec((0u8..6, 0u64..30, 0u8..4), 1..200)) {
            let mut book = Book::default();
            let mut open: BTreeMap<u64, bool> = BTreeMap::new();
            let mut next = 1;
            let mut now = 0;
            for (what, which, detail) in steps {
                let chosen = open.keys().nth(usize::try_from(which).unwrap() % open.len().max(1)).copied();
                match (what, chosen) {
                    (0 | 1, _) => {
                        let order = (detail < 2).then(|| Arc::from(if detail == 0 { "x" } else { "y" }));
                        let tenant = if which % 2 == 0 { "a" } else { "b" };
                        let run_at = now + i64::from(detail % 2) * 10;
                        book.admit(TaskNumber(next), Entry { order, run_at, ..entry(tenant) }, now);
                        open.insert(next, false);
                        next += 1;
                    }
                    (2, _) => {
                        if let Some(number) = book.take("f", "LATEST", |_| true) {
                            prop_assert_eq!(open.insert(number.0, true), Some(false), "given out twice or closed");
                        }
                    }
                    (3, Some(number)) => {
                        book.settle(TaskNumber(number), |entry| entry.state = TaskState::Stopped, now);
                        open.remove(&number);
                    }
                    (4, Some(number)) if open[&number] => {
                        let again = |entry: &mut Entry| (entry.state, entry.run_at) = (TaskState::Retrying, now + 7);
                        book.settle(TaskNumber(number), again, now);
                        open.insert(number, false);
                    }
                    (5, _) => {
                        now += 5;
                        book.due(now);
                    }
                    _ => {}
                }
                let counts = book.counts("f");
                let out = open.values().filter(|out| **out).count() as u64;
                prop_assert_eq!(counts.running, out);
                prop_assert_eq!(counts.queued(), open.len() as u64 - out);
                prop_assert_eq!(book.queued(), counts.queued());
                prop_assert_eq!(book.queued_bytes(), counts.queued() * 3);
                prop_assert_eq!(book.queued_bytes_of("a") + book.queued_bytes_of("b"), book.queued_bytes());
            }
            // In the end all can be run.
            book.due(i64::MAX);
            let mut left = open.len();
            let mut rounds = 0;
            while left > 0 {
                rounds += 1;
                prop_assert!(rounds < 1_000, "{} tasks are stuck", left);
                while let Some(number) = book.take("f", "LATEST", |_| true) {
                    open.insert(number.0, true);
                }
                let out: Vec<u64> = open.iter().filter(|(_, out)| **out).map(|(number, _)| *number).collect();
                for number in out {
                    book.settle(TaskNumber(number), |entry| entry.state = TaskState::Succeeded, i64::MAX);
                    open.remove(&number);
                    left -= 1;
                }
                book.due(i64::MAX);
            }
            prop_assert_eq!(book.functions().count(), 0);
        }
    }
}

/// Ten thousand run and fail in one moment. Their retries come back over minutes, as the rules spread them by how many wait.
#[test]
fn ten_thousand_failures_at_once_come_back_spread() {
    use crate::rules::{Allowance, RunOutcome, after};
    const COUNT: u64 = 10_000;
    let running = Entry { state: TaskState::Running, expires_at: i64::MAX, ..entry("a") };
    let mut book = book((0..COUNT).map(|_| running.clone()));
    let ended = RunOutcome::Error { status: 500, kind: "x", detail: String::new(), retry_after: None, exit: None };
    let allowed = Allowance { retries: 3, expires_at: i64::MAX };
    let mut dice = 0x9E37_79B9_7F4A_7C15u64;
    for number in 1..=COUNT {
        let number = TaskNumber(number);
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let from = book.entry(number).unwrap().progressed();
        let to = after(&from, &ended, allowed, 0, book.counts("f").retrying, dice);
        assert_eq!(to.state, TaskState::Retrying);
        book.settle(number, |entry| (entry.state, entry.run_at, entry.errors) = (to.state, to.run_at, to.errors), 0);
    }
    assert_eq!(book.counts("f").retrying, COUNT);
    let mut most = 0;
    let mut ready = 0;
    for second in 1..=300 {
        book.due(second * 1_000);
        let now = book.counts("f").ready;
        (most, ready) = (most.max(now - ready), now);
    }
    assert_eq!(ready, COUNT, "all come back");
    assert!(most <= 500, "{most} in one second");
}

/// As after a restart: what waits is taken in first, and then what an earlier server had begun.
#[test]
fn a_run_that_goes_on_keeps_its_ordering_key_from_those_that_wait() {
    let mut book = Book::default();
    book.admit(TaskNumber(2), keyed("k"), 0);
    book.admit(TaskNumber(3), keyed("k"), 0);
    book.admit(TaskNumber(1), Entry { state: TaskState::Running, epoch: 1, ..keyed("k") }, 0);
    assert_eq!(drain(&mut book), [] as [u64; 0], "the first is not over");
    assert_eq!((book.counts("f").held, book.counts("f").running, book.queued()), (2, 1, 2));
    book.settle(TaskNumber(1), |entry| (entry.state, entry.run_at) = (TaskState::Retrying, 5), 0);
    assert_eq!(drain(&mut book), [] as [u64; 0], "it waits to be run again");
    book.due(5);
    assert_eq!(drain(&mut book), [1]);
    end(&mut book, 1);
    assert_eq!(drain(&mut book), [2]);
    end(&mut book, 2);
    assert_eq!(drain(&mut book), [3]);
}

#[test]
fn qualifiers_have_lanes_of_their_own_and_ordering_keys_hold_across_them() {
    let of = |qualifier: &str, entry: Entry| Entry { qualifier: Arc::from(qualifier), ..entry };
    let mut book = book([
        of("LATEST", entry("a")),
        of("prod", entry("a")),
        of("prod", entry("b")),
        of("prod", keyed("k")),
        of("LATEST", keyed("k")),
    ]);
    let lanes: Vec<(String, u64)> =
        book.lanes("f").into_iter().map(|(qualifier, ready, _)| (qualifier.to_string(), ready)).collect();
    assert_eq!(lanes, [("LATEST".to_owned(), 1), ("prod".to_owned(), 3)]);
    assert_eq!(book.counts("f").ready, 4);
    assert_eq!(book.qualifiers("f").into_values().collect::<Vec<_>>(), [2, 3]);
    assert_eq!(drain(&mut book), [1]);
    // One that does not fit is passed over, and its tenant's turn with it.
    assert_eq!(book.take("f", "prod", |number| number.0 == 3), Some(TaskNumber(3)));
    assert_eq!(book.take("f", "prod", |number| number.0 > 4), None);
    let rest: Vec<u64> = std::iter::from_fn(|| book.take("f", "prod", |_| true)).map(|number| number.0).collect();
    assert_eq!(rest, [2, 4]);
    assert_eq!(drain(&mut book), [] as [u64; 0], "another one with its key runs");
    end(&mut book, 4);
    assert_eq!(drain(&mut book), [5]);
    (1..=5).for_each(|number| end(&mut book, number));
    assert!(book.lanes("f").is_empty() && book.qualifiers("f").is_empty());
    assert_eq!(book.functions().count(), 0);
}
