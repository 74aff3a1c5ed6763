//! Convolutions are Burn's, but for the gradient of a 3×3 kernel with stride 1, which Burn composes of a product and dozens of copies.
//!
//! `dw[o, c, k, l] = Σ_{n,i,j} g[n, o, i, j] · x[n, c, i + k − 1, j + l − 1]`, in NHWC. A cube has 16 input channels, 16 to
//! 64 output channels and some rows of the images. A unit has one input channel and up to four output channels, and
//! keeps their 9 sums each in registers while it walks along a row: a step reads three new pixels of x and one of g from shared memory. A second
//! kernel adds the cubes' sums, in a fixed order. x, g and dw are of one type, f32 or narrower; shared memory and sums are f32.

use burn::backend::ops::{ConvOptions, ModuleOps};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use super::layout::laid;
use super::ops::CubeOps;
use super::sums::lane_sum;
use super::{UNITS, buffer, fresh, fresh_of, grid};
use crate::op::Kernel;

/// The types of x and the weight that are served.
pub(crate) const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn element(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F32 => FloatKind::F32,
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        other => unreachable!("{other:?} is not one of TYPES"),
    })
}

/// Input channels of a cube, and output channels of its units' first sums.
const TILE: usize = 16;
/// Cubes to fill the device with.
const CUBES: usize = 512;
/// The longest row whose pixels fit into shared memory everywhere.
const WIDEST: usize = 64;

#[derive(Debug)]
pub(crate) struct Conv2d {
    pub stride: usize,
    pub padding: usize,
}

impl Conv2d {
    fn options(&self) -> ConvOptions<2> {
        ConvOptions::new([self.stride; 2], [self.padding; 2], [1; 2], 1)
    }

    fn serves(&self, x: &Shape, weight: &Shape) -> bool {
        let ones = self.stride == 1 && self.padding == 1;
        ones && weight[2] == 3 && weight[3] == 3 && x[3] <= WIDEST
    }
}

impl Kernel<Cube> for Conv2d {
    /// The image and the weight.
    type State = [FloatTensor<Cube>; 2];
    type Aux = ();

    fn forward(&self, inputs: &[FloatTensor<Cube>]) -> (FloatTensor<Cube>, Self::State, ()) {
        let [x, weight] = inputs else {
            unreachable!("two inputs")
        };
        let output = Cube::conv2d(x.clone(), weight.clone(), None, self.options());
        (output, [x.clone(), weight.clone()], ())
    }

