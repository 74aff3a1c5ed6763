//! Runs kernels at fixed shapes, once to warm up and once to be counted by callgrind: `kernel` runs all, `kernel NAME…` those.
//! `benches/guard.py` compares the counts with a table. Prints a line for each count, in their order.
//!
//! Shapes are small, and long enough that Burn's part of an operation is small beside the kernel's.

use std::hint::black_box;

use burn::tensor::{Device, Tensor, TensorData};
use rezero_kernels::allocator::{Allocator, keep_memory};
use rezero_kernels::{
    AdaGradStep, AdamStep, DotProductAttention, Epilogue, LambStep, LionStep, SgdStep, batch_norm,
    batch_norm_gated_sum, conv2d, cross_entropy, dropout, embedding, gated_linear, gated_sum, gelu,
    layer_norm, linear, normalize, rms_norm, silu, subsample, swiglu,
};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Seeded values in (−1, 1).
fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A tensor that requires a gradient.
fn leaf<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    random(shape, &Device::flex().autodiff()).require_grad()
}

/// callgrind counts the instructions from here to the return, and finds the function by its name.
#[inline(never)]
fn counted_by_callgrind(run: &mut dyn FnMut()) {
    run();
    // Keeps the call from becoming a jump.
    black_box(());
}

fn counted(name: &str, mut run: impl FnMut()) {
    println!("{name}");
    counted_by_callgrind(&mut run);
}

/// Counts one pass of `f`.
fn one<T>(name: &str, f: impl Fn() -> T) {
    drop(f());
    let mut kept = None;
    counted(name, || kept = Some(f()));
}

/// Counts one forward pass of `f` and its backward pass.
fn both<const D: usize>(name: &str, f: impl Fn() -> Tensor<D>) {
    drop(f().backward());
    let mut output = None;
    counted(&format!("{name}, forward"), || output = Some(f()));
    let output = output.expect("the forward pass has run");
    let mut gradients = None;
    counted(&format!("{name}, backward"), || {
        gradients = Some(output.backward());
    });
}

/// Counts an optimizer's second step, in the memory of weights and state.
fn update<S: Clone>(name: &str, step: impl Fn(Tensor<1>, Tensor<1>, Option<S>) -> (Tensor<1>, S)) {
    let value = || random([1 << 18], &Device::flex());
    let (weights, state) = step(value(), value(), None);
    let (mut held, gradient) = (Some((weights, state)), value());
    counted(name, || {
        let (weights, state) = held.take().expect("the state of the first step");
        held = Some(step(weights, gradient.clone(), Some(state)));
    });
}

fn convolution(
    name: &str,
    batch: usize,
    [c_in, c_out]: [usize; 2],
    size: usize,
    kernel: usize,
    stride: usize,
) {
    let x = leaf([batch, c_in, size, size]);
    let weight = leaf([c_out, c_in, kernel, kernel]);
    both(name, || {
        conv2d(x.clone(), weight.clone(), stride, kernel / 2)
    });
}

fn attention(name: &str, causal: bool, rotary: Option<f64>, dropout: f64) {
    let qkv = leaf([4, 64, 3 * 128]);
    let attention = DotProductAttention {
        causal,
        rotary,
        dropout,
        ..DotProductAttention::new(4)
    };
    both(name, || attention.forward_self(qkv.clone(), None));
}

const IMAGES: [usize; 4] = [16, 16, 32, 32];

