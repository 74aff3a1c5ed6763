//! The optimizers of a run: one per parameter group, each following the [`Dials`].

use burn::module::ParamGroup;
use burn::optim::{
    Lamb, LambConfig, LambState, LearningRate, ModuleOptimizer, Optimizer, RecordState, StateSink,
    StateSource,
};
use burn::tensor::{Device, Tensor, TensorData};
use rezero_kernels::{AdaGradStep, AdamStep, SgdStep};
use rezero_nn::alpha_group;

use crate::recipe::{AlphaOptim, Optim, Recipe};
use crate::schedule::{Dial, Dials};

/// PyTorch's AdaGrad ε; Burn's default is 1e-5.
const ADAGRAD_EPSILON: f64 = 1e-10;

/// The optimizer of `recipe`: weights, then biases, then gates; the last matching group wins.
pub fn build(recipe: &Recipe, dials: &Dials) -> ModuleOptimizer {
    let groups = Groups { recipe, dials };
    let decay = recipe.weight_decay;
    let mut optimizer = match groups.of(recipe.optimizer, decay, &dials.lr) {
        Group::Sgd(o) => ModuleOptimizer::from(o),
        Group::AdaGrad(o) => ModuleOptimizer::from(o),
        Group::Adam(o) => ModuleOptimizer::from(o),
        Group::Lamb(o) => ModuleOptimizer::from(o),
    };
    let mut add = |which: ParamGroup, group: Group| {
        let base = optimizer.clone();
        optimizer = match group {
            Group::Sgd(o) => base.with_group(which, o, None),
            Group::AdaGrad(o) => base.with_group(which, o, None),
            Group::Adam(o) => base.with_group(which, o, None),
            Group::Lamb(o) => base.with_group(which, o, None),
        };
    };
    if recipe.bias_lr > 0.0 {
        let group = groups.of(recipe.optimizer, decay, &dials.bias_lr);
        add(bias_group(), group);
    }
    let gates = match recipe.alpha_optimizer {
        AlphaOptim::Shared => return optimizer,
        AlphaOptim::Sgd => Optim::Sgd,
        AlphaOptim::AdaGrad => Optim::AdaGrad,
        AlphaOptim::Adam => Optim::Adam,
    };
    let group = groups.of(gates, recipe.alpha_weight_decay, &dials.alpha_lr);
    add(alpha_group(), group);
    optimizer
}

/// What the authors' table code gives a learning rate of its own: every parameter whose PyTorch
/// name contains `bias` (the linear layer's, batch norm's β, FixUp's) or `scale`.
fn bias_group() -> ParamGroup {
    ParamGroup::from_regex(r"(^|\.)(bias\w*|beta|scale)$")
        .expect("the pattern is a valid regular expression")
}

/// An optimizer of one of the kinds, which are types of their own.
enum Group {
    Sgd(Sgd),
    AdaGrad(AdaGrad),
    Adam(Adam),
    Lamb(DialedLamb),
}

struct Groups<'a> {
    recipe: &'a Recipe,
    dials: &'a Dials,
}

impl Groups<'_> {
    fn of(&self, kind: Optim, weight_decay: f64, lr: &Dial) -> Group {
        let (r, lr) = (self.recipe, lr.clone());
        match kind {
            Optim::Sgd => Group::Sgd(Sgd {
                lr,
                momentum: self.dials.momentum.clone(),
                weight_decay,
            }),
            Optim::AdaGrad => Group::AdaGrad(AdaGrad {
                lr,
                epsilon: ADAGRAD_EPSILON,
                weight_decay,
            }),
            Optim::Adam | Optim::AdamW => Group::Adam(Adam {
                lr,
                beta_1: r.beta1,
                beta_2: r.beta2,
                epsilon: r.epsilon,
                weight_decay,
                decoupled: kind == Optim::AdamW,
            }),
            Optim::Lamb => Group::Lamb(DialedLamb {
                inner: LambConfig::new()
                    .with_beta_1(r.beta1 as f32)
                    .with_beta_2(r.beta2 as f32)
                    .with_epsilon(r.epsilon as f32)
                    .with_weight_decay(weight_decay as f32)
                    .build(),
                lr,
            }),
        }
    }
}

/// What an optimizer keeps of a parameter: the velocity, or the sum of squares, or both moments.
#[derive(Clone, Debug)]
pub struct State<const D: usize> {
    /// The steps taken.
    time: usize,
    tensors: Vec<Tensor<D>>,
    /// Read from a record and not on a device yet. Burn loads records by way of its default device, which
    /// may be one that the run has nothing to do with, or that this machine lacks; it then moves every
    /// state to its parameter's device before it is used.
    stored: Vec<TensorData>,
}

