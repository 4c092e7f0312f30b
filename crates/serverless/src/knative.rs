//! Services of Knative: each object becomes a function of a kip.yaml, and each leaf key is reported with its effect. Objects of other kinds
//! are named and left out.

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::{Kind, Node};
use kip_spec::{Problem, code};
use serde_json::{Map, Value, json};

use crate::effects::{self, Effect};
use crate::node::{at, get, items, pairs, text};
use crate::project::KeyEffect;

/// The group of objects that are read.
const GROUP: &str = "serving.knative.dev/";
/// Requests at once where a revision sets no limit (`containerConcurrency: 0`).
const UNLIMITED: u64 = 1_000;
/// The target of such a revision, as Knative's own default.
const TARGET: u64 = 100;
/// The prefix of the autoscaler's annotations.
const AUTOSCALING: &str = "autoscaling.knative.dev/";

/// What a file of Knative declares.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KnativeFile {
    /// The functions, in the order of the file.
    pub services: Vec<KnativeService>,
    /// Each leaf key and its effect.
    pub effects: Vec<KeyEffect>,
    /// Objects that are not deployed: kind and name.
    pub others: Vec<String>,
}

/// One Service.
#[derive(Debug, Clone, PartialEq)]
pub struct KnativeService {
    /// The name of the function.
    pub name: String,
    /// The name that the file gives the revision; it becomes an alias.
    pub revision: Option<String>,
    /// The keys of the function in a kip.yaml.
    pub function: Map<String, Value>,
}

impl KnativeFile {
    /// As a kip.yaml. JSON is YAML too.
    pub fn document(&self) -> String {
        let functions: Map<String, Value> =
            self.services.iter().map(|one| (one.name.clone(), Value::Object(one.function.clone()))).collect();
        json!({ "api": "kip/v1", "functions": functions }).to_string()
    }
}

/// Whether a text has an object of Knative's serving group.
pub fn is_knative(content: &str) -> bool {
    let declares = |line: &str| {
        let value = line.strip_prefix("apiVersion:").map(|value| value.trim().trim_matches(['"', '\'']));
        value.is_some_and(|value| value.starts_with(GROUP))
    };
    content.trim_start_matches('\u{feff}').lines().any(declares)
}

/// Reads a file with one object or several.
///
/// # Errors
/// Every problem of the file, in its order; there is at least one.
pub fn read_knative(file: &str, content: &str) -> Result<KnativeFile, Vec<Problem>> {
    let content = content.trim_start_matches('\u{feff}');
    let mut report = Report::new(file, content);
    let mut found = KnativeFile::default();
    for document in documents(content) {
        let Some(root) = kip_manifest::parse(&document, &mut report) else { continue };
        if matches!(root.kind, Kind::Null) {
            continue;
        }
        object(&root, &mut found, &mut report);
    }
    if found.services.is_empty() && report.count() == 0 {
        let problem = Problem::new(code::FILE_NO_FUNCTION, "the file declares no Service of serving.knative.dev");
        report.add(
            Default::default(),
            problem.hint("a Service has apiVersion: serving.knative.dev/v1 and kind: Service"),
        );
    }
    report.close().map(|_| found)
}

/// The documents of a text, each with the lines before it as empty ones, so that places stay true.
fn documents(content: &str) -> Vec<String> {
    let (mut all, mut before) = (Vec::new(), 0);
    let mut lines: Vec<&str> = Vec::new();
    let mut close = |lines: &mut Vec<&str>, before: &mut usize| {
        if lines.iter().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
            all.push("\n".repeat(*before) + &lines.join("\n"));
        }
        *before += lines.len() + 1;
        lines.clear();
    };
    for line in content.lines() {
        let separates = line == "---" || line.starts_with("--- ");
        match separates {
            true => close(&mut lines, &mut before),
            false => lines.push(line),
        }
    }
    close(&mut lines, &mut before);
    all
}

