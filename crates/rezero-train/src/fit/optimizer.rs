//! The optimizers of a run: one per parameter group. Each reads the schedule's [`Rates`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdjustLrFn, LearningRate, ModuleOptimizer, Muon, MuonConfig, Optimizer, RecordState, StateSink,
    StateSource,
};
use burn::tensor::{Device, Tensor, TensorData};
use rezero_kernels::{AdaGradStep, AdamStep, LambStep, LionStep, NUMBERS, SgdStep, overwrite};

use super::schedule::{Rate, Rates};
use crate::recipe::{self, Betas, GateOptimizer, Gates};
use crate::record::optimizer_state;

/// PyTorch's AdaGrad ε; Burn's default is 1e-5.
const ADAGRAD_EPSILON: f64 = 1e-10;

/// The optimizer of `module`: weights, then biases, then gates; the last matching group wins.
pub fn build<M: Module>(
    weights: &recipe::Optimizer,
    gates: &Gates,
    rates: &Rates,
    module: &M,
) -> ModuleOptimizer {
    build_with_rules(weights, gates, rates, module).0
}

/// [`build`], and the rules of its groups if all of them can take steps in place.
pub(crate) fn build_with_rules<M: Module>(
    weights: &recipe::Optimizer,
    gates: &Gates,
    rates: &Rates,
    module: &M,
) -> (ModuleOptimizer, Option<Vec<Arc<dyn InPlace>>>) {
    let all = rules(weights, gates, rates, module);
    let in_place = all.iter().map(|(_, rule)| rule.in_place()).collect();
    let mut all = all.into_iter();
    let (_, first) = all.next().expect("the rule of the weights is always there");
    let optimizer = all.fold(first.alone(), |optimizer, (group, rule)| {
        rule.join(optimizer, group)
    });
    (optimizer, in_place)
}

/// The rules with their groups. The first one's is everything.
fn rules<M: Module>(
    weights: &recipe::Optimizer,
    gates: &Gates,
    rates: &Rates,
    module: &M,
) -> Vec<(ParamGroup, Box<dyn Rule>)> {
    let rule = |lr: &Rate| rule(weights, lr.clone(), rates);
    let mut all = vec![(ParamGroup::all(), rule(&rates.lr))];
    if weights.bias_lr_at(0).is_some() {
        all.push((bias_group(), rule(&rates.bias_lr)));
    }
    if let recipe::Optimizer::Muon(muon) = weights {
        let none = MomentumConfig::new().with_momentum(0.0).with_dampening(0.0);
        let decay = Some(muon.weight_decay as f32).filter(|decay| *decay > 0.0);
        let own: Box<dyn Rule> = Box::new(RatedMuon {
            inner: MuonConfig::new()
                .with_momentum(none)
                .with_weight_decay(decay.map(WeightDecayConfig::new))
                .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
                .build(),
            lr: rates.lr.clone(),
            momentum: rates.momentum.clone(),
        });
        all.push((ParamGroup::from_ids(hidden_matrices(module)), own));
    }
    let (lr, weight_decay) = (rates.alpha_lr.clone(), gates.alpha_weight_decay);
    let own: Box<dyn Rule> = match gates.alpha_optimizer {
        GateOptimizer::Shared => return all,
        GateOptimizer::Sgd => Box::new(Sgd {
            lr,
            momentum: rates.momentum.clone(),
            weight_decay,
            numbers: Numbers::default(),
        }),
        GateOptimizer::AdaGrad => Box::new(AdaGrad {
            lr,
            epsilon: ADAGRAD_EPSILON,
            weight_decay,
            numbers: Numbers::default(),
        }),
        GateOptimizer::Adam => {
            let betas = weights.betas().unwrap_or_default();
            Box::new(Adam::new(lr, betas, weight_decay, false))
        }
    };
    all.push((rezero_nn::gate_group(module), own));
    all
}