/// A name, and what runs under it.
type Kernel = (&'static str, fn(&str));

const KERNELS: [Kernel; 33] = [
    ("linear", |name| {
        let (x, weight, bias) = (leaf([256, 128]), leaf([128, 384]), leaf([384]));
        both(name, || {
            linear(
                x.clone(),
                weight.clone(),
                Some(bias.clone()),
                Epilogue::Relu,
            )
        });
    }),
    ("gated_linear", |name| {
        let (x, weight, bias) = (leaf([100, 256]), leaf([256, 256]), leaf([256]));
        let alpha = leaf([1]);
        both(name, || {
            gated_linear(x.clone(), weight.clone(), bias.clone(), alpha.clone())
        });
    }),
    ("gated_sum", |name| {
        let (x, f, alpha) = (leaf(IMAGES), leaf(IMAGES), leaf([1]));
        both(name, || gated_sum(x.clone(), f.clone(), alpha.clone()));
    }),
    ("gelu", |name| {
        let x = leaf([1 << 16]);
        both(name, || gelu(x.clone()));
    }),
    ("silu", |name| {
        let x = leaf([1 << 16]);
        both(name, || silu(x.clone()));
    }),
    ("swiglu", |name| {
        let (x, gate) = (leaf([1 << 16]), leaf([1 << 16]));
        both(name, || swiglu(x.clone(), gate.clone()));
    }),
    ("linear with GELU", |name| {
        let (x, weight, bias) = (leaf([256, 128]), leaf([128, 384]), leaf([384]));
        both(name, || {
            linear(
                x.clone(),
                weight.clone(),
                Some(bias.clone()),
                Epilogue::Gelu,
            )
        });
    }),
    ("subsample", |name| {
        let x = leaf(IMAGES);
        both(name, || subsample(x.clone(), 2, [8, 8]));
    }),
    ("conv2d 1x1 stride 2", |name| {
        convolution(name, 16, [64, 128], 16, 1, 2);
    }),
    ("conv2d 3x3 stride 2", |name| {
        convolution(name, 4, [16, 32], 32, 3, 2);
    }),
    ("conv2d 5x5", |name| convolution(name, 4, [8, 16], 16, 5, 1)),
    // From here by Winograd's algorithm.
    ("conv2d 3x3, 3 to 16 channels", |name| {
        convolution(name, 4, [3, 16], 32, 3, 1);
    }),
    ("conv2d 3x3, 16 channels", |name| {
        convolution(name, 4, [16, 16], 32, 3, 1);
    }),
    ("conv2d 3x3, 32 channels", |name| {
        convolution(name, 4, [32, 32], 16, 3, 1);
    }),
    ("conv2d 3x3, 64 channels", |name| {
        convolution(name, 8, [64, 64], 8, 3, 1);
    }),
    ("batch_norm", |name| {
        let (x, gamma, beta) = (leaf(IMAGES), leaf([16]), leaf([16]));
        both(name, || {
            batch_norm(x.clone(), gamma.clone(), beta.clone(), 1e-5, Epilogue::Relu).output
        });
    }),
    ("batch_norm_gated_sum", |name| {
        let (x, f, alpha) = (leaf(IMAGES), leaf(IMAGES), leaf([1]));
        let (gamma, beta) = (leaf([16]), leaf([16]));
        both(name, || {
            let (gamma, beta, alpha) = (gamma.clone(), beta.clone(), alpha.clone());
            batch_norm_gated_sum(
                x.clone(),
                f.clone(),
                gamma,
                beta,
                1e-5,
                Epilogue::Relu,
                alpha,
            )
            .output
        });
    }),
    ("normalize", |name| {
        let device = Device::flex();
        let (x, skip) = (random(IMAGES, &device), random(IMAGES, &device));
        let (channels, alpha) = (random([16], &device), random([1], &device));
        let variance = channels.clone().square();
        one(name, || {
            let mean = channels.clone();
            let statistics = [mean.clone(), mean.clone(), mean, variance.clone()];
            let sum = Some((skip.clone(), alpha.clone()));
            normalize(x.clone(), statistics, 1e-5, Epilogue::Relu, sum)
        });
    }),
    ("layer_norm", |name| {
        let (x, gamma, beta) = (leaf([512, 256]), leaf([256]), leaf([256]));
        both(name, || {
            layer_norm(x.clone(), gamma.clone(), beta.clone(), 1e-5)
        });
    }),
    ("rms_norm", |name| {
        let (x, gamma) = (leaf([512, 256]), leaf([256]));
        both(name, || rms_norm(x.clone(), gamma.clone(), 1e-5));
    }),
    ("attention", |name| attention(name, false, None, 0.0)),
    ("attention, causal", |name| attention(name, true, None, 0.0)),
    ("attention, causal, rotary", |name| {
        attention(name, true, Some(1e4), 0.0);
    }),
    ("attention, dropout", |name| {
        attention(name, false, None, 0.1)
    }),
    ("attention of one query", |name| {
        let device = Device::flex();
        let (q, k) = (random([4, 1, 128], &device), random([4, 256, 128], &device));
        let attention = DotProductAttention::new(4);
        one(name, || {
            attention.forward(q.clone(), k.clone(), k.clone(), None)
        });
    }),
    ("dropout", |name| {
        let x = leaf(IMAGES);
        both(name, || dropout(x.clone(), 0.1));
    }),
    ("embedding", |name| {
        let weight = leaf([256, 128]);
        let ids = TensorData::new(
            (0..1024).map(|i| i * 7919 % 256).collect::<Vec<i32>>(),
            [16, 64],
        );
        let ids = Tensor::from_data(ids, &weight.device());
        both(name, || embedding(weight.clone(), ids.clone(), 1.0));
    }),
    ("cross_entropy", |name| {
        let logits = leaf([256, 256]);
        let targets = TensorData::new((0..256).collect::<Vec<i32>>(), [256]);
        let targets = Tensor::from_data(targets, &logits.device());
        both(name, || cross_entropy(logits.clone(), targets.clone()));
    }),
    ("SgdStep", |name| {
        let step = SgdStep {
            lr: 0.1,
            momentum: 0.9,
            weight_decay: 1e-4,
        };
        update(name, |w, g, state| step.update(w, g, state));
    }),
    ("AdaGradStep", |name| {
        let step = AdaGradStep {
            lr: 0.1,
            epsilon: 1e-8,
            weight_decay: 1e-4,
        };
        update(name, |w, g, state| step.update(w, g, state));
    }),
    ("AdamStep", |name| {
        let step = AdamStep {
            lr: 1e-3,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-4,
            decoupled: true,
            time: 2,
        };
        update(name, |w, g, state| step.update(w, g, state));
    }),
    ("LambStep", |name| {
        let step = LambStep {
            lr: 1e-3,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-6,
            weight_decay: 1e-4,
            time: 2,
        };
        update(name, |w, g, state| step.update(w, g, state));
    }),
    ("LionStep", |name| {
        let step = LionStep {
            lr: 1e-4,
            beta_1: 0.9,
            beta_2: 0.99,
            weight_decay: 1e-2,
        };
        update(name, |w, g, state| step.update(w, g, state));
    }),
];

fn main() {
    keep_memory();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for name in &wanted {
        let known = KERNELS.iter().any(|(kernel, _)| kernel == name);
        assert!(known, "there is no kernel {name:?}; `kernel` runs all.");
    }
    for (name, run) in KERNELS {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            run(name);
        }
    }
}
