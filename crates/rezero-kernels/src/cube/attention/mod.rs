//! Scaled dot-product attention in blocks, by the formulas of the kernel for Flex: no scores of a whole sequence are in memory.
//!
//! A cube has a block of queries (or of keys, for their gradients) of one head, whose rows stay in shared memory, and walks along the blocks of the other side. Each
//! pair of blocks is a few products of small tiles, see [`tiles`]. The forward pass rescales its sums when a block has a larger score (Dao et al.,
//! [arXiv 2205.14135](https://arxiv.org/abs/2205.14135), section 3.1). Backward, the cubes of the queries and those of the keys and values compute the
//! weights of a pair of blocks each: so no two cubes add to the same number, and results are the same in each run.
//!
//! Products of bf16 round what they multiply to bf16 and add in f32.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{Bool, DType, Shape, Tensor as BurnTensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use self::kernels::{How, SizesLaunch, ViewLaunch};
use super::dropout::Rule;
use super::ops::CubeOps;
use super::{
    Rows, UNITS, buffer, client, contiguous, fresh, grid, grid_of, group_of, integers, values,
};
use crate::attention::DotProductAttention;
use crate::draws::{Draw, in_memory};
use crate::op::{Kernel, run};

mod kernels;
mod tiles;

/// Rows of a block, the largest first.
const BLOCKS: [usize; 3] = [64, 32, 16];
/// Up to so many queries, the forward pass has a block of as many.
const FEW: usize = 16;
/// Buffers of the backward pass, with one for the sizes.
const BUFFERS: u32 = 10;
/// The widest head.
const WIDEST: usize = 256;

/// What a call computes, but for its tensors.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub heads: usize,
    causal: bool,
    masked: bool,
    rule: Option<Rule>,
    /// Whether products are of bf16.
    narrow: bool,
}

#[derive(Clone, Debug)]
struct Attention {
    plan: Plan,
    /// Not 0 where attention is forbidden, `[1 or batch, 1 or queries, keys]`; any tensor without a mask.
    mask: IntTensor<Cube>,
    /// Any tensor without dropout.
    seed: IntTensor<Cube>,
}

/// Attention of q, k and v, or of the three side by side, on a CubeCL backend, without rotary positions. `None` if the kernels do not serve them.
pub(crate) fn attend<const N: usize>(
    config: &DotProductAttention,
    parts: [&BurnTensor<3>; N],
    mask: Option<&BurnTensor<3, Bool>>,
    draw: Draw,
) -> Option<BurnTensor<3>> {
    let narrow = match config.products {
        None | Some(DType::F32) => false,
        Some(DType::BF16) => true,
        Some(_) => return None,
    };
    let inputs = values(parts.map(|part| part.clone().into_dispatch()))?;
    let device = parts[0].device().inner();
    let [batch, queries, row] = parts[0].dims();
    let width = row / if N == 1 { 3 } else { 1 };
    let counted = |n: usize| u32::try_from(n).is_ok();
    // Two numbers of each query and head lie in one buffer, and so do the gradients of keys and values.
    let both = 2 * parts[N / 2].shape().num_elements();
    if !counted(2 * batch * config.n_heads * queries)
        || !counted(both)
        || !mask.is_none_or(|mask| counted(mask.shape().num_elements()))
        || !serves(width / config.n_heads, both, parts[0])
    {
        return None;
    }
    let nothing = integers(crate::constants::nothing(&device).into_dispatch())?;
    let rows = config.n_heads * queries;
    let rule = (config.dropout > 0.0).then(|| Rule::new(batch * rows, config.dropout, draw, rows));
    let kernel = Attention {
        plan: Plan {
            heads: config.n_heads,
            causal: config.causal,
            masked: mask.is_some(),
            rule,
            narrow,
        },
        mask: match mask {
            Some(mask) => integers(mask.clone().int().cast(DType::U32).into_dispatch())?,
            None => nothing.clone(),
        },
        seed: match rule {
            Some(_) => integers(in_memory(draw, &device).into_dispatch())?,
            None => nothing,
        },
    };
    Some(run(kernel, inputs).0)
}

