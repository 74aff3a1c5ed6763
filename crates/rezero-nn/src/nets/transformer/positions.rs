//! Sinusoidal positions.

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
    let numbers = [start, length, d_model].map(|n| n as u64);
    rezero_kernels::constant("sinusoidal positions", &numbers, device, || {
        let sin = angles(1e4, start, length, d_model, f64::sin);
        let cos = angles(1e4, start, length, d_model, f64::cos);
        let both: Vec<f32> = sin.into_iter().zip(cos).flat_map(|(s, c)| [s, c]).collect();
        TensorData::new(both, [1, length, d_model])
    })
}
