//! What happens to a sample on its way into a batch: a list of transforms, applied one after the other.
//!
//! What they do is a function of (seed, pass, sample) and of the step's short edge, so it is the same on any rank and
//! thread, and a sample's final size is known before its bytes are read. By default it is what the reference does
//! (`TrainDataset.__getitem__`): a flip, and a resize. One choice is the label's: which of some corners a crop has.
//!
//! # How to add a transform
//!
//! One file in this folder, with a type that implements [`Transform`] and a function that makes it from the
//! configuration, and one row in [`TRANSFORMS`]. It draws from a stream of its own ([`Transform::purpose`]), so it
//! changes no other transform's draws, and runs without it stay what they were.
//!
//! ```ignore
//! /// One sample in ten without its colours.
//! impl Transform for Grey {
//!     fn purpose(&self) -> Purpose {
//!         Purpose::Named("grey")
//!     }
//!
//!     fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
//!         if random.below(10) == 0 {
//!             placement.edit(Desaturate); // an `Edit`: its `image` and `label` see the pixels
//!         }
//!     }
//! }
//! ```
//!
//! Where pixels go (mirror, resize, crop, rotation) is collected first and done in one pass over the image; edits come after it, in
//! the order of the list. A label is only looked up at the pixels that the network's output has.

mod color_jitter;
mod crop;
mod cutout;
mod flip;
mod photometric;
mod placement;
mod render;
mod resize;
mod rotate;
mod scale_jitter;
mod turn;

pub use placement::{Edit, Labels, Pixels, Placement};
pub use render::Renderer;

use super::DatasetConfig;
use super::random::{KeyedRng, Purpose};

/// What makes a transform from the configuration; None where it is not asked for.
pub type FromConfig = fn(&DatasetConfig) -> Option<Box<dyn Transform>>;

/// All transforms, in the order in which they are applied.
pub const TRANSFORMS: [FromConfig; 8] = [
    flip::from_config,
    resize::from_config,
    scale_jitter::from_config,
    crop::from_config,
    rotate::from_config,
    color_jitter::from_config,
    photometric::from_config,
    cutout::from_config,
];

/// One change of a sample.
pub trait Transform: Send + Sync {
    /// The stream that it draws from: another one than every other transform's.
    fn purpose(&self) -> Purpose;

    /// Decides what is done to a sample, by its size and by what `random` gives; called more than once for a sample.
    fn place(&self, placement: &mut Placement, random: &mut KeyedRng);
}

/// The transforms of a run.
pub struct Augment {
    seed: u64,
    transforms: Vec<Box<dyn Transform>>,
}

impl Augment {
    /// The transforms that DATASET asks for; `seed` is TRAIN.seed.
    pub fn new(config: &DatasetConfig, seed: u64) -> Augment {
        Augment { seed, transforms: TRANSFORMS.iter().filter_map(|from_config| from_config(config)).collect() }
    }

    /// The same with another transform, after all others.
    pub fn with(mut self, transform: impl Transform + 'static) -> Augment {
        self.transforms.push(Box::new(transform));
        self
    }

    /// What happens in `pass` to `sample`, whose (width, height) is `source`, in a step of this short edge.
    pub fn place(&self, source: (u32, u32), pass: u64, sample: u32, short_edge: u32) -> Placement {
        let mut placement = Placement::new(source, short_edge);
        for transform in &self.transforms {
            let mut random = KeyedRng::new(self.seed, transform.purpose(), pass, sample.into());
            transform.place(&mut placement, &mut random);
        }
        placement
    }
}
