//! The effect of each key, as a table: what is carried out here, what is only kept, and what means nothing on one's own machine.

use serde::Serialize;

/// The effect of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// In force.
    Mapped,
    /// Kept with the function and given back.
    Stored,
    /// Neither.
    WithoutEffect,
}

/// A row: a way of keys, where `*` is any key; the longest row that begins a key's way counts.
pub(crate) type Row = (&'static str, Effect, &'static str);

use Effect::{Mapped, Stored, WithoutEffect};

/// The rows of a file's own keys and of `resources`, with `props` in a table of their own.
pub(crate) const DOCUMENT: &[Row] = &[
    ("edition", Mapped, ""),
    ("name", Mapped, ""),
    ("access", WithoutEffect, "the key of this server is used"),
    ("env", WithoutEffect, "environments of the vendor are not read: use `${env(…)}`"),
    ("vars", Mapped, ""),
    ("template", Mapped, ""),
    ("flow", Mapped, ""),
    ("extend", Mapped, ""),
    ("actions", Mapped, ""),
    ("resources.*.component", Mapped, ""),
    ("resources.*.access", WithoutEffect, "the key of this server is used"),
    ("resources.*.extend", Mapped, ""),
    ("resources.*.actions", Mapped, ""),
    ("resources.*.vars", Mapped, ""),
    ("services.*.component", Mapped, ""),
    ("services.*.access", WithoutEffect, "the key of this server is used"),
    ("services.*.actions", Mapped, ""),
    ("services.*.extend", Mapped, ""),
];

const NO_CLOUD: &str = "functions run on this machine";
const NETWORK: &str = "there is no such network here: the function has the network of this machine";
const LOG: &str = "the output is kept on this machine: `kip logs`";
const SHARE: &str = "the share is not mounted: the function sees the folders of this machine";
/// What mounts are here. They are in force, so the note says where the files are.
const MOUNT: &str = "a folder of this machine: `kip nas info` shows it";
const ROLE: &str = "no credentials of a role are given to the function; --role-map ROLE=NAME names secrets for it";
const DOMAIN: &str = "a name that the vendor makes up (auto) is left out: call the function's URL";
const METRICS: &str = "requests are recorded in any case: `kip requests`";

