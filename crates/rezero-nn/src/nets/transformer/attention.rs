//! Multi-head attention with one fused projection, and its key–value cache.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use rezero_kernels::{Epilogue, Rotation, SelfAttention, linear, matmul_in};

use super::drop;
use super::mask::{AttentionMask, Bias};
use super::weights::{RztxInit, linear as init_linear, scale_columns};
use rezero_kernels::fused;

/// Configuration to create an [`Attention`] using the [init function](AttentionConfig::init).
#[derive(Config, Debug)]
pub struct AttentionConfig {
    /// The width of the model.
    pub d_model: usize,
    /// The number of heads; divides `d_model`.
    pub n_heads: usize,
    /// Dropout of the attention weights. Default: 0.1
    #[config(default = 0.1)]
    pub dropout: f64,
    /// Whether the projections have biases. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// The base of rotary positions in self-attention, 10,000 in their paper; `None`: no rotary
    /// positions. Default: None
    pub rotary: Option<f64>,
    /// The factor of the initial value and output projections, see
    /// [`ResidualConfig::branch_gain`](crate::ResidualConfig::branch_gain()). Default: 1
    #[config(default = 1.0)]
    pub gain: f64,
    /// The initial weights. Default: PyTorch's
    #[config(default = "RztxInit::pytorch()")]
    pub init: RztxInit,
}

/// Multi-head attention: Vaswani et al., [arXiv 1706.03762](https://arxiv.org/abs/1706.03762),
/// section 3.2:
///
/// `Attention(x, m) = Concat_h(softmax(Q_h K_hᵀ / √d_head) V_h) W_out`, `[Q K V] = [x m m] W_in`
///
/// Where `m` is `x` itself or the memory of a decoder. `W_in` is one matrix, as in PyTorch's
/// `nn.MultiheadAttention`, so self-attention computes Q, K and V in one product.
///
/// Should be created using [AttentionConfig].
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, keys and values, `[d_model, 3 · d_model]`.
    pub in_proj: Linear,
    /// The output projection, `[d_model, d_model]`.
    pub out_proj: Linear,
    /// Dropout of the attention weights.
    pub dropout: Dropout,
    /// The number of heads.
    pub n_heads: usize,
    /// The base of rotary positions, or `None` without them.
    pub rotary: Option<f64>,
}

/// The keys and values of the positions so far.
#[derive(Clone, Debug, Default)]
pub struct AttentionCache {
    /// Keys and values, each `[batch, n_heads, capacity, d_head]`, filled up to `len`.
    store: Option<(Tensor<4>, Tensor<4>)>,
    len: usize,
}

/// The data that all layers share in one forward pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    /// The mask of self-attention.
    pub bias: Bias,
    /// The mask of attention to the memory.
    pub memory_bias: Bias,
    /// Whether dropout is active although the device has no autodiff, see [`drop`].
    pub forced_dropout: bool,
}

impl AttentionConfig {
    /// Initializes the module on `device`.
    ///
    /// # Panics
    ///
    /// If `d_model` is 0, `n_heads` does not divide it, heads are of odd width under rotary positions, or
    /// the dropout is not in [0, 1).
    pub fn init(&self, device: &Device) -> Attention {
        let Self {
            d_model: d,
            n_heads,
            ..
        } = *self;
        assert!(d > 0, "d_model must be greater than zero.");
        assert!(
            n_heads > 0 && d.is_multiple_of(n_heads),
            "d_model must be a multiple of n_heads, got d_model {d} and n_heads {n_heads}."
        );
        assert!(
            self.rotary.is_none() || (d / n_heads).is_multiple_of(2),
            "rotary positions need heads of even width, got {}.",
            d / n_heads
        );
        let bias = self.bias.then_some(None);
        let mut in_proj = init_linear([d, 3 * d], &self.init.in_proj, bias, device);
        let mut out_proj = init_linear([d, d], &self.init.out_proj, bias, device);
        // DIFFERENCE: DeepNorm's authors scale Xavier weights; here `init` chooses the
        // distribution.
        in_proj.weight = scale_columns(in_proj.weight, 2 * d, self.gain);
        out_proj.weight = scale_columns(out_proj.weight, 0, self.gain);
        Attention {
            in_proj,
            out_proj,
            dropout: DropoutConfig::new(self.dropout).init(),
            n_heads,
            rotary: self.rotary,
        }
    }
}

