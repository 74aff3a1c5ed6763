//! A run in progress: its steps, validations and checkpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use burn::data::dataloader::Progress;
use burn::module::Module;
use burn::optim::lr_scheduler::LrScheduler;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use burn::train::{
    EventProcessorTraining, Interrupter, LearnerEvent, SupervisedTrainingEventProcessor,
    TrainLoader, TrainOutput, TrainingItem, ValidLoader,
};
use rezero_data::rng::mix;
use rezero_kernels::{in_place, seeded, together};

use super::average::Average;
use super::captured::{Capturing, Uncaptured};
use super::devices::Replicas;
use super::exchange;
use super::model::Model;
use super::parts::PartUpdate;
use super::schedule::Scheduler;
use super::scoring;
use super::step::{Input, Output, Trainee};
use super::task::Task;
use crate::error::{Error, Result};
use crate::ranks::{Ranks, Traffic};
use crate::recipe::{GateOptimizer, Settings};
use crate::record::{
    Communication, LossScale, OptimizerState, Reached, Reader, Row, Score, State, Totals,
    checkpoint, metrics,
};
use crate::say::say;

/// The first steps of a process. They compile kernels, choose among them by timing, and allocate
/// memory, so their speed says nothing about the other steps.
const WARM_UP: usize = 2;

/// The values that stay fixed over a run.
pub(super) struct Plan {
    pub settings: Settings,
    pub task: Task,
    pub devices: Vec<Device>,
    /// The processes that compute each step together.
    pub ranks: Ranks,
    pub steps_per_epoch: usize,
    /// The run's last step.
    pub steps: usize,
    /// The step that the training loader begins at.
    pub cursor: Arc<AtomicUsize>,
    /// Whether batch norms take the statistics of all ranks.
    pub synchronised: bool,
}

/// The parts that update the weights.
pub(super) struct Moving<M: Model> {
    pub optimizer: ModuleOptimizer,
    pub schedule: Scheduler,
    /// The average of the weights, if the run keeps one.
    pub average: Option<Average<M>>,
    /// The model on several devices.
    pub replicas: Option<Replicas<M>>,
    /// The step that is replayed, if the run can have one.
    pub capturing: Option<Capturing<M>>,
}

pub(super) struct Start<M: Model> {
    pub plan: Plan,
    pub moving: Moving<M>,
    pub state: State,
    /// The files of the run, which rank 0 writes.
    pub files: Option<Files>,
    /// The checkpoint that it continues from, until it has been read, and whether the optimizer has asked for its state:
    /// ranks above 0 have a copy, which is removed then.
    pub from: Option<(Reader, bool)>,
}

/// The files that a run in progress writes.
pub(super) struct Files {
    pub rows: metrics::Writer,
    pub checkpoints: checkpoint::Writer,
}

/// A run in progress.
pub(super) struct Session<M: Model> {
    pub start: Start<M>,
    /// None while a step updates it: the step is then the only owner and can update it in place.
    pub trainee: Option<Trainee<M>>,
    pub events: SupervisedTrainingEventProcessor<Trainee<M>>,
    pub interrupter: Interrupter,
    /// The step that this process began at.
    pub first: usize,
    pub begun: Instant,
    /// The end of the last step.
    pub last: Instant,
    /// Wall time of the first steps.
    pub warm_up: Option<f64>,
    /// The gates as they were last read.
    pub alphas: Vec<f32>,
    /// Steps that were replays of a captured one.
    pub replayed: usize,
    /// Whether a rank has asked in the last step or validation to stop.
    pub stop: bool,
    /// What had been sent at the last row of training, and when that was.
    pub logged: (Traffic, Instant),
}

