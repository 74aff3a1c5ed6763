//! `--device NAME`: from a name to a Burn device, with an error that says what is missing.

use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::error::{Error, Result};
use crate::recipe::DType as Products;
use rezero_data::nearest;

pub mod check;
mod description;
pub(crate) mod panics;
mod remote;
pub(crate) mod trouble;

pub use description::{Description, describe, in_words, plainly};
pub use remote::{TOKEN, chosen, is_remote, token};
pub use trouble::beginning;

use remote::remote;

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
    /// The largest error that [`check`] lets pass, relative to the largest value of a result that
    /// Flex computes too. Every backend adds in another order; `why` names the other differences.
    pub tolerance: f64,
    /// The reason for `tolerance`.
    pub why: &'static str,
}

macro_rules! backends {
    ($($name:literal $indexed:literal $about:literal $tolerance:literal $why:literal),* $(,)?) => {
        /// Every backend that a device name can ask for; `auto` is the first of these that is compiled in.
        pub const BACKENDS: &[Backend] = &[$(Backend {
            name: $name,
            about: $about,
            compiled: cfg!(feature = $name),
            indexed: $indexed,
            tolerance: $tolerance,
            why: $why,
        }),*];
    };
}
backends!(
    "flex" false "CPU, pure Rust"
        1e-5 "the reference, which is held to PyTorch's results",
    "ndarray" false "CPU, ndarray (leaves Burn in 0.23)"
        2e-5 "a convolution's products are added one after another",
    "cpu" false "CPU, compiled just in time"
        1e-4 "its own exp and log",
    "cuda" true "NVIDIA GPUs"
        5e-3 "products may be taken in TF32, whose mantissa has 10 bits",
    "rocm" true "AMD GPUs"
        1e-4 "the driver's exp, log and division, which may be some units off",
    "metal" true "Apple GPUs"
        1e-4 "the driver's exp, log and division, which may be some units off",
    "vulkan" true "GPUs through Vulkan"
        1e-4 "the driver's exp, log and division, which may be some units off",
    "webgpu" true "GPUs through WebGPU"
        1e-4 "the driver's exp, log and division, which may be some units off",
    "wgpu" true "GPUs through whichever graphics API is there"
        1e-4 "the driver's exp, log and division, which may be some units off",
    "tch" true "libtorch, CPU or tch:cuda[:N] (leaves Burn in 0.23)"
        1e-5 "f32 throughout; on a GPU PyTorch's products are f32 by default",
    "remote" false "a machine that runs `rezero serve`: remote:HOST:PORT[#N]"
        5e-3 "unknown here: what the server computes on",
);

/// Lets CubeCL keep compiled kernels on disk, beside its choices among them, which it keeps by default: docs/GPU.md. The other settings are those of
/// its configuration file and of its environment variables. Call it before a device is opened; later it does nothing.
#[cfg(feature = "persistence")]
#[cfg_attr(docsrs, doc(cfg(feature = "persistence")))]
pub fn keep_kernels() {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    CubeClRuntimeConfig::try_set(config);
}

/// The backend of a device name.
pub fn backend(name: &str) -> Option<&'static Backend> {
    let base = name.split(':').next().unwrap_or(name);
    BACKENDS.iter().find(|b| match base {
        "auto" => b.compiled,
        _ => b.name == base,
    })
}

/// `name` with the backend that `auto` stands for in this binary.
pub fn resolved(name: &str) -> &str {
    match (name, backend(name)) {
        ("auto", Some(backend)) => backend.name,
        _ => name,
    }
}

/// The device of that name, without autodiff: of a list, `A,B,…`, the first. `auto` is the first backend
/// of [`BACKENDS`] that was compiled in.
///
/// # Errors
///
/// If the name is unknown, its backend was not compiled in, or the device does not exist or does not
/// compute.
pub fn select(name: &str) -> Result<Device> {
    one(name.split(',').next().unwrap_or(name))
}

/// The devices of a list of names, `A,B,…`, without autodiff.
///
/// # Errors
///
/// As [`select`], for each.
pub fn select_all(names: &str) -> Result<Vec<Device>> {
    names.split(',').map(|name| one(name.trim())).collect()
}

