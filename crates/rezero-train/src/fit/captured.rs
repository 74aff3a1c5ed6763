//! Steps that are captured once and then replayed: thousands of launches become one.
//!
//! The first steps of a process run as usual, and compile its kernels. The next one is captured, on a copy of the batch before. Every step from then on
//! writes its own batch, its numbers (learning rate, momentum, …) and its seed over those of the captured one, and replays it: the
//! weights, the optimizer's state and the running statistics are updated where they are. A step that cannot be a replay, of a
//! batch of another size, runs as usual, but in the same memory.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::ModuleOptimizer;
use burn::tensor::{Device, Distribution, Tensor};
use burn::train::TrainOutput;
use rezero_kernels::{Captured, Seed, capture, in_place, overwrite, together};

use super::model::{Batch, Model};
use super::optimizer::InPlace;
use super::step::{Input, Output, Trainee};

/// The largest relative difference of a loss and of a gradient's norm. Products may be in TF32, and sums in another order.
const TOLERANCE: f64 = 5e-3;

/// The captured step of a run, or its place.
pub(super) struct Capturing<M: Model> {
    rules: Vec<Arc<dyn InPlace>>,
    /// Without autodiff.
    device: Device,
    /// The batch of the last step and its items, before there is a captured step.
    last: Option<(M::Batch, usize)>,
    step: Option<Step<M>>,
}

struct Step<M: Model> {
    graph: Captured<(Output, Trainee<M>)>,
    /// The batch that the graph reads.
    batch: M::Batch,
    items: usize,
    /// The seed that the graph reads, if the model drops values by rezero-kernels.
    seed: Seed,
}

impl<M: Model> Capturing<M> {
    /// For a run on `device` with these rules.
    pub fn new(rules: Vec<Arc<dyn InPlace>>, device: &Device) -> Self {
        Self {
            rules,
            device: device.clone().inner(),
            last: None,
            step: None,
        }
    }

    /// Whether the model's memory stays where it is.
    pub fn has_begun(&self) -> bool {
        self.step.is_some()
    }

    /// Whether the last step had a batch of the size of `input`'s, so that this is the usual size. Remembers this one.
    pub fn is_usual(&mut self, input: &Input<M::Batch>) -> bool {
        let usual = self.last.as_ref().is_some_and(|last| last.1 == input.items);
        if !usual {
            self.last = Some((input.batch.clone(), input.items));
        }
        usual
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

    /// Captures a step on a copy of the last batch, and compares its replay on the batch of `input` with the step as usual.
    ///
    /// # Errors
    ///
    /// Why steps are not captured. All memory is then as before.
    pub fn begin(
        &mut self,
        trainee: &Trainee<M>,
        optimizer: &ModuleOptimizer,
        input: &Input<M::Batch>,
        time: usize,
    ) -> Result<(), &'static str> {
        let copied = self.last.take().and_then(|(last, _)| last.owned());
        let batch =
            copied.ok_or("the batch has no `Batch::owned`, or is not in f32 and integers")?;
        let seed = Seed::new(input.seed, &self.device);
        let before = Memory::of(trainee);
        self.flush();

        let step = |input: Input<M::Batch>| {
            let (trainee, seed) = (trainee.clone(), seed.clone());
            move || {
                let (parts, grads) = seed.within(|| trainee.gradients(input.clone()));
                let TrainOutput { grads, item } = trainee.output(parts, grads, input.items, 1.0);
                (trainee.clone(), grads, item)
            }
        };
        // Before there is a graph, whose memory no other step can use.
        let mut usual = in_place(step(input.clone())).2;
        usual.read();
        if before.has_moved(trainee) {
            before.put_back(trainee);
            return Err(
                "a module keeps values of each step in new memory, as Burn's own batch norm does; rezero_kernels::fused has one that does not",
            );
        }
        before.restore();

        let gradients = step(Input {
            batch: batch.clone(),
            ..input.clone()
        });
        // A capture that fails, as where a model reads or writes on its device, leaves the memory that it was to write without
        // values. So the part that may fail is tried first, without the optimizer's memory.
        let trial = capture(&self.device, {
            let gradients = gradients.clone();
            move || catch_unwind(AssertUnwindSafe(|| in_place(&gradients).2)).ok()
        });
        let works = trial.is_hardware() && trial.output().is_some();
        drop(trial);
        before.restore();
        self.flush();
        if !works {
            return Err(
                "the device cannot record it, or the model reads from its device or writes to it",
            );
        }

        self.refresh(time, false);
        let mut optimizer = optimizer.clone();
        let graph = capture(&self.device, move || {
            in_place(|| {
                let (own, grads, item) = gradients();
                (item, together(|| optimizer.step(0.0, own, grads)))
            })
        });
        before.restore();
        self.flush();
        let mut step = Step {
            graph,
            batch,
            items: input.items,
            seed,
        };
        if !step.graph.is_hardware() {
            return Err("the device cannot record it");
        }
        if self.has_moved() {
            return Err("a parameter cannot be updated in place");
        }
        if !step.batch.overwrite(&input.batch) {
            return Err("a batch has another form than the one before");
        }
        let mut replayed = step.graph.replay().0.clone();
        replayed.read();
        before.restore();
        self.flush();
        let pairs = [
            (usual.totals.loss, replayed.totals.loss),
            (usual.grad_norm, replayed.grad_norm),
        ];
        let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * a.abs().max(b.abs());
        if !pairs.into_iter().all(|(a, b)| close(a, b)) {
            return Err("its replay has other results than the step itself");
        }
        self.step = Some(step);
        Ok(())
    }

