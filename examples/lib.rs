//! Examples of `rezero-nn`, one file each:
//! `cargo run --release -p rezero-examples --example NAME`.
//!
//! - `rezero_block`: train a 50-layer network of ReZero blocks
//! - `classify`: load a trained run's weights into the module and classify images
