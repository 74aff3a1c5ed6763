//! The basic block of CIFAR ResNets: two 3×3 convolutions beside a shortcut.

use burn::config::Config;
use burn::module::{Initializer, Module, Param};
use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use rezero_kernels::{Epilogue, subsample};

use super::cifar::{Definition, SCHEMES};
use crate::init;
use crate::residual::{
    Convolutions, Join, LastRelu, Residual, ResidualConfig, ResidualScheme, Site,
};
use rezero_kernels::fused;

/// One residual block of a [`CifarResNet`](super::CifarResNet).
///
/// | scheme | output |
/// | - | - |
/// | residual, zero-γ, FixUp | `relu(F(x) + shortcut(x))` |
/// | SkipInit | `relu(α · F(x) + shortcut(x))` |
/// | ReZero | `α · relu(F(x)) + shortcut(x)`: the ReLU ends the branch, and none follows the sum |
/// | gated | `α · relu(F(x)) + (1 − α) · shortcut(x)` |
///
/// Should be created using [BasicBlockConfig].
#[derive(Module, Debug)]
pub struct BasicBlock {
    /// F without its last activation.
    pub branch: BasicBranch,
    /// The skip path.
    pub shortcut: Shortcut,
    /// How the two are joined.
    pub residual: Residual,
    /// Whether the second ReLU is the branch's last operation (true) or follows the sum (false).
    pub relu_in_branch: bool,
}

/// Configuration to create a [`BasicBlock`] using the [init function](BasicBlockConfig::init).
#[derive(Config, Debug)]
pub struct BasicBlockConfig {
    /// The channels of input and output.
    pub channels: [usize; 2],
    /// The stride, the same in both directions. Default: 1
    #[config(default = 1)]
    pub stride: usize,
    /// The residual scheme with its gate. Default: ReZero
    #[config(default = "ResidualConfig::new(ResidualScheme::ReZero)")]
    pub residual: ResidualConfig,
    /// Which code decides shortcut and initialisation. Default: Notebook
    #[config(default = "Definition::Notebook")]
    pub definition: Definition,
    /// The number of blocks in the network; FixUp scales its weights by it. Default: 1
    #[config(default = 1)]
    pub n_blocks: usize,
}

impl BasicBlockConfig {
    /// Initializes the block on `device`.
    ///
    /// # Panics
    ///
    /// If a size is 0, the output has fewer channels than the input, the scheme is not one of
    /// [`CifarResNetConfig::SCHEMES`](super::CifarResNetConfig::SCHEMES), or as [`ResidualConfig::init`].
    pub fn init(&self, device: &Device) -> BasicBlock {
        let [c_in, c_out] = self.channels;
        assert!(
            c_in > 0 && c_out >= c_in && self.stride > 0 && self.n_blocks > 0,
            "a block's channels must not fall, and its sizes be greater than zero, got channels \
             {c_in} to {c_out}, stride {} and n_blocks {}.",
            self.stride,
            self.n_blocks
        );
        self.residual
            .check_without_norm("BasicBlockConfig", SCHEMES);
        let row = self.residual.scheme.row();
        let weights = weights(self.definition, row.join);
        let conv = |c_in, stride, bias, weights| {
            init::conv([c_in, c_out], 3, stride, bias, weights, device)
        };
        let norm = || Some(BatchNormConfig::new(c_out).init(device));
        let mut branch = match row.convolutions {
            Convolutions::BatchNorm | Convolutions::ZeroGamma => BasicBranch {
                conv1: conv(c_in, self.stride, false, weights.clone()),
                norm1: norm(),
                conv2: conv(c_out, 1, false, weights),
                norm2: norm(),
                fixup: None,
            },
            Convolutions::Biased => BasicBranch {
                conv1: conv(c_in, self.stride, true, weights.clone()),
                norm1: None,
                conv2: conv(c_out, 1, true, weights),
                norm2: None,
                fixup: None,
            },
            Convolutions::FixUp => {
                let std = (2.0 / (9 * c_out) as f64).sqrt() / (self.n_blocks as f64).sqrt();
                let first = Initializer::Normal { mean: 0.0, std };
                BasicBranch {
                    conv1: conv(c_in, self.stride, false, first),
                    norm1: None,
                    conv2: conv(c_out, 1, false, Initializer::Zeros),
                    norm2: None,
                    fixup: Some(FixupScalars::init(device)),
                }
            }
        };
        if let (Convolutions::ZeroGamma, Some(norm)) = (row.convolutions, &mut branch.norm2) {
            norm.gamma = Initializer::Zeros.init([c_out], device);
        }
        let site = Site {
            channels: c_out,
            channel_axis: 1,
            n_layers: self.n_blocks,
        };
        BasicBlock {
            branch,
            shortcut: self.shortcut(row.convolutions, device),
            residual: self.residual.init(site, device),
            relu_in_branch: row.last_relu == LastRelu::InBranch,
        }
    }