fn object(root: &Node, found: &mut KnativeFile, report: &mut Report<'_>) {
    let (kind, version) = (text(root, "kind").unwrap_or("object"), text(root, "apiVersion").unwrap_or_default());
    let name = at(root, &["metadata", "name"]).and_then(Node::scalar);
    if !(version.starts_with(GROUP) && kind == "Service") {
        found.others.push(format!("{kind} {}", name.unwrap_or("without a name")));
        return;
    }
    let Some(name) = name else {
        let problem = Problem::new(code::FILE_PLACEHOLDER, "the Service has no name, which some tools fill in");
        return report.add(root.at, problem.hint("write metadata: {name: NAME}"));
    };
    if found.services.iter().any(|other| other.name == name) {
        let problem = Problem::new(code::FILE_UNSUPPORTED, format!("the Service `{}` is declared twice", shown(name)));
        return report.add(root.at, problem.hint("write each into a file of its own, and deploy one after the other"));
    }
    let Some(template) = at(root, &["spec", "template"]) else {
        let problem = Problem::new(code::FILE_VALUE, format!("Service `{name}` has no spec.template"));
        return report.add(root.at, problem.hint("write spec: {template: {spec: {containers: [{image: IMAGE}]}}}"));
    };
    let revision = at(template, &["metadata", "name"]).and_then(Node::scalar).map(str::to_owned);
    let mut function = Map::new();
    let Some(container) = serving_container(template, name, report) else { return };
    image(container, &mut function, report);
    command(container, &mut function);
    port(container, &mut function, report);
    variables(container, name, revision.as_deref(), &mut function, report);
    resources(container, &mut function, report);
    probes(container, &mut function);
    limits(template, &mut function, report);
    scaling(root, template, &mut function);
    if let Some(traffic) = traffic(root, revision.as_deref(), report) {
        function.insert("traffic".to_owned(), traffic);
    }
    leaves(root, &mut Vec::new(), &mut String::new(), &mut found.effects);
    found.services.push(KnativeService { name: name.to_owned(), revision, function });
}

/// The container that serves: the only one, or the one with a port.
fn serving_container<'a>(template: &'a Node, name: &str, report: &mut Report<'_>) -> Option<&'a Node> {
    let all = at(template, &["spec", "containers"]).map(items).unwrap_or_default();
    match all {
        [] => {
            let problem = Problem::new(code::FILE_VALUE, format!("Service `{name}` has no container"));
            report.add(template.at, problem.hint("write spec.template.spec.containers: [{image: IMAGE}]"));
            None
        }
        [one] => Some(one),
        several => {
            let named =
                |one: &Node| text(one, "name").or_else(|| text(one, "image")).unwrap_or("without a name").to_owned();
            let further: Vec<String> = several.iter().filter(|one| get(one, "ports").is_none()).map(named).collect();
            let message = format!(
                "Service `{name}` has {} containers; one is run. Further ones: {}",
                several.len(),
                further.join(", ")
            );
            let problem = Problem::new(code::FILE_UNSUPPORTED, message);
            report.add(several[1].at, problem.hint("deploy further containers as functions of their own"));
            None
        }
    }
}

fn image(container: &Node, function: &mut Map<String, Value>, report: &mut Report<'_>) {
    let Some(node) = get(container, "image") else {
        let problem = Problem::new(code::FILE_VALUE, "the container has no image");
        return report.add(container.at, problem.hint("write image: REGISTRY/NAME:TAG"));
    };
    let image = node.scalar().unwrap_or_default();
    let is_template = image.contains(['{', '<', '$']);
    if is_template || image.is_empty() {
        let problem = Problem::new(code::FILE_PLACEHOLDER, format!("`{}` is a placeholder for an image", shown(image)));
        return report.add(node.at, problem.hint("write the name of the image in its place"));
    }
    if let Some(package) = image.strip_prefix("ko://") {
        let problem = Problem::new(code::FILE_PLACEHOLDER, format!("`{image}` is a package of Go, which `ko` builds"));
        return report
            .add(node.at, problem.hint(format!("run `ko build {package}` and write the image that it prints")));
    }
    function.insert("image".to_owned(), json!(image));
    let pull = match text(container, "imagePullPolicy") {
        Some("Always") => Some("always"),
        Some("Never") => Some("never"),
        Some("IfNotPresent") => Some("missing"),
        _ => None,
    };
    function.extend(pull.map(|pull| ("pull".to_owned(), json!(pull))));
}

/// `$(NAME)` of Kubernetes is `${NAME}` here; other dollar signs stay as they are.
fn references(value: &str) -> String {
    let mut made = String::new();
    let mut rest = value;
    while let Some(start) = rest.find("$(") {
        let Some(end) = rest[start..].find(')') else { break };
        made.push_str(&kip_spec::reference::escaped(&rest[..start]));
        made.push_str(&format!("${{{}}}", &rest[start + 2..start + end]));
        rest = &rest[start + end + 1..];
    }
    made + &kip_spec::reference::escaped(rest)
}

fn words(node: &Node) -> Vec<String> {
    items(node).iter().filter_map(Node::scalar).map(references).collect()
}

