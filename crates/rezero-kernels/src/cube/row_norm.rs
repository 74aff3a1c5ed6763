//! `y = γ · x̂ + β`, `x̂ = (x − μ) · r`, `r = 1 / √(σ² + ε)` for each row; an RMS norm has μ = 0 and no β.
//!
//! Some neighbouring units share a row: a cube has one long row or several short ones. The forward pass reads a row for its mean, for its squared
//! deviations and for the output; the later reads come from the cache. The mean is summed as x − k, where k is the row's first value, so that a mean far from zero cancels
//! nothing.
//!
//! Backward, with `h = g · γ`: `dx = r · (h − mean(h) − x̂ · mean(h · x̂))`, without `mean(h)` in an RMS norm. `dγ = Σ g · x̂` and `dβ = Σ g` over the rows are
//! two more kernels: a cube adds 32 channels over some rows, and the second kernel adds the cubes' sums.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::ops::CubeOps;
use super::sums::{group_sum, lane_sum};
use super::{Rows, UNITS, buffer, contiguous, fresh, grid, group_of};
use crate::op::Kernel;

/// Channels of a cube that adds over rows: as many neighbouring numbers as a memory transaction has on most devices.
const LANES: usize = 32;
/// Rows that a unit adds on its own, at least.
const RUN: usize = 8;
/// Cubes to fill the device with.
const CUBES: usize = 512;
/// Numbers of a cube that adds the sums of cubes.
const TOTALS: usize = 16;

/// Inputs: x, γ, and for a layer norm β.
#[derive(Debug)]
pub(crate) struct RowNorm {
    /// Whether the mean is subtracted.
    pub centred: bool,
    pub epsilon: f32,
}

impl Kernel<Cube> for RowNorm {
    /// x, γ, and μ and r of each row.
    type State = [FloatTensor<Cube>; 3];
    type Aux = ();

    fn forward(&self, inputs: &[FloatTensor<Cube>]) -> (FloatTensor<Cube>, Self::State, ()) {
        let (x, gamma) = (inputs[0].clone(), inputs[1].clone());
        let (x1, gamma1) = (x.clone(), gamma.clone());
        let (output, kept) = match inputs.get(2) {
            Some(beta) => Cube::rezero_layer_norm(x1, gamma1, beta.clone(), self.epsilon),
            None => Cube::rezero_rms_norm(x1, gamma1, self.epsilon),
        };
        (output, [x, gamma, kept], ())
    }

