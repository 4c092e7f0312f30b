//! What is known at a deployment to go wrong later: a program that is not there, an ask that no host meets, an instance of
//! the version before that has to end first.

use std::sync::atomic::Ordering;

use kip_engine::StartError;
use kip_fleet::{Class, Policy};
use kip_spec::function::{FunctionSpec, GpuIsolation, Program};
use kip_spec::{InstanceId, Problem, VersionId, code};

use crate::Control;
use crate::device_use::UNASKED;
use crate::execute::failure_of;
use crate::version::Version;

impl Control {
    /// What speaks against a declaration on this host. Before it is deployed.
    pub async fn check(&self, spec: &FunctionSpec) -> Vec<Problem> {
        let mut found = Vec::new();
        found.extend(self.missing_program(spec).await);
        found.extend(self.too_large(spec));
        found.extend(self.displaces(spec));
        found.extend(self.unasked(spec));
        found.extend(heartbeat(spec));
        found
    }

    /// The program or its folder is not there.
    async fn missing_program(&self, spec: &FunctionSpec) -> Option<Problem> {
        // Its engine was asked when the image was looked up.
        if matches!(spec.program, Program::Image(_)) {
            return None;
        }
        let options = &self.shared.options;
        let version = Version::new(VersionId(0), spec.clone(), options.offer());
        let nobody = InstanceId { boot: 0, core: 0, sequence: 0 };
        let mut order = version.order(nobody, options, None);
        if spec.job.is_some() {
            // What the runner of jobs starts.
            if let Program::Command { argv, .. } = &spec.program {
                (order.program, order.argv) = (None, argv.clone());
            }
        }
        // A variable of the instance alone may name it.
        if order.argv.first().is_some_and(|word| word.contains("${")) {
            return None;
        }
        let checked = kip_host::tasks::blocking("check program", move || kip_engine::check_start(&order)).await;
        let StartError { detail, .. } = checked.clone().flatten()?;
        let code = failure_of(&checked.flatten()?).code();
        let problem = Problem::new(code, format!("`{}` cannot start: {detail}", spec.name));
        let until = match self.cell(spec.name.as_str()) {
            Some(cell) if cell.serving().spec.program != spec.program => "the version before serves on if it runs",
            _ => "requests fail with this error",
        };
        Some(problem.hint(format!("{until}; correct `run` or `dir`, or install the program")))
    }

    /// No host has as much as it asks for.
    fn too_large(&self, spec: &FunctionSpec) -> Option<Problem> {
        let unmet = self.never_fits(spec)?;
        let message = format!("`{}` can never start: {unmet}", spec.name);
        Some(Problem::new(code::NO_CAPACITY, message).hint("lower `resources`, or declare the devices in kipwake.toml"))
    }

    /// It asks for a limiter of device memory that is not there: it must not be deployed.
    pub fn unlimited(&self, spec: &FunctionSpec) -> Option<Problem> {
        spec.resources.gpu.as_ref().filter(|gpu| gpu.isolation == GpuIsolation::Preload)?;
        let (cause, hint) = match (&self.shared.options.limiter, &spec.program) {
            (None, _) => (
                "no library is named by `sharing.limiter` in kipwake.toml",
                "install one, such as HAMi-core's libvgpu.so, name it and restart the server; or write `isolation: account`",
            ),
            (_, Program::Image(_)) => (
                "the library of the host is not in the image",
                "put it into the image with LD_PRELOAD and CUDA_DEVICE_MEMORY_LIMIT=${KIPWAKE_GPU_MEMORY} in `env`, and write `isolation: account`",
            ),
            _ => return None,
        };
        let message = format!("`{}`: nothing keeps its instances to their share of a device", spec.name);
        Some(Problem::new(code::GPU_NOT_ISOLATED, message).cause(cause).hint(hint))
    }

    /// It names a user that this server cannot run its instances as: it must not be deployed.
    pub fn foreign_user(&self, spec: &FunctionSpec) -> Option<Problem> {
        let name = spec.user.as_deref()?;
        let problem = |code, message: String| Problem::new(code, format!("`{}`: {message}", spec.name));
        if !self.shared.options.code.reads_more || self.shared.options.code.inside {
            let found = problem(code::USER_IMPOSSIBLE, format!("this server cannot run instances as user `{name}`"));
            return Some(
                found
                    .cause("it takes a server of root whose functions are kept from it: `kip doctor` says how they run")
                    .hint("remove `user`, or run the server as root and set functions.user = \"own\""),
            );
        }
        match kip_engine::InstanceUser::named(name) {
            None => Some(
                problem(code::USER_UNKNOWN, format!("this host has no user `{name}`"))
                    .hint("write a name or number of /etc/passwd: getent passwd"),
            ),
            Some(kip_engine::InstanceUser::Named { uid: 0, .. }) => Some(
                problem(code::USER_IMPOSSIBLE, "functions do not run as root".to_owned())
                    .hint("name a user that owns what the function needs"),
            ),
            Some(_) => None,
        }
    }

