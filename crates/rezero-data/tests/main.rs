//! One binary, which links once: `cargo test -p rezero-data`. No test leaves this machine.

mod any_shape;
mod augmentations;
mod cifar100;
mod corpora;
mod datasets;
#[cfg(feature = "download")]
mod fetching;
mod folder;
mod idx;
mod loading;
mod nearest;
mod pictures;
mod reading;
mod real;
mod registry;
mod rng;
#[cfg(feature = "download")]
mod server;
mod shapes;
mod support;
mod texts;
mod unpacking;
mod zips;
