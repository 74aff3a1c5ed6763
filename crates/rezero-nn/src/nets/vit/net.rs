//! Configuration, module and forward pass.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Tensor};
use rezero_kernels::Epilogue;

use super::positions::{PatchPositions, resized, sinusoidal};
use crate::nets::patches::{PatchEmbedding, grid};
use crate::nets::transformer::{
    Activation, RztxEncoder, RztxEncoderConfig, RztxEncoderInput, drop, init_linear,
};
use crate::vocabulary::vocabulary;
use rezero_kernels::fused;

vocabulary! {
    "pooling";
    /// The vector of a whole image, which the output layer takes.
    pub enum Pooling {
        /// The output at a class token, a trained vector that comes before the patches. With ReZero
        /// and α = 0 it does not depend on the image: the first step opens the gates.
        Token = "token",
        /// The mean of the outputs at all patches.
        Mean = "mean",
    }
}

/// Configuration to create a [`Vit`] using the [init function](VitConfig::init).
#[derive(Config, Debug)]
pub struct VitConfig {
    /// The layers. Their `init` also has the initial weights of learned positions (`None`:
    /// N(0, 0.02²)) and of the output layer.
    pub encoder: RztxEncoderConfig,
    /// Height and width of the images that learned positions are made for.
    pub image_size: [usize; 2],
    /// The side of a patch in pixels; it divides both sides of an image.
    pub patch_size: usize,
    /// The channels of an image. Default: 3
    #[config(default = 3)]
    pub in_channels: usize,
    /// The number of classes. Default: 10
    #[config(default = 10)]
    pub num_classes: usize,
    /// The vector of a whole image. Default: the class token
    #[config(default = "Pooling::Token")]
    pub pooling: Pooling,
    /// How the network knows the place of a patch. Default: learned
    #[config(default = "PatchPositions::Learned")]
    pub positions: PatchPositions,
}

/// A Vision Transformer: Dosovitskiy et al.,
/// [arXiv 2010.11929](https://arxiv.org/abs/2010.11929). A linear layer embeds each patch of the
/// image, a class token comes first if there is one, positions are added, encoder layers follow, and a
/// linear layer takes the class token or the mean over patches.
///
/// The paper's network is pre-norm. ReZero, the default here, has no norm.
///
/// Should be created using [VitConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Vit {
    /// The embedding of a patch.
    pub patches: PatchEmbedding,
    /// The class token, `[d_model]`, 0 at the start.
    pub class_token: Option<Param<Tensor<1>>>,
    /// Learned positions, `[tokens, d_model]`: of the class token if there is one, then of the
    /// patches, row by row.
    pub position_table: Option<Param<Tensor<2>>>,
    /// Dropout of the embedded patches with their positions.
    pub dropout: Dropout,
    /// The layers.
    pub encoder: RztxEncoder,
    /// The output layer, `[d_model, num_classes]`.
    pub head: Linear,
    /// Rows and columns of patches that `position_table` is made for.
    #[module(skip)]
    pub grid: [usize; 2],
    /// How the network knows the place of a patch.
    #[module(skip)]
    pub positions: PatchPositions,
}

impl VitConfig {
    /// ViT-Ti/4 for 32×32 images: 12 layers of `d_model` 192 with 3 heads, patches of 4×4 and 10
    /// classes.
    pub fn tiny_32() -> Self {
        Self::preset(192, 3, [32, 32], 4).with_num_classes(10)
    }

    /// ViT-Ti/16 for 224×224 images (Touvron et al.,
    /// [arXiv 2012.12877](https://arxiv.org/abs/2012.12877)): 12 layers of `d_model` 192 with 3
    /// heads, patches of 16×16 and 1,000 classes.
    pub fn tiny_224() -> Self {
        Self::preset(192, 3, [224, 224], 16)
    }

    /// ViT-S/16 for 224×224 images, as [`tiny_224`](Self::tiny_224) with `d_model` 384 and 6 heads.
    pub fn small_224() -> Self {
        Self::preset(384, 6, [224, 224], 16)
    }

    /// ViT-B/16 for 224×224 images, as [`tiny_224`](Self::tiny_224) with `d_model` 768 and 12 heads.
    pub fn base_224() -> Self {
        Self::preset(768, 12, [224, 224], 16)
    }

    /// 12 layers with GELU, d_ff = 4 · d_model and no dropout, for 1,000 classes.
    fn preset(d_model: usize, n_heads: usize, image_size: [usize; 2], patch_size: usize) -> Self {
        let encoder = RztxEncoderConfig::new(d_model, 4 * d_model, n_heads, 12)
            .with_activation(Activation::Gelu)
            .with_dropout(0.0);
        Self::new(encoder, image_size, patch_size).with_num_classes(1000)
    }

