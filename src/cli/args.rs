//! The command line as typed: verbs, flags and overrides.

use crate::config::Config;
use crate::data::walk::has_image_ending;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Distributed training of semantic segmentation networks.
#[derive(Parser)]
#[command(name = "segdist", version, about, arg_required_else_help = true)]
#[command(
    after_help = "Without a verb, train is meant: mpirun -np 8 segdist --cfg configs/FILE.yaml TRAIN.num_epoch 10\n\
    Exit codes: 0 done, 1 failed, 2 bad usage, configuration or input, 75 stopped after a checkpoint: start again."
)]
pub struct CommandLine {
    /// Only warnings and errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Train, alone or under mpirun or srun (the default verb).
    Train(TrainArgs),
    /// Look at a data set and write a configuration and label map that train on it.
    Init(InitArgs),
    /// Write shards from a list or from folders.
    Pack(PackArgs),
    /// Check every byte of a packed set.
    Verify {
        /// Folder that holds index.json.
        dir: PathBuf,
    },
    /// Evaluate a network, alone or under mpirun.
    Eval(EvalArgs),
    /// Label images: writes OUT/<stem>.label.png, .overlay.png and .json; below a folder, with the folders between.
    Predict(PredictArgs),
    /// Show a run under way in the terminal, or its last numbers where standard output is none.
    Watch {
        /// The run's folder, from any shell that sees it; it need not exist yet.
        dir: PathBuf,
    },
    /// Write one HTML file on one run, or on several side by side.
    Report {
        /// Runs: folders that hold metrics.jsonl.
        #[arg(required = true, value_name = "DIR")]
        dirs: Vec<PathBuf>,
        /// File to write.
        #[arg(long, value_name = "FILE.html")]
        out: PathBuf,
    },
    /// Convert weights between .pth, .safetensors and TorchScript.
    Convert(ConvertArgs),
    /// Show what the order of samples costs on a number of ranks.
    Plan {
        #[command(flatten)]
        config: ConfigArgs,
        /// Number of ranks.
        #[arg(long)]
        ranks: usize,
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Make data, pack, train on two ranks, evaluate, label and report: minutes on two cores.
    Demo {
        /// Folder for everything it makes.
        #[arg(long, default_value = "segdist-demo")]
        out: PathBuf,
        /// Overrides for the training: KEY VALUE or KEY=VALUE.
        #[arg(value_name = "KEY VALUE", allow_negative_numbers = true)]
        overrides: Vec<String>,
    },
    /// Write a small synthetic data set that a network can learn.
    DemoData {
        /// Folder to write to.
        #[arg(long)]
        out: PathBuf,
        /// Another seed gives other images.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Print the resolved configuration, validated.
    Config {
        #[command(flatten)]
        config: ConfigArgs,
        /// List every key with its default and meaning instead.
        #[arg(long)]
        keys: bool,
    },
    /// Print a batch script, to be edited at its head: segdist launch slurm > job.sbatch.
    Launch {
        /// For which scheduler and container runtime.
        what: Scheduler,
    },
    /// Print a shell's completions: source <(segdist completions bash).
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
    /// Say what MPI, devices, libtorch and data look like here, and what to do about problems.
    Doctor {
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Time a part: step, loader, allreduce, or how much of it overlaps with backward.
    Bench {
        /// What to time.
        what: Bench,
        #[command(flatten)]
        config: ConfigArgs,
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
}

/// A configuration file and what overrides it.
#[derive(Args)]
pub struct ConfigArgs {
    /// Configuration file; without one the defaults are meant.
    #[arg(long, value_name = "FILE")]
    pub cfg: Option<PathBuf>,
    /// Overrides: KEY VALUE or KEY=VALUE.
    #[arg(value_name = "KEY VALUE", allow_negative_numbers = true)]
    pub overrides: Vec<String>,
}

#[derive(Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// auto: continue from DIR's newest checkpoint; none: move an old run aside; PATH: start from that checkpoint.
    #[arg(long, default_value = "auto", value_name = "auto|none|PATH")]
    pub resume: String,
    /// Continue with a longer schedule (a larger TRAIN.num_epoch, epoch_iters or epochs_of_data), the run finished or not.
    #[arg(long, conflicts_with = "init_from")]
    pub extend: bool,
    /// Begin a new run from weights: of a run's DIR, a checkpoint, or a file. Where the new DIR holds a run, it continues.
    #[arg(long, value_name = "DIR|CHECKPOINT|FILE")]
    pub init_from: Option<PathBuf>,
}

#[derive(Args)]
pub struct InitArgs {
    /// Folder of images.
    #[arg(long)]
    pub images: Option<PathBuf>,
    /// Folder of labels.
    #[arg(long, requires = "images")]
    pub labels: Option<PathBuf>,
    /// What stands behind an image's stem in its label's name, such as _mask; by default that is found out.
    #[arg(long, requires = "labels", value_name = "SUFFIX", allow_hyphen_values = true)]
    pub label_suffix: Option<String>,
    /// COCO file of the objects on --images.
    #[arg(long, requires = "images", conflicts_with = "labels", value_name = "FILE")]
    pub coco: Option<PathBuf>,
    /// What pixels are that no object covers: a class index or ignore.
    #[arg(long, requires = "coco", default_value = "0", value_name = "CLASS|ignore")]
    pub background: String,
    /// List of samples (.odgt or .odgt.gz); its paths start from --root, by default from the list's folder.
    #[arg(long, conflicts_with = "images", value_name = "FILE")]
    pub odgt: Option<PathBuf>,
    /// A data set's own layout under --root: ade20k, cityscapes, voc, coco-stuff or camvid.
    #[arg(long, requires = "root", conflicts_with_all = ["images", "odgt"])]
    pub layout: Option<String>,
    /// Folder that the list's or the layout's paths start from.
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Configuration to write; label map and lists get its name with an addition.
    #[arg(long, value_name = "FILE.yaml")]
    pub out: PathBuf,
    /// Replace files that are there.
    #[arg(long)]
    pub force: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct PackArgs {
    /// List of samples (.odgt or .odgt.gz).
    #[arg(long, requires = "root", conflicts_with_all = ["images", "labels", "layout"])]
    pub odgt: Option<PathBuf>,
    /// Folder that the list's or the layout's paths start from.
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Folder of images.
    #[arg(long, conflicts_with = "layout")]
    pub images: Option<PathBuf>,
    /// Folder of labels with the images' stems.
    #[arg(long, requires = "images")]
    pub labels: Option<PathBuf>,
    /// What stands behind an image's stem in its label's name, such as _mask; by default that is found out.
    #[arg(long, requires = "labels", value_name = "SUFFIX", allow_hyphen_values = true)]
    pub label_suffix: Option<String>,
    /// COCO file of the objects on --images: polygons or run lengths, small objects on top of large ones.
    #[arg(long, requires = "images", conflicts_with_all = ["labels", "layout", "odgt"], value_name = "FILE")]
    pub coco: Option<PathBuf>,
    /// What pixels are that no object covers: a class index or ignore.
    #[arg(long, requires = "coco", default_value = "0", value_name = "CLASS|ignore")]
    pub background: String,
    /// A data set's own layout under --root: ade20k, cityscapes, voc, coco-stuff or camvid.
    #[arg(long, requires = "root")]
    pub layout: Option<String>,
    /// Which part of a layout.
    #[arg(long, default_value = "train", requires = "layout")]
    pub split: String,
    /// Folder to write the shards to.
    #[arg(long)]
    pub out: PathBuf,
    /// YAML file: label value or "#rrggbb" → class index or `ignore`; `default:`, `names:`, `colors:`.
    #[arg(long, value_name = "FILE")]
    pub label_map: Option<PathBuf>,
    /// Take label values that the map does not name for the nearest one, up to this distance in RGB.
    #[arg(long, value_name = "N")]
    pub nearest_color: Option<u32>,
    /// Number of classes: a label above it is refused; by default the layout's, else labels are not checked.
    #[arg(long, value_name = "N")]
    pub num_class: Option<usize>,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Replace shards that are there.
    #[arg(long)]
    pub force: bool,
    /// Threads; 0: as many as this process may use.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// latest, best, weights (MODEL.weights_encoder and _decoder) or a checkpoint's folder.
    #[arg(long)]
    pub checkpoint: Option<String>,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Write the table per class as CSV, too.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
}

#[derive(Args)]
pub struct PredictArgs {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub cfg: Option<PathBuf>,
    /// latest, best, weights (MODEL.weights_encoder and _decoder) or a checkpoint's folder.
    #[arg(long)]
    pub checkpoint: Option<String>,
    /// Folder to write to.
    #[arg(long)]
    pub out: PathBuf,
    /// Images, folders of images (searched through), and overrides KEY VALUE or KEY=VALUE.
    #[arg(required = true, value_name = "PATH")]
    pub words: Vec<String>,
}

#[derive(Args)]
pub struct ConvertArgs {
    /// What to write: pth, safetensors, hf (a folder for transformers), torchvision, smp or torchscript (takes uint8 RGB or
    /// normalised images of one size); by default what OUT's ending says: .pth, .safetensors, .torchscript.
    #[arg(long)]
    pub to: Option<String>,
    /// Configuration file of the network: for torchscript, and for inputs under another package's names.
    #[arg(long, value_name = "FILE")]
    pub cfg: Option<PathBuf>,
    /// Inputs, then the output, and overrides KEY VALUE or KEY=VALUE; torchscript: imgSizes and imgMaxSize give the image's size.
    #[arg(required = true, num_args = 2.., value_name = "IN... OUT")]
    pub words: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    Step,
    Loader,
    Allreduce,
    Overlap,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scheduler {
    /// srun or mpirun on the hosts themselves.
    Slurm,
    /// Containers by Pyxis and Enroot.
    SlurmPyxis,
    /// Containers by Apptainer.
    SlurmApptainer,
}

/// Puts `train` in front of arguments that begin with a flag or an override.
pub fn with_default_verb(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let quiet = |word: &&OsString| *word == "-q" || *word == "--quiet";
    let first = 1 + arguments.iter().skip(1).take_while(quiet).count();
    let word = arguments.get(first).and_then(|word| word.to_str()).unwrap_or_default();
    let own_flag = ["-h", "--help", "-V", "--version"].contains(&word);
    if !own_flag && word.starts_with(|c: char| c == '-' || c.is_ascii_uppercase()) {
        arguments.insert(first, "train".into());
    }
    arguments
}

/// Splits words into paths and overrides: `KEY=VALUE` (a capital in front and no slash before the `=`), or a key and the
/// word after it. A key that does not exist is told by its section.
pub fn split_overrides(words: Vec<String>) -> (Vec<PathBuf>, Vec<String>) {
    let keys = Config::keys();
    let is_override = |word: &String| {
        let key = word.split_once('=').map_or("", |(key, _)| key);
        key.starts_with(|c: char| c.is_ascii_uppercase()) && !key.contains('/')
    };
    let (mut paths, mut overrides) = (Vec::new(), Vec::new());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word {
            word if is_override(&word) => overrides.push(word),
            word if keys.contains(&word) || looks_like_a_key(&word, &keys) => {
                overrides.extend([word].into_iter().chain(words.next()))
            }
            word => paths.push(word.into()),
        }
    }
    (paths, overrides)
}

/// Whether a word that is no file begins as keys of a section do.
fn looks_like_a_key(word: &str, keys: &[String]) -> bool {
    let Some((section, name)) = word.split_once('.') else { return false };
    let known = keys.iter().any(|key| key.split_once('.').is_some_and(|(other, _)| other == section));
    known && !name.contains(['.', '/']) && !has_image_ending(Path::new(word)) && !Path::new(word).exists()
}

#[cfg(test)]
mod tests {
    use super::{split_overrides, with_default_verb};

    fn completed(line: &str) -> String {
        let words = with_default_verb(line.split(' ').map(Into::into));
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn overrides_are_told_from_paths() {
        let words =
            "a.png DIR runs/a DATASET.imgSizes=(300,) B/x=1.png VAL.batch_size 2 TRAIN.png TRAIN.sede 3".split(' ');
        let (paths, overrides) = split_overrides(words.map(Into::into).collect());
        assert_eq!(
            paths.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(),
            ["a.png", "B/x=1.png", "TRAIN.png"]
        );
        assert_eq!(overrides, ["DIR", "runs/a", "DATASET.imgSizes=(300,)", "VAL.batch_size", "2", "TRAIN.sede", "3"]);
    }

    #[test]
    fn train_is_the_verb_where_none_is_given() {
        assert_eq!(completed("segdist --cfg a.yaml"), "segdist train --cfg a.yaml");
        assert_eq!(completed("segdist TRAIN.seed 1 --cfg a.yaml"), "segdist train TRAIN.seed 1 --cfg a.yaml");
        assert_eq!(completed("segdist -q --cfg a.yaml"), "segdist -q train --cfg a.yaml");
    }

    #[test]
    fn a_verb_or_a_question_stays_as_it_is() {
        for line in ["segdist", "segdist eval --cfg a.yaml", "segdist -q train", "segdist --help", "segdist -V"] {
            assert_eq!(completed(line), line);
        }
    }
}
