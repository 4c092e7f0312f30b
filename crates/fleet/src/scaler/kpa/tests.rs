//! Decision tables, written from Knative's sources and documents.

use kip_spec::Finite;
use kip_spec::scaling::kpa::Algorithm;

use super::*;

pub(crate) fn settings() -> Settings {
    Settings {
        metric: Metric::Concurrency,
        target: Finite::whole(10),
        total: Finite::constant(10.0 / 0.75),
        algorithm: Algorithm::Linear,
        stable_window: Millis::from_secs(60),
        panic_window: Millis::from_secs(6),
        panic_threshold: Finite::whole(2),
        min_scale: 0,
        max_scale: 0,
        initial_scale: 1,
        activation_scale: 0,
        scale_down_delay: Millis(0),
        retention: Millis(0),
        grace: Millis::from_secs(30),
        scale_to_zero: true,
        target_burst_capacity: Finite::whole(100),
        activator_capacity: Finite::whole(150),
        max_scale_up_rate: Finite::whole(10),
        max_scale_down_rate: Finite::whole(10),
        progress_deadline: Millis::from_secs(600),
        declared: Default::default(),
    }
}

/// Seconds, ready instances, stable and panic average; desired, in panic, excess.
type Row = (u64, u32, f64, f64, i32, bool, i32);

#[track_caller]
fn decides(name: &str, settings: &Settings, ready: u32, rows: &[Row]) {
    let mut kpa = Kpa::new(settings, 0, ready, true);
    for (number, (second, ready, stable, panic, desired, panics, excess)) in rows.iter().copied().enumerate() {
        let averages = Some(Averages { stable, panic });
        let decision = kpa.decide(settings, second * 1_000, averages, Some(ready), true);
        let got = (decision.desired, decision.panic, decision.excess_burst_capacity);
        assert_eq!(got, (Some(desired), panics, excess), "{name}, line {number}: {}", decision.why);
    }
}

#[test]
fn counts_by_averages() {
    let base = settings();
    let one = Settings { target: Finite::whole(1), total: Finite::constant(1.0 / 0.75), ..settings() };
    decides("nothing", &base, 1, &[(0, 1, 0.0, 0.0, 0, false, -87)]);
    decides("five", &base, 1, &[(0, 1, 50.0, 50.0, 5, true, -137)]);
    decides("stable leads without a panic", &base, 5, &[(62, 5, 50.0, 50.0, 5, false, -84)]);
    decides("the panic window leads", &base, 1, &[(0, 1, 50.0, 100.0, 10, true, -187)]);
    decides(
        "ten times at most",
        &base,
        1,
        &[(0, 1, 1000.0, 1001.0, 10, true, -1088), (0, 10, 1000.0, 1001.0, 100, true, -968)],
    );
    decides("a tenth at least", &base, 1, &[(0, 100, 1.0, 1.0, 10, false, 1232), (0, 10, 1.0, 1.0, 1, false, 32)]);
    decides("at zero one counts for rates", &base, 0, &[(0, 0, 1000.0, 888.0, 10, true, -988)]);
    let slow = Settings { max_scale_up_rate: Finite::constant(1.1), ..one };
    decides("one more is always possible", &slow, 1, &[(0, 2, 3.0, 3.1, 3, true, -101)]);
    let slow = Settings { max_scale_down_rate: Finite::constant(1.1), ..base.clone() };
    decides("ninety of a hundred", &slow, 1, &[(0, 100, 1.0, 1.0, 90, false, 1232)]);
    let always = Settings { target_burst_capacity: Finite::constant(-1.0), ..base.clone() };
    decides("always buffered", &always, 1, &[(0, 1, 21.0, 26.0, 3, true, -1)]);
    let never = Settings { target_burst_capacity: Finite::whole(0), ..base.clone() };
    decides("never buffered", &never, 1, &[(0, 1, 50.0, 49.0, 5, true, 0)]);
    let activation = Settings { activation_scale: 2, ..base };
    decides("activation", &activation, 1, &[(0, 1, 0.0, 0.0, 0, false, -87), (0, 1, 1.0, 0.0, 2, false, -87)]);
}

