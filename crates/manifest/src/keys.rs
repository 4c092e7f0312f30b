//! Which keys there are in each map, which come with later work, and what was probably meant by any other.
//!
//! A test compares these tables with the schema.

use kip_spec::{Problem, code};

/// The keys of one map.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Dotted name of the map below a function; for finding out that a key stands in the wrong place.
    pub(crate) name: &'static str,
    /// Those that are read.
    pub(crate) known: &'static [&'static str],
    /// Those of the design that are not read yet, each with what to do today.
    pub(crate) later: &'static [(&'static str, &'static str)],
}

pub(crate) const DOCUMENT: Keys = Keys {
    name: "",
    known: &["api", "defaults", "functions", "jobs"],
    later: &[
        ("models", "give each function its model as a path: `model: ./digits.onnx`"),
        ("pools", "all instances run on this host"),
        ("services", "put values that functions share under `defaults:`"),
        ("secrets", "`kip secret set NAME` keeps a value, and `env: {TOKEN: {secret: NAME}}` gives it to instances"),
    ],
};

pub(crate) const FUNCTION: Keys = Keys {
    name: "functions.<name>",
    known: &[
        "dir",
        "run",
        "model",
        "image",
        "entrypoint",
        "pull",
        "container",
        "code",
        "writable",
        "data",
        "env",
        "env_file",
        "resources",
        "instances",
        "probes",
        "lifecycle",
        "timeouts",
        "queue",
        "idle",
        "watchdog",
        "rotation",
        "scaling",
        "dispatch",
        "protocol",
        "request_body",
        "port",
        "ports",
        "listen",
        "user",
        "deploy",
        "runtime",
        "names",
        "traffic",
        "rollout",
        "trigger",
        "latency",
        "canary",
    ],
    later: LATER_IN_A_FUNCTION,
};

pub(crate) const DEFAULTS: Keys = Keys {
    name: "defaults",
    known: &[
        "code",
        "env",
        "env_file",
        "resources",
        "instances",
        "probes",
        "lifecycle",
        "timeouts",
        "queue",
        "idle",
        "watchdog",
        "rotation",
        "scaling",
        "dispatch",
        "protocol",
        "request_body",
        "port",
        "ports",
        "listen",
        "user",
        "deploy",
        "runtime",
        "trigger",
        "latency",
        "canary",
    ],
    later: LATER_IN_A_FUNCTION,
};

const LATER_IN_A_FUNCTION: &[(&str, &str)] = &[
    ("preset", "start the engine with `run:` and name its readiness path under `probes:`"),
    ("retries", "let the caller repeat what failed"),
    ("destinations", "let the program send its result itself"),
    ("schedules", "`instances.min` keeps instances alive all day; a job has a `schedule`"),
    ("provisioned", "`instances.min` keeps instances alive"),
    ("mounts", "a program of this host sees its files; a container has `container.mounts`"),
    ("secrets", "`kip secret set NAME` keeps a value, and `env: {TOKEN: {secret: NAME}}` gives it to instances"),
    ("pool", "all instances run on this host"),
    ("labels", "name functions so that they sort together"),
];

pub(crate) const ROLLOUT: Keys = Keys {
    name: "rollout",
    known: &["alias", "steps", "every", "keep", "least", "max_errors", "max_slower", "max_failed_starts", "park_old"],
    later: &[],
};

pub(crate) const JOB: Keys = Keys {
    name: "jobs.<name>",
    known: &[
        "dir",
        "run",
        "image",
        "entrypoint",
        "pull",
        "container",
        "env",
        "env_file",
        "resources",
        "parallel",
        "retries",
        "timeout",
        "grace",
        "schedule",
    ],
    later: &[("destinations", "`kip task config set <job> --on-failure …` names who is told")],
};

pub(crate) const CONTAINER: Keys = Keys {
    name: "container",
    known: &["port", "user", "shm", "network", "hardened", "hosts", "mounts"],
    later: &[("privileged", "name what the program needs; devices come by `resources.gpu`")],
};

pub(crate) const RETRIES: Keys = Keys { name: "jobs.<name>.retries", known: &["max", "only", "never"], later: &[] };

pub(crate) const SCHEDULE: Keys = Keys {
    name: "jobs.<name>.schedule",
    known: &["cron", "zone", "overlap", "missed", "deadline", "paused"],
    later: &[],
};

