//! A training step as Burn's Learner sees it.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{ExecutionError, FloatDType, Tensor};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use rezero_data::rng::mix;
use rezero_kernels::seeded;

use super::freeze::Frozen;
use super::model::{Batch, Model, Pass, Sums, split};
use super::norms::{Norms, clip_global_norm, scaled};
use crate::recipe::Train;
use crate::record::Totals;

/// A model with the settings of its steps: the module that Burn's Learner trains.
#[derive(Module, Debug)]
pub struct Trainee<M: Module> {
    /// The model.
    pub model: M,
    #[module(skip)]
    pub(super) how: How,
}

/// The part of `[train]` that a step needs.
#[derive(Clone, Debug)]
pub(super) struct How {
    pub clip_norm: f64,
    pub accumulate: usize,
    pub recompute: bool,
    pub half: Option<FloatDType>,
    pub frozen: Frozen,
}

/// The input of one step.
#[derive(Clone, Debug)]
pub struct Input<B> {
    /// The data of the step.
    pub batch: B,
    /// The number of items of the whole step, of which the batch may be a share.
    pub items: usize,
    /// The number of ranks with a share that counts.
    pub givers: usize,
    /// The seed of the random numbers of the step.
    pub seed: u64,
    /// The number of the batch's first part among the parts of the whole step. A device's random numbers are functions of
    /// (seed, part).
    pub first_part: usize,
    /// The number of the batch's first row in the whole step. The draws of rezero-kernels are functions of (seed, row).
    pub first_row: usize,
    /// The factor of the loss in the backward pass, so that gradients are not too small for half
    /// precision. The gradients are divided by it again.
    pub loss_scale: f64,
}

impl<B> Input<B> {
    /// A batch for scoring, or for a step whose seed the loop sets.
    pub fn new(batch: B) -> Self
    where
        B: Batch,
    {
        Self {
            items: batch.items(),
            givers: 1,
            batch,
            seed: 0,
            first_part: 0,
            first_row: 0,
            loss_scale: 1.0,
        }
    }
}

impl<M: Model> Trainee<M> {
    /// `model` with the settings of `[train]`.
    pub fn new(model: M, train: &Train) -> Self {
        Self {
            how: How {
                clip_norm: train.clip_norm,
                accumulate: train.accumulate,
                recompute: train.recompute,
                half: train.dtype.half(),
                frozen: Frozen::of(&model, &train.freeze),
            },
            model,
        }
    }

    /// The sums of a batch, and the gradients of its loss times `loss_scale / items`, computed in
    /// `train.accumulate` parts.
    pub(super) fn gradients(&self, input: Input<M::Batch>) -> (Vec<Sums>, GradientsParams) {
        let scale = input.loss_scale / input.items as f64;
        let mut sum = GradientsAccumulator::new();
        let mut parts = Vec::new();
        let mut row = input.first_row;
        for (i, part) in split(input.batch, self.how.accumulate)
            .into_iter()
            .enumerate()
        {
            let number = input.first_part + i;
            let pass = self.pass(scale, mix(input.seed, number as u64));
            // The loop has seeded the first part. The others must not depend on what was drawn before them, which
            // may be in another process.
            if number > 0 {
                for device in self.model.devices() {
                    device.seed(pass.seed);
                }
            }
            let (sums, grads) = seeded(input.seed, row, || self.model.gradients(&part, &pass));
            row += part.rows();
            sum.accumulate(&self.model, grads);
            parts.push(sums);
        }
        (parts, sum.grads())
    }

    pub(super) fn pass(&self, scale: f64, seed: u64) -> Pass {
        Pass {
            scale,
            seed,
            recompute: self.how.recompute,
            half: self.how.half,
        }
    }

    /// The output of a step, from the sums and gradients of all its parts.
    pub(super) fn output(
        &self,
        parts: Vec<Sums>,
        mut grads: GradientsParams,
        total: usize,
        loss_scale: f64,
    ) -> TrainOutput<Output> {
        grads = self.how.frozen.without(&self.model, grads);
        if let (true, Some(first)) = (loss_scale != 1.0, parts.first()) {
            let factor = first.loss.clone().inner().ones_like() / loss_scale;
            grads = scaled(&self.model, grads, factor);
        }
        let (grads, norms) = clip_global_norm(&self.model, grads, self.how.clip_norm);
        TrainOutput {
            grads,
            item: Output::new(parts, total, Some(norms)),
        }
    }
}

