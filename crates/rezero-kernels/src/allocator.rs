//! An allocator that keeps the memory that it is given back.

/// mimalloc, as a global allocator for a binary that trains:
///
/// ```
/// use rezero_kernels::allocator::{Allocator, keep_memory};
///
/// #[global_allocator]
/// static ALLOCATOR: Allocator = Allocator;
///
/// fn main() {
///     keep_memory();
/// }
/// ```
///
/// A training step frees and allocates the same large blocks again and again. The system's allocator
/// hands them back to the kernel each time, which fills their pages with zeros before it gives them
/// out again; see [`keep_memory`].
pub use mimalloc::MiMalloc as Allocator;

/// Tells [`Allocator`] to keep freed memory for later blocks for as long as the process lives,
/// instead of returning it after a while (mimalloc's `purge_delay`). Call it first in `main`.
pub fn keep_memory() {
    /// `mi_option_purge_delay`, which the binding has no name for: the one before the NUMA nodes.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_use_numa_nodes - 1;
    // SAFETY: sets a number in mimalloc's table of options, of which this is one.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
