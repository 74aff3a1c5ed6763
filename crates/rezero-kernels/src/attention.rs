//! Self-attention, all heads in one function.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};

use crate::matmul_in;

/// Multi-head self-attention: its heads, mask and positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfAttention {
    /// The number of heads; divides d_model.
    pub n_heads: usize,
    /// Whether query i attends only to keys 0 to i.
    pub causal: bool,
    /// The base of the rotary positions; `None`: no rotary positions.
    pub rotary: Option<f64>,
}

impl SelfAttention {
    /// `Concat_h(softmax(Q_h K_hᵀ / √d_head) V_h)` with `[Q K V]` side by side: Vaswani et al.,
    /// [arXiv 1706.03762](https://arxiv.org/abs/1706.03762), section 3.2.
    ///
    /// The kernel holds the scores of one block of queries at a time. For the backward pass it
    /// stores its input, its output and two numbers per query and head (Dao et al.,
    /// [arXiv 2205.14135](https://arxiv.org/abs/2205.14135), section 3.1).
    ///
    /// # Shapes
    ///
    /// - `qkv`: `[batch, length, 3 · d_model]`
    /// - output: `[batch, length, d_model]`
    ///
    /// # Panics
    ///
    /// If `3 · n_heads` does not divide the last axis, or heads are of odd width under rotary
    /// positions.
    pub fn forward(&self, qkv: Tensor<3>) -> Tensor<3> {
        let products = qkv.dtype();
        self.forward_in(qkv, products)
    }

    /// [`forward`](Self::forward) with both matrix products in the type `products`, and everything
    /// else in the type of `qkv`.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    pub fn forward_in(&self, qkv: Tensor<3>, products: DType) -> Tensor<3> {
        let [batch, length, width] = qkv.dims();
        assert!(
            self.n_heads > 0 && width.is_multiple_of(3 * self.n_heads),
            "queries, keys and values of {} heads must share the last axis, got {width}.",
            self.n_heads
        );
        let d_head = width / 3 / self.n_heads;
        assert!(
            self.rotary.is_none() || d_head.is_multiple_of(2),
            "rotary positions need heads of even width, got {d_head}."
        );
        if batch * length * width == 0 {
            // Without elements there is nothing to compute: an empty output of the right shape.
            return qkv.slice_dim(2, 0..width / 3);
        }
        #[cfg(feature = "flex")]
        if products == qkv.dtype()
            && let Some(inputs) = crate::flex::values([qkv.clone().into_dispatch()])
        {
            let kernel = crate::flex::attention::Attention(*self);
            return crate::flex::run(kernel, inputs).0;
        }
        let part = |i: usize| {
            let part = qkv.clone().slice_dim(2, i * width / 3..(i + 1) * width / 3);
            part.reshape([batch, length, self.n_heads, d_head])
                .swap_dims(1, 2)
        };
        let (mut q, mut k, v) = (part(0), part(1), part(2));
        if let Some(base) = self.rotary {
            let rotation = Rotation::new(base, 0, &q);
            (q, k) = (rotation.apply(q), rotation.apply(k));
        }
        let q = q * (1.0 / (d_head as f64).sqrt());
        let mut scores = matmul_in(q, k.swap_dims(2, 3), products);
        if self.causal {
            let later = Tensor::<2, Bool>::tril_mask([length, length], 0, &scores.device());
            scores = scores.mask_fill(later.unsqueeze(), f32::NEG_INFINITY);
        }
        matmul_in(softmax(scores, 3), v, products)
            .swap_dims(1, 2)
            .reshape([batch, length, width / 3])
    }
}

/// The angle of position i and frequency j of a head: `i · base^(−2j/d_head)`.
pub(crate) fn angle(base: f64, position: usize, j: usize, d_head: usize) -> f64 {
    position as f64 * base.powf(-2.0 * j as f64 / d_head as f64)
}

/// Rotary positions: Su et al., [arXiv 2104.09864](https://arxiv.org/abs/2104.09864). At position
/// i, the channels j and j + d_head/2 of a head are rotated by the angle `i · base^(−2j/d_head)`.
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    /// The rotation for queries or keys of the shape of `x`, `[batch, n_heads, length, d_head]`.
    /// The first has position `start`.
    pub fn new(base: f64, start: usize, x: &Tensor<4>) -> Self {
        let [_, _, length, d_head] = x.dims();
        let (device, dtype): (Device, _) = (x.device(), x.dtype());
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..length * d_head / 2)
                .map(|n| (n / (d_head / 2), n % (d_head / 2)))
                .map(|(i, j)| f(angle(base, start + i, j, d_head)) as f32)
                .collect();
            let data = TensorData::new(values, [1, 1, length, d_head / 2]);
            Tensor::<4>::from_data(data, &device).cast(dtype)
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Rotates queries or keys of the length and head width given to [`new`](Self::new).
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let a = x.clone().slice_dim(3, 0..half);
        let b = x.slice_dim(3, half..2 * half);
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let turned_a = a.clone() * cos.clone() - b.clone() * sin.clone();
        let turned_b = b * cos + a * sin;
        Tensor::cat(vec![turned_a, turned_b], 3)
    }
}
