//! Batch normalisation, fused with the activation and the residual sum that follow it.

#[cfg(feature = "flex")]
use burn::tensor::DType;
use burn::tensor::{Tensor, module};

use crate::activation::Epilogue;
use crate::group::Group;

/// A normalised batch and its statistics.
#[derive(Clone, Debug)]
pub struct BatchNormed<const D: usize> {
    /// The output.
    pub output: Tensor<D>,
    /// The mean of each channel, `[channels]`, outside autodiff.
    pub mean: Tensor<1>,
    /// The biased variance of each channel (the sum of squares is divided by the number of values),
    /// `[channels]`, outside autodiff.
    pub variance: Tensor<1>,
}

impl<const D: usize> BatchNormed<D> {
    fn map(self, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Self {
        Self {
            output: f(self.output),
            ..self
        }
    }
}

/// Whether the kernel has the activation. The networks here need no other after a batch norm; an operation of its own applies those.
fn fused(epilogue: Epilogue) -> bool {
    matches!(epilogue, Epilogue::Identity | Epilogue::Relu)
}

/// `act(γ · (x − μ) / √(σ² + ε) + β)` with the mean μ and the (biased) variance σ² of each channel
/// of this batch: Ioffe and Szegedy, [arXiv 1502.03167](https://arxiv.org/abs/1502.03167),
/// algorithm 1.
///
/// # Shapes
///
/// - `x` and output: `[batch, channels, ..]`
/// - `gamma`, `beta`: `[channels]`
///
/// # Panics
///
/// If the shapes do not fit each other; in a [`Group`], if the tensors are not f32 on Flex.
pub fn batch_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    epilogue: Epilogue,
) -> BatchNormed<D> {
    check(&x, &gamma, &beta);
    if !fused(epilogue) {
        let normed = batch_norm(x, gamma, beta, epsilon, Epilogue::Identity);
        return normed.map(|x| epilogue.apply(x));
    }
    #[cfg(feature = "flex")]
    if let Some(inputs) = crate::flex::values([
        x.clone().into_dispatch(),
        gamma.clone().into_dispatch(),
        beta.clone().into_dispatch(),
    ]) {
        let kernel = crate::flex::batch_norm::BatchNorm {
            epsilon: epsilon as f32,
            epilogue,
            group: Group::current(),
        };
        let (output, statistics) = crate::op::run(kernel, inputs);
        return with_statistics(output, statistics);
    }
    must_be_alone();
    #[cfg(feature = "cube")]
    if let Some(inputs) = crate::cube::values([
        x.clone().into_dispatch(),
        gamma.clone().into_dispatch(),
        beta.clone().into_dispatch(),
    ]) {
        return on_cube(epsilon, epilogue, inputs);
    }
    composed(x, gamma, beta, epsilon, epilogue)
}

/// `x + α · act(bn(f))`: [`batch_norm`] of `f`, the output of a branch's last layer, and the
/// residual sum ([`gated_sum`](crate::gated_sum)) in one operation.
///
/// # Shapes
///
/// - `x`, `f` and output: `[batch, channels, ..]`
/// - `gamma`, `beta`: `[channels]`
/// - `alpha`: `[1]`
///
/// # Panics
///
/// If the shapes do not fit each other; in a [`Group`], if the tensors are not f32 on Flex.
pub fn batch_norm_gated_sum<const D: usize>(
    x: Tensor<D>,
    f: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    epilogue: Epilogue,
    alpha: Tensor<1>,
) -> BatchNormed<D> {
    check(&f, &gamma, &beta);
    assert_eq!(
        x.shape(),
        f.shape(),
        "x and f of a residual sum must have the same shape."
    );
    crate::gate::single(&alpha);
    if !fused(epilogue) {
        let normed = batch_norm(f, gamma, beta, epsilon, epilogue);
        return normed.map(|f| crate::gated_sum(x, f, alpha));
    }
    #[cfg(feature = "flex")]
    if let Some(inputs) = crate::flex::values([
        f.clone().into_dispatch(),
        gamma.clone().into_dispatch(),
        beta.clone().into_dispatch(),
        x.clone().into_dispatch(),
        alpha.clone().into_dispatch(),
    ]) {
        let kernel = crate::flex::batch_norm::BatchNorm {
            epsilon: epsilon as f32,
            epilogue,
            group: Group::current(),
        };
        let (output, statistics) = crate::op::run(kernel, inputs);
        return with_statistics(output, statistics);
    }
    must_be_alone();
    #[cfg(feature = "cube")]
    if let Some(inputs) = crate::cube::values([
        f.clone().into_dispatch(),
        gamma.clone().into_dispatch(),
        beta.clone().into_dispatch(),
        x.clone().into_dispatch(),
        alpha.clone().into_dispatch(),
    ]) {
        return on_cube(epsilon, epilogue, inputs);
    }
    composed(f, gamma, beta, epsilon, epilogue).map(|f| crate::gated_sum(x, f, alpha))
}

