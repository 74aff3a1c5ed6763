//! Comparison of an operation's kernel with the same operation composed of Burn's own.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};

/// The largest allowed error, relative to the largest value of a tensor.
pub const TOLERANCE: f32 = 1e-5;

/// Starts this program again, for tests that need a process of their own. The environment variable `REZERO_TEST_RUNNER` names a
/// program to start it with, an emulator of another processor.
pub fn again() -> Command {
    let this = std::env::current_exe().expect("a test has a file");
    match std::env::var_os("REZERO_TEST_RUNNER") {
        None => Command::new(this),
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(this);
            command
        }
    }
}

/// A device on which tensors run the kernels.
pub fn fast() -> Device {
    Device::flex().autodiff()
}

/// A device on which tensors run the composed operations: kernels do not serve gradient
/// checkpointing.
pub fn composed() -> Device {
    Device::flex().autodiff().gradient_checkpointing()
}

/// `n` cases, the same in each run; set `PROPTEST_RNG_SEED` for other cases.
pub fn cases(n: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: n,
        failure_persistence: None,
        rng_seed: match default.rng_seed {
            RngSeed::Random => RngSeed::Fixed(200_304_887),
            given => given,
        },
        ..default
    }
}

/// Seeded values in (−1, 1).
pub fn random<const D: usize>(shape: [usize; D], seed: u64) -> TensorData {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    TensorData::new(values, shape)
}

/// Seeds the device's random numbers, and keeps other tests from drawing until the result is dropped: a backend has
/// one random stream for the whole process.
pub fn seeded(device: &Device, seed: u64) -> MutexGuard<'static, ()> {
    static DRAWING: Mutex<()> = Mutex::new(());
    let alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
    alone
}

/// A tensor that requires a gradient.
pub fn leaf<const D: usize>(data: &TensorData, device: &Device) -> Tensor<D> {
    Tensor::from_data(data.clone(), device).require_grad()
}

/// A scalar whose gradient with respect to `out` is random.
pub fn weighed<const D: usize>(out: Tensor<D>) -> Tensor<1> {
    let weights = random(out.dims(), 99);
    let device = out.device();
    (out * Tensor::from_data(weights, &device)).sum()
}

/// Runs `f` on both devices and compares the tensors that it returns.
#[track_caller]
pub fn same(what: &str, f: impl Fn(&Device) -> Vec<TensorData>) {
    let (kernel, reference) = (f(&fast()), f(&composed()));
    assert_eq!(kernel.len(), reference.len());
    for (i, (kernel, reference)) in kernel.iter().zip(&reference).enumerate() {
        close(&format!("{what}, tensor {i}"), kernel, reference, TOLERANCE);
    }
}

#[track_caller]
pub fn close(what: &str, found: &TensorData, expected: &TensorData, tolerance: f32) {
    assert_eq!(found.shape(), expected.shape(), "{what}: shape");
    let (found, expected) = (
        found.as_slice::<f32>().unwrap(),
        expected.as_slice::<f32>().unwrap(),
    );
    let scale = expected.iter().fold(1e-20f32, |max, x| max.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / scale;
        assert!(
            error <= tolerance,
            "{what}: element {i} is {found}, expected {expected} ({error:.1e} of the largest)"
        );
    }
}

/// The gradient of `leaf`, or zeros.
pub fn gradient<const D: usize>(
    leaf: &Tensor<D>,
    gradients: &burn::tensor::Gradients,
) -> TensorData {
    match leaf.grad(gradients) {
        Some(gradient) => gradient.into_data(),
        None => Tensor::<D>::zeros(leaf.dims(), &Device::flex()).into_data(),
    }
}

/// The gradient of a parameter whose elements are sums of `terms` products of about `size`,
/// followed by one more value, `size · √terms`. It bounds the scale of the comparison from below:
/// the terms may cancel by chance to less than their rounding.
pub fn gathered(
    parameter: &Tensor<1>,
    terms: usize,
    size: f32,
    gradients: &burn::tensor::Gradients,
) -> TensorData {
    let mut sums = gradient(parameter, gradients)
        .as_slice::<f32>()
        .unwrap()
        .to_vec();
    sums.push(size * (terms as f32).sqrt());
    let n = sums.len();
    TensorData::new(sums, [n])
}

/// Compares the kernel's backward pass with central differences of its own forward pass, along a
/// random direction.
#[track_caller]
pub fn finite_differences<const N: usize>(
    what: &str,
    inputs: [TensorData; N],
    f: impl Fn(&[Tensor<1>; N]) -> Tensor<1>,
) {
    let device = fast();
    let flat = |data: &TensorData| {
        let n = data.num_elements();
        Tensor::<1>::from_data(
            TensorData::new(data.as_slice::<f32>().unwrap().to_vec(), [n]),
            &device,
        )
    };
    let leaves = inputs.each_ref().map(|data| flat(data).require_grad());
    let gradients = f(&leaves).backward();
    for (i, leaf) in leaves.iter().enumerate() {
        let gradient = leaf.grad(&gradients).unwrap();
        let direction = Tensor::<1>::from_data(random(leaf.dims(), 7 + i as u64), &Device::flex());
        let slope = (gradient * direction.clone()).sum().into_scalar::<f32>();
        let step = 1e-2;
        let at = |sign: f32| {
            let moved: [Tensor<1>; N] = core::array::from_fn(|j| {
                let x = flat(&inputs[j]);
                match i == j {
                    true => x + Tensor::from_inner(direction.clone() * (sign * step)),
                    false => x,
                }
            });
            f64::from(f(&moved).into_scalar::<f32>())
        };
        let measured = (at(1.0) - at(-1.0)) / (2.0 * f64::from(step));
        let error = (f64::from(slope) - measured).abs();
        assert!(
            error <= 2e-2 * measured.abs().max(1.0),
            "{what}: input {i} has slope {slope}, measured {measured}"
        );
    }
}
