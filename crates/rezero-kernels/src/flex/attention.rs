//! Scaled dot-product attention, a task for each head of each sequence, a block of queries at a time.
//!
//! Forward: `S = Q Kᵀ/√d`, `P = exp(S − m)/s` with `m` the largest score of a row and
//! `s = Σ exp(S − m)`, `O = (P ⊙ D) V` with D the factors of the dropout. Only a block of rows of S is in memory;
//! its columns end at the last key that a query of the block may attend to. For the backward pass the kernel stores
//! the inputs, O, m and 1/s.
//!
//! Backward, from `dO`: P again from Q, K, m and 1/s, and D again from its hash; `dV = (P ⊙ D)ᵀ dO`,
//! `dP = D ⊙ dO Vᵀ`, `dS = P ⊙ (dP − rowsum(dO ⊙ O))`, `dQ = dS K/√d`, `dK = dSᵀ Q/√d`.
//!
//! A task reads its head's part of the inputs' rows. Under rotary positions, and for the backward pass, it copies
//! them, and it transposes the keys, in the backward pass the values too, because `gemm` packs these faster. Few queries
//! have a forward pass of their own, [`Attention::few`].

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::{Bool, Tensor, TensorData};
use pulp::{Simd, WithSimd};

use super::math::exp;
use super::matmul::{Mat, Start, block_product, transpose};
use super::memory::{Fresh, Shared, contiguous, dims, elements, tensor, values, with_scratch};
use super::parallel::{Parts, arch, each, sum, sums, wide};
use crate::attention::{DotProductAttention, angle};
use crate::op::Kernel;

/// Queries of a block. More would waste time: under a causal mask, half of the scores on a block's
/// last `QUERIES` keys are masked.
const QUERIES: usize = 32;
/// Up to so many queries, [`Attention::few`] serves.
const FEW: usize = 4;
/// Multiply–adds of a product of few queries from which on several threads share it.
const SHARED: usize = 1 << 17;

#[derive(Debug)]
pub(crate) struct Attention {
    pub config: DotProductAttention,
    pub mask: Option<Mask>,
    /// The seed of the dropout.
    pub seed: u64,
    /// Whether there may be a backward pass.
    pub tracked: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Queries, keys and values in one tensor or in three.
    inputs: Vec<FlexTensor>,
    out: FlexTensor,
    /// Two numbers per query, for each head of each sequence: see [`softmax`].
    rows: Vec<f32>,
}

/// The extents of one call.
#[derive(Clone, Copy)]
struct Heads {
    batch: usize,
    queries: usize,
    keys: usize,
    n: usize,
    width: usize,
    causal: bool,
    scale: f32,
}

impl Heads {
    fn new(config: DotProductAttention, inputs: &[FlexTensor]) -> Self {
        let [batch, queries, all] = dims(&inputs[0]);
        let (keys, d_model) = match inputs {
            [_, k, _] => (dims::<3>(k)[1], all),
            _ => (queries, all / 3),
        };
        let width = d_model / config.n_heads;
        Self {
            batch,
            queries,
            keys,
            n: config.n_heads,
            width,
            causal: config.causal,
            scale: 1.0 / (width as f32).sqrt(),
        }
    }

    fn d_model(self) -> usize {
        self.n * self.width
    }

    /// The number of keys that the causal mask leaves to the queries before `last`.
    fn seen(self, last: usize) -> usize {
        match self.causal {
            true => (self.keys + last).saturating_sub(self.queries),
            false => self.keys,
        }
    }

    /// The blocks of queries: the first query of each, and the number of queries.
    fn blocks(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.queries)
            .step_by(QUERIES)
            .map(move |from| (from, QUERIES.min(self.queries - from)))
    }

    /// The position of the first query among the keys, for rotary positions.
    fn first(self) -> usize {
        self.keys - self.queries
    }
}

/// Queries, keys or values: the rows of the positions, with the heads side by side in each.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    /// The distance between sequences.
    batch: usize,
    /// The distance between the rows of a sequence.
    row: usize,
}

/// The tensor with contiguous rows: itself, or a copy.
fn by_rows(tensor: &FlexTensor) -> FlexTensor {
    let strides = tensor.layout().strides();
    match strides[2] == 1 && strides.iter().all(|stride| *stride >= 0) {
        true => tensor.clone(),
        false => tensor.to_contiguous(),
    }
}

