//! Norms over the last axis.

use burn::tensor::Tensor;

/// A layer norm (Ba et al., [arXiv 1607.06450](https://arxiv.org/abs/1607.06450), section 3.1):
/// `γ · (x − μ) / √(σ² + ε) + β`, with mean μ and biased variance σ² of each row.
///
/// # Shapes
///
/// - `x` and output: `[.., channels]`
/// - `gamma`, `beta`: `[channels]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    check(&x, &gamma);
    check(&x, &beta);
    if x.shape().num_elements() == 0 {
        return x;
    }
    #[cfg(feature = "flex")]
    if let Some(inputs) = crate::flex::values([
        x.clone().into_dispatch(),
        gamma.clone().into_dispatch(),
        beta.clone().into_dispatch(),
    ]) {
        let kernel = crate::flex::row_norm::RowNorm {
            centred: true,
            epsilon: epsilon as f32,
        };
        return crate::op::run(kernel, inputs).0;
    }
    #[cfg(feature = "cube")]
    if let Some(inputs) = crate::cube::values([
        x.clone().into_dispatch(),
        gamma.clone().into_dispatch(),
        beta.clone().into_dispatch(),
    ]) {
        let kernel = crate::cube::row_norm::RowNorm {
            centred: true,
            epsilon: epsilon as f32,
        };
        return crate::op::run(kernel, inputs).0;
    }
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = centred.clone().square().mean_dim(D - 1);
    centred / (variance + epsilon).sqrt() * gamma.unsqueeze() + beta.unsqueeze()
}

/// An RMS norm (Zhang and Sennrich, [arXiv 1910.07467](https://arxiv.org/abs/1910.07467), section 3):
/// `γ · x / √(mean(x²) + ε)`, with the mean of each row.
///
/// # Shapes
///
/// - `x` and output: `[.., channels]`
/// - `gamma`: `[channels]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Tensor<D> {
    check(&x, &gamma);
    if x.shape().num_elements() == 0 {
        return x;
    }
    #[cfg(feature = "flex")]
    if let Some(inputs) =
        crate::flex::values([x.clone().into_dispatch(), gamma.clone().into_dispatch()])
    {
        let kernel = crate::flex::row_norm::RowNorm {
            centred: false,
            epsilon: epsilon as f32,
        };
        return crate::op::run(kernel, inputs).0;
    }
    #[cfg(feature = "cube")]
    if let Some(inputs) =
        crate::cube::values([x.clone().into_dispatch(), gamma.clone().into_dispatch()])
    {
        let kernel = crate::cube::row_norm::RowNorm {
            centred: false,
            epsilon: epsilon as f32,
        };
        return crate::op::run(kernel, inputs).0;
    }
    let mean = x.clone().square().mean_dim(D - 1);
    x / (mean + epsilon).sqrt() * gamma.unsqueeze()
}

fn check<const D: usize>(x: &Tensor<D>, of_channels: &Tensor<1>) {
    let (shape, [channels]) = (x.shape(), of_channels.dims());
    assert_eq!(
        shape[D - 1],
        channels,
        "a norm of {channels} channels must have so many in the last axis, got {shape:?}."
    );
}
