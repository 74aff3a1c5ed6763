//! CIFAR ResNets of depth 6n+2.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, BatchNormConfig, Linear};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use rezero_kernels::Epilogue;

use super::block::{BasicBlock, BasicBlockConfig, weights};
use crate::init;
use crate::residual::{Convolutions, ResidualConfig, ResidualScheme};
use crate::vocabulary::vocabulary;
use rezero_kernels::fused;

vocabulary! {
    "definition";
    /// Which code decides details that the paper leaves open: one of the authors' two versions of their
    /// CIFAR code, or torchvision.
    pub enum Definition {
        /// The notebook ReZNet-6x: shortcut padded with zero channels on both sides; every convolution
        /// and linear weight from N(0, 2 / fan_in).
        Notebook = "notebook",
        /// The code behind the table: batch norm on a down-sampling shortcut and zero channels appended
        /// at the end; convolutions from N(0, 2 / fan_out); the linear layer keeps PyTorch's default.
        Table = "table",
        /// Not the authors': a 1×1 convolution with batch norm on a down-sampling shortcut, option B of He
        /// et al., section 4.2, as in torchvision and in many published CIFAR-10 checkpoints;
        /// convolutions from N(0, 2 / fan_out); the linear layer keeps PyTorch's default. SkipInit and
        /// FixUp, which have no norm, keep their shortcuts.
        Projection = "projection",
    }
}

/// The residual schemes of the paper's CIFAR-10 table.
pub(super) const SCHEMES: &[ResidualScheme] = &[
    ResidualScheme::Residual,
    ResidualScheme::ZeroGamma,
    ResidualScheme::ReZero,
    ResidualScheme::Gated,
    ResidualScheme::FixUp,
    ResidualScheme::SkipInit,
];

/// Configuration to create a [`CifarResNet`] using the [init function](CifarResNetConfig::init).
#[derive(Config, Debug)]
pub struct CifarResNetConfig {
    /// The number of weighted layers, 6n+2: 20, 32, 44, 56, 110, 1202, …
    pub depth: usize,
    /// The residual scheme, with one gate per block. Default: ReZero
    #[config(default = "ResidualConfig::new(ResidualScheme::ReZero)")]
    pub residual: ResidualConfig,
    /// Which code decides shortcut and initialisation. Default: Notebook
    #[config(default = "Definition::Notebook")]
    pub definition: Definition,
    /// The channels of an image. Default: 3
    #[config(default = 3)]
    pub in_channels: usize,
    /// The number of classes. Default: 10
    #[config(default = 10)]
    pub num_classes: usize,
}

/// A ResNet for 32×32 images: He et al., [arXiv 1512.03385](https://arxiv.org/abs/1512.03385),
/// section 4.2, with the residual schemes of the ReZero paper.
///
/// It has a 3×3 convolution to 16 channels, three stages of n blocks with 16, 32 and 64 channels,
/// the mean over the image, and a linear layer: 6n+2 weighted layers. The first block of the second
/// and of the third stage halves the image's height and width.
///
/// Should be created using [CifarResNetConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct CifarResNet {
    /// 3×3, `in_channels` to 16 channels.
    pub conv: Conv2d,
    /// After `conv`, in the schemes with norm.
    pub norm: Option<BatchNorm>,
    /// A scalar that is added after `conv`, `[1]`, under FixUp.
    pub bias1: Option<Param<Tensor<1>>>,
    /// The 3n residual blocks.
    pub blocks: Vec<BasicBlock>,
    /// A scalar that is added before `linear`, `[1]`, under FixUp.
    pub bias2: Option<Param<Tensor<1>>>,
    /// 64 to `num_classes`.
    pub linear: Linear,
    /// The residual scheme.
    #[module(skip)]
    pub scheme: ResidualScheme,
}

impl CifarResNetConfig {
    /// The residual schemes of these networks.
    pub const SCHEMES: &'static [ResidualScheme] = SCHEMES;

    /// ResNet-20.
    pub fn resnet20() -> Self {
        Self::new(20)
    }

    /// ResNet-32.
    pub fn resnet32() -> Self {
        Self::new(32)
    }

    /// ResNet-44.
    pub fn resnet44() -> Self {
        Self::new(44)
    }

