//! Networks without gates, for inference: α is multiplied into the last layer of its branch.

use burn::module::Param;
use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, Linear};
use burn::tensor::Tensor;

use crate::residual::{Join, LayerResiduals, Residual, ResidualScheme};
use crate::rezero::ReZero;

/// A network whose gates can be removed.
pub trait Fold: Sized {
    /// The same network without its gates, on the device without autodiff. Outputs differ only by
    /// rounding.
    ///
    /// | the branch ends in | α is multiplied into |
    /// | - | - |
    /// | a linear layer or a convolution | its weight and bias |
    /// | a norm and a ReLU | the norm's γ and β, as \|α\|; where α < 0 the branch is subtracted |
    /// | a linear layer and a ReLU | the same with its weight and bias |
    ///
    /// A gate with one α per channel is not removed where the branch ends in a layer whose outputs are
    /// not the channels, as token mixing in an MLP-Mixer does.
    ///
    /// In gated networks, the factor `1 − α` of the skip path stays, as a constant. A gate with one
    /// α per channel is not removed if a ReLU ends the branch and the signs of its α differ, or if
    /// it also scales the skip path.
    ///
    /// The result is for inference: it no longer trains as ReZero does.
    #[must_use]
    fn fold(self) -> Self;
}

/// The factor, `[1]` or `[channels]`, that replaces a gate.
pub(crate) enum Folded {
    /// The branch is multiplied by the factor and then added.
    Add(Tensor<1>),
    /// The branch is multiplied by the factor and then subtracted.
    Subtract(Tensor<1>),
}

impl Folded {
    pub(crate) fn factor(&self) -> Tensor<1> {
        match self {
            Self::Add(factor) | Self::Subtract(factor) => factor.clone(),
        }
    }
}

impl Residual {
    /// Removes the gate, if the branch can take its factor; `relu`: whether a ReLU ends the branch.
    pub(crate) fn fold(&mut self, shared: Option<&ReZero>, relu: bool) -> Option<Folded> {
        let gate = shared.or(self.rezero.as_ref())?;
        let alpha = gate.effective();
        let values: Vec<f32> = alpha.to_data().iter::<f32>().collect();
        let folded = match relu {
            false => Folded::Add(alpha),
            true if values.iter().all(|a| *a >= 0.0) => Folded::Add(alpha),
            true if values.iter().all(|a| *a <= 0.0) => Folded::Subtract(alpha.abs()),
            true => return None,
        };
        if let Join::Mixture(_) = self.scheme.row().join {
            match values.as_slice() {
                [alpha] => self.skip_scale = 1.0 - f64::from(*alpha),
                _per_channel => return None,
            }
        }
        self.scheme = match self.norm {
            // A gate's norm is at the branch's input.
            Some(_) => ResidualScheme::PreNorm,
            None => ResidualScheme::Residual,
        };
        self.rezero = None;
        self.subtract = matches!(folded, Folded::Subtract(_));
        Some(folded)
    }
}

fn scale<const D: usize>(param: &mut Param<Tensor<D>>, factor: &Tensor<1>, axis: usize) {
    let [n] = factor.dims();
    let mut shape = [1; D];
    shape[axis] = n;
    let factor = factor.clone().reshape(shape);
    *param = param.clone().map(|value| value * factor);
}

pub(crate) fn scale_linear(linear: &mut Linear, factor: &Tensor<1>) {
    scale(&mut linear.weight, factor, 1);
    if let Some(bias) = &mut linear.bias {
        scale(bias, factor, 0);
    }
}

pub(crate) fn scale_conv(conv: &mut Conv2d, factor: &Tensor<1>) {
    scale(&mut conv.weight, factor, 0);
    if let Some(bias) = &mut conv.bias {
        scale(bias, factor, 0);
    }
}

pub(crate) fn scale_norm(norm: &mut BatchNorm, factor: &Tensor<1>) {
    scale(&mut norm.gamma, factor, 0);
    scale(&mut norm.beta, factor, 0);
}

/// The last linear layer of a branch.
pub(crate) enum Last<'a> {
    /// Its outputs are the channels, so it takes a gate of any kind.
    Channels(&'a mut Linear),
    /// Its outputs are on another axis, so it takes a gate of one α alone.
    Other(&'a mut Linear),
}

impl LayerResiduals {
    /// Removes the gates that the branches can take; `last[i]` is of sub-layer i.
    pub(crate) fn fold<const N: usize>(&mut self, last: [Last<'_>; N]) {
        let shared = self.rezero.clone();
        let mut kept = false;
        for (residual, last) in self.sub_layers.iter_mut().zip(last) {
            let gate = shared.as_ref().or(residual.rezero.as_ref());
            let values = gate.map_or(0, |gate| gate.alpha.lazy_shape().num_elements());
            let takes = match last {
                Last::Channels(_) => true,
                Last::Other(_) => values <= 1,
            };
            let (Last::Channels(linear) | Last::Other(linear)) = last;
            let folded = match takes {
                true => residual.fold(shared.as_ref(), false),
                false => None,
            };
            match folded {
                Some(folded) => scale_linear(linear, &folded.factor()),
                None => kept = true,
            }
        }
        if !kept {
            self.rezero = None;
        }
    }
}