impl<'a> Rows<'a> {
    /// Queries, keys and values of a call, from tensors that [`by_rows`] has returned.
    fn all(inputs: &'a [FlexTensor], d_model: usize) -> [Self; 3] {
        core::array::from_fn(|which| {
            let (input, from) = match inputs {
                [fused] => (fused, which * d_model),
                _ => (&inputs[which], 0),
            };
            let layout = input.layout();
            let stride = |axis: usize| usize::try_from(layout.strides()[axis]);
            let (Ok(batch), Ok(row)) = (stride(0), stride(1)) else {
                unreachable!("`by_rows` has copied a flipped tensor")
            };
            Self {
                values: &input.storage::<f32>()[layout.start_offset() + from..],
                batch,
                row,
            }
        })
    }

    /// The values from the first row of a head on.
    fn head(self, (b, h): (usize, usize), width: usize) -> &'a [f32] {
        &self.values[b * self.batch + h * width..]
    }

    /// Copies the rows of a head, rotated as positions from that of `turn` on.
    fn gather(
        self,
        head: (usize, usize),
        width: usize,
        turn: Option<(&Table, usize)>,
        to: &mut [f32],
    ) {
        let from = self.head(head, width);
        for (i, to) in to.chunks_exact_mut(width).enumerate() {
            to.copy_from_slice(&from[i * self.row..i * self.row + width]);
            if let Some((table, first)) = turn {
                table.turn(first + i, to, 1.0);
            }
        }
    }
}

/// Where the gradients of queries, keys or values go: the reverse of [`Rows`].
#[derive(Clone, Copy)]
struct Gradients {
    to: Shared,
    /// The rows of a sequence.
    length: usize,
    /// The distance between rows.
    row: usize,
    /// The first value of the first row.
    from: usize,
}

impl Gradients {
    /// The reverse of [`Rows::gather`].
    ///
    /// # Safety
    ///
    /// No other task uses the head's part of the rows.
    unsafe fn scatter(
        self,
        from: &mut [f32],
        (b, h): (usize, usize),
        width: usize,
        turn: Option<(&Table, usize)>,
    ) {
        for (i, from) in from.chunks_exact_mut(width).enumerate() {
            if let Some((table, first)) = turn {
                table.turn(first + i, from, -1.0);
            }
            let at = self.from + (b * self.length + i) * self.row + h * width;
            // SAFETY: as the caller promises.
            unsafe { self.to.fresh_part(at, width) }.write_copy_of_slice(from);
        }
    }
}

/// The keys that queries must not attend to, `[1 or batch, 1 or queries, keys]`, not 0 where it is forbidden.
#[derive(Clone, Debug)]
pub(crate) struct Mask(FlexTensor);

/// The part of a mask for one sequence.
#[derive(Clone, Copy)]
struct Forbidden<'a> {
    rows: &'a [u8],
    keys: usize,
}

impl Mask {
    /// `None` for a mask on another backend.
    // The last arms are for other backends, where they are compiled in.
    #[allow(unreachable_patterns)]
    pub fn of(mask: &Tensor<3, Bool>) -> Option<Self> {
        let found = match mask.clone().into_dispatch().kind {
            DispatchTensorKind::Flex(BackendTensor::Bool(t)) => t,
            DispatchTensorKind::Autodiff(inner) => match *inner {
                DispatchTensorKind::Flex(BackendTensor::Bool(t)) => t,
                _ => return None,
            },
            _ => return None,
        };
        Some(Self(contiguous(&found)))
    }

    fn sequence(&self, b: usize) -> Forbidden<'_> {
        let [n, queries, keys] = dims(&self.0);
        let layout = self.0.layout();
        let size = queries * keys;
        let from = layout.start_offset() + if n == 1 { 0 } else { b * size };
        Forbidden {
            rows: &self.0.storage::<u8>()[from..from + size],
            keys,
        }
    }
}

impl<'a> Forbidden<'a> {
    /// The row of a query.
    fn row(self, query: usize) -> &'a [u8] {
        let query = if self.rows.len() == self.keys {
            0
        } else {
            query
        };
        &self.rows[query * self.keys..(query + 1) * self.keys]
    }

    /// The number of keys up to the last that one of some queries may attend to, of the first `keys`.
    fn keys(self, queries: core::ops::Range<usize>, keys: usize) -> usize {
        let last = |query| {
            self.row(query)[..keys]
                .iter()
                .rposition(|hidden| *hidden == 0)
        };
        let queries = if self.rows.len() == self.keys {
            0..1
        } else {
            queries
        };
        queries.filter_map(last).max().map_or(0, |last| last + 1)
    }
}

