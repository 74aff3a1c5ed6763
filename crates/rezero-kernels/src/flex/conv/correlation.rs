//! Convolution of any kernel and stride, as a correlation of stride 1 over *planes*.
//!
//! A task copies the rows it needs, with zeros around them, into a scratch block that fits the
//! second-level cache. For stride s it sorts rows and columns by their remainder modulo s into s²
//! planes; over these the strided kernel has stride 1. The input gradient of a strided convolution
//! is s² correlations of the output's gradient, one for each remainder of the *result's* position.
//! A vector holds pixels of a row and weights are broadcast, so images stay in Burn's own order,
//! batch × channel × row × column.
//!
//! The inner sum of the weight gradient runs over the pixels. There a vector holds output channels,
//! from a transposed copy of the gradient's rows, and pixels of the same scratch are broadcast.

use pulp::{Simd, WithSimd};

use super::micro::{Accumulate, Correlate, Products, Registers, Sum, Target, Vectors};
use super::{SCRATCH, groups, scratch, total};
use crate::flex::matmul::transpose;
use crate::flex::memory::{Shared, with_scratch};
use crate::flex::parallel::{Parts, arch, each, enough};

/// One product of a correlation: a weight times the plane's pixel that lies `shift` rows and
/// columns further.
pub(super) struct Tap {
    pub plane: usize,
    pub shift: [usize; 2],
    pub weight: usize,
}

/// `y[o, i] = Σ_{c, tap} w[o, c, tap] · plane(tap)[c, i + shift(tap)]` for each image, with the
/// planes `plane[c, i] = x[c, step·i + origin]`, zero outside `x`.
pub(super) struct Correlation {
    pub batch: usize,
    pub channels: usize,
    pub source: [usize; 2],
    pub step: usize,
    /// The origin of each plane.
    pub planes: Vec<[isize; 2]>,
    pub taps: Vec<Tap>,
    pub outputs: usize,
    /// The extents of the pixels that are computed.
    pub grid: [usize; 2],
    /// The extents of the image that they are written to; pixel i goes to `first + target_step·i`.
    pub target: [usize; 2],
    pub first: [usize; 2],
    pub target_step: usize,
    /// The distances between the weights of two outputs, and of two channels.
    pub weight_strides: [usize; 2],
}

/// A task's scratch block: for each channel the planes, `rows` by `pitch` each.
#[derive(Clone, Copy)]
struct Block {
    rows: usize,
    pitch: usize,
    channel: usize,
}

impl Correlation {
    /// The number of rows of pixels that a task computes, of which `scratch` values fit its block. A small batch is cut into at least as
    /// many as are `wanted`, so that several cores have work.
    fn rows_of_task(&self, wanted: usize, scratch: usize) -> usize {
        let [down, _] = self.reach();
        let row = self.channels * self.planes.len() * self.block(1).pitch;
        let fit = (scratch / row).saturating_sub(down).max(1);
        let wanted = (wanted / self.batch).max(1);
        let rows = fit.min(self.grid[0].div_ceil(wanted));
        // Blocks of about the same height.
        self.grid[0].div_ceil(self.grid[0].div_ceil(rows))
    }