    /// Whether the step of `input` can be a replay. Its batch and its seed are then in place.
    pub fn takes(&self, input: &Input<M::Batch>) -> bool {
        let Some(step) = &self.step else { return false };
        let takes = step.items == input.items && step.batch.overwrite(&input.batch);
        if takes {
            step.seed.set(input.seed);
        }
        takes
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

    /// Whether an update gave new tensors, which the graph does not see.
    pub fn has_moved(&self) -> bool {
        self.rules.iter().any(|rule| rule.has_moved())
    }

    /// From now on, steps are taken as usual.
    pub fn leave(self) {
        self.rules.iter().for_each(|rule| rule.leave());
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

/// A module's numbers that are no weights, such as running statistics: where they are, and a copy. Steps that count for nothing change
/// them.
struct Memory(Vec<(ParamId, Box<dyn Place>)>);

/// A tensor of any rank and a copy of it.
trait Place {
    /// Writes the copy over the tensor.
    fn restore(&self);

    /// The largest difference of the tensor from another one, which is no number if that has another rank.
    fn apart(&self, other: &dyn Any) -> f64;

    /// The tensor as the module has it.
    fn tensor(&self) -> &dyn Any;
}

struct Placed<const D: usize> {
    tensor: Tensor<D>,
    copy: Tensor<D>,
}

impl<const D: usize> Place for Placed<D> {
    fn restore(&self) {
        overwrite(&self.tensor, &self.copy);
    }

    fn apart(&self, other: &dyn Any) -> f64 {
        match other.downcast_ref::<Tensor<D>>() {
            Some(other) => {
                let [own, other] = [&self.tensor, other].map(|t| t.clone().inner());
                (own - other).abs().max().into_scalar()
            }
            None => f64::NAN,
        }
    }

    fn tensor(&self) -> &dyn Any {
        &self.tensor
    }
}

impl Memory {
    fn of<M: Module>(module: &M) -> Self {
        // Burn writes back a running statistic with the next one, or here.
        drop(module.valid());
        let mut memory = Self(Vec::new());
        module.visit(&mut memory);
        memory
    }

    fn restore(&self) {
        self.0.iter().for_each(|(_, place)| place.restore());
    }

    /// Whether the module's numbers are others than those in their places: then they have new ones.
    fn has_moved<M: Module>(&self, module: &M) -> bool {
        drop(module.valid());
        let mut differs = Differs {
            memory: self,
            found: false,
        };
        module.visit(&mut differs);
        differs.found
    }

    /// Gives the module's statistics, which its clones share, their places again.
    fn put_back<M: Module>(&self, module: &M) {
        drop(module.clone().map(&mut PutBack(self)));
    }

    fn find(&self, id: ParamId) -> Option<&dyn Place> {
        let found = self.0.iter().find(|(known, _)| *known == id)?;
        Some(found.1.as_ref())
    }
}

impl ModuleVisitor for Memory {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        if !tensor.is_require_grad() {
            let copy = tensor.clone().inner() * 1.0;
            let copy = Placed { tensor, copy };
            self.0.push((param.id, Box::new(copy)));
        }
    }
}

struct Differs<'a> {
    memory: &'a Memory,
    found: bool,
}

impl ModuleVisitor for Differs<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(place) = self.memory.find(param.id) {
            // What is no number has moved, too.
            self.found |= place.apart(&param.val()) != 0.0;
        }
    }
}

struct PutBack<'a>(&'a Memory);

impl ModuleMapper for PutBack<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let place = self.0.find(param.id).map(Place::tensor);
        match place.and_then(|tensor| tensor.downcast_ref::<Tensor<D>>()) {
            Some(tensor) => param.map(|_| tensor.clone()),
            None => param,
        }
    }
}