/// The rule of `[optimizer]` at a learning rate.
fn rule(section: &recipe::Optimizer, lr: Rate, rates: &Rates) -> Box<dyn Rule> {
    let weight_decay = section.weight_decay();
    let betas = section.betas().unwrap_or_default();
    match section {
        recipe::Optimizer::Sgd(_) => Box::new(Sgd {
            lr,
            momentum: rates.momentum.clone(),
            weight_decay,
            numbers: Numbers::default(),
        }),
        recipe::Optimizer::AdaGrad(_) => Box::new(AdaGrad {
            lr,
            epsilon: ADAGRAD_EPSILON,
            weight_decay,
            numbers: Numbers::default(),
        }),
        recipe::Optimizer::Adam(_) => Box::new(Adam::new(lr, betas, weight_decay, false)),
        recipe::Optimizer::AdamW(_) | recipe::Optimizer::Muon(_) => {
            Box::new(Adam::new(lr, betas, weight_decay, true))
        }
        recipe::Optimizer::Lamb(_) => Box::new(Lamb {
            lr,
            betas,
            weight_decay,
            numbers: Numbers::default(),
        }),
        recipe::Optimizer::Lion(lion) => Box::new(Lion {
            lr,
            beta_1: lion.beta1,
            beta_2: lion.beta2,
            weight_decay,
        }),
    }
}

/// The group with its own learning rate in the authors' table code: every parameter whose PyTorch
/// name contains `bias` (the linear layer's, batch norm's β, FixUp's) or `scale`.
fn bias_group() -> ParamGroup {
    ParamGroup::from_regex(r"(^|\.)(bias\w*|beta|scale)$")
        .expect("the pattern is a valid regular expression")
}

/// The parameters that Muon updates: those of residual layers with two axes or more, except gates.
pub(super) fn hidden_matrices<M: Module>(module: &M) -> Vec<ParamId> {
    #[derive(Default)]
    struct Search {
        path: Vec<String>,
        found: Vec<ParamId>,
    }
    impl ModuleVisitor for Search {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if D > 1 && rezero_nn::layer_index(&self.path).is_some() {
                self.found.push(param.id);
            }
        }
    }
    let mut search = Search::default();
    module.visit(&mut search);
    let gates: Vec<ParamId> = rezero_nn::gates(module).iter().map(|g| g.id).collect();
    search.found.retain(|id| !gates.contains(id));
    search.found
}

/// An optimizer of any type, to be put into a [`ModuleOptimizer`].
trait Rule: MayStay {
    fn alone(self: Box<Self>) -> ModuleOptimizer;
    fn join(self: Box<Self>, base: ModuleOptimizer, group: ParamGroup) -> ModuleOptimizer;
}

impl<O> Rule for O
where
    O: Optimizer + MayStay + Clone + Send + Sync + 'static,
{
    fn alone(self: Box<Self>) -> ModuleOptimizer {
        ModuleOptimizer::from(*self)
    }

    fn join(self: Box<Self>, base: ModuleOptimizer, group: ParamGroup) -> ModuleOptimizer {
        base.with_group(group, *self, None)
    }
}

/// The numbers that a rule's steps in place read from the device's memory, once a run takes such steps.
#[derive(Clone, Debug, Default)]
pub struct Numbers(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    numbers: Mutex<Option<Tensor<1>>>,
    /// Replays of a captured step. They update the memory of an optimizer's state, but not its count of steps.
    replays: AtomicUsize,
    /// Whether an update in place was asked for, but gave new tensors.
    moved: AtomicBool,
}

impl Numbers {
    fn lock(&self) -> MutexGuard<'_, Option<Tensor<1>>> {
        self.0.numbers.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn get(&self) -> Option<Tensor<1>> {
        self.lock().clone()
    }

    /// Writes new numbers over the old ones, which captured steps read. With numbers that do not count, a step writes
    /// nothing.
    fn set(&self, mut numbers: [f32; NUMBERS], counts: bool, device: &Device) {
        if !counts {
            numbers[NUMBERS - 1] = 0.0;
        }
        let new = Tensor::from_floats(numbers, device);
        let mut held = self.lock();
        match &*held {
            Some(old) if overwrite(old, &new) => {}
            _ => *held = Some(new),
        }
    }

