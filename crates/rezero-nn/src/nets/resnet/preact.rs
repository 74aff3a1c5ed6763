//! Pre-activation ResNets for 32×32 images.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, BatchNormConfig, Linear};
use burn::tensor::{Device, Tensor};
use rezero_kernels::Epilogue;

use crate::init;
use crate::residual::{Residual, ResidualConfig, ResidualScheme, Site};
use crate::vocabulary::vocabulary;
use rezero_kernels::fused;

vocabulary! {
    "depth of a pre-activation ResNet";
    /// The named depths of [`PreActResNet`].
    pub enum PreActDepth {
        /// 2, 2, 2, 2 basic blocks.
        D18 = "18",
        /// 3, 4, 6, 3 basic blocks.
        D34 = "34",
        /// 3, 4, 6, 3 bottleneck blocks with expansion 4.
        D50 = "50",
    }
}

/// Configuration to create a [`PreActResNet`] using the [init function](PreActResNetConfig::init).
#[derive(Config, Debug)]
pub struct PreActResNetConfig {
    /// The depth.
    pub depth: PreActDepth,
    /// The residual scheme, with one gate per block. Default: ReZero
    #[config(default = "ResidualConfig::new(ResidualScheme::ReZero)")]
    pub residual: ResidualConfig,
    /// The channels of an image. Default: 3
    #[config(default = 3)]
    pub in_channels: usize,
    /// The number of classes. Default: 10
    #[config(default = 10)]
    pub num_classes: usize,
}

/// Configuration to create a [`PreActBlock`] using the [init function](PreActBlockConfig::init).
#[derive(Config, Debug)]
pub struct PreActBlockConfig {
    /// The channels of input and output.
    pub channels: [usize; 2],
    /// The stride, the same in both directions. Default: 1
    #[config(default = 1)]
    pub stride: usize,
    /// Whether the branch has 1×1, 3×3 and 1×1 convolutions instead of two of 3×3. The first two
    /// then have a quarter of the block's output channels. Default: false
    #[config(default = false)]
    pub bottleneck: bool,
    /// The residual scheme with its gate. Default: ReZero
    #[config(default = "ResidualConfig::new(ResidualScheme::ReZero)")]
    pub residual: ResidualConfig,
}

/// A pre-activation ResNet: He et al., [arXiv 1603.05027](https://arxiv.org/abs/1603.05027), as the
/// authors of ReZero run it on CIFAR-10.
///
/// It has a 3×3 convolution to 64 channels without norm, four stages with 64, 128, 256 and 512
/// channels (times 4 at depth 50), the mean over the image, and a linear layer. There is no norm
/// and no ReLU before the mean. All weights have PyTorch's default initialisation.
///
/// Should be created using [PreActResNetConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct PreActResNet {
    /// 3×3, `in_channels` to 64 channels.
    pub conv: Conv2d,
    /// The residual blocks of all stages.
    pub blocks: Vec<PreActBlock>,
    /// 512 (times 4 at depth 50) to `num_classes`.
    pub linear: Linear,
}

/// `shortcut + α · F(x)` with `F(x) = conv_k(relu(bn_k(… conv_1(relu(bn_1(x))))))`: two 3×3
/// convolutions (basic) or 1×1, 3×3, 1×1 (bottleneck). No ReLU follows the sum.
///
/// The shortcut is `x`, or a 1×1 convolution of `relu(bn_1(x))` where the shape changes.
///
/// Should be created using [PreActBlockConfig].
#[derive(Module, Debug)]
pub struct PreActBlock {
    /// The norms, each before the convolution of the same index.
    pub norms: Vec<BatchNorm>,
    /// The convolutions.
    pub convs: Vec<Conv2d>,
    /// 1×1, where the shape changes.
    pub shortcut: Option<Conv2d>,
    /// How the branch joins its skip path.
    pub residual: Residual,
}

/// The ratio of a bottleneck block's output channels to those of its 3×3 convolution.
const EXPANSION: usize = 4;

/// The residual schemes of the paper's table and of its superconvergence experiment.
const SCHEMES: &[ResidualScheme] = &[
    ResidualScheme::Residual,
    ResidualScheme::ReZero,
    ResidualScheme::Gated,
];

impl PreActDepth {
    /// The number of blocks in each stage.
    pub(super) fn blocks(self) -> [usize; 4] {
        match self {
            Self::D18 => [2, 2, 2, 2],
            Self::D34 | Self::D50 => [3, 4, 6, 3],
        }
    }

    pub(super) fn bottleneck(self) -> bool {
        match self {
            Self::D18 | Self::D34 => false,
            Self::D50 => true,
        }
    }
}

impl PreActResNetConfig {
    /// The residual schemes of these networks.
    pub const SCHEMES: &'static [ResidualScheme] = SCHEMES;

