//! The residual sum with a gate.

use burn::tensor::Tensor;

/// `x + α · f`: a ReZero residual connection (Bachlechner et al.,
/// [arXiv 2003.04887](https://arxiv.org/abs/2003.04887), section 3).
///
/// # Shapes
///
/// - `x`, `f` and output: the same shape
/// - `alpha`: `[1]`
///
/// # Panics
///
/// If `f` has another shape than `x`, or `alpha` does not have exactly one value.
pub fn gated_sum<const D: usize>(x: Tensor<D>, f: Tensor<D>, alpha: Tensor<1>) -> Tensor<D> {
    assert_eq!(
        x.shape(),
        f.shape(),
        "x and f of a residual sum must have the same shape."
    );
    single(&alpha);
    #[cfg(feature = "flex")]
    if let Some(inputs) = crate::flex::values([
        x.clone().into_dispatch(),
        f.clone().into_dispatch(),
        alpha.clone().into_dispatch(),
    ]) {
        return crate::op::run(crate::flex::gate::GatedSum, inputs).0;
    }
    #[cfg(feature = "cube")]
    if let Some(inputs) = crate::cube::values([
        x.clone().into_dispatch(),
        f.clone().into_dispatch(),
        alpha.clone().into_dispatch(),
    ]) {
        return crate::op::run(crate::cube::gate::GatedSum, inputs).0;
    }
    x + f * alpha.unsqueeze()
}

/// Panics if `alpha` does not have exactly one value.
pub(crate) fn single(alpha: &Tensor<1>) {
    let [values] = alpha.dims();
    assert_eq!(values, 1, "alpha must have one value, got {values}.");
}
