//! Self-attention, a task for each head of each sequence, a block of queries at a time.
//!
//! Forward: `S = Q Kᵀ/√d`, `P = exp(S − m)/s` with `m` the largest score of a row and
//! `s = Σ exp(S − m)`, `O = P V`. Only a block of rows of S is in memory; under a causal mask its
//! columns end at its last query. For the backward pass the kernel stores the input, O, m and 1/s.
//!
//! Backward, from `dO`: P again from Q, K, m and 1/s; `dV = Pᵀ dO`, `dP = dO Vᵀ`,
//! `dS = P ⊙ (dP − rowsum(dO ⊙ O))`, `dQ = dS K/√d`, `dK = dSᵀ Q/√d`.
//!
//! A task copies its head's queries and keys out of the input's rows and rotates them. It also
//! transposes the keys, and in the backward pass the values, because `gemm` packs these faster.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::math::exp;
use super::matmul::{Mat, Start, block_product, transpose};
use super::memory::{Fresh, Shared, contiguous, dims, elements, tensor, values, with_scratch};
use super::op::Kernel;
use super::parallel::{each, sum, sums, wide};
use crate::attention::{SelfAttention, angle};

/// Queries of a block. More would waste time: under a causal mask, half of the scores on a block's
/// last `QUERIES` keys are masked.
const QUERIES: usize = 32;

#[derive(Debug)]
pub(crate) struct Attention(pub SelfAttention);

#[derive(Clone, Debug)]
pub(crate) struct Kept {
    qkv: FlexTensor,
    out: FlexTensor,
    /// Two numbers per query, for each head of each sequence: see [`softmax`].
    rows: Vec<f32>,
}

/// The extents of one call.
#[derive(Clone, Copy)]
struct Heads {
    batch: usize,
    length: usize,
    n: usize,
    width: usize,
    causal: bool,
    scale: f32,
}

impl Heads {
    fn new(config: SelfAttention, qkv: &FlexTensor) -> Self {
        let [batch, length, all] = dims(qkv);
        let width = all / 3 / config.n_heads;
        Self {
            batch,
            length,
            n: config.n_heads,
            width,
            causal: config.causal,
            scale: 1.0 / (width as f32).sqrt(),
        }
    }

    fn d_model(self) -> usize {
        self.n * self.width
    }

    /// The number of keys that the queries before `last` attend to.
    fn keys(self, last: usize) -> usize {
        if self.causal { last } else { self.length }
    }

    /// The blocks of queries: the first query of each, and the number of queries.
    fn blocks(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.length)
            .step_by(QUERIES)
            .map(move |from| (from, QUERIES.min(self.length - from)))
    }

    /// Copies part `which` (0: queries, 1: keys, 2: values) of a head, rotated by `table`.
    fn gather(
        self,
        qkv: &[f32],
        (b, h): (usize, usize),
        which: usize,
        table: Option<&Table>,
        to: &mut [f32],
    ) {
        let (d, width) = (self.d_model(), self.width);
        for i in 0..self.length {
            let from = (b * self.length + i) * 3 * d + which * d + h * width;
            let to = &mut to[i * width..(i + 1) * width];
            to.copy_from_slice(&qkv[from..from + width]);
            if let Some(table) = table {
                table.turn(i, to, 1.0);
            }
        }
    }

    /// The reverse of [`gather`](Self::gather) for gradients.
    ///
    /// # Safety
    ///
    /// No other task uses the head's part of `to`.
    unsafe fn scatter(
        self,
        from: &mut [f32],
        (b, h): (usize, usize),
        which: usize,
        table: Option<&Table>,
        to: Shared,
    ) {
        let (d, width) = (self.d_model(), self.width);
        for (i, from) in from.chunks_exact_mut(width).enumerate() {
            if let Some(table) = table {
                table.turn(i, from, -1.0);
            }
            let at = (b * self.length + i) * 3 * d + which * d + h * width;
            // SAFETY: as the caller promises.
            unsafe { to.fresh_part(at, width) }.write_copy_of_slice(from);
        }
    }
}

