//! The real binary with real processes: a server of its own for each test, on free ports and in its own folder.
//!
//! The program under it is `examples/subject.rs`. Nothing here waits for a fixed time: every wait is for a condition,
//! with a deadline that only a broken server meets.
#![expect(clippy::unwrap_used, reason = "this crate is a test as a whole; the linter only knows functions marked so")]
#![expect(clippy::print_stderr, reason = "a failed test shows its server's log")]

mod adoption;
mod bad_input;
mod bench;
mod bodies;
mod brain;
mod clients;
mod code;
mod commands;
mod containers;
mod crash;
mod datasets;
mod devices;
mod doors;
mod environment;
mod example_users;
mod examples;
mod exec;
mod fc;
mod fc_access;
mod fc_upload;
mod fc_web;
mod fc_whole;
mod files;
mod first_day;
mod floods;
mod fun;
mod gpu;
mod guard;
mod hardening;
mod held;
mod hostile;
mod http;
mod jobs;
mod journey;
mod keys;
mod ladder;
mod lifecycle;
mod local_doors;
mod logs;
mod metrics;
mod model_cache;
mod models;
mod pages;
mod pipelines;
mod planted_door;
mod protocols;
mod real_engines;
mod relay;
mod rollouts;
mod runs;
mod safety;
mod scaling;
mod secrets;
mod service;
mod sharing;
mod simulate;
mod stops;
mod storage;
mod strays;
mod support;
mod task_versions;
mod tasks;
mod tasks_faults;
mod tenants;
mod versions;
