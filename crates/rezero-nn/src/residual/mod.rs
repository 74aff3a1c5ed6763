//! Residual connections: how a branch joins its skip path.
//!
//! [`scheme`] is the table of schemes, with one row per scheme. [`residual`] joins a branch with
//! its skip path as a row says. [`norm`] is the norm that a row may have. A new scheme that
//! combines existing parts needs only a new row.

mod norm;
#[expect(clippy::module_inception, reason = "the file is named after its type")]
mod residual;
mod scheme;

pub use norm::{Norm, NormKind};
pub use residual::{LayerResiduals, Residual, ResidualConfig, Site};
pub use scheme::ResidualScheme;

pub(crate) use scheme::{Convolutions, Join, LastRelu};