impl<M: Model> Session<M> {
    /// Takes the steps that are left. True if it was interrupted.
    pub fn run(
        &mut self,
        train: &TrainLoader<Trainee<M>>,
        valid: &ValidLoader<Trainee<M>>,
    ) -> Result<bool> {
        // Burn begins every run at epoch 1. A resumed run has some epochs behind it.
        let epochs = self.start.state.step / self.start.plan.steps_per_epoch;
        if epochs > 0 && !self.at_the_end() {
            self.event(LearnerEvent::EndEpoch(epochs))?;
        }
        // An interrupted run stops at once and skips a validation that is due. The resumed run
        // makes it.
        if self.validation_due() {
            let epoch = self
                .start
                .state
                .step
                .div_ceil(self.start.plan.steps_per_epoch);
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
        let (step, checkpoint_every) = (self.start.state.step, plan.settings.run.checkpoint_every);
        let epoch = step / plan.steps_per_epoch + 1;
        plan.cursor.store(step, Ordering::Relaxed);
        self.start_split(epoch, train.num_items());
        let mut batches = train.iter();
        self.last = Instant::now();
        while let Some(input) = batches.next() {
            let input = input.map_err(|e| Error::Training(e.to_string()))?;
            self.step(input, || batches.progress())?;

            let mut stop = self.should_stop();
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
        let (step, all) = (self.start.state.step, self.start.plan.steps_per_epoch);
        if !self.at_the_end() && !self.should_stop() && !step.is_multiple_of(all) {
            return Err(Error::Training(format!(
                "the data ended early: epoch {epoch} has {all} batches (Source::batches_per_epoch), and there were {}",
                step % all
            )));
        }
        self.event(LearnerEvent::EndSplit(epoch))?;

        let mut interrupted = self.should_stop() && !self.at_the_end();
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
        progress: impl FnOnce() -> Progress,
    ) -> Result<()> {
        let Start { plan, state, .. } = &self.start;
        // Random numbers inside a step are a function of (seed, step), so that a resumed run
        // repeats them.
        input.seed = mix(plan.settings.train.seed, state.step as u64);
        input.loss_scale = state.loss_scale.map_or(1.0, |scale| scale.factor);
        let parts = plan.devices.len() * plan.settings.train.accumulate;
        input.first_part = plan.ranks.rank() * parts;
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
            self.log(&output)?;
        }
        output.alphas.clone_from(&self.alphas);
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
            average,
            capturing: _,
        } = &mut self.start.moving;
        let alone = replicas.is_none() && self.start.plan.ranks.size() == 1;
        if trainee.how.recompute && alone {
            let total = input.items;
            let pass = trainee.pass(1.0 / total as f64, input.seed);
            // The schedule takes the step only if the model can be updated by parts.
            let mut next = schedule.clone();
            let lr = next.step();
            let mut update = PartUpdate::new(optimizer, lr);
            let Trainee { model, how } = trainee;
            let stepped = seeded(input.seed, 0, || {
                model.update_by_parts(&input.batch, &pass, &mut update)
            });
            match stepped {
                Ok((model, sums)) => {
                    let mut output = Output::new(vec![sums], total, Some(update.norms()));
                    *schedule = next;
                    if let Some(average) = average {
                        average.update(&model);
                    }
                    self.trainee = Some(Trainee { model, how });
                    output.read();
                    output.lr = lr;
                    self.must_be_finite(&output, &GradientsParams::new(), false)?;
                    return Ok(output);
                }
                Err(model) => trainee = Trainee { model, how },
            }
        }
        let replays = self.can_replay(&trainee, &input);
        if !matches!(replays, Ok(false)) {
            self.trainee = Some(trainee);
            replays?;
            return self.replay(input.items);
        }
        let (items, loss_scale, seed) = (input.items, input.loss_scale, input.seed);
        let staying = self.capturing().is_some_and(Capturing::has_begun);
        let gradients = match staying {
            true => in_place(|| self.gradients(&trainee, input)),
            false => self.gradients(&trainee, input),
        };
        self.must_not_draw(seed);
        let (parts, grads) = match gradients {
            Ok(mut whole) => {
                trainee.model = whole.apply(trainee.model);
                self.stop = whole.stop;
                (whole.parts, whole.grads)
            }
            Err(error) => {
                self.trainee = Some(trainee);
                return Err(error);
            }
        };
        let TrainOutput {
            grads,
            item: mut output,
        } = trainee.output(parts, grads, items, loss_scale);
        output.read();
        // Whatever the step before has asked a device to do is done now, and with it the optimizer's state is read.
        self.start.from.take_if(|(_, asked)| *asked);
        self.trainee = Some(trainee);
        let finite = output.grad_norm.is_finite();
        let scale = self.start.state.loss_scale;
        // A loss scale that is too large costs one step only.
        let skipped = !finite && scale.is_some_and(LossScale::can_fall);
        self.must_be_finite(&output, &grads, skipped)?;
        self.start.state.loss_scale = scale.map(|scale| scale.next(finite));
        let Moving {
            optimizer,
            schedule,
            average,
            capturing,
            ..
        } = &mut self.start.moving;
        output.lr = schedule.step();
        if let Some(capturing) = capturing.as_ref().filter(|_| staying) {
            capturing.prepare(self.start.state.step + 1);
        }
        if !skipped {
            let trainee = self.trainee.take().expect("it was put back above");
            let trainee = together(|| optimizer.step(output.lr, trainee, grads));
            if let Some((_, asked)) = &mut self.start.from {
                *asked = true;
            }
            if capturing.as_ref().is_some_and(Capturing::has_moved) {
                leave(capturing);
            }
            if let Some(average) = average {
                average.update(&trainee.model);
            }
            self.trainee = Some(trainee);
        }
        Ok(output)
    }

