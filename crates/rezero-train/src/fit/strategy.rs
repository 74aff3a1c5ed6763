//! The loop, as a learning strategy of Burn's Learner: validation and checkpoints by step, exact
//! resume, divergence and interruption.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::data::dataloader::Progress;
use burn::module::Module;
use burn::optim::lr_scheduler::LrScheduler;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use burn::train::renderer::{MetricsRenderer, default_renderer};
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent,
    SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader,
    TrainOutput, TrainStep, TrainingComponents, TrainingItem, TrainingStrategy, ValidLoader,
};
use rezero_data::rng::mix;

use super::devices::Replicas;
use super::loss_scale::LossScale;
use super::model::{Batch, Model};
use super::parts::PartUpdate;
use super::progress::PlainRenderer;
use super::schedule::{Rates, Scheduler};
use super::shown::{self, NoLog};
use super::source::{Loader, Source};
use super::step::{Input, Output, Trainee};
use super::task::{Score, Task, Totals};
use super::{optimizer, terminal};
use crate::error::{Error, Result};
use crate::recipe::{DType, Settings};
use crate::record::checkpoint::{self, Reader, State};
use crate::record::metrics::{self, Row};

/// The first steps of a process, in which kernels are compiled, chosen by timing and memory is taken:
/// their speed says nothing about the others'.
const WARM_UP: usize = 2;

/// A model, its data and its settings, ready to be trained.
pub(crate) struct Fit<'a, M, T, V> {
    pub settings: &'a Settings,
    pub task: Task,
    /// The run directory.
    pub dir: &'a Path,
    /// The model, on the first device, with the weights to begin from.
    pub model: M,
    /// Where a step is computed, with autodiff; the first has the parameters.
    pub devices: Vec<Device>,
    /// Training batches.
    pub train: T,
    /// Validation batches.
    pub valid: V,
    /// How many passes over the training batches.
    pub epochs: usize,
    /// What the model is, for its checkpoints.
    pub identity: String,
    /// SHA-256 of the recipe without `[run]`, and of the data.
    pub fingerprints: [String; 2],
    /// The checkpoint to continue from.
    pub start: Option<Reader>,
    /// Set to stop after the current step.
    pub interrupter: Interrupter,
    /// Lines instead of the terminal interface.
    pub plain: bool,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Where it stands.
    pub state: State,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Wall time of this process's part, seconds.
    pub seconds: f64,
}