/// Sets the scores of forbidden keys to −∞, and gives whether a key is left.
#[inline(always)]
fn hide(scores: &mut [f32], forbidden: &[u8]) -> bool {
    let mut left = false;
    for (score, hidden) in scores.iter_mut().zip(forbidden) {
        left |= *hidden == 0;
        *score = if *hidden == 0 {
            *score
        } else {
            f32::NEG_INFINITY
        };
    }
    left
}

/// The factors of dropped and kept weights, a hash of the seed and of the weight's place.
#[derive(Clone, Copy)]
struct Dropout {
    seed: u64,
    /// A weight is dropped where its hash is below.
    threshold: u32,
    scale: f32,
}

impl Dropout {
    fn new(probability: f64, seed: u64) -> Option<Self> {
        (probability > 0.0).then(|| Self {
            seed,
            threshold: (probability * 2f64.powi(32)).round() as u32,
            scale: (1.0 / (1.0 - probability)) as f32,
        })
    }

    /// Two numbers for a row of weights, by SplitMix64 (Steele, Lea and Flood, 2014). Rows are counted over queries,
    /// heads and sequences; no two rows of a call have the same pair.
    fn row(self, row: usize) -> [u32; 2] {
        let count = (row as u64).wrapping_add(1);
        let mut z = self
            .seed
            .wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        [z as u32, (z >> 32) as u32]
    }

    /// The factor of a weight: 0 or `1 / (1 − p)`. The hash is MurmurHash3's finaliser (Appleby); the row's second
    /// number enters between its multiplications, since rows with near first numbers would drop shifted copies of
    /// each other's weights.
    #[inline(always)]
    fn factor(self, [a, b]: [u32; 2], key: u32) -> f32 {
        let x = key.wrapping_mul(0x9E37_79B9).wrapping_add(a);
        let x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B) ^ b;
        let x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
        let x = x ^ (x >> 16);
        if x < self.threshold { 0.0 } else { self.scale }
    }
}

/// The factors of all weights, `[batch, heads, queries, keys]`, for the composed operations.
pub(crate) fn kept(shape: [usize; 4], probability: f64, seed: u64) -> TensorData {
    let [batch, heads, queries, keys] = shape;
    let mut factors = Fresh::new(elements(&shape));
    let shared = factors.shared();
    let dropout = Dropout::new(probability, seed);
    each(batch * heads, |task| {
        for row in task * queries..(task + 1) * queries {
            // SAFETY: each row is one task's.
            let to = unsafe { shared.fresh_part(row * keys, keys) };
            let of = dropout.map(|dropout| (dropout, dropout.row(row)));
            wide(
                #[inline(always)]
                || {
                    for (key, to) in (0u32..).zip(to) {
                        to.write(of.map_or(1.0, |(dropout, row)| dropout.factor(row, key)));
                    }
                },
            );
        }
    });
    // SAFETY: the rows cover it.
    TensorData::new(unsafe { factors.written() }, shape)
}

/// The output of a forward pass and what it keeps.
///
/// # Safety
///
/// All values of both were written.
unsafe fn finished(
    inputs: Vec<FlexTensor>,
    heads: Heads,
    out: Fresh,
    kept: Fresh,
) -> (FlexTensor, Kept, ()) {
    // SAFETY: as the caller promises.
    let (out, rows) = unsafe { (out.written(), kept.written()) };
    let out = tensor(out, [heads.batch, heads.queries, heads.d_model()]);
    let kept = Kept {
        inputs,
        out: out.clone(),
        rows,
    };
    (out, kept, ())
}

