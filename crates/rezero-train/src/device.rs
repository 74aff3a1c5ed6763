//! `--device NAME`: from a name to a Burn device, with an error that names the feature to add.

use burn::tensor::Device;

use crate::error::{Error, Result};
use crate::nearest::nearest;

/// A backend that a device name can ask for.
#[derive(Debug)]
pub struct Backend {
    /// The device name and the cargo feature.
    pub name: &'static str,
    /// What it runs on.
    pub about: &'static str,
    /// Whether this binary has it.
    pub compiled: bool,
    /// Whether `NAME:INDEX` selects one of several devices.
    pub indexed: bool,
}

macro_rules! backends {
    ($($name:literal $indexed:literal $about:literal),* $(,)?) => {
        /// Every backend that a device name can ask for, fastest to start first.
        pub const BACKENDS: &[Backend] = &[$(Backend {
            name: $name,
            about: $about,
            compiled: cfg!(feature = $name),
            indexed: $indexed,
        }),*];
    };
}
backends!(
    "flex" false "CPU, pure Rust",
    "ndarray" false "CPU, ndarray (leaves Burn in 0.23)",
    "cpu" false "CPU, just-in-time compiled",
    "cuda" true "NVIDIA GPUs",
    "rocm" true "AMD GPUs",
    "metal" true "Apple GPUs",
    "vulkan" true "GPUs through Vulkan",
    "webgpu" true "GPUs through WebGPU",
    "wgpu" true "GPUs through whichever graphics API is there",
    "tch" true "libtorch, CPU or tch:cuda[:N] (leaves Burn in 0.23)",
);

/// `name` with the backend that `auto` stands for in this binary.
pub fn resolved(name: &str) -> &str {
    let first = BACKENDS.iter().find(|b| b.compiled);
    match (name, first) {
        ("auto", Some(backend)) => backend.name,
        _ => name,
    }
}

/// The device of that name, without autodiff. `auto` is the first backend that was compiled in.
///
/// # Errors
///
/// If the name is unknown, its backend was not compiled in, or the device does not exist.
pub fn select(name: &str) -> Result<Device> {
    let fail = |message: String| Error::Device {
        name: name.to_owned(),
        message,
    };
    let known = BACKENDS.iter().map(|b| b.name);
    let (base, rest) = match name.split_once(':') {
        Some((base, rest)) => (base, Some(rest)),
        None => (name, None),
    };
    let backend = match base {
        "auto" => BACKENDS.iter().find(|b| b.compiled).ok_or_else(|| {
            fail("this binary has no backend; build with --features flex (or another)".to_owned())
        })?,
        _ => BACKENDS.iter().find(|b| b.name == base).ok_or_else(|| {
            let hint = nearest(base, known.clone())
                .map(|n| format!(", did you mean `{n}`?"))
                .unwrap_or_default();
            let all: Vec<_> = known.clone().collect();
            fail(format!("unknown{hint} (known: {})", all.join(", ")))
        })?,
    };
    if !backend.compiled {
        return Err(fail(format!(
            "this binary was built without it; build again with --features {} \
             (cargo run --release --features {0} -- …)",
            backend.name
        )));
    }
    let index = match rest {
        None => None,
        Some(_) if !backend.indexed => {
            return Err(fail(format!(
                "`{}` is a single device and takes no index",
                backend.name
            )));
        }
        Some(rest) => Some(rest),
    };
    open(backend.name, index).map_err(fail)
}

/// The devices of a compiled backend that are found on this machine, without opening them.
pub fn found(name: &str) -> Vec<Device> {
    #[allow(unused_imports)]
    use burn::tensor::DeviceType;
    let kind: Option<DeviceType> = match name {
        #[cfg(feature = "flex")]
        "flex" => Some(DeviceType::Flex),
        #[cfg(feature = "ndarray")]
        "ndarray" => Some(DeviceType::NdArray),
        #[cfg(feature = "cpu")]
        "cpu" => Some(DeviceType::Cpu),
        #[cfg(feature = "cuda")]
        "cuda" => Some(DeviceType::Cuda),
        #[cfg(feature = "rocm")]
        "rocm" => Some(DeviceType::Rocm),
        #[cfg(feature = "metal")]
        "metal" => Some(DeviceType::Metal),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(DeviceType::Vulkan),
        #[cfg(feature = "webgpu")]
        "webgpu" => Some(DeviceType::WebGpu),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(DeviceType::Wgpu),
        #[cfg(feature = "tch")]
        "tch" => Some(DeviceType::LibTorch),
        _ => None,
    };
    match kind {
        Some(kind) => Device::enumerate(kind).iter().cloned().collect(),
        None => Vec::new(),
    }
}

fn open(name: &str, index: Option<&str>) -> Result<Device, String> {
    let mut found = found(name);
    // libtorch names the kind of its device, then the index: tch:cuda:1.
    let (kind, index) = match (name, index) {
        ("tch", None) => ("cpu", None),
        ("tch", Some(rest)) => match rest.split_once(':') {
            Some((kind, index)) => (kind, Some(index)),
            None => (rest, None),
        },
        (_, index) => ("", index),
    };
    found.retain(|device| format!("{device:?}").to_lowercase().contains(kind));
    let count = found.len();
    let index = match index {
        None => 0,
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| format!("`{text}` is not a device index; write for example {name}:0"))?,
    };
    match count {
        0 => Err("no such device was found on this machine (is its driver installed?)".to_owned()),
        _ if index >= count => Err(format!(
            "index {index} is out of range, {count} found (0 to {})",
            count - 1
        )),
        _ => Ok(found.swap_remove(index)),
    }
}
