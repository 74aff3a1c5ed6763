//! Multi-head attention with one fused projection, and its key–value cache.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Tensor};
use rezero_kernels::{DotProductAttention, Epilogue, Rotation, linear};

use super::drop_rate;
use super::mask::{AttentionMask, Masked};
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
    /// Keys and values side by side, `[batch, capacity, 2 · d_model]`, filled up to `len`.
    store: Option<Tensor<3>>,
    len: usize,
}

/// The data that all layers share in one forward pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    /// The mask of self-attention.
    pub mask: Masked,
    /// The mask of attention to the memory.
    pub memory_mask: Masked,
    /// Whether dropout is active although the device has no autodiff, see [`drop`](super::drop).
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
        self.attend_self(x, &mask.of(batch, length, length), None, false)
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
        self.attend_memory(x, memory, &mask.of(batch, length, keys), None, false)
    }

    pub(super) fn attend_self(
        &self,
        x: Tensor<3>,
        mask: &Masked,
        cache: Option<&mut AttentionCache>,
        forced_dropout: bool,
    ) -> Tensor<3> {
        let d = x.dims()[2];
        let projected = fused::linear(&self.in_proj, x, Epilogue::Identity);
        let attention = self.heads(mask, &projected.device(), forced_dropout);
        let forbidden = mask.forbidden.clone();
        let context = match cache {
            None => attention.forward_self(projected, forbidden),
            Some(cache) => {
                // Keys are stored rotated, so that each is rotated only once.
                let projected = self.rotated(projected, cache.len);
                let q = projected.clone().slice_dim(2, 0..d);
                let (k, v) = halves(cache.extend(projected.slice_dim(2, d..3 * d)));
                let attention = DotProductAttention {
                    rotary: None,
                    ..attention
                };
                attention.forward(q, k, v, forbidden)
            }
        };
        fused::linear(&self.out_proj, context, Epilogue::Identity)
    }

    /// With a cache, the keys and values of the memory are computed only once.
    pub(super) fn attend_memory(
        &self,
        x: Tensor<3>,
        memory: Tensor<3>,
        mask: &Masked,
        cache: Option<&mut AttentionCache>,
        forced_dropout: bool,
    ) -> Tensor<3> {
        let d = x.dims()[2];
        let q = self.project(x, 0..d);
        let make = || self.project(memory, d..3 * d);
        let (k, v) = halves(match cache {
            Some(cache) => cache.store.get_or_insert_with(make).clone(),
            None => make(),
        });
        let attention = DotProductAttention {
            rotary: None,
            ..self.heads(mask, &q.device(), forced_dropout)
        };
        let context = attention.forward(q, k, v, mask.forbidden.clone());
        fused::linear(&self.out_proj, context, Epilogue::Identity)
    }

    /// What all heads compute between the projections.
    fn heads(&self, mask: &Masked, device: &Device, forced_dropout: bool) -> DotProductAttention {
        DotProductAttention {
            n_heads: self.n_heads,
            causal: mask.causal,
            rotary: self.rotary,
            dropout: drop_rate(&self.dropout, device, forced_dropout),
            products: Some(self.in_proj.weight.val().dtype()),
        }
    }

    /// The projection with queries and keys rotated, whose first position is `start`.
    fn rotated(&self, projected: Tensor<3>, start: usize) -> Tensor<3> {
        let Some(base) = self.rotary else {
            return projected;
        };
        let [batch, length, all] = projected.dims();
        let d = all / 3;
        // The heads of the queries and those of the keys are rotated alike.
        let heads = projected
            .clone()
            .slice_dim(2, 0..2 * d)
            .reshape([batch, length, 2 * self.n_heads, d / self.n_heads])
            .swap_dims(1, 2);
        let turned = Rotation::new(base, start, &heads)
            .apply(heads)
            .swap_dims(1, 2)
            .reshape([batch, length, 2 * d]);
        Tensor::cat(vec![turned, projected.slice_dim(2, 2 * d..3 * d)], 2)
    }

    /// Projects by the columns `range` of the fused projection.
    fn project(&self, x: Tensor<3>, range: std::ops::Range<usize>) -> Tensor<3> {
        let weight = self.in_proj.weight.val().slice_dim(1, range.clone());
        let bias = self.in_proj.bias.as_ref();
        let bias = bias.map(|b| b.val().slice_dim(0, range));
        linear(x, weight, bias, Epilogue::Identity)
    }
}

/// The two halves of the last axis: keys and values.
fn halves(kv: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    let d = kv.dims()[2] / 2;
    (kv.clone().slice_dim(2, 0..d), kv.slice_dim(2, d..2 * d))
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

    /// Appends the keys and values of new positions, `[batch, new, 2 · d_model]`, and returns all.
    fn extend(&mut self, new: Tensor<3>) -> Tensor<3> {
        let [batch, added, width] = new.dims();
        let (held, len) = (self.len, self.len + added);
        let store = match self.store.take() {
            Some(store) if store.dims()[1] >= len => store,
            old => {
                // Doubling the capacity keeps the cost of copies per position constant.
                let capacity = len.next_power_of_two().max(64);
                let options = (&new.device(), new.dtype());
                let fresh = Tensor::zeros([batch, capacity, width], options);
                match old {
                    Some(old) => {
                        let old = old.slice_dim(1, 0..held);
                        fresh.slice_assign([0..batch, 0..held, 0..width], old)
                    }
                    None => fresh,
                }
            }
        };
        let store = store.slice_assign([0..batch, held..len, 0..width], new);
        self.len = len;
        self.store = Some(store.clone());
        store.slice_dim(1, 0..len)
    }
}
