//! One function: its own map over the defaults, read section by section.

use std::collections::BTreeMap;
use std::path::Path;

use kip_spec::FunctionName;
use kip_spec::code;
use kip_spec::function::{
    Cors, Deploy, Dispatch, FunctionSpec, Hook, HttpAuth, HttpTrigger, Lifecycle, Listen, ModelRuntime, Program,
    Protocol, RequestBody, Stop, StopSignal, StopTarget, Strategy, defaults,
};
use kip_spec::scaling::Scaling;

use crate::environment::Variables;
use crate::report::{Report, shown};
use crate::rollout::Rollout;
use crate::section::{Field, Layer, Section};
use crate::traffic::{self, Traffic};
use crate::tree::{Kind, Node, Position};
use crate::value::{METHODS, duration, flag, path, path_of, refuse, texts, word, wrong_type};
use crate::{data, environment, keys, limits, names, probes, program, rollout, scaling, sleep, source};

/// What a file says of a function that is no part of its revisions.
#[derive(Debug, Default)]
pub(crate) struct FunctionSettings {
    /// Where requests without a qualifier go; empty for the version that serves.
    pub(crate) traffic: Traffic,
    /// The rollout that each deployment begins.
    pub(crate) rollout: Option<Rollout>,
}

/// Reads one function. `None` if anything in it is wrong, which is then in the report.
pub(crate) fn read(
    name: FunctionName,
    key_at: Position,
    node: &Node,
    defaults: Option<Layer<'_>>,
    directory: &Path,
    report: &mut Report<'_>,
) -> Option<(FunctionSpec, FunctionSettings)> {
    let before = report.count();
    let owner = format!("functions.{name}");
    let own = Section::layer(node, &owner, report)?;
    let section = Section::open([Some(own), defaults].into_iter().flatten().collect(), key_at, &keys::FUNCTION, report);
    let program = program::read(&section, key_at, directory, report);
    let shared = read_shared(&section, report);
    let settings =
        FunctionSettings { traffic: traffic::read(&section, report), rollout: rollout::read(&section, report) };
    let (names, rewrites) = names::read(&section, report);
    let mounts = data::read(&section, program.as_ref(), report);
    source::check(&section, report);
    check_program_keys(&section, program.as_ref(), report);
    if let (Some(field), Some(Program::Image(_) | Program::Model { .. })) = (section.field("port"), &program) {
        let problem = refuse(&field, code::MANIFEST_CONTRADICTION, "`port` is for a program of this host");
        report.add(
            field.node.at,
            problem.hint("write `container: {port: …}` for an image; a model has no port to choose"),
        );
    }
    let complete = report.count() == before;
    program.filter(|_| complete).map(|mut program| {
        let folders = match &mut program {
            Program::Image(container) => {
                container.mounts.extend(mounts);
                Vec::new()
            }
            _ => mounts,
        };
        // Defaults are for functions of all kinds.
        let (listens, is_image) = (matches!(program, Program::Command { .. }), matches!(program, Program::Image(_)));
        let spec = FunctionSpec { names, rewrites, folders, ..shared(name, program) };
        let listen = if listens { spec.listen } else { Listen::Port };
        let user = spec.user.clone().filter(|_| !is_image);
        (FunctionSpec { listen, user, ..spec }, settings)
    })
}

