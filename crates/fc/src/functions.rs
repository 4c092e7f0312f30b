//! Functions: made, shown, changed, removed, listed; their code.

use std::collections::{BTreeMap, BTreeSet};

use axum::response::Response;
use kip_control::{Control, Direction, LATEST};
use kip_host::clock::wall_millis;
use kip_host::failpoint::reached;
use kip_spec::function::{FunctionSpec, Program};
use kip_spec::{FunctionName, VersionId, code};
use kip_store::{Author, Object, Seq, SettingChange};
use kip_wire::Role;
use serde_json::{Map, Value, json};

use crate::code::{CodeInfo, ports};
use crate::config::{check, object};
use crate::declaration::{Runtime, apply, configured_port, fresh, program, runtime, set_port};
use crate::error::{FcError, FcResult};
use crate::query::{listed, page};
use crate::record::FunctionRecord;
use crate::rendering::{differences, render};
use crate::request::{Request, empty, json, required, text};
use crate::sent_code::keep;
use crate::settings::{self, DISABLED, TAGS};
use crate::view::FunctionView;
use crate::{Fc, code_address, layers, shares, tags, triggers};

/// Checksums of code that are remembered.
const MOST_CHECKSUMS: usize = 10_000;
/// In whose words these functions are declared.
pub(crate) const FACADE: &str = "fc";
/// Fields of a change after which the program is another one.
const PROGRAM: [&str; 3] = ["runtime", "customRuntimeConfig", "customContainerConfig"];

pub(crate) async fn create(fc: &Fc, request: &Request) -> FcResult<Response> {
    let mut config = request.object()?;
    check(&config, true)?;
    let name = required(&config, "functionName")?.to_owned();
    request.require_function(&name)?;
    if fc.control.cell(&name).is_some() {
        return Err(exists(&name));
    }
    let kind = runtime(required(&config, "runtime")?)?;
    let tags = config.remove("tags").map(|tags| tags::checked(&tags)).transpose()?;
    let sent = config.remove("code");
    let code = match sent {
        // An image has its code in it.
        _ if kind == Runtime::Container => None,
        Some(code) => Some(keep(fc, request, code).await?),
        None => return Err(FcError::invalid("code is required")),
    };
    reached("fc: code kept");
    let function = parse(&name)?;
    let tags = tags.filter(|tags| tags.as_array().is_some_and(|tags| !tags.is_empty()));
    let beside = tags.map(|tags| settings::put_change(TAGS, &function, "", &tags));
    let made = create_over(fc, request, config, code.clone(), (function, beside.into_iter().collect())).await;
    code.iter().for_each(|code| fc.codes.release(&code.sha256));
    made?;
    reached("fc: function made");
    let view = fc.view(&name, LATEST).await?;
    Ok(json(fc.shown(&view, LATEST).await?))
}

async fn create_over(
    fc: &Fc,
    request: &Request,
    config: Map<String, Value>,
    code: Option<CodeInfo>,
    (name, beside): (FunctionName, Vec<SettingChange>),
) -> FcResult<()> {
    let tree = code.as_ref().map(|code| fc.codes.tree(&code.sha256)).unwrap_or_default();
    let layers = layers::resolve(fc, &config).await?;
    let mounts = shares::resolve(fc, &config).await?;
    let mut spec = fresh(name.clone(), &config, &tree)?;
    let reads = reads_port(&config, &spec).await?;
    set_port(&config, &mut spec, reads)?;
    layers::place(&mut spec, layers);
    shares::place(&mut spec, mounts);
    set_device_type(fc, &config, &mut spec)?;
    set_credentials(fc, &config, &mut spec).await?;
    let record = FunctionRecord { config, created: Some(wall_millis()), code };
    // Whoever makes it in the same moment is not overwritten.
    let author = Author { if_match: Some(Seq(0)), ..request.author() };
    let made = deploy(fc, spec, &record, None, author, beside).await;
    made.map_err(|error| if error.own == code::STALE { exists(name.as_str()) } else { error })
}

fn exists(name: &str) -> FcError {
    FcError::new(code::FUNCTION_EXISTS, "FunctionAlreadyExists", format!("function '{name}' already exists"))
}

fn parse(name: &str) -> FcResult<FunctionName> {
    name.parse().map_err(|error: kip_spec::id::IdError| FcError::invalid(error.to_string()))
}

