//! What functions cost.

use axum::Json;
use axum::extract::State;
use kip_wire::CostReport;
use serde::Deserialize;

use crate::Api;
use crate::error::ApiResult;
use crate::extract::Query;
use crate::guard::Requester;

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