    fn capturing(&self) -> Option<&Capturing<M>> {
        self.start.moving.capturing.as_ref()
    }

    /// Whether the step of `input` is a replay of a captured step. Captures one when it is time.
    fn can_replay(&mut self, trainee: &Trainee<M>, input: &Input<M::Batch>) -> Result<bool> {
        let step = self.start.state.step;
        let taken = step - self.first;
        let Moving {
            optimizer,
            capturing,
            ..
        } = &mut self.start.moving;
        let Some(own) = capturing else {
            return Ok(false);
        };
        if own.has_begun() {
            return Ok(own.takes(input));
        }
        // Not on a batch of another size, such as the last one of an epoch. By now, an average has memory of its own.
        if !own.is_usual(input) || taken < WARM_UP {
            return Ok(false);
        }
        match own.begin(trainee, optimizer, input, step + 1) {
            Ok(()) => Ok(true),
            Err(Uncaptured::Reason(reason)) => {
                say_uncaptured(&reason);
                leave(capturing);
                Ok(false)
            }
            Err(Uncaptured::Broken(message)) => Err(Error::Capture {
                message,
                kept: String::new(),
                resume: String::new(),
            }),
        }
    }

    /// The step on the batch that is in place.
    fn replay(&mut self, items: usize) -> Result<Output> {
        let step = self.start.state.step;
        let Moving {
            schedule,
            capturing,
            ..
        } = &mut self.start.moving;
        let lr = schedule.step();
        let own = capturing.as_mut().expect("it can be a replay");
        let mut output = own.replay(step + 1);
        self.replayed += 1;
        output.totals.items = items;
        output.read();
        output.lr = lr;
        self.must_be_finite(&output, &GradientsParams::new(), false)?;
        let average = &mut self.start.moving.average;
        if let (Some(average), Some(trainee)) = (average, &self.trainee) {
            average.update(&trainee.model);
        }
        Ok(output)
    }

    /// Gives capturing up before it begins if the last step drew the device's random numbers.
    fn must_not_draw(&mut self, seed: u64) {
        let taken = self.start.state.step + 1 - self.first;
        let capturing = &mut self.start.moving.capturing;
        if taken <= WARM_UP && capturing.as_ref().is_some_and(|own| own.has_drawn(seed)) {
            say_uncaptured(
                "they draw the device's random numbers, as Burn's own dropout does; rezero_kernels::fused has one that does not",
            );
            leave(capturing);
        }
    }

    /// The sums and gradients of a step, of all devices and ranks.
    fn gradients(&self, trainee: &Trainee<M>, input: Input<M::Batch>) -> Result<exchange::Whole> {
        let givers = input.givers;
        let plan = &self.start.plan;
        let (parts, grads) = match &self.start.moving.replicas {
            Some(replicas) => replicas.gradients(trainee, input)?,
            None if plan.synchronised => {
                let group = exchange::group(&plan.ranks, givers);
                let gradients = group.run(|| trainee.gradients(input));
                exchange::must_have_exchanged(&group)?;
                gradients
            }
            None => trainee.gradients(input),
        };
        let own = exchange::Step {
            parts,
            grads,
            stop: self.interrupter.should_stop(),
            givers,
            reduce: plan.settings.train.reduce,
        };
        exchange::exchange(&plan.ranks, trainee, own)
    }

    /// Ends the run, with a row that shows it, if the loss or the gradient norm is not finite.
    fn must_be_finite(
        &mut self,
        output: &Output,
        grads: &GradientsParams,
        norm_may_not: bool,
    ) -> Result<()> {
        let loss = output.totals.mean_loss();
        if loss.is_finite() && (output.grad_norm.is_finite() || norm_may_not) {
            return Ok(());
        }
        let step = self.start.state.step + 1;
        self.diverged(&Row {
            grad_norm: Some(output.grad_norm),
            ..self.row("train", step, &output.totals)
        });
        Err(Error::Diverged {
            step,
            message: format!(
                "loss {loss}, gradient norm {}; {}; try {}",
                output.grad_norm,
                self.trainee().model.diagnose(grads),
                self.advice()
            ),
        })
    }

