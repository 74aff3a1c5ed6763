//! Training of a fully connected network, one segment of layers at a time.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;

use super::{Mlp, MlpLayer, input_epilogue};
use crate::backward::{collected, leaf, product};
use crate::residual::Norm;
use rezero_kernels::fused;

/// Updates one part of a network at a time, see [`Mlp::train_by_segments`].
pub trait Update {
    /// Returns `part` after its update. `first_layer` is the index, from 0, of the first residual
    /// layer of the part, or `None` if the part is not made of residual layers.
    fn update<M: Module>(
        &mut self,
        first_layer: Option<usize>,
        part: M,
        gradients: GradientsParams,
    ) -> M;
}

impl Mlp {
    /// Updates all parameters by the gradients of `loss(logits)`, from the last layer to the first,
    /// `segment` layers at a time.
    ///
    /// Each segment is run once without a graph, and only its input is stored. It is run again when
    /// the backward pass reaches it (Chen et al.,
    /// [arXiv 1604.06174](https://arxiv.org/abs/1604.06174)). Its gradients go to `update` at once
    /// and are freed before the next segment. So the memory never holds the activations or the
    /// gradients of the whole network: 10,000 layers train in little more memory than their
    /// parameters and the optimizer's state take.
    ///
    /// The updates are the same as after a whole backward pass. Operations on all gradients
    /// together, such as clipping their global norm, are not possible. The cost is one more forward
    /// pass.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, d_input]`, on an autodiff device; `loss` takes logits `[batch, num_classes]` and
    ///   gives `[1]`.
    ///
    /// # Panics
    ///
    /// If `x` is not on an autodiff device or `segment` is 0.
    pub fn train_by_segments(
        self,
        x: Tensor<2>,
        segment: usize,
        loss: impl FnOnce(Tensor<2>) -> Tensor<1>,
        update: &mut impl Update,
    ) -> Self {
        let device = x.device();
        assert!(
            device.is_autodiff(),
            "gradients need an autodiff device, got {device:?}."
        );
        assert!(segment > 0, "a segment has at least one layer.");
        let mut inputs = Vec::with_capacity(self.layers.len().div_ceil(segment));
        let hidden = {
            // Gone before the updates, which need the parameters for themselves.
            let plain = self.valid();
            let mut hidden = plain.embed(x.clone().inner());
            for part in plain.layers.chunks(segment) {
                inputs.push(hidden.clone());
                hidden = part.iter().fold(hidden, |x, layer| plain.layer(layer, x));
            }
            hidden
        };

        let top = leaf(hidden);
        let gradients = loss(self.logits(top.clone())).backward();
        let mut flowing = top
            .grad(&gradients)
            .expect("the loss depends on the layers");
        let Self {
            mut input,
            layers: mut rest,
            mut shared_norm,
            mut norm,
            mut output,
            input_relu,
        } = self;
        let of_norm = collected(&norm, &gradients);
        let of_output = collected(&output, &gradients);
        drop(gradients);
        norm = update.update(None, norm, of_norm);
        output = update.update(None, output, of_output);

        let mut of_shared = GradientsAccumulator::new();
        let mut done: Vec<Vec<MlpLayer>> = Vec::with_capacity(inputs.len());
        while let Some(x) = inputs.pop() {
            let first = inputs.len() * segment;
            let part = rest.split_off(first);
            let x = leaf(x);
            let y = part.iter().fold(x.clone(), |x, layer| {
                Norm::apply(shared_norm.as_ref(), layer.forward(x))
            });
            let gradients = product(y, flowing).backward();
            flowing = x.grad(&gradients).expect("a segment depends on its input");
            let of_part = collected(&part, &gradients);
            of_shared.accumulate(&shared_norm, collected(&shared_norm, &gradients));
            drop(gradients);
            done.push(update.update(Some(first), part, of_part));
        }
        shared_norm = update.update(None, shared_norm, of_shared.grads());

        let x = fused::linear(&input, x, input_epilogue(input_relu));
        let gradients = product(x, flowing).backward();
        let of_input = collected(&input, &gradients);
        drop(gradients);
        input = update.update(None, input, of_input);
        Self {
            input,
            layers: done.into_iter().rev().flatten().collect(),
            shared_norm,
            norm,
            output,
            input_relu,
        }
    }
}
