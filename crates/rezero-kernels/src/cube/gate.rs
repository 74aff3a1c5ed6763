//! `y = x + α·f`, composed, and its backward pass: `dx = g`, `df = α·g`, `dα = Σ g·f`.
//!
//! One kernel writes df and the sums of its cubes, a second one, of a single cube, adds these.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::ops::CubeOps;
use super::sums::lane_sum;
use super::{UNITS, buffer, contiguous, fresh};
use crate::op::Kernel;

/// Cubes that share the work, at most.
const CUBES: usize = 512;

#[derive(Debug)]
pub(crate) struct GatedSum;

impl Kernel<Cube> for GatedSum {
    /// f and α.
    type State = [FloatTensor<Cube>; 2];
    type Aux = ();

    fn forward(&self, inputs: &[FloatTensor<Cube>]) -> (FloatTensor<Cube>, Self::State, ()) {
        let [x, f, alpha] = inputs else {
            unreachable!("three inputs")
        };
        let shape: Shape = vec![1; f.shape().num_dims()].into();
        let factor = Cube::float_reshape(alpha.clone(), shape);
        let branch = Cube::float_mul(f.clone(), factor);
        let output = Cube::float_add(x.clone(), branch);
        (output, [f.clone(), alpha.clone()], ())
    }

    fn backward(
        self,
        [f, alpha]: Self::State,
        grad: FloatTensor<Cube>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Cube>>> {
        let (d_f, d_alpha) = Cube::rezero_gated_sum_backward(grad.clone(), f, alpha);
        let found = [grad, d_f, d_alpha].into_iter().zip(wanted);
        found.map(|(g, wanted)| wanted.then_some(g)).collect()
    }
}

/// The gradients of f and α.
pub(super) fn backward(values: [CubeTensor; 3]) -> (CubeTensor, CubeTensor) {
    let [grad, f, alpha] = contiguous(values);
    let count = f.shape().num_elements();
    let cubes = count.div_ceil(8 * UNITS as usize).clamp(1, CUBES);
    let client = f.client.clone();
    let d_f = fresh(&f, f.shape());
    let parts = fresh(&f, Shape::new([cubes]));
    let d_alpha = fresh(&f, alpha.shape());
    let units = CubeDim::new_1d(UNITS);
    gradients::launch(
        &client,
        CubeCount::Static(cubes as u32, 1, 1),
        units,
        buffer(&grad),
        buffer(&f),
        buffer(&alpha),
        buffer(&d_f),
        buffer(&parts),
        count as u32,
    );
    let one = CubeCount::Static(1, 1, 1);
    total::launch(
        &client,
        one,
        units,
        buffer(&parts),
        buffer(&d_alpha),
        cubes as u32,
    );
    (d_f, d_alpha)
}

#[cube(launch)]
fn gradients(
    grad: &[f32],
    f: &[f32],
    alpha: &[f32],
    d_f: &mut [f32],
    parts: &mut [f32],
    count: u32,
) {
    let alpha = alpha[0];
    let mut sum = 0.0f32;
    let mut i = CUBE_POS_X * CUBE_DIM + UNIT_POS;
    while i < count {
        let g = grad[i as usize];
        sum += g * f[i as usize];
        d_f[i as usize] = alpha * g;
        i += CUBE_COUNT_X * CUBE_DIM;
    }
    let sum = lane_sum(sum, 256usize, 1usize);
    if UNIT_POS == 0 {
        parts[CUBE_POS_X as usize] = sum;
    }
}

#[cube(launch)]
fn total(parts: &[f32], out: &mut [f32], count: u32) {
    let mut sum = 0.0f32;
    let mut i = UNIT_POS;
    while i < count {
        sum += parts[i as usize];
        i += CUBE_DIM;
    }
    let sum = lane_sum(sum, 256usize, 1usize);
    if UNIT_POS == 0 {
        out[0] = sum;
    }
}
