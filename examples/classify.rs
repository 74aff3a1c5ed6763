//! Loads the network of a run, of any recipe for images, and classifies test images:
//! `cargo run --release -p rezero-examples --example classify -- runs/quickstart`

use std::path::PathBuf;

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use rezero_data::Split;
use rezero_train::fit::load_average;
use rezero_train::recipe::{Recipe, TaskRecipe};
use rezero_train::record::checkpoint;
use rezero_train::task::{Domain, Images, Places};
use rezero_train::zoo::{Families, images::Network};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let run = args.next().ok_or("usage: classify RUN [DATA_DIR]")?;
    let device = Device::default();

    // The run's recipe has the depth, the scheme and the other properties of its network.
    let recipe = Recipe::of_run(&run)?.recipe;
    let TaskRecipe::Images(of) = &recipe.task else {
        return Err("this run is of text; try `rezero sample`".into());
    };
    let form = Images::form(&of.data); // the shape of the images, the number of classes
    let net = of.model.init(&recipe.settings.gates, &form, &device);
    // The file model.bpk of a checkpoint, which is the record of the network alone, or ema.bpk, the average of its
    // weights, if the run keeps one.
    let net = load_average(&checkpoint::choose(&run, "best", &recipe.identity())?, net)?;

    // The test images of the run's data set, in DATA_DIR, else in `datasets`. A folder that the run names is not
    // opened: the run may come from somebody else.
    let places = Places {
        dir: args.next(),
        ..Places::default()
    };
    let set = Images::open(&of.data, &places, Split::Test)?.take(16);
    let names = set.class_names().to_vec();
    for batch in Images::for_scoring(of, &recipe.settings, set, &device)?.iter() {
        let batch = batch?;
        // Each network is a module of rezero-nn.
        let logits = match &net {
            Network::CifarResNet(net) => net.forward(batch.images),
            Network::PreActResNet(net) => net.forward(batch.images),
            Network::Vit(net) => net.forward(batch.images),
            Network::Mixer(net) => net.forward(batch.images),
            Network::Mlp(net) => net.forward(batch.images.flatten(1, 3)),
        };
        let predicted = logits.argmax(1).into_data();
        let targets = batch.targets.into_data();
        for (predicted, target) in predicted.iter::<u16>().zip(targets.iter::<u16>()) {
            println!(
                "{:18} seen as {}",
                names[usize::from(target)],
                names[usize::from(predicted)]
            );
        }
    }
    Ok(())
}
