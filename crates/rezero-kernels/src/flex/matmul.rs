//! Matrix products in tiles, with work on each tile while it is in cache.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use pulp::Arch;

use super::memory::{Shared, elements};
use super::parallel::{self, Parts, arch, wide};

/// A view of a matrix in borrowed memory.
#[derive(Clone, Copy)]
pub(super) struct Mat<'a> {
    values: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A matrix whose rows follow each other without gaps.
    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(values, rows, cols, cols)
    }

    /// A matrix of rows of contiguous values; rows begin `row_stride` values apart.
    pub fn strided(values: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(reach(rows, row_stride, cols, 1).is_some_and(|n| n <= values.len()));
        Self {
            values,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// A tensor of two dimensions, which may be a view with any positive strides.
    pub fn of(tensor: &'a FlexTensor) -> Self {
        let [rows, cols] = tensor.shape().dims();
        let layout = tensor.layout();
        let &[row_stride, col_stride] = layout.strides() else {
            unreachable!("a matrix has two dimensions")
        };
        let [Ok(row_stride), Ok(col_stride)] = [row_stride, col_stride].map(usize::try_from) else {
            panic!("matrices with negative strides are not served")
        };
        let values = &tensor.storage::<f32>()[layout.start_offset()..];
        let held = reach(rows, row_stride, cols, col_stride);
        assert!(held.is_some_and(|n| n <= values.len()));
        Self {
            values,
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }

    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// A copy of the values, row after row, of a matrix whose columns are contiguous.
    fn by_rows(&self) -> Vec<f32> {
        let (k, n) = (self.rows, self.cols);
        let mut out = vec![0.0; elements(&[k, n])];
        let parts = Parts::new(k, (1 << 14) / n + 1);
        let shared = Shared::new(&mut out);
        parallel::each(parts.count(), |i| {
            let (from, len) = parts.get(i);
            // SAFETY: the parts are disjoint.
            let out = unsafe { shared.part(from * n, len * n) };
            transpose(&self.values[from..], self.col_stride, n, len, out, n);
        });
        out
    }

    /// Rows `row..row + rows`.
    fn part(self, row: usize, rows: usize) -> Self {
        Self {
            values: &self.values[row * self.row_stride..],
            rows,
            ..self
        }
    }
}

/// The number of values from a matrix's first element to its last; `None` if it overflows.
fn reach(rows: usize, row_stride: usize, cols: usize, col_stride: usize) -> Option<usize> {
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    let down = (rows - 1).checked_mul(row_stride)?;
    let across = (cols - 1).checked_mul(col_stride)?;
    down.checked_add(across)?.checked_add(1)
}

/// A rectangle of a product that one task has just computed.
pub(super) struct Tile {
    pub row: usize,
    pub rows: usize,
    pub col: usize,
    pub cols: usize,
}

/// The values that a product is added to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Start {
    Zero,
    /// The values that the output has already.
    Held,
}

/// Tiles of fewer multiply–adds than this are not worth a task of two threads.
const TASK: usize = 1 << 20;
/// A tile of two threads is not cut if its longer side has at most this many elements: each tile packs its
/// operands again.
const SIDE: usize = 128;

/// The multiply–adds and the longer side up to which a tile is not cut. Smaller tiles pack more for each multiply–add, which is worth it
/// where threads would have none.
fn least() -> (usize, usize) {
    let share = (rayon::current_num_threads() / 2).clamp(1, 8);
    (2 * TASK / share, SIDE / share.min(4))
}

/// `out = start + lhs · rhs` in tiles, a task each. `out` has `lhs.rows` rows of `rhs.cols` values,
/// `row_stride` apart.
///
/// A tile's sums do not depend on where it was cut. The `gemm` crate computes the product of a
/// tile: it packs both sides and comes close to the processor's peak (docs/KERNELS.md).
pub(super) struct Product<'a> {
    out: Shared,
    row_stride: usize,
    start: Start,
    lhs: Mat<'a>,
    rhs: Mat<'a>,
    /// A copy of the right side, row after row, if it is stored by columns.
    turned: Option<Vec<f32>>,
    rows: Parts,
    cols: Parts,
}