    /// Initializes the network on `device`.
    ///
    /// # Panics
    ///
    /// If `in_channels` or `num_classes` is 0, the scheme is not one of [`SCHEMES`](Self::SCHEMES), or as
    /// [`ResidualConfig::init`].
    pub fn init(&self, device: &Device) -> PreActResNet {
        assert!(
            self.in_channels > 0 && self.num_classes > 0,
            "in_channels and num_classes must be greater than zero, got {} and {}.",
            self.in_channels,
            self.num_classes
        );
        self.residual
            .check_without_norm("PreActResNetConfig", SCHEMES);
        let counts = self.depth.blocks();
        let bottleneck = self.depth.bottleneck();
        let expansion = if bottleneck { EXPANSION } else { 1 };
        let mut blocks = Vec::with_capacity(counts.iter().sum());
        let mut c_in = 64;
        for (stage, (count, width)) in counts.into_iter().zip([64, 128, 256, 512]).enumerate() {
            for i in 0..count {
                let block = PreActBlockConfig {
                    channels: [c_in, width * expansion],
                    stride: if stage > 0 && i == 0 { 2 } else { 1 },
                    bottleneck,
                    residual: self.residual.clone(),
                };
                blocks.push(block.init(device));
                c_in = width * expansion;
            }
        }
        let conv = init::conv(
            [self.in_channels, 64],
            3,
            1,
            false,
            init::torch_default(),
            device,
        );
        PreActResNet {
            conv,
            blocks,
            linear: init::linear(c_in, self.num_classes, init::torch_default(), device),
        }
    }
}

impl PreActBlockConfig {
    /// Initializes the block on `device`.
    ///
    /// # Panics
    ///
    /// If a size is 0, a bottleneck's output channels are not a multiple of 4, the scheme is not one of
    /// [`PreActResNetConfig::SCHEMES`], or as [`ResidualConfig::init`].
    pub fn init(&self, device: &Device) -> PreActBlock {
        let ([c_in, c_out], stride) = (self.channels, self.stride);
        assert!(
            c_in > 0 && c_out > 0 && stride > 0,
            "a block's channels and stride must be greater than zero, got channels {c_in} to \
             {c_out} and stride {stride}."
        );
        assert!(
            !self.bottleneck || c_out.is_multiple_of(EXPANSION),
            "a bottleneck's output channels must be a multiple of {EXPANSION}, got {c_out}."
        );
        self.residual
            .check_without_norm("PreActBlockConfig", SCHEMES);
        // (channels in, channels out, kernel, stride) of each convolution.
        let layers = match self.bottleneck {
            false => vec![(c_in, c_out, 3, stride), (c_out, c_out, 3, 1)],
            true => {
                let width = c_out / EXPANSION;
                vec![
                    (c_in, width, 1, 1),
                    (width, width, 3, stride),
                    (width, c_out, 1, 1),
                ]
            }
        };
        let conv = |(c_in, c_out, kernel, stride)| {
            init::conv(
                [c_in, c_out],
                kernel,
                stride,
                false,
                init::torch_default(),
                device,
            )
        };
        let site = Site {
            channels: c_out,
            channel_axis: 1,
            n_layers: 1,
        };
        PreActBlock {
            norms: layers
                .iter()
                .map(|&(c_in, ..)| BatchNormConfig::new(c_in).init(device))
                .collect(),
            convs: layers.iter().copied().map(conv).collect(),
            shortcut: (stride != 1 || c_in != c_out).then(|| conv((c_in, c_out, 1, stride))),
            residual: self.residual.init(site, device),
        }
    }
}

impl PreActBlock {
    /// Applies the block.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, c_in, height, width]`
    /// - output: `[batch, c_out, ⌈height / stride⌉, ⌈width / stride⌉]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut skip = x.clone();
        let mut out = x;
        for (i, (norm, conv)) in self.norms.iter().zip(&self.convs).enumerate() {
            out = fused::batch_norm(norm, out, Epilogue::Relu);
            if let (0, Some(shortcut)) = (i, &self.shortcut) {
                skip = fused::conv2d(shortcut, out.clone());
            }
            out = fused::conv2d(conv, out);
        }
        self.residual.combine(skip, out)
    }
}

impl PreActResNet {
    /// Computes class logits.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, in_channels, height, width]`, normalised; 32×32 in the paper
    /// - output: `[batch, num_classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = fused::conv2d(&self.conv, images);
        for block in &self.blocks {
            x = block.forward(x);
        }
        let x = init::global_average_pool(x);
        fused::linear(&self.linear, x, Epilogue::Identity)
    }
}

impl ModuleDisplay for PreActResNet {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let convs: usize = self.blocks.iter().map(|block| block.convs.len()).sum();
        let [_, num_classes] = self.linear.weight.lazy_shape().dims();
        content
            .add("depth", &(convs + 2))
            .add("num_classes", &num_classes)
            .add("trainable", &crate::parameter_count(self))
            .optional()
    }
}
