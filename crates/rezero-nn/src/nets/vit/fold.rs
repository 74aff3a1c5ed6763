//! Vision Transformers without gates.

use burn::module::Module;

use super::Vit;
use crate::fold::Fold;

impl Fold for Vit {
    fn fold(self) -> Self {
        let mut net = self.valid();
        net.encoder = net.encoder.fold();
        net
    }
}