    fn shortcut(&self, convolutions: Convolutions, device: &Device) -> Shortcut {
        let [c_in, c_out] = self.channels;
        if self.stride == 1 && c_in == c_out {
            return Shortcut::identity();
        }
        let extra = c_out - c_in;
        match (convolutions, self.definition) {
            (Convolutions::FixUp, _) => Shortcut::append(self.stride, extra, None),
            (Convolutions::Biased, _)
            | (Convolutions::BatchNorm | Convolutions::ZeroGamma, Definition::Notebook) => {
                Shortcut::pad_both(self.stride, extra)
            }
            (Convolutions::BatchNorm | Convolutions::ZeroGamma, Definition::Table) => {
                let norm = BatchNormConfig::new(c_in).init(device);
                Shortcut::append(self.stride, extra, Some(norm))
            }
            (Convolutions::BatchNorm | Convolutions::ZeroGamma, Definition::Projection) => {
                let init = weights(self.definition, Join::Sum);
                Shortcut {
                    conv: Some(init::conv(
                        self.channels,
                        1,
                        self.stride,
                        false,
                        init,
                        device,
                    )),
                    norm: Some(BatchNormConfig::new(c_out).init(device)),
                    stride: self.stride,
                    before: 0,
                    after: 0,
                }
            }
        }
    }
}

/// The initial weights of convolutions in a code base.
pub(super) fn weights(definition: Definition, join: Join) -> Initializer {
    match (definition, join) {
        (Definition::Notebook, _) => init::kaiming_normal(false),
        // The authors' `highway.py` has its Kaiming initialisation commented out.
        (Definition::Table, Join::Mixture(_)) => init::torch_default(),
        (Definition::Table | Definition::Projection, _) => init::kaiming_normal(true),
    }
}

impl BasicBlock {
    /// Applies the block.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, c_in, height, width]`
    /// - output: `[batch, c_out, ⌈height / stride⌉, ⌈width / stride⌉]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let skip = match &self.branch.fixup {
            // FixUp's reference shifts the input of a down-sampling shortcut as well.
            Some(scalars) if !self.shortcut.is_identity() => self
                .shortcut
                .forward(x.clone() + scalars.bias1a.val().unsqueeze()),
            _ => self.shortcut.forward(x.clone()),
        };
        let out = self.branch.convolve(x);
        let norm = self.branch.norm2.as_ref();
        let alpha = self.residual.rezero_alpha();
        match (norm, alpha, self.relu_in_branch) {
            (Some(norm), Some(alpha), true) => {
                fused::batch_norm_gated_sum(norm, skip, out, Epilogue::Relu, alpha)
            }
            (_, _, true) => {
                let out = normalize(norm, out, Epilogue::Relu);
                self.residual.combine(skip, out)
            }
            (_, _, false) => {
                let out = normalize(norm, out, Epilogue::Identity);
                relu(self.residual.combine(skip, out))
            }
        }
    }
}

/// F of a [`BasicBlock`], without its last activation.
///
/// | scheme | F(x) | source |
/// | - | - | - |
/// | residual, zero-γ, ReZero, gated | `norm2(conv2(relu(norm1(conv1(x)))))` | [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), section 4.2 |
/// | SkipInit | `conv2(relu(conv1(x)))`, convolutions with bias | [arXiv 2002.10444](https://arxiv.org/abs/2002.10444) |
/// | FixUp | `scale · conv2(relu(conv1(x + bias1a) + bias1b) + bias2a) + bias2b` | [arXiv 1901.09321](https://arxiv.org/abs/1901.09321), section 3 |
///
/// FixUp initialises `conv1` from N(0, 2 / fan_out / L) for L blocks, and `conv2` with 0.
#[derive(Module, Debug)]
pub struct BasicBranch {
    /// 3×3, with the block's stride.
    pub conv1: Conv2d,
    /// After `conv1`, in the schemes with norm.
    pub norm1: Option<BatchNorm>,
    /// 3×3.
    pub conv2: Conv2d,
    /// After `conv2`, in the schemes with norm; its γ starts at 0 under zero-γ.
    pub norm2: Option<BatchNorm>,
    /// The scalars of FixUp, in that scheme.
    pub fixup: Option<FixupScalars>,
}

