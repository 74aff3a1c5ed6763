//! The shortcut of a block that changes the shape of its images.

use burn::tensor::Tensor;
use burn::tensor::module::avg_pool2d;
use burn::tensor::ops::AvgPoolOptions;

/// Every `stride`-th pixel along both axes, between new channels of zeros: `before` of them before the channels of `x`, and
/// `after` behind. It is a residual network's shortcut without parameters (He et al., [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), section 3.3,
/// option A): `y[n, before + c, i, j] = x[n, c, s·i, s·j]` with stride s.
///
/// # Shapes
///
/// - `x`: `[batch, channels, height, width]`
/// - output: `[batch, before + channels + after, ⌈height / s⌉, ⌈width / s⌉]`
///
/// # Panics
///
/// If `stride` is 0, or the output does not fit into memory.
pub fn subsample(x: Tensor<4>, stride: usize, [before, after]: [usize; 2]) -> Tensor<4> {
    assert!(stride > 0, "stride must be greater than zero.");
    #[cfg(feature = "flex")]
    if let Some(inputs) = crate::flex::values([x.clone().into_dispatch()]) {
        let kernel = crate::flex::shortcut::Subsample::new(x.dims(), stride, [before, after]);
        return crate::op::run(kernel, inputs).0;
    }
    let [batch, channels, height, width] = x.dims();
    if batch * channels * height * width == 0 {
        // Without elements there is nothing to take, and a pooling has no size.
        let [height, width] = [height, width].map(|n| n.div_ceil(stride));
        let shape = [batch, before + channels + after, height, width];
        return Tensor::zeros(shape, (&x.device(), x.dtype()));
    }
    let x = match stride {
        1 => x,
        // Pooling, since a slice with steps has no gradient on Burn's libtorch backend.
        _ => avg_pool2d(x, AvgPoolOptions::new([1; 2]).with_stride([stride; 2])),
    };
    let [batch, _, height, width] = x.dims();
    let device = x.device();
    let dtype = x.dtype();
    let zeros = |channels| Tensor::zeros([batch, channels, height, width], (&device, dtype));
    let mut parts = Vec::with_capacity(3);
    if before > 0 {
        parts.push(zeros(before));
    }
    parts.push(x);
    if after > 0 {
        parts.push(zeros(after));
    }
    Tensor::cat(parts, 1)
}
