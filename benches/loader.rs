//! Images and bytes of text per second through the loaders, on the host.

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rezero_data::{
    Augment, Augmentation, ImageLoader, LoaderConfig, ScoringConfig, Split, TextLoader, WindowConfig, cifar10,
    corpus, shapes,
};

const RECORDS: usize = 12_800;

/// Every augmentation with its default settings.
fn every() -> Augment {
    Augment::new(Augmentation::all()).expect("a valid list")
}

fn epoch(c: &mut Criterion) {
    let set = shapes::generate(Split::Train, RECORDS, 0);
    let mut group = c.benchmark_group("epoch of 12,800 images, batch 128, flex");
    group
        .throughput(Throughput::Elements(RECORDS as u64))
        .sample_size(20);
    for (name, augment, prefetch) in [
        ("plain, no thread", Augment::NONE, 0),
        ("crop and flip, no thread", Augment::STANDARD, 0),
        ("crop and flip, 2 ahead", Augment::STANDARD, 2),
        ("every augmentation, no thread", every(), 0),
    ] {
        let config = LoaderConfig {
            batch_size: 128,
            seed: 0,
            shuffle: true,
            drop_last: true,
            augment,
            label_smoothing: 0.0,
            normalization: cifar10::normalization_table(),
            prefetch,
        };
        let loader =
            ImageLoader::new(set.clone(), config, &Device::flex()).expect("a valid config");
        group.bench_function(name, |b| {
            b.iter_batched(
                || loader.epoch(0, 0),
                |epoch| epoch.count(),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn draw(c: &mut Criterion) {
    let mut group = c.benchmark_group("shapes");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("draw 1,000", |b| {
        b.iter(|| shapes::generate(Split::Train, 1000, 0))
    });
    group.finish();
}

fn text(c: &mut Criterion) {
    const TEXT: usize = 1 << 24;
    const STEPS: usize = 64;
    const BATCH: usize = 32;
    const CONTEXT: usize = 512;

    let text = corpus::wiki_like(TEXT, 0, Split::Train);
    let device = Device::flex();
    let mut group = c.benchmark_group("text, batch 32, context 512, flex");
    group
        .throughput(Throughput::Bytes((STEPS * BATCH * CONTEXT) as u64))
        .sample_size(20);
    for (name, prefetch) in [("windows, no thread", 0), ("windows, 2 ahead", 2)] {
        let config = WindowConfig {
            batch_size: BATCH,
            context: CONTEXT,
            seed: 0,
            steps: STEPS,
            prefetch,
        };
        let loader = TextLoader::windows(text.clone(), config, &device).expect("a valid config");
        group.bench_function(name, |b| b.iter(|| loader.iter().count()));
    }
    let config = ScoringConfig {
        batch_size: BATCH,
        context: CONTEXT,
        stride: CONTEXT / 2,
        prefetch: 0,
    };
    let part = text.clone().take(STEPS * BATCH * CONTEXT);
    let loader = TextLoader::scoring(part, config, &device).expect("a valid config");
    group.bench_function("scoring at a stride of 256, no thread", |b| {
        b.iter(|| loader.iter().count());
    });
    group.finish();

    let mut group = c.benchmark_group("wiki-like");
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("write 1 MiB", |b| {
        b.iter(|| corpus::wiki_like(1 << 20, 0, Split::Train));
    });
    group.finish();
}

criterion_group!(benches, epoch, draw, text);
criterion_main!(benches);
