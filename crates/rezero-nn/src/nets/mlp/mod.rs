//! Deep fully connected networks, as in section 4 of the paper, which trains 10,000 layers.
//!
//! # PyTorch
//!
//! With feature `import`, `torch::export` writes `linear_input`, `layers.{i}.weight` and `.bias`,
//! `layers.{i}.resweight` for α, `layers.{i}.norm`, `norm` and `linear_output`. `torch::load` also reads a list
//! of layers under any other name, and one vector `resweight` or `alpha` of all gates, as the authors'
//! notebook has.

mod fold;
mod grow;
#[cfg(feature = "train")]
mod segments;
#[cfg(feature = "import")]
mod torch;

#[cfg(feature = "import")]
pub use torch::{MlpShape, mlp_shape};

#[cfg(feature = "train")]
pub use segments::Update;

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::{Initializer, Linear};
use burn::tensor::{Device, Tensor};
use rezero_kernels::Epilogue;

use crate::init::{self, WeightInit};
use crate::residual::{Norm, Residual, ResidualConfig, ResidualScheme, Site};
use rezero_kernels::fused;

/// Configuration to create a [`Mlp`] using the [init function](MlpConfig::init).
///
/// [`new`](Self::new) gives the paper's ReZero network.
/// `with_residual(ResidualConfig::new(ResidualScheme::Plain))` and the other [`SCHEMES`](Self::SCHEMES)
/// give baselines. The paper has no fully connected network of the last three schemes.
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
    /// The residual scheme with its gate and norm. Default: ReZero
    #[config(default = "ResidualConfig::new(ResidualScheme::ReZero)")]
    pub residual: ResidualConfig,
    /// The initial weights. The authors' notebook (`ReZero-Deep_Fast_NeuralNetwork.ipynb`) samples
    /// the first weight from N(0, 2 / d_input) and those of the residual layers from
    /// N(0, g² / width), where g is 0.5 under [`ResidualScheme::Residual`] and √2 in every other
    /// scheme. The last weight and all biases have PyTorch's distribution for `nn.Linear`.
    /// Default: Notebook
    #[config(default = "WeightInit::Notebook")]
    pub init: WeightInit,
    /// Whether a ReLU follows the first linear layer. Default: true
    #[config(default = true)]
    pub input_relu: bool,
}

/// Configuration to create a [`MlpLayer`] using the [init function](MlpLayerConfig::init).
#[derive(Config, Debug)]
pub struct MlpLayerConfig {
    /// The width of input and output.
    pub width: usize,
    /// The number of layers in the network. Default: 1
    #[config(default = 1)]
    pub n_layers: usize,
    /// The residual scheme with its gate and norm. Default: ReZero
    #[config(default = "ResidualConfig::new(ResidualScheme::ReZero)")]
    pub residual: ResidualConfig,
    /// The initial weights, see [`MlpConfig::init`](MlpConfig#structfield.init). Default: Notebook
    #[config(default = "WeightInit::Notebook")]
    pub init: WeightInit,
}

/// A deep fully connected network: Bachlechner et al.,
/// [arXiv 2003.04887](https://arxiv.org/abs/2003.04887), section 4. It has a linear layer to
/// `width`, a ReLU, `n_layers` layers
///
/// `x ← x + α · relu(W x + b)`
///
/// and a linear layer to the output. Other [`SCHEMES`](MlpConfig::SCHEMES) have the same branch.
///
/// Should be created using [MlpConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Mlp {
    /// `d_input` to `width`.
    pub input: Linear,
    /// The residual layers.
    pub layers: Vec<MlpLayer>,
    /// The norm after each layer, if all layers share one.
    pub shared_norm: Option<Norm>,
    /// The norm after the last layer, in the schemes that have one.
    pub norm: Option<Norm>,
    /// `width` to `num_classes`.
    pub output: Linear,
    /// Whether a ReLU follows `input`.
    pub input_relu: bool,
}

/// One residual layer of a [`Mlp`], with the branch `relu(W x + b)`.
///
/// Should be created using [MlpLayerConfig].
#[derive(Module, Debug)]
pub struct MlpLayer {
    /// `width` to `width`.
    pub linear: Linear,
    /// How the branch joins its skip path.
    pub residual: Residual,
}

/// N(0, variance).
fn normal(variance: f64) -> Initializer {
    Initializer::Normal {
        mean: 0.0,
        std: variance.sqrt(),
    }
}

