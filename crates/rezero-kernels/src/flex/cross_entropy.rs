//! `loss = m − logits[target] + log s`, `m` the largest logit and `s = Σ exp(logits − m)`.
//! Backward: `dlogits = g·(exp(logits − m)/s − [j = target])`, computed again from the logits. No
//! other tensor of their size is stored.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use super::math::exp;
use super::memory::{Fresh, contiguous, dims, tensor, values};
use super::parallel::{Parts, each, sum, wide};
use crate::op::Kernel;

/// Values of a task.
const CHUNK: usize = 1 << 14;

#[derive(Debug)]
pub(crate) struct CrossEntropy {
    pub targets: Vec<i64>,
}

impl Kernel<Flex> for CrossEntropy {
    /// The logits; for each row its largest logit m and `1 / Σ exp(logits − m)`. The single number
    /// `log Σ exp(logits)` would be rounded to the last digit of m.
    type State = (FlexTensor, Vec<[f32; 2]>);
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Self::State, ()) {
        let logits = contiguous(&inputs[0]);
        let [rows, classes] = dims(&logits);
        for target in &self.targets {
            assert!(
                usize::try_from(*target).is_ok_and(|target| target < classes),
                "a target must be from 0 to {}, got {target}.",
                classes - 1
            );
        }
        let (mut losses, mut kept) = (Fresh::new(rows), Fresh::new(2 * rows));
        let (all_losses, all_kept) = (losses.shared(), kept.shared());
        let x = values(&logits);
        let parts = Parts::new(rows, CHUNK.div_ceil(classes));
        each(parts.count(), |part| {
            let (from, len) = parts.get(part);
            // SAFETY: the parts are disjoint.
            let (losses, kept) = unsafe {
                (
                    all_losses.fresh_part(from, len),
                    all_kept.fresh_part(2 * from, 2 * len),
                )
            };
            for i in 0..len {
                let row = &x[(from + i) * classes..(from + i + 1) * classes];
                let (max, total) = wide(
                    #[inline(always)]
                    || spread(row),
                );
                losses[i].write((max - row[self.targets[from + i] as usize]) + total.ln());
                kept[2 * i..2 * i + 2].write_copy_of_slice(&[max, 1.0 / total]);
            }
        });
        // SAFETY: the parts cover both.
        let (losses, kept) = unsafe { (losses.written(), kept.written()) };
        let (kept, _) = kept.as_chunks();
        (tensor(losses, [rows]), (logits, kept.to_vec()), ())
    }

    fn backward(
        self,
        (logits, kept): Self::State,
        grad: FlexTensor,
        _wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let grad = contiguous(&grad);
        let [rows, classes] = dims(&logits);
        let (x, g) = (values(&logits), values(&grad));
        let mut out = Fresh::new(x.len());
        let shared = out.shared();
        let parts = Parts::new(rows, CHUNK.div_ceil(classes));
        each(parts.count(), |part| {
            let (from, len) = parts.get(part);
            for row in from..from + len {
                // SAFETY: each row is one task's.
                let out = unsafe { shared.fresh_part(row * classes, classes) };
                let x = &x[row * classes..(row + 1) * classes];
                let (g, [max, inverse]) = (g[row], kept[row]);
                let factor = g * inverse;
                wide(
                    #[inline(always)]
                    || {
                        for (out, x) in out.iter_mut().zip(x) {
                            out.write(factor * exp(x - max));
                        }
                    },
                );
                // SAFETY: the loop has written the row.
                *unsafe { out[self.targets[row] as usize].assume_init_mut() } -= g;
            }
        });
        // SAFETY: the rows cover it.
        let out = unsafe { out.written() };
        vec![Some(tensor(out, [rows, classes]))]
    }
}

/// The largest value of `row`, and `Σ exp(x − largest)`.
#[inline(always)]
fn spread(row: &[f32]) -> (f32, f32) {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in row.chunks(16) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    let max = lanes.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
    let total = sum(
        row,
        #[inline(always)]
        |x| exp(x - max),
    );
    (max, total)
}
