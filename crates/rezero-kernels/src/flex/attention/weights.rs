//! Scores become weights.

use super::mask::hide;
use crate::flex::dropout::Dropout;
use crate::flex::math::exp;
use crate::flex::parallel::{sum, wide};

/// How the scores of a query become its weights.
#[derive(Clone, Copy)]
pub(super) struct Softened<'a> {
    /// The keys that the causal mask leaves.
    pub(super) seen: usize,
    pub(super) scale: f32,
    /// The mask of these keys.
    pub(super) forbidden: Option<&'a [u8]>,
    pub(super) dropped: Option<(Dropout, [u32; 2])>,
}

impl Softened<'_> {
    /// Turns scores into weights, and gives the two numbers of [`softmax`]; zeros for a query without keys.
    pub(super) fn weights(self, line: &mut [f32]) -> [f32; 2] {
        wide(
            #[inline(always)]
            || {
                let left = match self.forbidden {
                    Some(forbidden) => hide(line, forbidden),
                    None => self.seen > 0,
                };
                if !left {
                    line.fill(0.0);
                    return [0.0; 2];
                }
                let found = softmax(line, self.seen, self.scale);
                if let Some((dropout, of)) = self.dropped {
                    for (key, weight) in (0u32..).zip(&mut line[..self.seen]) {
                        *weight *= dropout.factor(of, key);
                    }
                }
                found
            },
        )
    }
}

/// Turns the first `seen` scores of a row into weights that sum to 1, and the other scores into
/// zeros. Gives the largest scaled score m and `1 / Σ exp(scaled score − m)`. (The single number
/// `m + log Σ exp(…)` would be rounded to the last digit of m, and the weights of the backward pass
/// would not sum to 1.)
#[inline(always)]
fn softmax(row: &mut [f32], seen: usize, scale: f32) -> [f32; 2] {
    let (row, beyond) = row.split_at_mut(seen);
    beyond.fill(0.0);
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in row.chunks(16) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    let max = lanes.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x)) * scale;
    for x in row.iter_mut() {
        *x = exp(*x * scale - max);
    }
    let total = sum(
        row,
        #[inline(always)]
        |x| x,
    );
    let inverse = 1.0 / total;
    for x in row.iter_mut() {
        *x *= inverse;
    }
    [max, inverse]
}
