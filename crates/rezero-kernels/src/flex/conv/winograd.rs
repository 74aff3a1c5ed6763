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
//! The weight gradient is the transposed computation: `Gᵀ Σ (A g)_j (Bᵀ d)_j`. With these points
//! `A`, `B` and `G` have no entry above 2√2, and rounding stays small; with 0, ±1, ±2 there are entries of 8.

// Loops over registers index plain arrays.
#![allow(clippy::needless_range_loop)]

use core::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use pulp::{Simd, WithSimd};

use super::micro::{Accumulate, Correlate, Products, Registers, Sum, Target, Vectors};
use super::{SCRATCH, groups, scratch, total};
use crate::flex::matmul::transpose;
use crate::flex::memory::{Shared, elements, prefetch, with_scratch};
use crate::flex::parallel::{Parts, arch, each, enough, wide};

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
    /// All values, with zeros after the last row.
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
            // A row of zeros, which stands for those outside the image, too.
            held: IN * product + (self.padding[1] + lanes).max(self.source[1]),
        }
    }

    /// `count` groups in tasks of at most `scratch` values. A small batch is cut into at least as many as are `wanted`, so that several
    /// cores have work.
    fn tasks(&self, count: usize, wanted: usize, scratch: usize) -> Parts {
        let row = IN * self.channels * (self.source[1] + self.padding[1]);
        let fit = (scratch / row).max(1);
        let rows = fit.min(count.div_ceil(wanted));
        Parts::new(count, count.div_ceil(count.div_ceil(rows)))
    }

    /// Writes `Bᵀ d` of the `rows` groups from `first` on, counted through the batch.
    fn fill(&self, x: &[f32], first: usize, rows: usize, block: Block, scratch: &mut [f32]) {
        let (scratch, zeros) = scratch[..block.held].split_at_mut(IN * block.product);
        // The right padding of a row is the left padding of the next one in memory; after the last come zeros.
        zeros.fill(0.0);
        arch().dispatch(Fill {
            of: self,
            x,
            first,
            rows,
            block,
            zeros: &zeros[..self.source[1]],
            scratch,
        });
    }

    /// `G w` in the order in which it is read: for each block of outputs, each product, channel and tap, the block's
    /// weights. The last block is filled up with zeros.
    fn pack(&self, weight: &[f32], blocks: &[(usize, usize)]) -> Vec<f32> {
        let [per_output, per_channel] = self.weight_strides;
        let (columns, taps) = (self.channels * self.taps, self.taps);
        let outputs: usize = blocks.iter().map(|(_, size)| size).sum();
        let mut packed = vec![0.0; outputs * IN * columns];
        for (first, size) in blocks {
            let to = &mut packed[first * IN * columns..][..size * IN * columns];
            for o in *first..(first + size).min(self.outputs) {
                for c in 0..self.channels {
                    let from = &weight[o * per_output + c * per_channel..][..3 * taps];
                    for l in 0..taps {
                        let w = [0, 1, 2].map(|k| match self.mirrored {
                            true => from[(2 - k) * taps + taps - 1 - l],
                            false => from[k * taps + l],
                        });
                        let at = (c * taps + l) * size + o - first;
                        for (j, value) in of_weights(w).into_iter().enumerate() {
                            to[j * columns * size + at] = value;
                        }
                    }
                }
            }
        }
        packed
    }

    /// Writes the whole result to `shared`.
    pub fn run(&self, x: &[f32], weight: &[f32], shared: Shared) {
        let registers = Registers::get();
        let blocks: Vec<_> = registers.blocks(self.outputs).collect();
        let packed = self.pack(weight, &blocks);
        let columns = self.channels * self.taps;
        let tasks = self.tasks(self.batch * self.groups(), enough(), scratch());
        let offsets: Vec<usize> = (0..self.taps).collect();
        each(tasks.count(), |task| {
            let (first, rows) = tasks.get(task);
            let block = self.block(rows, registers.lanes);
            let vectors = Vectors::new(rows, self.grid[1], block.pitch, registers.lanes);
            let product = registers.largest() * vectors.held();
            with_scratch(block.held + IN * product, |scratch| {
                let (source, sums) = scratch.split_at_mut(block.held);
                self.fill(x, first, rows, block, source);
                for &(o, size) in &blocks {
                    let weights = &packed[o * IN * columns..][..size * IN * columns];
                    for (j, weights) in weights.chunks_exact(size * columns).enumerate() {
                        let sum = Sum {
                            source: &source[j * block.product..],
                            offsets: &offsets,
                            channel: block.channel,
                            channels: self.channels,
                            weights,
                        };
                        let to = Target {
                            at: sums[j * product..][..product].as_mut_ptr(),
                            stride: vectors.held(),
                            pitch: vectors.pitch,
                            stored: size,
                        };
                        arch().dispatch(Correlate {
                            sum,
                            outputs: size,
                            vectors,
                            to,
                        });
                    }
                    let stored = size.min(self.outputs - o);
                    arch().dispatch(Store {
                        of: self,
                        sums,
                        product,
                        vectors,
                        first,
                        rows,
                        outputs: [o, stored],
                        shared,
                    });
                }
            });
        });
    }

    /// `dw[o, c, k, l] = Σ_{n, i, x} g[n, o, i, x] · source[n, c, i + k − p, x + l − q]`.
    pub fn weight_gradient(&self, x: &[f32], g: &[f32]) -> Vec<f32> {
        let registers = Registers::get();
        let columns = self.channels * self.taps;
        let outputs = self.outputs.next_multiple_of(registers.lanes);
        let sums = columns * outputs;
        let images = Parts::new(self.batch, self.batch.div_ceil(groups(IN * sums)));
        let mut partial = vec![0.0; elements(&[images.count(), IN, columns, outputs])];
        let shared = Shared::new(&mut partial);
        let [h, w] = self.grid;
        let offsets: Vec<usize> = (0..self.taps).collect();
        each(images.count(), |part| {
            // SAFETY: each part of the batch has sums of its own.
            let sums_of_part = unsafe { shared.part(part * IN * sums, IN * sums) };
            let (image, count) = images.get(part);
            // Their number decides the order of the sums, so it does not depend on the threads.
            let tasks = self.tasks(count * self.groups(), 8, SCRATCH);
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
        let total = total(&mut partial, IN * sums);
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

/// Writes `Bᵀ d` into scratch memory.
struct Fill<'a> {
    of: &'a Winograd,
    x: &'a [f32],
    first: usize,
    rows: usize,
    block: Block,
    /// A row outside the image.
    zeros: &'a [f32],
    scratch: &'a mut [f32],
}

impl WithSimd for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block {
            pitch,
            channel,
            product,
            ..
        } = self.block;
        let ([h, w], [top, left]) = (self.of.source, self.of.padding);
        let (channels, groups) = (self.of.channels, self.of.groups());
        let line = Line::new(simd, w);
        assert_eq!(self.scratch.len(), IN * product);
        assert!(left + w <= pitch && self.rows * pitch <= channel && channels * channel <= product);
        for c in 0..channels {
            for r in 0..self.rows {
                let (n, group) = ((self.first + r) / groups, (self.first + r) % groups);
                let image = &self.x[(n * channels + c) * h * w..][..h * w];
                let mut d = [self.zeros.as_ptr(); IN];
                assert_eq!(self.zeros.len(), w);
                if c + 1 < channels {
                    // The same rows of the next channel.
                    let next = (n * channels + c + 1) * h * w + group * OUT * w;
                    prefetch(self.x, next, OUT * w);
                }
                for i in 0..IN {
                    let y = group * OUT + i;
                    if y >= top && y - top < h {
                        let at = (y - top) * w;
                        d[i] = image[at..at + w].as_ptr();
                    }
                }
                let at = c * channel + r * pitch;
                for j in 0..IN {
                    clear(&mut self.scratch[j * product + at..][..left]);
                }
                let to = self.scratch[at + left..].as_mut_ptr();
                for x in line.starts() {
                    // SAFETY: the rows of `d` have `w` values each, `line` stays within them, and the asserts bound the six
                    // rows of the result.
                    unsafe {
                        let d = [0, 1, 2, 3, 4, 5].map(
                            #[inline(always)]
                            |i| line.load(d[i].add(x)),
                        );
                        let made = of_image(simd, d);
                        for j in 0..IN {
                            line.store(to.add(j * product + x), made[j]);
                        }
                    }
                }
            }
        }
    }
}

