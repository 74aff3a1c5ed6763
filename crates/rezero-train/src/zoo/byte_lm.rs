//! `family = "byte-lm"`: Transformers that predict the next byte.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use rezero_data::TextBatch;
use rezero_data::rng::mix;
use rezero_nn::torch::TorchWeights;
use rezero_nn::transformer::{
    Activation, Positions, RztxEncoderConfig, RztxEncoderInput, RztxLm, RztxLmConfig, lm_shape,
};
use rezero_nn::{
    Grow, GrowError, Jacobian, JacobianError, JacobianProbe, NormKind, Place, ResidualScheme,
    WeightInit,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Family, JACOBIAN_ROWS, MAX_PARAMETERS, Recognised};
use crate::error::Result;
use crate::fit::{Pass, Sums};
use crate::recipe::check::{check, in_f32, positive};
use crate::recipe::{Gates, Train};
use crate::task::{ByteForm, Domain, Text, Windows};

/// A causal language model over bytes: the paper's section 5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    /// The number of layers, each of self-attention and a feed-forward branch.
    pub depth: usize,
    /// The residual scheme: how a layer joins its input `x` with its branch `F`.
    pub scheme: ResidualScheme,
    /// The width of the model: the numbers that represent one byte between two layers.
    pub d_model: usize,
    /// The number of attention heads; it must divide d_model.
    pub n_heads: usize,
    /// The width between the two linear layers of the feed-forward branch; 4 · d_model is usual.
    pub d_ff: usize,
    /// The length of a training window in bytes. With learned positions, the model cannot read more
    /// at a time.
    pub context: usize,
    /// Probability with which training sets a value to 0: of the embedding, of the attention's
    /// weights, inside the feed-forward branch and of each branch's output. 0: no dropout.
    pub dropout: f64,
    /// The non-linearity between the two linear layers of the feed-forward branch. Φ is the
    /// standard normal distribution function, σ the logistic function.
    pub activation: Activation,
    /// The normalisation over the d_model numbers of a byte, in schemes that have one or may have
    /// one.
    pub norm: NormKind,
    /// How the model knows the position of each byte.
    pub positions: Positions,
    /// Whether the output layer's matrix is the transpose of the embedding's. It then has no bias.
    pub tied: bool,
    /// Whether the linear layers of attention and feed-forward have biases. An untied output layer
    /// always has.
    pub bias: bool,
    /// A constant c: a byte enters the network as c times its embedding, plus its position. The
    /// ReZero authors' notebook has c = √d_model, as Vaswani et al., arXiv 1706.03762, section 3.4;
    /// 1 leaves the embedding as it is.
    pub embedding_scale: f64,
    /// The initial weights. With d_model = 256, the embedding is from U(−1/256, 1/256) under
    /// pytorch, as the ReZero authors advise, and from U(−0.1, 0.1) under notebook.
    pub init: WeightInit,
}

/// The network of the family.
pub type Network = RztxLm;

impl Default for Section {
    fn default() -> Self {
        Self {
            depth: 12,
            scheme: ResidualScheme::ReZero,
            d_model: 256,
            n_heads: 4,
            d_ff: 1024,
            context: 256,
            dropout: 0.0,
            activation: Activation::Gelu,
            norm: NormKind::Auto,
            positions: Positions::Learned,
            tied: false,
            bias: true,
            embedding_scale: 1.0,
            init: WeightInit::PyTorch,
        }
    }
}

impl Section {
    /// The network's configuration.
    pub fn config(&self, gates: &Gates, form: &ByteForm) -> RztxLmConfig {
        let encoder = RztxEncoderConfig::new(self.d_model, self.d_ff, self.n_heads, self.depth)
            .with_dropout(self.dropout)
            .with_activation(self.activation)
            .with_bias(self.bias)
            .with_residual(gates.residual(self.scheme).with_norm(self.norm))
            .with_init(self.init.into());
        RztxLmConfig::new(encoder, self.context)
            .with_vocab_size(form.vocab_size)
            .with_positions(self.positions)
            .with_tied(self.tied)
            .with_embedding_scale(self.embedding_scale)
    }
}

impl Family for Section {
    type Domain = Text;
    type Network = Network;