impl MlpConfig {
    /// The residual schemes of these networks.
    pub const SCHEMES: &'static [ResidualScheme] = &[
        ResidualScheme::Plain,
        ResidualScheme::Residual,
        ResidualScheme::PlainSharedNorm,
        ResidualScheme::ReZero,
        ResidualScheme::PlainNorm,
        ResidualScheme::PreNorm,
        ResidualScheme::PostNorm,
    ];

    /// Initializes the network on `device`.
    ///
    /// # Panics
    ///
    /// If a width is 0, the scheme is not one of [`SCHEMES`](Self::SCHEMES), or as
    /// [`ResidualConfig::init`].
    pub fn init(&self, device: &Device) -> Mlp {
        assert!(
            self.d_input > 0 && self.width > 0 && self.num_classes > 0,
            "d_input, width and num_classes must be greater than zero, got {}, {} and {}.",
            self.d_input,
            self.width,
            self.num_classes
        );
        let layer = self.layer();
        self.residual.check("MlpConfig", Self::SCHEMES);
        let shared_norm = self.residual.init_shared_norm(layer.site(), device);
        let first = match self.init {
            WeightInit::Notebook => normal(2.0 / self.d_input as f64),
            WeightInit::PyTorch => init::torch_default(),
        };
        Mlp {
            input: init::linear(self.d_input, self.width, first, device),
            layers: (0..self.n_layers).map(|_| layer.init(device)).collect(),
            shared_norm,
            norm: self.residual.init_final_norm(layer.site(), device),
            output: init::linear(self.width, self.num_classes, init::torch_default(), device),
            input_relu: self.input_relu,
        }
    }

    /// The configuration of each residual layer.
    fn layer(&self) -> MlpLayerConfig {
        MlpLayerConfig {
            width: self.width,
            n_layers: self.n_layers,
            residual: self.residual.clone(),
            init: self.init,
        }
    }
}

impl MlpLayerConfig {
    /// Initializes the layer on `device`. A norm that all layers share belongs to the network
    /// instead.
    ///
    /// # Panics
    ///
    /// If the width is 0, the scheme is not one of [`MlpConfig::SCHEMES`], or as
    /// [`ResidualConfig::init`].
    pub fn init(&self, device: &Device) -> MlpLayer {
        assert!(self.width > 0, "width must be greater than zero.");
        self.residual.check("MlpLayerConfig", MlpConfig::SCHEMES);
        let weights = match self.init {
            WeightInit::Notebook => {
                let gain = self.residual.scheme.row().notebook_gain;
                normal(gain * gain / self.width as f64)
            }
            WeightInit::PyTorch => init::torch_default(),
        };
        MlpLayer {
            linear: init::linear(self.width, self.width, weights, device),
            residual: self.residual.init(self.site(), device),
        }
    }

    fn site(&self) -> Site {
        Site {
            channels: self.width,
            channel_axis: 1,
            n_layers: self.n_layers,
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
        let x = self.embed(x);
        self.logits(self.hidden(x))
    }

    /// The first linear layer, with its ReLU.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, d_input]`
    /// - output: `[batch, width]`
    pub fn embed(&self, x: Tensor<2>) -> Tensor<2> {
        fused::linear(&self.input, x, input_epilogue(self.input_relu))
    }

    /// The residual layers, without the first and the last linear layer.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, width]`
    pub fn hidden(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| self.layer(layer, x))
    }

    fn layer(&self, layer: &MlpLayer, x: Tensor<2>) -> Tensor<2> {
        Norm::apply(self.shared_norm.as_ref(), layer.forward(x))
    }

    fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        let x = Norm::apply(self.norm.as_ref(), x);
        fused::linear(&self.output, x, Epilogue::Identity)
    }
}

fn input_epilogue(relu: bool) -> Epilogue {
    match relu {
        true => Epilogue::Relu,
        false => Epilogue::Identity,
    }
}

impl MlpLayer {
    /// Computes the layer, without a norm that all layers share.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, width]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match (self.residual.rezero_alpha(), &self.linear.bias) {
            (Some(alpha), Some(bias)) => {
                rezero_kernels::gated_linear(x, self.linear.weight.val(), bias.val(), alpha)
            }
            _ => self
                .residual
                .forward(x, |x| fused::linear(&self.linear, x, Epilogue::Relu)),
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