/// The output of a step for the metrics: the sums of the batch, read from the device once.
#[derive(Clone, Debug)]
pub struct Output {
    /// The loss, the named sums and the gradients' norm on the device, until read.
    pending: Option<Tensor<1>>,
    names: Vec<&'static str>,
    /// The sums, once read.
    pub totals: Totals,
    /// Global L2 norm of all gradients before clipping, once read; 0 in evaluation.
    pub grad_norm: f64,
    /// Items per second of wall time, set by the loop.
    pub items_per_s: f64,
    /// The weights' learning rate in the step, set by the loop.
    pub lr: f64,
    /// The gates after the step, if the loop has read them.
    pub alphas: Vec<f32>,
    norms: Option<Norms>,
}

impl Output {
    pub(super) fn new(parts: Vec<Sums>, items: usize, norms: Option<Norms>) -> Self {
        let sum = |of: &dyn Fn(&Sums) -> Tensor<1>| {
            let values = parts.iter().map(|part| of(part).inner()).collect();
            Tensor::cat(values, 0).sum()
        };
        let loss_sum = sum(&|part| part.loss.clone());
        let grad_norm = match &norms {
            Some(norms) => norms.global(),
            None => loss_sum.zeros_like(),
        };
        let names: Vec<&'static str> = parts.first().map_or_else(Vec::new, |first| {
            first.named.iter().map(|(name, _)| *name).collect()
        });
        let mut pending = vec![loss_sum];
        pending.extend((0..names.len()).map(|i| sum(&|part| part.named[i].1.clone())));
        pending.push(grad_norm);
        Self {
            pending: Some(Tensor::cat(pending, 0)),
            names,
            totals: Totals {
                items,
                ..Totals::default()
            },
            grad_norm: 0.0,
            items_per_s: f64::NAN,
            lr: f64::NAN,
            alphas: Vec::new(),
            norms,
        }
    }

    /// The output of a batch that another rank has scored.
    pub(super) fn of(totals: Totals) -> Self {
        Self {
            pending: None,
            names: Vec::new(),
            totals,
            grad_norm: 0.0,
            items_per_s: f64::NAN,
            lr: f64::NAN,
            alphas: Vec::new(),
            norms: None,
        }
    }

    /// The L2 norm of each residual layer's gradients before clipping, in forward order. Reads from
    /// the device.
    pub fn layer_norms(&self) -> Vec<f32> {
        self.norms.as_ref().map_or_else(Vec::new, Norms::by_layer)
    }

    /// Reads the sums from the device: the one synchronisation of a step.
    pub fn read(&mut self) {
        if let Some(tensor) = self.pending.take() {
            let data = tensor.into_data();
            let mut values = data.iter::<f64>();
            let mut next = || values.next().unwrap_or(f64::NAN);
            self.totals.loss = next();
            for name in &self.names {
                self.totals.named.insert((*name).to_owned(), next());
            }
            self.grad_norm = next();
        }
    }
}

impl ItemLazy for Output {
    fn sync(mut self) -> Result<Self, ExecutionError> {
        self.read();
        Ok(self)
    }
}

impl<M: Model> TrainStep for Trainee<M> {
    type Input = Input<M::Batch>;
    type Output = Output;

    fn step(&self, input: Self::Input) -> TrainOutput<Output> {
        let (items, scale) = (input.items, input.loss_scale);
        let (parts, grads) = self.gradients(input);
        self.output(parts, grads, items, scale)
    }
}

impl<M: Model> InferenceStep for Trainee<M> {
    type Input = Input<M::Batch>;
    type Output = Output;

    fn step(&self, input: Self::Input) -> Output {
        let total = input.batch.items();
        let sums = match self.how.half {
            Some(half) => rezero_nn::in_precision(self.model.clone(), half).loss(&input.batch),
            None => self.model.loss(&input.batch),
        };
        Output::new(vec![sums], total, None)
    }
}
