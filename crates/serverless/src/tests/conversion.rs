//! Older formats become the same project, and a project is written and read again.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::{read, read_in};
use crate::{Effect, Project, write};

const EDITION1: &str = "edition: 1.0.0
name: shop
vars:
  service: {name: shop, description: d, logConfig: auto, nasConfig: {userId: 1, mountPoints: [{serverAddr: a, mountDir: /mnt}]}, role: auto}
services:
  web:
    component: devsapp/fc
    actions: {pre-deploy: [{run: make, path: ./code}]}
    props:
      region: cn-x
      service: ${vars.service}
      function:
        name: web
        runtime: custom-container
        caPort: 8080
        memorySize: 2048
        gpuMemorySize: 8192
        instanceType: g1
        initializer: index.init
        initializationTimeout: 20
        instanceLifecycleConfig: {preStop: {handler: h, timeout: 3}}
        customContainerConfig: {image: shop:1, command: '[\"/run\"]', args: '[\"--port\", \"8080\"]'}
        asyncConfiguration: {statefulInvocation: true, destination: {onFailure: 'acs:fc:x::functions/f'}}
      triggers:
        - {name: http, type: http, config: {authType: anonymous, methods: [GET]}}
      customDomains: [{domainName: a.example.com, protocol: HTTP, routeConfigs: [{path: /a/*}, {path: /b, methods: [GET]}]}]
  job:
    component: fc
    props:
      region: cn-x
      service: ${vars.service}
      function: {name: job, runtime: python3, handler: index.handler, codeUri: ./job, instanceType: e1, environmentVariables: {URL: '${web.output.url.system_url}'}}
";

const TEMPLATE: &str = "ROSTemplateFormatVersion: '2015-09-01'
Transform: 'Aliyun::Serverless-2018-04-03'
Resources:
  classify:
    Type: 'Aliyun::Serverless::Service'
    Properties:
      Description: classify
      NasConfig: Auto
      LogConfig: {Project: p, Logstore: l}
    cat-dog:
      Type: 'Aliyun::Serverless::Function'
      Properties:
        Handler: predict.handler
        Initializer: predict.initializer
        InitializationTimeout: 300
        Runtime: python3
        CodeUri: ./
        Timeout: 120
        MemorySize: 1024
        EnvironmentVariables: {model_path: /mnt/auto/model}
      Events:
        web:
          Type: HTTP
          Properties: {AuthType: ANONYMOUS, Methods: [get, POST]}
        clock:
          Type: Timer
          Properties: {CronExpression: '@every 5m', Enable: true, Payload: p, Qualifier: prod}
        upload:
          Type: OSS
          Properties: {BucketName: b, Events: ['oss:ObjectCreated:*'], Filter: {Key: {Prefix: a}}, InvocationRole: r}
  v1:
    Type: 'ALIYUN::FC::Version'
    Properties: {ServiceName: classify}
  prod:
    Type: 'ALIYUN::FC::Alias'
    Properties: {ServiceName: classify, AliasName: prod, VersionId: '!GetAtt v1'}
  warm:
    Type: 'ALIYUN::FC::ProvisionConfig'
    Properties: {ServiceName: classify, FunctionName: cat-dog, Qualifier: prod, Target: 3}
  logs:
    Type: 'Aliyun::Serverless::Log'
    Properties: {Description: d}
    store:
      Type: 'Aliyun::Serverless::Log::Logstore'
      Properties: {TTL: 10}
  example.com:
    Type: 'Aliyun::Serverless::CustomDomain'
    Properties: {Protocol: HTTP, RouteConfig: {Routes: {'/': {ServiceName: classify, FunctionName: cat-dog}}}}
";

fn template(map: &str) -> Result<Project, Vec<kip_spec::Problem>> {
    read_in(Path::new("/project"), "template.yml", TEMPLATE, &BTreeMap::new(), map)
}

#[test]
fn edition_1_is_converted_and_says_what_changed() {
    let project = read(EDITION1).unwrap();
    let (web, job) = (&project.functions[0], &project.functions[1]);
    let routes: Vec<&serde_json::Value> = web.domains.iter().map(|domain| &domain["route"]).collect();
    assert_eq!(routes, [&json!({"path": "/a/*"}), &json!({"path": "/b", "methods": ["GET"]})]);
    assert_eq!((web.name.as_str(), job.name.as_str()), ("shop-web", "shop-job"));
    let config = serde_json::Value::from(web.config.clone());
    assert_eq!(config["gpuConfig"], json!({"gpuMemorySize": 8192, "gpuType": "fc.gpu.tesla.1"}));
    let own = &config["customContainerConfig"];
    assert_eq!(
        (&own["entrypoint"], &own["command"], &own["port"]),
        (&json!(["/run"]), &json!(["--port", "8080"]), &json!(8080))
    );
    let lifecycle = &config["instanceLifecycleConfig"];
    assert_eq!(lifecycle["initializer"], json!({"handler": "index.init", "timeout": 20}));
    assert_eq!(lifecycle["preStop"], json!({"handler": "h", "timeout": 3}));
    assert_eq!(config["nasConfig"]["mountPoints"][0]["mountDir"], "/mnt");
    assert_eq!(web.triggers[0].config["methods"], json!(["GET"]));
    assert_eq!(web.asynchronous.as_ref().unwrap().1["asyncTask"], true);
    assert_eq!(web.actions[0].text, "make");
    assert_eq!(job.config["environmentVariables"]["URL"], "http://127.0.0.1:5470/f/shop-web/");
    for said in ["named shop-web", "`caPort`", "`codeUri`", "`gpuMemorySize`", "`customDomains`", "`instanceType: e1`"]
    {
        assert!(project.changes.iter().any(|change| change.contains(said)), "{said}: {:?}", project.changes);
    }
    let ports = project.keys.iter().find(|key| key.path.ends_with("caPort")).unwrap();
    assert_eq!(ports.effect, Effect::Mapped);
}

#[test]
fn a_template_of_fun() {
    let project = template("").unwrap();
    let function = &project.functions[0];
    assert_eq!((function.key.as_str(), function.name.as_str()), ("classify/cat-dog", "classify-cat-dog"));
    let config = serde_json::Value::from(function.config.clone());
    assert_eq!(
        config["instanceLifecycleConfig"]["initializer"],
        json!({"handler": "predict.initializer", "timeout": 300})
    );
    let share = json!([{"serverAddr": "auto-default:/classify", "mountDir": "/mnt/auto"}]);
    assert_eq!(config["nasConfig"]["mountPoints"], share);
    assert_eq!(config["environmentVariables"]["model_path"], "/mnt/auto/model");
    assert_eq!(config["logConfig"], json!({"project": "p", "logstore": "l"}));
    let kinds: Vec<&str> = function.triggers.iter().map(|trigger| trigger.kind.as_str()).collect();
    assert_eq!(kinds, ["http", "timer", "oss"]);
    assert_eq!(function.triggers[0].config, json!({"authType": "anonymous", "methods": ["GET", "POST"]}));
    assert_eq!(function.triggers[1].config, json!({"cronExpression": "@every 5m", "enable": true, "payload": "p"}));
    assert_eq!(function.triggers[1].qualifier, "prod");
    assert_eq!(function.triggers[2].other["invocationRole"], "r");
    assert_eq!((function.aliases[0].name.as_str(), &function.aliases[0].version), ("prod", &None));
    assert_eq!(function.provisions["prod"], json!({"defaultTarget": 3}));
    assert_eq!(
        serde_json::Value::from(function.domains[0].clone()),
        json!({"domainName": "example.com", "protocol": "HTTP", "route": {"path": "/"}})
    );
}

#[test]
fn old_runtimes_are_refused_with_the_whole_command() {
    let text = TEMPLATE.replace("Runtime: python3", "Runtime: python2.7");
    let read = |map: &str| read_in(Path::new("/project"), "template.yml", &text, &BTreeMap::new(), map);
    let problems = read("").unwrap_err();
    let place = problems[0].place.as_ref().unwrap();
    assert_eq!((problems[0].code.to_string().as_str(), place.line, place.column), ("KW-1034", 16, 18));
    assert!(problems[0].hint.as_ref().unwrap().ends_with("kip deploy -t template.yml --runtime-map python2.7=python3"));
    assert_eq!(read("python2.7=python3").unwrap().functions[0].config["runtime"], "python3");
}

/// What a deployment sends, without places and keys of the file.
fn meaning(project: &Project) -> Vec<String> {
    let of = |function: &crate::DeclaredFunction| {
        let mut plain = function.clone();
        plain.place = kip_spec::problem::Place { file: String::new(), line: 0, column: 0, text: None };
        plain.key = String::new();
        plain.code.iter_mut().for_each(|code| code.place = plain.place.clone());
        // An s.yaml has no word for these.
        plain.aliases.clear();
        plain.provisions.retain(|qualifier, _| qualifier == "LATEST");
        format!("{plain:?}")
    };
    project.functions.iter().map(of).collect()
}

#[test]
fn a_project_that_is_written_reads_back_to_the_same() {
    let complete = super::with(
        "timeout: 60
environmentVariables: {A: '${HOME} {x}', B: '0.10', C: 'yes', D: 'null'}
customRuntimeConfig: {command: [python3, app.py], args: ['--port', '9000']}
triggers: [{triggerName: http, triggerType: http, triggerConfig: {authType: function, methods: [GET]}}]
provisionConfig: {defaultTarget: 1}
asyncInvokeConfig: {maxAsyncRetryAttempts: 1, qualifier: prod}
concurrencyConfig: {reservedConcurrency: 2}
tags: [{key: a, value: b}]",
    );
    let address = complete.replace("./code", "https://example.com/app.zip");
    let bucket = complete.replace("./code", "{ossBucketName: b, ossObjectName: a/o.zip}");
    assert!(address != complete && bucket != complete);
    for project in [
        read(&complete).unwrap(),
        read(&address).unwrap(),
        read(&bucket).unwrap(),
        read(EDITION1).unwrap(),
        template("").unwrap(),
    ] {
        let text = write(&project, Path::new("/project"));
        let again = read(&text).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"));
        assert_eq!(meaning(&again), meaning(&project), "{text}");
    }
}