/// The rows of `props` of the component fc3.
pub(crate) const FUNCTION: &[Row] = &[
    ("region", WithoutEffect, NO_CLOUD),
    ("functionName", Mapped, ""),
    ("description", Stored, ""),
    ("runtime", Mapped, ""),
    ("handler", Mapped, ""),
    ("code", Mapped, ""),
    ("timeout", Mapped, ""),
    ("memorySize", Mapped, ""),
    ("cpu", Mapped, ""),
    ("diskSize", Stored, "the disk of an instance is not limited"),
    ("instanceConcurrency", Mapped, ""),
    ("environmentVariables", Mapped, ""),
    ("customRuntimeConfig.command", Mapped, ""),
    ("customRuntimeConfig.args", Mapped, ""),
    ("customRuntimeConfig.port", Stored, "each instance gets a port of its own in FC_SERVER_PORT"),
    ("customRuntimeConfig.healthCheckConfig", Mapped, "with a httpGetUrl"),
    ("customRuntimeConfig.healthCheckConfig.httpGetUrl", Mapped, ""),
    ("customContainerConfig.image", Mapped, ""),
    ("customContainerConfig.command", Mapped, ""),
    ("customContainerConfig.entrypoint", Mapped, ""),
    ("customContainerConfig.port", Mapped, ""),
    ("customContainerConfig.healthCheckConfig", Mapped, "with a httpGetUrl"),
    ("customContainerConfig.healthCheckConfig.httpGetUrl", Mapped, ""),
    (
        "customContainerConfig.registryConfig",
        WithoutEffect,
        "the container engine uses its own login: `docker login` once",
    ),
    ("customContainerConfig", Stored, ""),
    ("gpuConfig.gpuMemorySize", Mapped, ""),
    (
        "gpuConfig.gpuType",
        Stored,
        "any card with that memory is used; [gpu_types] of kipwake.toml names cards for types",
    ),
    ("gpuMemorySize", WithoutEffect, "a key of an older version: `gpuConfig.gpuMemorySize` counts"),
    ("instanceLifecycleConfig.initializer.handler", Mapped, ""),
    ("instanceLifecycleConfig.initializer.timeout", Mapped, ""),
    ("instanceLifecycleConfig.preStop.handler", Mapped, ""),
    ("instanceLifecycleConfig.preStop.timeout", Mapped, ""),
    ("layers", Mapped, "layers of this server are in /opt: publish others here, `kip layer publish`"),
    ("logConfig", Stored, LOG),
    ("logConfig.enableRequestMetrics", Stored, METRICS),
    ("logConfig.enableInstanceMetrics", Stored, METRICS),
    ("logConfig.logBeginRule", Stored, "`kip logs --join` puts the lines of one record together"),
    ("nasConfig", Mapped, MOUNT),
    ("nasConfig.userId", Stored, ""),
    ("nasConfig.groupId", Stored, ""),
    ("nasConfig.mountPoints.enableTLS", Stored, ""),
    ("ossMountConfig", Mapped, MOUNT),
    ("ossMountConfig.mountPoints.endpoint", Stored, ""),
    ("polarFsConfig", Stored, SHARE),
    ("role", Stored, ROLE),
    ("vpcConfig", Stored, NETWORK),
    ("vpcBinding", Stored, NETWORK),
    ("internetAccess", Stored, "the network of the function is not restricted"),
    ("tracingConfig", Stored, "traces are not sent there"),
    ("customDNS", Stored, "the names of this machine's resolver are used"),
    ("triggers.triggerName", Mapped, ""),
    ("triggers.triggerType", Mapped, ""),
    ("triggers.qualifier", Mapped, ""),
    ("triggers.description", Stored, ""),
    ("triggers.invocationRole", Stored, ""),
    ("triggers.sourceArn", Stored, ""),
    ("triggers.triggerConfig", Stored, "triggers of this type are kept and not in force: only http and timer are"),
    ("triggers.triggerConfig.authType", Mapped, ""),
    ("triggers.triggerConfig.methods", Mapped, ""),
    ("triggers.triggerConfig.disableURLInternet", Mapped, ""),
    ("triggers.triggerConfig.cronExpression", Mapped, ""),
    ("triggers.triggerConfig.payload", Mapped, ""),
    ("triggers.triggerConfig.enable", Mapped, ""),
    ("triggers.triggerConfig.authConfig", Mapped, ""),
    ("triggers.triggerConfig.corsConfig", Mapped, ""),
    ("asyncInvokeConfig", Mapped, ""),
    ("asyncInvokeConfig.destinationConfig", Mapped, "queues and topics are not reached: a function is"),
    ("provisionConfig", Mapped, ""),
    ("provisionConfig.mode", WithoutEffect, "instances are always drained"),
    ("scalingConfig", Mapped, ""),
    ("scalingConfig.residentPoolId", WithoutEffect, "there are no resident pools: the instances run on this machine"),
    ("concurrencyConfig", Mapped, ""),
    ("customDomain", Mapped, DOMAIN),
    ("customDomain.wafConfig", Stored, "there is no such firewall here"),
    ("customDomain.tlsConfig", Stored, "TLS is spoken as this server does"),
    ("tags", Stored, ""),
    ("annotations", WithoutEffect, "only the vendor's own tool reads it"),
    ("supplement", WithoutEffect, "only the vendor's own tool reads it"),
    ("endpoint", WithoutEffect, "this server is used"),
    ("version", WithoutEffect, "only the vendor's own tool reads it"),
    ("extend", Mapped, ""),
    ("sessionAffinity", Stored, "requests of one session may go to several instances"),
    ("sessionAffinityConfig", Stored, "requests of one session may go to several instances"),
    ("instanceIsolationMode", Stored, ""),
    ("idleTimeout", Mapped, ""),
    ("disableOndemand", Mapped, ""),
    ("enableLongLiving", Stored, ""),
    ("resourceGroupId", Stored, ""),
    ("invocationRestriction", Stored, ""),
];