/// Reads the part that functions and `defaults` have in common; the answer lacks only name and program.
pub(crate) fn read_shared(
    section: &Section<'_>,
    report: &mut Report<'_>,
) -> impl FnOnce(FunctionName, Program) -> FunctionSpec + use<> {
    let Variables { env, secrets } = environment::read(section, report);
    let resources = limits::resources(section, report);
    let instances = limits::instances(section, &resources, report);
    let (ready, live, probes) = probes::read(section, report);
    let lifecycle = lifecycle(section, report);
    let timeouts = limits::timeouts(section, report);
    let queue_depth = limits::queue_depth(section, report);
    let idle = limits::idle(section, report);
    sleep::check(section, idle, &lifecycle, report);
    let (wake, canary) = (sleep::wake(section, report), sleep::canary(section, report));
    let pinned = limits::pinned(section, report);
    let priority = limits::priority(section, report);
    let watchdog = limits::watchdog(section, report);
    let rotation = limits::rotation(section, report);
    let (scaling, instances) = scaling::read(section, &resources, (instances, idle), report);
    let dispatch = dispatch(section, &scaling, report);
    let (protocol, request_body) = (protocol(section, report), request_body(section, report));
    let http = http(section, report);
    let runtime = runtime(section, report);
    let code = source::code(section, report);
    let (deploy, ports, idle_cpu) =
        (deploy(section, &resources, report), ports(section, report), limits::idle_cpu(section, report));
    let (listen, user) = (listen(section, report), user(section, report));
    move |name, program| FunctionSpec {
        name,
        code: code.of(&program),
        program,
        env,
        secrets,
        resources,
        instances,
        ready,
        live,
        probes,
        lifecycle,
        timeouts,
        queue_depth,
        scaling,
        idle,
        watchdog,
        rotation,
        dispatch,
        http,
        protocol,
        request_body,
        deploy,
        ports,
        listen,
        user,
        idle_cpu,
        names: Vec::new(),
        rewrites: BTreeMap::new(),
        owns_directory: false,
        wake,
        pinned,
        priority,
        canary,
        runtime,
        job: None,
        folders: Vec::new(),
    }
}

/// Bytes that a function's text takes in memory, roughly, to bound what defaults multiply.
pub(crate) fn text_of(spec: &FunctionSpec) -> usize {
    /// A piece of text and its place in a list or map, besides its bytes.
    const PIECE: usize = 64;
    let env: usize = spec.env.iter().map(|(name, value)| name.len() + value.len() + 2 * PIECE).sum();
    let argv: usize = match &spec.program {
        Program::Command { argv, .. } => argv.iter().map(|word| word.len() + PIECE).sum(),
        Program::Model { .. } => 0,
        Program::Image(container) => {
            let words = container.argv.iter().chain(&container.entrypoint).chain(&container.hosts);
            let mounts = container.mounts.iter().map(|mount| mount.source.len() + mount.target.len() + 2 * PIECE);
            container.image.len() + words.map(|word| word.len() + PIECE).sum::<usize>() + mounts.sum::<usize>()
        }
    };
    env + argv
}

fn lifecycle(function: &Section<'_>, report: &mut Report<'_>) -> Lifecycle {
    let Some(section) = function.section("lifecycle", &keys::LIFECYCLE, report) else { return Lifecycle::default() };
    let stop = section.section("stop", &keys::STOP, report).map(|stop| read_stop(&stop, report)).unwrap_or_default();
    Lifecycle {
        initialize: hook(&section, "initialize", report),
        pre_stop: hook(&section, "pre_stop", report),
        stop,
        sleep: sleep::calls(&section, report),
    }
}

fn read_stop(stop: &Section<'_>, report: &mut Report<'_>) -> Stop {
    const SIGNALS: [(&str, StopSignal); 6] = [
        ("term", StopSignal::Term),
        ("int", StopSignal::Int),
        ("quit", StopSignal::Quit),
        ("hup", StopSignal::Hup),
        ("usr1", StopSignal::Usr1),
        ("usr2", StopSignal::Usr2),
    ];
    const TARGETS: [(&str, StopTarget); 2] = [("main", StopTarget::Main), ("group", StopTarget::Group)];
    Stop {
        signal: stop.field("signal").and_then(|field| word(&field, &SIGNALS, &[], report)),
        to: stop.field("to").and_then(|field| word(&field, &TARGETS, &[], report)),
    }
}

