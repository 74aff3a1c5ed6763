//! Configuration, modules and forward pass.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use rezero_kernels::Epilogue;

use crate::nets::patches::{PatchEmbedding, grid};
use crate::nets::transformer::{
    Activation, FeedForward, FeedForwardConfig, RztxEncoderConfig, RztxInit, init_linear,
};
use crate::residual::{LayerResiduals, Norm, ResidualConfig, ResidualScheme, Site};
use rezero_kernels::fused;

/// Configuration to create a [`Mixer`] using the [init function](MixerConfig::init).
#[derive(Config, Debug)]
pub struct MixerConfig {
    /// The number of channels: the width of a patch between two layers.
    pub d_model: usize,
    /// The width between the two linear layers of token mixing; D_S of the paper.
    pub d_tokens: usize,
    /// The width between the two linear layers of channel mixing; D_C of the paper.
    pub d_channels: usize,
    /// The number of layers.
    pub n_layers: usize,
    /// Height and width of the images.
    pub image_size: [usize; 2],
    /// The side of a patch in pixels; it divides both sides of an image.
    pub patch_size: usize,
    /// The channels of an image. Default: 3
    #[config(default = 3)]
    pub in_channels: usize,
    /// The number of classes. Default: 10
    #[config(default = 10)]
    pub num_classes: usize,
    /// Dropout between the two linear layers of a branch. Default: 0
    #[config(default = 0.0)]
    pub dropout: f64,
    /// The non-linearity. Default: GELU
    #[config(default = "Activation::Gelu")]
    pub activation: Activation,
    /// The residual scheme with its gate and norm. Norms and gates per channel are over the channels in
    /// both branches. Default: ReZero
    #[config(default = "ResidualConfig::new(ResidualScheme::ReZero)")]
    pub residual: ResidualConfig,
    /// The initial weights of branches and output layer. Default: PyTorch's
    #[config(default = "RztxInit::pytorch()")]
    pub init: RztxInit,
}

/// An MLP-Mixer: Tolstikhin et al., [arXiv 2105.01601](https://arxiv.org/abs/2105.01601). A linear
/// layer embeds each patch of the image, [layers](MixerLayer) follow, and a linear layer takes the
/// mean over patches.
///
/// The paper's network is pre-norm. ReZero, the default here, has no norm.
///
/// Should be created using [MixerConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Mixer {
    /// The embedding of a patch.
    pub patches: PatchEmbedding,
    /// The layers.
    pub layers: Vec<MixerLayer>,
    /// The norm after the last layer, in the schemes that have one.
    pub norm: Option<Norm>,
    /// The output layer, `[d_model, num_classes]`.
    pub head: Linear,
}

/// A layer of a [`Mixer`]:
///
/// `x ← x + α · Tokens(xᵀ)ᵀ`, `x ← x + α · Channels(x)`
///
/// with one α for both and no norm, or any other scheme around the same branches
/// `W₂ · act(W₁ x + b₁) + b₂`.
#[derive(Module, Debug)]
pub struct MixerLayer {
    /// Token mixing: over the patches of each channel.
    pub tokens: FeedForward,
    /// Channel mixing: over the channels of each patch.
    pub channels: FeedForward,
    /// The residual connections of the two branches.
    pub residual: LayerResiduals,
}

impl MixerConfig {
    /// The residual schemes of these networks, those of Transformers.
    pub const SCHEMES: &'static [ResidualScheme] = RztxEncoderConfig::SCHEMES;

    /// A small network for 32×32 images: 12 layers of 128 channels, patches of 4×4 and 10 classes.
    pub fn tiny_32() -> Self {
        Self::new(128, 64, 512, 12, [32, 32], 4)
    }

    /// The paper's Mixer-S/16 for 224×224 images: 8 layers of 512 channels, patches of 16×16 and
    /// 1,000 classes.
    pub fn small_224() -> Self {
        Self::new(512, 256, 2048, 8, [224, 224], 16).with_num_classes(1000)
    }

