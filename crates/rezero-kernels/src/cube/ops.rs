//! The kernels as operations of a backend. The macro writes the version that Burn's fusion queues.

// The macro writes a function for each backend, with the arguments one by one.
#![allow(clippy::too_many_arguments)]

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;

use super::attention::{self, Given, Plan};
use super::dropout::Rule;
use super::{batch_norm, conv, cross_entropy, dropout, gate, images, optim, row_norm};

fn one(like: &TensorSpec) -> TensorSpec {
    TensorSpec::new([1].into(), like.dtype)
}

fn per_row(logits: &TensorSpec) -> TensorSpec {
    TensorSpec::new([logits.shape[0]].into(), logits.dtype)
}

/// Two numbers for each row of the last axis.
fn pairs(x: &TensorSpec) -> TensorSpec {
    let channels = x.shape[x.shape.num_dims() - 1];
    let rows = x.shape.num_elements() / channels;
    TensorSpec::new([rows, 2].into(), x.dtype)
}

/// Two numbers for each query of each head, of queries or of an output.
fn of_heads(x: &TensorSpec, plan: &Plan) -> TensorSpec {
    let rows = x.shape[0] * plan.heads * x.shape[1];
    TensorSpec::new([rows, 2].into(), x.dtype)
}

/// The output of queries, keys and values side by side.
fn third(qkv: &TensorSpec) -> TensorSpec {
    let shape = [qkv.shape[0], qkv.shape[1], qkv.shape[2] / 3];
    TensorSpec::new(shape.into(), qkv.dtype)
}

