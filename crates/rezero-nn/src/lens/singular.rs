//! The singular values of a matrix, without the singular vectors.
//!
//! 1. Householder reflections from both sides make the matrix bidiagonal (Golub and Kahan, *Calculating
//!    the singular values and pseudo-inverse of a matrix*, 1965). The error is a few units of
//!    2⁻⁵² · σ_max.
//! 2. Bisection finds each singular value of the bidiagonal matrix to the last bit (Demmel and Kahan,
//!    *Accurate singular values of bidiagonal matrices*, 1990, section 4). No iteration can fail.
//!
//! For `m` rows and `n ≤ m` columns, step 1 takes `4 m n²` operations and step 2 `128 n²` divisions.

/// The `min(rows, columns)` singular values of a matrix in row-major order, in ascending order.
///
/// The values must be finite, and their squares must not overflow.
pub(super) fn singular_values(rows: usize, columns: usize, values: &[f32]) -> Vec<f64> {
    let at = |i: usize, j: usize| f64::from(values[i * columns + j]);
    // The transposed matrix has the same singular values.
    let long = rows.max(columns);
    let tall: Vec<Vec<f64>> = if rows >= columns {
        (0..columns)
            .map(|j| (0..rows).map(|i| at(i, j)).collect())
            .collect()
    } else {
        (0..rows)
            .map(|i| (0..columns).map(|j| at(i, j)).collect())
            .collect()
    };
    bisect(&bidiagonal(long, tall))
}

/// Reduces a matrix, given by its columns of `rows` values, to an upper bidiagonal one. Returns
/// `d₁, e₁, d₂, e₂, …, dₙ`: the diagonal and, between its entries, those above it.
fn bidiagonal(rows: usize, mut columns: Vec<Vec<f64>>) -> Vec<f64> {
    let n = columns.len();
    let mut found = Vec::with_capacity((2 * n).saturating_sub(1));
    let mut sum = vec![0.0; rows];
    for k in 0..n {
        // From the left: column k becomes (d, 0, …, 0) from row k on.
        let (head, rest) = columns.split_at_mut(k + 1);
        let v = &mut head[k][k..];
        let (tau, d) = reflector(v);
        found.push(d);
        if tau != 0.0 {
            for column in &mut *rest {
                let column = &mut column[k..];
                let scale = tau * dot(v, column);
                add_scaled(column, -scale, v);
            }
        }
        // From the right: row k becomes (e, 0, …, 0) from column k + 1 on.
        if rest.is_empty() {
            break;
        }
        let mut v: Vec<f64> = rest.iter().map(|column| column[k]).collect();
        let (tau, e) = reflector(&mut v);
        found.push(e);
        if tau != 0.0 {
            let sum = &mut sum[k + 1..];
            sum.fill(0.0);
            for (column, v) in rest.iter().zip(&v) {
                add_scaled(sum, *v, &column[k + 1..]);
            }
            for (column, v) in rest.iter_mut().zip(&v) {
                add_scaled(&mut column[k + 1..], -tau * v, sum);
            }
        }
    }
    found
}

/// Makes of `x` the vector `v` of the reflection `I − τ v vᵀ`, which maps `x` to `(β, 0, …, 0)`, and
/// returns `(τ, β)`. A vector whose tail is zero stays as it is, with τ = 0.
fn reflector(x: &mut [f64]) -> (f64, f64) {
    let first = x[0];
    let tail = dot(&x[1..], &x[1..]);
    if tail == 0.0 {
        return (0.0, first);
    }
    // The sign that does not cancel.
    let beta = -(first * first + tail).sqrt().copysign(first);
    let scale = 1.0 / (first - beta);
    x[1..].iter_mut().for_each(|x| *x *= scale);
    x[0] = 1.0;
    ((beta - first) / beta, beta)
}