    /// The paper's Mixer-B/16 for 224×224 images: 12 layers of 768 channels, patches of 16×16 and
    /// 1,000 classes.
    pub fn base_224() -> Self {
        Self::new(768, 384, 3072, 12, [224, 224], 16).with_num_classes(1000)
    }

    /// Initializes the network on `device`.
    ///
    /// # Panics
    ///
    /// If a side of the image is no multiple of the patch size, a width, `in_channels` or
    /// `num_classes` is 0, the dropout is not in [0, 1), the scheme is not one of
    /// [`SCHEMES`](Self::SCHEMES), or as [`ResidualConfig::init`].
    pub fn init(&self, device: &Device) -> Mixer {
        assert!(
            self.in_channels > 0 && self.num_classes > 0,
            "in_channels and num_classes must be greater than zero, got {} and {}.",
            self.in_channels,
            self.num_classes
        );
        self.residual.check("MixerConfig", Self::SCHEMES);
        let d_model = self.d_model;
        let bias = Some(self.init.head_bias.as_ref());
        Mixer {
            patches: PatchEmbedding::new(self.in_channels, self.patch_size, d_model, device),
            layers: (0..self.n_layers).map(|_| self.layer(device)).collect(),
            norm: self.residual.init_final_norm(self.site(), device),
            head: init_linear([d_model, self.num_classes], &self.init.head, bias, device),
        }
    }

    fn layer(&self, device: &Device) -> MixerLayer {
        let [rows, columns] = grid(self.image_size, self.patch_size);
        let branch = |width, hidden| FeedForwardConfig {
            d_model: width,
            d_ff: hidden,
            dropout: self.dropout,
            activation: self.activation,
            bias: true,
            gain: self.residual.branch_gain(self.n_layers),
            init: self.init.clone(),
        };
        MixerLayer {
            tokens: branch(rows * columns, self.d_tokens).init(device),
            channels: branch(self.d_model, self.d_channels).init(device),
            residual: self.residual.init_layer(2, self.site(), device),
        }
    }

    fn site(&self) -> Site {
        Site {
            channels: self.d_model,
            channel_axis: 2,
            n_layers: self.n_layers,
        }
    }
}

impl Mixer {
    /// Computes class logits.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, in_channels, height, width]`, of the configuration's size
    /// - output: `[batch, num_classes]`
    ///
    /// # Panics
    ///
    /// If the images have another number of patches or channels than the configuration.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.hidden(self.patches.forward(images));
        let [batch, _, d_model] = x.dims();
        let image = x.mean_dim(1).reshape([batch, d_model]);
        fused::linear(&self.head, image, Epilogue::Identity)
    }

    /// The layers, and the norm after the last where there is one. With ReZero and α = 0 it returns
    /// its input.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, patches, d_model]`
    ///
    /// # Panics
    ///
    /// If `x` has another number of patches than the configuration.
    pub fn hidden(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        Norm::apply(self.norm.as_ref(), x)
    }
}

impl MixerLayer {
    /// Computes the layer.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, patches, d_model]`
    ///
    /// # Panics
    ///
    /// If `x` has another number of patches than the configuration.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, patches, _] = x.dims();
        let [wanted, _] = self.tokens.linear1.weight.lazy_shape().dims();
        assert!(
            patches == wanted,
            "this network mixes {wanted} patches, got {patches}: give it images of its size."
        );
        let x = self.residual.forward(0, x, |x| {
            let mixed = self.tokens.forward(x.swap_dims(1, 2));
            mixed.swap_dims(1, 2)
        });
        self.residual.forward(1, x, |x| self.channels.forward(x))
    }
}

impl ModuleDisplay for Mixer {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model, num_classes] = self.head.weight.lazy_shape().dims();
        content
            .add("d_model", &d_model)
            .add("n_layers", &self.layers.len())
            .add("patch_size", &self.patches.patch_size)
            .add("num_classes", &num_classes)
            .add("trainable", &crate::parameter_count(self))
            .optional()
    }
}
