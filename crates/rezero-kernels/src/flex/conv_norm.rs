//! A convolution and the batch norm after it. The convolution sums up each piece of its result while that is in cache, so the batch
//! norm needs no pass for its statistics.

use burn::backend::flex::FlexTensor;

use super::batch_norm::{self, BatchNorm};
use super::conv::Conv2d;
use super::op::Kernel;

/// Inputs: x, the weights, γ, β, and for a residual sum skip, α.
#[derive(Debug)]
pub(crate) struct ConvNorm {
    pub conv: Conv2d,
    pub norm: BatchNorm,
}

impl Kernel for ConvNorm {
    type State = (<Conv2d as Kernel>::State, batch_norm::Kept);
    /// Mean and variance.
    type Aux = [Vec<f32>; 2];

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Self::State, Self::Aux) {
        let (of_conv, of_norm) = inputs.split_at(2);
        let (z, conv, moments) = self.conv.with_moments(of_conv);
        let of_norm: Vec<_> = core::iter::once(z).chain(of_norm.iter().cloned()).collect();
        let (y, norm, statistics) = self.norm.with_moments(&of_norm, Some(moments));
        (y, (conv, norm), statistics)
    }

    fn backward(
        self,
        (conv, norm): Self::State,
        grad: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let (of_conv, of_norm) = wanted.split_at(2);
        let wanted: Vec<_> = core::iter::once(of_conv.contains(&true))
            .chain(of_norm.iter().copied())
            .collect();
        let mut of_norm = self.norm.backward(norm, grad, &wanted).into_iter();
        let mut found = match of_norm.next().flatten() {
            Some(d_z) => self.conv.backward(conv, d_z, of_conv),
            None => vec![None, None],
        };
        found.extend(of_norm);
        found
    }
}
