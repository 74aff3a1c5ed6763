//! `loss = m − logits[target] + log s`, `m` the largest logit and `s = Σ exp(logits − m)`. Backward:
//! `dlogits = g·(exp(logits − m)/s − [j = target])`, computed again from the logits. No other tensor of their size is stored.
//!
//! Some neighbouring units share a row: a cube has one long row or several short ones. In the backward pass, a unit has one logit.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::ops::CubeOps;
use super::sums::{group_max, group_sum};
use super::{UNITS, buffer, contiguous, fresh, grid, group_of};
use crate::op::Kernel;

#[derive(Debug)]
pub(crate) struct CrossEntropy {
    pub targets: IntTensor<Cube>,
}

impl Kernel<Cube> for CrossEntropy {
    /// The logits; for each row m and `1/s`. The single number `log Σ exp(logits)` would be rounded to the last digit of m.
    type State = [FloatTensor<Cube>; 2];
    type Aux = ();

    fn forward(&self, inputs: &[FloatTensor<Cube>]) -> (FloatTensor<Cube>, Self::State, ()) {
        let logits = inputs[0].clone();
        let (losses, kept) = Cube::rezero_cross_entropy(logits.clone(), self.targets.clone());
        (losses, [logits, kept], ())
    }

    fn backward(
        self,
        [logits, kept]: Self::State,
        grad: FloatTensor<Cube>,
        _wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Cube>>> {
        let gradient = Cube::rezero_cross_entropy_backward(grad, logits, kept, self.targets);
        vec![Some(gradient)]
    }
}

fn sizes(logits: &CubeTensor) -> [usize; 2] {
    let shape = logits.shape();
    [shape[0], shape[1]]
}

/// The losses, and `[rows, 2]` with m and `1/s` of each row.
pub(super) fn forward(logits: CubeTensor, targets: CubeTensor) -> (CubeTensor, CubeTensor) {
    let [logits, targets] = contiguous([logits, targets]);
    let [rows, classes] = sizes(&logits);
    let output = fresh(&logits, Shape::new([rows]));
    let kept = fresh(&logits, Shape::new([rows, 2]));
    let group = group_of(classes);
    losses::launch(
        &logits.client,
        grid(rows * group),
        CubeDim::new_1d(UNITS),
        buffer(&logits),
        buffer(&targets),
        buffer(&output),
        buffer(&kept),
        rows as u32,
        classes as u32,
        f32::NAN,
        group,
        dtype_to_storage_type(targets.dtype),
    );
    (output, kept)
}

/// The gradient of the logits.
pub(super) fn backward([grad, logits, kept]: [CubeTensor; 3], targets: CubeTensor) -> CubeTensor {
    let [grad, logits, kept] = contiguous([grad, logits, kept]);
    let targets = into_contiguous(targets);
    let [rows, classes] = sizes(&logits);
    let output = fresh(&logits, logits.shape());
    logit_gradients::launch(
        &logits.client,
        grid(rows * classes),
        CubeDim::new_1d(UNITS),
        buffer(&grad),
        buffer(&logits),
        buffer(&kept),
        buffer(&targets),
        buffer(&output),
        (rows * classes) as u32,
        classes as u32,
        dtype_to_storage_type(targets.dtype),
    );
    output
}

/// `unknown` is the loss of a target that is no class.
#[cube(launch)]
fn losses<I: Int>(
    logits: &[f32],
    targets: &[I],
    losses: &mut [f32],
    kept: &mut [f32],
    rows: u32,
    classes: u32,
    unknown: f32,
    #[comptime] group: usize,
    #[define(I)] _dtype: ElemType,
) {
    let of_group = comptime!(group as u32);
    let unit = UNIT_POS % of_group;
    let row = (CUBE_POS as u32 * CUBE_DIM + UNIT_POS) / of_group;
    // Units beyond the last row repeat its work, since the sums need all units of the cube.
    let start = min(row, rows - 1) * classes;
    let end = start + classes;
    let mut largest = logits[start as usize];
    let mut at = start + unit;
    while at < end {
        largest = max(largest, logits[at as usize]);
        at += of_group;
    }
    let largest = group_max(largest, 256usize, group);
    let mut sum = 0.0f32;
    let mut at = start + unit;
    while at < end {
        sum += (logits[at as usize] - largest).exp();
        at += of_group;
    }
    let sum = group_sum(sum, 256usize, group);
    if unit == 0 && row < rows {
        let target = u32::cast_from(targets[row as usize]);
        let mut loss = unknown;
        if target < classes {
            loss = (largest - logits[(start + target) as usize]) + sum.ln();
        }
        losses[row as usize] = loss;
        kept[(2 * row) as usize] = largest;
        kept[(2 * row + 1) as usize] = 1.0f32 / sum;
    }
}

#[cube(launch)]
fn logit_gradients<I: Int>(
    grad: &[f32],
    logits: &[f32],
    kept: &[f32],
    targets: &[I],
    output: &mut [f32],
    count: u32,
    classes: u32,
    #[define(I)] _dtype: ElemType,
) {
    let i = CUBE_POS as u32 * CUBE_DIM + UNIT_POS;
    if i < count {
        let row = i / classes;
        let g = grad[row as usize];
        let largest = kept[(2 * row) as usize];
        let inverse = kept[(2 * row + 1) as usize];
        let mut gradient = g * inverse * (logits[i as usize] - largest).exp();
        if u32::cast_from(targets[row as usize]) == i % classes {
            gradient -= g;
        }
        output[i as usize] = gradient;
    }
}
