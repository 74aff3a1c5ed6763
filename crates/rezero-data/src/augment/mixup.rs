use std::ops::Range;

use super::canvas::Canvas;
use super::{Augmentation, Step};
use crate::rng::{Purpose, Rng};
use crate::{DataError, Result};

/// Mixes each image of a batch with another: Zhang et al. 2017,
/// [arXiv 1710.09412](https://arxiv.org/abs/1710.09412).
///
/// Row `i` becomes `λ xᵢ + (1 − λ) xⱼ`, where `xᵢ` and `xⱼ` are the finished, normalised images of
/// rows `i` and `j`, and its loss is `λ CE(yᵢ) + (1 − λ) CE(yⱼ)`, see
/// [`ImageBatch::soft`](crate::ImageBatch::soft). λ ~ Beta(α, α) and `j`, uniformly random among
/// all rows of the batch, are chosen for each row, as functions of (seed, epoch, record of row `i`).
/// The authors' code has one λ for a batch and a permutation of its rows.
///
/// It is the last of a list.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mixup {
    /// The parameter α of the Beta distribution, above 0 and at most 100. A small α mixes little; 1
    /// makes every λ equally likely. The authors use 1 for CIFAR-10 and 0.2 for ImageNet.
    pub alpha: f64,
}

impl Default for Mixup {
    fn default() -> Self {
        Self { alpha: 1.0 }
    }
}

impl From<Mixup> for Augmentation {
    fn from(mixup: Mixup) -> Self {
        Self::Mixup(mixup)
    }
}

impl Step for Mixup {
    fn check(&self) -> Result<()> {
        DataError::require(
            self.alpha > 0.0 && self.alpha <= 100.0,
            "mixup alpha",
            "above 0 and at most 100",
            &self.alpha,
        )
    }

    /// Nothing: it needs the whole batch.
    fn apply(&self, _rng: &mut Rng, _canvas: &mut Canvas<'_>) {}

    fn mixes(&self) -> Option<&Mixup> {
        Some(self)
    }
}

/// The other row of a mixed row, and the share λ of the row itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) other: usize,
    pub(crate) share: f32,
}

impl Mixup {
    /// The pair of each row of a batch of these records.
    pub(crate) fn pairs(&self, seed: u64, epoch: u64, records: &[u32]) -> Vec<Pair> {
        let pair = |&record: &u32| {
            let mut rng = Rng::stream(Purpose::Mixup, &[seed, epoch, u64::from(record)]);
            Pair {
                other: rng.below(records.len()),
                share: beta(&mut rng, self.alpha) as f32,
            }
        };
        records.iter().map(pair).collect()
    }
}

/// The rows of `images`, of `len` numbers each, mixed.
pub(crate) fn mixed(images: &[f32], len: usize, pairs: &[Pair]) -> Vec<f32> {
    let row = |i: usize| -> Range<usize> { i * len..(i + 1) * len };
    let mut out = Vec::with_capacity(images.len());
    for (i, pair) in pairs.iter().enumerate() {
        let (own, other) = (&images[row(i)], &images[row(pair.other)]);
        let (share, rest) = (pair.share, 1.0 - pair.share);
        out.extend(own.iter().zip(other).map(|(a, b)| share * a + rest * b));
    }
    out
}

/// A number of the distribution Beta(a, a): `g / (g + h)` with `g`, `h` ~ Gamma(a), by their
/// logarithms, since a small `a` makes both too small for a number.
fn beta(rng: &mut Rng, a: f64) -> f64 {
    let (g, h) = (log_gamma(rng, a), log_gamma(rng, a));
    1.0 / (1.0 + (h - g).exp())
}

/// The logarithm of a number of the distribution Gamma(a): Marsaglia and Tsang 2000, "A simple
/// method for generating gamma variables". If `g` ~ Gamma(a + 1) and `u` is uniform, then
/// `g u^(1/a)` ~ Gamma(a).
fn log_gamma(rng: &mut Rng, a: f64) -> f64 {
    let d = a + 1.0 - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && open_unit(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln() + open_unit(rng).ln() / a;
        }
    }
}

/// A number of the normal distribution, by Marsaglia's polar method.
fn normal(rng: &mut Rng) -> f64 {
    loop {
        let (x, y) = (2.0 * open_unit(rng) - 1.0, 2.0 * open_unit(rng) - 1.0);
        let square = x * x + y * y;
        if square < 1.0 && square > 0.0 {
            return x * (-2.0 * square.ln() / square).sqrt();
        }
    }
}

/// Uniform in (0, 1).
fn open_unit(rng: &mut Rng) -> f64 {
    ((rng.next_u64() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of Beta(a, a) are ½ and 1 / (4 (2a + 1)), and P(x < ¼) is known where the
    /// density is a polynomial, or an arcsine.
    #[test]
    fn lambda_has_the_moments_of_a_beta_distribution() {
        const N: usize = 40_000;
        let arcsine = 2.0 / std::f64::consts::PI * 0.25f64.sqrt().asin();
        for (a, quarter) in [
            (0.01, None),
            (0.2, None),
            (0.5, Some(arcsine)),
            (1.0, Some(0.25)),
            (2.0, Some(3.0 / 16.0 - 2.0 / 64.0)),
            (100.0, None),
        ] {
            let mut rng = Rng::stream(Purpose::Mixup, &[1]);
            let values: Vec<f64> = (0..N).map(|_| beta(&mut rng, a)).collect();
            assert!(values.iter().all(|x| (0.0..=1.0).contains(x)), "{a}");
            let mean = values.iter().sum::<f64>() / N as f64;
            let variance = values.iter().map(|x| (x - 0.5).powi(2)).sum::<f64>() / N as f64;
            let expected = 1.0 / (4.0 * (2.0 * a + 1.0));
            // Five standard errors.
            let error = 5.0 * (expected / N as f64).sqrt();
            assert!((mean - 0.5).abs() < error, "{a}: {mean}");
            assert!(
                (variance / expected - 1.0).abs() < 0.04,
                "{a}: {variance} {expected}"
            );
            if let Some(quarter) = quarter {
                let found = values.iter().filter(|x| **x < 0.25).count() as f64 / N as f64;
                assert!((found - quarter).abs() < 0.011, "{a}: {found} {quarter}");
            }
        }
    }
}