/// The rows of `props` of the component fc, edition 1, where they differ from those of fc3.
pub(crate) const FUNCTION_1: &[Row] = &[
    ("region", WithoutEffect, NO_CLOUD),
    ("service.name", Mapped, ""),
    ("service.description", WithoutEffect, ""),
    ("service.role", Stored, ROLE),
    ("service.internetAccess", Stored, ""),
    ("service.logConfig", Stored, LOG),
    ("service.nasConfig", Mapped, MOUNT),
    ("service.nasConfig.userId", Stored, ""),
    ("service.nasConfig.groupId", Stored, ""),
    ("service.ossMountConfig", Mapped, MOUNT),
    ("service.ossMountConfig.mountPoints.endpoint", Stored, ""),
    ("service.vpcConfig", Stored, NETWORK),
    ("service.tracingConfig", Stored, "traces are not sent there"),
    ("service.vpcBinding", Stored, NETWORK),
    ("service", Mapped, ""),
    ("function", WithoutEffect, "no key of this component"),
    ("function.name", Mapped, ""),
    ("function.description", Stored, ""),
    ("function.runtime", Mapped, ""),
    ("function.handler", Mapped, ""),
    ("function.codeUri", Mapped, ""),
    ("function.ossBucket", Mapped, ""),
    ("function.ossKey", Mapped, ""),
    ("function.timeout", Mapped, ""),
    ("function.memorySize", Mapped, ""),
    ("function.cpu", Mapped, ""),
    ("function.diskSize", Stored, "the disk of an instance is not limited"),
    ("function.gpuMemorySize", Mapped, ""),
    ("function.instanceType", Mapped, "any card with that memory is used; kinds without a card mean nothing here"),
    ("function.instanceConcurrency", Mapped, ""),
    ("function.environmentVariables", Mapped, ""),
    ("function.caPort", Mapped, "each instance gets a port of its own in FC_SERVER_PORT"),
    ("function.cAPort", Mapped, "each instance gets a port of its own in FC_SERVER_PORT"),
    ("function.customContainerConfig", Mapped, ""),
    ("function.customRuntimeConfig", Mapped, ""),
    ("function.customHealthCheckConfig", Stored, "the times of the health check are those of Kipwake"),
    ("function.customHealthCheckConfig.httpGetUrl", Mapped, ""),
    ("function.initializer", Mapped, ""),
    ("function.initializationTimeout", Mapped, ""),
    ("function.instanceLifecycleConfig", Mapped, ""),
    ("function.instanceLifecycleConfig.preFreeze", WithoutEffect, "there is no hook before a freeze"),
    ("function.layers", Mapped, "layers of this server are in /opt: publish others here, `kip layer publish`"),
    ("function.customDNS", Stored, ""),
    ("function.asyncConfiguration", Mapped, "queues and topics are not reached: a function is"),
    ("function.internetAccess", Stored, ""),
    ("triggers.name", Mapped, ""),
    ("triggers.type", Mapped, ""),
    ("triggers.qualifier", Mapped, ""),
    ("triggers.description", Stored, ""),
    ("triggers.role", Stored, ""),
    ("triggers.sourceArn", Stored, ""),
    ("triggers.config", Stored, "triggers of this type are kept and not in force: only http and timer are"),
    ("triggers.config.authType", Mapped, ""),
    ("triggers.config.methods", Mapped, ""),
    ("triggers.config.cronExpression", Mapped, ""),
    ("triggers.config.payload", Mapped, ""),
    ("triggers.config.enable", Mapped, ""),
    ("customDomains", Mapped, DOMAIN),
];

