//! The training loop, as a learning strategy of burn's Learner: validation and checkpoints by step,
//! exact resume, divergence and interruption.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::module::Module;
use burn::optim::lr_scheduler::LrScheduler;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use burn::train::metric::LearningRateMetric;
use burn::train::renderer::{MetricsRenderer, default_renderer};
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent,
    SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader,
    TrainOutput, TrainStep, TrainingComponents, TrainingItem, TrainingStrategy, ValidLoader,
};

use crate::checkpoint::{self, LossScale, Score, State};
use crate::data::Loader;
use crate::error::{Error, Result};
use crate::metrics::{self, NoLog, Number, Row, Value};
use crate::model::{Batch, Learnable, Network, Stats, StepOutput, bits, diagnose, mix};
use crate::optim;
use crate::parallel::Replicas;
use crate::recipe::{DType, Recipe};
use crate::renderer::PlainRenderer;
use crate::schedule::{Dials, Schedule};

/// The first steps of a process, in which kernels are compiled, chosen by timing and memory is taken:
/// their speed says nothing about the others'.
const WARM_UP: usize = 2;

/// Up to how many gates are shown each on their own in the terminal interface.
const SHOWN_ALPHAS: usize = 32;

/// Everything that a run needs.
pub struct Training<'a> {
    /// The settings.
    pub recipe: &'a Recipe,
    /// The run directory.
    pub dir: &'a Path,
    /// The network, on an autodiff device.
    pub network: Network,
    /// That device.
    pub device: Device,
    /// All devices that a step is computed on, if there are several; with autodiff, that one first.
    pub devices: Vec<Device>,
    /// Training batches, starting at the checkpoint's step.
    pub train: Loader,
    /// Validation batches, on the device without autodiff.
    pub valid: Loader,
    /// SHA-256 of the training and the validation data.
    pub fingerprint: String,
    /// The checkpoint to continue from.
    pub resume: Option<checkpoint::Reader>,
    /// Set from a signal handler to stop after the current step.
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

impl Training<'_> {
    /// Trains until the recipe's end, an interruption or an error.
    ///
    /// # Errors
    ///
    /// [`Error::Diverged`] if the loss or a gradient is not finite; else what went wrong with data,
    /// files or the device.
    pub fn run(self) -> Result<Finished> {
        let Self { recipe, dir, .. } = self;
        let steps_per_epoch = self.train.batches_per_epoch();
        let dials = Dials::default();
        let mut parts = Parts {
            model: Learnable::new(self.network, recipe),
            optimizer: optim::build(recipe, &dials),
            schedule: Schedule::new(recipe, steps_per_epoch, dials),
            device: self.device.clone(),
            updated: None,
            replicas: match self.devices.len() {
                0 | 1 => None,
                _ => Some(Replicas::new(&self.devices)?),
            },
        };
        let mut state = State::default();
        if let Some(reader) = &self.resume {
            state = reader.state()?;
            parts.optimizer = parts.optimizer.load_record(reader.optimizer()?);
            parts.schedule.load_record(reader.scheduler()?);
        }
        if recipe.dtype == DType::F16 {
            state.loss_scale.get_or_insert_default();
        }
        state.recipe = recipe.fingerprint();
        state.data = self.fingerprint;
        let network = &parts.model.network;
        let parameters = network.parameter_count();
        let gates = network.alphas().iter().map(|(_, a)| a.len()).sum();
        let writer = checkpoint::Writer::new(dir, recipe.model_id(), parameters, recipe.keep);
        let rows = metrics::Writer::open(dir, state.metrics_bytes)?;

        let (begun, device) = (state.step, self.device.clone());
        let outcome = Arc::new(Mutex::new(None));
        let steps = recipe.epochs * steps_per_epoch;
        let strategy = Loop {
            recipe: recipe.clone(),
            devices: match self.devices.is_empty() {
                true => vec![self.device.clone()],
                false => self.devices,
            },
            steps_per_epoch,
            steps: match recipe.steps {
                0 => steps,
                limit => steps.min(limit),
            },
            start: Mutex::new(Some((state, rows, writer, parts))),
            outcome: outcome.clone(),
        };

        let renderer: Box<dyn MetricsRenderer> = if self.plain {
            Box::new(PlainRenderer::new(
                begun / steps_per_epoch + 1,
                recipe.is_text().then_some(recipe.batch),
            ))
        } else {
            let renderer = default_renderer(self.interrupter.clone(), None);
            terminal::keep_ctrl_c();
            renderer
        };
        let mut training = SupervisedTraining::new(dir, Arc::new(self.train), Arc::new(self.valid))
            .num_epochs(recipe.epochs)
            .with_interrupter(self.interrupter)
            .with_application_logger(None)
            .with_metric_logger(NoLog)
            .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
            .renderer(renderer);
        let (values, speed) = match recipe.is_text() {
            true => (
                &[Value::Loss, Value::Bits, Value::Accuracy][..],
                "Bytes per second",
            ),
            false => (&[Value::Loss, Value::Accuracy][..], "Images per second"),
        };
        for value in values {
            training = training
                .metric_train_numeric(Number::new(*value))
                .metric_valid_numeric(Number::new(*value));
        }
        training = training
            .metric_train_numeric(LearningRateMetric::new())
            .metric_train_numeric(Number::new(Value::GradNorm))
            .metric_train_numeric(Number::new(Value::Speed(speed)));
        if gates > 0 {
            training = training.metric_train_numeric(Number::new(Value::MeanAlpha));
        }
        if gates <= SHOWN_ALPHAS {
            for i in 0..gates {
                training = training.metric_train_numeric(Number::new(Value::Alpha(i)));
            }
        }

        // Burn's Learner keeps a model and an optimizer to itself and updates a clone of the model, which
        // copies all weights in each step. It gets stand-ins; the loop has the real ones.
        let dials = Dials::default();
        let stand_in = Learner::new(
            Learnable::stand_in(&device),
            optim::build(recipe, &dials),
            ModuleLrScheduler::new(Schedule::new(recipe, 1, dials)),
        );
        let result = training.launch(stand_in);
        if let Some(error) = result.error {
            return Err(Error::Training(error.to_string()));
        }
        let taken = outcome.lock().unwrap_or_else(|e| e.into_inner()).take();
        taken.unwrap_or_else(|| Err(Error::Training("the loop did not run".to_owned())))
    }
}

