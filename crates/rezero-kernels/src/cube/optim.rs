//! Updates in place. What changes from step to step is read from memory, so that a captured step follows the
//! schedule. The last of these numbers says whether anything is written.
//!
//! A weight, its gradient and its state may lie in memory in different orders, since Burn's operations give each their own. If they
//! do, every unit computes where its number is.
//!
//! A launch updates many parameters ([`many`](super::many)). LAMB has two: its first kernel writes the moments and sums the squares of w and u in parts,
//! a cube each; the cubes of the second one add the parts of their parameter again rather than wait for a third.

use std::cell::RefCell;
use std::collections::BTreeMap;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::many::{CUT, Cut, Cuts, Many, ManyOps, most};
use super::norms::parts;
use super::sums::lane_sum;
use super::{UNITS, buffer, fresh, grid};

/// Elements of a unit.
const RUN: usize = 4;

fn count(tensor: &CubeTensor) -> usize {
    tensor.shape().num_elements()
}

pub(super) fn units() -> CubeDim {
    CubeDim::new_1d(UNITS)
}

/// The number of axes by which units find their numbers; 0 if the numbers of all tensors lie in the same order without gaps.
fn axes(tensors: &[CubeTensor]) -> usize {
    let first = &tensors[0];
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
    let both = [old, new];
    let axes = axes(&both);
    let [to, from] = both.each_ref().map(argument);
    let [old, _] = both;
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

/// An optimizer's update of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    Sgd,
    AdaGrad,
    Adam,
    Lamb,
}

impl Rule {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sgd => "rezero_sgd",
            Self::AdaGrad => "rezero_adagrad",
            Self::Adam => "rezero_adam",
            Self::Lamb => "rezero_lamb",
        }
    }

    /// Weights, gradient and state.
    fn tensors(self) -> usize {
        match self {
            Self::Sgd | Self::AdaGrad => 3,
            Self::Adam | Self::Lamb => 4,
        }
    }
}

/// Updates of parameters with the same numbers.
struct Updates {
    rule: Rule,
    numbers: FloatTensor<Cube>,
    /// Weights, gradient and state of each.
    tensors: Vec<FloatTensor<Cube>>,
}

impl Updates {
    fn run(self) {
        let tensors = std::iter::once(self.numbers).chain(self.tensors);
        Cube::rezero_many(Many::Update(self.rule), tensors.collect());
    }
}

thread_local! {
    static GATHERED: RefCell<Option<Vec<Updates>>> = const { RefCell::new(None) };
}

/// See [`together`](crate::together).
pub(crate) fn together<R>(work: impl FnOnce() -> R) -> R {
    struct Before(Option<Vec<Updates>>);
    impl Drop for Before {
        fn drop(&mut self) {
            GATHERED.replace(self.0.take());
        }
    }
    let before = Before(GATHERED.replace(Some(Vec::new())));
    let result = work();
    let gathered = GATHERED.take().unwrap_or_default();
    drop(before);
    run(gathered);
    result
}

/// Updates a parameter in the memory of its weights and of its state, now or at the end of [`together`]. The tensors are weights, gradient and state.
pub(crate) fn update_in_place<const N: usize>(
    rule: Rule,
    numbers: FloatTensor<Cube>,
    tensors: [FloatTensor<Cube>; N],
) {
    let own = Updates {
        rule,
        numbers,
        tensors: tensors.into(),
    };
    let alone = GATHERED.with_borrow_mut(|gathered| {
        let Some(gathered) = gathered else {
            return Some(own);
        };
        let like = |other: &&mut Updates| other.rule == rule && other.numbers.id == own.numbers.id;
        match gathered.iter_mut().find(like) {
            Some(others) => others.tensors.extend(own.tensors),
            None => gathered.push(own),
        }
        None
    });
    if let Some(own) = alone {
        run(vec![own]);
    }
}

fn run(all: Vec<Updates>) {
    let Some(first) = all.first() else { return };
    let device = first.numbers.device();
    flushed(&device, || all.into_iter().for_each(Updates::run));
}

/// Burn's fusion sees no connection between an update in place and other reads of the memory. So the ones before are done first, and the
/// updates of `work` before all that follows.
pub(super) fn flushed(device: &<Cube as burn::backend::BackendTypes>::Device, work: impl FnOnce()) {
    // An error of the device comes again with the next read.
    let _ = Cube::flush(device);
    work();
    let _ = Cube::flush(device);
}

/// The tensors of each parameter, which has `each`, by [`axes`].
pub(super) fn by_axes(tensors: &[CubeTensor], each: usize) -> BTreeMap<usize, Vec<&[CubeTensor]>> {
    let mut by_axes: BTreeMap<usize, Vec<&[CubeTensor]>> = BTreeMap::new();
    for own in tensors.chunks_exact(each) {
        by_axes.entry(axes(own)).or_default().push(own);
    }
    by_axes
}