    /// The largest shift along each axis.
    fn reach(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            self.taps
                .iter()
                .map(|tap| tap.shift[axis])
                .max()
                .unwrap_or(0)
        })
    }

    fn block(&self, rows: usize) -> Block {
        let [down, across] = self.reach();
        let (rows, pitch) = (rows + down, self.grid[1] + across);
        Block {
            rows,
            pitch,
            channel: self.planes.len() * rows * pitch,
        }
    }

    /// Copies into `scratch` the rows that a block of pixels needs; the block begins at row `row`.
    fn fill(&self, x: &[f32], row: usize, block: Block, scratch: &mut [f32]) {
        arch().dispatch(Fill {
            of: self,
            x,
            row,
            block,
            scratch,
        });
    }

    /// Where each tap reads, relative to a pixel's place in its channel's first plane.
    fn offsets(&self, block: Block) -> Vec<usize> {
        let offset =
            |tap: &Tap| (tap.plane * block.rows + tap.shift[0]) * block.pitch + tap.shift[1];
        self.taps.iter().map(offset).collect()
    }

    /// The weights in the order in which they are read: for each block of outputs, each channel and each tap, the block's
    /// weights. The last block is filled up with zeros.
    fn pack(&self, weight: &[f32], blocks: &[(usize, usize)]) -> Vec<f32> {
        let [per_output, per_channel] = self.weight_strides;
        let outputs: usize = blocks.iter().map(|(_, size)| size).sum();
        let mut packed = Vec::with_capacity(outputs * self.channels * self.taps.len());
        for (o, size) in blocks {
            for c in 0..self.channels {
                for tap in &self.taps {
                    packed.extend((*o..o + size).map(|o| match o < self.outputs {
                        true => weight[o * per_output + c * per_channel + tap.weight],
                        false => 0.0,
                    }));
                }
            }
        }
        packed
    }

    /// Writes every pixel of the grid to `shared`, and no other.
    pub fn run(&self, x: &[f32], weight: &[f32], shared: Shared) {
        let registers = Registers::get();
        let lanes = registers.lanes;
        let blocks: Vec<_> = registers.blocks(self.outputs).collect();
        let packed = self.pack(weight, &blocks);
        let per_output = self.channels * self.taps.len();
        let rows = Parts::new(self.grid[0], self.rows_of_task(enough(), scratch()));
        let (image, target) = (
            self.channels * self.source[0] * self.source[1],
            self.target[0] * self.target[1],
        );
        let [rows_of_target, cols_of_target] = self.target;
        each(self.batch * rows.count(), |task| {
            let (n, (row, rows)) = (task / rows.count(), rows.get(task % rows.count()));
            let block = self.block(rows);
            let vectors = Vectors::new(rows, self.grid[1], block.pitch, lanes);
            let filled = self.channels * block.channel;
            // The last vectors may read beyond the last row.
            let source = filled + 2 * lanes;
            let first = (self.first[0] + row * self.target_step) * cols_of_target + self.first[1];
            let first = n * self.outputs * target + first;
            // Rows of whole vectors, contiguous in the result, are stored there directly.
            let direct = vectors.of_row.is_some()
                && self.grid[1].is_multiple_of(lanes)
                && self.target_step == 1
                && row + rows <= rows_of_target;
            let held = if direct {
                0
            } else {
                registers.largest() * vectors.held()
            };
            with_scratch(source + held, |scratch| {
                let (source, result) = scratch.split_at_mut(source);
                self.fill(
                    &x[n * image..(n + 1) * image],
                    row,
                    block,
                    &mut source[..filled],
                );
                source[filled..].fill(0.0);
                let span = (rows - 1) * cols_of_target + self.grid[1];
                let offsets = self.offsets(block);
                for &(o, size) in &blocks {
                    let weights = &packed[o * per_output..][..size * per_output];
                    let stored = size.min(self.outputs - o);
                    let to = match direct {
                        true => Target {
                            at: shared.start_of(first + o * target, (stored - 1) * target + span),
                            stride: target,
                            pitch: cols_of_target,
                            stored,
                        },
                        false => Target {
                            at: result.as_mut_ptr(),
                            stride: vectors.held(),
                            pitch: vectors.pitch,
                            stored: size,
                        },
                    };
                    let sum = Sum {
                        source,
                        offsets: &offsets,
                        channel: block.channel,
                        channels: self.channels,
                        weights,
                    };
                    arch().dispatch(Correlate {
                        sum,
                        outputs: size,
                        vectors,
                        to,
                    });
                    if direct {
                        continue;
                    }
                    arch().dispatch(Store {
                        result,
                        from: to,
                        rows,
                        cols: self.grid[1],
                        shared,
                        first: first + o * target,
                        stored,
                        plane: target,
                        pitch: self.target_step * cols_of_target,
                        step: self.target_step,
                    });
                }
            });
        });
    }

    /// `dw[o, c, tap] = Σ_{n, i} g[n, o, i] · plane(tap)[n, c, i + shift(tap)]`.
    pub fn weight_gradient(&self, x: &[f32], g: &[f32]) -> Vec<f32> {
        let columns = self.channels * self.taps.len();
        let outputs = self.outputs.next_multiple_of(Registers::get().lanes);
        let images = Parts::new(self.batch, self.batch.div_ceil(groups(columns * outputs)));
        let mut partial = vec![0.0; images.count() * columns * outputs];
        let shared = Shared::new(&mut partial);
        let rows = Parts::new(self.grid[0], self.rows_of_task(8, SCRATCH));
        let (image, target) = (
            self.channels * self.source[0] * self.source[1],
            self.grid[0] * self.grid[1],
        );
        each(images.count(), |group| {
            // SAFETY: each group has sums of its own.
            let sums = unsafe { shared.part(group * columns * outputs, columns * outputs) };
            let (first, count) = images.get(group);
            for n in first..first + count {
                for part in 0..rows.count() {
                    let (row, rows) = rows.get(part);
                    let block = self.block(rows);
                    let offsets = self.offsets(block);
                    let g = &g[n * self.outputs * target..(n + 1) * self.outputs * target];
                    let filled = self.channels * block.channel;
                    let (from, pixels) = (row * self.grid[1], rows * self.grid[1]);
                    with_scratch(filled + pixels * outputs, |scratch| {
                        let (planes, gradient) = scratch.split_at_mut(filled);
                        self.fill(&x[n * image..(n + 1) * image], row, block, planes);
                        transpose(&g[from..], target, self.outputs, pixels, gradient, outputs);
                        let products = Products {
                            planes,
                            gradient,
                            rows,
                            cols: self.grid[1],
                            pitch: block.pitch,
                            outputs,
                        };
                        arch().dispatch(Accumulate {
                            products,
                            channel: block.channel,
                            channels: self.channels,
                            offsets: &offsets,
                            sums: &mut *sums,
                        });
                    });
                }
            }
        });
        let total = total(&mut partial, columns * outputs);
        let [per_output, per_channel] = self.weight_strides;
        let mut d_w = vec![0.0; self.outputs * columns];
        for (column, sums) in total.chunks_exact(outputs).enumerate() {
            let tap = &self.taps[column % self.taps.len()];
            let at = column / self.taps.len() * per_channel + tap.weight;
            for (o, sum) in sums[..self.outputs].iter().enumerate() {
                d_w[o * per_output + at] = *sum;
            }
        }
        d_w
    }
}

