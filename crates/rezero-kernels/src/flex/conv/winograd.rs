//! Convolution of stride 1 with three rows of weights, by Winograd's F(4, 3) along the columns of the image: four rows
//! of the result cost six products of a row with a row of weights, not twelve (Lavin and Gray, arXiv 1509.09308; here in one
//! dimension, so that vectors still hold neighbouring pixels of a row and kernels may have any width).
//!
//! With the polynomials' points 0, ±a, ±b and ∞, a = √½ and b = √2:
//!
//! - a *group* is four rows of the result; it needs six rows d of the image, of which `Bᵀ d` makes six others;
//! - `G w` makes six rows of the three rows w of weights;
//! - row j of `G w` times row j of `Bᵀ d`, summed over channels and taps, gives m_j; the result is `Aᵀ m`.
//!
//! The weight gradient is the transposed computation: `Gᵀ Σ (A g)_j (Bᵀ d)_j`. With these points the error is that of the direct
//! sum: `A`, `B` and `G` have no entry above 2√2 (with 0, ±1, ±2 there are entries of 8, and twice the error).

use core::f32::consts::{FRAC_1_SQRT_2, SQRT_2};
use core::mem::MaybeUninit;

use super::micro::{Accumulate, Correlate, Products, Registers, Sum, Target, Vectors};
use super::{GROUPS, SCRATCH};
use crate::flex::matmul::transpose;
use crate::flex::memory::{Shared, elements, with_scratch};
use crate::flex::parallel::{Parts, arch, each, wide};

/// Rows of the result in a group.
const OUT: usize = 4;
/// Rows of the image that a group needs, and products.
const IN: usize = 6;

const A: f32 = FRAC_1_SQRT_2;
const B: f32 = SQRT_2;

/// One pass: `y[o, i, x] = Σ_{c, k, l} w[o, c, k, l] · source[c, i + k − p, x + l − q]`, zero outside the source.
pub(super) struct Winograd {
    pub batch: usize,
    pub channels: usize,
    pub source: [usize; 2],
    /// p and q; q is less than the number of taps.
    pub padding: [usize; 2],
    pub outputs: usize,
    /// The extents of the result.
    pub grid: [usize; 2],
    /// Weights of a row.
    pub taps: usize,
    /// The distances between the weights of two outputs, and of two channels.
    pub weight_strides: [usize; 2],
    /// Whether rows and taps of the weights are read backwards.
    pub mirrored: bool,
}

/// The scratch of a task: for each product and each channel the rows of its groups, `pitch` apart. The zeros between two rows
/// are the right padding of one and the left padding of the other.
#[derive(Clone, Copy)]
struct Block {
    pitch: usize,
    channel: usize,
    product: usize,
    /// All values. The last vectors may read beyond the last row.
    held: usize,
}

impl Winograd {
    /// Whether it takes fewer operations than the direct sum: the transforms of the image and of the result take about 32 for a
    /// column of a group, those of the weights about as long as 300 multiply–adds for each weight of a row.
    pub fn pays(&self) -> bool {
        let [h, w] = self.grid.map(|n| n as f64);
        let [c, o, taps] = [self.channels, self.outputs, self.taps].map(|n| n as f64);
        let groups = self.groups() as f64;
        let direct = 3.0 * h * w * taps * c * o;
        let own = groups * w * (IN as f64 * taps * c * o + 32.0 * (c + o));
        self.batch as f64 * (direct - own) > 300.0 * taps * c * o
    }

    /// The groups of an image.
    fn groups(&self) -> usize {
        self.grid[0].div_ceil(OUT)
    }

    fn block(&self, rows: usize, lanes: usize) -> Block {
        let pitch = self.source[1] + self.padding[1];
        let channel = rows * pitch;
        let product = self.channels * channel;
        Block {
            pitch,
            channel,
            product,
            held: IN * product + self.padding[1] + lanes,
        }
    }

