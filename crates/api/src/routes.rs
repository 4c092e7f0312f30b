//! Every path of the API but the two open ones, with the role it needs. An entry cannot be made without a role, nor one that
//! changes something without the name under which it is audited.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use kip_auth::AuditRecord;
use kip_control::{BackupManifest, DecisionRecord, RequestRecord, ScalingRecord};
use kip_tasks::config::AsyncConfig;
use kip_tasks::{Bulk, Summary};
use kip_wire::{
    AliasInfo, AliasSettings, CostReport, DeploymentPlan, FunctionInfo, FunctionUsage, InstanceInfo, JobInfo, KeyInfo,
    Publication, Published, Recommendation, RestoreReport, RevisionEvidence, RevisionInfo, Role, Rollback,
    RollbackResult, RolloutInfo, RolloutOrder, RolloutSettings, SecretInfo, SecretValue, TaskEvent, TaskInfo,
    VersionDiff, VersionInfo,
};

use crate::guard::{RouteAccess, guard};
use crate::openapi::{Doc, says};
use crate::{
    Api, audit, backup, costs, devices, exec, functions, images, jobs, keys, logs, metrics, models, openapi, pools,
    provision, requests, roles, secrets, server, shares, tasks, versions,
};

/// An object whose fields are described elsewhere.
type Fields = serde_json::Map<String, serde_json::Value>;

/// A method at a path.
pub(crate) struct Entry {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// None for what is open to everybody.
    pub(crate) role: Option<Role>,
    /// What it is called in the audit record, if it changes something.
    pub(crate) action: Option<&'static str>,
    /// Fields of its query that need a higher role.
    pub(crate) flags: &'static [(&'static str, Role)],
    /// It gives a function work, which the limits of a key count.
    works: bool,
    /// It opens a session, which keeps its own record and goes on after the answer.
    session: bool,
    pub(crate) doc: Doc,
    handler: MethodRouter<Api>,
}

impl Entry {
    fn new(method: Method, path: &'static str, role: Option<Role>, handler: MethodRouter<Api>, doc: Doc) -> Self {
        Self { method, path, role, action: None, flags: &[], works: false, session: false, doc, handler }
    }

    /// Fields of its query that need a higher role.
    fn flags(self, flags: &'static [(&'static str, Role)]) -> Self {
        Self { flags, ..self }
    }

    /// It opens a session, which keeps its own record and goes on after the answer.
    fn session(self) -> Self {
        Self { session: true, action: Some(exec::ACTION), ..self }
    }

    /// It gives a function work, which the limits of a key count.
    fn works(self) -> Self {
        Self { works: true, ..self }
    }
}

/// A path that only shows something.
fn shows<H: Handler<T, Api>, T: 'static>(path: &'static str, role: Role, handler: H, doc: Doc) -> Entry {
    Entry::new(Method::GET, path, Some(role), on(MethodFilter::GET, handler), doc)
}

/// A method that changes something.
fn changes<H: Handler<T, Api>, T: 'static>(
    (method, filter): (Method, MethodFilter),
    path: &'static str,
    role: Role,
    action: &'static str,
    handler: H,
    doc: Doc,
) -> Entry {
    Entry { action: Some(action), ..Entry::new(method, path, Some(role), on(filter, handler), doc) }
}

/// A path that gives a function work, as the gateway does: it is recorded as a task, not as a change.
fn works<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H, doc: Doc) -> Entry {
    Entry::new(Method::POST, path, Some(Role::Invoke), on(MethodFilter::POST, handler), doc).works()
}

/// A question whose words are too many for a query.
fn asks<H: Handler<T, Api>, T: 'static>(path: &'static str, role: Role, handler: H, doc: Doc) -> Entry {
    Entry::new(Method::POST, path, Some(role), on(MethodFilter::POST, handler), doc)
}

/// Paths that ask for no key.
pub(crate) fn open_paths() -> Vec<Entry> {
    let open = |method: Method, path, doc| {
        let filter = if method == Method::POST { MethodFilter::POST } else { MethodFilter::GET };
        let handler = match path {
            READY => on(filter, backup::ready),
            PROGRESS => on(filter, tasks::progress),
            _ => on(filter, || async { "ok\n" }),
        };
        Entry::new(method, path, None, handler, doc)
    };
    let unready = "it takes no changes, or ends";
    vec![
        open(Method::GET, "/healthz", says("Whether the server answers").gives_media("text/plain")),
        open(
            Method::GET,
            READY,
            says("Whether the server takes requests and changes").gives::<kip_wire::Health>().empty(503, unready),
        ),
        open(
            Method::POST,
            PROGRESS,
            says("Reports the progress of a task; the address is the key").takes_bytes().empty(204, "noted"),
        ),
    ]
}

