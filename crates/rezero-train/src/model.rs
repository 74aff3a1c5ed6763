//! The networks of the recipes as one model that burn's Learner can train.

use burn::Tensor;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::store::ModuleRecord;
use burn::tensor::{Device, ElementConversion, ExecutionError, FloatDType, Int};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use rezero_data::{ImageBatch, TextBatch};
use rezero_kernels::cross_entropy;
use rezero_nn::resnet::{CifarResNet, PreActResNet};
use rezero_nn::transformer::RztxLm;
use rezero_nn::{Grow, GrowError, Mlp, MlpConfig, Place, Update, in_precision};

use crate::recipe::{Model, Recipe};

/// The values of an image: 32×32 RGB, as all data sets of images here have it.
const PIXELS: usize = 3 * 32 * 32;

/// A network of any of the recipes' families.
#[derive(Module, Debug)]
// One lives per run.
#[allow(clippy::large_enum_variant)]
pub enum Network {
    /// Depth 6n+2.
    Cifar(CifarResNet),
    /// Depth 18, 34 or 50.
    PreAct(PreActResNet),
    /// Fully connected.
    Mlp(Mlp),
    /// A byte-level language model.
    Lm(RztxLm),
}

/// What a network learns from: one step's items.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The items.
    pub items: Items,
    /// Seeds the random draws of the step, see [`mix`].
    pub seed: u64,
    /// What the loss is multiplied by for the backward pass, so that gradients are not too small for
    /// half precision; they are divided by it again.
    pub loss_scale: f64,
}

/// The items of a batch.
#[derive(Clone, Debug)]
// One is alive at a time.
#[allow(clippy::large_enum_variant)]
pub enum Items {
    /// Labelled images.
    Images(ImageBatch),
    /// Windows of a text.
    Text(TextBatch),
}

/// A [`Network`] with what its training step needs.
#[derive(Module, Debug)]
pub struct Learnable {
    /// The network.
    pub network: Network,
    /// Largest global gradient norm; 0: no clipping.
    pub clip_norm: f64,
    /// How many parts a step's batch is computed in.
    pub accumulate: usize,
    /// Whether layers are run again in the backward pass.
    pub recompute: bool,
    /// What products are computed in, where it is not f32.
    #[module(skip)]
    pub half: Option<FloatDType>,
}

/// Does the same with whichever network it is.
macro_rules! each {
    ($network:expr, $net:ident => $result:expr) => {
        match $network {
            Network::Cifar($net) => $result,
            Network::PreAct($net) => $result,
            Network::Mlp($net) => $result,
            Network::Lm($net) => $result,
        }
    };
}

/// Where weights are drawn: every backend has random numbers of its own.
#[cfg(feature = "flex")]
fn drawing(device: &Device) -> Device {
    match device.is_autodiff() {
        true => Device::flex().autodiff(),
        false => Device::flex(),
    }
}

#[cfg(not(feature = "flex"))]
fn drawing(device: &Device) -> Device {
    device.clone()
}

impl Network {
    /// Builds the network of `recipe` and draws its weights, in the order of its parameters.
    ///
    /// They are a function of the seed, see [`rezero_nn::drawn`], and with feature `flex`, where they are
    /// drawn on the CPU, not of the device.
    pub fn new(recipe: &Recipe, num_classes: usize, device: &Device) -> Self {
        let host = drawing(device);
        host.seed(recipe.seed);
        let network = match recipe.model {
            Model::CifarResNet => Self::Cifar(recipe.cifar_resnet(num_classes).init(&host)),
            Model::PreActResNet => Self::PreAct(recipe.preact_resnet(num_classes).init(&host)),
            Model::Mlp => Self::Mlp(recipe.mlp(PIXELS, num_classes).init(&host)),
            Model::ByteLm => Self::Lm(recipe.byte_lm().init(&host)),
        };
        rezero_nn::drawn(network).fork(device)
    }

