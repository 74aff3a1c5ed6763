//! The traits that a model and its batches implement for the loop.

use std::fmt::Debug;
use std::ops::Range;

use burn::module::{Module, ModuleDisplay};
use burn::optim::GradientsParams;
use burn::store::ModuleRecord;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use rezero_nn::{Gate, in_precision};

use super::diagnose::diagnose;
use super::parts::PartUpdate;
use crate::ranks::part;
use crate::record::Weights;

/// A module that the loop can train: it computes the loss of a batch.
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
///     /// Inputs and targets, one row per example.
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
    /// The data of one training step.
    type Batch: Batch;

    /// The loss of `batch`, summed over its [items](Batch::items), and the other sums from which
    /// the metrics of the [task](super::Task) are computed.
    ///
    /// Return sums, not means: a step may be computed in parts or on several devices, and the loop
    /// divides by the number of items of the whole step.
    fn loss(&self, batch: &Self::Batch) -> Sums;

    /// Whether the model's products accept weights in half precision with inputs in f32. If true,
    /// `train.dtype` may be `bf16` or `f16`. The products of `rezero_kernels::{linear, conv2d}` and
    /// of all networks of rezero-nn accept them; Burn's own `Linear` and `Conv2d` do not. Default:
    /// false
    const HALF: bool = false;

    /// Whether [`Pass::recompute`] has an effect on the model. Default: false
    fn recomputes(&self) -> bool {
        false
    }

    /// The sums of `batch` and the gradients of its loss times [`Pass::scale`].
    ///
    /// The default differentiates [`loss`](Self::loss), with products in half precision if
    /// [`Pass::half`] is set. Under [`Pass::recompute`], a model that can do so runs its layers
    /// again in the backward pass instead of storing their activations.
    fn gradients(&self, batch: &Self::Batch, pass: &Pass) -> (Sums, GradientsParams) {
        differentiate(self, batch, pass)
    }

    /// A whole training step that updates the model part by part while the gradients are computed,
    /// so that all gradients are never in memory together. The loop calls it under
    /// [`Pass::recompute`] on one device. The default cannot do this and returns the unchanged
    /// model.
    ///
    /// # Errors
    ///
    /// The unchanged model, if it cannot be updated by parts.
    fn update_by_parts(
        self,
        batch: &Self::Batch,
        pass: &Pass,
        update: &mut PartUpdate<'_>,
    ) -> Result<(Self, Sums), Self> {
        let _ = (batch, pass, update);
        Err(self)
    }

    /// The gates of the model, see [`rezero_nn::gates`].
    fn gates(&self) -> Vec<Gate> {
        rezero_nn::gates(self)
    }

    /// The message about the model after a step whose loss or gradient was not finite, see
    /// [`diagnose`].
    fn diagnose(&self, gradients: &GradientsParams) -> String {
        diagnose(self, gradients)
    }

    /// The weights that a checkpoint stores.
    fn to_weights(&self) -> Weights {
        Weights::of(self)
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

/// One whole pass, forward and backward: [`Model::gradients`] without recomputation.
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
    /// The factor of the summed loss in the backward pass: one over the number of items of the
    /// step, times the loss scale of half precision.
    pub scale: f64,
    /// The seed of the random numbers of this part. A recomputation repeats them.
    pub seed: u64,
    /// Whether layers run again in the backward pass.
    pub recompute: bool,
    /// The type in which products are computed, if it is not f32.
    pub half: Option<FloatDType>,
}

/// The data of one training step, on a device.
pub trait Batch: Clone + Debug + Send + Sync + 'static {
    /// The number of rows. A batch can be cut between rows.
    fn rows(&self) -> usize;

    /// The number of predictions over which the loss is summed. The default is one prediction per
    /// row. A row may have several, such as the bytes of a window.
    fn items(&self) -> usize {
        self.rows()
    }

    /// The batch of the rows in `range`.
    fn narrow(&self, range: Range<usize>) -> Self;

    /// The batch on another device.
    fn to_device(self, device: &Device) -> Self;

    /// A copy of the batch in memory of its own, which a captured training step reads; make it with [`own`] and [`own_int`]. Default: `None`, and
    /// steps are not captured
    fn owned(&self) -> Option<Self> {
        None
    }

    /// Writes the values of `new` into the memory of this batch, which [`owned`](Self::owned) gave, with [`written`] and [`written_int`].
    /// True only if everything that the loss reads was written. Default: false
    fn overwrite(&self, new: &Self) -> bool {
        let _ = new;
        false
    }
}

