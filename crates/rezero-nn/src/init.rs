//! Initial weights with PyTorch's distributions, and layers that use them.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

use crate::vocabulary::vocabulary;

vocabulary! {
    "initialisation";
    /// Where a network's initial weights come from.
    pub enum WeightInit {
        /// PyTorch's defaults for the layers used. In a Transformer: the matrix of queries, keys
        /// and values Xavier-uniform, the attention's biases 0, every other weight and bias
        /// U(−1/√fan_in, 1/√fan_in).
        PyTorch = "pytorch",
        /// The ReZero authors' notebook of this kind of network. In a Transformer: embedding and
        /// output layer U(−0.1, 0.1), every other matrix Xavier-uniform, the output layer's bias 0.
        Notebook = "notebook",
    }
}

/// PyTorch's default for convolutions and linear layers, U(−1/√fan_in, 1/√fan_in). The bounds of
/// Burn's `KaimingUniform` are ±√3 · gain / √fan_in.
pub(crate) fn torch_default() -> Initializer {
    Initializer::KaimingUniform {
        gain: 1.0 / 3f64.sqrt(),
        fan_out_only: false,
    }
}

/// N(0, 2 / fan): He et al., [arXiv 1502.01852](https://arxiv.org/abs/1502.01852).
pub(crate) fn kaiming_normal(fan_out: bool) -> Initializer {
    Initializer::KaimingNormal {
        gain: 2f64.sqrt(),
        fan_out_only: fan_out,
    }
}

/// A square convolution that keeps the image size at stride 1.
pub(crate) fn conv(
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    bias: bool,
    initializer: Initializer,
    device: &Device,
) -> Conv2d {
    let pad = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(bias)
        .with_initializer(initializer)
        .init(device)
}

/// A linear layer. `initializer` samples its weight; its bias has PyTorch's default.
pub(crate) fn linear(
    d_in: usize,
    d_out: usize,
    initializer: Initializer,
    device: &Device,
) -> Linear {
    let mut linear = LinearConfig::new(d_in, d_out)
        .with_initializer(torch_default())
        .init(device);
    linear.weight = initializer.init_with([d_in, d_out], Some(d_in), Some(d_out), device);
    linear
}

/// The mean over height and width, `[batch, channels, height, width]` to `[batch, channels]`.
pub(crate) fn global_average_pool(x: Tensor<4>) -> Tensor<2> {
    let [batch, channels, height, width] = x.dims();
    x.reshape([batch, channels, height * width])
        .mean_dim(2)
        .reshape([batch, channels])
}