    /// ResNet-56.
    pub fn resnet56() -> Self {
        Self::new(56)
    }

    /// ResNet-110.
    pub fn resnet110() -> Self {
        Self::new(110)
    }

    /// ResNet-1202.
    pub fn resnet1202() -> Self {
        Self::new(1202)
    }

    /// Initializes the network on `device`.
    ///
    /// # Panics
    ///
    /// If `depth` is not 6n+2 with n ≥ 1, `in_channels` or `num_classes` is 0, the scheme is not one of
    /// [`SCHEMES`](Self::SCHEMES), or as [`ResidualConfig::init`].
    pub fn init(&self, device: &Device) -> CifarResNet {
        assert!(
            self.depth >= 8 && self.depth % 6 == 2,
            "depth must be 6n+2 with n >= 1 (8, 14, 20, 32, 44, 56, 110, 1202), got {}.",
            self.depth
        );
        assert!(
            self.in_channels > 0 && self.num_classes > 0,
            "in_channels and num_classes must be greater than zero, got {} and {}.",
            self.in_channels,
            self.num_classes
        );
        self.residual
            .check_without_norm("CifarResNetConfig", SCHEMES);
        let n = self.blocks_of_stage();
        let mut blocks = Vec::with_capacity(3 * n);
        let mut c_in = 16;
        for (stage, c_out) in [16, 32, 64].into_iter().enumerate() {
            for i in 0..n {
                let block = BasicBlockConfig {
                    channels: [c_in, c_out],
                    stride: if stage > 0 && i == 0 { 2 } else { 1 },
                    residual: self.residual.clone(),
                    definition: self.definition,
                    n_blocks: 3 * n,
                };
                blocks.push(block.init(device));
                c_in = c_out;
            }
        }

        let row = self.residual.scheme.row();
        let fixup = row.convolutions == Convolutions::FixUp;
        let biased = row.convolutions == Convolutions::Biased;
        let scalar = || Initializer::Zeros.init([1], device);
        // FixUp's reference initialises its blocks and its linear layer only.
        let stem = match fixup {
            true => init::torch_default(),
            false => weights(self.definition, row.join),
        };
        let head = match (fixup, self.definition) {
            (true, _) => Initializer::Zeros,
            (false, Definition::Notebook) => init::kaiming_normal(false),
            (false, Definition::Table | Definition::Projection) => init::torch_default(),
        };
        let mut linear = init::linear(64, self.num_classes, head, device);
        if fixup {
            linear.bias = Some(Initializer::Zeros.init([self.num_classes], device));
        }
        CifarResNet {
            conv: init::conv([self.in_channels, 16], 3, 1, biased, stem, device),
            norm: (!fixup && !biased).then(|| BatchNormConfig::new(16).init(device)),
            bias1: fixup.then(scalar),
            blocks,
            bias2: fixup.then(scalar),
            linear,
            scheme: self.residual.scheme,
        }
    }

    pub(super) fn blocks_of_stage(&self) -> usize {
        (self.depth - 2) / 6
    }
}

impl CifarResNet {
    /// Computes class logits.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, in_channels, height, width]`, normalised; 32×32 in the paper
    /// - output: `[batch, num_classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = fused::conv2d(&self.conv, images);
        let mut x = match (&self.norm, &self.bias1) {
            (Some(norm), _) => fused::batch_norm(norm, x, Epilogue::Relu),
            (None, Some(bias)) => relu(x + bias.val().unsqueeze()),
            (None, None) => relu(x),
        };
        for block in &self.blocks {
            x = block.forward(x);
        }
        let mut x = init::global_average_pool(x);
        if let Some(bias) = &self.bias2 {
            x = x + bias.val().unsqueeze();
        }
        fused::linear(&self.linear, x, Epilogue::Identity)
    }

    /// The number of weighted layers, 6n+2.
    pub fn depth(&self) -> usize {
        2 * self.blocks.len() + 2
    }
}

impl ModuleDisplay for CifarResNet {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [_, num_classes] = self.linear.weight.lazy_shape().dims();
        content
            .add("depth", &self.depth())
            .add_debug_attribute("scheme", &self.scheme)
            .add("num_classes", &num_classes)
            .add("trainable", &crate::parameter_count(self))
            .optional()
    }
}