    /// `count` groups in tasks.
    fn tasks(&self, count: usize) -> Parts {
        let row = IN * self.channels * (self.source[1] + self.padding[1]);
        let fit = (SCRATCH / row).max(1);
        // A small batch is cut into more tasks, so that several cores have work.
        let rows = fit.min(count.div_ceil(8));
        Parts::new(count, count.div_ceil(count.div_ceil(rows)))
    }

    /// Writes `Bᵀ d` of the `rows` groups from `first` on, counted through the batch.
    fn fill(&self, x: &[f32], first: usize, rows: usize, block: Block, scratch: &mut [f32]) {
        let [h, w] = self.source;
        let [top, left] = self.padding;
        let scratch = &mut scratch[..block.held];
        wide(
            #[inline(always)]
            || {
                for (c, r) in (0..self.channels).flat_map(|c| (0..rows).map(move |r| (c, r))) {
                    let (n, group) = ((first + r) / self.groups(), (first + r) % self.groups());
                    let image = &x[(n * self.channels + c) * h * w..][..h * w];
                    // Outside the image stands a row of zeros.
                    let row = |i: usize| {
                        let y = group * OUT + i;
                        match y >= top && y - top < h {
                            true => &image[(y - top) * w..][..w],
                            false => &[][..],
                        }
                    };
                    let at = c * block.channel + r * block.pitch;
                    let mut products = scratch[at..].chunks_mut(block.product);
                    let mut to: [&mut [f32]; IN] = core::array::from_fn(|_| {
                        let line = products.next().expect("scratch holds every product");
                        let (padding, line) = line.split_at_mut(left);
                        padding.fill(0.0);
                        &mut line[..w]
                    });
                    let d: [&[f32]; IN] = core::array::from_fn(row);
                    lines(d, &mut to, w);
                }
                // The right padding of a row is the left padding of the next one in memory; after the last come zeros.
                scratch[IN * block.product..].fill(0.0);
            },
        );
    }

    /// `G w` in the order in which it is read: for each block of `block` outputs, each product, channel and tap, the block's
    /// weights. The last block is filled up with zeros.
    fn pack(&self, weight: &[f32], block: usize) -> Vec<f32> {
        let [per_output, per_channel] = self.weight_strides;
        let (area, taps) = (3 * self.taps, self.taps);
        let mut packed =
            vec![0.0; self.outputs.next_multiple_of(block) * IN * self.channels * taps];
        let product = self.channels * taps * block;
        for o in 0..self.outputs {
            let to = &mut packed[o / block * IN * product + o % block..];
            for c in 0..self.channels {
                let from = &weight[o * per_output + c * per_channel..][..area];
                for l in 0..taps {
                    let w = [0, 1, 2].map(|k| match self.mirrored {
                        true => from[(2 - k) * taps + taps - 1 - l],
                        false => from[k * taps + l],
                    });
                    let at = (c * taps + l) * block;
                    for (j, value) in of_weights(w).into_iter().enumerate() {
                        to[j * product + at] = value;
                    }
                }
            }
        }
        packed
    }

    /// Writes the whole result to `shared`.
    pub fn run(&self, x: &[f32], weight: &[f32], shared: Shared) {
        let registers = Registers::get();
        let packed = self.pack(weight, registers.outputs);
        let per_product = self.channels * self.taps * registers.outputs;
        let tasks = self.tasks(self.batch * self.groups());
        let offsets: Vec<usize> = (0..self.taps).collect();
        each(tasks.count(), |task| {
            let (first, rows) = tasks.get(task);
            let block = self.block(rows, registers.lanes);
            let vectors = Vectors::new(rows, self.grid[1], block.pitch, registers.lanes);
            let product = registers.outputs * vectors.held();
            with_scratch(block.held + IN * product, |scratch| {
                let (source, sums) = scratch.split_at_mut(block.held);
                self.fill(x, first, rows, block, source);
                for (o, weights) in packed.chunks_exact(IN * per_product).enumerate() {
                    for j in 0..IN {
                        let sum = Sum {
                            source: &source[j * block.product..],
                            offsets: &offsets,
                            channel: block.channel,
                            channels: self.channels,
                            weights: &weights[j * per_product..][..per_product],
                        };
                        let to = Target {
                            at: sums[j * product..][..product].as_mut_ptr(),
                            stride: vectors.held(),
                            pitch: vectors.pitch,
                            stored: registers.outputs,
                        };
                        arch().dispatch(Correlate { sum, vectors, to });
                    }
                    let o = o * registers.outputs;
                    let stored = registers.outputs.min(self.outputs - o);
                    self.store(sums, product, vectors, [first, rows], [o, stored], shared);
                }
            });
        });
    }

