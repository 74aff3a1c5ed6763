//! Products with a weight matrix. Bias, activation and residual sum are applied to each tile while
//! it is in cache.
//!
//! `z = x W + b`, `y = act(z)`. Backward: `dz = g ⊙ act'(z)`, `dx = dz Wᵀ`, `dW = xᵀ dz`,
//! `db = Σ_rows dz`. The ReLU's derivative is computed from its output, so `z` is not
//! stored; for other activations it is.

use core::mem::MaybeUninit;

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::activation::Unary;
use super::math::{lifted, passed};
use super::matmul::{Mat, Product, Start};
use super::memory::{
    Fresh, Shared, contiguous, dims, elements, forwards, scalar, tensor, values, values_mut,
    writable,
};
use super::parallel::{Parts, each, sums, wide};
use crate::activation::Epilogue;
use crate::op::Kernel;

/// Elements of a block of rows that is summed by columns.
const CHUNK: usize = 1 << 13;
/// The most blocks.
const BLOCKS: usize = 64;

#[derive(Debug)]
pub(crate) struct Linear {
    act: Act,
    /// Whether there may be a backward pass, which needs z of some activations.
    tracked: bool,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Identity,
    Relu,
    Unary(Unary),
}

impl Linear {
    pub fn new(epilogue: Epilogue, tracked: bool) -> Self {
        let act = match epilogue {
            Epilogue::Identity => Act::Identity,
            Epilogue::Relu => Act::Relu,
            Epilogue::Gelu => Act::Unary(Unary::Gelu),
            Epilogue::Silu => Act::Unary(Unary::Silu),
        };
        Self { act, tracked }
    }
}

/// The values that the backward pass of a linear layer needs.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    x: FlexTensor,
    weight: FlexTensor,
    /// What the activation's derivative is computed from: the output of a ReLU, z of others.
    of_act: Option<FlexTensor>,
}

impl Kernel<Flex> for Linear {
    type State = Kept;
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Kept, ()) {
        let (x, weight, bias) = (contiguous(&inputs[0]), forwards(&inputs[1]), inputs.get(2));
        let bias = bias.map(contiguous);
        let bias = bias.as_ref().map(values);
        let w = Mat::of(&weight);
        let rows = x.shape().num_elements() / w.rows;
        let n = w.cols;
        let len = elements(&[rows, n]);
        // Without a backward pass z is overwritten by the output.
        let apart = self.tracked && matches!(self.act, Act::Unary(_));
        let (mut z, mut y) = (Fresh::new(len), Fresh::new(if apart { len } else { 0 }));
        let (zs, ys) = (z.shared(), y.shared());
        let x_rows = Mat::new(values(&x), rows, w.rows);
        Product::new(zs, n, Start::Zero, x_rows, w).run(|tile| {
            if bias.is_none() && matches!(self.act, Act::Identity) {
                return;
            }
            for row in tile.row..tile.row + tile.rows {
                let from = row * n + tile.col;
                // SAFETY: tiles are disjoint, and this one's product is done.
                let z = unsafe { zs.part(from, tile.cols) };
                // SAFETY: as above.
                let y = apart.then(|| unsafe { ys.fresh_part(from, tile.cols) });
                let bias = bias.map(|b| &b[tile.col..tile.col + tile.cols]);
                wide(
                    #[inline(always)]
                    || finish(z, y, bias, self.act),
                );
            }
        });
        let mut shape = x.shape();
        let last = shape.num_dims() - 1;
        shape[last] = n;
        // SAFETY: the product's tiles cover both, or the second is empty.
        let (z, y) = unsafe { (z.written(), y.written()) };
        let z = tensor(z, shape.clone());
        let y = match apart {
            true => tensor(y, shape),
            false => z.clone(),
        };
        let kept = Kept {
            x,
            weight: weight.clone(),
            of_act: (!matches!(self.act, Act::Identity)).then_some(z),
        };
        (y, kept, ())
    }

    fn backward(
        self,
        Kept { x, weight, of_act }: Kept,
        grad: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let w = Mat::of(&weight);
        let n = w.cols;
        let wants_bias = wanted.get(2).is_some_and(|&w| w);
        let (mut owned, borrowed);
        let mut d_bias = None;
        let dz: &[f32] = match &of_act {
            Some(of_act) => {
                owned = writable(grad);
                let of_act = values(of_act);
                let dz = Shared::new(values_mut(&mut owned));
                d_bias = Some(column_sums(
                    of_act.len() / n,
                    n,
                    #[inline(always)]
                    |row, sums| {
                        // SAFETY: one task a row.
                        let dz = unsafe { dz.part(row * n, n) };
                        let of_act = &of_act[row * n..(row + 1) * n];
                        match self.act {
                            Act::Identity => {}
                            Act::Relu => {
                                for (dz, y) in dz.iter_mut().zip(of_act) {
                                    *dz = passed(*dz, *y, 0.0);
                                }
                            }
                            Act::Unary(act) => act.back(of_act, dz),
                        }
                        for (sum, dz) in sums.iter_mut().zip(dz) {
                            *sum += *dz;
                        }
                    },
                ));
                values(&owned)
            }
            None => {
                borrowed = contiguous(&grad);
                values(&borrowed)
            }
        };
        let rows = dz.len() / n;
        if wants_bias && d_bias.is_none() {
            d_bias = Some(column_sums(
                rows,
                n,
                #[inline(always)]
                |row, sums| {
                    for (sum, dz) in sums.iter_mut().zip(&dz[row * n..(row + 1) * n]) {
                        *sum += dz;
                    }
                },
            ));
        }
        let dz = Mat::new(dz, rows, n);
        let memory = |wanted: bool, extents: [usize; 2]| {
            Fresh::new(if wanted { elements(&extents) } else { 0 })
        };
        let mut d_x = memory(wanted[0], [rows, w.rows]);
        let mut d_w = memory(wanted[1], [w.rows, n]);
        let mut products = Vec::with_capacity(2);
        if wanted[0] {
            let out = d_x.shared();
            products.push(Product::new(out, w.rows, Start::Zero, dz, w.t()));
        }
        if wanted[1] {
            let x_rows = Mat::new(values(&x), rows, w.rows);
            let out = d_w.shared();
            products.push(Product::new(out, n, Start::Zero, x_rows.t(), dz));
        }
        Product::run_all(&products);
        drop(products);
        // SAFETY: what is wanted, a product's tiles cover; the rest is empty.
        let (d_x, d_w) = unsafe { (d_x.written(), d_w.written()) };
        let mut found = vec![
            wanted[0].then(|| tensor(d_x, x.shape())),
            wanted[1].then(|| tensor(d_w, [w.rows, n])),
        ];
        if wanted.len() > 2 {
            let d_bias = d_bias.filter(|_| wants_bias);
            found.push(d_bias.map(|sums| tensor(sums, [n])));
        }
        found
    }
}

