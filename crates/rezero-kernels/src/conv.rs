//! Convolutions of images.

use burn::tensor::Tensor;
use burn::tensor::module;
use burn::tensor::ops::ConvOptions;

/// The convolution `y[n, o, i, j] = Σ_{c,k,l} w[o, c, k, l] · x[n, c, s·i + k − p, s·j + l − p]`
/// with stride s, and padding of p zeros on each side of `x`. If `weight` has another type than
/// `x`, the convolution is computed in the type of `weight` and returned in the type of `x`.
///
/// # Shapes
///
/// - `x`: `[batch, c_in, height, width]`
/// - `weight`: `[c_out, c_in, k_height, k_width]`
/// - output: `[batch, c_out, (height + 2p − k_height) / s + 1, (width + 2p − k_width) / s + 1]`
///
/// # Panics
///
/// If the channels do not match, the padded image is smaller than the kernel, `stride` is 0,
/// `stride` or `padding` is above 2³⁰, or the output does not fit into memory.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let ([_, c, h, w], [_, c_in, kh, kw]) = (x.dims(), weight.dims());
    assert_eq!(
        c, c_in,
        "the image must have the {c_in} channels of the weight, got {c}."
    );
    assert!(stride > 0, "stride must be greater than zero.");
    assert!(
        padding <= 1 << 30 && stride <= 1 << 30,
        "stride and padding must be at most 2^30, got {stride} and {padding}."
    );
    assert!(
        h + 2 * padding >= kh && w + 2 * padding >= kw,
        "the image with its padding, {} x {}, is smaller than the kernel of {kh} x {kw}.",
        h + 2 * padding,
        w + 2 * padding
    );
    if weight.dtype() != x.dtype() {
        let own = x.dtype();
        return alike(x.cast(weight.dtype()), weight, stride, padding).cast(own);
    }
    alike(x, weight, stride, padding)
}

/// The convolution of tensors of one type.
fn alike(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(inputs) =
        crate::flex::values([x.clone().into_dispatch(), weight.clone().into_dispatch()])
    {
        let kernel = crate::flex::conv::Conv2d { stride, padding };
        return crate::op::run(kernel, inputs).0;
    }
    #[cfg(feature = "cube")]
    if let Some(inputs) = crate::cube::values_of(
        [x.clone().into_dispatch(), weight.clone().into_dispatch()],
        &crate::cube::conv::TYPES,
    ) {
        let kernel = crate::cube::conv::Conv2d { stride, padding };
        return crate::op::run(kernel, inputs).0;
    }
    let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
    module::conv2d(x, weight, None, options)
}
