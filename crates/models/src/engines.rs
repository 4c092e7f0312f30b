//! Engines that presets need: where their programs are, and environments of our own for them. Blocks.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kip_spec::{Problem, code};

use crate::preset::{App, Preset};

/// Lines of an installer's output that a problem shows.
const LAST_LINES: usize = 6;

/// Engines of a server.
#[derive(Debug, Clone)]
pub struct Engines {
    folder: PathBuf,
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = kip_host::environment::read("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_program(file))
}

impl Engines {
    /// Engines with their environments in this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn environment(&self, preset: &Preset) -> PathBuf {
        self.folder.join(&preset.name)
    }

    /// The program in the preset's own environment, if it was installed.
    pub fn own_program(&self, preset: &Preset) -> Option<PathBuf> {
        let engine = preset.engine.as_ref()?;
        let environment = self.environment(preset);
        let is_whole = environment.join("installed.txt").is_file();
        Some(environment.join("bin").join(&engine.program)).filter(|program| is_whole && is_program(program))
    }

    /// The program of a preset's engine. A Python alone is no engine: it has the packages only in an environment of ours.
    pub fn program(&self, preset: &Preset) -> Option<PathBuf> {
        let engine = preset.engine.as_ref()?;
        let is_python = engine.program.starts_with("python") && !engine.packages.is_empty();
        self.own_program(preset).or_else(|| if is_python { None } else { in_path(&engine.program) })
    }

    /// The file of the preset's app, written if it is not there yet. `None` for a preset without an app.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn app(&self, preset: &Preset) -> Result<Option<PathBuf>, Problem> {
        let Some(app) = preset.app.as_deref().and_then(App::find) else { return Ok(None) };
        app.place(&self.folder.join("apps")).map(Some).map_err(|error| {
            Problem::new(code::ENGINE_INSTALL, format!("the app of preset `{}` cannot be written", preset.name))
                .cause(error.to_string())
        })
    }

    /// Whether a model can be served with a preset here.
    pub fn serves(&self, preset: &Preset) -> bool {
        preset.engine.is_none() || self.program(preset).is_some()
    }

    /// Makes an environment of Python with the preset's packages, by uv or pip, and writes down what was installed. The environment has
    /// its name only when it is whole. Takes minutes.
    ///
    /// # Errors
    /// When there are no packages to install, or the installer fails.
    pub fn install(&self, preset: &Preset) -> Result<PathBuf, Problem> {
        let failed = |cause: String| {
            Problem::new(code::ENGINE_INSTALL, format!("the engine of preset `{}` could not be installed", preset.name))
                .cause(cause)
        };
        let packages = preset.engine.as_ref().map(|engine| engine.packages.as_slice()).unwrap_or_default();
        let by_hand = preset.engine.as_ref().map(|engine| engine.install.clone()).unwrap_or_default();
        if packages.is_empty() {
            let message = format!(
                "the engine of preset `{}` is not installed by Kipwake: it is no package of Python",
                preset.name
            );
            return Err(Problem::new(code::PRESET_BY_HAND, message).hint(by_hand));
        }
        let io = |error: std::io::Error| failed(error.to_string());
        let environment = self.environment(preset);
        let lock = environment.join("installed.txt");
        let _ = std::fs::remove_file(&lock);
        kip_host::directory::create_private(&self.folder).map_err(io)?;
        let _ = std::fs::remove_dir_all(&environment);
        let python = environment.join("bin/python");
        let text = |path: &Path| path.display().to_string();
        let (make, mut install, freeze) = match in_path("uv") {
            Some(uv) => (
                vec![text(&uv), "venv".to_owned(), "--seed".to_owned(), text(&environment)],
                vec![text(&uv), "pip".to_owned(), "install".to_owned(), "--python".to_owned(), text(&python)],
                vec![text(&uv), "pip".to_owned(), "freeze".to_owned(), "--python".to_owned(), text(&python)],
            ),
            None => {
                let missing = || {
                    let message = "there is no python3 and no uv in the PATH of the server";
                    Problem::new(code::INSTALLER_MISSING, message).hint(by_hand.clone())
                };
                let base = in_path("python3").ok_or_else(missing)?;
                let pip = |word: &str| vec![text(&python), "-m".to_owned(), "pip".to_owned(), word.to_owned()];
                (
                    vec![text(&base), "-m".to_owned(), "venv".to_owned(), text(&environment)],
                    pip("install"),
                    pip("freeze"),
                )
            }
        };
        install.extend(packages.iter().cloned());
        run(&make).and_then(|_| run(&install)).map_err(|cause| failed(cause).hint(by_hand.clone()))?;
        let installed = run(&freeze).map_err(failed)?;
        // Instances of other users read it, but not by way of the data directory.
        std::fs::set_permissions(&environment, std::fs::Permissions::from_mode(0o755)).map_err(io)?;
        kip_host::directory::write_whole(&lock, installed.as_bytes()).map_err(io)?;
        self.own_program(preset).ok_or_else(|| failed("the packages have no such program".to_owned()).hint(by_hand))
    }
}

/// Runs a command to its end and gives what it printed.
fn run(words: &[String]) -> Result<String, String> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{}: {error}", words[0]))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Err(format!(
        "`{}` ended with {}: {}",
        words.join(" "),
        output.status,
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    ))
}
