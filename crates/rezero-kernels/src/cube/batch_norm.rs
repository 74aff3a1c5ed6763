//! `z = (x − μ)·s + β`, `s = γ / √(σ² + ε)`; `y = act(z)`, or with a residual sum `y = skip + α·act(z)`.
//!
//! Forward: one kernel for the statistics, one for the output. A channel is cut into parts, a cube each, so that few
//! channels fill the device, too. A part sums x − k and its square, where k is the channel's first value, so that a mean far from
//! zero cancels nothing. The second kernel's cubes add the parts again rather than wait for a third.
//!
//! Burn's convolutions compute in NHWC and return a view of it. Both layouts are read as they are, since a copy takes longer than the norm: a
//! cube has one channel of NCHW, or 16 of NHWC, so that neighbouring units read neighbouring memory.
//!
//! Backward, with `gz` the gradient at z and M values per channel: `dβ = Σ gz`, `dγ = Σ gz·x̂`,
//! `dx = s · (gz − dβ/M − x̂·dγ/M)`, and `dα = Σ g·act(z)`: likewise two kernels. Both compute z again from x.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::layout::{fresh_like, is_last, laid};
use super::ops::CubeOps;
use super::sums::lane_sum;
use super::{Rows, UNITS, buffer, contiguous, fresh};
use crate::activation::Epilogue;
use crate::op::Kernel;

/// Values that a unit adds on its own, at least.
const RUN: usize = 8;
/// Cubes to fill the device with.
const CUBES: usize = 512;
/// Channels of a cube, where the channels of a pixel lie side by side.
const LANES: usize = 16;

/// Inputs: x, γ, β, and for a residual sum skip, α.
#[derive(Debug)]
pub(crate) struct BatchNorm {
    pub epsilon: f32,
    pub epilogue: Epilogue,
}

impl BatchNorm {
    fn relu(&self) -> bool {
        self.epilogue == Epilogue::Relu
    }
}

impl Kernel<Cube> for BatchNorm {
    /// x, γ, β, mean, variance, and α.
    type State = ([FloatTensor<Cube>; 5], Option<FloatTensor<Cube>>);
    /// Mean and variance.
    type Aux = [FloatTensor<Cube>; 2];

    fn forward(&self, inputs: &[FloatTensor<Cube>]) -> (FloatTensor<Cube>, Self::State, Self::Aux) {
        let (epsilon, relu) = (self.epsilon, self.relu());
        let ([x, gamma, beta], rest) = inputs
            .split_first_chunk()
            .map(|(first, rest)| (first.clone(), rest))
            .expect("x, gamma and beta");
        let (x1, gamma1, beta1) = (x.clone(), gamma.clone(), beta.clone());
        let ((output, mean, variance), alpha) = match rest {
            [skip, alpha] => {
                let (skip, alpha) = (skip.clone(), alpha.clone());
                let out = Cube::rezero_batch_norm_gated(
                    x1,
                    gamma1,
                    beta1,
                    skip,
                    alpha.clone(),
                    epsilon,
                    relu,
                );
                (out, Some(alpha))
            }
            _ => (
                Cube::rezero_batch_norm(x1, gamma1, beta1, epsilon, relu),
                None,
            ),
        };
        let aux = [mean.clone(), variance.clone()];
        (output, ([x, gamma, beta, mean, variance], alpha), aux)
    }

