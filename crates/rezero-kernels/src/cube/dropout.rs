//! Dropout by the hash of seed, row and place that the kernel for Flex has: `y = x · D`, `dx = g · D` with D computed again. No mask is stored.
//!
//! The seed is read from memory, so that a captured step draws others once another seed is written there. WebGPU's language has no integers of 64
//! bits: two of 32 bits stand for one.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{DType, Device, Distribution, Int, Tensor as BurnTensor, TensorData};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::ops::CubeOps;
use super::{UNITS, buffer, contiguous, countable, fresh, grid, holds, integers, values};
use crate::draws::{Draw, GOLDEN, in_memory};
use crate::op::{Kernel, run};

/// Values of a unit.
const RUN: usize = 4;

/// A seed as the kernel reads it: the low and the high half.
pub(crate) fn bits(seed: u64, device: &Device) -> BurnTensor<1, Int> {
    let halves = vec![seed as u32, (seed >> 32) as u32];
    BurnTensor::from_data(TensorData::new(halves, [2]), (device, DType::U32))
}

/// A seed from the device's random numbers, which stays there.
pub(crate) fn drawn(device: &Device) -> BurnTensor<1, Int> {
    let range = Distribution::Uniform(0.0, (1u64 << 31) as f64);
    BurnTensor::random([2], range, (device, DType::U32))
}

/// Dropout of a tensor on a CubeCL backend, as [`crate::dropout::dropped`]. `None` elsewhere, and for more values than the kernel can count.
pub(crate) fn dropped<const D: usize>(
    x: &BurnTensor<D>,
    rows: usize,
    probability: f64,
    draw: Draw,
) -> Option<BurnTensor<D>> {
    let dispatch = x.clone().into_dispatch();
    if !holds(&dispatch.kind) || !countable(&dispatch) {
        return None;
    }
    let device = x.device().inner();
    let seed = integers(in_memory(draw, &device).into_dispatch())?;
    let kernel = Dropping {
        seed,
        rule: Rule::new(x.dims()[0] * rows, probability, draw, rows),
    };
    if let Some(inputs) = values([dispatch]) {
        return Some(run(kernel, inputs).0);
    }
    // Another type, or gradient checkpointing: the factors alone.
    let ones = BurnTensor::<D>::ones(x.dims(), (&device, DType::F32));
    let factors: BurnTensor<D> = run(kernel, values([ones.into_dispatch()])?).0;
    Some(x.clone() * factors.cast(x.dtype()))
}

/// What is dropped, but for the seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rule {
    /// All rows of the tensor.
    rows: usize,
    /// What is added to the seed for the stream, to the mix of these for the call, and to the mix of these for the first row.
    added: [u64; 3],
    /// A value is dropped where its hash is below.
    threshold: u32,
    scale: f32,
}

impl Rule {
    /// `own` rows are here for each row of the batch, of `rows` in all.
    pub(super) fn new(rows: usize, probability: f64, draw: Draw, own: usize) -> Self {
        let [number, calls] = draw.place.unwrap_or_default();
        let first = (draw.first_row as u64).wrapping_mul(own as u64);
        Self {
            rows,
            added: [number, calls, first].map(|n| n.wrapping_add(1).wrapping_mul(GOLDEN)),
            threshold: (probability * (1u64 << 32) as f64).round() as u32,
            scale: (1.0 / (1.0 - probability)) as f32,
        }
    }

    /// What a kernel reads, for rows of `size` values.
    pub(super) fn numbers(self, size: usize) -> NumbersLaunch {
        let [number, call, first] = self.added;
        let (low, high) = (|n: u64| n as u32, |n: u64| (n >> 32) as u32);
        NumbersLaunch::new(
            low(number),
            high(number),
            low(call),
            high(call),
            low(first),
            high(first),
            size as u32,
            self.threshold,
            self.scale,
        )
    }
}

#[derive(Clone, Debug)]
struct Dropping {
    seed: IntTensor<Cube>,
    rule: Rule,
}

impl Kernel<Cube> for Dropping {
    type State = ();
    type Aux = ();

    fn forward(&self, inputs: &[FloatTensor<Cube>]) -> (FloatTensor<Cube>, (), ()) {
        let output = Cube::rezero_dropout(inputs[0].clone(), self.seed.clone(), self.rule);
        (output, (), ())
    }