    /// The network with new layers up to the depth of `recipe`, see [`Grow`]; their weights are drawn
    /// from its seed.
    ///
    /// # Errors
    ///
    /// As [`Grow::grow`].
    pub fn grow(self, recipe: &Recipe, place: Place) -> Result<Self, GrowError> {
        let devices = self.devices();
        if let Some(device) = devices.first() {
            device.seed(recipe.seed);
        }
        let classes = recipe.num_classes();
        let network = match self {
            Self::Cifar(net) => Self::Cifar(recipe.cifar_resnet(classes).grow(net, place)?),
            Self::PreAct(net) => Self::PreAct(recipe.preact_resnet(classes).grow(net, place)?),
            Self::Mlp(net) => Self::Mlp(recipe.mlp(PIXELS, classes).grow(net, place)?),
            Self::Lm(net) => Self::Lm(recipe.byte_lm().grow(net, place)?),
        };
        Ok(rezero_nn::drawn(network))
    }

    /// The inner network's record, so that a checkpoint's parameter paths are those of rezero-nn.
    pub fn into_record(self) -> ModuleRecord {
        each!(self, net => net.into_record())
    }

    /// Loads what [`into_record`](Self::into_record) gave.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or of another shape.
    pub fn try_load_record(self, record: ModuleRecord) -> Result<Self, String> {
        macro_rules! load {
            ($variant:ident, $net:expr) => {
                $net.try_load_record(record)
                    .map(Self::$variant)
                    .map_err(|e| e.to_string())
            };
        }
        match self {
            Self::Cifar(net) => load!(Cifar, net),
            Self::PreAct(net) => load!(PreAct, net),
            Self::Mlp(net) => load!(Mlp, net),
            Self::Lm(net) => load!(Lm, net),
        }
    }

    /// Every gate in forward order: its path and value(s).
    pub fn alphas(&self) -> Vec<(String, Vec<f32>)> {
        each!(self, net => rezero_nn::alphas(net))
    }

    /// The number of values that the network learns.
    pub fn parameter_count(&self) -> usize {
        rezero_nn::parameter_count(self)
    }
}

impl Learnable {
    /// `network` as `recipe` trains it.
    pub fn new(network: Network, recipe: &Recipe) -> Self {
        Self {
            network,
            clip_norm: recipe.clip_norm,
            accumulate: recipe.accumulate,
            recompute: recipe.recompute,
            half: recipe.dtype.half(),
        }
    }

    /// A model of a few weights, for places that must hold one.
    pub fn stand_in(device: &Device) -> Self {
        Self {
            network: Network::Mlp(MlpConfig::new(1, 1, 0, 1).init(device)),
            clip_norm: 0.0,
            accumulate: 1,
            recompute: false,
            half: None,
        }
    }

    /// Whether a step updates the parameters while gradients come, see
    /// [`step_by_segments`](Self::step_by_segments).
    pub fn updates_by_segments(&self) -> bool {
        self.recompute && matches!(self.network, Network::Mlp(_))
    }

    /// A whole training step, [`Mlp::train_by_segments`], with `optimizer` at a learning rate.
    pub fn step_by_segments(
        self,
        batch: Batch,
        optimizer: &mut ModuleOptimizer,
        lr: f64,
    ) -> (Self, StepOutput) {
        let (Network::Mlp(net), Items::Images(batch)) = (self.network, batch.items) else {
            unreachable!("only a fully connected network is updated by segments")
        };
        let total = batch.targets.dims()[0];
        let segment = net.layers.len().isqrt().max(1);
        let mut sums = None;
        let mut update = UpdateAtOnce {
            optimizer,
            lr,
            found: Vec::new(),
            layers: Vec::new(),
        };
        let net = net.train_by_segments(
            batch.images.clone().flatten(1, 3),
            segment,
            |logits| {
                let found = sums.insert(Sums::of_images(logits, &batch));
                found.loss.clone() * (1.0 / total as f64)
            },
            &mut update,
        );
        let norms = Norms {
            squares: Tensor::cat(update.found, 0),
            layers: update.layers,
        };
        let sums = sums.expect("the loss was asked for");
        let model = Self {
            network: Network::Mlp(net),
            ..self
        };
        (model, StepOutput::new(vec![sums], total, Some(norms)))
    }