    /// Notes an update that gave new tensors: if it should have been in place, a captured step does not see it.
    fn note_moved(&self) {
        if self.lock().is_some() {
            self.0.moved.store(true, Ordering::Relaxed);
        }
    }

    fn replays(&self) -> usize {
        self.0.replays.load(Ordering::Relaxed)
    }
}

/// A rule that can take steps in place.
pub(crate) trait InPlace: Send + Sync {
    /// From now on the rule's steps are taken in place. Sets the numbers of step `time`, counted from 1, or those of a
    /// step that writes nothing. `device` is without autodiff.
    fn refresh(&self, time: usize, counts: bool, device: &Device);

    /// A captured step was replayed.
    fn replayed(&self);

    /// Whether an update since the first [`refresh`](Self::refresh) was not in place.
    fn has_moved(&self) -> bool;

    /// From now on steps are taken as usual.
    fn leave(&self);
}

/// A rule with numbers in the device's memory.
trait Numbered: Send + Sync {
    /// Those of step `time`.
    fn numbers_at(&self, time: usize) -> [f32; NUMBERS];

    fn held(&self) -> &Numbers;
}

impl<R: Numbered> InPlace for R {
    fn refresh(&self, time: usize, counts: bool, device: &Device) {
        self.held().set(self.numbers_at(time), counts, device);
    }

    fn replayed(&self) {
        self.held().0.replays.fetch_add(1, Ordering::Relaxed);
    }

    fn has_moved(&self) -> bool {
        self.held().0.moved.load(Ordering::Relaxed)
    }

    fn leave(&self) {
        *self.held().lock() = None;
    }
}

/// Whether a rule can take steps in place.
trait MayStay {
    fn in_place(&self) -> Option<Arc<dyn InPlace>> {
        None
    }
}

impl MayStay for Lion {}
impl MayStay for RatedMuon {}

/// The optimizer's state of a parameter: the velocity, the sum of squares, or both moments.
#[derive(Clone, Debug)]
pub struct State<const D: usize> {
    /// The steps taken.
    time: usize,
    tensors: Vec<Tensor<D>>,
    /// Tensors of a record that are not on a device yet. Burn loads records to its default device,
    /// which the run may not use and this machine may not have. Burn then moves every state to its
    /// parameter's device before the state is used.
    stored: Vec<TensorData>,
    /// Where replays are counted, and how many there had been.
    since: Option<(Numbers, usize)>,
}

impl<const D: usize> State<D> {
    fn new<const N: usize>(time: usize, tensors: [Tensor<D>; N]) -> Self {
        Self {
            time,
            tensors: tensors.into(),
            stored: Vec::new(),
            since: None,
        }
    }

    /// The state of a rule whose steps may be replayed.
    fn counted_by(self, numbers: &Numbers) -> Self {
        let since = Some((numbers.clone(), numbers.replays()));
        Self { since, ..self }
    }

    /// The steps taken, replays too.
    fn time(&self) -> usize {
        let replays = self.since.as_ref().map(|(n, before)| n.replays() - before);
        self.time + replays.unwrap_or(0)
    }

    /// The tensors, if there are any yet, and the number of the next step, from 1.
    fn next<const N: usize>(state: Option<Self>) -> (Option<[Tensor<D>; N]>, usize) {
        match state {
            Some(state) => {
                let time = state.time() + 1;
                (state.tensors.try_into().ok(), time)
            }
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
            since: self.since,
        }
    }
}

// By hand: the code of Burn's derive names items of Burn's own crates.
impl<const D: usize> RecordState for State<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_scalar(prefix, "time", self.time().into());
        for (i, tensor) in self.tensors.iter().enumerate() {
            optimizer_state::push(out, prefix, &i.to_string(), tensor);
        }
        for (i, data) in self.stored.iter().enumerate() {
            out.push_tensor(prefix, &(self.tensors.len() + i).to_string(), data.clone());
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
            since: None,
        })
    }
}

/// [`SgdStep`] that reads its learning rate and its momentum from [`Rate`]s.
#[derive(Clone, Debug)]
pub struct Sgd {
    /// The learning rate.
    pub lr: Rate,
    /// The momentum.
    pub momentum: Rate,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// For steps in place; the default otherwise.
    pub numbers: Numbers,
}