/// Whether the tiles of such heads fit into the device's shared memory, in both directions, and its largest gradient into a buffer.
fn serves(width: usize, numbers: usize, like: &BurnTensor<3>) -> bool {
    let Some(client) = client(like.clone().into_dispatch()) else {
        return false;
    };
    let properties = client.properties();
    let (hardware, page) = (&properties.hardware, properties.memory.max_page_size);
    let fits = block(width, hardware.max_shared_memory_size, true).is_some();
    let bytes = (numbers * size_of::<f32>()) as u64;
    fits && width > 0 && width <= WIDEST && hardware.max_bindings >= BUFFERS && bytes <= page
}

/// The rows of a block whose tiles fit into `most` bytes of shared memory.
fn block(width: usize, most: usize, backward: bool) -> Option<usize> {
    let fits = |rows: &&usize| How::bytes(**rows, width, backward) <= most;
    BLOCKS.iter().find(fits).copied()
}

impl Kernel<Cube> for Attention {
    /// The inputs, the output, and the largest score and the inverse sum of each query and head.
    type State = (Vec<FloatTensor<Cube>>, [FloatTensor<Cube>; 2]);
    type Aux = ();

    fn forward(&self, inputs: &[FloatTensor<Cube>]) -> (FloatTensor<Cube>, Self::State, ()) {
        let (mask, seed) = (self.mask.clone(), self.seed.clone());
        let (output, kept) = match inputs {
            [qkv] => Cube::rezero_attention_self(qkv.clone(), mask, seed, self.plan),
            [q, k, v] => {
                Cube::rezero_attention(q.clone(), k.clone(), v.clone(), mask, seed, self.plan)
            }
            _ => unreachable!("one input or three"),
        };
        (output.clone(), (inputs.to_vec(), [output, kept]), ())
    }

    fn backward(
        self,
        (inputs, [output, kept]): Self::State,
        grad: FloatTensor<Cube>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Cube>>> {
        let Self { plan, mask, seed } = self;
        let means = Cube::rezero_attention_means(grad.clone(), output, plan.heads);
        match &inputs[..] {
            [qkv] => {
                let qkv = qkv.clone();
                vec![Some(Cube::rezero_attention_self_backward(
                    grad, qkv, kept, means, mask, seed, plan,
                ))]
            }
            [q, k, v] => {
                let (q, k, v) = (q.clone(), k.clone(), v.clone());
                let of_q = wanted[0].then(|| {
                    let (grad, q, k, v) = (grad.clone(), q.clone(), k.clone(), v.clone());
                    let (kept, means) = (kept.clone(), means.clone());
                    let (mask, seed) = (mask.clone(), seed.clone());
                    Cube::rezero_attention_queries(grad, q, k, v, kept, means, mask, seed, plan)
                });
                let mut found = vec![of_q, None, None];
                if wanted[1] || wanted[2] {
                    let (of_k, of_v) =
                        Cube::rezero_attention_keys(grad, q, k, v, kept, means, mask, seed, plan);
                    found[1] = wanted[1].then_some(of_k);
                    found[2] = wanted[2].then_some(of_v);
                }
                found
            }
            _ => unreachable!("one input or three"),
        }
    }
}

/// Where the rows of a tensor `[batch, length, ..]` are.
#[derive(Clone, Copy)]
struct View {
    batch: usize,
    row: usize,
    from: usize,
}

impl View {
    /// Rows of `row` numbers, of which those from `from` on are read.
    fn new(length: usize, row: usize, from: usize) -> Self {
        let batch = length * row;
        Self { batch, row, from }
    }

    fn launch(self) -> ViewLaunch {
        ViewLaunch::new(self.batch as u32, self.row as u32, self.from as u32)
    }
}

/// Queries, keys and values in memory.
struct Parts {
    tensors: [CubeTensor; 3],
    views: [View; 3],
    batch: usize,
    queries: usize,
    keys: usize,
    /// The numbers of a head.
    width: usize,
}

impl Parts {
    fn of(inputs: [CubeTensor; 3], plan: Plan) -> Self {
        let tensors = contiguous(inputs);
        let [batch, queries, row] = dims(&tensors[0]);
        let keys = dims(&tensors[1])[1];
        let views = [queries, keys, keys].map(|length| View::new(length, row, 0));
        let width = row / plan.heads;
        Self {
            tensors,
            views,
            batch,
            queries,
            keys,
            width,
        }
    }

