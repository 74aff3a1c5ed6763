//! The trainer behind the `rezero` command: recipes, runs that can be killed and resumed exactly,
//! and evaluation, on burn's Learner.
//!
//! The command is the interface; this library is what it is made of, and carries no promise of
//! stability.

#![warn(missing_docs)]

pub mod check;
pub mod checkpoint;
pub mod cli;
mod commands;
pub mod data;
pub mod device;
pub mod error;
pub mod jacobian;
mod memory;
pub mod metrics;
pub mod model;
mod nearest;
pub mod optim;
mod parallel;
pub mod plot;
pub mod recipe;
mod renderer;
pub mod report;
pub mod run_dir;
pub mod schedule;
pub mod training;
pub mod workload;
