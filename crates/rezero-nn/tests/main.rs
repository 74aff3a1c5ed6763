//! Integration tests of `rezero-nn`, linked once.

mod backend;
mod contract;
mod counts;
mod decoding;
mod gates;
mod golden;
mod grow_fold;
mod helpers;
mod import;
mod import_images;
mod invariants;
mod jacobian;
mod masks;
mod mlp;
mod mlp_golden;
mod precision;
mod recompute;
mod schemes;
mod support;
mod trajectory;
mod transformer;
mod transformer_golden;
mod transformer_trajectory;
mod weights;