impl Kernel for Attention {
    type State = Kept;
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Kept, ()) {
        let qkv = contiguous(&inputs[0]);
        let heads = Heads::new(self.0, &qkv);
        let (length, width, d) = (heads.length, heads.width, heads.d_model());
        let table = self.0.rotary.map(|base| Table::of(base, width, length));
        let table = table.as_deref();
        let mut out = Fresh::new(elements(&[heads.batch, length, d]));
        let mut kept = Fresh::new(elements(&[2, heads.batch, heads.n, length]));
        let (outs, all_sums, input) = (out.shared(), kept.shared(), values(&qkv));
        let size = length * width;
        each(heads.batch * heads.n, |task| {
            let head = (task / heads.n, task % heads.n);
            with_scratch(3 * size + QUERIES * length, |scratch| {
                let (q, scratch) = scratch.split_at_mut(size);
                let (k, scratch) = scratch.split_at_mut(size);
                let (k_t, scores) = scratch.split_at_mut(size);
                heads.gather(input, head, 0, table, q);
                heads.gather(input, head, 1, table, k);
                transpose(k, width, length, width, k_t, length);
                let v = &input[head.0 * length * 3 * d + 2 * d + head.1 * width..];
                for (from, rows) in heads.blocks() {
                    let keys = heads.keys(from + rows);
                    let q = Mat::new(&q[from * width..], rows, width);
                    let k_t = Mat::strided(k_t, width, keys, length);
                    let scores = &mut scores[..rows * keys];
                    block_product(scores.as_mut_ptr(), keys, scores.len(), Start::Zero, q, k_t);
                    for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
                        let seen = if heads.causal { from + i + 1 } else { keys };
                        // SAFETY: each query of each head has a sum of its own.
                        let kept =
                            unsafe { all_sums.fresh_part(2 * (task * length + from + i), 2) };
                        let found = wide(
                            #[inline(always)]
                            || softmax(row, seen, heads.scale),
                        );
                        kept.write_copy_of_slice(&found);
                    }
                    let at = (head.0 * length + from) * d + head.1 * width;
                    let span = (rows - 1) * d + width;
                    block_product(
                        outs.start_of(at, span),
                        d,
                        span,
                        Start::Zero,
                        Mat::new(scores, rows, keys),
                        Mat::strided(v, keys, width, 3 * d),
                    );
                }
            });
        });
        // SAFETY: each query of each head has written its columns and its two numbers.
        let (out, kept) = unsafe { (out.written(), kept.written()) };
        let out = tensor(out, [heads.batch, length, d]);
        let kept = Kept {
            qkv,
            out: out.clone(),
            rows: kept,
        };
        (out, kept, ())
    }

    fn backward(
        self,
        Kept {
            qkv,
            out,
            rows: kept,
        }: Kept,
        grad: FlexTensor,
        _wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let heads = Heads::new(self.0, &qkv);
        let (length, width, d) = (heads.length, heads.width, heads.d_model());
        let table = self.0.rotary.map(|base| Table::of(base, width, length));
        let table = table.as_deref();
        let grad = contiguous(&grad);
        let (input, out, d_out) = (values(&qkv), values(&out), values(&grad));
        let mut d_qkv = Fresh::new(input.len());
        let shared = d_qkv.shared();
        let size = length * width;
        each(heads.batch * heads.n, |task| {
            let head = (task / heads.n, task % heads.n);
            with_scratch(8 * size + 2 * QUERIES * length, |scratch| {
                let (parts, scratch) = scratch.split_at_mut(8 * size);
                let mut parts = parts.chunks_exact_mut(size);
                let mut part = || match parts.next() {
                    Some(part) => part,
                    None => unreachable!("eight parts"),
                };
                let (q, k, v, k_t, v_t) = (part(), part(), part(), part(), part());
                let (d_q, d_k, d_v) = (part(), part(), part());
                let (p, d_s) = scratch.split_at_mut(QUERIES * length);
                heads.gather(input, head, 0, table, q);
                heads.gather(input, head, 1, table, k);
                heads.gather(input, head, 2, None, v);
                transpose(k, width, length, width, k_t, length);
                transpose(v, width, length, width, v_t, length);
                d_k.fill(0.0);
                d_v.fill(0.0);
                for (from, rows) in heads.blocks() {
                    let keys = heads.keys(from + rows);
                    let at = (head.0 * length + from) * d + head.1 * width;
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
                        Mat::strided(k_t, width, keys, length),
                    );
                    block_product(
                        d_s.as_mut_ptr(),
                        keys,
                        n,
                        Start::Zero,
                        d_o,
                        Mat::strided(v_t, width, keys, length),
                    );
                    let lines = p.chunks_exact_mut(keys).zip(d_s.chunks_exact_mut(keys));
                    for (i, (p, d_s)) in lines.enumerate() {
                        let seen = if heads.causal { from + i + 1 } else { keys };
                        let row = 2 * (task * length + from + i);
                        let (max, inverse) = (kept[row], kept[row + 1]);
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
                                let (p, p_beyond) = p.split_at_mut(seen);
                                let (d_s, d_s_beyond) = d_s.split_at_mut(seen);
                                for (p, d_s) in p.iter_mut().zip(d_s) {
                                    *p = inverse * exp(*p * heads.scale - max);
                                    *d_s = *p * (*d_s - mean) * heads.scale;
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
                    let d_q = &mut d_q[from * width..(from + rows) * width];
                    block_product(d_q.as_mut_ptr(), width, rows * width, Start::Zero, d_s, k);
                }
                // SAFETY: each head's columns are its task's alone.
                unsafe {
                    heads.scatter(d_q, head, 0, table, shared);
                    heads.scatter(d_k, head, 1, table, shared);
                    heads.scatter(d_v, head, 2, None, shared);
                }
            });
        });
        // SAFETY: the heads' queries, keys and values cover it.
        vec![Some(tensor(unsafe { d_qkv.written() }, qkv.shape()))]
    }
}

/// Turns the first `seen` scores of a row into weights that sum to 1, and the other scores into
/// zeros. Gives the largest scaled score m and `1 / Σ exp(scaled score − m)`. (The single number
/// `m + log Σ exp(…)` would be rounded to the last digit of m, and the weights of the backward pass
/// would not sum to 1.)
#[inline(always)]
fn softmax(row: &mut [f32], seen: usize, scale: f32) -> [f32; 2] {
    let (row, beyond) = row.split_at_mut(seen);
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
    beyond.fill(0.0);
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