fn command(container: &Node, function: &mut Map<String, Value>) {
    for (key, own) in [("command", "entrypoint"), ("args", "run")] {
        if let Some(node) = get(container, key).filter(|node| !items(node).is_empty()) {
            function.insert(own.to_owned(), json!(words(node)));
        }
    }
    if let Some(directory) = text(container, "workingDir") {
        function.insert("dir".to_owned(), json!(directory));
    }
    if let Some(user) = at(container, &["securityContext", "runAsUser"]).and_then(Node::scalar) {
        own_keys(function, "container").insert("user".to_owned(), json!(user));
    }
}

/// The map of a key, made if it is not there.
fn own_keys<'a>(function: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = function.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made a map"),
    }
}

fn port(container: &Node, function: &mut Map<String, Value>, report: &mut Report<'_>) {
    let all = get(container, "ports").map(items).unwrap_or_default();
    if let [_, second, ..] = all {
        let problem = Problem::new(code::FILE_UNSUPPORTED, "a revision has one port");
        return report.add(second.at, problem.hint("keep the port that serves requests"));
    }
    // Knative's own default.
    let number = all.first().and_then(|port| get(port, "containerPort")).and_then(Node::scalar).unwrap_or("8080");
    match number.parse::<u16>() {
        Ok(number) => drop(own_keys(function, "container").insert("port".to_owned(), json!(number))),
        Err(_) => {
            let at = all.first().map_or(container.at, |port| port.at);
            let problem = Problem::new(code::FILE_VALUE, format!("`{}` is not a port", shown(number)));
            report.add(at, problem.hint("write a number from 1 to 65535"));
        }
    }
    match all.first().and_then(|port| text(port, "name")) {
        None | Some("http1" | "user-port") => {}
        Some("h2c") => drop(function.insert("protocol".to_owned(), json!("h2c"))),
        Some(other) => {
            let problem =
                Problem::new(code::FILE_VALUE, format!("a port is called http1 or h2c, not `{}`", shown(other)));
            report.add(all[0].at, problem.hint("the name is the protocol of the program"));
        }
    }
}

fn variables(
    container: &Node,
    name: &str,
    revision: Option<&str>,
    function: &mut Map<String, Value>,
    report: &mut Report<'_>,
) {
    let mut env = Map::new();
    for variable in get(container, "env").map(items).unwrap_or_default() {
        let Some(key) = text(variable, "name") else { continue };
        let secret = at(variable, &["valueFrom", "secretKeyRef"]);
        let value = match (get(variable, "value"), secret, get(variable, "valueFrom")) {
            (Some(value), _, _) => json!(references(value.scalar().unwrap_or_default())),
            (None, Some(secret), _) => {
                let part = |key| text(secret, key).unwrap_or_default();
                json!({ "secret": format!("{}.{}", part("name"), part("key")) })
            }
            (None, None, Some(from)) => {
                let kind = pairs(from).first().and_then(|(key, _)| key.scalar()).unwrap_or("another object");
                let problem = Problem::new(
                    code::FILE_UNSUPPORTED,
                    format!("`{key}` takes its value from {kind}, which does not exist here"),
                );
                report.add(
                    variable.at,
                    problem.hint("write its value, or a secret: valueFrom: {secretKeyRef: {name: NAME, key: KEY}}"),
                );
                continue;
            }
            (None, None, None) => json!(""),
        };
        env.insert(key.to_owned(), value);
    }
    if let Some(from) = get(container, "envFrom").filter(|from| !items(from).is_empty()) {
        let problem =
            Problem::new(code::FILE_UNSUPPORTED, "envFrom takes variables from objects that do not exist here");
        report.add(from.at, problem.hint("write the variables below env"));
    }
    // What every container of Knative is told.
    for (key, value) in [("K_SERVICE", name), ("K_CONFIGURATION", name), ("K_REVISION", revision.unwrap_or(name))] {
        env.entry(key).or_insert_with(|| json!(value));
    }
    function.insert("env".to_owned(), Value::Object(env));
}

fn resources(container: &Node, function: &mut Map<String, Value>, report: &mut Report<'_>) {
    let of = |key: &str| {
        let find = |kind| at(container, &["resources", kind]).and_then(|node| get(node, key));
        find("limits").or_else(|| find("requests"))
    };
    let mut made = Map::new();
    if let Some(cpu) = of("cpu").and_then(Node::scalar) {
        made.insert("cpu".to_owned(), json!(cpu));
    }
    if let Some(node) = of("memory") {
        match node.scalar().and_then(quantity) {
            Some(bytes) => drop(made.insert("memory".to_owned(), json!(format!("{bytes}B")))),
            None => {
                let amount = shown(node.scalar().unwrap_or_default());
                let problem = Problem::new(code::FILE_VALUE, format!("`{amount}` is not an amount of memory"));
                report.add(node.at, problem.hint("write 512Mi or 4Gi"));
            }
        }
    }
    if let Some(share) = of("aliyun.com/gpu-mem").and_then(Node::scalar) {
        made.insert("gpu".to_owned(), json!({ "memory": format!("{share}GiB") }));
    }
    if let Some(cards) = of("nvidia.com/gpu").and_then(Node::scalar).and_then(|cards| cards.parse::<u8>().ok())
        && cards > 0
    {
        made.insert("gpu".to_owned(), json!({ "cards": cards }));
    }
    if !made.is_empty() {
        function.insert("resources".to_owned(), Value::Object(made));
    }
}

