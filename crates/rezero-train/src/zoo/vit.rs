//! `family = "vit"`: Vision Transformers.

use burn::tensor::{Device, Tensor};
use rezero_data::ImageBatch;
use rezero_nn::torch::TorchWeights;
use rezero_nn::transformer::{Activation, RztxEncoderConfig};
use rezero_nn::vit::{PatchPositions, Pooling, Vit, VitConfig, vit_shape};
use rezero_nn::{
    Grow, GrowError, Jacobian, JacobianError, JacobianProbe, NormKind, Place, ResidualScheme,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::family::{root, unknown_scheme};
use super::{
    Family, ImagesOfFile, JACOBIAN_ROWS, MAX_PARAMETERS, Recognised, of_layers, untold_of_layers,
};
use crate::error::Result;
use crate::recipe::check::{check, positive};
use crate::recipe::{Gates, Train};
use crate::task::{ImageForm, Images};

/// A Vision Transformer: Dosovitskiy et al., arXiv 2010.11929.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    /// The number of layers, each of self-attention and a feed-forward branch.
    pub depth: usize,
    /// The residual scheme: how a layer joins its input `x` with its branch `F`.
    pub scheme: ResidualScheme,
    /// The width of the model: the numbers that represent one patch between two layers.
    pub d_model: usize,
    /// The number of attention heads; it must divide d_model.
    pub n_heads: usize,
    /// The width between the two linear layers of the feed-forward branch; 4 · d_model is usual.
    pub d_ff: usize,
    /// The side of a patch in pixels; it must divide the height and the width of the images.
    pub patch_size: usize,
    /// The vector of a whole image, which the output layer takes.
    pub pooling: Pooling,
    /// How the network knows the place of a patch.
    pub positions: PatchPositions,
    /// Probability with which training sets a value to 0: of the embedding, of the attention's
    /// weights, inside the feed-forward branch and of each branch's output. 0: no dropout.
    pub dropout: f64,
    /// The non-linearity between the two linear layers of the feed-forward branch. Φ is the
    /// standard normal distribution function, σ the logistic function.
    pub activation: Activation,
    /// The normalisation over the d_model numbers of a patch, in schemes that have one or may have
    /// one.
    pub norm: NormKind,
}

/// The network of the family.
pub type Network = Vit;

impl Default for Section {
    fn default() -> Self {
        Self {
            depth: 12,
            scheme: ResidualScheme::ReZero,
            d_model: 64,
            n_heads: 4,
            d_ff: 256,
            patch_size: 4,
            pooling: Pooling::Mean,
            positions: PatchPositions::Learned,
            dropout: 0.0,
            activation: Activation::Gelu,
            norm: NormKind::Auto,
        }
    }
}

impl Section {
    fn config(&self, gates: &Gates, form: &ImageForm) -> VitConfig {
        let encoder = RztxEncoderConfig::new(self.d_model, self.d_ff, self.n_heads, self.depth)
            .with_dropout(self.dropout)
            .with_activation(self.activation)
            .with_residual(gates.residual(self.scheme).with_norm(self.norm));
        VitConfig::new(
            encoder,
            [form.shape.height, form.shape.width],
            self.patch_size,
        )
        .with_in_channels(form.shape.channels)
        .with_num_classes(form.num_classes)
        .with_pooling(self.pooling)
        .with_positions(self.positions)
    }
}

impl Family for Section {
    type Domain = Images;
    type Network = Network;

    const RECIPE: &'static str = "cifar10-vit";
    const JACOBIAN: &'static str =
        "from the embedding of the first tokens to the output of the layers";
    const SUB_LAYERS: bool = true;

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

    fn needs(&self) {}

    fn identity(&self) -> String {
        let mut text = format!(
            " d_model={} n_heads={} d_ff={} patch_size={} pooling={} positions={} activation={}",
            self.d_model,
            self.n_heads,
            self.d_ff,
            self.patch_size,
            self.pooling,
            self.positions,
            self.activation
        );
        if self.norm != NormKind::Auto {
            text.push_str(&format!(" norm={}", self.norm));
        }
        text
    }

    fn check(&self, _train: &Train) -> Result<()> {
        positive("model.depth", self.depth, 10_000)?;
        positive("model.d_model", self.d_model, 1 << 16)?;
        positive("model.n_heads", self.n_heads, 1 << 16)?;
        positive("model.d_ff", self.d_ff, 1 << 20)?;
        positive("model.patch_size", self.patch_size, 1 << 12)?;
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
        check(
            self.positions != PatchPositions::Sinusoidal || self.d_model.is_multiple_of(4),
            "model.positions",
            format!(
                "sinusoidal positions need a d_model that is a multiple of 4, got {}",
                self.d_model
            ),
        )?;
        check(
            (0.0..1.0).contains(&self.dropout),
            "model.dropout",
            format!("must be in [0, 1), got {}", self.dropout),
        )?;
        check(
            self.norm == NormKind::Auto || self.scheme.takes_norm(),
            "model.norm",
            format!("the scheme {} has no norm; leave norm=auto", self.scheme),
        )
    }

