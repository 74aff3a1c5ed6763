//! Dropout.

use burn::tensor::{Distribution, Tensor};

use crate::draws::{self, Draw};

/// `x ⊙ m / (1 − p)`: each element is 0 with probability p (Hinton et al., [arXiv 1207.0580](https://arxiv.org/abs/1207.0580)). It drops in each
/// call: leave it out outside training.
///
/// On Flex and on CubeCL's backends, an element is kept or dropped by a hash of the call's seed, its row (the index on the first axis) and its place in the row:
/// no mask is stored, and the kernels and the composed operations drop the same. The seed comes from [`seeded`](crate::seeded), by
/// which the rows of a batch drop the same values on all of these backends, in whatever parts the batch is computed. Without it, the seed is drawn from the device's
/// random numbers. Other backends draw a mask from the device's random numbers.
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
    let draw = draws::next(&x.device());
    dropped(x, 1, probability, draw)
}

/// Dropout of a tensor that has `rows` rows for each row of the batch, on its first axes. It has elements, and the probability is above 0.
pub(crate) fn dropped<const D: usize>(
    x: Tensor<D>,
    rows: usize,
    probability: f64,
    draw: Draw,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if x.device() == burn::tensor::Device::flex() {
        use crate::flex::dropout::{Dropping, factors};

        if let Some(inputs) = crate::flex::values([x.clone().into_dispatch()]) {
            let dropping = Dropping {
                probability,
                draw,
                rows,
            };
            return crate::op::run(dropping, inputs).0;
        }
        let kept = factors(&x.dims(), rows, probability, draw);
        let kept = Tensor::from_data(kept, (&x.device(), x.dtype()));
        return x * kept;
    }
    #[cfg(feature = "cube")]
    if let Some(dropped) = crate::cube::dropout::dropped(&x, rows, probability, draw) {
        return dropped;
    }
    let _ = (rows, draw);
    let keep = 1.0 - probability;
    let kept = x.random_like(Distribution::Bernoulli(keep));
    x * kept * (1.0 / keep)
}