/// The rows of a template.yml, below the `Properties` of each type.
pub(crate) const TEMPLATE: &[Row] = &[
    ("Service.Description", WithoutEffect, ""),
    ("Service.Role", Stored, ROLE),
    ("Service.Policies", WithoutEffect, ROLE),
    ("Service.InternetAccess", Stored, ""),
    ("Service.VpcConfig", Stored, NETWORK),
    ("Service.LogConfig", Stored, LOG),
    ("Service.NasConfig", Mapped, MOUNT),
    ("Service.NasConfig.UserId", Stored, ""),
    ("Service.NasConfig.GroupId", Stored, ""),
    ("Service.TracingConfig", Stored, "traces are not sent there"),
    ("Function.Handler", Mapped, ""),
    ("Function.Runtime", Mapped, ""),
    ("Function.CodeUri", Mapped, ""),
    ("Function.Initializer", Mapped, ""),
    ("Function.InitializationTimeout", Mapped, ""),
    ("Function.Description", Stored, ""),
    ("Function.MemorySize", Mapped, ""),
    ("Function.Timeout", Mapped, ""),
    ("Function.EnvironmentVariables", Mapped, ""),
    ("Function.InstanceConcurrency", Mapped, ""),
    ("Function.InstanceType", WithoutEffect, "kinds of instances mean nothing here"),
    ("Function.CAPort", Mapped, "each instance gets a port of its own in FC_SERVER_PORT"),
    ("Function.CustomContainerConfig", Mapped, ""),
    ("Function.AsyncConfiguration", Mapped, "queues and topics are not reached: a function is"),
    ("Event.HTTP", Mapped, ""),
    ("Event.HTTP.InvocationRole", Stored, ""),
    ("Event.Timer", Mapped, ""),
    ("Event.Timer.InvocationRole", Stored, ""),
    ("Event", Stored, "triggers of this type are kept and not in force: only HTTP and Timer are"),
    ("Version", Mapped, ""),
    ("Alias", Mapped, ""),
    ("ProvisionConfig", Mapped, ""),
    ("CustomDomain", Mapped, DOMAIN),
    (
        "CustomDomain.CertConfig",
        WithoutEffect,
        "files of certificates are not read: set the certificate by UpdateCustomDomain",
    ),
    ("Log", WithoutEffect, LOG),
    ("Logstore", WithoutEffect, LOG),
];

/// The row of a way. Positions of lists are no keys and are left out of it.
const OBJECTS: &str = "there are no such objects here";
const ONE_HOST: &str = "there is one host";
const VOLUME: &str =
    "nothing is mounted: a container sees its own files, and folders of container.mounts in a kip.yaml";