impl Sgd {
    fn at(&self, _time: usize) -> SgdStep {
        SgdStep {
            lr: self.lr.get(),
            momentum: self.momentum.get(),
            weight_decay: self.weight_decay,
        }
    }
}

impl MayStay for Sgd {
    fn in_place(&self) -> Option<Arc<dyn InPlace>> {
        Some(Arc::new(self.clone()))
    }
}

impl Numbered for Sgd {
    fn numbers_at(&self, time: usize) -> [f32; NUMBERS] {
        self.at(time).numbers()
    }

    fn held(&self) -> &Numbers {
        &self.numbers
    }
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
        let (state, time) = State::next(state);
        if let (Some(numbers), Some([v])) = (self.numbers.get(), &state)
            && let Some((weights, v)) = SgdStep::in_place(&numbers, &weights, &gradient, v)
        {
            return (
                weights,
                Some(State::new(time, [v]).counted_by(&self.numbers)),
            );
        }
        self.numbers.note_moved();
        let velocity = state.map(|[v]| v);
        let (weights, velocity) = self.at(time).update(weights, gradient, velocity);
        (
            weights,
            Some(State::new(time, [velocity]).counted_by(&self.numbers)),
        )
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.on(device)
    }
}

/// [`AdaGradStep`] that reads its learning rate from a [`Rate`].
#[derive(Clone, Debug)]
pub struct AdaGrad {
    /// The learning rate.
    pub lr: Rate,
    /// Added to the root of the sum of squares.
    pub epsilon: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// For steps in place; the default otherwise.
    pub numbers: Numbers,
}

impl AdaGrad {
    fn at(&self, _time: usize) -> AdaGradStep {
        AdaGradStep {
            lr: self.lr.get(),
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
        }
    }
}

impl MayStay for AdaGrad {
    fn in_place(&self) -> Option<Arc<dyn InPlace>> {
        Some(Arc::new(self.clone()))
    }
}

impl Numbered for AdaGrad {
    fn numbers_at(&self, time: usize) -> [f32; NUMBERS] {
        self.at(time).numbers()
    }

    fn held(&self) -> &Numbers {
        &self.numbers
    }
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
        let (state, time) = State::next(state);
        if let (Some(numbers), Some([s])) = (self.numbers.get(), &state)
            && let Some((weights, s)) = AdaGradStep::in_place(&numbers, &weights, &gradient, s)
        {
            return (
                weights,
                Some(State::new(time, [s]).counted_by(&self.numbers)),
            );
        }
        self.numbers.note_moved();
        let sums = state.map(|[s]| s);
        let (weights, sums) = self.at(time).update(weights, gradient, sums);
        (
            weights,
            Some(State::new(time, [sums]).counted_by(&self.numbers)),
        )
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.on(device)
    }
}

/// [`AdamStep`], for Adam or AdamW, that reads its learning rate from a [`Rate`].
#[derive(Clone, Debug)]
pub struct Adam {
    /// The learning rate.
    pub lr: Rate,
    /// The decay of the first moment.
    pub beta_1: f64,
    /// The decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Whether the decay is decoupled, as in AdamW, instead of a part of the gradient.
    pub decoupled: bool,
    /// For steps in place; the default otherwise.
    pub numbers: Numbers,
}

impl Adam {
    fn new(lr: Rate, betas: Betas, weight_decay: f64, decoupled: bool) -> Self {
        Self {
            lr,
            beta_1: betas.beta1,
            beta_2: betas.beta2,
            epsilon: betas.epsilon,
            weight_decay,
            decoupled,
            numbers: Numbers::default(),
        }
    }

    fn at(&self, time: usize) -> AdamStep {
        AdamStep {
            lr: self.lr.get(),
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            decoupled: self.decoupled,
            time,
        }
    }
}

impl MayStay for Adam {
    fn in_place(&self) -> Option<Arc<dyn InPlace>> {
        Some(Arc::new(self.clone()))
    }
}

impl Numbered for Adam {
    fn numbers_at(&self, time: usize) -> [f32; NUMBERS] {
        self.at(time).numbers()
    }

