//! Named tensors to and from the bytes of a safetensors file (<https://github.com/huggingface/safetensors>).

use super::CheckpointError;
use crate::model::weights;
use serde_json::{Map, json};
use std::path::Path;
use tch::Tensor;

/// Tensors copied to host memory, laid out as in their file, in memory that the next copy uses again.
#[derive(Default)]
pub(super) struct Snapshot {
    header: Vec<u8>,
    data: Vec<u8>,
}

impl Snapshot {
    /// Copies `tensors`, which may lie on any device.
    pub(super) fn take(&mut self, tensors: &[(String, Tensor)]) -> Result<(), CheckpointError> {
        // Wide elements first keep every tensor aligned to its elements, which some readers ask for.
        let mut order: Vec<&(String, Tensor)> = tensors.iter().collect();
        order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.kind().elt_size_in_bytes()));
        let mut header = Map::new();
        let mut end = 0;
        for (name, tensor) in &order {
            let start = end;
            end += bytes_of(tensor);
            let dtype = weights::dtype(tensor.kind())
                .ok_or_else(|| failed(name, format!("{:?} cannot be stored", tensor.kind())))?;
            header.insert(name.clone(), json!({"dtype": dtype, "shape": tensor.size(), "data_offsets": [start, end]}));
        }
        self.header = framed(&serde_json::Value::Object(header).to_string());
        if self.data.len() != end {
            self.data = vec![0; end];
        }
        let mut rest = self.data.as_mut_slice();
        for (name, tensor) in order {
            let bytes;
            (bytes, rest) = rest.split_at_mut(bytes_of(tensor));
            tensor.f_copy_data_u8(bytes, tensor.numel()).map_err(|error| failed(name, error))?;
        }
        Ok(())
    }

    /// The file's content, in two parts.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.header, &self.data]
    }
}

/// The header with its length in front, padded with spaces so that the data begin at a multiple of 8.
fn framed(header: &str) -> Vec<u8> {
    let length = header.len().next_multiple_of(8);
    let mut framed = (length as u64).to_le_bytes().to_vec();
    framed.extend_from_slice(header.as_bytes());
    framed.resize(8 + length, b' ');
    framed
}

/// Rebuilds the tensors of a safetensors file on the CPU, in the file's order.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    weights::read_safetensors(bytes).map_err(|cause| CheckpointError::damaged(path, cause))
}

fn bytes_of(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

fn failed(name: &str, cause: impl ToString) -> CheckpointError {
    CheckpointError::Tensor { name: name.to_string(), cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::Kind;

    const KINDS: [Kind; 10] = [
        Kind::Float,
        Kind::Double,
        Kind::Half,
        Kind::BFloat16,
        Kind::Int64,
        Kind::Int,
        Kind::Int16,
        Kind::Int8,
        Kind::Uint8,
        Kind::Bool,
    ];

    fn file_of(tensors: &[(String, Tensor)]) -> Vec<u8> {
        let mut snapshot = Snapshot::default();
        snapshot.take(tensors).unwrap();
        snapshot.parts().concat()
    }

    #[test]
    fn every_kind_and_layout_comes_back_bit_for_bit() {
        let mut tensors: Vec<(String, Tensor)> = KINDS
            .iter()
            .map(|kind| {
                (format!("{kind:?}"), (Tensor::arange(6, (Kind::Float, tch::Device::Cpu)) - 2.5).to_kind(*kind))
            })
            .collect();
        tensors.push(("nan".into(), Tensor::from_slice(&[f32::NAN, f32::INFINITY, -0.0, 1e-40])));
        tensors.push(("transposed".into(), Tensor::arange(6, (Kind::Float, tch::Device::Cpu)).view([2, 3]).tr()));
        tensors.push(("scalar".into(), Tensor::from(3i64)));
        tensors.push(("empty".into(), Tensor::zeros([0, 4], (Kind::Float, tch::Device::Cpu))));
        let read = parse(Path::new("f"), &file_of(&tensors)).unwrap();
        assert_eq!(read.len(), tensors.len());
        for (name, tensor) in &tensors {
            let (_, copy) = read.iter().find(|(other, _)| other == name).unwrap();
            assert_eq!((copy.kind(), copy.size()), (tensor.kind(), tensor.size()), "{name}");
            let bits = |tensor: &Tensor| {
                let mut bits = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
                tensor.copy_data_u8(&mut bits, tensor.numel());
                bits
            };
            assert_eq!(bits(copy), bits(tensor), "{name}");
        }
    }

    #[test]
    fn one_kind_keeps_its_order() {
        let tensors: Vec<_> = ["z", "a", "m"].map(|name| (name.to_string(), Tensor::from(1f32))).into();
        let names: Vec<_> =
            parse(Path::new("f"), &file_of(&tensors)).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["z", "a", "m"]);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_an_error_and_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(Path::new("f"), &bytes);
        }

        #[test]
        fn a_hostile_header_is_an_error_and_not_a_panic(shape in prop::collection::vec(any::<u64>(), 0..4), ends in any::<(u64, u64)>()) {
            let header = json!({"x": {"dtype": "F32", "shape": shape, "data_offsets": [ends.0, ends.1]}}).to_string();
            let _ = parse(Path::new("f"), &[framed(&header), vec![0; 16]].concat());
        }
    }
}