#[test]
fn panics_begin_hold_are_renewed_and_end() {
    let one = Settings { target: Finite::whole(1), total: Finite::constant(1.0 / 0.75), ..settings() };
    decides(
        "ends after a stable window, strictly",
        &one,
        1,
        &[
            (0, 10, 11.0, 25.0, 25, true, -112),
            (30, 40, 30.0, 41.0, 41, true, -88),
            (60, 55, 50.0, 56.0, 56, true, -83),
            (62, 55, 50.0, 56.0, 50, false, -83),
        ],
    );
    decides(
        "is renewed",
        &one,
        1,
        &[(0, 10, 11.0, 25.0, 25, true, -112), (30, 40, 30.0, 80.0, 80, true, -127), (62, 80, 1.0, 1.0, 80, true, 5)],
    );
    decides(
        "never falls before its end",
        &settings(),
        1,
        &[(0, 10, 100.0, 1000.0, 100, true, -967), (30, 10, 1.0, 1.0, 100, true, 32), (61, 10, 1.0, 1.0, 1, false, 32)],
    );
    decides(
        "a restart keeps what there is",
        &one,
        5,
        &[(5, 5, 0.0, 0.0, 5, true, -94), (62, 5, 0.0, 0.0, 0, false, -94)],
    );
    decides("a restart with one does not", &one, 1, &[(5, 1, 0.0, 0.0, 0, false, -99)]);
    decides("stable may be larger in a panic", &one, 5, &[(5, 5, 50.0, 30.0, 50, true, -124)]);
}

#[test]
fn falls_are_delayed() {
    let delayed = Settings {
        scale_down_delay: Millis::from_secs(300),
        panic_threshold: Finite::whole(100),
        target_burst_capacity: Finite::whole(0),
        ..settings()
    };
    decides(
        "simple",
        &delayed,
        1,
        &[(2, 1, 40.0, 40.0, 4, false, 0), (300, 1, 0.0, 0.0, 4, false, 0), (302, 1, 0.0, 0.0, 0, false, 0)],
    );
    decides(
        "gradual",
        &delayed,
        1,
        &[
            (540, 1, 40.0, 40.0, 4, false, 0),
            (600, 1, 30.0, 30.0, 4, false, 0),
            (660, 1, 0.0, 0.0, 4, false, 0),
            (840, 1, 0.0, 0.0, 3, false, 0),
            (900, 1, 0.0, 0.0, 0, false, 0),
        ],
    );
    let mut kpa = Kpa::new(&delayed, 0, 1, true);
    let mut at = |second: u64, average: f64, reachable: bool| {
        let averages = Some(Averages { stable: average, panic: average });
        kpa.decide(&delayed, second * 1_000, averages, Some(1), reachable).desired
    };
    assert_eq!([at(2, 40.0, true), at(60, 0.0, true), at(62, 0.0, false)], [Some(4), Some(4), Some(0)]);
}

/// Seconds, ready, average; applied.
type AppliedScale = (u64, Option<u32>, Option<f64>, u32);

#[track_caller]
fn applies(name: &str, settings: &Settings, ready: u32, reachable: bool, rows: &[AppliedScale]) {
    let mut kpa = Kpa::new(settings, 0, ready, reachable);
    for (number, (second, ready, average, applied)) in rows.iter().copied().enumerate() {
        let averages = average.map(|average| Averages { stable: average, panic: average });
        let decision = kpa.decide(settings, second * 1_000, averages, ready, reachable);
        assert_eq!(decision.applied, applied, "{name}, line {number}: {}", decision.why);
    }
}