/// An amount of Kubernetes in bytes: `128974848`, `129e6`, `129M`, `123Mi`. Thousandths are rounded up.
fn quantity(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("k", 1e3),
        ("K", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("m", 1e-3),
        ("", 1.0),
    ];
    let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number: f64 = text[..text.len() - unit.len()].parse().ok()?;
    let bytes = (number * factor).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in the range of u64")]
    (number.is_finite() && (1.0..1e18).contains(&bytes)).then_some(bytes as u64)
}

fn probes(container: &Node, function: &mut Map<String, Value>) {
    let path = |probe: &Node| {
        let http = get(probe, "httpGet")?;
        Some(text(http, "path").unwrap_or("/").to_owned())
    };
    // What is 0 or not said has the default of this server.
    let with_times = |probe: &Node, way: (&str, Value), counts: &[(&str, &str)]| {
        let number = |key: &str| {
            let number = get(probe, key).and_then(Node::scalar).and_then(|text| text.parse::<u64>().ok());
            number.filter(|number| *number > 0)
        };
        let times = [("delay", "initialDelaySeconds"), ("period", "periodSeconds"), ("timeout", "timeoutSeconds")];
        let times =
            times.iter().filter_map(|(key, from)| Some(((*key).to_owned(), json!(format!("{}s", number(from)?)))));
        let counts = counts.iter().filter_map(|(key, from)| Some(((*key).to_owned(), json!(number(from)?))));
        let all: Map<String, Value> = times.chain(counts).collect();
        match way {
            (_, way) if all.is_empty() => way,
            (key, way) => Value::Object(std::iter::once((key.to_owned(), way)).chain(all).collect()),
        }
    };
    let mut made = Map::new();
    if let Some(probe) = get(container, "readinessProbe") {
        let counts = [("failures", "failureThreshold"), ("successes", "successThreshold")];
        let ready = match path(probe) {
            Some(path) => with_times(probe, ("path", json!(path)), &counts),
            None => with_times(probe, ("tcp", json!(true)), &counts),
        };
        // The port is probed in any case.
        made.extend((ready != json!(true)).then(|| ("ready".to_owned(), ready)));
    }
    if let Some(probe) = get(container, "livenessProbe")
        && let Some(path) = path(probe)
    {
        made.insert("live".to_owned(), with_times(probe, ("path", json!(path)), &[("failures", "failureThreshold")]));
    }
    if !made.is_empty() {
        function.insert("probes".to_owned(), Value::Object(made));
    }
    // As long as the probe of a start may fail.
    if let Some(startup) = get(container, "startupProbe") {
        let number = |key, default: u64| {
            get(startup, key).and_then(Node::scalar).and_then(|text| text.parse().ok()).unwrap_or(default)
        };
        let seconds = number("initialDelaySeconds", 0) + number("periodSeconds", 10) * number("failureThreshold", 3);
        own_keys(function, "timeouts").insert("startup".to_owned(), json!(format!("{}s", seconds.max(1))));
    }
}

fn limits(template: &Node, function: &mut Map<String, Value>, report: &mut Report<'_>) {
    let spec = get(template, "spec");
    let mut number = |key: &str| {
        let node = spec.and_then(|spec| get(spec, key))?;
        let read = node.scalar().and_then(|text| text.parse::<u64>().ok());
        if read.is_none() {
            let problem = Problem::new(code::FILE_VALUE, format!("`{key}` is not a whole number"));
            report.add(node.at, problem.hint(format!("for example `{key}: 10`")));
        }
        read
    };
    let concurrency = match number("containerConcurrency") {
        None | Some(0) => json!({ "hard": UNLIMITED, "soft": TARGET }),
        Some(most) => json!(most.min(UNLIMITED)),
    };
    let (whole, first, idle) =
        (number("timeoutSeconds"), number("responseStartTimeoutSeconds"), number("idleTimeoutSeconds"));
    own_keys(function, "instances").insert("concurrency".to_owned(), concurrency);
    // Both count until the first byte of the answer.
    let first = [whole, first].into_iter().flatten().filter(|seconds| *seconds > 0).min();
    let mut set = |key: &str, seconds: Option<u64>| {
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 0) {
            own_keys(function, "timeouts").insert(key.to_owned(), json!(format!("{seconds}s")));
        }
    };
    set("first_byte", first);
    set("idle", idle);
}

