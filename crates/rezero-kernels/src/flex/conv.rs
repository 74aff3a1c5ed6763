//! Convolution without im2col. docs/KERNELS.md has the drawing.
//!
//! Forward and input gradient are one routine: a correlation of stride 1 over *planes*. A task
//! copies the rows it needs, with zeros around them, into a scratch block that fits the
//! second-level cache. For stride s it sorts rows and columns by their remainder modulo s into s²
//! planes; over these the strided kernel has stride 1. The input gradient of a strided convolution
//! is s² correlations of the output's gradient, one for each remainder of the *result's* position.
//! A vector holds pixels of a row and weights are broadcast, so images stay in Burn's own order,
//! batch × channel × row × column.
//!
//! The inner sum of the weight gradient runs over the pixels. There a vector holds output channels,
//! from a transposed copy of the gradient's rows, and pixels of the same scratch are broadcast.

// Loops over registers index plain arrays: a closure of an iterator may not be inlined, and would
// then be compiled without the vector instructions.
#![allow(clippy::needless_range_loop)]

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use pulp::{Simd, WithSimd};

use super::matmul::transpose;
use super::memory::{Fresh, Shared, contiguous, dims, elements, tensor, values, with_scratch};
use super::op::Kernel;
use super::parallel::{Parts, arch, each, wide};

/// The scratch values of one task, 96 kB: they fit the second-level cache. Blocks for the
/// first-level cache are read in shorter pieces and were slower.
const SCRATCH: usize = 24 << 10;
/// Output channels of a micro-kernel: with two vectors of pixels, 16 accumulators.
const ROWS: usize = 8;
/// The most values of a vector.
const LANES: usize = 16;
/// Partial sums of the weight gradient, each over a share of the batch.
const GROUPS: usize = 16;

#[derive(Debug)]
pub(crate) struct Conv2d {
    pub stride: usize,
    pub padding: usize,
}

impl Kernel for Conv2d {
    type State = (FlexTensor, FlexTensor);
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Self::State, ()) {
        let (x, weight) = (contiguous(&inputs[0]), contiguous(&inputs[1]));
        let shape = Shape::of(&x, &weight, self);
        let extents = [shape.batch, shape.c_out, shape.out_h, shape.out_w];
        let mut out = Fresh::new(elements(&extents));
        shape
            .forward()
            .run(values(&x), values(&weight), out.shared());
        // SAFETY: each task has written its rows of every output.
        let out = tensor(unsafe { out.written() }, extents);
        (out, (x, weight), ())
    }

    fn backward(
        self,
        (x, weight): Self::State,
        grad: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let shape = Shape::of(&x, &weight, &self);
        let grad = contiguous(&grad);
        let g = values(&grad);
        let d_x = wanted[0].then(|| {
            let phases = shape.input_gradient();
            let len = values(&x).len();
            // Some pixels have no tap: no output depends on them.
            let d_x = if phases.iter().any(|phase| phase.taps.is_empty()) {
                let mut d_x = vec![0.0; len];
                for phase in phases.iter().filter(|phase| !phase.taps.is_empty()) {
                    phase.run(g, values(&weight), Shared::new(&mut d_x));
                }
                d_x
            } else {
                let mut d_x = Fresh::new(len);
                for phase in &phases {
                    phase.run(g, values(&weight), d_x.shared());
                }
                // SAFETY: each pixel belongs to a phase, which has written it.
                unsafe { d_x.written() }
            };
            tensor(d_x, x.shape())
        });
        let d_w = wanted[1].then(|| {
            let d_w = shape.forward().weight_gradient(values(&x), g);
            tensor(d_w, weight.shape())
        });
        vec![d_x, d_w]
    }
}

/// The extents of a convolution.
#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    c_in: usize,
    h: usize,
    w: usize,
    c_out: usize,
    kh: usize,
    kw: usize,
    out_h: usize,
    out_w: usize,
    stride: usize,
    padding: usize,
}