    /// Writes `Aᵀ m` of a block of outputs.
    fn store(
        &self,
        sums: &[f32],
        product: usize,
        vectors: Vectors,
        [first, rows]: [usize; 2],
        [o, stored]: [usize; 2],
        shared: Shared,
    ) {
        let [h, w] = self.grid;
        wide(
            #[inline(always)]
            || {
                for (m, r) in (0..stored).flat_map(|m| (0..rows).map(move |r| (m, r))) {
                    let (n, group) = ((first + r) / self.groups(), (first + r) % self.groups());
                    let i = group * OUT;
                    let at = ((n * self.outputs + o + m) * h + i) * w;
                    // SAFETY: each group of an output belongs to one task.
                    let to = unsafe { shared.fresh_part(at, OUT.min(h - i) * w) };
                    let from = m * vectors.held() + r * vectors.pitch;
                    let sums: [&[f32]; IN] =
                        core::array::from_fn(|j| &sums[j * product + from..][..w]);
                    results(sums, to, w);
                }
            },
        );
    }

    /// `dw[o, c, k, l] = Σ_{n, i, x} g[n, o, i, x] · source[n, c, i + k − p, x + l − q]`.
    pub fn weight_gradient(&self, x: &[f32], g: &[f32]) -> Vec<f32> {
        let registers = Registers::get();
        let images = Parts::new(self.batch, self.batch.div_ceil(GROUPS));
        let columns = self.channels * self.taps;
        let outputs = self.outputs.next_multiple_of(registers.lanes);
        let sums = columns * outputs;
        let mut partial = vec![0.0; elements(&[images.count(), IN, columns, outputs])];
        let shared = Shared::new(&mut partial);
        let [h, w] = self.grid;
        let offsets: Vec<usize> = (0..self.taps).collect();
        each(images.count(), |part| {
            // SAFETY: each part of the batch has sums of its own.
            let sums_of_part = unsafe { shared.part(part * IN * sums, IN * sums) };
            let (image, count) = images.get(part);
            let tasks = self.tasks(count * self.groups());
            for task in 0..tasks.count() {
                let (first, rows) = tasks.get(task);
                let first = image * self.groups() + first;
                let block = self.block(rows, registers.lanes);
                let line = w * outputs;
                with_scratch(block.held + (OUT + IN * rows) * line, |scratch| {
                    let (source, scratch) = scratch.split_at_mut(block.held);
                    let (turned, gradient) = scratch.split_at_mut(OUT * line);
                    self.fill(x, first, rows, block, source);
                    for r in 0..rows {
                        let (n, group) = ((first + r) / self.groups(), (first + r) % self.groups());
                        let i = group * OUT;
                        let pixels = OUT.min(h - i) * w;
                        let g = &g[n * self.outputs * h * w + i * w..];
                        transpose(g, h * w, self.outputs, pixels, turned, outputs);
                        turned[pixels * outputs..].fill(0.0);
                        of_gradient(turned, &mut gradient[r * line..], rows * line, line);
                    }
                    for (j, sums) in sums_of_part.chunks_exact_mut(sums).enumerate() {
                        let products = Products {
                            planes: &source[j * block.product..],
                            gradient: &gradient[j * rows * line..][..rows * line],
                            rows,
                            cols: w,
                            pitch: block.pitch,
                            outputs,
                        };
                        arch().dispatch(Accumulate {
                            products,
                            channel: block.channel,
                            channels: self.channels,
                            offsets: &offsets,
                            sums,
                        });
                    }
                });
            }
        });
        let (total, rest) = partial.split_at_mut(IN * sums);
        wide(
            #[inline(always)]
            || {
                for part in rest.chunks_exact(IN * sums) {
                    total.iter_mut().zip(part).for_each(|(t, x)| *t += x);
                }
            },
        );
        let [per_output, per_channel] = self.weight_strides;
        let mut d_w = vec![0.0; self.outputs * columns * 3];
        for column in 0..columns {
            let (c, l) = (column / self.taps, column % self.taps);
            for o in 0..self.outputs {
                let m = core::array::from_fn(|j| total[j * sums + column * outputs + o]);
                for (k, d) in to_weights(m).into_iter().enumerate() {
                    d_w[o * per_output + c * per_channel + k * self.taps + l] = d;
                }
            }
        }
        d_w
    }
}

