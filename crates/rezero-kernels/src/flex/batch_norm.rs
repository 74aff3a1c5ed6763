//! `z = (x − μ)·s + β`, `s = γ / √(σ² + ε)`; `y = act(z)`, or with a residual sum
//! `y = skip + α·act(z)`.
//!
//! Forward: one pass for the statistics, one for the output. A plane (one channel of one image) is
//! summed twice while it is in the first-level cache: for its mean, and for the squared deviations
//! from the mean. The planes are combined in f64 (Chan, Golub and LeVeque 1979), so nothing
//! cancels, however far the mean lies from zero.
//!
//! Backward, with `gz` the gradient at z and M values per channel: `dβ = Σ gz`, `dγ = Σ gz·x̂`,
//! `dx = s · (gz − dβ/M − x̂·dγ/M)`: one pass for the sums, one for dx. Both compute z again from
//! x, so the epilogue's output is not stored.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Tensor;

use super::math::{lifted, passed};
use super::memory::{Fresh, contiguous, elements, scalar, tensor, values};
use super::parallel::{Parts, each, enough, sum, sums, wide};
use crate::activation::Epilogue;
use crate::group::Group;
use crate::op::{Kernel, Values};

/// Inputs: x, γ, β, and for a residual sum skip, α.
#[derive(Debug)]
pub(crate) struct BatchNorm {
    pub epsilon: f32,
    pub epilogue: Epilogue,
    /// Whose batches count beside this one.
    pub group: Option<Group>,
}

#[derive(Clone, Debug)]
pub(crate) struct Kept {
    x: FlexTensor,
    channels: Vec<Channel>,
    /// The number of values of a channel, of the whole group.
    count: f64,
    alpha: Option<f32>,
}

/// The numbers that normalise a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel {
    mean: f32,
    /// `1 / √(σ² + ε)`.
    inverse: f32,
    /// `γ / √(σ² + ε)`.
    scale: f32,
    beta: f32,
}

impl Channel {
    #[inline(always)]
    fn z(self, x: f32) -> f32 {
        (x - self.mean) * self.scale + self.beta
    }

    /// The gradient `g` where the epilogue passes it on, else 0.
    #[inline(always)]
    fn passed(self, x: f32, g: f32, floor: f32) -> f32 {
        passed(g, self.z(x), floor)
    }
}

/// A batch as planes.
#[derive(Clone, Copy)]
struct Planes {
    batch: usize,
    channels: usize,
    size: usize,
}

impl Planes {
    fn of(x: &FlexTensor) -> Self {
        let shape = x.shape();
        let (batch, channels) = (shape[0], shape[1]);
        Self {
            batch,
            channels,
            size: shape.num_elements() / (batch * channels),
        }
    }

    fn at(self, n: usize, c: usize) -> core::ops::Range<usize> {
        let from = (n * self.channels + c) * self.size;
        from..from + self.size
    }

    /// Runs `f(n, c)` for every plane, in a task for each image. A small batch is cut by channels, too.
    fn each(self, f: impl Fn(usize, usize) + Sync + Send) {
        let shares = enough().div_ceil(self.batch).min(self.channels);
        let channels = Parts::new(self.channels, self.channels.div_ceil(shares));
        each(self.batch * channels.count(), |task| {
            let (from, len) = channels.get(task % channels.count());
            for c in from..from + len {
                f(task / channels.count(), c);
            }
        });
    }

