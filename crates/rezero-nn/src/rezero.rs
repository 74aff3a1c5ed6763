//! The idea, alone: a learned gate α on the residual branch, closed at the start.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::nn::{BatchNorm, Dropout, Gelu, LayerNorm, Linear, Relu, RmsNorm, conv::Conv2d};
use burn::tensor::{Device, Tensor};

/// Configuration to create a [`ReZero`] gate using the [init function](ReZeroConfig::init).
#[derive(Config, Debug)]
pub struct ReZeroConfig {
    /// The value of α at the start. Default: 0
    #[config(default = 0.0)]
    pub alpha: f64,
    /// Whether α is learned; a frozen α keeps its initial value. Default: true
    #[config(default = true)]
    pub trainable: bool,
    /// `Some(n)`: one α for each of n channels; `None`: one α for the whole layer, as in the paper.
    /// Default: None
    pub channels: Option<usize>,
    /// The axis that holds the channels: 1 for `[batch, channels, height, width]`, 2 for
    /// `[batch, length, d_model]`. Unused without [`channels`](Self::channels). Default: 1
    #[config(default = 1)]
    pub channel_axis: usize,
    /// `Some(C)`: the gate is `C · tanh(α / C)` instead of α, so that its magnitude stays below C
    /// where α runs away. At α = 0 neither the gate nor its slope differ from those of α itself.
    /// Default: None
    pub bound: Option<f64>,
}

/// The ReZero gate of [arXiv 2003.04887](https://arxiv.org/abs/2003.04887), Table 1:
///
/// `y = x + α · F(x)`
///
/// Where:
/// - `x` is the layer's input, carried unchanged by the skip path
/// - `F` is the branch: any function that keeps the shape of `x`
/// - `α` is a learned scalar (or one per channel), 0 at the start
///
/// With α = 0 the layer is exactly the identity (for a finite `F(x)`): gradients inside `F` are 0,
/// and `∂L/∂α = Σ g · F(x)` for the gradient `g` of the layer's output, so α moves first and lets
/// `F` learn. Do not also zero the branch's last weight: then neither ever moves. A normalisation
/// on the skip path undoes the identity; put it inside `F`.
///
/// PyTorch equivalent: `x + self.resweight * F(x)`; `alpha` is the authors' `resweight`.
///
/// Should be created using [ReZeroConfig].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct ReZero {
    /// The gate, `[1]` or `[channels]`.
    pub alpha: Param<Tensor<1>>,
    /// The axis that a per-channel α belongs to.
    pub channel_axis: usize,
    /// The gate is `C · tanh(α / C)` where this is `Some(C)`.
    pub bound: Option<f64>,
}

impl ReZeroConfig {
    /// Initializes a gate on `device`.
    ///
    /// # Panics
    ///
    /// If `channels` is `Some(0)`, α is not finite or the bound not above 0.
    pub fn init(&self, device: &Device) -> ReZero {
        assert!(
            self.alpha.is_finite(),
            "alpha must be finite, got {}.",
            self.alpha
        );
        assert!(
            self.channels != Some(0),
            "channels must be greater than zero; leave it unset for one alpha a layer."
        );
        assert!(
            self.bound.is_none_or(|c| c.is_finite() && c > 0.0),
            "bound must be finite and greater than zero, got {:?}.",
            self.bound
        );
        let alpha = Initializer::Constant { value: self.alpha }
            .init([self.channels.unwrap_or(1)], device)
            .set_require_grad(self.trainable);
        ReZero {
            alpha,
            channel_axis: self.channel_axis,
            bound: self.bound,
        }
    }

    /// Initializes a gate together with its `branch`, see [`ReZeroBlock`].
    ///
    /// # Panics
    ///
    /// As [`init`](Self::init).
    pub fn init_block<F: Module>(&self, branch: F, device: &Device) -> ReZeroBlock<F> {
        ReZeroBlock {
            rezero: self.init(device),
            branch,
        }
    }
}

