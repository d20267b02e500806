//! From lists, folders and shards to batches that a network takes, in an order that is a pure function.

pub mod assemble;
pub mod augment;
pub mod batch;
pub mod batch_source;
pub mod census;
pub mod dataset;
pub mod decode;
pub mod folders;
pub mod instances;
pub mod label_file;
pub mod label_map;
pub mod label_rule;
pub mod layout;
pub mod list;
pub mod loader;
pub mod order;
pub mod random;
pub mod rare_classes;
pub mod resize;
pub mod source;
pub mod stage;
pub mod synthetic;
pub mod walk;

use crate::fault::require;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where samples come from, how they are cut to size and in which order.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[allow(non_snake_case)]
pub struct DatasetConfig {
    /// Folder that the paths of lists start from.
    #[schemars(extend("resume" = "free"))]
    pub root_dataset: String,
    /// Training samples: a list (.odgt, .odgt.gz), a folder of shards, or IMAGES:LABELS under root_dataset.
    #[schemars(extend("resume" = "free"))]
    pub list_train: String,
    /// Validation samples, in the same forms.
    #[schemars(extend("resume" = "free"))]
    pub list_val: String,
    /// Number of classes.
    pub num_class: usize,
    /// Short edges: one is drawn for every training step; evaluation averages over all.
    pub imgSizes: Vec<u32>,
    /// Largest long edge.
    pub imgMaxSize: u32,
    /// Padded widths and heights are multiples of this.
    pub padding_constant: u32,
    /// Image pixels per label pixel in training, one direction: the network's output stride, or 1 for labels as large as
    /// the image, to whose size the scores are then enlarged.
    pub segm_downsampling_rate: u32,
    /// Flip half of the training samples left to right.
    pub random_flip: bool,
    /// YAML file: raw label value → class index or `ignore`; empty: 0 is ignored and k becomes k-1.
    #[schemars(extend("resume" = "free"))]
    pub label_map: String,
    /// balanced: every rank of a step gets nearly the same pixels; shuffled: a plain shuffle by orientation.
    pub order: OrderKind,
    /// Take images with rare classes more often, by this temperature (DAFormer's rule; 0.01 there): the less, the rarer the
    /// classes that decide. Needs a packed set. 0: all images alike.
    pub rare_class_sampling: f64,
    /// One short edge per step, or one per rank as in the reference.
    pub size_per: SizePer,
    /// How shards are read: auto, mmap or pread.
    #[schemars(extend("resume" = "free"))]
    pub io: Io,
    /// On a corrupt record: abort, or substitute another sample.
    pub on_corrupt: OnCorrupt,
    /// Local folder (a disk, /dev/shm) that shards are copied to once per node before training; empty: none.
    #[schemars(extend("resume" = "free"))]
    pub stage: String,
    /// Leave the copy there for the next run; False removes it as soon as every rank has opened it.
    #[schemars(extend("resume" = "free"))]
    pub stage_keep: bool,
    /// Height of a random crop of every training sample, and its width unless crop_width says otherwise; 0: none.
    pub crop: u32,
    /// Width of the crop where it is no square; 0: as its height.
    pub crop_width: u32,
    /// Of ten random crops take the first with two classes or more and none above this part of the labelled pixels, else an
    /// eleventh (mmsegmentation's cat_max_ratio, 0.75 there); 1: the first.
    pub crop_max_share: f64,
    /// Pad every batch to the size of the crop, with ignored pixels; otherwise to its largest sample.
    pub pad_to_crop: bool,
    /// Turn half of the training samples by up to this many degrees, either way; 0: none.
    pub rotate: f64,
    /// Range of a random factor on every training sample's size (mmsegmentation's ratio_range on the scale of imgMaxSize and
    /// imgSizes); [1, 1]: none.
    pub scale_jitter: [f64; 2],
    /// Strength of random brightness, contrast and saturation changes, 0 to 1; 0: none.
    pub color_jitter: f64,
    /// Photometric distortion as mmsegmentation's: brightness ± 32, contrast and saturation × 0.5 to 1.5, hue ± 36 degrees.
    pub photometric: bool,
    /// Side of a square of every training sample that is grey and has no labels; 0: none.
    pub cutout: u32,
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs)]
        pub enum $name { $($variant),* }
    };
}
choice!(/// DATASET.order.
    OrderKind { Balanced, Shuffled });
choice!(/// DATASET.size_per.
    SizePer { Step, Rank });
choice!(/// DATASET.io.
    Io { Auto, Mmap, Pread });
choice!(/// DATASET.on_corrupt.
    OnCorrupt { Abort, Substitute });

