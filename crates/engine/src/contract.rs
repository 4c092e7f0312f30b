//! The container contract: variables, headers and hooks as Function Compute's custom runtimes know them.
//! Source: shared reference on the FC 3.0 API, section 4.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::Full;
use kip_host::endpoint::Endpoint;
use kip_host::http_client;
use kip_spec::InstanceId;
use kip_spec::account::{ACCOUNT, REGION};
use kip_spec::container::Mount;
use kip_spec::function::Hook;
use kip_spec::named_secret::SecretText;
use kip_spec::qualifier::LATEST;
use kip_spec::reference::escaped;
use kip_spec::sleep::InstanceCall;

use crate::body::{CallAnswer, Error, Health, Order};
use crate::expand;

/// The variable that marks an instance's processes.
pub(crate) const INSTANCE: &str = "KIPWAKE_INSTANCE";
/// The variable with what the server says with each request.
const TOKEN: &str = "KIPWAKE_INSTANCE_TOKEN";
/// The header in which it says so.
pub(crate) const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-kip-instance-token");
/// The variable with the Unix socket that an instance is to listen on.
const SOCKET: &str = "KIPWAKE_SOCKET";
/// The variable that names the server they belong to.
pub(crate) const SERVER: &str = "KIPWAKE_SERVER";

/// The variable that names their version, as it was when they were started.
pub(crate) const VERSION: &str = "KIPWAKE_VERSION";
/// The variable that names their function.
pub(crate) const FUNCTION: &str = "KIPWAKE_FUNCTION";

/// What a process sees of the host beside its folder.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HostView<'a> {
    /// Its own home, where it is not its server's user.
    pub(crate) home: Option<&'a Path>,
    /// Whether the folders of its order are at the paths that they are for.
    pub(crate) places: bool,
    /// The Unix socket that it is to listen on.
    pub(crate) socket: Option<&'a Path>,
}

/// Where code of Function Compute is.
const CODE: &str = "/code";
/// Where layers of Function Compute are.
const LAYERS: &str = "/opt";
/// What is searched in layers, by the variable that says so.
const SEARCHED: [(&str, &str); 4] =
    [("PATH", "bin"), ("LD_LIBRARY_PATH", "lib"), ("PYTHONPATH", "python"), ("NODE_PATH", "nodejs/node_modules")];

/// Whether a folder is shared storage, and neither code nor layers.
pub(crate) fn is_share(folder: &Mount) -> bool {
    ![CODE, LAYERS].contains(&folder.target.as_str())
}

/// The folder that a process starts in, if it sees that at another path.
pub(crate) fn directory(order: &Order, places: bool) -> Option<&str> {
    let own = order.folders.iter().find(|folder| Path::new(&folder.source) == order.directory);
    own.filter(|_| places).map(|folder| folder.target.as_str())
}

/// Where the server sees a file that a process sees in one of its folders.
pub(crate) fn source_of(order: &Order, path: &str) -> Option<String> {
    order.folders.iter().find_map(|folder| {
        let rest = path.strip_prefix(&folder.target)?.strip_prefix('/')?;
        Some(format!("{}/{rest}", folder.source))
    })
}

/// Adds layers to the paths that programs search.
fn search_layers(env: &mut BTreeMap<String, String>, order: &Order, places: bool) {
    let Some(layers) = order.folders.iter().find(|folder| folder.target == LAYERS) else { return };
    let base = if places { LAYERS } else { &layers.source };
    for (variable, folder) in SEARCHED {
        let before = env.get(variable).filter(|before| !before.is_empty()).map(|before| format!(":{before}"));
        env.insert(variable.to_owned(), format!("{base}/{folder}{}", before.unwrap_or_default()));
    }
}

/// The whole environment of a process: what it inherits, the contract, what the user declared, and what nobody may override.
pub(crate) fn environment(
    order: &Order,
    server: &str,
    ports: (u16, &[u16]),
    HostView { home, places, socket }: HostView<'_>,
) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = kip_host::environment::inherited().into_iter().collect();
    if let Some(home) = home {
        env.insert("HOME".to_owned(), home.to_string_lossy().into_owned());
        // The names of the server's user, which it is not.
        ["USER", "LOGNAME"].into_iter().for_each(|name| drop(env.remove(name)));
    }
    if let Some(socket) = socket {
        // Before the declaration, which may name it.
        env.insert(SOCKET.to_owned(), socket.to_string_lossy().into_owned());
    }
    let numbers: Option<Vec<usize>> = order.devices.as_ref().map(|devices| devices.numbers.clone());
    search_layers(&mut env, order, places);
    let code = directory(order, places).map_or_else(|| order.directory.clone(), PathBuf::from);
    fill(&mut env, order, ports, numbers.as_deref(), &code);
    env.insert(SERVER.to_owned(), server.to_owned());
    env
}