    /// Summed cross-entropy and number of correct predictions.
    fn forward(&self, items: &Items) -> Sums {
        let half = self
            .half
            .map(|half| in_precision(self.network.clone(), half));
        match (half.as_ref().unwrap_or(&self.network), items) {
            (Network::Cifar(net), Items::Images(batch)) => {
                Sums::of_images(net.forward(batch.images.clone()), batch)
            }
            (Network::PreAct(net), Items::Images(batch)) => {
                Sums::of_images(net.forward(batch.images.clone()), batch)
            }
            (Network::Mlp(net), Items::Images(batch)) => {
                Sums::of_images(net.forward(batch.images.clone().flatten(1, 3)), batch)
            }
            (Network::Lm(net), Items::Text(batch)) => {
                Sums::of_text(net.forward(batch.inputs.clone()), batch)
            }
            _ => unreachable!("a recipe's data is of its model's kind, which it was checked for"),
        }
    }

    /// The sums of a batch, or of a shard of one, and the gradients of its loss times `loss_scale` divided
    /// by `total`, computed in as many parts as it is to be.
    pub(crate) fn gradients(
        &self,
        items: Items,
        total: usize,
        seed: u64,
        loss_scale: f64,
    ) -> (Vec<Sums>, GradientsParams) {
        let scale = loss_scale / total as f64;
        let mut sum = GradientsAccumulator::new();
        let mut parts = Vec::new();
        for (i, part) in items.split(self.accumulate).into_iter().enumerate() {
            let (sums, grads) = self.backward(&part, scale, mix(seed, i as u64));
            sum.accumulate(self, grads);
            parts.push(sums);
        }
        (parts, sum.grads())
    }

    /// What a step gives, of the sums and gradients of all its parts.
    pub(crate) fn output(
        &self,
        parts: Vec<Sums>,
        mut grads: GradientsParams,
        total: usize,
        loss_scale: f64,
    ) -> TrainOutput<StepOutput> {
        if let (true, Some(first)) = (loss_scale != 1.0, parts.first()) {
            let factor = first.loss.clone().inner().ones_like() / loss_scale;
            grads = scaled(self, grads, factor);
        }
        let (grads, norms) = clip_global_norm(self, grads, self.clip_norm);
        TrainOutput {
            grads,
            item: StepOutput::new(parts, total, Some(norms)),
        }
    }

    /// The sums of a part of a batch and the gradients of `scale` times its summed loss.
    fn backward(&self, items: &Items, scale: f64, seed: u64) -> (Sums, GradientsParams) {
        if let (true, Network::Lm(net), Items::Text(batch)) = (self.recompute, &self.network, items)
        {
            let mut sums = None;
            let (_, grads) = net.loss_and_gradients(
                batch.inputs.clone(),
                |part| mix(seed, part),
                |logits| {
                    let found = sums.insert(Sums::of_text(logits, batch));
                    found.loss.clone() * scale
                },
            );
            let sums = sums.expect("the loss was asked for");
            return (sums, grads);
        }
        let sums = self.forward(items);
        let grads = (sums.loss.clone() * scale).backward();
        (sums, GradientsParams::from_grads(grads, self))
    }
}

impl Items {
    /// How many predictions are scored.
    pub fn scored(&self) -> usize {
        match self {
            Self::Images(batch) => batch.targets.dims()[0],
            Self::Text(batch) => batch.scored,
        }
    }

    /// The same items on another device, integers in the type that it computes in.
    pub(crate) fn on(self, device: &Device) -> Self {
        fn ints<const D: usize>(ids: Tensor<D, Int>, device: &Device) -> Tensor<D, Int> {
            ids.to_device(device).cast(device.settings().int_dtype)
        }
        match self {
            Self::Images(batch) => Self::Images(ImageBatch {
                images: batch.images.to_device(device),
                targets: ints(batch.targets, device),
            }),
            Self::Text(batch) => Self::Text(TextBatch {
                inputs: ints(batch.inputs, device),
                targets: ints(batch.targets, device),
                weights: batch.weights.map(|weights| weights.to_device(device)),
                scored: batch.scored,
            }),
        }
    }