/// Deploys a declaration with what is kept of it, and with the settings that belong to it: all of it or nothing.
pub(crate) async fn deploy(
    fc: &Fc,
    mut spec: FunctionSpec,
    record: &FunctionRecord,
    before: Option<&FunctionView>,
    author: Author,
    beside: Vec<SettingChange>,
) -> FcResult<()> {
    fc.control.resolve_image(&mut spec).await?;
    let mut shown = record.config.clone();
    // A document is shown to whoever sees the function.
    if let Some(Value::Object(variables)) = shown.get_mut("environmentVariables") {
        mask(variables);
    }
    let document = serde_json::to_string_pretty(&shown).unwrap_or_default();
    let extra = record.write(before.and_then(|view| view.extra.as_ref()));
    let extra = [(spec.name.clone(), extra)].into();
    let direction = Direction { extra, settings: beside, ..Direction::default() };
    fc.control.deploy_with(vec![spec], document, FACADE, direction, author).await?;
    Ok(())
}

pub(crate) async fn get(fc: &Fc, request: &Request) -> FcResult<Response> {
    let asked = request.query.qualifier();
    let view = fc.view(request.function(), asked).await?;
    Ok(json(fit_for(request, fc.shown(&view, asked).await?)))
}

/// Values that look like secrets are shown to who may deploy them.
fn fit_for(request: &Request, mut shown: Value) -> Value {
    if request.key.role() < Role::Deploy
        && let Some(variables) = shown["environmentVariables"].as_object_mut()
    {
        mask(variables);
    }
    shown
}

fn mask(variables: &mut Map<String, Value>) {
    for (name, value) in variables.iter_mut() {
        if let Some(text) = value.as_str() {
            *value = kip_spec::secret::masked(name, text).into_owned().into();
        }
    }
}

pub(crate) async fn update(fc: &Fc, request: &Request) -> FcResult<Response> {
    let name = request.function();
    let mut change = request.object()?;
    let rev = fc.control.rev(Object::Function(parse(name)?)).await?;
    let view = fc.view(name, LATEST).await?;
    let tags = change.remove("tags").map(|tags| tags::checked(&tags)).transpose()?;
    let code = change.remove("code");
    // What a kip.yaml declares need not be within the vendor's limits: it is shown, and may come back.
    let sent: BTreeSet<String> = change.keys().cloned().collect();
    let change = differences(&fc.shown(&view, LATEST).await?, change);
    check(&change, false)?;
    let code = match code {
        Some(code) if code.as_object().is_some_and(|code| !code.is_empty()) => Some(keep(fc, request, code).await?),
        _ => None,
    };
    let author = Author { if_match: Some(rev), ..request.author() };
    let beside = tags.as_ref().map(|tags| settings::put_change(TAGS, &view.name, "", tags)).into_iter().collect();
    let changed = change_over(fc, &view, (change, &sent), code.clone(), (author, beside)).await;
    code.iter().for_each(|code| fc.codes.release(&code.sha256));
    if !changed? && let Some(tags) = tags {
        settings::put(fc, TAGS, &view.name, "", &tags, request.author()).await?;
    }
    let view = fc.view(name, LATEST).await?;
    Ok(json(fc.shown(&view, LATEST).await?))
}

/// Applies a change to the present declaration, so that what others said of it stays. What a field names outside of the function (a role, a
/// layer, a folder) is looked up again where the field is `sent`, also if it reads the same. False if nothing is another one: then no revision
/// is made.
async fn change_over(
    fc: &Fc,
    view: &FunctionView,
    (change, sent): (Map<String, Value>, &BTreeSet<String>),
    code: Option<CodeInfo>,
    (author, beside): (Author, Vec<SettingChange>),
) -> FcResult<bool> {
    let mut spec = view.spec.clone();
    let mut record = view.record.clone().unwrap_or_default();
    let code_changed = code.is_some();
    record.code = code.or(record.code);
    let is_ours = record.created.is_some() || record.code.is_some();
    let program_changed = is_ours && PROGRAM.iter().any(|name| change.contains_key(*name))
        || !is_ours && changes_program(&render(&view.spec), &change);
    record.config.extend(change.clone());
    let names = |field: &str| if is_ours { sent.contains(field) } else { change.contains_key(field) };
    let layers_changed = names("layers");
    let layers = if layers_changed { layers::resolve(fc, &record.config).await? } else { layers::placed(&spec) };
    if layers_changed && !is_ours && layers.is_some() {
        return Err(FcError::refused(format!(
            "the program of `{}` is declared elsewhere, and sees no layers: send code with runtime and customRuntimeConfig",
            view.name
        )));
    }
    // What is valid alone may not be with what is there: a ratio, a hook with two forms.
    if is_ours {
        let mut whole = record.config.clone();
        whole.entry("functionName").or_insert_with(|| view.name.as_str().into());
        whole.entry("runtime").or_insert_with(|| "custom.debian12".into());
        check(&whole, true)?;
    }
    let mounts_changed = shares::FIELDS.iter().any(|field| names(field));
    let mounts = if mounts_changed { shares::resolve(fc, &record.config).await? } else { shares::placed(&spec) };
    if mounts_changed && !is_ours && !mounts.is_empty() {
        return Err(FcError::refused(format!(
            "the program of `{}` is declared elsewhere, and mounts no shares: send code with runtime and customRuntimeConfig",
            view.name
        )));
    }
    if code_changed || program_changed {
        if !is_ours {
            return Err(FcError::refused(format!(
                "the program of `{}` is declared elsewhere: send code with runtime and customRuntimeConfig, or change kip.yaml",
                view.name
            )));
        }
        let mut config = record.config.clone();
        config.entry("runtime").or_insert_with(|| "custom.debian12".into());
        spec.program = program(&config, &fc.tree_of(record.code.as_ref(), &view.spec))?;
        record.config = config;
    }
    if is_ours {
        layers::place(&mut spec, layers);
        shares::place(&mut spec, mounts);
    }
    // What was sent before and differs now was changed by somebody else, which stays.
    apply(&change, &mut spec)?;
    // What a kip.yaml says of these variables is its own.
    if is_ours || change.contains_key("role") {
        set_credentials(fc, &record.config, &mut spec).await?;
    }
    if is_ours {
        let reads = reads_port(&record.config, &spec).await?;
        set_port(&record.config, &mut spec, reads)?;
    }
    if change.contains_key("gpuConfig") {
        set_device_type(fc, &change, &mut spec)?;
    }
    if change.is_empty() && !code_changed && spec == view.spec {
        return Ok(false);
    }
    deploy(fc, spec, &record, Some(view), author, beside).await?;
    Ok(true)
}

