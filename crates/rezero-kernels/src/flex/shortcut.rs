//! Every s-th pixel, between channels of zeros. Backward: the gradient's pixels at their places, zeros elsewhere.

use core::mem::MaybeUninit;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use super::memory::{Fresh, contiguous, elements, tensor, values};
use super::parallel::{each, wide};
use crate::op::Kernel;

#[derive(Debug)]
pub(crate) struct Subsample {
    from: [usize; 4],
    to: [usize; 4],
    stride: usize,
    before: usize,
}

impl Subsample {
    pub fn new(from: [usize; 4], stride: usize, [before, after]: [usize; 2]) -> Self {
        let [batch, channels, h, w] = from;
        let channels = before
            .checked_add(channels)
            .and_then(|n| n.checked_add(after));
        let to = [
            batch,
            channels.expect("a kernel's output must fit into memory"),
            h.div_ceil(stride),
            w.div_ceil(stride),
        ];
        elements(&to);
        Self {
            from,
            to,
            stride,
            before,
        }
    }
}

impl Kernel<Flex> for Subsample {
    type State = ();
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, (), ()) {
        let x = contiguous(&inputs[0]);
        let x = values(&x);
        let [batch, channels, h, w] = self.from;
        let [_, all, rows, cols] = self.to;
        let mut out = Fresh::new(elements(&self.to));
        let shared = out.shared();
        each(batch, |n| {
            let image = all * rows * cols;
            // SAFETY: one task an image.
            let to = unsafe { shared.fresh_part(n * image, image) };
            let (zeros, to) = to.split_at_mut(self.before * rows * cols);
            let (to, more_zeros) = to.split_at_mut(channels * rows * cols);
            clear(zeros);
            clear(more_zeros);
            for (c, to) in to.chunks_exact_mut(rows * cols).enumerate() {
                let from = &x[(n * channels + c) * h * w..][..h * w];
                let lines = from.chunks_exact(w).step_by(self.stride);
                for (to, from) in to.chunks_exact_mut(cols).zip(lines) {
                    wide(
                        #[inline(always)]
                        || match self.stride {
                            // The usual case, with a constant, so that the loop has vectors.
                            2 => {
                                for (to, x) in to.iter_mut().zip(from.iter().step_by(2)) {
                                    to.write(*x);
                                }
                            }
                            stride => {
                                for (to, x) in to.iter_mut().zip(from.iter().step_by(stride)) {
                                    to.write(*x);
                                }
                            }
                        },
                    );
                }
            }
        });
        // SAFETY: each task has written its image.
        (tensor(unsafe { out.written() }, self.to), (), ())
    }

    fn backward(self, (): (), grad: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = contiguous(&grad);
        let g = values(&grad);
        let [batch, channels, h, w] = self.from;
        let [_, all, rows, cols] = self.to;
        let mut d_x = Fresh::new(elements(&self.from));
        let shared = d_x.shared();
        each(batch, |n| {
            let image = channels * h * w;
            // SAFETY: one task an image.
            let to = unsafe { shared.fresh_part(n * image, image) };
            for (c, to) in to.chunks_exact_mut(h * w).enumerate() {
                let from = &g[(n * all + self.before + c) * rows * cols..][..rows * cols];
                for (y, to) in to.chunks_exact_mut(w).enumerate() {
                    clear(to);
                    if y % self.stride == 0 {
                        let from = &from[y / self.stride * cols..][..cols];
                        for (to, g) in to.iter_mut().step_by(self.stride).zip(from) {
                            to.write(*g);
                        }
                    }
                }
            }
        });
        // SAFETY: each task has written its image.
        vec![Some(tensor(unsafe { d_x.written() }, self.from))]
    }
}

fn clear(to: &mut [MaybeUninit<f32>]) {
    to.fill(MaybeUninit::new(0.0));
}
