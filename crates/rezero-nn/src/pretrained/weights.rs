//! The constructors of networks with weights, and the names of the weights that each takes.

use burn::nn::LinearConfig;
use burn::tensor::Device;

use super::{Pretrained, PretrainedError, registry};
use crate::resnet::{CifarResNet, CifarResNetConfig, Definition};
use crate::transformer::{Activation, Positions, RztxEncoderConfig, RztxLm, RztxLmConfig};

/// An enum of sets of weights of one network, each with its row of the registry.
macro_rules! weights {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $row:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$of])* $variant,)+
        }

        impl $name {
            /// Name, figures, classes and normalisation.
            pub fn entry(self) -> &'static Pretrained {
                match self {
                    $(Self::$variant => &registry::$row,)+
                }
            }
        }
    };
}

weights! {
    /// Weights of [`CifarResNet::resnet20_pretrained`].
    ResNet20 {
        /// ReZero, CIFAR-10: `resnet20-cifar10`.
        Cifar10ReZero = RESNET20_CIFAR10,
    }
}

weights! {
    /// Weights of [`CifarResNet::resnet56_pretrained`].
    ResNet56 {
        /// ReZero, CIFAR-10: `resnet56-cifar10`.
        Cifar10ReZero = RESNET56_CIFAR10,
    }
}

weights! {
    /// Weights of [`RztxLm::bytes12_pretrained`].
    Bytes12 {
        /// ReZero, the first 4,000,000 bytes of enwik8: `bytes12-enwik8`.
        Enwik8ReZero = BYTES12_ENWIK8,
    }
}

weights! {
    /// Weights of [`RztxLm::bytes48_pretrained`].
    Bytes48 {
        /// ReZero, the first 4,000,000 bytes of enwik8: `bytes48-enwik8`.
        Enwik8ReZero = BYTES48_ENWIK8,
    }
}

impl CifarResNet {
    /// ResNet-20 with weights.
    ///
    /// Images are `[batch, 3, 32, 32]`, normalised as
    /// [`Pretrained::normalization`](super::Pretrained::normalization) says.
    ///
    /// # Errors
    ///
    /// As [`Pretrained::load`](super::Pretrained::load).
    pub fn resnet20_pretrained(
        weights: ResNet20,
        device: &Device,
    ) -> Result<Self, PretrainedError> {
        let config = CifarResNetConfig::resnet20().with_definition(Definition::Notebook);
        weights.entry().load(config.init(device))
    }

    /// ResNet-56 with weights, as [`resnet20_pretrained`](Self::resnet20_pretrained).
    ///
    /// # Errors
    ///
    /// As [`Pretrained::load`](super::Pretrained::load).
    pub fn resnet56_pretrained(
        weights: ResNet56,
        device: &Device,
    ) -> Result<Self, PretrainedError> {
        let config = CifarResNetConfig::resnet56().with_definition(Definition::Notebook);
        weights.entry().load(config.init(device))
    }

    /// The same network with another output layer, of `n` classes, whose weights are random.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    #[must_use]
    pub fn with_classes(mut self, n: usize) -> Self {
        assert!(n > 0, "a network needs at least one class, got 0.");
        let [d_in, _] = self.linear.weight.dims();
        self.linear = LinearConfig::new(d_in, n).init(&self.linear.weight.device());
        self
    }
}

impl RztxLm {
    /// A byte language model of 12 layers of width 64 with weights: tokens are bytes.
    ///
    /// # Errors
    ///
    /// As [`Pretrained::load`](super::Pretrained::load).
    pub fn bytes12_pretrained(weights: Bytes12, device: &Device) -> Result<Self, PretrainedError> {
        weights.entry().load(bytes(12).init(device))
    }

    /// A byte language model of 48 layers of width 64 with weights: tokens are bytes.
    ///
    /// # Errors
    ///
    /// As [`Pretrained::load`](super::Pretrained::load).
    pub fn bytes48_pretrained(weights: Bytes48, device: &Device) -> Result<Self, PretrainedError> {
        weights.entry().load(bytes(48).init(device))
    }
}

/// The network of the recipe enwik8-tiny with `depth` layers.
fn bytes(depth: usize) -> RztxLmConfig {
    let encoder = RztxEncoderConfig::new(64, 256, 2, depth).with_activation(Activation::Relu);
    RztxLmConfig::new(encoder, 64)
        .with_positions(Positions::Rotary)
        .with_embedding_scale(8.0)
}
