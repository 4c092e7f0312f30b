//! What is counted of requests. Each thread of the data plane has a meter of its own, which nobody else touches but for the
//! moment of a scrape: counting a request shares no cache line with another thread and allocates nothing once its series
//! are there.
//!
//! Labels are bounded: so many functions have series of their own, for as long as they exist; all others are counted together.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kip_fleet::StartKind;
use kip_spec::qualifier::QualifierName;
use kip_spec::{Code, FunctionName};
use parking_lot::{Mutex, MutexGuard};

/// Upper bounds of the histograms' buckets, in microseconds.
pub const BOUNDS: [u64; 18] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
];

/// Versions of a function that have series of their own; the oldest go.
const VERSIONS: usize = 8;
/// Qualifiers of a function that have series of their own; further ones are counted together.
const QUALIFIERS: usize = 16;
/// Keys whose refusals are counted each by itself.
const KEYS: usize = 1_000;
/// The name under which everything beyond a bound is counted.
pub const OTHER: &str = "other";

/// Durations by their length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many in each of [`BOUNDS`], and beyond the last.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All of them together, in microseconds.
    pub sum: u64,
}

impl Histogram {
    fn observe(&mut self, micros: u64) {
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)] += 1;
        self.sum = self.sum.saturating_add(micros);
    }

    fn add(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// The upper bound of the bucket in which this share of all durations ends, microseconds: 0.99 is the 99th percentile. None without
    /// a duration, or beyond the last bound.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share of a count needs no more than 52 bits")]
        let wanted = share * count as f64;
        let mut below = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS) {
            below += bucket;
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            if below as f64 >= wanted {
                return Some(bound);
            }
        }
        None
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What tells requests of one function apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels {
    /// The version that served it, if one did.
    pub version: Option<u64>,
    /// The first digit of the status; 0 for a caller that left before there was one.
    pub class: u16,
    /// What it waited for.
    pub start: Option<StartKind>,
}

/// What tells requests with a qualifier apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QualifierLabels {
    /// The version or alias as the caller named it; none beyond the number of those that are told apart.
    pub qualifier: Option<QualifierName>,
    /// As in [`Labels`].
    pub class: u16,
}

/// A request that is over. Times in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The version that served it, if one did.
    pub version: Option<u64>,
    /// The version or alias that its caller named.
    pub qualifier: Option<&'a QualifierName>,
    /// The status it was answered with, 0 if its caller left before.
    pub status: u16,
    /// What it waited for.
    pub start: Option<StartKind>,
    /// The error code, where the answer was ours.
    pub code: Option<Code>,
    /// Waiting.
    pub queue: u64,
    /// From sending it on to the answer's head.
    pub first_byte: u64,
    /// From arrival to the end.
    pub total: u64,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
}

/// Durations of the requests of one revision. Never sampled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Waiting.
    pub queue: Histogram,
    /// From sending a request on to the answer's head, where there was one.
    pub first_byte: Histogram,
    /// From arrival to the end.
    pub total: Histogram,
}

impl Latencies {
    fn observe(&mut self, seen: &Observation<'_>) {
        self.queue.observe(seen.queue);
        if seen.first_byte > 0 {
            self.first_byte.observe(seen.first_byte);
        }
        self.total.observe(seen.total);
    }

    fn add(&mut self, other: &Self) {
        self.queue.add(&other.queue);
        self.first_byte.add(&other.first_byte);
        self.total.add(&other.total);
    }
}

/// What is known of a revision since the server was started, from counters. Never sampled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Requests that it served.
    pub requests: u64,
    /// Those that were answered with a status of 500 or more.
    pub failed: u64,
    /// Those whose caller left before there was a status.
    pub abandoned: u64,
    /// How long they took.
    pub latencies: Latencies,
}

/// The counters of one function.
#[derive(Debug, Clone, Default)]
pub struct FunctionCounters {
    /// Requests by their labels.
    pub requests: Vec<(Labels, u64)>,
    /// Requests that named a version or an alias.
    pub qualifiers: Vec<(QualifierLabels, u64)>,
    /// Latencies of the requests that a revision served, by its number: the newest eight.
    pub revisions: BTreeMap<u64, Latencies>,
    /// Latencies of all other requests: no revision served them, or an older one.
    pub others: Latencies,
    /// Bytes of requests' bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
}

