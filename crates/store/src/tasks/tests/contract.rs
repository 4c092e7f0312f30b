//! What every store of tasks has to do. Each part takes a store that holds nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::{claim, end, look, step, store, task};
use crate::ids::FunctionId;
use crate::tasks::{
    DeliveryOutcome, NewDelivery, NewTask, Output, SubmitOutcome, TaskFilter, TaskNumber, TaskProgress, TaskState,
    TaskStore,
};

macro_rules! held_by_sqlite {
    ($($part:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $part() {
            let (_folder, store) = store();
            super::contract::parts::$part(Arc::new(store)).await;
        }
    )*};
}

held_by_sqlite!(
    what_was_accepted_is_found_again,
    numbers_are_never_used_again,
    an_id_is_taken_once_by_a_hundred_callers,
    a_step_needs_state_and_epoch,
    steps_of_one_commit_stand_for_themselves,
    the_first_of_two_ends_wins,
    a_late_claim_changes_nothing,
    reports_of_progress_are_bounded_and_keep_their_numbers,
    a_step_can_name_the_function_and_the_claim_its_server,
    steps_are_numbered_in_the_order_of_their_commits,
    large_payloads_and_results_come_back,
    open_tasks_are_listed_in_order,
    lists_filter_and_page,
    words_are_stored_with_the_end_and_outlive_attempts,
    configurations_are_kept_by_function_and_qualifier,
    what_is_over_is_forgotten_and_the_rest_stays,
    pruning_goes_by_age_and_waits_for_words
);

mod parts {
    use super::*;

    type Store = Arc<dyn TaskStore>;

    async fn add(store: &Store, new: NewTask) -> TaskNumber {
        match store.accept(new).await.unwrap() {
            SubmitOutcome::New(number) => number,
            other => panic!("{other:?}"),
        }
    }

    /// A task that has been claimed.
    async fn claimed(store: &Store) -> TaskNumber {
        let number = add(store, task()).await;
        let step = claim(&look(store.as_ref(), number).await, 7);
        assert!(store.advance(step).await.unwrap().applied);
        number
    }

    pub(super) async fn what_was_accepted_is_found_again(store: Store) {
        let new = NewTask {
            id: Some("mine".to_owned()),
            kind: 1,
            priority: 3,
            order: Some(Arc::from("customer-7")),
            ..task()
        };
        let number = add(&store, new).await;
        let found = look(store.as_ref(), number).await;
        assert_eq!((&*found.function, &*found.qualifier, &*found.tenant), ("f", "LATEST", "default"));
        assert_eq!((found.id.as_deref(), found.kind, found.priority), (Some("mine"), 1, 3));
        assert_eq!((found.order.as_deref(), found.created, found.now.expires_at), (Some("customer-7"), 1_000, 90_000));
        assert_eq!((found.now.state, found.now.epoch, found.now.run_at), (TaskState::Enqueued, 0, 1_000));
        assert_eq!(found.envelope, "{}");
        assert_eq!(store.payload(number).await.unwrap().unwrap(), "work");
        assert_eq!(store.output(number).await.unwrap(), None);
        assert_eq!(store.find("f".to_owned(), "mine".to_owned()).await.unwrap(), Some(number));
        assert_eq!(store.find("g".to_owned(), "mine".to_owned()).await.unwrap(), None);
        assert_eq!(store.task(TaskNumber(number.0 + 1)).await.unwrap(), None);
        assert_eq!(store.payload(TaskNumber(number.0 + 1)).await.unwrap(), None);
    }

    pub(super) async fn numbers_are_never_used_again(store: Store) {
        let first = add(&store, task()).await;
        let over = end(&look(store.as_ref(), first).await, TaskState::Stopped);
        assert!(store.advance(over).await.unwrap().applied);
        assert_eq!(store.forget(vec![first]).await.unwrap(), 1);
        assert!(add(&store, task()).await > first);
    }