    fn backward(
        self,
        [x, gamma, kept]: Self::State,
        grad: FloatTensor<Cube>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Cube>>> {
        let of_x = wanted[0].then(|| {
            let (grad, x, gamma, kept) = (grad.clone(), x.clone(), gamma.clone(), kept.clone());
            Cube::rezero_row_norm_backward(grad, x, gamma, kept, self.centred)
        });
        let mut found = vec![of_x];
        if wanted[1..].contains(&true) {
            let (of_gamma, of_beta) = Cube::rezero_row_norm_sums(grad, x, gamma, kept);
            let sums = [of_gamma, of_beta].into_iter().zip(&wanted[1..]);
            found.extend(sums.map(|(sum, wanted)| wanted.then_some(sum)));
        } else {
            found.extend(wanted[1..].iter().map(|_| None));
        }
        found
    }
}

/// Rows and channels.
fn sizes(x: &CubeTensor, gamma: &CubeTensor) -> [usize; 2] {
    let channels = gamma.shape()[0];
    [x.shape().num_elements() / channels, channels]
}

/// The output, and `[rows, 2]` with μ and r of each row. Without β, it is an RMS norm. x may have any rank.
pub(super) fn forward(
    [x, gamma]: [CubeTensor; 2],
    beta: Option<CubeTensor>,
    epsilon: f32,
) -> (CubeTensor, CubeTensor) {
    let centred = beta.is_some();
    // An RMS norm does not read β.
    let beta = beta.unwrap_or_else(|| gamma.clone());
    let [x, gamma, beta] = contiguous([x, gamma, beta]);
    let [rows, channels] = sizes(&x, &gamma);
    let output = fresh(&x, x.shape());
    let kept = fresh(&x, Shape::new([rows, 2]));
    let group = group_of(channels);
    norm_rows::launch(
        &x.client,
        grid(rows * group),
        CubeDim::new_1d(UNITS),
        buffer(&x),
        buffer(&gamma),
        buffer(&beta),
        buffer(&output),
        buffer(&kept),
        rows as u32,
        channels as u32,
        epsilon,
        group,
        centred,
    );
    (output, kept)
}

/// The gradient of x.
pub(super) fn backward(values: [CubeTensor; 4], centred: bool) -> CubeTensor {
    let [grad, x, gamma, kept] = contiguous(values);
    let [rows, channels] = sizes(&x, &gamma);
    let output = fresh(&x, x.shape());
    let group = group_of(channels);
    row_gradients::launch(
        &x.client,
        grid(rows * group),
        CubeDim::new_1d(UNITS),
        buffer(&grad),
        buffer(&x),
        buffer(&gamma),
        buffer(&kept),
        buffer(&output),
        rows as u32,
        channels as u32,
        group,
        centred,
    );
    output
}

/// The gradients of γ and β.
pub(super) fn sums([grad, x, gamma, kept]: [CubeTensor; 4]) -> (CubeTensor, CubeTensor) {
    let [grad, x, kept] = contiguous([grad, x, kept]);
    let [rows, channels] = sizes(&x, &gamma);
    let columns = channels.div_ceil(LANES);
    let shares = rows
        .div_ceil(RUN * UNITS as usize / LANES)
        .min(CUBES.div_ceil(columns));
    let share = rows.div_ceil(shares);
    let units = CubeDim::new_1d(UNITS);
    let parts = fresh(&x, Shape::new([shares, 2, channels]));
    channel_sums::launch(
        &x.client,
        CubeCount::Static(columns as u32, shares as u32, 1),
        units,
        buffer(&grad),
        buffer(&x),
        buffer(&kept),
        buffer(&parts),
        rows as u32,
        channels as u32,
        share as u32,
    );
    let table = Rows::new(&x, 2, channels);
    channel_totals::launch(
        &x.client,
        grid((2 * channels).div_ceil(TOTALS) * UNITS as usize),
        units,
        buffer(&parts),
        buffer(&table.all),
        shares as u32,
        channels as u32,
        table.stride(),
    );
    (table.row(0), table.row(1))
}

#[cube(launch)]
fn norm_rows(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    output: &mut [f32],
    kept: &mut [f32],
    rows: u32,
    channels: u32,
    epsilon: f32,
    #[comptime] group: usize,
    #[comptime] centred: bool,
) {
    let of_group = comptime!(group as u32);
    let unit = UNIT_POS % of_group;
    let row = (CUBE_POS as u32 * CUBE_DIM + UNIT_POS) / of_group;
    // Units beyond the last row repeat its work, since the sums need all units of the cube.
    let start = min(row, rows - 1) * channels;
    let count = f32::cast_from(channels);
    let mut mean = 0.0f32;
    if comptime!(centred) {
        let first = x[start as usize];
        let mut sum = 0.0f32;
        let mut channel = unit;
        while channel < channels {
            sum += x[(start + channel) as usize] - first;
            channel += of_group;
        }
        mean = first + group_sum(sum, 256usize, group) / count;
    }
    let mut squares = 0.0f32;
    let mut channel = unit;
    while channel < channels {
        let d = x[(start + channel) as usize] - mean;
        squares += d * d;
        channel += of_group;
    }
    let squares = group_sum(squares, 256usize, group);
    let inverse = 1.0f32 / (squares / count + epsilon).sqrt();
    if row < rows {
        let mut channel = unit;
        while channel < channels {
            let at = (start + channel) as usize;
            let c = channel as usize;
            let mut y = (x[at] - mean) * inverse * gamma[c];
            if comptime!(centred) {
                y += beta[c];
            }
            output[at] = y;
            channel += of_group;
        }
        if unit == 0 {
            kept[(2 * row) as usize] = mean;
            kept[(2 * row + 1) as usize] = inverse;
        }
    }
}

#[cube(launch)]
fn row_gradients(
    grad: &[f32],
    x: &[f32],
    gamma: &[f32],
    kept: &[f32],
    output: &mut [f32],
    rows: u32,
    channels: u32,
    #[comptime] group: usize,
    #[comptime] centred: bool,
) {
    let of_group = comptime!(group as u32);
    let unit = UNIT_POS % of_group;
    let row = (CUBE_POS as u32 * CUBE_DIM + UNIT_POS) / of_group;
    let own = min(row, rows - 1);
    let start = own * channels;
    let count = f32::cast_from(channels);
    let mean = kept[(2 * own) as usize];
    let inverse = kept[(2 * own + 1) as usize];
    let mut of_h = 0.0f32;
    let mut of_product = 0.0f32;
    let mut channel = unit;
    while channel < channels {
        let at = (start + channel) as usize;
        let h = grad[at] * gamma[channel as usize];
        of_h += h;
        of_product += h * ((x[at] - mean) * inverse);
        channel += of_group;
    }
    let mut mean_h = 0.0f32;
    if comptime!(centred) {
        mean_h = group_sum(of_h, 256usize, group) / count;
    }
    let mean_product = group_sum(of_product, 256usize, group) / count;
    if row < rows {
        let mut channel = unit;
        while channel < channels {
            let at = (start + channel) as usize;
            let h = grad[at] * gamma[channel as usize];
            let normed = (x[at] - mean) * inverse;
            output[at] = inverse * (h - mean_h - normed * mean_product);
            channel += of_group;
        }
    }
}

/// Σ g·x̂ and Σ g of each channel over the rows of a share, as `[share, 2, channels]`.
#[cube(launch)]
fn channel_sums(
    grad: &[f32],
    x: &[f32],
    kept: &[f32],
    parts: &mut [f32],
    rows: u32,
    channels: u32,
    share: u32,
) {
    let own = CUBE_POS_X * 32 + UNIT_POS % 32;
    // Units beyond the last channel repeat its work, since the sums need all units of the cube.
    let channel = min(own, channels - 1);
    let start = CUBE_POS_Y * share;
    let end = min(start + share, rows);
    let mut of_gamma = 0.0f32;
    let mut of_beta = 0.0f32;
    let mut row = start + UNIT_POS / 32;
    while row < end {
        let at = (row * channels + channel) as usize;
        let mean = kept[(2 * row) as usize];
        let inverse = kept[(2 * row + 1) as usize];
        let g = grad[at];
        of_gamma += g * ((x[at] - mean) * inverse);
        of_beta += g;
        row += CUBE_DIM / 32;
    }
    let of_gamma = lane_sum(of_gamma, 256usize, 32usize);
    let of_beta = lane_sum(of_beta, 256usize, 32usize);
    if UNIT_POS < 32 && own < channels {
        let at = CUBE_POS_Y * 2 * channels + channel;
        parts[at as usize] = of_gamma;
        parts[(at + channels) as usize] = of_beta;
    }
}

/// The sums over the shares. A cube has 16 numbers.
#[cube(launch)]
fn channel_totals(parts: &[f32], table: &mut [f32], shares: u32, channels: u32, stride: u32) {
    let count = 2 * channels;
    let own = CUBE_POS as u32 * 16 + UNIT_POS % 16;
    let mut sum = 0.0f32;
    if own < count {
        let mut share = UNIT_POS / 16;
        while share < shares {
            sum += parts[(share * count + own) as usize];
            share += CUBE_DIM / 16;
        }
    }
    let sum = lane_sum(sum, 256usize, 16usize);
    if UNIT_POS < 16 && own < count {
        let at = (own / channels) * stride + own % channels;
        table[at as usize] = sum;
    }
}