    fn backward(
        self,
        [x, weight]: Self::State,
        grad: FloatTensor<Cube>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Cube>>> {
        let of_x = wanted[0].then(|| {
            Cube::conv2d_x_backward(x.clone(), weight.clone(), grad.clone(), self.options())
        });
        let of_weight = wanted[1].then(|| match self.serves(&x.shape(), &weight.shape()) {
            true => Cube::rezero_conv_weight_gradient(x, weight, grad),
            false => Cube::conv2d_weight_backward(x, weight, grad, self.options()),
        });
        vec![of_x, of_weight]
    }
}

#[derive(CubeLaunch, CubeType)]
struct Sizes {
    /// Rows of all images.
    rows: u32,
    height: u32,
    c_in: u32,
    c_out: u32,
    /// Rows of a cube.
    share: u32,
    #[cube(comptime)]
    width: usize,
    /// Output channels of a unit.
    #[cube(comptime)]
    outs: usize,
}

/// The gradient of a weight `[c_out, c_in, 3, 3]`, in the type of the two tensors.
pub(super) fn weight_gradient(x: CubeTensor, grad: CubeTensor) -> CubeTensor {
    let [x, grad] = [x, grad].map(|tensor| laid(tensor, true));
    let (of_x, of_grad) = (x.shape(), grad.shape());
    let [c_in, height, width] = [of_x[1], of_x[2], of_x[3]];
    let (rows, c_out) = (of_x[0] * height, of_grad[1]);
    let outs = c_out.div_ceil(TILE).min(4).next_power_of_two();
    let tiles = [c_in.div_ceil(TILE), c_out.div_ceil(outs * TILE)];
    let share = rows.div_ceil(CUBES.div_ceil(tiles[0] * tiles[1]));
    let shares = rows.div_ceil(share);
    let client = x.client.clone();
    let count = 9 * c_in * c_out;
    let parts = fresh(&x, Shape::new([shares, count]));
    let gradient = fresh_of(&x, Shape::new([c_out, c_in, 3, 3]), x.dtype);
    let element = element(x.dtype);
    let units = CubeDim::new_1d(UNITS);
    let cubes = CubeCount::Static(tiles[0] as u32, tiles[1] as u32, shares as u32);
    let [rows, height, of_in, of_out, share] = [rows, height, c_in, c_out, share].map(|n| n as u32);
    sums::launch(
        &client,
        cubes,
        units,
        buffer(&x),
        buffer(&grad),
        buffer(&parts),
        SizesLaunch::new(rows, height, of_in, of_out, share, width, outs),
        element,
    );
    // A cube has TILE numbers, with a row of units for each.
    let cubes = grid(count.div_ceil(TILE) * UNITS as usize);
    totals::launch(
        &client,
        cubes,
        units,
        buffer(&parts),
        buffer(&gradient),
        shares as u32,
        of_in,
        of_out,
        element,
    );
    gradient
}

/// The sums of each cube, as `[share, 9, c_in, c_out]`.
#[cube(launch)]
fn sums<F: Float>(
    x: &[F],
    grad: &[F],
    parts: &mut [f32],
    sizes: &Sizes,
    #[define(F)] _element: ElemType,
) {
    let width = comptime!(sizes.width);
    let outs = comptime!(sizes.outs);
    let padded = comptime!(width + 2);
    let mut pixels = Shared::<[f32]>::new_slice(comptime!(3 * padded * 16));
    let mut grads = Shared::<[f32]>::new_slice(comptime!(width * outs * 16));
    let own_in = UNIT_POS / 16;
    let own_out = UNIT_POS % 16;
    let first_in = CUBE_POS_X * 16;
    let first_out = CUBE_POS_Y * 16 * outs as u32;
    let start = CUBE_POS_Z * sizes.share;
    let end = min(start + sizes.share, sizes.rows);

    let mut sums = Array::<f32>::new(comptime!(9 * outs));
    #[unroll]
    for i in 0..comptime!(9 * outs) {
        sums[i] = 0.0f32;
    }
    let mut window = Array::<f32>::new(9usize);

    let mut row = start;
    while row < end {
        let y = row % sizes.height;
        let mut i = UNIT_POS;
        while i < comptime!(3 * padded as u32 * 16) {
            let channel = first_in + i % 16;
            let column = (i / 16) % comptime!(padded as u32);
            let line = i / comptime!(16 * padded as u32);
            let mut value = 0.0f32;
            let above = y + line;
            if channel < sizes.c_in
                && column >= 1
                && column <= comptime!(width as u32)
                && above >= 1
                && above <= sizes.height
            {
                let pixel = (row + line - 1) * comptime!(width as u32) + column - 1;
                value = f32::cast_from(x[(pixel * sizes.c_in + channel) as usize]);
            }
            pixels[i as usize] = value;
            i += CUBE_DIM;
        }
        let mut i = UNIT_POS;
        while i < comptime!((width * outs * 16) as u32) {
            let channel = first_out + i % comptime!((outs * 16) as u32);
            let column = i / comptime!((outs * 16) as u32);
            let mut value = 0.0f32;
            if channel < sizes.c_out {
                let pixel = row * comptime!(width as u32) + column;
                value = f32::cast_from(grad[(pixel * sizes.c_out + channel) as usize]);
            }
            grads[i as usize] = value;
            i += CUBE_DIM;
        }
        sync_cube();

        #[unroll]
        for line in 0..3usize {
            #[unroll]
            for column in 0..2usize {
                let at = comptime!((line * padded + column) * 16);
                window[comptime!(line * 3 + column)] = pixels[own_in as usize + at];
            }
        }
        #[unroll]
        for p in 0..width {
            #[unroll]
            for line in 0..3usize {
                let at = comptime!((line * padded + p + 2) * 16);
                window[comptime!(line * 3 + (p + 2) % 3)] = pixels[own_in as usize + at];
            }
            #[unroll]
            for q in 0..outs {
                let g = grads[own_out as usize + comptime!((p * outs + q) * 16)];
                #[unroll]
                for line in 0..3usize {
                    #[unroll]
                    for column in 0..3usize {
                        let to = comptime!((q * 3 + line) * 3 + column);
                        sums[to] += window[comptime!(line * 3 + (p + column) % 3)] * g;
                    }
                }
            }
        }
        sync_cube();
        row += 1;
    }

    let c = first_in + own_in;
    #[unroll]
    for q in 0..outs {
        let o = first_out + own_out + comptime!((q * 16) as u32);
        if c < sizes.c_in && o < sizes.c_out {
            #[unroll]
            for tap in 0..9usize {
                let line = CUBE_POS_Z * 9 + comptime!(tap as u32);
                let at = (line * sizes.c_in + c) * sizes.c_out + o;
                parts[at as usize] = sums[comptime!(q * 9 + tap)];
            }
        }
    }
}

/// The sum over the shares, as `[c_out, c_in, 3, 3]`. A cube has 16 numbers of it.
#[cube(launch)]
fn totals<F: Float>(
    parts: &[f32],
    gradient: &mut [F],
    shares: u32,
    c_in: u32,
    c_out: u32,
    #[define(F)] _element: ElemType,
) {
    let count = 9 * c_in * c_out;
    let own = CUBE_POS as u32 * 16 + UNIT_POS % 16;
    let mut sum = 0.0f32;
    if own < count {
        let mut share = UNIT_POS / 16;
        while share < shares {
            sum += parts[(share * count + own) as usize];
            share += CUBE_DIM / 16;
        }
    }
    let sum = lane_sum(sum, 256usize, 16usize);
    if UNIT_POS < 16 && own < count {
        let o = own % c_out;
        let c = (own / c_out) % c_in;
        let tap = own / (c_out * c_in);
        gradient[((o * c_in + c) * 9 + tap) as usize] = F::cast_from(sum);
    }
}
