//! Attention masks.

use burn::tensor::{Bool, Tensor};

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

/// A mask in the form that attention takes, made once for all layers of a forward pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Masked {
    /// Whether a query attends only to the keys up to its own position.
    pub causal: bool,
    /// The other masks, `[1 or batch, 1 or queries, keys]`.
    pub forbidden: Option<Tensor<3, Bool>>,
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

    /// The mask of `queries` positions to `keys` positions. Under a causal mask, the queries are
    /// the last of the `keys` positions.
    ///
    /// # Panics
    ///
    /// If a mask has another shape.
    pub(super) fn of(&self, batch: usize, queries: usize, keys: usize) -> Masked {
        if let Some(mask) = &self.attention {
            let [n, q, k] = mask.dims();
            assert!(
                (n == 1 || n == batch) && q == queries && k == keys,
                "an attention mask must be [1 or batch, queries, keys] = [1 or {batch}, {queries}, \
                 {keys}], got [{n}, {q}, {k}]."
            );
        }
        if let Some(mask) = &self.padding {
            let [n, k] = mask.dims();
            assert!(
                n == batch && k == keys,
                "a padding mask must be [batch, keys] = [{batch}, {keys}], got [{n}, {k}]."
            );
        }
        let padding = self.padding.clone().map(|mask| mask.unsqueeze_dim::<3>(1));
        let forbidden = match (self.attention.clone(), padding) {
            (Some(mask), Some(padding)) => {
                // Both get one shape first, since not every backend broadcasts booleans.
                let whole = [batch, queries, keys];
                Some(mask.expand(whole).bool_or(padding.expand(whole)))
            }
            (mask, padding) => mask.or(padding),
        };
        Masked {
            causal: self.causal,
            forbidden,
        }
    }
}
