//! The two layouts of a batch `[batch, channels, ..]`: NCHW, and NHWC, in which Burn's convolutions compute.

use burn::backend::TensorMetadata;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

use super::fresh;

/// The tensor as `[batch, .., channels]`, a view.
fn last(tensor: CubeTensor) -> CubeTensor {
    let rank = tensor.shape().num_dims();
    let axes: Vec<usize> = std::iter::once(0).chain(2..rank).chain([1]).collect();
    permute(tensor, &axes)
}

/// The inverse of [`last`].
fn first(tensor: CubeTensor) -> CubeTensor {
    let rank = tensor.shape().num_dims();
    let axes: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    permute(tensor, &axes)
}

/// Whether the channels of a pixel lie side by side.
pub(super) fn is_last(tensor: &CubeTensor) -> bool {
    let rank = tensor.shape().num_dims();
    rank > 2 && !tensor.is_contiguous() && last(tensor.clone()).is_contiguous()
}

/// The tensor in NHWC, or else in NCHW. Copies it if it has another layout.
pub(super) fn laid(tensor: CubeTensor, channels_last: bool) -> CubeTensor {
    match channels_last {
        true => first(into_contiguous(last(tensor))),
        false => into_contiguous(tensor),
    }
}

/// Memory for a tensor of the shape and layout of `like`, which [`laid`] gave.
pub(super) fn fresh_like(like: &CubeTensor) -> CubeTensor {
    let own = fresh(like, like.shape());
    let (client, device) = (own.client.clone(), own.device.clone());
    CubeTensor::new(
        client,
        own.handle.clone(),
        *like.meta.clone(),
        device,
        own.dtype,
    )
}
