//! Dropout by a hash of the seed and of the element's place: `y = x · D`, `dx = g · D` with D computed again. No mask is stored.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::TensorData;

use super::memory::{Fresh, contiguous, tensor, values};
use super::parallel::{Parts, each, wide};
use crate::draws::{Draw, mix};
use crate::op::Kernel;

/// Elements of a task: some 10 µs.
const CHUNK: usize = 1 << 14;

/// The factors of dropped and kept values, a hash of the seed and of a value's place.
#[derive(Clone, Copy)]
pub(super) struct Dropout {
    seed: u64,
    /// The number of the first row.
    first: u64,
    /// A value is dropped where its hash is below.
    threshold: u32,
    scale: f32,
}

impl Dropout {
    /// The factors of a call, of which each row of the batch has `rows` rows of its own here.
    pub fn new(probability: f64, draw: Draw, rows: usize) -> Self {
        Self {
            seed: draw.seed,
            first: (draw.first_row as u64).wrapping_mul(rows as u64),
            threshold: (probability * (1u64 << 32) as f64).round() as u32,
            scale: (1.0 / (1.0 - probability)) as f32,
        }
    }

    /// Two numbers for a row; no two rows of a call have the same pair.
    pub fn row(self, row: usize) -> [u32; 2] {
        let z = mix(self.seed, self.first.wrapping_add(row as u64));
        [z as u32, (z >> 32) as u32]
    }

    /// The factor of a value: 0 or `1 / (1 − p)`. The hash is MurmurHash3's finaliser (Appleby); the row's second
    /// number enters between its multiplications, since rows with near first numbers would drop shifted copies of
    /// each other's values.
    #[inline(always)]
    pub fn factor(self, [a, b]: [u32; 2], place: u32) -> f32 {
        let x = place.wrapping_mul(0x9E37_79B9).wrapping_add(a);
        let x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B) ^ b;
        let x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
        let x = x ^ (x >> 16);
        if x < self.threshold { 0.0 } else { self.scale }
    }
}

/// Writes `f(i, factor)` for each element i of some rows of `size` elements.
fn fill(
    len: usize,
    size: usize,
    dropout: Dropout,
    f: impl Fn(usize, f32) -> f32 + Sync + Send,
) -> Vec<f32> {
    let mut all = Fresh::new(len);
    let shared = all.shared();
    let parts = Parts::new(len, CHUNK);
    each(parts.count(), |task| {
        let (mut at, len) = parts.get(task);
        let end = at + len;
        // SAFETY: the parts are disjoint.
        let mut to = unsafe { shared.fresh_part(at, len) };
        while at < end {
            let (row, place) = (at / size, at % size);
            let (now, rest) = to.split_at_mut((size - place).min(end - at));
            let (of, count) = (dropout.row(row), now.len());
            wide(
                #[inline(always)]
                || {
                    for (i, to) in now.iter_mut().enumerate() {
                        to.write(f(at + i, dropout.factor(of, (place + i) as u32)));
                    }
                },
            );
            (at, to) = (at + count, rest);
        }
    });
    // SAFETY: the parts cover it.
    unsafe { all.written() }
}

/// The factors of all values of a shape, for composed operations. A row of the batch has `rows` rows here, and the shape's last axes
/// are within one.
pub(crate) fn factors(shape: &[usize], rows: usize, probability: f64, draw: Draw) -> TensorData {
    let len = shape.iter().product();
    let size = len / (shape[0] * rows);
    let dropout = Dropout::new(probability, draw, rows);
    let all = fill(
        len,
        size,
        dropout,
        #[inline(always)]
        |_, factor| factor,
    );
    TensorData::new(all, shape.to_vec())
}

/// Dropout of a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropping {
    pub probability: f64,
    pub draw: Draw,
    /// Rows of the tensor for each row of the batch.
    pub rows: usize,
}

impl Dropping {
    fn apply(self, x: &FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        let xs = values(&x);
        let size = xs.len() / (x.shape()[0] * self.rows);
        let dropout = Dropout::new(self.probability, self.draw, self.rows);
        let out = fill(
            xs.len(),
            size,
            dropout,
            #[inline(always)]
            |i, factor| xs[i] * factor,
        );
        tensor(out, x.shape())
    }
}

impl Kernel<Flex> for Dropping {
    type State = ();
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, (), ()) {
        (self.apply(&inputs[0]), (), ())
    }

    fn backward(self, (): (), grad: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        vec![Some(self.apply(&grad))]
    }
}
