//! One function a verb: sections of the configuration out, exit code back.

use super::args::{self, Bench, ConfigArgs, Verb};
use crate::comm::{Comm, agree};
use crate::config::Config;
use crate::fault::BadInput;
use std::sync::Arc;

/// Whether the verb works on several ranks; the others run once, whatever the launcher started.
pub fn runs_on_ranks(verb: &Verb) -> bool {
    match verb {
        Verb::Train(_) | Verb::Eval(_) | Verb::Predict(_) | Verb::Doctor { .. } => true,
        Verb::Bench { what, .. } => *what != Bench::Loader,
        _ => false,
    }
}

/// Runs the verb to its exit code.
pub fn run(verb: Verb, comm: &Arc<dyn Comm>) -> anyhow::Result<u8> {
    match verb {
        Verb::Config { config, keys } => show_config(&config, keys),
        _ => todo!(),
    }
}

/// Loads and validates on rank 0, so that one file is enough and one message is printed.
fn load(config: &ConfigArgs, comm: &dyn Comm) -> anyhow::Result<Config> {
    let text = agree::from_root(comm, || Ok(load_here(config)?.dump().into_bytes()))?;
    Ok(Config::parse(&String::from_utf8(text)?)?)
}

fn load_here(config: &ConfigArgs) -> anyhow::Result<Config> {
    let loaded = Config::load(config.cfg.as_deref(), &config.overrides).map_err(BadInput::new)?;
    loaded.validate().map_err(BadInput::new)?;
    Ok(loaded)
}

fn show_config(config: &ConfigArgs, keys: bool) -> anyhow::Result<u8> {
    if keys {
        print!("{}", crate::config::describe());
    } else {
        print!("{}", load_here(config)?.dump());
    }
    Ok(0)
}