    fn backward(
        self,
        ([x, gamma, beta, mean, variance], alpha): Self::State,
        grad: FloatTensor<Cube>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Cube>>> {
        let (epsilon, relu) = (self.epsilon, self.relu());
        let (mut found, alpha) = match alpha {
            Some(alpha) => {
                let (x, gamma, beta, alpha) = Cube::rezero_batch_norm_gated_backward(
                    grad.clone(),
                    x,
                    gamma,
                    beta,
                    mean,
                    variance,
                    alpha,
                    epsilon,
                    relu,
                );
                (
                    vec![Some(x), Some(gamma), Some(beta), Some(grad)],
                    Some(alpha),
                )
            }
            None => {
                let (x, gamma, beta) = Cube::rezero_batch_norm_backward(
                    grad, x, gamma, beta, mean, variance, epsilon, relu,
                );
                (vec![Some(x), Some(gamma), Some(beta)], None)
            }
        };
        found.extend(alpha.map(Some));
        for (gradient, wanted) in found.iter_mut().zip(wanted) {
            if !wanted {
                *gradient = None;
            }
        }
        found
    }
}

/// How a batch is cut: `[batch, channels, ..]`.
#[derive(Clone, Copy)]
struct Cut {
    channels: usize,
    /// Values between two channels of an image in NCHW.
    pixels: usize,
    /// Values of a channel.
    count: usize,
    parts: usize,
    /// Channels of a cube: 1 in NCHW, 16 in NHWC.
    lanes: usize,
}

impl Cut {
    fn of(x: &CubeTensor) -> Self {
        let shape = x.shape();
        let (batch, channels) = (shape[0], shape[1]);
        let pixels = shape.num_elements() / (batch * channels);
        let count = batch * pixels;
        let lanes = if is_last(x) { LANES } else { 1 };
        let least = RUN * UNITS as usize / lanes;
        let parts = count
            .div_ceil(least)
            .min(CUBES.div_ceil(channels.div_ceil(lanes)));
        Self {
            channels,
            pixels,
            count,
            parts,
            lanes,
        }
    }

    fn cubes(self) -> CubeCount {
        let columns = self.channels.div_ceil(self.lanes);
        CubeCount::Static(columns as u32, self.parts as u32, 1)
    }

    fn sizes(self) -> SizesLaunch {
        SizesLaunch::new(
            self.channels as u32,
            self.pixels as u32,
            self.count as u32,
            self.count.div_ceil(self.parts) as u32,
            self.lanes,
        )
    }

    /// A tensor of the batch's shape in the batch's layout.
    fn laid(self, tensor: CubeTensor) -> CubeTensor {
        laid(tensor, self.lanes > 1)
    }
}

#[derive(CubeLaunch, CubeType)]
struct Sizes {
    channels: u32,
    pixels: u32,
    count: u32,
    len: u32,
    #[cube(comptime)]
    lanes: usize,
}

/// Output, means and variances; `sum` is skip and α.
pub(super) fn forward(
    [x, gamma, beta]: [CubeTensor; 3],
    sum: Option<[CubeTensor; 2]>,
    epsilon: f32,
    relu: bool,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let cut = Cut::of(&x);
    let x = cut.laid(x);
    let [gamma, beta] = contiguous([gamma, beta]);
    let client = x.client.clone();
    let parts = fresh(&x, Shape::new([cut.channels, cut.parts, 2]));
    let units = CubeDim::new_1d(UNITS);
    moments::launch(
        &client,
        cut.cubes(),
        units,
        buffer(&x),
        buffer(&parts),
        cut.sizes(),
    );
    let output = fresh_like(&x);
    let statistics = Rows::new(&x, 2, cut.channels);
    let stride = statistics.stride();
    let [gamma, beta, parts, out, table] =
        [&gamma, &beta, &parts, &output, &statistics.all].map(buffer);
    let (cubes, x) = (cut.cubes(), buffer(&x));
    match sum {
        Some([skip, alpha]) => {
            let ([alpha], skip) = (contiguous([alpha]), cut.laid(skip));
            let [skip, alpha] = [&skip, &alpha].map(buffer);
            apply_gated::launch(
                &client,
                cubes,
                units,
                x,
                gamma,
                beta,
                skip,
                alpha,
                parts,
                out,
                table,
                cut.sizes(),
                stride,
                epsilon,
                relu,
            );
        }
        None => apply::launch(
            &client,
            cubes,
            units,
            x,
            gamma,
            beta,
            parts,
            out,
            table,
            cut.sizes(),
            stride,
            epsilon,
            relu,
        ),
    }
    (output, statistics.row(0), statistics.row(1))
}

/// The gradients of x, γ, β and α, from those of the output and the values of the forward pass. Without a gate, the last is of no use.
pub(super) fn backward(
    [grad, x, gamma, beta, mean, variance]: [CubeTensor; 6],
    alpha: Option<CubeTensor>,
    epsilon: f32,
    relu: bool,
) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
    let cut = Cut::of(&x);
    let [grad, x] = [grad, x].map(|tensor| cut.laid(tensor));
    let [gamma, beta, mean, variance] = contiguous([gamma, beta, mean, variance]);
    let client = x.client.clone();
    let units = CubeDim::new_1d(UNITS);
    let parts = fresh(&x, Shape::new([cut.channels, cut.parts, 4]));
    let dx = fresh_like(&x);
    // dγ, dβ, dα.
    let rows = Rows::new(&x, 3, cut.channels);
    let stride = rows.stride();
    let given = [&grad, &x, &gamma, &beta, &mean, &variance];
    let [g, of_x, w, b, m, v] = given.map(buffer);
    match alpha {
        Some(alpha) => {
            let [alpha] = contiguous([alpha]);
            gradient_sums_gated::launch(
                &client,
                cut.cubes(),
                units,
                g,
                of_x,
                w,
                b,
                m,
                v,
                buffer(&alpha),
                buffer(&parts),
                cut.sizes(),
                epsilon,
                relu,
            );
        }
        None => gradient_sums::launch(
            &client,
            cut.cubes(),
            units,
            g,
            of_x,
            w,
            b,
            m,
            v,
            buffer(&parts),
            cut.sizes(),
            epsilon,
            relu,
        ),
    }
    let [g, of_x, w, b, m, v] = given.map(buffer);
    gradients::launch(
        &client,
        cut.cubes(),
        units,
        g,
        of_x,
        w,
        b,
        m,
        v,
        buffer(&parts),
        buffer(&dx),
        buffer(&rows.all),
        cut.sizes(),
        stride,
        epsilon,
        relu,
    );
    (dx, rows.row(0), rows.row(1), rows.part(2, 1))
}

