//! The kernels for Burn's Flex backend, f32.
//!
//! [`op`] joins a kernel to Burn's autodiff, [`memory`] takes tensors apart and puts them together,
//! [`parallel`] cuts work into tasks; the other modules are one operation each, written on slices.

mod math;
mod memory;
mod op;
mod parallel;
mod pool;

pub(crate) mod attention;
pub(crate) mod batch_norm;
pub(crate) mod conv;
pub(crate) mod cross_entropy;
pub(crate) mod gate;
pub(crate) mod linear;
mod matmul;
pub(crate) mod optim;

pub(crate) use op::{run, values};
