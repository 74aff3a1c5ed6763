//! Work cut into tasks, the same way whatever the number of threads, so that results do not depend
//! on it.

use std::sync::OnceLock;

use pulp::Arch;

use super::pool;

/// Runs `task(0)` to `task(n - 1)` on several threads.
pub(super) fn each(n: usize, task: impl Fn(usize) + Sync + Send) {
    if n == 1 {
        task(0);
    } else {
        pool::run(n, &task);
    }
}

/// `len` elements in parts of about `size`, as `(from, len)`.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    len: usize,
    size: usize,
}

impl Parts {
    pub fn new(len: usize, size: usize) -> Self {
        Self {
            len,
            size: size.max(1),
        }
    }

    pub fn count(self) -> usize {
        self.len.div_ceil(self.size)
    }

    pub fn get(self, i: usize) -> (usize, usize) {
        let from = i * self.size;
        (from, self.size.min(self.len - from))
    }
}

/// The widest vector instructions of this processor.
pub(super) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(Arch::new)
}

/// Compiles `f` for each instruction set and runs it with the widest that the processor has. What is
/// not inlined here is compiled for the baseline instead: mark `f`, and closures inside it,
/// `#[inline(always)]`.
#[inline(always)]
pub(super) fn wide<R>(f: impl FnOnce() -> R) -> R {
    arch().dispatch(f)
}

/// Σ of `f(i)` over `0..n` in sixteen lanes, an order that vector registers have too.
#[inline(always)]
pub(super) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let whole = n / 16 * 16;
    for i in (0..whole).step_by(16) {
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane += f(i + j);
        }
    }
    for i in whole..n {
        lanes[i - whole] += f(i);
    }
    let mut width = 8;
    while width > 0 {
        for j in 0..width {
            lanes[j] += lanes[j + width];
        }
        width /= 2;
    }
    lanes[0]
}
