//! The losses for classification.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

/// The cross-entropy of each row in nats, `log Σ_j exp(logits[i, j]) − logits[i, targets[i]]`.
///
/// # Shapes
///
/// - `logits`: `[n, classes]`
/// - `targets`: `[n]`, from 0 to `classes` − 1
/// - output: `[n]`
///
/// # Panics
///
/// If the shapes do not fit each other, or if a target is not a class and the tensors run the
/// kernel for Flex. On CubeCL's backends, the loss of such a row is NaN.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let ([n, _], [given]) = (logits.dims(), targets.dims());
    assert_eq!(
        n, given,
        "logits have {n} rows, but there are {given} targets."
    );
    #[cfg(feature = "flex")]
    if let Some(inputs) = crate::flex::values([logits.clone().into_dispatch()]) {
        let targets = targets.into_data().iter::<i64>().collect();
        let kernel = crate::flex::cross_entropy::CrossEntropy { targets };
        return crate::op::run(kernel, inputs).0;
    }
    #[cfg(feature = "cube")]
    if let Some(targets) = crate::cube::integers(targets.clone().into_dispatch())
        && let Some(inputs) = crate::cube::values([logits.clone().into_dispatch()])
    {
        let kernel = crate::cube::cross_entropy::CrossEntropy { targets };
        return crate::op::run(kernel, inputs).0;
    }
    log_softmax(logits, 1)
        .gather(1, targets.unsqueeze_dim(1))
        .neg()
        .squeeze_dim(1)
}

/// The cross-entropy of each row with shares of the classes, in nats,
/// `−Σ_j shares[i, j] · log softmax(logits[i])_j`. Of a row of `shares` with a single 1, it is that of
/// [`cross_entropy`].
///
/// It is composed of Burn's operations: its time is little beside that of a network.
///
/// # Shapes
///
/// - `logits`, `shares`: `[n, classes]`
/// - output: `[n]`
///
/// # Panics
///
/// If the shapes differ.
pub fn soft_cross_entropy(logits: Tensor<2>, shares: Tensor<2>) -> Tensor<1> {
    let (wanted, given) = (logits.dims(), shares.dims());
    assert_eq!(
        wanted, given,
        "logits have the shape {wanted:?}, but the shares have {given:?}."
    );
    (log_softmax(logits, 1) * shares)
        .sum_dim(1)
        .neg()
        .squeeze_dim(1)
}
