//! Convolution without im2col. docs/KERNELS.md has the drawing.
//!
//! [`correlation`] serves every shape. [`winograd`] needs half as many multiplications, and serves stride 1 with three
//! rows of weights. Both compute the input gradient as a convolution of the output's gradient with the kernel mirrored, and both
//! end in the loops over registers of [`micro`].

mod correlation;
mod micro;
mod winograd;

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use self::correlation::{Correlation, Tap};
use self::winograd::Winograd;
use super::memory::{Fresh, Shared, contiguous, dims, elements, tensor, values};
use super::parallel::{Parts, each, wide};
use crate::op::Kernel;

/// The scratch values of a task of a weight gradient, 96 kB, on every machine: they decide the order of its sums. Blocks for the
/// first-level cache are read in shorter pieces and were slower.
const SCRATCH: usize = 24 << 10;

/// The scratch values of a task whose blocks change no sum: 96 to 192 kB, at most a quarter of the second-level cache if it has more than
/// 384 kB.
fn scratch() -> usize {
    let bytes = gemm_common::cache::CACHE_INFO[1].cache_bytes;
    (bytes / size_of::<f32>() / 4).clamp(SCRATCH, 2 * SCRATCH)
}

/// The most values of a vector.
const LANES: usize = 16;
/// The most partial sums of a weight gradient, each over a share of the batch.
const GROUPS: usize = 16;
/// The values that the partial sums of a weight gradient may have together, 64 MB, as long as there are four.
const SUMS: usize = 16 << 20;

/// Values of a weight gradient that one task adds up.
const CHUNK: usize = 1 << 12;

/// The number of partial sums of a weight gradient, each over a share of the batch, that have `len` values each.
fn groups(len: usize) -> usize {
    (SUMS / len).clamp(4, GROUPS)
}

/// The total of partial sums of `len` values each, in their order.
fn total(partial: &mut [f32], len: usize) -> &[f32] {
    let (total, rest) = partial.split_at_mut(len);
    let (shared, rest) = (Shared::new(total), &*rest);
    let parts = Parts::new(len, CHUNK);
    each(parts.count(), |i| {
        let (from, size) = parts.get(i);
        // SAFETY: the parts are disjoint.
        let total = unsafe { shared.part(from, size) };
        wide(
            #[inline(always)]
            || {
                for part in rest.chunks_exact(len) {
                    let part = &part[from..from + size];
                    total.iter_mut().zip(part).for_each(|(t, x)| *t += x);
                }
            },
        );
    });
    total
}

#[derive(Debug)]
pub(crate) struct Conv2d {
    pub stride: usize,
    pub padding: usize,
}

impl Kernel<Flex> for Conv2d {
    type State = (FlexTensor, FlexTensor);
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Self::State, ()) {
        let (x, weight) = (contiguous(&inputs[0]), contiguous(&inputs[1]));
        let shape = Shape::of(&x, &weight, self);
        let extents = [shape.batch, shape.c_out, shape.out_h, shape.out_w];
        let mut out = Fresh::new(elements(&extents));
        match shape.winograd_forward() {
            Some(pass) => pass.run(values(&x), values(&weight), out.shared()),
            None => shape
                .forward()
                .run(values(&x), values(&weight), out.shared()),
        }
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
            let len = values(&x).len();
            if let Some(pass) = shape.winograd_input_gradient() {
                let mut d_x = Fresh::new(len);
                pass.run(g, values(&weight), d_x.shared());
                // SAFETY: each task has written its rows of every channel.
                return tensor(unsafe { d_x.written() }, x.shape());
            }
            let phases = shape.input_gradient();
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
            let d_w = match shape.winograd_forward() {
                Some(pass) => pass.weight_gradient(values(&x), g),
                None => shape.forward().weight_gradient(values(&x), g),
            };
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

    /// The forward pass and the weight gradient by Winograd's algorithm, if it serves and pays.
    fn winograd_forward(&self) -> Option<Winograd> {
        self.winograd(Winograd {
            batch: self.batch,
            channels: self.c_in,
            source: [self.h, self.w],
            padding: [self.padding; 2],
            outputs: self.c_out,
            grid: [self.out_h, self.out_w],
            taps: self.kw,
            weight_strides: [self.c_in * self.kh * self.kw, self.kh * self.kw],
            mirrored: false,
        })
    }

    /// `dx[c, i] = Σ_{o, k} w[o, c, k] · g[o, i + p − k]`.
    fn winograd_input_gradient(&self) -> Option<Winograd> {
        let padding = |k: usize| (k - 1).checked_sub(self.padding);
        self.winograd(Winograd {
            batch: self.batch,
            channels: self.c_out,
            source: [self.out_h, self.out_w],
            padding: [padding(self.kh)?, padding(self.kw)?],
            outputs: self.c_in,
            grid: [self.h, self.w],
            taps: self.kw,
            weight_strides: [self.kh * self.kw, self.c_in * self.kh * self.kw],
            mirrored: true,
        })
    }

    fn winograd(&self, pass: Winograd) -> Option<Winograd> {
        let serves = self.stride == 1 && self.kh == 3 && self.padding < self.kw;
        (serves && pass.pays()).then_some(pass)
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