/// A path alone, or a map of path and timeout.
fn hook(section: &Section<'_>, key: &'static str, report: &mut Report<'_>) -> Option<Hook> {
    let field = section.field(key)?;
    if matches!(field.node.kind, Kind::Text(_)) {
        return path(&field, report).map(|path| Hook { path, timeout: defaults::HOOK_TIMEOUT });
    }
    if !matches!(field.node.kind, Kind::Map(_)) {
        wrong_type(&field, "a path, or a map of `path` and `timeout`", report);
        return None;
    }
    let both = section.section(key, &keys::HOOK, report)?;
    let timeout = match both.field("timeout") {
        Some(field) => duration(&field, false, report)?,
        None => defaults::HOOK_TIMEOUT,
    };
    let Some(path_field) = both.field("path") else {
        if section.is_partial {
            return None;
        }
        let problem = refuse(&field, code::MANIFEST_MISSING_KEY, "`path` is missing");
        report.add(field.node.at, problem.hint("write the path that is called, such as `path: /initialize`"));
        return None;
    };
    path(&path_field, report).map(|path| Hook { path, timeout })
}

fn dispatch(function: &Section<'_>, policy: &Scaling, report: &mut Report<'_>) -> Dispatch {
    const WORDS: [(&str, Dispatch); 2] = [("packed", Dispatch::Packed), ("balanced", Dispatch::Balanced)];
    let field = function.field("dispatch");
    field.and_then(|field| word(&field, &WORDS, &[], report)).unwrap_or_else(|| Dispatch::for_policy(policy))
}

fn listen(function: &Section<'_>, report: &mut Report<'_>) -> Listen {
    const WORDS: [(&str, Listen); 2] = [("port", Listen::Port), ("socket", Listen::Socket)];
    let Some(field) = function.field("listen") else { return Listen::Port };
    let listen = word(&field, &WORDS, &[], report).unwrap_or_default();
    if let Some(port) = function.field("port").filter(|_| listen == Listen::Socket) {
        let problem = refuse(&port, code::MANIFEST_CONTRADICTION, "`port` and `listen: socket` are both given");
        report.add(port.key_at, problem.hint("keep one: a program listens on a port or on a socket"));
    }
    listen
}

/// A name or a number. Root is none: a program that needs it needs a server whose functions run as the server.
fn user(function: &Section<'_>, report: &mut Report<'_>) -> Option<String> {
    let field = function.field("user")?;
    let text = field.node.scalar().unwrap_or_default();
    let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-$".contains(&byte));
    if text.is_empty() || text.len() > 64 || !is_name || text.starts_with('-') {
        wrong_type(&field, "the name or number of a user of this host", report);
        return None;
    }
    if text == "root" || text.parse() == Ok(0u32) {
        let problem = refuse(&field, code::MANIFEST_BAD_VALUE, "functions do not run as root");
        report.add(field.node.at, problem.hint("name a user that owns what the function needs"));
        return None;
    }
    Some(text.to_owned())
}

/// Keys that a container and the built-in model server have no use for.
fn check_program_keys(function: &Section<'_>, program: Option<&Program>, report: &mut Report<'_>) {
    let reads: &[(&str, &str)] = match program {
        Some(Program::Image(_)) => &[
            ("listen", "a container has a network of its own; remove it"),
            ("user", "write `container: {user: …}` for an image"),
        ],
        Some(Program::Model { .. }) => &[("listen", "the built-in model server listens on its port; remove it")],
        Some(Program::Command { .. }) | None => &[],
    };
    for (key, hint) in reads {
        if let Some(field) = function.own_field(key) {
            let problem =
                refuse(&field, code::MANIFEST_CONTRADICTION, format!("`{key}` is for a program of this host"));
            report.add(field.key_at, problem.hint(*hint));
        }
    }
}

fn protocol(function: &Section<'_>, report: &mut Report<'_>) -> Option<Protocol> {
    const WORDS: [(&str, Protocol); 2] = [("http1", Protocol::Http1), ("h2c", Protocol::Http2)];
    function.field("protocol").and_then(|field| word(&field, &WORDS, &[], report))
}

