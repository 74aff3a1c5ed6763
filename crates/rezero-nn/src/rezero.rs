//! The ReZero gate: a trainable factor α on the residual branch, 0 at the start.

use burn::config::Config;
use burn::module::{
    Content, Devices, DisplaySettings, Initializer, Module, ModuleDisplay, ModuleDisplayDefault,
    ModuleMapper, ModuleVisitor, Param,
};
use burn::tensor::{Device, Tensor};

use crate::branch::Branch;

/// Configuration to create a [`ReZero`] gate using the [init function](ReZeroConfig::init), or one with
/// an α per channel using [`init_channels`](ReZeroConfig::init_channels).
#[derive(Config, Debug)]
pub struct ReZeroConfig {
    /// The value of α at the start. Default: 0
    #[config(default = 0.0)]
    pub alpha: f64,
    /// Whether α is trainable; a frozen α keeps its initial value. Default: true
    #[config(default = true)]
    pub trainable: bool,
    /// `Some(C)`: the gate is `C · tanh(α / C)` instead of α, so its magnitude stays below C for
    /// any α. At α = 0 the gate and its slope are those of α itself. Default: None
    pub bound: Option<f64>,
}

/// The ReZero gate of [arXiv 2003.04887](https://arxiv.org/abs/2003.04887), Table 1:
///
/// `y = x + α · F(x)`
///
/// Where:
/// - `x` is the layer's input, carried unchanged by the skip path
/// - `F` is the branch: any function that keeps the shape of `x`
/// - `α` is a trainable scalar (or one per channel), 0 at the start
///
/// With α = 0 the layer is exactly the identity (for a finite `F(x)`). The gradients inside `F` are
/// 0, and `∂L/∂α = Σ g · F(x)` for the gradient `g` of the layer's output. So α changes first, and
/// then `F` learns. Do not let `F(x)` start at 0 too, as with a last weight of zeros: then all
/// gradients in the layer stay 0. A normalisation on the skip path undoes the identity; put it
/// inside `F`.
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
    /// The limit of the gate's magnitude, if it has one.
    pub bound: Bound,
}

/// The limit C of a gate `C · tanh(α / C)`, or `None` where the gate is α itself.
///
/// Burn's visitors skip the constants of a module. So `Bound` is a module itself: it lets a visitor
/// enter a module whose name is the value of C. [`gates`](crate::gates) reads C from that name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound(pub Option<f64>);

impl ReZeroConfig {
    /// Initializes a gate with one α on `device`, as in the paper.
    ///
    /// # Panics
    ///
    /// If α is not finite or the bound not above 0.
    pub fn init(&self, device: &Device) -> ReZero {
        self.gate(1, 0, device)
    }

    /// Initializes a gate with one α per channel on `device`. `channel_axis` is the axis of the
    /// channels: 1 for `[batch, channels, height, width]`, 2 for `[batch, length, d_model]`.
    ///
    /// # Panics
    ///
    /// As [`init`](Self::init), or if `channels` is 0.
    pub fn init_channels(&self, channels: usize, channel_axis: usize, device: &Device) -> ReZero {
        assert!(
            channels > 0,
            "channels must be greater than zero; use init for one alpha in all."
        );
        self.gate(channels, channel_axis, device)
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

    fn gate(&self, channels: usize, channel_axis: usize, device: &Device) -> ReZero {
        assert!(
            self.alpha.is_finite(),
            "alpha must be finite, got {}.",
            self.alpha
        );
        assert!(
            self.bound.is_none_or(|c| c.is_finite() && c > 0.0),
            "bound must be finite and greater than zero, got {:?}.",
            self.bound
        );
        let alpha = Initializer::Constant { value: self.alpha }
            .init([channels], device)
            .set_require_grad(self.trainable);
        ReZero {
            alpha,
            channel_axis,
            bound: Bound(self.bound),
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

    /// Computes `skip + α · out` for a branch output that is already computed.
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

    /// The factor of the branch, `[1]`, or `None` for a gate per channel.
    pub(crate) fn scalar(&self) -> Option<Tensor<1>> {
        let alpha = self.alpha.val();
        (alpha.dims() == [1]).then(|| self.bounded(alpha))
    }

    /// The factor of the branch, `[1]` or `[channels]`: α, or `C · tanh(α / C)` where α is bounded.
    pub fn effective(&self) -> Tensor<1> {
        self.bounded(self.alpha.val())
    }

    fn bounded(&self, alpha: Tensor<1>) -> Tensor<1> {
        match self.bound.0 {
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
        match self.bound.0 {
            Some(bound) => content.add("bound", &bound),
            None => content,
        }
        .optional()
    }
}

impl Bound {
    /// The container type that a visitor is given together with the name, which is C.
    pub(crate) const CONTAINER: &'static str = "Struct:Bound";
}

impl Module for Bound {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        if let Some(c) = self.0 {
            let c = c.to_string();
            visitor.enter_module(&c, Self::CONTAINER);
            visitor.exit_module(&c, Self::CONTAINER);
        }
    }

    fn map<M: ModuleMapper>(self, _mapper: &mut M) -> Self {
        self
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        devices
    }

    fn fork(self, _device: &Device) -> Self {
        self
    }

    fn to_device(self, _device: &Device) -> Self {
        self
    }

    fn train(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        *self
    }

    fn materialize(self) -> Self {
        self
    }
}

impl ModuleDisplayDefault for Bound {
    fn content(&self, content: Content) -> Option<Content> {
        content.add("bound", &self.0).optional()
    }
}

impl ModuleDisplay for Bound {}

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