/// The devices that a run trains on, with autodiff, from the value of `run.device`. Each computes
/// products in `products`.
///
/// # Errors
///
/// As [`select`], or if a device does not compute in that type.
pub fn for_training(names: &str, products: Products) -> Result<Vec<Device>> {
    let devices = select_all(names)?;
    if let Some(half) = products.half() {
        for (name, device) in names.split(',').zip(&devices) {
            computes_in(name, device, half)?;
        }
    }
    Ok(devices.into_iter().map(Device::autodiff).collect())
}

/// The names that `--devices LIST` stands for with `--device BASE`: a number is an index of that backend.
pub fn listed(base: &str, list: &str) -> String {
    let base = resolved(base);
    // A server's devices come after a #, and a number before it is its port.
    let (base, mark) = match base.strip_prefix("remote:") {
        Some(_) => (base.split('#').next().unwrap_or(base), '#'),
        None => match base.rsplit_once(':') {
            Some((kind, index)) if index.parse::<usize>().is_ok() => (kind, ':'),
            _ => (base, ':'),
        },
    };
    let names = list.split(',').map(str::trim);
    let names = names.map(|name| match name.parse::<usize>() {
        Ok(index) => format!("{base}{mark}{index}"),
        Err(_) => name.to_owned(),
    });
    names.collect::<Vec<_>>().join(",")
}

/// The devices of a process that is the `local`-th of several on its host: `cuda:auto` is the GPU of that number, or
/// that of the rest where there are fewer.
pub fn of_rank(names: &str, local: usize) -> String {
    let names = names
        .split(',')
        .map(|name| match name.trim().strip_suffix(":auto") {
            Some(base) => {
                let kinds = base.split(':').next().unwrap_or(base);
                let there = found(kinds)
                    .iter()
                    .filter(|(name, _)| name.starts_with(base))
                    .count();
                format!("{base}:{}", local % there.max(1))
            }
            None => name.to_owned(),
        });
    names.collect::<Vec<_>>().join(",")
}

/// Whether `device` computes in `dtype`.
///
/// # Errors
///
/// If it does not.
pub fn computes_in(name: &str, device: &Device, dtype: FloatDType) -> Result<()> {
    if device.supports_dtype(DType::from(dtype)) {
        return Ok(());
    }
    let others = match dtype {
        FloatDType::BF16 if device.supports_dtype(DType::F16) => "f16 or f32",
        FloatDType::F16 if device.supports_dtype(DType::BF16) => "bf16 or f32",
        _ => "f32",
    };
    let dtype = format!("{dtype:?}").to_lowercase();
    Err(Error::Device {
        name: name.to_owned(),
        message: format!("it does not compute in {dtype}; use {others}"),
    })
}

fn one(name: &str) -> Result<Device> {
    let fail = |message: String| Error::Device {
        name: name.to_owned(),
        message,
    };
    let known = || BACKENDS.iter().map(|b| b.name);
    // The device of a rank; for one process the first one.
    let name = name.strip_suffix(":auto").unwrap_or(name);
    let (base, rest) = match name.split_once(':') {
        Some((base, rest)) => (base, Some(rest)),
        None => (name, None),
    };
    if !BACKENDS.iter().any(|b| b.compiled) {
        return Err(fail(
            "this binary has no backend; build with --features flex (or another)".to_owned(),
        ));
    }
    let backend = backend(base).ok_or_else(|| {
        let hint = match base.to_lowercase().as_str() {
            // `cpu` is one letter away.
            "gpu" => ", did you mean `cuda`, `rocm`, `metal`, `vulkan` or `wgpu`?".to_owned(),
            _ => nearest(base, known())
                .map(|n| format!(", did you mean `{n}`?"))
                .unwrap_or_default(),
        };
        let all: Vec<_> = known().collect();
        fail(format!("unknown{hint} (known: {})", all.join(", ")))
    })?;
    if !backend.compiled {
        return Err(fail(format!(
            "this binary was built without it; build again with --features {} \
             (cargo run --release --features {0} -- …; where rezero-train is a dependency, its feature \
             `{0}`)",
            backend.name
        )));
    }
    #[cfg(feature = "tch")]
    if backend.name == "tch" {
        libtorch::check().map_err(fail)?;
    }
    let device = match (backend.name, rest) {
        ("remote", rest) => remote(rest.unwrap_or_default()).map_err(fail)?,
        (_, Some(_)) if !backend.indexed => {
            return Err(fail(format!(
                "`{}` is a single device and takes no index",
                backend.name
            )));
        }
        (name, rest) => open(name, rest).map_err(fail)?,
    };
    computes(&device).map_err(fail)?;
    Ok(device)
}

