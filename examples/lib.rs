//! Examples of `rezero-nn`, one file each:
//! `cargo run --release -p rezero-examples --example NAME`.
//!
//! - `rezero_block`: train a 50-layer network of ReZero blocks
//! - `classify`: load the network of a run and classify images
//! - `load_pytorch`: load a language model from a PyTorch file, and time it
//! - `reverse`: an encoder–decoder learns to reverse sequences
//! - `sequence_classifier`: a classifier over an encoder, with padding
//! - `own_model`: train your own module on your own data, with resume and a report
//! - `supervised`: train a network of this project with Burn's own `SupervisedTraining`
//! - `write_text`: train a byte-level language model and let it write text

// The README's own code is compiled and run as a test of this crate.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// So is the code of the page about your own models.
#[cfg(doctest)]
#[doc = include_str!("../docs/OWN_MODEL.md")]
struct OwnModel;

// So are both columns of code in the page for users of Burn's Transformer.
#[cfg(doctest)]
#[doc = include_str!("../docs/FROM_BURN.md")]
struct FromBurn;