/// Of the numbers of a step, and of weights, gradient and state of each parameter.
pub(super) fn update(rule: Rule, tensors: &[CubeTensor]) {
    let (numbers, rest) = tensors.split_first().expect("numbers come first");
    for (axes, all) in by_axes(rest, rule.tensors()) {
        // LAMB's kernels have the parts of the norms beside the numbers.
        let places = (1 + rule.tensors()) * axes;
        let most = most(&numbers.client, rule.tensors(), 2, CUT + places);
        for some in all.chunks(most) {
            match rule {
                Rule::Sgd => sgd(some, numbers, axes),
                Rule::AdaGrad => adagrad(some, numbers, axes),
                Rule::Adam => adam(some, numbers, axes),
                Rule::Lamb => lamb(some, numbers, axes),
            }
        }
    }
}

/// The cubes for parameters, of each of which `tensors` are used.
pub(super) fn cuts(
    all: &[&[CubeTensor]],
    tensors: &[usize],
    axes: usize,
    cubes: fn(usize) -> usize,
) -> Cuts {
    let mut cuts = Cuts::default();
    for own in all {
        let mut places = SequenceArg::new();
        if axes > 0 {
            let strides = tensors.iter().flat_map(|i| own[*i].meta.strides().iter());
            let numbers = own[0].meta.shape().iter().chain(strides);
            numbers.for_each(|number| places.push(*number as u32));
        }
        let count = count(&own[0]);
        cuts.push(count, cubes(count), places);
    }
    cuts
}

pub(super) fn blocks(count: usize) -> usize {
    count.div_ceil(RUN * UNITS as usize)
}

fn three(all: &[&[CubeTensor]], [w, a, b]: [usize; 3]) -> SequenceArg<Three> {
    let of =
        |own: &&[CubeTensor]| ThreeLaunch::new(buffer(&own[w]), buffer(&own[a]), buffer(&own[b]));
    all.iter().map(of).collect()
}

fn four(all: &[&[CubeTensor]]) -> SequenceArg<Four> {
    let of = |own: &&[CubeTensor]| {
        let [w, g, m, v] = [0, 1, 2, 3].map(|i: usize| buffer(&own[i]));
        FourLaunch::new(w, g, m, v)
    };
    all.iter().map(of).collect()
}

fn sgd(all: &[&[CubeTensor]], numbers: &CubeTensor, axes: usize) {
    let cuts = cuts(all, &[0, 1, 2], axes, blocks);
    sgd_kernel::launch(
        &numbers.client,
        cuts.grid(),
        units(),
        three(all, [0, 1, 2]),
        cuts.all,
        buffer(numbers),
        all.len(),
        axes,
    );
}

fn adagrad(all: &[&[CubeTensor]], numbers: &CubeTensor, axes: usize) {
    let cuts = cuts(all, &[0, 1, 2], axes, blocks);
    adagrad_kernel::launch(
        &numbers.client,
        cuts.grid(),
        units(),
        three(all, [0, 1, 2]),
        cuts.all,
        buffer(numbers),
        all.len(),
        axes,
    );
}

fn adam(all: &[&[CubeTensor]], numbers: &CubeTensor, axes: usize) {
    let cuts = cuts(all, &[0, 1, 2, 3], axes, blocks);
    adam_kernel::launch(
        &numbers.client,
        cuts.grid(),
        units(),
        four(all),
        cuts.all,
        buffer(numbers),
        all.len(),
        axes,
    );
}

