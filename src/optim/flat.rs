//! One memory for all parameters and one for all their gradients, laid out for both of their users.
//!
//! The order is that of backward, last layer first, cut into buckets: the reducer sends a bucket as one message when
//! backward has filled it. Inside a bucket the parameters are sorted by [`Group`]: the optimizer updates each span of
//! one group with one operation.

use super::groups::{Factors, Group};
use crate::model::layers::{Role, Store};
use crate::torch::memory;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Values to a cache line: parameters start on one.
const ALIGN: i64 = 16;

/// Most values of the first and of the last bucket, unless a single parameter has more: 1 MiB.
const SMALL_BUCKET: i64 = (1 << 20) / 4;

/// Stretches of the flat memory whose parameters are of one group.
pub type Spans = Vec<(Group, Range<i64>)>;

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
    /// Spans of one group, covering all parameters.
    pub spans: Spans,
}

impl Flat {
    /// As [`Flat::grouped`], without factors of learning rates.
    pub fn new(store: &Store, bucket_bytes: usize) -> Flat {
        Flat::grouped(store, bucket_bytes, &Factors::default())
    }

    /// Moves the trained tensors of `store` into one memory; their handles stay valid, in `store` and in the layers.
    ///
    /// The first bucket has at most 1 MiB, so that sending starts early, and the last one, so that it ends soon after
    /// backward; the others have at most `bucket_bytes`, unless a single parameter is larger.
    pub fn grouped(store: &Store, bucket_bytes: usize, factors: &Factors) -> Flat {
        let mut slots = slots(store, factors);
        let (buckets, spans) = lay_out(&mut slots, bucket_bytes);
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
        Flat { parameters, gradients, slots, buckets, spans }
    }

    /// A new tensor of this layout, all 0.
    pub fn zeros(&self) -> Tensor {
        self.parameters.zeros_like()
    }
}

/// Puts the weights of convolutions into channels-last memory order, which a [`Flat`] made afterwards keeps.
pub fn to_channels_last(store: &Store) {
    tch::no_grad(|| {
        for variable in
            store.variables.iter().filter(|variable| variable.role == Role::Weight && variable.tensor.dim() == 4)
        {
            variable.tensor.shallow_clone().set_data(&memory::to_channels_last(&variable.tensor));
        }
    });
}

fn slots(store: &Store, factors: &Factors) -> Vec<Slot> {
    let trained = store.variables.iter().filter(|variable| variable.tensor.requires_grad());
    trained
        .map(|variable| {
            let (size, strides) = (variable.tensor.size(), dense_strides(&variable.tensor));
            let (name, group, parameter) =
                (variable.name.clone(), factors.group(variable), variable.tensor.shallow_clone());
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

/// Gives every slot its bucket and offset; returns the buckets and the spans.
fn lay_out(slots: &mut [Slot], bucket_bytes: usize) -> (Vec<Range<i64>>, Spans) {
    let (mut buckets, mut spans, mut offset) = (Vec::new(), Vec::<(Group, Range<i64>)>::new(), 0);
    let sizes: Vec<i64> = slots.iter().map(padded).collect();
    for (bucket, mut indices) in cut(&sizes, (bucket_bytes / 4).max(1) as i64).into_iter().enumerate() {
        indices.sort_by_key(|&index| slots[index].group);
        let start = offset;
        for index in indices {
            let slot = &mut slots[index];
            (slot.bucket, slot.offset) = (bucket, offset);
            offset += sizes[index];
            match spans.last_mut() {
                Some((group, range)) if *group == slot.group => range.end = offset,
                _ => spans.push((slot.group, slot.offset..offset)),
            }
        }
        buckets.push(start..offset);
    }
    (buckets, spans)
}

/// Values that a slot takes in the flat memory.
fn padded(slot: &Slot) -> i64 {
    (slot.size.iter().product::<i64>() + ALIGN - 1) / ALIGN * ALIGN
}

/// The members of each bucket, last slot first; `most` values to a bucket.
fn cut(sizes: &[i64], most: i64) -> Vec<Vec<usize>> {
    let small = most.min(SMALL_BUCKET);
    let ends = sizes.iter().scan(0, |end, size| {
        *end += size;
        Some(*end)
    });
    // What backward comes to last, as many slots as a small bucket holds.
    let tail = ends.take_while(|&end| end <= small).count();
    let mut buckets: Vec<Vec<usize>> = Vec::new();
    let mut filled = 0;
    for index in (0..sizes.len()).rev() {
        let limit = if buckets.len() == 1 { small } else { most };
        match buckets.last_mut() {
            Some(bucket) if filled + sizes[index] <= limit && index + 1 != tail => {
                bucket.push(index);
                filled += sizes[index];
            }
            _ => {
                buckets.push(vec![index]);
                filled = sizes[index];
            }
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_bucket_are_small() {
        let mib = SMALL_BUCKET;
        let sizes = [mib / 2, mib / 4, 3 * mib, mib, mib, mib / 4, mib / 4, mib / 2];
        assert_eq!(cut(&sizes, 4 * mib), [vec![7, 6, 5], vec![4, 3], vec![2], vec![1, 0]]);
        assert_eq!(cut(&sizes, mib), [vec![7, 6, 5], vec![4], vec![3], vec![2], vec![1, 0]]);
        assert_eq!(cut(&[mib / 2, mib / 4], 4 * mib), [[1, 0]]);
        assert_eq!(cut(&[], 4 * mib), Vec::<Vec<usize>>::new());
    }
}
