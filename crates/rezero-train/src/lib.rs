//! Training for Burn: recipes, runs that can be killed and resumed exactly, reports; behind the `rezero`
//! command, and as a library for modules of one's own.
//!
//! | room | what |
//! | - | - |
//! | [`fit`] | the loop: it trains any module that knows the loss of a batch; begin with [`fit::Trainer`] |
//! | [`recipe`] | the sections that say how |
//! | [`zoo`], [`task`] | the networks and data sets that recipes can name |
//! | [`record`] | run directories, checkpoints, metrics |
//! | [`report`], [`plot`], [`lens`] | runs side by side, figures, Jacobians |
//! | [`bench`](mod@bench), [`device`] | timings, devices |
//!
//! `examples/own_model.rs` of the repository trains a module of its own on data of its own.

#![warn(missing_docs)]

pub mod bench;
pub mod cli;
mod commands;
pub mod device;
pub mod error;
pub mod fit;
pub mod lens;
pub mod plot;
pub mod recipe;
pub mod record;
pub mod report;
pub mod task;
pub mod zoo;

pub use commands::run;