struct Fill<'a> {
    of: &'a Correlation,
    x: &'a [f32],
    row: usize,
    block: Block,
    scratch: &'a mut [f32],
}

impl WithSimd for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (block, step) = (self.block, self.of.step);
        let [h, w] = self.of.source;
        let mut lines = self.scratch.chunks_exact_mut(block.pitch);
        for c in 0..self.of.channels {
            let image = &self.x[c * h * w..(c + 1) * h * w];
            for [top, left] in &self.of.planes {
                // Columns of the plane that lie in the image.
                let from = ((-left).max(0) as usize).div_ceil(step).min(block.pitch);
                let until = (w as isize - left).max(0) as usize;
                let until = until.div_ceil(step).clamp(from, block.pitch);
                for i in 0..block.rows {
                    let Some(line) = lines.next() else {
                        unreachable!("scratch holds every channel's planes")
                    };
                    let y = ((self.row + i) * step) as isize + top;
                    if y < 0 || y >= h as isize || from == until {
                        clear(simd, line);
                        continue;
                    }
                    clear(simd, &mut line[..from]);
                    clear(simd, &mut line[until..]);
                    let first = y as usize * w + ((from * step) as isize + left) as usize;
                    let line = &mut line[from..until];
                    match step {
                        // SAFETY: the slices have equal lengths.
                        1 => unsafe {
                            let pixels = &image[first..first + line.len()];
                            copy(simd, pixels, line.as_mut_ptr());
                        },
                        2 => {
                            let pixels = image[first..].chunks(2);
                            for (to, pair) in line.iter_mut().zip(pixels) {
                                *to = pair[0];
                            }
                        }
                        _ => {
                            let pixels = image[first..].iter().step_by(step);
                            for (to, x) in line.iter_mut().zip(pixels) {
                                *to = *x;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Copies the pixels of a block from scratch memory to the result. There, pixels are `step` apart
/// and rows `pitch` apart.
struct Store<'a> {
    result: &'a [f32],
    from: Target,
    rows: usize,
    cols: usize,
    shared: Shared,
    first: usize,
    stored: usize,
    plane: usize,
    pitch: usize,
    step: usize,
}

impl WithSimd for Store<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let span = (self.cols - 1) * self.step + 1;
        let outputs = self.result.chunks_exact(self.from.stride);
        for (o, lines) in outputs.take(self.stored).enumerate() {
            for (row, line) in lines.chunks(self.from.pitch).take(self.rows).enumerate() {
                let line = &line[..self.cols];
                let at = self.first + o * self.plane + row * self.pitch;
                // SAFETY: each row of an image's output belongs to one task. The tasks of other
                // phases write between these pixels, but run before or after this phase.
                let to = unsafe { self.shared.fresh_part(at, span) };
                if self.step == 1 {
                    // SAFETY: `span` is then the line's length.
                    unsafe { copy(simd, line, to.as_mut_ptr().cast()) };
                } else {
                    for (to, x) in to.chunks_mut(self.step).zip(line) {
                        to[0].write(*x);
                    }
                }
            }
        }
    }
}

/// Copies a row. Rows here are a few vectors long; for these, calling `memcpy` takes longer than
/// the copy itself. The loop copies two vectors at a time, because the compiler turns a simpler
/// loop into a call.
///
/// # Safety
///
/// `to` is a place for as many values as `from` has, which nothing else uses. It may not be written
/// yet.
#[inline(always)]
unsafe fn copy<S: Simd>(simd: S, from: &[f32], to: *mut f32) {
    let lanes = S::F32_LANES;
    let mut i = 0;
    // SAFETY: the loop ends with the slice, whose length the caller promises for `to`; vectors may be
    // unaligned.
    unsafe {
        let at = |i: usize| from.as_ptr().add(i).cast::<S::f32s>();
        while i + 2 * lanes <= from.len() {
            let (a, b) = (at(i).read_unaligned(), at(i + lanes).read_unaligned());
            let to = to.add(i);
            to.cast::<S::f32s>().write_unaligned(a);
            to.add(lanes).cast::<S::f32s>().write_unaligned(b);
            i += 2 * lanes;
        }
        if i + lanes <= from.len() {
            let a = at(i).read_unaligned();
            to.add(i).cast::<S::f32s>().write_unaligned(a);
            i += lanes;
        }
        if i < from.len() {
            let rest = simd.mask_between_m32s(0, (from.len() - i) as u32);
            simd.mask_store_ptr_f32s(rest, to.add(i), simd.partial_load_f32s(&from[i..]));
        }
    }
}

#[inline(always)]
fn clear<S: Simd>(simd: S, to: &mut [f32]) {
    // One zero at the edge of a row is the usual case.
    if let [to] = to {
        *to = 0.0;
        return;
    }
    for to in to.chunks_mut(S::F32_LANES) {
        simd.partial_store_f32s(to, simd.splat_f32s(0.0));
    }
}
