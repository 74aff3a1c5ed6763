//! What a driver's message means, and what to do. Burn gives errors of devices as text, most of them in panics.

/// A message is of this kind if it has one of these, in lower case.
type Signs = &'static [&'static str];

/// The device is out of memory.
const MEMORY: Signs = &[
    "out of memory",
    "out-of-memory",
    "out of device memory",
    "outofmemory",
    "out_of_memory",
    "not enough memory",
    "can't allocate",
    "cannot allocate",
    // CubeCL of HIP, whose statuses have no names there.
    "malloc failed with status 2",
    "failed to allocate metal buffer",
];

/// A tensor has more bytes than a buffer of the device may have, or a kernel needs more thread blocks than a launch of the device may
/// have. Free memory does not help.
const SIZE: Signs = &[
    // CubeCL: `IoError::BufferTooBig`. On its CPU, the system has refused the memory.
    "can't allocate buffer of size",
    // CubeK's products and attention, Burn's convolutions: `CubeCountTooBig`.
    "cube count too big",
    "cubecounttoobig",
    // wgpu: a launch, a buffer, a part of one.
    "each current dispatch group size dimension",
    "is greater than the maximum buffer size",
    "buffer_binding_size` limit",
];

/// The device, or the connection to it, is gone until the process ends.
const LOST: Signs = &[
    // CubeCL, after a fault from which the driver does not recover.
    "poisoned",
    // wgpu.
    "device is lost",
    "device was lost",
    "device lost",
    "device_lost",
    // CUDA, where its status is not in CubeCL's list: a GPU that has fallen off the bus, or that was taken away.
    "cuda_error_unknown",
    "cuda_error_no_device",
    "cuda_error_device_unavailable",
    "cuda_error_deinitialized",
    "cuda_error_nvlink_uncorrectable",
    "failed with status 999",
    "failed with status 100",
    "failed with status 46",
    "failed with status 4",
    "failed with status 220",
    // A server of `rezero serve`.
    "open a remote session",
    "remote response channel closed",
];

/// The thread that computes is gone, or the server: another message may say why.
const OF_ANOTHER: Signs = &[
    "callerror",
    "should have handle",
    "recverror",
    "service call failed",
    "torn down",
    "disconnected",
];

/// What to install or do, by what a message of a device that does not start has.
const NEEDED: &[(Signs, &str)] = &[
    (
        &["libdevice"],
        "libdevice.10.bc is missing: install the CUDA toolkit's nvvm, and set CUDA_PATH to the folder above nvvm/libdevice",
    ),
    (
        &["nvrtc"],
        "NVRTC is missing: install the CUDA toolkit, and add its folder of libraries to LD_LIBRARY_PATH",
    ),
    (
        &["load the \"cuda\""],
        "NVIDIA's driver is missing: install it, so that `nvidia-smi` lists the GPU; start a container with it, as `docker run --gpus all` does",
    ),
    (
        &[
            "cuda_error_no_device",
            "cuda_error_invalid_device",
            "failed with status 100",
        ],
        "the driver gives this process no GPU: see `nvidia-smi`, and the variable CUDA_VISIBLE_DEVICES",
    ),
    (
        &[
            "cuda_error_system_driver_mismatch",
            "failed with status 803",
        ],
        "the driver's library and its kernel module are of two versions: restart the machine after an update; in a container, take the library of the machine",
    ),
    (
        &["cuda_error_system_not_ready", "failed with status 802"],
        "start nvidia-fabricmanager, of the version of the driver",
    ),
    (
        &[
            "unsupported_ptx_version",
            "cuda_error_invalid_ptx",
            "no_binary_for_gpu",
            "cuda_error_compat_not_supported",
            "cuda_error_insufficient_driver",
            "undefined symbol",
            "dlsym",
        ],
        "the driver is too old: update it; `nvidia-smi` prints its version, and 580 is known to do",
    ),
    (
        &[
            "cuda_error_device_unavailable",
            "busy or unavailable",
            "failed with status 46",
        ],
        "another process has it for itself: `nvidia-smi` lists the processes and the compute mode",
    ),
    (
        MEMORY,
        "its memory is full: `nvidia-smi` or `rocm-smi` lists the processes that have it",
    ),
];

fn has(message: &str, signs: Signs) -> bool {
    let message = message.to_lowercase();
    let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    signs.iter().any(|sign| {
        let mut found = message.match_indices(sign);
        // Status 4 is not the beginning of status 46.
        found.any(|(at, sign)| {
            !(digit(&sign[sign.len() - 1..]) && digit(&message[at + sign.len()..]))
        })
    })
}

/// Whether a message says that memory ran out.
pub(crate) fn tells_of_memory(message: &str) -> bool {
    has(message, MEMORY) && !tells_of_size(message)
}

