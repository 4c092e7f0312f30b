//! Decision tables, written from Function Compute's formulas.

use kip_spec::scaling::provision::{FireTime, ScheduledAction, Tracking, Window, shown};
use kip_spec::{Finite, Millis};

use super::*;

fn at(text: &str) -> i64 {
    kip_spec::scaling::zone::moment(text, &kip_spec::scaling::zone::find("").expect("UTC")).expect("a time")
}

fn window(start: &str, end: &str) -> Window {
    let edge = |text: &str| (!text.is_empty()).then(|| at(text));
    Window::new(edge(start), edge(end), "").expect("UTC")
}

fn july() -> Tracking {
    Tracking {
        name: "track".to_owned(),
        window: window("2024-07-01T00:00:00Z", "2024-07-30T00:00:00Z"),
        metric: Metric::Concurrency,
        target: Finite::constant(0.3),
        min: 1,
        max: 10,
    }
}

fn action(name: &str, cron: &str, target: u32) -> ScheduledAction {
    let when = FireTime::Cron(cron.parse().expect("a cron"));
    ScheduledAction {
        name: name.to_owned(),
        window: window("2024-07-01T00:00:00Z", "2024-07-30T00:00:00Z"),
        when,
        target,
    }
}

fn settings(default_target: u32, tracking: Vec<Tracking>, scheduled: Vec<ScheduledAction>) -> Settings {
    Settings {
        period: Millis::from_secs(60),
        ..Settings::new(Provision { default_target, tracking, scheduled, ..Provision::default() })
    }
}

/// Time, utilisation, current; target, and a part of the reason.
type Row<'a> = (&'a str, Option<f64>, u32, u32, &'a str);

