//! Integration tests of `rezero-nn`, linked once.

mod counts;
mod golden;
mod import;
mod invariants;
mod mlp;
mod support;
mod trajectory;
mod transformer;
mod transformer_golden;
mod transformer_trajectory;