/// The rows of a Service of Knative.
const KNATIVE: &[Row] = &[
    ("apiVersion", Mapped, ""),
    ("kind", Mapped, ""),
    ("metadata.name", Mapped, ""),
    ("metadata", WithoutEffect, OBJECTS),
    ("spec.template.metadata.name", Mapped, ""),
    ("spec.template.metadata", WithoutEffect, OBJECTS),
    ("spec.template.spec.containerConcurrency", Mapped, ""),
    ("spec.template.spec.timeoutSeconds", Mapped, ""),
    ("spec.template.spec.responseStartTimeoutSeconds", Mapped, ""),
    ("spec.template.spec.idleTimeoutSeconds", Mapped, ""),
    ("spec.template.spec.serviceAccountName", WithoutEffect, OBJECTS),
    (
        "spec.template.spec.imagePullSecrets",
        WithoutEffect,
        "the container engine has its own credentials: `docker login`",
    ),
    ("spec.template.spec.volumes", WithoutEffect, VOLUME),
    ("spec.template.spec.initContainers", WithoutEffect, "they are not run"),
    ("spec.template.spec.nodeSelector", WithoutEffect, ONE_HOST),
    ("spec.template.spec.tolerations", WithoutEffect, ONE_HOST),
    ("spec.template.spec.affinity", WithoutEffect, ONE_HOST),
    ("spec.template.spec.topologySpreadConstraints", WithoutEffect, ONE_HOST),
    ("spec.template.spec", WithoutEffect, "the field is not known here"),
    ("spec.template.spec.containers.*.name", WithoutEffect, "containers have names of this server"),
    ("spec.template.spec.containers.*.image", Mapped, ""),
    ("spec.template.spec.containers.*.imagePullPolicy", Mapped, ""),
    ("spec.template.spec.containers.*.command", Mapped, ""),
    ("spec.template.spec.containers.*.args", Mapped, ""),
    ("spec.template.spec.containers.*.workingDir", Mapped, ""),
    ("spec.template.spec.containers.*.env", Mapped, ""),
    ("spec.template.spec.containers.*.ports.*.containerPort", Mapped, ""),
    ("spec.template.spec.containers.*.ports.*.name", Mapped, ""),
    ("spec.template.spec.containers.*.ports.*.protocol", Mapped, ""),
    ("spec.template.spec.containers.*.resources.limits", WithoutEffect, "the resource is not counted here"),
    ("spec.template.spec.containers.*.resources.requests", WithoutEffect, "the resource is not counted here"),
    ("spec.template.spec.containers.*.resources.limits.cpu", Mapped, ""),
    ("spec.template.spec.containers.*.resources.limits.memory", Mapped, ""),
    ("spec.template.spec.containers.*.resources.limits.aliyun.com/gpu-mem", Mapped, ""),
    ("spec.template.spec.containers.*.resources.limits.nvidia.com/gpu", Mapped, ""),
    ("spec.template.spec.containers.*.resources.requests.cpu", Mapped, "where there is no limit"),
    ("spec.template.spec.containers.*.resources.requests.memory", Mapped, "where there is no limit"),
    ("spec.template.spec.containers.*.resources.requests.aliyun.com/gpu-mem", Mapped, "where there is no limit"),
    ("spec.template.spec.containers.*.resources.requests.nvidia.com/gpu", Mapped, "where there is no limit"),
    ("spec.template.spec.containers.*.readinessProbe", WithoutEffect, "paths and ports are probed"),
    ("spec.template.spec.containers.*.readinessProbe.httpGet.path", Mapped, ""),
    ("spec.template.spec.containers.*.readinessProbe.httpGet.port", Mapped, ""),
    ("spec.template.spec.containers.*.readinessProbe.tcpSocket", Mapped, ""),
    ("spec.template.spec.containers.*.readinessProbe.exec", WithoutEffect, "the port is probed"),
    ("spec.template.spec.containers.*.readinessProbe.grpc", WithoutEffect, "the port is probed"),
    ("spec.template.spec.containers.*.livenessProbe", WithoutEffect, "paths are probed"),
    ("spec.template.spec.containers.*.livenessProbe.httpGet.path", Mapped, ""),
    ("spec.template.spec.containers.*.livenessProbe.httpGet.port", Mapped, ""),
    ("spec.template.spec.containers.*.readinessProbe.initialDelaySeconds", Mapped, ""),
    ("spec.template.spec.containers.*.readinessProbe.periodSeconds", Mapped, ""),
    ("spec.template.spec.containers.*.readinessProbe.timeoutSeconds", Mapped, ""),
    ("spec.template.spec.containers.*.readinessProbe.failureThreshold", Mapped, ""),
    ("spec.template.spec.containers.*.readinessProbe.successThreshold", Mapped, ""),
    ("spec.template.spec.containers.*.livenessProbe.initialDelaySeconds", Mapped, ""),
    ("spec.template.spec.containers.*.livenessProbe.periodSeconds", Mapped, ""),
    ("spec.template.spec.containers.*.livenessProbe.timeoutSeconds", Mapped, ""),
    ("spec.template.spec.containers.*.livenessProbe.failureThreshold", Mapped, ""),
    ("spec.template.spec.containers.*.startupProbe", WithoutEffect, "a start is probed as readiness"),
    ("spec.template.spec.containers.*.startupProbe.initialDelaySeconds", Mapped, ""),
    ("spec.template.spec.containers.*.startupProbe.periodSeconds", Mapped, ""),
    ("spec.template.spec.containers.*.startupProbe.failureThreshold", Mapped, ""),
    (
        "spec.template.spec.containers.*.securityContext",
        WithoutEffect,
        "container.hardened in a kip.yaml drops what a program does not need",
    ),
    ("spec.template.spec.containers.*.securityContext.runAsUser", Mapped, ""),
    ("spec.template.spec.containers.*.volumeMounts", WithoutEffect, VOLUME),
    ("spec.template.spec.containers", WithoutEffect, "the field is not known here"),
    ("spec.traffic.*.percent", Mapped, ""),
    ("spec.traffic.*.latestRevision", Mapped, ""),
    ("spec.traffic.*.revisionName", Mapped, ""),
    ("spec.traffic.*.tag", WithoutEffect, "set an alias: `kip alias set FUNCTION TAG VERSION`"),
    ("spec", WithoutEffect, "the field is not known here"),
    ("status", WithoutEffect, "it is written by a cluster"),
];