#[track_caller]
fn decides(settings: &Settings, rows: &[Row<'_>]) {
    let mut tracker = Tracker::new(&settings.provision);
    for (time, utilization, current, target, reason) in rows {
        let metrics = utilization.map_or(Metrics::default(), |value| only(Metric::Concurrency, value));
        let decided = tracker.period(settings, at(time), metrics, *current);
        let why = decided.why.tell(settings);
        assert_eq!(decided.target, *target, "at {time}: {why}");
        assert!(why.contains(reason), "at {time}: {why}");
    }
}

#[test]
fn a_metric_is_followed_within_its_window() {
    decides(
        &settings(1, vec![july()], vec![]),
        &[
            ("2024-06-30T23:59:59Z", Some(0.9), 1, 1, "its window begins at 2024-07-01T00:00:00Z"),
            ("2024-07-01T00:00:00Z", Some(0.6), 2, 4, "above since 2024-07-01T00:00:00Z: 2 × metric ÷ target"),
            ("2024-07-01T00:01:00Z", Some(0.6), 7, 10, "held by maxCapacity"),
            ("2024-07-01T00:02:00Z", Some(0.3), 10, 10, "at its target"),
            ("2024-07-01T00:03:00Z", Some(0.15), 10, 5, "below since 2024-07-01T00:03:00Z"),
            ("2024-07-01T00:04:00Z", None, 5, 5, "not measured"),
            ("2024-07-01T00:05:00Z", Some(0.0), 5, 1, "held by minCapacity"),
            ("2024-07-30T00:00:00Z", Some(0.9), 10, 1, "its window ended at 2024-07-30T00:00:00Z"),
        ],
    );
}

#[test]
fn a_metric_must_hold_and_shrinking_is_damped() {
    let held = Settings { hold: 3, coefficient: Finite::constant(0.5), ..settings(0, vec![july()], vec![]) };
    decides(
        &held,
        &[
            ("2024-07-02T00:00:00Z", Some(0.6), 2, 2, "for 1 of 3 periods"),
            ("2024-07-02T00:01:00Z", Some(0.6), 2, 2, "for 2 of 3 periods"),
            ("2024-07-02T00:02:00Z", Some(0.6), 2, 4, "above since 2024-07-02T00:00:00Z"),
            ("2024-07-02T00:03:00Z", Some(0.1), 4, 4, "for 1 of 3 periods"),
            ("2024-07-02T00:04:00Z", Some(0.6), 4, 4, "for 1 of 3 periods"),
            ("2024-07-02T00:05:00Z", Some(0.15), 8, 4, "for 1 of 3"),
            ("2024-07-02T00:06:00Z", Some(0.15), 8, 4, "for 2 of 3"),
            // 8 - 8 * 0.5 * (1 - 0.15 / 0.3)
            ("2024-07-02T00:07:00Z", Some(0.15), 8, 6, "8 less 0.5 × (1 − metric ÷ target)"),
        ],
    );
}

#[test]
fn the_schedule_that_fired_last_holds_and_the_largest_counts() {
    let day = action("day", "0 0 8 * * *", 5);
    let night = action("night", "0 0 20 * * *", 2);
    let both = settings(1, vec![], vec![day.clone(), night.clone()]);
    decides(
        &both,
        &[
            ("2024-06-15T12:00:00Z", None, 0, 1, "none of 2 policies is active"),
            ("2024-07-01T07:59:59Z", None, 0, 1, "it fires first at 2024-07-01T08:00:00Z"),
            ("2024-07-01T08:00:00Z", None, 0, 5, "`day`, fired at 2024-07-01T08:00:00Z"),
            ("2024-07-01T19:59:59Z", None, 5, 5, "`day`"),
            ("2024-07-01T20:00:00Z", None, 5, 2, "`night`"),
            ("2024-07-02T03:00:00Z", None, 2, 2, "`night`, fired at 2024-07-01T20:00:00Z"),
            ("2024-07-30T00:00:00Z", None, 2, 1, "none of 2 policies"),
        ],
    );
    decides(
        &settings(1, vec![july()], vec![day, night]),
        &[
            ("2024-07-01T09:00:00Z", Some(0.6), 1, 5, "`day`"),
            ("2024-07-01T09:01:00Z", Some(0.6), 5, 10, "policy `track`"),
            ("2024-07-01T21:00:00Z", Some(0.03), 10, 2, "`night`"),
        ],
    );
    let provision = &both.provision;
    assert_eq!(provision.standing(0, at("2024-07-02T03:00:00Z")), Err(InactiveReason::Replaced));
    assert_eq!(provision.standing(1, at("2024-07-02T03:00:00Z")), Ok(()));
    let over = InactiveReason::Over { end: at("2024-07-30T00:00:00Z") };
    assert_eq!(provision.standing(1, at("2024-08-02T03:00:00Z")), Err(over));
    let next = |time| provision.next_change(at(time)).map(shown);
    assert_eq!(next("2024-07-02T03:00:00Z").as_deref(), Some("2024-07-02T08:00:00Z"));
    assert_eq!(next("2024-07-29T21:00:00Z").as_deref(), Some("2024-07-30T00:00:00Z"));
    assert_eq!(next("2024-08-01T00:00:00Z"), None);
}

#[test]
fn once_and_never() {
    let once = ScheduledAction { when: FireTime::At(at("2024-07-03T10:00:00Z")), ..action("once", "0 0 0 * * *", 7) };
    let late = ScheduledAction { when: FireTime::At(at("2024-08-03T10:00:00Z")), ..action("late", "0 0 0 * * *", 7) };
    decides(
        &settings(1, vec![], vec![once]),
        &[("2024-07-03T09:59:59Z", None, 1, 1, "it fires first"), ("2024-07-29T00:00:00Z", None, 1, 7, "`once`")],
    );
    decides(
        &settings(1, vec![], vec![late]),
        &[("2024-07-03T09:59:59Z", None, 1, 1, "does not fire within its window")],
    );
}

#[test]
fn utilization_is_of_places() {
    assert_eq!([utilization(3.0, 2, 3), utilization(1.0, 0, 3), utilization(1.0, 2, 0)], [Some(0.5), None, Some(0.5)]);
}