/// The unit's channel. Units beyond the last channel repeat its work.
#[cube]
fn own_channel(sizes: &Sizes) -> u32 {
    let lanes = sizes.lanes as u32;
    min(CUBE_POS_X * lanes + UNIT_POS % lanes, sizes.channels - 1)
}

/// The unit's first value of the channel, and the values from one to the next.
#[cube]
fn own_row(sizes: &Sizes) -> (u32, u32) {
    let lanes = sizes.lanes as u32;
    (UNIT_POS / lanes, CUBE_DIM / lanes)
}

/// The index of value `k` of a channel.
#[cube]
fn position(k: u32, channel: u32, sizes: &Sizes) -> usize {
    let at = if comptime!(sizes.lanes == 1) {
        let image = k / sizes.pixels;
        let pixel = k % sizes.pixels;
        (image * sizes.channels + channel) * sizes.pixels + pixel
    } else {
        k * sizes.channels + channel
    };
    at as usize
}

/// Σ (x − k) and Σ (x − k)² of each part.
#[cube(launch)]
fn moments(x: &[f32], parts: &mut [f32], sizes: &Sizes) {
    let channel = own_channel(sizes);
    let first = x[position(0u32, channel, sizes)];
    let start = CUBE_POS_Y * sizes.len;
    let end = min(start + sizes.len, sizes.count);
    let mut sum = 0.0f32;
    let mut squares = 0.0f32;
    let (row, rows) = own_row(sizes);
    let mut k = start + row;
    while k < end {
        let d = x[position(k, channel, sizes)] - first;
        sum += d;
        squares += d * d;
        k += rows;
    }
    let sum = lane_sum(sum, 256usize, sizes.lanes);
    let squares = lane_sum(squares, 256usize, sizes.lanes);
    if UNIT_POS < sizes.lanes as u32 {
        let at = ((channel * CUBE_COUNT_Y + CUBE_POS_Y) * 2) as usize;
        parts[at] = sum;
        parts[at + 1] = squares;
    }
}

/// Mean and variance of the channel, which the first cube of it stores.
#[cube]
fn statistics(
    x: &[f32],
    parts: &[f32],
    table: &mut [f32],
    sizes: &Sizes,
    stride: u32,
) -> (f32, f32) {
    let channel = own_channel(sizes);
    let mut sum = 0.0f32;
    let mut squares = 0.0f32;
    let (row, rows) = own_row(sizes);
    let mut part = row;
    while part < CUBE_COUNT_Y {
        let at = ((channel * CUBE_COUNT_Y + part) * 2) as usize;
        sum += parts[at];
        squares += parts[at + 1];
        part += rows;
    }
    let sum = lane_sum(sum, 256usize, sizes.lanes);
    let squares = lane_sum(squares, 256usize, sizes.lanes);
    let count = f32::cast_from(sizes.count);
    let offset = sum / count;
    let mean = x[position(0u32, channel, sizes)] + offset;
    let variance = max(squares / count - offset * offset, 0.0f32);
    if UNIT_POS < sizes.lanes as u32 && CUBE_POS_Y == 0 {
        table[channel as usize] = mean;
        table[(channel + stride) as usize] = variance;
    }
    (mean, variance)
}

