//! Initial weights of Transformers.

use burn::config::Config;
use burn::module::{Initializer, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use crate::init::{WeightInit, torch_default};

/// The initial weights of a Transformer. A bias of `None` is zero.
///
/// The authors use two sets, which [`WeightInit`] names: [`pytorch`](Self::pytorch) and
/// [`notebook`](Self::notebook). `RztxInit::from` converts a name.
#[derive(Config, Debug)]
pub struct RztxInit {
    /// The fused projection to queries, keys and values as one matrix, `[d_model, 3 · d_model]`.
    pub in_proj: Initializer,
    /// The projection of the attention's output.
    pub out_proj: Initializer,
    /// The weights of the feed-forward layers.
    pub feed_forward: Initializer,
    /// The biases of the feed-forward layers.
    pub feed_forward_bias: Option<Initializer>,
    /// The token embedding; `None`: U(−1/d_model, 1/d_model), which the ReZero authors advise
    /// (github.com/majumderb/rezero, issue 8).
    pub embedding: Option<Initializer>,
    /// Learned positions; `None`: the same as the embedding.
    pub positions: Option<Initializer>,
    /// The weight of an untied output layer.
    pub head: Initializer,
    /// The bias of an untied output layer.
    pub head_bias: Option<Initializer>,
}

impl RztxInit {
    /// PyTorch's defaults, as in the authors' layers: `in_proj` Xavier-uniform as one matrix, the
    /// attention's biases 0, every other weight and bias U(−1/√fan_in, 1/√fan_in). The embedding is
    /// as the authors advise.
    pub fn pytorch() -> Self {
        Self {
            in_proj: xavier(),
            out_proj: torch_default(),
            feed_forward: torch_default(),
            feed_forward_bias: Some(torch_default()),
            embedding: None,
            positions: None,
            head: torch_default(),
            head_bias: Some(torch_default()),
        }
    }

    /// The authors' WikiText-2 notebook: embedding and head U(−0.1, 0.1), every other matrix
    /// Xavier-uniform, the head's bias 0.
    pub fn notebook() -> Self {
        let tenth = || Initializer::Uniform {
            min: -0.1,
            max: 0.1,
        };
        Self {
            out_proj: xavier(),
            feed_forward: xavier(),
            embedding: Some(tenth()),
            head: tenth(),
            head_bias: None,
            ..Self::pytorch()
        }
    }

    pub(super) fn embedding_for(&self, d_model: usize) -> Initializer {
        let bound = 1.0 / d_model as f64;
        self.embedding.clone().unwrap_or(Initializer::Uniform {
            min: -bound,
            max: bound,
        })
    }
}

impl From<WeightInit> for RztxInit {
    fn from(init: WeightInit) -> Self {
        match init {
            WeightInit::PyTorch => Self::pytorch(),
            WeightInit::Notebook => Self::notebook(),
        }
    }
}

fn xavier() -> Initializer {
    Initializer::XavierUniform { gain: 1.0 }
}

/// A linear layer; `bias` is `None` for no bias and `Some(None)` for a bias of zeros.
pub(in crate::nets) fn linear(
    [d_in, d_out]: [usize; 2],
    weight: &Initializer,
    bias: Option<Option<&Initializer>>,
    device: &Device,
) -> Linear {
    let zeros = Initializer::Zeros;
    Linear {
        weight: weight.init_with([d_in, d_out], Some(d_in), Some(d_out), device),
        bias: bias.map(|b| {
            b.unwrap_or(&zeros)
                .init_with([d_out], Some(d_in), Some(d_out), device)
        }),
    }
}

/// Multiplies columns `from..` of a weight by `gain`. A gain of 1 leaves the weight as it is, so
/// Burn samples it only when it is first used.
pub(super) fn scale_columns(weight: Param<Tensor<2>>, from: usize, gain: f64) -> Param<Tensor<2>> {
    if gain == 1.0 {
        return weight;
    }
    weight.map(|w| {
        let learns = w.is_require_grad();
        let [_, columns] = w.dims();
        let scaled = w.clone().slice_dim(1, from..columns) * gain;
        let whole = match from {
            0 => scaled,
            _ => Tensor::cat(vec![w.slice_dim(1, 0..from), scaled], 1),
        };
        // A leaf, not the end of a graph.
        match learns {
            true => whole.detach().require_grad(),
            false => whole,
        }
    })
}