    /// The version that serves uses the driver of devices, and neither it nor the next one asks for a device.
    fn unasked(&self, spec: &FunctionSpec) -> Option<Problem> {
        let serving = self.cell(spec.name.as_str())?.serving();
        if spec.resources.gpu.is_some() || !serving.loads_driver.load(Ordering::Relaxed) {
            return None;
        }
        let message = format!("`{}`: {UNASKED}", spec.name);
        Some(Problem::new(code::DEVICE_NOT_ASKED_FOR, message).hint("write `resources: {gpu: {memory: auto}}`"))
    }

    /// An instance of the version that serves has to end before the new one can start.
    fn displaces(&self, spec: &FunctionSpec) -> Option<Problem> {
        let cell = self.cell(spec.name.as_str())?;
        let need = self.shared.need_of(spec);
        let recreates = Policy::from(spec).recreate;
        let own: Vec<InstanceId> = cell.look(&cell.lock(), |core| {
            let lives = |class| matches!(class, Class::Hot | Class::Starting | Class::Asleep);
            core.instances().filter(|instance| lives(instance.state.class())).map(|instance| instance.id).collect()
        })?;
        // One that can never start displaces nothing.
        if self.never_fits(spec).is_some() {
            return None;
        }
        let beside = need.is_nothing() || self.shared.with_placer(|placer| placer.has_room(need));
        if own.is_empty() || spec.job.is_some() || beside && !recreates {
            return None;
        }
        let cause = match recreates {
            true => "deploy.strategy is recreate".to_owned(),
            false => format!("there is no room for {need} beside what runs"),
        };
        let message = format!(
            "`{0}`: the version that serves ends before the new one starts; requests wait meanwhile, and it comes back if the new one fails",
            spec.name
        );
        Some(Problem::new(code::DISPLACES, message).cause(cause))
    }
}

/// A gunicorn that is paused for longer than its timeout ends its workers when it goes on: their heartbeats look old.
fn heartbeat(spec: &FunctionSpec) -> Option<Problem> {
    spec.idle.pause?;
    let argv = match &spec.program {
        Program::Command { argv, .. } => argv,
        Program::Image(container) => &container.argv,
        Program::Model { .. } => return None,
    };
    // A shell's command is one word.
    let words: Vec<&str> = argv.iter().flat_map(|word| word.split_whitespace()).collect();
    let is_gunicorn = |word: &&str| word.rsplit('/').next() == Some("gunicorn");
    if spec.job.is_some() || !words.iter().any(is_gunicorn) {
        return None;
    }
    let timeout = words.iter().enumerate().find_map(|(at, word)| match *word {
        "--timeout" | "-t" => words.get(at + 1).copied(),
        word => word.strip_prefix("--timeout="),
    });
    // In its own configuration it cannot be seen.
    if timeout == Some("0") {
        return None;
    }
    let message = format!("`{}`: gunicorn ends its workers after a pause that is longer than its timeout", spec.name);
    let problem = Problem::new(code::PAUSE_ENDS_WORKERS, message);
    let cause = match timeout {
        Some(timeout) => format!("--timeout is {timeout} s; while an instance is paused its clocks go on"),
        None => "--timeout is not given, which is 30 s; while an instance is paused its clocks go on".to_owned(),
    };
    Some(problem.cause(cause).hint("write `--timeout 0` and `watchdog: {stall: 60s}`, or `idle: {pause: never}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gunicorn_with_a_timeout_is_warned_of() {
        let warned = |command: &str| {
            let argv = command.split(' ').map(str::to_owned).collect();
            let program = Program::Command { argv, dir: "/".into() };
            heartbeat(&FunctionSpec::new("f".parse().unwrap(), program)).is_some()
        };
        assert!(
            warned("gunicorn a:app") && warned("/venv/bin/gunicorn a:app --timeout 5") && warned("gunicorn -t 9 a")
        );
        assert!(warned("sh -c gunicorn --timeout=30 a:app"));
        assert!(!warned("gunicorn a:app --timeout 0") && !warned("gunicorn --timeout=0 a") && !warned("uvicorn a:app"));
    }
}
