//! TRAIN.ema: the exponential average of parameters and running statistics, which is evaluated in place of the last ones
//! (Polyak & Juditsky 1992, doi:10.1137/0330046).

use super::Recipe;
use crate::fault;
use crate::model::Network;
use crate::optim::{self, Flat};
use tch::{Device, Tensor};

/// A network that follows another.
pub struct Average {
    /// With the averaged values.
    pub network: Network,
    /// What is followed, and what follows, in flat memory.
    pairs: Vec<(Tensor, Tensor)>,
    decay: f64,
}

impl Average {
    /// The average of `network`, whose parameters lie in `flat`, as `recipe` asks for; None where it asks for none.
    pub fn new(recipe: &Recipe, network: &Network, flat: &Flat, device: Device) -> anyhow::Result<Option<Average>> {
        let Recipe { dataset, model, train, dist } = *recipe;
        if train.ema == 0.0 {
            return Ok(None);
        }
        let own = Network::blank(model, dataset.num_class, device).map_err(fault::classified)?;
        if train.channels_last {
            optim::to_channels_last(&own.store);
        }
        for (own, followed) in own.store.variables.iter().zip(&network.store.variables) {
            let _ = own.tensor.set_requires_grad(followed.tensor.requires_grad());
        }
        let parameters = Flat::grouped(&own.store, dist.bucket_bytes(), &train.factors()).parameters;
        let statistics = network.statistics().into_iter().zip(own.statistics());
        let pairs = std::iter::once((flat.parameters.shallow_clone(), parameters)).chain(statistics).collect();
        let average = Average { network: own, pairs, decay: train.ema };
        average.begin(network);
        Ok(Some(average))
    }

    /// Takes all of `network`'s values as they are.
    pub fn begin(&self, network: &Network) {
        tch::no_grad(|| {
            for (own, followed) in self.network.store.variables.iter().zip(&network.store.variables) {
                own.tensor.shallow_clone().copy_(&followed.tensor);
            }
        });
    }

    /// After update number `updates`: one step towards the values that are followed.
    ///
    /// The first updates weigh more, as the average starts from values that are worth nothing (`num_updates` of
    /// TensorFlow's ExponentialMovingAverage): what is kept is (1 + n) ÷ (10 + n), at most TRAIN.ema.
    pub fn follow(&mut self, updates: u64) {
        let kept = self.decay.min((1 + updates) as f64 / (10 + updates) as f64);
        tch::no_grad(|| {
            for (followed, own) in &mut self.pairs {
                let _ = own.lerp_(followed, 1.0 - kept);
            }
        });
    }
}
