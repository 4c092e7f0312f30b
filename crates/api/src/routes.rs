//! Every path of the API but the two open ones, with the role it needs. An entry cannot be made without a role, nor one that
//! changes something without the name under which it is audited.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use kip_auth::Role;

use crate::guard::{Gate, guard};
use crate::{Api, audit, backup, functions, jobs, keys, logs, metrics, provision, requests, server, tasks};

/// A method at a path.
pub(crate) struct Entry {
    #[cfg_attr(not(test), expect(dead_code, reason = "read where the table is compared with the page about it"))]
    method: Method,
    path: &'static str,
    role: Role,
    /// What it is called in the audit record, if it changes something.
    action: Option<&'static str>,
    handler: MethodRouter<Api>,
}

/// A path that only shows something.
fn shows<H: Handler<T, Api>, T: 'static>(path: &'static str, role: Role, handler: H) -> Entry {
    Entry { method: Method::GET, path, role, action: None, handler: on(MethodFilter::GET, handler) }
}

/// A method that changes something.
fn changes<H: Handler<T, Api>, T: 'static>(
    (method, filter): (Method, MethodFilter),
    path: &'static str,
    role: Role,
    action: &'static str,
    handler: H,
) -> Entry {
    Entry { method, path, role, action: Some(action), handler: on(filter, handler) }
}

/// A path that gives a function work, as the gateway does: it is recorded as a task, not as a change.
fn works<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Entry {
    let handler = on(MethodFilter::POST, handler);
    Entry { method: Method::POST, path, role: Role::Invoke, action: None, handler }
}

/// The table.
fn table() -> Vec<Entry> {
    use Role::{Admin, Deploy, Invoke, Operate};
    let post = || (Method::POST, MethodFilter::POST);
    let patch = || (Method::PATCH, MethodFilter::PATCH);
    let put = || (Method::PUT, MethodFilter::PUT);
    let delete = || (Method::DELETE, MethodFilter::DELETE);
    vec![
        shows("/api/v1/gateway", Invoke, server::gateway),
        shows("/api/v1/status", Operate, server::status),
        shows(METRICS, Operate, metrics::metrics),
        shows("/api/v1/functions", Operate, functions::list),
        shows("/api/v1/functions/{name}", Operate, functions::show),
        shows("/api/v1/functions/{name}/versions", Operate, functions::versions),
        shows("/api/v1/functions/{name}/decisions", Operate, functions::decisions),
        shows("/api/v1/functions/{name}/usage", Operate, functions::usage),
        shows("/api/v1/functions/{name}/requests", Operate, requests::of_function),
        shows("/api/v1/functions/{name}/logs", Operate, logs::logs),
        shows("/api/v1/functions/{name}/scaling", Operate, provision::history),
        shows("/api/v1/functions/{name}/advice", Operate, provision::advice),
        shows("/api/v1/functions/{name}/provision", Operate, provision::show),
        changes(put(), "/api/v1/functions/{name}/provision", Operate, "provision.put", provision::put),
        changes(delete(), "/api/v1/functions/{name}/provision", Operate, "provision.remove", provision::remove),
        shows("/api/v1/provisions", Operate, provision::list),
        shows("/api/v1/requests", Operate, requests::all),
        shows("/api/v1/instances", Operate, server::instances),
        shows("/api/v1/instances/{id}", Operate, server::instance),
        changes(post(), "/api/v1/functions/{name}/rotate", Operate, "function.rotate", functions::rotate),
        changes(post(), "/api/v1/deployments", Deploy, "function.deploy", functions::deploy),
        changes(delete(), "/api/v1/functions/{name}", Deploy, "function.remove", functions::remove),
        works(TASKS_OF_FUNCTION, tasks::submit),
        shows(TASKS_OF_FUNCTION, Operate, tasks::of_function),
        shows("/api/v1/functions/{name}/tasks/{id}", Invoke, tasks::show),
        shows("/api/v1/functions/{name}/tasks/{id}/payload", Operate, tasks::payload),
        shows("/api/v1/functions/{name}/tasks/{id}/result", Invoke, tasks::result),
        shows("/api/v1/functions/{name}/tasks/{id}/events", Invoke, tasks::events),
        changes(put(), "/api/v1/functions/{name}/tasks/{id}/stop", Operate, "task.stop", tasks::stop),
        changes(post(), "/api/v1/functions/{name}/tasks/{id}/retry", Operate, "task.retry", tasks::retry),
        changes(delete(), "/api/v1/functions/{name}/tasks/{id}", Operate, "task.purge", tasks::purge),
        shows("/api/v1/jobs", Operate, jobs::list),
        shows("/api/v1/functions/{name}/job", Operate, jobs::show),
        changes(put(), "/api/v1/functions/{name}/job/pause", Operate, "job.pause", jobs::pause),
        changes(put(), "/api/v1/functions/{name}/job/resume", Operate, "job.resume", jobs::resume),
        shows("/api/v1/tasks", Operate, tasks::all),
        shows("/api/v1/tasks/summary", Operate, tasks::summary),
        changes(post(), "/api/v1/tasks/stop", Operate, "tasks.stop", tasks::stop_all),
        changes(post(), "/api/v1/tasks/retry", Operate, "tasks.retry", tasks::retry_all),
        changes(post(), "/api/v1/tasks/purge", Operate, "tasks.purge", tasks::purge_all),
        shows(ASYNC_CONFIG, Operate, tasks::config),
        changes(put(), ASYNC_CONFIG, Deploy, "function.async", tasks::put_config),
        changes(delete(), ASYNC_CONFIG, Deploy, "function.async.remove", tasks::remove_config),
        shows("/api/v1/keys", Admin, keys::list),
        shows("/api/v1/keys/{name}", Admin, keys::show),
        changes(post(), "/api/v1/keys", Admin, "key.create", keys::create),
        changes(patch(), "/api/v1/keys/{name}", Admin, "key.change", keys::change),
        changes(post(), "/api/v1/keys/{name}/rotate", Admin, "key.rotate", keys::rotate),
        changes(delete(), "/api/v1/keys/{name}", Admin, "key.remove", keys::remove),
        shows("/api/v1/audit", Admin, audit::audit),
        changes(post(), "/api/v1/backup", Admin, "server.backup", backup::backup),
        changes(post(), "/api/v1/restore", Admin, "server.restore", backup::restore),
        changes(post(), "/api/v1/stop", Admin, "server.stop", server::stop),
    ]
}

