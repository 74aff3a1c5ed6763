//! The memory that a device's backend holds.

use burn::tensor::Device;

/// The bytes of its memory that this process has reserved on a device, with those that no tensor uses at the moment: CubeCL keeps what it has
/// reserved for later tensors. `None` on other backends than CubeCL's.
pub fn device_memory(device: &Device) -> Option<u64> {
    #[cfg(feature = "cube")]
    return crate::cube::reserved(device);
    #[cfg(not(feature = "cube"))]
    {
        let _ = device;
        None
    }
}