impl Shape {
    fn of(x: &FlexTensor, weight: &FlexTensor, conv: &Conv2d) -> Self {
        let [batch, c_in, h, w] = dims(x);
        let [c_out, _, kh, kw] = dims(weight);
        let extent = |n: usize, k: usize| (n + 2 * conv.padding - k) / conv.stride + 1;
        let (out_h, out_w) = (extent(h, kh), extent(w, kw));
        // With a large padding a small image has a large output. These bound all sizes below: of both
        // tensors and of a task's scratch memory, in both directions.
        let [rows, cols] = [h.max(out_h) + kh, w.max(out_w) + kw];
        for channels in [&[c_in, kh, kw], &[c_out.next_multiple_of(LANES), kh, kw]] {
            elements(&[channels.as_slice(), &[rows, cols.next_multiple_of(LANES)]].concat());
        }
        elements(&[batch, c_out, out_h, out_w]);
        Self {
            batch,
            c_in,
            h,
            w,
            c_out,
            kh,
            kw,
            out_h,
            out_w,
            stride: conv.stride,
            padding: conv.padding,
        }
    }

    fn forward(&self) -> Correlation {
        let Self { stride: s, .. } = *self;
        let mut planes = Vec::new();
        let mut taps = Vec::new();
        for k in 0..self.kh {
            for l in 0..self.kw {
                let origin = [k % s, l % s].map(|r| r as isize - self.padding as isize);
                let known = planes.iter().position(|plane| *plane == origin);
                let plane = known.unwrap_or_else(|| {
                    planes.push(origin);
                    planes.len() - 1
                });
                taps.push(Tap {
                    plane,
                    shift: [k / s, l / s],
                    weight: k * self.kw + l,
                });
            }
        }
        Correlation {
            batch: self.batch,
            channels: self.c_in,
            source: [self.h, self.w],
            step: s,
            planes,
            taps,
            outputs: self.c_out,
            grid: [self.out_h, self.out_w],
            target: [self.out_h, self.out_w],
            first: [0, 0],
            target_step: 1,
            weight_strides: [self.c_in * self.kh * self.kw, self.kh * self.kw],
        }
    }

    /// `dx[c, i] = Σ_{o, k ≡ i + p (mod s)} w[o, c, k] · g[o, (i + p − k) / s]`, one correlation
    /// for each remainder of `i + p`.
    fn input_gradient(&self) -> Vec<Correlation> {
        let (s, p) = (self.stride, self.padding);
        let area = self.kh * self.kw;
        let mut phases = Vec::new();
        // For the pixels i with i + p = s·u + a: the first u, the number of pixels, and the number
        // of taps k = a + s·j.
        let axis = |a: usize, extent: usize, k: usize| {
            let first = p.saturating_sub(a).div_ceil(s);
            let count = (extent + p)
                .saturating_sub(a)
                .div_ceil(s)
                .saturating_sub(first);
            (first, count, k.saturating_sub(a).div_ceil(s))
        };
        // The remainders that occur.
        let remainders = |extent: usize| (0..extent.min(s)).map(move |i| (i + p) % s);
        for a in remainders(self.h) {
            for b in remainders(self.w) {
                let (u, rows, down) = axis(a, self.h, self.kh);
                let (v, cols, across) = axis(b, self.w, self.kw);
                if rows * cols == 0 {
                    continue;
                }
                let mut taps = Vec::new();
                for j in 0..down {
                    for i in 0..across {
                        taps.push(Tap {
                            plane: 0,
                            shift: [down - 1 - j, across - 1 - i],
                            weight: (a + s * j) * self.kw + b + s * i,
                        });
                    }
                }
                phases.push(Correlation {
                    batch: self.batch,
                    channels: self.c_out,
                    source: [self.out_h, self.out_w],
                    step: 1,
                    planes: vec![[
                        u as isize + 1 - down as isize,
                        v as isize + 1 - across as isize,
                    ]],
                    taps,
                    outputs: self.c_in,
                    grid: [rows, cols],
                    target: [self.h, self.w],
                    first: [s * u + a - p, s * v + b - p],
                    target_step: s,
                    weight_strides: [area, self.c_in * area],
                });
            }
        }
        phases
    }
}

/// One product of a correlation: a weight times the plane's pixel that lies `shift` rows and
/// columns further.
struct Tap {
    plane: usize,
    shift: [usize; 2],
    weight: usize,
}

