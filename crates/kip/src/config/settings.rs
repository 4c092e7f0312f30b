//! Every setting there is, with its default.

/// One setting. The table below is the only place that knows them.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) default: &'static str,
    pub(super) about: &'static str,
    /// What a value looks like, for the schema and for errors.
    pub(super) form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Address,
    Count,
    Duration,
    Size,
    Text,
    /// A number from 0 to 1.
    Share,
    /// true or false.
    Switch,
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "containers.engine",
        default: "auto",
        about: "socket of the container engine; auto looks for DOCKER_HOST and the usual sockets of Docker and Podman, off uses none",
        form: Form::Text,
    },
    Setting {
        key: "containers.mounts",
        default: "none",
        about: "folders, by commas, below which containers may see folders of this host",
        form: Form::Text,
    },
    Setting {
        key: "disk.low",
        default: "64MiB",
        about: "free room of the data directory's disk below which records and logs are left out",
        form: Form::Size,
    },
    Setting {
        key: "disk.network",
        default: "refuse",
        about: "whether the data directory may be on a network file system: refuse or allow",
        form: Form::Text,
    },
    Setting {
        key: "disk.reserve",
        default: "16MiB",
        about: "room that is kept for state in the file `reserve` of the data directory",
        form: Form::Size,
    },
    Setting {
        key: "functions.file_size",
        default: "1TiB",
        about: "bytes of a file that an instance may write",
        form: Form::Size,
    },
    Setting {
        key: "functions.first_id",
        default: "1900000000",
        about: "the first of the 65,536 user and group ids that functions have where the server is root",
        form: Form::Count,
    },
    Setting {
        key: "functions.processes",
        default: "32768",
        about: "processes and threads that a function's id, or an instance in namespaces, may have",
        form: Form::Count,
    },
    Setting {
        key: "functions.user",
        default: "own",
        about: "as whom instances run: own is an id for each function (root) or namespaces, a user's name, or server for the server's own user",
        form: Form::Text,
    },
    Setting {
        key: "gateway.access_log",
        default: "off",
        about: "where each request is written down as a line of JSON: a file, relative to the data directory, stderr, or off",
        form: Form::Text,
    },
    Setting {
        key: "gateway.access_log_query",
        default: "false",
        about: "whether queries are in the access log: they can hold secrets",
        form: Form::Switch,
    },
    Setting {
        key: "gateway.access_log_size",
        default: "64MiB",
        about: "how large the access log grows before it is renamed to .1 and begun anew",
        form: Form::Size,
    },
    Setting {
        key: "gateway.hosts",
        default: "none",
        about: "public host names by which callers without a key may come to a loopback port, such as \"ai.example.com\"",
        form: Form::Text,
    },
    Setting {
        key: "gateway.origins",
        default: "none",
        about: "origins of web pages that may call /v1, /v2 and functions without cors of their own, beside those of this machine",
        form: Form::Text,
    },
    Setting {
        key: "gateway.require_keys",
        default: "false",
        about: "whether every function asks for a key, whatever its trigger says",
        form: Form::Switch,
    },
    Setting {
        key: "host.cpu",
        default: "auto",
        about: "cores that instances may reserve, such as 8 or 7500m; auto is those there are",
        form: Form::Text,
    },
    Setting {
        key: "host.memory",
        default: "auto",
        about: "memory that instances may reserve; auto is 90 % of the host's",
        form: Form::Size,
    },
    Setting {
        key: "limits.body",
        default: "none",
        about: "bytes of a request's body that the gateway takes",
        form: Form::Size,
    },
    Setting {
        key: "limits.body_idle",
        default: "60s",
        about: "how long a caller may send nothing of a body that an instance waits for",
        form: Form::Duration,
    },
    Setting {
        key: "limits.connections",
        default: "10000",
        about: "connections to the gateway at once",
        form: Form::Count,
    },
    Setting { key: "limits.head", default: "64KiB", about: "bytes of a request's head", form: Form::Size },
    Setting {
        key: "limits.head_time",
        default: "30s",
        about: "from the first byte of a request's head to its last",
        form: Form::Duration,
    },
    Setting { key: "limits.headers", default: "100", about: "headers of a request", form: Form::Count },
    Setting {
        key: "limits.idle",
        default: "75s",
        about: "how long a connection to the gateway may have no request",
        form: Form::Duration,
    },
    Setting {
        key: "limits.model",
        default: "32MiB",
        about: "bytes of a body that are kept while the model it is for is looked for in it",
        form: Form::Size,
    },
    Setting { key: "limits.target", default: "16KiB", about: "bytes of a request's target", form: Form::Size },
    Setting {
        key: "limits.write_idle",
        default: "60s",
        about: "how long a caller may take nothing of what is sent to it",
        form: Form::Duration,
    },
    Setting {
        key: "log.filter",
        default: "info",
        about: "what the server logs, such as info or kip_control=debug",
        form: Form::Text,
    },
    Setting {
        key: "metrics.functions",
        default: "1000",
        about: "how many functions have series of their own at /metrics; all others are counted together",
        form: Form::Count,
    },
    Setting {
        key: "metrics.open",
        default: "false",
        about: "whether /metrics is shown without a key, on loopback only",
        form: Form::Switch,
    },
    Setting {
        key: "quota.cards",
        default: "none",
        about: "devices that all functions together may take; shares of one count together",
        form: Form::Count,
    },
    Setting {
        key: "quota.instances",
        default: "none",
        about: "instances that all functions together may have, asleep or awake",
        form: Form::Count,
    },
    Setting {
        key: "records.age",
        default: "30d",
        about: "how long records of requests and decisions stay",
        form: Form::Duration,
    },
    Setting {
        key: "records.count",
        default: "100000",
        about: "how many records of requests, and of decisions, stay",
        form: Form::Count,
    },
    Setting { key: "server.api", default: "127.0.0.1:5471", about: "where the API listens", form: Form::Address },
    Setting {
        key: "server.gateway",
        default: "127.0.0.1:5470",
        about: "where inference requests come in",
        form: Form::Address,
    },
    Setting {
        key: "server.patience",
        default: "30s",
        about: "how long requests in flight may take when the server stops",
        form: Form::Duration,
    },
    Setting {
        key: "server.proxies",
        default: "none",
        about: "addresses of proxies in front, by commas: what they say of callers is believed",
        form: Form::Text,
    },
    Setting {
        key: "server.threads",
        default: "auto",
        about: "threads of the gateway; auto is one a core",
        form: Form::Count,
    },
    Setting {
        key: "sharing.longest_turn",
        default: "60s",
        about: "how long at most an instance keeps its room while another one waits; 0s: idle ones are evicted at once, always",
        form: Form::Duration,
    },
    Setting {
        key: "tasks.ca",
        default: "system",
        about: "whose certificates https destinations may have: a PEM file, or those that the system trusts",
        form: Form::Text,
    },
    Setting {
        key: "tasks.delivery",
        default: "1d",
        about: "how long it is tried to tell a destination that a task is over",
        form: Form::Duration,
    },
    Setting {
        key: "tasks.payload",
        default: "16MiB",
        about: "the largest payload of a task; 256MiB at most",
        form: Form::Size,
    },
    Setting {
        key: "tasks.per_function",
        default: "1000000",
        about: "tasks of one function that may wait; more are refused with 429",
        form: Form::Count,
    },
    Setting {
        key: "tasks.result",
        default: "16MiB",
        about: "bytes of a task's result that are kept; of a longer one, the beginning",
        form: Form::Size,
    },
    Setting {
        key: "tasks.retention",
        default: "7d",
        about: "how long a task that is over can be asked for",
        form: Form::Duration,
    },
    Setting {
        key: "tasks.tenant_bytes",
        default: "8GiB",
        about: "payload bytes of a tenant's tasks that may wait; more are refused with 429",
        form: Form::Size,
    },
    Setting { key: "tasks.threads", default: "2", about: "threads that run tasks", form: Form::Count },
    Setting {
        key: "tasks.waiting",
        default: "2000000",
        about: "tasks of all functions that may wait; more are refused with 429",
        form: Form::Count,
    },
    Setting {
        key: "tasks.waiting_bytes",
        default: "16GiB",
        about: "payload bytes of all tasks that may wait; more are refused with 429",
        form: Form::Size,
    },
    Setting {
        key: "tasks.weights",
        default: "none",
        about: "tasks in a row that tenants have when their turn comes, such as team-a=3, team-b=2; 1 for all others",
        form: Form::Text,
    },
    Setting {
        key: "tls.certificate",
        default: "none",
        about: "file of the certificate and those between it and its root, PEM; read again when it changes",
        form: Form::Text,
    },
    Setting { key: "tls.key", default: "none", about: "file of the certificate's key, PEM", form: Form::Text },
    Setting {
        key: "tls.listen",
        default: "none",
        about: "where inference requests come in over TLS, such as 0.0.0.0:5443",
        form: Form::Text,
    },
    Setting {
        key: "traces.endpoint",
        default: "none",
        about: "a collector that takes traces of requests by OTLP over HTTP, such as http://127.0.0.1:4318",
        form: Form::Text,
    },
    Setting {
        key: "traces.share",
        default: "1",
        about: "of requests that come without a trace, the share that gets one, from 0 to 1",
        form: Form::Share,
    },
];