    pub(super) async fn an_id_is_taken_once_by_a_hundred_callers(store: Store) {
        let submit = |id: Option<&str>, key: Option<&str>, fingerprint: u8| {
            let (store, id, key) = (store.clone(), id.map(str::to_owned), key.map(str::to_owned));
            kip_host::tasks::spawn("submit", async move {
                store.accept(NewTask { id, key, fingerprint: [fingerprint; 16], ..task() }).await.unwrap()
            })
        };
        for (id, key) in [(Some("a"), None), (None, Some("a"))] {
            let callers: Vec<_> = (0..100).map(|_| submit(id, key, 1)).collect();
            let mut answers = Vec::new();
            for caller in callers {
                answers.push(caller.await.unwrap());
            }
            let new: Vec<_> = answers.iter().filter(|answer| matches!(answer, SubmitOutcome::New(_))).collect();
            assert_eq!(new.len(), 1, "{answers:?}");
            assert!(answers.iter().all(|answer| answer.number() == new[0].number()), "{answers:?}");
            assert!(
                matches!(submit(id, key, 2).await.unwrap(), SubmitOutcome::Conflict(_)),
                "another body is no repetition"
            );
        }
        assert_eq!(store.count(TaskFilter::default(), 1_000).await.unwrap(), 2);
        let other = NewTask { function: Arc::from("g"), id: Some("a".to_owned()), ..task() };
        assert!(matches!(store.accept(other).await.unwrap(), SubmitOutcome::New(_)), "ids belong to functions");
    }

    pub(super) async fn a_step_needs_state_and_epoch(store: Store) {
        let number = add(&store, task()).await;
        let before = look(store.as_ref(), number).await;
        let mut stale = claim(&before, 1);
        stale.epoch = 4;
        assert!(!store.advance(stale).await.unwrap().applied);
        let mut wrong = claim(&before, 1);
        wrong.from = TaskState::Retrying;
        assert!(!store.advance(wrong).await.unwrap().applied);
        assert_eq!(look(store.as_ref(), number).await, before, "a refused step leaves no trace");
        assert!(store.advance(claim(&before, 1)).await.unwrap().applied);
        assert!(!store.advance(claim(&before, 1)).await.unwrap().applied, "nobody claims twice");
        let after = look(store.as_ref(), number).await;
        assert_eq!((after.now.state, after.now.epoch, after.now.boot), (TaskState::Running, 1, 1));
        assert_eq!(values(&after), ["\"Running\""]);
        let retry = TaskProgress {
            state: TaskState::Retrying,
            run_at: 5_000,
            errors: 1,
            status: 500,
            error_kind: Some("UnhandledInvocationError".to_owned()),
            error: Some("it said no".to_owned()),
            ..after.now.clone()
        };
        assert!(store.advance(step(&after, retry.clone(), "\"Retrying\"")).await.unwrap().applied);
        let again = look(store.as_ref(), number).await;
        assert_eq!(values(&again), ["\"Running\"", "\"Retrying\""]);
        assert_eq!(again.now, retry);
        assert!(!store.advance(TaskNumberStep::unknown(&after)).await.unwrap().applied);
    }

    struct TaskNumberStep;
    impl TaskNumberStep {
        /// A step of a task that there never was.
        fn unknown(of: &crate::tasks::Task) -> crate::tasks::Step {
            let mut step = claim(of, 1);
            step.number = TaskNumber(999_999);
            step
        }
    }

    pub(super) async fn steps_of_one_commit_stand_for_themselves(store: Store) {
        let mut steps = Vec::new();
        for _ in 0..3 {
            let number = add(&store, task()).await;
            steps.push(claim(&look(store.as_ref(), number).await, 1));
        }
        steps[1].epoch = 9;
        let applied: Vec<bool> = store.advance_all(steps).await.unwrap().iter().map(|step| step.applied).collect();
        assert_eq!(applied, [true, false, true]);
        let running = TaskFilter { states: vec![TaskState::Running], ..TaskFilter::default() };
        assert_eq!(store.count(running, 10).await.unwrap(), 2);
    }

    pub(super) async fn the_first_of_two_ends_wins(store: Store) {
        let number = claimed(&store).await;
        let running = look(store.as_ref(), number).await;
        let ends = [TaskState::Succeeded, TaskState::Stopped, TaskState::Failed].map(|state| {
            let (store, step) = (store.clone(), end(&running, state));
            kip_host::tasks::spawn("end", async move { store.advance(step).await.unwrap().applied })
        });
        let mut won = 0;
        for end in ends {
            won += u32::from(end.await.unwrap());
        }
        assert_eq!(won, 1);
        let over = look(store.as_ref(), number).await;
        assert!(over.now.state.is_terminal());
        assert_eq!(values(&over).iter().filter(|value| value.contains("over")).count(), 1);
    }

    fn values(task: &crate::tasks::Task) -> Vec<&str> {
        task.events.iter().map(|event| event.value.as_str()).collect()
    }

