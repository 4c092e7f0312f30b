//! Tables of values and errors, written from Knative's sources and documents.

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn declared(annotations: &[(&str, &str)], config: &[(&str, &str)]) -> Declaration {
    let annotations = annotations.iter().map(|(key, value)| {
        let key = if key.contains('/') { (*key).to_owned() } else { format!("{GROUP}/{key}") };
        (key, (*value).to_owned())
    });
    Declaration { annotations: annotations.collect(), config: map(config), container_concurrency: 0 }
}

#[test]
fn annotations_that_are_refused() {
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], &'a [&'a str]);
    let rows: [Row<'_>; 43] = [
        (&[("class", "unsupported.knative.dev")], &[], &["invalid value: unsupported.knative.dev: G/class"]),
        (&[("min-scale", "-1")], &[], &["expected 0 <= -1 <= 2147483647: G/min-scale"]),
        (&[("max-scale", "2147483648")], &[], &["expected 0 <= 2147483648 <= 2147483647: G/max-scale"]),
        (&[("min-scale", "foo")], &[], &["invalid value: foo: G/min-scale"]),
        (&[("max-scale", "x"), ("min-scale", "x")], &[], &["invalid value: x: G/max-scale, G/min-scale"]),
        (&[("minScale", "x")], &[], &["invalid value: x: G/minScale"]),
        (&[("minScale", "x"), ("min-scale", "1")], &[], &[]),
        (
            &[("min-scale", "5"), ("max-scale", "2")],
            &[],
            &["max-scale=2 is less than min-scale=5: G/max-scale, G/min-scale"],
        ),
        (
            &[("max-scale", "11")],
            &[("max-scale-limit", "10"), ("max-scale", "5")],
            &["expected 1 <= 11 <= 10: G/max-scale"],
        ),
        (
            &[("max-scale", "0")],
            &[("max-scale-limit", "10"), ("max-scale", "1")],
            &["max-scale=0 (unlimited), must be less than 10: G/max-scale"],
        ),
        // A default that the version does not use is not held against it.
        (&[("max-scale", "14")], &[("max-scale-limit", "12")], &["expected 1 <= 14 <= 12: G/max-scale"]),
        (&[("maxScale", "7")], &[("max-scale-limit", "12")], &[]),
        (&[("max-scale", "7")], &[("max-scale-limit", "12"), ("max-scale", "13")], &[]),
        (&[("activation-scale", "1")], &[], &["activation-scale=1 must be greater than 1: G/activation-scale"]),
        (
            &[("min-scale", "3"), ("activation-scale", "2")],
            &[],
            &["min-scale=3 is greater than activation-scale=2: G/activation-scale"],
        ),
        (
            &[("max-scale", "1"), ("activation-scale", "2")],
            &[],
            &["max-scale=1 is less than activation-scale=2: G/activation-scale"],
        ),
        (
            &[("metric-aggregation-algorithm", "random"), ("class", KPA)],
            &[],
            &["invalid value: random: G/metric-aggregation-algorithm"],
        ),
        (&[("metric-aggregation-algorithm", "random")], &[], &[]),
        (&[("metric-aggregation-algorithm", ""), ("class", KPA)], &[], &[]),
        (&[("panic-window-percentage", "-1")], &[], &["expected 1 <= -1 <= 100: G/panic-window-percentage"]),
        (&[("panic-window-percentage", "fifty")], &[], &["invalid value: fifty: G/panic-window-percentage"]),
        (&[("panic-threshold-percentage", "109")], &[], &["expected 110 <= 109 <= 1000: G/panic-threshold-percentage"]),
        (&[("target", "0")], &[], &["target 0 should be at least 0.01: G/target"]),
        (&[("target", "100}")], &[], &["invalid value: 100}: G/target"]),
        (&[("target", "NaN")], &[], &["invalid value: NaN: G/target"]),
        (
            &[("target-utilization-percentage", "101")],
            &[],
            &["expected 1 <= 101 <= 100: G/target-utilization-percentage"],
        ),
        (&[("target-burst-capacity", "-11")], &[], &["invalid value: -11: G/target-burst-capacity"]),
        (&[("target-burst-capacity", "-1")], &[], &[]),
        (&[("window", "1s")], &[], &["expected 6s <= 1s <= 1h0m0s: G/window"]),
        (&[("window", "365h")], &[], &["expected 6s <= 365h <= 1h0m0s: G/window"]),
        (&[("window", "1m9s82ms")], &[], &["must be specified with at most second precision: G/window"]),
        (&[("window", "5d")], &[], &["invalid value: 5d: G/window"]),
        (
            &[("scale-to-zero-pod-retention-period", "311m")],
            &[],
            &["expected 0s <= 311m <= 1h0m0s: G/scale-to-zero-pod-retention-period"],
        ),
        (&[("scale-to-zero-pod-retention-period", "1500ms")], &[], &[]),
        (
            &[("scale-down-delay", "42.5s")],
            &[],
            &["must be specified with at most second precision: G/scale-down-delay"],
        ),
        (&[("scale-down-delay", "-42s")], &[], &["expected 0s <= -42s <= 1h0m0s: G/scale-down-delay"]),
        (&[("metric", "cpu")], &[], &["invalid value: cpu: G/metric"]),
        (&[("metric", "cpu")], &[("pod-autoscaler-class", HPA)], &[]),
        (&[("metric", ""), ("class", HPA)], &[], &["invalid value: : G/metric"]),
        (&[("initial-scale", "0")], &[], &["invalid value: 0: G/initial-scale=0 not allowed by cluster"]),
        (&[("initial-scale", "-1")], &[], &["invalid value: -1: G/initial-scale must be greater than 0"]),
        (
            &[(PROGRESS[0], "1.5s")],
            &[],
            &["progress-deadline=1.5s is not at second precision: serving.knative.dev/progress-deadline"],
        ),
        (
            &[
                ("panic-threshold-percentage", "fifty"),
                ("panic-window-percentage", "-11"),
                ("min-scale", "-4"),
                ("max-scale", "never"),
            ],
            &[],
            &[
                "expected 0 <= -4 <= 2147483647: G/min-scale",
                "expected 1 <= -11 <= 100: G/panic-window-percentage",
                "invalid value: fifty: G/panic-threshold-percentage",
                "invalid value: never: G/max-scale",
            ],
        ),
    ];
    for (annotations, config, expected) in rows {
        let expected: Vec<String> = expected.iter().map(|line| line.replace("G/", &format!("{GROUP}/"))).collect();
        let got = declared(annotations, config).resolve().err().unwrap_or_default();
        assert_eq!(got, expected, "{annotations:?} over {config:?}");
    }
}