/// The environment of a container: that of its image, the contract, what the user declared, and what nobody may override. It inherits
/// nothing of the host, and lacks the mark of the server: the body of processes would take its processes for its own.
#[cfg(feature = "docker")]
pub(crate) fn in_container(order: &Order, ports: (u16, &[u16]), image: &[String]) -> BTreeMap<String, String> {
    let pairs = image.iter().filter_map(|pair| pair.split_once('='));
    let mut env: BTreeMap<String, String> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // It sees its own devices alone, which are counted from 0.
    let numbers: Option<Vec<usize>> = order.devices.as_ref().map(|devices| (0..devices.numbers.len()).collect());
    fill(&mut env, order, ports, numbers.as_deref(), &order.directory);
    env
}

/// Adds the contract to what an instance has. `devices` are the numbers by which CUDA knows its devices.
fn fill(
    env: &mut BTreeMap<String, String>,
    order: &Order,
    (port, more_ports): (u16, &[u16]),
    devices: Option<&[usize]>,
    code: &Path,
) {
    let mut code_path = code.to_string_lossy().into_owned();
    if !code_path.ends_with('/') {
        code_path.push('/');
    }
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("FC_FUNCTION_NAME", order.function.to_string());
    set("FC_INSTANCE_ID", order.instance.to_string());
    set("FC_FUNC_CODE_PATH", code_path);
    set("FC_REGION", REGION.to_owned());
    set("FC_ACCOUNT_ID", ACCOUNT.to_owned());
    if let Some(memory) = order.memory.map(|memory| memory.0 >> 20) {
        set("FC_MEMORY_SIZE", memory.to_string());
        set("FC_FUNCTION_MEMORY_SIZE", memory.to_string());
    }
    if let Some(hook) = &order.initialize {
        set("FC_INITIALIZER_HANDLER", hook.path.clone());
        set("FC_INITIALIZATION_TIMEOUT", hook.timeout.0.div_ceil(1_000).to_string());
    }
    if let Some(devices) = &order.devices {
        env.extend(devices.offered.clone());
    }
    // A value stands for itself: nothing in it is a reference.
    let secrets = order.secrets.iter().map(|(name, value)| (name.clone(), escaped(value.reveal())));
    let declared: BTreeMap<String, String> = order.env.clone().into_iter().chain(secrets).collect();
    env.extend(declared.clone());
    for name in ["PORT", "FC_SERVER_PORT", "FC_CUSTOM_LISTEN_PORT"] {
        env.insert(name.to_owned(), port.to_string());
    }
    for (name, port) in order.ports.iter().zip(more_ports) {
        env.insert(format!("PORT_{}", name.to_ascii_uppercase().replace('-', "_")), port.to_string());
    }
    if let (Some(numbers), Some(known)) = (devices, &order.devices) {
        let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
        // Empty where it has none: it must not find those of others.
        env.insert("CUDA_VISIBLE_DEVICES".to_owned(), numbers.join(","));
        env.insert("KIPWAKE_DEVICES".to_owned(), known.names.join(","));
        env.extend(known.fixed.clone());
        if let Some(library) = &known.preload {
            let before = env.get("LD_PRELOAD").filter(|before| !before.is_empty());
            let library = library.to_string_lossy();
            let all = before.map_or_else(|| library.clone().into_owned(), |before| format!("{library}:{before}"));
            env.insert("LD_PRELOAD".to_owned(), all);
        }
    }
    env.insert(FUNCTION.to_owned(), order.function.to_string());
    env.insert(VERSION.to_owned(), order.label.clone());
    env.insert(INSTANCE.to_owned(), order.instance.to_string());
    if !order.token.reveal().is_empty() {
        env.insert(TOKEN.to_owned(), order.token.reveal().to_owned());
    }
    expand::declared(env, &declared);
}

