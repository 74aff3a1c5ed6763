//! One kernel, with and without autodiff.

use core::fmt::Debug;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, Flex,
    GradientCheckpointingStrategy, TensorMetadata,
};
use burn::tensor::{DType, Tensor};

/// A tensor on Burn's autodiff backend.
type Tracked = FloatTensor<Autodiff<Flex>>;

/// An operation on f32 tensors of Flex, with its own backward pass.
pub(crate) trait Kernel: Debug + Send + Sized + 'static {
    /// The values that the backward pass needs. They stay in memory until then: store few.
    type State: Clone + Debug + Send + 'static;
    /// Further results of the forward pass, outside autodiff.
    type Aux;

    /// The output for `inputs`, which may be views.
    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, Self::State, Self::Aux);

    /// The gradients of the `wanted` inputs, from the gradient of the output.
    fn backward(
        self,
        state: Self::State,
        grad: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>>;
}

/// The inputs of one operation.
pub(crate) enum Values<const N: usize> {
    Plain([FlexTensor; N]),
    Tracked([Tracked; N]),
}

impl<const N: usize> Values<N> {
    /// Whether there may be a backward pass.
    pub fn tracked(&self) -> bool {
        matches!(self, Self::Tracked(_))
    }
}

/// The tensors' Flex primitives. `None` if the kernels do not serve the tensors: another backend or
/// another type, no elements, or a device with gradient checkpointing, which a kernel would bypass.
pub(crate) fn values<const N: usize>(tensors: [DispatchTensor; N]) -> Option<Values<N>> {
    let served = |t: &DispatchTensor| t.dtype() == DType::F32 && t.shape().num_elements() > 0;
    if !tensors.iter().all(served) {
        return None;
    }
    match tensors[0].autodiff {
        DispatchAutodiffContext::Disabled => collect(tensors.map(plain)).map(Values::Plain),
        DispatchAutodiffContext::Enabled(GradientCheckpointingStrategy::Disabled) => {
            collect(tensors.map(tracked)).map(Values::Tracked)
        }
        DispatchAutodiffContext::Enabled(_) => None,
    }
}

fn collect<T, const N: usize>(items: [Option<T>; N]) -> Option<[T; N]> {
    let items: Option<Vec<T>> = items.into_iter().collect();
    items?.try_into().ok()
}

// The last arm is for other backends, where they are compiled in.
#[allow(unreachable_patterns)]
fn plain(tensor: DispatchTensor) -> Option<FlexTensor> {
    match (tensor.autodiff, tensor.kind) {
        (DispatchAutodiffContext::Disabled, DispatchTensorKind::Flex(BackendTensor::Float(t))) => {
            Some(t)
        }
        _ => None,
    }
}

#[allow(unreachable_patterns)]
fn tracked(tensor: DispatchTensor) -> Option<Tracked> {
    match tensor.kind {
        DispatchTensorKind::Autodiff(inner) => match *inner {
            DispatchTensorKind::Flex(BackendTensor::Autodiff(t)) => Some(t),
            _ => None,
        },
        _ => None,
    }
}

/// Runs a kernel on its inputs.
pub(crate) fn run<K: Kernel, const N: usize, const D: usize>(
    kernel: K,
    inputs: Values<N>,
) -> (Tensor<D>, K::Aux) {
    match inputs {
        Values::Plain(inputs) => {
            let (output, _, aux) = kernel.forward(&inputs);
            (Tensor::from_primitive::<Flex>(output), aux)
        }
        Values::Tracked(inputs) => {
            let mut guards = Vec::with_capacity(N);
            let primitives: Vec<_> = inputs
                .into_iter()
                .map(|tensor| {
                    let (primitive, guard) = tensor.into_parts();
                    guards.push(guard);
                    primitive
                })
                .collect();
            let Ok(guards) = <[_; N]>::try_from(guards) else {
                unreachable!("as many guards as inputs");
            };
            let (output, state, aux) = kernel.forward(&primitives);
            let step = Step(kernel);
            let output = match step
                .prepare::<NoCheckpointing>(guards)
                .compute_bound()
                .stateful()
            {
                OpsKind::Tracked(prep) => prep.finish(state, output),
                OpsKind::UnTracked(prep) => prep.finish(output),
            };
            (Tensor::from_primitive::<Autodiff<Flex>>(output), aux)
        }
    }
}

/// A kernel as a step of Burn's autodiff.
#[derive(Debug)]
struct Step<K>(K);

impl<K: Kernel, const N: usize> Backward<Flex, N> for Step<K> {
    type State = K::State;

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = self.0.backward(ops.state, grad, &wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