    fn held(&self) -> &Numbers {
        &self.numbers
    }
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
        if let (Some(numbers), Some(moments)) = (self.numbers.get(), &moments)
            && let Some((weights, moments)) =
                AdamStep::in_place(&numbers, &weights, &gradient, moments)
        {
            return (
                weights,
                Some(State::new(time, moments).counted_by(&self.numbers)),
            );
        }
        self.numbers.note_moved();
        let (weights, moments) = self.at(time).update(weights, gradient, moments);
        (
            weights,
            Some(State::new(time, moments).counted_by(&self.numbers)),
        )
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.on(device)
    }
}

/// [`LionStep`] that reads its learning rate from a [`Rate`].
#[derive(Clone, Debug)]
struct Lion {
    lr: Rate,
    beta_1: f64,
    beta_2: f64,
    weight_decay: f64,
}

impl Optimizer for Lion {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, Option<State<D>>) {
        let step = LionStep {
            lr: self.lr.get(),
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            weight_decay: self.weight_decay,
        };
        let (state, time) = State::next(state);
        let (weights, momentum) = step.update(weights, gradient, state.map(|[m]| m));
        (weights, Some(State::new(time, [momentum])))
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.on(device)
    }
}

/// [`LambStep`] that reads its learning rate from a [`Rate`].
#[derive(Clone, Debug)]
struct Lamb {
    lr: Rate,
    betas: Betas,
    weight_decay: f64,
    numbers: Numbers,
}

impl Lamb {
    fn at(&self, time: usize) -> LambStep {
        LambStep {
            lr: self.lr.get(),
            beta_1: self.betas.beta1,
            beta_2: self.betas.beta2,
            epsilon: self.betas.epsilon,
            weight_decay: self.weight_decay,
            time,
        }
    }
}

impl MayStay for Lamb {
    fn in_place(&self) -> Option<Arc<dyn InPlace>> {
        Some(Arc::new(self.clone()))
    }
}

impl Numbered for Lamb {
    fn numbers_at(&self, time: usize) -> [f32; NUMBERS] {
        self.at(time).numbers()
    }

    fn held(&self) -> &Numbers {
        &self.numbers
    }
}

impl Optimizer for Lamb {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, Option<State<D>>) {
        let (moments, time) = State::next(state);
        if let (Some(numbers), Some(moments)) = (self.numbers.get(), &moments)
            && let Some((weights, moments)) =
                LambStep::in_place(&numbers, &weights, &gradient, moments)
        {
            return (
                weights,
                Some(State::new(time, moments).counted_by(&self.numbers)),
            );
        }
        self.numbers.note_moved();
        let (weights, moments) = self.at(time).update(weights, gradient, moments);
        (
            weights,
            Some(State::new(time, moments).counted_by(&self.numbers)),
        )
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.on(device)
    }
}

/// Burn's Muon that reads its learning rate and its momentum from [`Rate`]s, on parameters of any rank:
/// all axes but the first are one. The momentum is ours, as Burn's state keeps its tensor to itself.
#[derive(Clone)]
struct RatedMuon {
    inner: Muon,
    lr: Rate,
    momentum: Rate,
}

impl Optimizer for RatedMuon {
    type State<const D: usize> = State<D>;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<State<D>>,
    ) -> (Tensor<D>, Option<State<D>>) {
        let momentum = self.momentum.get();
        let (state, time) = State::next(state);
        let velocity = match state {
            Some([velocity]) => velocity * momentum + grad.clone(),
            None => grad.clone(),
        };
        let shape = tensor.dims();
        let sides = [shape[0], shape[1..].iter().product()];
        let nesterov = (grad + velocity.clone() * momentum).reshape(sides);
        let matrix = tensor.reshape(sides);
        let (matrix, _) = self.inner.step(self.lr.get(), matrix, nesterov, None);
        let state = State::new(time, [velocity]);
        (matrix.reshape(shape), Some(state))
    }

    fn to_device<const D: usize>(state: State<D>, device: &Device) -> State<D> {
        state.on(device)
    }
}
