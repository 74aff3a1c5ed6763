//! A run as a learning strategy of Burn's Learner.

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::module::Module;
use burn::optim::lr_scheduler::LrScheduler;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::tensor::Device;
use burn::train::renderer::{MetricsRenderer, default_renderer};
use burn::train::{
    Interrupter, Learner, SupervisedLearningStrategy, SupervisedTraining,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingStrategy,
    ValidLoader,
};

use super::average::Average;
use super::captured::Capturing;
use super::devices::Replicas;
use super::exchange;
use super::model::Model;
use super::progress::{Extent, PlainRenderer};
use super::schedule::{Rates, Scheduler};
use super::session::{Files, Moving, Plan, Session, Start};
use super::shown::{self, NoLog};
use super::source::{Cut, Loader, Source};
use super::step::Trainee;
use super::task::Task;
use super::{optimizer, terminal};
use rezero_kernels::can_overwrite;

use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::recipe::{DType, Settings};
use crate::record::{Reader, State, checkpoint, metrics};

/// A model, its data and its settings, ready to be trained.
pub(crate) struct Fit<'a, M, T, V> {
    pub settings: &'a Settings,
    pub task: Task,
    /// The run directory. Rank 0 alone writes into it.
    pub dir: &'a Path,
    /// The model, on the first device, with the weights to begin from.
    pub model: M,
    /// The devices that compute a step, with autodiff. The first device holds the parameters.
    pub devices: Vec<Device>,
    /// Training batches.
    pub train: T,
    /// Validation batches.
    pub valid: V,
    /// The number of passes over the training batches.
    pub epochs: usize,
    /// The text that identifies the model in its checkpoints.
    pub identity: String,
    /// SHA-256 of the recipe without `[run]`, and of the data.
    pub fingerprints: [String; 2],
    /// The checkpoint to continue from.
    pub start: Option<Reader>,
    /// Set to stop after the current step.
    pub interrupter: Interrupter,
    /// Lines instead of the terminal interface.
    pub plain: bool,
    /// The processes that compute each step.
    pub ranks: Ranks,
    /// Whether batch norms take the statistics of all of them, see [`exchange::may_synchronise`].
    pub synchronised: bool,
    /// What continues the run, in words for its user.
    pub resume: String,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The state at the end.
    pub state: State,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Whether it was stopped by `run.patience`.
    pub early: bool,
    /// Wall time of training in this process, in seconds.
    pub seconds: f64,
    /// Steps of this process that were replays of a captured one.
    pub replayed: usize,
}

