//! One pass over the parameter, the gradient and the state, in place. Adam reads four arrays and
//! writes three.
//!
//! The updates take primitives, which have no rank in their type: so their loops are compiled once, in
//! this crate, whose optimisation they need, and not in each crate that calls them.

use burn::backend::flex::FlexTensor;
use burn::backend::{DispatchAutodiffContext, DispatchTensor, Flex, TensorMetadata};
use burn::tensor::{DType, Tensor};

use super::gate::CHUNK;
use super::memory::{Shared, contiguous, tensor, values, values_mut, writable};
use super::parallel::{Parts, each, sums, wide};
use crate::optim::{AdaGradStep, AdamStep, LambStep, LionStep, SgdStep};

/// Values whose directions LAMB holds at a time.
const BLOCK: usize = 1 << 10;

/// Whether all tensors are f32, on Flex, outside autodiff and not empty.
pub(crate) fn serves<const D: usize>(tensors: &[Option<&Tensor<D>>]) -> bool {
    tensors.iter().flatten().all(|tensor| {
        let tensor: DispatchTensor = (*tensor).clone().into_dispatch();
        tensor.autodiff == DispatchAutodiffContext::Disabled
            && tensor.dtype() == DType::F32
            && tensor.shape().num_elements() > 0
            && matches!(
                tensor.kind,
                burn::backend::DispatchTensorKind::Flex(burn::backend::BackendTensor::Float(_))
            )
    })
}

/// The primitive of a tensor that [`serves`] accepts.
pub(crate) fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    match tensor.try_into_primitive::<Flex>() {
        Ok(tensor) => tensor,
        Err(error) => unreachable!("checked to be a tensor of Flex: {error:?}"),
    }
}

/// The inverse of [`primitive`].
pub(crate) fn tensor_of<const D: usize>(primitive: FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(primitive)
}

pub(crate) fn sgd(
    step: SgdStep,
    weights: FlexTensor,
    gradient: FlexTensor,
    velocity: Option<FlexTensor>,
) -> (FlexTensor, FlexTensor) {
    let (lr, decay) = (step.lr as f32, step.weight_decay as f32);
    // The first velocity is the gradient itself.
    let momentum = if velocity.is_some() {
        step.momentum as f32
    } else {
        0.0
    };
    let (weights, [velocity]) = update(
        weights,
        gradient,
        [velocity],
        #[inline(always)]
        |_, w, g, [v]| {
            for ((w, g), v) in w.iter_mut().zip(g).zip(v) {
                *v = momentum * *v + decayed(*g, *w, decay);
                *w -= lr * *v;
            }
        },
    );
    (weights, velocity)
}

pub(crate) fn adagrad(
    step: AdaGradStep,
    weights: FlexTensor,
    gradient: FlexTensor,
    sums: Option<FlexTensor>,
) -> (FlexTensor, FlexTensor) {
    let (lr, epsilon) = (step.lr as f32, step.epsilon as f32);
    let decay = step.weight_decay as f32;
    let (weights, [sums]) = update(
        weights,
        gradient,
        [sums],
        #[inline(always)]
        |_, w, g, [s]| {
            for ((w, g), s) in w.iter_mut().zip(g).zip(s) {
                let g = decayed(*g, *w, decay);
                *s += g * g;
                *w -= lr * (g / (s.sqrt() + epsilon));
            }
        },
    );
    (weights, sums)
}

pub(crate) fn adam(
    step: AdamStep,
    weights: FlexTensor,
    gradient: FlexTensor,
    moments: Option<[FlexTensor; 2]>,
) -> (FlexTensor, [FlexTensor; 2]) {
    let [factor, epsilon] = step.corrections();
    let (rate, epsilon) = ((step.lr * factor) as f32, epsilon as f32);
    let [beta_1, beta_2] = [step.beta_1 as f32, step.beta_2 as f32];
    let [rest_1, rest_2] = [(1.0 - step.beta_1) as f32, (1.0 - step.beta_2) as f32];
    let (shrink, decay) = match step.decoupled {
        true => ((1.0 - step.lr * step.weight_decay) as f32, 0.0),
        false => (1.0, step.weight_decay as f32),
    };
    let moments = moments.map_or([None, None], |moments| moments.map(Some));
    update(
        weights,
        gradient,
        moments,
        #[inline(always)]
        |_, w, g, [m, v]| {
            for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                let g = decayed(*g, *w, decay);
                *m = beta_1 * *m + rest_1 * g;
                *v = beta_2 * *v + rest_2 * (g * g);
                *w = shrink * *w - rate * (*m / (v.sqrt() + epsilon));
            }
        },
    )
}

/// LAMB's u.
#[derive(Clone, Copy)]
struct Direction {
    of_m: f32,
    of_v: f32,
    epsilon: f32,
    decay: f32,
}

impl Direction {
    fn of(step: LambStep) -> Self {
        let [of_m, of_v] = step.corrections().map(|x| x as f32);
        Self {
            of_m,
            of_v,
            epsilon: step.epsilon as f32,
            decay: step.weight_decay as f32,
        }
    }

    #[inline(always)]
    fn at(self, w: f32, m: f32, v: f32) -> f32 {
        let u = (m * self.of_m) / ((v * self.of_v).sqrt() + self.epsilon);
        decayed(u, w, self.decay)
    }
}