    const RECIPE: &'static str = "enwik8-small";
    const JACOBIAN: &'static str =
        "from the embedding of the first positions to the output of the layers";
    const SUB_LAYERS: bool = true;
    const RECOMPUTES: bool = true;
    /// The table of learned positions is made anew for another context.
    const RESHAPES: &'static [&'static str] = &["context"];

    fn schemes() -> &'static [ResidualScheme] {
        RztxEncoderConfig::SCHEMES
    }

    fn scheme(&self) -> ResidualScheme {
        self.scheme
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn with_depth(self, depth: usize) -> Self {
        Self { depth, ..self }
    }

    fn layers(&self) -> usize {
        self.depth
    }

    fn needs(&self) -> Windows {
        Windows {
            context: self.context,
            fixed: self.positions == Positions::Learned,
        }
    }

    fn identity(&self) -> String {
        let mut text = format!(
            " d_model={} n_heads={} d_ff={} context={} activation={} positions={}",
            self.d_model, self.n_heads, self.d_ff, self.context, self.activation, self.positions
        );
        if self.norm != NormKind::Auto {
            text.push_str(&format!(" norm={}", self.norm));
        }
        if self.tied {
            text.push_str(" tied");
        }
        if !self.bias {
            text.push_str(" bias=false");
        }
        if self.embedding_scale != 1.0 {
            text.push_str(&format!(" embedding_scale={}", self.embedding_scale));
        }
        text
    }

    fn check(&self, _train: &Train) -> Result<()> {
        positive("model.depth", self.depth, 10_000)?;
        positive("model.d_model", self.d_model, 1 << 16)?;
        positive("model.n_heads", self.n_heads, 1 << 16)?;
        positive("model.d_ff", self.d_ff, 1 << 20)?;
        // Refuses sizes that no machine can hold, before anything is allocated.
        let layer =
            4 * self.d_model * self.d_model + self.activation.matrices() * self.d_model * self.d_ff;
        let parameters = (self.depth * layer) as u64;
        check(
            parameters <= MAX_PARAMETERS,
            "model.d_model",
            format!(
                "at most {MAX_PARAMETERS} parameters, got {parameters} of depth={} d_model={} d_ff={}",
                self.depth, self.d_model, self.d_ff
            ),
        )?;
        check(
            self.d_model.is_multiple_of(self.n_heads),
            "model.n_heads",
            format!(
                "must divide d_model, got d_model={} n_heads={}",
                self.d_model, self.n_heads
            ),
        )?;
        let d_head = self.d_model / self.n_heads;
        check(
            self.positions != Positions::Rotary || d_head.is_multiple_of(2),
            "model.positions",
            format!("rotary positions need heads of even width, got d_model / n_heads = {d_head}"),
        )?;
        check(
            self.positions != Positions::Sinusoidal || self.d_model.is_multiple_of(2),
            "model.positions",
            format!(
                "sinusoidal positions need an even d_model, got {}",
                self.d_model
            ),
        )?;
        check(
            (0.0..1.0).contains(&self.dropout),
            "model.dropout",
            format!("must be in [0, 1), got {}", self.dropout),
        )?;
        check(
            in_f32(self.embedding_scale).is_finite(),
            "model.embedding_scale",
            format!("must be finite as f32, got {}", self.embedding_scale),
        )?;
        check(
            self.norm == NormKind::Auto || self.scheme.takes_norm(),
            "model.norm",
            format!("the scheme {} has no norm; leave norm=auto", self.scheme),
        )
    }

    fn init(&self, gates: &Gates, form: &ByteForm, device: &Device) -> Network {
        self.config(gates, form).init(device)
    }

    fn grow(
        &self,
        gates: &Gates,
        form: &ByteForm,
        network: Network,
        place: Place,
    ) -> Result<Network, GrowError> {
        self.config(gates, form).grow(network, place)
    }

    fn recognised(weights: &TorchWeights) -> Option<Recognised> {
        let shape = lm_shape(weights)?;
        let mut settings = vec![
            ("model.depth", shape.n_layers.to_string()),
            ("model.d_model", shape.d_model.to_string()),
            ("model.d_ff", shape.d_ff.to_string()),
            ("model.tied", shape.tied.to_string()),
            ("model.bias", shape.bias.to_string()),
        ];
        let mut not = Vec::new();
        if shape.gate && !shape.norm {
            settings.push(("model.scheme", ResidualScheme::ReZero.to_string()));
            settings.push(("gates.alpha_shared", shape.alpha_shared.to_string()));
            settings.push((
                "gates.alpha_per_channel",
                shape.alpha_per_channel.to_string(),
            ));
        }
        if shape.swiglu {
            settings.push(("model.activation", Activation::SwiGlu.to_string()));
        }
        if let Some(context) = shape.context {
            settings.push(("model.context", context.to_string()));
            settings.push(("model.positions", Positions::Learned.to_string()));
        } else if shape.sinusoidal {
            settings.push(("model.positions", Positions::Sinusoidal.to_string()));
        } else {
            not.push(("model.positions", "learned", "sinusoidal, rotary or none"));
        }
        if shape.norm && !shape.gate {
            not.push(("model.scheme", "rezero", "post-norm, pre-norm or gpt2-norm"));
        }
        Some(Recognised {
            settings,
            form: format!("{} tokens", shape.vocab_size),
            not,
            ..Recognised::default()
        })
    }

    fn described(&self, gates: &Gates) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("model.scheme", self.scheme.to_string()),
            ("model.depth", self.depth.to_string()),
            ("model.d_model", self.d_model.to_string()),
            ("model.n_heads", self.n_heads.to_string()),
            ("model.d_ff", self.d_ff.to_string()),
            ("model.activation", self.activation.to_string()),
            ("model.norm", self.norm.to_string()),
            ("model.positions", self.positions.to_string()),
            ("model.embedding_scale", self.embedding_scale.to_string()),
        ];
        all.extend(gates.described(self.scheme, true));
        // Other positions have no length of their own.
        if self.positions == Positions::Learned {
            all.push(("model.context", self.context.to_string()));
        }
        all
    }

    fn untold(&self) -> Vec<&'static str> {
        let mut untold = vec!["model.n_heads", "model.embedding_scale", "model.scheme"];
        if self.activation != Activation::SwiGlu {
            untold.push("model.activation");
        }
        if self.positions != Positions::Learned {
            untold.push("model.positions");
        }
        untold
    }

    /// The package `rezero` 0.1.0 has the authors' layers.
    fn unknown_in_pytorch(&self, gates: &Gates) -> Vec<String> {
        let gated = self.scheme.has_gate();
        let checks = [
            (
                self.scheme == ResidualScheme::ReZero,
                format!("scheme={}", self.scheme),
            ),
            (
                self.positions != Positions::Rotary,
                "positions=rotary".to_owned(),
            ),
            (
                matches!(self.activation, Activation::Relu | Activation::Gelu),
                format!("activation={}", self.activation),
            ),
            (self.norm == NormKind::Auto, format!("norm={}", self.norm)),
            (self.bias, "bias=false".to_owned()),
            (
                !gated || gates.alpha_bound == 0.0,
                format!("alpha_bound={}", gates.alpha_bound),
            ),
            (
                !gated || gates.alpha_shared,
                "alpha_shared=false".to_owned(),
            ),
            (
                !gated || !gates.alpha_per_channel,
                "alpha_per_channel=true".to_owned(),
            ),
        ];
        let unknown = checks.into_iter().filter(|(known, _)| !known);
        unknown.map(|(_, what)| what).collect()
    }

    fn logits(network: &Network, batch: &TextBatch) -> Tensor<3> {
        network.forward(batch.inputs.clone())
    }

    /// Of as many positions as have 512 values together.
    fn jacobians(network: &Network, batch: &TextBatch) -> Result<Vec<Jacobian>, JacobianError> {
        let x = network.embed(batch.inputs.clone(), 0);
        let [_, length, d_model] = x.dims();
        let length = (JACOBIAN_ROWS / d_model).clamp(1, length);
        JacobianProbe::new().run_module(
            network,
            |net, x| net.encoder.forward(RztxEncoderInput::new(x).causal()),
            x.narrow(1, 0, length),
        )
    }

    fn recomputed(
        network: &Network,
        batch: &TextBatch,
        pass: &Pass,
    ) -> Option<(Sums, GradientsParams)> {
        let mut sums = None;
        let (_, gradients) = network.loss_and_gradients(
            batch.inputs.clone(),
            |part| mix(pass.seed, part),
            |logits| {
                let found = sums.insert(Text::sums(logits, batch));
                found.loss.clone() * pass.scale
            },
        );
        sums.map(|sums| (sums, gradients))
    }
}
