//! Broken files: each has a code, a place and a way out.

use super::{read, with};

/// A text, then its first problem: the code, line, column, and a piece of the hint.
fn broken() -> Vec<(String, &'static str, u64, u64, &'static str)> {
    let props = |lines: &str| with(lines);
    let top = |lines: &str| format!("edition: 3.0.0\n{lines}");
    let replaced = |from: &str, to: &str| with("").replace(from, to);
    vec![
        ("name: x\n".to_owned(), "KW-1030", 1, 1, "edition: 3.0.0"),
        ("edition: 2.0.0\nresources: {}\n".to_owned(), "KW-1030", 1, 1, "edition: 3.0.0"),
        ("- a\n- b\n".to_owned(), "KW-1030", 1, 1, "edition: 3.0.0"),
        (top("resources:\n  a: [\n"), "KW-1001", 3, 6, "close"),
        (top("name: x\n"), "KW-1040", 1, 1, "resources:"),
        (top("resources: 5\n"), "KW-1036", 2, 12, "name"),
        (top("resources:\n  web: fc3\n"), "KW-1036", 3, 3, "component: fc3"),
        (top("resources:\n  web: {props: {a: 1}}\n"), "KW-1040", 3, 3, "component: fc3"),
        (top("resources:\n  web: {component: oss, props: {bucket: b}}\n"), "KW-1031", 3, 3, "component: fc3"),
        (replaced("functionName: web", "functionName: 1web"), "KW-1036", 9, 21, "beginning with a letter"),
        (replaced("      functionName: web\n", ""), "KW-1040", 5, 3, "functionName: NAME"),
        (replaced("custom.debian12", "cobol"), "KW-1034", 10, 16, "custom.debian12"),
        (replaced("custom.debian12", "java11"), "KW-1034", 10, 16, "web server"),
        (replaced("      runtime: custom.debian12\n", ""), "KW-1040", 5, 3, "runtime: custom.debian12"),
        (replaced("custom.debian12", "python3.10"), "KW-1040", 5, 3, "handler: index.handler"),
        (replaced("      code: ./code\n", ""), "KW-1040", 5, 3, "code: ./code"),
        (replaced("./code", "oss://b/x.zip"), "KW-1035", 11, 13, "download it"),
        (replaced("./code", "{ossBucketName: b}"), "KW-1035", 11, 13, "download it"),
        (props("timeout: soon"), "KW-1036", 12, 16, "from 1 to 86400"),
        (props("memorySize: 100"), "KW-1036", 12, 19, "from 128"),
        (props("memorySize: 200"), "KW-1036", 12, 19, "512"),
        (props("memroySize: 512"), "KW-1039", 12, 7, "`memorySize`"),
        (props("cpu: lots"), "KW-1036", 12, 12, "a number"),
        (props("gpuConfig: {gpuMemorySize: 8000}"), "KW-1036", 12, 34, "8192"),
        (props("environmentVariables: [A]"), "KW-1036", 12, 29, "NAME: value"),
        (props("environmentVariables: {A-B: x}"), "KW-1036", 12, 30, "letters, digits"),
        (props("description: ${vars.none}"), "KW-1032", 12, 20, "vars"),
        (props("description: ${env('KIPWAKE_NOWHERE')}"), "KW-1032", 12, 20, "export KIPWAKE_NOWHERE"),
        (props("description: ${now()}"), "KW-1032", 12, 20, "env, config"),
        (props("description: ${vars.a || 'b'}"), "KW-1032", 12, 20, "env('X'"),
        (props("description: ${resources.db.output.host}"), "KW-1032", 12, 20, "slip"),
        (props("description: '{{ text }}'"), "KW-1033", 12, 20, "in its place"),
        (props("triggers: http"), "KW-1036", 12, 17, "triggerName"),
        (props("triggers: [{triggerType: http}]"), "KW-1040", 12, 18, "triggerName"),
        (props("triggers: [{triggerName: a, triggerType: web}]"), "KW-1036", 12, 48, "http, timer"),
        (props("triggers: [{triggerName: a, triggerType: http, triggerConfig: {authType: jwt}}]"), "KW-1040", 12, 80, "jwks"),
        (props("triggers: [{triggerName: a, triggerType: http, triggerConfig: {methods: [FETCH]}}]"), "KW-1036", 12, 80, "GET"),
        (props("triggers: [{triggerName: a, triggerType: timer, triggerConfig: {cronExpression: '0 8 * * *'}}]"), "KW-1036", 12, 87, "seconds"),
        (props("instanceLifecycleConfig: {initializer: {command: [a]}}"), "KW-1037", 12, 56, "handler"),
        (props("provisionConfig: {target: many}"), "KW-1036", 12, 24, "scaling"),
        (props("customRuntimeConfig: {command: ./run}"), "KW-1036", 12, 38, "[python3"),
        (replaced("    props:", "    extend: {name: none}\n    props:"), "KW-1038", 7, 13, "template:"),
        (with("") + "flow: {deploy: [[web], [other]]}\n", "KW-1038", 12, 25, "web"),
        ("extend: none.yaml\n".to_owned(), "KW-1038", 1, 9, "base.yaml"),
        (props("actions: x") + "    actions: {pre-deploy: [{go: x}]}\n", "KW-1036", 13, 28, "run: COMMAND"),
        (with("timeout: 3\ntimeout: 5"), "KW-1036", 13, 7, "keep one"),
        ("ROSTemplateFormatVersion: '2015-09-01'\n".to_owned(), "KW-1040", 1, 1, "Resources:"),
        (
            "ROSTemplateFormatVersion: '2015-09-01'\nResources:\n  s:\n    Type: 'Aliyun::Serverless::Service'\n    f:\n      Type: 'Aliyun::Serverless::Function'\n      Properties: {Handler: a.b, Runtime: python3, CodeUri: .}\n      Events: {e: {Type: Mail}}\n".to_owned(),
            "KW-1036", 8, 26, "HTTP, Timer",
        ),
        (
            "ROSTemplateFormatVersion: '2015-09-01'\nResources:\n  a: {Type: 'ALIYUN::FC::Alias', Properties: {ServiceName: s}}\n".to_owned(),
            "KW-1038", 3, 3, "`ServiceName`",
        ),
    ]
}

#[test]
fn each_broken_file_has_a_place_and_a_way_out() {
    let all = broken();
    assert!(all.len() >= 30);
    let mut faults = Vec::new();
    for (text, code, line, column, hint) in all {
        match read(&text) {
            Ok(_) => faults.push(format!("taken: {text}")),
            Err(problems) => {
                let first = &problems[0];
                let place = first.place.as_ref().map(|place| (place.line, place.column));
                let said = first.hint.clone().unwrap_or_default();
                if first.code.to_string() != code || place != Some((line, column)) || !said.contains(hint) {
                    faults.push(format!("{text}\n  wanted {code} {line}:{column} {hint:?}, found {first:?}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