#[test]
fn the_steps_to_zero() {
    // With spare burst capacity requests go straight to the instances, so the proxy's time begins when nothing is wanted.
    let direct = Settings { target_burst_capacity: Finite::whole(0), ..settings() };
    let quiet = [(2, Some(1), Some(1.0), 1), (58, Some(1), Some(0.0), 1), (60, Some(1), Some(0.0), 1)];
    let mut rows = quiet.to_vec();
    rows.extend([(88, Some(1), Some(0.0), 1), (90, Some(1), Some(0.0), 0), (200, Some(0), Some(0.0), 0)]);
    applies("a stable window, then the grace", &direct, 1, true, &rows);

    let buffered = Settings { target_burst_capacity: Finite::constant(-1.0), ..settings() };
    let mut rows = quiet.to_vec();
    rows.extend([(62, Some(1), Some(0.0), 0)]);
    applies("always buffered: no grace", &buffered, 1, true, &rows);

    let retained = Settings { retention: Millis::from_secs(100), ..buffered.clone() };
    let mut rows = quiet.to_vec();
    rows.extend([(62, Some(1), Some(0.0), 1), (158, Some(1), Some(0.0), 1), (160, Some(1), Some(0.0), 0)]);
    applies("the last one is retained", &retained, 1, true, &rows);
    let mut rows = quiet.to_vec();
    rows.extend([(62, Some(1), Some(0.0), 0)]);
    applies("but not of an unreachable one", &retained, 1, false, &rows);

    let kept = Settings { scale_to_zero: false, ..settings() };
    applies("never zero", &kept, 3, true, &[(70, Some(3), Some(0.0), 1), (500, Some(1), Some(0.0), 1)]);
    applies("many go to one first", &settings(), 1, true, &[(2, Some(10), Some(0.0), 1), (4, Some(10), Some(0.0), 1)]);
    applies("requests bring it back", &buffered, 1, true, &[(60, Some(1), Some(0.0), 1), (61, Some(1), Some(20.0), 2)]);
}

#[test]
fn bounds_and_the_first_scale() {
    let min = Settings { min_scale: 2, max_scale: 4, ..settings() };
    applies(
        "bounds",
        &min,
        2,
        true,
        &[(2, Some(2), Some(0.0), 2), (4, Some(2), Some(30.0), 3), (6, Some(3), Some(900.0), 4)],
    );
    applies(
        "no minimum where nobody comes",
        &min,
        2,
        false,
        &[(62, Some(2), Some(0.0), 2), (92, Some(2), Some(0.0), 0)],
    );
    let first = Settings { initial_scale: 3, ..settings() };
    applies(
        "the first scale is reached once",
        &first,
        0,
        true,
        &[(2, Some(0), None, 3), (4, Some(1), Some(1.0), 3), (6, Some(3), Some(1.0), 3), (8, Some(3), Some(1.0), 1)],
    );
    let one = settings();
    applies(
        "given up when it is never up",
        &one,
        0,
        true,
        &[(2, Some(0), Some(0.0), 1), (630, Some(0), Some(0.0), 1), (631, Some(0), Some(0.0), 0)],
    );
    applies(
        "what cannot be counted changes nothing",
        &one,
        1,
        true,
        &[(2, Some(1), Some(30.0), 3), (4, None, Some(0.0), 3)],
    );
    let zero = Settings { initial_scale: 0, ..settings() };
    applies("a first scale of zero", &zero, 0, true, &[(2, Some(0), None, 0), (4, Some(0), Some(1.0), 1)]);
    assert_eq!(autoscaler::assumed_excess(&first), -60);
    assert_eq!(first.activators(30), 4);
}

#[test]
fn reports_become_averages() {
    let settings = Settings { target: Finite::whole(1), ..settings() };
    let mut kpa = Kpa::new(&settings, 0, 1, true);
    assert_eq!(kpa.averages(&settings, 2_000), None);
    (1..=10u32).for_each(|second| kpa.report(u64::from(second) * 1_000, f64::from(second)));
    assert_eq!(kpa.averages(&settings, 10_000), Some(Averages { stable: 5.5, panic: 7.5 }));
    let silent = Settings { target_burst_capacity: Finite::constant(-1.0), ..settings.clone() };
    assert_eq!(kpa.averages(&settings, 80_000), None);
    assert_eq!(kpa.averages(&silent, 80_000), Some(Averages { stable: 0.0, panic: 0.0 }));
}

#[test]
fn reasons_read_well() {
    let settings = Settings { max_scale: 4, ..settings() };
    let mut kpa = Kpa::new(&settings, 0, 1, true);
    let averages = Some(Averages { stable: 50.0, panic: 70.0 });
    let why = kpa.decide(&settings, 2_000, averages, Some(1), true).why.to_string();
    assert_eq!(
        why,
        "panic concurrency 70 at a target of 10 wants 7; panic for 1m more at least; max-scale limits it to 4"
    );
    let why = kpa.decide(&settings, 4_000, None, Some(1), true).why.to_string();
    assert_eq!(why, "no decision: nothing was reported within the stable window; max-scale limits it to 4");
}