    /// What may keep the run from diverging, of what it does not do yet.
    fn advice(&self) -> String {
        let settings = &self.start.plan.settings;
        let mut all = vec!["a lower lr"];
        if settings.schedule.may_warm_up() {
            all.push("warmup_steps=100");
        }
        if settings.train.clip_norm == 0.0 {
            all.push("clip_norm=1");
        }
        let shared = settings.gates.alpha_optimizer == GateOptimizer::Shared;
        if shared && !self.trainee().model.gates().is_empty() {
            all.push("alpha_optimizer=adagrad");
        }
        all.join(", or ")
    }

    /// Writes the row of the step at which the run diverges. The error that follows says more than an
    /// error of this file would.
    fn diverged(&mut self, row: &Row) {
        if let Some(Files { rows, .. }) = &mut self.start.files {
            let _ = rows.write(row).and_then(|()| rows.sync());
        }
    }

    fn write(&mut self, row: &Row) -> Result<()> {
        match &mut self.start.files {
            Some(files) => files.rows.write(row),
            None => Ok(()),
        }
    }

    /// A row of these sums, which says nothing of gradients, gates and speed.
    fn row(&self, split: &str, step: usize, sums: &Totals) -> Row {
        Row {
            split: split.to_owned(),
            step,
            epoch: step.max(1).div_ceil(self.start.plan.steps_per_epoch),
            loss: sums.mean_loss(),
            metrics: self.start.plan.task.values(sums),
            items: sums.items,
            lr: None,
            grad_norm: None,
            layer_grad_norm: Vec::new(),
            alpha: Vec::new(),
            items_per_s: None,
            warm_up_s: None,
            ema: None,
            ranks: None,
            seconds: self.begun.elapsed().as_secs_f64(),
        }
    }

    /// Writes a row with the sums since the last row.
    fn log(&mut self, output: &Output) -> Result<()> {
        let gates = self.trainee().model.gates();
        self.alphas = gates.into_iter().flat_map(|gate| gate.effective).collect();
        let taken = self.start.state.step - self.first;
        let warm = taken >= WARM_UP || self.at_the_end();
        let since = std::mem::take(&mut self.start.state.since);
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        let row = Row {
            lr: Some(output.lr),
            grad_norm: finite(output.grad_norm),
            layer_grad_norm: output.layer_norms(),
            alpha: self.alphas.clone(),
            items_per_s: finite(output.items_per_s),
            warm_up_s: self.warm_up.take_if(|_| warm),
            ranks: self.communication(),
            ..self.row("train", self.start.state.step, &since)
        };
        self.write(&row)
    }

    /// What this rank has sent since the last row, and the share of time that it took.
    fn communication(&mut self) -> Option<Communication> {
        let ranks = &self.start.plan.ranks;
        let (before, begun) =
            std::mem::replace(&mut self.logged, (ranks.traffic(), Instant::now()));
        let now = self.logged.0;
        (ranks.size() > 1).then(|| Communication {
            count: ranks.size(),
            bytes: now.bytes - before.bytes,
            share: (now.time - before.time).as_secs_f64() / begun.elapsed().as_secs_f64(),
        })
    }

