//! Where the comparisons with PyTorch run: on Flex. The trainer's conformance suite runs the same ones on
//! every backend, with a module of this name of its own.

use burn::tensor::Device;

pub fn device() -> Device {
    Device::flex()
}

/// What tolerances are multiplied by.
pub fn slack() -> f64 {
    1.0
}

/// One case in so many is compared.
pub fn every() -> usize {
    1
}