    /// Of one tensor with the three side by side.
    fn of_one(qkv: CubeTensor, plan: Plan) -> Self {
        let qkv = into_contiguous(qkv);
        let [batch, queries, row] = dims(&qkv);
        let views = [0, 1, 2].map(|part| View::new(queries, row, part * (row / 3)));
        Self {
            tensors: [qkv.clone(), qkv.clone(), qkv],
            views,
            batch,
            queries,
            keys: queries,
            width: row / 3 / plan.heads,
        }
    }

    /// The numbers that a unit reads at once: 4 where all rows of a head begin at multiples of 4.
    fn vector(&self) -> usize {
        let all = self.views.iter().flat_map(|view| [view.row, view.from]);
        match all.chain([self.width]).all(|n| n.is_multiple_of(4)) {
            true => 4,
            false => 1,
        }
    }

    /// The block of the pass.
    fn block(&self, backward: bool) -> usize {
        let most = self.tensors[0]
            .client
            .properties()
            .hardware
            .max_shared_memory_size;
        block(self.width, most, backward).expect("served")
    }

    fn how(&self, plan: Plan, [resident, streamed]: [usize; 2], of_keys: bool) -> How {
        How {
            width: self.width,
            resident,
            streamed,
            of_keys,
            causal: plan.causal,
            masked: plan.masked,
            dropped: plan.rule.is_some(),
            narrow: plan.narrow,
        }
    }

