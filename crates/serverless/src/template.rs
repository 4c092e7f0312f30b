//! `template.yml` of Fun: services with their functions, and what belongs to these.

use kip_manifest::report::{Report, shown};
use kip_manifest::tree::{Kind, Node};
use kip_spec::{Problem, code};

use crate::conversion::flat_name;
use crate::effects::{Effect, TEMPLATE};
use crate::function::{self, FunctionInput};
use crate::keys::{Classes, KeyList};
use crate::node::{get, map_node, pairs, text, text_node};
use crate::project::{DeclaredAlias, DeclaredFunction, Format, Project};
use crate::{Source, checks, runtime, template_events};

/// Prefixes of types; the last part names the type.
const PREFIXES: [&str; 2] = ["Aliyun::Serverless::", "ALIYUN::FC::"];

/// The last part of a type: `Function` of `Aliyun::Serverless::Function`.
fn kind(node: &Node) -> Option<&str> {
    let written = text(node, "Type")?;
    PREFIXES.iter().find_map(|prefix| written.strip_prefix(prefix))
}

/// Reads a document.
pub(crate) fn read(root: &Node, source: &Source<'_>, report: &mut Report<'_>) -> Option<Project> {
    let mut reader =
        Reader { source, refused: refused(root, source), keys: KeyList::default(), project: empty(), report };
    for (key, value) in pairs(root).iter().filter(|(key, _)| key.scalar() != Some("Resources")) {
        let name = key.scalar().unwrap_or_default();
        reader.keys.add(key.at, value, name, &[], Classes::All(Effect::Mapped, ""));
    }
    let resources = get(root, "Resources");
    if resources.map(pairs).unwrap_or_default().is_empty() {
        let problem = Problem::new(code::FILE_MISSING_KEY, "`Resources` is missing: the file declares nothing");
        reader.report.add(root.at, problem.hint("declare a service with a function below `Resources:`"));
    }
    for (key, node) in resources.map(pairs).unwrap_or_default() {
        reader.resource(key, node);
    }
    for (key, node) in resources.map(pairs).unwrap_or_default() {
        qualified(key, node, &mut reader.project, reader.report);
        domain(key, node, &mut reader.project, reader.report);
    }
    let Reader { keys, mut project, report, .. } = reader;
    if project.functions.is_empty() && report.count() == 0 {
        let problem = Problem::new(code::FILE_NO_FUNCTION, "nothing in the file is a function");
        let hint = "functions stand below a service: `Type: 'Aliyun::Serverless::Function'`";
        report.add(resources.map_or(root.at, |node| node.at), problem.hint(hint));
    }
    project.functions = function::join(project.functions, report);
    Some(Project { keys: keys.into_keys(), ..project })
}

fn empty() -> Project {
    Project {
        format: Format::Template,
        name: String::new(),
        functions: Vec::new(),
        actions: Vec::new(),
        keys: Vec::new(),
        changes: Vec::new(),
        warnings: Vec::new(),
    }
}

/// The runtimes of the file that do not run here.
fn refused(root: &Node, source: &Source<'_>) -> Vec<String> {
    let mut all = std::collections::BTreeSet::new();
    for (_, service) in get(root, "Resources").map(pairs).unwrap_or_default() {
        for (_, node) in pairs(service) {
            if let Some(name) = get(node, "Properties").and_then(|properties| text(properties, "Runtime")) {
                let name = source.runtimes.get(name);
                if !runtime::runs(name) {
                    all.insert(name.to_owned());
                }
            }
        }
    }
    all.into_iter().collect()
}

/// Reads resources one after the other.
struct Reader<'a, 'r, 't> {
    source: &'a Source<'a>,
    /// The runtimes of the file that do not run here.
    refused: Vec<String>,
    keys: KeyList,
    project: Project,
    report: &'r mut Report<'t>,
}