    /// Runs `f(range, c)` for every plane; it returns `K` sums of the plane. Gives the sums of all
    /// planes, and their totals for each channel.
    fn sums<const K: usize>(
        self,
        f: impl Fn(core::ops::Range<usize>, usize) -> [f32; K] + Sync + Send,
    ) -> (Vec<f32>, Vec<[f64; K]>) {
        let mut all = Fresh::new(elements(&[self.batch, self.channels, K]));
        let shared = all.shared();
        self.each(|n, c| {
            // SAFETY: each plane has sums of its own.
            let sums = unsafe { shared.fresh_part((n * self.channels + c) * K, K) };
            sums.write_copy_of_slice(&f(self.at(n, c), c));
        });
        // SAFETY: the planes cover it.
        let all = unsafe { all.written() };
        let mut total = vec![[0.0; K]; self.channels];
        for image in all.chunks_exact(self.channels * K) {
            for (total, sums) in total.iter_mut().zip(image.chunks_exact(K)) {
                for (total, sum) in total.iter_mut().zip(sums) {
                    *total += f64::from(*sum);
                }
            }
        }
        (all, total)
    }
}

impl Kernel<Flex> for BatchNorm {
    type State = Kept;
    /// Mean and variance.
    type Aux = [Vec<f32>; 2];

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Kept, Self::Aux) {
        let (x, gamma, beta) = (
            contiguous(&inputs[0]),
            contiguous(&inputs[1]),
            contiguous(&inputs[2]),
        );
        let skip = inputs.get(3).map(contiguous);
        let alpha = inputs.get(4).map(scalar);
        let planes = Planes::of(&x);
        let xs = values(&x);
        let mut all = Moments::of(xs, planes);
        if let Some(group) = &self.group {
            all = all.of_all(group);
        }
        let (mean, variance) = all.rounded();
        let channels = channels(
            values(&gamma),
            values(&beta),
            &mean,
            &variance,
            self.epsilon,
        );
        let sum = match (&skip, alpha) {
            (Some(skip), Some(alpha)) => Some((values(skip), alpha)),
            _ => None,
        };
        let out = apply(xs, planes, &channels, self.floor(), sum);
        let out = tensor(out, x.shape());
        let kept = Kept {
            x,
            channels,
            count: all.count,
            alpha,
        };
        (out, kept, [mean, variance])
    }

    fn backward(
        self,
        Kept {
            x,
            channels,
            count,
            alpha,
        }: Kept,
        grad: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let planes = Planes::of(&x);
        let xs = values(&x);
        let grad = contiguous(&grad);
        let g = values(&grad);
        let floor = self.floor();
        let factor = alpha.unwrap_or(1.0);
        // Σ g and Σ g·(x − μ) where the epilogue passes g on, and Σ g·act(z) for α.
        let (_, totals) = planes.sums(|at, c| {
            let (x, g, channel) = (&xs[at.clone()], &g[at.clone()], channels[c]);
            wide(
                #[inline(always)]
                || {
                    sums(
                        x,
                        g,
                        #[inline(always)]
                        |x, g| {
                            let passed = channel.passed(x, g, floor);
                            // Without α the third sum is not used, but costs no time: the pass
                            // waits for memory.
                            let act = lifted(channel.z(x), floor);
                            [passed, passed * (x - channel.mean), g * act]
                        },
                    )
                },
            )
        });
        let all = self.group.as_ref();
        let all = all.map(|group| sums_of_all(group, &totals));
        let whole = all.as_ref().unwrap_or(&totals);
        let d_x = wanted[0].then(|| {
            let mut d_x = Fresh::new(xs.len());
            let shared = d_x.shared();
            planes.each(|n, c| {
                let channel = channels[c];
                let at = planes.at(n, c);
                // SAFETY: the planes are disjoint.
                let d_x = unsafe { shared.fresh_part(at.start, at.len()) };
                let (x, g) = (&xs[at.clone()], &g[at]);
                let [total, product, _] = whole[c];
                let mean = (total / count) as f32;
                let slope = (product / count) as f32 * channel.inverse * channel.inverse;
                let scale = channel.scale * factor;
                wide(
                    #[inline(always)]
                    || {
                        for ((d_x, x), g) in d_x.iter_mut().zip(x).zip(g) {
                            let g = channel.passed(*x, *g, floor);
                            d_x.write(scale * (g - mean - (x - channel.mean) * slope));
                        }
                    },
                );
            });
            // SAFETY: the planes cover it.
            tensor(unsafe { d_x.written() }, x.shape())
        });
        let of_channels = |f: &dyn Fn(usize) -> f64| {
            let values = (0..planes.channels).map(|c| f(c) as f32).collect();
            Some(tensor(values, [planes.channels]))
        };
        let factor = f64::from(factor);
        let mut found = vec![
            d_x,
            of_channels(&|c| factor * totals[c][1] * f64::from(channels[c].inverse)),
            of_channels(&|c| factor * totals[c][0]),
        ];
        if alpha.is_some() {
            let d_alpha: f64 = totals.iter().map(|totals| totals[2]).sum();
            found.push(Some(grad));
            found.push(Some(tensor(vec![d_alpha as f32], [1])));
        }
        found
    }
}

