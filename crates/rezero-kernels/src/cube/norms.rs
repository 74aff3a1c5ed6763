//! Sums of squares, and scaling, of many tensors.
//!
//! One kernel sums each tensor in parts, a cube each, and a second one adds the parts of each tensor: the order is that of the
//! elements in memory, and depends on nothing but the tensor's size.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::layout::fresh_like;
use super::many::{CUT, Cut, Cuts, most};
use super::sums::lane_sum;
use super::{UNITS, buffer, fresh, grid_of};

/// Elements that a unit adds on its own, at least.
const RUN: usize = 16;
/// Cubes of a tensor, at most.
const CUBES: usize = 512;
/// Elements of a unit that scales.
const SCALED: usize = 4;

/// The tensor, or a copy without gaps.
fn dense(tensor: CubeTensor) -> CubeTensor {
    match tensor.is_nonoverlapping() && tensor.is_contiguous_buffer() {
        true => tensor,
        false => into_contiguous(tensor),
    }
}

/// The parts of a sum over `count` elements.
pub(super) fn parts(count: usize) -> usize {
    count.div_ceil(RUN * UNITS as usize).clamp(1, CUBES)
}

/// The sum of squares of each tensor.
pub(super) fn square_sums(tensors: Vec<CubeTensor>) -> CubeTensor {
    let tensors: Vec<_> = tensors.into_iter().map(dense).collect();
    let like = &tensors[0];
    let client = like.client.clone();
    let of_each = tensors.iter().map(|t| parts(t.shape().num_elements()));
    let stride = of_each.max().unwrap_or(1);
    let of_parts = fresh(like, Shape::new([tensors.len(), stride]));
    let sums = fresh(like, Shape::new([tensors.len()]));
    let units = CubeDim::new_1d(UNITS);
    let most = most(&client, 1, 1, CUT);
    for (i, some) in tensors.chunks(most).enumerate() {
        let mut cuts = Cuts::from_row(i * most);
        for tensor in some {
            let count = tensor.shape().num_elements();
            cuts.push(count, parts(count), SequenceArg::new());
        }
        let all = some.iter().map(|tensor| ReadLaunch::new(buffer(tensor)));
        square_parts::launch(
            &client,
            cuts.grid(),
            units,
            all.collect(),
            cuts.all,
            buffer(&of_parts),
            stride as u32,
            some.len(),
        );
    }
    totals::launch(
        &client,
        grid_of(tensors.len()),
        units,
        buffer(&of_parts),
        buffer(&sums),
        tensors.len() as u32,
        stride as u32,
    );
    sums
}

/// The products of the first tensor, of one element, and each other: in its memory where no other tensor shares that.
pub(super) fn scaled(mut tensors: Vec<CubeTensor>) -> Vec<CubeTensor> {
    let factor = tensors.remove(0);
    let tensors: Vec<_> = tensors.into_iter().map(dense).collect();
    let to = |tensor: &CubeTensor| (!tensor.can_mut()).then(|| fresh_like(tensor));
    let results: Vec<_> = tensors.iter().map(to).collect();
    let pairs = tensors.iter().zip(&results);
    let (copied, own): (Vec<_>, Vec<_>) = pairs.partition(|(_, result)| result.is_some());
    let client = &factor.client;
    let units = CubeDim::new_1d(UNITS);
    for some in own.chunks(most(client, 1, 1, CUT)) {
        let all = some.iter().map(|(own, _)| WriteLaunch::new(buffer(own)));
        let cuts = cuts(some.iter().map(|(own, _)| *own));
        scale_own::launch(
            client,
            cuts.grid(),
            units,
            all.collect(),
            cuts.all,
            buffer(&factor),
            some.len(),
        );
    }
    for some in copied.chunks(most(client, 2, 1, CUT)) {
        let from = some.iter().map(|(from, _)| ReadLaunch::new(buffer(from)));
        let to = some.iter().filter_map(|(_, to)| to.as_ref());
        let cuts = cuts(some.iter().map(|(from, _)| *from));
        scale::launch(
            client,
            cuts.grid(),
            units,
            from.collect(),
            to.map(|to| WriteLaunch::new(buffer(to))).collect(),
            cuts.all,
            buffer(&factor),
            some.len(),
        );
    }
    let results = tensors.into_iter().zip(results);
    results.map(|(own, result)| result.unwrap_or(own)).collect()
}