impl FunctionCounters {
    fn observe(&mut self, seen: &Observation<'_>, versions: bool) {
        let version = seen.version.filter(|_| versions);
        let labels = Labels { version, class: seen.status / 100, start: seen.start };
        self.count(labels, 1);
        if let Some(qualifier) = seen.qualifier.filter(|_| versions) {
            self.count_qualifier(Some(qualifier), labels.class, 1);
        }
        match version {
            Some(version) => {
                self.revisions.entry(version).or_default().observe(seen);
                self.merge_oldest();
            }
            None => self.others.observe(seen),
        }
        self.bytes_in = self.bytes_in.saturating_add(seen.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(seen.bytes_out);
    }

    /// The sum of a function's latencies never falls: what is not told apart any more is counted with the others.
    fn merge_oldest(&mut self) {
        while self.revisions.len() > VERSIONS {
            if let Some((_, oldest)) = self.revisions.pop_first() {
                self.others.add(&oldest);
            }
        }
    }

    /// Latencies of all requests.
    pub fn latencies(&self) -> Latencies {
        let mut sum = self.others.clone();
        self.revisions.values().for_each(|revision| sum.add(revision));
        sum
    }

    /// What is known of a revision.
    pub fn evidence(&self, revision: u64) -> Evidence {
        let of = |labels: &Labels| labels.version == Some(revision);
        let mut evidence =
            Evidence { latencies: self.revisions.get(&revision).cloned().unwrap_or_default(), ..Evidence::default() };
        for (labels, count) in self.requests.iter().filter(|(labels, _)| of(labels)) {
            evidence.requests += count;
            match labels.class {
                0 => evidence.abandoned += count,
                5.. => evidence.failed += count,
                _ => {}
            }
        }
        evidence
    }

    fn count(&mut self, labels: Labels, more: u64) {
        if let Some((_, count)) = self.requests.iter_mut().find(|(known, _)| *known == labels) {
            *count += more;
            return;
        }
        self.requests.push((labels, more));
        let mut versions: Vec<u64> = self.requests.iter().filter_map(|(labels, _)| labels.version).collect();
        versions.sort_unstable();
        versions.dedup();
        if let Some(oldest) = versions.len().checked_sub(VERSIONS).and_then(|over| versions.get(over)) {
            self.requests.retain(|(labels, _)| labels.version.is_none_or(|version| version >= *oldest));
        }
    }

    fn count_qualifier(&mut self, qualifier: Option<&QualifierName>, class: u16, more: u64) {
        let is_known = self.qualifiers.iter().any(|(known, _)| known.qualifier.as_ref() == qualifier);
        let has_room = is_known || {
            let named: BTreeSet<_> = self.qualifiers.iter().filter_map(|(known, _)| known.qualifier.as_ref()).collect();
            named.len() < QUALIFIERS
        };
        let qualifier = qualifier.filter(|_| has_room);
        let of = |labels: &QualifierLabels| labels.class == class && labels.qualifier.as_ref() == qualifier;
        match self.qualifiers.iter_mut().find(|(labels, _)| of(labels)) {
            Some((_, count)) => *count += more,
            None => self.qualifiers.push((QualifierLabels { qualifier: qualifier.cloned(), class }, more)),
        }
    }

    fn add(&mut self, other: &Self) {
        for (labels, count) in &other.requests {
            self.count(*labels, *count);
        }
        for (labels, count) in &other.qualifiers {
            self.count_qualifier(labels.qualifier.as_ref(), labels.class, *count);
        }
        self.others.add(&other.others);
        for (version, latencies) in &other.revisions {
            self.revisions.entry(*version).or_default().add(latencies);
        }
        self.merge_oldest();
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
    }
}

#[derive(Debug)]
enum Page {
    Own(Box<(FunctionName, FunctionCounters)>),
    Other,
}

#[derive(Debug, Default)]
struct Book {
    /// By the number of the function's cell.
    pages: HashMap<u32, Page>,
    other: FunctionCounters,
    refusals: HashMap<Code, u64>,
}

/// The counters of one thread. Aligned, so that two threads' do not share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Meter {
    book: Mutex<Book>,
    metrics: Metrics,
}