/// The singular values of an upper bidiagonal matrix, from its entries `d₁, e₁, d₂, …, dₙ`.
///
/// They are the positive eigenvalues of the symmetric tridiagonal matrix with a diagonal of zeros and
/// these entries beside it; the other eigenvalues are their negatives.
fn bisect(entries: &[f64]) -> Vec<f64> {
    let n = entries.len().div_ceil(2);
    let squares: Vec<f64> = entries.iter().map(|b| b * b).collect();
    // How many singular values are at most x ≥ 0: of 2n pivots of the matrix minus x, the negative ones,
    // without those of the n eigenvalues that are not positive.
    let at_most = |x: f64| {
        let mut pivot = -x;
        let mut negative = 0;
        for square in squares.iter().chain([&0.0]) {
            if pivot == 0.0 {
                pivot = -f64::MIN_POSITIVE;
            }
            negative += usize::from(pivot < 0.0);
            pivot = -x - square / pivot;
        }
        negative - n
    };
    // Gershgorin's bound, and twice it against rounding.
    let bound = entries
        .iter()
        .zip(entries[1.min(entries.len())..].iter().chain([&0.0]))
        .map(|(a, b)| a.abs() + b.abs())
        .fold(0.0, f64::max);
    let bound = (2.0 * bound).max(f64::MIN_POSITIVE);
    (0..n)
        .map(|k| {
            // The bits of floating-point numbers that are not negative have the order of the numbers: the
            // smallest number with more than k singular values up to it is found in 63 halvings.
            let (mut below, mut above) = (0_u64, bound.to_bits());
            if at_most(0.0) > k {
                return 0.0;
            }
            while above - below > 1 {
                let middle = below + (above - below) / 2;
                if at_most(f64::from_bits(middle)) > k {
                    above = middle;
                } else {
                    below = middle;
                }
            }
            f64::from_bits(above)
        })
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Eight sums, which the compiler puts into vectors.
    let mut sums = [0.0; 8];
    let (a_eights, b_eights) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a_eights
        .remainder()
        .iter()
        .zip(b_eights.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a_eights.zip(b_eights) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// `y += a x`.
fn add_scaled(y: &mut [f64], a: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `H diag(σ) K`, where H and K are reflections at given vectors: its singular values are σ.
    fn with_singular_values(rows: usize, columns: usize, sigma: &[f64]) -> Vec<f32> {
        let reflection = |n: usize, seed: f64| {
            let v: Vec<f64> = (0..n).map(|i| (seed + 1.7 * i as f64).sin()).collect();
            let square = dot(&v, &v);
            move |i: usize, j: usize| f64::from(i == j) - 2.0 * v[i] * v[j] / square
        };
        let (h, k) = (reflection(rows, 0.3), reflection(columns, 1.1));
        let entry = |i, j| {
            (0..sigma.len())
                .map(|s| h(i, s) * sigma[s] * k(s, j))
                .sum::<f64>()
        };
        (0..rows * columns)
            .map(|at| entry(at / columns, at % columns) as f32)
            .collect()
    }

    #[test]
    fn matrices_of_known_singular_values() {
        for (rows, columns) in [
            (1, 1),
            (5, 5),
            (12, 5),
            (5, 12),
            (1, 40),
            (40, 1),
            (64, 64),
            (33, 70),
        ] {
            let n = rows.min(columns);
            let sigma: Vec<f64> = (0..n).map(|i| 3.0 * 0.8_f64.powi(i as i32)).collect();
            let found =
                singular_values(rows, columns, &with_singular_values(rows, columns, &sigma));
            assert_eq!(found.len(), n);
            for (found, sigma) in found.iter().rev().zip(&sigma) {
                // The entries are rounded to single precision, which moves σ by as much.
                assert!(
                    (found - sigma).abs() < 1e-6,
                    "{rows} × {columns}: {found} for {sigma}"
                );
            }
        }
    }

    #[test]
    fn diagonal_matrices_are_exact() {
        let diagonal: [f32; 6] = [2.0, 0.0, -3.5, 1e-30, 1.0, 7e37];
        let mut values = vec![0.0; 36];
        for (i, d) in diagonal.iter().enumerate() {
            values[7 * i] = *d;
        }
        let mut expected: Vec<f64> = diagonal.iter().map(|d| f64::from(d.abs())).collect();
        expected.sort_by(f64::total_cmp);
        assert_eq!(singular_values(6, 6, &values), expected);
        assert_eq!(singular_values(3, 4, &[0.0; 12]), [0.0; 3]);
    }

    #[test]
    fn small_singular_values_of_a_bidiagonal_matrix_are_exact_in_their_digits() {
        // [[1, 1e8], [0, 1e-3]]: the product of its singular values is 1e-3, the sum of their squares
        // 1 + 1e16 + 1e-6.
        let found = bisect(&[1.0, 1e8, 1e-3]);
        assert!((found[0] / 1e-11 - 1.0).abs() < 1e-14, "{}", found[0]);
        assert!((found[1] / 1e8 - 1.0).abs() < 1e-15, "{}", found[1]);
    }

    #[test]
    fn the_sum_of_squares_is_the_frobenius_norm() {
        let values: Vec<f32> = (0..90 * 70)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0)
            .collect();
        let norm: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        let squares: f64 = singular_values(90, 70, &values).iter().map(|s| s * s).sum();
        assert!((squares / norm - 1.0).abs() < 1e-13);
    }
}
