//! Scaled dot-product attention, all heads in one function.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};

use crate::constants::constant;
use crate::draws::{self, Draw};
use crate::matmul_in;

/// Scaled dot-product attention of several heads: Vaswani et al.,
/// [arXiv 1706.03762](https://arxiv.org/abs/1706.03762), section 3.2, without the projections.
///
/// `Concat_h(dropout(softmax(mask(Q_h K_hᵀ / √d_head))) V_h)`
///
/// Query i is position `keys − queries + i` of the sequence of the keys: the queries are its last positions. That is
/// self-attention, or decoding with the keys of earlier positions in a cache. Without `causal` and `rotary`, positions
/// mean nothing, and keys and values may be of another sequence (cross-attention).
///
/// A mask is true where attention is forbidden. A query that may attend to no key gets zeros, and it gives no
/// gradient.
///
/// The kernels, for f32 on Flex and on CubeCL's backends, hold the scores of one block of queries at a time. For the backward pass they
/// store their inputs, their output and two numbers per query and head (Dao et al.,
/// [arXiv 2205.14135](https://arxiv.org/abs/2205.14135), section 3.1).
///
/// ```
/// # use burn::tensor::{Device, Distribution, Tensor};
/// use rezero_kernels::DotProductAttention;
///
/// let device = Device::flex();
/// let random = |rows: usize| Tensor::<3>::random([2, rows, 64], Distribution::Default, &device);
/// let attention = DotProductAttention::new(8);
/// let context = attention.forward(random(5), random(9), random(9), None);
/// assert_eq!(context.dims(), [2, 5, 64]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DotProductAttention {
    /// The number of heads; divides the width.
    pub n_heads: usize,
    /// Whether a query attends only to the keys up to its own position.
    pub causal: bool,
    /// The base of the rotary positions, see [`Rotation`]; `None`: no rotary positions.
    pub rotary: Option<f64>,
    /// The probability that an attention weight is set to 0, from 0 on and below 1; the others are divided by
    /// `1 − dropout`. It is applied in each call: set it to 0 outside training.
    ///
    /// On Flex and on CubeCL's backends, the weight of a query and a key is kept or dropped by a hash of the call's seed, the sequence, the head and the indices of
    /// both in the call, see [`dropout`](crate::dropout).
    pub dropout: f64,
    /// The type of both matrix products; `None`: that of the tensors.
    pub products: Option<DType>,
}

impl DotProductAttention {
    /// Attention of `n_heads` heads, without any of the options.
    pub const fn new(n_heads: usize) -> Self {
        Self {
            n_heads,
            causal: false,
            rotary: None,
            dropout: 0.0,
            products: None,
        }
    }

    /// Self-attention, from a projection `[Q K V]` side by side. It is faster than
    /// [`forward`](Self::forward) with the three parts, whose gradients would be put together again.
    ///
    /// # Shapes
    ///
    /// - `qkv`: `[batch, length, 3 · width]`
    /// - `mask`: `[1 or batch, 1 or length, length]`
    /// - output: `[batch, length, width]`
    ///
    /// # Panics
    ///
    /// If `3 · n_heads` does not divide the last axis, the mask has another shape, heads are of odd width under
    /// rotary positions, or `dropout` is not in [0, 1).
    pub fn forward_self(&self, qkv: Tensor<3>, mask: Option<Tensor<3, Bool>>) -> Tensor<3> {
        let [batch, length, all] = qkv.dims();
        assert!(
            self.n_heads > 0 && all.is_multiple_of(3 * self.n_heads),
            "queries, keys and values of {} heads must share the last axis, got {all}.",
            self.n_heads
        );
        let width = all / 3;
        self.check([batch, length, length, width], mask.as_ref());
        let part = |i: usize| qkv.clone().slice_dim(2, i * width..(i + 1) * width);
        if batch * length * width == 0 {
            // Without elements there is nothing to compute: an empty output of the right shape.
            return part(0);
        }
        let draw = self.draw(&qkv.device());
        #[cfg(feature = "flex")]
        if let Some(mut kernel) = self.kernel(qkv.dtype(), mask.as_ref(), draw)
            && let Some(inputs) = crate::flex::values([qkv.clone().into_dispatch()])
        {
            kernel.tracked = inputs.tracked();
            return crate::op::run(kernel, inputs).0;
        }
        #[cfg(feature = "cube")]
        if self.rotary.is_none()
            && let Some(out) = crate::cube::attention::attend(self, [&qkv], mask.as_ref(), draw)
        {
            return out;
        }
        self.of_parts([part(0), part(1), part(2)], mask, draw)
    }