/// All of them as a router.
pub(crate) fn open_router() -> Router<Api> {
    open_paths().into_iter().fold(Router::new(), |router, entry| router.route(entry.path, entry.handler))
}

/// The table.
pub(crate) fn table() -> Vec<Entry> {
    use Role::{Admin, Deploy, Invoke, Operate};
    let post = || (Method::POST, MethodFilter::POST);
    let patch = || (Method::PATCH, MethodFilter::PATCH);
    let put = || (Method::PUT, MethodFilter::PUT);
    let delete = || (Method::DELETE, MethodFilter::DELETE);
    vec![
        shows(
            "/api/v1/gateway",
            Invoke,
            server::gateway,
            says("Where functions are called").gives::<kip_wire::Gateway>(),
        ),
        shows("/api/v1/status", Operate, server::status, says("The server and its host").gives::<kip_wire::Status>()),
        shows(
            METRICS,
            Operate,
            metrics::metrics,
            says("Metrics, in the text form of Prometheus and OpenMetrics").gives_media("text/plain"),
        ),
        shows("/api/v1/openapi.json", Operate, openapi::serve, says("This document").gives::<Fields>()),
        shows(
            "/api/v1/functions",
            Operate,
            functions::list,
            says("All functions, by name").gives::<Vec<FunctionInfo>>(),
        ),
        shows(
            "/api/v1/functions/{name}",
            Operate,
            functions::show,
            says("A function").gives::<FunctionInfo>().tagged(),
        ),
        shows(
            VERSIONS,
            Operate,
            versions::list,
            says("The revisions of a function with their documents, oldest first").gives::<Vec<RevisionInfo>>(),
        ),
        changes(
            post(),
            VERSIONS,
            Deploy,
            "version.publish",
            versions::publish,
            says("Publishes a revision: gives it the next number of its function")
                .takes::<Publication>()
                .gives::<Published>(),
        ),
        shows(
            VERSION,
            Operate,
            versions::show,
            says("A version, by its number, r and an ordinal, or LATEST").gives::<VersionInfo>(),
        ),
        changes(
            delete(),
            VERSION,
            Deploy,
            "version.remove",
            versions::remove,
            says("Removes the number of a version that nothing uses").gives::<Fields>(),
        ),
        shows(
            "/api/v1/functions/{name}/versions/{version}/diff",
            Operate,
            versions::diff,
            says("The fields in which two versions differ").query::<versions::DiffQuery>().gives::<VersionDiff>(),
        ),
        shows(
            "/api/v1/functions/{name}/aliases",
            Operate,
            versions::aliases,
            says("The aliases of a function, by name").gives::<Vec<AliasInfo>>(),
        ),
        shows(ALIAS, Operate, versions::alias, says("An alias").gives::<AliasInfo>().tagged()),
        changes(
            put(),
            ALIAS,
            Deploy,
            "alias.put",
            versions::set_alias,
            says("Makes an alias, or points it elsewhere").takes::<AliasSettings>().gives::<AliasInfo>().tagged(),
        ),
        changes(
            delete(),
            ALIAS,
            Deploy,
            "alias.remove",
            versions::remove_alias,
            says("Removes an alias that nothing uses").gives::<Fields>(),
        ),
        shows(ROLLOUT, Operate, versions::rollout, says("The last rollout of an alias").gives::<RolloutInfo>()),
        changes(
            put(),
            ROLLOUT,
            Deploy,
            "rollout.start",
            versions::start_rollout,
            says("Moves an alias to another version in steps, and back if that one is worse")
                .takes::<RolloutSettings>()
                .gives::<RolloutInfo>(),
        ),
        changes(
            post(),
            ROLLOUT,
            Deploy,
            "rollout.direct",
            versions::direct_rollout,
            says("Pauses, resumes, promotes or aborts a rollout").takes::<RolloutOrder>().gives::<RolloutInfo>(),
        ),
        shows(
            "/api/v1/functions/{name}/decisions",
            Operate,
            functions::decisions,
            says("The latest decisions about a function, newest first")
                .query::<functions::LimitQuery>()
                .gives::<Vec<DecisionRecord>>(),
        ),
        shows(
            "/api/v1/functions/{name}/usage",
            Operate,
            functions::usage,
            says("The time that instances of a function spent, by version and state").gives::<FunctionUsage>(),
        ),
        shows(
            "/api/v1/cost",
            Operate,
            costs::costs,
            says("The cost of functions by the price book").query::<costs::CostQuery>().gives::<CostReport>(),
        ),
        shows(
            "/api/v1/cost/days",
            Operate,
            costs::table,
            says("The cost of the last days by function, version, key, state or day")
                .query::<costs::CostTableQuery>()
                .gives::<kip_wire::CostTable>(),
        ),
        shows(
            "/api/v1/budgets",
            Operate,
            costs::budgets,
            says("Budgets and what is spent of them").gives::<Vec<kip_wire::Budget>>(),
        ),
        changes(
            put(),
            BUDGET,
            Admin,
            "budget.set",
            costs::set_budget,
            says("Sets the budget of a function or a key").takes::<kip_wire::BudgetSettings>().empty(204, "it is set"),
        ),
        changes(
            delete(),
            BUDGET,
            Admin,
            "budget.remove",
            costs::remove_budget,
            says("Removes the budget of a function or a key").empty(204, "it is removed"),
        ),
        shows(
            "/api/v1/role-map",
            Operate,
            roles::list,
            says("Roles of Function Compute that are mapped to secrets").gives::<Vec<kip_wire::RoleInfo>>(),
        ),
        changes(
            put(),
            ROLE,
            Admin,
            "role.map",
            roles::set,
            says("Maps a role to the secrets of its credentials, for deployments from now on")
                .takes::<kip_wire::RoleSettings>()
                .gives::<kip_wire::RoleInfo>(),
        ),
        changes(
            delete(),
            ROLE,
            Admin,
            "role.forget",
            roles::remove,
            says("Forgets the mapping of a role").empty(204, "it is forgotten"),
        ),
        shows(
            "/api/v1/shares",
            Operate,
            shares::list,
            says("Shares whose folder is set").gives::<Vec<kip_wire::ShareInfo>>(),
        ),
        shows(
            SHARE,
            Operate,
            shares::show,
            says("A share, SERVER:/PATH or oss://BUCKET/PATH, with its folder").gives::<kip_wire::ShareInfo>(),
        ),
        changes(
            put(),
            SHARE,
            Admin,
            "share.set",
            shares::set,
            says("Sets the folder of a share, for deployments from now on")
                .takes::<kip_wire::ShareSettings>()
                .gives::<kip_wire::ShareInfo>(),
        ),
        changes(
            delete(),
            SHARE,
            Admin,
            "share.remove",
            shares::remove,
            says("Forgets the folder of a share").empty(204, "it is forgotten"),
        ),
        shows(
            "/api/v1/functions/{name}/evidence",
            Operate,
            functions::evidence,
            says("Counters and latencies of a function by revision, newest first").gives::<Vec<RevisionEvidence>>(),
        ),
        shows(
            "/api/v1/functions/{name}/requests",
            Operate,
            requests::of_function,
            says("The latest requests of a function, newest first")
                .query::<requests::Filters>()
                .gives::<Vec<RequestRecord>>(),
        ),
        shows(
            "/api/v1/functions/{name}/logs",
            Operate,
            logs::logs,
            says("The output of instances").query::<logs::LogQuery>().gives_lines::<kip_wire::LogLine>(),
        ),
        shows(
            "/api/v1/functions/{name}/scaling",
            Operate,
            provision::history,
            says("The latest looks of a function's scaling policies, newest first")
                .query::<provision::LimitQuery>()
                .gives::<Vec<ScalingRecord>>(),
        ),
        changes(
            post(),
            RECORDING,
            Operate,
            "recording.start",
            functions::record,
            says("Records what is handed to what decides for a function, and what it decides")
                .empty(204, "it is recorded from here on"),
        ),
        changes(
            delete(),
            RECORDING,
            Operate,
            "recording.stop",
            functions::end_recording,
            says("Ends the recording of a function's decisions").empty(204, "nothing is recorded any more"),
        ),
        shows(
            RECORDING,
            Operate,
            functions::recording,
            says("What is recorded of a function's decisions").gives::<kip_wire::DecisionRecording>(),
        ),
        shows(
            "/api/v1/functions/{name}/advice",
            Operate,
            provision::advice,
            says("Advice about the settings of a function, by measured figures").gives::<Recommendation>(),
        ),
        shows(
            "/api/v1/functions/{name}/provision",
            Operate,
            provision::show,
            says("The provisioned instances of a qualifier")
                .query::<provision::FunctionQuery>()
                .gives::<kip_wire::Provision>()
                .tagged(),
        ),
        changes(
            put(),
            "/api/v1/functions/{name}/provision",
            Operate,
            "provision.put",
            provision::put,
            says("Sets the provisioned instances of a qualifier")
                .query::<provision::FunctionQuery>()
                .takes::<Fields>()
                .gives::<kip_wire::Provision>(),
        ),
        changes(
            delete(),
            "/api/v1/functions/{name}/provision",
            Operate,
            "provision.remove",
            provision::remove,
            says("Removes what was put for a qualifier").query::<provision::FunctionQuery>().gives::<Fields>(),
        ),
        shows(
            "/api/v1/provisions",
            Operate,
            provision::list,
            says("All provisioned instances, by function").gives::<Vec<kip_wire::Provision>>(),
        ),
        shows(
            "/api/v1/requests",
            Operate,
            requests::all,
            says("The latest requests, newest first").query::<requests::Filters>().gives::<Vec<RequestRecord>>(),
        ),
        shows(
            "/api/v1/instances",
            Operate,
            server::instances,
            says("All instances, by function").gives::<Vec<InstanceInfo>>(),
        ),
        shows("/api/v1/instances/{id}", Operate, server::instance, says("An instance").gives::<InstanceInfo>()),
        shows(
            EXEC,
            Deploy,
            exec::exec,
            says("Opens a session in an instance: a WebSocket with the protocol kip.exec.v1")
                .query::<exec::ExecQuery>()
                .empty(101, "the connection is a WebSocket"),
        )
        .session(),
        changes(
            post(),
            "/api/v1/functions/{name}/rotate",
            Operate,
            "function.rotate",
            functions::rotate,
            says("Replaces every instance of a function, its successor first").gives::<kip_wire::Rotation>(),
        ),
        changes(
            post(),
            "/api/v1/deployments",
            Deploy,
            "function.deploy",
            functions::deploy,
            says("Deploys the functions of a manifest, all or none")
                .takes::<kip_wire::Deployment>()
                .gives::<kip_wire::DeploymentResult>(),
        ),
        asks(
            PLAN,
            Deploy,
            versions::plan,
            says("What a deployment would change; nothing is changed")
                .takes::<kip_wire::Deployment>()
                .gives::<DeploymentPlan>(),
        ),
        changes(
            post(),
            "/api/v1/functions/{name}/rollback",
            Deploy,
            "function.rollback",
            versions::rollback,
            says("Returns to the version that served before, or an alias to where it pointed before")
                .takes::<Rollback>()
                .gives::<RollbackResult>(),
        ),
        changes(
            delete(),
            "/api/v1/functions/{name}",
            Deploy,
            "function.remove",
            functions::remove,
            says("Removes a function").gives::<Fields>(),
        ),
        works(
            TASKS_OF_FUNCTION,
            tasks::submit,
            says("Submits a task").takes_bytes().accepts::<kip_wire::AcceptedTask>(),
        ),
        shows(
            TASKS_OF_FUNCTION,
            Operate,
            tasks::of_function,
            says("The tasks of a function").query::<tasks::TaskQuery>().gives::<kip_wire::TaskList>(),
        ),
        shows(
            "/api/v1/functions/{name}/tasks/{id}",
            Invoke,
            tasks::show,
            says("A task").query::<tasks::Show>().gives::<TaskInfo>(),
        )
        .flags(&[("includePayload", Operate)]),
        shows(
            "/api/v1/functions/{name}/tasks/{id}/payload",
            Operate,
            tasks::payload,
            says("The payload of a task").query::<tasks::OfTenant>().gives_media("application/octet-stream"),
        ),
        shows(
            "/api/v1/functions/{name}/tasks/{id}/result",
            Invoke,
            tasks::result,
            says("The result of a task that is over")
                .query::<tasks::OfTenant>()
                .gives_media("application/octet-stream")
                .empty(204, "the function did not answer"),
        ),
        shows(
            "/api/v1/functions/{name}/tasks/{id}/events",
            Invoke,
            tasks::events,
            says("The events of a task until it is over, as lines or as server-sent events")
                .query::<tasks::Watch>()
                .gives_lines::<TaskEvent>(),
        ),
        changes(
            put(),
            "/api/v1/functions/{name}/tasks/{id}/stop",
            Operate,
            "task.stop",
            tasks::stop,
            says("Stops a task").query::<tasks::OfTenant>().gives::<kip_wire::StopResult>(),
        ),
        changes(
            post(),
            "/api/v1/functions/{name}/tasks/{id}/retry",
            Operate,
            "task.retry",
            tasks::retry,
            says("Runs a task that is over once more").query::<tasks::OfTenant>().gives::<kip_wire::StopResult>(),
        )
        .works(),
        changes(
            delete(),
            "/api/v1/functions/{name}/tasks/{id}",
            Operate,
            "task.purge",
            tasks::purge,
            says("Deletes a task that is over").query::<tasks::OfTenant>().gives::<Bulk>(),
        ),
        shows(
            IMAGES,
            Operate,
            images::list,
            says("The images of the container engine, by name").gives::<kip_wire::ImageList>(),
        ),
        shows(
            "/api/v1/images/pulls",
            Operate,
            images::under_way,
            says("The pulls of images that are under way").gives::<Vec<kip_wire::PullInfo>>(),
        ),
        changes(
            post(),
            IMAGES,
            Deploy,
            "image.pull",
            images::pull,
            says("Pulls an image").takes::<kip_wire::ImageName>().gives::<kip_wire::ImageName>(),
        ),
        changes(
            post(),
            "/api/v1/images/remove",
            Deploy,
            "image.remove",
            images::remove,
            says("Removes an image that nothing uses").takes::<kip_wire::ImageName>().gives::<kip_wire::ImageName>(),
        ),
        shows(
            "/api/v1/pools",
            Operate,
            pools::list,
            says("The pools in the order in which they are filled").gives::<Vec<kip_wire::PoolStatus>>(),
        ),
        shows(
            "/api/v1/devices",
            Operate,
            devices::list,
            says("The devices that the server uses, with their instances").gives::<Vec<kip_wire::DeviceStatus>>(),
        ),
        changes(
            post(),
            DEVICE_YIELD,
            Admin,
            "device.yield",
            devices::yield_device,
            says("Takes a device out of use for a time: its instances give its memory back or end")
                .takes::<kip_wire::DeviceYield>()
                .empty(204, "no instance starts on it any more"),
        ),
        changes(
            delete(),
            DEVICE_YIELD,
            Admin,
            "device.use",
            devices::regain,
            says("Puts a yielded device into use again").empty(204, "it is in use"),
        ),
        shows(
            "/api/v1/fit",
            Operate,
            devices::fit,
            says("Which functions stay on their devices if all are used, and how long the others take to be back")
                .gives::<kip_wire::FitReport>(),
        ),
        shows(
            QUOTA,
            Operate,
            devices::quota,
            says("The limits over all functions that replace those of kipwake.toml").gives::<kip_wire::QuotaSettings>(),
        ),
        changes(
            put(),
            QUOTA,
            Admin,
            "quota.set",
            devices::set_quota,
            says("Replaces the limits over all functions of kipwake.toml; what is left out is as there")
                .takes::<kip_wire::QuotaSettings>()
                .gives::<kip_wire::QuotaSettings>(),
        ),
        shows(
            "/api/v1/models",
            Operate,
            models::list,
            says("The models of the cache, by source, and the pulls")
                .query::<models::ModelQuery>()
                .gives::<kip_wire::ModelList>(),
        ),
        shows(
            "/api/v1/models/usage",
            Operate,
            models::usage,
            says("What the cache takes").gives::<kip_wire::ModelUsage>(),
        ),
        changes(
            post(),
            "/api/v1/models/pulls",
            Deploy,
            "model.pull",
            models::pull,
            says("Begins to pull a model into the cache; it goes on after the answer")
                .takes::<kip_wire::ModelRequest>()
                .gives::<kip_wire::ModelPull>(),
        ),
        changes(
            post(),
            "/api/v1/models/adoptions",
            Admin,
            "model.adopt",
            models::adopt,
            says("Takes the models of a folder of another program as they are, read-only")
                .takes::<kip_wire::ModelAdoption>()
                .gives::<kip_wire::AdoptedModels>(),
        ),
        shows(
            "/api/v1/models/pulls/{id}",
            Operate,
            models::show_pull,
            says("How far a pull has come").gives::<kip_wire::ModelPull>(),
        ),
        changes(
            delete(),
            "/api/v1/models/pulls/{id}",
            Deploy,
            "model.pull_cancel",
            models::cancel,
            says("Cancels a pull; what it has brought stays for the next one").gives::<kip_wire::ModelPull>(),
        ),
        asks(
            MODEL_PLAN,
            Deploy,
            models::deployments::plan,
            says("What a deployment of a model would do")
                .takes::<kip_wire::ModelDeployment>()
                .gives::<kip_wire::ModelPlan>(),
        ),
        shows(
            MODEL_DEPLOYMENTS,
            Operate,
            models::deployments::list,
            says("The deployments of models since the server started, newest first")
                .gives::<Vec<kip_wire::ModelDeploymentInfo>>(),
        ),
        changes(
            post(),
            MODEL_DEPLOYMENTS,
            Deploy,
            "model.deploy",
            models::deployments::deploy,
            says("Begins to pull and deploy a model; it goes on after the answer")
                .takes::<kip_wire::ModelDeployment>()
                .gives::<kip_wire::ModelDeploymentInfo>(),
        ),
        shows(
            "/api/v1/models/deployments/{id}",
            Operate,
            models::deployments::show,
            says("How far a deployment of a model has come").gives::<kip_wire::ModelDeploymentInfo>(),
        ),
        shows(
            "/api/v1/models/{model}",
            Operate,
            models::show,
            says("A model of the cache, by its id or source, escaped").gives::<kip_wire::ModelInfo>(),
        ),
        changes(
            delete(),
            "/api/v1/models/{model}",
            Deploy,
            "model.remove",
            models::remove,
            says("Removes a model that nothing uses").gives::<kip_wire::ModelInfo>(),
        ),
        changes(
            post(),
            "/api/v1/models/{model}/verify",
            Deploy,
            "model.verify",
            models::verify,
            says("Compares all files of a model with their digests").gives::<kip_wire::ModelInfo>(),
        ),
        changes(
            put(),
            "/api/v1/models/{model}/pin",
            Deploy,
            "model.pin",
            models::pin,
            says("Keeps a model from removal").gives::<kip_wire::ModelInfo>(),
        ),
        changes(
            delete(),
            "/api/v1/models/{model}/pin",
            Deploy,
            "model.unpin",
            models::unpin,
            says("Takes the pin of a model away").gives::<kip_wire::ModelInfo>(),
        ),
        changes(
            post(),
            "/api/v1/models/{model}/prefetch",
            Deploy,
            "model.prefetch",
            models::prefetch,
            says("Reads all files of a model into the page cache").gives::<kip_wire::ModelPrefetch>(),
        ),
        changes(
            post(),
            "/api/v1/models/{model}/evict",
            Deploy,
            "model.evict",
            models::evict,
            says("Removes the files of a model from the disk; the next start of an instance pulls them again")
                .gives::<kip_wire::ModelInfo>(),
        ),
        shows(
            "/api/v1/presets",
            Operate,
            models::presets::list,
            says("The presets, by name").gives::<Vec<kip_wire::PresetInfo>>(),
        ),
        shows(
            "/api/v1/presets/{preset}",
            Operate,
            models::presets::show,
            says("A preset with all its fields").gives::<kip_wire::PresetInfo>(),
        ),
        changes(
            post(),
            "/api/v1/presets/{preset}/engine",
            Admin,
            "preset.install",
            models::presets::install,
            says("Installs the engine of a preset into an environment of its own").gives::<kip_wire::PresetInfo>(),
        ),
        shows("/api/v1/jobs", Operate, jobs::list, says("All jobs, by name").gives::<Vec<JobInfo>>()),
        shows(
            "/api/v1/functions/{name}/job",
            Operate,
            jobs::show,
            says("A job with its schedule and its latest runs").query::<jobs::RunsQuery>().gives::<JobInfo>(),
        ),
        changes(
            put(),
            "/api/v1/functions/{name}/job/pause",
            Operate,
            "job.pause",
            jobs::pause,
            says("Pauses the schedule of a job").gives::<JobInfo>(),
        ),
        changes(
            put(),
            "/api/v1/functions/{name}/job/resume",
            Operate,
            "job.resume",
            jobs::resume,
            says("Resumes the schedule of a job").gives::<JobInfo>(),
        ),
        shows(
            "/api/v1/tasks",
            Operate,
            tasks::all,
            says("The tasks of all functions").query::<tasks::TaskQuery>().gives::<kip_wire::TaskList>(),
        ),
        shows(
            "/api/v1/tasks/summary",
            Operate,
            tasks::summary,
            says("The counts of tasks, by function").gives::<Summary>(),
        ),
        changes(
            post(),
            "/api/v1/tasks/stop",
            Operate,
            "tasks.stop",
            tasks::stop_all,
            says("Stops all tasks that fit").takes::<tasks::TaskQuery>().gives::<Bulk>(),
        ),
        changes(
            post(),
            "/api/v1/tasks/retry",
            Operate,
            "tasks.retry",
            tasks::retry_all,
            says("Runs all tasks that fit once more").takes::<tasks::TaskQuery>().gives::<Bulk>(),
        )
        .works(),
        changes(
            post(),
            "/api/v1/tasks/purge",
            Operate,
            "tasks.purge",
            tasks::purge_all,
            says("Deletes all tasks that fit and are over").takes::<tasks::TaskQuery>().gives::<Bulk>(),
        ),
        shows(
            ASYNC_CONFIG,
            Operate,
            tasks::config,
            says("The asynchronous configuration of a qualifier")
                .query::<tasks::QualifierQuery>()
                .gives::<AsyncConfig>(),
        ),
        changes(
            put(),
            ASYNC_CONFIG,
            Deploy,
            "function.async",
            tasks::put_config,
            says("Sets the asynchronous configuration of a qualifier")
                .query::<tasks::QualifierQuery>()
                .takes::<AsyncConfig>()
                .gives::<AsyncConfig>(),
        ),
        changes(
            delete(),
            ASYNC_CONFIG,
            Deploy,
            "function.async.remove",
            tasks::remove_config,
            says("Removes the asynchronous configuration of a qualifier")
                .query::<tasks::QualifierQuery>()
                .empty(204, "removed"),
        ),
        shows("/api/v1/keys", Admin, keys::list, says("All keys, by name").gives::<Vec<KeyInfo>>()),
        shows("/api/v1/keys/{name}", Admin, keys::show, says("A key").gives::<KeyInfo>().tagged()),
        changes(
            post(),
            "/api/v1/keys",
            Admin,
            "key.create",
            keys::create,
            says("Makes a key").takes::<kip_wire::KeySettings>().gives::<kip_wire::KeyAnswer>(),
        ),
        changes(
            patch(),
            "/api/v1/keys/{name}",
            Admin,
            "key.change",
            keys::change,
            says("Changes a key").takes::<kip_wire::KeySettings>().gives::<kip_wire::KeyAnswer>(),
        ),
        changes(
            post(),
            "/api/v1/keys/{name}/rotate",
            Admin,
            "key.rotate",
            keys::rotate,
            says("Gives a key a new secret").takes::<kip_wire::KeyRotation>().gives::<kip_wire::KeyAnswer>(),
        ),
        changes(
            delete(),
            "/api/v1/keys/{name}",
            Admin,
            "key.remove",
            keys::remove,
            says("Removes a key").gives::<Fields>(),
        ),
        shows(
            "/api/v1/secrets",
            Admin,
            secrets::list,
            says("All secrets, by name, without their values").gives::<Vec<SecretInfo>>(),
        ),
        shows(SECRET, Admin, secrets::show, says("A secret, without its value").gives::<SecretInfo>().tagged()),
        changes(
            put(),
            SECRET,
            Admin,
            "secret.put",
            secrets::set,
            says("Sets the value of a secret").takes::<SecretValue>().gives::<SecretInfo>(),
        ),
        changes(
            delete(),
            SECRET,
            Admin,
            "secret.remove",
            secrets::remove,
            says("Removes a secret").gives::<SecretInfo>(),
        ),
        shows(
            "/api/v1/audit",
            Admin,
            audit::audit,
            says("The audit record, newest first").query::<audit::Filters>().gives::<Vec<AuditRecord>>(),
        ),
        changes(
            post(),
            "/api/v1/backup",
            Admin,
            "server.backup",
            backup::backup,
            says("Writes a backup into a file on the server's machine")
                .takes::<kip_wire::Backup>()
                .gives::<BackupManifest>(),
        ),
        changes(
            post(),
            "/api/v1/restore",
            Admin,
            "server.restore",
            backup::restore,
            says("Restores a backup from a file on the server's machine")
                .takes::<kip_wire::Restore>()
                .gives::<RestoreReport>(),
        ),
        changes(
            post(),
            "/api/v1/stop",
            Admin,
            "server.stop",
            server::stop,
            says("Ends the server and all instances").gives::<Fields>(),
        ),
    ]
}