impl<'a> Product<'a> {
    pub fn new(out: Shared, row_stride: usize, start: Start, lhs: Mat<'a>, rhs: Mat<'a>) -> Self {
        assert_eq!(lhs.cols, rhs.rows, "a product's inner extents");
        let (m, n, k) = (lhs.rows, rhs.cols, lhs.cols);
        // gemm packs the right side along its rows, and takes twice as long over columns.
        let work = |m: usize, n: usize| m.saturating_mul(n).saturating_mul(k);
        let by_cols = rhs.row_stride == 1 && rhs.col_stride > 1 && work(m, n) >= TASK;
        let (mut down, mut across) = (1, 1);
        let (least, side) = least();
        while down * across < 2 * rayon::current_num_threads() {
            let (rows, cols) = (m.div_ceil(down), n.div_ceil(across));
            if work(rows, cols) < least || rows.max(cols) <= side {
                break;
            }
            if cols >= rows { across *= 2 } else { down *= 2 }
        }
        Self {
            out,
            row_stride,
            start,
            lhs,
            rhs,
            turned: by_cols.then(|| rhs.by_rows()),
            rows: Parts::new(m, m.div_ceil(down)),
            // Each tile has whole vectors.
            cols: Parts::new(n, n.div_ceil(across).next_multiple_of(16)),
        }
    }

    fn tiles(&self) -> usize {
        self.rows.count() * self.cols.count()
    }

    /// Computes tile `task`.
    fn tile(&self, task: usize) -> Tile {
        let (row, rows) = self.rows.get(task / self.cols.count());
        let (col, cols) = self.cols.get(task % self.cols.count());
        let rhs = match &self.turned {
            Some(turned) => Mat::new(turned, self.rhs.rows, self.rhs.cols),
            None => self.rhs,
        };
        let span = reach(rows, self.row_stride, cols, 1).expect("the output is in memory");
        block_product(
            self.out.start_of(row * self.row_stride + col, span),
            self.row_stride,
            span,
            self.start,
            self.lhs.part(row, rows),
            rhs.t().part(col, cols).t(),
        );
        Tile {
            row,
            rows,
            col,
            cols,
        }
    }

    /// Computes the product, and runs `then(tile)` on each finished tile.
    pub fn run(&self, then: impl Fn(Tile) + Sync + Send) {
        parallel::each(self.tiles(), |task| then(self.tile(task)));
    }

    /// Computes several products that do not depend on each other; their tiles are tasks of one
    /// loop.
    pub fn run_all(products: &[Self]) {
        let all = products.iter().map(Self::tiles).sum();
        parallel::each(all, |mut task| {
            for product in products {
                if task < product.tiles() {
                    product.tile(task);
                    return;
                }
                task -= product.tiles();
            }
        });
    }
}

