//! What edition 3 says, and how references, templates and flows are followed.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{read, read_in, with};
use crate::{Effect, Format};

#[test]
fn a_function_with_all_that_belongs_to_it() {
    let text = with(
        "timeout: '60'
cpu: 0.5
memorySize: 1024
diskSize: 10240
instanceConcurrency: 20
environmentVariables: {A: 1, B: true, C: text, D: }
customRuntimeConfig: {command: [python3, app.py, 8080], port: 9000, healthCheckConfig: {httpGetUrl: /healthz}}
gpuConfig: {gpuMemorySize: 8192, gpuType: fc.gpu.tesla.1}
instanceLifecycleConfig: {initializer: {handler: app.init, timeout: 30}, preStop: {handler: app.stop, timeout: 300}}
logConfig: auto
nasConfig: auto|mountDir=/mnt/x
role: acs:ram::1:role/x
triggers:
  - triggerName: http
    triggerType: http
    triggerConfig: {authType: anonymous, methods: [GET, POST]}
  - triggerName: clock
    triggerType: timer
    description: each day
    qualifier: prod
    triggerConfig: {cronExpression: '0 0 8 * * *', enable: true, payload: x}
asyncInvokeConfig: {maxAsyncRetryAttempts: 2, destinationConfig: {onSuccess: {destination: 'acs:mns:x::/topics/t'}, onFailure: {destination: 'acs:fc:local::functions/other'}}}
provisionConfig: {target: 2, alwaysAllocateCPU: false}
scalingConfig: {minInstances: 1, residentPoolId: pool}
concurrencyConfig: {reservedConcurrency: 3}
vpcBinding: {vpcIds: [vpc-1]}
tags: [{key: team, value: a}, {Key: tier, Value: b}]
customDomain: {domainName: auto, protocol: HTTP, route: {path: /*}}",
    );
    let project = read(&text).unwrap();
    let function = &project.functions[0];
    assert_eq!((project.format, project.name.as_str(), function.name.as_str()), (Format::Edition3, "app", "web"));
    let config = serde_json::Value::from(function.config.clone());
    assert_eq!((&config["timeout"], &config["cpu"], &config["memorySize"]), (&json!(60), &json!(0.5), &json!(1024)));
    assert_eq!(config["environmentVariables"], json!({"A": "1", "B": "true", "C": "text", "D": ""}));
    assert_eq!(config["customRuntimeConfig"]["command"], json!(["python3", "app.py", "8080"]));
    assert_eq!(config["instanceLifecycleConfig"]["preStop"]["timeout"], 90);
    assert_eq!(config["logConfig"], json!(null), "the tool makes it");
    let share = json!({"mountPoints": [{"serverAddr": "auto-default:/web", "mountDir": "/mnt/x"}]});
    assert_eq!(config["nasConfig"], share);
    assert_eq!(config["handler"], "index.handler");
    assert_eq!(function.code.as_ref().unwrap().path, Path::new("/project/code"));
    let trigger = &function.triggers[1];
    assert_eq!((trigger.kind.as_str(), trigger.qualifier.as_str()), ("timer", "prod"));
    assert_eq!(trigger.other["description"], "each day");
    let (qualifier, asynchronous) = function.asynchronous.as_ref().unwrap();
    assert_eq!(qualifier, "LATEST");
    assert_eq!(
        asynchronous["destinationConfig"],
        json!({"onFailure": {"destination": "acs:fc:local::functions/other"}})
    );
    assert_eq!(function.provisions["LATEST"], json!({"defaultTarget": 2, "alwaysAllocateCPU": false}));
    assert_eq!(function.scaling, Some(json!({"minInstances": 1})));
    assert_eq!((function.concurrency, function.networks.as_slice()), (Some(3), &["vpc-1".to_owned()][..]));
    assert_eq!(
        function.tags,
        BTreeMap::from([("team", "a"), ("tier", "b")].map(|(k, v)| (k.to_owned(), v.to_owned())))
    );
    let effect = |path: &str| project.keys.iter().find(|key| key.path == path).map(|key| (key.effect, key.line));
    assert_eq!(effect("resources.web.props.timeout"), Some((Effect::Mapped, 12)));
    assert_eq!(effect("resources.web.props.role"), Some((Effect::Stored, 23)));
    assert_eq!(effect("resources.web.props.customDomain.route.path").map(|found| found.0), Some(Effect::Mapped));
    assert!(function.domains.is_empty(), "a name that the vendor makes up");
    assert_eq!(effect("access").map(|found| found.0), Some(Effect::WithoutEffect));
}

#[test]
fn references_are_followed() {
    let text = "edition: 3.0.0
name: app
vars:
  region: local
  size: 512
  port: ${env('PORT', 8080)}
  shared: {A: '1', B: '${vars.size}'}
resources:
  api:
    component: ${env('COMPONENT', path('../fc3'))}
    vars: {mode: fast}
    props:
      region: ${vars.region}
      functionName: api-${env(STAGE, 'dev')}
      runtime: custom
      memorySize: ${vars.size}
      code: ${this.vars.mode}/code
      environmentVariables:
        MODE: ${this.vars.mode}
        PATHS: ${path('./data')}:${PATH}
        ACCOUNT: ${config('AccountID')}
        PORT: ${vars.port}
        ME: ${this.name} ${this.props.functionName} ${this.access}
  page:
    component: fc3
    props:
      functionName: page
      runtime: nodejs20
      handler: index.handler
      code: ./page
      environmentVariables: ${vars.shared}
      description: ${resources.api.output.url.system_url} of ${resources.api.props.functionName}, ${resources.api.output.functionName}
  last:
    component: fc3
    props: {functionName: last, runtime: custom, code: ., environmentVariables: {API: '${resources.page.props.description}'}}
";
    let variables = BTreeMap::from([("STAGE".to_owned(), "prod".to_owned())]);
    let project = read_in(Path::new("/project/app"), "s.yaml", text, &variables, "").unwrap();
    let names: Vec<&str> = project.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["api-prod", "page", "last"]);
    let config = serde_json::Value::from(project.functions[0].config.clone());
    assert_eq!(config["memorySize"], 512);
    let environment = &config["environmentVariables"];
    assert_eq!((&environment["MODE"], &environment["PORT"]), (&json!("fast"), &json!("8080")));
    assert_eq!(environment["PATHS"], "/project/app/data:${PATH}", "the shell's own variables stay");
    assert_eq!(environment["ME"], "api api-prod default");
    assert_eq!(project.functions[0].code.as_ref().unwrap().path, Path::new("/project/app/fast/code"));
    let page = serde_json::Value::from(project.functions[1].config.clone());
    assert_eq!(page["environmentVariables"], json!({"A": "1", "B": "512"}));
    let wanted = "http://127.0.0.1:5470/f/api-prod/ of api-prod, api-prod";
    assert_eq!(page["description"], wanted);
    let last = serde_json::Value::from(project.functions[2].config.clone());
    assert_eq!(last["environmentVariables"]["API"], wanted);
}

#[test]
fn templates_flows_and_dependencies() {
    let text = "edition: 3.0.0
name: app
template:
  base: {runtime: custom, code: ./code, timeout: 30, vpcConfig: auto, environmentVariables: {A: a, B: b}}
flow:
  deploy:
    - [c]
    - [\"${regex('^b')}\"]
resources:
  a:
    component: fc3@0.1.22
    extend: {name: base, ignore: [vpcConfig]}
    props: {functionName: a, timeout: 60, environmentVariables: {B: c}}
  b1: {component: fc3, props: {extend: {name: base, ignore: vpcConfig}, functionName: b1, description: '${resources.a.props.functionName}'}}
  c: {component: devsapp/fc3, extend: {name: base}, props: {functionName: c}, actions: {pre-deploy: [{run: make, path: ./code}, {component: fc3 invoke}], 'post-${regex(\".\")}': [{run: ls}]}}
";
    let project = read(text).unwrap();
    let names: Vec<&str> = project.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["c", "b1", "a"], "the flow first, then the file");
    let a = serde_json::Value::from(project.functions[2].config.clone());
    assert_eq!((&a["timeout"], &a["environmentVariables"]), (&json!(60), &json!({"A": "a", "B": "c"})));
    let actions = &project.functions[0].actions;
    assert_eq!(
        (actions.len(), actions[0].text.as_str(), actions[0].directory.as_path()),
        (3, "make", Path::new("/project/code"))
    );
    assert!(
        actions[0].is_for("pre", "deploy")
            && !actions[0].is_for("post", "deploy")
            && !actions[0].is_for("pre", "remove")
    );
    assert!(actions[2].is_for("post", "deploy") && actions[2].is_for("post", "remove"));
    // Without a flow, a function comes after those that it refers to.
    let text = "edition: 3.0.0
resources:
  b: {component: fc3, props: {functionName: b, runtime: custom, code: ., description: '${resources.a.props.functionName}'}}
  a: {component: fc3, props: {functionName: a, runtime: custom, code: .}}
";
    let names: Vec<String> = read(text).unwrap().functions.iter().map(|function| function.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_file_extends_another() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("base.yaml"), with("timeout: 5\nmemorySize: 128")).unwrap();
    let text = "extend: base.yaml\nresources:\n  web:\n    props: {timeout: 9}\n";
    let project = read_in(folder.path(), "s.yaml", text, &BTreeMap::new(), "").unwrap();
    let config = serde_json::Value::from(project.functions[0].config.clone());
    assert_eq!((&config["timeout"], &config["memorySize"]), (&json!(9), &json!(128)));
}

#[test]
fn what_has_no_effect_stops_nothing() {
    let text = with(
        "endpoint: ${env('NOWHERE')}\nannotations: {a: '{{x}}'}\nfurther: 1\nvpcConfig: {vpcId: \"${env('NETWORK')}\"}",
    );
    let text =
        text.replace("region: local", "region: '{{ region }}'").replace("access: default", "access: '{{access}}'");
    let project = read(&text).unwrap();
    let codes: Vec<String> = project.warnings.iter().map(|warning| warning.code.to_string()).collect();
    assert_eq!(codes, ["KW-1032", "KW-1032", "KW-1033", "KW-1033"]);
    let further = project.keys.iter().find(|key| key.path.ends_with("further")).unwrap();
    assert_eq!((further.effect, further.note), (Effect::WithoutEffect, "no key of this component"));
    // A resource that is no function is left out of a file that has others.
    let mixed = with("") + "  bucket:\n    component: oss\n    props: {bucket: b}\n";
    let project = read(&mixed).unwrap();
    assert_eq!((project.functions.len(), project.warnings.len()), (1, 1));
}

#[test]
fn a_custom_domain_has_a_route() {
    let domain = |text: &str| {
        let whole = format!(
            "edition: 3.0.0\nname: a\nresources:\n  f:\n    component: fc3\n    props: {{region: x, functionName: f, runtime: custom, code: ./c, customDomain: {text}}}\n"
        );
        read(&whole).map(|project| project.functions[0].domains.clone())
    };
    let found =
        domain("{domainName: a.example.com, protocol: HTTP, route: {path: /*, qualifier: prod}, certConfig: auto}")
            .unwrap();
    assert_eq!(
        found.into_iter().map(serde_json::Value::from).collect::<Vec<_>>(),
        [json!({"domainName": "a.example.com", "protocol": "HTTP", "route": {"path": "/*", "qualifier": "prod"}})]
    );
    assert!(domain("{domainName: a.example.com, protocol: HTTP}").is_err());
}
