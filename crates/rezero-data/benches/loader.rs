//! Images a second through the loader, on the host: `cargo bench -p rezero-data`.

use burn::tensor::Device;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rezero_data::{Augment, ImageLoader, LoaderConfig, Split, cifar10, shapes};

const RECORDS: usize = 12_800;

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
    ] {
        let config = LoaderConfig {
            batch_size: 128,
            seed: 0,
            shuffle: true,
            drop_last: true,
            augment,
            normalization: cifar10::NORMALIZATION_TABLE,
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

criterion_group!(benches, epoch, draw);
criterion_main!(benches);