/// `y[o, i] = Σ_{c, tap} w[o, c, tap] · plane(tap)[c, i + shift(tap)]` for each image, with the
/// planes `plane[c, i] = x[c, step·i + origin]`, zero outside `x`.
struct Correlation {
    batch: usize,
    channels: usize,
    source: [usize; 2],
    step: usize,
    /// The origin of each plane.
    planes: Vec<[isize; 2]>,
    taps: Vec<Tap>,
    outputs: usize,
    /// The extents of the pixels that are computed.
    grid: [usize; 2],
    /// The extents of the image that they are written to; pixel i goes to `first + target_step·i`.
    target: [usize; 2],
    first: [usize; 2],
    target_step: usize,
    /// The distances between the weights of two outputs, and of two channels.
    weight_strides: [usize; 2],
}

/// A task's scratch block: for each channel the planes, `rows` by `pitch` each.
#[derive(Clone, Copy)]
struct Block {
    rows: usize,
    pitch: usize,
    channel: usize,
}

impl Correlation {
    /// The number of rows of pixels that a task computes.
    fn rows_of_task(&self) -> usize {
        let [down, _] = self.reach();
        let row = self.channels * self.planes.len() * self.block(1).pitch;
        let fit = (SCRATCH / row).saturating_sub(down).max(1);
        // A small batch is cut into more tasks, so that several cores have work.
        let wanted = (8 / self.batch).max(1);
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

    /// The weights in the order in which they are read: for each group of `ROWS` outputs, each
    /// channel and each tap, the group's weights. The last group is filled up with zeros.
    fn pack(&self, weight: &[f32]) -> Vec<f32> {
        let [per_output, per_channel] = self.weight_strides;
        let mut packed = Vec::with_capacity(
            self.outputs.next_multiple_of(ROWS) * self.channels * self.taps.len(),
        );
        for o in (0..self.outputs).step_by(ROWS) {
            for c in 0..self.channels {
                for tap in &self.taps {
                    packed.extend((o..o + ROWS).map(|o| match o < self.outputs {
                        true => weight[o * per_output + c * per_channel + tap.weight],
                        false => 0.0,
                    }));
                }
            }
        }
        packed
    }

    /// Writes every pixel of the grid to `shared`, and no other.
    fn run(&self, x: &[f32], weight: &[f32], shared: Shared) {
        let packed = self.pack(weight);
        let per_block = self.channels * self.taps.len() * ROWS;
        let rows = Parts::new(self.grid[0], self.rows_of_task());
        let (image, target) = (
            self.channels * self.source[0] * self.source[1],
            self.target[0] * self.target[1],
        );
        let lanes = arch().dispatch(Lanes);
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
            let held = if direct { 0 } else { ROWS * vectors.held() };
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
                for (o, weights) in packed.chunks_exact(per_block).enumerate() {
                    let o = o * ROWS;
                    let stored = ROWS.min(self.outputs - o);
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
                            stored: ROWS,
                        },
                    };
                    let sum = Sum {
                        source,
                        offsets: &offsets,
                        channel: block.channel,
                        channels: self.channels,
                        weights,
                    };
                    arch().dispatch(Correlate { sum, vectors, to });
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
    fn weight_gradient(&self, x: &[f32], g: &[f32]) -> Vec<f32> {
        let images = Parts::new(self.batch, self.batch.div_ceil(GROUPS));
        let columns = self.channels * self.taps.len();
        let outputs = self.outputs.next_multiple_of(arch().dispatch(Lanes));
        let mut partial = vec![0.0; images.count() * columns * outputs];
        let shared = Shared::new(&mut partial);
        let rows = Parts::new(self.grid[0], self.rows_of_task());
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
        let (total, rest) = partial.split_at_mut(columns * outputs);
        wide(
            #[inline(always)]
            || {
                for group in rest.chunks_exact(columns * outputs) {
                    total.iter_mut().zip(group).for_each(|(t, x)| *t += x);
                }
            },
        );
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

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// How the pixels of a block of rows are cut into vectors.
#[derive(Clone, Copy)]
struct Vectors {
    count: usize,
    lanes: usize,
    /// Values of the result between two rows of pixels.
    pitch: usize,
    /// The number of vectors per row, or `None` if vectors run through the block across rows.
    of_row: Option<usize>,
    block_pitch: usize,
    rows: usize,
}

impl Vectors {
    /// Takes the variant with fewer vectors. Vectors along rows waste the part of a row's last
    /// vector that is beyond the row. Vectors through the block, across rows, waste the columns
    /// between two rows.
    fn new(rows: usize, cols: usize, block_pitch: usize, lanes: usize) -> Self {
        let along = rows * cols.div_ceil(lanes);
        let through = ((rows - 1) * block_pitch + cols).div_ceil(lanes);
        let whole_rows = along <= through;
        Self {
            count: along.min(through),
            lanes,
            pitch: if whole_rows {
                cols.next_multiple_of(lanes)
            } else {
                block_pitch
            },
            of_row: whole_rows.then(|| cols.div_ceil(lanes)),
            block_pitch,
            rows,
        }
    }

    /// The number of values to hold for one output: all vectors, and whole rows.
    fn held(&self) -> usize {
        (self.count * self.lanes).max(self.rows * self.pitch)
    }

    /// The place of vector `v` in a result whose rows are `pitch` apart.
    #[inline(always)]
    fn target(&self, v: usize, pitch: usize) -> usize {
        match self.of_row {
            Some(n) => v / n * pitch + v % n * self.lanes,
            None => v * self.lanes,
        }
    }

    /// The place of the pixels of vector `v` in the block.
    #[inline(always)]
    fn place(&self, v: usize) -> usize {
        match self.of_row {
            Some(n) => v / n * self.block_pitch + v % n * self.lanes,
            None => v * self.lanes,
        }
    }
}

/// The destination of a micro-kernel's sums: `stored` outputs, `stride` apart, with rows of pixels
/// `pitch` apart.
#[derive(Clone, Copy)]
struct Target {
    at: *mut f32,
    stride: usize,
    pitch: usize,
    stored: usize,
}

/// Computes a block of rows of pixels for `ROWS` outputs.
struct Correlate<'a> {
    sum: Sum<'a>,
    vectors: Vectors,
    to: Target,
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    // Everything that runs here must be inlined, also closures of the standard library: other
    // functions are compiled for the target's baseline.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sum, vectors, to } = self;
        let mut v = 0;
        while v + 2 <= vectors.count {
            let (from, at) = (
                [vectors.place(v), vectors.place(v + 1)],
                [vectors.target(v, to.pitch), vectors.target(v + 1, to.pitch)],
            );
            sum.micro::<S, 2>(simd, from, to, at);
            v += 2;
        }
        if v < vectors.count {
            sum.micro::<S, 1>(simd, [vectors.place(v)], to, [vectors.target(v, to.pitch)]);
        }
    }
}

/// The inner sum of a correlation for `ROWS` outputs.
#[derive(Clone, Copy)]
struct Sum<'a> {
    source: &'a [f32],
    offsets: &'a [usize],
    channel: usize,
    channels: usize,
    weights: &'a [f32],
}