#[cube(launch)]
fn apply(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    parts: &[f32],
    output: &mut [f32],
    table: &mut [f32],
    sizes: &Sizes,
    stride: u32,
    epsilon: f32,
    #[comptime] relu: bool,
) {
    let channel = own_channel(sizes);
    let (mean, variance) = statistics(x, parts, table, sizes, stride);
    let scale = gamma[channel as usize] / (variance + epsilon).sqrt();
    let shift = beta[channel as usize];
    let start = CUBE_POS_Y * sizes.len;
    let end = min(start + sizes.len, sizes.count);
    let (row, rows) = own_row(sizes);
    let mut k = start + row;
    while k < end {
        let at = position(k, channel, sizes);
        output[at] = act((x[at] - mean) * scale + shift, relu);
        k += rows;
    }
}

#[cube(launch)]
fn apply_gated(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    skip: &[f32],
    alpha: &[f32],
    parts: &[f32],
    output: &mut [f32],
    table: &mut [f32],
    sizes: &Sizes,
    stride: u32,
    epsilon: f32,
    #[comptime] relu: bool,
) {
    let channel = own_channel(sizes);
    let (mean, variance) = statistics(x, parts, table, sizes, stride);
    let scale = gamma[channel as usize] / (variance + epsilon).sqrt();
    let shift = beta[channel as usize];
    let alpha = alpha[0];
    let start = CUBE_POS_Y * sizes.len;
    let end = min(start + sizes.len, sizes.count);
    let (row, rows) = own_row(sizes);
    let mut k = start + row;
    while k < end {
        let at = position(k, channel, sizes);
        output[at] = skip[at] + alpha * act((x[at] - mean) * scale + shift, relu);
        k += rows;
    }
}

#[cube]
fn act(z: f32, #[comptime] relu: bool) -> f32 {
    if comptime!(relu) { max(z, 0.0f32) } else { z }
}

/// The gradient at z, from that of `act(z)`. The activation's own at 0 is 0, as Burn's.
#[cube]
fn passed(g: f32, z: f32, #[comptime] relu: bool) -> f32 {
    if comptime!(relu) {
        select(z > 0.0f32, g, 0.0f32)
    } else {
        g
    }
}

/// Of each part: Σ gz, Σ gz·x̂, a number without use, and the factor of the gradient, 1.
#[cube(launch)]
fn gradient_sums(
    grad: &[f32],
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    variance: &[f32],
    parts: &mut [f32],
    sizes: &Sizes,
    epsilon: f32,
    #[comptime] relu: bool,
) {
    let channel = own_channel(sizes) as usize;
    let sums = summed(
        grad,
        x,
        gamma[channel],
        beta[channel],
        mean[channel],
        variance[channel],
        sizes,
        epsilon,
        relu,
    );
    if UNIT_POS < sizes.lanes as u32 {
        let at = (channel * CUBE_COUNT_Y as usize + CUBE_POS_Y as usize) * 4;
        parts[at] = sums.0;
        parts[at + 1] = sums.1;
        parts[at + 2] = sums.2;
        parts[at + 3] = 1.0f32;
    }
}

/// Of each part: Σ gz, Σ gz·x̂, Σ g·act(z), and the factor of the gradient, α.
#[cube(launch)]
fn gradient_sums_gated(
    grad: &[f32],
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    variance: &[f32],
    alpha: &[f32],
    parts: &mut [f32],
    sizes: &Sizes,
    epsilon: f32,
    #[comptime] relu: bool,
) {
    let channel = own_channel(sizes) as usize;
    let sums = summed(
        grad,
        x,
        gamma[channel],
        beta[channel],
        mean[channel],
        variance[channel],
        sizes,
        epsilon,
        relu,
    );
    if UNIT_POS < sizes.lanes as u32 {
        let at = (channel * CUBE_COUNT_Y as usize + CUBE_POS_Y as usize) * 4;
        parts[at] = alpha[0] * sums.0;
        parts[at + 1] = alpha[0] * sums.1;
        parts[at + 2] = sums.2;
        parts[at + 3] = alpha[0];
    }
}

