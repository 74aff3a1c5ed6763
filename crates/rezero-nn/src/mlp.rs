//! Deep fully connected networks: section 4 of the paper, which trains 10,000 such layers.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::{Initializer, Linear};
use burn::tensor::{Device, Tensor};

use crate::fused;
use crate::init;
use crate::residual::{Norm, Residual, ResidualConfig, ResidualScheme};
use rezero_kernels::Activation;

/// The networks of the paper's fully connected experiment, and fairer forms of its baselines.
///
/// `F(x) = relu(W x + b)` throughout, and the hidden weights are drawn from N(0, g² / width) with the
/// gain g of the authors' notebook (`ReZero-Deep_Fast_NeuralNetwork.ipynb`). The last three are not
/// in it.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum MlpArm {
    /// `F(x)`, g = √2.
    Vanilla,
    /// `x + F(x)`, g = 0.5.
    Residual,
    /// `Norm(F(x))` without a skip path, one layer norm for all layers; g = √2.
    LayerNorm,
    /// `x + α · F(x)`, α = 0 at the start; g = √2.
    ReZero,
    /// `Norm(F(x))`, a layer norm for each layer; g = √2.
    LayerNormEach,
    /// `x + F(Norm(x))` and a layer norm after the last layer; g = √2.
    PreNorm,
    /// `Norm(x + F(x))`; g = √2.
    PostNorm,
}

/// Configuration to create a [`Mlp`] using the [init function](MlpConfig::init).
///
/// [`new`](Self::new) gives the paper's ReZero network, [`with_arm`](Self::with_arm) any of its
/// baselines.
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
    /// Whether all layers use one norm, under [`ResidualScheme::PlainNorm`]. Default: false
    #[config(default = false)]
    pub share_norm: bool,
    /// The hidden weights are drawn from N(0, gain² / width); `None`: as PyTorch draws those of
    /// `nn.Linear`. Default: √2
    #[config(default = "Some(std::f64::consts::SQRT_2)")]
    pub gain: Option<f64>,
    /// Whether a ReLU follows the first linear layer. Default: true
    #[config(default = true)]
    pub input_relu: bool,
}

/// A deep fully connected network: a linear layer to `width` and a ReLU, `n_layers` layers
///
/// `x ← x + α · relu(W x + b)`
///
/// or any other [`ResidualScheme`] around the same branch, and a linear layer to the output:
/// Bachlechner et al., [arXiv 2003.04887](https://arxiv.org/abs/2003.04887), section 4.
///
/// The first weight is drawn from N(0, 2 / d_input); the last one and all biases as PyTorch draws
/// those of `nn.Linear`.
///
/// Should be created using [MlpConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Mlp {
    /// `d_input` to `width`.
    pub input: Linear,
    /// The residual layers.
    pub layers: Vec<MlpLayer>,
    /// After each layer, where all share one norm.
    pub shared_norm: Option<Norm>,
    /// After the last layer, in the schemes that have a norm there.
    pub norm: Option<Norm>,
    /// `width` to `num_classes`.
    pub output: Linear,
    /// Whether a ReLU follows `input`.
    pub input_relu: bool,
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
    /// This network in another arm: its scheme, whether norms are shared, and its gain.
    #[must_use]
    pub fn with_arm(mut self, arm: MlpArm) -> Self {
        self.residual.scheme = match arm {
            MlpArm::Vanilla => ResidualScheme::Plain,
            MlpArm::Residual => ResidualScheme::Sum,
            MlpArm::LayerNorm | MlpArm::LayerNormEach => ResidualScheme::PlainNorm,
            MlpArm::ReZero => ResidualScheme::ReZero,
            MlpArm::PreNorm => ResidualScheme::PreNorm,
            MlpArm::PostNorm => ResidualScheme::PostNorm,
        };
        self.share_norm = arm == MlpArm::LayerNorm;
        self.gain = Some(match arm {
            MlpArm::Residual => 0.5,
            _ => std::f64::consts::SQRT_2,
        });
        self
    }

    /// Initializes the network on `device`.
    ///
    /// # Panics
    ///
    /// If a width is 0, norms are shared in a scheme other than [`ResidualScheme::PlainNorm`], or as
    /// [`ResidualConfig::init`].
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
        let shared_norm = self.share_norm.then(|| {
            assert!(
                residual.scheme == ResidualScheme::PlainNorm,
                "only the residual scheme PlainNorm shares its norm, got {:?}.",
                residual.scheme
            );
            let norm = residual.init(device).norm;
            residual.scheme = ResidualScheme::Plain;
            residual.norm = None;
            norm.expect("PlainNorm has a norm")
        });
        let normal = |variance: f64| Initializer::Normal {
            mean: 0.0,
            std: variance.sqrt(),
        };
        let hidden = match self.gain {
            Some(gain) => normal(gain * gain / self.width as f64),
            None => init::torch_default(),
        };
        // Whoever asks for PyTorch's own weights wants them throughout.
        let first = match self.gain {
            Some(_) => normal(2.0 / self.d_input as f64),
            None => init::torch_default(),
        };
        Mlp {
            input: init::linear(self.d_input, self.width, first, device),
            layers: (0..self.n_layers)
                .map(|_| MlpLayer {
                    linear: init::linear(self.width, self.width, hidden.clone(), device),
                    residual: residual.init(device),
                })
                .collect(),
            shared_norm,
            norm: residual.init_final_norm(device),
            output: init::linear(self.width, self.num_classes, init::torch_default(), device),
            input_relu: self.input_relu,
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
        fused::linear(&self.input, x, input_activation(self.input_relu))
    }

    /// The residual layers, without the first and the last linear layer.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[batch, width]`
    pub fn hidden(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| self.layer(layer, x))
    }

    pub(crate) fn layer(&self, layer: &MlpLayer, x: Tensor<2>) -> Tensor<2> {
        let x = layer.forward(x);
        match &self.shared_norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }

    pub(crate) fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        let x = match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        fused::linear(&self.output, x, Activation::Identity)
    }
}

pub(crate) fn input_activation(relu: bool) -> Activation {
    match relu {
        true => Activation::Relu,
        false => Activation::Identity,
    }
}

impl MlpLayer {
    /// Computes the layer, without a norm that is shared.
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
                .forward(x, |x| fused::linear(&self.linear, x, Activation::Relu)),
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
