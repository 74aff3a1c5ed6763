//! Updates in place, with one unit for a number. What changes from step to step is read from memory, so that a captured step follows the
//! schedule. The last of these numbers says whether anything is written.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{UNITS, buffer, grid};

fn count(tensor: &CubeTensor) -> usize {
    tensor.shape().num_elements()
}

fn units() -> CubeDim {
    CubeDim::new_1d(UNITS)
}

/// # Panics
///
/// If the memory is not contiguous: a copy of it would be written, and be lost.
fn must_be_whole(tensor: &CubeTensor) {
    assert!(
        tensor.is_contiguous(),
        "a tensor that is written in place must be contiguous, got {tensor:?}."
    );
}

pub(super) fn overwrite(old: CubeTensor, new: CubeTensor) -> CubeTensor {
    must_be_whole(&old);
    let new = into_contiguous(new);
    let n = count(&old);
    let dtype = dtype_to_storage_type(old.dtype);
    write::launch(&old.client, grid(n), units(), buffer(&new), buffer(&old), n as u32, dtype);
    old
}

pub(super) fn towards(old: CubeTensor, new: CubeTensor, share: f32) -> CubeTensor {
    must_be_whole(&old);
    let new = into_contiguous(new);
    let n = count(&old);
    mix::launch(&old.client, grid(n), units(), buffer(&new), buffer(&old), n as u32, share);
    old
}

pub(super) fn sgd(values: [CubeTensor; 4]) -> (CubeTensor, CubeTensor) {
    let [w, g, v, numbers] = values;
    [&w, &v].into_iter().for_each(must_be_whole);
    let (g, n) = (into_contiguous(g), count(&w));
    let given = [&g, &numbers, &w, &v].map(buffer);
    let [g, numbers, to_w, to_v] = given;
    sgd_kernel::launch(&w.client, grid(n), units(), g, numbers, to_w, to_v, n as u32);
    (w, v)
}

pub(super) fn adagrad(values: [CubeTensor; 4]) -> (CubeTensor, CubeTensor) {
    let [w, g, s, numbers] = values;
    [&w, &s].into_iter().for_each(must_be_whole);
    let (g, n) = (into_contiguous(g), count(&w));
    let given = [&g, &numbers, &w, &s].map(buffer);
    let [g, numbers, to_w, to_s] = given;
    adagrad_kernel::launch(&w.client, grid(n), units(), g, numbers, to_w, to_s, n as u32);
    (w, s)
}

pub(super) fn adam(values: [CubeTensor; 5]) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [w, g, m, v, numbers] = values;
    [&w, &m, &v].into_iter().for_each(must_be_whole);
    let (g, n) = (into_contiguous(g), count(&w));
    let given = [&g, &numbers, &w, &m, &v].map(buffer);
    let [g, numbers, to_w, to_m, to_v] = given;
    adam_kernel::launch(&w.client, grid(n), units(), g, numbers, to_w, to_m, to_v, n as u32);
    (w, m, v)
}

#[cube(launch)]
fn write<T: Numeric>(new: &[T], old: &mut [T], count: u32, #[define(T)] _dtype: ElemType) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        old[i] = new[i];
    }
}

#[cube(launch)]
fn mix(new: &[f32], old: &mut [f32], count: u32, share: f32) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        old[i] = old[i] * (1.0f32 - share) + new[i] * share;
    }
}

/// Numbers: lr, μ, λ.
#[cube(launch)]
fn sgd_kernel(grad: &[f32], numbers: &[f32], w: &mut [f32], v: &mut [f32], count: u32) {
    let i = ABSOLUTE_POS;
    if i < count as usize && numbers[8] > 0.0f32 {
        let g = grad[i] + numbers[2] * w[i];
        let velocity = numbers[1] * v[i] + g;
        v[i] = velocity;
        w[i] = w[i] - numbers[0] * velocity;
    }
}

/// Numbers: lr, ε, λ.
#[cube(launch)]
fn adagrad_kernel(grad: &[f32], numbers: &[f32], w: &mut [f32], s: &mut [f32], count: u32) {
    let i = ABSOLUTE_POS;
    if i < count as usize && numbers[8] > 0.0f32 {
        let g = grad[i] + numbers[2] * w[i];
        let sum = s[i] + g * g;
        s[i] = sum;
        w[i] = w[i] - numbers[0] * (g / (sum.sqrt() + numbers[1]));
    }
}

/// Numbers: lr · factor, ε', 1 − lr·λ or 1, λ or 0, β₁, β₂, 1 − β₁, 1 − β₂.
#[cube(launch)]
fn adam_kernel(
    grad: &[f32],
    numbers: &[f32],
    w: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    count: u32,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize && numbers[8] > 0.0f32 {
        let g = grad[i] + numbers[3] * w[i];
        let first = numbers[4] * m[i] + numbers[6] * g;
        let second = numbers[5] * v[i] + numbers[7] * (g * g);
        m[i] = first;
        v[i] = second;
        w[i] = numbers[2] * w[i] - numbers[0] * (first / (second.sqrt() + numbers[1]));
    }
}
