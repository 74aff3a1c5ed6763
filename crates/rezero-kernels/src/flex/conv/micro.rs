//! The loops over registers. The register block follows the number of vector registers.

// Loops over registers index plain arrays: a closure of an iterator may not be inlined, and would
// then be compiled without the vector instructions.
#![allow(clippy::needless_range_loop)]

use pulp::{Simd, WithSimd};

use crate::flex::parallel::arch;

/// With 32 registers, a loop keeps 16 sums: 8 by 2 vectors, which cover the latency of the multiply–add. With 16
/// registers, 12 sums: 6 by 2 vectors. (Of 4 by 3 vectors the compiler spilled one in every turn.)
const fn many_registers<S: Simd>() -> bool {
    S::REGISTER_COUNT >= 32
}

/// What the loops of this processor compute at a time.
#[derive(Clone, Copy)]
pub(super) struct Registers {
    /// Values of a vector.
    pub lanes: usize,
    /// Output channels of [`Correlate`].
    outputs: usize,
}

impl Registers {
    pub fn get() -> Self {
        struct Get;
        impl WithSimd for Get {
            type Output = Registers;

            fn with_simd<S: Simd>(self, _: S) -> Registers {
                Registers {
                    lanes: S::F32_LANES,
                    outputs: if many_registers::<S>() { 8 } else { 6 },
                }
            }
        }
        arch().dispatch(Get)
    }

    /// The blocks of outputs of [`Correlate`], as the first output and the size. Only the last may reach beyond the outputs.
    pub fn blocks(self, outputs: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..outputs).step_by(self.outputs).map(move |o| {
            // Six registers have a smaller loop beside them: 16 outputs are 6 + 6 + 4.
            let small = self.outputs == 6 && outputs - o <= 4;
            (o, if small { 4 } else { self.outputs })
        })
    }

    /// The most outputs of a block.
    pub fn largest(self) -> usize {
        self.outputs
    }
}

/// How the pixels of a block of rows are cut into vectors.
#[derive(Clone, Copy)]
pub(super) struct Vectors {
    pub count: usize,
    pub lanes: usize,
    /// Values of the result between two rows of pixels.
    pub pitch: usize,
    /// The number of vectors per row, or `None` if vectors run through the block across rows.
    pub of_row: Option<usize>,
    pub block_pitch: usize,
    pub rows: usize,
}

impl Vectors {
    /// Takes the variant with fewer vectors. Vectors along rows waste the part of a row's last
    /// vector that is beyond the row. Vectors through the block, across rows, waste the columns
    /// between two rows.
    pub fn new(rows: usize, cols: usize, block_pitch: usize, lanes: usize) -> Self {
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
    pub fn held(&self) -> usize {
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
pub(super) struct Target {
    pub at: *mut f32,
    pub stride: usize,
    pub pitch: usize,
    pub stored: usize,
}

/// Computes a block of rows of pixels for one of [`Registers::blocks`].
pub(super) struct Correlate<'a> {
    pub sum: Sum<'a>,
    pub outputs: usize,
    pub vectors: Vectors,
    pub to: Target,
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    // Everything that runs here must be inlined, also closures of the standard library: other
    // functions are compiled for the target's baseline.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if many_registers::<S>() {
            self.run::<S, 8>(simd);
        } else if self.outputs == 6 {
            self.run::<S, 6>(simd);
        } else {
            self.run::<S, 4>(simd);
        }
    }
}

impl Correlate<'_> {
    #[inline(always)]
    fn run<S: Simd, const M: usize>(self, simd: S) {
        let Self {
            sum, vectors, to, ..
        } = self;
        assert_eq!(self.outputs, M, "a block of outputs");
        let mut v = 0;
        while v + 2 <= vectors.count {
            let (from, at) = (
                [vectors.place(v), vectors.place(v + 1)],
                [vectors.target(v, to.pitch), vectors.target(v + 1, to.pitch)],
            );
            sum.micro::<S, M, 2>(simd, from, to, at);
            v += 2;
        }
        if v < vectors.count {
            sum.micro::<S, M, 1>(simd, [vectors.place(v)], to, [vectors.target(v, to.pitch)]);
        }
    }
}

/// The inner sum of a correlation for a block of outputs, whose weights lie together for each channel and tap.
#[derive(Clone, Copy)]
pub(super) struct Sum<'a> {
    pub source: &'a [f32],
    pub offsets: &'a [usize],
    pub channel: usize,
    pub channels: usize,
    pub weights: &'a [f32],
}

