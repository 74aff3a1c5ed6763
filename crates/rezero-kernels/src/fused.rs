//! Burn's modules, computed by the kernels: the same values as their `forward`, which these functions stand in for in a network's own
//! `forward`. Modules, their records and their optimizers stay as they are.
//!
//! ```
//! use burn::nn::conv::{Conv2d, Conv2dConfig};
//! use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
//! use burn::tensor::{Device, Tensor};
//! use rezero_kernels::{Epilogue, fused};
//!
//! let device = Device::flex();
//! let conv: Conv2d = Conv2dConfig::new([3, 8], [3, 3])
//!     .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
//!     .with_bias(false)
//!     .init(&device);
//! let norm: BatchNorm = BatchNormConfig::new(8).init(&device);
//! let x = Tensor::<4>::ones([2, 3, 16, 16], &device);
//!
//! // relu(norm.forward(conv.forward(x)))
//! let y = fused::batch_norm(&norm, fused::conv2d(&conv, x), Epilogue::Relu);
//! assert_eq!(y.dims(), [2, 8, 16, 16]);
//! ```

use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, Dropout, Embedding, LayerNorm, Linear, PaddingConfig2d, RmsNorm};
use burn::tensor::{DType, Device, Int, Tensor};

use crate::{BatchNormed, Epilogue};

/// `act(linear(x))`.
///
/// # Shapes
///
/// - `x`: `[.., d_input]`
/// - output: `[.., d_output]`
///
/// # Panics
///
/// If the last axis of `x` is not the layer's input.
pub fn linear<const D: usize>(linear: &Linear, x: Tensor<D>, epilogue: Epilogue) -> Tensor<D> {
    let bias = linear.bias.as_ref().map(|bias| bias.val());
    crate::linear(x, linear.weight.val(), bias, epilogue)
}

/// `norm(x)`, with the ε of `norm`, which Burn's module keeps to itself (1e-5 unless its configuration says otherwise). Burn computes
/// norms in half precision, whose sums it widens, and those without β.
///
/// # Shapes
///
/// - `x` and output: `[.., d_model]`
///
/// # Panics
///
/// If the last axis of `x` is not the norm's.
pub fn layer_norm<const D: usize>(norm: &LayerNorm, x: Tensor<D>, epsilon: f64) -> Tensor<D> {
    match &norm.beta {
        Some(beta) if x.dtype() == DType::F32 => {
            crate::layer_norm(x, norm.gamma.val(), beta.val(), epsilon)
        }
        _ => norm.forward(x),
    }
}

/// `norm(x)`, as [`layer_norm`].
///
/// # Shapes
///
/// - `x` and output: `[.., d_model]`
///
/// # Panics
///
/// If the last axis of `x` is not the norm's.
pub fn rms_norm<const D: usize>(norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F32 => crate::rms_norm(x, norm.gamma.val(), norm.epsilon),
        _ => norm.forward(x),
    }
}

/// `embedding(ids)`.
///
/// # Shapes
///
/// - `ids`: `[batch, length]`
/// - output: `[batch, length, d_model]`
///
/// # Panics
///
/// As [`crate::embedding`].
pub fn embedding(embedding: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
    crate::embedding(embedding.weight.val(), ids, 1.0)
}

/// `dropout(x)`, where Burn's module drops: in training.
///
/// # Shapes
///
/// - `x` and output: `[rows, ..]`
pub fn dropout<const D: usize>(dropout: &Dropout, x: Tensor<D>) -> Tensor<D> {
    match x.device().is_autodiff() && dropout.training.is_enabled() {
        true => crate::dropout(x, dropout.prob),
        false => x,
    }
}