/// Whether a change of a function that is declared elsewhere names another program: its probe alone is none of it.
fn changes_program(shown: &Map<String, Value>, change: &Map<String, Value>) -> bool {
    let without_probe = |value: Option<&Value>| {
        let mut program = value.and_then(Value::as_object).cloned().unwrap_or_default();
        program.remove("healthCheckConfig");
        program
    };
    change.contains_key("runtime")
        || ["customRuntimeConfig", "customContainerConfig"].iter().any(|name| {
            change.contains_key(*name) && without_probe(change.get(*name)) != without_probe(shown.get(*name))
        })
}

/// Whether the program of a configuration may learn the port that it is given. Those that run handlers are ours.
async fn reads_port(config: &Map<String, Value>, spec: &FunctionSpec) -> FcResult<bool> {
    let name = text(config, "runtime")?.unwrap_or_default();
    let Program::Command { argv, dir } = &spec.program else { return Ok(true) };
    if runtime(name)? != Runtime::Custom {
        return Ok(true);
    }
    let (argv, dir, port) = (argv.clone(), dir.clone(), configured_port(config)?);
    let found = kip_host::tasks::blocking("port of a program", move || ports::reads_port(&argv, &dir, port)).await;
    Ok(found.unwrap_or(true))
}

/// The credentials of a configuration's role, where the role is mapped to secrets. Variables that it sets itself stay.
async fn set_credentials(fc: &Fc, config: &Map<String, Value>, spec: &mut FunctionSpec) -> FcResult<()> {
    let role = text(config, "role")?.unwrap_or_default();
    let off = ["All", "Env"].contains(&text(config, "disableInjectCredentials")?.unwrap_or_default());
    let found = if role.is_empty() || off { BTreeMap::new() } else { fc.control.credentials(role).await? };
    for variable in Control::credential_variables() {
        spec.secrets.remove(variable);
    }
    let is_free = |(variable, _): &(String, _)| !spec.env.contains_key(variable);
    let found: Vec<_> = found.into_iter().filter(is_free).collect();
    spec.secrets.extend(found);
    Ok(())
}

/// The type of device that a configuration asks for, where the settings of the server name one for it.
fn set_device_type(fc: &Fc, config: &Map<String, Value>, spec: &mut FunctionSpec) -> FcResult<()> {
    let asked = object(config, "gpuConfig")?.map(|gpu| text(gpu, "gpuType")).transpose()?.flatten();
    if let (Some(asked), Some(gpu)) = (asked, &mut spec.resources.gpu) {
        gpu.kind = fc.gpu_types.get(asked).cloned();
    }
    Ok(())
}

pub(crate) async fn remove(fc: &Fc, request: &Request) -> FcResult<Response> {
    let name = request.function();
    fc.control.require(name)?;
    if fc.tasks.config(name, LATEST).is_some() {
        fc.tasks.put_config(name, LATEST, None).await?;
    }
    fc.control.remove(name, request.author()).await?;
    fc.keys.tokens().replace(&triggers::owners(name), Vec::new());
    fc.timers_changed();
    Ok(empty())
}

