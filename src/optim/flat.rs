//! One memory for all parameters and one for all their gradients, laid out for both of their users.
//!
//! The order is that of backward, last layer first, cut into buckets: the reducer sends a bucket as one message when
//! backward has filled it. Inside a bucket the parameters are sorted by [`Group`]: the optimizer updates each run of
//! one group with one operation.

use crate::model::layers::{Role, Store};
use crate::torch::memory;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Values to a cache line: parameters start on one.
const ALIGN: i64 = 16;

/// Parameters that share learning rate and weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Whether it belongs to the decoder.
    pub decoder: bool,
    /// Whether weight decay applies.
    pub decays: bool,
}

/// Stretches of the flat memory whose parameters are of one group.
pub type Runs = Vec<(Group, Range<i64>)>;

/// One parameter's place.
pub struct Slot {
    /// Its name in the [`Store`].
    pub name: String,
    /// Learning rate and decay.
    pub group: Group,
    /// First value in the flat memory.
    pub offset: i64,
    /// Shape and strides of its view.
    pub size: Vec<i64>,
    strides: Vec<i64>,
    /// Index into [`Flat::buckets`].
    pub bucket: usize,
    /// Shares its memory with the layer that uses it.
    pub parameter: Tensor,
}

impl Slot {
    /// This parameter's part of a tensor with the flat layout, in the parameter's shape.
    pub fn view(&self, flat: &Tensor) -> Tensor {
        flat.as_strided(&self.size, &self.strides, self.offset)
    }
}

/// All parameters of a network, and room for their gradients.
pub struct Flat {
    /// f32, all parameters; alignment gaps hold 0.
    pub parameters: Tensor,
    /// f32, gradients in the same places.
    pub gradients: Tensor,
    /// In the order of the network.
    pub slots: Vec<Slot>,
    /// Bucket i is filled by backward before bucket i + 1.
    pub buckets: Vec<Range<i64>>,
    /// Runs of one group, covering all parameters.
    pub runs: Runs,
}

impl Flat {
    /// Moves the trained tensors of `store` into one memory; their handles stay valid, in `store` and in the layers.
    ///
    /// The first bucket has at most 1 MiB, so that sending starts early, the others at most `bucket_bytes`, unless a
    /// single parameter is larger.
    pub fn new(store: &Store, bucket_bytes: usize) -> Flat {
        let mut slots = slots(store);
        let (buckets, runs) = lay_out(&mut slots, bucket_bytes);
        let device = slots.first().map_or(Device::Cpu, |slot| slot.parameter.device());
        let total = buckets.last().map_or(0, |bucket| bucket.end);
        let [parameters, gradients] = [0, 1].map(|_| Tensor::zeros([total], (Kind::Float, device)));
        tch::no_grad(|| {
            for slot in &mut slots {
                let mut view = slot.view(&parameters);
                view.copy_(&slot.parameter);
                slot.parameter.set_data(&view);
            }
        });
        Flat { parameters, gradients, slots, buckets, runs }
    }

    /// A new tensor of this layout, all 0.
    pub fn zeros(&self) -> Tensor {
        self.parameters.zeros_like()
    }
}

/// Puts the weights of convolutions into channels-last memory order, which a [`Flat`] made afterwards keeps.
pub fn to_channels_last(store: &Store) {
    tch::no_grad(|| {
        for entry in store.entries.iter().filter(|entry| entry.role == Role::Weight && entry.tensor.dim() == 4) {
            entry.tensor.shallow_clone().set_data(&memory::to_channels_last(&entry.tensor));
        }
    });
}

fn slots(store: &Store) -> Vec<Slot> {
    let trained = store.entries.iter().filter(|entry| entry.role != Role::Buffer);
    trained
        .map(|entry| {
            let (size, strides) = (entry.tensor.size(), dense_strides(&entry.tensor));
            let group = Group { decoder: entry.name.starts_with("decoder."), decays: entry.role == Role::Weight };
            let (name, parameter) = (entry.name.clone(), entry.tensor.shallow_clone());
            Slot { name, group, offset: 0, size, strides, bucket: 0, parameter }
        })
        .collect()
}

/// The tensor's own strides where they fill their memory (channels-last does), else row-major ones.
fn dense_strides(tensor: &Tensor) -> Vec<i64> {
    let (size, strides) = (tensor.size(), tensor.stride());
    let mut by_stride: Vec<_> = size.iter().zip(&strides).filter(|(size, _)| **size != 1).collect();
    by_stride.sort_by_key(|(_, stride)| **stride);
    let mut expected = 1;
    let dense = by_stride.into_iter().all(|(size, stride)| {
        let fits = *stride == expected;
        expected *= size;
        fits
    });
    if dense { strides } else { tensor.contiguous().stride() }
}

/// Gives every slot its bucket and offset; returns the buckets and the runs.
fn lay_out(slots: &mut [Slot], bucket_bytes: usize) -> (Vec<Range<i64>>, Runs) {
    let padded = |slot: &Slot| (slot.size.iter().product::<i64>() + ALIGN - 1) / ALIGN * ALIGN;
    let bucket_values = (bucket_bytes / 4).max(1) as i64;
    let mut members: Vec<Vec<usize>> = Vec::new();
    let (mut filled, mut limit) = (0, bucket_values.min((1 << 20) / 4));
    for index in (0..slots.len()).rev() {
        let values = padded(&slots[index]);
        if let Some(last) = members.last_mut()
            && filled + values <= limit
        {
            last.push(index);
            filled += values;
        } else {
            limit = if members.is_empty() { limit } else { bucket_values };
            members.push(vec![index]);
            filled = values;
        }
    }
    let (mut buckets, mut runs, mut offset) = (Vec::new(), Vec::<(Group, Range<i64>)>::new(), 0);
    for (bucket, mut indices) in members.into_iter().enumerate() {
        indices.sort_by_key(|&index| slots[index].group);
        let start = offset;
        for index in indices {
            let slot = &mut slots[index];
            (slot.bucket, slot.offset) = (bucket, offset);
            offset += padded(slot);
            match runs.last_mut() {
                Some((group, range)) if *group == slot.group => range.end = offset,
                _ => runs.push((slot.group, slot.offset..offset)),
            }
        }
        buckets.push(start..offset);
    }
    (buckets, runs)
}
