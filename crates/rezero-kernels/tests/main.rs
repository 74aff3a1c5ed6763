//! The kernels compared with the same operations composed of Burn's own, with finite differences,
//! and with themselves on other numbers of threads.

mod activations;
mod attention;
mod convolution;
mod dropout;
mod edges;
mod embedding;
mod losses;
mod normalisation;
mod products;
mod shortcut;
mod small;
mod support;
mod threads;
mod updates;