/// Which functions have series of their own. Whoever was counted among the others stays there: a counter must not fall.
#[derive(Debug, Default)]
struct Names {
    own: HashSet<u32>,
    other: HashSet<u32>,
}

/// All meters together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    meters: Mutex<Vec<Arc<Meter>>>,
    names: Mutex<Names>,
    /// How many functions have series of their own.
    most: usize,
    keys: Mutex<BTreeMap<(Arc<str>, &'static str), u64>>,
}

/// Everything that was counted.
#[derive(Debug, Clone, Default)]
pub struct CounterSnapshot {
    /// By function.
    pub functions: BTreeMap<FunctionName, FunctionCounters>,
    /// Of all functions without series of their own.
    pub other: FunctionCounters,
    /// Answers of Kipwake's own, by code.
    pub refusals: BTreeMap<Code, u64>,
    /// Refusals of keys' limits, by key and limit.
    pub keys: BTreeMap<(Arc<str>, &'static str), u64>,
}

impl Metrics {
    /// Nothing is counted yet; `most` functions may have series of their own.
    pub fn new(most: usize) -> Self {
        let (meters, names, keys) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { meters, names, most, keys }) }
    }

    /// A meter for a thread.
    pub fn meter(&self) -> Arc<Meter> {
        let meter = Arc::new(Meter { book: Mutex::default(), metrics: self.clone() });
        lock(&self.shared.meters).push(meter.clone());
        meter
    }

    /// A key's limit refused a request.
    pub fn key_refused(&self, key: &Arc<str>, limit: &'static str) {
        let mut keys = lock(&self.shared.keys);
        let entry = (key.clone(), limit);
        let room = keys.len() < KEYS || keys.contains_key(&entry);
        *keys.entry(if room { entry } else { (OTHER.into(), limit) }).or_default() += 1;
    }

    /// Adds everything up and forgets the series of functions and keys that are gone.
    pub fn counted(&self, is_live: impl Fn(u32) -> bool, is_key: impl Fn(&str) -> bool) -> CounterSnapshot {
        let mut counted = CounterSnapshot::default();
        for meter in lock(&self.shared.meters).iter() {
            let mut book = lock(&meter.book);
            book.pages.retain(|number, _| is_live(*number));
            for page in book.pages.values() {
                if let Page::Own(own) = page {
                    counted.functions.entry(own.0.clone()).or_default().add(&own.1);
                }
            }
            counted.other.add(&book.other);
            for (code, count) in &book.refusals {
                *counted.refusals.entry(*code).or_default() += count;
            }
        }
        let mut names = lock(&self.shared.names);
        names.own.retain(|number| is_live(*number));
        names.other.retain(|number| is_live(*number));
        drop(names);
        let mut keys = lock(&self.shared.keys);
        keys.retain(|(key, _), _| key.as_ref() == OTHER || is_key(key));
        counted.keys = keys.clone();
        counted
    }

    /// What is known of a revision of a function, named by the number of its cell. None for functions that are counted together.
    pub fn evidence(&self, number: u32, revision: u64) -> Option<Evidence> {
        let mut sum = FunctionCounters::default();
        let mut known = false;
        for meter in lock(&self.shared.meters).iter() {
            if let Some(Page::Own(own)) = lock(&meter.book).pages.get(&number) {
                known = true;
                sum.add(&own.1);
            }
        }
        known.then(|| sum.evidence(revision))
    }

    /// Whether a function has series of its own.
    pub fn is_own(&self, number: u32) -> bool {
        let mut names = lock(&self.shared.names);
        if names.own.contains(&number) {
            return true;
        }
        if names.own.len() < self.shared.most && !names.other.contains(&number) {
            names.own.insert(number);
            return true;
        }
        names.other.insert(number);
        false
    }
}