    /// The items in `parts` parts of the same length but for the last ones.
    pub(crate) fn split(self, parts: usize) -> Vec<Self> {
        let rows = match &self {
            Self::Images(batch) => batch.targets.dims()[0],
            Self::Text(batch) => batch.inputs.dims()[0],
        };
        if parts <= 1 {
            return vec![self];
        }
        let step = rows.div_ceil(parts);
        (0..rows)
            .step_by(step)
            .map(|start| {
                let range = start..rows.min(start + step);
                match &self {
                    Self::Images(batch) => Self::Images(ImageBatch {
                        images: batch.images.clone().slice_dim(0, range.clone()),
                        targets: batch.targets.clone().slice_dim(0, range),
                    }),
                    // Windows that are trained on are scored whole.
                    Self::Text(batch) => Self::Text(TextBatch {
                        inputs: batch.inputs.clone().slice_dim(0, range.clone()),
                        targets: batch.targets.clone().slice_dim(0, range.clone()),
                        weights: batch.weights.clone().map(|w| w.slice_dim(0, range.clone())),
                        scored: batch.scored / rows * range.len(),
                    }),
                }
            })
            .collect()
    }
}

/// A well-mixed function of both (SplitMix64's finaliser: Steele, Lea and Flood, 2014).
pub fn mix(seed: u64, step: u64) -> u64 {
    let mut z = seed ^ step.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Nats as bits.
pub fn bits(nats: f64) -> f64 {
    nats / std::f64::consts::LN_2
}

/// The scalars of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// Sum of the items' cross-entropies, nats.
    pub loss_sum: f64,
    /// How many items were classified correctly.
    pub correct: f64,
    /// Global L2 norm of all gradients before clipping; 0 in evaluation.
    pub grad_norm: f64,
    /// The number of items.
    pub items: usize,
    /// Items a second of wall time, set by the training loop.
    pub items_per_s: f64,
}

impl Stats {
    /// Mean cross-entropy, nats.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.items as f64
    }

    /// Mean cross-entropy in bits: of a byte model, bits per byte.
    pub fn bits(&self) -> f64 {
        bits(self.loss())
    }

    /// Adds another batch to the sums over items.
    pub fn add(&mut self, batch: &Stats) {
        self.loss_sum += batch.loss_sum;
        self.correct += batch.correct;
        self.items += batch.items;
    }

    /// Share of items classified correctly.
    pub fn accuracy(&self) -> f64 {
        self.correct / self.items as f64
    }
}

/// What a step gives the metrics: the batch's scalars, read from the device once.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// `[loss_sum, correct, grad_norm]` on the device, until read.
    pending: Option<Tensor<1>>,
    /// The values, once read.
    pub stats: Stats,
    /// The gates after the step, where the loop has read them.
    pub alphas: Vec<f32>,
    norms: Option<Norms>,
}

impl StepOutput {
    fn new(parts: Vec<Sums>, items: usize, norms: Option<Norms>) -> Self {
        let sum = |of: fn(&Sums) -> &Tensor<1>| {
            let values = parts.iter().map(|part| of(part).clone().inner()).collect();
            Tensor::cat(values, 0).sum()
        };
        let loss_sum = sum(|part| &part.loss);
        let grad_norm = match &norms {
            Some(norms) => norms.global(),
            None => loss_sum.zeros_like(),
        };
        Self {
            pending: Some(Tensor::cat(
                vec![loss_sum, sum(|part| &part.correct), grad_norm],
                0,
            )),
            stats: Stats {
                items,
                ..Stats::default()
            },
            alphas: Vec::new(),
            norms,
        }
    }

    /// The L2 norm of each residual layer's gradients before clipping, in forward order. Reads from
    /// the device.
    pub fn layer_norms(&self) -> Vec<f32> {
        self.norms.as_ref().map_or_else(Vec::new, Norms::by_layer)
    }

    /// Reads the scalars from the device: the one synchronisation of a step.
    pub fn read(&mut self) {
        if let Some(tensor) = self.pending.take() {
            let data = tensor.into_data();
            let mut values = data.iter::<f64>();
            let mut next = || values.next().unwrap_or(f64::NAN);
            self.stats.loss_sum = next();
            self.stats.correct = next();
            self.stats.grad_norm = next();
        }
    }
}

impl ItemLazy for StepOutput {
    fn sync(mut self) -> Result<Self, ExecutionError> {
        self.read();
        Ok(self)
    }
}

/// Sums over the predictions of a part of a batch, each `[1]`.
pub(crate) struct Sums {
    /// Cross-entropy, nats.
    loss: Tensor<1>,
    /// Correct predictions.
    correct: Tensor<1>,
}

