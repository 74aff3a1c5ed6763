//! Fully connected networks without gates.

use burn::module::Module;

use super::{Mlp, MlpLayer};
use crate::fold::{Fold, scale_linear};

impl Fold for Mlp {
    fn fold(self) -> Self {
        let mut net = self.valid();
        for MlpLayer { linear, residual } in &mut net.layers {
            if let Some(folded) = residual.fold(None, true) {
                scale_linear(linear, &folded.factor());
            }
        }
        net
    }
}
