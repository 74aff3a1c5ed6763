//! Matrix products and convolutions in half precision.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{FloatDType, Tensor};

/// `module` with the weights of its linear layers and convolutions in `dtype`. Their products are
/// computed in `dtype`. Embeddings, biases, norms, gates and the values between layers keep their
/// type (mixed precision: Micikevicius et al.,
/// [arXiv 1710.03740](https://arxiv.org/abs/1710.03740)).
///
/// On an autodiff device the result is a function of the parameters of `module`. So a loss that is
/// computed with the result has gradients for `module`, in the type of `module`'s parameters. Call
/// this function anew in each step:
///
/// ```
/// use burn::optim::GradientsParams;
/// use burn::tensor::{Device, FloatDType, Tensor};
/// use rezero_nn::{MlpConfig, in_precision};
///
/// let device = Device::flex().autodiff();
/// let model = MlpConfig::new(8, 16, 4, 2).init(&device);
/// let half = in_precision(model.clone(), FloatDType::BF16);
/// let loss = half.forward(Tensor::ones([3, 8], &device)).sum();
/// let gradients = GradientsParams::from_grads(loss.backward(), &model);
/// assert!(gradients.get::<2>(model.input.weight.id).is_some());
/// ```
///
/// Values beyond the range of `dtype` become infinite. With [`FloatDType::F16`], scale the loss,
/// and thereby the gradients.
#[must_use]
pub fn in_precision<M: Module>(module: M, dtype: FloatDType) -> M {
    module.map(&mut Cast {
        dtype,
        path: Vec::new(),
    })
}

struct Cast {
    dtype: FloatDType,
    /// The names of the fields that lead to a parameter, and the types that hold them.
    path: Vec<(String, String)>,
}

impl ModuleMapper for Cast {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push((name.to_owned(), container_type.to_owned()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let multiplies = self.path.last().is_some_and(|(name, holder)| {
            name == "weight" && matches!(holder.as_str(), "Struct:Linear" | "Struct:Conv2d")
        });
        match multiplies {
            true => param.map(|weight| weight.cast(self.dtype)),
            false => param,
        }
    }
}