fn http(function: &Section<'_>, report: &mut Report<'_>) -> HttpTrigger {
    const WORDS: [(&str, HttpAuth); 2] = [("anonymous", HttpAuth::Anonymous), ("key", HttpAuth::Key)];
    const LATER: [(&str, &str); 1] = [("jwt", "write `key`: callers send a key of this server")];
    let section = function.section("trigger", &keys::TRIGGER, report);
    let Some(section) = section.and_then(|section| section.section("http", &keys::HTTP, report)) else {
        return HttpTrigger::default();
    };
    let auth = section.field("auth").and_then(|field| word(&field, &WORDS, &LATER, report));
    let auth = auth.unwrap_or(HttpAuth::Anonymous);
    HttpTrigger {
        auth,
        open_tasks: open_tasks(&section, auth, report),
        methods: section.field("methods").map(|field| methods(&field, report)).unwrap_or_default(),
        exempt: section.field("exempt").map(|field| exempt(&field, report)).unwrap_or_default(),
        cors: section.section("cors", &keys::CORS, report).map(|section| cors(&section, report)),
    }
}

/// Whether tasks may be submitted without a key, which a call must not need either.
fn open_tasks(section: &Section<'_>, auth: HttpAuth, report: &mut Report<'_>) -> bool {
    const WORDS: [(&str, bool); 2] = [("anonymous", true), ("key", false)];
    let Some(field) = section.field("tasks") else { return false };
    let open = word(&field, &WORDS, &[], report).unwrap_or(false);
    // Defaults are for functions with a key as well.
    if open && auth != HttpAuth::Anonymous && section.own_field("tasks").is_some() {
        let problem = refuse(&field, code::MANIFEST_CONTRADICTION, "tasks without a key, and calls with one only");
        report.add(field.node.at, problem.hint("remove `tasks`, or write `auth: anonymous`"));
    }
    open && auth == HttpAuth::Anonymous
}

fn cors(section: &Section<'_>, report: &mut Report<'_>) -> Cors {
    let origins = section.field("origins").map(|field| texts(&field, is_origin, ORIGINS, report)).unwrap_or_default();
    let headers = section.field("headers").map(|field| texts(&field, is_token, HEADERS, report)).unwrap_or_default();
    let expose = section.field("expose").map(|field| texts(&field, is_token, HEADERS, report)).unwrap_or_default();
    let credentials = section.field("credentials");
    let with_cookies = credentials.as_ref().is_some_and(|field| flag(field, report));
    if let Some(field) = credentials.filter(|_| with_cookies && origins.iter().any(|origin| origin == "*")) {
        let problem = refuse(&field, code::MANIFEST_BAD_VALUE, "browsers send no cookies where every origin is let in");
        report.add(field.node.at, problem.hint("name the origins in place of `*`"));
    }
    let max_age = section.field("max_age").and_then(|field| duration(&field, true, report));
    Cors { origins, headers, expose, credentials: with_cookies, max_age: max_age.unwrap_or(defaults::CORS_MAX_AGE) }
}

const ORIGINS: &str =
    "write origins such as [https://chat.example.com, http://localhost:3000], without a path, or [\"*\"]";
const HEADERS: &str = "write names of headers such as [content-type, authorization]";

/// `https://host` or with a port, or `*`.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '*']))
}

/// The name of a header (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn deploy(function: &Section<'_>, resources: &kip_spec::function::Resources, report: &mut Report<'_>) -> Deploy {
    const WORDS: [(&str, Strategy); 2] = [("rolling", Strategy::Rolling), ("recreate", Strategy::Recreate)];
    let section = function.section("deploy", &keys::DEPLOY, report);
    let section_at = section.as_ref().map(|section| section.at).unwrap_or_default();
    let strategy = section.and_then(|section| word(&section.field("strategy")?, &WORDS, &[], report));
    if strategy == Some(Strategy::Rolling) && resources.port.is_some() {
        let problem =
            kip_spec::Problem::new(code::MANIFEST_CONTRADICTION, "two versions cannot listen on one port at once");
        report.add(
            section_at,
            problem.hint("write `strategy: recreate`, or leave `port` out and let the program listen on ${PORT}"),
        );
    }
    // Two versions cannot have one port.
    let usual = if resources.port.is_some() { Strategy::Recreate } else { Strategy::default() };
    Deploy { strategy: strategy.unwrap_or(usual) }
}

