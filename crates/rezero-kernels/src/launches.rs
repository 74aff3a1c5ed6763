//! Which kernels a CubeCL backend launches, and how long each takes on the device.

/// A launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The kernel's name, shortened.
    pub kernel: String,
    /// When it began and ended on the device, in milliseconds from the first launch. `None` if the device did not measure it.
    pub ms: Option<[f64; 2]>,
}

/// Runs `work`, and reports the launches of the whole process meanwhile, in their order. Two timestamps around each launch take some microseconds.
/// Without feature `cube`, and for work on other backends, there are none. `work` should end with a read, so that nothing is
/// launched after it.
pub fn launches<R>(work: impl FnOnce() -> R) -> (R, Vec<Launch>) {
    #[cfg(feature = "cube")]
    return crate::cube::launches::observed(work);
    #[cfg(not(feature = "cube"))]
    (work(), Vec::new())
}