type Start = (State, metrics::Writer, checkpoint::Writer, Parts);

/// What a run trains.
struct Parts {
    model: Learnable,
    optimizer: ModuleOptimizer,
    schedule: Schedule,
    device: Device,
    /// The learning rate of a step whose update is done.
    updated: Option<f64>,
    /// The network on several devices.
    replicas: Option<Replicas>,
}

impl Parts {
    fn save(
        &self,
        writer: &checkpoint::Writer,
        state: &mut State,
        rows: &mut metrics::Writer,
    ) -> Result<()> {
        state.metrics_bytes = rows.sync()?;
        // Makes batch norm write back the statistics of its last update.
        let network = self.model.valid().network;
        let optimizer = || self.optimizer.to_record();
        writer.save(state, network, optimizer, self.schedule.to_record())
    }

    /// A step's results and gradients, or nothing of these where it has updated the parameters itself.
    fn gradients(&mut self, batch: Batch) -> Result<TrainOutput<StepOutput>> {
        if let Some(replicas) = &self.replicas {
            return replicas.step(&self.model, batch);
        }
        if !self.model.updates_by_segments() {
            return Ok(TrainStep::step(&self.model, batch));
        }
        let lr = self.schedule.step();
        let model = std::mem::replace(&mut self.model, Learnable::stand_in(&self.device));
        let (model, item) = model.step_by_segments(batch, &mut self.optimizer, lr);
        (self.model, self.updated) = (model, Some(lr));
        Ok(TrainOutput {
            grads: GradientsParams::new(),
            item,
        })
    }

    /// Takes an optimizer step and gives its learning rate. The parameters have no other owner, so that they are updated where
    /// they are.
    fn step(&mut self, grads: GradientsParams) -> f64 {
        if let Some(lr) = self.updated.take() {
            return lr;
        }
        let lr = self.schedule.step();
        let model = std::mem::replace(&mut self.model, Learnable::stand_in(&self.device));
        self.model = self.optimizer.step(lr, model, grads);
        lr
    }
}

