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
    use super::exp;

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
}
