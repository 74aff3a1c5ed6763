//! The device that `REZERO_TEST_DEVICE` or `rezero conformance --device` names, and its tolerance against the references.

use std::sync::OnceLock;

use burn::tensor::Device;
use rezero_train::device::{backend, select};

static NAME: OnceLock<String> = OnceLock::new();

/// Chooses the device, before the first test.
#[cfg(not(test))]
pub fn choose(name: &str) {
    NAME.get_or_init(|| name.to_owned());
}

/// The name of the device: the one that was chosen, or the value of `REZERO_TEST_DEVICE`, or Flex.
pub fn name() -> String {
    let given = || std::env::var("REZERO_TEST_DEVICE").unwrap_or_else(|_| "flex".to_owned());
    NAME.get_or_init(given).clone()
}

pub fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let open = || select(&name()).unwrap_or_else(|error| panic!("{error}"));
    DEVICE.get_or_init(open).clone()
}

pub fn flex() -> Device {
    select("flex").expect("the suite is built with flex")
}

/// The tolerance of the device's backend, see `rezero_train::device::BACKENDS`.
pub fn tolerance() -> f64 {
    backend(&name()).expect("a known backend").tolerance
}

/// The factor of the tolerances of the comparisons with PyTorch, which are those of Flex.
pub fn slack() -> f64 {
    tolerance() / backend("flex").expect("a known backend").tolerance
}

/// Of the Transformers and of the networks, one in this many is compared. If each new shape
/// compiles kernels, all of them take hours on software Vulkan. `REZERO_TEST_EVERY=1` compares all
/// of them.
pub fn every() -> usize {
    if let Ok(every) = std::env::var("REZERO_TEST_EVERY") {
        return every.parse().expect("REZERO_TEST_EVERY is a number");
    }
    match backend(&name()).map(|b| b.name) {
        Some("flex" | "ndarray" | "tch" | "remote") => 1,
        _ => 50,
    }
}
