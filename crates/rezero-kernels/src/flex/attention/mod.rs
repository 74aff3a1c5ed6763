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
mod few;
mod layout;
mod mask;
mod rotary;
mod weights;

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use self::layout::{Gradients, Heads, Rows, by_rows};
use self::mask::hide;
use self::rotary::Table;
use self::weights::Softened;
use super::dropout::Dropout;
use super::math::exp;
use super::matmul::{Mat, Start, block_product, transpose};
use super::memory::{Fresh, contiguous, dims, elements, tensor, values, with_scratch};
use super::parallel::{each, sums, wide};
use crate::attention::DotProductAttention;
use crate::draws::Draw;
use crate::op::Kernel;

pub(crate) use mask::Mask;

/// Queries of a block. More would waste time: under a causal mask, half of the scores on a block's
/// last `QUERIES` keys are masked.
const QUERIES: usize = 32;
/// Up to so many queries, [`Attention::few`] serves.
const FEW: usize = 4;

#[derive(Debug)]
pub(crate) struct Attention {
    pub config: DotProductAttention,
    pub mask: Option<Mask>,
    /// What the dropout draws from.
    pub draw: Draw,
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
    fn dropout(&self, heads: Heads) -> Option<Dropout> {
        let rows = elements(&[heads.n, heads.queries]);
        let probability = self.config.dropout;
        (probability > 0.0).then(|| Dropout::new(probability, self.draw, rows))
    }

    /// The rotary positions of the keys.
    fn table(&self, heads: Heads) -> Option<Arc<Table>> {
        let base = self.config.rotary?;
        Some(Table::of(base, heads.width, heads.keys))
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
        let table = self.table(heads);
        let table = table.as_deref();
        let dropout = self.dropout(heads);
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
        let table = self.table(heads);
        let q_turn = table.as_deref().map(|table| (table, heads.first()));
        let k_turn = table.as_deref().map(|table| (table, 0));
        let dropout = self.dropout(heads);
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