impl Sum<'_> {
    /// Computes `V` vectors of pixels of each of `M` outputs. Their pixels are at `places` in the scratch
    /// block. The sums are stored at places `at` of `to`; the caller has checked that they fit.
    #[inline(always)]
    fn micro<S: Simd, const M: usize, const V: usize>(
        self,
        simd: S,
        places: [usize; V],
        to: Target,
        at: [usize; V],
    ) {
        let lanes = S::F32_LANES;
        let reach = self.offsets.iter().max().unwrap_or(&0) + places.iter().max().unwrap_or(&0);
        assert!((self.channels - 1) * self.channel + reach + lanes <= self.source.len());
        assert!(self.channels * self.offsets.len() * M <= self.weights.len());
        let mut sums = [[simd.splat_f32s(0.0); V]; M];
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
                    for m in 0..M {
                        let weight = simd.splat_f32s(*weights.add(m));
                        for v in 0..V {
                            sums[m][v] = simd.mul_add_e_f32s(weight, pixels[v], sums[m][v]);
                        }
                    }
                    weights = weights.add(M);
                }
            }
        }
        for m in 0..M {
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
pub(super) struct Accumulate<'a> {
    pub products: Products<'a>,
    pub channel: usize,
    pub channels: usize,
    pub offsets: &'a [usize],
    pub sums: &'a mut [f32],
}

impl WithSimd for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if many_registers::<S>() {
            self.run::<S, 8>(simd);
        } else {
            self.run::<S, 6>(simd);
        }
    }
}

impl Accumulate<'_> {
    /// `C` columns by two vectors of outputs at a time.
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let lanes = S::F32_LANES;
        let (taps, outputs) = (self.offsets.len(), self.products.outputs);
        let columns = self.channels * taps;
        for first in (0..columns).step_by(C) {
            // The last group is filled up with copies of the last column, which are not stored.
            let mut places = [0; C];
            for (m, place) in places.iter_mut().enumerate() {
                let column = (first + m).min(columns - 1);
                *place = column / taps * self.channel + self.offsets[column % taps];
            }
            let stored = C.min(columns - first);
            let sums = &mut self.sums[first * outputs..];
            let mut o = 0;
            while o + 2 * lanes <= outputs {
                self.products
                    .micro::<S, C, 2>(simd, places, o, &mut sums[o..], stored);
                o += 2 * lanes;
            }
            if o < outputs {
                self.products
                    .micro::<S, C, 1>(simd, places, o, &mut sums[o..], stored);
            }
        }
    }
}

/// The operands of a block's contribution to the weight gradient.
#[derive(Clone, Copy)]
pub(super) struct Products<'a> {
    pub planes: &'a [f32],
    /// The gradient, pixel after pixel, with `outputs` channels each.
    pub gradient: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub pitch: usize,
    pub outputs: usize,
}

impl Products<'_> {
    /// Computes `V` vectors of outputs from `o` on, for the `C` columns at `places`, and adds
    /// the first `stored` columns to `sums`.
    #[inline(always)]
    fn micro<S: Simd, const C: usize, const V: usize>(
        self,
        simd: S,
        places: [usize; C],
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
        let mut held = [[simd.splat_f32s(0.0); V]; C];
        // SAFETY: the asserts above bound every address; vectors may be unaligned.
        unsafe {
            // Ends at most one value past the gradient: `o` is added where it is read.
            let mut gradient = self.gradient.as_ptr();
            for row in 0..self.rows {
                let mut at = [self.planes.as_ptr(); C];
                for m in 0..C {
                    at[m] = at[m].add(places[m] + row * self.pitch);
                }
                for col in 0..self.cols {
                    let mut g = [simd.splat_f32s(0.0); V];
                    for v in 0..V {
                        let from = gradient.add(o + v * lanes);
                        g[v] = from.cast::<S::f32s>().read_unaligned();
                    }
                    for m in 0..C {
                        let pixel = simd.splat_f32s(*at[m].add(col));
                        for v in 0..V {
                            held[m][v] = simd.mul_add_e_f32s(pixel, g[v], held[m][v]);
                        }
                    }
                    gradient = gradient.add(self.outputs);
                }
            }
        }
        for m in 0..C {
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
