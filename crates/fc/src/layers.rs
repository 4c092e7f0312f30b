//! Layers: archives that several functions share, each version with a number of its own. A function sees the layers that it names in `/opt`.
//! Source of the interface: the shared reference on the FC 3.0 API, section 2.

use std::path::PathBuf;

use axum::response::Response;
use kip_host::clock::wall_millis;
use kip_spec::account::{ACCOUNT, REGION};
use kip_spec::code;
use kip_spec::container::Mount;
use kip_spec::function::{FunctionSpec, Program};
use kip_store::{Author, Change, Object, Seq, StoredResource};
use serde_json::{Map, Value, json};

use crate::Fc;
use crate::config::words;
use crate::error::{FcError, FcResult};
use crate::query::{listed, page};
use crate::request::{Request, empty, json, text, time};
use crate::sent_code::keep;

/// The kinds of the resources: versions, and layers with the number of their next version.
const VERSION: &str = "fc.layer-version";
const LAYER: &str = "fc.layer";
/// Where a function sees them, and its code.
const TARGET: &str = "/opt";
const CODE: &str = "/code";
/// Layers of a function at most.
const MOST: usize = 5;
/// Digits of a number in a name, so that names sort as numbers do.
const DIGITS: usize = 10;

/// A version of a layer.
#[derive(Debug)]
struct LayerVersion {
    name: String,
    number: u64,
    config: Map<String, Value>,
    code: String,
}

impl LayerVersion {
    fn read(resource: StoredResource) -> Option<Self> {
        let (name, number) = resource.name.rsplit_once('/')?;
        let config = serde_json::from_str(&resource.config).ok()?;
        Some(Self { name: name.to_owned(), number: number.parse().ok()?, config, code: resource.code? })
    }
}

fn key(name: &str, number: u64) -> String {
    format!("{name}/{number:0DIGITS$}")
}

fn arn(name: &str, number: u64) -> String {
    format!("acs:fc:{REGION}:{ACCOUNT}:layers/{name}/versions/{number}")
}

/// The layer and the number that a name of a resource means, whatever its region and account are.
fn parse(arn: &str) -> Option<(&str, u64)> {
    let rest = arn.strip_prefix("acs:fc:")?.splitn(3, ':').nth(2)?.strip_prefix("layers/")?;
    let (name, number) = rest.split_once("/versions/")?;
    Some((name, number.parse().ok()?))
}

fn missing(what: &str) -> FcError {
    FcError::new(code::LAYER_NOT_FOUND, "LayerNotFound", format!("layer {what} does not exist on this server"))
}

async fn all(fc: &Fc) -> FcResult<Vec<LayerVersion>> {
    Ok(fc.control.resources(VERSION).await?.into_iter().filter_map(LayerVersion::read).collect())
}

async fn find(fc: &Fc, name: &str, number: u64) -> FcResult<LayerVersion> {
    let found = all(fc).await?.into_iter().find(|version| version.name == name && version.number == number);
    found.ok_or_else(|| missing(&format!("'{name}' version {number}")))
}

/// The layer itself: its next number, and who may use it.
async fn record(fc: &Fc, name: &str) -> FcResult<Option<Map<String, Value>>> {
    let found = fc.control.resources(LAYER).await?.into_iter().find(|resource| resource.name == name);
    Ok(found.and_then(|resource| serde_json::from_str(&resource.config).ok()))
}

async fn put(fc: &Fc, kind: &str, name: &str, config: &Value, code: Option<String>, author: Author) -> FcResult<()> {
    let object = Object::Resource(kind.to_owned(), name.to_owned());
    let resource =
        StoredResource { kind: kind.to_owned(), name: name.to_owned(), config: config.to_string(), code, rev: Seq(0) };
    fc.control.change_resource(object, Change::PutResource(Box::new(resource)), author).await?;
    Ok(())
}

fn shown(fc: &Fc, request: &Request, version: &LayerVersion, acl: &str) -> Value {
    let host = request.header("host").unwrap_or_default();
    let mut shown = Value::from(version.config.clone());
    shown["layerName"] = version.name.clone().into();
    shown["version"] = version.number.into();
    shown["layerVersionArn"] = arn(&version.name, version.number).into();
    shown["acl"] = acl.into();
    shown["code"] = json!({"location": crate::code_address::of(fc, host, &version.code), "repositoryType": "OSS"});
    shown
}

async fn acl(fc: &Fc, name: &str) -> FcResult<String> {
    let acl = record(fc, name).await?.and_then(|record| record.get("acl")?.as_str().map(str::to_owned));
    Ok(acl.unwrap_or_else(|| "0".to_owned()))
}

fn check_name(name: &str) -> FcResult<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if begins && name.len() <= 64 && name.bytes().all(fits) {
        return Ok(());
    }
    let said = "layerName has 1 to 64 letters, digits, `_` or `-`, and begins with a letter or `_`";
    Err(FcError::new(code::LAYER_INVALID, "InvalidArgument", said))
}