impl Reader<'_, '_, '_> {
    fn resource(&mut self, key: &Node, node: &Node) {
        let name = key.scalar().unwrap_or_default();
        let path = format!("Resources.{name}");
        let by_table = |keys: &mut KeyList, of: &str| keys.add(key.at, node, &path, &[of], Classes::Table(TEMPLATE));
        match kind(node) {
            Some("Service") => self.service(key, node),
            // A function that stands alone is one of a service of no name.
            Some("Function") => self.function(key, node, None),
            Some(of @ ("CustomDomain" | "Log" | "Version" | "Alias" | "ProvisionConfig")) => {
                by_table(&mut self.keys, of);
            }
            _ => {
                let note = "resources of this type are not made here";
                self.keys.add(key.at, node, &path, &[], Classes::All(Effect::WithoutEffect, note));
                let of = shown(text(node, "Type").unwrap_or("no type"));
                let message = format!("`{}` ({of}) is left out: it is no function", shown(name));
                self.report.warn(key.at, Problem::new(code::FILE_NO_FUNCTION, message));
            }
        }
    }

    /// A service: its functions are the children beside `Type` and `Properties`.
    fn service(&mut self, key: &Node, node: &Node) {
        let name = key.scalar().unwrap_or_default();
        let before = self.project.functions.len();
        for (part, inner) in pairs(node) {
            let part_name = part.scalar().unwrap_or_default();
            let path = format!("Resources.{name}.{part_name}");
            match (part_name, kind(inner)) {
                (_, Some("Function")) => self.function(part, inner, Some((key, node))),
                ("Type", _) => self.keys.add(part.at, inner, &path, &[], Classes::All(Effect::Mapped, "")),
                ("Properties", _) => {
                    self.keys.add(part.at, inner, &path, &["Service"], Classes::Table(TEMPLATE));
                }
                _ => {
                    let classes = Classes::All(Effect::WithoutEffect, "no key of a service");
                    self.keys.add(part.at, inner, &path, &[], classes);
                    if get(inner, "Properties").is_some() {
                        let (part, name) = (shown(part_name), shown(name));
                        let message = format!("`{part}` of the service `{name}` has no `Type` of a function");
                        let problem = Problem::new(code::FILE_VALUE, message);
                        self.report.add(inner.at, problem.hint("write `Type: 'Aliyun::Serverless::Function'`"));
                    }
                }
            }
        }
        if self.project.functions.len() == before {
            let message = format!("the service `{}` has no function", shown(name));
            self.report.warn(key.at, Problem::new(code::FILE_NO_FUNCTION, message));
        }
    }

    fn function(&mut self, key: &Node, node: &Node, service: Option<(&Node, &Node)>) {
        let service_name = service.and_then(|(key, _)| key.scalar()).unwrap_or_default();
        let name = key.scalar().unwrap_or_default();
        let path = match service_name {
            "" => format!("Resources.{name}"),
            service => format!("Resources.{service}.{name}"),
        };
        for (part, inner) in pairs(node) {
            self.function_part(part, inner, &path);
        }
        let of_service = service.and_then(|(_, service)| get(service, "Properties"));
        let changes = &mut self.project.changes;
        let props = props(key, get(node, "Properties"), of_service, service_name, changes);
        let props = crate::merge::merge(&props, &template_events::triggers(node, self.report));
        checks::check_placeholders(&props, self.report);
        let input = FunctionInput { key, props: &props, source: self.source, refused: &self.refused };
        let read = function::read(&input, self.report);
        self.project.functions.extend(read.map(|function| DeclaredFunction {
            key: if service_name.is_empty() { name.to_owned() } else { format!("{service_name}/{name}") },
            ..function
        }));
    }

    /// The keys of a function's properties and events.
    fn function_part(&mut self, part: &Node, inner: &Node, path: &str) {
        let part_name = part.scalar().unwrap_or_default();
        let path = format!("{path}.{part_name}");
        let table = Classes::Table(TEMPLATE);
        match part_name {
            "Properties" => self.keys.add(part.at, inner, &path, &["Function"], table),
            "Type" => self.keys.add(part.at, inner, &path, &[], Classes::All(Effect::Mapped, "")),
            "Events" if pairs(inner).is_empty() => self.keys.add(part.at, inner, &path, &["Event"], table),
            "Events" => {
                for (event, body) in pairs(inner) {
                    let event_path = format!("{path}.{}", event.scalar().unwrap_or_default());
                    if pairs(body).is_empty() {
                        self.keys.add(event.at, body, &event_path, &["Event"], table);
                    }
                    let of = text(body, "Type").unwrap_or_default();
                    for (field, value) in pairs(body) {
                        let field_name = field.scalar().unwrap_or_default();
                        let way: &[&str] = if field_name == "Properties" { &["Event", of] } else { &["Event", "HTTP"] };
                        self.keys.add(field.at, value, &format!("{event_path}.{field_name}"), way, table);
                    }
                }
            }
            _ => self.keys.add(part.at, inner, &path, &[], Classes::All(Effect::WithoutEffect, "no key of a function")),
        }
    }
}