/// Whether a message says that a tensor is larger than a buffer or a launch of the device may be.
pub(crate) fn tells_of_size(message: &str) -> bool {
    has(message, SIZE)
}

/// What a message says of memory or of a size, as [`beginning`].
pub(crate) fn of_memory(message: &str) -> String {
    let message = message.replace("\\n", "\n");
    let line = |signs| message.lines().find(|line| has(line, signs));
    // A launch or a buffer is named below the operation that made it.
    let found = line(SIZE).or_else(|| line(MEMORY));
    beginning(found.unwrap_or(&message))
}

/// Whether a message says that one of these devices can no longer be used.
pub(crate) fn is_lost(message: &str, names: &str) -> bool {
    let here = ["flex", "ndarray", "tch"];
    // On the others, the thread that has gone is the device's, or the one that reads from the server.
    let elsewhere = || {
        let mut kinds = names.split(',').map(|name| name.trim().split(':').next());
        kinds.any(|kind| !here.iter().any(|here| kind == Some(here)))
    };
    has(message, LOST) || is_gone(message) && elsewhere()
}

/// Whether a thread that was waited for has gone.
fn is_gone(message: &str) -> bool {
    has(message, &["recverror", "service call failed"])
}

/// Whether a message says only that another thread is gone.
pub(super) fn is_of_another(message: &str) -> bool {
    has(message, OF_ANOTHER)
}

/// Whether an error will say what a message says.
pub(super) fn is_known(message: &str) -> bool {
    has(message, MEMORY) || has(message, SIZE) || has(message, LOST) || is_of_another(message)
}

/// An error of a device that does not start.
pub(super) fn at_start(message: &str) -> String {
    let hint = needed(message).unwrap_or("is its driver installed?");
    format!("it does not start: {} ({hint})", beginning(message))
}

fn needed(message: &str) -> Option<&'static str> {
    NEEDED
        .iter()
        .find_map(|(signs, hint)| has(message, signs).then_some(*hint))
}

/// What to install where a backend finds no device.
pub(crate) fn to_install(backend: &str) -> &'static str {
    match backend {
        "cuda" => "install NVIDIA's driver, so that `nvidia-smi` lists the GPU",
        "rocm" => "install AMD's driver and ROCm, so that `rocminfo` lists the GPU",
        "metal" => "it needs macOS",
        "vulkan" | "wgpu" => {
            "install the GPU's Vulkan driver, so that `vulkaninfo --summary` lists it; Debian's mesa-vulkan-drivers has one without a GPU"
        }
        "tch" => "libtorch sees no such GPU",
        _ => "is its driver installed?",
    }
}