fn cuts<'a>(tensors: impl Iterator<Item = &'a CubeTensor>) -> Cuts {
    let mut cuts = Cuts::default();
    for tensor in tensors {
        let count = tensor.shape().num_elements();
        let cubes = count.div_ceil(SCALED * UNITS as usize);
        cuts.push(count, cubes, SequenceArg::new());
    }
    cuts
}

#[derive(CubeLaunch, CubeType)]
struct Read {
    x: Box<[f32]>,
}

#[derive(CubeLaunch, CubeType)]
struct Write {
    y: Box<[f32]>,
}

/// Σ x² of each part. A row has a part for each cube of its tensor; the others are 0.
#[cube(launch)]
fn square_parts(
    all: &Sequence<Read>,
    cuts: &Sequence<Cut>,
    parts: &mut [f32],
    stride: u32,
    #[comptime] count: usize,
) {
    let cube = CUBE_POS as u32;
    let mut sum = 0.0f32;
    let mut at = 0u32;
    let mut own = 0u32;
    #[unroll]
    for k in 0..count {
        let cut = cuts.index(k);
        if cube >= cut.first && cube < cut.end {
            let tensor = all.index(k);
            let step = (cut.end - cut.first) * CUBE_DIM;
            let mut i = (cube - cut.first) * CUBE_DIM + UNIT_POS;
            while i < cut.count {
                let x = tensor.x[i as usize];
                sum += x * x;
                i += step;
            }
            at = cut.row * stride + (cube - cut.first);
            own = 1u32;
            if cube == cut.first {
                let mut rest = cut.end - cut.first + UNIT_POS;
                while rest < stride {
                    parts[(cut.row * stride + rest) as usize] = 0.0f32;
                    rest += CUBE_DIM;
                }
            }
        }
    }
    let sum = lane_sum(sum, 256usize, 1usize);
    if UNIT_POS == 0 && own == 1u32 {
        parts[at as usize] = sum;
    }
}

/// The sum of each row of parts.
#[cube(launch)]
fn totals(parts: &[f32], sums: &mut [f32], rows: u32, stride: u32) {
    let row = CUBE_POS as u32;
    let mut sum = 0.0f32;
    if row < rows {
        let mut i = UNIT_POS;
        while i < stride {
            sum += parts[(row * stride + i) as usize];
            i += CUBE_DIM;
        }
    }
    let sum = lane_sum(sum, 256usize, 1usize);
    if UNIT_POS == 0 && row < rows {
        sums[row as usize] = sum;
    }
}

#[cube(launch)]
fn scale(
    from: &Sequence<Read>,
    to: &mut Sequence<Write>,
    cuts: &Sequence<Cut>,
    factor: &[f32],
    #[comptime] count: usize,
) {
    let cube = CUBE_POS as u32;
    let factor = factor[0];
    #[unroll]
    for k in 0..count {
        let cut = cuts.index(k);
        if cube >= cut.first && cube < cut.end {
            let source = from.index(k);
            let target = to.index_mut(k);
            let step = (cut.end - cut.first) * CUBE_DIM;
            let mut i = (cube - cut.first) * CUBE_DIM + UNIT_POS;
            while i < cut.count {
                target.y[i as usize] = source.x[i as usize] * factor;
                i += step;
            }
        }
    }
}

#[cube(launch)]
fn scale_own(
    all: &mut Sequence<Write>,
    cuts: &Sequence<Cut>,
    factor: &[f32],
    #[comptime] count: usize,
) {
    let cube = CUBE_POS as u32;
    let factor = factor[0];
    #[unroll]
    for k in 0..count {
        let cut = cuts.index(k);
        if cube >= cut.first && cube < cut.end {
            let own = all.index_mut(k);
            let step = (cut.end - cut.first) * CUBE_DIM;
            let mut i = (cube - cut.first) * CUBE_DIM + UNIT_POS;
            while i < cut.count {
                own.y[i as usize] *= factor;
                i += step;
            }
        }
    }
}
