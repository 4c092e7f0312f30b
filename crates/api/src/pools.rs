//! Pools.

use axum::Json;
use axum::extract::State;
use kip_wire::PoolStatus;

use crate::Api;

pub(crate) async fn list(State(api): State<Api>) -> Json<Vec<PoolStatus>> {
    Json(api.control.pools())
}