/// Properties of a function and of its service, in the words of edition 3.
fn props(
    key: &Node,
    properties: Option<&Node>,
    of_service: Option<&Node>,
    service: &str,
    changes: &mut Vec<String>,
) -> Node {
    let name = key.scalar().unwrap_or_default();
    let flat = flat_name(service, name);
    if flat != name {
        changes.push(format!("the function {name} of the service {service} is named {flat}"));
    }
    let mut made = vec![("functionName", text_node(key.at, flat))];
    let pick = |from: Option<&Node>, names: &[(&str, &'static str)], made: &mut Vec<(&'static str, Node)>| {
        for (theirs, ours) in names {
            if let Some(node) = from.and_then(|from| get(from, theirs)) {
                made.push((ours, node.clone()));
            }
        }
    };
    let of_function = [
        ("Handler", "handler"),
        ("Runtime", "runtime"),
        ("CodeUri", "code"),
        ("Description", "description"),
        ("MemorySize", "memorySize"),
        ("Timeout", "timeout"),
        ("EnvironmentVariables", "environmentVariables"),
        ("InstanceConcurrency", "instanceConcurrency"),
    ];
    pick(properties, &of_function, &mut made);
    pick(of_service, &[("Role", "role"), ("InternetAccess", "internetAccess")], &mut made);
    for (theirs, ours) in [("LogConfig", "logConfig"), ("VpcConfig", "vpcConfig"), ("NasConfig", "nasConfig")] {
        let Some(node) = of_service.and_then(|of| get(of, theirs)) else { continue };
        match node.scalar() {
            Some("Auto" | "auto") if ours == "nasConfig" => {
                made.push((ours, crate::share::auto(node.at, service)));
            }
            Some(_) => {}
            None => made.push((ours, template_events::lowered(node))),
        }
    }
    let hook = |name: &str, timeout: &str| {
        let handler = properties.and_then(|of| get(of, name))?;
        let mut hook = vec![("handler", handler.clone())];
        hook.extend(properties.and_then(|of| get(of, timeout)).map(|timeout| ("timeout", timeout.clone())));
        Some(map_node(handler.at, hook))
    };
    if let Some(initializer) = hook("Initializer", "InitializationTimeout") {
        made.push(("instanceLifecycleConfig", map_node(key.at, vec![("initializer", initializer)])));
    }
    let port = properties.and_then(|of| get(of, "CAPort"));
    let is_image = properties.and_then(|of| text(of, "Runtime")).is_some_and(|runtime| runtime == "custom-container");
    let image = properties.and_then(|of| get(of, "CustomContainerConfig")).map(template_events::lowered);
    let mut own = image.map(|image| pairs(&image).to_vec()).unwrap_or_default();
    own.extend(port.map(|port| (text_node(port.at, "port"), port.clone())));
    if !own.is_empty() {
        let target = if is_image { "customContainerConfig" } else { "customRuntimeConfig" };
        made.push((target, Node { at: key.at, kind: Kind::Map(own) }));
    }
    if let Some(node) = properties.and_then(|of| get(of, "AsyncConfiguration")) {
        made.push(("asyncInvokeConfig", template_events::lowered(node)));
    }
    map_node(key.at, made)
}

/// A custom domain: each of its routes belongs to the function that it names.
fn domain(key: &Node, node: &Node, project: &mut Project, report: &mut Report<'_>) {
    if kind(node) != Some("CustomDomain") {
        return;
    }
    let empty = Node { at: key.at, kind: Kind::Map(Vec::new()) };
    let properties = get(node, "Properties").unwrap_or(&empty);
    let name = text(properties, "DomainName").or_else(|| key.scalar()).unwrap_or_default();
    // A name that the vendor makes up, or none that can be one.
    if name.eq_ignore_ascii_case("auto") || !name.contains('.') {
        return;
    }
    let routes = crate::node::at(properties, &["RouteConfig", "Routes"]).map(pairs).unwrap_or_default();
    for (path, route) in routes {
        let service = text(route, "ServiceName").unwrap_or_default();
        let function = text(route, "FunctionName").unwrap_or_default();
        let key = if service.is_empty() { function.to_owned() } else { format!("{service}/{function}") };
        let Some(found) = project.functions.iter_mut().find(|one| one.key == key) else {
            let message = format!("`{}` leads to a function that the file does not have", shown(name));
            let problem = Problem::new(code::FILE_REFERENCE, message);
            report.add(route.at, problem.hint("write the names of the file in `ServiceName` and `FunctionName`"));
            continue;
        };
        // Without the files of its certificate it is served in the clear.
        let mut made = serde_json::json!({
            "domainName": name, "protocol": "HTTP", "route": {"path": path.scalar().unwrap_or_default()},
        });
        if let Some(qualifier) = text(route, "Qualifier") {
            made["route"]["qualifier"] = qualifier.into();
        }
        found.domains.extend(made.as_object().cloned());
    }
}

/// Versions, aliases and provisioned instances, which name their function by its service and its name.
fn qualified(key: &Node, node: &Node, project: &mut Project, report: &mut Report<'_>) {
    let Some(of @ ("Version" | "Alias" | "ProvisionConfig")) = kind(node) else { return };
    let empty = Node { at: key.at, kind: Kind::Map(Vec::new()) };
    let properties = get(node, "Properties").unwrap_or(&empty);
    let service = text(properties, "ServiceName").unwrap_or_default();
    let wanted = text(properties, "FunctionName");
    let fits = |function: &&mut DeclaredFunction| {
        let (own_service, own_name) = function.key.split_once('/').unwrap_or(("", &function.key));
        own_service == service && wanted.is_none_or(|wanted| wanted == own_name)
    };
    let mut count = 0;
    for function in project.functions.iter_mut().filter(fits) {
        count += 1;
        match of {
            "Alias" => {
                let Some(name) = text(properties, "AliasName").or_else(|| key.scalar()) else { continue };
                let version = text(properties, "VersionId").filter(|version| version.parse::<u64>().is_ok());
                function.aliases.push(DeclaredAlias {
                    name: name.to_owned(),
                    version: version.map(str::to_owned),
                    description: text(properties, "Description").unwrap_or_default().to_owned(),
                });
            }
            "ProvisionConfig" => {
                let qualifier = text(properties, "Qualifier").unwrap_or("LATEST");
                let target = text(properties, "Target").and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
                function.provisions.insert(qualifier.to_owned(), serde_json::json!({"defaultTarget": target}));
            }
            // A version is published for an alias; alone it would be another one at each deployment.
            _ => {}
        }
    }
    if count == 0 {
        let message =
            format!("`{}` names a function that the file does not have", shown(key.scalar().unwrap_or_default()));
        let problem = Problem::new(code::FILE_REFERENCE, message);
        report.add(key.at, problem.hint("write the names of the file in `ServiceName` and `FunctionName`"));
    }
}
