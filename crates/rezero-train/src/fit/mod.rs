//! The training loop for any module that computes the loss of a batch.
//!
//! - [`Model`] is the trait that your module implements: the summed loss of a [`Batch`], and other
//!   sums.
//! - [`Task`] names the items and the metrics.
//! - [`Source`] gives the batches, as functions of the seed and the step. [`DatasetSource`] makes a
//!   source of any Burn `Dataset`.
//! - [`Trainer`] combines them with the sections of a recipe
//!   ([`Settings`](crate::recipe::Settings)) and a run directory.
//!
//! Clipping by the global norm, accumulation, half precision with a scaled loss, several devices,
//! detection of divergence, metrics, checkpoints, exact resume and reports work for every module.
//! Burn's `SupervisedTraining` runs underneath. It provides the metrics, the terminal interface and
//! the interrupter; this loop is its learning strategy.

mod average;
mod captured;
mod devices;
mod diagnose;
mod exchange;
mod freeze;
mod memory;
mod model;
mod norms;
mod optimizer;
mod parts;
mod progress;
mod schedule;
mod scoring;
mod session;
mod shown;
mod source;
mod step;
mod stop;
mod strategy;
mod task;
mod terminal;
mod trainer;

pub use average::Average;
pub use diagnose::diagnose;
pub use model::{Batch, Model, Pass, Sums, integers_on, own, own_int, written, written_int};
pub use norms::{Norms, clip_global_norm};
pub use optimizer::{AdaGrad, Adam, Numbers, Sgd, build as build_optimizer};
pub use parts::PartUpdate;
pub use schedule::{Rate, Rates, Scheduler};
pub use source::{Batches, DatasetSource, Share, Shares, Source};
pub use step::{Input, Output, Trainee};
pub use stop::OnTerm;
pub use strategy::Finished;
pub use task::{ACCURACY, BITS_PER_BYTE, LOSS, Metric, Task, bits};
pub use trainer::{Trainer, load, load_average, on_a_big_stack};

pub(crate) use exchange::{may_synchronise, of_whole_batches};
pub(crate) use freeze::check_freeze;
pub(crate) use memory::available as available_memory;
pub(crate) use model::{differentiate, own_part, written_part};
pub(crate) use optimizer::InPlace;
pub(crate) use scoring::totals;
#[cfg(unix)]
pub(crate) use stop::is_ignored;
pub(crate) use stop::{obey_a_sweep, on_signal, status as stop_status, survive_file_limits};
pub(crate) use strategy::Fit;
pub(crate) use terminal::can_draw;
pub(crate) use trainer::launch;

/// The stack of a training thread. Autodiff walks parts of a network's graph by recursion, so the
/// default stack is too small for thousands of layers.
pub const STACK_BYTES: usize = 256 << 20;