pub(crate) const RESOURCES: Keys = Keys {
    name: "resources",
    known: &["cpu", "memory", "gpu"],
    later: &[("disk", "leave it out: the program may use the disk of this host")],
};

pub(crate) const GPU: Keys =
    Keys { name: "resources.gpu", known: &["memory", "cards", "type", "isolation"], later: &[] };

pub(crate) const INSTANCES: Keys = Keys {
    name: "instances",
    known: &["min", "max", "concurrency", "pin", "priority"],
    later: &[("initial", "`instances.min` starts and keeps instances")],
};

pub(crate) const CONCURRENCY: Keys = Keys { name: "instances.concurrency", known: &["hard", "soft"], later: &[] };

pub(crate) const PROBES: Keys = Keys {
    name: "probes",
    known: &["ready", "live"],
    later: &[("startup", "`probes.ready` with `timeouts.startup` covers the start")],
};

pub(crate) const READY: Keys = Keys {
    name: "probes.ready",
    known: &["path", "tcp", "exec", "delay", "period", "timeout", "failures", "successes"],
    later: &[("grpc", "write `tcp: true`, or `exec` with a program that asks the service")],
};

pub(crate) const LIVE: Keys =
    Keys { name: "probes.live", known: &["path", "delay", "period", "timeout", "failures"], later: &[] };

pub(crate) const LIFECYCLE: Keys = Keys {
    name: "lifecycle",
    known: &["initialize", "pre_stop", "stop", "sleep"],
    later: &[
        ("pre_freeze", "`sleep.down` names what is called before an instance gives its device memory back"),
        ("post_wake", "`sleep.up` names what is called when it takes the memory again"),
    ],
};

pub(crate) const SLEEP: Keys = Keys { name: "lifecycle.sleep", known: &["down", "up"], later: &[] };

pub(crate) const CALL: Keys =
    Keys { name: "lifecycle.sleep.down", known: &["path", "method", "body", "timeout"], later: &[] };

pub(crate) const LATENCY: Keys = Keys { name: "latency", known: &["wake"], later: &[] };

pub(crate) const DATA: Keys = Keys { name: "data", known: &["share", "writable"], later: &[] };

pub(crate) const NAME: Keys = Keys { name: "names", known: &["name", "model", "set", "strip"], later: &[] };

pub(crate) const CANARY: Keys =
    Keys { name: "canary", known: &["path", "method", "body", "status", "json", "tolerance", "timeout"], later: &[] };

pub(crate) const STOP: Keys = Keys { name: "lifecycle.stop", known: &["signal", "to"], later: &[] };

pub(crate) const HOOK: Keys = Keys { name: "lifecycle.initialize", known: &["path", "timeout"], later: &[] };

pub(crate) const TIMEOUTS: Keys =
    Keys { name: "timeouts", known: &["startup", "queue", "first_byte", "idle", "total", "grace"], later: &[] };

pub(crate) const QUEUE: Keys = Keys {
    name: "queue",
    known: &["depth"],
    later: &[("priority", "requests of one function are served in the order of their arrival")],
};

pub(crate) const IDLE: Keys = Keys { name: "idle", known: &["pause", "park", "spill", "stop", "cpu"], later: &[] };

pub(crate) const DEPLOY: Keys = Keys { name: "deploy", known: &["strategy"], later: &[] };

pub(crate) const WATCHDOG: Keys = Keys { name: "watchdog", known: &["stall"], later: &[] };

pub(crate) const ROTATION: Keys = Keys { name: "rotation", known: &["max_age", "max_memory"], later: &[] };

pub(crate) const SCALING: Keys = Keys {
    name: "scaling",
    known: &[
        "mode",
        "annotations",
        "config",
        "provision",
        "period",
        "hold",
        "coefficient",
        "disable_ondemand",
        "class",
        "keep",
    ],
    later: &[],
};

pub(crate) const TRIGGER: Keys = Keys {
    name: "trigger",
    known: &["http"],
    later: &[
        ("timer", "declare a job with a `schedule` that calls the function: docs/jobs.md"),
        ("queue", "let a program of your own take from the queue and call the function over HTTP"),
        ("object_store", "let a program of your own watch the store and call the function over HTTP"),
    ],
};

