//! Integration tests of `rezero-nn`, linked once.

mod backend;
mod counts;
mod golden;
mod grow_fold;
mod import;
mod invariants;
mod jacobian;
mod mlp;
mod mlp_golden;
mod precision;
mod support;
mod trajectory;
mod transformer;
mod transformer_golden;
mod transformer_trajectory;