pub(crate) async fn list(fc: &Fc, request: &Request) -> FcResult<Response> {
    let query = &request.query;
    let names: Vec<String> = match query.get("fcVersion") {
        // Functions of services: there are none here.
        Some("v2") => Vec::new(),
        _ => fc.control.function_names().iter().map(ToString::to_string).collect(),
    };
    let wanted = query.get("functionName");
    let names: Vec<String> =
        names.into_iter().filter(|name| request.key.sees(name) && wanted.is_none_or(|wanted| name == wanted)).collect();
    let tags = tags::filter(query)?;
    let filtered = tags.is_some() || ["runtime", "gpuType", "description"].iter().any(|name| query.get(name).is_some());
    if !filtered {
        let (names, next) = page(names, query, Clone::clone)?;
        let mut functions = Vec::with_capacity(names.len());
        for name in names {
            // One that was removed in this moment is no error of the list.
            if let Ok(view) = fc.view(&name, LATEST).await {
                functions.push(fit_for(request, fc.shown(&view, LATEST).await?));
            }
        }
        return Ok(json(listed("functions", functions, next)));
    }
    let mut rows = Vec::new();
    for name in names {
        let Ok(view) = fc.view(&name, LATEST).await else { continue };
        let shown = fit_for(request, fc.shown(&view, LATEST).await?);
        let is = |field: &str, wanted: &str| shown[field].as_str() == Some(wanted);
        let fits = query.get("runtime").is_none_or(|wanted| is("runtime", wanted))
            && query.get("gpuType").is_none_or(|wanted| shown["gpuConfig"]["gpuType"].as_str() == Some(wanted))
            && query
                .get("description")
                .is_none_or(|wanted| shown["description"].as_str().is_some_and(|text| text.contains(wanted)))
            && tags.as_ref().is_none_or(|tags| tags::has_all(&shown["tags"], tags));
        if fits {
            rows.push(shown);
        }
    }
    let name = |row: &Value| row["functionName"].as_str().unwrap_or_default().to_owned();
    let (functions, next) = page(rows, query, name)?;
    Ok(json(listed("functions", functions, next)))
}

pub(crate) async fn code(fc: &Fc, request: &Request) -> FcResult<Response> {
    let view = fc.view(request.function(), request.query.qualifier()).await?;
    let Some(code) = view.record.and_then(|record| record.code) else {
        return Err(FcError::refused(format!("the code of `{}` was not uploaded", view.name)));
    };
    let host = request.header("host").unwrap_or_default();
    Ok(json(json!({"url": code_address::of(fc, host, &code.sha256), "checksum": code.checksum})))
}

pub(crate) async fn disable(fc: &Fc, request: &Request) -> FcResult<Response> {
    let given = request.object()?;
    let reason = text(&given, "reason")?.unwrap_or_default();
    let abort = match given.get("abortOngoingRequest") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err(FcError::invalid("abortOngoingRequest is true or false")),
    };
    let cell = fc.control.require(request.function())?;
    let value = settings::restriction(reason, wall_millis());
    settings::put(fc, DISABLED, cell.name(), "", &value, request.author()).await?;
    cell.set_disabled(true);
    if abort {
        cell.abort();
    }
    Ok(json(json!({"success": true})))
}

pub(crate) async fn enable(fc: &Fc, request: &Request) -> FcResult<Response> {
    let cell = fc.control.require(request.function())?;
    settings::remove(fc, DISABLED, cell.name(), "", request.author()).await?;
    cell.set_disabled(false);
    Ok(json(json!({"success": true})))
}

impl Fc {
    /// Which functions take no invocations, at a start.
    pub(crate) async fn hold_disabled(&self) -> FcResult<()> {
        let settings = self.control.settings(DISABLED, None).await?;
        for name in self.control.function_names() {
            if let Some(cell) = self.control.cell(name.as_str()) {
                cell.set_disabled(settings.iter().any(|setting| setting.function == name));
            }
        }
        Ok(())
    }

    /// The checksum of the code that a revision runs, from memory after the first time.
    pub(crate) async fn checksum_of(&self, revision: VersionId) -> Option<String> {
        if let Some(known) = self.checksums.lock().get(&revision) {
            return known.clone();
        }
        let extra = self.control.extra(revision).await.ok()?;
        let record = extra.as_ref().and_then(FunctionRecord::read);
        let checksum = record.and_then(|record| record.code).map(|code| code.checksum);
        let mut all = self.checksums.lock();
        if all.len() >= MOST_CHECKSUMS {
            all.clear();
        }
        all.insert(revision, checksum.clone());
        checksum
    }
}
