//! Steps that are captured once and then replayed: thousands of launches become one.
//!
//! The first steps of a process run as usual, and compile its kernels. The next one is captured, on a copy of the batch before. Every step from then on
//! writes its own batch, its numbers (learning rate, momentum, …) and its seed over those of the captured one, and replays it: the
//! weights, the optimizer's state and the running statistics are updated where they are. A step that cannot be a replay, of a
//! batch of another size, runs as usual, but in the same memory.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::ModuleOptimizer;
use burn::tensor::{Device, Distribution, Tensor};
use burn::train::TrainOutput;
use rezero_kernels::{Captured, Seed, capture, in_place, overwrite, together};

use super::model::{Batch, Model};
use super::optimizer::InPlace;
use super::step::{Input, Output, Trainee};
use crate::device::panics::unsaid;
use crate::device::trouble::{of_memory, tells_of_memory, tells_of_size};

/// The largest relative difference of a loss and of a gradient's norm. Products may be in TF32, and sums in another order.
const TOLERANCE: f64 = 5e-3;

/// Why a step has not been captured.
#[derive(Debug)]
pub(super) enum Uncaptured {
    /// Steps can be taken as usual: all memory is as before.
    Reason(String),
    /// The device has lost the weights or the optimizer's state, or cannot be used. What it says.
    Broken(String),
}

/// The captured step of a run, or its place.
pub(super) struct Capturing<M: Model> {
    rules: Vec<Arc<dyn InPlace>>,
    /// Without autodiff.
    device: Device,
    /// The batch of the last step and its items, before there is a captured step.
    last: Option<(M::Batch, usize)>,
    step: Option<Step<M>>,
}

/// The results of a recorded step, of which none has panicked.
type Recorded<T> = Captured<Option<(T, Output)>>;

struct Step<M: Model> {
    graph: Recorded<Trainee<M>>,
    /// The batch that the graph reads.
    batch: M::Batch,
    items: usize,
    /// The seed that the graph reads, if the model drops values by rezero-kernels.
    seed: Seed,
}

impl<M: Model> Step<M> {
    fn replay(&mut self) -> Output {
        let results = self.graph.replay().as_ref();
        let (_, output) = results.expect("a step that has panicked is not kept");
        output.clone()
    }
}

/// `words`, or what `cause` says of memory.
fn in_words(words: &str, cause: &str) -> String {
    let said = of_memory(cause);
    match tells_of_memory(cause) || tells_of_size(cause) {
        true => format!("a captured step does not fit on the device ({said})"),
        false => format!("{words} ({said})"),
    }
}

/// Reads from every parameter, and the optimizer's state.
///
/// # Panics
///
/// If the device has no values for one: a recording that failed was to write it.
fn must_be_there<M: Model>(trainee: &Trainee<M>, optimizer: &ModuleOptimizer) {
    struct Look;
    impl ModuleVisitor for Look {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let first = std::array::from_fn::<_, D, _>(|_| 0..1);
            param.val().inner().slice(first).into_data();
        }
    }
    trainee.visit(&mut Look);
    drop(optimizer.to_record());
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
    /// Why steps are not captured.
    pub fn begin(
        &mut self,
        trainee: &Trainee<M>,
        optimizer: &ModuleOptimizer,
        input: &Input<M::Batch>,
        time: usize,
    ) -> Result<(), Uncaptured> {
        let before = Memory::of(trainee);
        self.flush();
        let tried = unsaid(|| self.attempt(trainee, optimizer, input, time, &before));
        let reason = match tried {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(cause) => {
                // Where the panic came between the beginning of a recording and its end, this ends it.
                let _ = unsaid(|| drop(capture(&self.device, || ())));
                in_words("it failed", &cause)
            }
        };
        let whole = unsaid(|| {
            before.restore();
            self.flush();
            // It may have drawn numbers.
            self.device.seed(input.seed);
            must_be_there(trainee, optimizer);
        });
        match whole {
            Ok(()) => Err(Uncaptured::Reason(reason)),
            Err(cause) => Err(Uncaptured::Broken(format!(
                "{reason}; then {}",
                of_memory(&cause)
            ))),
        }
    }

    fn attempt(
        &mut self,
        trainee: &Trainee<M>,
        optimizer: &ModuleOptimizer,
        input: &Input<M::Batch>,
        time: usize,
        before: &Memory,
    ) -> Result<(), String> {
        let copied = self.last.take().and_then(|(last, _)| last.owned());
        let batch =
            copied.ok_or("the batch has no `Batch::owned`, or is not in f32 and integers")?;
        let seed = Seed::new(input.seed, &self.device);

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
                "a module keeps values of each step in new memory, as Burn's own batch norm does; rezero_kernels::fused has one that does not".to_owned(),
            );
        }
        before.restore();

        let gradients = step(Input {
            batch: batch.clone(),
            ..input.clone()
        });
        // A capture that fails, as where a model reads or writes on its device, or for lack of memory, leaves the memory that it
        // was to write without values. So the part that may fail is tried first, without the optimizer's memory. The gradients stay
        // until its end, as they do in the whole step.
        let trial = self.record({
            let gradients = gradients.clone();
            move || {
                let (_, grads, item) = in_place(&gradients);
                (grads, item)
            }
        })?;
        drop(trial);
        before.restore();
        self.flush();

        self.refresh(time, false);
        let mut optimizer = optimizer.clone();
        let graph = self.record(move || {
            in_place(|| {
                let (own, grads, item) = gradients();
                (together(|| optimizer.step(0.0, own, grads)), item)
            })
        })?;
        before.restore();
        self.flush();
        let mut step = Step {
            graph,
            batch,
            items: input.items,
            seed,
        };
        if self.has_moved() {
            return Err("a parameter cannot be updated in place".to_owned());
        }
        if !step.batch.overwrite(&input.batch) {
            return Err("a batch has another form than the one before".to_owned());
        }
        let mut replayed = step.replay();
        replayed.read();
        before.restore();
        self.flush();
        let pairs = [
            (usual.totals.loss, replayed.totals.loss),
            (usual.grad_norm, replayed.grad_norm),
        ];
        let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * a.abs().max(b.abs());
        if !pairs.into_iter().all(|(a, b)| close(a, b)) {
            return Err("its replay has other results than the step itself".to_owned());
        }
        self.step = Some(step);
        Ok(())
    }

    /// Records `step`. A panic within it waits until the recording has ended: a device that records takes no other work.
    ///
    /// # Errors
    ///
    /// Why it is not recorded.
    fn record<T: 'static>(
        &self,
        mut step: impl FnMut() -> (T, Output) + 'static,
    ) -> Result<Recorded<T>, String> {
        const WORDS: &str = "the device cannot record it or has too little memory beside it, or the model reads from its device or writes to it";
        let panicked = Arc::new(Mutex::new(None));
        let heard = panicked.clone();
        let graph = capture(&self.device, move || match unsaid(&mut step) {
            Ok(done) => Some(done),
            Err(cause) => {
                let mut first = heard.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(cause);
                None
            }
        });
        let cause = panicked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (cause, graph.output()) {
            (None, Some(_)) if graph.is_hardware() => Ok(graph),
            (Some(cause), _) => Err(in_words(WORDS, &cause)),
            // What was to be written says why it was not.
            (None, Some((_, output))) => match unsaid(|| output.clone().read()) {
                Err(cause) => Err(in_words(WORDS, &cause)),
                Ok(()) => Err(WORDS.to_owned()),
            },
            (None, None) => Err(WORDS.to_owned()),
        }
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
        let output = step.replay();
        self.rules.iter().for_each(|rule| rule.replayed());
        output
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