    fn sizes(&self, plan: Plan, mask: &CubeTensor, cubes: usize) -> SizesLaunch {
        let [mask_batch, mask_row] = match plan.masked {
            true => {
                let [n, q, keys] = dims(mask);
                let of = |length: usize, stride: usize| if length > 1 { stride } else { 0 };
                [of(n, q * keys), of(q, keys)]
            }
            false => [0, 0],
        };
        let rule = plan.rule.unwrap_or_default();
        SizesLaunch::new(
            plan.heads as u32,
            self.queries as u32,
            self.keys as u32,
            cubes as u32,
            mask_batch as u32,
            mask_row as u32,
            1.0 / (self.width as f32).sqrt(),
            rule.numbers(self.keys),
        )
    }
}

fn dims(tensor: &CubeTensor) -> [usize; 3] {
    tensor.shape().dims()
}

/// The output, and two numbers for each query of each head.
pub(super) fn forward(
    inputs: [CubeTensor; 3],
    mask: CubeTensor,
    seed: CubeTensor,
    plan: Plan,
) -> (CubeTensor, CubeTensor) {
    attention(&Parts::of(inputs, plan), [mask, seed], plan)
}

/// [`forward`] of one tensor.
pub(super) fn forward_self(
    qkv: CubeTensor,
    mask: CubeTensor,
    seed: CubeTensor,
    plan: Plan,
) -> (CubeTensor, CubeTensor) {
    attention(&Parts::of_one(qkv, plan), [mask, seed], plan)
}

fn attention(parts: &Parts, integers: [CubeTensor; 2], plan: Plan) -> (CubeTensor, CubeTensor) {
    let [mask, seed] = contiguous(integers);
    let [q, k, v] = &parts.tensors;
    let row = parts.width * plan.heads;
    let heads = parts.batch * plan.heads;
    let output = fresh(q, Shape::new([parts.batch, parts.queries, row]));
    let kept = fresh(q, Shape::new([heads * parts.queries, 2]));
    let streamed = parts.block(false);
    let resident = if parts.queries <= FEW { FEW } else { streamed };
    let how = parts.how(plan, [resident, streamed], false);
    let cubes = heads * parts.queries.div_ceil(resident);
    let [of_q, of_k, of_v] = parts.views.map(View::launch);
    kernels::forward::launch(
        &q.client,
        grid_of(cubes),
        CubeDim::new_1d(how.units() as u32),
        parts.vector(),
        buffer(q),
        buffer(k),
        buffer(v),
        buffer(&mask),
        buffer(&seed),
        buffer(&output),
        buffer(&kept),
        of_q,
        of_k,
        of_v,
        parts.sizes(plan, &mask, cubes),
        how,
    );
    (output, kept)
}

/// `rowsum(dO ⊙ O)` of each query of each head.
pub(super) fn means(grad: CubeTensor, output: CubeTensor, heads: usize) -> CubeTensor {
    let [grad, output] = contiguous([grad, output]);
    let [batch, queries, row] = dims(&output);
    let rows = batch * queries * heads;
    let means = fresh(&output, Shape::new([rows]));
    let width = row / heads;
    let group = group_of(width);
    kernels::means::launch(
        &output.client,
        grid(rows * group),
        CubeDim::new_1d(UNITS),
        buffer(&grad),
        buffer(&output),
        buffer(&means),
        rows as u32,
        queries as u32,
        heads as u32,
        width as u32,
        group,
    );
    means
}

/// What the backward pass reads beside queries, keys and values: dO, the two numbers of each query, its mean, mask and seed.
pub(super) struct Given {
    grad: CubeTensor,
    kept: CubeTensor,
    means: CubeTensor,
    mask: CubeTensor,
    seed: CubeTensor,
}

impl Given {
    pub fn new(floats: [CubeTensor; 3], integers: [CubeTensor; 2]) -> Self {
        let [grad, kept, means] = contiguous(floats);
        let [mask, seed] = contiguous(integers);
        Self {
            grad,
            kept,
            means,
            mask,
            seed,
        }
    }
}

/// The gradient of the queries.
pub(super) fn of_queries(inputs: [CubeTensor; 3], given: Given, plan: Plan) -> CubeTensor {
    let parts = Parts::of(inputs, plan);
    let to = fresh(&parts.tensors[0], parts.tensors[0].shape());
    gradients(&parts, &given, plan, false, &to, [parts.views[0]; 2]);
    to
}

/// The gradients of the keys and the values.
pub(super) fn of_keys(
    inputs: [CubeTensor; 3],
    given: Given,
    plan: Plan,
) -> (CubeTensor, CubeTensor) {
    let parts = Parts::of(inputs, plan);
    let shape = parts.tensors[1].shape();
    let both = Rows::new(&parts.tensors[1], 2, shape.num_elements());
    let view = parts.views[1];
    let second = View {
        from: both.stride() as usize,
        ..view
    };
    gradients(&parts, &given, plan, true, &both.all, [view, second]);
    let [of_k, of_v] = [0, 1].map(|i| both.shaped(i, shape.clone()));
    (of_k, of_v)
}

/// The gradient of queries, keys and values side by side.
pub(super) fn of_all(qkv: CubeTensor, given: Given, plan: Plan) -> CubeTensor {
    let parts = Parts::of_one(qkv, plan);
    let to = fresh(&parts.tensors[0], parts.tensors[0].shape());
    let [of_q, of_k, of_v] = parts.views;
    gradients(&parts, &given, plan, false, &to, [of_q; 2]);
    gradients(&parts, &given, plan, true, &to, [of_k, of_v]);
    to
}

/// Writes the gradient of the queries, or those of the keys and values, to both places of `to`.
fn gradients(
    parts: &Parts,
    given: &Given,
    plan: Plan,
    of_keys: bool,
    to: &CubeTensor,
    places: [View; 2],
) {
    let [q, k, v] = &parts.tensors;
    let [of_q, of_k, of_v] = parts.views;
    let of_grad = View::new(parts.queries, parts.width * plan.heads, 0);
    let block = parts.block(true);
    let how = parts.how(plan, [block; 2], of_keys);
    let ours = if of_keys { parts.keys } else { parts.queries };
    let cubes = parts.batch * plan.heads * ours.div_ceil(block);
    // The rows of a block stay; those of the other side come.
    let queries = [(q, of_q), (&given.grad, of_grad)];
    let keys = [(k, of_k), (v, of_v)];
    let [stay, come] = match of_keys {
        true => [keys, queries],
        false => [queries, keys],
    };
    kernels::backward::launch(
        &q.client,
        grid_of(cubes),
        CubeDim::new_1d(how.units() as u32),
        parts.vector(),
        buffer(stay[0].0),
        buffer(stay[1].0),
        buffer(come[0].0),
        buffer(come[1].0),
        buffer(&given.kept),
        buffer(&given.means),
        buffer(&given.mask),
        buffer(&given.seed),
        buffer(to),
        stay[0].1.launch(),
        stay[1].1.launch(),
        come[0].1.launch(),
        come[1].1.launch(),
        places[0].launch(),
        places[1].launch(),
        parts.sizes(plan, &given.mask, cubes),
        how,
    );
}