impl<const D: usize> State<D> {
    fn new<const N: usize>(time: usize, tensors: [Tensor<D>; N]) -> Self {
        Self {
            time,
            tensors: tensors.into(),
            stored: Vec::new(),
        }
    }

    /// The tensors, if there are any yet, and the number of the step to come, from 1.
    fn next<const N: usize>(state: Option<Self>) -> (Option<[Tensor<D>; N]>, usize) {
        match state {
            Some(state) => (state.tensors.try_into().ok(), state.time + 1),
            None => (None, 1),
        }
    }

    fn on(self, device: &Device) -> Self {
        let moved = self.tensors.into_iter().map(|t| t.to_device(device));
        let placed = self.stored.into_iter();
        let placed = placed.map(|data| Tensor::from_data(data, device));
        Self {
            time: self.time,
            tensors: moved.chain(placed).collect(),
            stored: Vec::new(),
        }
    }
}

// By hand: what Burn's derive writes names items of Burn's own crates.
impl<const D: usize> RecordState for State<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_scalar(prefix, "time", self.time.into());
        let data = self.tensors.iter().map(Tensor::to_data);
        for (i, data) in data.chain(self.stored.iter().cloned()).enumerate() {
            out.push_tensor(prefix, &i.to_string(), data);
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, _default: &Device) -> Option<Self> {
        let time = src.take_scalar(prefix, "time")?.try_into().ok()?;
        let take = |i: usize| src.take_tensor(prefix, &i.to_string());
        let stored: Vec<_> = (0..).map_while(take).collect();
        (!stored.is_empty()).then_some(Self {
            time,
            tensors: Vec::new(),
            stored,
        })
    }
}

/// [`SgdStep`] with dials for the learning rate and the momentum.
#[derive(Clone, Debug)]
pub struct Sgd {
    /// The learning rate.
    pub lr: Dial,
    /// The momentum.
    pub momentum: Dial,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
}

impl Optimizer for Sgd {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, Option<State<D>>) {
        let step = SgdStep {
            lr: self.lr.get(),
            momentum: self.momentum.get(),
            weight_decay: self.weight_decay,
        };
        let (state, time) = State::next(state);
        let (weights, velocity) = step.update(weights, gradient, state.map(|[v]| v));
        (weights, Some(State::new(time, [velocity])))
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.on(device)
    }
}

/// [`AdaGradStep`] with a dial for the learning rate.
#[derive(Clone, Debug)]
pub struct AdaGrad {
    /// The learning rate.
    pub lr: Dial,
    /// Added to the root of the sum of squares.
    pub epsilon: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
}

impl Optimizer for AdaGrad {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, Option<State<D>>) {
        let step = AdaGradStep {
            lr: self.lr.get(),
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
        };
        let (state, time) = State::next(state);
        let (weights, sums) = step.update(weights, gradient, state.map(|[s]| s));
        (weights, Some(State::new(time, [sums])))
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.on(device)
    }
}

/// [`AdamStep`], or AdamW's, with a dial for the learning rate.
#[derive(Clone, Debug)]
pub struct Adam {
    /// The learning rate.
    pub lr: Dial,
    /// The decay of the first moment.
    pub beta_1: f64,
    /// The decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Whether the decay is AdamW's instead of a part of the gradient.
    pub decoupled: bool,
}

impl Optimizer for Adam {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, Option<State<D>>) {
        let (moments, time) = State::next(state);
        let step = AdamStep {
            lr: self.lr.get(),
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            decoupled: self.decoupled,
            time,
        };
        let (weights, moments) = step.update(weights, gradient, moments);
        (weights, Some(State::new(time, moments)))
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.on(device)
    }
}

/// Burn's LAMB with a dial for the learning rate.
#[derive(Clone)]
struct DialedLamb {
    inner: Lamb,
    lr: Dial,
}

impl Optimizer for DialedLamb {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (moments, next) = State::next(state);
        let state = moments.map(|[moment_1, moment_2]| LambState {
            time: next - 1,
            moment_1,
            moment_2,
        });
        let (tensor, state) = self.inner.step(self.lr.get(), tensor, grad, state);
        let state = state.map(|s| State::new(s.time, [s.moment_1, s.moment_2]));
        (tensor, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        state.on(device)
    }
}