/// `act(γ · (x − μ) / √(σ² + ε) + β)` with given statistics μ and σ²: batch norm outside training.
///
/// With `sum` = `(x₀, α)`, it is the residual sum `x₀ + α · act(…)`. The kernel computes both in
/// one pass.
///
/// # Shapes
///
/// - `x`, `x₀` and output: `[batch, channels, ..]`
/// - `gamma`, `beta`, `mean`, `variance`: `[channels]`
/// - `α`: `[1]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn normalize<const D: usize>(
    x: Tensor<D>,
    [gamma, beta, mean, variance]: [Tensor<1>; 4],
    epsilon: f64,
    epilogue: Epilogue,
    sum: Option<(Tensor<D>, Tensor<1>)>,
) -> Tensor<D> {
    check(&x, &gamma, &beta);
    check(&x, &mean, &variance);
    if let Some((skip, alpha)) = &sum {
        crate::gate::single(alpha);
        assert_eq!(
            skip.shape(),
            x.shape(),
            "x and f of a residual sum must have the same shape."
        );
    }
    #[cfg(feature = "flex")]
    if fused(epilogue) {
        use crate::flex::batch_norm::normalize;
        let channels = [&gamma, &beta, &mean, &variance];
        if let Some(out) = normalize(&x, channels, epsilon as f32, epilogue, sum.as_ref()) {
            return out;
        }
    }
    let out = module::batch_norm(x, gamma, beta, mean, variance, epsilon);
    let out = epilogue.apply(out);
    match sum {
        Some((skip, alpha)) => crate::gated_sum(skip, out, alpha),
        None => out,
    }
}

fn composed<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    epilogue: Epilogue,
) -> BatchNormed<D> {
    let normed = module::batch_norm_train(x, gamma, beta, epsilon);
    BatchNormed {
        output: epilogue.apply(normed.output),
        mean: normed.mean.detach(),
        variance: normed.variance.detach(),
    }
}

/// Panics in a [`Group`], whose statistics only the kernel for Flex takes.
fn must_be_alone() {
    assert!(
        Group::current().is_none(),
        "batch norm takes the statistics of several processes only for f32 on Flex, without gradient checkpointing."
    );
}

#[cfg(feature = "cube")]
fn on_cube<const N: usize, const D: usize>(
    epsilon: f64,
    epilogue: Epilogue,
    inputs: crate::op::Values<burn::backend::Cube, N>,
) -> BatchNormed<D> {
    let kernel = crate::cube::batch_norm::BatchNorm {
        epsilon: epsilon as f32,
        epilogue,
    };
    let (output, [mean, variance]) = crate::op::run(kernel, inputs);
    BatchNormed {
        output,
        mean: Tensor::from_primitive::<burn::backend::Cube>(mean),
        variance: Tensor::from_primitive::<burn::backend::Cube>(variance),
    }
}

#[cfg(feature = "flex")]
fn with_statistics<const D: usize>(
    output: Tensor<D>,
    [mean, variance]: [Vec<f32>; 2],
) -> BatchNormed<D> {
    let device = output.device();
    let tensor = |values: Vec<f32>| Tensor::from_data(values.as_slice(), (&device, DType::F32));
    BatchNormed {
        output,
        mean: tensor(mean),
        variance: tensor(variance),
    }
}

fn check<const D: usize>(x: &Tensor<D>, gamma: &Tensor<1>, beta: &Tensor<1>) {
    let channels = x.dims()[1];
    assert!(
        gamma.dims() == [channels] && beta.dims() == [channels],
        "gamma and beta must have one value for each of {channels} channels, got {:?} and {:?}.",
        gamma.dims(),
        beta.dims()
    );
}
