//! Attention masks.

use std::cell::OnceCell;

use burn::tensor::{Bool, DType, Device, Tensor};

/// The keys that each query must not attend to: the union of up to three masks. Each is true where
/// attention is forbidden, as in PyTorch and Burn.
///
/// For a query whose keys are all masked, the weighted sum of the values is 0, so the output is the
/// bias of the output projection. (PyTorch's attention gives NaN for such a query.)
#[derive(Clone, Debug, Default)]
pub struct AttentionMask {
    /// `[1 or batch, queries, keys]`.
    pub attention: Option<Tensor<3, Bool>>,
    /// `[batch, keys]`: keys that are padding.
    pub padding: Option<Tensor<2, Bool>>,
    /// Query i may attend to keys 0 to i.
    pub causal: bool,
}

/// A mask in the form that one forward pass adds to its scores.
#[derive(Clone, Debug, Default)]
pub(super) struct Bias {
    /// Set if the causal mask is the only one. Its scores are computed when they are first needed.
    causal: Option<Causal>,
    scores: OnceCell<Tensor<4>>,
    /// Multiplies the context, `[1 or batch, 1, queries, 1]`: 0 for a query whose keys are all
    /// masked.
    pub alive: Option<Tensor<4>>,
}

/// The size of a causal mask, and the device and type of its tensor.
#[derive(Clone, Debug)]
struct Causal {
    queries: usize,
    keys: usize,
    device: Device,
    dtype: DType,
}

impl Bias {
    /// The term that is added to the scores, `[1 or batch, 1, queries, keys]`: 0, or so low that
    /// the softmax gives 0.
    pub fn scores(&self) -> Option<&Tensor<4>> {
        match &self.causal {
            Some(causal) => Some(self.scores.get_or_init(|| {
                let mask = causal_mask(causal.queries, causal.keys, &causal.device);
                added(mask, causal.dtype)
            })),
            None => self.scores.get(),
        }
    }

    /// `Some(true)` for a causal mask alone with as many queries as keys, `Some(false)` for no
    /// mask, `None` for all other masks.
    pub fn simple(&self) -> Option<bool> {
        match &self.causal {
            Some(causal) => (causal.queries == causal.keys).then_some(true),
            None => self.scores.get().is_none().then_some(false),
        }
    }
}

impl AttentionMask {
    /// Every query may attend to every key.
    pub fn none() -> Self {
        Self::default()
    }

    /// Query i may attend to keys 0 to i.
    pub fn causal() -> Self {
        Self {
            causal: true,
            ..Self::default()
        }
    }

    /// Sets the attention mask, `[queries, keys]`, the same for all sequences of a batch.
    pub fn with_attention(self, mask: Tensor<2, Bool>) -> Self {
        self.with_batch_attention(mask.unsqueeze())
    }

    /// Sets the attention mask, `[1 or batch, queries, keys]`.
    pub fn with_batch_attention(mut self, mask: Tensor<3, Bool>) -> Self {
        self.attention = Some(mask);
        self
    }

    /// Sets the padding mask, `[batch, keys]`: true for keys that are padding.
    pub fn with_padding(mut self, mask: Tensor<2, Bool>) -> Self {
        self.padding = Some(mask);
        self
    }

    /// The mask for scores of `[batch, heads, queries, keys]`. Under a causal mask, the queries are
    /// the last of the `keys` positions.
    ///
    /// # Panics
    ///
    /// If a mask has another shape.
    pub(super) fn bias(&self, batch: usize, queries: usize, keys: usize, like: &Tensor<3>) -> Bias {
        let (device, dtype) = (like.device(), like.dtype());
        if self.attention.is_none() && self.padding.is_none() {
            let causal = Causal {
                queries,
                keys,
                device,
                dtype,
            };
            return Bias {
                causal: self.causal.then_some(causal),
                ..Bias::default()
            };
        }
        let mut union = self.causal.then(|| causal_mask(queries, keys, &device));
        let mut add = |mask: Tensor<4, Bool>| {
            union = Some(match union.take() {
                Some(other) => {
                    // Both get one shape first, since not every backend broadcasts booleans.
                    let rows = other.dims()[0].max(mask.dims()[0]);
                    let whole = [rows, 1, queries, keys];
                    other.expand(whole).bool_or(mask.expand(whole))
                }
                None => mask,
            });
        };
        if let Some(mask) = &self.attention {
            let [n, q, k] = mask.dims();
            assert!(
                (n == 1 || n == batch) && q == queries && k == keys,
                "an attention mask must be [1 or batch, queries, keys] = [1 or {batch}, {queries}, \
                 {keys}], got [{n}, {q}, {k}]."
            );
            add(mask.clone().unsqueeze_dim(1));
        }
        if let Some(mask) = &self.padding {
            let [n, k] = mask.dims();
            assert!(
                n == batch && k == keys,
                "a padding mask must be [batch, keys] = [{batch}, {keys}], got [{n}, {k}]."
            );
            let mask: Tensor<4, Bool> = mask.clone().reshape([batch, 1, 1, keys]);
            add(mask.expand([batch, 1, queries, keys]));
        }
        let Some(union) = union else {
            return Bias::default();
        };
        Bias {
            scores: added(union.clone(), dtype).into(),
            alive: Some(union.all_dim(3).bool_not().float().cast(dtype)),
            causal: None,
        }
    }
}

fn added(mask: Tensor<4, Bool>, dtype: DType) -> Tensor<4> {
    // Half of the lowest value, so that adding a score does not overflow.
    let low = dtype.finfo().map_or(-1e30, |info| info.min / 2.0);
    mask.float().cast(dtype) * low
}

/// `[1, 1, queries, keys]`, where the queries are the last positions.
fn causal_mask(queries: usize, keys: usize, device: &Device) -> Tensor<4, Bool> {
    let offset = keys as i64 - queries as i64;
    // Burn's mask is false in the lower triangle and true above it, where attention is forbidden.
    Tensor::<2, Bool>::tril_mask([queries, keys], offset, device).unsqueeze::<4>()
}