/// `out = start + lhs · rhs` on this thread. There are `held` values from `out` on. Of these, no
/// other task uses the values in the rows and columns of the product.
pub(super) fn block_product(
    out: *mut f32,
    row_stride: usize,
    held: usize,
    start: Start,
    lhs: Mat,
    rhs: Mat,
) {
    assert_eq!(lhs.cols, rhs.rows, "a product's inner extents");
    let (m, n, k) = (lhs.rows, rhs.cols, lhs.cols);
    assert!(m > 0 && n > 0 && n <= row_stride);
    assert!(reach(m, row_stride, n, 1).is_some_and(|n| n <= held));
    let gemm = match arch() {
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => narrow::avx2,
        Arch::Scalar => narrow::scalar,
        // The crate chooses the widest.
        _ => gemm::gemm::<f32>,
    };
    // SAFETY: `out` holds `m` rows of `n` values `row_stride` apart, as asserted; `Mat` has checked
    // that both inputs hold every element that their extents and strides name.
    unsafe {
        gemm(
            m,
            n,
            k,
            out,
            1,
            row_stride as isize,
            start == Start::Held,
            lhs.values.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.values.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `gemm::gemm` with the loops of one instruction set: the crate itself always takes the widest.
mod narrow {
    use gemm_common::gemm::gemm_basic_generic;
    use gemm_common::simd::MixedSimd;
    use gemm_f32::microkernel;

    macro_rules! products {
        ($name:ident, $loops:ident, $simd:ty, $lanes:literal) => {
            #[allow(clippy::too_many_arguments)]
            pub unsafe fn $name(
                m: usize,
                n: usize,
                k: usize,
                dst: *mut f32,
                dst_cs: isize,
                dst_rs: isize,
                read_dst: bool,
                lhs: *const f32,
                lhs_cs: isize,
                lhs_rs: isize,
                rhs: *const f32,
                rhs_cs: isize,
                rhs_rs: isize,
                alpha: f32,
                beta: f32,
                conj_dst: bool,
                conj_lhs: bool,
                conj_rhs: bool,
                parallelism: gemm::Parallelism,
            ) {
                use microkernel::$loops::f32::*;
                // `gemm::gemm` turns its arguments so that the output's columns are contiguous; its loops expect that.
                // SAFETY: the caller's promises are those of `gemm::gemm`, turned.
                unsafe {
                    gemm_basic_generic::<
                        _,
                        f32,
                        $lanes,
                        { MR_DIV_N * $lanes },
                        NR,
                        MR_DIV_N,
                        H_M,
                        H_N,
                    >(
                        <$simd as MixedSimd<f32, f32, f32, f32>>::try_new()
                            .expect("`arch` has checked the processor"),
                        n,
                        m,
                        k,
                        dst,
                        dst_rs,
                        dst_cs,
                        read_dst,
                        rhs,
                        rhs_rs,
                        rhs_cs,
                        lhs,
                        lhs_rs,
                        lhs_cs,
                        alpha,
                        beta,
                        conj_dst,
                        conj_rhs,
                        conj_lhs,
                        |a, b, c| a * b + c,
                        &UKR,
                        &H_UKR,
                        false,
                        parallelism,
                    );
                }
            }
        };
    }

    #[cfg(target_arch = "x86_64")]
    products!(avx2, fma, gemm_common::simd::V3, 8);
    products!(scalar, scalar, gemm_common::simd::Scalar, 1);
}

/// `out[c][r] = values[r][c]` for `rows` rows of `cols` values, `stride` apart. The rows of `out`
/// have `width ≥ rows` values; the rest of each is filled with zeros.
pub(super) fn transpose(
    values: &[f32],
    stride: usize,
    rows: usize,
    cols: usize,
    out: &mut [f32],
    width: usize,
) {
    /// The number of values in a cache line: the width of the blocks that are read.
    const LINE: usize = 16;
    assert!(rows <= width && cols.checked_mul(width).is_some_and(|n| n <= out.len()));
    assert!(reach(rows, stride, cols, 1).is_some_and(|n| n <= values.len()));
    wide(
        #[inline(always)]
        || {
            for c in (0..cols).step_by(LINE) {
                let across = LINE.min(cols - c);
                for r in (0..rows).step_by(4) {
                    let down = 4.min(rows - r);
                    let from = &values[r * stride + c..];
                    let to = &mut out[c * width + r..];
                    if down == 4 && across.is_multiple_of(4) {
                        for i in (0..across).step_by(4) {
                            turn(&from[i..], stride, &mut to[i * width..], width);
                        }
                        continue;
                    }
                    for i in 0..across {
                        for j in 0..down {
                            to[i * width + j] = from[j * stride + i];
                        }
                    }
                }
                for line in out[c * width..].chunks_mut(width).take(across) {
                    line[rows..].fill(0.0);
                }
            }
        },
    );
}

/// Transposes four rows of four values.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turn(from: &[f32], stride: usize, to: &mut [f32], width: usize) {
    use core::arch::x86_64::*;
    assert!(3 * stride + 4 <= from.len() && 3 * width + 4 <= to.len());
    // SAFETY: the assertion bounds all rows; every x86-64 processor has these instructions.
    unsafe {
        let row = |i: usize| _mm_loadu_ps(from.as_ptr().add(i * stride));
        let (mut a, mut b, mut c, mut d) = (row(0), row(1), row(2), row(3));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (i, line) in [a, b, c, d].into_iter().enumerate() {
            _mm_storeu_ps(to.as_mut_ptr().add(i * width), line);
        }
    }
}

/// As above. The compiler turns this form into shuffles.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn turn(from: &[f32], stride: usize, to: &mut [f32], width: usize) {
    let mut rows = [[0.0; 4]; 4];
    for (i, row) in rows.iter_mut().enumerate() {
        row.copy_from_slice(&from[i * stride..i * stride + 4]);
    }
    for i in 0..4 {
        let line = [rows[0][i], rows[1][i], rows[2][i], rows[3][i]];
        to[i * width..i * width + 4].copy_from_slice(&line);
    }
}
