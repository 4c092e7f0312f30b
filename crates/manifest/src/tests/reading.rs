//! What good manifests mean.

use kip_spec::function::{
    Concurrency, Dispatch, GpuNeed, GpuResources, Hook, HttpAuth, Idle, Instances, LiveProbe, Program, ReadyProbe,
    Resources, Rotation, Stop, StopSignal, StopTarget, Strategy, defaults,
};
use std::path::Path;

use kip_spec::{Bytes, MilliCpu, Millis, code};

use super::{folder, good, one, read_in};

fn argv(run: &str) -> Vec<String> {
    match one_run(run) {
        Program::Command { argv, .. } => argv,
        Program::Model { .. } | Program::Image(_) => panic!("a command was declared"),
    }
}

fn one_run(run: &str) -> Program {
    good(&format!("functions:\n  f:\n    run: {run}\n")).remove(0).program
}

#[test]
fn the_smallest_function_has_every_default() {
    let spec = one("");
    assert_eq!(spec.instances, defaults::INSTANCES);
    assert_eq!(spec.timeouts, defaults::TIMEOUTS);
    assert_eq!(spec.idle, defaults::IDLE);
    assert_eq!(spec.queue_depth, defaults::QUEUE_DEPTH);
    assert_eq!(spec.ready, ReadyProbe::Tcp);
    assert_eq!(spec.dispatch, defaults::DISPATCH);
    assert_eq!(spec.http.auth, HttpAuth::Anonymous);
    assert!(spec.http.methods.is_empty() && spec.env.is_empty());
    assert_eq!(spec.resources, Resources::default());
}

#[test]
fn every_key_arrives() {
    let spec = one("env: {A: x}, resources: {cpu: 500m, memory: 4GiB}, queue: {depth: 7}, dispatch: balanced, \
         instances: {min: 1, max: 3, concurrency: {hard: 4, soft: 3}}, probes: {ready: /healthz}, \
         lifecycle: {initialize: {path: /initialize, timeout: 5s}, pre_stop: /bye, stop: {signal: int, to: group}}, \
         timeouts: {startup: 1s, queue: 2s, first_byte: 3s, idle: 4s, total: 5s, grace: 0s}, \
         idle: {pause: never, stop: 1d}, scaling: {mode: fixed}, trigger: {http: {auth: key, methods: [GET, POST, GET]}}");
    assert_eq!(spec.env["A"], "x");
    assert_eq!(
        spec.resources,
        Resources { cpu: Some(MilliCpu(500)), memory: Some(Bytes(4 << 30)), gpu: None, port: None }
    );
    assert_eq!(spec.instances, Instances { min: 1, max: 3, concurrency: Concurrency { hard: 4, soft: 3 } });
    assert_eq!(spec.ready, ReadyProbe::Http { path: "/healthz".to_owned() });
    let hook = |path: &str, timeout| Some(Hook { path: path.to_owned(), timeout });
    assert_eq!(spec.lifecycle.initialize, hook("/initialize", Millis::from_secs(5)));
    assert_eq!(spec.lifecycle.pre_stop, hook("/bye", defaults::HOOK_TIMEOUT));
    assert_eq!(spec.lifecycle.stop, Stop { signal: Some(StopSignal::Int), to: Some(StopTarget::Group) });
    assert_eq!(spec.timeouts.first_byte, Millis::from_secs(3));
    assert_eq!(spec.timeouts.grace, Some(Millis(0)));
    assert_eq!(spec.idle, Idle { pause: None, stop: Some(Millis(86_400_000)), ..defaults::IDLE });
    assert_eq!((spec.queue_depth, spec.dispatch), (7, Dispatch::Balanced));
    assert_eq!(
        (spec.http.auth, spec.http.methods.as_slice()),
        (HttpAuth::Key, ["GET".to_owned(), "POST".to_owned()].as_slice())
    );
}

