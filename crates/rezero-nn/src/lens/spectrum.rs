//! Singular values, and their summary.

/// The singular values of one Jacobian, from the largest to the smallest.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    values: Vec<f64>,
    threshold: f64,
}

/// A [`Spectrum`] or a [`PooledSpectrum`] in a few numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct SpectrumSummary {
    /// The number of singular values.
    pub count: usize,
    /// The mean of σ², `‖J‖² / count`: 1 under dynamical isometry.
    pub mean_square: f64,
    /// `(q, log₁₀ of the q-quantile of σ)` for q = 0, 0.05, 0.25, 0.5, 0.75, 0.95 and 1, linear between
    /// neighbours; −∞ for σ = 0.
    pub log10_quantiles: Vec<(f64, f64)>,
    /// The share of σ that single precision cannot distinguish from 0, see [`Spectrum::vanishing`].
    pub vanishing: f64,
    /// `σ_max / σ_min`: infinite if σ_min is 0, NaN if all σ are 0.
    pub condition: f64,
}

/// A count of singular values by magnitude.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The edges of the bins, as log₁₀ σ: one more than there are bins.
    pub edges: Vec<f64>,
    /// The number of σ in each bin. A bin includes its lower edge, the last bin also its upper
    /// edge.
    pub counts: Vec<usize>,
    /// The number of σ below the first edge, including σ = 0.
    pub below: usize,
    /// The number of σ above the last edge.
    pub above: usize,
}

impl Spectrum {
    pub(super) fn new(mut values: Vec<f64>, size: usize) -> Self {
        values.sort_by(|a, b| b.total_cmp(a));
        let largest = values.first().copied().unwrap_or(0.0);
        Self {
            values,
            threshold: f64::from(f32::EPSILON) * size as f64 * largest,
        }
    }

    /// Joins the singular values of several Jacobians. The vanishing values are counted per
    /// Jacobian, with its own threshold.
    pub fn pooled(parts: &[Self]) -> PooledSpectrum {
        let vanishing = parts.iter().map(|part| part.vanishing()).sum();
        let mut values: Vec<f64> = parts.iter().flat_map(|p| p.values.clone()).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        PooledSpectrum { values, vanishing }
    }

    /// The singular values, from the largest to the smallest.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The number of σ that are at most `ε · max(rows, columns) · σ_max`. Jacobians are computed in
    /// single precision, so ε = 2⁻²³. This is the threshold of the numerical rank: a σ below it may
    /// be only rounding error.
    pub fn vanishing(&self) -> usize {
        self.values.iter().filter(|v| **v <= self.threshold).count()
    }

    /// The summary of this spectrum alone.
    pub fn summary(&self) -> SpectrumSummary {
        Self::pooled(std::slice::from_ref(self)).summary()
    }
}

/// The singular values of several Jacobians, see [`Spectrum::pooled`].
#[derive(Clone, Debug, PartialEq)]
pub struct PooledSpectrum {
    values: Vec<f64>,
    vanishing: usize,
}

impl PooledSpectrum {
    /// The singular values, from the largest to the smallest.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The values in a few numbers.
    pub fn summary(&self) -> SpectrumSummary {
        let count = self.values.len();
        let n = count as f64;
        let (largest, smallest) = (
            self.values.first().copied().unwrap_or(f64::NAN),
            self.values.last().copied().unwrap_or(f64::NAN),
        );
        SpectrumSummary {
            count,
            mean_square: self.values.iter().map(|v| v * v).sum::<f64>() / n,
            log10_quantiles: [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
                .into_iter()
                .map(|q| (q, self.quantile(q).log10()))
                .collect(),
            vanishing: self.vanishing as f64 / n,
            condition: largest / smallest,
        }
    }

    fn quantile(&self, q: f64) -> f64 {
        let Some(last) = self.values.len().checked_sub(1) else {
            return f64::NAN;
        };
        let at = q * last as f64;
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        // The values are in descending order, the quantiles in ascending order.
        let value = |i: usize| self.values[last - i];
        value(low) + (at - low as f64) * (value(high) - value(low))
    }

    /// Counts log₁₀ σ in `bins` bins of equal width from `low` to `high`.
    ///
    /// # Panics
    ///
    /// If `bins` is 0, `low` is not below `high`, or one of them is not finite.
    pub fn histogram(&self, low: f64, high: f64, bins: usize) -> Histogram {
        assert!(
            bins > 0 && low < high && low.is_finite() && high.is_finite(),
            "a histogram needs bins between rising, finite edges, got {bins} from {low} to {high}."
        );
        let width = (high - low) / bins as f64;
        let mut histogram = Histogram {
            edges: (0..=bins).map(|i| low + width * i as f64).collect(),
            counts: vec![0; bins],
            below: 0,
            above: 0,
        };
        for value in &self.values {
            let log = value.log10();
            if log < low {
                histogram.below += 1;
            } else if log > high {
                histogram.above += 1;
            } else {
                let bin = ((log - low) / width) as usize;
                histogram.counts[bin.min(bins - 1)] += 1;
            }
        }
        histogram
    }
}
