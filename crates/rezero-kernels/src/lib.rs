//! The operations that take most of the time in deep residual networks, each as one function on
//! Burn's tensors.
//!
//! With the feature `flex`, f32 tensors on Burn's Flex backend run a kernel written for them. With the feature `cube`, so do some
//! operations on CubeCL's backends; name one of these in Burn's own features, too. A
//! kernel is fused, blocked for the caches and uses all cores. Its backward pass stores only the
//! values that it needs. For all other tensors (another backend, another type, gradient
//! checkpointing), the function composes the operation of Burn's own. Both give the same values and
//! gradients up to rounding: within 1e-5 of a tensor's largest value, as tested. Feature
//! `allocator` is for binaries that train.
//!
//! | function | computes |
//! | - | - |
//! | [`linear`] | `act(x W + b)` |
//! | [`gated_sum`] | `x + α · f` |
//! | [`gated_linear`] | `x + α · relu(x W + b)` |
//! | [`gelu`], [`silu`], [`swiglu`] | `x · Φ(x)`, `x · σ(x)`, `silu(x) ⊙ gate` |
//! | [`batch_norm`] | `act(γ · (x − μ) / √(σ² + ε) + β)`, in training |
//! | [`batch_norm_gated_sum`] | `x + α · act(bn(f))` |
//! | [`layer_norm`], [`rms_norm`] | `γ · (x − μ) / √(σ² + ε) + β`, `γ · x / √(mean(x²) + ε)` of each row |
//! | [`normalize`] | either of the two with given statistics, outside training |
//! | [`conv2d`] | a convolution of images |
//! | [`subsample`] | every s-th pixel, between channels of zeros |
//! | [`DotProductAttention`] | `dropout(softmax(mask(Q Kᵀ / √d))) V` for each head |
//! | [`embedding`] | `scale · weight[ids]` |
//! | [`dropout`] | `x ⊙ m / (1 − p)`, m a function of (seed, row, place) |
//! | [`matmul_in`] | a product in a narrower type |
//! | [`ByteImages::cut`] | a batch of moved, mirrored and normalised images, from bytes; on CubeCL's backends alone |
//! | [`cross_entropy`] | `log Σ exp(logits) − logits[target]` |
//! | [`soft_cross_entropy`] | `−Σ_j shares[j] · log softmax(logits)_j`; composed everywhere |
//! | [`transpose`], [`all_finite`], [`FileFloat`], [`add_to`], [`to_bf16`] | on values in memory, for readers of weights and sums over processes |
//! | [`SgdStep`], [`AdaGradStep`], [`AdamStep`], [`LambStep`], [`LionStep`] | an optimizer's update of one parameter |
//!
//! [`fused`] has the same for Burn's modules: `fused::conv2d(&conv, x)` computes `conv.forward(x)`.
//!
//! [`capture`] records the launches of a training step on a GPU; [`in_place`] and [`overwrite`] keep its memory where it is, and
//! [`launches`] shows what a device runs. [`together`] and [`Tensors`] update, measure and scale many tensors in few launches.
//!
//! [`seeded`] makes random draws functions of a seed and the row in the batch; a captured step reads its [`Seed`] from memory. [`Group`] lets batch norm take the statistics of several
//! processes.
//!
//! [`Tasks`] counts the tasks that the kernels make. docs/KERNELS.md of the repository explains how each kernel is blocked, and why.

#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The README's code is compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod activation;
#[cfg(feature = "allocator")]
pub mod allocator;
mod attention;
mod batch_norm;
mod constants;
mod conv;
mod cross_entropy;
#[cfg(feature = "cube")]
mod cube;
mod device_memory;
mod draws;
mod dropout;
mod embedding;
#[cfg(feature = "flex")]
mod flex;
pub mod fused;
mod gate;
mod group;
mod images;
mod in_place;
mod launches;
mod linear;
mod mixed;
#[cfg(any(feature = "cube", feature = "flex"))]
mod op;
mod optim;
mod row_norm;
mod shortcut;
mod tasks;
mod tensors;
mod values;

pub use activation::{Epilogue, gelu, silu, swiglu};
pub use attention::{DotProductAttention, Rotation};
pub use batch_norm::{BatchNormed, batch_norm, batch_norm_gated_sum, normalize};
pub use constants::constant;
pub use conv::conv2d;
pub use cross_entropy::{cross_entropy, soft_cross_entropy};
pub use device_memory::device_memory;
pub use draws::{Seed, draw_from, seeded};
pub use dropout::dropout;
pub use embedding::embedding;
#[cfg(feature = "flex")]
pub use flex::check_simd;
pub use gate::gated_sum;
pub use group::Group;
pub use images::{ByteImages, Cut};
pub use in_place::{
    Captured, can_overwrite, capture, in_place, overwrite, overwrite_int, together,
};
pub use launches::{Launch, launches};
pub use linear::{gated_linear, linear};
pub use mixed::matmul_in;
pub use optim::{AdaGradStep, AdamStep, LambStep, LionStep, NUMBERS, SgdStep};
pub use row_norm::{layer_norm, rms_norm};
pub use shortcut::subsample;
pub use tasks::Tasks;
pub use tensors::Tensors;
pub use values::{FileFloat, add_bf16_to, add_to, all_finite, from_bf16, to_bf16, transpose};