impl Attention {
    /// The forward pass of few queries without rotary positions: it reads keys and values once, in place and in their
    /// order in memory, for all heads of a task. Packing them for a product would take longer than the product, and
    /// the keys of a cache are farther than the nearest caches.
    fn few(&self, heads: Heads, rows: [Rows; 3], outs: Shared, all_sums: Shared) {
        let (queries, width, d) = (heads.queries, heads.width, heads.d_model());
        let dropout = Dropout::new(self.config.dropout, self.seed);
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

impl Kernel<Flex> for Attention {
    type State = Kept;
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Kept, ()) {
        let inputs: Vec<FlexTensor> = inputs.iter().map(by_rows).collect();
        let heads = Heads::new(self.config, &inputs);
        let (queries, width, d) = (heads.queries, heads.width, heads.d_model());
        let [q_rows, k_rows, v_rows] = Rows::all(&inputs, d);
        let table = self
            .config
            .rotary
            .map(|base| Table::of(base, width, heads.keys));
        let table = table.as_deref();
        let dropout = Dropout::new(self.config.dropout, self.seed);
        let mut out = Fresh::new(elements(&[heads.batch, queries, d]));
        let mut kept = Fresh::new(elements(&[2, heads.batch, heads.n, queries]));
        let (outs, all_sums) = (out.shared(), kept.shared());
        // The backward pass computes the scores of a block again, to the same bits; these are summed in another order.
        if queries <= FEW && table.is_none() && !self.tracked {
            self.few(heads, [q_rows, k_rows, v_rows], outs, all_sums);
            // SAFETY: each query of each head has written its columns and its two numbers.
            return unsafe { finished(inputs, heads, out, kept) };
        }
        let (q_size, k_size) = (elements(&[queries, width]), elements(&[heads.keys, width]));
        let turned = if table.is_some() {
            (q_size, k_size)
        } else {
            (0, 0)
        };
        let block = elements(&[QUERIES.min(queries), heads.keys]);
        each(heads.batch * heads.n, |task| {
            let head = (task / heads.n, task % heads.n);
            let forbidden = self.mask.as_ref().map(|mask| mask.sequence(head.0));
            with_scratch(turned.0 + turned.1 + k_size + block, |scratch| {
                let (q, scratch) = scratch.split_at_mut(turned.0);
                let (k, scratch) = scratch.split_at_mut(turned.1);
                let (k_t, scores) = scratch.split_at_mut(k_size);
                let (q, q_row, k, k_row) = match table {
                    Some(table) => {
                        q_rows.gather(head, width, Some((table, heads.first())), q);
                        k_rows.gather(head, width, Some((table, 0)), k);
                        (&*q, width, &*k, width)
                    }
                    None => {
                        let (q, k) = (q_rows.head(head, width), k_rows.head(head, width));
                        (q, q_rows.row, k, k_rows.row)
                    }
                };
                transpose(k, k_row, heads.keys, width, k_t, heads.keys);
                let v = v_rows.head(head, width);
                for (from, rows) in heads.blocks() {
                    let at = (head.0 * queries + from) * d + head.1 * width;
                    let row = task * queries + from;
                    let keys = heads.seen(from + rows);
                    let keys = forbidden.map_or(keys, |f| f.keys(from..from + rows, keys));
                    if keys == 0 {
                        for i in 0..rows {
                            // SAFETY: each query of each head has columns and sums of its own.
                            let (out, kept) = unsafe {
                                (
                                    outs.fresh_part(at + i * d, width),
                                    all_sums.fresh_part(2 * (row + i), 2),
                                )
                            };
                            for x in out.iter_mut().chain(kept) {
                                x.write(0.0);
                            }
                        }
                        continue;
                    }
                    let scores = &mut scores[..rows * keys];
                    block_product(
                        scores.as_mut_ptr(),
                        keys,
                        scores.len(),
                        Start::Zero,
                        Mat::strided(&q[from * q_row..], rows, width, q_row),
                        Mat::strided(k_t, width, keys, heads.keys),
                    );
                    for (i, line) in scores.chunks_exact_mut(keys).enumerate() {
                        let seen = heads.seen(from + i + 1).min(keys);
                        let softened = Softened {
                            seen,
                            scale: heads.scale,
                            forbidden: forbidden.map(|f| &f.row(from + i)[..seen]),
                            dropped: dropout.map(|dropout| (dropout, dropout.row(row + i))),
                        };
                        // SAFETY: each query of each head has a sum of its own.
                        let kept = unsafe { all_sums.fresh_part(2 * (row + i), 2) };
                        kept.write_copy_of_slice(&softened.weights(line));
                    }
                    let span = (rows - 1) * d + width;
                    block_product(
                        outs.start_of(at, span),
                        d,
                        span,
                        Start::Zero,
                        Mat::new(scores, rows, keys),
                        Mat::strided(v, keys, width, v_rows.row),
                    );
                }
            });
        });
        // SAFETY: each query of each head has written its columns and its two numbers.
        unsafe { finished(inputs, heads, out, kept) }
    }

    fn backward(
        self,
        Kept {
            inputs,
            out,
            rows: kept,
        }: Kept,
        grad: FlexTensor,
        _wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let heads = Heads::new(self.config, &inputs);
        let (queries, width, d) = (heads.queries, heads.width, heads.d_model());
        let [q_rows, k_rows, v_rows] = Rows::all(&inputs, d);
        let table = self
            .config
            .rotary
            .map(|base| Table::of(base, width, heads.keys));
        let q_turn = table.as_deref().map(|table| (table, heads.first()));
        let k_turn = table.as_deref().map(|table| (table, 0));
        let dropout = Dropout::new(self.config.dropout, self.seed);
        let grad = contiguous(&grad);
        let (out, d_out) = (values(&out), values(&grad));
        let mut results: Vec<Fresh> = inputs
            .iter()
            .map(|input| Fresh::new(elements(&dims::<3>(input))))
            .collect();
        let lengths = [queries, heads.keys, heads.keys];
        let [d_qs, d_ks, d_vs] = core::array::from_fn(|which| match &mut results[..] {
            [fused] => Gradients {
                to: fused.shared(),
                length: queries,
                row: 3 * d,
                from: which * d,
            },
            parts => Gradients {
                to: parts[which].shared(),
                length: lengths[which],
                row: d,
                from: 0,
            },
        });
        let (q_size, k_size) = (elements(&[queries, width]), elements(&[heads.keys, width]));
        let block = elements(&[QUERIES.min(queries), heads.keys]);
        each(heads.batch * heads.n, |task| {
            let head = (task / heads.n, task % heads.n);
            let forbidden = self.mask.as_ref().map(|mask| mask.sequence(head.0));
            with_scratch(2 * q_size + 6 * k_size + 2 * block, |scratch| {
                let (parts, scratch) = scratch.split_at_mut(2 * q_size);
                let (q, d_q) = parts.split_at_mut(q_size);
                let (parts, scratch) = scratch.split_at_mut(6 * k_size);
                let mut parts = parts.chunks_exact_mut(k_size);
                let mut part = || match parts.next() {
                    Some(part) => part,
                    None => unreachable!("six parts"),
                };
                let (k, v, k_t, v_t, d_k, d_v) = (part(), part(), part(), part(), part(), part());
                let (p, d_s) = scratch.split_at_mut(block);
                q_rows.gather(head, width, q_turn, q);
                k_rows.gather(head, width, k_turn, k);
                v_rows.gather(head, width, None, v);
                transpose(k, width, heads.keys, width, k_t, heads.keys);
                transpose(v, width, heads.keys, width, v_t, heads.keys);
                d_k.fill(0.0);
                d_v.fill(0.0);
                for (from, rows) in heads.blocks() {
                    let row = task * queries + from;
                    let keys = heads.seen(from + rows);
                    let keys = forbidden.map_or(keys, |f| f.keys(from..from + rows, keys));
                    let d_q = &mut d_q[from * width..(from + rows) * width];
                    if keys == 0 {
                        d_q.fill(0.0);
                        continue;
                    }
                    let at = (head.0 * queries + from) * d + head.1 * width;
                    let d_o = Mat::strided(&d_out[at..], rows, width, d);
                    let (p, d_s) = (&mut p[..rows * keys], &mut d_s[..rows * keys]);
                    let q = Mat::new(&q[from * width..], rows, width);
                    let n = rows * keys;
                    block_product(
                        p.as_mut_ptr(),
                        keys,
                        n,
                        Start::Zero,
                        q,
                        Mat::strided(k_t, width, keys, heads.keys),
                    );
                    block_product(
                        d_s.as_mut_ptr(),
                        keys,
                        n,
                        Start::Zero,
                        d_o,
                        Mat::strided(v_t, width, keys, heads.keys),
                    );
                    let lines = p.chunks_exact_mut(keys).zip(d_s.chunks_exact_mut(keys));
                    for (i, (p, d_s)) in lines.enumerate() {
                        let seen = heads.seen(from + i + 1).min(keys);
                        let forbidden = forbidden.map(|f| &f.row(from + i)[..seen]);
                        let dropped = dropout.map(|dropout| (dropout, dropout.row(row + i)));
                        let (max, inverse) = (kept[2 * (row + i)], kept[2 * (row + i) + 1]);
                        let at = at + i * d..at + i * d + width;
                        let (o, d_o) = (&out[at.clone()], &d_out[at]);
                        wide(
                            #[inline(always)]
                            || {
                                let [mean] = sums(
                                    o,
                                    d_o,
                                    #[inline(always)]
                                    |o, d_o| [o * d_o],
                                );
                                if let Some(forbidden) = forbidden {
                                    hide(p, forbidden);
                                }
                                let (p, p_beyond) = p.split_at_mut(seen);
                                let (d_s, d_s_beyond) = d_s.split_at_mut(seen);
                                let scores = p.iter_mut().zip(d_s);
                                match dropped {
                                    None => {
                                        for (p, d_s) in scores {
                                            *p = inverse * exp(*p * heads.scale - max);
                                            *d_s = *p * (*d_s - mean) * heads.scale;
                                        }
                                    }
                                    Some((dropout, of)) => {
                                        for (key, (p, d_s)) in (0u32..).zip(scores) {
                                            let factor = dropout.factor(of, key);
                                            let weight = inverse * exp(*p * heads.scale - max);
                                            *d_s = weight * (*d_s * factor - mean) * heads.scale;
                                            *p = weight * factor;
                                        }
                                    }
                                }
                                p_beyond.fill(0.0);
                                d_s_beyond.fill(0.0);
                            },
                        );
                    }
                    let (p, d_s) = (Mat::new(p, rows, keys), Mat::new(d_s, rows, keys));
                    let k = Mat::new(k, keys, width);
                    let (d_k, d_v) = (d_k.as_mut_ptr(), d_v.as_mut_ptr());
                    block_product(d_v, width, keys * width, Start::Held, p.t(), d_o);
                    block_product(d_k, width, keys * width, Start::Held, d_s.t(), q);
                    block_product(d_q.as_mut_ptr(), width, rows * width, Start::Zero, d_s, k);
                }
                // SAFETY: each head's columns are its task's alone.
                unsafe {
                    d_qs.scatter(d_q, head, width, q_turn);
                    d_ks.scatter(d_k, head, width, k_turn);
                    d_vs.scatter(d_v, head, width, None);
                }
            });
        });
        let gradients = results.into_iter().zip(&inputs).map(|(gradient, input)| {
            // SAFETY: the heads' queries, keys and values cover it.
            Some(tensor(unsafe { gradient.written() }, dims::<3>(input)))
        });
        gradients.collect()
    }
}

/// How the scores of a query become its weights.
#[derive(Clone, Copy)]
struct Softened<'a> {
    /// The keys that the causal mask leaves.
    seen: usize,
    scale: f32,
    /// The mask of these keys.
    forbidden: Option<&'a [u8]>,
    dropped: Option<(Dropout, [u32; 2])>,
}

