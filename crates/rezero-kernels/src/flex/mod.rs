//! The kernels for Burn's Flex backend, f32.
//!
//! [`op`] connects a kernel with Burn's autodiff. [`memory`] turns tensors into slices and back.
//! [`parallel`] and [`pool`] run work as tasks. [`matmul`] and [`math`] are shared by the
//! operations. Each other module is one operation, written on slices.

mod math;
mod memory;
mod op;
mod parallel;
mod pool;

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod batch_norm;
pub(crate) mod conv;
pub(crate) mod cross_entropy;
pub(crate) mod gate;
pub(crate) mod linear;
mod matmul;
pub(crate) mod optim;
pub(crate) mod row_norm;
pub(crate) mod shortcut;

pub(crate) use op::{run, values};
pub(crate) use pool::tasks;