/// A device that is listed may still fail as soon as it is used, and its driver then panics.
fn computes(device: &Device) -> Result<(), String> {
    // With an exponential, which CUDA's kernels take from a file of its toolkit.
    let sum = || Tensor::<1>::zeros([2], device).exp().sum().into_data();
    match panics::unsaid(sum) {
        Ok(sum) if sum.iter::<f32>().all(|sum| (sum - 2.0).abs() < 1e-3) => Ok(()),
        Ok(_) => Err("e⁰ + e⁰ is not 2 on it; its driver is broken".to_owned()),
        Err(said) => Err(trouble::at_start(&said)),
    }
}

/// The message of a panic.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "it panicked",
    }
}

/// The devices of a compiled backend that are found on this machine, by name, without opening them.
pub fn found(name: &str) -> Vec<(String, Device)> {
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
    let Some(kind) = kind else {
        return Vec::new();
    };
    let devices = Device::enumerate(kind).into_vec().into_iter();
    // Burn lists libtorch's CUDA devices and leaves its CPU out.
    #[cfg(feature = "tch")]
    #[allow(deprecated)] // The backend leaves Burn in 0.23.
    if name == "tch" {
        let cuda = devices.enumerate();
        let cuda = cuda.map(|(i, device)| (format!("tch:cuda:{i}"), device));
        let cpu = ("tch:cpu".to_owned(), Device::libtorch());
        return std::iter::once(cpu).chain(cuda).collect();
    }
    let indexed = BACKENDS.iter().any(|b| b.name == name && b.indexed);
    let named = |(i, device)| match indexed {
        true => (format!("{name}:{i}"), device),
        false => (name.to_owned(), device),
    };
    devices.enumerate().map(named).collect()
}

fn open(name: &str, rest: Option<&str>) -> Result<Device, String> {
    #[cfg(feature = "tch")]
    #[allow(deprecated)]
    if (name, rest) == ("tch", Some("mps")) {
        // Not listed either. Whether it exists shows at the first computation.
        return Ok(Device::libtorch_mps());
    }
    // libtorch's devices have a kind before the index: tch:cuda:1.
    let (prefix, index) = match (name, rest) {
        ("tch", None | Some("cpu")) => ("tch:cpu", None),
        ("tch", Some(rest)) => match rest.strip_prefix("cuda") {
            Some("") => ("tch:cuda", None),
            Some(index) if index.starts_with(':') => ("tch:cuda", Some(&index[1..])),
            _ => {
                return Err("libtorch has tch:cpu, tch:cuda:N and tch:mps".to_owned());
            }
        },
        (_, index) => (name, index),
    };
    let index = match index {
        None => 0,
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| format!("`{text}` is not a device index; write for example {prefix}:0"))?,
    };
    let mut found = found(name);
    found.retain(|(name, _)| name.starts_with(prefix));
    match found.len() {
        0 => Err(none_found(name)),
        count if index >= count => Err(format!(
            "index {index} is out of range, {count} found (0 to {})",
            count - 1
        )),
        _ => Ok(found.swap_remove(index).1),
    }
}

/// Why a backend has no device here.
fn none_found(name: &str) -> String {
    #[cfg(feature = "cuda")]
    if name == "cuda" {
        // The list leaves out the reason why it is empty.
        let first = panics::unsaid(|| computes(&Device::cuda(0)));
        return match first {
            Err(said) => trouble::at_start(&said),
            Ok(Err(message)) => message,
            Ok(Ok(())) => "it is not listed, though it computes".to_owned(),
        };
    }
    format!(
        "no such device was found on this machine ({})",
        trouble::to_install(name)
    )
}