/// `Bᵀ d`.
#[inline(always)]
fn of_image(d: [f32; IN]) -> [f32; IN] {
    let (even_a, odd_a) = (d[4] - 2.0 * d[2], A * (d[3] - 2.0 * d[1]));
    let (even_b, odd_b) = (d[4] - 0.5 * d[2], B * (d[3] - 0.5 * d[1]));
    [
        d[0] - 2.5 * d[2] + d[4],
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        d[1] - 2.5 * d[3] + d[5],
    ]
}

/// `Aᵀ m`.
#[inline(always)]
fn of_products(m: [f32; IN]) -> [f32; OUT] {
    let (sum_a, difference_a) = (m[1] + m[2], m[1] - m[2]);
    let (sum_b, difference_b) = (m[3] + m[4], m[3] - m[4]);
    [
        m[0] + sum_a + sum_b,
        A * difference_a + B * difference_b,
        0.5 * sum_a + 2.0 * sum_b,
        0.5 * A * difference_a + 2.0 * B * difference_b + m[5],
    ]
}

/// `A g`.
#[inline(always)]
fn of_rows(g: [f32; OUT]) -> [f32; IN] {
    let (even_a, odd_a) = (g[0] + 0.5 * g[2], A * (g[1] + 0.5 * g[3]));
    let (even_b, odd_b) = (g[0] + 2.0 * g[2], B * (g[1] + 2.0 * g[3]));
    [
        g[0],
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        g[3],
    ]
}

/// `G w`.
fn of_weights(w: [f32; 3]) -> [f32; IN] {
    let (even_a, odd_a) = (-(2.0 * w[0] + w[2]) / 3.0, -2.0 * A / 3.0 * w[1]);
    let (even_b, odd_b) = ((w[0] + 2.0 * w[2]) / 6.0, B / 6.0 * w[1]);
    [
        w[0],
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        w[2],
    ]
}

/// `Gᵀ m`.
fn to_weights(m: [f32; IN]) -> [f32; 3] {
    let (sum_a, difference_a) = (m[1] + m[2], m[1] - m[2]);
    let (sum_b, difference_b) = (m[3] + m[4], m[3] - m[4]);
    [
        m[0] - 2.0 / 3.0 * sum_a + sum_b / 6.0,
        -2.0 * A / 3.0 * difference_a + B / 6.0 * difference_b,
        -sum_a / 3.0 + sum_b / 3.0 + m[5],
    ]
}

/// [`of_image`] of each column of six rows, of which empty ones are zero.
#[inline(always)]
fn lines(d: [&[f32]; IN], to: &mut [&mut [f32]; IN], w: usize) {
    let mut x = 0;
    while x < w {
        let n = match w - x {
            16.. => piece::<16>(d, to, x),
            8.. => piece::<8>(d, to, x),
            4.. => piece::<4>(d, to, x),
            _ => piece::<1>(d, to, x),
        };
        x += n;
    }
}

