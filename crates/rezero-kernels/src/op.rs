//! One kernel on one backend, with and without autodiff.

use core::fmt::Debug;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, Backend, BackendTensor, DispatchAutodiffContext, DispatchKindConversion,
    DispatchTensor, DispatchTensorKind, GradientCheckpointingStrategy, TensorMetadata,
};
use burn::tensor::{DType, Tensor};

/// A backend that has kernels.
pub(crate) trait Host: Backend {
    /// The tensor of this backend, or of autodiff above it, if it is one.
    fn of(kind: DispatchTensorKind) -> Option<BackendTensor<Self>>;
}

/// A tensor on Burn's autodiff backend.
type Tracked<B> = FloatTensor<Autodiff<B>>;

/// An operation on tensors of a backend, with its own backward pass.
pub(crate) trait Kernel<B: Host>: Debug + Send + Sized + 'static {
    /// The values that the backward pass needs. They stay in memory until then: store few.
    type State: Clone + Debug + Send + 'static;
    /// Further results of the forward pass, outside autodiff.
    type Aux;

    /// The output for `inputs`, which may be views.
    fn forward(&self, inputs: &[FloatTensor<B>]) -> (FloatTensor<B>, Self::State, Self::Aux);

    /// The gradients of the `wanted` inputs, from the gradient of the output.
    fn backward(
        self,
        state: Self::State,
        grad: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>>;
}

/// The inputs of one operation.
pub(crate) enum Values<B: Host, const N: usize> {
    Plain([FloatTensor<B>; N]),
    Tracked([Tracked<B>; N]),
}

impl<B: Host, const N: usize> Values<B, N> {
    /// Whether there may be a backward pass.
    pub fn tracked(&self) -> bool {
        matches!(self, Self::Tracked(_))
    }
}

/// The tensors' primitives on `B`. `None` if the kernels do not serve the tensors: another backend or
/// another type than f32, no elements, or a device with gradient checkpointing, which a kernel would bypass.
pub(crate) fn values<B: Host, const N: usize>(
    tensors: [DispatchTensor; N],
) -> Option<Values<B, N>> {
    values_of(tensors, &[DType::F32])
}

/// [`values`] of tensors that are all of the same one of `types`.
pub(crate) fn values_of<B: Host, const N: usize>(
    tensors: [DispatchTensor; N],
    types: &[DType],
) -> Option<Values<B, N>> {
    let dtype = tensors[0].dtype();
    let served = |t: &DispatchTensor| t.dtype() == dtype && t.shape().num_elements() > 0;
    if !types.contains(&dtype) || !tensors.iter().all(served) {
        return None;
    }
    match tensors[0].autodiff {
        DispatchAutodiffContext::Disabled => collect(tensors.map(plain::<B>)).map(Values::Plain),
        DispatchAutodiffContext::Enabled(GradientCheckpointingStrategy::Disabled) => {
            collect(tensors.map(tracked::<B>)).map(Values::Tracked)
        }
        DispatchAutodiffContext::Enabled(_) => None,
    }
}

fn collect<T, const N: usize>(items: [Option<T>; N]) -> Option<[T; N]> {
    let items: Option<Vec<T>> = items.into_iter().collect();
    items?.try_into().ok()
}

fn plain<B: Host>(tensor: DispatchTensor) -> Option<FloatTensor<B>> {
    match (tensor.autodiff, B::of(tensor.kind)) {
        (DispatchAutodiffContext::Disabled, Some(BackendTensor::Float(t))) => Some(t),
        _ => None,
    }
}

// The last arm is for builds with nothing but autodiff's.
#[allow(unreachable_patterns)]
fn tracked<B: Host>(tensor: DispatchTensor) -> Option<Tracked<B>> {
    match tensor.kind {
        DispatchTensorKind::Autodiff(inner) => match B::of(*inner) {
            Some(BackendTensor::Autodiff(t)) => Some(t),
            _ => None,
        },
        _ => None,
    }
}

/// Runs a kernel on its inputs.
pub(crate) fn run<B: Host, K: Kernel<B>, const N: usize, const D: usize>(
    kernel: K,
    inputs: Values<B, N>,
) -> (Tensor<D>, K::Aux)
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B>>,
{
    match inputs {
        Values::Plain(inputs) => {
            let (output, _, aux) = kernel.forward(&inputs);
            (Tensor::from_primitive::<B>(output), aux)
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
            (Tensor::from_primitive::<Autodiff<B>>(output), aux)
        }
    }
}

/// A kernel as a step of Burn's autodiff.
#[derive(Debug)]
struct Step<K>(K);

impl<B: Host, K: Kernel<B>, const N: usize> Backward<B, N> for Step<K> {
    type State = K::State;

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = self.0.backward(ops.state, grad, &wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}
