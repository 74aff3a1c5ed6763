//! An allocator that keeps freed memory for later use.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::OnceLock;

use mimalloc::MiMalloc;

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
/// A training step frees and allocates the same large blocks again and again. The system's
/// allocator returns them to the operating system each time, which fills their pages with zeros
/// before it gives them out again. [`keep_memory`] prevents this.
#[derive(Debug)]
pub struct Allocator;

static EXHAUSTED: OnceLock<fn(usize)> = OnceLock::new();

/// Makes the allocator call `report` with the requested number of bytes when the system has no
/// memory left, before Rust ends the process. `report` may say what to change, and should end the
/// process itself. Only the first call of `on_exhausted` has an effect.
pub fn on_exhausted(report: fn(usize)) {
    let _ = EXHAUSTED.set(report);
}

/// Tells [`Allocator`] to keep freed memory for later blocks for as long as the process lives,
/// instead of returning it after a while (mimalloc's `purge_delay`). Call it first in `main`.
pub fn keep_memory() {
    /// `mi_option_purge_delay`. The binding has no name for it; it precedes the NUMA nodes' option.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = libmimalloc_sys::mi_option_use_numa_nodes - 1;
    // SAFETY: sets a number in mimalloc's table of options, of which this is one.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

fn checked(block: *mut u8, bytes: usize) -> *mut u8 {
    if block.is_null()
        && let Some(report) = EXHAUSTED.get()
    {
        report(bytes);
    }
    block
}

// SAFETY: every call is handed on to mimalloc as it is.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the same.
        checked(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { MiMalloc.realloc(block, layout, size) }, size)
    }
}
