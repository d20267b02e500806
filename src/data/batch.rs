//! A micro-batch on the host, and its way to the device.

use tch::{Device, Tensor};

/// Decoded, augmented and padded samples.
pub struct HostBatch {
    /// Index in the global batch of the first sample.
    pub first: usize,
    /// Indices into the list.
    pub samples: Vec<u32>,
    /// Padded size.
    pub width: u32,
    pub height: u32,
    /// (width, height) of every image inside the padded area, from the top left corner.
    pub sizes: Vec<(u32, u32)>,
    /// u8 RGB, (n, height, width, 3); bytes outside the images are unspecified.
    pub images: Vec<u8>,
    /// Class or -1 (or the padding label), (n, height ÷ rate, width ÷ rate).
    pub labels: Vec<i64>,
    /// Labels that are not -1.
    pub valid: u64,
    pub rate: u32,
}

/// A batch as the network takes it.
pub struct DeviceBatch {
    /// f32 (n, 3, height, width): ((value ÷ 255) − mean) ÷ std, 0 in the padding.
    pub images: Tensor,
    /// i64 (n, height ÷ rate, width ÷ rate).
    pub labels: Tensor,
}

impl HostBatch {
    /// Copies the batch to the device and normalises it there.
    pub fn to_device(&self, device: Device) -> DeviceBatch {
        todo!()
    }
}
