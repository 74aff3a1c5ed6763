//! The forward pass of few queries.

use pulp::{Simd, WithSimd};

use super::Attention;
use super::layout::{Heads, Rows};
use super::weights::Softened;
use crate::flex::memory::{Shared, elements, with_scratch};
use crate::flex::parallel::{Parts, arch, each, wide};

/// Multiply–adds of a product of few queries from which on several threads share it.
const SHARED: usize = 1 << 17;

impl Attention {
    /// The forward pass of few queries without rotary positions: it reads keys and values once, in place and in their
    /// order in memory, for all heads of a task. Packing them for a product would take longer than the product, and
    /// the keys of a cache are farther than the nearest caches.
    pub(super) fn few(&self, heads: Heads, rows: [Rows; 3], outs: Shared, all_sums: Shared) {
        let (queries, width, d) = (heads.queries, heads.width, heads.d_model());
        let dropout = self.dropout(heads);
        let small = elements(&[heads.batch, queries, d]).saturating_mul(heads.keys) < SHARED;
        let group = match small || heads.batch >= 8 {
            true => heads.n,
            false => heads.n.div_ceil(4),
        };
        let parts = Parts::new(heads.n, group);
        let size = elements(&[parts.get(0).1, queries, heads.keys + width]);
        let work = |task: usize| {
            let b = task / parts.count();
            let (first, group) = parts.get(task % parts.count());
            let forbidden = self.mask.as_ref().map(|mask| mask.sequence(b));
            let keys = heads.seen(queries);
            let keys = forbidden.map_or(keys, |f| f.keys(0..queries, keys));
            let [q, k, v] = rows.map(|rows| (rows.head((b, first), width), rows.row));
            with_scratch(size, |scratch| {
                // Of each head and query: the scores, and the sum of the values.
                let (scores, rest) = scratch.split_at_mut(group * queries * keys);
                let sums = &mut rest[..group * queries * width];
                arch().dispatch(Scores {
                    heads: group,
                    width,
                    queries,
                    keys,
                    q,
                    k,
                    scores,
                });
                for (n, h) in (first..first + group).enumerate() {
                    for i in 0..queries {
                        let row = (b * heads.n + h) * queries + i;
                        let seen = heads.seen(i + 1).min(keys);
                        let softened = Softened {
                            seen,
                            scale: heads.scale,
                            forbidden: forbidden.map(|f| &f.row(i)[..seen]),
                            dropped: dropout.map(|dropout| (dropout, dropout.row(row))),
                        };
                        let line = &mut scores[(n * queries + i) * keys..][..keys];
                        // SAFETY: each query of each head has a sum of its own.
                        let kept = unsafe { all_sums.fresh_part(2 * row, 2) };
                        kept.write_copy_of_slice(&softened.weights(line));
                    }
                }
                wide(
                    #[inline(always)]
                    || mix(scores, keys, v, width, queries, sums),
                );
                for (at, sum) in sums.chunks_exact(width).enumerate() {
                    let (h, i) = (first + at / queries, at % queries);
                    // SAFETY: each query of each head has columns of its own.
                    let out = unsafe { outs.fresh_part((b * queries + i) * d + h * width, width) };
                    out.write_copy_of_slice(sum);
                }
            });
        };
        let tasks = heads.batch * parts.count();
        match small {
            true => (0..tasks).for_each(work),
            false => each(tasks, work),
        }
    }
}

/// The scores of few queries, for some heads: the products of each with rows of keys.
struct Scores<'a> {
    heads: usize,
    width: usize,
    queries: usize,
    keys: usize,
    /// The rows of the heads, and the distance between rows.
    q: (&'a [f32], usize),
    k: (&'a [f32], usize),
    /// `[heads, queries, keys]`.
    scores: &'a mut [f32],
}

impl WithSimd for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for j in 0..self.keys {
            let k = &self.k.0[j * self.k.1..][..self.heads * self.width];
            for (h, k) in k.chunks_exact(self.width).enumerate() {
                let (k, k_rest) = S::as_simd_f32s(k);
                for i in 0..self.queries {
                    let q = &self.q.0[i * self.q.1 + h * self.width..][..self.width];
                    let (q, q_rest) = S::as_simd_f32s(q);
                    let mut sum = simd.splat_f32s(0.0);
                    for (q, k) in q.iter().zip(k) {
                        sum = simd.mul_add_f32s(*q, *k, sum);
                    }
                    let rest = q_rest.iter().zip(k_rest);
                    self.scores[(h * self.queries + i) * self.keys + j] =
                        rest.fold(simd.reduce_sum_f32s(sum), |sum, (q, k)| sum + q * k);
                }
            }
        }
    }
}

/// `Σ weights[j] · v[j]` for each head and query, from rows of values and the distance between them.
#[inline(always)]
fn mix(
    weights: &[f32],
    keys: usize,
    (v, stride): (&[f32], usize),
    width: usize,
    queries: usize,
    sums: &mut [f32],
) {
    /// Rows of values of a step, since the sums are in memory.
    const STEP: usize = 4;
    sums.fill(0.0);
    let whole = keys / STEP * STEP;
    for j in (0..whole).step_by(STEP) {
        for (at, sum) in sums.chunks_exact_mut(width).enumerate() {
            let w = &weights[at * keys + j..][..STEP];
            let row = |n: usize| &v[(j + n) * stride + at / queries * width..][..width];
            let rows = row(0).iter().zip(row(1)).zip(row(2)).zip(row(3));
            for (x, (((a, b), c), d)) in sum.iter_mut().zip(rows) {
                *x += (a * w[0] + b * w[1]) + (c * w[2] + d * w[3]);
            }
        }
    }
    for j in whole..keys {
        for (at, sum) in sums.chunks_exact_mut(width).enumerate() {
            let row = &v[j * stride + at / queries * width..][..width];
            for (x, a) in sum.iter_mut().zip(row) {
                *x += a * weights[at * keys + j];
            }
        }
    }
}
