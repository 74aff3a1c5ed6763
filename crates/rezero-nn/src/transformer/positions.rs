//! Positions that are computed, not learned.

use burn::tensor::{Device, Tensor, TensorData};

/// The angles `(start + i) · base^(−2j/width)` for `length` positions i and `width / 2`
/// frequencies j, mapped by `f`.
fn angles(
    base: f64,
    start: usize,
    length: usize,
    width: usize,
    f: impl Fn(f64) -> f64,
) -> Vec<f32> {
    let half = width / 2;
    (0..length * half)
        .map(|n| {
            let (i, j) = (n / half, n % half);
            f((start + i) as f64 * base.powf(-2.0 * j as f64 / width as f64)) as f32
        })
        .collect()
}

/// `[1, length, d_model]`: sine in the even and cosine in the odd channels (Vaswani et al.,
/// [arXiv 1706.03762](https://arxiv.org/abs/1706.03762), section 3.5).
pub(super) fn sinusoidal(
    start: usize,
    length: usize,
    d_model: usize,
    device: &Device,
) -> Tensor<3> {
    let sin = angles(1e4, start, length, d_model, f64::sin);
    let cos = angles(1e4, start, length, d_model, f64::cos);
    let both: Vec<f32> = sin.into_iter().zip(cos).flat_map(|(s, c)| [s, c]).collect();
    Tensor::from_data(TensorData::new(both, [1, length, d_model]), device)
}

/// Rotary positions: Su et al., [arXiv 2104.09864](https://arxiv.org/abs/2104.09864). Channel j and
/// channel j + d_head/2 of a head are turned by the angle of position and frequency j.
pub(super) struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    /// For queries or keys like `x`, `[batch, n_heads, length, d_head]`, from position `start` on.
    pub fn new(base: f64, start: usize, x: &Tensor<4>) -> Self {
        let [_, _, length, d_head] = x.dims();
        let table = |f: fn(f64) -> f64| {
            let values = angles(base, start, length, d_head, f);
            let data = TensorData::new(values, [1, 1, length, d_head / 2]);
            Tensor::<4>::from_data(data, &x.device()).cast(x.dtype())
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let a = x.clone().slice_dim(3, 0..half);
        let b = x.slice_dim(3, half..2 * half);
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let turned_a = a.clone() * cos.clone() - b.clone() * sin.clone();
        let turned_b = b * cos + a * sin;
        Tensor::cat(vec![turned_a, turned_b], 3)
    }
}
