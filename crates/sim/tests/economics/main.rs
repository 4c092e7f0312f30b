//! What policies cost and how long requests wait, on traces of real services.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tests show what they measured")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod policies;
mod traces;

use kip_spec::scaling::Class;

use policies::{auto, grid, play};

#[test]
fn frontier() {
    for workload in
        [traces::conversation(), traces::code(), traces::images(), traces::tide(), traces::models(), traces::sparse_functions()]
            .into_iter()
            .flatten()
    {
        for class in [Class::Economy, Class::Balanced, Class::Latency] {
            play(&workload, auto(class));
        }
        if kip_host::environment::read("ECO_GRID").is_none() {
            continue;
        }
        for policy in grid(&workload.times) {
            play(&workload, policy);
        }
    }
}