/// `conv(x)`. The kernel computes convolutions with one group, equal strides, equal padding on all sides and no dilation; also
/// `PaddingConfig2d::Same` of a square kernel of odd size at stride 1. Burn computes all others. A bias is added by Burn.
///
/// # Shapes
///
/// - `x`: `[batch, c_in, height, width]`
/// - output: `[batch, c_out, height_out, width_out]`
///
/// # Panics
///
/// As [`crate::conv2d`].
pub fn conv2d(conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let ([stride, other], [kh, kw]) = (conv.stride, conv.kernel_size);
    let padding = match conv.padding {
        PaddingConfig2d::Valid => Some(0),
        PaddingConfig2d::Explicit(top, left, bottom, right)
            if top == left && top == bottom && top == right =>
        {
            Some(top)
        }
        PaddingConfig2d::Same if kh == kw && kh % 2 == 1 && stride == 1 => Some(kh / 2),
        _ => None,
    };
    match padding {
        Some(padding) if stride == other && conv.dilation == [1, 1] && conv.groups == 1 => {
            let out = crate::conv2d(x, conv.weight.val(), stride, padding);
            match &conv.bias {
                Some(bias) => {
                    let bias = bias.val().cast(out.dtype());
                    let [channels] = bias.dims();
                    out + bias.reshape([1, channels, 1, 1])
                }
                None => out,
            }
        }
        _ => {
            let own = x.dtype();
            let out = conv.forward(x.cast(conv.weight.val().dtype()));
            out.cast(own)
        }
    }
}

/// `act(norm(x))`, with the batch's statistics in the cases where Burn's module uses them; it then updates the running ones, as Burn's
/// module does.
///
/// # Shapes
///
/// - `x` and output: `[batch, channels, height, width]`
///
/// # Panics
///
/// If `x` has other channels than the norm.
pub fn batch_norm(norm: &BatchNorm, x: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
    if !trains(norm, &x.device()) {
        return normalize(norm, x, epilogue, None);
    }
    let (gamma, beta) = (norm.gamma.val(), norm.beta.val());
    let normed = crate::batch_norm(x, gamma, beta, norm.epsilon, epilogue);
    update(norm, normed)
}

/// `skip + α · act(norm(x))`, as [`batch_norm`].
///
/// # Shapes
///
/// - `skip`, `x` and output: `[batch, channels, height, width]`
/// - `alpha`: `[1]`
///
/// # Panics
///
/// If `x` has other channels than the norm, or the shapes differ.
pub fn batch_norm_gated_sum(
    norm: &BatchNorm,
    skip: Tensor<4>,
    x: Tensor<4>,
    epilogue: Epilogue,
    alpha: Tensor<1>,
) -> Tensor<4> {
    if !trains(norm, &x.device()) {
        return normalize(norm, x, epilogue, Some((skip, alpha)));
    }
    let (gamma, beta) = (norm.gamma.val(), norm.beta.val());
    let epsilon = norm.epsilon;
    let normed = crate::batch_norm_gated_sum(skip, x, gamma, beta, epsilon, epilogue, alpha);
    update(norm, normed)
}

/// Normalises with the running statistics.
fn normalize(
    norm: &BatchNorm,
    x: Tensor<4>,
    epilogue: Epilogue,
    sum: Option<(Tensor<4>, Tensor<1>)>,
) -> Tensor<4> {
    let device = x.device();
    let channels = [
        norm.gamma.val(),
        norm.beta.val(),
        norm.running_mean.value().to_device(&device),
        norm.running_var.value().to_device(&device),
    ];
    crate::normalize(x, channels, norm.epsilon, epilogue, sum)
}

fn trains(norm: &BatchNorm, device: &Device) -> bool {
    device.is_autodiff() && norm.training.is_enabled()
}

/// Updates the running statistics with the batch's, as Burn's module does: the variance is the
/// biased one.
fn update(norm: &BatchNorm, batch: BatchNormed<4>) -> Tensor<4> {
    let momentum = norm.momentum;
    #[cfg(feature = "cube")]
    if crate::in_place::active() {
        let mean = norm.running_mean.value_sync();
        let variance = norm.running_var.value_sync();
        let all = [&mean, &batch.mean, &variance, &batch.variance];
        let all = all.map(|tensor| tensor.clone().inner().into_dispatch());
        if crate::cube::towards(all, momentum as f32) {
            return batch.output;
        }
    }
    let towards = |old: Tensor<1>, new: Tensor<1>| {
        let old = old.to_device(&new.device());
        (old * (1.0 - momentum) + new * momentum).detach()
    };
    let mean = towards(norm.running_mean.value_sync(), batch.mean);
    let variance = towards(norm.running_var.value_sync(), batch.variance);
    norm.running_mean.update(mean);
    norm.running_var.update(variance);
    batch.output
}