impl Softened<'_> {
    /// Turns scores into weights, and gives the two numbers of [`softmax`]; zeros for a query without keys.
    fn weights(self, line: &mut [f32]) -> [f32; 2] {
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

/// Cosines and sines of the angles of rotary positions.
struct Table {
    length: usize,
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Table {
    /// The table for a base and a head's width, with at least `length` positions. Tables are
    /// cached.
    fn of(base: f64, width: usize, length: usize) -> Arc<Self> {
        type Tables = HashMap<(u64, usize), Arc<Table>>;
        static TABLES: LazyLock<Mutex<Tables>> = LazyLock::new(Mutex::default);
        let mut tables = match TABLES.lock() {
            Ok(tables) => tables,
            // A table is complete before it is inserted.
            Err(poisoned) => poisoned.into_inner(),
        };
        let key = (base.to_bits(), width);
        match tables.get(&key) {
            Some(table) if table.length >= length => table.clone(),
            _ => {
                let table = Arc::new(Self::new(base, width, length.next_power_of_two()));
                tables.insert(key, table.clone());
                table
            }
        }
    }

    fn new(base: f64, width: usize, length: usize) -> Self {
        let half = width / 2;
        let table = |f: fn(f64) -> f64| {
            (0..length * half)
                .map(|n| f(angle(base, n / half, n % half, width)) as f32)
                .collect()
        };
        Self {
            length,
            half,
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Rotates a head's channels at position `i`, forwards (`sign` 1) or back (−1).
    fn turn(&self, i: usize, x: &mut [f32], sign: f32) {
        let at = i * self.half..(i + 1) * self.half;
        let (a, b) = x.split_at_mut(self.half);
        for (((a, b), cos), sin) in a
            .iter_mut()
            .zip(b)
            .zip(&self.cos[at.clone()])
            .zip(&self.sin[at])
        {
            let sin = sin * sign;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