impl Attention {
    /// Self-attention.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, length, d_model]`
    ///
    /// # Panics
    ///
    /// If a mask does not fit `[batch, length, length]`.
    pub fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        let bias = mask.bias(batch, length, length, &x);
        self.attend_self(x, &bias, None, false)
    }

    /// Attention of `x` to `memory`.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, length, d_model]`
    /// - `memory`: `[batch, memory_length, d_model]`
    ///
    /// # Panics
    ///
    /// If a mask does not fit `[batch, length, memory_length]`.
    pub fn forward_memory(
        &self,
        x: Tensor<3>,
        memory: Tensor<3>,
        mask: &AttentionMask,
    ) -> Tensor<3> {
        let ([batch, length, _], [_, keys, _]) = (x.dims(), memory.dims());
        let bias = mask.bias(batch, length, keys, &x);
        self.attend_memory(x, memory, &bias, None, false)
    }

    pub(super) fn attend_self(
        &self,
        x: Tensor<3>,
        bias: &Bias,
        cache: Option<&mut AttentionCache>,
        forced_dropout: bool,
    ) -> Tensor<3> {
        let d = x.dims()[2];
        let projected = fused::linear(&self.in_proj, x, Epilogue::Identity);
        let drops = self.dropout.prob > 0.0 && (projected.device().is_autodiff() || forced_dropout);
        if let (Some(causal), None, false) = (bias.simple(), &cache, drops) {
            let attention = SelfAttention {
                n_heads: self.n_heads,
                causal,
                rotary: self.rotary,
            };
            return fused::linear(
                &self.out_proj,
                attention.forward_in(projected, self.in_proj.weight.val().dtype()),
                Epilogue::Identity,
            );
        }
        let part = |i: usize| self.heads(projected.clone().slice_dim(2, i * d..(i + 1) * d));
        let (mut q, mut k, v) = (part(0), part(1), part(2));
        let start = cache.as_ref().map_or(0, |cache| cache.len);
        if let Some(base) = self.rotary {
            let rotation = Rotation::new(base, start, &q);
            (q, k) = (rotation.apply(q), rotation.apply(k));
        }
        let (k, v) = match cache {
            Some(cache) => cache.extend(k, v),
            None => (k, v),
        };
        self.attend(q, k, v, bias, forced_dropout)
    }

    /// With a cache, the keys and values of the memory are computed only once.
    pub(super) fn attend_memory(
        &self,
        x: Tensor<3>,
        memory: Tensor<3>,
        bias: &Bias,
        cache: Option<&mut AttentionCache>,
        forced_dropout: bool,
    ) -> Tensor<3> {
        let d = x.dims()[2];
        let q = self.heads(self.project(x, 0..d));
        let make = || {
            let kv = self.project(memory, d..3 * d);
            let part = |i: usize| self.heads(kv.clone().slice_dim(2, i * d..(i + 1) * d));
            (part(0), part(1))
        };
        let (k, v) = match cache {
            Some(cache) => cache.store.get_or_insert_with(make).clone(),
            None => make(),
        };
        self.attend(q, k, v, bias, forced_dropout)
    }

    /// Projects by the columns `range` of the fused projection.
    fn project(&self, x: Tensor<3>, range: std::ops::Range<usize>) -> Tensor<3> {
        let weight = self.in_proj.weight.val().slice_dim(1, range.clone());
        let bias = self.in_proj.bias.as_ref();
        let bias = bias.map(|b| b.val().slice_dim(0, range));
        linear(x, weight, bias, Epilogue::Identity)
    }

    /// `[batch, length, d_model]` to `[batch, n_heads, length, d_head]`.
    fn heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, length, d] = x.dims();
        x.reshape([batch, length, self.n_heads, d / self.n_heads])
            .swap_dims(1, 2)
    }

    fn attend(
        &self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        bias: &Bias,
        forced_dropout: bool,
    ) -> Tensor<3> {
        let [batch, heads, queries, d_head] = q.dims();
        // Scaling the queries is cheaper than scaling the scores.
        let q = q * (1.0 / (d_head as f64).sqrt());
        let products = self.in_proj.weight.val().dtype();
        let mut scores = matmul_in(q, k.swap_dims(2, 3), products);
        if let Some(bias) = bias.scores() {
            scores = scores + bias.clone();
        }
        let weights = drop(&self.dropout, softmax(scores, 3), forced_dropout);
        let mut context = matmul_in(weights, v, products);
        if let Some(alive) = &bias.alive {
            context = context * alive.clone();
        }
        let context = context
            .swap_dims(1, 2)
            .reshape([batch, queries, heads * d_head]);
        fused::linear(&self.out_proj, context, Epilogue::Identity)
    }
}

impl AttentionCache {
    /// The number of positions in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the cache has no position.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the keys and values of new positions and returns all.
    fn extend(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, new, d_head] = k.dims();
        let len = self.len + new;
        let grow = |old: Option<Tensor<4>>, like: &Tensor<4>| {
            let held = old.as_ref().map_or(0, |old| old.dims()[2]);
            match old {
                Some(old) if held >= len => old,
                old => {
                    // Doubling the capacity keeps the cost of copies per position constant.
                    let capacity = len.next_power_of_two().max(64);
                    let options = (&like.device(), like.dtype());
                    let fresh = Tensor::zeros([batch, heads, capacity, d_head], options);
                    match old {
                        Some(old) => {
                            fresh.slice_assign([0..batch, 0..heads, 0..held, 0..d_head], old)
                        }
                        None => fresh,
                    }
                }
            }
        };
        let (old_k, old_v) = match self.store.take() {
            Some((k, v)) => (Some(k), Some(v)),
            None => (None, None),
        };
        let place = [0..batch, 0..heads, self.len..len, 0..d_head];
        let all_k = grow(old_k, &k).slice_assign(place.clone(), k);
        let all_v = grow(old_v, &v).slice_assign(place, v);
        self.len = len;
        self.store = Some((all_k.clone(), all_v.clone()));
        (all_k.slice_dim(2, 0..len), all_v.slice_dim(2, 0..len))
    }
}
