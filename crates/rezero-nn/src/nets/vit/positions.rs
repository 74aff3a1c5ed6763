//! Positions of patches: their kinds, sines and cosines, and trained positions on another grid.

use burn::tensor::{Device, Tensor, TensorData};

use crate::vocabulary::vocabulary;

vocabulary! {
    "kind of positions of patches";
    /// How a network knows the place of a patch in its image.
    pub enum PatchPositions {
        /// A trained vector for each patch, added to its embedding. For an image of another size,
        /// the vectors are interpolated by bicubic interpolation over rows and columns.
        Learned = "learned",
        /// Sines and cosines of the patch's column and row, added to its embedding: Chen et al.,
        /// [arXiv 2104.02057](https://arxiv.org/abs/2104.02057). d_model must be a multiple of 4.
        Sinusoidal = "sinusoidal",
        /// No positions: the network does not know the order of the patches.
        None = "none",
    }
}

/// `[rows · columns, d_model]`: the sines of the column, its cosines, the sines of the row, its
/// cosines, each with the `d_model / 4` frequencies `10000^(−4j / d_model)`.
pub(super) fn sinusoidal(
    [rows, columns]: [usize; 2],
    d_model: usize,
    device: &Device,
) -> Tensor<2> {
    let quarter = d_model / 4;
    // The sines and cosines of one place on an axis.
    let waves = |place: usize| -> Vec<f32> {
        let angles = (0..quarter).map(|j| place as f64 * 1e4f64.powf(-(j as f64) / quarter as f64));
        let (sines, cosines): (Vec<f32>, Vec<f32>) = angles
            .map(|angle| (angle.sin() as f32, angle.cos() as f32))
            .unzip();
        [sines, cosines].concat()
    };
    let of_columns: Vec<Vec<f32>> = (0..columns).map(waves).collect();
    let values: Vec<f32> = (0..rows)
        .map(waves)
        .flat_map(|row| {
            let patches = of_columns.iter();
            patches
                .flat_map(|column| column.iter().chain(&row).copied().collect::<Vec<f32>>())
                .collect::<Vec<f32>>()
        })
        .collect();
    Tensor::from_data(
        TensorData::new(values, [rows * columns, 4 * quarter]),
        device,
    )
}

/// A table of a grid, `[rows · columns, d_model]`, interpolated to another grid.
///
/// It is PyTorch's `F.interpolate` with `mode="bicubic"`, `align_corners=False` and
/// `antialias=False`, as a product with a matrix for each axis. So it has gradients on every backend.
pub(super) fn resized(table: Tensor<2>, from: [usize; 2], to: [usize; 2]) -> Tensor<2> {
    let [_, d_model] = table.dims();
    let device = table.device();
    let axis = |i: usize| bicubic(from[i], to[i], &device).cast(table.dtype());
    let rows = axis(0).matmul(table.clone().reshape([from[0], from[1] * d_model]));
    let columns = rows
        .reshape([to[0], from[1], d_model])
        .swap_dims(0, 1)
        .reshape([from[1], to[0] * d_model]);
    axis(1)
        .matmul(columns)
        .reshape([to[1], to[0], d_model])
        .swap_dims(0, 1)
        .reshape([to[0] * to[1], d_model])
}

/// `[to, from]`: each row has the weights of the old places in one new place, by Keys' cubic
/// convolution with a = −0.75 (IEEE Transactions on Acoustics, Speech, and Signal Processing 29,
/// 1981). A place beyond the border is the one at the border.
fn bicubic(from: usize, to: usize, device: &Device) -> Tensor<2> {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let mut weights = vec![0.0; to * from];
    for (i, row) in weights.chunks_mut(from).enumerate() {
        let at = from as f64 / to as f64 * (i as f64 + 0.5) - 0.5;
        let t = at - at.floor();
        let taps = [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)];
        for (tap, weight) in (-1..).zip(taps) {
            let place = (at.floor() as isize + tap).clamp(0, from as isize - 1);
            row[place as usize] += weight;
        }
    }
    let weights: Vec<f32> = weights.into_iter().map(|weight| weight as f32).collect();
    Tensor::from_data(TensorData::new(weights, [to, from]), device)
}
