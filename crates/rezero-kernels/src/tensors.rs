//! Many tensors at once.

#[cfg(feature = "cube")]
use std::collections::VecDeque;

use burn::tensor::Tensor;

/// Tensors of any ranks, for operations that take all of them in a few launches: f32 on a CubeCL backend (feature `cube`), outside autodiff.
#[derive(Default)]
pub struct Tensors {
    #[cfg(feature = "cube")]
    all: VecDeque<burn::backend::tensor::FloatTensor<burn::backend::Cube>>,
}

impl Tensors {
    /// Without any.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a tensor. False, and it is not appended, if these operations do not serve it.
    #[must_use]
    pub fn push<const D: usize>(&mut self, tensor: &Tensor<D>) -> bool {
        #[cfg(feature = "cube")]
        if let Some([tensor]) = crate::cube::plain([tensor.clone().into_dispatch()]) {
            self.all.push_back(tensor);
            return true;
        }
        #[cfg(not(feature = "cube"))]
        let _ = tensor;
        false
    }

    /// Takes the first tensor out, if it has `D` axes.
    pub fn pop<const D: usize>(&mut self) -> Option<Tensor<D>> {
        #[cfg(feature = "cube")]
        {
            use burn::backend::TensorMetadata;
            let first = self.all.pop_front_if(|tensor| tensor.rank() == D)?;
            Some(crate::cube::tensor_of(first))
        }
        #[cfg(not(feature = "cube"))]
        None
    }

    /// The sum of squares of each tensor, `[n]`. The terms of a sum are added in the order of their memory, in parts that depend on their
    /// number only. `None` without tensors.
    pub fn square_sums(&self) -> Option<Tensor<1>> {
        #[cfg(feature = "cube")]
        {
            use crate::cube::many::{Many, ManyOps};
            let all = self.all.iter().cloned().collect();
            let mut sums = burn::backend::Cube::rezero_many(Many::SquareSums, all);
            sums.pop().map(crate::cube::tensor_of)
        }
        #[cfg(not(feature = "cube"))]
        None
    }

    /// Multiplies all tensors by a factor, `[1]`, on their device: each in its memory, unless another tensor shares that.
    ///
    /// # Panics
    ///
    /// If there are tensors, and the factor is not served as they are.
    pub fn scale(&mut self, factor: &Tensor<1>) {
        #[cfg(feature = "cube")]
        if !self.all.is_empty() {
            use crate::cube::many::{Many, ManyOps};
            let [factor] = crate::cube::plain([factor.clone().into_dispatch()])
                .expect("a factor is f32 on the device of its tensors, outside autodiff");
            let all = std::iter::once(factor).chain(self.all.drain(..)).collect();
            self.all = burn::backend::Cube::rezero_many(Many::Scaled, all).into();
        }
        #[cfg(not(feature = "cube"))]
        let _ = factor;
    }
}

impl std::fmt::Debug for Tensors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tensors").finish_non_exhaustive()
    }
}