impl Sums {
    /// The numbers alone, on another device.
    pub(crate) fn on(self, device: &Device) -> Self {
        Self {
            loss: self.loss.inner().to_device(device),
            correct: self.correct.to_device(device),
        }
    }

    fn of_images(logits: Tensor<2>, batch: &ImageBatch) -> Self {
        Self::of(logits, batch.targets.clone(), None)
    }

    fn of_text(logits: Tensor<3>, batch: &TextBatch) -> Self {
        let [rows, length, vocab] = logits.dims();
        let n = rows * length;
        Self::of(
            logits.reshape([n, vocab]),
            batch.targets.clone().reshape([n]),
            batch.weights.clone().map(|w| w.reshape([n])),
        )
    }

    fn of(logits: Tensor<2>, targets: Tensor<1, Int>, weights: Option<Tensor<1>>) -> Self {
        let mut losses = cross_entropy(logits.clone(), targets.clone());
        let mut correct = logits
            .inner()
            .argmax(1)
            .squeeze_dim::<1>(1)
            .equal(targets.inner())
            .float();
        if let Some(weights) = weights {
            correct = correct * weights.clone().inner();
            losses = losses * weights;
        }
        Self {
            loss: losses.sum(),
            correct: correct.sum(),
        }
    }
}

impl TrainStep for Learnable {
    type Input = Batch;
    type Output = StepOutput;

    fn step(&self, batch: Batch) -> TrainOutput<StepOutput> {
        let (total, scale) = (batch.items.scored(), batch.loss_scale);
        let (parts, grads) = self.gradients(batch.items, total, batch.seed, scale);
        self.output(parts, grads, total, scale)
    }
}

impl InferenceStep for Learnable {
    type Input = Batch;
    type Output = StepOutput;

    fn step(&self, batch: Batch) -> StepOutput {
        let total = batch.items.scored();
        StepOutput::new(vec![self.forward(&batch.items)], total, None)
    }
}

/// Scales all gradients by `min(1, max / norm)` for their global L2 norm and returns the norms as
/// they were; `max` 0 leaves the gradients alone. Pascanu et al., [arXiv 1211.5063](https://arxiv.org/abs/1211.5063).
/// Burn's own clipping takes each tensor's norm on its own.
pub fn clip_global_norm<M: Module>(
    module: &M,
    grads: GradientsParams,
    max: f64,
) -> (GradientsParams, Norms) {
    let mut squares = Squares {
        grads: &grads,
        path: Vec::new(),
        found: Vec::new(),
        layers: Vec::new(),
    };
    module.visit(&mut squares);
    let Squares {
        mut found, layers, ..
    } = squares;
    if found.is_empty() {
        let device = module
            .devices()
            .into_iter()
            .next()
            .expect("a module with parameters");
        found.push(Tensor::zeros([1], &device.inner()));
    }
    let norms = Norms {
        squares: Tensor::cat(found, 0),
        layers,
    };
    if max <= 0.0 {
        return (grads, norms);
    }
    // Stays on the device: no read is needed to clip.
    let factor = (norms.global() + 1e-6)
        .recip()
        .mul_scalar(max)
        .clamp_max(1.0);
    (scaled(module, grads, factor), norms)
}

/// All gradients times a factor, `[1]`.
fn scaled<M: Module>(module: &M, grads: GradientsParams, factor: Tensor<1>) -> GradientsParams {
    let mut scale = Scale { grads, factor };
    module.visit(&mut scale);
    scale.grads
}

/// The gradients' norms in a step.
#[derive(Clone, Debug)]
pub struct Norms {
    /// The sum of squares of each parameter's gradient.
    squares: Tensor<1>,
    /// The residual layer that each of these parameters belongs to.
    layers: Vec<Option<usize>>,
}

impl Norms {
    /// The L2 norm of all gradients together, `[1]`.
    pub fn global(&self) -> Tensor<1> {
        self.squares.clone().sum().sqrt()
    }

    fn by_layer(&self) -> Vec<f32> {
        let count = self
            .layers
            .iter()
            .flatten()
            .max()
            .map_or(0, |last| last + 1);
        let mut sums = vec![0.0; count];
        let squares = self.squares.to_data();
        for (layer, square) in self.layers.iter().zip(squares.iter::<f32>()) {
            if let Some(layer) = layer {
                sums[*layer] += square;
            }
        }
        sums.into_iter().map(f32::sqrt).collect()
    }
}