impl Meter {
    /// Counts a request of a function, named by the number of its cell.
    pub fn observe(&self, number: u32, name: &FunctionName, seen: &Observation<'_>) {
        let mut book = lock(&self.book);
        let Book { pages, other, refusals } = &mut *book;
        if let Some(code) = seen.code {
            *refusals.entry(code).or_default() += 1;
        }
        let page = pages.entry(number).or_insert_with(|| match self.metrics.is_own(number) {
            true => Page::Own(Box::new((name.clone(), FunctionCounters::default()))),
            false => Page::Other,
        });
        match page {
            Page::Own(own) => own.1.observe(seen, true),
            // Versions of many functions would be labels without a bound.
            Page::Other => other.observe(seen, false),
        }
    }

    /// Counts an answer of our own to a request that came to no function.
    pub fn refused(&self, code: Code) {
        *lock(&self.book).refusals.entry(code).or_default() += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kip_spec::code;

    fn seen(version: u64, status: u16) -> Observation<'static> {
        Observation {
            version: Some(version),
            qualifier: None,
            status,
            start: Some(StartKind::Warm),
            code: None,
            queue: 10,
            first_byte: 700,
            total: 2_500,
            bytes_in: 3,
            bytes_out: 5,
        }
    }

    fn name(text: &str) -> FunctionName {
        text.parse().unwrap()
    }

    #[test]
    fn qualifiers_are_told_apart_up_to_a_number_of_them() {
        let metrics = Metrics::new(1);
        let meters = [metrics.meter(), metrics.meter()];
        let all: Vec<QualifierName> = (1..=30).map(QualifierName::Number).collect();
        for meter in &meters {
            for qualifier in &all {
                meter.observe(1, &name("a"), &Observation { qualifier: Some(qualifier), ..seen(7, 200) });
                meter.observe(1, &name("a"), &Observation { qualifier: Some(qualifier), ..seen(7, 500) });
                meter.observe(2, &name("b"), &Observation { qualifier: Some(qualifier), ..seen(8, 200) });
            }
            meter.observe(1, &name("a"), &seen(7, 200));
        }
        let counted = metrics.counted(|_| true, |_| true);
        let mut a = counted.functions[&name("a")].qualifiers.clone();
        assert_eq!(a.len(), 2 * (QUALIFIERS + 1));
        let labels =
            |qualifier: Option<u64>, class| QualifierLabels { qualifier: qualifier.map(QualifierName::Number), class };
        a.retain(|(labels, _)| labels.class == 2);
        assert_eq!(a[0], (labels(Some(1), 2), 2));
        assert_eq!(a.last(), Some(&(labels(None, 2), 28)), "the others together");
        assert_eq!(counted.other.qualifiers, [], "no labels of functions that are counted together");
    }

    #[test]
    fn threads_add_up_and_what_is_gone_is_forgotten() {
        let metrics = Metrics::new(10);
        let meters = [metrics.meter(), metrics.meter()];
        for meter in &meters {
            meter.observe(1, &name("a"), &seen(7, 200));
            meter.observe(1, &name("a"), &seen(7, 204));
            meter.observe(2, &name("b"), &Observation { code: Some(code::QUEUE_FULL), first_byte: 0, ..seen(8, 429) });
            meter.refused(code::QUEUE_FULL);
        }
        let counted = metrics.counted(|_| true, |_| true);
        let a = &counted.functions[&name("a")];
        let labels = Labels { version: Some(7), class: 2, start: Some(StartKind::Warm) };
        assert_eq!(a.requests, [(labels, 4)]);
        assert_eq!(
            (
                a.bytes_in,
                a.bytes_out,
                a.latencies().total.sum,
                a.latencies().total.count(),
                a.latencies().first_byte.count()
            ),
            (12, 20, 10_000, 4, 4)
        );
        assert_eq!(counted.functions[&name("b")].latencies().first_byte.count(), 0, "there was no answer to wait for");
        assert_eq!(counted.refusals[&code::QUEUE_FULL], 4);
        let counted = metrics.counted(|number| number == 2, |_| true);
        assert_eq!(counted.functions.keys().map(FunctionName::as_str).collect::<Vec<_>>(), ["b"]);
        assert_eq!(counted.refusals[&code::QUEUE_FULL], 4, "refusals name no function and stay");
    }