/// `y = x + α·r`, `r = relu(x W + b)`. Backward: `dz = α·g ⊙ [r > 0]`, `dx = g + dz Wᵀ`,
/// `dα = Σ g·r`.
#[derive(Debug)]
pub(crate) struct GatedLinear;

/// The values that the backward pass of [`GatedLinear`] needs.
#[derive(Clone, Debug)]
pub(crate) struct GatedKept {
    x: FlexTensor,
    weight: FlexTensor,
    r: FlexTensor,
    alpha: f32,
}

impl Kernel<Flex> for GatedLinear {
    type State = GatedKept;
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, GatedKept, ()) {
        let [x, weight, bias, alpha] = inputs else {
            unreachable!("four inputs")
        };
        let (x, bias, alpha) = (contiguous(x), contiguous(bias), scalar(alpha));
        let weight = forwards(weight);
        let [rows, n] = dims(&x);
        let (xs, bias) = (values(&x), values(&bias));
        let (mut r, mut out) = (Fresh::new(xs.len()), Fresh::new(xs.len()));
        let (rs, outs) = (r.shared(), out.shared());
        Product::new(rs, n, Start::Zero, Mat::new(xs, rows, n), Mat::of(&weight)).run(|tile| {
            let bias = &bias[tile.col..tile.col + tile.cols];
            for row in tile.row..tile.row + tile.rows {
                let from = row * n + tile.col;
                // SAFETY: tiles are disjoint, and this one's product is in `r`.
                let (r, out) =
                    unsafe { (rs.part(from, tile.cols), outs.fresh_part(from, tile.cols)) };
                let x = &xs[from..from + tile.cols];
                wide(
                    #[inline(always)]
                    || {
                        for (((r, out), x), b) in r.iter_mut().zip(out).zip(x).zip(bias) {
                            *r = lifted(*r + b, 0.0);
                            out.write(x + alpha * *r);
                        }
                    },
                );
            }
        });
        // SAFETY: the tiles cover both.
        let (r, out) = unsafe { (r.written(), out.written()) };
        let kept = GatedKept {
            r: tensor(r, [rows, n]),
            weight,
            alpha,
            x,
        };
        (tensor(out, [rows, n]), kept, ())
    }

    fn backward(
        self,
        GatedKept {
            x,
            weight,
            r,
            alpha,
        }: GatedKept,
        grad: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let [rows, n] = dims(&x);
        let mut grad = writable(grad);
        let g = values(&grad);
        let mut dz = Fresh::new(g.len());
        let mut d_alphas = vec![0.0; rows];
        let (dzs, totals) = (dz.shared(), Shared::new(&mut d_alphas));
        let rs = values(&r);
        let d_bias = column_sums(
            rows,
            n,
            #[inline(always)]
            |row, d_bias| {
                let (g, r) = (&g[row * n..(row + 1) * n], &rs[row * n..(row + 1) * n]);
                // SAFETY: one task a row.
                let (dz, d_alpha) = unsafe { (dzs.fresh_part(row * n, n), totals.part(row, 1)) };
                d_alpha[0] = sums(
                    g,
                    r,
                    #[inline(always)]
                    |g, r| [g * r],
                )[0];
                for (((d_bias, dz), g), r) in d_bias.iter_mut().zip(dz).zip(g).zip(r) {
                    *d_bias += *dz.write(passed(alpha * g, *r, 0.0));
                }
            },
        );
        let w = Mat::of(&weight);
        // SAFETY: the rows cover it.
        let dz = unsafe { dz.written() };
        let dz = Mat::new(&dz, rows, n);
        let mut d_w = Fresh::new(if wanted[1] { elements(&[n, n]) } else { 0 });
        let mut products = Vec::with_capacity(2);
        if wanted[0] {
            // dx is written over g, which nothing reads any more.
            let out = Shared::new(values_mut(&mut grad));
            products.push(Product::new(out, n, Start::Held, dz, w.t()));
        }
        if wanted[1] {
            let out = d_w.shared();
            let x_rows = Mat::new(values(&x), rows, n);
            products.push(Product::new(out, n, Start::Zero, x_rows.t(), dz));
        }
        Product::run_all(&products);
        drop(products);
        let d_alpha = d_alphas.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
        vec![
            wanted[0].then_some(grad),
            // SAFETY: the product's tiles cover it.
            wanted[1].then(|| tensor(unsafe { d_w.written() }, [n, n])),
            wanted[2].then(|| tensor(d_bias, [n])),
            wanted[3].then(|| tensor(vec![d_alpha], [1])),
        ]
    }
}

