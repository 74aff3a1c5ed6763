//! `y = x · Φ(x)`. Backward: `dx = g · (Φ(x) + x · φ(x))`, with Φ and the density φ computed again from x.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::math::normal;
use super::memory::{Fresh, contiguous, tensor, values};
use super::op::Kernel;
use super::parallel::{Parts, each, wide};

/// Elements of a task: some 10 µs.
const CHUNK: usize = 1 << 14;

#[derive(Debug)]
pub(crate) struct Gelu;

impl Kernel for Gelu {
    /// x.
    type State = FlexTensor;
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Self::State, ()) {
        let x = contiguous(&inputs[0]);
        let out = map(
            values(&x),
            values(&x),
            #[inline(always)]
            |x, _| x * normal(x).0,
        );
        (tensor(out, x.shape()), x, ())
    }

    fn backward(
        self,
        x: Self::State,
        grad: FlexTensor,
        _wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let grad = contiguous(&grad);
        let out = map(
            values(&x),
            values(&grad),
            #[inline(always)]
            |x, g| {
                let (below, density) = normal(x);
                g * (below + x * density)
            },
        );
        vec![Some(tensor(out, grad.shape()))]
    }
}

/// `f` of each pair.
fn map(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = Fresh::new(a.len());
    let shared = out.shared();
    let parts = Parts::new(a.len(), CHUNK);
    each(parts.count(), |i| {
        let (from, len) = parts.get(i);
        // SAFETY: the parts are disjoint.
        let out = unsafe { shared.fresh_part(from, len) };
        let (a, b) = (&a[from..from + len], &b[from..from + len]);
        wide(
            #[inline(always)]
            || {
                for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                    out.write(f(*a, *b));
                }
            },
        );
    });
    // SAFETY: the parts cover it.
    unsafe { out.written() }
}