    #[test]
    fn a_duration_falls_into_the_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        for micros in [0, 500, 501, 300_000_000, 300_000_001] {
            histogram.observe(micros);
        }
        assert_eq!((histogram.buckets[0], histogram.buckets[1]), (2, 1));
        assert_eq!((histogram.buckets[17], histogram.buckets[18], histogram.count()), (1, 1, 5));
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn functions_beyond_the_bound_are_counted_together_and_never_fall() {
        let metrics = Metrics::new(2);
        let (one, two) = (metrics.meter(), metrics.meter());
        for number in 1..=4 {
            one.observe(number, &name(&format!("f{number}")), &seen(1, 200));
        }
        two.observe(4, &name("f4"), &seen(1, 200));
        let counted = metrics.counted(|_| true, |_| true);
        assert_eq!((counted.functions.len(), counted.other.latencies().total.count()), (2, 3));
        assert!(counted.other.requests.iter().all(|(labels, _)| labels.version.is_none()));
        // One with a name of its own goes; a new one takes its place, those among the others stay there.
        metrics.counted(|number| number != 1, |_| true);
        two.observe(3, &name("f3"), &seen(1, 200));
        two.observe(5, &name("f5"), &seen(1, 200));
        let counted = metrics.counted(|number| number != 1, |_| true);
        let names: Vec<&str> = counted.functions.keys().map(FunctionName::as_str).collect();
        assert_eq!((names, counted.other.latencies().total.count()), (vec!["f2", "f5"], 4));
    }

    #[test]
    fn revisions_are_told_apart() {
        let metrics = Metrics::new(10);
        let meters = [metrics.meter(), metrics.meter()];
        for meter in &meters {
            (0..99).for_each(|_| meter.observe(1, &name("a"), &seen(7, 200)));
            meter.observe(1, &name("a"), &Observation { total: 9_000_000, ..seen(7, 502) });
            meter.observe(1, &name("a"), &Observation { total: 40_000, ..seen(8, 0) });
        }
        let old = metrics.evidence(1, 7).unwrap();
        assert_eq!((old.requests, old.failed, old.abandoned), (200, 2, 0));
        let quantile = |share| old.latencies.total.quantile(share);
        assert_eq!((quantile(0.5), quantile(0.99), quantile(0.999)), (Some(2_500), Some(2_500), Some(10_000_000)));
        let new = metrics.evidence(1, 8).unwrap();
        assert_eq!((new.requests, new.failed, new.abandoned), (2, 0, 2));
        assert_eq!(new.latencies.total.quantile(0.5), Some(50_000));
        assert_eq!(metrics.evidence(1, 9).unwrap(), Evidence::default());
        assert_eq!(metrics.evidence(2, 7), None);
        let all = &metrics.counted(|_| true, |_| true).functions[&name("a")];
        assert_eq!(all.latencies().total.count(), 202, "the function's own are the sum");
    }

    #[test]
    fn old_versions_and_keys_without_end_do_not_grow_it() {
        let metrics = Metrics::new(2);
        let meter = metrics.meter();
        (0..100).for_each(|version| meter.observe(1, &name("a"), &seen(version, 200)));
        let counted = metrics.counted(|_| true, |_| true);
        let versions: Vec<Option<u64>> =
            counted.functions[&name("a")].requests.iter().map(|(labels, _)| labels.version).collect();
        assert_eq!(versions, (92..100).map(Some).collect::<Vec<_>>());
        assert!(counted.functions[&name("a")].revisions.keys().copied().eq(92..100));
        assert_eq!(counted.functions[&name("a")].latencies().total.count(), 100, "the sum never falls");
        (0..2_000).for_each(|key| metrics.key_refused(&format!("k{key}").into(), "rate"));
        let counted = metrics.counted(|_| true, |_| true);
        assert_eq!((counted.keys.len(), counted.keys[&(OTHER.into(), "rate")]), (KEYS + 1, 1_000));
        assert_eq!(metrics.counted(|_| true, |key| key == "k1").keys.len(), 2);
    }
}
