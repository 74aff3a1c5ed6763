//! A run of a module: from settings to a run directory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use burn::train::Interrupter;

use super::exchange;
use super::freeze::check_freeze;
use super::model::Model;
use super::optimizer::hidden_matrices;
use super::source::Source;
use super::stop::{OnTerm, on_signal};
use super::strategy::{Finished, Fit};
use super::task::Task;
use super::{STACK_BYTES, memory, terminal};
use crate::device;
use crate::device::panics::Listener;
use crate::device::trouble::{beginning, is_lost};
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::recipe::{GateOptimizer, Gates, Optimizer, Settings, fingerprint, must_be_same};
use crate::record::{Environment, NewRun, Opening, Reader, checkpoint, run_dir};

/// Trains your own module on your own data. The run directory has metrics and checkpoints, the run
/// resumes exactly, and `rezero report` can show it.
///
/// ```no_run
/// use burn::data::dataset::InMemDataset;
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use rezero_train::fit::{DatasetSource, Model, Sums, Task, Trainer};
/// use rezero_train::recipe::Settings;
///
/// #[derive(Module, Debug)]
/// struct Line {
///     linear: Linear,
/// }
///
/// impl Model for Line {
///     type Batch = (Tensor<2>, Tensor<2>);
///
///     fn loss(&self, (x, y): &Self::Batch) -> Sums {
///         Sums::new((self.linear.forward(x.clone()) - y.clone()).square().sum())
///     }
/// }
///
/// # fn main() -> rezero_train::error::Result<()> {
/// let settings = Settings::parse("[train]\nbatch = 4\n[run]\nepochs = 2")?;
/// let numbers = || InMemDataset::new((0..100).map(|i| i as f32 / 100.0).collect());
/// let batch = |x: Vec<f32>, device: &Device| {
///     let x = Tensor::<1>::from_floats(x.as_slice(), device).unsqueeze_dim(1);
///     (x.clone(), x * 3.0)
/// };
/// let train = DatasetSource::training(numbers(), &settings, batch);
/// let valid = DatasetSource::scoring(numbers(), &settings, batch);
/// let finished = Trainer::new("runs/line", settings, Task::new("numbers")).fit(
///     |device| Line { linear: LinearConfig::new(1, 1).init(device) },
///     train,
///     valid,
/// )?;
/// assert_eq!(finished.state.step, 50);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Trainer {
    dir: PathBuf,
    settings: Settings,
    task: Task,
    model: toml::Table,
    data: [String; 2],
    resume: bool,
    plain: bool,
    interrupter: Option<Interrupter>,
    ranks: Ranks,
    synchronised: bool,
}

impl Trainer {
    /// A run in the directory `dir` with these settings.
    pub fn new(dir: impl AsRef<Path>, settings: Settings, task: Task) -> Self {
        Self {
            dir: dir.as_ref().to_owned(),
            settings,
            task,
            model: toml::Table::new(),
            data: Default::default(),
            resume: false,
            interrupter: None,
            ranks: Ranks::alone(),
            synchronised: false,
            plain: !terminal::can_draw(),
        }
    }

    /// Adds a key to the run's `[model]` section, such as `depth`. A report distinguishes runs by
    /// these keys, and the value of `scheme` names an arm.
    #[must_use]
    pub fn with_model(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.model.insert(key.to_owned(), value.into());
        self
    }

    /// Sets the name of the data and a fingerprint of its content. A run is continued only on the
    /// same data.
    #[must_use]
    pub fn with_data(mut self, name: &str, fingerprint: &str) -> Self {
        self.data = [name.to_owned(), fingerprint.to_owned()];
        self
    }

    /// Whether to continue the run in the directory, if there is one.
    #[must_use]
    pub fn with_resume(self, resume: bool) -> Self {
        Self { resume, ..self }
    }

