//! `y = x + α·f`. Backward: `dx = g`, in the same memory; `df = α·g`; `dα = Σ g·f`.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::memory::{Fresh, Shared, contiguous, scalar, tensor, values};
use super::parallel::{Parts, each, sums, wide};
use crate::op::Kernel;

/// Elements of a task. Its three arrays fit the second-level cache, and starting it takes a small
/// part of its time.
pub(super) const CHUNK: usize = 1 << 15;

#[derive(Debug)]
pub(crate) struct GatedSum;

impl Kernel<Flex> for GatedSum {
    /// `f` and α.
    type State = (FlexTensor, f32);
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Self::State, ()) {
        let [x, f, alpha] = inputs else {
            unreachable!("three inputs")
        };
        let (x, f, alpha) = (contiguous(x), contiguous(f), scalar(alpha));
        let (xs, fs) = (values(&x), values(&f));
        let mut out = Fresh::new(xs.len());
        let shared = out.shared();
        let parts = Parts::new(xs.len(), CHUNK);
        each(parts.count(), |i| {
            let (from, len) = parts.get(i);
            // SAFETY: the parts are disjoint.
            let out = unsafe { shared.fresh_part(from, len) };
            let (x, f) = (&xs[from..from + len], &fs[from..from + len]);
            wide(
                #[inline(always)]
                || {
                    for ((out, x), f) in out.iter_mut().zip(x).zip(f) {
                        out.write(x + alpha * f);
                    }
                },
            );
        });
        // SAFETY: the parts cover it.
        let out = unsafe { out.written() };
        (tensor(out, x.shape()), (f, alpha), ())
    }

    fn backward(
        self,
        (f, alpha): Self::State,
        grad: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let grad = contiguous(&grad);
        let g = values(&grad);
        let parts = Parts::new(g.len(), CHUNK);
        let mut d_alpha = vec![0.0; parts.count()];
        let mut d_f = Fresh::new(if wanted[1] { g.len() } else { 0 });
        let (totals, d_fs, fs) = (Shared::new(&mut d_alpha), d_f.shared(), values(&f));
        each(parts.count(), |i| {
            let (from, len) = parts.get(i);
            let (g, f) = (&g[from..from + len], &fs[from..from + len]);
            // SAFETY: one sum a part, and the parts are disjoint.
            wide(
                #[inline(always)]
                || unsafe {
                    if wanted[2] {
                        totals.part(i, 1)[0] = sums(
                            g,
                            f,
                            #[inline(always)]
                            |g, f| [g * f],
                        )[0];
                    }
                    if wanted[1] {
                        for (d_f, g) in d_fs.fresh_part(from, len).iter_mut().zip(g) {
                            d_f.write(alpha * g);
                        }
                    }
                },
            );
        });
        let d_alpha = d_alpha.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
        let shape = grad.shape();
        vec![
            Some(grad),
            // SAFETY: the parts cover it.
            wanted[1].then(|| tensor(unsafe { d_f.written() }, shape)),
            wanted[2].then(|| tensor(vec![d_alpha], [1])),
        ]
    }
}
