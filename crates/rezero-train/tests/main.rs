//! Integration tests of `rezero-train`, linked once.
//!
//! `cargo test --release -p rezero-train --test train`

mod bench;
mod cli;
mod dependencies;
mod model;
mod recipes;
mod report;
mod resume;
mod support;
mod text;