impl Sum<'_> {
    /// Computes `V` vectors of pixels of each output. Their pixels are at `places` in the scratch
    /// block. The sums are stored at places `at` of `to`; the caller has checked that they fit.
    #[inline(always)]
    fn micro<S: Simd, const V: usize>(
        self,
        simd: S,
        places: [usize; V],
        to: Target,
        at: [usize; V],
    ) {
        let lanes = S::F32_LANES;
        let reach = self.offsets.iter().max().unwrap_or(&0) + places.iter().max().unwrap_or(&0);
        assert!((self.channels - 1) * self.channel + reach + lanes <= self.source.len());
        assert!(self.channels * self.offsets.len() * ROWS <= self.weights.len());
        let mut sums = [[simd.splat_f32s(0.0); V]; ROWS];
        let mut weights = self.weights.as_ptr();
        for c in 0..self.channels {
            for &offset in self.offsets {
                // SAFETY: the asserts above bound every address; vectors may be unaligned.
                unsafe {
                    let at = self.source.as_ptr().add(c * self.channel + offset);
                    let mut pixels = [simd.splat_f32s(0.0); V];
                    for v in 0..V {
                        pixels[v] = at.add(places[v]).cast::<S::f32s>().read_unaligned();
                    }
                    for m in 0..ROWS {
                        let weight = simd.splat_f32s(*weights.add(m));
                        for v in 0..V {
                            sums[m][v] = simd.mul_add_e_f32s(weight, pixels[v], sums[m][v]);
                        }
                    }
                    weights = weights.add(ROWS);
                }
            }
        }
        for m in 0..ROWS {
            if m == to.stored {
                break;
            }
            for v in 0..V {
                // SAFETY: `to` is this task's alone and holds what is stored: the whole vectors of
                // `stored` outputs in the result, or in the scratch memory made for them.
                unsafe {
                    let to = to.at.add(m * to.stride + at[v]);
                    to.cast::<S::f32s>().write_unaligned(sums[m][v]);
                }
            }
        }
    }
}

