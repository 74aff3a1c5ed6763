//! `loss = l − logits[target]`, `l = log Σ exp(logits)`. Backward: `dlogits = g·(exp(logits − l) − [j =
//! target])`, computed again from the logits: nothing of their size is kept.

use burn::backend::flex::FlexTensor;

use super::math::exp;
use super::memory::{Shared, contiguous, dims, fresh, tensor, values};
use super::op::Kernel;
use super::parallel::{Parts, each, sum, wide};

/// Values of a task.
const CHUNK: usize = 1 << 14;

#[derive(Debug)]
pub(crate) struct CrossEntropy {
    pub targets: Vec<i64>,
}

impl Kernel for CrossEntropy {
    /// The logits, and `log Σ exp` of each row.
    type State = (FlexTensor, Vec<f32>);
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
        let (mut losses, mut log_sums) = (fresh(rows), fresh(rows));
        let (all_losses, all_sums) = (Shared::new(&mut losses), Shared::new(&mut log_sums));
        let x = values(&logits);
        let parts = Parts::new(rows, CHUNK.div_ceil(classes));
        each(parts.count(), |part| {
            let (from, len) = parts.get(part);
            // SAFETY: the parts are disjoint.
            let (losses, log_sums) =
                unsafe { (all_losses.part(from, len), all_sums.part(from, len)) };
            for i in 0..len {
                let row = &x[(from + i) * classes..(from + i + 1) * classes];
                log_sums[i] = wide(
                    #[inline(always)]
                    || log_sum(row),
                );
                losses[i] = log_sums[i] - row[self.targets[from + i] as usize];
            }
        });
        (tensor(losses, [rows]), (logits, log_sums), ())
    }

    fn backward(
        self,
        (logits, log_sums): Self::State,
        grad: FlexTensor,
        _wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let grad = contiguous(&grad);
        let [rows, classes] = dims(&logits);
        let (x, g) = (values(&logits), values(&grad));
        let mut out = fresh(x.len());
        let shared = Shared::new(&mut out);
        let parts = Parts::new(rows, CHUNK.div_ceil(classes));
        each(parts.count(), |part| {
            let (from, len) = parts.get(part);
            for row in from..from + len {
                // SAFETY: each row is one task's.
                let out = unsafe { shared.part(row * classes, classes) };
                let x = &x[row * classes..(row + 1) * classes];
                let (g, log_sum) = (g[row], log_sums[row]);
                wide(
                    #[inline(always)]
                    || {
                        for (out, x) in out.iter_mut().zip(x) {
                            *out = g * exp(x - log_sum);
                        }
                    },
                );
                out[self.targets[row] as usize] -= g;
            }
        });
        vec![Some(tensor(out, [rows, classes]))]
    }
}

#[inline(always)]
fn log_sum(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in row.chunks(16) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    let max = lanes.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
    max + sum(
        row,
        #[inline(always)]
        |x| exp(x - max),
    )
    .ln()
}
