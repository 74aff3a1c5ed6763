//! Pre-activation ResNets for 32×32 images.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, BatchNormConfig, Linear};
use burn::tensor::{Device, Tensor};
use rezero_kernels::Activation;

use crate::fused;
use crate::init;
use crate::residual::{Residual, ResidualConfig, ResidualScheme};
use crate::rezero::ReZeroConfig;

/// The named depths of [`PreActResNet`].
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum PreActDepth {
    /// 2, 2, 2, 2 basic blocks.
    D18,
    /// 3, 4, 6, 3 basic blocks.
    D34,
    /// 3, 4, 6, 3 bottleneck blocks with expansion 4.
    D50,
}

/// Configuration to create a [`PreActResNet`] using the [init function](PreActResNetConfig::init).
#[derive(Config, Debug)]
pub struct PreActResNetConfig {
    /// The depth.
    pub depth: PreActDepth,
    /// How branches join their skip path: `Sum` (vanilla), `ReZero` or `Gated`. Default: ReZero
    #[config(default = "ResidualScheme::ReZero")]
    pub scheme: ResidualScheme,
    /// The number of classes. Default: 10
    #[config(default = 10)]
    pub num_classes: usize,
    /// The gates; `channels: Some(_)` gives each block one α per channel of its own width.
    /// Default: α = 0, trainable, one a block
    #[config(default = "ReZeroConfig::new()")]
    pub rezero: ReZeroConfig,
}

/// A pre-activation ResNet: He et al., [arXiv 1603.05027](https://arxiv.org/abs/1603.05027), as the
/// authors of ReZero run it on CIFAR-10.
///
/// A 3×3 convolution to 64 channels without norm, four stages with 64, 128, 256 and 512 channels,
/// the mean over the image, and a linear layer. No norm and no ReLU before the mean; PyTorch's
/// default initialisation throughout.
///
/// Should be created using [PreActResNetConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct PreActResNet {
    /// 3×3, 3 to 64 channels.
    pub conv: Conv2d,
    /// The residual blocks of all stages.
    pub blocks: Vec<PreActBlock>,
    /// 512 (times the expansion) to `num_classes`.
    pub linear: Linear,
}

/// `shortcut + α · F(x)` with `F(x) = conv_k(relu(bn_k(… conv_1(relu(bn_1(x))))))`: two 3×3
/// convolutions (basic) or 1×1, 3×3, 1×1 (bottleneck). No ReLU follows the sum.
///
/// Where the shape changes the shortcut is a 1×1 convolution of `relu(bn_1(x))`, else `x`.
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

impl PreActDepth {
    /// The blocks of each stage.
    pub(crate) fn blocks(self) -> [usize; 4] {
        match self {
            Self::D18 => [2, 2, 2, 2],
            Self::D34 | Self::D50 => [3, 4, 6, 3],
        }
    }
}

impl PreActResNetConfig {
    /// Initializes the network on `device`.
    ///
    /// # Panics
    ///
    /// If `num_classes` is 0.
    pub fn init(&self, device: &Device) -> PreActResNet {
        assert!(
            self.num_classes > 0,
            "num_classes must be greater than zero."
        );
        let counts = self.depth.blocks();
        let expansion = match self.depth {
            PreActDepth::D50 => 4,
            _ => 1,
        };
        let mut blocks = Vec::with_capacity(counts.iter().sum());
        let mut c_in = 64;
        for (stage, (count, width)) in counts.into_iter().zip([64, 128, 256, 512]).enumerate() {
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                blocks.push(self.block(c_in, width, expansion, stride, device));
                c_in = width * expansion;
            }
        }
        PreActResNet {
            conv: init::conv([3, 64], 3, 1, false, init::torch_default(), device),
            blocks,
            linear: init::linear(c_in, self.num_classes, init::torch_default(), device),
        }
    }

    fn block(
        &self,
        c_in: usize,
        width: usize,
        expansion: usize,
        stride: usize,
        device: &Device,
    ) -> PreActBlock {
        let c_out = width * expansion;
        // (channels in, channels out, kernel, stride) of each convolution.
        let layers = match expansion {
            1 => vec![(c_in, width, 3, stride), (width, width, 3, 1)],
            _ => vec![
                (c_in, width, 1, 1),
                (width, width, 3, stride),
                (width, c_out, 1, 1),
            ],
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
        PreActBlock {
            norms: layers
                .iter()
                .map(|&(c_in, ..)| BatchNormConfig::new(c_in).init(device))
                .collect(),
            convs: layers.iter().copied().map(conv).collect(),
            shortcut: (stride != 1 || c_in != c_out).then(|| conv((c_in, c_out, 1, stride))),
            residual: ResidualConfig::new(self.scheme)
                .with_rezero(ReZeroConfig {
                    channels: self.rezero.channels.map(|_| c_out),
                    ..self.rezero.clone()
                })
                .init(device),
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
            out = fused::batch_norm(norm, out, Activation::Relu);
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
    /// - `images`: `[batch, 3, height, width]`, normalised; 32×32 in the paper
    /// - output: `[batch, num_classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = fused::conv2d(&self.conv, images);
        for block in &self.blocks {
            x = block.forward(x);
        }
        let x = init::global_average_pool(x);
        fused::linear(&self.linear, x, Activation::Identity)
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