/// All of it as a router. Whoever comes here has a key already.
pub(crate) fn router(api: &Api) -> Router<Api> {
    let keyed = table().into_iter().filter(|entry| entry.path != METRICS || !api.metrics_open);
    keyed.fold(Router::new(), |router, entry| {
        let Entry { path, role, action, flags, works, session, handler, .. } = entry;
        // Without a role nobody but an administrator: no entry of the table is so.
        let role = role.unwrap_or(Role::Admin);
        let of_function = path.starts_with(OF_FUNCTION);
        let gate = RouteAccess { api: api.clone(), role, action, of_function, flags, works, session };
        router.route(path, handler.route_layer(from_fn_with_state(gate, guard)))
    })
}

/// Where metrics are; without a key if the settings say so.
pub(crate) const METRICS: &str = "/metrics";
/// Whether it takes requests and changes.
const READY: &str = "/readyz";
/// Where runs report their progress.
const PROGRESS: &str = "/api/v1/progress/{number}/{epoch}/{token}";
/// Where tasks of a function are submitted and listed.
const TASKS_OF_FUNCTION: &str = "/api/v1/functions/{name}/tasks";
/// A session in an instance.
const EXEC: &str = "/api/v1/functions/{name}/exec";
/// What a deployment would change.
const IMAGES: &str = "/api/v1/images";
/// What is recorded of a function's decisions.
const RECORDING: &str = "/api/v1/functions/{name}/recording";
/// The budget of a function or a key.
const BUDGET: &str = "/api/v1/budgets/{kind}/{name}";
/// A role of Function Compute by its name.
const ROLE: &str = "/api/v1/role-map/{role}";
/// A share by its name.
const SHARE: &str = "/api/v1/shares/{name}";
/// What all functions together may take.
const QUOTA: &str = "/api/v1/quota";
/// Whether a device is out of use.
const DEVICE_YIELD: &str = "/api/v1/devices/{device}/yield";
/// What a deployment of a model would do.
const MODEL_PLAN: &str = "/api/v1/models/plan";
const MODEL_DEPLOYMENTS: &str = "/api/v1/models/deployments";
const PLAN: &str = "/api/v1/plan";
/// What a function wants for its tasks.
const ASYNC_CONFIG: &str = "/api/v1/functions/{name}/async-invoke-config";
/// The versions of a function.
const VERSIONS: &str = "/api/v1/functions/{name}/versions";
/// One of them.
const VERSION: &str = "/api/v1/functions/{name}/versions/{version}";
/// The rollout of an alias.
const ROLLOUT: &str = "/api/v1/functions/{name}/aliases/{alias}/rollout";
/// An alias of a function.
const ALIAS: &str = "/api/v1/functions/{name}/aliases/{alias}";
/// A secret.
const SECRET: &str = "/api/v1/secrets/{name}";
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
                let role = role.unwrap();
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
        assert!(table.iter().all(|entry| entry.role > Some(Role::Invoke) || entry.action.is_none()));
        let changing: Vec<&str> = table.iter().filter_map(|entry| entry.action).collect();
        assert_eq!(changing.iter().collect::<BTreeSet<_>>().len(), changing.len());
        for entry in &table {
            let works = [TASKS_OF_FUNCTION, PLAN, MODEL_PLAN].contains(&entry.path);
            // A session begins with a GET, as every WebSocket does.
            let shows = entry.method == Method::GET && !entry.session;
            assert_eq!(entry.action.is_none(), shows || works, "{}", entry.path);
            assert!(!entry.path.starts_with("/api/v1/keys") || entry.role == Some(Role::Admin), "{}", entry.path);
        }
    }
}
