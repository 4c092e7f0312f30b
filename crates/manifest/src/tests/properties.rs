//! No text makes the reader panic, and what is written reads back the same.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kip_spec::function;
use kip_spec::function::{
    Concurrency, Cors, Deploy, Dispatch, FunctionPriority, FunctionSpec, GpuIsolation, GpuNeed, GpuResources, Hook,
    HttpAuth, HttpTrigger, Idle, Instances, Lifecycle, LiveProbe, Program, Protocol, ReadyProbe, RequestBody,
    Resources, Rotation, Stop, StopSignal, StopTarget, Timeouts, Watchdog,
};
use kip_spec::probe::{ProbeTiming, ProbeTimings};
use kip_spec::scaling::Scaling;
use kip_spec::sleep::{CallMethod, Canary, CanaryValue, InstanceCall, RungUse, Scalar, SleepCalls};
use kip_spec::snapshot::{Code, CodeMode};
use kip_spec::{Bytes, Finite, MilliCpu, Millis};
use proptest::prelude::*;

use super::read_in;
use crate::write;

/// Pieces of which texts that nearly are manifests are made.
const PIECES: [&str; 44] = [
    "api: kip/v1\n",
    "functions:\n",
    "functions: ",
    "  f:\n",
    "    run: ",
    "    model: ./x\n",
    "{",
    "}",
    "[",
    "]",
    ": ",
    ", ",
    "\n",
    "  ",
    "    ",
    "&a ",
    "*a",
    "<<: ",
    "idle: ",
    "pause",
    "5",
    "5s",
    "never",
    "env: ",
    "PORT",
    "'",
    "\"",
    "|\n",
    "-",
    "- ",
    "#",
    "\t",
    "é",
    "\u{feff}",
    "\u{0}",
    "defaults: ",
    "instances: ",
    "max",
    "~",
    "!!binary ",
    "---\n",
    "? ",
    "1e999",
    "\\",
];

fn text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(PIECES.as_slice()).prop_map(str::to_owned);
    prop_oneof![
        "\\PC{0,120}",
        any::<String>(),
        prop::collection::vec(prop_oneof![4 => pieces, 1 => "\\PC{0,6}"], 0..40).prop_map(|parts| parts.concat()),
    ]
}

fn millis(least: u64) -> impl Strategy<Value = Millis> {
    (least..31_000_000_000u64).prop_map(Millis)
}

fn path() -> impl Strategy<Value = String> {
    "/[!-\"$-~]{0,20}"
}

fn hook() -> impl Strategy<Value = Option<Hook>> {
    prop::option::of((path(), millis(1)).prop_map(|(path, timeout)| Hook { path, timeout }))
}

/// Words that a writer could forget to quote, and any others.
fn word() -> impl Strategy<Value = String> {
    const ODD: &[&str] = &[
        "", "5", "1.10", "0x1F", "1_000", "true", "null", "~", "on", "- a", "a: b", "#x", "'", "*a", "a\nb", "\u{a0}",
        "=", "<<", "1e5", ".nan", "é", " x ", "a\tb", "\u{85}", "007", "!x", "%", "---", "0o7",
    ];
    prop_oneof![prop::sample::select(ODD).prop_map(str::to_owned), "[^\\x00]{0,12}"]
}

fn gpu() -> impl Strategy<Value = Option<GpuResources>> {
    let need = prop_oneof![
        (1u64 << 20..1 << 50).prop_map(|bytes| GpuNeed::Memory(Bytes(bytes))),
        (1u8..=64).prop_map(GpuNeed::Cards),
        Just(GpuNeed::Measured),
    ];
    // Names that a writer could take for numbers among them.
    let kind = prop_oneof!["[A-Z0-9][A-Za-z0-9 ._-]{0,8}[A-Z0-9]", "[0-9]{1,6}"];
    let isolation =
        prop_oneof![Just(GpuIsolation::Account), Just(GpuIsolation::Framework), Just(GpuIsolation::Preload)];
    prop::option::of((need, prop::option::of(kind), isolation).prop_map(|(need, kind, isolation)| {
        let isolation = if matches!(need, GpuNeed::Cards(_)) { GpuIsolation::Account } else { isolation };
        GpuResources { need, kind, isolation }
    }))
}

fn cors() -> impl Strategy<Value = Option<Cors>> {
    let origins = prop::collection::btree_set("https?://[a-z]{1,8}(\\.com)?(:[1-9][0-9]{1,3})?", 0..3);
    let headers = || prop::collection::btree_set("[a-z][a-z-]{0,8}", 0..3);
    let cors = (origins, headers(), headers(), any::<bool>(), millis(0)).prop_map(
        |(origins, headers, expose, credentials, max_age)| Cors {
            origins: origins.into_iter().collect(),
            headers: headers.into_iter().collect(),
            expose: expose.into_iter().collect(),
            credentials,
            max_age,
        },
    );
    prop::option::of(cors)
}