    fn takes(&self, form: &ImageForm) -> Result<()> {
        let (shape, p) = (form.shape, self.patch_size);
        check(
            shape.height.is_multiple_of(p) && shape.width.is_multiple_of(p),
            "model.patch_size",
            format!(
                "must divide both sides of the images, which are {shape} (channels, height, width), got {p}"
            ),
        )?;
        let inputs = (shape.channels * p * p + shape.height * shape.width / (p * p)) as u64;
        let ends = inputs.saturating_add(form.num_classes as u64);
        let parameters = ends.saturating_mul(self.d_model as u64);
        check(
            parameters <= MAX_PARAMETERS,
            "model.d_model",
            format!(
                "at most {MAX_PARAMETERS} parameters outside of the layers, got {parameters} of d_model={} for \
                 images of {shape} in {} classes",
                self.d_model, form.num_classes
            ),
        )
    }

    fn init(&self, gates: &Gates, form: &ImageForm, device: &Device) -> Network {
        self.config(gates, form).init(device)
    }

    fn grow(
        &self,
        gates: &Gates,
        form: &ImageForm,
        network: Network,
        place: Place,
    ) -> Result<Network, GrowError> {
        self.config(gates, form).grow(network, place)
    }

    fn recognised(weights: &TorchWeights) -> Option<Recognised> {
        let shape = vit_shape(weights)?;
        let pooling = match shape.class_token {
            true => Pooling::Token,
            false => Pooling::Mean,
        };
        let mut settings = vec![
            ("model.d_model", shape.d_model.to_string()),
            ("model.d_ff", shape.d_ff.to_string()),
            ("model.patch_size", shape.patch_size.to_string()),
            ("model.pooling", pooling.to_string()),
        ];
        let mut not = Vec::new();
        match shape.patches {
            Some(_) => settings.push(("model.positions", PatchPositions::Learned.to_string())),
            None => not.push(("model.positions", "learned", "sinusoidal or none")),
        }
        if shape.swiglu {
            settings.push(("model.activation", Activation::SwiGlu.to_string()));
        }
        let patches = shape.patches.map(|n| format!(", {n} patches"));
        Some(Recognised {
            settings: [of_layers(&shape.layers), settings].concat(),
            form: format!(
                "{} channels{}, {} classes",
                shape.in_channels,
                patches.unwrap_or_default(),
                shape.num_classes
            ),
            images: Some(ImagesOfFile {
                channels: Some(shape.in_channels),
                side: shape
                    .patches
                    .and_then(root)
                    .map(|side| side * shape.patch_size),
                classes: shape.num_classes,
            }),
            not,
            keys: Vec::new(),
        })
    }

    fn described(&self, gates: &Gates) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("model.depth", self.depth.to_string()),
            ("model.scheme", self.scheme.to_string()),
            ("model.d_model", self.d_model.to_string()),
            ("model.n_heads", self.n_heads.to_string()),
            ("model.d_ff", self.d_ff.to_string()),
            ("model.patch_size", self.patch_size.to_string()),
            ("model.pooling", self.pooling.to_string()),
            ("model.positions", self.positions.to_string()),
            ("model.activation", self.activation.to_string()),
            ("model.norm", self.norm.to_string()),
        ];
        all.extend(gates.described(self.scheme, true));
        all
    }

    fn untold(&self) -> Vec<&'static str> {
        let mut untold = vec!["model.n_heads"];
        untold.extend(untold_of_layers(self.scheme, self.activation));
        if self.positions != PatchPositions::Learned {
            untold.push("model.positions");
        }
        untold
    }

    /// Positions are trained for a grid of patches.
    fn interpolates(&self, before: &ImageForm, after: &ImageForm) -> &'static [&'static str] {
        let size = |form: &ImageForm| [form.shape.height, form.shape.width];
        match self.positions {
            PatchPositions::Learned if size(before) != size(after) => &["position_table"],
            PatchPositions::Learned | PatchPositions::Sinusoidal | PatchPositions::None => &[],
        }
    }

    fn interpolate(mut network: Network, source: Network) -> Network {
        let size = network.grid.map(|n| n * network.patches.patch_size);
        let made = source.with_image_size(size).position_table;
        if let (Some(own), Some(made)) = (network.position_table.take(), made) {
            network.position_table = Some(own.map(|_| made.val()));
        }
        network
    }

    /// timm's layers.
    fn unknown_in_pytorch(&self, gates: &Gates) -> Vec<String> {
        unknown_scheme(self.scheme, ResidualScheme::PreNorm, gates)
    }

    fn logits(network: &Network, batch: &ImageBatch) -> Tensor<2> {
        network.forward(batch.images.clone())
    }

    /// Of as many tokens as have 512 values together.
    fn jacobians(network: &Network, batch: &ImageBatch) -> Result<Vec<Jacobian>, JacobianError> {
        let x = network.embed(batch.images.clone());
        let [_, tokens, d_model] = x.dims();
        let tokens = (JACOBIAN_ROWS / d_model).clamp(1, tokens);
        JacobianProbe::new().run_module(
            network,
            |net, x| net.encoder.forward(x),
            x.narrow(1, 0, tokens),
        )
    }
}