    /// Initializes the network on `device`.
    ///
    /// # Panics
    ///
    /// If a side of the image is no multiple of the patch size, `in_channels` or `num_classes` is 0,
    /// `d_model` is no multiple of 4 under sinusoidal positions, or as [`RztxEncoderConfig::init`].
    pub fn init(&self, device: &Device) -> Vit {
        assert!(
            self.in_channels > 0 && self.num_classes > 0,
            "in_channels and num_classes must be greater than zero, got {} and {}.",
            self.in_channels,
            self.num_classes
        );
        let d_model = self.encoder.d_model;
        assert!(
            self.positions != PatchPositions::Sinusoidal || d_model.is_multiple_of(4),
            "sinusoidal positions of patches need a d_model that is a multiple of 4, got {d_model}."
        );
        let init = &self.encoder.init;
        let grid = grid(self.image_size, self.patch_size);
        let has_token = self.pooling == Pooling::Token;
        let tokens = grid[0] * grid[1] + usize::from(has_token);
        let of_positions = init.positions.clone().unwrap_or(Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        });
        Vit {
            patches: PatchEmbedding::new(self.in_channels, self.patch_size, d_model, device),
            class_token: has_token.then(|| Initializer::Zeros.init([d_model], device)),
            position_table: (self.positions == PatchPositions::Learned)
                .then(|| of_positions.init([tokens, d_model], device)),
            dropout: DropoutConfig::new(self.encoder.dropout).init(),
            encoder: self.encoder.init(device),
            head: init_linear(
                [d_model, self.num_classes],
                &init.head,
                Some(init.head_bias.as_ref()),
                device,
            ),
            grid,
            positions: self.positions,
        }
    }
}

impl Vit {
    /// Computes class logits.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, in_channels, height, width]`
    /// - output: `[batch, num_classes]`
    ///
    /// # Panics
    ///
    /// As [`embed`](Self::embed).
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = drop(&self.dropout, self.embed(images), false);
        self.logits(self.encoder.forward(RztxEncoderInput::new(x)))
    }

    /// The embedded patches with their positions, after the class token if there is one; without
    /// dropout. For images of another size than the configuration's, learned positions are
    /// interpolated in every call; [`with_image_size`](Self::with_image_size) does it once.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, in_channels, height, width]`
    /// - output: `[batch, tokens, d_model]`
    ///
    /// # Panics
    ///
    /// If a side of the images is no multiple of the patch size, or their channels are not those of
    /// the configuration.
    pub fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        let [batch, _, height, width] = images.dims();
        let grid = grid([height, width], self.patches.patch_size);
        let x = self.patches.forward(images);
        let [_, _, d_model] = x.dims();
        let x = match &self.class_token {
            Some(token) => {
                let token = token.val().reshape([1, 1, d_model]);
                Tensor::cat(vec![token.expand([batch, 1, d_model]), x], 1)
            }
            None => x,
        };
        match self.positions(grid, &x) {
            Some(positions) => x + positions.unsqueeze(),
            None => x,
        }
    }

    /// The output layer, on the class token or the mean over patches.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, tokens, d_model]`, the output of the encoder
    /// - output: `[batch, num_classes]`
    pub fn logits(&self, x: Tensor<3>) -> Tensor<2> {
        let [batch, _, d_model] = x.dims();
        let image = match &self.class_token {
            Some(_) => x.narrow(1, 0, 1),
            None => x.mean_dim(1),
        };
        fused::linear(
            &self.head,
            image.reshape([batch, d_model]),
            Epilogue::Identity,
        )
    }

    /// The vector of a whole image, which the output layer takes.
    pub fn pooling(&self) -> Pooling {
        match self.class_token {
            Some(_) => Pooling::Token,
            None => Pooling::Mean,
        }
    }

    /// The network with learned positions for images of another size, to be trained further: section
    /// 3.2 of the paper. They are interpolated as [`PatchPositions::Learned`] says. Other kinds of
    /// positions need no change.
    ///
    /// # Panics
    ///
    /// If a side of the image is no multiple of the patch size.
    #[must_use]
    pub fn with_image_size(mut self, image_size: [usize; 2]) -> Self {
        let grid = grid(image_size, self.patches.patch_size);
        let table = self.position_table.take();
        self.position_table = table.map(|table| {
            table.map(|old| {
                let learns = old.is_require_grad();
                let new = self.on_grid(old, grid).detach();
                match learns {
                    true => new.require_grad(),
                    false => new,
                }
            })
        });
        self.grid = grid;
        self
    }

    /// What is added to the tokens `x` of an image of this grid.
    fn positions(&self, grid: [usize; 2], x: &Tensor<3>) -> Option<Tensor<2>> {
        match self.positions {
            PatchPositions::Learned => {
                let table = self.position_table.as_ref()?.val();
                Some(self.on_grid(table, grid))
            }
            PatchPositions::Sinusoidal => {
                let [_, _, d_model] = x.dims();
                let device = x.device();
                let of_patches = sinusoidal(grid, d_model, &device).cast(x.dtype());
                Some(match self.class_token {
                    Some(_) => {
                        let of_token = Tensor::<2>::zeros([1, d_model], &device).cast(x.dtype());
                        Tensor::cat(vec![of_token, of_patches], 0)
                    }
                    None => of_patches,
                })
            }
            PatchPositions::None => None,
        }
    }

    /// The table of positions, interpolated to another grid. The class token's position stays.
    fn on_grid(&self, table: Tensor<2>, to: [usize; 2]) -> Tensor<2> {
        let from = self.grid;
        if from == to {
            return table;
        }
        let patches = from[0] * from[1];
        match self.class_token {
            Some(_) => {
                let token = table.clone().narrow(0, 0, 1);
                let rest = table.narrow(0, 1, patches);
                Tensor::cat(vec![token, resized(rest, from, to)], 0)
            }
            None => resized(table, from, to),
        }
    }
}

impl ModuleDisplay for Vit {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model, num_classes] = self.head.weight.lazy_shape().dims();
        content
            .add("d_model", &d_model)
            .add("n_layers", &self.encoder.layers.len())
            .add("patch_size", &self.patches.patch_size)
            .add("num_classes", &num_classes)
            .add("trainable", &crate::parameter_count(self))
            .optional()
    }
}
