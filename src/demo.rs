//! `segdist demo`: from nothing to a trained network and its report on synthetic images, in minutes on two cores.
//!
//! It starts the program's own verbs one after another and shows each command, so that what it does can be done by hand.

use crate::fault;
use anyhow::Context;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The configuration, written for a demo under runs/demo.
const CONFIG: &str = include_str!("../configs/demo.yaml");

/// Runs the demo with everything under `out`; `overrides` go to the training. What an earlier demo made is used again.
///
/// Returns the exit code of the first command that fails, else 0.
pub fn run(out: &Path, overrides: &[String]) -> anyhow::Result<u8> {
    let demo = Demo::new(out)?;
    match demo.all(overrides)? {
        Some(failed) => Ok(failed),
        None => {
            demo.tell();
            Ok(0)
        }
    }
}

struct Demo {
    out: PathBuf,
    program: PathBuf,
    /// Starts two ranks; None: no launcher was found, or there is one GPU for one rank.
    mpirun: Option<PathBuf>,
}

impl Demo {
    fn new(out: &Path) -> anyhow::Result<Demo> {
        fs::create_dir_all(out).map_err(|cause| fault::unwritable(out, cause))?;
        let program = std::env::current_exe().context("where this program lies cannot be told")?;
        let mpirun = (tch::Cuda::device_count() != 1).then(|| launcher(&program)).flatten();
        if mpirun.is_none() {
            log::info!("one rank: mpirun was not found, or there is one GPU");
        }
        Ok(Demo { out: out.to_path_buf(), program, mpirun })
    }

    /// The exit code of the first command that fails.
    fn all(&self, overrides: &[String]) -> anyhow::Result<Option<u8>> {
        let config = self.path("demo.yaml");
        fs::write(&config, configuration(&self.out)?).map_err(|cause| fault::unwritable(&config, cause))?;
        let cfg = |verb: &str| vec![verb.into(), "--cfg".into(), config.clone().into_os_string()];
        let mut commands = Vec::new();
        if !self.path("data/validation.odgt").exists() {
            commands.push((false, words("demo-data --out", &[&self.path("data")])));
        }
        for split in ["training", "validation"] {
            let shards = self.path(&format!("shards/{split}"));
            if !shards.join("index.json").exists() {
                let list = self.path(&format!("data/{split}.odgt"));
                let mut pack = words("pack --odgt", &[&list]);
                pack.extend(words("--root", &[&self.path("data")]));
                pack.extend(words("--out", &[&shards]));
                commands.push((false, pack));
            }
        }
        commands.push((true, [cfg("train"), overrides.iter().map(Into::into).collect()].concat()));
        commands.push((true, [cfg("eval"), words("--checkpoint latest", &[])].concat()));
        let images = self.path("data/images/validation");
        commands.push((false, [cfg("predict"), words("--out", &[&self.path("overlays"), &images])].concat()));
        commands.push((false, words("report --out", &[&self.path("report.html"), &self.path("run")])));
        for (on_ranks, arguments) in commands {
            let status = self.start(on_ranks, arguments)?;
            if !status.success() {
                return Ok(Some(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
            }
        }
        Ok(None)
    }

    fn start(&self, on_ranks: bool, arguments: Vec<OsString>) -> anyhow::Result<ExitStatus> {
        let mut command = match self.mpirun.as_ref().filter(|_| on_ranks) {
            Some(mpirun) => {
                let mut command = Command::new(mpirun);
                command.args(["-np", "2", "--bind-to", "none"]).arg(&self.program);
                // Open MPI wants to hear twice that running as root is meant.
                command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
                // Each rank computes on its share of the cores.
                let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
                command.env("OMP_NUM_THREADS", cores.to_string());
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&arguments);
        let shown: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        let launcher = if self.mpirun.is_some() && on_ranks { "mpirun -np 2 " } else { "" };
        println!("\n$ {launcher}segdist {}", shown.join(" "));
        command.status().with_context(|| format!("{}: cannot be started", command.get_program().display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    fn tell(&self) {
        for (what, name) in [
            ("report", "report.html"),
            ("overlays", "overlays/*.overlay.png"),
            ("curve", "run/curve.png"),
            ("checkpoints", "run/checkpoints/"),
            ("metrics", "run/metrics.jsonl"),
            ("configuration", "demo.yaml"),
        ] {
            println!("{what:<14} {}", self.path(name).display());
        }
    }
}

/// Words of a command line, then paths.
fn words(text: &str, paths: &[&Path]) -> Vec<OsString> {
    text.split(' ').map(Into::into).chain(paths.iter().map(Into::into)).collect()
}

/// The demo's configuration with its paths under `out`.
fn configuration(out: &Path) -> anyhow::Result<String> {
    let out = out.to_str().with_context(|| format!("{}: a name that is no text", out.display()))?;
    // A string of JSON is one of YAML.
    let quoted = serde_json::to_string(out)?;
    let begin = format!("{}/", quoted.trim_end_matches('"').trim_end_matches('/'));
    Ok(CONFIG.replace("\"./runs/demo/", &begin).replace("\"runs/demo/", &begin))
}

/// mpirun where the program was installed or built, then PATH's.
fn launcher(program: &Path) -> Option<PathBuf> {
    let beside = program.parent()?;
    let known = [beside.join("mpirun"), beside.join("../../.deps/bin/mpirun")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = known.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join("mpirun")));
    all.find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_s_paths_lie_under_the_folder_that_was_asked_for() {
        let text = configuration(Path::new("a \"b\"/c")).unwrap();
        assert!(
            text.contains(r#"DIR: "a \"b\"/c/run""#) && text.contains(r#"list_val: "a \"b\"/c/shards/validation""#)
        );
        assert!(!text.contains("\"./runs") && !text.contains("\"runs"), "{text}");
    }
}
