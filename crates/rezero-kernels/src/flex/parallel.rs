//! Work as tasks. The shape decides those of a sum, so that results do not depend on the number of threads. Tasks that each make a
//! part of the result are cut by the number of threads, too: see [`enough`], and the tiles of a product.

// Loops over registers index plain arrays.
#![allow(clippy::needless_range_loop)]

use std::sync::OnceLock;

use pulp::Arch;

use super::pool;

/// Runs `task(0)` to `task(n - 1)` on several threads.
pub(super) fn each(n: usize, task: impl Fn(usize) + Sync + Send) {
    pool::run(n, &task);
}

/// How many tasks are enough where each makes its own part of the result, so that their number changes no value: two for each
/// thread, so that none waits long for the last one.
pub(super) fn enough() -> usize {
    (2 * rayon::current_num_threads()).max(8)
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

/// The widest vector instructions of this processor, or narrower ones if the environment variable `REZERO_SIMD` asks for them:
/// `avx2` for 256 bits with fused multiply–adds, `scalar` for none.
pub(super) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| chosen().unwrap_or_else(|message| panic!("{message}")))
}

fn chosen() -> Result<Arch, String> {
    match std::env::var_os("REZERO_SIMD").unwrap_or_default().to_str() {
        #[cfg(target_arch = "x86_64")]
        Some("avx2") => match pulp::x86::V3::try_new() {
            Some(simd) => Ok(Arch::V3(simd)),
            None => Err("REZERO_SIMD=avx2: this processor has no AVX2".to_owned()),
        },
        Some("scalar") => Ok(Arch::Scalar),
        Some("") => Ok(Arch::new()),
        other => Err(format!(
            "REZERO_SIMD must be `avx2` (x86-64) or `scalar`, got `{}`",
            other.unwrap_or("what is no text")
        )),
    }
}

/// Whether the environment variable `REZERO_SIMD`, which chooses the instructions of the kernels for Flex, names some that this processor has. A
/// program can say so when it starts; the kernels panic.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_simd() -> Result<(), String> {
    chosen().map(drop)
}

/// Compiles `f` for each instruction set and runs it with the widest that the processor has. Code
/// that is not inlined here is compiled for the baseline instead: mark `f`, and closures inside it,
/// with `#[inline(always)]`.
#[inline(always)]
pub(super) fn wide<R>(f: impl FnOnce() -> R) -> R {
    arch().dispatch(f)
}

/// The `K` sums of `f(a, b)` over two slices of equal length. Each sum has sixteen lanes, so that
/// vector registers can add in the same order.
#[inline(always)]
pub(super) fn sums<const K: usize>(
    a: &[f32],
    b: &[f32],
    f: impl Fn(f32, f32) -> [f32; K],
) -> [f32; K] {
    assert_eq!(a.len(), b.len());
    let mut lanes = [[0.0f32; 16]; K];
    let (whole_a, whole_b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest = whole_a.remainder().iter().zip(whole_b.remainder());
    for (a, b) in whole_a.zip(whole_b) {
        for j in 0..16 {
            let terms = f(a[j], b[j]);
            for k in 0..K {
                lanes[k][j] += terms[k];
            }
        }
    }
    for (j, (a, b)) in rest.enumerate() {
        let terms = f(*a, *b);
        for k in 0..K {
            lanes[k][j] += terms[k];
        }
    }
    let mut totals = [0.0; K];
    for k in 0..K {
        let mut width = 8;
        while width > 0 {
            for j in 0..width {
                lanes[k][j] += lanes[k][j + width];
            }
            width /= 2;
        }
        totals[k] = lanes[k][0];
    }
    totals
}

/// Σ `f(x)`, as [`sums`].
#[inline(always)]
pub(super) fn sum(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sums(
        a,
        a,
        #[inline(always)]
        |x, _| [f(x)],
    )[0]
}