fn scaling(root: &Node, template: &Node, function: &mut Map<String, Value>) {
    let mut annotations = Map::new();
    // Those of the template go before those of the object, which Knative ignores with a warning.
    for holder in [Some(template), Some(root)] {
        let Some(all) = holder.and_then(|node| at(node, &["metadata", "annotations"])) else { continue };
        for (key, value) in pairs(all) {
            if let Some(name) = key.scalar().and_then(|key| key.strip_prefix(AUTOSCALING)) {
                annotations.entry(name).or_insert_with(|| json!(value.scalar().unwrap_or_default()));
            }
        }
    }
    function.insert("scaling".to_owned(), json!({ "mode": "kpa", "annotations": annotations }));
}

/// The shares of requests without a qualifier. A revision is known by the name that its file gave it, as an alias.
fn traffic(root: &Node, revision: Option<&str>, report: &mut Report<'_>) -> Option<Value> {
    let targets = at(root, &["spec", "traffic"]).map(items).filter(|targets| !targets.is_empty())?;
    let mut shares: Map<String, Value> = Map::new();
    let mut sum = 0;
    for target in targets {
        let node = get(target, "percent");
        let percent = node.and_then(Node::scalar).map_or(Some(0), |text| text.parse::<u64>().ok());
        let Some(percent) = percent.filter(|percent| *percent <= 100) else {
            let problem = Problem::new(code::FILE_VALUE, "`percent` is not a whole number up to 100");
            report.add(node.map_or(target.at, |node| node.at), problem.hint("the shares add up to 100"));
            continue;
        };
        sum += percent;
        let latest = get(target, "latestRevision").and_then(Node::scalar) == Some("true");
        let named = text(target, "revisionName").filter(|named| Some(*named) != revision && !latest);
        let to = named.unwrap_or("LATEST").to_owned();
        let share = shares.get(&to).and_then(Value::as_u64).unwrap_or(0) + percent;
        if share > 0 {
            shares.insert(to, json!(share));
        }
    }
    if sum != 100 {
        let problem = Problem::new(code::FILE_VALUE, format!("the shares of traffic add up to {sum}, not to 100"));
        report.add(targets[0].at, problem.hint("correct `percent`"));
        return None;
    }
    let all_latest = shares.len() == 1 && shares.contains_key("LATEST");
    (!all_latest).then_some(Value::Object(shares))
}

/// Reports each leaf below a node. `way` has the keys with `*` for items of lists, `path` is shown.
fn leaves(node: &Node, way: &mut Vec<String>, path: &mut String, effects: &mut Vec<KeyEffect>) {
    match &node.kind {
        Kind::Map(pairs) if !pairs.is_empty() => {
            for (key, value) in pairs {
                let name = key.scalar().unwrap_or_default();
                let plain = !name.contains('.') && !name.contains('/');
                let dot = if way.is_empty() { "" } else { "." };
                let shown = if plain { format!("{dot}{name}") } else { format!("[{name}]") };
                leaf_below((name.to_owned(), &shown), value, way, path, effects);
            }
        }
        Kind::List(items) if !items.is_empty() => {
            for (number, item) in items.iter().enumerate() {
                leaf_below(("*".to_owned(), &format!("[{number}]")), item, way, path, effects);
            }
        }
        _ => {
            let way: Vec<&str> = way.iter().map(String::as_str).collect();
            let (effect, note) = effects::of_knative(&way);
            effects.push(KeyEffect { path: path.clone(), line: node.at.line, column: node.at.column, effect, note });
        }
    }
}

fn leaf_below(
    (key, shown): (String, &str),
    child: &Node,
    way: &mut Vec<String>,
    path: &mut String,
    effects: &mut Vec<KeyEffect>,
) {
    let length = path.len();
    path.push_str(shown);
    way.push(key);
    leaves(child, way, path, effects);
    way.pop();
    path.truncate(length);
}

impl KnativeFile {
    /// The keys without effect, which a user should know of.
    pub fn without_effect(&self) -> impl Iterator<Item = &KeyEffect> {
        self.effects.iter().filter(|key| key.effect == Effect::WithoutEffect)
    }
}