impl ReZero {
    /// Computes `x + α · branch(x)`.
    ///
    /// ```
    /// # use burn::tensor::{Device, Tensor};
    /// # use rezero_nn::ReZeroConfig;
    /// # let device = Device::flex();
    /// let gate = ReZeroConfig::new().with_alpha(0.5).init(&device);
    /// let x = Tensor::<2>::from_floats([[1.0, -2.0]], &device);
    /// let y = gate.forward(x, |x| x * 4.0);
    /// assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [3.0, -6.0]);
    /// ```
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[..]`, any rank; `branch` keeps the shape.
    ///
    /// # Panics
    ///
    /// If the branch changes the shape, or a per-channel α does not match axis `channel_axis`.
    pub fn forward<const D: usize>(
        &self,
        x: Tensor<D>,
        branch: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let out = branch(x.clone());
        self.combine(x, out)
    }

    /// Computes `skip + α · out` for a branch output that is already at hand.
    ///
    /// # Shapes
    ///
    /// - `skip`, `out` and output: the same shape.
    ///
    /// # Panics
    ///
    /// If the shapes differ, or a per-channel α does not match axis `channel_axis`.
    pub fn combine<const D: usize>(&self, skip: Tensor<D>, out: Tensor<D>) -> Tensor<D> {
        assert_eq!(
            skip.dims(),
            out.dims(),
            "a ReZero branch must keep the shape of its input: skip {:?}, branch {:?}.",
            skip.dims(),
            out.dims()
        );
        match self.scalar() {
            Some(alpha) => rezero_kernels::gated_sum(skip, out, alpha),
            None => skip + self.scale(out),
        }
    }

    /// Computes `α · out`, or `C · tanh(α / C) · out` where α is bounded.
    ///
    /// # Panics
    ///
    /// If a per-channel α does not match axis `channel_axis` of `out`.
    pub fn scale<const D: usize>(&self, out: Tensor<D>) -> Tensor<D> {
        out * self.alpha_like::<D>()
    }

    /// The gate with rank `D`, ready to broadcast: size `channels` on the channel axis, 1 elsewhere.
    pub(crate) fn alpha_like<const D: usize>(&self) -> Tensor<D> {
        let alpha = self.alpha.val();
        let [channels] = alpha.dims();
        let mut shape = [1; D];
        if channels > 1 {
            assert!(
                self.channel_axis < D,
                "channel_axis {} is out of range for a tensor of rank {D}.",
                self.channel_axis
            );
            shape[self.channel_axis] = channels;
        }
        self.bounded(alpha).reshape(shape)
    }

    /// The gate as it acts, if it is a single one.
    pub(crate) fn scalar(&self) -> Option<Tensor<1>> {
        let alpha = self.alpha.val();
        (alpha.dims() == [1]).then(|| self.bounded(alpha))
    }

    /// The gate as it acts, `[1]` or `[channels]`: α, or `C · tanh(α / C)` where it is bounded.
    pub fn effective(&self) -> Tensor<1> {
        self.bounded(self.alpha.val())
    }

    fn bounded(&self, alpha: Tensor<1>) -> Tensor<1> {
        match self.bound {
            Some(c) => (alpha / c).tanh() * c,
            None => alpha,
        }
    }
}

impl ModuleDisplay for ReZero {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [channels] = self.alpha.lazy_shape().dims();
        let content = content.add("channels", &channels);
        let content = match channels {
            1 => content,
            _ => content.add("channel_axis", &self.channel_axis),
        };
        match self.bound {
            Some(bound) => content.add("bound", &bound),
            None => content,
        }
        .optional()
    }
}

/// A residual branch `F` of rank-`D` tensors: what [`ReZeroBlock`] is generic over.
///
/// Implement it for your own modules. Burn's shape-preserving layers have it, and so have tuples,
/// which apply their members from left to right. Closures need no implementation: pass them to
/// [`ReZero::forward`].
pub trait Branch<const D: usize> {
    /// Computes `F(x)`, of the same shape as `x`.
    fn forward(&self, x: Tensor<D>) -> Tensor<D>;
}

macro_rules! branch_for_layers {
    ($($layer:ty),*) => {$(
        impl<const D: usize> Branch<D> for $layer {
            fn forward(&self, x: Tensor<D>) -> Tensor<D> {
                <$layer>::forward(self, x)
            }
        }
    )*};
}
branch_for_layers!(BatchNorm, Dropout, Gelu, LayerNorm, Linear, Relu, RmsNorm);

impl Branch<4> for Conv2d {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        Conv2d::forward(self, x)
    }
}

macro_rules! branch_for_tuples {
    ($($name:ident $index:tt),+) => {
        impl<const D: usize, $($name: Branch<D>),+> Branch<D> for ($($name,)+) {
            fn forward(&self, x: Tensor<D>) -> Tensor<D> {
                $(let x = self.$index.forward(x);)+
                x
            }
        }
    };
}
branch_for_tuples!(A 0, B 1);
branch_for_tuples!(A 0, B 1, C 2);
branch_for_tuples!(A 0, B 1, C 2, E 3);
branch_for_tuples!(A 0, B 1, C 2, E 3, F 4);
branch_for_tuples!(A 0, B 1, C 2, E 3, F 4, G 5);

/// A ReZero layer: a gate and its branch, `y = x + α · F(x)`. See [`ReZero`].
///
/// Should be created using [`ReZeroConfig::init_block`].
#[derive(Module, Debug)]
pub struct ReZeroBlock<F> {
    /// The gate α.
    pub rezero: ReZero,
    /// The branch F.
    pub branch: F,
}

impl<F: Module> ReZeroBlock<F> {
    /// Computes `x + α · F(x)`.
    ///
    /// # Shapes
    ///
    /// - `x` and output: `[..]`, any rank that `F` takes.
    ///
    /// # Panics
    ///
    /// As [`ReZero::forward`].
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D>
    where
        F: Branch<D>,
    {
        self.rezero.forward(x, |x| self.branch.forward(x))
    }
}

/// A block is itself a branch, so blocks nest.
impl<const D: usize, F: Module + Branch<D>> Branch<D> for ReZeroBlock<F> {
    fn forward(&self, x: Tensor<D>) -> Tensor<D> {
        ReZeroBlock::forward(self, x)
    }
}
