//! Activations, element by element. With the sigmoid σ, Φ and the density φ of the normal distribution:
//!
//! - GELU: `y = x · Φ(x)`, `dx = g · (Φ(x) + x · φ(x))`;
//! - SiLU: `y = x · σ(x)`, `dx = g · (σ(x) + y · (1 − σ(x)))`;
//! - SwiGLU: `y = silu(x) · u`, `dx = g · u · silu'(x)`, `du = g · silu(x)`.
//!
//! The backward passes compute everything again from the inputs.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::math::{normal, sigmoid};
use super::memory::{Fresh, contiguous, tensor, values};
use super::parallel::{Parts, each, wide};
use crate::op::Kernel;

/// Elements of a task: some 10 µs.
const CHUNK: usize = 1 << 14;

/// An activation of one input.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unary {
    Gelu,
    Silu,
}

impl Unary {
    /// Writes `act(x)` to `y`. Call it inside [`wide`].
    #[inline(always)]
    pub(super) fn apply(self, x: &[f32], y: &mut [core::mem::MaybeUninit<f32>]) {
        match self {
            Self::Gelu => {
                for (y, x) in y.iter_mut().zip(x) {
                    y.write(x * normal(*x).0);
                }
            }
            Self::Silu => {
                for (y, x) in y.iter_mut().zip(x) {
                    y.write(x * sigmoid(*x));
                }
            }
        }
    }

    /// [`Self::apply`] in the same memory.
    #[inline(always)]
    pub(super) fn apply_in_place(self, x: &mut [f32]) {
        match self {
            Self::Gelu => {
                for x in x {
                    *x *= normal(*x).0;
                }
            }
            Self::Silu => {
                for x in x {
                    *x *= sigmoid(*x);
                }
            }
        }
    }

    /// Multiplies `g` by `act'(x)`. Call it inside [`wide`].
    #[inline(always)]
    pub(super) fn back(self, x: &[f32], g: &mut [f32]) {
        match self {
            Self::Gelu => {
                for (g, x) in g.iter_mut().zip(x) {
                    let (below, density) = normal(*x);
                    *g *= below + x * density;
                }
            }
            Self::Silu => {
                for (g, x) in g.iter_mut().zip(x) {
                    *g *= silu_and_slope(*x)[1];
                }
            }
        }
    }
}

/// `silu(x)` and its derivative.
#[inline(always)]
fn silu_and_slope(x: f32) -> [f32; 2] {
    let s = sigmoid(x);
    let y = x * s;
    [y, s + y * (1.0 - s)]
}

impl Kernel<Flex> for Unary {
    /// x.
    type State = FlexTensor;
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Self::State, ()) {
        let x = contiguous(&inputs[0]);
        let xs = values(&x);
        let [y] = parts(
            xs.len(),
            #[inline(always)]
            |at, [y]| self.apply(&xs[at], y),
        );
        (tensor(y, x.shape()), x, ())
    }

    fn backward(
        self,
        x: Self::State,
        grad: FlexTensor,
        _wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let grad = contiguous(&grad);
        let (xs, gs) = (values(&x), values(&grad));
        let [d_x] = parts(
            xs.len(),
            #[inline(always)]
            |at, [d_x]| self.back(&xs[at.clone()], d_x.write_copy_of_slice(&gs[at])),
        );
        vec![Some(tensor(d_x, grad.shape()))]
    }
}

#[derive(Debug)]
pub(crate) struct SwiGlu;

impl Kernel<Flex> for SwiGlu {
    /// Both inputs.
    type State = [FlexTensor; 2];
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Self::State, ()) {
        let [x, u] = [0, 1].map(|i| contiguous(&inputs[i]));
        let (xs, us) = (values(&x), values(&u));
        let [y] = parts(
            xs.len(),
            #[inline(always)]
            |at, [y]| {
                for ((y, x), u) in y.iter_mut().zip(&xs[at.clone()]).zip(&us[at]) {
                    y.write(x * sigmoid(*x) * u);
                }
            },
        );
        (tensor(y, x.shape()), [x, u], ())
    }

    fn backward(
        self,
        [x, u]: Self::State,
        grad: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let grad = contiguous(&grad);
        let (xs, us, gs) = (values(&x), values(&u), values(&grad));
        let [d_x, d_u] = parts(
            xs.len(),
            #[inline(always)]
            |at, [d_x, d_u]| {
                let inputs = xs[at.clone()].iter().zip(&us[at.clone()]).zip(&gs[at]);
                for ((d_x, d_u), ((x, u), g)) in d_x.iter_mut().zip(d_u).zip(inputs) {
                    let [y, slope] = silu_and_slope(*x);
                    d_x.write(g * u * slope);
                    d_u.write(g * y);
                }
            },
        );
        let found = [d_x, d_u].map(|d| tensor(d, grad.shape()));
        let found = found.into_iter().zip(wanted);
        found.map(|(d, wanted)| wanted.then_some(d)).collect()
    }
}

/// `N` results of `len` values each; `f(range, parts)` writes their values in that range.
fn parts<const N: usize>(
    len: usize,
    f: impl Fn(core::ops::Range<usize>, [&mut [core::mem::MaybeUninit<f32>]; N]) + Sync + Send,
) -> [Vec<f32>; N] {
    let mut out = [(); N].map(|()| Fresh::new(len));
    let shared = out.each_mut().map(Fresh::shared);
    let parts = Parts::new(len, CHUNK);
    each(parts.count(), |i| {
        let (from, len) = parts.get(i);
        // SAFETY: the parts are disjoint.
        let out = shared
            .each_ref()
            .map(|shared| unsafe { shared.fresh_part(from, len) });
        wide(
            #[inline(always)]
            || f(from..from + len, out),
        );
    });
    // SAFETY: the parts cover them.
    out.map(|out| unsafe { out.written() })
}
