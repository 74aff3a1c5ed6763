//! The kernels against the same operations composed of Burn's own, against finite differences, and
//! against themselves on other numbers of threads.

mod attention;
mod convolution;
mod edges;
mod losses;
mod normalisation;
mod products;
mod small;
mod support;
mod threads;
mod updates;
