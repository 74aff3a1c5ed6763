//! The trait of residual branches.

use burn::nn::{BatchNorm, Dropout, Gelu, LayerNorm, Linear, Relu, RmsNorm, conv::Conv2d};
use burn::tensor::Tensor;

/// A residual branch `F` of rank-`D` tensors, as [`ReZeroBlock`](crate::ReZeroBlock) holds it.
///
/// Implement it for your own modules. It is implemented for layers of Burn that can keep the shape
/// of their input, and for tuples, which apply their members from left to right. A closure needs no
/// implementation: pass it to [`ReZero::forward`](crate::ReZero::forward).
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