    /// Attention of queries to keys and values, which may be views of larger tensors.
    ///
    /// # Shapes
    ///
    /// - `q` and output: `[batch, queries, width]`
    /// - `k`, `v`: `[batch, keys, width]`
    /// - `mask`: `[1 or batch, 1 or queries, keys]`
    ///
    /// # Panics
    ///
    /// If the shapes do not fit each other, `n_heads` does not divide the width, there are more queries than keys or
    /// heads of odd width under rotary positions, or `dropout` is not in [0, 1).
    pub fn forward(
        &self,
        q: Tensor<3>,
        k: Tensor<3>,
        v: Tensor<3>,
        mask: Option<Tensor<3, Bool>>,
    ) -> Tensor<3> {
        let ([batch, queries, width], [_, keys, _]) = (q.dims(), k.dims());
        assert!(
            k.dims() == [batch, keys, width] && v.dims() == k.dims(),
            "queries of [{batch}, {queries}, {width}] need keys and values of [{batch}, keys, {width}], got {:?} \
             and {:?}.",
            k.dims(),
            v.dims()
        );
        assert!(
            self.n_heads > 0 && width.is_multiple_of(self.n_heads),
            "the width of the queries must be a multiple of the {} heads, got {width}.",
            self.n_heads
        );
        assert!(
            self.rotary.is_none() || queries <= keys,
            "under rotary positions, the queries are the last positions of the keys, got {queries} queries and {keys} \
             keys."
        );
        self.check([batch, queries, keys, width], mask.as_ref());
        if batch * queries * width * keys == 0 {
            // Without keys, every query gets zeros.
            return q.zeros_like();
        }
        let draw = self.draw(&q.device());
        #[cfg(feature = "flex")]
        if let Some(mut kernel) = self.kernel(q.dtype(), mask.as_ref(), draw)
            && let Some(inputs) =
                crate::flex::values([&q, &k, &v].map(|part| part.clone().into_dispatch()))
        {
            kernel.tracked = inputs.tracked();
            return crate::op::run(kernel, inputs).0;
        }
        self.of_parts([q, k, v], mask, draw)
    }

    /// Attention on a backend whose kernel, if it has one, has no rotary positions.
    fn of_parts(
        &self,
        [mut q, mut k, v]: [Tensor<3>; 3],
        mask: Option<Tensor<3, Bool>>,
        draw: Draw,
    ) -> Tensor<3> {
        if let Some(base) = self.rotary {
            let first = k.dims()[1] - q.dims()[1];
            q = self.turned(q, base, first);
            k = self.turned(k, base, 0);
        }
        #[cfg(feature = "cube")]
        if let Some(out) = crate::cube::attention::attend(self, [&q, &k, &v], mask.as_ref(), draw) {
            return out;
        }
        self.composed([q, k, v], mask, draw)
    }

    /// Queries or keys `[batch, length, width]` with rotary positions, of which the first has position `start`.
    fn turned(&self, x: Tensor<3>, base: f64, start: usize) -> Tensor<3> {
        let shape = x.dims();
        let x = self.by_heads(x);
        let turned = Rotation::new(base, start, &x).apply(x);
        turned.swap_dims(1, 2).reshape(shape)
    }