fn stop() -> impl Strategy<Value = Stop> {
    let signal = prop::sample::select(&[StopSignal::Term, StopSignal::Int, StopSignal::Quit, StopSignal::Usr1][..]);
    let to = prop::sample::select(&[StopTarget::Main, StopTarget::Group][..]);
    (prop::option::of(signal), prop::option::of(to)).prop_map(|(signal, to)| Stop { signal, to })
}

fn call() -> impl Strategy<Value = InstanceCall> {
    let method = prop::sample::select(&[CallMethod::Get, CallMethod::Post, CallMethod::Put, CallMethod::Delete][..]);
    let body = prop::option::of(word());
    (method, path(), body, millis(1)).prop_map(|(method, path, body, timeout)| InstanceCall {
        method,
        path,
        body,
        timeout,
    })
}

fn sleep() -> impl Strategy<Value = Option<SleepCalls>> {
    let calls = || prop::collection::vec(call(), 1..3);
    prop::option::of((calls(), calls()).prop_map(|(down, up)| SleepCalls { down, up }))
}

fn rung() -> impl Strategy<Value = RungUse> {
    prop_oneof![Just(RungUse::Never), Just(RungUse::WhenNeeded), millis(0).prop_map(RungUse::After)]
}

fn canary() -> impl Strategy<Value = Canary> {
    let scalar = prop_oneof![
        Just(Scalar::Null),
        any::<bool>().prop_map(Scalar::Flag),
        (-1e9..1e9).prop_map(|number| Scalar::Number(Finite::constant(number))),
        word().prop_map(Scalar::Text),
    ];
    let values = prop::collection::btree_map("(/[a-z0-9~ #]{0,5}){0,2}", scalar, 0..3);
    (call(), 100u16..600, values, 0.0..1.0f64).prop_map(|(call, status, values, tolerance)| Canary {
        call,
        status,
        values: values.into_iter().map(|(pointer, expected)| CanaryValue { pointer, expected }).collect(),
        tolerance: Finite::constant(tolerance),
    })
}

prop_compose! {
    fn timing(ready: bool)(
        times in prop::array::uniform3(prop::option::of(1u64..=3_600_000)),
        counts in prop::array::uniform2(prop::option::of(1u32..=1_000)),
    ) -> ProbeTiming {
        let [delay, period, timeout] = times.map(|time| time.map(Millis));
        ProbeTiming { delay, period, timeout, failures: counts[0], successes: counts[1].filter(|_| ready) }
    }
}

