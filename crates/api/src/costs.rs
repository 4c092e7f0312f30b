//! What functions cost.

use axum::Json;
use axum::extract::Path;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use kip_spec::tenant::TenantScope;
use kip_spec::{Problem, code};
use kip_wire::{Budget, BudgetKind, BudgetSettings, CostBy, CostReport, CostTable};
use serde::Deserialize;

use crate::error::ApiResult;
use crate::extract::Query;
use crate::guard::Requester;
use crate::{Api, bad_request};

/// Which functions.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CostQuery {
    /// This one; all that the key may see, if it is left out.
    function: Option<String>,
}

pub(crate) async fn costs(
    State(api): State<Api>,
    who: Requester,
    Query(query): Query<CostQuery>,
) -> ApiResult<Json<CostReport>> {
    let functions = match query.function {
        Some(name) => {
            who.require_function(&name)?;
            vec![name]
        }
        None => {
            let all = api.control.functions().into_iter().map(|info| info.name.to_string());
            all.filter(|name| who.sees(name)).collect()
        }
    };
    Ok(Json(api.control.costs(&api.prices, &functions).await?))
}

/// Which days, and by what.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CostTableQuery {
    /// Dimensions with commas between them: function, version, key, state, day. `key` and `state` exclude each other.
    by: Option<String>,
    /// The last days, today included (7).
    days: Option<u32>,
    /// This function; all that the key may see, if it is left out.
    function: Option<String>,
}

/// No table is longer.
const MOST_DAYS: u32 = 400;

fn dimensions(text: &str) -> ApiResult<Vec<CostBy>> {
    let known = |name: &str| CostBy::ALL.into_iter().find(|by| by.name() == name);
    let names = || CostBy::ALL.map(CostBy::name).join(", ");
    let by = text
        .split(',')
        .map(|name| known(name.trim()).ok_or_else(|| bad_request(format!("`{name}` is not one of {}", names()))));
    let by = by.collect::<ApiResult<Vec<CostBy>>>()?;
    if by.contains(&CostBy::Key) && by.contains(&CostBy::State) {
        return Err(bad_request("time by state is not known by key: take one of `key` and `state`".to_owned()));
    }
    Ok(by)
}

pub(crate) async fn table(
    State(api): State<Api>,
    who: Requester,
    Query(query): Query<CostTableQuery>,
) -> ApiResult<Json<CostTable>> {
    let by = dimensions(query.by.as_deref().unwrap_or("function"))?;
    let days = query.days.unwrap_or(7);
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(bad_request(format!("`days` is a number from 1 to {MOST_DAYS}")));
    }
    // A function that was removed has cost something all the same: whoever sees all of them sees that too.
    if let Some(name) = &query.function
        && !who.sees_all()
    {
        who.require_function(name)?;
    }
    let fits = |name: &str| query.function.as_deref().is_none_or(|only| only == name) && who.sees(name);
    let mut table = api.control.cost_table(&api.prices, (&by, days), fits).await?;
    // A key belongs to a tenant.
    if let Some(at) = by.iter().position(|by| *by == CostBy::Key)
        && !sees_keys(&who)
    {
        table.rows.retain(|row| row.names.get(at).is_some_and(|key| key == who.name()));
    }
    Ok(Json(table))
}

pub(crate) async fn budgets(State(api): State<Api>, who: Requester) -> ApiResult<Json<Vec<Budget>>> {
    let mut budgets = api.control.budgets().await?;
    budgets.retain(|budget| match budget.kind {
        BudgetKind::Function => who.sees(&budget.name),
        BudgetKind::Key => sees_keys(&who) || budget.name == who.name(),
    });
    Ok(Json(budgets))
}

/// Whether what all keys have done may be shown.
fn sees_keys(who: &Requester) -> bool {
    who.sees_all() && who.tenant_scope(None) == TenantScope::All
}

fn kind(text: &str) -> ApiResult<BudgetKind> {
    let known = [BudgetKind::Function, BudgetKind::Key].into_iter().find(|kind| kind.name() == text);
    known.ok_or_else(|| bad_request(format!("`{text}` is not `function` or `key`")))
}

pub(crate) async fn set_budget(
    State(api): State<Api>,
    who: Requester,
    Path((of, name)): Path<(String, String)>,
    body: Result<Json<BudgetSettings>, JsonRejection>,
) -> ApiResult<StatusCode> {
    let Json(settings) = body.map_err(|rejection| bad_request(rejection.body_text()))?;
    who.changes(name.clone());
    let kind = kind(&of)?;
    if kind == BudgetKind::Key && !api.keys.list().iter().any(|key| key.name == name) {
        let problem = Problem::new(code::KEY_NOT_FOUND, format!("there is no key `{name}`"));
        return Err(problem.hint("kip key ls").into());
    }
    api.control.set_budget(kind, &name, settings, who.author()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn remove_budget(
    State(api): State<Api>,
    who: Requester,
    Path((of, name)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    who.changes(name.clone());
    api.control.remove_budget(kind(&of)?, &name, who.author()).await?;
    Ok(StatusCode::NO_CONTENT)
}