/// Writes zeros. One is the usual case, for which a call of `memset` takes longer.
#[inline(always)]
fn clear(to: &mut [f32]) {
    match to {
        [to] => *to = 0.0,
        to => to.fill(0.0),
    }
}

/// Writes `Aᵀ m` of a block of outputs.
struct Store<'a> {
    of: &'a Winograd,
    sums: &'a [f32],
    /// Values of a product's sums.
    product: usize,
    vectors: Vectors,
    first: usize,
    rows: usize,
    /// The first output, and the number.
    outputs: [usize; 2],
    shared: Shared,
}

impl WithSimd for Store<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ([h, w], groups) = (self.of.grid, self.of.groups());
        let [o, stored] = self.outputs;
        let line = Line::new(simd, w);
        for m in 0..stored {
            for r in 0..self.rows {
                let (n, group) = ((self.first + r) / groups, (self.first + r) % groups);
                let i = group * OUT;
                let rows = OUT.min(h - i);
                let to = ((n * self.of.outputs + o + m) * h + i) * w;
                let to = self.shared.start_of(to, rows * w);
                let from = m * self.vectors.held() + r * self.vectors.pitch;
                assert!(from + (IN - 1) * self.product + w <= self.sums.len());
                let from = self.sums[from..].as_ptr();
                for x in line.starts() {
                    // SAFETY: each group of an output belongs to one task; `line` stays within the `w` values of a row, of
                    // which there are `rows` in the result and six among the sums.
                    unsafe {
                        let m = [0, 1, 2, 3, 4, 5].map(
                            #[inline(always)]
                            |j| line.load(from.add(j * self.product + x)),
                        );
                        let made = of_products(simd, m);
                        for i in 0..OUT {
                            if i < rows {
                                line.store(to.add(i * w + x), made[i]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Vectors along a row of `w` values. Where the row is no whole number of vectors, the last begins earlier; a row shorter than a
/// vector is masked.
#[derive(Clone, Copy)]
struct Line<S: Simd> {
    simd: S,
    w: usize,
    short: bool,
    mask: pulp::MemMask<S::m32s>,
}

impl<S: Simd> Line<S> {
    #[inline(always)]
    fn new(simd: S, w: usize) -> Self {
        let lanes = S::F32_LANES;
        Self {
            simd,
            w,
            short: w < lanes,
            mask: simd.mask_between_m32s(0, w.min(lanes) as u32),
        }
    }

    #[inline(always)]
    fn starts(&self) -> Starts {
        Starts {
            next: 0,
            lanes: S::F32_LANES,
            w: self.w,
        }
    }

    /// # Safety
    ///
    /// The pointer is at a place of [`Self::starts`] in a row of `w` values.
    #[inline(always)]
    unsafe fn load(&self, from: *const f32) -> S::f32s {
        // SAFETY: by the caller's promise; vectors may be unaligned.
        unsafe {
            match self.short {
                true => self.simd.mask_load_ptr_f32s(self.mask, from),
                false => from.cast::<S::f32s>().read_unaligned(),
            }
        }
    }

    /// # Safety
    ///
    /// As for [`Self::load`]; nothing else uses the row.
    #[inline(always)]
    unsafe fn store(&self, to: *mut f32, values: S::f32s) {
        // SAFETY: by the caller's promise; vectors may be unaligned.
        unsafe {
            match self.short {
                true => self.simd.mask_store_ptr_f32s(self.mask, to, values),
                false => to.cast::<S::f32s>().write_unaligned(values),
            }
        }
    }
}

/// The places where the vectors of a row begin.
struct Starts {
    next: usize,
    lanes: usize,
    w: usize,
}

impl Iterator for Starts {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.next >= self.w {
            return None;
        }
        let at = self.next.min(self.w.saturating_sub(self.lanes));
        self.next = at + self.lanes;
        Some(at)
    }
}

/// `Bᵀ d`.
#[inline(always)]
fn of_image<S: Simd>(simd: S, d: [S::f32s; IN]) -> [S::f32s; IN] {
    let times = |k: f32, x| simd.mul_f32s(simd.splat_f32s(k), x);
    let plus = |k: f32, x, y| simd.mul_add_e_f32s(simd.splat_f32s(k), x, y);
    let (even_a, odd_a) = (plus(-2.0, d[2], d[4]), times(A, plus(-2.0, d[1], d[3])));
    let (even_b, odd_b) = (plus(-0.5, d[2], d[4]), times(B, plus(-0.5, d[1], d[3])));
    [
        plus(-2.5, d[2], simd.add_f32s(d[0], d[4])),
        simd.add_f32s(even_a, odd_a),
        simd.sub_f32s(even_a, odd_a),
        simd.add_f32s(even_b, odd_b),
        simd.sub_f32s(even_b, odd_b),
        plus(-2.5, d[3], simd.add_f32s(d[1], d[5])),
    ]
}

/// `Aᵀ m`.
#[inline(always)]
fn of_products<S: Simd>(simd: S, m: [S::f32s; IN]) -> [S::f32s; OUT] {
    let times = |k: f32, x| simd.mul_f32s(simd.splat_f32s(k), x);
    let plus = |k: f32, x, y| simd.mul_add_e_f32s(simd.splat_f32s(k), x, y);
    let (sum_a, difference_a) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    let (sum_b, difference_b) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
    [
        simd.add_f32s(m[0], simd.add_f32s(sum_a, sum_b)),
        plus(A, difference_a, times(B, difference_b)),
        plus(0.5, sum_a, times(2.0, sum_b)),
        plus(0.5 * A, difference_a, plus(2.0 * B, difference_b, m[5])),
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

/// [`of_rows`] of four rows of `len` values, into six that are `stride` apart.
fn of_gradient(g: &[f32], to: &mut [f32], stride: usize, len: usize) {
    wide(
        #[inline(always)]
        || {
            let (g0, g) = g.split_at(len);
            let (g1, g) = g.split_at(len);
            let (g2, g3) = g.split_at(len);
            let (t0, to) = to.split_at_mut(stride);
            let (t1, to) = to.split_at_mut(stride);
            let (t2, to) = to.split_at_mut(stride);
            let (t3, to) = to.split_at_mut(stride);
            let (t4, t5) = to.split_at_mut(stride);
            let (t0, t1, t2) = (&mut t0[..len], &mut t1[..len], &mut t2[..len]);
            let (t3, t4, t5) = (&mut t3[..len], &mut t4[..len], &mut t5[..len]);
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

    /// Values in (−1, 1).
    fn random(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        core::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .take(len)
        .collect()
    }

    #[track_caller]
    fn close(what: &str, found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let scale = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(*found) - expected).abs() / scale;
            assert!(
                error < 1e-6,
                "{what}: element {i} is {found}, expected {expected}"
            );
        }
    }

    /// Shapes below those that pay, small enough for Miri: groups of fewer than four rows, rows shorter than a vector and with a
    /// remainder, blocks of outputs that are not full, images that share a task, kernels read in both directions.
    #[test]
    fn small_shapes_are_the_direct_sum() {
        for (batch, channels, outputs, source, taps, padding) in [
            (1, 1, 1, [3, 1], 1, [0, 0]),
            (1, 2, 1, [1, 5], 3, [1, 1]),
            (2, 1, 3, [5, 4], 2, [1, 1]),
            (2, 2, 9, [6, 9], 3, [1, 2]),
            (9, 1, 2, [4, 3], 3, [2, 2]),
        ] {
            let grid = [
                source[0] + 2 * padding[0] - 2,
                source[1] + 2 * padding[1] + 1 - taps,
            ];
            for mirrored in [false, true] {
                let area = 3 * taps;
                let weight_strides = match mirrored {
                    false => [channels * area, area],
                    true => [area, outputs * area],
                };
                let pass = Winograd {
                    batch,
                    channels,
                    source,
                    padding,
                    outputs,
                    grid,
                    taps,
                    weight_strides,
                    mirrored,
                };
                let what = format!(
                    "{batch} {channels} {outputs} {source:?} {taps} {padding:?} {mirrored}"
                );
                let ([h, w], [rows, cols]) = (source, grid);
                let x = random(batch * channels * h * w, 1);
                let weight = random(channels * outputs * area, 2);
                let g = random(batch * outputs * rows * cols, 3);
                // The places of each product: in the result, in the source, and among the weights.
                let mut terms = Vec::new();
                for (n, o, c) in (0..batch * outputs * channels)
                    .map(|i| (i / channels / outputs, i / channels % outputs, i % channels))
                {
                    for (i, j, k, l) in (0..rows * cols * area)
                        .map(|i| (i / area / cols, i / area % cols, i % area / taps, i % taps))
                    {
                        let (y, x) = (i + k, j + l);
                        if (padding[0]..padding[0] + h).contains(&y)
                            && (padding[1]..padding[1] + w).contains(&x)
                        {
                            let (k, l) = match mirrored {
                                false => (k, l),
                                true => (2 - k, taps - 1 - l),
                            };
                            terms.push((
                                ((n * outputs + o) * rows + i) * cols + j,
                                ((n * channels + c) * h + y - padding[0]) * w + x - padding[1],
                                o * weight_strides[0] + c * weight_strides[1] + k * taps + l,
                            ));
                        }
                    }
                }
                let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
                let mut y = vec![0.0; g.len()];
                let mut d_w = vec![0.0; weight.len()];
                for (to, from, at) in terms {
                    y[to] += product(x[from], weight[at]);
                    d_w[at] += product(x[from], g[to]);
                }
                let mut found = vec![f32::NAN; g.len()];
                pass.run(&x, &weight, Shared::new(&mut found));
                close(&what, &found, &y);
                if !mirrored {
                    close(&what, &pass.weight_gradient(&x, &g), &d_w);
                }
            }
        }
    }

    /// Correlation and its gradients are exact for the unit vectors, but for the rounding of the coefficients.
    #[test]
    fn a_group_is_the_direct_sum() {
        for i in 0..IN {
            for k in 0..3 {
                let (mut d, mut w) = ([0.0; IN], [0.0; 3]);
                (d[i], w[k]) = (1.0, 1.0);
                let (image, weights) = (of_image(pulp::Scalar, d), of_weights(w));
                let y = of_products(
                    pulp::Scalar,
                    core::array::from_fn(|j| image[j] * weights[j]),
                );
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