pub(crate) const HTTP: Keys =
    Keys { name: "trigger.http", known: &["auth", "tasks", "methods", "exempt", "cors"], later: &[] };

pub(crate) const CORS: Keys =
    Keys { name: "trigger.http.cors", known: &["origins", "headers", "expose", "credentials", "max_age"], later: &[] };

/// Every map, for finding a key in another place and for the test against the schema.
pub(crate) const ALL: &[&Keys] = &[
    &DOCUMENT,
    &FUNCTION,
    &DEFAULTS,
    &CONTAINER,
    &RESOURCES,
    &GPU,
    &INSTANCES,
    &CONCURRENCY,
    &PROBES,
    &READY,
    &LIVE,
    &LIFECYCLE,
    &HOOK,
    &STOP,
    &SLEEP,
    &CALL,
    &LATENCY,
    &CANARY,
    &NAME,
    &DATA,
    &TIMEOUTS,
    &QUEUE,
    &IDLE,
    &DEPLOY,
    &WATCHDOG,
    &ROTATION,
    &ROLLOUT,
    &SCALING,
    &TRIGGER,
    &HTTP,
    &CORS,
    &JOB,
    &RETRIES,
    &SCHEDULE,
];

/// Words of other tools for ours.
const SYNONYMS: &[(&str, &str)] = &[
    ("command", "run"),
    ("cmd", "run"),
    ("args", "run"),
    ("entrypoint", "run"),
    ("environment", "env"),
    ("variables", "env"),
    ("cwd", "dir"),
    ("working_dir", "dir"),
    ("workdir", "dir"),
    ("replicas", "instances"),
    ("scale", "instances"),
    ("triggers", "trigger"),
    ("limits", "resources"),
    ("version", "api"),
    ("apiVersion", "api"),
    ("timezone", "zone"),
    ("timeZone", "zone"),
    ("tz", "zone"),
    ("concurrencyPolicy", "overlap"),
    ("startingDeadlineSeconds", "deadline"),
    ("suspend", "paused"),
    ("backoffLimit", "retries"),
    ("timer", "schedule"),
];

impl Keys {
    /// Why a key that is not known is refused.
    pub(crate) fn refuse(&self, key: &str, path: &str) -> Problem {
        if let Some((_, hint)) = self.later.iter().find(|(later, _)| *later == key) {
            return not_yet(path, hint);
        }
        let problem = Problem::new(code::MANIFEST_UNKNOWN_KEY, format!("`{path}` does not exist"));
        if key == "name" && self.known.contains(&"run") {
            return problem.hint("a function's name is the key above it");
        }
        if let Some((_, ours)) = self.synonym(key) {
            return problem.hint(format!("write `{ours}`"));
        }
        if let Some(near) = self.nearest(key) {
            return problem.hint(format!("did you mean `{near}`?"));
        }
        if let Some(other) = ALL.iter().find(|other| other.known.contains(&key)) {
            return problem.hint(match other.name {
                "" => format!("`{key}` belongs at the top of the manifest"),
                name => format!("`{key}` belongs below `{name}`"),
            });
        }
        problem.hint(format!("the keys here are {}", self.known.join(", ")))
    }

    /// The key that a wrong one was probably meant to be.
    pub(crate) fn meant(&self, key: &str) -> Option<&'static str> {
        self.synonym(key).map(|(_, ours)| *ours).or_else(|| self.nearest(key))
    }

    fn synonym(&self, key: &str) -> Option<&'static (&'static str, &'static str)> {
        SYNONYMS.iter().find(|(word, ours)| *word == key && self.known.contains(ours))
    }

    fn nearest(&self, key: &str) -> Option<&'static str> {
        // A long key is no typing error of a short one, and comparing it would cost time.
        if key.len() > 40 {
            return None;
        }
        let folded = key.to_lowercase().replace('-', "_");
        let scored = self.known.iter().map(|known| (strsim::damerau_levenshtein(&folded, known), *known));
        scored.filter(|(distance, known)| *distance <= (known.len() / 3).max(1)).min().map(|(_, known)| known)
    }
}

/// A word of the design that is refused by name until it works.
pub(crate) fn not_yet(path: &str, hint: &str) -> Problem {
    Problem::new(code::NOT_YET, format!("`{path}` is not available yet")).hint(format!("today: {hint}"))
}