prop_compose! {
    fn spec()(
        name in "[A-Za-z][A-Za-z0-9_-]{0,20}",
        argv in prop::collection::vec(word(), 0..4),
        program in "[a-z./]{1,12}",
        // The reader escapes a `${` that is no reference, so a declaration never holds a bare one.
        env in prop::collection::btree_map("[a-z_][A-Za-z0-9_]{0,8}", word().prop_map(|word| word.replace('$', "")), 0..4),
        (cpu, memory) in (prop::option::of(1u64..10_000_000), prop::option::of(1u64 << 20..1 << 50)),
        (min, max, hard, soft) in (0u32..10_000, 0u32..10_000, 1u32..100_000, 1u32..100_000),
        (gpu, stall, max_age, max_memory) in
            (gpu(), prop::option::of(millis(1)), prop::option::of(millis(1)), prop::option::of(1u64 << 20..1 << 50)),
        timings in (timing(true), timing(false)).boxed(),
        (ready, live) in (prop::option::of(path()), prop::option::of(path())),
        (initialize, pre_stop, stop) in (hook(), hook(), stop()),
        times in prop::array::uniform6(millis(1)),
        (depth, pause, gone) in (1u32..1_000_000, prop::option::of(millis(0)), prop::option::of(millis(0))),
        (balanced, key, protocol) in (any::<bool>(), any::<bool>(), prop::option::of(any::<bool>())),
        methods in prop::sample::subsequence(crate::value::METHODS.as_slice(), 0..7),
        exempt in prop::collection::btree_set(path(), 0..3),
        (cors, streams) in (cors(), any::<bool>()),
        (recreate, idle_cpu, port) in (any::<bool>(), any::<bool>(), any::<bool>()),
        (sleep, park, spill, wake, canary) in (sleep(), rung(), rung(), prop::option::of(millis(1)), prop::option::of(canary())),
    ) -> FunctionSpec {
        let [startup, queue, first_byte, idle, total, grace] = times;
        let mode = if streams { CodeMode::Live } else if recreate { CodeMode::Snapshot } else { CodeMode::Auto };
        let writable = if port && !streams { vec!["outputs".to_owned(), "data/a b".to_owned()] } else { Vec::new() };
        let code = Code { mode, writable, snapshot: None };
        FunctionSpec {
            name: name.parse().unwrap(),
            program: Program::Command {
                argv: std::iter::once(program).chain(argv).collect(),
                dir: PathBuf::from("/tmp"),
            },
            env: env.into_iter().collect::<BTreeMap<_, _>>(),
            secrets: if port { [("TOKEN".to_owned(), "hf.main".parse().unwrap())].into() } else { BTreeMap::new() },
            resources: Resources { cpu: cpu.map(MilliCpu), memory: memory.map(Bytes), gpu, port: None },
            instances: Instances {
                min: min.min(max),
                max: max.max(min).max(1),
                concurrency: Concurrency { hard: hard.max(soft), soft: soft.min(hard) },
            },
            ready: ready.map_or(ReadyProbe::Tcp, |path| ReadyProbe::Http { path }),
            // Without a probe nobody asks for its life.
            probes: ProbeTimings { live: if live.is_some() { timings.1 } else { ProbeTiming::default() }, ready: timings.0 },
            live: live.map(|path| LiveProbe { path }),
            lifecycle: Lifecycle { initialize, pre_stop, stop, sleep },
            timeouts: Timeouts { startup, queue, first_byte, idle, total, grace: Some(grace) },
            queue_depth: depth,
            scaling: Scaling::Fixed,
            idle: Idle { pause, stop: gone, park, spill },
            watchdog: Watchdog { stall },
            rotation: Rotation { max_age, max_memory: max_memory.map(Bytes) },
            dispatch: if balanced { Dispatch::Balanced } else { Dispatch::Packed },
            http: HttpTrigger {
                auth: if key { HttpAuth::Key } else { HttpAuth::Anonymous },
                methods: methods.into_iter().map(str::to_owned).collect(),
                exempt: exempt.into_iter().filter(|path| !path.contains(['*', '?'])).collect(),
                cors,
                open_tasks: !key && recreate,
            },
            protocol: protocol.map(|h2| if h2 { Protocol::Http2 } else { Protocol::Http1 }),
            request_body: if streams { RequestBody::Stream } else { RequestBody::Measured },
            deploy: Deploy { strategy: if recreate { function::Strategy::Recreate } else { function::Strategy::Rolling } },
            ports: if port { vec!["metrics".to_owned(), "g-rpc".to_owned()] } else { Vec::new() },
            listen: if port { function::Listen::Socket } else { function::Listen::Port },
            user: port.then(|| "ai".to_owned()),
            idle_cpu,
            names: if port { vec!["Qwen/Qwen3-8B".parse().unwrap(), "qwen2.5:7b".parse().unwrap()] } else { Vec::new() },
            rewrites: if port { rewrites() } else { std::collections::BTreeMap::new() },
            owns_directory: false,
            wake,
            pinned: recreate,
            priority: if balanced { FunctionPriority::High } else if key { FunctionPriority::Low } else { FunctionPriority::Normal },
            canary: canary.map(Box::new),
            runtime: port.then_some(function::ModelRuntime::OnnxRuntime),
            job: None,
            folders: if port { folders() } else { Vec::new() },
            code,
        }
    }
}

/// Shares by their names, before a deployment.
fn folders() -> Vec<kip_spec::container::Mount> {
    let mount = |source: &str, target: &str, writable| kip_spec::container::Mount {
        source: source.to_owned(),
        target: target.to_owned(),
        writable,
    };
    vec![mount("oss://photos/train", "/mnt/a", false), mount("nas-1:/out", "/mnt/b", true)]
}

/// What one of the names does.
fn rewrites() -> std::collections::BTreeMap<kip_spec::ModelName, kip_spec::model_name::NameRewrite> {
    let set = [("extra".to_owned(), serde_json::json!({"think": false, "n": [1, 2.5, null, "x: y"]}))].into();
    let rewrite = kip_spec::model_name::NameRewrite {
        model: Some("Qwen/Qwen3-8B".to_owned()),
        set,
        strip: ["user".to_owned()].into(),
    };
    [("qwen2.5:7b".parse().unwrap(), rewrite)].into()
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in text()) {
        if let Err(problems) = read_in(std::path::Path::new("/"), &text) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(!problem.message.contains('\n'), "{}", problem.message);
                let place = problem.place.unwrap();
                prop_assert!(place.line >= 1 && place.column >= 1);
            }
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same(spec in spec()) {
        let text = write(std::slice::from_ref(&spec));
        let back = read_in(std::path::Path::new("/"), &text).map_err(|problems| TestCaseError::fail(format!("{problems:#?}\n{text}")))?;
        prop_assert_eq!(back.functions, [spec], "{}", text);
    }
}
