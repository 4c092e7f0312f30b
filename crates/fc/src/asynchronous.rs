//! Asynchronous configurations by qualifier.

use axum::response::Response;
use kip_host::clock::wall_millis;
use kip_spec::{FunctionName, code};
use kip_tasks::config::{AsyncConfig, Destination, Destinations};
use serde_json::{Map, Value, json};

use crate::Fc;
use crate::arn;
use crate::config::{number, object};
use crate::error::{FcError, FcResult};
use crate::provision::kept_rows;
use crate::query::listed;
use crate::query::page;
use crate::request::{Request, empty, json, text, time};
use crate::settings::{self, ASYNC};

/// When a configuration was kept, beside its fields.
const TIMES: [&str; 2] = ["createdTime", "lastModifiedTime"];

fn shown(function: &FunctionName, qualifier: &str, sent: Value) -> Value {
    let mut shown = sent;
    shown["functionArn"] = arn::function(function.as_str(), Some(qualifier)).into();
    shown
}

/// A destination of ours for one of the vendor's.
fn destination(request: &Request, given: &Map<String, Value>, name: &str) -> FcResult<Option<Destination>> {
    let Some(of) = object(given, "destinationConfig")?.map(|of| object(of, name)).transpose()?.flatten() else {
        return Ok(None);
    };
    let Some(target) = text(of, "destination")?.filter(|target| !target.is_empty()) else { return Ok(None) };
    let Some(function) = arn::function_of(target) else {
        return Err(FcError::invalid(format!(
            "destination `{target}` is no function; queues and topics are not reached from here: use a function, or `kip task config set` for a webhook"
        )));
    };
    // Who names a function to be called gives it work.
    request.require_function(function)?;
    Ok(Some(Destination { destination: format!("function:{function}"), secret: None }))
}

pub(crate) async fn put(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = fc.control.require(request.function())?.name().clone();
    let qualifier = request.query.qualifier();
    fc.view(function.as_str(), qualifier).await?;
    let given = request.object()?;
    let is_task = match given.get("asyncTask") {
        None => false,
        Some(Value::Bool(is_task)) => *is_task,
        Some(_) => return Err(FcError::invalid("asyncTask is true or false")),
    };
    let retries = number(&given, "maxAsyncRetryAttempts", 0, 8)?;
    let age = number(&given, "maxAsyncEventAgeInSeconds", 1, 604_800)?;
    let destinations = Destinations {
        on_success: destination(request, &given, "onSuccess")?,
        on_failure: destination(request, &given, "onFailure")?,
    };
    {
        let usual = AsyncConfig::default();
        let config = AsyncConfig {
            async_task: is_task,
            max_async_retry_attempts: retries
                .and_then(|retries| u32::try_from(retries).ok())
                .unwrap_or(usual.max_async_retry_attempts),
            max_async_event_age_in_seconds: age.unwrap_or(usual.max_async_event_age_in_seconds),
            destination_config: destinations,
            ..usual
        };
        fc.tasks.put_config(function.as_str(), qualifier, Some(config)).await?;
    }
    let before = settings::read(fc, ASYNC, &function, qualifier).await?;
    let now = time(wall_millis());
    let mut kept = given;
    let created = before.and_then(|before| before[TIMES[0]].as_str().map(str::to_owned));
    kept.insert(TIMES[0].to_owned(), created.unwrap_or_else(|| now.clone()).into());
    kept.insert(TIMES[1].to_owned(), now.into());
    let kept = Value::from(kept);
    settings::put(fc, ASYNC, &function, qualifier, &kept, request.author()).await?;
    Ok(json(shown(&function, qualifier, kept)))
}

pub(crate) async fn get(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = fc.control.require(request.function())?.name().clone();
    let qualifier = request.query.qualifier();
    let kept = settings::read(fc, ASYNC, &function, qualifier).await?;
    let kept = match kept {
        Some(kept) => kept,
        // Put by `kip task config`.
        None => match fc.tasks.config(function.as_str(), qualifier) {
            Some(config) => json!({
                "asyncTask": config.async_task,
                "maxAsyncRetryAttempts": config.max_async_retry_attempts,
                "maxAsyncEventAgeInSeconds": config.max_async_event_age_in_seconds,
            }),
            None => {
                let said = format!("async config of function '{function}' with qualifier '{qualifier}' does not exist");
                return Err(FcError::new(code::TASK_CONFIG_MISSING, "AsyncConfigNotExists", said));
            }
        },
    };
    Ok(json(shown(&function, qualifier, kept)))
}

pub(crate) async fn remove(fc: &Fc, request: &Request) -> FcResult<Response> {
    let function = fc.control.require(request.function())?.name().clone();
    let qualifier = request.query.qualifier();
    settings::remove(fc, ASYNC, &function, qualifier, request.author()).await?;
    if fc.tasks.config(function.as_str(), qualifier).is_some() {
        fc.tasks.put_config(function.as_str(), qualifier, None).await?;
    }
    Ok(empty())
}

pub(crate) async fn list(fc: &Fc, request: &Request) -> FcResult<Response> {
    let rows = kept_rows(fc, request, ASYNC).await?;
    let rows = rows.into_iter().map(|(function, qualifier, kept)| shown(&function, &qualifier, kept)).collect();
    let name = |row: &Value| row["functionArn"].as_str().unwrap_or_default().to_owned();
    let (rows, next) = page(rows, &request.query, name)?;
    Ok(json(listed("configs", rows, next)))
}