#[test]
fn commands_are_split_by_quotes_and_by_nothing_else_of_a_shell() {
    assert_eq!(
        argv(r#"uvicorn app:app --port ${PORT} 'two words' "a \" b" c\ d"#),
        ["uvicorn", "app:app", "--port", "${PORT}", "two words", "a \" b", "c d"]
    );
    assert_eq!(argv(r#"[sh, -c, "a && b > c", 8080, true, 1.10]"#), ["sh", "-c", "a && b > c", "8080", "true", "1.10"]);
    assert_eq!(argv("python3 -c 'print(1); print(2)' a=b"), ["python3", "-c", "print(1); print(2)", "a=b"]);
}

#[test]
fn environment_values_keep_their_spelling() {
    let env =
        one(r#"env: {A: 1.10, B: 007, C: true, D: "x y", E: 0x1F, F: 1_000, G: on, H: "", _i: 99999999999999999999}"#)
            .env;
    let values: Vec<_> = env.values().map(String::as_str).collect();
    assert_eq!(values, ["1.10", "007", "true", "x y", "0x1F", "1_000", "on", "", "99999999999999999999"]);
    // A byte order mark moves no place and no spelling.
    let folder = folder();
    let text = "\u{feff}api: kip/v1\nfunctions:\n  f: {run: a, env: {N: 12345678}}\n";
    assert_eq!(read_in(folder.path(), text).unwrap().functions[0].env["N"], "12345678");
}

#[test]
fn directories_and_models_count_from_the_folder_of_the_file() {
    let folder = folder();
    let text = "api: kip/v1\nfunctions:\n  a: {run: x}\n  b: {run: x, dir: ./ocr}\n  c: {model: ./digits.onnx}\n  d: {model: ./net}\n";
    let functions = read_in(folder.path(), text).unwrap().functions;
    let dirs: Vec<_> = functions.iter().map(|spec| spec.program.clone()).collect();
    let command = |dir| Program::Command { argv: vec!["x".to_owned()], dir };
    assert_eq!(
        dirs,
        [
            command(folder.path().to_owned()),
            command(folder.path().join("ocr")),
            Program::Model { path: folder.path().join("digits.onnx") },
            Program::Model { path: folder.path().join("net/model.onnx") },
        ]
    );
}

#[test]
fn defaults_are_merged_key_by_key_and_the_function_wins() {
    let functions = good(
        "defaults:\n  env: {A: d, B: d}\n  idle: {pause: 5s, stop: 1h}\n  instances: {max: 7, concurrency: {hard: 9, soft: 5}}\n  \
         lifecycle: {initialize: /d}\n\
         functions:\n  a: {run: x, env: {B: f, C: f}, idle: {stop: never}, instances: {concurrency: {soft: 2}}}\n  \
         b: {run: x, instances: {concurrency: 3}, lifecycle: {initialize: {path: /f, timeout: 1s}}}\n",
    );
    let [a, b] = functions.as_slice() else { panic!("two functions") };
    assert_eq!(a.env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["A=d", "B=f", "C=f"]);
    assert_eq!(a.idle, Idle { pause: Some(Millis::from_secs(5)), stop: None, ..defaults::IDLE });
    assert_eq!(a.instances, Instances { min: 0, max: 7, concurrency: Concurrency { hard: 9, soft: 2 } });
    assert_eq!(b.instances.concurrency, Concurrency { hard: 3, soft: 3 });
    assert_eq!(b.lifecycle.initialize.as_ref().unwrap().path, "/f");
    assert_eq!(a.lifecycle.initialize.as_ref().unwrap().path, "/d");
}

#[test]
fn defaults_may_leave_gaps_that_functions_fill() {
    let defaults = "defaults: {instances: {min: 20, concurrency: {soft: 2}}, lifecycle: {initialize: {timeout: 5s}}}\n";
    let function = "{run: x, instances: {max: 30, concurrency: {hard: 4}}, lifecycle: {initialize: {path: /i}}}";
    let spec = good(&format!("{defaults}functions: {{f: {function}}}\n")).remove(0);
    assert_eq!(spec.instances, Instances { min: 20, max: 30, concurrency: Concurrency { hard: 4, soft: 2 } });
    assert_eq!(spec.lifecycle.initialize.unwrap().timeout, Millis::from_secs(5));
    // A gap that nobody fills is told, at its place in the defaults and once.
    let folder = folder();
    let text = format!("api: kip/v1\n{defaults}functions: {{f: {{run: x}}, g: {{run: x}}}}\n");
    let codes: Vec<_> = read_in(folder.path(), &text).unwrap_err().into_iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [code::MANIFEST_CONTRADICTION, code::MANIFEST_MISSING_KEY, code::MANIFEST_MISSING_KEY]);
}

#[test]
fn anchors_and_merge_keys_work() {
    let functions = good(
        "functions:\n  a: &a\n    run: x\n    env: &env {A: 1}\n  b: {<<: *a, queue: {depth: 3}}\n  c: {run: y, env: *env}\n",
    );
    assert_eq!(functions.len(), 3);
    assert_eq!((functions[1].queue_depth, &functions[1].env["A"]), (3, &"1".to_owned()));
    assert_eq!(functions[2].env["A"], "1");
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let folder = folder();
    let text = "api: kip/v1\ndefaults:\n  timeouts: {first_byte: 2m, total: 1m}\nfunctions:\n  \
                a: {run: x}\n  b: {run: x, idle: {pause: 2h, stop: 1h}}\n";
    let manifest = read_in(folder.path(), text).unwrap();
    assert_eq!(manifest.functions.len(), 2);
    let warnings: Vec<_> = manifest.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(
        warnings,
        [
            "`defaults.timeouts.first_byte`: 2m is more than `total`, which is 1m: it never takes effect",
            "`functions.b.idle.pause`: 2h is not before `stop`, which is 1h: nothing is ever paused",
        ]
    );
}

#[test]
fn what_is_provisioned_has_room_unless_a_maximum_is_written() {
    let with =
        |more: &str| one(&format!("{more}scaling: {{mode: fc, provision: {{defaultTarget: 77}}}}")).instances.max;
    assert_eq!((with(""), with("instances: {max: 5}, ")), (77, 5));
}

#[test]
fn policies_that_cannot_be_followed_are_warned_of() {
    let folder = folder();
    let with = |resources: &str, metric: &str, least: u32| {
        let policy =
            format!("{{name: p, metricType: {metric}, metricTarget: 0.5, minCapacity: {least}, maxCapacity: 3}}");
        let scaling = format!("{{mode: fc, provision: {{targetTrackingPolicies: [{policy}]}}}}");
        let text = format!(
            "api: kip/v1\nfunctions:\n  f: {{run: x, instances: {{concurrency: 1}}, resources: {resources}, scaling: {scaling}}}\n"
        );
        let warnings = read_in(folder.path(), &text).unwrap().warnings;
        warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>().join("\n")
    };
    assert!(with("{}", "GPUMemUtilization", 1).contains("declares no `resources.gpu`"));
    assert_eq!(with("{gpu: {memory: 1GiB}}", "GPUMemUtilization", 1), "");
    assert!(with("{}", "CPUUtilization", 1).contains("one CPU counts as all"));
    assert_eq!(with("{cpu: 2}", "CPUUtilization", 1), "");
    assert!(with("{}", "ProvisionedConcurrencyUtilization", 0).contains("stays there"));
    assert_eq!(with("{}", "ProvisionedConcurrencyUtilization", 1), "");
}

#[test]
fn probes_have_times_and_thresholds() {
    let spec = one("probes: {ready: {path: /r, delay: 1s, period: 3s, timeout: 500ms, failures: 2, successes: 4}, \
                    live: {path: /l, delay: 20s, failures: 1}}");
    assert_eq!(spec.ready, ReadyProbe::Http { path: "/r".to_owned() });
    assert_eq!(spec.live, Some(LiveProbe { path: "/l".to_owned() }));
    let ready = spec.probes.ready.as_ready();
    assert_eq!((ready.delay, ready.period, ready.timeout, ready.failures, ready.successes), (1_000, 3_000, 500, 2, 4));
    let live = spec.probes.live.as_live();
    assert_eq!((live.delay, live.period, live.timeout, live.failures), (20_000, 10_000, 5_000, 1));
    let tcp = one("probes: {ready: {tcp: true, successes: 2}}");
    assert_eq!((&tcp.ready, tcp.probes.ready.successes), (&ReadyProbe::Tcp, Some(2)));
    let exec = one("probes: {ready: {exec: [check, -q], delay: 5s}}");
    assert_eq!(exec.ready, ReadyProbe::Exec { argv: vec!["check".to_owned(), "-q".to_owned()] });
    for wrong in [
        "{ready: {period: 3s}}",
        "{ready: {path: /r, tcp: true}}",
        "{ready: {tcp: false}}",
        "{ready: {path: /r, failures: 0}}",
        "{ready: {path: /r, timeout: 0s}}",
        "{ready: {path: /r, delay: 2h}}",
        "{live: {period: 3s}}",
        "{live: {path: /l, successes: 2}}",
    ] {
        let text = format!("api: kip/v1\nfunctions: {{f: {{run: serve, probes: {wrong}}}}}");
        assert!(read_in(Path::new("/"), &text).is_err(), "{wrong}");
    }
}

#[test]
fn devices_watchdog_rotation_and_the_live_probe_are_read() {
    let spec = one("resources: {gpu: {memory: 6GiB, type: L4}}, probes: {live: /alive}, watchdog: {stall: 60s}, \
                    rotation: {max_age: 24h, max_memory: 6GiB}");
    let gpu = GpuResources {
        need: GpuNeed::Memory(Bytes(6 << 30)),
        kind: Some("L4".to_owned()),
        isolation: Default::default(),
    };
    assert_eq!(spec.resources.gpu, Some(gpu));
    assert_eq!(spec.live, Some(LiveProbe { path: "/alive".to_owned() }));
    assert_eq!(spec.probes, Default::default());
    assert_eq!(spec.watchdog.stall, Some(Millis::from_secs(60)));
    let rotation = Rotation { max_age: Some(Millis::from_secs(86_400)), max_memory: Some(Bytes(6 << 30)) };
    assert_eq!(spec.rotation, rotation);
    // A function that has a device has one instance, if it does not say otherwise.
    assert_eq!(spec.instances.max, 1);
    let cards = one("resources: {gpu: {cards: 2, type: any}}, instances: {max: 3}");
    assert_eq!(
        cards.resources.gpu,
        Some(GpuResources { need: GpuNeed::Cards(2), kind: None, isolation: Default::default() })
    );
    assert_eq!(cards.instances.max, 3);
}

#[test]
fn a_program_with_a_port_of_its_own_has_one_instance_and_no_version_beside_it() {
    let spec = one("port: 9000");
    assert_eq!((spec.resources.port, spec.instances.max, spec.deploy.strategy), (Some(9_000), 1, Strategy::Recreate));
    assert_eq!(one("resources: {cpu: 1}, port: 80").resources.port, Some(80));
    for (wrong, said) in [
        ("port: 9000, instances: {max: 2}", "2 instances cannot listen on one port"),
        ("port: 9000, instances: {min: 2}", "more than `max`, which is 1"),
        ("port: 9000, deploy: {strategy: rolling}", "two versions cannot listen"),
        ("port: 70000", "65535"),
    ] {
        let text = format!("api: kip/v1\nfunctions: {{f: {{run: x, {wrong}}}}}\n");
        let problems = read_in(folder().path(), &text).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.message.contains(said)
                || problem.hint.as_ref().is_some_and(|hint| hint.contains(said))),
            "{wrong}: {problems:?}"
        );
    }
    let image = read_in(folder().path(), "api: kip/v1\nfunctions: {f: {image: x, port: 80}}\n").unwrap_err();
    assert!(image[0].message.contains("a program of this host"), "{image:?}");
}

#[test]
fn a_function_fills_and_undoes_what_defaults_say() {
    let folder = folder();
    let text = "api: kip/v1\n\
                defaults: {resources: {gpu: {type: L4}}, watchdog: {stall: 60s}, rotation: {max_age: 1h}}\n\
                functions: {f: {run: x, resources: {gpu: {memory: 1GiB}}, watchdog: {stall: never}, rotation: {max_age: never}}, plain: {run: x}}\n";
    let manifest = read_in(folder.path(), text).unwrap();
    let spec = &manifest.functions[0];
    let gpu = GpuResources {
        need: GpuNeed::Memory(Bytes(1 << 30)),
        kind: Some("L4".to_owned()),
        isolation: Default::default(),
    };
    assert_eq!((spec.resources.gpu.as_ref(), spec.instances.max), (Some(&gpu), 1));
    assert_eq!((spec.watchdog.stall, spec.rotation), (None, Rotation::default()));
    assert_eq!((&manifest.functions[1].resources.gpu, manifest.functions[1].instances.max), (&None, 10));
}

#[test]
fn jobs_are_functions_that_run_to_their_end() {
    use kip_spec::job::{MissedRuns, Overlap};
    let text = "jobs:
  nightly:
    run: python nightly.py
    env: {A: 1}
    resources: {gpu: {memory: 20GiB}}
    retries: {max: 3, only: [75, 137], never: [2]}
    timeout: 12h
    grace: 5s
    schedule: {cron: '30 3 * * 1-5', zone: Europe/Berlin, overlap: allow, missed: each, deadline: 6h, paused: true}
  plain: {run: x, schedule: '@daily'}
  wide: {run: x, schedule: {cron: '@hourly', overlap: allow}}
";
    let folder = folder();
    let read =
        |text: &str| read_in(folder.path(), text).map_err(|problems| format!("{problems:#?}")).unwrap().functions;
    let specs = read(&format!("api: kip/v1\n{text}"));
    let [nightly, plain, wide] = &specs[..] else { panic!("{specs:?}") };
    let job = nightly.job.as_ref().unwrap();
    assert_eq!((job.retries, job.timeout), (3, kip_spec::Millis::from_secs(12 * 3_600)));
    assert!(job.exits.retries(137) && !job.exits.retries(2) && !job.exits.retries(1));
    let timer = job.timer.as_ref().unwrap();
    assert_eq!((timer.cron.to_string().as_str(), timer.zone.as_str()), ("0 30 3 * * 1-5", "Europe/Berlin"));
    assert_eq!((timer.overlap, timer.missed, timer.paused), (Overlap::Allow, MissedRuns::Each, true));
    assert_eq!(timer.deadline, Some(kip_spec::Millis::from_secs(6 * 3_600)));
    assert_eq!((nightly.instances.max, nightly.timeouts.total), (1, job.timeout), "one device, one run");
    assert_eq!(nightly.timeouts.grace, Some(kip_spec::Millis::from_secs(5)));
    let timer = plain.job.as_ref().unwrap().timer.as_ref().unwrap();
    assert_eq!((timer.overlap, timer.missed, timer.paused), (Overlap::Forbid, MissedRuns::Once, false));
    assert_eq!((plain.instances.max, wide.instances.max), (1, 10));
    let written = crate::write(&specs);
    assert_eq!(read(&written), specs, "{written}");
}

#[test]
fn the_dispatch_follows_the_policy_unless_it_is_set() {
    assert_eq!(one("scaling: {mode: kpa}").dispatch, Dispatch::Balanced);
    assert_eq!(one("scaling: {mode: kpa}, dispatch: packed").dispatch, Dispatch::Packed);
    for mode in ["fixed", "fc"] {
        let provision = if mode == "fc" { ", provision: {defaultTarget: 1}" } else { "" };
        assert_eq!(one(&format!("scaling: {{mode: {mode}{provision}}}")).dispatch, Dispatch::Packed, "{mode}");
    }
}

#[test]
fn the_form_that_was_meant_is_named() {
    let folder = folder();
    for (keys, hint) in [
        ("probes: healthz", "write `probes: {ready: /healthz}`"),
        ("resources: {gpu: 1}", "write `gpu: {cards: 1}` for whole devices"),
        ("resources: {gpu: 6GiB}", "write `gpu: {memory: 6GiB}`"),
        ("resources: {gpu: L4}", "write `gpu: {memory: 6GiB, type: L4}`"),
        ("resources: 4GiB", "write `resources: {memory: 4GiB}`"),
        ("instances: 3", "write `instances: {max: 3}`"),
        ("idle: 5m", "write `idle: {pause: 5m}`"),
        ("scaling: kpa", "write `scaling: {mode: kpa}`"),
    ] {
        let text = format!("api: kip/v1\nfunctions: {{f: {{run: x, {keys}}}}}\n");
        let problems = read_in(folder.path(), &text).unwrap_err();
        let given = problems[0].hint.as_deref().unwrap_or_default();
        assert!(given.starts_with(hint), "{keys}: {given}");
    }
    let message = |keys: &str| {
        let text = format!("api: kip/v1\nfunctions: {{f: {{run: x, {keys}}}}}\n");
        read_in(folder.path(), &text).unwrap_err()[0].message.clone()
    };
    for time in ["5 minutes", "5minutes", "5 m", "5 min"] {
        let said = message(&format!("idle: {{pause: {time}}}"));
        assert!(said.contains("write `5m`"), "{time}: {said}");
    }
    let cron = "api: kip/v1\njobs:\n  j:\n    run: x\n    schedule: {cron: * * * * *}\n";
    let problems = read_in(folder.path(), cron).unwrap_err();
    assert!(problems[0].hint.as_deref().unwrap_or_default().contains("cron: '* * * * *'"), "{problems:?}");
}

#[test]
fn a_key_of_idle_that_is_written_holds_under_auto_and_the_others_are_chosen() {
    use kip_spec::scaling::{Auto, Class, IdleLimit, Scaling};
    let folder = folder();
    let manifest = |text: &str| read_in(folder.path(), text).unwrap().functions.remove(0);
    let read = |keys: &str| manifest(&format!("api: kip/v1\nfunctions:\n  f: {{run: x, {keys}}}\n"));
    let auto = |keys: &str| match read(keys).scaling {
        Scaling::Auto(auto) => *auto,
        other => panic!("{other:?}"),
    };
    assert_eq!(auto("scaling: {mode: auto}"), Auto::default());
    let written = auto("scaling: {mode: auto, class: latency}, idle: {pause: never, stop: 2h}");
    let stop = IdleLimit::After(kip_spec::Millis::from_secs(7_200));
    assert_eq!(written, Auto { class: Class::Latency, pause: IdleLimit::Never, stop, keep: Millis(0) });
    // What is written out reads the same.
    for keys in ["scaling: {mode: auto, class: economy}", "scaling: {mode: auto}, idle: {stop: 2h}"] {
        let spec = read(keys);
        let again = manifest(&crate::write(std::slice::from_ref(&spec)));
        assert_eq!(again.scaling, spec.scaling, "{keys}");
    }
}

#[test]
fn a_function_without_scaling_has_auto_with_a_floor() {
    use kip_spec::scaling::{Auto, Class, Scaling};
    let folder = folder();
    let read = |keys: &str| {
        let text = format!("api: kip/v1\nfunctions:\n  f: {{run: x{keys}}}\n");
        read_in(folder.path(), &text).unwrap().functions.remove(0)
    };
    let floor = Millis::from_secs(43_200);
    let auto = |settings: Auto| Scaling::Auto(Box::new(settings));
    assert_eq!(read("").scaling, auto(Auto { keep: floor, ..Auto::default() }));
    let economy = Auto { keep: floor, class: Class::Economy, ..Auto::default() };
    assert_eq!(read(", scaling: {class: economy}").scaling, auto(economy));
    assert_eq!(read(", scaling: {mode: auto}").scaling, auto(Auto::default()));
    let hour = Auto { keep: Millis::from_secs(3_600), ..Auto::default() };
    assert_eq!(read(", scaling: {mode: auto, keep: 1h}").scaling, auto(hour));
    assert_eq!(read(", scaling: {mode: fixed}").scaling, Scaling::Fixed);
    // What is written out reads the same.
    for keys in ["", ", scaling: {mode: fixed}", ", scaling: {mode: auto, keep: 1h}"] {
        let spec = read(keys);
        let again = read_in(folder.path(), &crate::write(std::slice::from_ref(&spec))).unwrap().functions.remove(0);
        assert_eq!(again.scaling, spec.scaling, "{keys}");
    }
}
