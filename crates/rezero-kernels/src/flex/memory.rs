//! Tensors as slices, and slices as tensors.

use core::mem::MaybeUninit;
use std::cell::RefCell;

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{Bytes, TensorMetadata};
use burn::tensor::{DType, Shape};

/// Memory for the result of a kernel, whose tasks write every value of it.
///
/// New memory is the largest cost of a cheap operation; filling it with zeros would double the
/// cost.
pub(super) struct Fresh {
    /// Without elements until all are written.
    values: Vec<f32>,
    len: usize,
}

impl Fresh {
    /// Memory for `len` values.
    pub fn new(len: usize) -> Self {
        Self {
            values: Vec::with_capacity(len),
            len,
        }
    }

    /// Lends the memory out to tasks, as [`Shared::new`].
    pub fn shared(&mut self) -> Shared {
        Shared {
            start: self.values.as_mut_ptr(),
            len: self.len,
        }
    }

    /// The values.
    ///
    /// # Safety
    ///
    /// Each of them was written.
    pub unsafe fn written(mut self) -> Vec<f32> {
        // SAFETY: the capacity is at least `len`; all are written, by the caller's promise.
        unsafe { self.values.set_len(self.len) };
        self.values
    }
}

/// The number of elements of a tensor with these extents.
///
/// # Panics
///
/// If they do not fit into memory. The extents may come from a view of a few values or from a padding,
/// so nothing else bounds them, and a product that wraps would be taken for a small one.
pub(super) fn elements(extents: &[usize]) -> usize {
    extents
        .iter()
        .try_fold(1usize, |n, extent| n.checked_mul(*extent))
        .filter(|n| *n <= isize::MAX as usize / size_of::<f32>())
        .expect("a kernel's output and its scratch memory must fit into memory")
}

/// A contiguous tensor of `values`.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let shape = shape.into();
    debug_assert_eq!(values.len(), shape.num_elements());
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape),
        DType::F32,
    )
}

/// The tensor with its elements in order and without gaps: itself if they are so, else a copy.
pub(super) fn contiguous(tensor: &FlexTensor) -> FlexTensor {
    match tensor.is_contiguous() {
        true => tensor.clone(),
        false => tensor.to_contiguous(),
    }
}

/// The tensor without negative strides: itself, or a copy if it is flipped.
pub(super) fn forwards(tensor: &FlexTensor) -> FlexTensor {
    match tensor.layout().strides().iter().all(|stride| *stride >= 0) {
        true => tensor.clone(),
        false => tensor.to_contiguous(),
    }
}

/// The values of a contiguous tensor.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous f32 tensor")
}

/// The single value of a tensor of one element.
pub(super) fn scalar(tensor: &FlexTensor) -> f32 {
    tensor.storage::<f32>()[tensor.layout().start_offset()]
}

/// A contiguous tensor that may be overwritten: the same if no other tensor shares its memory, else
/// a copy.
pub(super) fn writable(tensor: FlexTensor) -> FlexTensor {
    let whole = tensor.is_contiguous()
        && tensor.layout().start_offset() == 0
        && tensor.bytes().len() == tensor.shape().num_elements() * size_of::<f32>();
    if whole && tensor.is_unique() {
        return tensor;
    }
    let tensor = contiguous(&tensor);
    self::tensor(values(&tensor).to_vec(), tensor.shape())
}

/// The values of a [`writable`] tensor.
pub(super) fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    tensor.storage_mut()
}

/// The extents of a tensor of `D` dimensions.
pub(super) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.shape().dims()
}

/// Memory that several tasks write; each task writes its own part.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    start: *mut f32,
    len: usize,
}

// SAFETY: tasks use the pointer through `part` and `start_of`, and take disjoint parts.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Lends `values` out to tasks. The borrow has to outlive them: use it in the scope of one
    /// parallel loop.
    pub fn new(values: &mut [f32]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
        }
    }

    /// The `len` values from `from` on.
    ///
    /// # Safety
    ///
    /// No other reference to these values exists, the memory is still borrowed, and if it is
    /// [`Fresh`], the values were written.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, from: usize, len: usize) -> &mut [f32] {
        assert!(from <= self.len && len <= self.len - from);
        // SAFETY: in bounds as asserted, unique by the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(from), len) }
    }

    /// As [`part`](Self::part), for values that may not be written yet.
    ///
    /// # Safety
    ///
    /// No other reference to these values exists, and the memory is still borrowed.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn fresh_part(&self, from: usize, len: usize) -> &mut [MaybeUninit<f32>] {
        let start = self.start_of(from, len).cast();
        // SAFETY: in bounds as `start_of` asserts, unique by the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(start, len) }
    }

    /// A pointer to the value at `from`, with at least `len` values from there on. It is for tiles:
    /// values of other tasks lie between their rows.
    pub fn start_of(&self, from: usize, len: usize) -> *mut f32 {
        assert!(from <= self.len && len <= self.len - from);
        // SAFETY: in bounds as asserted.
        unsafe { self.start.add(from) }
    }
}

/// Runs `f` on `len` values of this thread's scratch memory, which may hold values of earlier uses.
pub(super) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            *scratch = vec![0.0; len];
        }
        f(&mut scratch[..len])
    })
}

/// Asks for the cache lines of `len` values from `from` on, as far as there are any. It has no effect but on time: images lie in planes of a
/// page or less, and processors do not prefetch beyond the end of a page.
#[inline(always)]
pub(super) fn prefetch(values: &[f32], from: usize, len: usize) {
    /// Values of a line.
    const LINE: usize = 16;
    let from = from.min(values.len());
    let part = &values[from..values.len().min(from + len)];
    for line in part.chunks(LINE) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 processor has the instruction, which may be given any address.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}
