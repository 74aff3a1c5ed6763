//! Each kernel's forward and backward pass at the shapes of the models. The throughput column counts
//! floating-point operations where products dominate, bytes read and written where they do not.

use std::time::Duration;

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rezero_kernels::{Epilogue, conv2d, gated_linear, gated_sum, linear};

#[global_allocator]
static ALLOCATOR: rezero_kernels::allocator::Allocator = rezero_kernels::allocator::Allocator;

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Times `f` without autodiff, and with it together with its backward pass.
fn both<const D: usize>(
    c: &mut Criterion,
    name: &str,
    [forward, backward]: [u64; 2],
    f: impl Fn(&Device) -> Box<dyn Fn() -> Tensor<D>>,
) {
    let mut group = c.benchmark_group(name);
    group
        .sample_size(15)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    let device = Device::flex();
    let run = f(&device);
    group.throughput(Throughput::Elements(forward));
    group.bench_function("forward", |b| b.iter(&run));
    let run = f(&device.autodiff());
    group.throughput(Throughput::Elements(forward + backward));
    group.bench_function("forward and backward", |b| b.iter(|| run().backward()));
    group.finish();
}

fn convolutions(c: &mut Criterion) {
    for (channels, size, stride, kernel) in [
        ([3, 16], 32, 1, 3),
        ([16, 16], 32, 1, 3),
        ([16, 32], 32, 2, 3),
        ([32, 32], 16, 1, 3),
        ([64, 64], 8, 1, 3),
        ([64, 128], 16, 2, 1),
    ] {
        let out = size / stride;
        let flops = 2 * 128 * channels[0] * channels[1] * out * out * kernel * kernel;
        let name = format!("conv {channels:?} {size}x{size} kernel {kernel} stride {stride}");
        both(c, &name, [flops as u64, 2 * flops as u64], |device| {
            let grad = device.is_autodiff();
            let x = random([128, channels[0], size, size], device);
            let w = random([channels[1], channels[0], kernel, kernel], device);
            let (x, w) = match grad {
                true => (x.require_grad(), w.require_grad()),
                false => (x, w),
            };
            Box::new(move || conv2d(x.clone(), w.clone(), stride, kernel / 2))
        });
    }
}

fn products(c: &mut Criterion) {
    for [rows, d_in, d_out] in [[1024, 256, 768], [1024, 256, 1024], [100, 256, 256]] {
        let flops = (2 * rows * d_in * d_out) as u64;
        let name = format!("linear {rows} x {d_in} to {d_out}");
        both(c, &name, [flops, 2 * flops], |device| {
            let (x, w, b) = (
                random([rows, d_in], device),
                random([d_in, d_out], device),
                random([d_out], device),
            );
            let leaves = match device.is_autodiff() {
                true => (x.require_grad(), w.require_grad(), b.require_grad()),
                false => (x, w, b),
            };
            Box::new(move || {
                let (x, w, b) = leaves.clone();
                linear(x, w, Some(b), Epilogue::Relu)
            })
        });
    }
    both(
        c,
        "gated linear 100 x 256",
        [13_107_200, 26_214_400],
        |device| {
            let (x, w, b, a) = (
                random([100, 256], device),
                random([256, 256], device),
                random([256], device),
                random([1], device),
            );
            let leaves = match device.is_autodiff() {
                true => (
                    x.require_grad(),
                    w.require_grad(),
                    b.require_grad(),
                    a.require_grad(),
                ),
                false => (x, w, b, a),
            };
            Box::new(move || {
                let (x, w, b, a) = leaves.clone();
                gated_linear(x, w, b, a)
            })
        },
    );
    let bytes = 128 * 16 * 32 * 32 * 4;
    both(c, "gated sum of 8 MiB", [3 * bytes, 3 * bytes], |device| {
        let (x, f, a) = (
            random([128, 16, 32, 32], device),
            random([128, 16, 32, 32], device),
            random([1], device),
        );
        let (x, f, a) = match device.is_autodiff() {
            true => (x.require_grad(), f.require_grad(), a.require_grad()),
            false => (x, f, a),
        };
        Box::new(move || gated_sum(x.clone(), f.clone(), a.clone()))
    });
}

criterion_group!(benches, convolutions, products);
criterion_main!(benches);