pub(crate) async fn create(fc: &Fc, request: &Request) -> FcResult<Response> {
    let name = request.parameter(0);
    check_name(name)?;
    let mut given = request.object()?;
    let runtimes = words(&given, "compatibleRuntime")?;
    let description = text(&given, "description")?.unwrap_or_default().to_owned();
    let license = text(&given, "license")?.unwrap_or_default().to_owned();
    if description.chars().count() > 256 || license.chars().count() > 256 {
        return Err(FcError::new(
            code::LAYER_INVALID,
            "InvalidArgument",
            "description and license have at most 256 characters",
        ));
    }
    let sent = given.remove("code").ok_or_else(|| FcError::invalid("code is required"))?;
    let kept = keep(fc, request, sent).await?;
    let made = async {
        // The number is taken first: one that is lost is not given again.
        let _turn = fc.layer_turn.lock().await;
        let mut record = record(fc, name).await?.unwrap_or_default();
        let number = record.get("next").and_then(Value::as_u64).unwrap_or(1);
        record.insert("next".to_owned(), (number + 1).into());
        put(fc, LAYER, name, &Value::from(record), None, request.author()).await?;
        let config = json!({
            "description": description, "license": license, "compatibleRuntime": runtimes,
            "createTime": time(wall_millis()), "codeSize": kept.size, "codeChecksum": kept.checksum,
        });
        put(fc, VERSION, &key(name, number), &config, Some(kept.sha256.clone()), request.author()).await?;
        Ok::<u64, FcError>(number)
    };
    let made = made.await;
    fc.codes.release(&kept.sha256);
    let version = find(fc, name, made?).await?;
    Ok(json(shown(fc, request, &version, &acl(fc, name).await?)))
}

fn number_of(request: &Request, place: usize) -> FcResult<u64> {
    request
        .parameter(place)
        .parse()
        .map_err(|_| missing(&format!("'{}' version {}", request.parameter(0), request.parameter(place))))
}

pub(crate) async fn get(fc: &Fc, request: &Request) -> FcResult<Response> {
    let version = find(fc, request.parameter(0), number_of(request, 1)?).await?;
    Ok(json(shown(fc, request, &version, &acl(fc, &version.name).await?)))
}

pub(crate) async fn get_by_arn(fc: &Fc, request: &Request) -> FcResult<Response> {
    let asked = request.parameter(0);
    let (name, number) = parse(asked).ok_or_else(|| missing(asked))?;
    let version = find(fc, name, number).await?;
    Ok(json(shown(fc, request, &version, &acl(fc, &version.name).await?)))
}

pub(crate) async fn remove(fc: &Fc, request: &Request) -> FcResult<Response> {
    let version = find(fc, request.parameter(0), number_of(request, 1)?).await?;
    let (kind, name) = (VERSION.to_owned(), key(&version.name, version.number));
    let object = Object::Resource(kind.clone(), name.clone());
    // Functions that have it keep it: what they see was put together when they were deployed.
    fc.control.change_resource(object, Change::RemoveResource { kind, name }, request.author()).await?;
    Ok(empty())
}

pub(crate) async fn versions(fc: &Fc, request: &Request) -> FcResult<Response> {
    let name = request.parameter(0);
    let mut own: Vec<LayerVersion> = all(fc).await?.into_iter().filter(|version| version.name == name).collect();
    own.reverse();
    let limit = request.query.limit()?;
    let start = request.query.number("startVersion")?.map(i64::unsigned_abs).filter(|start| *start > 0);
    let mut rows = own.iter().filter(|version| start.is_none_or(|start| version.number <= start));
    let acl = acl(fc, name).await?;
    let page: Vec<Value> = rows.by_ref().take(limit).map(|version| shown(fc, request, version, &acl)).collect();
    let mut answer = json!({"layers": page});
    if let Some(next) = rows.next() {
        answer["nextVersion"] = next.number.into();
    }
    Ok(json(answer))
}

/// The newest version of each layer.
pub(crate) async fn list(fc: &Fc, request: &Request) -> FcResult<Response> {
    let query = &request.query;
    // There are no layers of the vendor here.
    let mut newest: Vec<LayerVersion> = Vec::new();
    if !query.flag("official") {
        for version in all(fc).await? {
            match newest.last_mut() {
                Some(last) if last.name == version.name => *last = version,
                _ => newest.push(version),
            }
        }
    }
    let (rows, next) = page(newest, query, |version| version.name.clone())?;
    let mut layers = Vec::with_capacity(rows.len());
    for version in &rows {
        let acl = acl(fc, &version.name).await?;
        if !query.flag("public") || acl == "1" {
            layers.push(shown(fc, request, version, &acl));
        }
    }
    Ok(json(listed("layers", layers, next)))
}