struct Loop {
    recipe: Recipe,
    devices: Vec<Device>,
    steps_per_epoch: usize,
    /// The run's last step.
    steps: usize,
    /// Taken by `fit`, which burn calls through a shared reference.
    start: Mutex<Option<Start>>,
    outcome: Arc<Mutex<Option<Result<Finished>>>>,
}

/// The parts of burn's components that the loop talks to.
struct Burn {
    events: SupervisedTrainingEventProcessor<Learnable>,
    interrupter: Interrupter,
}

impl SupervisedLearningStrategy<Learnable> for Loop {
    fn fit(
        &self,
        components: TrainingComponents<Learnable>,
        learner: Learner<Learnable>,
        train: TrainLoader<Learnable>,
        valid: ValidLoader<Learnable>,
        _starting_epoch: usize,
    ) -> (Learnable, SupervisedTrainingEventProcessor<Learnable>) {
        let mut burn = Burn {
            events: components.event_processor,
            interrupter: components.interrupter,
        };
        let start = self.start.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(start) = start {
            let outcome = self.train_steps(&mut burn, start, &train, &valid);
            *self.outcome.lock().unwrap_or_else(|e| e.into_inner()) = Some(outcome);
        }
        (learner.model(), burn.events)
    }
}

impl Loop {
    fn train_steps(
        &self,
        burn: &mut Burn,
        (mut state, mut rows, writer, mut parts): Start,
        train: &TrainLoader<Learnable>,
        valid: &ValidLoader<Learnable>,
    ) -> Result<Finished> {
        let recipe = &self.recipe;
        let begun = Instant::now();
        let first = state.step;
        let mut warm_up = None;
        // An interruption skips a validation that was due, so that it stops at once.
        let validated = state.valid.is_some_and(|valid| valid.step == state.step);
        if self.validation_due(state.step) && !validated {
            let epoch = state.step.div_ceil(self.steps_per_epoch);
            if !self.validate(
                burn, &parts, &mut state, &mut rows, &writer, valid, epoch, begun,
            )? {
                return Ok(Finished {
                    state,
                    interrupted: true,
                    seconds: begun.elapsed().as_secs_f64(),
                });
            }
        }
        while state.step < self.steps {
            let epoch = state.step / self.steps_per_epoch + 1;
            burn.start_split(epoch, train.num_items());
            let mut batches = train.iter();
            let mut last = Instant::now();
            while let Some(batch) = batches.next() {
                let mut batch = batch.map_err(|e| Error::Training(e.to_string()))?;
                // Random draws inside a step are a function of (seed, step), so that a resumed run
                // repeats them.
                batch.seed = mix(recipe.seed, state.step as u64);
                batch.loss_scale = state.loss_scale.map_or(1.0, |scale| scale.factor);
                for device in &self.devices {
                    device.seed(batch.seed);
                }
                let mut output = parts.gradients(batch)?;
                output.item.read();
                let stats = &mut output.item.stats;
                let finite = stats.grad_norm.is_finite();
                // A factor of the loss that is too large costs a step, and no more.
                let skipped = !finite && state.loss_scale.is_some_and(LossScale::can_fall);
                if !(stats.loss().is_finite() && (finite || skipped)) {
                    return Err(diverged(&parts, &state, *stats, &output.grads));
                }
                state.loss_scale = state.loss_scale.map(|scale| scale.next(finite));
                let lr = match skipped {
                    true => parts.schedule.step(),
                    false => parts.step(output.grads),
                };
                state.step += 1;

                let took = last.elapsed().as_secs_f64();
                last = Instant::now();
                stats.items_per_s = match state.step - first {
                    0..=WARM_UP => f64::NAN,
                    _ => stats.items as f64 / took,
                };
                if state.step - first <= WARM_UP {
                    *warm_up.get_or_insert(0.0) += took;
                }
                state.loss_sum += stats.loss_sum;
                state.correct += stats.correct;
                state.items += stats.items;
                let end = state.step == self.steps;
                if state.step.is_multiple_of(recipe.log_every) || end {
                    let gates = parts.model.network.alphas();
                    output.item.alphas = gates.into_iter().flat_map(|(_, alpha)| alpha).collect();
                    rows.write(&Row {
                        split: "train".to_owned(),
                        step: state.step,
                        epoch,
                        loss: state.loss_sum / state.items as f64,
                        bpb: self.bpb(state.loss_sum / state.items as f64),
                        accuracy: state.correct / state.items as f64,
                        items: state.items,
                        lr: Some(lr),
                        grad_norm: Some(output.item.stats.grad_norm)
                            .filter(|norm| norm.is_finite()),
                        layer_grad_norm: output.item.layer_norms(),
                        alpha: output.item.alphas.clone(),
                        items_per_s: Some(output.item.stats.items_per_s).filter(|s| s.is_finite()),
                        warm_up_s: warm_up.take_if(|_| state.step - first >= WARM_UP || end),
                        seconds: begun.elapsed().as_secs_f64(),
                    })?;
                    (state.loss_sum, state.correct, state.items) = (0.0, 0.0, 0);
                }
                burn.report_train(TrainingItem::new(
                    output.item,
                    batches.progress(),
                    Some(state.step),
                    Some(lr.into()),
                ))?;

                let mut stop = burn.interrupter.should_stop();
                let last_of_epoch = state.step.is_multiple_of(self.steps_per_epoch);
                let mid_epoch = !last_of_epoch && !end && !stop;
                if mid_epoch && self.validation_due(state.step) {
                    stop = !self.validate(
                        burn, &parts, &mut state, &mut rows, &writer, valid, epoch, begun,
                    )?;
                    burn.start_split(epoch, train.num_items());
                    last = Instant::now();
                }
                if mid_epoch && !stop && due(recipe.checkpoint_every, state.step) {
                    parts.save(&writer, &mut state, &mut rows)?;
                    last = Instant::now();
                }
                if end || stop {
                    break;
                }
            }
            drop(batches);
            burn.event(LearnerEvent::EndSplit(epoch))?;

            let end = state.step == self.steps;
            let mut interrupted = burn.interrupter.should_stop() && !end;
            if !interrupted && self.validation_due(state.step) {
                interrupted = !self.validate(
                    burn, &parts, &mut state, &mut rows, &writer, valid, epoch, begun,
                )?;
            }
            burn.event(LearnerEvent::EndEpoch(epoch))?;
            if interrupted || end || due(recipe.checkpoint_every, state.step) {
                parts.save(&writer, &mut state, &mut rows)?;
            }
            if interrupted || end {
                return Ok(Finished {
                    state,
                    interrupted,
                    seconds: begun.elapsed().as_secs_f64(),
                });
            }
        }
        Ok(Finished {
            state,
            interrupted: false,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    /// A mean loss as bits per byte, where it is one of text.
    fn bpb(&self, loss: f64) -> Option<f64> {
        self.recipe.is_text().then(|| bits(loss))
    }

    fn validation_due(&self, step: usize) -> bool {
        match self.recipe.eval_every {
            _ if step == 0 => false,
            _ if step == self.steps => true,
            0 => step.is_multiple_of(self.steps_per_epoch),
            every => step.is_multiple_of(every),
        }
    }

    /// Runs over the validation split on the device without autodiff, so that batch norm keeps its
    /// statistics and no graph is built. False if it was interrupted, which leaves it undone.
    #[allow(clippy::too_many_arguments)]
    fn validate(
        &self,
        burn: &mut Burn,
        parts: &Parts,
        state: &mut State,
        rows: &mut metrics::Writer,
        writer: &checkpoint::Writer,
        loader: &ValidLoader<Learnable>,
        epoch: usize,
        begun: Instant,
    ) -> Result<bool> {
        let started = Instant::now();
        let model = parts.model.valid();
        burn.event_valid(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items: loader.num_items(),
        })?;
        let mut total = Stats::default();
        let mut batches = loader.iter();
        while let Some(batch) = batches.next() {
            let batch = batch.map_err(|e| Error::Training(e.to_string()))?;
            let mut output = InferenceStep::step(&model, batch);
            output.read();
            total.add(&output.stats);
            let item = TrainingItem::new(output, batches.progress(), None, None);
            burn.event_valid(LearnerEvent::ProcessedItem(item))?;
            if burn.interrupter.should_stop() {
                burn.event_valid(LearnerEvent::EndSplit(epoch))?;
                return Ok(false);
            }
        }
        burn.event_valid(LearnerEvent::EndSplit(epoch))?;
        if !total.loss().is_finite() {
            return Err(Error::Diverged {
                step: state.step,
                message: format!(
                    "validation loss {}, while the training loss is finite{}; {}; try a lower lr \
                     or warmup_epochs=1",
                    total.loss(),
                    match self.recipe.is_text() {
                        true => "",
                        false =>
                            ": batch norm's running statistics have not caught up with weights \
                                  that move fast",
                    },
                    diagnose(&model.network, &GradientsParams::new())
                ),
            });
        }
        rows.write(&Row {
            split: "valid".to_owned(),
            step: state.step,
            epoch,
            loss: total.loss(),
            bpb: self.bpb(total.loss()),
            accuracy: total.accuracy(),
            items: total.items,
            lr: None,
            grad_norm: None,
            layer_grad_norm: Vec::new(),
            alpha: Vec::new(),
            items_per_s: Some(total.items as f64 / started.elapsed().as_secs_f64()),
            warm_up_s: None,
            seconds: begun.elapsed().as_secs_f64(),
        })?;
        let score = Score {
            step: state.step,
            accuracy: total.accuracy(),
            loss: total.loss(),
        };
        state.valid = Some(score);
        let by_loss = self.recipe.is_text();
        let best = state
            .best
            .is_none_or(|best| score.better_than(&best, by_loss));
        let target = self.recipe.target_bpb;
        if by_loss && state.target_step.is_none() && total.bits() <= target {
            state.target_step = Some(state.step);
        }
        if best {
            state.best = Some(score);
        }
        // The best is only worth naming if it can be had.
        if best || self.recipe.checkpoint_every == 0 {
            parts.save(writer, state, rows)?;
        }
        Ok(true)
    }
}

fn diverged(parts: &Parts, state: &State, stats: Stats, grads: &GradientsParams) -> Error {
    Error::Diverged {
        step: state.step + 1,
        message: format!(
            "loss {}, gradient norm {}; {}; try a lower lr, warmup_epochs=1, clip_norm=1 or \
             alpha_optimizer=adagrad",
            stats.loss(),
            stats.grad_norm,
            diagnose(&parts.model.network, grads)
        ),
    }
}

type ValidEvent = LearnerEvent<crate::model::StepOutput>;

impl Burn {
    fn start_split(&mut self, epoch_number: usize, total_items: usize) {
        let event = LearnerEvent::StartSplit {
            epoch_number,
            total_items,
        };
        self.interrupter
            .fail_on_error(self.events.process_train(event));
    }

    fn report_train(&mut self, item: TrainingItem<crate::model::StepOutput>) -> Result<()> {
        self.event(LearnerEvent::ProcessedItem(item))
    }

    fn event(&mut self, event: LearnerEvent<crate::model::StepOutput>) -> Result<()> {
        self.events
            .process_train(event)
            .map_err(|e| Error::Training(e.to_string()))
    }

    fn event_valid(&mut self, event: ValidEvent) -> Result<()> {
        self.events
            .process_valid(event)
            .map_err(|e| Error::Training(e.to_string()))
    }
}

fn due(every: usize, step: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}

mod terminal {
    //! Burn's terminal interface puts the terminal in raw mode, where Ctrl-C is a key that it does
    //! not listen to.

    /// Lets Ctrl-C raise a signal again once the interface is up.
    #[cfg(unix)]
    pub fn keep_ctrl_c() {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        use std::io::IsTerminal;
        use std::time::Duration;

        if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            return;
        }
        // The interface starts on a thread of its own and does not say when it is ready.
        std::thread::spawn(|| {
            for _ in 0..50 {
                std::thread::sleep(Duration::from_millis(100));
                let stdin = std::io::stdin();
                let Ok(mut modes) = tcgetattr(&stdin) else {
                    return;
                };
                if !modes.local_modes.contains(LocalModes::ISIG) {
                    modes.local_modes |= LocalModes::ISIG;
                    let _ = tcsetattr(&stdin, OptionalActions::Now, &modes);
                    return;
                }
            }
        });
    }

    /// Other systems keep their way of ending a process.
    #[cfg(not(unix))]
    pub fn keep_ctrl_c() {}
}
