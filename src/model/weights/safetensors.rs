//! safetensors, in and out.

use std::borrow::Cow;
use std::io::{self, Write};

use ::safetensors::{Dtype, SafeTensors, View};
use tch::{Kind, Tensor};

/// dtypes that both sides know.
const DTYPES: [(Dtype, Kind); 10] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F64, Kind::Double),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
    (Dtype::I16, Kind::Int16),
    (Dtype::I8, Kind::Int8),
    (Dtype::U8, Kind::Uint8),
    (Dtype::BOOL, Kind::Bool),
];

/// safetensors' name of a tensor's type, if it has one.
pub fn dtype(kind: Kind) -> Option<Dtype> {
    DTYPES.iter().find(|(_, known)| *known == kind).map(|&(dtype, _)| dtype)
}

/// Whether `input` starts as a safetensors file does: the header's length, then JSON.
pub fn is_safetensors(input: &[u8]) -> bool {
    let length = input.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    length.is_some_and(|length| length <= 100_000_000) && input.get(8) == Some(&b'{')
}

/// The named tensors of a safetensors file, in the order of their bytes.
pub fn read(input: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let damaged = |problem| format!("its header is damaged: {problem}");
    let (_, metadata) = SafeTensors::read_metadata(input).map_err(damaged)?;
    let file = SafeTensors::deserialize(input).map_err(damaged)?;
    let tensors = metadata.offset_keys().into_iter().map(|name| {
        let view = file.tensor(&name).map_err(damaged)?;
        let kind = DTYPES.iter().find(|(dtype, _)| *dtype == view.dtype()).map(|&(_, kind)| kind);
        let kind = kind.ok_or_else(|| format!("{name} is of the unsupported type {:?}", view.dtype()))?;
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        // Any byte but 0 and 1 would be an invalid bool.
        let read_as = if kind == Kind::Bool { Kind::Uint8 } else { kind };
        let tensor =
            Tensor::f_from_data_size(view.data(), &shape, read_as).map_err(|problem| format!("{name}: {problem}"))?;
        Ok((name, if kind == Kind::Bool { tensor.ne(0) } else { tensor }))
    });
    tensors.collect()
}

/// A tensor's bytes on their way out.
struct Outgoing {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Outgoing {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes named tensors as a safetensors file. Making it durable is the caller's.
pub fn write_safetensors(tensors: &[(String, Tensor)], out: &mut impl Write) -> io::Result<()> {
    let outgoing = tensors.iter().map(|(name, tensor)| {
        let dtype = dtype(tensor.kind());
        let dtype = dtype.ok_or_else(|| io::Error::other(format!("{name}: safetensors has no {:?}", tensor.kind())))?;
        let shape = tensor.size().iter().map(|&size| size as usize).collect();
        let bytes = super::bytes(tensor).map_err(io::Error::other)?;
        Ok((name.as_str(), Outgoing { dtype, shape, bytes }))
    });
    let outgoing = outgoing.collect::<io::Result<Vec<_>>>()?;
    out.write_all(&::safetensors::serialize(outgoing, None).map_err(io::Error::other)?)
}
