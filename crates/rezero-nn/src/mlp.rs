//! Deep fully connected networks: section 4 of the paper, which trains 10,000 such layers.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use crate::fused;
use crate::residual::{Norm, Residual, ResidualConfig, ResidualScheme};
use rezero_kernels::Activation;

/// Configuration to create a [`Mlp`] using the [init function](MlpConfig::init).
#[derive(Config, Debug)]
pub struct MlpConfig {
    /// The width of the input.
    pub d_input: usize,
    /// The width of the layers.
    pub width: usize,
    /// The number of residual layers.
    pub n_layers: usize,
    /// The width of the output.
    pub num_classes: usize,
    /// The residual scheme with its gate and norm; its `d_model` and `n_layers` are filled in.
    /// Default: ReZero
    #[config(default = "ResidualConfig::new(ResidualScheme::ReZero)")]
    pub residual: ResidualConfig,
}

/// A deep fully connected network: a linear layer to `width`, `n_layers` layers
///
/// `x ← x + α · relu(W x + b)`
///
/// or any other [`ResidualScheme`] around the same branch, and a linear layer to the output:
/// Bachlechner et al., [arXiv 2003.04887](https://arxiv.org/abs/2003.04887), section 4, with the ReLU
/// inside the branch, as in its equation for ReZero.
///
/// Weights are drawn as PyTorch draws those of `nn.Linear`.
///
/// Should be created using [MlpConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Mlp {
    /// `d_input` to `width`.
    pub input: Linear,
    /// The residual layers.
    pub layers: Vec<MlpLayer>,
    /// After the last layer, in the schemes that have a norm there.
    pub norm: Option<Norm>,
    /// `width` to `num_classes`.
    pub output: Linear,
}

/// One residual layer of a [`Mlp`].
#[derive(Module, Debug)]
pub struct MlpLayer {
    /// `width` to `width`.
    pub linear: Linear,
    /// How the branch is joined with its skip path.
    pub residual: Residual,
}

impl MlpConfig {
    /// Initializes the network on `device`.
    ///
    /// # Panics
    ///
    /// If a width is 0, or as [`ResidualConfig::init`].
    pub fn init(&self, device: &Device) -> Mlp {
        assert!(
            self.d_input > 0 && self.width > 0 && self.num_classes > 0,
            "d_input, width and num_classes must be greater than zero, got {}, {} and {}.",
            self.d_input,
            self.width,
            self.num_classes
        );
        let mut residual = self.residual.clone();
        residual.d_model = self.width;
        residual.n_layers = self.n_layers;
        let linear = |d_input, d_output| {
            LinearConfig::new(d_input, d_output)
                .with_initializer(crate::resnet::torch_default())
                .init(device)
        };
        Mlp {
            input: linear(self.d_input, self.width),
            layers: (0..self.n_layers)
                .map(|_| MlpLayer {
                    linear: linear(self.width, self.width),
                    residual: residual.init(device),
                })
                .collect(),
            norm: residual.init_final_norm(device),
            output: linear(self.width, self.num_classes),
        }
    }
}

impl Mlp {
    /// Computes class logits.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, d_input]`
    /// - output: `[batch, num_classes]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut x = fused::linear(&self.input, x, Activation::Identity);
        for layer in &self.layers {
            x = layer.forward(x);
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(x);
        }
        fused::linear(&self.output, x, Activation::Identity)
    }
}

impl MlpLayer {
    /// Computes the layer.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, width]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match (self.residual.rezero_alpha(), &self.linear.bias) {
            (Some(alpha), Some(bias)) => {
                rezero_kernels::gated_linear(x, self.linear.weight.val(), bias.val(), alpha)
            }
            _ => self.residual.forward(x, |x| relu(self.linear.forward(x))),
        }
    }
}

impl ModuleDisplay for Mlp {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, width] = self.input.weight.lazy_shape().dims();
        let [_, num_classes] = self.output.weight.lazy_shape().dims();
        content
            .add("d_input", &d_input)
            .add("width", &width)
            .add("n_layers", &self.layers.len())
            .add("num_classes", &num_classes)
            .add("trainable", &crate::parameter_count(self))
            .optional()
    }
}
