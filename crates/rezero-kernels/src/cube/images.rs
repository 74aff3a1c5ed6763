//! Batches of images from bytes, `y = t[c, b]` with b the bytes of moved and mirrored windows: see [`cut`](crate::ByteImages::cut).
//!
//! A unit has one value of the batch. Its byte is one of the four of a word, which its neighbours in the row read as well. No unit computes with
//! floating-point numbers, so the values are those of the table on every device.

// The macro writes functions with the arguments one by one.
#![allow(clippy::too_many_arguments)]

use burn::backend::{BackendTensor, Cube, DispatchTensor};
use burn::tensor::{Shape, Tensor as BurnTensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::ops::CubeOps;
use super::{UNITS, buffer, client, contiguous, grid, tensor_of, untracked};

/// The most bytes of images on the tensor's device.
pub(crate) fn most_bytes(tensor: DispatchTensor) -> Option<u64> {
    let most = client(tensor)?.properties().memory.max_page_size;
    // Of whole words.
    Some(most.min(u64::from(u32::MAX)) / 4 * 4)
}

/// The batch. `None` if the tensors are not on a CubeCL backend.
pub(crate) fn cut(
    words: DispatchTensor,
    table: DispatchTensor,
    cuts: DispatchTensor,
    [images, channels, height, width]: [usize; 4],
) -> Option<BurnTensor<4>> {
    let all = [words, table, cuts].map(|tensor| untracked(tensor.kind));
    let [
        Some(BackendTensor::Int(words)),
        Some(BackendTensor::Float(table)),
        Some(BackendTensor::Int(cuts)),
    ] = all
    else {
        return None;
    };
    let batch = Cube::rezero_cut(words, table, cuts, images, channels, height, width);
    Some(tensor_of(batch))
}

/// The batch on the device.
pub(super) fn batch(inputs: [CubeTensor; 3], dims: [usize; 4]) -> CubeTensor {
    let [words, table, cuts] = contiguous(inputs);
    let batch = super::fresh(&table, Shape::new(dims));
    let count: usize = dims.iter().product();
    let [_, channels, height, width] = dims.map(|n| n as u32);
    windows::launch(
        &table.client,
        grid(count),
        CubeDim::new_1d(UNITS),
        buffer(&words),
        buffer(&table),
        buffer(&cuts),
        buffer(&batch),
        count as u32,
        channels,
        height,
        width,
    );
    batch
}

/// Of a cut: the image, rows, columns, and 1 if it is mirrored.
#[cube(launch)]
fn windows(
    words: &[u32],
    table: &[f32],
    cuts: &[i32],
    batch: &mut [f32],
    count: u32,
    #[comptime] channels: u32,
    #[comptime] height: u32,
    #[comptime] width: u32,
) {
    if ABSOLUTE_POS < count as usize {
        let own = ABSOLUTE_POS as u32;
        let mut column = own % width;
        let row = (own / width) % height;
        let plane = own / comptime!(width * height);
        let channel = plane % channels;
        let cut = (plane / channels * 4) as usize;
        if cuts[cut + 3] != 0 {
            column = comptime!(width - 1) - column;
        }
        let row = row as i32 + cuts[cut + 1];
        let column = column as i32 + cuts[cut + 2];
        let mut byte = 0u32;
        if row >= 0
            && row < comptime!(height as i32)
            && column >= 0
            && column < comptime!(width as i32)
        {
            let line = (cuts[cut] as u32 * channels + channel) * height + row as u32;
            let place = line * width + column as u32;
            byte = (words[(place / 4) as usize] >> (place % 4 * 8)) & 255;
        }
        batch[ABSOLUTE_POS] = table[(channel * 256 + byte) as usize];
    }
}
