//! Who changed what.

use axum::Json;
use axum::extract::State;
use kip_auth::{AuditFilter, AuditRecord};
use serde::Deserialize;

use crate::error::ApiResult;
use crate::extract::Query;
use crate::requests::since;
use crate::{Api, key_problem};

/// Records given unless said otherwise.
const FEW: u32 = 50;
/// Records given at most.
const MANY: u32 = 10_000;

/// The filters, as they are written. What is given must all be so.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filters {
    limit: Option<u32>,
    key: Option<String>,
    action: Option<String>,
    object: Option<String>,
    result: Option<String>,
    since: Option<String>,
    /// The number of a record: those before it.
    before: Option<i64>,
}

pub(crate) async fn audit(State(api): State<Api>, Query(filters): Query<Filters>) -> ApiResult<Json<Vec<AuditRecord>>> {
    let Filters { limit, key, action, object, result, since: from, before } = filters;
    let since = from.map(|text| since(&text)).transpose()?;
    let filter = AuditFilter { key, action, object, result, since, before, limit: limit.unwrap_or(FEW).min(MANY) };
    Ok(Json(api.keys.audit(filter).await.map_err(key_problem)?))
}
