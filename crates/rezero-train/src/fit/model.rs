//! What the loop asks of a model, and of the batches that it learns from.

use std::fmt::Debug;
use std::ops::Range;

use burn::module::{Module, ModuleDisplay};
use burn::optim::GradientsParams;
use burn::store::ModuleRecord;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use rezero_nn::{Gate, in_precision};

use super::diagnose::diagnose;
use super::parts::PartUpdate;

/// A module that the loop can train: it knows the loss of a batch.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use rezero_train::fit::{Model, Sums};
///
/// #[derive(Module, Debug)]
/// struct Line {
///     linear: Linear,
/// }
///
/// impl Model for Line {
///     /// Inputs and what is wanted of them, a row each.
///     type Batch = (Tensor<2>, Tensor<2>);
///
///     fn loss(&self, (x, y): &Self::Batch) -> Sums {
///         let error = self.linear.forward(x.clone()) - y.clone();
///         Sums::new(error.square().sum())
///     }
/// }
///
/// let device = Device::flex().autodiff();
/// let line = Line { linear: LinearConfig::new(3, 1).init(&device) };
/// let batch = (Tensor::ones([5, 3], &device), Tensor::ones([5, 1], &device));
/// assert_eq!(line.loss(&batch).loss.dims(), [1]);
/// ```
pub trait Model: Module + ModuleDisplay + 'static {
    /// What one step learns from.
    type Batch: Batch;

    /// The loss of `batch`, summed over its [items](Batch::items), and other sums over them that the
    /// [task](super::Task)'s metrics are made of.
    ///
    /// Sums, not means: a step may be computed in parts or on several devices, and the loop divides by
    /// the number of items of all of them.
    fn loss(&self, batch: &Self::Batch) -> Sums;

    /// Whether its products take weights in half precision beside inputs in f32, as those of
    /// `rezero_kernels::{linear, conv2d}` and all networks of rezero-nn do: `train.dtype` may be `bf16` or
    /// `f16` then. Burn's own `Linear` and `Conv2d` do not. Default: false
    const HALF: bool = false;

    /// Whether it does something under [`Pass::recompute`]. Default: false
    fn recomputes(&self) -> bool {
        false
    }

    /// The sums of `batch` and the gradients of its loss times [`Pass::scale`].
    ///
    /// The default differentiates [`loss`](Self::loss), with products in half precision where the
    /// recipe asks for it. A model that can run its layers again in the backward pass instead of
    /// keeping their activations does so under [`Pass::recompute`].
    fn gradients(&self, batch: &Self::Batch, pass: &Pass) -> (Sums, GradientsParams) {
        differentiate(self, batch, pass)
    }

    /// A whole training step that updates the model part by part while gradients come, so that they
    /// are never held together; the model as it was where it cannot do that, which is the default.
    /// Asked for under [`Pass::recompute`].
    ///
    /// # Errors
    ///
    /// The model itself.
    fn update_by_parts(
        self,
        batch: &Self::Batch,
        pass: &Pass,
        update: &mut PartUpdate<'_>,
    ) -> Result<(Self, Sums), Self> {
        let _ = (batch, pass, update);
        Err(self)
    }

    /// Its gates, see [`rezero_nn::gates`].
    fn gates(&self) -> Vec<Gate> {
        rezero_nn::gates(self)
    }

    /// What to say of it after a step whose numbers were not finite, see [`diagnose`].
    fn diagnose(&self, gradients: &GradientsParams) -> String {
        diagnose(self, gradients)
    }

    /// The record that a checkpoint keeps.
    fn to_weights(self) -> ModuleRecord {
        self.into_record()
    }

    /// The model with the weights of a record.
    ///
    /// # Errors
    ///
    /// If a parameter is missing or of another shape.
    fn with_weights(self, record: ModuleRecord) -> Result<Self, String> {
        self.try_load_record(record).map_err(|e| e.to_string())
    }
}

/// One whole pass, forward and back: what [`Model::gradients`] is where nothing is recomputed.
pub(crate) fn differentiate<M: Model>(
    model: &M,
    batch: &M::Batch,
    pass: &Pass,
) -> (Sums, GradientsParams) {
    let sums = match pass.half {
        Some(half) => in_precision(model.clone(), half).loss(batch),
        None => model.loss(batch),
    };
    let gradients = (sums.loss.clone() * pass.scale).backward();
    (sums, GradientsParams::from_grads(gradients, model))
}