/// Adds a block of rows to the weight gradient's sums. Each column (a channel and a tap) has a row
/// of sums, one per output.
struct Accumulate<'a> {
    products: Products<'a>,
    channel: usize,
    channels: usize,
    offsets: &'a [usize],
    sums: &'a mut [f32],
}

impl WithSimd for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let (taps, outputs) = (self.offsets.len(), self.products.outputs);
        let columns = self.channels * taps;
        for first in (0..columns).step_by(ROWS) {
            // The last group is filled up with copies of the last column, which are not stored.
            let mut places = [0; ROWS];
            for (m, place) in places.iter_mut().enumerate() {
                let column = (first + m).min(columns - 1);
                *place = column / taps * self.channel + self.offsets[column % taps];
            }
            let stored = ROWS.min(columns - first);
            let sums = &mut self.sums[first * outputs..];
            let mut o = 0;
            while o + 2 * lanes <= outputs {
                self.products
                    .micro::<S, 2>(simd, places, o, &mut sums[o..], stored);
                o += 2 * lanes;
            }
            if o < outputs {
                self.products
                    .micro::<S, 1>(simd, places, o, &mut sums[o..], stored);
            }
        }
    }
}

/// The operands of a block's contribution to the weight gradient.
#[derive(Clone, Copy)]
struct Products<'a> {
    planes: &'a [f32],
    /// The gradient, pixel after pixel, with `outputs` channels each.
    gradient: &'a [f32],
    rows: usize,
    cols: usize,
    pitch: usize,
    outputs: usize,
}

impl Products<'_> {
    /// Computes `V` vectors of outputs from `o` on, for the `ROWS` columns at `places`, and adds
    /// the first `stored` columns to `sums`.
    #[inline(always)]
    fn micro<S: Simd, const V: usize>(
        self,
        simd: S,
        places: [usize; ROWS],
        o: usize,
        sums: &mut [f32],
        stored: usize,
    ) {
        let lanes = S::F32_LANES;
        let last = (self.rows - 1) * self.pitch + self.cols - 1;
        assert!(places.iter().all(|place| place + last < self.planes.len()));
        assert!(self.rows * self.cols * self.outputs <= self.gradient.len());
        assert!(o + V * lanes <= self.outputs && self.outputs > 0);
        assert!((stored - 1) * self.outputs + V * lanes <= sums.len());
        let mut held = [[simd.splat_f32s(0.0); V]; ROWS];
        // SAFETY: the asserts above bound every address; vectors may be unaligned.
        unsafe {
            let mut gradient = self.gradient.as_ptr().add(o);
            for row in 0..self.rows {
                let mut at = [self.planes.as_ptr(); ROWS];
                for m in 0..ROWS {
                    at[m] = at[m].add(places[m] + row * self.pitch);
                }
                for col in 0..self.cols {
                    let mut g = [simd.splat_f32s(0.0); V];
                    for v in 0..V {
                        g[v] = gradient.add(v * lanes).cast::<S::f32s>().read_unaligned();
                    }
                    for m in 0..ROWS {
                        let pixel = simd.splat_f32s(*at[m].add(col));
                        for v in 0..V {
                            held[m][v] = simd.mul_add_e_f32s(pixel, g[v], held[m][v]);
                        }
                    }
                    gradient = gradient.add(self.outputs);
                }
            }
        }
        for m in 0..ROWS {
            if m == stored {
                break;
            }
            for v in 0..V {
                // SAFETY: bounded by the last assert.
                unsafe {
                    let at = sums.as_mut_ptr().add(m * self.outputs + v * lanes);
                    let at = at.cast::<S::f32s>();
                    at.write_unaligned(simd.add_f32s(at.read_unaligned(), held[m][v]));
                }
            }
        }
    }
}
