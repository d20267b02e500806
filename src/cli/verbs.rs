//! One function a verb: sections of the configuration out, exit code back.

use super::args::{self, Bench, ConfigArgs, ConvertArgs, EvalArgs, InitArgs, PackArgs, PredictArgs, TrainArgs, Verb};
use super::shell;
use crate::checkpoint;
use crate::comm::{Comm, agree};
use crate::config::{self, Config};
use crate::convert::{self, Target};
use crate::data::instances::Background;
use crate::data::layout::Layout;
use crate::eval::{self, EvalJob, weights_choice};
use crate::fault;
use crate::model::summary::summarise;
use crate::pack::{self, Input, PackOptions};
use crate::predict::{self, PredictJob};
use crate::report::html;
use crate::stop::StopRequest;
use crate::train::{self, Ended, Job, Recipe, Resume};
use crate::{bad_input, bench, demo, demo_data, doctor, init, plan, verify, watch};
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;

/// Exit code of a run that stopped on request after a checkpoint.
const STOPPED: u8 = 75;

/// Whether the verb works on several ranks; the others run once, whatever the launcher started.
pub fn runs_on_ranks(verb: &Verb) -> bool {
    match verb {
        Verb::Train(_) | Verb::Eval(_) | Verb::Predict(_) | Verb::Doctor { .. } => true,
        Verb::Bench { what, .. } => *what != Bench::Loader,
        _ => false,
    }
}

/// Whether the verb runs networks, on threads that wait for each other.
pub fn computes(verb: &Verb) -> bool {
    match verb {
        Verb::Train(_) | Verb::Eval(_) | Verb::Predict(_) => true,
        Verb::Bench { what, .. } => matches!(what, Bench::Step | Bench::Overlap),
        _ => false,
    }
}

/// What to change where memory is too small for the verb's work.
pub fn relief(verb: &Verb) -> &'static str {
    match verb {
        Verb::Eval(_) | Verb::Predict(_) => {
            "lower DATASET.imgSizes, imgMaxSize or VAL.batch_size, set VAL.window, or OMP_NUM_THREADS (each thread has an image)"
        }
        Verb::Pack(_) | Verb::Init(_) => "use fewer threads (--threads, RAYON_NUM_THREADS): each has images of its own",
        _ => "lower TRAIN.batch_size_per_gpu, DATASET.imgSizes or imgMaxSize, or set TRAIN.amp bf16",
    }
}

/// Runs the verb to its exit code.
pub fn run(verb: Verb, quiet: bool, stop: Option<StopRequest>, comm: &Arc<dyn Comm>) -> anyhow::Result<u8> {
    match verb {
        Verb::Train(args) => {
            let stop = stop.context("training listens for signals")?;
            return train(args, quiet, stop, comm);
        }
        Verb::Init(args) => init(args)?,
        Verb::Pack(args) => pack(args)?,
        Verb::Verify { dir } => verify::run(&dir)?,
        Verb::Eval(args) => evaluate(args, comm)?,
        Verb::Predict(args) => return predict(args, comm),
        Verb::Watch { dir } => watch::run(&dir)?,
        Verb::Report { dirs, out } => {
            html::write(&dirs, &out)?;
            println!("{}", out.display());
        }
        Verb::Convert(args) => convert(args)?,
        Verb::Plan { config, ranks, json } => {
            let config = load_here(&config)?;
            plan::run(&config.DATASET, &config.TRAIN, ranks, json)?;
        }
        Verb::Demo { out, overrides } => return demo::run(&out, &overrides),
        Verb::Launch { what } => print!("{}", shell::script(what)),
        Verb::Completions { shell } => print!("{}", shell::completions(shell)?),
        Verb::Man => print!("{}", shell::manual()?),
        Verb::DemoData { out, seed } => demo_data::run(&out, seed)?,
        Verb::Config { keys: true, .. } => print!("{}", config::describe()),
        Verb::Config { config, .. } => show_config(&config)?,
        Verb::Doctor { json } => {
            let folder = std::env::current_dir().context("the working folder is not there")?;
            return doctor::run(&**comm, &folder, json);
        }
        Verb::Bench { what, config, json } => bench(what, &config, json, comm)?,
    }
    Ok(0)
}

/// Loads and validates on rank 0, so that one file is enough and one message is printed.
fn load(config: &ConfigArgs, comm: &dyn Comm) -> anyhow::Result<Config> {
    load_and(config, comm, |_| Ok(()))
}

/// The same, completed on rank 0.
fn load_and(
    config: &ConfigArgs,
    comm: &dyn Comm,
    complete: impl FnOnce(&mut Config) -> anyhow::Result<()>,
) -> anyhow::Result<Config> {
    let make = || {
        let mut config = load_here(config)?;
        complete(&mut config)?;
        Ok(config.dump().into_bytes())
    };
    Ok(Config::parse(&String::from_utf8(agree::from_root(comm, make)?)?)?)
}

