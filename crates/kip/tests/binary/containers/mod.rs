//! Containers: the tests of other modules on each engine, and what only containers can do.

mod engines;
mod files;
mod images;
mod jobs;
mod own_engine;
mod pools;
mod registry;
mod restarts;

use crate::bodies::{Engine, on};

/// Tests that processes have as well, on each engine.
macro_rules! on_engines {
    ($($module:ident: $($test:ident),+;)+) => {
        mod docker {
            $($(#[test]
            fn $test() {
                super::on(super::Engine::Docker, crate::$module::$test);
            })+)+
        }
        mod podman {
            $($(#[test]
            fn $test() {
                super::on(super::Engine::Podman, crate::$module::$test);
            })+)+
        }
    };
}

on_engines! {
    lifecycle:
        a_request_longer_than_every_idle_time_is_left_alone,
        first_requests_share_one_start,
        programs_that_resist_their_end,
        hooks_are_called,
        a_new_version_takes_over_when_it_is_ready,
        removal_while_requests_are_under_way,
        a_server_that_ends_lets_requests_finish;
    adoption:
        a_killed_server_loses_no_instance_hot_or_asleep,
        sigterm_keeps_instances_and_says_so,
        requests_in_flight_at_a_crash_with_eight_at_a_time;
    ladder:
        an_idle_engine_is_asked_to_sleep_and_wakes_before_the_next_request,
        a_server_killed_at_each_step_of_the_ladder_goes_on;
    exec:
        bytes_go_both_ways_and_the_exit_code_comes_back,
        a_terminal_is_one,
        a_sleeping_instance_wakes_and_stays_awake,
        what_a_session_started_ends_with_its_client,
        a_session_ends_with_its_instance_and_with_its_server;
    hostile:
        cpu_is_limited;
    logs:
        no_line_is_lost_when_the_server_is_killed;
}

/// Podman 4.3 does not say that a container was killed for memory where cgroups have version 1.
mod memory {
    #[test]
    fn one_that_eats_memory_to_its_limit_is_named() {
        super::on(super::Engine::Docker, crate::hostile::one_that_eats_memory_to_its_limit_is_named);
    }

    #[test]
    fn one_that_eats_memory_at_its_start_is_named() {
        super::on(super::Engine::Docker, crate::hostile::one_that_eats_memory_at_its_start_is_named);
    }
}

/// Tests of this folder, on each engine.
macro_rules! each_engine {
    ($($test:ident),+ $(,)?) => {
        mod docker {
            $(#[test]
            fn $test() {
                crate::bodies::on(crate::bodies::Engine::Docker, super::$test);
            })+
        }
        mod podman {
            $(#[test]
            fn $test() {
                crate::bodies::on(crate::bodies::Engine::Podman, super::$test);
            })+
        }
    };
}
pub(crate) use each_engine;
