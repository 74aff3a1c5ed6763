//! Steps that are captured once and then replayed: thousands of launches become one.
//!
//! The first steps of a process run as usual, and compile its kernels. The next one is captured, with its batch. Every further step
//! writes its own batch and its numbers (learning rate, momentum, …) over those of the captured one, and replays it: the
//! weights, the optimizer's state and the running statistics are updated where they are. A step that cannot be a replay, of a
//! batch of another size, runs as usual, but in the same memory.

use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::ModuleOptimizer;
use burn::tensor::{Device, Distribution, Tensor};
use burn::train::TrainOutput;
use rezero_kernels::{Captured, capture, in_place, overwrite};

use super::model::{Batch, Model};
use super::optimizer::InPlace;
use super::step::{Input, Output, Trainee};
use crate::say::say;

/// The captured step of a run, or its place.
pub(super) struct Capturing<M: Model> {
    rules: Vec<Arc<dyn InPlace>>,
    /// Without autodiff.
    device: Device,
    step: Option<Step<M>>,
}

struct Step<M: Model> {
    graph: Captured<(Output, Trainee<M>)>,
    /// The batch that the graph reads.
    batch: M::Batch,
    items: usize,
    /// The number of further batches on which a replay is compared with a step as usual.
    unchecked: usize,
}

/// Batches on which replays are compared: the captured one, and one that was written over it.
const CHECKED: usize = 2;
/// The largest relative difference of a loss and of a gradient's norm. Products may be in TF32, and sums in another order.
const TOLERANCE: f64 = 5e-3;

impl<M: Model> Capturing<M> {
    /// For a run on `device` with these rules.
    pub fn new(rules: Vec<Arc<dyn InPlace>>, device: &Device) -> Self {
        Self {
            rules,
            device: device.clone().inner(),
            step: None,
        }
    }

    /// Whether the model's memory stays where it is.
    pub fn has_begun(&self) -> bool {
        self.step.is_some()
    }

    /// Whether random numbers were drawn from the device since it was seeded. The draws would be the same in each replay.
    pub fn has_drawn(&self, seed: u64) -> bool {
        let draw = || {
            let number = Tensor::<1>::random([1], Distribution::Default, &self.device);
            number.into_scalar::<f64>()
        };
        let next = draw();
        self.device.seed(seed);
        next.to_bits() != draw().to_bits()
    }

    /// Captures a step. False, and all memory is as before, if the device or the batch does not allow it.
    pub fn begin(
        &mut self,
        trainee: &Trainee<M>,
        optimizer: &ModuleOptimizer,
        input: &Input<M::Batch>,
        time: usize,
    ) -> bool {
        if !input.batch.overwrite(&input.batch) {
            return false;
        }
        let before = Memory::of(trainee);
        self.flush();
        let (own, mut optimizer, input) = (trainee.clone(), optimizer.clone(), input.clone());
        let (batch, items, device) = (input.batch.clone(), input.items, self.device.clone());
        let gradients = move || {
            let (parts, grads) = own.gradients(input.clone());
            let TrainOutput { grads, item } = own.output(parts, grads, items, 1.0);
            (own.clone(), grads, item)
        };
        // A capture that fails, as where a model writes to its device, leaves the memory that it was to write without
        // values. So the part that may fail is tried first, without the optimizer's memory.
        let trial = capture(&self.device, {
            let gradients = gradients.clone();
            move || in_place(|| gradients().2)
        });
        let works = trial.is_hardware();
        drop(trial);
        before.restore();
        self.flush();
        if !works {
            say!("this training step cannot be captured; every kernel is launched on its own");
            return false;
        }
        self.refresh(time, false);
        let graph = capture(&self.device, move || {
            in_place(|| {
                let (own, grads, item) = gradients();
                // Nothing that is still to read a weight may come after its update.
                let _ = device.flush();
                (item, optimizer.step(0.0, own, grads))
            })
        });
        before.restore();
        self.flush();
        if !graph.is_hardware() {
            say!("this training step cannot be captured; every kernel is launched on its own");
            return false;
        }
        self.step = Some(Step {
            graph,
            batch,
            items,
            unchecked: CHECKED,
        });
        true
    }

    /// Whether the step of `input` can be a replay. Its batch is then in place.
    pub fn takes(&self, input: &Input<M::Batch>) -> bool {
        let Some(step) = &self.step else { return false };
        step.items == input.items && step.batch.overwrite(&input.batch)
    }

    /// Compares a replay that updates nothing with a step as usual, for the first batches that it takes. False if they differ.
    pub fn agrees(&mut self, trainee: &Trainee<M>, input: &Input<M::Batch>, time: usize) -> bool {
        let Some(step) = self.step.as_mut().filter(|step| step.unchecked > 0) else {
            return true;
        };
        step.unchecked -= 1;
        let before = Memory::of(trainee);
        let mut usual = in_place(|| {
            let (parts, grads) = trainee.gradients(input.clone());
            trainee.output(parts, grads, input.items, 1.0).item
        });
        usual.read();
        before.restore();
        self.refresh(time, false);
        let step = self.step.as_mut().expect("it was there above");
        let mut replayed = step.graph.replay().0.clone();
        replayed.read();
        before.restore();
        self.flush();
        let pairs = [
            (usual.totals.loss, replayed.totals.loss),
            (usual.grad_norm, replayed.grad_norm),
        ];
        let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * a.abs().max(b.abs());
        // What is not finite ends the run, with the usual step's diagnosis.
        pairs.into_iter().all(|(a, b)| close(a, b))
    }

    /// From now on, steps are taken as usual.
    pub fn leave(self) {
        self.rules.iter().for_each(|rule| rule.leave());
    }

    /// Step `time` of the optimizer, counted from 1, on the batch that is in place.
    pub fn replay(&mut self, time: usize) -> Output {
        self.refresh(time, true);
        let step = self.step.as_mut().expect("it takes no batch before");
        let (output, _) = step.graph.replay();
        self.rules.iter().for_each(|rule| rule.replayed());
        output.clone()
    }

    /// Makes what follows begin after all that was computed, and sets the numbers of an update that is not a replay.
    pub fn prepare(&self, time: usize) {
        self.flush();
        self.refresh(time, true);
        self.flush();
    }

    fn refresh(&self, time: usize, counts: bool) {
        for rule in &self.rules {
            rule.refresh(time, counts, &self.device);
        }
    }

    fn flush(&self) {
        // An error of the device comes again with the next read.
        let _ = self.device.flush();
    }
}

/// A copy of a module's numbers that are no weights, such as running statistics, and where they are. Steps that count for nothing change
/// them.
struct Memory(Vec<Box<dyn Fn()>>);

impl Memory {
    fn of<M: Module>(module: &M) -> Self {
        // Burn writes back a running statistic with the next one, or here.
        drop(module.valid());
        let mut memory = Self(Vec::new());
        module.visit(&mut memory);
        memory
    }

    fn restore(&self) {
        self.0.iter().for_each(|restore| restore());
    }
}

impl ModuleVisitor for Memory {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let place = param.val();
        if place.is_require_grad() {
            return;
        }
        let place = place.inner();
        let copy = place.clone() * 1.0;
        self.0.push(Box::new(move || {
            overwrite(&place, &copy);
        }));
    }
}