/// The tensor in memory of its own, for [`Batch::owned`]. `None` if its device cannot write in place.
pub fn own<const D: usize>(tensor: &Tensor<D>) -> Option<Tensor<D>> {
    let own = Tensor::zeros(tensor.dims(), (&tensor.device(), tensor.dtype()));
    written(&own, tensor).then_some(own)
}

/// [`own`] for integers.
pub fn own_int<const D: usize>(tensor: &Tensor<D, Int>) -> Option<Tensor<D, Int>> {
    let own = Tensor::zeros(tensor.dims(), (&tensor.device(), tensor.dtype()));
    written_int(&own, tensor).then_some(own)
}

/// [`overwrite`](rezero_kernels::overwrite), if the shapes are the same.
pub fn written<const D: usize>(old: &Tensor<D>, new: &Tensor<D>) -> bool {
    old.dims() == new.dims() && rezero_kernels::overwrite(old, new)
}

/// [`overwrite_int`](rezero_kernels::overwrite_int), if the shapes are the same.
pub fn written_int<const D: usize>(old: &Tensor<D, Int>, new: &Tensor<D, Int>) -> bool {
    old.dims() == new.dims() && rezero_kernels::overwrite_int(old, new)
}

/// A part that a batch may have, in memory of its own.
pub(crate) fn own_part<T>(
    part: Option<&T>,
    own: impl FnOnce(&T) -> Option<T>,
) -> Option<Option<T>> {
    match part {
        Some(part) => own(part).map(Some),
        None => Some(None),
    }
}

/// Whether a part that a batch may have could be written: both batches have it, or neither has.
pub(crate) fn written_part<T>(
    old: Option<&T>,
    new: Option<&T>,
    write: impl FnOnce(&T, &T) -> bool,
) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => write(old, new),
        (None, None) => true,
        _ => false,
    }
}

/// Cuts `batch` into `parts` parts whose lengths differ by one row at most, or into as many as it has rows.
pub(crate) fn split<B: Batch>(batch: B, parts: usize) -> Vec<B> {
    if parts <= 1 {
        return vec![batch];
    }
    let rows = batch.rows();
    let parts = parts.min(rows);
    let ranges = (0..parts).map(|i| part(rows, i, parts));
    ranges.map(|range| batch.narrow(range)).collect()
}

/// Integers on another device, in that device's integer type.
pub fn integers_on<const D: usize>(ids: Tensor<D, Int>, device: &Device) -> Tensor<D, Int> {
    ids.to_device(device).cast(device.settings().int_dtype)
}

/// Inputs and numbers to predict, one row per example.
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

    fn owned(&self) -> Option<Self> {
        Some((own(&self.0)?, own(&self.1)?))
    }

    fn overwrite(&self, new: &Self) -> bool {
        written(&self.0, &new.0) && written(&self.1, &new.1)
    }
}

/// Inputs and classes to predict, one row per example.
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

    fn owned(&self) -> Option<Self> {
        Some((own(&self.0)?, own_int(&self.1)?))
    }

    fn overwrite(&self, new: &Self) -> bool {
        written(&self.0, &new.0) && written_int(&self.1, &new.1)
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

    /// The sums of a classifier: the cross-entropy in nats and, as `correct`, the number of rows
    /// whose largest logit is at the target. `weights` are factors of the rows in both sums.
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
        let mut correct = hits(logits, targets);
        if let Some(weights) = weights {
            correct = correct * weights.clone().inner();
            losses = losses * weights;
        }
        Self::new(losses.sum()).with("correct", correct.sum())
    }

    /// The sums of a classifier whose rows have shares of several classes: the cross-entropy
    /// `−Σⱼ qⱼ log pⱼ` in nats and, as `correct`, the number of rows whose largest logit is at the
    /// target.
    ///
    /// # Shapes
    ///
    /// - `logits`, `shares` q: `[rows, classes]`
    /// - `targets`: `[rows]`
    pub fn of_shares(logits: Tensor<2>, shares: Tensor<2>, targets: Tensor<1, Int>) -> Self {
        let losses = rezero_kernels::soft_cross_entropy(logits.clone(), shares);
        Self::new(losses.sum()).with("correct", hits(logits, targets).sum())
    }

    /// The sums without their graph, on another device.
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

/// 1 for each row whose largest logit is at the target, else 0.
fn hits(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    logits
        .inner()
        .argmax(1)
        .squeeze_dim::<1>(1)
        .equal(targets.inner())
        .float()
}