/// The headers that hooks carry.
pub(crate) fn headers(order: &Order) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-fc-function-name", order.function.as_str());
    // An instance is started for its version, whoever asked for it.
    let published = order.label.bytes().all(|byte| byte.is_ascii_digit());
    set("x-fc-qualifier", if published { &order.label } else { LATEST });
    set("x-fc-version-id", &order.label);
    set("x-fc-region", REGION);
    set("x-fc-account-id", ACCOUNT);
    if let Some(memory) = order.memory.map(|memory| memory.0 >> 20) {
        set("x-fc-function-memory", &memory.to_string());
    }
    if let Some(hook) = &order.initialize {
        set("x-fc-function-initializer", &hook.path);
        set("x-fc-initialization-timeout", &hook.timeout.0.div_ceil(1_000).to_string());
    }
    if let Some(hook) = &order.pre_stop {
        set("x-fc-instance-lifecycle-pre-stop-handler", &hook.path);
    }
    headers.extend(probe_headers(&order.token));
    headers
}

/// Calls a hook; any answer but 2xx is a failure.
pub(crate) async fn call_hook(
    instance: InstanceId,
    (endpoint, headers): (Option<Endpoint>, &HeaderMap),
    name: &'static str,
    method: http::Method,
    hook: &Hook,
) -> Result<(), Error> {
    let failed = |status, detail| Error::Hook { hook: name, instance, status, detail };
    let endpoint = endpoint.ok_or_else(|| failed(0, "the instance was never ready".to_owned()))?;
    let mut headers = headers.clone();
    let request_id = format!("r-{:032x}", kip_host::random::bits());
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert("x-fc-request-id", value);
    }
    if let Ok(value) = HeaderValue::from_str(&hook.path) {
        headers.insert("x-fc-control-path", value);
    }
    match kip_host::http_client::status_of(method, &endpoint, &hook.path, &headers, hook.timeout.to_std()).await {
        Ok(status) if (200..300).contains(&status) => Ok(()),
        Ok(status) => Err(failed(status, format!("{} answered {status}", hook.path))),
        Err(error) => Err(failed(0, error.to_string())),
    }
}

/// Sends a request to an instance, with the headers of the contract. Every status is an answer.
pub(crate) async fn call(
    instance: InstanceId,
    (endpoint, headers): (Option<Endpoint>, &HeaderMap),
    name: &'static str,
    call: &InstanceCall,
) -> Result<CallAnswer, Error> {
    let failed = |detail| Error::Hook { hook: name, instance, status: 0, detail };
    let endpoint = endpoint.ok_or_else(|| failed("the instance was never ready".to_owned()))?;
    let mut request = http::Request::new(Full::default());
    *request.headers_mut() = headers.clone();
    *request.method_mut() = call.method.name().parse().unwrap_or_default();
    *request.uri_mut() = call.path.parse().map_err(|_| failed(format!("{} is no path", call.path)))?;
    if let Some(body) = &call.body {
        *request.body_mut() = Full::from(Bytes::from(body.clone()));
        request.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let request_id = format!("r-{:032x}", kip_host::random::bits());
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        request.headers_mut().insert("x-fc-request-id", value);
    }
    let answer = http_client::call_endpoint(&endpoint, request, call.timeout.to_std()).await;
    let answer = answer.map_err(|error| failed(format!("{}: {error}", call.path)))?;
    Ok(CallAnswer { status: answer.status, body: answer.body })
}

/// Calls a path on an instance, to see how it does. A `GET`.
pub(crate) async fn probe((endpoint, known): (Option<Endpoint>, &HeaderMap), path: &str, limit: Duration) -> Health {
    let Some(endpoint) = endpoint else { return Health::Refused };
    let headers = token_of(known).into_iter().map(|token| (TOKEN_HEADER, token)).collect();
    match http_client::status_of(http::Method::GET, &endpoint, path, &headers, limit).await {
        Ok(status) if (200..400).contains(&status) => Health::Well,
        Err(http_client::Error::Timeout(_)) => Health::Slow,
        Ok(_) | Err(_) => Health::Refused,
    }
}

/// What a probe says before an instance is ready.
pub(crate) fn probe_headers(token: &SecretText) -> HeaderMap {
    let token = Some(token.reveal()).filter(|token| !token.is_empty());
    token.and_then(|token| HeaderValue::from_str(token).ok()).into_iter().map(|token| (TOKEN_HEADER, token)).collect()
}

/// What is said with each request to an instance, of the headers that hooks carry.
pub(crate) fn token_of(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(TOKEN_HEADER).cloned()
}

/// Headers as they are written down.
pub(crate) fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

/// Headers that were written down.
pub(crate) fn read_headers(listed: &[(String, String)]) -> HeaderMap {
    let pair = |(name, value): &(String, String)| {
        Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::from_str(value).ok()?))
    };
    listed.iter().filter_map(pair).collect()
}