fn lamb(all: &[&[CubeTensor]], numbers: &CubeTensor, axes: usize) {
    let counts = all.iter().map(|own| count(&own[0]));
    let stride = counts.map(parts).max().unwrap_or(1);
    let of_parts = fresh(numbers, Shape::new([all.len(), stride, 2]));
    let first = cuts(all, &[0, 1, 2, 3], axes, parts);
    lamb_moments::launch(
        &numbers.client,
        first.grid(),
        units(),
        four(all),
        first.all,
        buffer(numbers),
        buffer(&of_parts),
        stride as u32,
        all.len(),
        axes,
    );
    let second = cuts(all, &[0, 2, 3], axes, parts);
    lamb_apply::launch(
        &numbers.client,
        second.grid(),
        units(),
        three(all, [0, 2, 3]),
        second.all,
        buffer(numbers),
        buffer(&of_parts),
        stride as u32,
        all.len(),
        axes,
    );
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

/// Weights and two more tensors of a parameter.
#[derive(CubeLaunch, CubeType)]
struct Three {
    w: Box<[f32]>,
    a: Box<[f32]>,
    b: Box<[f32]>,
}

/// Weights, gradient and moments of a parameter.
#[derive(CubeLaunch, CubeType)]
struct Four {
    w: Box<[f32]>,
    g: Box<[f32]>,
    m: Box<[f32]>,
    v: Box<[f32]>,
}

/// Where number `i` of a parameter's tensor `which` is, in the order of its axes.
#[cube]
pub(super) fn place_in(
    cut: &Cut,
    i: u32,
    #[comptime] which: usize,
    #[comptime] axes: usize,
) -> usize {
    if comptime!(axes == 0) {
        i as usize
    } else {
        let mut rest = i;
        let mut place = 0u32;
        #[unroll]
        for axis in 0..axes {
            let axis = comptime!(axes - 1 - axis);
            let stride = comptime!((1 + which) * axes + axis);
            let size = cut.places[axis];
            place += (rest % size) * cut.places[stride];
            rest /= size;
        }
        place as usize
    }
}

/// Numbers: lr, μ, λ. The tensors are w, g and v.
#[cube(launch)]
fn sgd_kernel(
    all: &mut Sequence<Three>,
    cuts: &Sequence<Cut>,
    numbers: &[f32],
    #[comptime] count: usize,
    #[comptime] axes: usize,
) {
    let cube = CUBE_POS as u32;
    if numbers[8] > 0.0f32 {
        #[unroll]
        for k in 0..count {
            let cut = cuts.index(k);
            if cube >= cut.first && cube < cut.end {
                let own = all.index_mut(k);
                let step = (cut.end - cut.first) * CUBE_DIM;
                let mut i = (cube - cut.first) * CUBE_DIM + UNIT_POS;
                while i < cut.count {
                    let to_w = place_in(cut, i, 0usize, axes);
                    let to_g = place_in(cut, i, 1usize, axes);
                    let to_v = place_in(cut, i, 2usize, axes);
                    let g = own.a[to_g] + numbers[2] * own.w[to_w];
                    let velocity = numbers[1] * own.b[to_v] + g;
                    own.b[to_v] = velocity;
                    own.w[to_w] -= numbers[0] * velocity;
                    i += step;
                }
            }
        }
    }
}

/// Numbers: lr, ε, λ. The tensors are w, g and s.
#[cube(launch)]
fn adagrad_kernel(
    all: &mut Sequence<Three>,
    cuts: &Sequence<Cut>,
    numbers: &[f32],
    #[comptime] count: usize,
    #[comptime] axes: usize,
) {
    let cube = CUBE_POS as u32;
    if numbers[8] > 0.0f32 {
        #[unroll]
        for k in 0..count {
            let cut = cuts.index(k);
            if cube >= cut.first && cube < cut.end {
                let own = all.index_mut(k);
                let step = (cut.end - cut.first) * CUBE_DIM;
                let mut i = (cube - cut.first) * CUBE_DIM + UNIT_POS;
                while i < cut.count {
                    let to_w = place_in(cut, i, 0usize, axes);
                    let to_g = place_in(cut, i, 1usize, axes);
                    let to_s = place_in(cut, i, 2usize, axes);
                    let g = own.a[to_g] + numbers[2] * own.w[to_w];
                    let sum = own.b[to_s] + g * g;
                    own.b[to_s] = sum;
                    own.w[to_w] -= numbers[0] * (g / (sum.sqrt() + numbers[1]));
                    i += step;
                }
            }
        }
    }
}

/// Numbers: lr · factor, ε', 1 − lr·λ or 1, λ or 0, β₁, β₂, 1 − β₁, 1 − β₂.
#[cube(launch)]
fn adam_kernel(
    all: &mut Sequence<Four>,
    cuts: &Sequence<Cut>,
    numbers: &[f32],
    #[comptime] count: usize,
    #[comptime] axes: usize,
) {
    let cube = CUBE_POS as u32;
    if numbers[8] > 0.0f32 {
        #[unroll]
        for k in 0..count {
            let cut = cuts.index(k);
            if cube >= cut.first && cube < cut.end {
                let own = all.index_mut(k);
                let step = (cut.end - cut.first) * CUBE_DIM;
                let mut i = (cube - cut.first) * CUBE_DIM + UNIT_POS;
                while i < cut.count {
                    let to_w = place_in(cut, i, 0usize, axes);
                    let to_g = place_in(cut, i, 1usize, axes);
                    let to_m = place_in(cut, i, 2usize, axes);
                    let to_v = place_in(cut, i, 3usize, axes);
                    let g = own.g[to_g] + numbers[3] * own.w[to_w];
                    let first = numbers[4] * own.m[to_m] + numbers[6] * g;
                    let second = numbers[5] * own.v[to_v] + numbers[7] * (g * g);
                    own.m[to_m] = first;
                    own.v[to_v] = second;
                    own.w[to_w] = numbers[2] * own.w[to_w]
                        - numbers[0] * (first / (second.sqrt() + numbers[1]));
                    i += step;
                }
            }
        }
    }
}

/// LAMB's u. Numbers: lr, factor, ε', λ, β₁, β₂, 1 − β₁, 1 − β₂.
#[cube]
fn direction(w: f32, m: f32, v: f32, numbers: &[f32]) -> f32 {
    numbers[1] * (m / (v.sqrt() + numbers[2])) + numbers[3] * w
}

/// The moments, and Σ w² and Σ u² of each part. A row has a part for each cube of its parameter; the others are 0.
#[cube(launch)]
fn lamb_moments(
    all: &mut Sequence<Four>,
    cuts: &Sequence<Cut>,
    numbers: &[f32],
    parts: &mut [f32],
    stride: u32,
    #[comptime] count: usize,
    #[comptime] axes: usize,
) {
    let cube = CUBE_POS as u32;
    let mut of_w = 0.0f32;
    let mut of_u = 0.0f32;
    let mut at = 0u32;
    let mut has_part = 0u32;
    if numbers[8] > 0.0f32 {
        #[unroll]
        for k in 0..count {
            let cut = cuts.index(k);
            if cube >= cut.first && cube < cut.end {
                let own = all.index_mut(k);
                let step = (cut.end - cut.first) * CUBE_DIM;
                let mut i = (cube - cut.first) * CUBE_DIM + UNIT_POS;
                while i < cut.count {
                    let to_w = place_in(cut, i, 0usize, axes);
                    let to_g = place_in(cut, i, 1usize, axes);
                    let to_m = place_in(cut, i, 2usize, axes);
                    let to_v = place_in(cut, i, 3usize, axes);
                    let w = own.w[to_w];
                    let g = own.g[to_g];
                    let m = numbers[4] * own.m[to_m] + numbers[6] * g;
                    let v = numbers[5] * own.v[to_v] + numbers[7] * (g * g);
                    own.m[to_m] = m;
                    own.v[to_v] = v;
                    let u = direction(w, m, v, numbers);
                    of_w += w * w;
                    of_u += u * u;
                    i += step;
                }
                at = (cut.row * stride + (cube - cut.first)) * 2;
                has_part = 1u32;
                if cube == cut.first {
                    let mut rest = cut.end - cut.first + UNIT_POS;
                    while rest < stride {
                        let zero = ((cut.row * stride + rest) * 2) as usize;
                        parts[zero] = 0.0f32;
                        parts[zero + 1] = 0.0f32;
                        rest += CUBE_DIM;
                    }
                }
            }
        }
    }
    let of_w = lane_sum(of_w, 256usize, 1usize);
    let of_u = lane_sum(of_u, 256usize, 1usize);
    if UNIT_POS == 0 && has_part == 1u32 {
        parts[at as usize] = of_w;
        parts[at as usize + 1] = of_u;
    }
}

/// `w ← w − lr · ‖w‖ / ‖u‖ · u`. The tensors are w, m and v.
#[cube(launch)]
fn lamb_apply(
    all: &mut Sequence<Three>,
    cuts: &Sequence<Cut>,
    numbers: &[f32],
    parts: &[f32],
    stride: u32,
    #[comptime] count: usize,
    #[comptime] axes: usize,
) {
    let cube = CUBE_POS as u32;
    let mut row = 0u32;
    #[unroll]
    for k in 0..count {
        let cut = cuts.index(k);
        if cube >= cut.first && cube < cut.end {
            row = cut.row;
        }
    }
    let mut of_w = 0.0f32;
    let mut of_u = 0.0f32;
    let mut part = UNIT_POS;
    while part < stride {
        let at = ((row * stride + part) * 2) as usize;
        of_w += parts[at];
        of_u += parts[at + 1];
        part += CUBE_DIM;
    }
    let of_w = lane_sum(of_w, 256usize, 1usize);
    let of_u = lane_sum(of_u, 256usize, 1usize);
    let mut rate = numbers[0];
    // NaN is no 0, so that divergence stays visible.
    if of_w != 0.0f32 && of_u != 0.0f32 {
        rate *= of_w.sqrt() / of_u.sqrt();
    }
    if numbers[8] > 0.0f32 {
        #[unroll]
        for k in 0..count {
            let cut = cuts.index(k);
            if cube >= cut.first && cube < cut.end {
                let own = all.index_mut(k);
                let step = (cut.end - cut.first) * CUBE_DIM;
                let mut i = (cube - cut.first) * CUBE_DIM + UNIT_POS;
                while i < cut.count {
                    let to_w = place_in(cut, i, 0usize, axes);
                    let to_m = place_in(cut, i, 1usize, axes);
                    let to_v = place_in(cut, i, 2usize, axes);
                    let u = direction(own.w[to_w], own.a[to_m], own.b[to_v], numbers);
                    own.w[to_w] -= rate * u;
                    i += step;
                }
            }
        }
    }
}
