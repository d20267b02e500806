//! Every rank holds the same tensors: made so at the start, and checked on request.

use crate::comm::{Comm, CommError};
use crate::model::layers::Variable;
use tch::{Device, Tensor};

/// Copies rank 0's values over everyone's.
pub fn broadcast<'a>(comm: &dyn Comm, tensors: impl Iterator<Item = &'a Tensor>) -> Result<(), CommError> {
    if comm.size() == 1 {
        return Ok(());
    }
    for tensor in tensors {
        let mut bytes = to_bytes(tensor);
        comm.broadcast(0, &mut bytes)?;
        if !comm.is_root() {
            let values = Tensor::from_data_size(&bytes, &tensor.size(), tensor.kind());
            tch::no_grad(|| tensor.shallow_clone().copy_(&values));
        }
    }
    Ok(())
}

/// Compares every tensor over the ranks; the text names the first that differs, and the ranks that differ from rank 0.
pub fn difference(comm: &dyn Comm, variables: &[Variable]) -> Result<Option<String>, CommError> {
    let sums: Vec<u8> =
        variables.iter().flat_map(|variable| crc32fast::hash(&to_bytes(&variable.tensor)).to_le_bytes()).collect();
    let all = comm.all_gather(&sums)?;
    for (index, variable) in variables.iter().enumerate() {
        let sum = |rank: &Vec<u8>| rank.get(4 * index..4 * index + 4).map(<[u8]>::to_vec);
        let differing: Vec<String> =
            (1..all.len()).filter(|&rank| sum(&all[rank]) != sum(&all[0])).map(|rank| format!("rank {rank}")).collect();
        if !differing.is_empty() {
            return Ok(Some(format!("{} differs from rank 0's on {}", variable.name, differing.join(", "))));
        }
    }
    Ok(None)
}

/// The tensor's values in memory order of its shape.
fn to_bytes(tensor: &Tensor) -> Vec<u8> {
    let host = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0u8; host.numel() * host.kind().elt_size_in_bytes()];
    host.copy_data_u8(&mut bytes, host.numel());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::model::layers::Role;

    fn variables(values: [f32; 3]) -> Vec<Variable> {
        let tensor = Tensor::from_slice(&values);
        let other = Tensor::from_slice(&[1i64]);
        vec![
            Variable { name: "decoder.count".into(), tensor: other, role: Role::Buffer, above: 0 },
            Variable { name: "decoder.bias".into(), tensor, role: Role::NoDecay, above: 0 },
        ]
    }

    #[test]
    fn after_a_broadcast_all_ranks_hold_rank_0s_values() {
        let differences = threads::run(3, |comm| {
            let mine = variables([comm.rank() as f32, 2.0, f32::NAN]);
            let before = difference(&*comm, &mine).expect("no rank leaves");
            broadcast(&*comm, mine.iter().map(|variable| &variable.tensor)).expect("no rank leaves");
            (before, difference(&*comm, &mine).expect("no rank leaves"))
        });
        for (before, after) in differences {
            assert_eq!(before.as_deref(), Some("decoder.bias differs from rank 0's on rank 1, rank 2"));
            assert_eq!(after, None);
        }
    }
}