/// Takes an optimizer step with each part of a network, and keeps the norms of its gradients.
struct UpdateAtOnce<'a> {
    optimizer: &'a mut ModuleOptimizer,
    lr: f64,
    found: Vec<Tensor<1>>,
    layers: Vec<Option<usize>>,
}

impl Update for UpdateAtOnce<'_> {
    fn update<M: Module>(
        &mut self,
        first_layer: Option<usize>,
        part: M,
        gradients: GradientsParams,
    ) -> M {
        let mut squares = Squares {
            grads: &gradients,
            path: vec!["layers".to_owned()],
            found: Vec::new(),
            layers: Vec::new(),
        };
        part.visit(&mut squares);
        self.found.append(&mut squares.found);
        let layers = squares.layers.into_iter();
        self.layers
            .extend(layers.map(|layer| Some(first_layer? + layer?)));
        self.optimizer.step(self.lr, part, gradients)
    }
}

struct Squares<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    found: Vec<Tensor<1>>,
    layers: Vec<Option<usize>>,
}

impl ModuleVisitor for Squares<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.found.push(grad.square().sum());
            self.layers.push(rezero_nn::layer_index(&self.path));
        }
    }
}

struct Scale {
    grads: GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            let scaled = grad * self.factor.clone().reshape([1; D]);
            self.grads.register::<D>(param.id, scaled);
        }
    }
}

/// Names the layer that blew up: the first with a parameter that is not finite, else the one with
/// the gate of largest magnitude beside the largest finite gradient.
pub fn diagnose(network: &Network, grads: &GradientsParams) -> String {
    let mut visitor = Diagnosis {
        grads,
        path: Vec::new(),
        bad_param: None,
        bad_grads: Vec::new(),
        largest_param: (String::new(), 0.0),
        largest_alpha: (String::new(), 0.0),
    };
    each!(network, net => net.visit(&mut visitor));
    let mut text = match (&visitor.bad_param, visitor.bad_grads.last()) {
        (Some(path), _) => format!("parameter {path} is not finite"),
        // Gradients flow backwards: the last one in forward order went wrong first.
        (None, Some(path)) => format!("the gradient of {path} went wrong first"),
        (None, None) => "all parameters and gradients are finite".to_owned(),
    };
    let (path, value) = &visitor.largest_param;
    text.push_str(&format!(
        "; the largest parameter is {path} (|value| {value:.3e})"
    ));
    let (path, value) = &visitor.largest_alpha;
    if !path.is_empty() {
        text.push_str(&format!("; the largest gate is {path} = {value:.3e}"));
    }
    text
}

struct Diagnosis<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    bad_param: Option<String>,
    bad_grads: Vec<String>,
    largest_param: (String, f64),
    largest_alpha: (String, f64),
}

impl ModuleVisitor for Diagnosis<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let max_abs = |t: Tensor<D>| t.abs().max().into_scalar::<f64>();
        let value = max_abs(param.val().inner());
        if !value.is_finite() && self.bad_param.is_none() {
            self.bad_param = Some(path.clone());
        }
        if let Some(grad) = self.grads.get::<D>(param.id)
            && !grad.sum().into_scalar::<f64>().is_finite()
        {
            self.bad_grads.push(path.clone());
        }
        if value > self.largest_param.1 && !path.contains("running_") {
            self.largest_param = (path.clone(), value);
        }
        if rezero_nn::is_alpha(&path) && value > self.largest_alpha.1.abs() {
            let signed = param.val().inner().max_abs_signed();
            self.largest_alpha = (path, signed);
        }
    }
}

trait MaxAbsSigned {
    /// The element of largest magnitude, with its sign.
    fn max_abs_signed(self) -> f64;
}

impl<const D: usize> MaxAbsSigned for Tensor<D> {
    fn max_abs_signed(self) -> f64 {
        self.into_data()
            .iter::<f64>()
            .max_by(|a, b| a.abs().total_cmp(&b.abs()))
            .unwrap_or(0.0)
            .elem()
    }
}
