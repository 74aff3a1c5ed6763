//! Training for Burn: recipes, runs that resume exactly after a kill, and reports. The `rezero`
//! command is built on this crate. As a library, the crate trains your own modules.
//!
//! | module | content |
//! | - | - |
//! | [`fit`] | the training loop for any module with a loss; begin with [`fit::Trainer`] |
//! | [`recipe`] | the sections of a recipe, which hold all settings |
//! | [`zoo`], [`task`] | the networks and data sets that recipes can name |
//! | [`record`] | run directories, checkpoints, metrics |
//! | [`ranks`] | processes that train together, by MPI |
//! | [`report`], [`plot`], [`lens`] | comparisons of runs, figures, Jacobians |
//! | [`bench`](mod@bench), [`device`] | timings, devices |
//!
//! The repository's `examples/own_model.rs` trains its own module on its own data.

#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The README's code is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod bench;
pub mod cli;
mod commands;
pub mod device;
pub mod error;
pub mod fit;
pub mod lens;
pub mod plot;
pub mod ranks;
pub mod recipe;
pub mod record;
pub mod report;
mod say;
mod sweep;
pub mod task;
mod words;
pub mod zoo;

pub use commands::{Suite, bring, run};
pub use say::{print_error, print_usage, usage_status};
