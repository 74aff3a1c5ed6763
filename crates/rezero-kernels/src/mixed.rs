//! Matrix products in a narrower type than the operations around them.

use burn::tensor::{DType, Tensor};

/// The matrix product `a b`, computed in the type `dtype` and returned in the type of `a`.
///
/// # Shapes
///
/// - `a`: `[.., n, k]`
/// - `b`: `[.., k, m]`
/// - output: `[.., n, m]`
///
/// # Panics
///
/// If the shapes do not fit each other.
pub fn matmul_in<const D: usize>(a: Tensor<D>, b: Tensor<D>, dtype: DType) -> Tensor<D> {
    let own = a.dtype();
    if own == dtype {
        return a.matmul(b);
    }
    a.cast(dtype).matmul(b.cast(dtype)).cast(own)
}