/// How a part of a step is computed.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// What the summed loss is multiplied by before the backward pass: one over the step's items, times
    /// the factor of the loss in half precision.
    pub scale: f64,
    /// Seeds the random draws of this part, which a recomputation repeats.
    pub seed: u64,
    /// Whether layers are to be run again in the backward pass.
    pub recompute: bool,
    /// What products are computed in, where it is not f32.
    pub half: Option<FloatDType>,
}

/// The batch that one step learns from, on a device.
pub trait Batch: Clone + Debug + Send + Sync + 'static {
    /// The rows along which it can be cut.
    fn rows(&self) -> usize;

    /// How many predictions the loss is summed over: a row each, unless they are something else, such as
    /// the bytes of a window.
    fn items(&self) -> usize {
        self.rows()
    }

    /// The rows of `range`.
    fn narrow(&self, range: Range<usize>) -> Self;

    /// The same on another device.
    fn to_device(self, device: &Device) -> Self;
}

/// `batch` in `parts` parts of equal length but for the last ones.
pub(crate) fn split<B: Batch>(batch: B, parts: usize) -> Vec<B> {
    if parts <= 1 {
        return vec![batch];
    }
    let rows = batch.rows();
    let step = rows.div_ceil(parts);
    (0..rows)
        .step_by(step)
        .map(|start| batch.narrow(start..rows.min(start + step)))
        .collect()
}

/// Integers on another device, in the type that it computes in.
pub fn integers_on<const D: usize>(ids: Tensor<D, Int>, device: &Device) -> Tensor<D, Int> {
    ids.to_device(device).cast(device.settings().int_dtype)
}

/// Inputs and numbers to predict, a row each.
impl<const A: usize, const B: usize> Batch for (Tensor<A>, Tensor<B>) {
    fn rows(&self) -> usize {
        self.1.dims()[0]
    }

    fn narrow(&self, range: Range<usize>) -> Self {
        let (x, y) = self.clone();
        (x.slice_dim(0, range.clone()), y.slice_dim(0, range))
    }

    fn to_device(self, device: &Device) -> Self {
        (self.0.to_device(device), self.1.to_device(device))
    }
}

/// Inputs and classes to predict, a row each.
impl<const A: usize, const B: usize> Batch for (Tensor<A>, Tensor<B, Int>) {
    fn rows(&self) -> usize {
        self.1.dims()[0]
    }

    fn narrow(&self, range: Range<usize>) -> Self {
        let (x, y) = self.clone();
        (x.slice_dim(0, range.clone()), y.slice_dim(0, range))
    }

    fn to_device(self, device: &Device) -> Self {
        (self.0.to_device(device), integers_on(self.1, device))
    }
}

/// Sums over the items of a batch.
#[derive(Clone, Debug)]
pub struct Sums {
    /// The loss, `[1]`, to be differentiated.
    pub loss: Tensor<1>,
    /// Other sums by name, `[1]` each, without a graph.
    pub named: Vec<(&'static str, Tensor<1>)>,
}

impl Sums {
    /// The loss alone.
    pub fn new(loss: Tensor<1>) -> Self {
        Self {
            loss,
            named: Vec::new(),
        }
    }

    /// Adds a sum, `[1]`.
    #[must_use]
    pub fn with(mut self, name: &'static str, sum: Tensor<1>) -> Self {
        self.named.push((name, sum));
        self
    }

    /// Of a classifier: the cross-entropy in nats and, as `correct`, how many rows have their largest
    /// logit at their target; each row times its weight, if there are weights.
    ///
    /// # Shapes
    ///
    /// - `logits`: `[rows, classes]`
    /// - `targets`, `weights`: `[rows]`
    pub fn of_logits(
        logits: Tensor<2>,
        targets: Tensor<1, Int>,
        weights: Option<Tensor<1>>,
    ) -> Self {
        let mut losses = rezero_kernels::cross_entropy(logits.clone(), targets.clone());
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
        Self::new(losses.sum()).with("correct", correct.sum())
    }

    /// The numbers alone, on another device.
    pub(crate) fn on(self, device: &Device) -> Self {
        let named = self.named.into_iter();
        Self {
            loss: self.loss.inner().to_device(device),
            named: named
                .map(|(name, sum)| (name, sum.to_device(device)))
                .collect(),
        }
    }
}
