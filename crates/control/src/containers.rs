//! Functions whose instances are containers: which image a version means, and what speaks against it, before the version is made.

use kip_engine::{ContainerEngine, EngineError};
use kip_spec::container::{Container, PullPolicy};
use kip_spec::function::{FunctionSpec, Program};
use kip_spec::{Problem, code};

use crate::control::Control;

impl Control {
    /// The container engine of this host.
    ///
    /// # Errors
    /// A server that was built without containers.
    pub fn engine(&self) -> Result<&dyn ContainerEngine, Problem> {
        self.shared.bodies.engine().ok_or_else(|| {
            Problem::new(code::ENGINE_OFF, "this server was built without containers")
                .hint("build it with its feature `docker`, which is a default one")
        })
    }

    /// Notes in a declaration which image its name means now, pulled if its policy says so. What is no container stays as it is.
    ///
    /// # Errors
    /// No engine answers, it does not have the image or cannot pull it, the image is for another architecture, or a folder may not be
    /// mounted.
    pub async fn resolve_image(&self, spec: &mut FunctionSpec) -> Result<(), Problem> {
        self.check_pools(spec)?;
        let Program::Image(container) = &mut spec.program else { return Ok(()) };
        let asked = self.for_engine(container);
        self.shared.images.deploys(&asked.image);
        let mut resolved = self.engine()?.resolve(&asked).await;
        if matches!(resolved, Err(EngineError::NoEngine(_) | EngineError::Off)) {
            // Without an engine of its own, the host leaves images to the first pool that answers.
            for (_, engine) in self.shared.bodies.engines() {
                if let Ok(there) = engine.resolve(&asked).await {
                    resolved = Ok(there);
                    break;
                }
            }
        }
        let resolved = resolved.map_err(|error| problem(&error).about(&spec.name))?;
        **container = Container { mounts: std::mem::take(&mut container.mounts), ..resolved };
        self.shared.bring_image(spec).await;
        self.images_changed();
        Ok(())
    }

    /// What an engine is asked about an image. Folders are the business of pools where there are several.
    fn for_engine(&self, container: &Container) -> Container {
        let mounts = if self.shared.options.pools.len() > 1 { Vec::new() } else { container.mounts.clone() };
        Container { mounts, ..container.clone() }
    }
}

impl Control {
    /// The same without a pull, for a plan. What speaks against the deployment is a warning.
    pub async fn preview_image(&self, spec: &mut FunctionSpec) -> Option<Problem> {
        if let Err(problem) = self.check_pools(spec) {
            return Some(problem);
        }
        let Program::Image(container) = &mut spec.program else { return None };
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(problem) => return Some(problem),
        };
        let pull = container.pull;
        let here = Container { pull: PullPolicy::Never, ..self.for_engine(container) };
        match engine.resolve(&here).await {
            Ok(resolved) => {
                **container = Container { pull, mounts: std::mem::take(&mut container.mounts), ..resolved };
                None
            }
            Err(EngineError::Missing(image)) if pull != PullPolicy::Never => Some(Problem::new(
                code::IMAGE_MISSING,
                format!("`{}`: the engine does not have the image {image}; a deployment pulls it", spec.name),
            )),
            Err(error) => Some(problem(&error).about(&spec.name)),
        }
    }
}

/// An error of the engine as people see it.
pub fn engine_problem(error: &EngineError) -> Problem {
    problem(error).0
}

struct Unnamed(Problem);

impl Unnamed {
    fn about(self, name: &kip_spec::FunctionName) -> Problem {
        Problem { message: format!("`{name}` cannot run: {}", self.0.message), ..self.0 }
    }
}

fn problem(error: &EngineError) -> Unnamed {
    let (code, hint) = match error {
        EngineError::Off => (
            code::ENGINE_OFF,
            "set containers.engine in kipwake.toml to auto, or to the path of a socket, and start the server again",
        ),
        EngineError::NoEngine(_) => (
            code::ENGINE_UNAVAILABLE,
            "install Docker (`apt-get install docker.io`) or Podman (`apt-get install podman`, then `systemctl enable --now podman.socket`) and start it; or name its socket: containers.engine = \"/run/docker.sock\" in kipwake.toml; `kip doctor` shows what was found",
        ),
        EngineError::Missing(_) => (
            code::IMAGE_MISSING,
            "build or pull it (`kip image pull NAME`), or write `pull: missing`; `kip image ls` lists those there are",
        ),
        EngineError::Pull { .. } => (
            code::IMAGE_PULL_FAILED,
            "check the name and the network; for a private registry, `docker login` or `podman login` as the user that the server runs as",
        ),
        EngineError::Platform { .. } => {
            (code::IMAGE_PLATFORM, "name an image that was built for this architecture too")
        }
        EngineError::Mount { .. } => (
            code::MOUNT_NOT_ALLOWED,
            "the operator allows it: containers.mounts = \"/srv/models\" in kipwake.toml, folders by commas",
        ),
        EngineError::InUse { .. } => {
            (code::IMAGE_IN_USE, "remove the functions that use it first: `kip ps` shows their instances")
        }
        EngineError::Refused(_) => (code::CONTAINER_REFUSED, "the log of the container engine says more"),
    };
    Unnamed(Problem::new(code, error.to_string()).hint(hint))
}
