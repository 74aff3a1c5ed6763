//! Means over seeds, and a test whether two means differ.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean over seeds, with its standard error if there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The number of values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// The sample standard deviation divided by √n; none if n < 2.
    pub error: Option<f64>,
}

impl Mean {
    /// The mean of `values`, if there are any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let error = (n > 1).then(|| (variance(values, mean) / n as f64).sqrt());
        Some(Self { n, mean, error })
    }

    /// `mean ± error` with `digits` decimals.
    pub fn text(&self, digits: usize) -> String {
        match self.error {
            Some(error) => format!("{:.digits$} ± {error:.digits$}", self.mean),
            None => format!("{:.digits$}", self.mean),
        }
    }
}

fn variance(values: &[f64], mean: f64) -> f64 {
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    squares / (values.len() - 1) as f64
}

/// The two-sided p value of Welch's test (B. L. Welch, Biometrika 34, 1947) that two samples have
/// the same mean. None if either sample has fewer than three values, or if neither varies.
pub fn welch(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() < 3 || b.len() < 3 {
        return None;
    }
    let stats = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (mean, variance(values, mean) / n, n - 1.0)
    };
    let ((mean_a, var_a, free_a), (mean_b, var_b, free_b)) = (stats(a), stats(b));
    let var = var_a + var_b;
    // Rounding errors of equal values are no variance.
    let rounding = 1e-12 * (mean_a.abs() + mean_b.abs());
    if !var.is_finite() || var.sqrt() <= rounding {
        return None;
    }
    let t = (mean_a - mean_b) / var.sqrt();
    let freedom = var * var / (var_a * var_a / free_a + var_b * var_b / free_b);
    let student = StudentsT::new(0.0, 1.0, freedom).ok()?;
    Some(2.0 * student.sf(t.abs()))
}