    /// Runs over the validation split on the device without autodiff, so that batch norm keeps its
    /// statistics and no graph is built. It scores the average of the weights, if the run keeps one.
    /// False if it was interrupted and has no result.
    fn validate(&mut self, loader: &ValidLoader<Trainee<M>>, epoch: usize) -> Result<bool> {
        let started = Instant::now();
        let trainee = match self.averaged() {
            Some(average) => Trainee {
                model: average.clone(),
                how: self.trainee().how.clone(),
            },
            None => self.trainee().valid(),
        };
        let ema = self.averaged().map(|_| self.start.plan.settings.train.ema);
        self.event_valid(LearnerEvent::StartSplit {
            epoch_number: epoch,
            total_items: loader.num_items(),
        })?;
        let mut total = Totals::default();
        let ranks = self.start.plan.ranks.clone();
        let mut batches = loader.iter();
        loop {
            let stop = self.interrupter.should_stop();
            let (scored, stop) = scoring::next(&ranks, &trainee, &mut *batches, stop)?;
            self.stop |= stop;
            if scored.is_empty() {
                break;
            }
            for output in scored {
                total.add(&output.totals);
                let item = TrainingItem::new(output, batches.progress(), None, None);
                self.event_valid(LearnerEvent::ProcessedItem(item))?;
            }
            if self.should_stop() {
                self.event_valid(LearnerEvent::EndSplit(epoch))?;
                return Ok(false);
            }
        }
        self.event_valid(LearnerEvent::EndSplit(epoch))?;
        if total.items == 0 {
            return Err(Error::Training(
                "the data ended early: there was no batch to validate on".to_owned(),
            ));
        }
        let step = self.start.state.step;
        if !total.mean_loss().is_finite() {
            self.diverged(&Row {
                ema,
                ..self.row("valid", step, &total)
            });
            return Err(Error::Diverged {
                step,
                message: format!(
                    "validation loss {}, while the training loss is finite (where there is batch norm, \
                     its running statistics may not have caught up with weights that move fast); {}; try \
                     {}",
                    total.mean_loss(),
                    trainee.model.diagnose(&GradientsParams::new()),
                    self.advice()
                ),
            });
        }
        let task = &self.start.plan.task;
        let measure = task.measure();
        let value = (measure.of)(&total);
        if !value.is_finite() {
            let names: Vec<&str> = total.named.keys().map(String::as_str).collect();
            return Err(Error::Training(format!(
                "the validation's {} is {value}, so that no checkpoint can be the best; the model's Sums \
                 name [{}]: add the sum that the metric is made of (accuracy: `correct`), see Sums::with",
                measure.key,
                names.join(", ")
            )));
        }
        let row = Row {
            items_per_s: Some(total.items as f64 / started.elapsed().as_secs_f64()),
            ema,
            ..self.row("valid", step, &total)
        };
        self.write(&row)?;
        let task = &self.start.plan.task;
        let measure = task.measure();
        let score = Score {
            step,
            loss: total.mean_loss(),
            measure: value,
        };
        let run = &self.start.plan.settings.run;
        let state = &mut self.start.state;
        let best = state.best.as_ref();
        let best = best.is_none_or(|best| measure.better(&score, best));
        if run.target > 0.0 && state.reached.is_none() && measure.reaches(&score, run.target) {
            let target = run.target;
            state.reached = Some(Reached { target, step });
        }
        state.stale = match best {
            true => 0,
            false => state.stale + 1,
        };
        if best {
            state.best = Some(score.clone());
        }
        state.valid = Some(score);
        // The best result is useful only with its checkpoint.
        if best || run.checkpoint_every == 0 {
            self.save()?;
        }
        Ok(true)
    }

    fn save(&mut self) -> Result<()> {
        // Makes batch norm write back the statistics of its last update.
        let model = self.trainee().valid().model;
        exchange::must_be_alike(&self.start.plan.ranks, &model)?;
        let average = self.averaged().map(Model::to_weights);
        let Start {
            moving,
            state,
            files,
            ..
        } = &mut self.start;
        let Some(Files { rows, checkpoints }) = files else {
            return Ok(());
        };
        state.metrics_bytes = rows.sync()?;
        let optimizer = OptimizerState::of(&moving.optimizer);
        let schedule = moving.schedule.to_record();
        checkpoints.save(state, model.to_weights(), average, optimizer, schedule)
    }

    /// Whether the run is to stop after this step: with several ranks, as they have agreed in it.
    fn should_stop(&self) -> bool {
        match self.start.plan.ranks.size() {
            // At once, also within a validation.
            1 => self.interrupter.should_stop(),
            _ => self.stop,
        }
    }

    /// The average of the weights, if the run keeps one and has taken a step.
    fn averaged(&self) -> Option<&M> {
        self.start.moving.average.as_ref()?.model()
    }

    fn trainee(&self) -> &Trainee<M> {
        self.trainee.as_ref().expect("every step puts it back")
    }

    fn at_the_end(&self) -> bool {
        self.start.state.step >= self.start.plan.steps || self.stops_early()
    }

    /// Whether validations have not become better for `run.patience`.
    pub fn stops_early(&self) -> bool {
        let run = &self.start.plan.settings.run;
        run.stops_after(self.start.state.stale)
    }

    fn validation_due(&self) -> bool {
        let (step, plan) = (self.start.state.step, &self.start.plan);
        let last = self.start.state.valid.as_ref();
        match plan.settings.run.eval_every {
            _ if step == 0 || last.is_some_and(|last| last.step == step) => false,
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

fn say_uncaptured(reason: &str) {
    say!("training steps are not captured, every kernel is launched on its own: {reason}");
}

/// Steps are taken as usual from now on.
fn leave<M: Model>(capturing: &mut Option<Capturing<M>>) {
    if let Some(capturing) = capturing.take() {
        capturing.leave();
    }
}

fn due(every: usize, step: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}
