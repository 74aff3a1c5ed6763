//! A training step on several devices. Each has a replica of the model and gets an equal part of
//! the batch. The sum of their gradients equals the gradient of the whole batch on one device.

use std::sync::mpsc::{Receiver, Sender, channel};

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;

use super::STACK_BYTES;
use super::model::{Batch, Model, Sums, split};
use super::step::{Input, Trainee};
use crate::device::panic_message;
use crate::error::{Error, Result};

/// One thread per device.
pub(super) struct Replicas<M: Model> {
    workers: Vec<Worker<M>>,
    main: Device,
}

struct Worker<M: Model> {
    device: Device,
    jobs: Sender<Job<M>>,
    answers: Receiver<Answer>,
}

struct Job<M: Model> {
    model: Trainee<M>,
    input: Input<M::Batch>,
}

type Answer = Result<(Vec<Sums>, GradientsParams), String>;

impl<M: Model> Replicas<M> {
    /// Starts a thread for each of `devices`, which are with autodiff. The first device holds the
    /// parameters.
    pub fn new(devices: &[Device]) -> Result<Self> {
        let main = devices.first().cloned();
        let main = main.ok_or_else(|| Error::Training("no device".to_owned()))?;
        let workers = devices.iter().map(Worker::start).collect::<Result<_>>()?;
        Ok(Self { workers, main })
    }

    /// The sums of a step's parts and the gradients of `model`, on the first device.
    pub fn gradients(
        &self,
        model: &Trainee<M>,
        input: Input<M::Batch>,
    ) -> Result<(Vec<Sums>, GradientsParams)> {
        let shards = split(input.batch, self.workers.len());
        let busy = &self.workers[..shards.len()];
        let mut row = input.first_row;
        for (i, (worker, batch)) in busy.iter().zip(shards).enumerate() {
            let rows = batch.rows();
            let job = Job {
                model: model.clone(),
                input: Input {
                    batch,
                    first_part: input.first_part + i * model.how.accumulate,
                    first_row: row,
                    ..input
                },
            };
            // A thread that has ended does not answer, which is reported below.
            let _ = worker.jobs.send(job);
            row += rows;
        }
        let inner = self.main.clone().inner();
        let mut sum = GradientsAccumulator::new();
        let mut parts = Vec::new();
        let mut failed = None;
        // In the order of the devices, so that a sum does not depend on which is first. All answers
        // are read: a remaining answer would be taken for one of the next step.
        for worker in busy {
            let answer = worker.answers.recv();
            match answer.unwrap_or_else(|_| Err("its thread ended".to_owned())) {
                Ok((sums, gradients)) => {
                    sum.accumulate(&model.model, gradients.to_device(&inner, &model.model));
                    parts.extend(sums.into_iter().map(|part| part.on(&inner)));
                }
                Err(message) => {
                    failed.get_or_insert(format!("{:?}: {message}", worker.device));
                }
            }
        }
        match failed {
            Some(message) => Err(Error::Training(message)),
            None => Ok((parts, sum.grads())),
        }
    }
}

impl<M: Model> Worker<M> {
    fn start(device: &Device) -> Result<Self> {
        let (jobs, inbox) = channel::<Job<M>>();
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
            .map_err(super::memory::no_thread)?;
        Ok(Self {
            device: device.clone(),
            jobs,
            answers,
        })
    }
}

impl<M: Model> Job<M> {
    fn run(self, device: &Device) -> (Vec<Sums>, GradientsParams) {
        let model = self.model.fork(device);
        model.gradients(Input {
            batch: self.input.batch.to_device(device),
            ..self.input
        })
    }
}