/// Adds the bias to a row of a product and applies the activation: in place, or from `z` to `y`.
#[inline(always)]
fn finish(z: &mut [f32], y: Option<&mut [MaybeUninit<f32>]>, bias: Option<&[f32]>, act: Act) {
    if let Some(bias) = bias {
        for (z, b) in z.iter_mut().zip(bias) {
            *z += b;
        }
    }
    match (act, y) {
        (Act::Identity, _) => {}
        (Act::Relu, _) => {
            for z in z {
                *z = lifted(*z, 0.0);
            }
        }
        (Act::Unary(act), Some(y)) => act.apply(z, y),
        (Act::Unary(act), None) => act.apply_in_place(z),
    }
}

/// `n` sums over all rows; `add(row, sums)` adds one row to them. Each block of rows has its own
/// sums, which are added in order.
pub(super) fn column_sums(
    rows: usize,
    n: usize,
    add: impl Fn(usize, &mut [f32]) + Sync + Send,
) -> Vec<f32> {
    // A few blocks even for a small matrix, but so few that adding up their sums takes little time. They do not depend on the
    // threads, and neither do the sums.
    let blocks = Parts::new(rows, rows.div_ceil((rows * n / CHUNK).clamp(1, BLOCKS)));
    let mut partial = vec![0.0; blocks.count() * n];
    let shared = Shared::new(&mut partial);
    each(blocks.count(), |i| {
        let (from, len) = blocks.get(i);
        // SAFETY: one row of sums a block.
        let sums = unsafe { shared.part(i * n, n) };
        wide(
            #[inline(always)]
            || {
                for row in from..from + len {
                    add(row, sums);
                }
            },
        );
    });
    let (first, rest) = partial.split_at(n);
    let mut total = first.to_vec();
    wide(
        #[inline(always)]
        || {
            for block in rest.chunks_exact(n) {
                for (total, x) in total.iter_mut().zip(block) {
                    *total += x;
                }
            }
        },
    );
    total
}
