//! Devices in words: as `env.json` records them, as a report says them, and their products' names.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// Devices as `env.json` names them.
pub fn in_words(devices: &[Device]) -> String {
    let inner: Vec<Device> = devices.iter().map(|d| d.clone().inner()).collect();
    match inner.as_slice() {
        [one] => format!("{one:?}"),
        several => format!("{several:?}"),
    }
}

/// The devices that `env.json` records, from [`in_words`], in plain words; a text that is not of this
/// kind stays as it is.
pub fn plainly(recorded: &str) -> String {
    let mut names: Vec<(String, usize)> = Vec::new();
    for device in recorded.split("Device<").skip(1) {
        let Some(name) = plain_name(device) else {
            return recorded.to_owned();
        };
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => names.push((name, 1)),
        }
    }
    if names.is_empty() {
        return recorded.to_owned();
    }
    let names: Vec<String> = names
        .into_iter()
        .map(|(name, count)| match count {
            1 => name,
            n => format!("{n} × {name}"),
        })
        .collect();
    names.join(" and ")
}

/// Burn's `Debug` text of a device in words, by the name of its backend.
fn plain_name(debug: &str) -> Option<String> {
    // The number after the last `word`, as in `Cuda(0)`.
    let index = |word: &str| {
        let (_, rest) = debug.rsplit_once(word)?;
        let rest = rest.strip_prefix('(')?;
        rest[..rest.find(')')?].parse::<usize>().ok()
    };
    let gpu = |api: &str, word: &str| match index(word) {
        Some(index) => format!("{api} on GPU {index}"),
        None => format!("{api} on a GPU"),
    };
    let has = |word: &str| debug.contains(word);
    let name = if has("Remote") {
        "a device of another machine".to_owned()
    } else if has("Flex") {
        "Flex on the CPU".to_owned()
    } else if has("NdArray") {
        "ndarray on the CPU".to_owned()
    } else if has("LibTorch") {
        match (has("Cuda"), has("Mps")) {
            (true, _) => gpu("libtorch", "Cuda"),
            (_, true) => "libtorch on an Apple GPU".to_owned(),
            _ => "libtorch on the CPU".to_owned(),
        }
    } else if has("Wgpu") {
        let api = ["Vulkan", "Metal", "WebGpu", "Dx12", "Gl"]
            .into_iter()
            .find(|api| has(&format!("backend: {api}")))
            .unwrap_or("wgpu");
        match ["DiscreteGpu", "IntegratedGpu", "VirtualGpu"]
            .into_iter()
            .find(|kind| has(kind))
        {
            Some(kind) => gpu(api, kind),
            None if has("kind: Cpu") => format!("{api} on the CPU"),
            None => format!("{api} on a GPU"),
        }
    } else if has("Cuda") {
        gpu("CUDA", "Cuda")
    } else if has("AmdDevice") {
        gpu("ROCm", "AmdDevice")
    } else if has("Metal") {
        "Metal on a GPU".to_owned()
    } else if has("Cpu") {
        "CubeCL on the CPU".to_owned()
    } else {
        return None;
    };
    Some(name)
}

/// A device in words.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Description {
    /// The product's name.
    pub name: String,
    /// Bytes of memory, if the driver reports them.
    pub memory: Option<u64>,
}

/// The description of a device. Opens a GPU.
pub fn describe(device: &Device) -> Description {
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(cube) = device.as_dispatch() {
        let client = cube.client();
        let properties = client.properties();
        let identity = &properties.identity;
        // A device that is not a card is this machine's processor under another name.
        let host = identity.physical.is_none().then(|| processor().memory);
        return Description {
            name: identity.name.clone(),
            memory: properties.memory.max_memory().or(host.flatten()),
        };
    }
    let text = format!("{device:?}").to_lowercase();
    let name = if text.contains("remote") {
        "a device of another machine"
    } else if text.contains("cuda") {
        "a GPU of libtorch"
    } else if text.contains("mps") {
        "an Apple GPU of libtorch"
    } else {
        return processor();
    };
    Description {
        name: name.to_owned(),
        memory: None,
    }
}

fn processor() -> Description {
    let system = sysinfo::System::new_with_specifics(
        sysinfo::RefreshKind::nothing()
            .with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram())
            .with_cpu(sysinfo::CpuRefreshKind::nothing()),
    );
    let brand = system.cpus().first().map_or("", |cpu| cpu.brand().trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Description {
        name: format!("{brand}, {cores} threads"),
        memory: Some(system.total_memory()).filter(|bytes| *bytes > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::select_all;

    #[test]
    fn recorded_devices_are_told_in_words() {
        let flex = select_all("flex").unwrap();
        assert_eq!(plainly(&in_words(&flex)), "Flex on the CPU");
        let both = select_all("flex,flex").unwrap();
        assert_eq!(plainly(&in_words(&both)), "2 × Flex on the CPU");
        for (recorded, words) in [
            ("Device<Flex(Cpu)>", "Flex on the CPU"),
            ("Device<NdArray(Cpu)>", "ndarray on the CPU"),
            ("Device<Cube(Cuda(Cuda(1)))>", "CUDA on GPU 1"),
            ("Device<Cube(Cuda(1))>", "CUDA on GPU 1"),
            ("Device<Cube(Hip(AmdDevice(0)))>", "ROCm on GPU 0"),
            ("Device<LibTorch(Cuda(2))>", "libtorch on GPU 2"),
            ("Device<LibTorch(Cpu)>", "libtorch on the CPU"),
            (
                "Device<Cube(Wgpu(WgpuDevice { kind: DiscreteGpu(0), backend: Vulkan }))>",
                "Vulkan on GPU 0",
            ),
            (
                "Device<Cube(Wgpu(WgpuDevice { kind: Cpu, backend: Auto }))>",
                "wgpu on the CPU",
            ),
            (
                "[Device<Flex(Cpu)>, Device<NdArray(Cpu)>]",
                "Flex on the CPU and ndarray on the CPU",
            ),
            ("Device<Quantum(7)>", "Device<Quantum(7)>"),
            ("a laptop", "a laptop"),
            ("", ""),
        ] {
            assert_eq!(plainly(recorded), words);
        }
    }
}
