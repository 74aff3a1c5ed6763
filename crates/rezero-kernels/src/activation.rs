//! Activations of transformers.

use burn::tensor::Tensor;
use burn::tensor::activation::{relu, sigmoid};

/// The function `act` that an operation applies to its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// `x` itself.
    Identity,
    /// max(x, 0).
    Relu,
    /// [`gelu`].
    Gelu,
    /// [`silu`].
    Silu,
}

impl Epilogue {
    /// `act(x)`, as an operation of its own.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Identity => x,
            Self::Relu => relu(x),
            Self::Gelu => gelu(x),
            Self::Silu => silu(x),
        }
    }
}

/// The Gaussian error linear unit `x · Φ(x) = x / 2 · (1 + erf(x / √2))` (Hendrycks and Gimpel,
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
        return crate::op::run(crate::flex::activation::Unary::Gelu, inputs).0;
    }
    let phi = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    x * phi
}

/// The sigmoid linear unit `x · σ(x) = x / (1 + e^(−x))`: Hendrycks and Gimpel,
/// [arXiv 1606.08415](https://arxiv.org/abs/1606.08415), section 2; also called swish.
///
/// # Shapes
///
/// - `x` and output: the same shape
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(inputs) = crate::flex::values([x.clone().into_dispatch()]) {
        return crate::op::run(crate::flex::activation::Unary::Silu, inputs).0;
    }
    x.clone() * sigmoid(x)
}

/// `silu(x) ⊙ gate`: the product of SwiGLU (Shazeer, [arXiv 2002.05202](https://arxiv.org/abs/2002.05202), section 2),
/// `x` and `gate` being two linear functions of the same input.
///
/// # Shapes
///
/// - `x`, `gate` and output: the same shape
///
/// # Panics
///
/// If `x` and `gate` have different shapes.
pub fn swiglu<const D: usize>(x: Tensor<D>, gate: Tensor<D>) -> Tensor<D> {
    assert_eq!(
        x.shape(),
        gate.shape(),
        "x and gate of SwiGLU must have the same shape."
    );
    #[cfg(feature = "flex")]
    if let Some(inputs) =
        crate::flex::values([x.clone().into_dispatch(), gate.clone().into_dispatch()])
    {
        return crate::op::run(crate::flex::activation::SwiGlu, inputs).0;
    }
    silu(x) * gate
}
