//! What may attend to what.

use burn::tensor::{Bool, Device, Tensor};

/// Which keys each query may not attend to: the union of up to three masks, each true (or 1) where
/// attention is forbidden, as in PyTorch and Burn.
///
/// A query that may attend to nothing gets a context of zeros. (PyTorch's attention gives NaN
/// there.)
#[derive(Clone, Debug, Default)]
pub struct AttentionMask {
    /// `[1 or batch, queries, keys]`.
    pub attention: Option<Tensor<3, Bool>>,
    /// `[batch, keys]`: keys that are padding.
    pub padding: Option<Tensor<2, Bool>>,
    /// Query i may attend to keys 0 to i.
    pub causal: bool,
}

/// A mask made ready for the scores of one forward pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Bias {
    /// Added to the scores, `[1 or batch, 1, queries, keys]`: 0, or so low that the softmax gives 0.
    pub scores: Option<Tensor<4>>,
    /// Multiplies the context, `[1 or batch, 1, queries, 1]`: 0 for a query without a key.
    pub alive: Option<Tensor<4>>,
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

    /// Adds a mask of `[queries, keys]` for all items of a batch.
    pub fn with_attention(self, mask: Tensor<2, Bool>) -> Self {
        self.with_batch_attention(mask.unsqueeze())
    }

    /// Adds a mask of `[batch, queries, keys]`.
    pub fn with_batch_attention(mut self, mask: Tensor<3, Bool>) -> Self {
        self.attention = Some(mask);
        self
    }

    /// Adds the keys that are padding, `[batch, keys]`.
    pub fn with_padding(mut self, mask: Tensor<2, Bool>) -> Self {
        self.padding = Some(mask);
        self
    }

    /// The mask for scores of `[batch, heads, queries, keys]`, where the queries are the last of
    /// the `keys` positions.
    ///
    /// # Panics
    ///
    /// If a mask is of another shape.
    pub(super) fn bias(&self, batch: usize, queries: usize, keys: usize, like: &Tensor<3>) -> Bias {
        let device = like.device();
        let mut union = self.causal.then(|| causal(queries, keys, &device));
        let mut add = |mask: Tensor<4, Bool>| {
            union = Some(match union.take() {
                Some(other) => {
                    // Of one shape: broadcasting is not every backend's for booleans.
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
        let only_causal = self.attention.is_none() && self.padding.is_none();
        let dtype = like.dtype();
        // Half of the lowest value, so that adding a score does not overflow.
        let low = dtype.finfo().map_or(-1e30, |info| info.min / 2.0);
        Bias {
            scores: Some(union.clone().float().cast(dtype) * low),
            // A causal query has at least itself.
            alive: (!only_causal).then(|| union.all_dim(3).bool_not().float().cast(dtype)),
        }
    }
}

/// `[1, 1, queries, keys]`, where the queries are the last positions.
fn causal(queries: usize, keys: usize, device: &Device) -> Tensor<4, Bool> {
    let offset = keys as i64 - queries as i64;
    // Burn's mask is false in the triangle: true is what is to be covered.
    Tensor::<2, Bool>::tril_mask([queries, keys], offset, device).unsqueeze::<4>()
}
