//! What a person sees who made a mistake.

use super::{folder, read_in, render};

macro_rules! refused {
    ($($name:ident: $text:expr;)*) => {$(
        #[test]
        fn $name() {
            let folder = folder();
            let problems = read_in(folder.path(), $text).unwrap_err();
            let shown = format!("{}\n--- says:\n{}", $text.trim_end(), render(&problems, folder.path()));
            insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
                insta::assert_snapshot!(shown);
            });
        }
    )*};
}

refused! {
    syntax_indentation: "api: kip/v1\nfunctions:\n  f:\n    run: x\n   env: {A: b}\n";
    syntax_colon: "api: kip/v1\nfunctions:\n  f: {run: x}\n  g: run: y\n";
    syntax_braces: "api: kip/v1\nfunctions:\n  f: {run: serve --port ${PORT}, env: {A: b}}\n";
    syntax_tab: "api: kip/v1\nfunctions:\n\tf: {run: x}\n";
    syntax_open_quote: "api: kip/v1\nfunctions:\n  f: {run: \"x}\n";
    syntax_open_bracket: "api: kip/v1\nfunctions:\n  f: {run: [x, y\n";
    syntax_two_documents: "api: kip/v1\nfunctions: {f: {run: x}}\n---\napi: kip/v1\n";
    syntax_unknown_alias: "api: kip/v1\nfunctions: {f: *g}\n";
    syntax_own_alias: "api: kip/v1\nfunctions: &f {f: *f}\n";
    empty_file: "# nothing yet\n";
    a_list_at_the_top: "- run: x\n";
    no_api_and_no_functions: "defaults: {}\n";
    another_api: "api: kip/v2\nfunctions: {f: {run: x}}\n";
    functions_as_a_list: "api: kip/v1\nfunctions:\n  - name: f\n    run: x\n";
    no_functions: "api: kip/v1\nfunctions: {}\n";
    names: "api: kip/v1\nfunctions:\n  2x: {run: x}\n  a.b: {run: x}\n  [a]: {run: x}\n  5: {run: x}\n  Ocr: {run: x}\n  ocr: {run: x}\n  Ocr: {run: x}\n";
    unknown_keys: "api: kip/v1\nfunction: {}\nfunctions:\n  f:\n    runn: x\n    command: x\n    name: f\n    max: 3\n    idle: {pauze: 5s, after: 1s}\n    instances: {first_byte: 1s}\n    timeouts: {first-byte: 1s}\n";
    sleep_and_canary: "api: kip/v1\nfunctions:\n  f:\n    run: x\n    lifecycle: {sleep: {down: sleep}}\n    idle: {park: soon, pause: when-needed}\n    latency: {wake: never}\n    canary: {path: /x, status: 20, tolerance: 2, json: {text: 4, /a: [1]}}\n  g:\n    run: x\n    idle: {park: 60s}\n    lifecycle: {sleep: {up: /x, down: []}}\n    canary: {body: {a: 1}}\n    instances: {pin: 1}\n";
    later_keys: "api: kip/v1\nmodels: {}\npools: {}\nfunctions:\n  f:\n    image: x\n    preset: vllm\n    resources: {disk: 6GiB}\n    probes: {startup: /x}\n    scaling: {mode: auto, class: balanced}\n    trigger: {timer: {every: 1h}}\n  g: {model: org/name}\n";
    units: "api: kip/v1\nfunctions:\n  f:\n    run: x\n    idle: {pause: 5, stop: 5x}\n    timeouts: {total: soon, queue: -1s, startup: 0s, grace: 9999d}\n    resources: {cpu: 2cores, memory: 4}\n  g: {run: x, resources: {cpu: 0, memory: 4B}}\n";
    wrong_types: "api: kip/v1\nfunctions:\n  f:\n    run: {a: b}\n    dir: [x]\n    env: [A, B]\n    resources: 5\n    instances: {min: \"1\", max: lots, concurrency: [1]}\n    probes: {ready: [a]}\n    lifecycle: {initialize: 5}\n    timeouts: {total: [1s], queue: true}\n    queue: 5\n    idle: {pause: no}\n    dispatch: [packed]\n    trigger: {http: yes}\n  g:\n  h: x\n";
    counts: "api: kip/v1\nfunctions:\n  f: {run: x, instances: {min: -1, max: 1.5, concurrency: 0}, queue: {depth: 0}}\n";
    missing_program: "api: kip/v1\nfunctions:\n  f: {env: {A: b}}\n  g: {}\n  h: {image: x}\n";
    contradictions: "api: kip/v1\nfunctions:\n  a: {run: x, instances: {min: 3, max: 2}}\n  b: {run: x, instances: {min: 11}}\n  c: {run: x, instances: {max: 0}}\n  d: {run: x, instances: {concurrency: {hard: 1, soft: 2}}}\n  e: {run: x, model: ./digits.onnx}\n  f: {model: ./digits.onnx, dir: ./ocr}\n";
    duplicate_keys: "api: kip/v1\nfunctions:\n  f:\n    run: x\n    env: {A: b, A: c}\n    idle: {pause: 1s}\n    idle: {stop: 1h}\n";
    commands: "api: kip/v1\nfunctions:\n  a: {run: \"x 'y\"}\n  b: {run: cd x && y}\n  c: {run: \"x | y\"}\n  d: {run: x > y}\n  e: {run: X=1 y}\n  f: {run: \"\"}\n  g: {run: []}\n  h: {run: [x, [y]]}\n  i: {run: \"echo $(date)\"}\n  j: {run: [\"a\\0b\"]}\n";
    directories: "api: kip/v1\nfunctions:\n  a: {run: x, dir: ./nowhere}\n  b: {run: x, dir: notes.txt}\n";
    models: "api: kip/v1\nfunctions:\n  a: {model: digits.onnx}\n  b: {model: ./nowhere.onnx}\n  c: {model: ./empty}\n  d: {model: ./notes.txt}\n  e: {model: [a]}\n";
    environment: "api: kip/v1\nfunctions:\n  f:\n    run: x\n    env: {2X: a, A-B: a, PORT: 80, FC_SERVER_PORT: 1, KIPWAKE_X: 1, OK: [a], EMPTY: , \"\": x}\n";
    devices: "api: kip/v1\ndefaults: {resources: {gpu: {type: L4}}}\nfunctions:\n  both: {run: x, resources: {gpu: {memory: 6GiB, cards: 1}}}\n  neither: {run: x, resources: {gpu: {}}}\n  none: {run: x, resources: {gpu: {cards: 0}}}\n  many: {run: x, resources: {gpu: {cards: 65}}}\n  little: {run: x, resources: {gpu: {memory: 5B}}}\n  kind: {run: x, resources: {gpu: {cards: 1, type: [L4]}}}\n  name: {run: x, resources: {gpu: {cards: 1, type: \"a/b\"}}}\n  min: {run: x, resources: {gpu: {cards: 1}}, instances: {min: 2}}\n  typed: {run: x, resources: {gpu: {card: 1}}}\n";
    watchdog_and_rotation: "api: kip/v1\nfunctions:\n  f: {run: x, watchdog: {stall: 0s}, rotation: {max_age: 5, max_memory: 1KiB}, probes: {live: tcp}}\n  g: {run: x, watchdog: {stal: 5s}, rotation: 24h}\n";
    paths: "api: kip/v1\nfunctions:\n  f: {run: x, probes: {ready: healthz}, lifecycle: {initialize: {timeout: 5s}, pre_stop: {path: /a b}}}\n";
    words: "api: kip/v1\nfunctions:\n  f: {run: x, dispatch: random, scaling: {mode: manual}, trigger: {http: {auth: jwt, methods: [get, TRACE, 5]}}}\n  g: {run: x, trigger: {http: {auth: none, methods: []}}}\n";
    jobs: "api: kip/v1\nfunctions:\n  f: {run: x}\njobs:\n  f: {run: x}\n  a: {command: x, instances: {max: 2}}\n  b: {run: x, retries: 9, timeout: 31d, parallel: 0}\n  c: {run: x, retries: {only: [0, 256, x], never: 2}}\n  d: {run: x, schedule: 5}\n  e: {run: x, schedule: \"61 * * * *\"}\n  g: {run: x, schedule: {zone: Mars/Olympus, overlap: maybe, missed: all}}\n  h: {run: x, schedule: {cron: \"@daily\", zone: Mars/Olympus, suspend: true, deadline: 0s, paused: 1}}\n";
    wrong_defaults_are_told_once: "api: kip/v1\ndefaults: {idle: {pause: 5}, run: x, instances: {min: 20}}\nfunctions:\n  f: {run: x}\n  g: {run: x, idle: {stop: 5}}\n";
}
