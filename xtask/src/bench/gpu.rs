//! The GPU benchmark: built here, run here or carried to a machine that has a GPU and no registries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{command, root, show};

/// What is carried must fit.
const MOST_BYTES: u64 = 50 << 20;

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    dry: bool,
    pack: bool,
    budget: Option<String>,
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &[&str]) -> Result<()> {
    let options = parse(arguments)?;
    show(command("cargo", &["build", "--release", "--quiet", "-p", "kip-freezer", "--example", "gpu_bench"]))?;
    let target = target()?;
    let program = target.join("release/examples/gpu_bench");
    if options.pack {
        return pack(&program, &target.join("gpu-bench"));
    }
    let out = options.out.unwrap_or_else(|| target.join("gpu-figures"));
    let mut run = command(&program.display().to_string(), &["run", "--out"]);
    run.arg(&out).args(["--budget", options.budget.as_deref().unwrap_or("540")]);
    if options.dry {
        let arguments = ["build", "--release", "--quiet", "-p", "kip-cuda-standin", "--lib"];
        show(command("cargo", &arguments))?;
        let library = target.join("release/libkip_cuda_standin.so");
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("knobs"), "capacity = 1073741824\ncontext = 1048576\n")?;
        run.arg("--dry-run").env("KIPWAKE_CUDA_LIBRARY", &library).env("KIPWAKE_NVML_LIBRARY", &library);
        run.env("KIPWAKE_STANDIN_DIR", folder.path());
        show(run)?;
    } else {
        run.arg("--torch").arg(root().join("crates/freezer/bench/torch_server.py"));
        show(run)?;
    }
    println!("raw lines and table: {}", out.display());
    Ok(())
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match *word {
            "--dry-run" => options.dry = true,
            "--pack" => options.pack = true,
            "--budget" => options.budget = Some((*value()?).to_owned()),
            "--out" => options.out = Some(std::path::absolute(value()?)?),
            other => bail!("`cargo xtask bench gpu` has no option {other}"),
        }
    }
    Ok(options)
}

/// Where cargo puts what it builds: this program lies in a folder of it.
pub(super) fn target() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).context("this program lies in no target folder")?;
    Ok(target.to_owned())
}

/// Binary without symbols, PyTorch server and script in one folder.
fn pack(program: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let carried = folder.join("gpu_bench");
    let mut strip = command("strip", &["-o"]);
    strip.arg(&carried).arg(program);
    show(strip)?;
    for name in ["run.sh", "torch_server.py"] {
        fs::copy(root().join("crates/freezer/bench").join(name), folder.join(name))?;
    }
    let mut all = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let bytes = entry.metadata()?.len();
        println!("{:>12}  {}", bytes, entry.path().display());
        all += bytes;
    }
    if all > MOST_BYTES {
        bail!("{all} bytes are more than {MOST_BYTES}");
    }
    println!("carry the folder to the machine and run `sh run.sh` in it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_others_refused() {
        let options = parse(&["--dry-run", "--budget", "60"]).unwrap();
        assert_eq!((options.dry, options.pack, options.budget.as_deref()), (true, false, Some("60")));
        assert!(parse(&["--budget"]).is_err() && parse(&["--gpu"]).is_err());
    }
}