impl<M, T, V> Fit<'_, M, T, V>
where
    M: Model,
    T: Source<Batch = M::Batch>,
    V: Source<Batch = M::Batch>,
{
    /// Trains until the end of the recipe, an interruption or an error.
    ///
    /// # Errors
    ///
    /// [`Error::Diverged`] if the loss or a gradient is not finite; else what went wrong with data,
    /// files or the device.
    pub fn run(self) -> Result<Finished> {
        let Self {
            settings, epochs, ..
        } = self;
        let Some(device) = self.devices.first().cloned() else {
            return Err(Error::Training("no device".to_owned()));
        };
        let steps_per_epoch = self.train.batches_per_epoch();
        let rates = Rates::default();
        let trainee = Trainee::new(self.model, &settings.train);
        let mut moving = Moving {
            optimizer: optimizer::build(&settings.optimizer, &settings.gates, &rates, &trainee),
            schedule: Scheduler::new(settings, steps_per_epoch, epochs, rates),
            replicas: match self.devices.len() {
                1 => None,
                _ => Some(Replicas::new(&self.devices)?),
            },
        };
        let mut state = State::default();
        if let Some(reader) = &self.start {
            state = reader.state()?;
            moving.optimizer = moving.optimizer.load_record(reader.optimizer()?);
            moving.schedule.load_record(reader.scheduler()?);
        }
        if settings.train.dtype == DType::F16 {
            state.loss_scale.get_or_insert_default();
        }
        [state.recipe, state.data] = self.fingerprints;
        let parameters = rezero_nn::parameter_count(&trainee.model);
        let gates = trainee.model.gates();
        let gates = gates.iter().map(|gate| gate.effective.len()).sum();
        let writer =
            checkpoint::Writer::new(self.dir, self.identity, parameters, settings.run.keep);
        let rows = metrics::Writer::open(self.dir, state.metrics_bytes)?;

        // Text has one epoch, whose steps say more.
        let counted = (epochs == 1 && settings.run.steps == steps_per_epoch)
            .then(|| self.train.rows_per_epoch() / steps_per_epoch);
        let renderer: Box<dyn MetricsRenderer> = if self.plain {
            let epoch = state.step / steps_per_epoch + 1;
            Box::new(PlainRenderer::new(epoch, counted))
        } else {
            let renderer = default_renderer(self.interrupter.clone(), None);
            terminal::keep_ctrl_c();
            renderer
        };
        let cursor = Arc::new(AtomicUsize::new(state.step));
        let train = Loader::new(self.train, device.clone(), cursor.clone());
        let valid = Loader::new(self.valid, device.clone().inner(), Arc::default());
        let outcome = Arc::new(Mutex::new(None));
        let (in_both, in_training) = (
            shown::of_both(&self.task),
            shown::of_training(&self.task, gates),
        );
        let steps = epochs * steps_per_epoch;
        let strategy = Strategy {
            start: Mutex::new(Some(Start {
                plan: Plan {
                    settings: settings.clone(),
                    task: self.task,
                    devices: self.devices,
                    steps_per_epoch,
                    steps: match settings.run.steps {
                        0 => steps,
                        limit => steps.min(limit),
                    },
                    cursor,
                },
                moving,
                state,
                rows,
                writer,
            })),
            outcome: outcome.clone(),
        };

        let mut training = SupervisedTraining::new(self.dir, Arc::new(train), Arc::new(valid))
            .num_epochs(epochs)
            .with_interrupter(self.interrupter)
            .with_application_logger(None)
            .with_metric_logger(NoLog)
            .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
            .renderer(renderer);
        for number in in_both {
            training = training
                .metric_train_numeric(number.clone())
                .metric_valid_numeric(number);
        }
        for number in in_training {
            training = training.metric_train_numeric(number);
        }

        // The Learner gets the real model, which the strategy takes out of it. Its optimizer and schedule
        // cannot be taken out, so it gets others of the same kind, which nobody steps.
        let rates = Rates::default();
        let optimizer = optimizer::build(&settings.optimizer, &settings.gates, &rates, &trainee);
        let schedule = Scheduler::new(settings, steps_per_epoch, epochs, rates);
        let learner = Learner::new(trainee, optimizer, ModuleLrScheduler::new(schedule));
        let result = training.launch(learner);
        if let Some(error) = result.error {
            return Err(Error::Training(error.to_string()));
        }
        let taken = outcome.lock().unwrap_or_else(|e| e.into_inner()).take();
        taken.unwrap_or_else(|| Err(Error::Training("the loop did not run".to_owned())))
    }
}

/// What is fixed over a run.
struct Plan {
    settings: Settings,
    task: Task,
    devices: Vec<Device>,
    steps_per_epoch: usize,
    /// The run's last step.
    steps: usize,
    /// The step that the training loader begins at.
    cursor: Arc<AtomicUsize>,
}

/// What moves the weights.
struct Moving<M: Model> {
    optimizer: ModuleOptimizer,
    schedule: Scheduler,
    /// The model on several devices.
    replicas: Option<Replicas<M>>,
}

struct Start<M: Model> {
    plan: Plan,
    moving: Moving<M>,
    state: State,
    rows: metrics::Writer,
    writer: checkpoint::Writer,
}

struct Strategy<M: Model> {
    /// Taken by `fit`, which Burn calls through a shared reference.
    start: Mutex<Option<Start<M>>>,
    outcome: Arc<Mutex<Option<Result<Finished>>>>,
}

impl<M: Model> SupervisedLearningStrategy<Trainee<M>> for Strategy<M> {
    fn fit(
        &self,
        components: TrainingComponents<Trainee<M>>,
        learner: Learner<Trainee<M>>,
        train: TrainLoader<Trainee<M>>,
        valid: ValidLoader<Trainee<M>>,
        _starting_epoch: usize,
    ) -> (Trainee<M>, SupervisedTrainingEventProcessor<Trainee<M>>) {
        let trainee = learner.model();
        // Its model would be a second owner, for whose sake every update copied the weights.
        drop(learner);
        let start = self.start.lock().unwrap_or_else(|e| e.into_inner()).take();
        let Some(start) = start else {
            return (trainee, components.event_processor);
        };
        let mut session = Session {
            first: start.state.step,
            start,
            trainee: Some(trainee),
            events: components.event_processor,
            interrupter: components.interrupter,
            begun: Instant::now(),
            last: Instant::now(),
            warm_up: None,
        };
        let outcome = session.run(&train, &valid);
        let finished = outcome.map(|interrupted| Finished {
            state: session.start.state.clone(),
            interrupted,
            seconds: session.begun.elapsed().as_secs_f64(),
        });
        *self.outcome.lock().unwrap_or_else(|e| e.into_inner()) = Some(finished);
        let trainee = session.trainee.take();
        (trainee.expect("every step puts it back"), session.events)
    }
}

