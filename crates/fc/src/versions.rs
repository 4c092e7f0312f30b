//! Published versions.

use axum::response::Response;
use kip_wire::RevisionInfo;
use serde_json::{Value, json};

use crate::Fc;
use crate::error::{FcError, FcResult};
use crate::query::listed;
use crate::request::{Request, empty, json, text, time};

fn shown(info: &RevisionInfo) -> Option<Value> {
    let number = info.number?;
    Some(json!({
        "versionId": number.to_string(),
        "description": info.description,
        "createdTime": time(info.created),
        "lastModifiedTime": time(info.created),
    }))
}

pub(crate) async fn publish(fc: &Fc, request: &Request) -> FcResult<Response> {
    let given = request.object()?;
    let description = text(&given, "description")?.unwrap_or_default().to_owned();
    let (info, _) = fc.control.publish(request.function(), None, description, request.author()).await?;
    Ok(json(shown(&info).unwrap_or_default()))
}

pub(crate) async fn list(fc: &Fc, request: &Request) -> FcResult<Response> {
    let query = &request.query;
    let backward = match query.get("direction") {
        None | Some("BACKWARD") => true,
        Some("FORWARD") => false,
        Some(other) => return Err(FcError::invalid(format!("direction is BACKWARD or FORWARD, not `{other}`"))),
    };
    let (limit, after) = (query.limit()?, query.number("nextToken")?);
    let mut revisions = fc.control.revisions(request.function()).await?;
    revisions.retain(|revision| revision.number.is_some());
    revisions.sort_by_key(|revision| revision.number);
    if backward {
        revisions.reverse();
    }
    let follows = |revision: &&RevisionInfo| {
        let number = revision.number.and_then(|number| i64::try_from(number).ok()).unwrap_or_default();
        after.is_none_or(|after| if backward { number < after } else { number > after })
    };
    let mut rest = revisions.iter().filter(follows).filter_map(shown);
    let page: Vec<Value> = rest.by_ref().take(limit).collect();
    let next = rest.next().and_then(|_| page.last()?["versionId"].as_str().map(str::to_owned));
    let mut answer = listed("versions", page, next);
    answer["direction"] = (if backward { "BACKWARD" } else { "FORWARD" }).into();
    Ok(json(answer))
}

pub(crate) async fn remove(fc: &Fc, request: &Request) -> FcResult<Response> {
    let number = request
        .parameter(1)
        .parse()
        .map_err(|_| FcError::invalid(format!("`{}` is no id of a version: they are numbers", request.parameter(1))))?;
    fc.control.remove_version(request.function(), number, request.author()).await?;
    Ok(empty())
}
