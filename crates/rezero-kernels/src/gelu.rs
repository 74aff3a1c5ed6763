//! The Gaussian error linear unit.

use burn::tensor::{Device, Tensor};

/// `x · Φ(x) = x / 2 · (1 + erf(x / √2))` (Hendrycks and Gimpel,
/// [arXiv 1606.08415](https://arxiv.org/abs/1606.08415), section 2), with its exact derivative.
///
/// On ndarray and every GPU, Burn 0.22's `gelu` has the derivative of the approximation by tanh.
/// That derivative is off by up to 9e-4. This function therefore uses Burn's `gelu` only on Flex
/// (with feature `flex`) and composes other operations elsewhere.
///
/// # Shapes
///
/// - `x` and output: the same shape
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if derives_exactly(x.device()) {
        return burn::tensor::activation::gelu(x);
    }
    let phi = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    x * phi
}

#[cfg(feature = "flex")]
fn derives_exactly(device: Device) -> bool {
    use burn::backend::DispatchDevice;
    matches!(device.inner().as_dispatch(), DispatchDevice::Flex(_))
}

#[cfg(not(feature = "flex"))]
fn derives_exactly(_device: Device) -> bool {
    false
}