    /// Sets the interrupter that stops the run after a step, with a checkpoint. Without it, the
    /// first Ctrl-C or SIGTERM stops the run, and the handler of these signals is set for the whole
    /// process.
    #[must_use]
    pub fn with_interrupter(self, interrupter: Interrupter) -> Self {
        Self {
            interrupter: Some(interrupter),
            ..self
        }
    }

    /// Whether to print lines of progress instead of the terminal interface.
    #[must_use]
    pub fn with_plain(self, plain: bool) -> Self {
        Self { plain, ..self }
    }

    /// Sets the processes that compute each step together: [`Ranks::join`], in a program that mpirun has started.
    /// Rank 0 alone reads and writes the run directory. Hand an error of [`fit`](Self::fit) to [`Ranks::end`], which
    /// ends the other processes too.
    #[must_use]
    pub fn with_ranks(self, ranks: Ranks) -> Self {
        Self { ranks, ..self }
    }

    /// Whether batch norms that are computed by `rezero_kernels` take mean and variance over the batches of all processes instead of
    /// their own. Needs Flex, `train.accumulate = 1` and no recomputation. Default: false
    #[must_use]
    pub fn with_synchronised_batch_norm(self, synchronised: bool) -> Self {
        Self {
            synchronised,
            ..self
        }
    }

    /// Trains the model that `init` makes, for the epochs or steps of the settings. `init` gets the
    /// device of `run.device`, seeded with `train.seed`. A complete run is left unchanged.
    ///
    /// # Errors
    ///
    /// If the directory holds a run and `with_resume` is not set, or that run has other settings
    /// (except `[run]`), other data or another model. [`Error::Diverged`] if the loss or a gradient
    /// is not finite. Else the error of the data, the files or the device.
    pub fn fit<M, T, V>(
        self,
        init: impl FnOnce(&Device) -> M + Send,
        train: T,
        valid: V,
    ) -> Result<Finished>
    where
        M: Model,
        T: Source<Batch = M::Batch>,
        V: Source<Batch = M::Batch>,
    {
        on_a_big_stack(|| self.fit_here(init, train, valid))
    }

