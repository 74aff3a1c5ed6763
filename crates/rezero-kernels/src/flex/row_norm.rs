//! `y = γ · x̂ + β`, `x̂ = (x − μ) · r`, `r = 1 / √(σ² + ε)` for each row; an RMS norm has μ = 0 and no β.
//!
//! Forward: a row is read for its mean, for its squared deviations from the mean, and for the output, each time from
//! the first-level cache.
//!
//! Backward, with `h = g · γ`: `dx = r · (h − mean(h) − x̂ · mean(h · x̂))`, without `mean(h)` in an RMS norm;
//! `dγ = Σ g · x̂` and `dβ = Σ g` over the rows, each task into sums of its own.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::memory::{Fresh, Shared, contiguous, elements, tensor, values};
use super::parallel::{Parts, each, sum, sums, wide};
use crate::op::Kernel;

/// Values of a task.
const CHUNK: usize = 1 << 14;

/// Inputs: x, γ, and for a layer norm β.
#[derive(Debug)]
pub(crate) struct RowNorm {
    /// Whether the mean is subtracted.
    pub centred: bool,
    pub epsilon: f32,
}

/// x, γ, and for each row μ and r.
type Kept = (FlexTensor, FlexTensor, Vec<[f32; 2]>);

impl RowNorm {
    #[inline(always)]
    fn statistics(&self, row: &[f32]) -> [f32; 2] {
        let n = row.len() as f32;
        let mean = match self.centred {
            true => {
                // The second sum corrects the rounding of the first where the mean is large.
                let near = sum(
                    row,
                    #[inline(always)]
                    |x| x,
                ) / n;
                near + sum(
                    row,
                    #[inline(always)]
                    |x| x - near,
                ) / n
            }
            false => 0.0,
        };
        let squares = sum(
            row,
            #[inline(always)]
            |x| (x - mean) * (x - mean),
        );
        [mean, 1.0 / (squares / n + self.epsilon).sqrt()]
    }
}

impl Kernel<Flex> for RowNorm {
    type State = Kept;
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Kept, ()) {
        let (x, gamma) = (contiguous(&inputs[0]), contiguous(&inputs[1]));
        let beta = inputs.get(2).map(contiguous);
        let (xs, gammas) = (values(&x), values(&gamma));
        let zeros = vec![0.0; if beta.is_none() { gammas.len() } else { 0 }];
        let betas = beta.as_ref().map_or(&zeros[..], values);
        let channels = gammas.len();
        let rows = xs.len() / channels;
        let (mut out, mut kept) = (Fresh::new(xs.len()), Fresh::new(elements(&[2, rows])));
        let (outs, all_kept) = (out.shared(), kept.shared());
        let parts = Parts::new(rows, CHUNK.div_ceil(channels));
        each(parts.count(), |part| {
            let (from, len) = parts.get(part);
            // SAFETY: the parts are disjoint.
            let (out, kept) = unsafe {
                (
                    outs.fresh_part(from * channels, len * channels),
                    all_kept.fresh_part(2 * from, 2 * len),
                )
            };
            let x = &xs[from * channels..(from + len) * channels];
            wide(
                #[inline(always)]
                || {
                    let lines = x.chunks_exact(channels).zip(out.chunks_exact_mut(channels));
                    for ((x, out), kept) in lines.zip(kept.chunks_exact_mut(2)) {
                        let [mean, inverse] = self.statistics(x);
                        kept.write_copy_of_slice(&[mean, inverse]);
                        for (((out, x), gamma), beta) in
                            out.iter_mut().zip(x).zip(gammas).zip(betas)
                        {
                            out.write((x - mean) * inverse * gamma + beta);
                        }
                    }
                },
            );
        });
        // SAFETY: the parts cover both.
        let (out, kept) = unsafe { (out.written(), kept.written()) };
        let (kept, _) = kept.as_chunks();
        (tensor(out, x.shape()), (x, gamma, kept.to_vec()), ())
    }

    fn backward(
        self,
        (x, gamma, kept): Kept,
        grad: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let grad = contiguous(&grad);
        let (xs, gammas, gs) = (values(&x), values(&gamma), values(&grad));
        let channels = gammas.len();
        let n = channels as f32;
        let rows = xs.len() / channels;
        let parts = Parts::new(rows, CHUNK.div_ceil(channels));
        let mut d_x = Fresh::new(if wanted[0] { xs.len() } else { 0 });
        // dγ, then dβ, of each task.
        let mut d_channels = vec![0.0; elements(&[parts.count(), 2, channels])];
        let (d_xs, all) = (d_x.shared(), Shared::new(&mut d_channels));
        each(parts.count(), |part| {
            let (from, len) = parts.get(part);
            // SAFETY: each task has sums of its own, and the parts are disjoint.
            let (d_gamma, d_beta) =
                unsafe { all.part(part * 2 * channels, 2 * channels) }.split_at_mut(channels);
            wide(
                #[inline(always)]
                || {
                    for (row, [mean, inverse]) in (from..).zip(&kept[from..from + len]) {
                        let at = row * channels..(row + 1) * channels;
                        let (x, g) = (&xs[at.clone()], &gs[at]);
                        let line = x
                            .iter()
                            .zip(g)
                            .zip(d_gamma.iter_mut())
                            .zip(d_beta.iter_mut());
                        for (((x, g), d_gamma), d_beta) in line {
                            *d_gamma += g * ((x - mean) * inverse);
                            *d_beta += g;
                        }
                        if !wanted[0] {
                            continue;
                        }
                        // SAFETY: each row is one task's.
                        let out = unsafe { d_xs.fresh_part(row * channels, channels) };
                        // h first, in the place of dx.
                        for ((out, g), gamma) in out.iter_mut().zip(g).zip(gammas) {
                            out.write(g * gamma);
                        }
                        // SAFETY: the loop has written the row.
                        let h = unsafe { out.assume_init_mut() };
                        let [of_h, of_product] = sums(
                            h,
                            x,
                            #[inline(always)]
                            |h, x| [h, h * ((x - mean) * inverse)],
                        );
                        let of_h = if self.centred { of_h / n } else { 0.0 };
                        let of_product = of_product / n;
                        for (h, x) in h.iter_mut().zip(x) {
                            *h = inverse * (*h - of_h - (x - mean) * inverse * of_product);
                        }
                    }
                },
            );
        });
        let mut totals = vec![0f64; 2 * channels];
        for task in d_channels.chunks_exact(2 * channels) {
            for (total, value) in totals.iter_mut().zip(task) {
                *total += f64::from(*value);
            }
        }
        let totals: Vec<f32> = totals.iter().map(|total| *total as f32).collect();
        let mut gradients = vec![
            // SAFETY: the rows cover it.
            wanted[0].then(|| tensor(unsafe { d_x.written() }, grad.shape())),
            wanted[1].then(|| tensor(totals[..channels].to_vec(), [channels])),
        ];
        if let Some(wanted) = wanted.get(2) {
            gradients.push(wanted.then(|| tensor(totals[channels..].to_vec(), [channels])));
        }
        gradients
    }
}
