//! Work whose results stay in the memory where they are, so that it can be captured and replayed.
//!
//! A [captured](capture) step reads and writes the memory that it had when it was captured. So nothing may move: an optimizer's
//! update, a running statistic and the next batch are written over the old values. Burn's tensors are values, and an
//! operation gives a new one; the functions here are the exception. They work on CubeCL's backends (feature `cube`).

use std::cell::Cell;
use std::thread::{self, ThreadId};

use burn::tensor::{DType, Device, Graph, Int, Tensor};

thread_local! {
    static IN_PLACE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, in which [`fused::batch_norm`](crate::fused::batch_norm) and
/// [`fused::batch_norm_gated_sum`](crate::fused::batch_norm_gated_sum) write the running statistics over the old ones, if these
/// are on a backend that [`overwrite`] works on. They do so when `work` returns, in few launches for all norms; if it panics, statistics keep their values,
/// except those of a norm that was applied more than once. Other tensors that share their memory, such as those of a clone of the
/// module, change with them.
pub fn in_place<R>(work: impl FnOnce() -> R) -> R {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            IN_PLACE.set(self.0);
        }
    }
    let _before = Before(IN_PLACE.replace(true));
    #[cfg(feature = "cube")]
    return crate::cube::running::gathered(work);
    #[cfg(not(feature = "cube"))]
    work()
}

/// Whether this runs in [`in_place`].
#[cfg(feature = "cube")]
pub(crate) fn active() -> bool {
    IN_PLACE.get()
}

/// Runs `work`, and then the updates of parameters that it asked for with [`SgdStep::in_place`](crate::SgdStep::in_place) and the like, in few
/// launches: a launch has as many parameters as the device binds buffers. Until `work` returns, these tensors have their old values, or
/// with other updates of them within `work` no certain ones. If it panics, nothing is updated.
pub fn together<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "cube")]
    return crate::cube::optim::together(work);
    #[cfg(not(feature = "cube"))]
    work()
}

/// Writes the values of `new` into the memory of `old`. All tensors that share this memory change, and autodiff does not notice. False, and
/// nothing is written, if the tensors are not on a CubeCL backend, or of different types.
///
/// # Panics
///
/// If the shapes differ.
pub fn overwrite<const D: usize>(old: &Tensor<D>, new: &Tensor<D>) -> bool {
    must_fit(old.dims(), new.dims());
    #[cfg(feature = "cube")]
    return crate::cube::overwrite(old.clone().into_dispatch(), new.clone().into_dispatch());
    #[cfg(not(feature = "cube"))]
    false
}

/// Whether [`overwrite`] works on a device, which is without autodiff.
pub fn can_overwrite(device: &Device) -> bool {
    let [old, new] = [(); 2].map(|()| Tensor::<1>::zeros([1], (device, DType::F32)));
    overwrite(&old, &new)
}

/// [`overwrite`] for integers of one type.
///
/// # Panics
///
/// If the shapes differ.
pub fn overwrite_int<const D: usize>(old: &Tensor<D, Int>, new: &Tensor<D, Int>) -> bool {
    must_fit(old.dims(), new.dims());
    #[cfg(feature = "cube")]
    return crate::cube::overwrite(old.clone().into_dispatch(), new.clone().into_dispatch());
    #[cfg(not(feature = "cube"))]
    false
}

fn must_fit<const D: usize>(old: [usize; D], new: [usize; D]) {
    assert_eq!(
        old, new,
        "a tensor can be overwritten by one of its own shape."
    );
}

/// A step that was recorded and can be repeated.
pub struct Captured<T> {
    graph: Graph<T, Box<dyn FnMut() -> T>>,
    /// Some backends have a stream for each thread, and a replay is in order with the work of its own stream only.
    thread: ThreadId,
}

/// Records `step`, which is run four times for it: three times to compile its kernels, to choose among them and to reserve
/// memory, and once while the launches are recorded. While a backend records (CUDA and ROCm; wgpu in software), the run computes nothing.
/// So the memory that `step` writes must be restored afterwards.
///
/// `device` is without autodiff. `step` may use autodiff, but it must not read from a device or write to one, and must write everything that
/// it leaves for its next run [in place](in_place). Where it cannot be recorded, a replay runs it again.
pub fn capture<T: 'static>(device: &Device, step: impl FnMut() -> T + 'static) -> Captured<T> {
    let step: Box<dyn FnMut() -> T> = Box::new(step);
    Captured {
        graph: burn::tensor::capture(device, step),
        thread: thread::current().id(),
    }
}

impl<T> Captured<T> {
    /// Runs the step once more. The output is that of the capture, with new values.
    ///
    /// # Panics
    ///
    /// If it is called on another thread than [`capture`].
    pub fn replay(&mut self) -> &T {
        assert_eq!(
            self.thread,
            thread::current().id(),
            "a captured step must be replayed on the thread that captured it."
        );
        // SAFETY: the closure and the output own all tensors of the step, since both are 'static, and the
        // backend keeps the memory in between as long as the graph; the thread is the one of the capture,
        // so that the work before and after is in its order.
        unsafe { self.graph.replay() }
    }

    /// The output, whose values are those of the last replay.
    pub fn output(&self) -> &T {
        self.graph.output()
    }

    /// Whether a replay repeats recorded work: one launch on CUDA and ROCm, all recorded launches without their preparation on wgpu. Otherwise it runs
    /// the step again.
    pub fn is_hardware(&self) -> bool {
        self.graph.is_hardware()
    }
}

impl<T> std::fmt::Debug for Captured<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captured")
            .field("is_hardware", &self.is_hardware())
            .finish_non_exhaustive()
    }
}
