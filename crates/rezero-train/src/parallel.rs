//! A training step on several devices: a replica of the network on each, an equal part of the batch for
//! each, and the sum of their gradients, which is that of one device with the whole batch.

use std::sync::mpsc::{Receiver, Sender, channel};

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use burn::train::TrainOutput;

use crate::commands::STACK_BYTES;
use crate::device::panic_message;
use crate::error::{Error, Result};
use crate::model::{Batch, Items, Learnable, StepOutput, Sums, mix};

/// A thread for each device.
pub struct Replicas {
    workers: Vec<Worker>,
    main: Device,
}

struct Worker {
    device: Device,
    jobs: Sender<Job>,
    answers: Receiver<Answer>,
}

struct Job {
    model: Learnable,
    items: Items,
    total: usize,
    seed: u64,
    loss_scale: f64,
}

type Answer = Result<(Vec<Sums>, GradientsParams), String>;

impl Replicas {
    /// Starts a thread for each of `devices`, which are with autodiff; the first is the one that has the
    /// parameters.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub fn new(devices: &[Device]) -> Result<Self> {
        let main = devices.first().cloned();
        let main = main.ok_or_else(|| Error::Training("no device".to_owned()))?;
        let workers = devices.iter().map(Worker::start).collect::<Result<_>>()?;
        Ok(Self { workers, main })
    }

    /// The step's results and the gradients of `model`, on the first device.
    ///
    /// # Errors
    ///
    /// If a device fails.
    pub fn step(&self, model: &Learnable, batch: Batch) -> Result<TrainOutput<StepOutput>> {
        let total = batch.items.scored();
        let shards = batch.items.split(self.workers.len());
        let busy = &self.workers[..shards.len()];
        for (i, (worker, items)) in busy.iter().zip(shards).enumerate() {
            let job = Job {
                model: model.clone(),
                items,
                total,
                seed: mix(batch.seed, i as u64),
                loss_scale: batch.loss_scale,
            };
            // A thread that is gone does not answer either, which is reported below.
            let _ = worker.jobs.send(job);
        }
        let inner = self.main.clone().inner();
        let mut sum = GradientsAccumulator::new();
        let mut parts = Vec::new();
        let mut failed = None;
        // In the order of the devices, so that a sum does not depend on who was first; and all of them:
        // an answer that is left would be taken for the next step's.
        for worker in busy {
            let answer = worker.answers.recv();
            match answer.unwrap_or_else(|_| Err("its thread ended".to_owned())) {
                Ok((sums, gradients)) => {
                    sum.accumulate(model, gradients.to_device(&inner, model));
                    parts.extend(sums.into_iter().map(|part| part.on(&inner)));
                }
                Err(message) => {
                    failed.get_or_insert(format!("{:?}: {message}", worker.device));
                }
            }
        }
        match failed {
            Some(message) => Err(Error::Training(message)),
            None => Ok(model.output(parts, sum.grads(), total, batch.loss_scale)),
        }
    }
}

impl Worker {
    fn start(device: &Device) -> Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        let (outbox, answers) = channel();
        let own = device.clone();
        std::thread::Builder::new()
            .name("replica".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                while let Ok(job) = inbox.recv() {
                    let compute = std::panic::AssertUnwindSafe(|| job.run(&own));
                    let answer = std::panic::catch_unwind(compute);
                    let answer = answer.map_err(|panic| panic_message(panic.as_ref()).to_owned());
                    if outbox.send(answer).is_err() {
                        return;
                    }
                }
            })
            .map_err(|e| Error::Training(format!("cannot start a thread: {e}")))?;
        Ok(Self {
            device: device.clone(),
            jobs,
            answers,
        })
    }
}

impl Job {
    fn run(self, device: &Device) -> (Vec<Sums>, GradientsParams) {
        let model = self.model.fork(device);
        let items = self.items.on(device);
        model.gradients(items, self.total, self.seed, self.loss_scale)
    }
}
