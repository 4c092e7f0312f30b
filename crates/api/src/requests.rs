//! Which requests there were.

use axum::Json;
use axum::extract::State;
use kip_control::{RequestFilter, RequestRecord};
use kip_host::clock::wall_millis;
use kip_spec::tenant::TenantScope;
use kip_spec::{Code, Millis, QualifierName};
use serde::Deserialize;

use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, Query};
use crate::guard::Requester;
use crate::{Api, bad_request};

/// Records given unless said otherwise.
const FEW: u32 = 50;
/// Records given at most.
const MANY: u32 = 10_000;

/// The filters, as they are written. What is given must all be so.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filters {
    limit: Option<u32>,
    /// A duration back from now, such as `10m`, or milliseconds since 1970.
    since: Option<String>,
    /// `404`, `5xx`, `>=500`.
    status: Option<String>,
    code: Option<String>,
    start: Option<String>,
    kind: Option<String>,
    instance: Option<String>,
    /// `3`, a revision such as `r12`, or `v7` as older records have it.
    version: Option<String>,
    /// The qualifier that requests came with, such as `prod`.
    qualifier: Option<String>,
    slower_than: Option<Millis>,
    outcome: Option<String>,
    id: Option<String>,
    key: Option<String>,
    tenant: Option<String>,
}

impl Filters {
    fn parse(self, function: Option<String>) -> Result<RequestFilter, ApiError> {
        if self.limit == Some(0) {
            return Err(bad_request("`limit` is at least 1".to_owned()));
        }
        let since = self.since.map(|text| since(&text)).transpose()?;
        let status = self.status.map(|text| text.parse().map_err(|error: String| bad_request(error))).transpose()?;
        let code = self.code.map(|text| text.to_uppercase().parse::<Code>().map_err(bad_request)).transpose()?;
        let version = |text: String| match text.parse() {
            Ok(QualifierName::Revision(id)) => Ok((Some(id.0), None)),
            Ok(named @ (QualifierName::Number(_) | QualifierName::Ordinal(_))) => Ok((None, Some(named.to_string()))),
            _ => Err(bad_request(format!("`{text}` is not a version: write 3, r12 or v7"))),
        };
        let (version, label) = self.version.map(version).transpose()?.unwrap_or_default();
        Ok(RequestFilter {
            function,
            since,
            status,
            code: code.map(|code| code.to_string()),
            start: one_of("start", self.start, &["warm", "woken", "cold"])?,
            kind: one_of("kind", self.kind, &["provisioned", "on-demand"])?,
            instance: self.instance,
            version,
            label,
            qualifier: self.qualifier,
            slower_than: self.slower_than.map(|limit| limit.0.saturating_mul(1_000)),
            outcome: one_of("outcome", self.outcome, &["done", "refused", "broken", "left"])?,
            id: self.id,
            key: self.key,
            tenant: self.tenant,
            among: Vec::new(),
            limit: self.limit.unwrap_or(FEW).min(MANY),
        })
    }
}

pub(crate) fn since(text: &str) -> Result<i64, ApiError> {
    if let Ok(at) = text.parse::<i64>() {
        return Ok(at);
    }
    let back: Millis = text.parse().map_err(|error| {
        bad_request(format!("`since` is a duration such as 10m, or milliseconds since 1970: {error}"))
    })?;
    Ok(wall_millis().saturating_sub(i64::try_from(back.0).unwrap_or(i64::MAX)))
}

fn one_of(name: &str, given: Option<String>, known: &[&str]) -> Result<Option<String>, ApiError> {
    match given {
        Some(word) if !known.contains(&word.as_str()) => {
            Err(bad_request(format!("`{name}` is one of {}, not `{word}`", known.join(", "))))
        }
        other => Ok(other),
    }
}

pub(crate) async fn of_function(
    State(api): State<Api>,
    who: Requester,
    Path(name): Path<String>,
    Query(filters): Query<Filters>,
) -> ApiResult<Json<Vec<RequestRecord>>> {
    let mut filter = filters.parse(Some(name.clone()))?;
    // A version that was published since its requests were recorded is found by its revision.
    if let Some(named) = filter.label.as_deref().and_then(|label| label.parse().ok())
        && let Ok(version) = api.control.revision_named(&name, &named).await
    {
        (filter.version, filter.label) = (Some(version.id.0), None);
    }
    find(&api, &who, filter).await
}

pub(crate) async fn all(
    State(api): State<Api>,
    who: Requester,
    Query(filters): Query<Filters>,
) -> ApiResult<Json<Vec<RequestRecord>>> {
    find(&api, &who, filters.parse(None)?).await
}

async fn find(api: &Api, who: &Requester, filter: RequestFilter) -> ApiResult<Json<Vec<RequestRecord>>> {
    let among = who.only();
    let tenant = match who.tenant_scope(filter.tenant.as_deref()) {
        TenantScope::All => None,
        TenantScope::One(own) => Some(own.to_string()),
        TenantScope::None => return Ok(Json(Vec::new())),
    };
    if among.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Json(Vec::new()));
    }
    api.control.recorder().flush().await;
    let filter = RequestFilter { among: among.unwrap_or_default(), tenant, ..filter };
    Ok(Json(api.control.records().requests(filter).await.map_err(kip_control::Error::from)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused() {
        let wrong = |change: fn(&mut Filters)| {
            let mut filters = Filters::default();
            change(&mut filters);
            filters.parse(None).is_err()
        };
        assert!(wrong(|f| f.start = Some("hot".to_owned())));
        assert!(wrong(|f| f.kind = Some("x".to_owned())));
        assert!(wrong(|f| f.outcome = Some("x".to_owned())));
        assert!(wrong(|f| f.code = Some("1203".to_owned())));
        assert!(wrong(|f| f.version = Some("latest".to_owned())));
        assert!(wrong(|f| f.status = Some("x".to_owned())));
        assert!(wrong(|f| f.since = Some("yesterday".to_owned())));
        assert!(wrong(|f| f.limit = Some(0)));
        let filters = Filters { version: Some("v3".to_owned()), slower_than: Some(Millis(2)), ..Filters::default() };
        let filter = filters.parse(Some("f".to_owned())).unwrap();
        assert_eq!((filter.version, filter.slower_than, filter.limit), (Some(3), Some(2_000), FEW));
        let filters = Filters { version: Some("r3".to_owned()), ..Filters::default() };
        assert_eq!(filters.parse(None).unwrap().label.as_deref(), Some("r3"));
    }
}