impl Default for DatasetConfig {
    fn default() -> Self {
        DatasetConfig {
            root_dataset: "./data/".into(),
            list_train: "./data/training.odgt".into(),
            list_val: "./data/validation.odgt".into(),
            num_class: 150,
            imgSizes: vec![300, 375, 450, 525, 600],
            imgMaxSize: 1000,
            padding_constant: 8,
            segm_downsampling_rate: 8,
            random_flip: true,
            label_map: String::new(),
            order: OrderKind::Balanced,
            rare_class_sampling: 0.0,
            size_per: SizePer::Step,
            io: Io::Auto,
            on_corrupt: OnCorrupt::Abort,
            stage: String::new(),
            stage_keep: true,
            crop: 0,
            crop_width: 0,
            crop_max_share: 1.0,
            pad_to_crop: false,
            rotate: 0.0,
            scale_jitter: [1.0, 1.0],
            color_jitter: 0.0,
            photometric: false,
            cutout: 0,
        }
    }
}

/// The longest side of anything, in pixels; what is computed from it fits its types.
const MAX_SIDE: u32 = 1 << 16;

impl DatasetConfig {
    /// (width, height) of the crop, where there is one.
    pub fn crop_size(&self) -> Option<(u32, u32)> {
        let width = if self.crop_width > 0 { self.crop_width } else { self.crop };
        (self.crop > 0).then_some((width, self.crop))
    }

    /// The first value that cannot be meant, in one line that names the key.
    pub fn validate(&self) -> Result<(), String> {
        let (rate, padding) = (self.segm_downsampling_rate, self.padding_constant);
        require((1..=255).contains(&self.num_class), || {
            format!("DATASET.num_class is {}: set it to 1 … 255", self.num_class)
        })?;
        require(!self.imgSizes.is_empty(), || {
            "DATASET.imgSizes must name at least one short edge, such as (300, 375, 450)".into()
        })?;
        let shortest = self.imgSizes.iter().map(|&size| ("imgSizes", size, 1));
        let others = [
            ("imgMaxSize", self.imgMaxSize, 1),
            ("padding_constant", padding, 1),
            ("crop", self.crop, 0),
            ("crop_width", self.crop_width, 0),
            ("cutout", self.cutout, 0),
        ];
        for (key, side, least) in shortest.chain(others) {
            require((least..=MAX_SIDE).contains(&side), || {
                format!("DATASET.{key}: {side} is no possible side in pixels: set it to {least} … {MAX_SIDE}")
            })?;
        }
        let largest = self.imgSizes.iter().copied().max().unwrap_or(0);
        require(self.imgMaxSize >= largest, || {
            format!(
                "DATASET.imgMaxSize is {}, less than the short edge {largest} in DATASET.imgSizes: set it to {largest} or more",
                self.imgMaxSize
            )
        })?;
        require(rate > 0 && padding.is_multiple_of(rate), || {
            format!(
                "DATASET.padding_constant is {padding}: set it to a multiple of DATASET.segm_downsampling_rate ({rate})"
            )
        })?;
        for (key, side) in [("crop", self.crop), ("crop_width", self.crop_width)] {
            require(side.is_multiple_of(padding), || {
                format!("DATASET.{key} is {side}: set it to a multiple of DATASET.padding_constant ({padding})")
            })?;
        }
        let needs_crop = self.crop_width > 0 || self.crop_max_share != 1.0 || self.pad_to_crop;
        require(self.crop > 0 || !needs_crop, || {
            "DATASET.crop is 0, so that crop_width, crop_max_share and pad_to_crop mean nothing: set it, or leave those out"
                .into()
        })?;
        require(self.crop_max_share > 0.0 && self.crop_max_share <= 1.0, || {
            format!("DATASET.crop_max_share is {}: set it to more than 0, at most 1", self.crop_max_share)
        })?;
        let temperature = self.rare_class_sampling;
        require(temperature == 0.0 || (1e-4..=1e4).contains(&temperature), || {
            format!(
                "DATASET.rare_class_sampling is {temperature}: set it to 0 (off), or to 0.0001 … 10000, such as 0.01"
            )
        })?;
        require((0.0..=180.0).contains(&self.rotate), || {
            format!("DATASET.rotate is {}: set it to 0 … 180 degrees", self.rotate)
        })?;
        let [low, high] = self.scale_jitter;
        require(low >= 0.01 && low <= high && high <= 100.0, || {
            format!(
                "DATASET.scale_jitter is [{low:?}, {high:?}]: give a range between 0.01 and 100, such as [0.5, 2.0]"
            )
        })?;
        require((0.0..=1.0).contains(&self.color_jitter), || {
            format!("DATASET.color_jitter is {}: set it to 0 … 1", self.color_jitter)
        })
    }
}
