//! `GET /metrics`: everything that is counted, in the two text forms that scrapers ask for.

mod device;
mod family;
mod model;

use std::collections::HashSet;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use kip_control::Figures;
use kip_records::metrics::{CounterSnapshot, FunctionCounters};
use kip_wire::{Budget, BudgetKind, DeviceStatus};
use prometheus_client::registry::Registry;

use crate::Api;
use crate::guard::{Requester, UNKNOWN_KEY};
use family::Scrape;
use kip_spec::tenant::TenantScope;
use model::ModelFigures;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(crate) async fn metrics(State(api): State<Api>, who: Requester, headers: HeaderMap) -> Response {
    answer(&api, who.only().as_deref(), &who.tenant_scope(None), &headers).await
}

/// Without a key, where the settings say so.
pub(crate) async fn open(State(api): State<Api>, headers: HeaderMap) -> Response {
    answer(&api, None, &TenantScope::All, &headers).await
}

async fn answer(api: &Api, only: Option<&[String]>, tenants: &TenantScope, headers: &HeaderMap) -> Response {
    let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let devices = devices_of(api, only).await;
    let models = models_of(api, only).await;
    let text = encode(api, only, tenants, devices, models);
    let (text, kind) = match accepts.contains("application/openmetrics-text") {
        true => (text, OPEN_METRICS),
        false => (plain(&text), PLAIN),
    };
    ([(CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
}

/// The devices, with the instances of functions that have series of their own.
async fn devices_of(api: &Api, only: Option<&[String]>) -> Vec<DeviceStatus> {
    let mut devices = api.control.device_statuses().await;
    let shown = |name: &str| only.is_none_or(|only| only.iter().any(|known| known == name));
    let own = |name: &str| api.control.cell(name).is_some_and(|cell| api.metrics.is_own(cell.number()));
    for device in &mut devices {
        device.instances.retain(|user| shown(user.function.as_str()) && own(user.function.as_str()));
    }
    devices
}

/// The model cache; nothing for a key for some functions.
async fn models_of(api: &Api, only: Option<&[String]>) -> ModelFigures {
    let (Ok(services), None) = (api.models(), only) else { return ModelFigures::default() };
    let models = &services.models;
    ModelFigures {
        loads: models.list().into_iter().map(|info| (info.id, info.loads)).collect(),
        evictions: models.evictions(),
        taken: models.taken().await.unwrap_or(0),
        quota: models.limits().quota.unwrap_or(0),
    }
}

fn encode(
    api: &Api,
    only: Option<&[String]>,
    tenants: &TenantScope,
    devices: Vec<DeviceStatus>,
    models: ModelFigures,
) -> String {
    let mut figures = api.control.figures();
    figures.sort_unstable_by_key(|figures| figures.number);
    let live: HashSet<u32> = figures.iter().map(|figures| figures.number).collect();
    let keys: HashSet<String> = api.keys.list().into_iter().map(|key| key.name).collect();
    let counted = api.metrics.counted(|number| live.contains(&number), |key| key == UNKNOWN_KEY || keys.contains(key));
    let (functions, other) = fold(api, figures, only);
    let scrape = Scrape {
        version: api.about.version.clone(),
        functions,
        other,
        counted: select(counted, only, tenants),
        records_dropped: api.control.recorder().dropped(),
        lines_dropped: api.control.recorder().lines_dropped(),
        traces_dropped: api.control.recorder().traces().map_or(0, kip_control::Traces::dropped),
        usage: kip_host::usage::look(),
        gateway_cpu: kip_host::usage::cpu_of_threads("gateway-"),
        tasks: tasks_of(api, only, tenants),
        devices,
        budgets: budgets_of(api, only, tenants),
        models,
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    // Writing into memory does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

/// Budgets as they were last checked. A key belongs to a tenant.
fn budgets_of(api: &Api, only: Option<&[String]>, tenants: &TenantScope) -> Vec<Budget> {
    let mut budgets = api.control.checked_budgets();
    budgets.retain(|budget| match budget.kind {
        BudgetKind::Function => only.is_none_or(|only| only.contains(&budget.name)),
        BudgetKind::Key => only.is_none() && *tenants == TenantScope::All,
    });
    budgets
}

/// Tasks of the functions that have series of their own.
fn tasks_of(api: &Api, only: Option<&[String]>, tenants: &TenantScope) -> kip_tasks::Summary {
    let mut summary = api.tasks.summary(tenants);
    summary.functions.retain(|of| {
        let shown = only.is_none_or(|only| only.contains(&of.function));
        shown && api.control.cell(&of.function).is_some_and(|cell| api.metrics.is_own(cell.number()))
    });
    summary
}

/// Functions with series of their own, and all others together. Who belongs to which is decided where requests are counted.
fn fold(api: &Api, all: Vec<Figures>, only: Option<&[String]>) -> (Vec<Figures>, Option<Figures>) {
    let (own, others): (Vec<Figures>, Vec<Figures>) =
        all.into_iter().partition(|figures| api.metrics.is_own(figures.number));
    let shown = |name: &str| only.is_none_or(|only| only.iter().any(|known| known == name));
    let own = own.into_iter().filter(|figures| shown(figures.name.as_str())).collect();
    let other = others.into_iter().filter(|_| only.is_none()).reduce(Figures::together);
    (own, other)
}

/// What a key for some functions may see.
fn select(mut counted: CounterSnapshot, only: Option<&[String]>, tenants: &TenantScope) -> CounterSnapshot {
    // Refusals are counted by key, and a key belongs to a tenant.
    if *tenants != TenantScope::All {
        counted.keys.clear();
    }
    if let Some(only) = only {
        counted.functions.retain(|name, _| only.iter().any(|known| known == name.as_str()));
        counted.other = FunctionCounters::default();
        counted.keys.clear();
    }
    counted
}

/// OpenMetrics as the older text form: there, the type of a counter is that of its sample's name, and there are neither
/// units nor an end.
fn plain(open: &str) -> String {
    let counters: HashSet<&str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].iter().find_map(|kind| Some((*kind, line.strip_prefix(kind)?)));
        match described.and_then(|(kind, rest)| Some((kind, rest.split_once(' ')?))) {
            Some((kind, (name, rest))) if counters.contains(name) => {
                text.push_str(&format!("{kind}{name}_total {rest}"))
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_names_counters_by_their_samples() {
        let open = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\n\
                    # HELP b Now.\n# TYPE b gauge\nb{x=\"# EOF\"} 2\n# EOF\n";
        let expected = "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\na_seconds_total 1\n\
                        # HELP b Now.\n# TYPE b gauge\nb{x=\"# EOF\"} 2\n";
        assert_eq!(plain(open), expected);
    }
}
