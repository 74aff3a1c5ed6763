//! Loads the weights of `rezero train quickstart` and classifies generated images:
//! `cargo run --release -p rezero-examples --example classify -- runs/quickstart/checkpoints/step-200`

use burn::data::dataloader::DataLoader;
use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::Device;
use rezero_data::{Augment, ImageLoader, LoaderConfig, Split, shapes};
use rezero_nn::resnet::CifarResNetConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args()
        .nth(1)
        .ok_or("usage: classify CHECKPOINT_DIR")?;
    let device = Device::default();
    // The file model.bpk in a checkpoint is the record of the network alone.
    let record = ModuleRecord::load(std::path::Path::new(&dir).join("model.bpk"))?;
    let net = CifarResNetConfig::resnet20()
        .init(&device)
        .try_load_record(record)?;

    let set = shapes::generate(Split::Test, 16, 0);
    let names = set.class_names().to_vec();
    let config = LoaderConfig {
        batch_size: 16,
        seed: 0,
        shuffle: false,
        drop_last: false,
        augment: Augment::NONE,
        normalization: shapes::normalization(),
        prefetch: 0,
    };
    for batch in ImageLoader::new(set, config, &device)?.iter() {
        let batch = batch?;
        let predicted = net.forward(batch.images).argmax(1).into_data();
        let targets = batch.targets.into_data();
        for (predicted, target) in predicted.iter::<u8>().zip(targets.iter::<u8>()) {
            println!(
                "{:18} seen as {}",
                names[usize::from(target)],
                names[usize::from(predicted)]
            );
        }
    }
    Ok(())
}