/// The beginning of a driver's message, at most 200 characters: libtorch's messages are long lists. Of a chain of errors it is the
/// last, which is the cause.
pub fn beginning(message: &str) -> String {
    // Burn prints the reason of an error with escapes.
    let message = message.replace("\\n", "\n");
    // What comes after it is where CubeCL noticed it.
    let chain = message.split("Backtrace").next().unwrap_or_default();
    let cause = chain
        .rsplit("Caused by:")
        .map(str::trim)
        .find(|cause| !cause.is_empty());
    let line = cause.unwrap_or_default().lines().next().unwrap_or_default();
    let line = line.trim_start_matches(READING).trim();
    let line = line
        .trim_start_matches("WithContext { reason: \"")
        .trim_start_matches("DevicePoisoned { reason: \"");
    let line = line.trim_end_matches(|c| "\" }".contains(c));
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// How Burn begins to say that a read failed.
const READING: &str =
    "Error while reading data: use `try_into_data` instead to catch the error at runtime: ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_to_its_cause() {
        assert_eq!(beginning("one\ntwo"), "one");
        assert_eq!(beginning(r#"Torch("one\ntwo")"#), "Torch(\"one");
        assert_eq!(beginning(&"ä".repeat(300)), format!("{}…", "ä".repeat(200)));
        assert_eq!(beginning(""), "");
        let read = format!(
            "{READING}WithContext {{ reason: \"The bytes were never written (failure #1, still claiming 3 buffer(s))\\nCaused by:\\n  An IO error happened\\nCaused by:\\n  out of device memory allocating 512 bytes\\n\\nBacktrace:\\n  0: f\" }}"
        );
        assert_eq!(
            beginning(&read),
            "out of device memory allocating 512 bytes"
        );
        let lost =
            format!("{READING}DevicePoisoned {{ reason: \"cuMemcpy failed with status 700\" }}");
        assert_eq!(beginning(&lost), "cuMemcpy failed with status 700");
    }

    #[test]
    fn what_a_driver_lacks_is_named() {
        for (message, part) in [
            (
                "Error while reading data\n  libdevice.10.bc was not found: the kernel calls a function",
                "CUDA_PATH",
            ),
            ("cannot load libnvrtc.so", "NVRTC"),
            (
                "Unable to dynamically load the \"cuda\" shared library - searched for",
                "nvidia-smi",
            ),
            (
                "DriverError(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, \"the provided PTX was compiled\")",
                "too old",
            ),
            (
                "DriverError(CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device is detected\")",
                "CUDA_VISIBLE_DEVICES",
            ),
            (
                "DriverError(CUDA_ERROR_DEVICE_UNAVAILABLE, \"busy\")",
                "another process",
            ),
            (
                "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                "memory is full",
            ),
            (
                "DriverError(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, \"system\")",
                "restart",
            ),
        ] {
            let said = at_start(message);
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(needed("an error"), None);
        assert!(at_start("an error").contains("is its driver installed?"));
    }

    #[test]
    fn lost_devices_and_full_ones_are_told_from_errors() {
        for lost in [
            "DevicePoisoned { reason: \"The device is poisoned\" }",
            "Generic { reason: \"Failed to read tensor: RecvError(())\" }",
            "Service call failed: CallError",
            "wgpu error: Parent device is lost",
            "cuEventRecord failed with status 999",
        ] {
            assert!(is_lost(lost, "flex,cuda:1"), "{lost}");
            assert_eq!(is_lost(lost, "flex"), !is_gone(lost), "{lost}");
            assert!(!tells_of_memory(lost), "{lost}");
        }
        for error in [
            "index out of bounds: the len is 3",
            "Should have the same shape",
            "failed with status 401",
        ] {
            assert!(!is_known(error), "{error}");
        }
        assert!(tells_of_memory("out of device memory allocating 512 bytes"));
        assert!(!tells_of_memory("hipMalloc failed with status 209"));
    }

    #[test]
    fn full_devices_are_told_from_tensors_that_are_too_large() {
        // As CubeCL 0.11.3, CubeK 0.3.1, wgpu 30.0.1 and libtorch print them.
        for (memory, part) in [
            (
                "An error happened\nCaused by:\n  out of device memory allocating 512 bytes\n\nBacktrace:",
                "out of device memory allocating 512 bytes",
            ),
            (
                "An out-of-memory error happened during launch\nCaused by:\n  out of memory launching kernel K",
                "An out-of-memory error happened during launch",
            ),
            (
                "CUDA allocation error: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                "CUDA_ERROR_OUT_OF_MEMORY",
            ),
            (
                "hipMalloc failed with status 2",
                "hipMalloc failed with status 2",
            ),
            (
                "Can't allocate 64 bytes: every page size the memory tracks still holds live allocations",
                "Can't allocate 64 bytes",
            ),
            ("wgpu error: Out of Memory", "Out of Memory"),
            ("Not enough memory left.", "Not enough memory left."),
            (
                "Torch(\"[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.\")",
                "can't allocate memory",
            ),
        ] {
            assert!(
                tells_of_memory(memory) && !tells_of_size(memory),
                "{memory}"
            );
            assert!(is_known(memory), "{memory}");
            let said = of_memory(memory);
            assert!(said.contains(part), "{said}");
        }
        for (size, said) in [
            (
                "WithContext { reason: \"An IO error happened\\nCaused by:\\n  can't allocate buffer of size: 262144000\\nno backtrace\" }",
                "can't allocate buffer of size: 262144000",
            ),
            (
                "Caused by:\n  the work writing it was skipped 226 operation(s) below a failure: matmul_naive: An unknown error happened.\nUnable to launch matmul because a required feature is unavailable: Cube count too big (8, 8, 120000)\n\n",
                "Unable to launch matmul because a required feature is unavailable: Cube count too big (8, 8, 120000)",
            ),
            (
                "wgpu error: Validation Error\n\nCaused by:\n  In a CommandEncoder\n    In a dispatch command, indirect:false\n      Each current dispatch group size dimension ([70000, 1, 1]) must be less or equal to 65535\n",
                "Each current dispatch group size dimension ([70000, 1, 1]) must be less or equal to 65535",
            ),
            (
                "wgpu error: Validation Error\n\nCaused by:\n  In Device::create_buffer\n    Buffer size 9 is greater than the maximum buffer size (8)\n",
                "Buffer size 9 is greater than the maximum buffer size (8)",
            ),
            (
                "wgpu error: Validation Error\n\nCaused by:\n  In Device::create_bind_group\n    Buffer binding 0 range 9 exceeds `max_*_buffer_binding_size` limit 8\n",
                "Buffer binding 0 range 9 exceeds `max_*_buffer_binding_size` limit 8",
            ),
        ] {
            assert!(tells_of_size(size) && !tells_of_memory(size), "{size}");
            assert!(is_known(size), "{size}");
            assert_eq!(of_memory(size), said);
        }
    }
}