/// The output with given statistics; `None` for tensors that the kernel does not serve.
pub(crate) fn normalize<const D: usize>(
    x: &Tensor<D>,
    per_channel: [&Tensor<1>; 4],
    epsilon: f32,
    epilogue: Epilogue,
    sum: Option<&(Tensor<D>, Tensor<1>)>,
) -> Option<Tensor<D>> {
    let plain = |inputs: Option<Values<Flex, 1>>| match inputs {
        Some(Values::Plain([tensor])) => Some(contiguous(&tensor)),
        _ => None,
    };
    let one = |tensor: &Tensor<1>| plain(crate::flex::values([tensor.clone().into_dispatch()]));
    let all = |tensor: &Tensor<D>| plain(crate::flex::values([tensor.clone().into_dispatch()]));
    let x = all(x)?;
    let [gamma, beta, mean, variance] = per_channel;
    let per_channel = [one(gamma)?, one(beta)?, one(mean)?, one(variance)?];
    let [gamma, beta, mean, variance] = per_channel.each_ref().map(values);
    let sum = match sum {
        Some((skip, alpha)) => Some((all(skip)?, scalar(&one(alpha)?))),
        None => None,
    };
    let channels = channels(gamma, beta, mean, variance, epsilon);
    let norm = BatchNorm {
        epsilon,
        epilogue,
        group: None,
    };
    let sum = sum.as_ref().map(|(skip, alpha)| (values(skip), *alpha));
    let out = apply(values(&x), Planes::of(&x), &channels, norm.floor(), sum);
    Some(Tensor::from_primitive::<Flex>(tensor(out, x.shape())))
}

fn channels(
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
) -> Vec<Channel> {
    (0..gamma.len())
        .map(|c| {
            let inverse = 1.0 / (variance[c] + epsilon).sqrt();
            Channel {
                mean: mean[c],
                inverse,
                scale: gamma[c] * inverse,
                beta: beta[c],
            }
        })
        .collect()
}

/// `act(z)`, or `skip + α·act(z)`.
fn apply(
    xs: &[f32],
    planes: Planes,
    channels: &[Channel],
    floor: f32,
    sum: Option<(&[f32], f32)>,
) -> Vec<f32> {
    let mut out = Fresh::new(xs.len());
    let shared = out.shared();
    planes.each(|n, c| {
        let channel = channels[c];
        let at = planes.at(n, c);
        // SAFETY: the planes are disjoint.
        let out = unsafe { shared.fresh_part(at.start, at.len()) };
        let x = &xs[at.clone()];
        wide(
            #[inline(always)]
            || match sum {
                Some((skips, alpha)) => {
                    for ((out, x), skip) in out.iter_mut().zip(x).zip(&skips[at]) {
                        out.write(skip + alpha * lifted(channel.z(*x), floor));
                    }
                }
                None => {
                    for (out, x) in out.iter_mut().zip(x) {
                        out.write(lifted(channel.z(*x), floor));
                    }
                }
            },
        );
    });
    // SAFETY: the planes cover it.
    unsafe { out.written() }
}

