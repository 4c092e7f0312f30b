//! Who reads a function and writes it back changes nothing, and who changes one field changes that alone.

use std::path::Path;

use kip_spec::function::{Concurrency, FunctionSpec, Hook, Program, ReadyProbe};
use kip_spec::probe::ProbeTiming;
use kip_spec::{Bytes, MilliCpu, Millis};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::declaration::{apply, fresh};
use crate::rendering::{differences, render};

fn path() -> impl Strategy<Value = String> {
    "/[a-z]{0,6}"
}

/// A value of kip.yaml: text with references and what only looks like some.
fn value() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            Just("${PORT}".to_owned()),
            Just("${FC_FUNC_CODE_PATH}".to_owned()),
            Just("$${x}".to_owned()),
            "[a-z/:]{0,5}".prop_map(String::from)
        ],
        0..4,
    )
    .prop_map(|pieces| pieces.concat())
}

fn hook() -> impl Strategy<Value = Option<Hook>> {
    prop::option::of((path(), 1u64..90_000).prop_map(|(path, timeout)| Hook { path, timeout: Millis(timeout) }))
}

prop_compose! {
    /// A function as a kip.yaml declares it.
    fn declared()(
        env in prop::collection::btree_map("[A-Z]{1,4}", value(), 0..4),
        times in prop::array::uniform5(1u64..100_000),
        (hard, soft) in (1u32..200, 1u32..200),
        (memory, cpu) in (prop::option::of(1u64..1 << 40), prop::option::of(1u64..16_000)),
        (ready, period) in (prop::option::of(path()), prop::option::of(1u64..100_000)),
        (initialize, pre_stop, stop) in (hook(), hook(), prop::option::of(1u64..86_400_000)),
    ) -> FunctionSpec {
        let program = Program::Command { argv: vec!["serve".to_owned(), "--port".to_owned(), "${PORT}".to_owned()], dir: "/app".into() };
        let mut spec = FunctionSpec::new("f".parse().unwrap(), program);
        spec.env = env;
        let [first_byte, idle, total, queue, startup] = times.map(Millis);
        (spec.timeouts.first_byte, spec.timeouts.idle, spec.timeouts.total) = (first_byte, idle, total);
        (spec.timeouts.queue, spec.timeouts.startup) = (queue, startup);
        spec.instances.concurrency = Concurrency { hard: hard.max(soft), soft: hard.min(soft) };
        (spec.resources.memory, spec.resources.cpu) = (memory.map(Bytes), cpu.map(MilliCpu));
        if let Some(path) = ready {
            spec.ready = ReadyProbe::Http { path };
            spec.probes.ready = ProbeTiming { period: period.map(Millis), ..ProbeTiming::default() };
        }
        (spec.lifecycle.initialize, spec.lifecycle.pre_stop) = (initialize, pre_stop);
        spec.idle.stop = stop.map(Millis);
        spec
    }
}

/// What the server does with a change of a function.
fn written(spec: &FunctionSpec, change: Map<String, Value>) -> FunctionSpec {
    let mut spec = spec.clone();
    let shown = Value::from(render(&spec));
    apply(&differences(&shown, change), &mut spec).unwrap();
    spec
}

proptest! {
    #[test]
    fn what_is_read_and_written_back_changes_nothing(spec in declared()) {
        let mut shown = render(&spec);
        prop_assert_eq!(&written(&spec, shown.clone()), &spec);
        for (name, value) in &shown {
            prop_assert_eq!(&written(&spec, Map::from_iter([(name.clone(), value.clone())])), &spec);
        }
        // With what no request sets.
        shown.insert("functionArn".to_owned(), "acs:fc:x:y:functions/f".into());
        shown.insert("lastModifiedTime".to_owned(), "2026".into());
        prop_assert!(differences(&Value::from(render(&spec)), shown).is_empty());
    }

    #[test]
    fn one_change_leaves_the_rest(spec in declared(), seconds in 1u64..1_000, count in 1u64..200) {
        let mut environment = render(&spec)["environmentVariables"].as_object().unwrap().clone();
        environment.insert("ADDED".to_owned(), "${PORT}".into());
        let added = written(&spec, Map::from_iter([("environmentVariables".to_owned(), environment.into())]));
        prop_assert_eq!(&added.env["ADDED"], "$${PORT}");
        let mut without = added;
        without.env.remove("ADDED");
        prop_assert_eq!(&without, &spec, "references of the other variables stay");
        let slower = written(&spec, json!({"timeout": seconds}).as_object().unwrap().clone());
        let mut same = slower;
        same.timeouts = spec.timeouts;
        prop_assert_eq!(&same, &spec);
        let wider = written(&spec, json!({"instanceConcurrency": count}).as_object().unwrap().clone());
        let Concurrency { hard, soft } = wider.instances.concurrency;
        prop_assert_eq!(u64::from(hard), if count == u64::from(spec.instances.concurrency.hard) { u64::from(hard) } else { count });
        prop_assert!(soft <= hard);
    }

    #[test]
    fn what_a_client_made_comes_back_as_it_was_sent(
        timeout in 1u64..86_400, concurrency in 1u64..200, text in "[a-zA-Z${}/: ]{0,12}", idle in 0u64..86_400, disable in any::<bool>(),
    ) {
        let config = json!({
            "functionName": "f", "runtime": "custom", "handler": "h", "timeout": timeout, "instanceConcurrency": concurrency,
            "environmentVariables": {"A": text}, "idleTimeout": idle, "disableOndemand": disable,
            "customRuntimeConfig": {"command": ["/code/run"], "healthCheckConfig": {"httpGetUrl": "/h", "periodSeconds": 5}},
        });
        let config = config.as_object().unwrap().clone();
        let spec = fresh("f".parse().unwrap(), &config, Path::new("/tree")).unwrap();
        prop_assert!(differences(&Value::from(config.clone()), config).is_empty());
        // Also where it is written as it is shown by its declaration alone.
        prop_assert_eq!(&written(&spec, render(&spec)), &spec);
    }
}