/// All of it as a router. Whoever comes here has a key already.
pub(crate) fn router(api: &Api) -> Router<Api> {
    let keyed = table().into_iter().filter(|entry| entry.path != METRICS || !api.metrics_open);
    keyed.fold(Router::new(), |router, entry| {
        let Entry { path, role, action, handler, .. } = entry;
        let gate = Gate { api: api.clone(), role, action, of_function: path.starts_with(OF_FUNCTION) };
        router.route(path, handler.route_layer(from_fn_with_state(gate, guard)))
    })
}

/// Where metrics are; without a key if the settings say so.
pub(crate) const METRICS: &str = "/metrics";
/// Where tasks of a function are submitted and listed.
const TASKS_OF_FUNCTION: &str = "/api/v1/functions/{name}/tasks";
/// What a function wants for its tasks.
const ASYNC_CONFIG: &str = "/api/v1/functions/{name}/async-invoke-config";
/// Paths about one function.
const OF_FUNCTION: &str = "/api/v1/functions/{name}";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `| GET /api/v1/status | operate | |` for each line of the table in docs/keys.md.
    #[test]
    fn the_page_about_keys_lists_each_path_with_its_role() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/keys.md");
        let text = std::fs::read_to_string(page).unwrap();
        let listed: BTreeSet<&str> =
            text.lines().filter(|line| line.contains(" `/") && line.starts_with("| ")).collect();
        let lines: Vec<String> = table()
            .iter()
            .map(|entry| {
                let Entry { method, path, role, action, .. } = entry;
                let action = action.map(|action| format!("`{action}`")).unwrap_or_default();
                format!("| {method} `{path}` | {role} | {action} |")
            })
            .collect();
        let expected: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(listed, expected, "write into docs/keys.md:\n{}", lines.join("\n"));
    }

    #[test]
    fn whatever_changes_something_needs_more_than_invoke_and_has_a_name_of_its_own() {
        let table = table();
        assert!(table.iter().all(|entry| entry.role > Role::Invoke || entry.action.is_none()));
        let changing: Vec<&str> = table.iter().filter_map(|entry| entry.action).collect();
        assert_eq!(changing.iter().collect::<BTreeSet<_>>().len(), changing.len());
        for entry in &table {
            let works = entry.path == TASKS_OF_FUNCTION;
            assert_eq!(entry.action.is_none(), entry.method == Method::GET || works, "{}", entry.path);
            assert!(!entry.path.starts_with("/api/v1/keys") || entry.role == Role::Admin, "{}", entry.path);
        }
    }
}
