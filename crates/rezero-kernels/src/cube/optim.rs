//! Updates in place, with one unit for a number. What changes from step to step is read from memory, so that a captured step follows the
//! schedule. The last of these numbers says whether anything is written.
//!
//! A weight, its gradient and its state may lie in memory in different orders, since Burn's operations give each their own. If they
//! do, every unit computes where its number is.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{UNITS, grid};

fn count(tensor: &CubeTensor) -> usize {
    tensor.shape().num_elements()
}

fn units() -> CubeDim {
    CubeDim::new_1d(UNITS)
}

/// The number of axes by which units find their numbers; 0 if the numbers of all tensors lie in the same order without gaps.
fn axes<const N: usize>(tensors: [&CubeTensor; N]) -> usize {
    let first = tensors[0];
    let strides = first.meta.strides();
    let dense = first.is_nonoverlapping() && first.is_contiguous_buffer();
    match dense && tensors.iter().all(|other| other.meta.strides() == strides) {
        true => 0,
        false => first.shape().num_dims(),
    }
}

fn argument(tensor: &CubeTensor) -> TensorArg {
    tensor.clone().into_tensor_arg()
}

pub(super) fn overwrite(old: CubeTensor, new: CubeTensor) -> CubeTensor {
    let n = count(&old);
    let dtype = dtype_to_storage_type(old.dtype);
    let axes = axes([&old, &new]);
    let [from, to] = [&new, &old].map(argument);
    write::launch(
        &old.client,
        grid(n),
        units(),
        from,
        to,
        n as u32,
        axes,
        dtype,
    );
    old
}

pub(super) fn towards(old: CubeTensor, new: CubeTensor, share: f32) -> CubeTensor {
    let n = count(&old);
    let axes = axes([&old, &new]);
    let [from, to] = [&new, &old].map(argument);
    mix::launch(
        &old.client,
        grid(n),
        units(),
        from,
        to,
        n as u32,
        share,
        axes,
    );
    old
}

pub(super) fn sgd([w, g, v, numbers]: [CubeTensor; 4]) -> (CubeTensor, CubeTensor) {
    let (n, axes) = (count(&w), axes([&w, &g, &v]));
    let [of_g, of_numbers, to_w, to_v] = [&g, &numbers, &w, &v].map(argument);
    let client = &w.client;
    sgd_kernel::launch(
        client,
        grid(n),
        units(),
        of_g,
        of_numbers,
        to_w,
        to_v,
        n as u32,
        axes,
    );
    (w, v)
}

pub(super) fn adagrad([w, g, s, numbers]: [CubeTensor; 4]) -> (CubeTensor, CubeTensor) {
    let (n, axes) = (count(&w), axes([&w, &g, &s]));
    let [of_g, of_numbers, to_w, to_s] = [&g, &numbers, &w, &s].map(argument);
    let client = &w.client;
    adagrad_kernel::launch(
        client,
        grid(n),
        units(),
        of_g,
        of_numbers,
        to_w,
        to_s,
        n as u32,
        axes,
    );
    (w, s)
}

pub(super) fn adam([w, g, m, v, numbers]: [CubeTensor; 5]) -> (CubeTensor, CubeTensor, CubeTensor) {
    let (n, axes) = (count(&w), axes([&w, &g, &m, &v]));
    let [of_g, of_numbers, to_w, to_m, to_v] = [&g, &numbers, &w, &m, &v].map(argument);
    let client = &w.client;
    adam_kernel::launch(
        client,
        grid(n),
        units(),
        of_g,
        of_numbers,
        to_w,
        to_m,
        to_v,
        n as u32,
        axes,
    );
    (w, m, v)
}

/// Where number `i` of a tensor is, in the order of its axes.
#[cube]
fn place<T: Numeric>(tensor: &Tensor<T>, i: usize, #[comptime] axes: usize) -> usize {
    if comptime!(axes == 0) {
        i
    } else {
        let mut rest = i;
        let mut place = 0usize;
        #[unroll]
        for axis in 0..axes {
            let axis = comptime!(axes - 1 - axis);
            let size = tensor.shape(axis);
            place += (rest % size) * tensor.stride(axis);
            rest /= size;
        }
        place
    }
}

#[cube(launch)]
fn write<T: Numeric>(
    new: &Tensor<T>,
    old: &mut Tensor<T>,
    count: u32,
    #[comptime] axes: usize,
    #[define(T)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let from = place(new, i, axes);
        let to = place(&*old, i, axes);
        old[to] = new[from];
    }
}

#[cube(launch)]
fn mix(new: &Tensor<f32>, old: &mut Tensor<f32>, count: u32, share: f32, #[comptime] axes: usize) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let from = place(new, i, axes);
        let to = place(&*old, i, axes);
        old[to] = old[to] * (1.0f32 - share) + new[from] * share;
    }
}

/// Numbers: lr, μ, λ.
#[cube(launch)]
fn sgd_kernel(
    grad: &Tensor<f32>,
    numbers: &Tensor<f32>,
    w: &mut Tensor<f32>,
    v: &mut Tensor<f32>,
    count: u32,
    #[comptime] axes: usize,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize && numbers[8] > 0.0f32 {
        let to_w = place(&*w, i, axes);
        let to_v = place(&*v, i, axes);
        let g = grad[place(grad, i, axes)] + numbers[2] * w[to_w];
        let velocity = numbers[1] * v[to_v] + g;
        v[to_v] = velocity;
        w[to_w] -= numbers[0] * velocity;
    }
}

/// Numbers: lr, ε, λ.
#[cube(launch)]
fn adagrad_kernel(
    grad: &Tensor<f32>,
    numbers: &Tensor<f32>,
    w: &mut Tensor<f32>,
    s: &mut Tensor<f32>,
    count: u32,
    #[comptime] axes: usize,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize && numbers[8] > 0.0f32 {
        let to_w = place(&*w, i, axes);
        let to_s = place(&*s, i, axes);
        let g = grad[place(grad, i, axes)] + numbers[2] * w[to_w];
        let sum = s[to_s] + g * g;
        s[to_s] = sum;
        w[to_w] -= numbers[0] * (g / (sum.sqrt() + numbers[1]));
    }
}

/// Numbers: lr · factor, ε', 1 − lr·λ or 1, λ or 0, β₁, β₂, 1 − β₁, 1 − β₂.
#[cube(launch)]
fn adam_kernel(
    grad: &Tensor<f32>,
    numbers: &Tensor<f32>,
    w: &mut Tensor<f32>,
    m: &mut Tensor<f32>,
    v: &mut Tensor<f32>,
    count: u32,
    #[comptime] axes: usize,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize && numbers[8] > 0.0f32 {
        let to_w = place(&*w, i, axes);
        let to_m = place(&*m, i, axes);
        let to_v = place(&*v, i, axes);
        let g = grad[place(grad, i, axes)] + numbers[3] * w[to_w];
        let first = numbers[4] * m[to_m] + numbers[6] * g;
        let second = numbers[5] * v[to_v] + numbers[7] * (g * g);
        m[to_m] = first;
        v[to_v] = second;
        w[to_w] = numbers[2] * w[to_w] - numbers[0] * (first / (second.sqrt() + numbers[1]));
    }
}