/// A run under way.
struct Session<M: Model> {
    start: Start<M>,
    /// None while a step updates it: it has no other owner then, so that it is updated where it is.
    trainee: Option<Trainee<M>>,
    events: SupervisedTrainingEventProcessor<Trainee<M>>,
    interrupter: Interrupter,
    /// The step that this process began at.
    first: usize,
    begun: Instant,
    /// The end of the last step.
    last: Instant,
    /// Wall time of the first steps.
    warm_up: Option<f64>,
}

impl<M: Model> Session<M> {
    /// Takes the steps that are left. True if it was interrupted.
    fn run(
        &mut self,
        train: &TrainLoader<Trainee<M>>,
        valid: &ValidLoader<Trainee<M>>,
    ) -> Result<bool> {
        // An interruption skips a validation that was due, so that it stops at once.
        let State { step, valid: last, .. } = &self.start.state;
        let validated = last.as_ref().is_some_and(|last| last.step == *step);
        if self.validation_due() && !validated {
            let epoch = step.div_ceil(self.start.plan.steps_per_epoch);
            if !self.validate(valid, epoch)? {
                return Ok(true);
            }
        }
        while !self.at_the_end() {
            if self.epoch(train, valid)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the steps of an epoch that are left. True if it was interrupted.
    fn epoch(
        &mut self,
        train: &TrainLoader<Trainee<M>>,
        valid: &ValidLoader<Trainee<M>>,
    ) -> Result<bool> {
        let plan = &self.start.plan;
        let (step, checkpoint_every) = (
            self.start.state.step,
            plan.settings.run.checkpoint_every,
        );
        let epoch = step / plan.steps_per_epoch + 1;
        plan.cursor.store(step, Ordering::Relaxed);
        self.start_split(epoch, train.num_items());
        let mut batches = train.iter();
        self.last = Instant::now();
        while let Some(input) = batches.next() {
            let input = input.map_err(|e| Error::Training(e.to_string()))?;
            self.step(input, epoch, || batches.progress())?;

            let mut stop = self.interrupter.should_stop();
            let step = self.start.state.step;
            let last_of_epoch = step.is_multiple_of(self.start.plan.steps_per_epoch);
            let mid_epoch = !last_of_epoch && !self.at_the_end() && !stop;
            if mid_epoch && self.validation_due() {
                stop = !self.validate(valid, epoch)?;
                self.start_split(epoch, train.num_items());
                self.last = Instant::now();
            }
            if mid_epoch && !stop && due(checkpoint_every, step) {
                self.save()?;
                self.last = Instant::now();
            }
            if self.at_the_end() || stop {
                break;
            }
        }
        drop(batches);
        self.event(LearnerEvent::EndSplit(epoch))?;

        let mut interrupted = self.interrupter.should_stop() && !self.at_the_end();
        if !interrupted && self.validation_due() {
            interrupted = !self.validate(valid, epoch)?;
        }
        self.event(LearnerEvent::EndEpoch(epoch))?;
        if interrupted || self.at_the_end() || due(checkpoint_every, self.start.state.step) {
            self.save()?;
        }
        Ok(interrupted)
    }

    /// Takes a step, and logs and shows it.
    fn step(
        &mut self,
        mut input: Input<M::Batch>,
        epoch: usize,
        progress: impl FnOnce() -> Progress,
    ) -> Result<()> {
        let Start { plan, state, .. } = &self.start;
        // Random draws inside a step are a function of (seed, step), so that a resumed run
        // repeats them.
        input.seed = mix(plan.settings.train.seed, state.step as u64);
        input.loss_scale = state.loss_scale.map_or(1.0, |scale| scale.factor);
        for device in &plan.devices {
            device.seed(input.seed);
        }
        let mut output = self.update(input)?;
        self.start.state.step += 1;

        let took = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        let taken = self.start.state.step - self.first;
        if taken > WARM_UP {
            output.items_per_s = output.totals.items as f64 / took;
        } else {
            *self.warm_up.get_or_insert(0.0) += took;
        }
        self.start.state.since.add(&output.totals);
        let every = self.start.plan.settings.run.log_every;
        if self.start.state.step.is_multiple_of(every) || self.at_the_end() {
            self.log(&mut output, epoch)?;
        }
        let (step, lr) = (self.start.state.step, output.lr);
        let item = TrainingItem::new(output, progress(), Some(step), Some(lr.into()));
        self.event(LearnerEvent::ProcessedItem(item))
    }

    /// Computes a step and updates the model.
    fn update(&mut self, input: Input<M::Batch>) -> Result<Output> {
        let mut trainee = self.trainee.take().expect("every step puts it back");
        let Moving {
            optimizer,
            schedule,
            replicas,
        } = &mut self.start.moving;
        if trainee.how.recompute && replicas.is_none() {
            let total = input.batch.items();
            let pass = trainee.pass(1.0 / total as f64, input.seed);
            // Stepped only if the model can do it.
            let mut next = schedule.clone();
            let lr = next.step();
            let mut update = PartUpdate::new(optimizer, lr);
            let Trainee { model, how } = trainee;
            match model.update_by_parts(&input.batch, &pass, &mut update) {
                Ok((model, sums)) => {
                    let mut output = Output::new(vec![sums], total, Some(update.norms()));
                    *schedule = next;
                    self.trainee = Some(Trainee { model, how });
                    output.read();
                    output.lr = lr;
                    self.must_be_finite(&output, &GradientsParams::new(), false)?;
                    return Ok(output);
                }
                Err(model) => trainee = Trainee { model, how },
            }
        }
        let TrainOutput {
            grads,
            item: mut output,
        } = match replicas {
            Some(replicas) => replicas.step(&trainee, input)?,
            None => TrainStep::step(&trainee, input),
        };
        output.read();
        self.trainee = Some(trainee);
        let finite = output.grad_norm.is_finite();
        let scale = self.start.state.loss_scale;
        // A factor of the loss that is too large costs a step, and no more.
        let skipped = !finite && scale.is_some_and(LossScale::can_fall);
        self.must_be_finite(&output, &grads, skipped)?;
        self.start.state.loss_scale = scale.map(|scale| scale.next(finite));
        let Moving {
            optimizer,
            schedule,
            ..
        } = &mut self.start.moving;
        output.lr = schedule.step();
        if !skipped {
            let trainee = self.trainee.take().expect("it was put back above");
            self.trainee = Some(optimizer.step(output.lr, trainee, grads));
        }
        Ok(output)
    }

    fn must_be_finite(
        &self,
        output: &Output,
        grads: &GradientsParams,
        norm_may_not: bool,
    ) -> Result<()> {
        let loss = output.totals.mean_loss();
        if loss.is_finite() && (output.grad_norm.is_finite() || norm_may_not) {
            return Ok(());
        }
        Err(Error::Diverged {
            step: self.start.state.step + 1,
            message: format!(
                "loss {loss}, gradient norm {}; {}; try a lower lr, warmup_epochs=1, clip_norm=1 or \
                 alpha_optimizer=adagrad",
                output.grad_norm,
                self.trainee().model.diagnose(grads)
            ),
        })
    }

    /// Writes a row of the sums since the last one.
    fn log(&mut self, output: &mut Output, epoch: usize) -> Result<()> {
        let gates = self.trainee().model.gates();
        output.alphas = gates.into_iter().flat_map(|gate| gate.effective).collect();
        let taken = self.start.state.step - self.first;
        let warm = taken >= WARM_UP || self.at_the_end();
        let since = std::mem::take(&mut self.start.state.since);
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        self.start.rows.write(&Row {
            split: "train".to_owned(),
            step: self.start.state.step,
            epoch,
            loss: since.mean_loss(),
            metrics: self.start.plan.task.values(&since),
            items: since.items,
            lr: Some(output.lr),
            grad_norm: finite(output.grad_norm),
            layer_grad_norm: output.layer_norms(),
            alpha: output.alphas.clone(),
            items_per_s: finite(output.items_per_s),
            warm_up_s: self.warm_up.take_if(|_| warm),
            seconds: self.begun.elapsed().as_secs_f64(),
        })
    }

    /// Runs over the validation split on the device without autodiff, so that batch norm keeps its
    /// statistics and no graph is built. False if it was interrupted, which leaves it undone.
    fn validate(&mut self, loader: &ValidLoader<Trainee<M>>, epoch: usize) -> Result<bool> {
        let started = Instant::now();
        let trainee = self.trainee().valid();
        self.event_valid(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items: loader.num_items(),
        })?;
        let mut total = Totals::default();
        let mut batches = loader.iter();
        while let Some(input) = batches.next() {
            let input = input.map_err(|e| Error::Training(e.to_string()))?;
            let mut output = InferenceStep::step(&trainee, input);
            output.read();
            total.add(&output.totals);
            let item = TrainingItem::new(output, batches.progress(), None, None);
            self.event_valid(LearnerEvent::ProcessedItem(item))?;
            if self.interrupter.should_stop() {
                self.event_valid(LearnerEvent::EndSplit(epoch))?;
                return Ok(false);
            }
        }
        self.event_valid(LearnerEvent::EndSplit(epoch))?;
        let step = self.start.state.step;
        if !total.mean_loss().is_finite() {
            return Err(Error::Diverged {
                step,
                message: format!(
                    "validation loss {}, while the training loss is finite (where there is batch norm, \
                     its running statistics may not have caught up with weights that move fast); {}; try \
                     a lower lr or warmup_epochs=1",
                    total.mean_loss(),
                    trainee.model.diagnose(&GradientsParams::new())
                ),
            });
        }
        let task = &self.start.plan.task;
        self.start.rows.write(&Row {
            split: "valid".to_owned(),
            step,
            epoch,
            loss: total.mean_loss(),
            metrics: task.values(&total),
            items: total.items,
            lr: None,
            grad_norm: None,
            layer_grad_norm: Vec::new(),
            alpha: Vec::new(),
            items_per_s: Some(total.items as f64 / started.elapsed().as_secs_f64()),
            warm_up_s: None,
            seconds: self.begun.elapsed().as_secs_f64(),
        })?;
        let measure = task.measure();
        let score = Score {
            step,
            loss: total.mean_loss(),
            measure: (measure.of)(&total),
        };
        let run = &self.start.plan.settings.run;
        let state = &mut self.start.state;
        let best = state.best.as_ref();
        let best = best.is_none_or(|best| score.better_than(best, measure));
        if run.target > 0.0 && state.target_step.is_none() && score.reaches(run.target, measure) {
            state.target_step = Some(step);
        }
        if best {
            state.best = Some(score.clone());
        }
        state.valid = Some(score);
        // The best is only worth naming if it can be had.
        if best || run.checkpoint_every == 0 {
            self.save()?;
        }
        Ok(true)
    }

    fn save(&mut self) -> Result<()> {
        // Makes batch norm write back the statistics of its last update.
        let model = self.trainee().valid().model;
        let Start {
            moving,
            state,
            rows,
            writer,
            ..
        } = &mut self.start;
        state.metrics_bytes = rows.sync()?;
        let optimizer = || moving.optimizer.to_record();
        writer.save(state, model, optimizer, moving.schedule.to_record())
    }

    fn trainee(&self) -> &Trainee<M> {
        self.trainee.as_ref().expect("every step puts it back")
    }

    fn at_the_end(&self) -> bool {
        self.start.state.step >= self.start.plan.steps
    }

    fn validation_due(&self) -> bool {
        let (step, plan) = (self.start.state.step, &self.start.plan);
        match plan.settings.run.eval_every {
            _ if step == 0 => false,
            _ if step == plan.steps => true,
            0 => step.is_multiple_of(plan.steps_per_epoch),
            every => step.is_multiple_of(every),
        }
    }

    fn start_split(&mut self, epoch_number: usize, total_items: usize) {
        let event = LearnerEvent::StartSplit {
            epoch_number,
            total_items,
        };
        self.interrupter
            .fail_on_error(self.events.process_train(event));
    }

    fn event(&mut self, event: LearnerEvent<Output>) -> Result<()> {
        let processed = self.events.process_train(event);
        processed.map_err(|e| Error::Training(e.to_string()))
    }

    fn event_valid(&mut self, event: LearnerEvent<Output>) -> Result<()> {
        let processed = self.events.process_valid(event);
        processed.map_err(|e| Error::Training(e.to_string()))
    }
}

fn due(every: usize, step: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}
