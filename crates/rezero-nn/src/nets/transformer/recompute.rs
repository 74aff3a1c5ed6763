//! Training with the graph of only one layer in memory.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};

use rezero_kernels::draw_from;

use super::attention::Pass;
use super::drop;
use super::lm::RztxLm;
use super::mask::AttentionMask;
use crate::backward::{collect, leaf, product};
use crate::residual::Norm;

impl RztxLm {
    /// `loss(logits)` and the gradients of all parameters, with the graph of only one layer in
    /// memory at a time.
    ///
    /// Every layer is run once without a graph, and only its input is stored. It is run again when
    /// the backward pass reaches it (Chen et al.,
    /// [arXiv 1604.06174](https://arxiv.org/abs/1604.06174), with one layer per segment). The
    /// gradients are those of `loss(self.forward(tokens)).backward()`. The cost is one more forward
    /// pass. Burn's own gradient checkpointing recomputes single operations, not layers.
    ///
    /// Before each part the device is seeded with `seed(part)`, and within [`seeded`](rezero_kernels::seeded) its stream is that of
    /// the part, so that both runs of a layer drop the same values. Part 0 is the embedding, part `i + 1` is layer i. A backend has one random
    /// stream for the whole process: with dropout, no other thread may sample from it during this
    /// call.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`, on an autodiff device; `loss` takes logits
    ///   `[batch, length, vocab_size]` and gives `[1]`.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward); or if `tokens` are not on an autodiff device.
    pub fn loss_and_gradients(
        &self,
        tokens: Tensor<2, Int>,
        seed: impl Fn(u64) -> u64,
        loss: impl FnOnce(Tensor<3>) -> Tensor<1>,
    ) -> (Tensor<1>, GradientsParams) {
        let device = tokens.device();
        assert!(
            device.is_autodiff(),
            "gradients need an autodiff device, got {device:?}."
        );
        let inner = device.clone().inner();
        let [batch, length] = tokens.dims();
        let reseed = |part: usize, device: &Device| {
            device.seed(seed(part as u64));
            draw_from(part as u64);
        };

        // Forward: inputs of the layers, without a graph.
        let plain = self.valid();
        let embedded = plain.embed(tokens.clone().inner(), 0);
        let forced = Pass {
            mask: AttentionMask::causal().of(batch, length, length),
            forced_dropout: true,
            ..Pass::default()
        };
        reseed(0, &inner);
        let mut x = drop(&plain.dropout, embedded, true);
        let mut inputs = Vec::with_capacity(plain.encoder.layers.len());
        for (i, layer) in plain.encoder.layers.iter().enumerate() {
            inputs.push(x.clone());
            reseed(i + 1, &inner);
            x = layer.run(x, &forced, None);
        }

        // Backward: the head, the layers from the last to the first, the embedding.
        let mut gradients = GradientsParams::new();
        let top = leaf(x);
        let normed = Norm::apply(self.encoder.norm.as_ref(), top.clone());
        let value = loss(self.logits(normed));
        let grads = value.backward();
        let mut flowing = top.grad(&grads);
        // A tied output layer is the embedding, which then has gradients here too.
        collect(&self.head, &grads, &mut gradients);
        collect(&self.encoder.norm, &grads, &mut gradients);
        if self.head.is_none() {
            collect(&self.embedding, &grads, &mut gradients);
        }
        let pass = Pass {
            mask: AttentionMask::causal().of(batch, length, length),
            ..Pass::default()
        };
        let layers = self.encoder.layers.iter().zip(inputs).enumerate();
        for (i, (layer, x)) in layers.rev() {
            // A loss that does not depend on the layers has no gradients there.
            let Some(gradient) = flowing.take() else {
                break;
            };
            let x = leaf(x);
            reseed(i + 1, &device);
            let grads = product(layer.run(x.clone(), &pass, None), gradient).backward();
            flowing = x.grad(&grads);
            collect(layer, &grads, &mut gradients);
        }
        if let Some(gradient) = flowing {
            reseed(0, &device);
            let out = drop(&self.dropout, self.embed(tokens, 0), false);
            let grads = product(out, gradient).backward();
            collect(&self.embedding, &grads, &mut gradients);
            collect(&self.positions, &grads, &mut gradients);
        }
        (value, gradients)
    }
}