/// `auto`, `tract`, `onnxruntime`, or the absolute path of a library of ONNX Runtime.
fn runtime(function: &Section<'_>, report: &mut Report<'_>) -> Option<ModelRuntime> {
    let field = function.field("runtime")?;
    match field.node.scalar().unwrap_or_default() {
        "auto" => None,
        "tract" => Some(ModelRuntime::Tract),
        "onnxruntime" => Some(ModelRuntime::OnnxRuntime),
        text if text.starts_with('/') => Some(ModelRuntime::Library(text.into())),
        text => {
            let message = format!("`{}` is not a runtime", shown(text));
            let hint = "write `auto`, `tract`, `onnxruntime`, or the absolute path of libonnxruntime.so";
            report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message).hint(hint));
            None
        }
    }
}

fn ports(function: &Section<'_>, report: &mut Report<'_>) -> Vec<String> {
    let Some(field) = function.field("ports") else { return Vec::new() };
    let names = texts(&field, is_port_name, PORTS, report);
    let variable = |name: &String| name.to_ascii_uppercase().replace('-', "_");
    let twice = names.iter().enumerate().find(|(at, name)| names[..*at].iter().any(|o| variable(o) == variable(name)));
    if let Some((_, name)) = twice {
        let message = format!("`{}` and another name give the same variable PORT_{}", shown(name), variable(name));
        report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
    }
    if names.len() > MOST_PORTS {
        let message = format!("more than {MOST_PORTS} ports");
        report.add(field.node.at, refuse(&field, code::MANIFEST_BAD_VALUE, message));
    }
    names
}

/// More are a slip of the pen.
const MOST_PORTS: usize = 16;
const PORTS: &str = "write names such as [metrics, grpc]: letters, digits, `-` and `_`, beginning with a letter";

fn is_port_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    first && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn request_body(function: &Section<'_>, report: &mut Report<'_>) -> RequestBody {
    const WORDS: [(&str, RequestBody); 2] = [("measured", RequestBody::Measured), ("stream", RequestBody::Stream)];
    function.field("request_body").and_then(|field| word(&field, &WORDS, &[], report)).unwrap_or_default()
}

fn exempt(field: &Field<'_>, report: &mut Report<'_>) -> Vec<String> {
    let Kind::List(items) = &field.node.kind else {
        wrong_type(field, "a list of paths such as [/metrics, /health/*]", report);
        return Vec::new();
    };
    let mut paths = Vec::new();
    for item in items {
        let text = item.scalar().unwrap_or_default();
        let Some(path) = path_of(text, field, item.at, report) else { continue };
        if path.trim_end_matches('*').contains(['*', '?']) || path.ends_with("**") {
            let message = format!("`{}` is not a path that can be exempt", shown(text));
            let problem = refuse(field, code::MANIFEST_BAD_VALUE, message);
            report.add(item.at, problem.hint("write one path without its query; one `*` may stand at its end"));
        } else if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

fn methods(field: &Field<'_>, report: &mut Report<'_>) -> Vec<String> {
    let mut methods: Vec<String> = Vec::new();
    let Kind::List(items) = &field.node.kind else {
        wrong_type(field, "a list of methods such as [GET, POST]", report);
        return methods;
    };
    if items.is_empty() {
        let problem = refuse(field, code::MANIFEST_BAD_VALUE, "an empty list would let no request through");
        report.add(field.node.at, problem.hint("leave `methods` out to take all"));
    }
    for item in items {
        let text = item.scalar().unwrap_or_default();
        match METHODS.iter().find(|method| **method == text) {
            Some(method) if methods.iter().any(|taken| taken == method) => {}
            Some(method) => methods.push((*method).to_owned()),
            None => {
                let message = format!("`{}` is not a method that a function takes", shown(text));
                let problem = refuse(field, code::MANIFEST_BAD_VALUE, message);
                report.add(item.at, problem.hint(format!("choose from {}", METHODS.join(", "))));
            }
        }
    }
    methods
}