    fn fit_here<M, T, V>(
        self,
        init: impl FnOnce(&Device) -> M,
        train: T,
        valid: V,
    ) -> Result<Finished>
    where
        M: Model,
        T: Source<Batch = M::Batch>,
        V: Source<Batch = M::Batch>,
    {
        let settings = &self.settings;
        settings.check()?;
        self.ranks.must_have_rows(settings.train.batch)?;
        for (key, value) in &self.model {
            let plain = match value {
                toml::Value::Table(_) | toml::Value::Array(_) => false,
                toml::Value::Float(number) => number.is_finite(),
                _ => true,
            };
            if !plain {
                return Err(Error::RecipeValue {
                    key: format!("model.{key}"),
                    message: format!(
                        "must be a text, a finite number, a date or a truth value, got {value}"
                    ),
                });
            }
        }
        let local = device::of_rank(&settings.run.device, self.ranks.local_rank());
        let devices = device::for_training(&local, settings.train.dtype)?;
        let Some(device) = devices.first().cloned() else {
            return Err(Error::Training("no device".to_owned()));
        };
        let model = &self.model;
        let name = std::any::type_name::<M>();
        let words = model.iter().map(|(key, value)| format!(" {key}={value}"));
        let identity = format!("{name}{}", words.collect::<String>());
        let mut sections = settings.to_tables();
        if !model.is_empty() {
            sections.insert("model", model.clone());
        }
        let ranks = &self.ranks;
        let exists = self.resume && self.dir.join("recipe.toml").exists();
        let place = NewRun::At(self.dir.clone());
        let opening = ranks.open(place.clone(), &identity, || match exists {
            true => {
                let (_, saved) = run_dir::recipe(&self.dir)?;
                must_be_same(&self.dir, &saved, &sections, settings, false)?;
                Opening::resume(&self.dir, &identity)
            }
            false => Ok(Opening::new(place)),
        })?;
        let [data, print] = &self.data;
        let fingerprints = [fingerprint(&sections, settings), print.clone()];
        ranks.same(&[("recipe", &fingerprints[0]), ("data", &fingerprints[1])])?;
        opening.continues([&fingerprints[0], &fingerprints[1]])?;
        let per_epoch = train.batches_per_epoch();
        let steps = settings.run.last_step(settings.run.epochs * per_epoch);
        settings.schedule.must_fit(per_epoch, steps)?;
        opening.must_reach(steps)?;
        let early = settings.run.stops_after(opening.state.stale);
        let is_complete = opening.is_done() && (opening.state.step >= steps || early);
        if ranks.of_first(ranks.leads().then_some(&is_complete))? {
            return Ok(Finished {
                state: opening.state,
                interrupted: false,
                early,
                seconds: 0.0,
                replayed: 0,
            });
        }
        device.seed(settings.train.seed);
        let mut model = rezero_nn::initialized(init(&device));
        may_train(&model, settings)?;
        if self.synchronised {
            exchange::of_whole_batches(&settings.train)?;
            exchange::may_synchronise(&model, &devices, &self.ranks)?;
        }
        if let Some(reader) = &opening.start {
            model = load(reader, model)?;
        }
        let environment = Environment {
            device: device::in_words(&devices),
            data: data.clone(),
            parameters: rezero_nn::parameter_count(&model),
            task: Some(self.task.described()),
            ranks: ranks.described(&devices)?,
            ..Environment::here(opening.before.clone())
        };
        let start = opening.start.clone();
        let text = crate::recipe::text(&sections);
        let title = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let begin = || opening.begin(&title, &text, settings.train.seed, &environment);
        let run = ranks.agree(ranks.leads().then(begin).transpose())?;
        let finished = launch(Fit {
            settings,
            task: self.task.clone(),
            dir: &self.dir,
            model,
            devices,
            train,
            valid,
            epochs: settings.run.epochs,
            identity,
            fingerprints,
            start,
            interrupter: self
                .interrupter
                .clone()
                .unwrap_or_else(|| on_signal(OnTerm::default())),
            plain: self.plain,
            ranks: self.ranks.clone(),
            synchronised: self.synchronised,
            resume: "the same program, with Trainer::with_resume(true)".to_owned(),
        })?;
        if let (false, Some(run)) = (finished.interrupted, run) {
            run.done(&self.task.summary(&settings.run, &finished))?;
        }
        Ok(finished)
    }
}

/// Refuses settings that have no effect on the model: a user would rely on them.
fn may_train<M: Model>(model: &M, settings: &Settings) -> Result<()> {
    let bad = |key: &str, message: &str| {
        Err(Error::RecipeValue {
            key: key.to_owned(),
            message: message.to_owned(),
        })
    };
    if !settings.train.from.is_empty() {
        return bad(
            "train.from",
            "has no effect: the program makes its model, and may load weights into it",
        );
    }
    check_freeze(model, settings)?;
    if settings.train.recompute && !settings.train.freeze.is_empty() {
        return bad(
            "train.freeze",
            "cannot be combined with recompute=true, where a model may be updated while its gradients come",
        );
    }
    if settings.train.dtype.half().is_some() && !M::HALF {
        return bad(
            "train.dtype",
            "the model does not say that its products take weights in half precision, see Model::HALF",
        );
    }
    if settings.train.recompute && !model.recomputes() {
        return bad(
            "train.recompute",
            "has no effect: the model keeps its activations",
        );
    }
    if let Optimizer::Muon(_) = settings.optimizer
        && hidden_matrices(model).is_empty()
    {
        return bad(
            "optimizer.kind",
            "muon updates matrices of residual layers, which are in a field `layers` or `blocks` of the \
             model, and it has none; choose optimizer=adamw",
        );
    }
    let gates = Gates {
        alpha_optimizer: settings.gates.alpha_optimizer,
        alpha_lr: settings.gates.alpha_lr,
        alpha_weight_decay: settings.gates.alpha_weight_decay,
        ..Gates::default()
    };
    if settings.gates != gates {
        return bad(
            "gates.alpha_init",
            "has no effect, nor have alpha_per_channel, alpha_trainable, alpha_shared and alpha_bound: the \
             model makes its own gates",
        );
    }
    let own = settings.gates.alpha_optimizer != GateOptimizer::Shared;
    if own && model.gates().is_empty() {
        return bad(
            "gates.alpha_optimizer",
            "has no effect: the model has no gate",
        );
    }
    Ok(())
}

