//! The language model on Flex.
//!
//! - `lm-small/step`: forward, loss, backward and Adam on the workload of that name in PyTorch's
//!   benchmark: 6 layers, d_model 256, 8 heads, 128 tokens, batch 8
//! - `decode`: one byte after 511 others, with the cache and without
//!
//! Elements are tokens.

use std::time::Duration;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rezero_nn::transformer::{LmCache, RztxEncoderConfig, RztxLm, RztxLmConfig};

fn model(layers: usize, heads: usize, context: usize, device: &Device) -> RztxLm {
    let encoder = RztxEncoderConfig::new(256, 1024, heads, layers).with_dropout(0.0);
    RztxLmConfig::new(encoder, context).init(device)
}

fn tokens(batch: usize, length: usize, device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = (0..batch * length)
        .map(|i| (i * 7919 % 256) as i32)
        .collect();
    Tensor::from_data(TensorData::new(ids, [batch, length]), device)
}

/// One step of training; reads the loss, so that it has happened.
fn step(
    model: RztxLm,
    optimizer: &mut ModuleOptimizer,
    [batch, length]: [usize; 2],
    recompute: bool,
    device: &Device,
) -> RztxLm {
    let n = batch * length;
    let inputs = tokens(batch, length, device);
    let targets = tokens(batch, length, device).reshape([n]);
    let loss = |logits: Tensor<3>| {
        CrossEntropyLossConfig::new()
            .init(device)
            .forward(logits.reshape([n, 256]), targets)
    };
    let (loss, gradients) = match recompute {
        true => model.loss_and_gradients(inputs, |part| part, loss),
        false => {
            let loss = loss(model.forward(inputs));
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            (loss, gradients)
        }
    };
    let model = optimizer.step(1e-3, model, gradients);
    assert!(loss.into_scalar::<f32>().is_finite());
    model
}

fn training(c: &mut Criterion) {
    let device = Device::flex().autodiff();
    let mut group = c.benchmark_group("lm-small");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(10))
        .throughput(Throughput::Elements(8 * 128));
    for recompute in [false, true] {
        let mut lm = Some(model(6, 8, 128, &device));
        let mut optimizer = AdamConfig::new().with_epsilon(1e-8).init();
        let name = if recompute {
            "step, recomputing"
        } else {
            "step"
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                let before = lm.take().expect("a model");
                lm = Some(step(before, &mut optimizer, [8, 128], recompute, &device));
            });
        });
    }
    group.finish();
}

fn decoding(c: &mut Criterion) {
    let device = Device::flex();
    let lm = model(6, 8, 512, &device);
    let mut group = c.benchmark_group("decode, 511 bytes before");
    group.sample_size(10).throughput(Throughput::Elements(1));
    let read = |logits: Tensor<3>| logits.into_data().as_bytes().len();
    let mut cache = LmCache::default();
    lm.forward_cached(tokens(1, 511, &device), &mut cache);
    group.bench_function("with the cache", |b| {
        b.iter_batched(
            || cache.clone(),
            |mut cache| read(lm.forward_cached(tokens(1, 1, &device), &mut cache)),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("without", |b| {
        b.iter(|| read(lm.forward(tokens(1, 512, &device))));
    });
    group.finish();

    let mut group = c.benchmark_group("decode 512 bytes");
    group.sample_size(10).throughput(Throughput::Elements(511));
    group.bench_function("with the cache", |b| {
        b.iter(|| {
            let mut cache = LmCache::default();
            for _ in 0..511 {
                read(lm.forward_cached(tokens(1, 1, &device), &mut cache));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, training, decoding);
criterion_main!(benches);
