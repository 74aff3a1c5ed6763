//! Updating a model part by part while its gradients are computed.

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use rezero_nn::Update;

use super::norms::{Norms, Squares};

/// Takes an optimizer step with each part of a model, and stores the norms of its gradients.
pub struct PartUpdate<'a> {
    optimizer: &'a mut ModuleOptimizer,
    lr: f64,
    found: Vec<Tensor<1>>,
    layers: Vec<Option<usize>>,
}

impl<'a> PartUpdate<'a> {
    pub(super) fn new(optimizer: &'a mut ModuleOptimizer, lr: f64) -> Self {
        Self {
            optimizer,
            lr,
            found: Vec::new(),
            layers: Vec::new(),
        }
    }

    pub(super) fn norms(self) -> Norms {
        Norms {
            squares: Tensor::cat(self.found, 0),
            layers: self.layers,
        }
    }
}

impl Update for PartUpdate<'_> {
    fn update<M: Module>(
        &mut self,
        first_layer: Option<usize>,
        part: M,
        gradients: GradientsParams,
    ) -> M {
        let mut squares = Squares::new(&gradients, vec!["layers".to_owned()]);
        part.visit(&mut squares);
        let (found, layers) = squares.sums();
        self.found.extend(found);
        let layers = layers.into_iter();
        self.layers
            .extend(layers.map(|layer| Some(first_layer? + layer?)));
        self.optimizer.step(self.lr, part, gradients)
    }
}