impl<M, T, V> Fit<'_, M, T, V>
where
    M: Model,
    T: Source<Batch = M::Batch>,
    V: Source<Batch = M::Batch>,
{
    /// Whether a step may be captured, if the optimizer allows it too.
    pub fn may_capture(&self) -> bool {
        let train = &self.settings.train;
        let simple = !train.recompute && train.accumulate == 1 && train.dtype != DType::F16;
        let alone = self.devices.len() == 1 && self.ranks.size() == 1;
        let device = self.devices.first().map(|device| device.clone().inner());
        self.settings.run.capture && simple && alone && device.is_some_and(|d| can_overwrite(&d))
    }

    /// Trains until the end of the recipe, an interruption or an error.
    ///
    /// # Errors
    ///
    /// [`Error::Diverged`] if the loss or a gradient is not finite. Else the error of the data, the
    /// files or the device.
    pub fn run(self) -> Result<Finished> {
        let may_capture = self.may_capture();
        let Self {
            settings, epochs, ..
        } = self;
        let Some(device) = self.devices.first().cloned() else {
            return Err(Error::Training("no device".to_owned()));
        };
        let steps_per_epoch = self.train.batches_per_epoch();
        let rates = Rates::default();
        let trainee = Trainee::new(self.model, &settings.train);
        let (optimizer, rules) =
            optimizer::build_with_rules(&settings.optimizer, &settings.gates, &rates, &trainee);
        let mut moving = Moving {
            optimizer,
            capturing: rules
                .filter(|_| may_capture)
                .map(|rules| Capturing::new(rules, &device)),
            schedule: Scheduler::new(settings, steps_per_epoch, epochs, rates),
            average: (settings.train.ema > 0.0).then(|| Average::new(settings.train.ema, None)),
            replicas: match self.devices.len() {
                1 => None,
                _ => Some(Replicas::new(&self.devices)?),
            },
        };
        let mut state = State::default();
        if let Some(reader) = &self.start {
            state = reader.state()?;
            moving.optimizer = moving.optimizer.load_record(reader.optimizer(&trainee)?);
            moving.schedule.load_record(reader.scheduler()?);
            if let (Some(average), Some(record)) = (&mut moving.average, reader.average()?) {
                let model = trainee.valid().model.with_weights(record);
                let model = model.map_err(|e| reader.unfit_average(e))?;
                *average = Average::new(settings.train.ema, Some(model));
            }
        }
        if settings.train.dtype == DType::F16 {
            state.loss_scale.get_or_insert_default();
        }
        // A changed target has not been reached yet.
        let target = settings.run.target;
        state.reached = state.reached.filter(|reached| reached.target == target);
        [state.recipe, state.data] = self.fingerprints;
        let parameters = rezero_nn::parameter_count(&trainee.model);
        let gates = trainee.model.gates();
        let gates = gates.iter().map(|gate| gate.effective.len()).sum();
        let open = || -> Result<Files> {
            let (dir, run) = (self.dir, &settings.run);
            Ok(Files {
                checkpoints: checkpoint::Writer::new(dir, self.identity, parameters, run.keep),
                rows: metrics::Writer::open(dir, state.metrics_bytes, run.tensorboard)?,
            })
        };
        let files = self.ranks.leads().then(open).transpose();
        let files = self.ranks.agree(files)?;
        exchange::must_be_alike(&self.ranks, &trainee.valid().model)?;

        let steps = settings.run.last_step(epochs * steps_per_epoch);
        let renderer: Box<dyn MetricsRenderer> = if self.plain {
            let extent = Extent {
                first: state.step,
                steps,
                steps_per_epoch,
                rows_per_step: settings.train.batch,
                // Text has one epoch.
                counts_steps: epochs == 1 && settings.run.steps == steps_per_epoch,
                averages: settings.train.ema > 0.0,
            };
            Box::new(PlainRenderer::new(extent))
        } else {
            terminal::survive_its_end();
            let renderer = default_renderer(self.interrupter.clone(), None);
            terminal::drawn();
            renderer
        };
        let cursor = Arc::new(AtomicUsize::new(state.step));
        let ranks = || self.ranks.clone();
        let train = Loader::new(
            self.train,
            device.clone(),
            cursor.clone(),
            ranks(),
            Cut::Rows,
        );
        let inner = device.clone().inner();
        let valid = Loader::new(self.valid, inner, Arc::default(), ranks(), Cut::Batches);
        let outcome = Arc::new(Mutex::new(None));
        let (in_both, in_training) = (
            shown::of_both(&self.task),
            shown::of_training(&self.task, gates),
        );
        let strategy = Strategy {
            start: Mutex::new(Some(Start {
                plan: Plan {
                    settings: settings.clone(),
                    task: self.task,
                    devices: self.devices,
                    synchronised: self.synchronised && self.ranks.size() > 1,
                    ranks: self.ranks,
                    steps_per_epoch,
                    steps,
                    cursor,
                },
                moving,
                state,
                files,
                from: self.start.map(|reader| (reader, false)),
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
        // The learner would be a second owner of the model, and every update would then copy the
        // weights.
        drop(learner);
        let start = self.start.lock().unwrap_or_else(|e| e.into_inner()).take();
        let Some(start) = start else {
            return (trainee, components.event_processor);
        };
        let gates = trainee.model.gates().into_iter();
        let ranks = start.plan.ranks.clone();
        let mut session = Session {
            alphas: gates.flat_map(|gate| gate.effective).collect(),
            first: start.state.step,
            start,
            trainee: Some(trainee),
            events: components.event_processor,
            interrupter: components.interrupter,
            begun: Instant::now(),
            last: Instant::now(),
            warm_up: None,
            stop: false,
            replayed: 0,
            logged: (ranks.traffic(), Instant::now()),
        };
        let outcome = session.run(&train, &valid);
        let finished = outcome.map(|interrupted| Finished {
            state: session.start.state.clone(),
            interrupted,
            early: session.stops_early(),
            seconds: session.begun.elapsed().as_secs_f64(),
            replayed: session.replayed,
        });
        *self.outcome.lock().unwrap_or_else(|e| e.into_inner()) = Some(finished);
        let trainee = session.trainee.take();
        (trainee.expect("every step puts it back"), session.events)
    }
}
