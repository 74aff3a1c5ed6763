//! Helpers for a backward pass that runs in several parts.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};

/// `x` as the start of a new graph, so that its gradient can be read.
pub(crate) fn leaf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x).require_grad()
}

/// A scalar whose backward pass continues that of `out`, where `flowing` is the gradient of `out`.
pub(crate) fn product<const D: usize>(out: Tensor<D>, flowing: Tensor<D>) -> Tensor<1> {
    (out * Tensor::from_inner(flowing)).sum()
}

/// The gradients of a module's parameters.
pub(crate) fn collected<M: Module>(module: &M, grads: &Gradients) -> GradientsParams {
    let mut into = GradientsParams::new();
    collect(module, grads, &mut into);
    into
}

/// Adds the gradients of a module's parameters to those collected before.
pub(crate) fn collect<M: Module>(module: &M, grads: &Gradients, into: &mut GradientsParams) {
    module.visit(&mut Collect { grads, into });
}

struct Collect<'a> {
    grads: &'a Gradients,
    into: &'a mut GradientsParams,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(new) = param.val().grad(self.grads) {
            let sum = match self.into.remove::<D>(param.id) {
                Some(old) => old + new,
                None => new,
            };
            self.into.register::<D>(param.id, sum);
        }
    }
}
