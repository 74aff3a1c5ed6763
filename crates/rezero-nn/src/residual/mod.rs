//! Residual connections: how a branch joins its skip path.
//!
//! [`scheme`] is the table of schemes, a row each; [`residual`] joins a branch with its skip path by a
//! row; [`norm`] is the norm that a row may ask for. A new scheme whose parts exist is a row.

mod norm;
#[expect(clippy::module_inception, reason = "the file is named after its type")]
mod residual;
mod scheme;

pub use norm::{Norm, NormKind};
pub use residual::{LayerResiduals, Residual, ResidualConfig, Site};
pub use scheme::ResidualScheme;

pub(crate) use scheme::{Convolutions, Join, LastRelu};
