//! Learning rates and momentum over a run.
//!
//! Burn steps one scheduler for the whole module and offers no way to add one of our own to a
//! parameter group, and its schedulers cannot change momentum. So one [`Scheduler`] computes the
//! values of every group and hands them to the optimizers through [`Rates`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::optim::LearningRate;
use burn::optim::lr_scheduler::{LrScheduler, LrSchedulerRecord};

use crate::recipe::{GateOptimizer, Moment, Settings};

/// A number that the schedule writes and an optimizer reads.
#[derive(Clone, Debug, Default)]
pub struct Rate(Arc<AtomicU64>);

impl Rate {
    /// A fixed rate.
    pub fn at(value: f64) -> Self {
        Self(Arc::new(AtomicU64::new(value.to_bits())))
    }

    /// The value of the current step.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// The values that the optimizers of a run read at each step.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// Learning rate of the weights.
    pub lr: Rate,
    /// Learning rate of the gates' own group.
    pub alpha_lr: Rate,
    /// Learning rate of the biases' own group.
    pub bias_lr: Rate,
    /// Momentum of SGD.
    pub momentum: Rate,
}

/// The learning rates of every step of a run.
#[derive(Clone, Debug)]
pub struct Scheduler {
    settings: Settings,
    steps_per_epoch: usize,
    /// The steps that the schedule spans.
    span: usize,
    step: usize,
    rates: Rates,
}

impl Scheduler {
    /// The schedule of `settings` over `epochs` of `steps_per_epoch` steps, or the first `run.steps` of
    /// them.
    pub fn new(settings: &Settings, steps_per_epoch: usize, epochs: usize, rates: Rates) -> Self {
        Self {
            settings: settings.clone(),
            steps_per_epoch,
            span: settings.run.last_step(epochs * steps_per_epoch),
            step: 0,
            rates,
        }
    }

    /// The weights' learning rate and momentum at `step`, counted from 0.
    pub fn at(&self, step: usize) -> (f64, f64) {
        let Settings {
            optimizer,
            schedule,
            ..
        } = &self.settings;
        let moment = Moment {
            step,
            steps_per_epoch: self.steps_per_epoch,
            span: self.span,
        };
        schedule.at(moment, optimizer.lr(), optimizer.momentum().unwrap_or(0.0))
    }

    /// The gates' learning rate at `step`, if they have an optimizer of their own.
    fn alpha_at(&self, step: usize) -> f64 {
        let (gates, lr) = (&self.settings.gates, self.settings.optimizer.lr());
        match gates.alpha_optimizer {
            GateOptimizer::AdaGrad => gates.alpha_lr,
            // Proportional to the weights' rate.
            GateOptimizer::Shared | GateOptimizer::Sgd | GateOptimizer::Adam => match lr > 0.0 {
                true => gates.alpha_lr * self.at(step).0 / lr,
                false => 0.0,
            },
        }
    }

    /// The biases' learning rate at `step`, if they have one of their own.
    fn bias_at(&self, step: usize) -> f64 {
        let epoch = step / self.steps_per_epoch;
        self.settings
            .optimizer
            .bias_lr_at(epoch)
            .unwrap_or_default()
    }
}