#[backend_extension(Cube, Fusion)]
pub trait CubeOps: Backend {
    /// Output, means and variances.
    #[fusion(meta = |x, gamma, _, _, _| (x.clone(), gamma.clone(), gamma.clone()))]
    fn rezero_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Output, means and variances, with a residual sum.
    #[fusion(meta = |x, gamma, _, _, _, _, _| (x.clone(), gamma.clone(), gamma.clone()))]
    fn rezero_batch_norm_gated(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of x, γ and β.
    #[fusion(meta = |_, x, gamma, _, _, _, _, _| (x.clone(), gamma.clone(), gamma.clone()))]
    fn rezero_batch_norm_backward(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of x, γ, β and α.
    #[fusion(meta = |_, x, gamma, _, _, _, _, _, _| (x.clone(), gamma.clone(), gamma.clone(), one(gamma)))]
    fn rezero_batch_norm_gated_backward(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    );

    /// The gradients of f and α.
    #[fusion(meta = |_, f, alpha| (f.clone(), alpha.clone()))]
    fn rezero_gated_sum_backward(
        grad: FloatTensor<Self>,
        f: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The losses, and two numbers per row for the backward pass.
    #[fusion(meta = |logits, _| (per_row(logits), pairs(logits)))]
    fn rezero_cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of the logits.
    #[fusion(dtype = logits, shape = logits)]
    fn rezero_cross_entropy_backward(
        grad: FloatTensor<Self>,
        logits: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self>;

    /// The output, and two numbers per row for the backward pass.
    #[fusion(meta = |x, _, _, _| (x.clone(), pairs(x)))]
    fn rezero_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The output, and two numbers per row for the backward pass.
    #[fusion(meta = |x, _, _| (x.clone(), pairs(x)))]
    fn rezero_rms_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of x in a layer norm (`centred`) or an RMS norm.
    #[fusion(dtype = x, shape = x)]
    fn rezero_row_norm_backward(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        centred: bool,
    ) -> FloatTensor<Self>;

    /// The gradients of γ and β.
    #[fusion(meta = |_, _, gamma, _| (gamma.clone(), gamma.clone()))]
    fn rezero_row_norm_sums(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        kept: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Values that are dropped or scaled, by the seed in memory.
    #[fusion(dtype = x, shape = x)]
    fn rezero_dropout(x: FloatTensor<Self>, seed: IntTensor<Self>, rule: Rule)
    -> FloatTensor<Self>;

    /// Attention, and two numbers for each query of each head for the backward pass.
    #[fusion(meta = |q, _, _, _, _, plan| (q.clone(), of_heads(q, plan)))]
    fn rezero_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: IntTensor<Self>,
        seed: IntTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The same, of queries, keys and values side by side.
    #[fusion(meta = |qkv, _, _, plan| (third(qkv), of_heads(qkv, plan)))]
    fn rezero_attention_self(
        qkv: FloatTensor<Self>,
        mask: IntTensor<Self>,
        seed: IntTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The sum of gradient times output for each query of each head.
    #[fusion(meta = |_, output, heads| {
        TensorSpec::new([output.shape[0] * *heads * output.shape[1]].into(), output.dtype)
    })]
    fn rezero_attention_means(
        grad: FloatTensor<Self>,
        output: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self>;

    /// The gradient of the queries.
    #[fusion(dtype = q, shape = q)]
    fn rezero_attention_queries(
        grad: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        means: FloatTensor<Self>,
        mask: IntTensor<Self>,
        seed: IntTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self>;

    /// The gradients of keys and values.
    #[fusion(meta = |_, _, k, v, _, _, _, _, _| (k.clone(), v.clone()))]
    fn rezero_attention_keys(
        grad: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        means: FloatTensor<Self>,
        mask: IntTensor<Self>,
        seed: IntTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of queries, keys and values side by side.
    #[fusion(dtype = qkv, shape = qkv)]
    fn rezero_attention_self_backward(
        grad: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        means: FloatTensor<Self>,
        mask: IntTensor<Self>,
        seed: IntTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self>;

    /// The gradient of the weight of a 3×3 convolution.
    #[fusion(dtype = weight, shape = weight)]
    fn rezero_conv_weight_gradient(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// A batch of images, of words of bytes.
    #[fusion(meta = |_, _, _, n, c, h, w| TensorSpec::new([*n, *c, *h, *w].into(), DType::F32))]
    fn rezero_cut(
        words: IntTensor<Self>,
        table: FloatTensor<Self>,
        cuts: IntTensor<Self>,
        images: usize,
        channels: usize,
        height: usize,
        width: usize,
    ) -> FloatTensor<Self>;

    /// Writes `new` into the memory of `old`, and returns that.
    #[fusion(dtype = old, shape = old)]
    fn rezero_overwrite(old: FloatTensor<Self>, new: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The same for integers.
    #[fusion(dtype = old, shape = old)]
    fn rezero_overwrite_int(old: IntTensor<Self>, new: IntTensor<Self>) -> IntTensor<Self>;
}

impl CubeOps for CubeBackend {
    fn rezero_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        batch_norm::forward([x, gamma, beta], None, epsilon, relu)
    }

    fn rezero_batch_norm_gated(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        batch_norm::forward([x, gamma, beta], Some([skip, alpha]), epsilon, relu)
    }

    fn rezero_batch_norm_backward(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let values = [grad, x, gamma, beta, mean, variance];
        let (x, gamma, beta, _) = batch_norm::backward(values, None, epsilon, relu);
        (x, gamma, beta)
    }

    fn rezero_batch_norm_gated_backward(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
        epsilon: f32,
        relu: bool,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        let values = [grad, x, gamma, beta, mean, variance];
        batch_norm::backward(values, Some(alpha), epsilon, relu)
    }

    fn rezero_gated_sum_backward(
        grad: FloatTensor<Self>,
        f: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gate::backward([grad, f, alpha])
    }

    fn rezero_cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        cross_entropy::forward(logits, targets)
    }

    fn rezero_cross_entropy_backward(
        grad: FloatTensor<Self>,
        logits: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        cross_entropy::backward([grad, logits, kept], targets)
    }

    fn rezero_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        row_norm::forward([x, gamma], Some(beta), epsilon)
    }

    fn rezero_rms_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        row_norm::forward([x, gamma], None, epsilon)
    }

    fn rezero_row_norm_backward(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        centred: bool,
    ) -> FloatTensor<Self> {
        row_norm::backward([grad, x, gamma, kept], centred)
    }

    fn rezero_row_norm_sums(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        kept: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        row_norm::sums([grad, x, gamma, kept])
    }

    fn rezero_dropout(
        x: FloatTensor<Self>,
        seed: IntTensor<Self>,
        rule: Rule,
    ) -> FloatTensor<Self> {
        dropout::apply(x, seed, rule)
    }

    fn rezero_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mask: IntTensor<Self>,
        seed: IntTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::forward([q, k, v], mask, seed, plan)
    }

    fn rezero_attention_self(
        qkv: FloatTensor<Self>,
        mask: IntTensor<Self>,
        seed: IntTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::forward_self(qkv, mask, seed, plan)
    }

    fn rezero_attention_means(
        grad: FloatTensor<Self>,
        output: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        attention::means(grad, output, heads)
    }

    fn rezero_attention_queries(
        grad: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        means: FloatTensor<Self>,
        mask: IntTensor<Self>,
        seed: IntTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self> {
        let given = Given::new([grad, kept, means], [mask, seed]);
        attention::of_queries([q, k, v], given, plan)
    }

    fn rezero_attention_keys(
        grad: FloatTensor<Self>,
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        means: FloatTensor<Self>,
        mask: IntTensor<Self>,
        seed: IntTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let given = Given::new([grad, kept, means], [mask, seed]);
        attention::of_keys([q, k, v], given, plan)
    }

    fn rezero_attention_self_backward(
        grad: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        means: FloatTensor<Self>,
        mask: IntTensor<Self>,
        seed: IntTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self> {
        let given = Given::new([grad, kept, means], [mask, seed]);
        attention::of_all(qkv, given, plan)
    }

    fn rezero_conv_weight_gradient(
        x: FloatTensor<Self>,
        _weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        conv::weight_gradient(x, grad)
    }

    fn rezero_cut(
        words: IntTensor<Self>,
        table: FloatTensor<Self>,
        cuts: IntTensor<Self>,
        images: usize,
        channels: usize,
        height: usize,
        width: usize,
    ) -> FloatTensor<Self> {
        images::batch([words, table, cuts], [images, channels, height, width])
    }

    fn rezero_overwrite(old: FloatTensor<Self>, new: FloatTensor<Self>) -> FloatTensor<Self> {
        optim::overwrite(old, new)
    }

    fn rezero_overwrite_int(old: IntTensor<Self>, new: IntTensor<Self>) -> IntTensor<Self> {
        optim::overwrite(old, new)
    }
}