    /// As `[batch, n_heads, length, d_head]`.
    fn by_heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, length, width] = x.dims();
        x.reshape([batch, length, self.n_heads, width / self.n_heads])
            .swap_dims(1, 2)
    }

    /// Checks what both functions take, for `[batch, queries, keys, width]`.
    fn check(&self, [batch, queries, keys, width]: [usize; 4], mask: Option<&Tensor<3, Bool>>) {
        let d_head = width / self.n_heads;
        assert!(
            self.rotary.is_none() || d_head.is_multiple_of(2),
            "rotary positions need heads of even width, got {d_head}."
        );
        assert!(
            (0.0..1.0).contains(&self.dropout),
            "the dropout of attention must be in [0, 1), got {}.",
            self.dropout
        );
        if let Some(mask) = mask {
            let [n, q, k] = mask.dims();
            assert!(
                (n == 1 || n == batch) && (q == 1 || q == queries) && k == keys,
                "a mask must be [1 or batch, 1 or queries, keys] = [1 or {batch}, 1 or {queries}, {keys}], got \
                 [{n}, {q}, {k}]."
            );
        }
    }

    /// What this call's dropout draws from.
    fn draw(&self, device: &Device) -> Draw {
        match self.dropout > 0.0 {
            true => draws::next(device),
            false => Draw::default(),
        }
    }

    /// The kernel; `None` if it does not serve the types or the mask's backend.
    #[cfg(feature = "flex")]
    fn kernel(
        &self,
        own: DType,
        mask: Option<&Tensor<3, Bool>>,
        draw: Draw,
    ) -> Option<crate::flex::attention::Attention> {
        let mask = match mask {
            Some(mask) => Some(crate::flex::attention::Mask::of(mask)?),
            None => None,
        };
        let kernel = crate::flex::attention::Attention {
            config: *self,
            mask,
            draw,
            tracked: false,
        };
        self.products
            .is_none_or(|products| products == own)
            .then_some(kernel)
    }

    /// Without rotary positions.
    fn composed(
        &self,
        parts: [Tensor<3>; 3],
        mask: Option<Tensor<3, Bool>>,
        draw: Draw,
    ) -> Tensor<3> {
        let ([batch, queries, width], [_, keys, _]) = (parts[0].dims(), parts[1].dims());
        let d_head = width / self.n_heads;
        let products = self.products.unwrap_or(parts[0].dtype());
        let [q, k, v] = parts.map(|part| self.by_heads(part));
        // Scaling the queries is cheaper than scaling the scores.
        let q = q * (1.0 / (d_head as f64).sqrt());
        let mut scores = matmul_in(q, k.swap_dims(2, 3), products);
        let forbidden = self.forbidden(queries, keys, mask.as_ref(), &scores.device());
        if let Some(forbidden) = &forbidden {
            let low = scores.dtype().finfo().map_or(-1e30, |info| info.min);
            scores = scores.mask_fill(forbidden.clone(), low);
        }
        let mut weights = softmax(scores, 3);
        if let Some(forbidden) = forbidden
            && (mask.is_some() || queries > keys)
        {
            // The weights of a query that may attend to nothing are equal until here.
            weights = weights.mask_fill(forbidden, 0.0);
        }
        matmul_in(self.drop(weights, draw), v, products)
            .swap_dims(1, 2)
            .reshape([batch, queries, width])
    }

    /// The union of the mask and the causal mask, `[1 or batch, 1, 1 or queries, keys]`.
    fn forbidden(
        &self,
        queries: usize,
        keys: usize,
        mask: Option<&Tensor<3, Bool>>,
        device: &Device,
    ) -> Option<Tensor<4, Bool>> {
        let mask = mask.map(|mask| mask.clone().unsqueeze_dim::<4>(1));
        // The last position may attend to all.
        let causal = (self.causal && queries > 1)
            .then(|| crate::constants::causal(queries, keys, device).unsqueeze::<4>());
        match (mask, causal) {
            (Some(mask), Some(causal)) => {
                // Both get one shape first, since not every backend broadcasts booleans.
                let whole = [mask.dims()[0], 1, queries, keys];
                Some(mask.expand(whole).bool_or(causal.expand(whole)))
            }
            (mask, causal) => mask.or(causal),
        }
    }

    fn drop(&self, weights: Tensor<4>, draw: Draw) -> Tensor<4> {
        if self.dropout == 0.0 {
            return weights;
        }
        let [_, heads, queries, _] = weights.dims();
        crate::dropout::dropped(weights, heads * queries, self.dropout, draw)
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
        let first: Vec<f64> = (0..d_head / 2).map(|j| angle(base, 1, j, d_head)).collect();
        let numbers = [base.to_bits(), start as u64, length as u64, d_head as u64];
        let table = |name, f: fn(f64) -> f64| {
            let make = || {
                let values: Vec<f32> = (start..start + length)
                    .flat_map(|i| first.iter().map(move |first| f(i as f64 * first) as f32))
                    .collect();
                TensorData::new(values, [1, 1, length, d_head / 2])
            };
            constant::<4>(name, &numbers, &device, make).cast(dtype)
        };
        Self {
            cos: table("rotation's cosines", f64::cos),
            sin: table("rotation's sines", f64::sin),
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