#[test]
fn configurations_that_are_refused() {
    let parse = "failed to parse data: failed to parse";
    let rows: [(&[(&str, &str)], String); 25] = [
        (&[("max-scale-up-rate", "not a float")], format!("{parse} \"max-scale-up-rate\": strconv.ParseFloat: parsing \"not a float\": invalid syntax")),
        (&[("initial-scale", "many")], format!("{parse} \"initial-scale\": strconv.ParseInt: parsing \"many\": invalid syntax")),
        (&[("stable-window", "not a duration")], format!("{parse} \"stable-window\": time: invalid duration \"not a duration\"")),
        (&[("allow-zero-initial-scale", "invalid")], format!("{parse} \"allow-zero-initial-scale\": strconv.ParseBool: parsing \"invalid\": invalid syntax")),
        (&[("scale-to-zero-grace-period", "0s")], "scale-to-zero-grace-period must be positive, was: 0s".to_owned()),
        (&[("scale-down-delay", "-1m23s")], "scale-down-delay cannot be negative, was: -1m23s".to_owned()),
        (&[("scale-down-delay", "61984ms")], "scale-down-delay = 1m1.984s, must be specified with at most second precision".to_owned()),
        (&[("scale-to-zero-pod-retention-period", "-4m11s")], "scale-to-zero-pod-retention-period cannot be negative, was: -4m11s".to_owned()),
        (&[("target-burst-capacity", "-11")], "target-burst-capacity must be either non-negative or -1 (for unlimited), was: -11.000000".to_owned()),
        (&[("container-concurrency-target-percentage", "-42")], "container-concurrency-target-percentage = -42.000000 is outside of valid range of (0, 100]".to_owned()),
        (&[("container-concurrency-target-percentage", "142.4")], "container-concurrency-target-percentage = 1.424000 is outside of valid range of (0, 100]".to_owned()),
        (&[("container-concurrency-target-percentage", "1"), ("container-concurrency-target-default", "0.001")], "container-concurrency-target-percentage and container-concurrency-target-default yield target concurrency of 0.001, can't be less than 0.01".to_owned()),
        (&[("requests-per-second-target-default", "-5.25")], "requests-per-second-target-default must be at least 0.01, was: -5.25".to_owned()),
        (&[("activator-capacity", "0.95")], "activator-capacity = 0.95, must be at least 1".to_owned()),
        (&[("max-scale-up-rate", "1")], "max-scale-up-rate = 1, must be greater than 1.0".to_owned()),
        (&[("max-scale-down-rate", "-55")], "max-scale-down-rate = -55, must be greater than 1.0".to_owned()),
        (&[("stable-window", "1h1s")], "stable-window = 1h0m1s, must be in [6s; 1h0m0s] range".to_owned()),
        (&[("stable-window", "61984ms")], "stable-window = 1m1.984s, must be specified with at most second precision".to_owned()),
        (&[("panic-window-percentage", "0.1")], "panic-window-percentage = 0.1, must be in [1, 100] interval".to_owned()),
        (&[("initial-scale", "0")], "initial-scale = 0, must be at least 0 (or at least 1 when allow-zero-initial-scale is false)".to_owned()),
        (&[("min-scale", "-1")], "min-scale = -1, must be at least 0".to_owned()),
        (&[("max-scale", "-1")], "max-scale = -1, must be in [0, max-scale-limit(0)] range".to_owned()),
        (&[("max-scale", "10"), ("max-scale-limit", "9")], "max-scale = 10, must be in [1, max-scale-limit(9)] range".to_owned()),
        (&[("max-scale-limit", "-9")], "max-scale-limit = -9, must be at least 0".to_owned()),
        (&[("min-scale", "4"), ("max-scale", "3")], "min-scale (4) must be less than max-scale (3)".to_owned()),
    ];
    for (config, error) in rows {
        assert_eq!(declared(&[], config).resolve().err(), Some(vec![error]), "{config:?}");
    }
}