impl LrScheduler for Scheduler {
    fn step(&mut self) -> LearningRate {
        let (lr, momentum) = self.at(self.step);
        self.rates.lr.set(lr);
        self.rates.momentum.set(momentum);
        self.rates.alpha_lr.set(self.alpha_at(self.step));
        self.rates.bias_lr.set(self.bias_at(self.step));
        self.step += 1;
        lr
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("step", self.step as u64)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        if let Some(step) = record.scalar::<u64>("step") {
            self.step = step as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Constant, MultiStep, OneCycle, Optimizer, Schedule, Sgd};

    fn scheduler(schedule: Schedule, sgd: Sgd, epochs: usize) -> Scheduler {
        let settings = Settings {
            schedule,
            optimizer: Optimizer::Sgd(sgd),
            ..Settings::default()
        };
        Scheduler::new(&settings, 10, epochs, Rates::default())
    }

    #[test]
    fn multi_step_drops_at_the_first_step_of_each_milestone_epoch() {
        let schedule = Schedule::MultiStep(MultiStep {
            milestones: vec![2, 3],
            ..MultiStep::default()
        });
        let sgd = Sgd {
            lr: 0.2,
            ..Sgd::default()
        };
        let s = scheduler(schedule, sgd, 10);
        for (step, lr) in [(0, 0.2), (19, 0.2), (20, 0.02), (29, 0.02), (30, 0.002)] {
            assert!(
                (s.at(step).0 - lr).abs() < 1e-12,
                "step {step}: {}",
                s.at(step).0
            );
        }
    }

    #[test]
    fn warm_up_is_linear_and_ends_at_the_full_rate() {
        let schedule = Schedule::Constant(Constant {
            warmup_epochs: 1.0,
            ..Constant::default()
        });
        let s = scheduler(schedule, Sgd::default(), 10);
        let lrs: Vec<f64> = (0..11).map(|i| s.at(i).0).collect();
        for (i, lr) in lrs.iter().take(10).enumerate() {
            assert!((lr - 0.1 * (i + 1) as f64 / 10.0).abs() < 1e-12);
        }
        assert_eq!(lrs[10], 0.1);
    }

    #[test]
    fn one_cycle_passes_through_the_published_corners() {
        // Superconvergence notebook: 0.032, 1.2 at 10 %, 0.032 at 90 %, 0.001; momentum
        // 0.95, 0.85, 0.95.
        let schedule = Schedule::OneCycle(OneCycle {
            lr_start: 0.032,
            lr_low: 0.032,
            lr_end: 0.001,
            peak_at: 0.1,
            low_at: 0.9,
            momentum_low: 0.85,
        });
        let sgd = Sgd {
            lr: 1.2,
            momentum: 0.95,
            ..Sgd::default()
        };
        let s = scheduler(schedule, sgd, 10);
        for (step, lr, momentum) in [
            (0, 0.032, 0.95),
            (5, 0.616, 0.90),
            (10, 1.2, 0.85),
            (50, 0.616, 0.90),
            (90, 0.032, 0.95),
            (95, 0.0165, 0.95),
            (100, 0.001, 0.95),
        ] {
            let (l, m) = s.at(step);
            assert!(
                (l - lr).abs() < 1e-9 && (m - momentum).abs() < 1e-9,
                "{step}: {l} {m}"
            );
        }
    }

    #[test]
    fn groups_follow_their_own_rates_and_a_record_restores_the_step() {
        let schedule = Schedule::MultiStep(MultiStep {
            milestones: vec![1],
            ..MultiStep::default()
        });
        let sgd = Sgd {
            bias_lr: 0.01,
            bias_milestones: vec![2],
            bias_gamma: 0.01,
            ..Sgd::default()
        };
        let mut s = scheduler(schedule, sgd, 10);
        s.settings.gates.alpha_optimizer = GateOptimizer::Sgd;
        s.settings.gates.alpha_lr = 0.05;
        let mut first = Vec::new();
        for _ in 0..25 {
            s.step();
            let Rates {
                lr,
                alpha_lr,
                bias_lr,
                ..
            } = &s.rates;
            first.push((lr.get(), alpha_lr.get(), bias_lr.get()));
        }
        assert_eq!((first[0].0, first[0].2), (0.1, 0.01));
        assert!((first[0].1 - 0.05).abs() < 1e-12);
        assert!((first[12].1 - 0.005).abs() < 1e-12);
        assert!((first[24].2 - 1e-4).abs() < 1e-12);

        let mut fresh = scheduler(Schedule::default(), Sgd::default(), 10);
        fresh.load_record(s.to_record());
        assert_eq!(fresh.step, 25);
    }
}
