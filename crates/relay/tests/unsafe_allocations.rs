//! Counting a request allocates nothing. An allocator that counts is unsafe by its nature, which is all that is unsafe here.
#![expect(unsafe_code, reason = "an allocator cannot be written otherwise")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kip_fleet::StartKind;
use kip_records::metrics::{Metrics, Observation};
use kip_spec::FunctionName;

thread_local! {
    /// Of this thread: the harness has others.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct CountingAllocator;

// SAFETY: everything is handed on to the system's allocator as it comes; counting does not allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps what the trait asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: it came from `alloc` above, so from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn counting_a_request_allocates_nothing_once_its_series_are_there() {
    let metrics = Metrics::new(2);
    let meter = metrics.meter();
    let names: Vec<FunctionName> = (0..3).map(|number| format!("f{number}").parse().unwrap()).collect();
    let observe = |total: u64| {
        for (number, name) in (0..).zip(&names) {
            for status in [200, 503] {
                let code = (status == 503).then_some(kip_spec::code::QUEUE_TIMEOUT);
                let start = Some(StartKind::Warm);
                let (version, queue, first_byte) = (Some(7), total / 3, total / 2);
                let qualifier = Some(&kip_spec::qualifier::QualifierName::Number(3));
                let seen = Observation {
                    version,
                    qualifier,
                    status,
                    start,
                    code,
                    queue,
                    first_byte,
                    total,
                    bytes_in: 1,
                    bytes_out: 2,
                };
                meter.observe(number, name, &seen);
            }
        }
        meter.refused(kip_spec::code::ROUTE_UNKNOWN_FUNCTION);
    };
    observe(1);
    let before = ALLOCATIONS.get();
    assert!(before > 0, "the allocator counts");
    (0..1_000).for_each(|round| observe(round * 997));
    assert_eq!(ALLOCATIONS.get(), before);
    assert_eq!(metrics.counted(|_| true, |_| true).other.latencies().total.count(), 2_002, "and all were counted");
}
