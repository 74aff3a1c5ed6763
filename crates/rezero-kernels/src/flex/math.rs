//! Functions that vectorise; the standard library's would be calls.

/// e^x to 2 units in the last place. Below −87.3, where the result is not a normal number, it is 0;
/// above 88, it is the value at 88.
///
/// `2^n · e^r` with n = round(x / ln 2) and |r| ≤ ln 2 / 2; e^r by its Taylor polynomial of degree
/// 7, whose remainder there is below 2⁻²⁷.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it leaves round(x) in a float's lowest bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first short enough for n · HIGH to be exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let lowest = x < -87.3;
    // Comparisons in this form leave NaN as it is.
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if lowest { -87.3 } else { x };
    let rounded = x * core::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * HIGH) - n * LOW;
    let mut e = 1.0 / 5040.0;
    e = e * r + 1.0 / 720.0;
    e = e * r + 1.0 / 120.0;
    e = e * r + 1.0 / 24.0;
    e = e * r + 1.0 / 6.0;
    e = e * r + 0.5;
    e = e * r + 1.0;
    e = e * r + 1.0;
    // The exponent's bits; the wrapping sum drops those of ROUND.
    let power = f32::from_bits(rounded.to_bits().wrapping_shl(23).wrapping_add(127 << 23));
    if lowest { 0.0 } else { e * power }
}

/// The logistic function `σ(x) = 1 / (1 + e^(−x))`. Below −87.3, where it is not a normal number, it is 0.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    let s = 1.0 / (1.0 + exp(-x));
    if x < -87.3 { 0.0 } else { s }
}

/// The standard normal distribution's share below x, Φ(x), and its density, φ(x), with an absolute error of
/// 2e-7. Where x is negative, the relative error of Φ is 5e-6 down to −12, of which most is that of x² as f32.
///
/// `Φ(−|x|) = ½ e^(−x²/2) · t · P(t)` with t = 1 / (1 + |x| / √8). P is the polynomial of degree 9 through the values of
/// `erfc(z) e^(z²) / t`, z = |x| / √2, at Chebyshev's ten points of [0, 1]; it is off by 2e-8.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    const P: [f32; 10] = [
        0.282_094_72,
        0.282_109_9,
        0.246_346_81,
        0.182_243_43,
        0.048_268_17,
        0.109_843_81,
        -0.252_363_54,
        0.085_983_425,
        0.034_043_48,
        -0.018_570_254,
    ];
    /// 1 / √8.
    const SCALE: f32 = 0.353_553_4;
    /// 1 / √(2π).
    const PEAK: f32 = 0.398_942_3;
    let e = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + x.abs() * SCALE);
    let mut p = P[9];
    p = p * t + P[8];
    p = p * t + P[7];
    p = p * t + P[6];
    p = p * t + P[5];
    p = p * t + P[4];
    p = p * t + P[3];
    p = p * t + P[2];
    p = p * t + P[1];
    p = p * t + P[0];
    let tail = 0.5 * e * t * p;
    (if x < 0.0 { tail } else { 1.0 - tail }, PEAK * e)
}

/// `max(x, floor)`: a ReLU for a `floor` of 0, the identity for a `floor` of −∞. NaN stays NaN, so
/// that divergence stays visible; `f32::max` would turn NaN into the floor.
#[inline(always)]
pub(super) fn lifted(x: f32, floor: f32) -> f32 {
    if x <= floor { floor } else { x }
}

/// The gradient of [`lifted`], from the gradient `g` of its result: `y` is its argument or its
/// result.
#[inline(always)]
pub(super) fn passed(g: f32, y: f32, floor: f32) -> f32 {
    if y <= floor { 0.0 } else { g }
}

#[cfg(test)]
mod tests {
    use super::{exp, normal};

    #[test]
    fn exp_is_the_exponential() {
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "exp({x}) is off by {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::INFINITY).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    /// Φ(x) for x ≤ 0: the sum φ(x) Σ |x|^(2k+1) / (1·3·…·(2k+1)) less than ½, and far below a continued fraction.
    fn below(x: f64) -> f64 {
        let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        if x > -3.0 {
            let (mut term, mut sum) = (x, 0.0);
            for k in 0..100 {
                sum += term;
                term *= x * x / f64::from(2 * k + 3);
            }
            return 0.5 + density * sum;
        }
        let fraction = (1..200).rev().fold(-x, |rest, k| -x + f64::from(k) / rest);
        density / fraction
    }

    #[test]
    fn normal_is_the_normal_distribution() {
        for i in -12_000..=12_000 {
            let x = i as f32 / 1000.0;
            let tail = below(-f64::from(x).abs());
            let expected = if x < 0.0 { tail } else { 1.0 - tail };
            let (found, density) = normal(x);
            let error = (f64::from(found) - expected).abs();
            assert!(error < 2e-7, "Φ({x}) is off by {error:e}");
            assert!(
                x >= 0.0 || error < 5e-6 * tail + 1e-37,
                "Φ({x}): {found:e} and {tail:e}"
            );
            let expected =
                (-0.5 * f64::from(x).powi(2)).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((f64::from(density) - expected).abs() < 1e-7, "φ({x})");
        }
        assert_eq!(normal(f32::INFINITY), (1.0, 0.0));
        assert_eq!(normal(f32::NEG_INFINITY), (0.0, 0.0));
        assert!(normal(f32::NAN).0.is_nan() && normal(f32::NAN).1.is_nan());
    }
}