/// The effect of a key of a Service of Knative.
pub(crate) fn of_knative(way: &[&str]) -> (Effect, &'static str) {
    let annotation = way.iter().rev().nth(1) == Some(&"annotations");
    if annotation && way.last().is_some_and(|key| key.starts_with("autoscaling.knative.dev/")) {
        return (Mapped, "");
    }
    // A row is written with dots, and some names have dots of their own.
    let fits = |row: &&Row| {
        let mut rest = row.0;
        way.iter().all(|key| {
            if rest.is_empty() {
                return true;
            }
            let begun = if rest.starts_with('*') { Some(1) } else { rest.starts_with(key).then_some(key.len()) };
            let Some(after) = begun.map(|length| &rest[length..]) else { return false };
            rest = after.strip_prefix('.').unwrap_or(after);
            after.is_empty() || after.starts_with('.')
        }) && rest.is_empty()
    };
    let row = KNATIVE.iter().filter(fits).max_by_key(|row| row.0.len());
    row.map_or((WithoutEffect, "the field is not known here"), |row| (row.1, row.2))
}

pub(crate) fn find(table: &'static [Row], way: &[&str]) -> Option<&'static Row> {
    let fits = |row: &&Row| {
        let wanted: Vec<&str> = row.0.split('.').collect();
        wanted.len() <= way.len() && wanted.iter().zip(way).all(|(wanted, key)| *wanted == "*" || wanted == key)
    };
    table.iter().filter(fits).max_by_key(|row| row.0.split('.').count())
}

/// Whether a way is wiring of the cloud: what stands there changes nothing here, and the user is shown the consequence.
pub(crate) fn is_wiring(table: &'static [Row], way: &[&str]) -> bool {
    find(table, way).is_none_or(|(_, effect, note)| *effect == WithoutEffect || (*effect == Stored && !note.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_row_counts() {
        let effect = |way: &[&str]| find(FUNCTION, way).map(|row| row.1);
        assert_eq!(effect(&["logConfig"]), Some(Stored));
        assert_eq!(effect(&["customRuntimeConfig", "healthCheckConfig", "httpGetUrl"]), Some(Mapped));
        assert_eq!(effect(&["customRuntimeConfig", "healthCheckConfig", "periodSeconds"]), Some(Mapped));
        assert_eq!(effect(&["nothing"]), None);
        let wiring = |key| is_wiring(FUNCTION, &[key]);
        assert!(
            wiring("region")
                && wiring("vpcConfig")
                && wiring("nothing")
                && !wiring("timeout")
                && !wiring("description")
        );
        assert_eq!(find(DOCUMENT, &["resources", "web", "access"]).map(|row| row.1), Some(WithoutEffect));
    }

    #[test]
    fn no_way_is_there_twice() {
        for table in [DOCUMENT, FUNCTION, FUNCTION_1, TEMPLATE] {
            let mut ways: Vec<&str> = table.iter().map(|row| row.0).collect();
            ways.sort_unstable();
            assert!(ways.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }
}