fn load_here(config: &ConfigArgs) -> anyhow::Result<Config> {
    let loaded = Config::load(config.cfg.as_deref(), &config.overrides).map_err(fault::classified)?;
    loaded.validate().map_err(fault::classified)?;
    Ok(loaded)
}

fn train(args: TrainArgs, quiet: bool, stop: StopRequest, comm: &Arc<dyn Comm>) -> anyhow::Result<u8> {
    let resume = match args.resume.as_str() {
        "auto" => Resume::Auto,
        "none" => Resume::None,
        path => Resume::From(path.into()),
    };
    if args.extend && resume == Resume::None {
        bad_input!("--extend continues a run, and --resume none starts anew: give one of them");
    }
    let config = load_and(&args.config, &**comm, |config| match &args.init_from {
        Some(path) => init_from(path, config, &resume),
        None => Ok(()),
    })?;
    let job = Job {
        recipe: recipe(&config),
        val: &config.VAL,
        checkpoint: &config.CHECKPOINT,
        dir: &config.DIR,
        config: config.dump(),
        rules: Config::resume_rules(),
        resume,
        extend: args.extend,
        stop,
        quiet,
    };
    Ok(match train::run(&job, comm)? {
        Ended::Finished => 0,
        Ended::Stopped => STOPPED,
    })
}

/// Names the weights at `path` as the first ones of both parts, where a new run begins.
fn init_from(path: &Path, config: &mut Config, resume: &Resume) -> anyhow::Result<()> {
    let (dir, shown) = (&config.DIR, path.display());
    if let Resume::From(checkpoint) = resume {
        bad_input!("--resume {} continues a run, --init-from {shown} begins one: give one", checkpoint.display());
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.into());
    if real(path).starts_with(real(dir)) {
        bad_input!("--init-from {shown} begins a new run, and DIR {} is the old one: give another DIR", dir.display());
    }
    let weights = if *resume == Resume::Auto && checkpoint::exists(dir) {
        log::info!("{} holds a run, which continues; --init-from {shown} was for its beginning", dir.display());
        path.into()
    } else {
        weights_choice::locate(path)?
    };
    let weights = weights.to_string_lossy();
    (config.MODEL.weights_encoder, config.MODEL.weights_decoder) = (weights.to_string(), weights.into_owned());
    Ok(())
}

/// The sections that an update depends on.
fn recipe(config: &Config) -> Recipe<'_> {
    let Config { DATASET: dataset, MODEL: model, TRAIN: train, DIST: dist, .. } = config;
    Recipe { dataset, model, train, dist }
}

fn background(word: &str) -> anyhow::Result<Background> {
    if word == "ignore" {
        return Ok(Background::Ignored);
    }
    match word.parse() {
        Ok(class) => Ok(Background::Class(class)),
        Err(_) => bad_input!("--background is '{word}': give the index of a class, or ignore"),
    }
}

fn init(args: InitArgs) -> anyhow::Result<()> {
    let background = background(&args.background)?;
    let input = match (args.images, args.labels, args.coco, args.odgt, args.layout) {
        (Some(images), Some(labels), ..) => init::Input::Folders { images, labels, suffix: args.label_suffix },
        (Some(images), _, Some(file), ..) => init::Input::Coco { file, images, background },
        (_, _, _, Some(odgt), _) => {
            let root = args.root.or_else(|| Some(odgt.parent()?.to_path_buf())).unwrap_or_default();
            init::Input::List { odgt, root }
        }
        (.., Some(name)) => {
            let layout = Layout::find(&name).map_err(fault::classified)?;
            init::Input::Layout { layout, root: args.root.unwrap_or_default() }
        }
        _ => bad_input!(
            "nothing to look at: give --images and --labels, --images and --coco, --odgt, or --layout and --root"
        ),
    };
    let (out, force, json) = (args.out, args.force, args.json);
    init::run(&init::InitOptions { input, out, force, json })
}

fn pack(args: PackArgs) -> anyhow::Result<()> {
    let background = background(&args.background)?;
    let input = match (args.odgt, args.images, args.labels, args.layout, args.root) {
        (_, Some(images), ..) if args.coco.is_some() => {
            Input::Coco { file: args.coco.unwrap_or_default(), images, background }
        }
        (Some(odgt), _, _, _, Some(root)) => Input::List { odgt, root },
        (_, Some(images), Some(labels), _, _) => Input::Folders { images, labels, suffix: args.label_suffix },
        (_, _, _, Some(name), Some(root)) => {
            let layout = Layout::find(&name).map_err(fault::classified)?;
            Input::Layout { layout, root, split: args.split }
        }
        _ => bad_input!(
            "nothing to pack: give --images and --labels, --images and --coco, --odgt and --root, or --layout and --root"
        ),
    };
    let (label_map, num_class, nearest_color) = (args.label_map, args.num_class, args.nearest_color);
    let (json, force, threads) = (args.json, args.force, args.threads);
    let defaults = PackOptions::new(input, args.out);
    pack::run(&PackOptions { label_map, num_class, nearest_color, json, force, threads, ..defaults })
}