#[cube]
fn summed(
    grad: &[f32],
    x: &[f32],
    gamma: f32,
    beta: f32,
    mean: f32,
    variance: f32,
    sizes: &Sizes,
    epsilon: f32,
    #[comptime] relu: bool,
) -> (f32, f32, f32) {
    let channel = own_channel(sizes);
    let inverse = 1.0f32 / (variance + epsilon).sqrt();
    let start = CUBE_POS_Y * sizes.len;
    let end = min(start + sizes.len, sizes.count);
    let mut of_beta = 0.0f32;
    let mut of_gamma = 0.0f32;
    let mut of_alpha = 0.0f32;
    let (row, rows) = own_row(sizes);
    let mut k = start + row;
    while k < end {
        let at = position(k, channel, sizes);
        let normed = (x[at] - mean) * inverse;
        let z = normed * gamma + beta;
        let g = passed(grad[at], z, relu);
        of_beta += g;
        of_gamma += g * normed;
        of_alpha += grad[at] * act(z, relu);
        k += rows;
    }
    let of_beta = lane_sum(of_beta, 256usize, sizes.lanes);
    let of_gamma = lane_sum(of_gamma, 256usize, sizes.lanes);
    let of_alpha = lane_sum(of_alpha, 256usize, sizes.lanes);
    (of_beta, of_gamma, of_alpha)
}

/// dx, and a row each for dγ, dβ and dα.
#[cube(launch)]
fn gradients(
    grad: &[f32],
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    variance: &[f32],
    parts: &[f32],
    dx: &mut [f32],
    table: &mut [f32],
    sizes: &Sizes,
    stride: u32,
    epsilon: f32,
    #[comptime] relu: bool,
) {
    let channel = own_channel(sizes);
    let mut of_beta = 0.0f32;
    let mut of_gamma = 0.0f32;
    let (row, step) = own_row(sizes);
    let mut part = row;
    while part < CUBE_COUNT_Y {
        let at = ((channel * CUBE_COUNT_Y + part) * 4) as usize;
        of_beta += parts[at];
        of_gamma += parts[at + 1];
        part += step;
    }
    let of_beta = lane_sum(of_beta, 256usize, sizes.lanes);
    let of_gamma = lane_sum(of_gamma, 256usize, sizes.lanes);
    if UNIT_POS < sizes.lanes as u32 && CUBE_POS_Y == 0 {
        table[channel as usize] = of_gamma;
        table[(channel + stride) as usize] = of_beta;
    }
    if CUBE_POS == 0 {
        let mut of_alpha = 0.0f32;
        let mut i = UNIT_POS;
        while i < sizes.channels * CUBE_COUNT_Y {
            of_alpha += parts[(i * 4 + 2) as usize];
            i += CUBE_DIM;
        }
        let of_alpha = lane_sum(of_alpha, 256usize, 1usize);
        if UNIT_POS == 0 {
            table[(2 * stride) as usize] = of_alpha;
        }
    }
    let c = channel as usize;
    let factor = parts[(channel * CUBE_COUNT_Y * 4 + 3) as usize];
    let mean = mean[c];
    let inverse = 1.0f32 / (variance[c] + epsilon).sqrt();
    let gamma = gamma[c];
    let beta = beta[c];
    let count = f32::cast_from(sizes.count);
    let start = CUBE_POS_Y * sizes.len;
    let end = min(start + sizes.len, sizes.count);
    let (row, rows) = own_row(sizes);
    let mut k = start + row;
    while k < end {
        let at = position(k, channel, sizes);
        let normed = (x[at] - mean) * inverse;
        let g = factor * passed(grad[at], normed * gamma + beta, relu);
        dx[at] = gamma * inverse * (g - (of_beta + normed * of_gamma) / count);
        k += rows;
    }
}