/// Who may use a layer. On one's own machine that is kept, and has no effect.
pub(crate) async fn put_acl(fc: &Fc, request: &Request) -> FcResult<Response> {
    let name = request.parameter(0);
    let acl = match (request.query.get("acl"), request.query.get("public")) {
        (Some("1"), _) | (None, Some("true")) => "1",
        (Some("0"), _) | (None, Some("false") | None) => "0",
        _ => return Err(FcError::invalid("acl is 0 or 1")),
    };
    let _turn = fc.layer_turn.lock().await;
    let mut record = record(fc, name).await?.ok_or_else(|| missing(&format!("'{name}'")))?;
    record.insert("acl".to_owned(), acl.into());
    put(fc, LAYER, name, &Value::from(record), None, request.author()).await?;
    Ok(empty())
}

/// The layers that a configuration names, first one first. An answer of ours has objects in their place.
fn named(config: &Map<String, Value>) -> FcResult<Vec<String>> {
    let Some(layers) = config.get("layers").filter(|layers| !layers.is_null()) else { return Ok(Vec::new()) };
    let wrong = || {
        FcError::new(
            code::LAYER_INVALID,
            "InvalidArgument",
            format!("layers is a list of at most {MOST} names of layer versions"),
        )
    };
    let names = layers.as_array().filter(|layers| layers.len() <= MOST).ok_or_else(wrong)?;
    names.iter().map(|one| one.as_str().or_else(|| one["arn"].as_str()).map(str::to_owned).ok_or_else(wrong)).collect()
}

/// Looks a configuration's layers up and puts them together; none if it names none.
///
/// # Errors
/// A layer that is not there, or code that cannot have layers.
pub(crate) async fn resolve(fc: &Fc, config: &Map<String, Value>) -> FcResult<Option<PathBuf>> {
    let names = named(config)?;
    if names.is_empty() {
        return Ok(None);
    }
    if text(config, "runtime")? == Some("custom-container") {
        let said = "layers are for code, not for images: put the files into the image";
        return Err(FcError::new(code::LAYER_INVALID, "InvalidArgument", said));
    }
    let mut digests = Vec::with_capacity(names.len());
    for name in &names {
        let (layer, number) = parse(name).ok_or_else(|| missing(name))?;
        digests.push(
            find(fc, layer, number)
                .await
                .map_err(|error| FcError {
                    message: format!("{}; publish it here: kip layer publish {layer} FOLDER", error.message),
                    ..error
                })?
                .code,
        );
    }
    Ok(Some(fc.codes.merge(&digests).await?))
}

/// Sets where a function sees its code and its layers.
pub(crate) fn place(spec: &mut FunctionSpec, layers: Option<PathBuf>) {
    let mount = |source: String, target: &str| Mount { source, target: target.to_owned(), writable: false };
    spec.folders = match &spec.program {
        Program::Command { dir, .. } => {
            let code = mount(dir.display().to_string(), CODE);
            let layers = layers.map(|layers| mount(layers.display().to_string(), TARGET));
            std::iter::once(code).chain(layers).collect()
        }
        _ => Vec::new(),
    };
}

/// The layers that a function sees, from its declaration.
pub(crate) fn placed(spec: &FunctionSpec) -> Option<PathBuf> {
    spec.folders.iter().find(|folder| folder.target == TARGET).map(|folder| PathBuf::from(&folder.source))
}

/// A configuration's layers as clients see them, with their sizes.
pub(crate) async fn described(fc: &Fc, config: &Map<String, Value>) -> FcResult<Option<Value>> {
    let names = named(config).unwrap_or_default();
    if names.is_empty() {
        return Ok(None);
    }
    let there = all(fc).await?;
    let one = |name: &String| {
        let found = parse(name)
            .and_then(|(layer, number)| there.iter().find(|version| version.name == layer && version.number == number));
        let size = found.and_then(|version| version.config.get("codeSize").cloned()).unwrap_or_else(|| json!(0));
        json!({"arn": name, "size": size})
    };
    Ok(Some(names.iter().map(one).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_versions_are_written_and_read() {
        assert_eq!(arn("l", 3), "acs:fc:local:kipwake:layers/l/versions/3");
        assert_eq!(parse(&arn("l", 3)), Some(("l", 3)));
        assert_eq!(parse("acs:fc:cn-beijing:1:layers/a_b/versions/12"), Some(("a_b", 12)));
        for wrong in ["l", "acs:fc:a:b:layers/l", "acs:fc:a:b:functions/l/versions/1", "acs:fc:a:b:layers/l/versions/x"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert!(key("l", 9) < key("l", 10));
    }

    #[test]
    fn a_configuration_names_few_layers() {
        let read = |value: Value| named(&json!({"layers": value}).as_object().unwrap().clone());
        assert_eq!(read(json!(["a", {"arn": "b", "size": 1}])).unwrap(), ["a", "b"]);
        assert!(read(json!([])).unwrap().is_empty());
        for wrong in [json!("a"), json!([1]), json!(["1", "2", "3", "4", "5", "6"])] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
