//! Integration tests of `rezero-train`, linked once.
//!
//! `cargo test --release --workspace --test train`

mod against_torch;
mod bench;
mod cli;
mod dependencies;
mod families;
mod finetune;
mod hostile;
mod images;
mod model;
mod models;
mod predict;
mod recipes;
mod report;
mod resume;
mod runs;
mod schema;
mod soak;
mod strangers;
mod support;
mod surroundings;
mod sweep;
mod tensorboard;
mod terminal;
mod text;
mod trainer;
mod weights;