    pub(super) async fn reports_of_progress_are_bounded_and_keep_their_numbers(store: Store) {
        let number = claimed(&store).await;
        for report in 0..250 {
            assert!(store.note_progress(number, 1, 3_000 + report, format!("{report} of 250")).await.unwrap());
        }
        let running = look(store.as_ref(), number).await;
        assert_eq!(running.progress.as_deref(), Some("249 of 250"));
        assert!(store.advance(end(&running, TaskState::Succeeded)).await.unwrap().applied);
        let over = look(store.as_ref(), number).await;
        assert_eq!(over.events.len(), 102, "the claim, the latest hundred reports, the end");
        let found: Vec<(u64, &str)> = over.events.iter().map(|event| (event.number, event.value.as_str())).collect();
        assert_eq!(found[0], (2, "\"Running\""));
        assert_eq!(found[1], (153, r#"{"Progress":{"text":"150 of 250"}}"#));
        assert_eq!(found[101], (253, "\"over\""));
        assert_eq!(store.forget(vec![number]).await.unwrap(), 1);
    }

    pub(super) async fn a_step_can_name_the_function_and_the_claim_its_server(store: Store) {
        let number = add(&store, NewTask { function_id: FunctionId(3), ..task() }).await;
        let before = look(store.as_ref(), number).await;
        assert_eq!(before.function_id, FunctionId(3));
        let mut other = claim(&before, 1);
        other.function = Some(FunctionId(4));
        assert!(!store.advance(other).await.unwrap().applied, "a name made again is another function");
        let mut own = claim(&before, 1);
        own.function = Some(FunctionId(3));
        (own.to.server, own.to.revision) = (Arc::from("abc"), 7);
        assert!(store.advance(own).await.unwrap().applied);
        let running = look(store.as_ref(), number).await;
        assert_eq!((&*running.now.server, running.now.boot, running.now.revision), ("abc", 1, 7));
        let open = store.open(TaskNumber(0), 10).await.unwrap();
        assert_eq!((&*open[0].now.server, open[0].function_id), ("abc", FunctionId(3)));
    }

    pub(super) async fn steps_are_numbered_in_the_order_of_their_commits(store: Store) {
        let mut last = 0;
        for _ in 0..3 {
            let number = add(&store, task()).await;
            let claimed = store.advance(claim(&look(store.as_ref(), number).await, 1)).await.unwrap();
            assert!(claimed.order > last);
            let over = end(&look(store.as_ref(), number).await, TaskState::Failed);
            last = store.advance(over).await.unwrap().order;
            assert!(last > claimed.order);
        }
    }

    pub(super) async fn a_late_claim_changes_nothing(store: Store) {
        let number = claimed(&store).await;
        assert_eq!(store.renew(vec![(number, 1), (number, 2)], 40_000).await.unwrap(), [true, false]);
        assert_eq!(look(store.as_ref(), number).await.now.lease_until, 40_000);
        assert!(store.note_progress(number, 1, 2_500, "half".to_owned()).await.unwrap());
        assert!(!store.note_progress(number, 2, 2_500, "all".to_owned()).await.unwrap());
        let running = look(store.as_ref(), number).await;
        assert_eq!(running.progress.as_deref(), Some("half"));
        // Somebody else has claimed it.
        let lost = TaskProgress { state: TaskState::Running, epoch: 2, ..running.now.clone() };
        assert!(store.advance(step(&running, lost, "\"lost\"")).await.unwrap().applied);
        assert!(!store.advance(end(&running, TaskState::Succeeded)).await.unwrap().applied);
        assert_eq!(store.renew(vec![(number, 1)], 50_000).await.unwrap(), [false]);
        let mut over = end(&look(store.as_ref(), number).await, TaskState::Succeeded);
        over.output = Some(Output { head: "200".to_owned(), body: Bytes::from_static(b"done") });
        assert!(store.advance(over).await.unwrap().applied);
        assert_eq!(store.renew(vec![(number, 2)], 60_000).await.unwrap(), [false], "what is over has no claim");
        assert!(!store.note_progress(number, 2, 2_500, "more".to_owned()).await.unwrap());
        assert_eq!(store.output(number).await.unwrap().unwrap().body, "done");
    }

    pub(super) async fn large_payloads_and_results_come_back(store: Store) {
        let large = Bytes::from((0..300_000u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<u8>>());
        let mut numbers = Vec::new();
        for _ in 0..2 {
            let number = add(&store, NewTask { payload: large.clone(), ..task() }).await;
            let mut over = end(&look(store.as_ref(), number).await, TaskState::Succeeded);
            over.output = Some(Output { head: "200".to_owned(), body: large.clone() });
            assert!(store.advance(over).await.unwrap().applied);
            numbers.push(number);
        }
        let (first, second) = (numbers[0], numbers[1]);
        assert_eq!(store.forget(vec![first]).await.unwrap(), 1);
        assert_eq!(store.payload(second).await.unwrap().unwrap(), large, "what two refer to stays for the second");
        assert_eq!(store.output(second).await.unwrap().unwrap().body, large);
        assert_eq!(store.payload(first).await.unwrap(), None);
        let empty = add(&store, NewTask { payload: Bytes::new(), ..task() }).await;
        assert_eq!(store.payload(empty).await.unwrap().unwrap(), "");
    }

    pub(super) async fn open_tasks_are_listed_in_order(store: Store) {
        let mut numbers = Vec::new();
        for _ in 0..7 {
            numbers.push(add(&store, task()).await);
        }
        let over = end(&look(store.as_ref(), numbers[3]).await, TaskState::Succeeded);
        assert!(store.advance(over).await.unwrap().applied);
        let first = store.open(TaskNumber(0), 4).await.unwrap();
        let rest = store.open(first[3].number, 4).await.unwrap();
        let seen: Vec<_> = first.iter().chain(&rest).map(|task| task.number).collect();
        numbers.remove(3);
        assert_eq!(seen, numbers);
    }

    pub(super) async fn lists_filter_and_page(store: Store) {
        for n in 0..10u8 {
            let function: Arc<str> = if n < 8 { Arc::from("f") } else { Arc::from("g") };
            let id = (n % 2 == 0).then(|| format!("even-{n}"));
            let tenant: Arc<str> = if n == 5 { Arc::from("acme") } else { Arc::from("default") };
            let number = add(&store, NewTask { function, id, tenant, kind: n % 3, ..task() }).await;
            if n < 3 {
                let mut step = claim(&look(store.as_ref(), number).await, 1);
                step.to.started = 2_000 + i64::from(n);
                assert!(store.advance(step).await.unwrap().applied);
            }
        }
        let numbers = async |filter: TaskFilter| -> Vec<u64> {
            let limit = if filter.limit == 0 { 100 } else { filter.limit };
            store.list(TaskFilter { limit, ..filter }).await.unwrap().iter().map(|task| task.number.0).collect()
        };
        let of = |function: &str| TaskFilter { function: Some(function.to_owned()), ..TaskFilter::default() };
        assert_eq!(numbers(of("g")).await, [10, 9], "newest first");
        assert_eq!(numbers(TaskFilter { ascending: true, limit: 3, ..of("f") }).await, [1, 2, 3]);
        let page = TaskFilter { ascending: true, after: Some(TaskNumber(3)), limit: 3, ..of("f") };
        assert_eq!(numbers(page).await, [4, 5, 6]);
        let page = TaskFilter { after: Some(TaskNumber(3)), ..of("f") };
        assert_eq!(numbers(page).await, [2, 1]);
        let states = TaskFilter { states: vec![TaskState::Running, TaskState::Retrying], ..of("f") };
        assert_eq!(numbers(states.clone()).await, [3, 2, 1]);
        assert_eq!(store.count(states, 2).await.unwrap(), 2, "no further than asked");
        assert_eq!(numbers(TaskFilter { prefix: Some("even-".to_owned()), ..of("f") }).await, [7, 5, 3, 1]);
        assert_eq!(numbers(TaskFilter { prefix: Some("t2".to_owned()), ..of("f") }).await, [2]);
        assert_eq!(numbers(TaskFilter { prefix: Some("%".to_owned()), ..of("f") }).await, [] as [u64; 0]);
        let started = TaskFilter { started_from: Some(2_001), started_to: Some(2_001), ..of("f") };
        assert_eq!(numbers(started).await, [2]);
        assert_eq!(numbers(TaskFilter { tenant: Some("acme".to_owned()), ..TaskFilter::default() }).await, [6]);
        assert_eq!(numbers(TaskFilter { kind: Some(2), ..TaskFilter::default() }).await, [9, 6, 3]);
        assert_eq!(numbers(TaskFilter { qualifier: Some("prod".to_owned()), ..of("f") }).await, [] as [u64; 0]);
    }

    pub(super) async fn words_are_stored_with_the_end_and_outlive_attempts(store: Store) {
        let number = claimed(&store).await;
        let word = |name: &str| NewDelivery { target: name.to_owned(), run_at: 3_000 };
        let mut late = end(&look(store.as_ref(), number).await, TaskState::Failed);
        late.epoch = 0;
        late.deliveries = vec![word("never")];
        assert!(!store.advance(late).await.unwrap().applied);
        assert_eq!(store.deliveries().await.unwrap(), [], "an end that is refused sends nothing");
        let mut over = end(&look(store.as_ref(), number).await, TaskState::Succeeded);
        over.deliveries = vec![word("a"), word("b")];
        let caused = store.advance(over).await.unwrap().deliveries;
        let words = store.deliveries().await.unwrap();
        assert_eq!(caused, words.iter().map(|word| word.id).collect::<Vec<_>>());
        assert_eq!(
            words.iter().map(|word| (word.task, word.target.as_str())).collect::<Vec<_>>(),
            [(number, "a"), (number, "b")]
        );
        let again = DeliveryOutcome::Again { run_at: 9_000, outcome: "a answered 503".to_owned() };
        store.delivered(words[0].id, again).await.unwrap();
        store.delivered(words[1].id, DeliveryOutcome::Done { outcome: "b took it".to_owned() }).await.unwrap();
        let left = store.deliveries().await.unwrap();
        assert_eq!((left.len(), left[0].attempts, left[0].run_at), (1, 1, 9_000));
        store.delivered(words[0].id, DeliveryOutcome::Done { outcome: "a took it".to_owned() }).await.unwrap();
        assert_eq!(store.deliveries().await.unwrap(), []);
        let lines = look(store.as_ref(), number).await.destinations;
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(lines.contains("a took it") && lines.contains("b took it"), "{lines}");
        // A receiver tells repetitions by the number, so none comes back when the list is empty.
        let number = claimed(&store).await;
        let mut over = end(&look(store.as_ref(), number).await, TaskState::Succeeded);
        over.deliveries = vec![word("c")];
        let later = store.advance(over).await.unwrap().deliveries;
        assert!(later.iter().all(|id| !caused.contains(id)), "{later:?} after {caused:?}");
    }

    pub(super) async fn configurations_are_kept_by_function_and_qualifier(store: Store) {
        let put = async |function: &str, qualifier: &str, text: Option<&str>| {
            let text = text.map(str::to_owned);
            store.put_config(function.to_owned(), qualifier.to_owned(), text).await.unwrap();
        };
        put("f", "LATEST", Some("one")).await;
        put("f", "prod", Some("two")).await;
        put("f", "LATEST", Some("three")).await;
        put("g", "LATEST", Some("four")).await;
        put("g", "LATEST", None).await;
        let row = |qualifier: &str, text: &str| ("f".to_owned(), qualifier.to_owned(), text.to_owned());
        assert_eq!(store.configs().await.unwrap(), [row("LATEST", "three"), row("prod", "two")]);
    }

    pub(super) async fn what_is_over_is_forgotten_and_the_rest_stays(store: Store) {
        let named = NewTask { id: Some("x".to_owned()), key: Some("k".to_owned()), ..task() };
        let over = add(&store, named.clone()).await;
        let step = end(&look(store.as_ref(), over).await, TaskState::Succeeded);
        assert!(store.advance(step).await.unwrap().applied);
        let waits = add(&store, task()).await;
        assert_eq!(store.forget(vec![over, waits, TaskNumber(77)]).await.unwrap(), 1);
        assert_eq!(store.task(over).await.unwrap(), None);
        assert!(store.task(waits).await.unwrap().is_some());
        assert_eq!(store.find("f".to_owned(), "x".to_owned()).await.unwrap(), None);
        assert!(matches!(store.accept(named).await.unwrap(), SubmitOutcome::New(_)), "id and key are free again");
    }

    pub(super) async fn pruning_goes_by_age_and_waits_for_words(store: Store) {
        let mut numbers = Vec::new();
        for n in 0..4i64 {
            let number = add(&store, task()).await;
            let mut step = end(&look(store.as_ref(), number).await, TaskState::Succeeded);
            step.to.ended = 1_000 * n;
            if n == 1 {
                step.deliveries = vec![NewDelivery { target: "a".to_owned(), run_at: 0 }];
            }
            assert!(store.advance(step).await.unwrap().applied);
            numbers.push(number);
        }
        let waits = add(&store, task()).await;
        assert_eq!(store.prune(TaskNumber(0), 2_500).await.unwrap(), None, "so few are looked at in one go");
        let left: Vec<_> =
            store.list(TaskFilter { limit: 10, ascending: true, ..TaskFilter::default() }).await.unwrap();
        let left: Vec<_> = left.iter().map(|task| task.number).collect();
        assert_eq!(left, [numbers[1], numbers[3], waits]);
    }
}
