//! Learning rates and momentum over a run.
//!
//! Burn steps one scheduler for the whole module and offers no way to add one of our own to a
//! parameter group, and its schedulers cannot move momentum. So one [`Schedule`] computes the
//! values of every group and hands them to the optimizers through [`Dials`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::optim::LearningRate;
use burn::optim::lr_scheduler::{LrScheduler, LrSchedulerRecord};

use crate::recipe::{AlphaOptim, Recipe, ScheduleKind};

/// A number that the schedule writes and an optimizer reads.
#[derive(Clone, Debug, Default)]
pub struct Dial(Arc<AtomicU64>);

impl Dial {
    /// A dial that stands at `value`.
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

/// What the optimizers of a run follow.
#[derive(Clone, Debug, Default)]
pub struct Dials {
    /// Learning rate of the weights.
    pub lr: Dial,
    /// Learning rate of the gates' own group.
    pub alpha_lr: Dial,
    /// Learning rate of the bias group.
    pub bias_lr: Dial,
    /// Momentum of SGD.
    pub momentum: Dial,
}

/// The learning rates of every step of a run.
#[derive(Clone, Debug)]
pub struct Schedule {
    recipe: Recipe,
    steps_per_epoch: usize,
    step: usize,
    dials: Dials,
}

impl Schedule {
    /// The schedule of `recipe` where an epoch has `steps_per_epoch` steps.
    pub fn new(recipe: &Recipe, steps_per_epoch: usize, dials: Dials) -> Self {
        Self {
            recipe: recipe.clone(),
            steps_per_epoch,
            step: 0,
            dials,
        }
    }

    /// The weights' learning rate and momentum at `step`, counted from 0.
    pub fn at(&self, step: usize) -> (f64, f64) {
        let r = &self.recipe;
        match r.schedule {
            ScheduleKind::Constant => (r.lr * self.warmup(step), r.momentum),
            ScheduleKind::MultiStep => {
                let drops = self.drops(step, &r.milestones);
                (r.lr * r.gamma.powi(drops) * self.warmup(step), r.momentum)
            }
            ScheduleKind::OneCycle => {
                let total = (r.epochs * self.steps_per_epoch) as f64;
                let t = step as f64 / total;
                let lr = piecewise(
                    t,
                    &[
                        (0.0, r.lr_start),
                        (r.peak_at, r.lr),
                        (r.low_at, r.lr_low),
                        (1.0, r.lr_end),
                    ],
                );
                let momentum = piecewise(
                    t,
                    &[
                        (0.0, r.momentum),
                        (r.peak_at, r.momentum_low),
                        (r.low_at, r.momentum),
                    ],
                );
                (lr, momentum)
            }
        }
    }

    /// The gates' learning rate at `step`, if they have a group of their own.
    fn alpha_at(&self, step: usize) -> f64 {
        let r = &self.recipe;
        match r.alpha_optimizer {
            AlphaOptim::AdaGrad => r.alpha_lr,
            // As the weights' rate, scaled.
            _ if r.lr > 0.0 => r.alpha_lr * self.at(step).0 / r.lr,
            _ => 0.0,
        }
    }

    fn bias_at(&self, step: usize) -> f64 {
        let r = &self.recipe;
        r.bias_lr * r.bias_gamma.powi(self.drops(step, &r.bias_milestones))
    }

    fn drops(&self, step: usize, milestones: &[usize]) -> i32 {
        let epoch = step / self.steps_per_epoch;
        milestones.iter().filter(|m| **m <= epoch).count() as i32
    }

    /// Linear from 1/n at the first of n warm-up steps to 1 at the last.
    fn warmup(&self, step: usize) -> f64 {
        let steps = match self.recipe.warmup_steps {
            0 => self.recipe.warmup_epochs * self.steps_per_epoch as f64,
            steps => steps as f64,
        };
        if steps < 1.0 {
            return 1.0;
        }
        ((step + 1) as f64 / steps).min(1.0)
    }
}

/// The value at `t` of the broken line through `points`, constant beyond its ends.
fn piecewise(t: f64, points: &[(f64, f64)]) -> f64 {
    for pair in points.windows(2) {
        let ((t0, y0), (t1, y1)) = (pair[0], pair[1]);
        if t < t1 {
            return y0 + (y1 - y0) * ((t - t0) / (t1 - t0)).max(0.0);
        }
    }
    points.last().map_or(0.0, |p| p.1)
}

impl LrScheduler for Schedule {
    fn step(&mut self) -> LearningRate {
        let (lr, momentum) = self.at(self.step);
        self.dials.lr.set(lr);
        self.dials.momentum.set(momentum);
        self.dials.alpha_lr.set(self.alpha_at(self.step));
        self.dials.bias_lr.set(self.bias_at(self.step));
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

    fn schedule(change: impl FnOnce(&mut Recipe)) -> Schedule {
        let mut recipe = Recipe::default();
        change(&mut recipe);
        Schedule::new(&recipe, 10, Dials::default())
    }

    #[test]
    fn multi_step_drops_at_the_first_step_of_each_milestone_epoch() {
        let s = schedule(|r| {
            r.lr = 0.2;
            r.milestones = vec![2, 3];
        });
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
        let s = schedule(|r| r.warmup_epochs = 1.0);
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
        let s = schedule(|r| {
            r.schedule = ScheduleKind::OneCycle;
            (r.lr_start, r.lr, r.lr_low, r.lr_end) = (0.032, 1.2, 0.032, 0.001);
            (r.peak_at, r.low_at) = (0.1, 0.9);
            (r.momentum, r.momentum_low) = (0.95, 0.85);
            r.epochs = 10;
        });
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
        let mut s = schedule(|r| {
            r.alpha_optimizer = AlphaOptim::Sgd;
            (r.lr, r.alpha_lr, r.bias_lr) = (0.1, 0.05, 0.01);
            (r.milestones, r.bias_milestones, r.bias_gamma) = (vec![1], vec![2], 0.01);
        });
        let mut first = Vec::new();
        for _ in 0..25 {
            s.step();
            first.push((
                s.dials.lr.get(),
                s.dials.alpha_lr.get(),
                s.dials.bias_lr.get(),
            ));
        }
        assert_eq!((first[0].0, first[0].2), (0.1, 0.01));
        assert!((first[0].1 - 0.05).abs() < 1e-12);
        assert!((first[12].1 - 0.005).abs() < 1e-12);
        assert!((first[24].2 - 1e-4).abs() < 1e-12);

        let mut fresh = schedule(|_| {});
        fresh.load_record(s.to_record());
        assert_eq!(fresh.step, 25);
    }
}