impl BatchNorm {
    /// The epilogue's lower bound: see [`lifted`].
    fn floor(&self) -> f32 {
        match self.epilogue {
            Epilogue::Identity => f32::NEG_INFINITY,
            Epilogue::Relu => 0.0,
            other => unreachable!("{other:?} is an operation of its own"),
        }
    }
}

/// The sums of each channel over the batches of a group.
fn sums_of_all(group: &Group, own: &[[f64; 3]]) -> Vec<[f64; 3]> {
    let mut all = vec![[0.0; 3]; own.len()];
    for list in group.lists(own.as_flattened().to_vec()) {
        for (all, sums) in all.iter_mut().zip(list.chunks_exact(3)) {
            for (all, sum) in all.iter_mut().zip(sums) {
                *all += sum;
            }
        }
    }
    all
}

/// The moments of each channel.
struct Moments {
    /// The number of values of a channel.
    count: f64,
    mean: Vec<f64>,
    /// The sum of squared deviations from the mean.
    squares: Vec<f64>,
}

impl Moments {
    fn of(x: &[f32], planes: Planes) -> Self {
        let size = planes.size as f32;
        let (of_planes, _) = planes.sums(|at, _| {
            let x = &x[at];
            wide(
                #[inline(always)]
                || {
                    let total = sum(
                        x,
                        #[inline(always)]
                        |x| x,
                    );
                    // The rounded mean. Any centre near it will do: `rest` corrects the difference.
                    let centre = total / size;
                    let [squares, rest] = sums(
                        x,
                        x,
                        #[inline(always)]
                        |x, _| [(x - centre) * (x - centre), x - centre],
                    );
                    [centre, squares, rest]
                },
            )
        });
        let n = f64::from(size);
        let count = n * planes.batch as f64;
        let mut means = vec![0.0; planes.channels];
        let images = || of_planes.chunks_exact(planes.channels * 3);
        // A plane's mean, and the sum of squared deviations from it.
        let exact = |sums: &[f32]| {
            let [centre, squares, rest] = [0, 1, 2].map(|i| f64::from(sums[i]));
            (centre + rest / n, squares - rest * rest / n)
        };
        for image in images() {
            for (mean, sums) in means.iter_mut().zip(image.chunks_exact(3)) {
                *mean += exact(sums).0 * (n / count);
            }
        }
        // The squared deviations from a channel's mean: those from the planes' means, plus those of the
        // planes' means.
        let mut squares = vec![0.0; planes.channels];
        for image in images() {
            for (c, sums) in image.chunks_exact(3).enumerate() {
                let (mean, around) = exact(sums);
                squares[c] += around + n * (mean - means[c]).powi(2);
            }
        }
        Self {
            count,
            mean: means,
            squares,
        }
    }

    /// Those of the batches of a group (Chan, Golub and LeVeque 1979).
    fn of_all(self, group: &Group) -> Self {
        let channels = self.mean.len();
        let mut own = vec![self.count];
        own.extend(self.mean);
        own.extend(self.squares);
        let lists = group.lists(own);
        let parts = || {
            lists.iter().map(|list| {
                let (mean, squares) = list[1..].split_at(channels);
                (list[0], mean, squares)
            })
        };
        let count: f64 = parts().map(|(n, ..)| n).sum();
        let of_channels = |f: &dyn Fn(usize) -> f64| (0..channels).map(f).collect::<Vec<f64>>();
        let means = of_channels(&|c| parts().map(|(n, mean, _)| mean[c] * (n / count)).sum());
        let squares = of_channels(&|c| {
            let around = |(n, mean, squares): (f64, &[f64], &[f64])| {
                squares[c] + n * (mean[c] - means[c]).powi(2)
            };
            parts().map(around).sum()
        });
        Self {
            count,
            mean: means,
            squares,
        }
    }

    /// Mean and variance.
    fn rounded(&self) -> (Vec<f32>, Vec<f32>) {
        let variance = self.squares.iter().map(|x| (x / self.count) as f32);
        (
            self.mean.iter().map(|x| *x as f32).collect(),
            variance.collect(),
        )
    }
}