impl BasicBranch {
    /// Computes the branch without `norm2`.
    fn convolve(&self, x: Tensor<4>) -> Tensor<4> {
        let Some(fixup) = &self.fixup else {
            let x = fused::conv2d(&self.conv1, x);
            let x = normalize(self.norm1.as_ref(), x, Epilogue::Relu);
            return fused::conv2d(&self.conv2, x);
        };
        let x = fused::conv2d(&self.conv1, x + fixup.bias1a.val().unsqueeze());
        let x = relu(x + fixup.bias1b.val().unsqueeze());
        let x = fused::conv2d(&self.conv2, x + fixup.bias2a.val().unsqueeze());
        x * fixup.scale.val().unsqueeze() + fixup.bias2b.val().unsqueeze()
    }
}

fn normalize(norm: Option<&BatchNorm>, x: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
    match norm {
        Some(norm) => fused::batch_norm(norm, x, epilogue),
        None => epilogue.apply(x),
    }
}

/// The scalars of a FixUp branch, `[1]` each: biases start at 0, the scale at 1.
#[derive(Module, Debug)]
pub struct FixupScalars {
    /// Before `conv1`.
    pub bias1a: Param<Tensor<1>>,
    /// After `conv1`.
    pub bias1b: Param<Tensor<1>>,
    /// Before `conv2`.
    pub bias2a: Param<Tensor<1>>,
    /// Factor after `conv2`.
    pub scale: Param<Tensor<1>>,
    /// After the scale.
    pub bias2b: Param<Tensor<1>>,
}

impl FixupScalars {
    fn init(device: &Device) -> Self {
        let scalar = |value| Initializer::Constant { value }.init([1], device);
        Self {
            bias1a: scalar(0.0),
            bias1b: scalar(0.0),
            bias2a: scalar(0.0),
            scale: scalar(1.0),
            bias2b: scalar(0.0),
        }
    }
}

/// The skip path of a block: `x` itself where the shape stays. Where it changes, He et al., section
/// 4.2, have two options, and [`Definition`] decides:
///
/// - option A: every `stride`-th pixel, and zeros for the channels that the input lacks. The
///   authors' two code bases differ in `norm` and in the place of the zeros.
/// - option B: `norm(conv(x))`, a projection.
#[derive(Module, Debug)]
pub struct Shortcut {
    /// 1×1, with the block's stride, under [`Definition::Projection`].
    pub conv: Option<Conv2d>,
    /// The batch norm of the sub-sampled input, under [`Definition::Table`], or of the projection.
    pub norm: Option<BatchNorm>,
    /// The distance between the pixels that are taken, in both directions.
    pub stride: usize,
    /// The number of zero channels before those of the input.
    pub before: usize,
    /// The number of zero channels after those of the input.
    pub after: usize,
}

impl Shortcut {
    pub(super) fn identity() -> Self {
        Self::append(1, 0, None)
    }

    pub(super) fn pad_both(stride: usize, extra: usize) -> Self {
        Self {
            conv: None,
            norm: None,
            stride,
            before: extra / 2,
            after: extra - extra / 2,
        }
    }

    pub(super) fn append(stride: usize, extra: usize, norm: Option<BatchNorm>) -> Self {
        Self {
            conv: None,
            norm,
            stride,
            before: 0,
            after: extra,
        }
    }

    fn is_identity(&self) -> bool {
        self.stride == 1 && self.before + self.after == 0 && self.norm.is_none()
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        if self.is_identity() {
            return x;
        }
        if let Some(conv) = &self.conv {
            let x = fused::conv2d(conv, x);
            return normalize(self.norm.as_ref(), x, Epilogue::Identity);
        }
        let zeros = [self.before, self.after];
        match &self.norm {
            Some(norm) => {
                let x =
                    fused::batch_norm(norm, subsample(x, self.stride, [0, 0]), Epilogue::Identity);
                subsample(x, 1, zeros)
            }
            None => subsample(x, self.stride, zeros),
        }
    }
}