    fn backward(
        self,
        (): (),
        grad: FloatTensor<Cube>,
        _wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Cube>>> {
        vec![Some(Cube::rezero_dropout(grad, self.seed, self.rule))]
    }
}

/// `x · D`.
pub(super) fn apply(x: CubeTensor, seed: CubeTensor, rule: Rule) -> CubeTensor {
    let [x, seed] = contiguous([x, seed]);
    let count = x.shape().num_elements();
    let output = fresh(&x, x.shape());
    hashed::launch(
        &x.client,
        grid(count.div_ceil(RUN)),
        CubeDim::new_1d(UNITS),
        buffer(&x),
        buffer(&seed),
        buffer(&output),
        rule.numbers(count / rule.rows),
        count as u32,
    );
    output
}

#[derive(CubeLaunch, CubeType)]
pub(super) struct Numbers {
    number_low: u32,
    number_high: u32,
    call_low: u32,
    call_high: u32,
    first_low: u32,
    first_high: u32,
    /// Values of a row.
    size: u32,
    threshold: u32,
    scale: f32,
}

#[cube(launch)]
fn hashed(x: &[f32], seed: &[u32], output: &mut [f32], numbers: &Numbers, count: u32) {
    // One unit mixes the seed of the call for all.
    let mut shared = Shared::<[u32]>::new_slice(2usize);
    if UNIT_POS == 0 {
        let (low, high) = of_call(seed, numbers);
        shared[0] = low;
        shared[1] = high;
    }
    sync_cube();
    let seed_low = shared[0];
    let seed_high = shared[1];
    let start = CUBE_POS as u32 * (CUBE_DIM * 4);
    let end = min(start + CUBE_DIM * 4, count);
    // No row has this number.
    let mut last = 0xFFFF_FFFFu32;
    let mut a = 0u32;
    let mut b = 0u32;
    let mut i = start + UNIT_POS;
    while i < end {
        let row = i / numbers.size;
        if row != last {
            let (low, high) = of_row(seed_low, seed_high, row);
            a = low;
            b = high;
            last = row;
        }
        let factor = factor(a, b, i - row * numbers.size, numbers);
        output[i as usize] = x[i as usize] * factor;
        i += CUBE_DIM;
    }
}

/// The seed of the call's rows, from that in memory.
#[cube]
pub(super) fn of_call(seed: &[u32], numbers: &Numbers) -> (u32, u32) {
    let (low, high) = added(seed[0], seed[1], numbers.number_low, numbers.number_high);
    let (low, high) = mixed(low, high);
    let (low, high) = added(low, high, numbers.call_low, numbers.call_high);
    let (low, high) = mixed(low, high);
    added(low, high, numbers.first_low, numbers.first_high)
}

/// The seed of a row, from that of the call.
#[cube]
pub(super) fn of_row(seed_low: u32, seed_high: u32, row: u32) -> (u32, u32) {
    let (low, high) = multiplied(row, 0u32, 0x7F4A_7C15u32, 0x9E37_79B9u32);
    let (low, high) = added(seed_low, seed_high, low, high);
    mixed(low, high)
}

/// The factor of the value at a place in the row whose seed is a and b.
#[cube]
pub(super) fn factor(a: u32, b: u32, place: u32, numbers: &Numbers) -> f32 {
    // MurmurHash3's finaliser, with b between its multiplications.
    let h = place * 0x9E37_79B9u32 + a;
    let h = ((h ^ (h >> 16u32)) * 0x85EB_CA6Bu32) ^ b;
    let h = (h ^ (h >> 13u32)) * 0xC2B2_AE35u32;
    let h = h ^ (h >> 16u32);
    select(h < numbers.threshold, 0.0f32, numbers.scale)
}

/// SplitMix64's finaliser.
#[cube]
fn mixed(low: u32, high: u32) -> (u32, u32) {
    let (low, high) = folded(low, high, 30u32);
    let (low, high) = multiplied(low, high, 0x1CE4_E5B9u32, 0xBF58_476Du32);
    let (low, high) = folded(low, high, 27u32);
    let (low, high) = multiplied(low, high, 0x1331_11EBu32, 0x94D0_49BBu32);
    folded(low, high, 31u32)
}

/// `z ^ (z >> n)`, n from 1 to 31.
#[cube]
fn folded(low: u32, high: u32, #[comptime] n: u32) -> (u32, u32) {
    let shifted = (low >> n) | (high << comptime!(32 - n));
    (low ^ shifted, high ^ (high >> n))
}

#[cube]
fn added(a_low: u32, a_high: u32, b_low: u32, b_high: u32) -> (u32, u32) {
    let low = a_low + b_low;
    let carry = select(low < a_low, 1u32, 0u32);
    (low, a_high + b_high + carry)
}

#[cube]
fn multiplied(a_low: u32, a_high: u32, b_low: u32, b_high: u32) -> (u32, u32) {
    let high = a_low.mul_hi(b_low) + a_low * b_high + a_high * b_low;
    (a_low * b_low, high)
}
