//! Images as sequences of patches: the first layer of the families that take patches.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use rezero_kernels::Epilogue;

use crate::init;
use rezero_kernels::fused;

/// One linear layer that embeds each square patch of an image, the same for all patches. A
/// convolution with kernel and stride `patch_size` computes the same.
#[derive(Module, Debug)]
pub struct PatchEmbedding {
    /// `[channels · patch_size², d_model]`. Its inputs are in the order channel, row, column, as in
    /// PyTorch's weight of that convolution.
    pub linear: Linear,
    /// The side of a patch in pixels.
    pub patch_size: usize,
}

impl PatchEmbedding {
    /// Weight and bias have PyTorch's default, U(−1/√fan_in, 1/√fan_in).
    pub(super) fn new(
        in_channels: usize,
        patch_size: usize,
        d_model: usize,
        device: &Device,
    ) -> Self {
        let width = in_channels * patch_size * patch_size;
        Self {
            linear: init::linear(width, d_model, init::torch_default(), device),
            patch_size,
        }
    }

    /// Embeds the patches, row by row from the top left.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, channels, height, width]`
    /// - output: `[batch, height · width / patch_size², d_model]`
    ///
    /// # Panics
    ///
    /// If a side of the images is no multiple of `patch_size`, or as a product of unequal widths if
    /// their channels are not the embedding's.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        let [batch, channels, height, width] = images.dims();
        let [rows, columns] = grid([height, width], self.patch_size);
        let p = self.patch_size;
        let patches = images
            .reshape([batch, channels, rows, p, columns, p])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, channels * p * p]);
        fused::linear(&self.linear, patches, Epilogue::Identity)
    }
}

/// The rows and columns of patches in an image of `[height, width]`.
///
/// # Panics
///
/// If a side is 0 or no multiple of `patch_size`.
pub(super) fn grid([height, width]: [usize; 2], patch_size: usize) -> [usize; 2] {
    let fits = |side: usize| side > 0 && patch_size > 0 && side.is_multiple_of(patch_size);
    assert!(
        fits(height) && fits(width),
        "the sides of an image must be multiples of the patch size, got {height} × {width} pixels and \
         patches of {patch_size} × {patch_size}."
    );
    [height / patch_size, width / patch_size]
}
