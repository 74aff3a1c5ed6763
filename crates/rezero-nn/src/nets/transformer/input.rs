//! The inputs of the stacks: sequences and their masks.

use burn::tensor::{Bool, Tensor};

use super::mask::AttentionMask;

/// The input of an [`RztxEncoder`](super::RztxEncoder), with the builders of Burn's
/// `TransformerEncoderInput`. A mask is true where attention is forbidden. Masks of several kinds
/// combine: attention is forbidden where any of them forbids it.
#[derive(Clone, Debug)]
pub struct RztxEncoderInput {
    pub(super) tensor: Tensor<3>,
    pub(super) mask: AttentionMask,
}

/// The input of an [`RztxDecoder`](super::RztxDecoder), with the builders of Burn's
/// `TransformerDecoderInput`. A mask is true where attention is forbidden. Masks of several kinds
/// combine: attention is forbidden where any of them forbids it.
///
/// Without [`causal`](Self::causal) or a mask, every position of the target attends to all
/// positions of the target, as in Burn's and the authors' decoders.
#[derive(Clone, Debug)]
pub struct RztxDecoderInput {
    pub(super) target: Tensor<3>,
    pub(super) target_mask: AttentionMask,
    pub(super) memory: Tensor<3>,
    pub(super) memory_mask: AttentionMask,
}

impl RztxEncoderInput {
    /// Sequences without a mask.
    ///
    /// # Shapes
    ///
    /// - `tensor`: `[batch, length, d_model]`
    pub fn new(tensor: Tensor<3>) -> Self {
        Self {
            tensor,
            mask: AttentionMask::none(),
        }
    }

    /// Marks the positions that are padding: no position attends to them.
    ///
    /// # Shapes
    ///
    /// - `mask_pad`: `[batch, length]`
    #[must_use]
    pub fn mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.mask = self.mask.with_padding(mask_pad);
        self
    }

    /// Forbids attention from a position (second axis) to another (third axis). As with Burn's builders, a
    /// second call replaces the first.
    ///
    /// # Shapes
    ///
    /// - `mask_attn`: `[1 or batch, length, length]`
    #[must_use]
    pub fn mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.mask = self.mask.with_batch_attention(mask_attn);
        self
    }

    /// Lets each position attend to itself and to those before it.
    #[must_use]
    pub fn causal(mut self) -> Self {
        self.mask.causal = true;
        self
    }
}

impl From<Tensor<3>> for RztxEncoderInput {
    fn from(tensor: Tensor<3>) -> Self {
        Self::new(tensor)
    }
}

impl RztxDecoderInput {
    /// A target and the memory that it attends to, without a mask.
    ///
    /// # Shapes
    ///
    /// - `target`: `[batch, length, d_model]`
    /// - `memory`: `[batch, memory_length, d_model]`
    pub fn new(target: Tensor<3>, memory: Tensor<3>) -> Self {
        Self {
            target,
            target_mask: AttentionMask::none(),
            memory,
            memory_mask: AttentionMask::none(),
        }
    }

    /// Marks the positions of the target that are padding: no position attends to them.
    ///
    /// # Shapes
    ///
    /// - `mask_pad`: `[batch, length]`
    #[must_use]
    pub fn target_mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.target_mask = self.target_mask.with_padding(mask_pad);
        self
    }

    /// Forbids attention from a position of the target (second axis) to another (third axis).
    ///
    /// # Shapes
    ///
    /// - `mask_attn`: `[1 or batch, length, length]`
    #[must_use]
    pub fn target_mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.target_mask = self.target_mask.with_batch_attention(mask_attn);
        self
    }

    /// Marks the positions of the memory that are padding: no position attends to them.
    ///
    /// # Shapes
    ///
    /// - `mask_pad`: `[batch, memory_length]`
    #[must_use]
    pub fn memory_mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.memory_mask = self.memory_mask.with_padding(mask_pad);
        self
    }

    /// Forbids attention from a position of the target (second axis) to one of the memory (third axis).
    ///
    /// # Shapes
    ///
    /// - `mask_attn`: `[1 or batch, length, memory_length]`
    #[must_use]
    pub fn memory_mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.memory_mask = self.memory_mask.with_batch_attention(mask_attn);
        self
    }

    /// Lets each position of the target attend to itself and to those before it.
    #[must_use]
    pub fn causal(mut self) -> Self {
        self.target_mask.causal = true;
        self
    }
}