/// `model` with a checkpoint's weights.
///
/// # Errors
///
/// If the checkpoint is damaged, or of another model.
pub fn load<M: Model>(checkpoint: &Reader, model: M) -> Result<M> {
    checkpoint.fits(&model)?;
    let weights = checkpoint.weights()?;
    model.with_weights(weights).map_err(|e| checkpoint.unfit(e))
}

/// `model` with the average of a checkpoint's weights, which validation has scored, if its run keeps one
/// (`train.ema`); else with its weights.
///
/// # Errors
///
/// As [`load`].
pub fn load_average<M: Model>(checkpoint: &Reader, model: M) -> Result<M> {
    let Some(average) = checkpoint.average()? else {
        return load(checkpoint, model);
    };
    checkpoint.fits(&model)?;
    let loaded = model.with_weights(average);
    loaded.map_err(|e| checkpoint.unfit_average(e))
}

/// The panic with which Burn's interface ends a run at once when its user asks for that.
const KILLED: &str = "Killing training from user input.";

/// Runs `fit`, and names the cause of an error or panic.
pub(crate) fn launch<M, T, V>(fit: Fit<'_, M, T, V>) -> Result<Finished>
where
    M: Model,
    T: Source<Batch = M::Batch>,
    V: Source<Batch = M::Batch>,
{
    let (name, dir) = (
        device::resolved(&fit.settings.run.device).to_owned(),
        fit.dir,
    );
    let (leads, resume) = (fit.ranks.leads(), fit.resume.clone());
    let gpu = ["cuda", "rocm"].iter().any(|kind| name.contains(kind));
    let advice = memory::advice(&fit.identity, &fit.settings.train, gpu, fit.may_capture());
    memory::watch(&advice.to_string());
    let listener = Listener::new();
    let finished = catch_unwind(AssertUnwindSafe(|| fit.run())).unwrap_or_else(|panic| {
        Err(match device::panic_message(panic.as_ref()) {
            KILLED => Error::StoppedAtOnce,
            message => Error::Training(message.to_owned()),
        })
    });
    // Before an error is printed.
    terminal::restore();
    finished.map_err(|error| match error {
        Error::Training(message) => {
            let cause = listener.cause(&message);
            match memory::named(Error::Training(cause.clone()), &advice) {
                Error::Training(_) if is_lost(&cause, &name) => Error::DeviceLost {
                    name,
                    message: beginning(&cause),
                    kept: kept(dir, leads),
                    resume,
                },
                error => error,
            }
        }
        Error::Capture { message, .. } => Error::Capture {
            message,
            kept: kept(dir, leads),
            resume,
        },
        error => error,
    })
}

/// What is left of a run in `dir` that has lost its device. Another rank than the first may not see the directory.
fn kept(dir: &Path, leads: bool) -> String {
    let last = checkpoint::list(dir)
        .ok()
        .and_then(|mut all| all.pop_last());
    match last {
        Some((step, _)) => format!("the checkpoint of step {step} stays"),
        None if leads => "there is no checkpoint yet".to_owned(),
        None => "the last checkpoint stays".to_owned(),
    }
}

/// Runs `work` on a thread whose stack is large enough for networks of thousands of layers.
///
/// # Errors
///
/// The error or panic of `work`, or that no thread can be started.
pub fn on_a_big_stack<R: Send>(work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("train".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(memory::no_thread)?;
        worker.join().unwrap_or_else(|panic| {
            let message = device::panic_message(panic.as_ref());
            Err(Error::Training(message.to_owned()))
        })
    })
}