#[cfg(feature = "tch")]
mod libtorch {
    //! The version of the loaded libtorch. A version for which the bindings were not made has other
    //! symbols and layouts.

    use std::path::{Path, PathBuf};

    /// The version for which burn-tch's bindings were made.
    const WANTED: &str = "2.9";

    /// Fails if the library's version is known and is not the one that is needed.
    pub fn check() -> Result<(), String> {
        let Some(library) = loaded() else {
            return Ok(());
        };
        match version(&library) {
            Some(found) if !matches(&found) => Err(format!(
                "the libtorch that was loaded, {}, is version {found}; this binary needs {WANTED}: \
                 put that one first in LD_LIBRARY_PATH",
                library.display()
            )),
            _ => Ok(()),
        }
    }

    fn matches(version: &str) -> bool {
        let rest = version.strip_prefix(WANTED);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '+']))
    }

    /// The path from which this process loaded it, if the system reports it.
    fn loaded() -> Option<PathBuf> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let paths = maps
            .lines()
            .filter_map(|line| line.find('/').map(|i| &line[i..]));
        let mut libraries = paths.filter(|path| path.ends_with("/libtorch_cpu.so"));
        libraries.next().map(PathBuf::from)
    }

    /// PyTorch has a `version.py` beside `lib`; the standalone library has a file `build-version`.
    fn version(library: &Path) -> Option<String> {
        let root = library.parent()?.parent()?;
        if let Ok(text) = std::fs::read_to_string(root.join("version.py")) {
            let line = text.lines().find(|line| line.starts_with("__version__"))?;
            return line.split('\'').nth(1).map(str::to_owned);
        }
        let text = std::fs::read_to_string(root.join("build-version")).ok()?;
        Some(text.trim().to_owned())
    }

    #[cfg(test)]
    mod tests {
        use super::{matches, version};

        #[test]
        fn versions_of_both_layouts() {
            let dir = tempfile::tempdir().unwrap();
            let library = dir.path().join("lib/libtorch_cpu.so");
            assert_eq!(version(&library), None);
            std::fs::write(dir.path().join("build-version"), "2.9.0+cpu\n").unwrap();
            assert_eq!(version(&library).unwrap(), "2.9.0+cpu");
            let text = "from typing import Optional\n__version__ = '2.10.1+cu128'\n";
            std::fs::write(dir.path().join("version.py"), text).unwrap();
            assert_eq!(version(&library).unwrap(), "2.10.1+cu128");
            assert!(matches("2.9.1+cu128") && matches("2.9"));
            assert!(!matches("2.10.1") && !matches("2.90") && !matches("2.8.0"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_devices() {
        assert_eq!(listed("cuda", "0, 1"), "cuda:0,cuda:1");
        assert_eq!(listed("auto", "flex,flex"), "flex,flex");
        assert_eq!(listed("tch:cuda:1", "0,1"), "tch:cuda:0,tch:cuda:1");
        assert_eq!(
            listed("remote:a:30#1", "0,2"),
            "remote:a:30#0,remote:a:30#2"
        );
        let both = select_all("flex,flex").unwrap();
        assert_eq!(both.len(), 2);
        let message = select_all("flex,flx").unwrap_err().to_string();
        assert!(message.contains("did you mean `flex`?"), "{message}");
        let message = select("flex:0").unwrap_err().to_string();
        assert!(message.contains("takes no index"), "{message}");
        // As the recipe of a run on several ranks has it.
        select("flex:auto").unwrap();
    }

    #[test]
    fn tolerances_and_their_reasons_are_documented() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/BACKENDS.md");
        let docs = std::fs::read_to_string(docs).unwrap();
        for Backend {
            name,
            tolerance,
            why,
            ..
        } in BACKENDS
        {
            let row = format!("| {tolerance:.0e} | {why} |");
            let mut lines = docs.lines().filter(|line| line.ends_with(&row));
            let named = lines.any(|line| line.contains(&format!("`{name}`")));
            assert!(named, "docs/BACKENDS.md: `{name}` {row}");
        }
        assert_eq!(backend("tch:cuda:1").unwrap().name, "tch");
        assert!(backend("flx").is_none());
    }
}