#[test]
fn what_is_resolved() {
    let default = declared(&[], &[]).resolve().expect("valid").kpa;
    assert_eq!((default.target.get(), default.total.get()), (70.0, 100.0));
    assert_eq!((default.stable_window, default.panic_window), (Millis::from_secs(60), Millis::from_secs(6)));
    assert_eq!((default.panic_threshold.get(), default.target_burst_capacity.get()), (2.0, 211.0));

    // Annotations, limit; target, total.
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], i64, f64, f64);
    let rows: [Row<'_>; 10] = [
        (&[], &[], 10, 7.0, 10.0),
        (&[("target", "5")], &[], 10, 3.5, 5.0),
        (&[("target", "50")], &[], 10, 7.0, 10.0),
        (&[("target", "50"), ("target-utilization-percentage", "100")], &[], 0, 50.0, 50.0),
        (&[("target", "0.01")], &[], 0, 0.01, 0.01),
        (&[("metric", "rps")], &[], 10, 140.0, 200.0),
        (&[("metric", "rps"), ("target", "50")], &[("container-concurrency-target-percentage", "10")], 10, 35.0, 50.0),
        (
            &[],
            &[("container-concurrency-target-percentage", "0.5"), ("container-concurrency-target-default", "8")],
            0,
            4.0,
            8.0,
        ),
        (
            &[],
            &[("container-concurrency-target-percentage", "50"), ("requests-per-second-target-default", "8")],
            4,
            2.0,
            4.0,
        ),
        (&[("metric", "rps")], &[("requests-per-second-target-default", "8")], 4, 5.6, 8.0),
    ];
    for (annotations, config, limit, target, total) in rows {
        let declared = Declaration { container_concurrency: limit, ..declared(annotations, config) };
        let kpa = declared.resolve().expect("valid").kpa;
        assert!((kpa.target.get() - target).abs() < 1e-9, "{annotations:?} over {config:?}: {}", kpa.target);
        assert_eq!(kpa.total.get(), total, "{annotations:?} over {config:?}");
    }
    // A window and its share, the latter in whole seconds.
    for (window, percent, panic) in [("40s", "20.0", 8), ("6s", "1", 1), ("61s", "10", 6), ("1h", "100", 3_600)] {
        let kpa =
            declared(&[("window", window), ("panicWindowPercentage", percent)], &[]).resolve().expect("valid").kpa;
        assert_eq!(kpa.panic_window, Millis::from_secs(panic), "{percent} % of {window}");
    }
    let typo =
        declared(&[("min-scal", "1"), ("example.org/owner", "me")], &[("max-scal", "1"), ("tick-interval", "2s")]);
    let unknown = typo.resolve().expect("valid").unknown;
    assert_eq!(unknown, ["autoscaling.knative.dev/min-scal", "example.org/owner", "max-scal"]);
}
