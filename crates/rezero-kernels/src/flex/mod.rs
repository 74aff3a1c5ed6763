//! The kernels for Burn's Flex backend, f32.
//!
//! [`memory`] turns tensors into slices and back.
//! [`parallel`] and [`pool`] run work as tasks. [`matmul`] and [`math`] are shared by the
//! operations. Each other module is one operation, written on slices.

mod math;
mod memory;
mod parallel;
mod pool;

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod batch_norm;
pub(crate) mod conv;
pub(crate) mod cross_entropy;
pub(crate) mod dropout;
pub(crate) mod embedding;
pub(crate) mod gate;
pub(crate) mod linear;
mod matmul;
pub(crate) mod optim;
pub(crate) mod row_norm;
pub(crate) mod shortcut;

pub use parallel::check_simd;
pub(crate) use pool::tasks;

use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind, Flex};

use crate::op::{Host, Values};

impl Host for Flex {
    // The last arm is for other backends, where they are compiled in.
    #[allow(unreachable_patterns)]
    fn of(kind: DispatchTensorKind) -> Option<BackendTensor<Self>> {
        match kind {
            DispatchTensorKind::Flex(tensor) => Some(tensor),
            _ => None,
        }
    }
}

/// See [`values`](crate::op::values).
pub(crate) fn values<const N: usize>(tensors: [DispatchTensor; N]) -> Option<Values<Flex, N>> {
    crate::op::values(tensors)
}
