//! One rank's copy of what is trained: the network, its parameters' memory, and the optimizer.

use super::{Average, Beginning, Job, Recipe};
use crate::checkpoint;
use crate::comm::{Comm, agree};
use crate::fault::{self, BadInput};
use crate::model::{ModelConfig, Network, weights};
use crate::optim::{self, Flat, Optimizer};
use crate::sync::replicas;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};

/// A network, its parameters' memory, and what updates them.
pub struct Replica {
    /// Parameters and running statistics.
    pub network: Network,
    /// Where parameters and gradients lie.
    pub flat: Flat,
    /// What updates them.
    pub optimizer: Optimizer,
    /// TRAIN.ema.
    pub average: Option<Average>,
}

impl Replica {
    /// The network at random values drawn from TRAIN.seed, the same on every rank.
    pub fn build(recipe: &Recipe, device: Device) -> anyhow::Result<Replica> {
        let Recipe { dataset, model, train, dist } = *recipe;
        let network = Network::build(model, dataset.num_class, device, train.seed).map_err(fault::classified)?;
        if train.channels_last {
            optim::to_channels_last(&network.store);
        }
        optim::freeze(&network.store, &train.freeze).map_err(BadInput)?;
        let factors = train.factors();
        factors.check(&network.store).map_err(BadInput)?;
        let flat = Flat::grouped(&network.store, dist.bucket_bytes(), &factors);
        let optimizer = Optimizer::new(&flat, train.rule());
        let average = Average::new(recipe, &network, &flat, device)?;
        Ok(Replica { network, flat, optimizer, average })
    }

    /// The values that a run begins with, of a checkpoint or of the weights that MODEL names. A collective.
    pub(super) fn fill(&mut self, job: &Job, beginning: &Beginning, comm: &dyn Comm) -> anyhow::Result<()> {
        let Replica { network, optimizer, average, .. } = self;
        agree::from_root(comm, || {
            match &beginning.checkpoint {
                Some(path) => restore(path, network, optimizer, average.as_ref())?,
                None => {
                    for line in weights::initialize(&network.store, &initial(job)).map_err(fault::classified)? {
                        log::info!("{line}");
                    }
                }
            }
            Ok(Vec::new())
        })?;
        replicas::broadcast(comm, network.store.variables.iter().map(|variable| &variable.tensor))?;
        if beginning.checkpoint.is_some() {
            replicas::broadcast(comm, optimizer.state().iter().map(|(_, tensor)| tensor))?;
        }
        match (average, &beginning.checkpoint) {
            (Some(average), None) => average.begin(network),
            (Some(average), Some(_)) => {
                replicas::broadcast(comm, average.network.store.variables.iter().map(|variable| &variable.tensor))?
            }
            (None, _) => {}
        }
        optimizer.set_updates(beginning.updates);
        Ok(())
    }
}

/// MODEL, with the weights of TRAIN.start_epoch where a run of the reference is continued.
pub(super) fn initial(job: &Job) -> ModelConfig {
    let epoch = job.recipe.train.start_epoch;
    if epoch == 0 {
        return job.recipe.model.clone();
    }
    let file = |part: &str| job.dir.join(format!("{part}_epoch_{epoch}.pth")).to_string_lossy().into_owned();
    ModelConfig { weights_encoder: file("encoder"), weights_decoder: file("decoder"), ..job.recipe.model.clone() }
}

/// Copies a checkpoint's tensors into network and optimizer; both must be the ones it was made of.
fn restore(path: &Path, network: &Network, optimizer: &Optimizer, average: Option<&Average>) -> anyhow::Result<()> {
    let loaded = checkpoint::load(path).map_err(fault::classified)?;
    let averaged = average.map_or_else(Vec::new, |average| average.network.store.named());
    let pairs =
        [(network.store.named(), loaded.model), (optimizer.state(), loaded.optimizer), (averaged, loaded.average)];
    for (targets, saved) in pairs {
        let saved: BTreeMap<String, Tensor> = saved.into_iter().collect();
        for (name, target) in targets {
            let Some(value) = saved.get(&name).filter(|value| value.size() == target.size()) else {
                crate::bad_input!("{}: it has no tensor {name} of shape {:?}", path.display(), target.size());
            };
            tch::no_grad(|| target.shallow_clone().copy_(value));
        }
    }
    Ok(())
}
