//! Dropout.

use burn::tensor::{Distribution, Tensor};

/// `x ⊙ m / (1 − p)`: each element is 0 with probability p (Hinton et al., [arXiv 1207.0580](https://arxiv.org/abs/1207.0580)). It drops in each
/// call: leave it out outside training.
///
/// On Flex, an element is kept or dropped by a hash of the call's seed, its row (the index on the first axis) and its place in the row:
/// no mask is stored, and the kernel and the composed operations drop the same. The seed is drawn from the device's random numbers, or
/// comes from [`seeded`](crate::seeded), by which the rows of a batch drop the same values in whatever parts it is computed. Other
/// backends draw a mask from the device's random numbers.
///
/// # Shapes
///
/// - `x` and output: `[rows, ..]`
///
/// # Panics
///
/// If `probability` is not in [0, 1).
pub fn dropout<const D: usize>(x: Tensor<D>, probability: f64) -> Tensor<D> {
    assert!(
        (0.0..1.0).contains(&probability),
        "the probability of dropout must be in [0, 1), got {probability}."
    );
    if probability == 0.0 || x.shape().num_elements() == 0 {
        return x;
    }
    #[cfg(feature = "flex")]
    if x.device() == burn::tensor::Device::flex() {
        use crate::flex::dropout::{Dropping, factors};

        let draw = crate::draws::next(&x.device());
        let dropping = Dropping { probability, draw };
        if let Some(inputs) = crate::flex::values([x.clone().into_dispatch()]) {
            return crate::op::run(dropping, inputs).0;
        }
        let kept = factors(&x.dims(), 1, probability, draw);
        let kept = Tensor::from_data(kept, (&x.device(), x.dtype()));
        return x * kept;
    }
    let keep = 1.0 - probability;
    let kept = x.random_like(Distribution::Bernoulli(keep));
    x * kept * (1.0 / keep)
}
