//! The Gaussian error linear unit.

use burn::tensor::Tensor;

/// `x · Φ(x) = x / 2 · (1 + erf(x / √2))` (Hendrycks and Gimpel,
/// [arXiv 1606.08415](https://arxiv.org/abs/1606.08415), section 2), with its exact derivative.
///
/// On ndarray and every GPU, Burn 0.22's `gelu` has the derivative of the approximation by tanh,
/// which is off by up to 9e-4. Therefore other operations of Burn are composed there.
///
/// # Shapes
///
/// - `x` and output: the same shape
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(inputs) = crate::flex::values([x.clone().into_dispatch()]) {
        return crate::flex::run(crate::flex::gelu::Gelu, inputs).0;
    }
    let phi = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    x * phi
}