/// Two passes: the moments with the norms of w and u, then w. Each computes u.
pub(crate) fn lamb(
    step: LambStep,
    weights: FlexTensor,
    gradient: FlexTensor,
    moments: Option<[FlexTensor; 2]>,
) -> (FlexTensor, [FlexTensor; 2]) {
    let direction = Direction::of(step);
    let gradient = contiguous(&gradient);
    let [beta_1, beta_2] = [step.beta_1 as f32, step.beta_2 as f32];
    let [rest_1, rest_2] = [(1.0 - step.beta_1) as f32, (1.0 - step.beta_2) as f32];
    let moments = moments.map_or([None, None], |moments| moments.map(Some));
    let parts = Parts::new(weights.shape().num_elements(), CHUNK);
    let mut squares = vec![0.0; 2 * parts.count()];
    let shared = Shared::new(&mut squares);
    let (weights, moments) = update(
        weights,
        gradient.clone(),
        moments,
        #[inline(always)]
        |i, w, g, [m, v]| {
            let mut found = [0.0f32; 2];
            let blocks = w.chunks(BLOCK).zip(g.chunks(BLOCK));
            let blocks = blocks.zip(m.chunks_mut(BLOCK).zip(v.chunks_mut(BLOCK)));
            for ((w, g), (m, v)) in blocks {
                let mut us = [0.0; BLOCK];
                let us = &mut us[..w.len()];
                let moments = m.iter_mut().zip(v);
                for ((u, (w, g)), (m, v)) in us.iter_mut().zip(w.iter().zip(g)).zip(moments) {
                    *m = beta_1 * *m + rest_1 * g;
                    *v = beta_2 * *v + rest_2 * (g * g);
                    *u = direction.at(*w, *m, *v);
                }
                let of_block = sums(
                    w,
                    us,
                    #[inline(always)]
                    |w, u| [w * w, u * u],
                );
                found = [found[0] + of_block[0], found[1] + of_block[1]];
            }
            // SAFETY: two sums a part.
            unsafe { shared.part(2 * i, 2) }.copy_from_slice(&found);
        },
    );
    let norm = |which: usize| {
        let of_parts = squares.chunks_exact(2).map(|s| f64::from(s[which]));
        of_parts.sum::<f64>().sqrt()
    };
    let (of_weights, of_step) = (norm(0), norm(1));
    // A comparison in this form leaves NaN, so that divergence stays visible.
    let none = of_weights == 0.0 || of_step == 0.0;
    let ratio = if none { 1.0 } else { of_weights / of_step };
    let rate = (step.lr * ratio) as f32;
    update(
        weights,
        gradient,
        moments.map(Some),
        #[inline(always)]
        |_, w, _, [m, v]| {
            for ((w, m), v) in w.iter_mut().zip(m).zip(v) {
                *w -= rate * direction.at(*w, *m, *v);
            }
        },
    )
}

pub(crate) fn lion(
    step: LionStep,
    weights: FlexTensor,
    gradient: FlexTensor,
    momentum: Option<FlexTensor>,
) -> (FlexTensor, FlexTensor) {
    let lr = step.lr as f32;
    let [beta_1, beta_2] = [step.beta_1 as f32, step.beta_2 as f32];
    let [rest_1, rest_2] = [(1.0 - step.beta_1) as f32, (1.0 - step.beta_2) as f32];
    let shrink = (1.0 - step.lr * step.weight_decay) as f32;
    let (weights, [momentum]) = update(
        weights,
        gradient,
        [momentum],
        #[inline(always)]
        |_, w, g, [m]| {
            for ((w, g), m) in w.iter_mut().zip(g).zip(m) {
                let mean = beta_1 * *m + rest_1 * *g;
                // `signum` of 0 is 1.
                let sign = f32::from(mean > 0.0) - f32::from(mean < 0.0);
                *w = shrink * *w - lr * sign;
                *m = beta_2 * *m + rest_2 * *g;
            }
        },
    );
    (weights, momentum)
}

/// The gradient plus the weight decay. A decay of 0 is not multiplied: with an infinite weight it
/// would give NaN.
#[inline(always)]
fn decayed(g: f32, w: f32, decay: f32) -> f32 {
    if decay == 0.0 { g } else { g + decay * w }
}

/// Runs `f(i, weights, gradient, state)` on the i-th part of the tensors. Missing state starts at zero.
#[inline(always)]
fn update<const N: usize>(
    weights: FlexTensor,
    gradient: FlexTensor,
    state: [Option<FlexTensor>; N],
    f: impl Fn(usize, &mut [f32], &[f32], [&mut [f32]; N]) + Sync + Send,
) -> (FlexTensor, [FlexTensor; N]) {
    let shape = weights.shape();
    let gradient = contiguous(&gradient);
    let g = values(&gradient);
    let mut weights = writable(weights);
    let mut state = state.map(|state| match state {
        Some(state) => writable(state),
        None => tensor(vec![0.0; g.len()], shape.clone()),
    });
    assert!(
        shape == gradient.shape() && state.iter().all(|state| state.shape() == shape),
        "a parameter, its gradient and the optimizer's state must have the same shape."
    );
    let parts = Parts::new(g.len(), CHUNK);
    let shared = Shared::new(values_mut(&mut weights));
    let states = state.each_mut().map(|state| Shared::new(values_mut(state)));
    each(parts.count(), |i| {
        let (from, len) = parts.get(i);
        let g = &g[from..from + len];
        // SAFETY: the parts are disjoint.
        let w = unsafe { shared.part(from, len) };
        // SAFETY: as above.
        let states = states
            .each_ref()
            .map(|state| unsafe { state.part(from, len) });
        wide(
            #[inline(always)]
            || f(i, w, g, states),
        );
    });
    (weights, state)
}