#[inline(always)]
fn piece<const N: usize>(d: [&[f32]; IN], to: &mut [&mut [f32]; IN], x: usize) -> usize {
    let mut rows = [[0.0; N]; IN];
    for (row, d) in rows.iter_mut().zip(d) {
        if !d.is_empty() {
            row.copy_from_slice(&d[x..x + N]);
        }
    }
    let mut made = [[0.0; N]; IN];
    for i in 0..N {
        let column = of_image([
            rows[0][i], rows[1][i], rows[2][i], rows[3][i], rows[4][i], rows[5][i],
        ]);
        for j in 0..IN {
            made[j][i] = column[j];
        }
    }
    for (to, made) in to.iter_mut().zip(made) {
        to[x..x + N].copy_from_slice(&made);
    }
    N
}

/// [`of_products`] of each column, in rows of `w` of which there may be fewer than four.
#[inline(always)]
fn results(m: [&[f32]; IN], to: &mut [MaybeUninit<f32>], w: usize) {
    let mut x = 0;
    while x < w {
        let n = match w - x {
            16.. => result::<16>(m, to, w, x),
            8.. => result::<8>(m, to, w, x),
            4.. => result::<4>(m, to, w, x),
            _ => result::<1>(m, to, w, x),
        };
        x += n;
    }
}

#[inline(always)]
fn result<const N: usize>(
    m: [&[f32]; IN],
    to: &mut [MaybeUninit<f32>],
    w: usize,
    x: usize,
) -> usize {
    let mut rows = [[0.0; N]; IN];
    for (row, m) in rows.iter_mut().zip(m) {
        row.copy_from_slice(&m[x..x + N]);
    }
    let mut made = [[0.0; N]; OUT];
    for i in 0..N {
        let column = of_products([
            rows[0][i], rows[1][i], rows[2][i], rows[3][i], rows[4][i], rows[5][i],
        ]);
        for j in 0..OUT {
            made[j][i] = column[j];
        }
    }
    for (to, made) in to.chunks_exact_mut(w).zip(made) {
        for (to, made) in to[x..x + N].iter_mut().zip(made) {
            to.write(made);
        }
    }
    N
}

/// [`of_rows`] of four rows of `len` values, into six that are `stride` apart.
fn of_gradient(g: &[f32], to: &mut [f32], stride: usize, len: usize) {
    wide(
        #[inline(always)]
        || {
            let (g0, g) = g.split_at(len);
            let (g1, g) = g.split_at(len);
            let (g2, g3) = g.split_at(len);
            let mut to = to.chunks_mut(stride);
            let [t0, t1, t2, t3, t4, t5] =
                core::array::from_fn(|_| &mut to.next().expect("there are six")[..len]);
            let g3 = &g3[..len];
            for i in 0..len {
                let made = of_rows([g0[i], g1[i], g2[i], g3[i]]);
                t0[i] = made[0];
                t1[i] = made[1];
                t2[i] = made[2];
                t3[i] = made[3];
                t4[i] = made[4];
                t5[i] = made[5];
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Correlation and its gradients are exact for the unit vectors, but for the rounding of the coefficients.
    #[test]
    fn a_group_is_the_direct_sum() {
        for i in 0..IN {
            for k in 0..3 {
                let (mut d, mut w) = ([0.0; IN], [0.0; 3]);
                (d[i], w[k]) = (1.0, 1.0);
                let (image, weights) = (of_image(d), of_weights(w));
                let y = of_products(core::array::from_fn(|j| image[j] * weights[j]));
                for (row, y) in y.into_iter().enumerate() {
                    let expected = f32::from(u8::from(row + k == i));
                    assert!((y - expected).abs() < 1e-6, "{i} {k} {row}: {y}");
                    let mut g = [0.0; OUT];
                    g[row] = 1.0;
                    let gradient = of_rows(g);
                    let dw = to_weights(core::array::from_fn(|j| image[j] * gradient[j]));
                    assert!((dw[k] - expected).abs() < 1e-6, "{i} {k} {row}: {dw:?}");
                }
            }
        }
    }
}