fn evaluate(args: EvalArgs, comm: &Arc<dyn Comm>) -> anyhow::Result<()> {
    let config = load(&args.config, &**comm)?;
    let place = agree::agree(&**comm, train::Place::find(&**comm, &config.DIST))?;
    let job = EvalJob {
        dataset: &config.DATASET,
        model: &config.MODEL,
        val: &config.VAL,
        dir: &config.DIR,
        checkpoint: args.checkpoint.as_deref(),
        json: args.json,
        csv: args.csv.as_deref(),
        device: place.device,
    };
    eval::run(&job, &**comm)
}

fn predict(args: PredictArgs, comm: &Arc<dyn Comm>) -> anyhow::Result<u8> {
    let (inputs, overrides) = args::split_overrides(args.words);
    let config = load(&ConfigArgs { cfg: args.cfg, overrides }, &**comm)?;
    let place = agree::agree(&**comm, train::Place::find(&**comm, &config.DIST))?;
    let job = PredictJob {
        dataset: &config.DATASET,
        model: &config.MODEL,
        val: &config.VAL,
        dir: &config.DIR,
        checkpoint: args.checkpoint.as_deref(),
        out: &args.out,
        inputs: &inputs,
        device: place.device,
    };
    predict::run(&job, &**comm)
}

fn convert(args: ConvertArgs) -> anyhow::Result<()> {
    let (mut inputs, overrides) = args::split_overrides(args.words);
    let Some(output) = inputs.pop().filter(|_| !inputs.is_empty()) else {
        bad_input!("convert takes at least one input and the output");
    };
    let named = args.cfg.is_some() || !overrides.is_empty();
    let by_name = args.to.is_none() && output.extension().is_some_and(|ending| ending == "torchscript");
    let traced = by_name || args.to.as_deref() == Some("torchscript");
    if traced && !named {
        bad_input!("{}: TorchScript needs the network: give --cfg FILE, as it was trained with", output.display());
    }
    let config = (named || traced).then(|| load_here(&ConfigArgs { cfg: args.cfg, overrides })).transpose()?;
    if let (true, Some(config)) = (traced, &config) {
        return convert::export(&inputs, &output, target(config), bench::step::batch_size(&config.DATASET));
    }
    let to = args.to.map(|name| name.parse()).transpose().map_err(fault::classified)?;
    convert::run(&inputs, &output, to, config.as_ref().map(target))
}

fn target(config: &Config) -> Target<'_> {
    Target { model: &config.MODEL, num_class: config.DATASET.num_class }
}

/// The configuration, and what its network costs.
fn show_config(config: &ConfigArgs) -> anyhow::Result<()> {
    let config = load_here(config)?;
    let (height, width) = bench::step::batch_size(&config.DATASET);
    let network = summarise(&config.MODEL, config.DATASET.num_class, height, width).map_err(fault::classified)?;
    print!("{}", config.dump());
    // Comments, so that what is printed stays a configuration.
    println!("# network:");
    println!("#   parameters: {}", network.parameters);
    println!("#   multiply_adds: {} # one image of {height} x {width}", network.multiply_adds);
    println!("#   output_stride: {}", network.output_stride);
    println!("#   widths: {:?}", network.widths);
    let (steps, batch) = (config.TRAIN.total_steps(), config.TRAIN.global_batch_on(1));
    let ranks =
        if config.TRAIN.global_batch > 0 { "on any number of ranks" } else { "on one rank, twice as many on two" };
    println!("# training:");
    println!("#   steps: {steps}");
    println!("#   images: {} # {batch} a step {ranks}", steps.saturating_mul(batch as u64));
    Ok(())
}

fn bench(what: Bench, config: &ConfigArgs, json: bool, comm: &Arc<dyn Comm>) -> anyhow::Result<()> {
    let config = load(config, &**comm)?;
    match what {
        Bench::Step | Bench::Overlap => {
            let place = train::Place::find(&**comm, &config.DIST)?;
            let run = if what == Bench::Step { bench::step::run } else { bench::overlap::run };
            run(&recipe(&config), place.device, comm, json)
        }
        Bench::Loader => bench::loader::run(&config.DATASET, &config.TRAIN, json),
        Bench::Allreduce => bench::allreduce::run(&**comm, json),
    }
}
