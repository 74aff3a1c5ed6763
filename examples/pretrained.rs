//! Classifies a PNG file with ResNet-20 by name: `cargo run --release -p rezero-examples --example pretrained -- FILE`

use burn::tensor::Device;
use image::imageops::FilterType;
use rezero_nn::pretrained::weights;
use rezero_nn::resnet::CifarResNet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::default();
    let weights = weights::ResNet20::Cifar10ReZero;
    let model = CifarResNet::resnet20_pretrained(weights, &device)?;

    let file = std::env::args_os().nth(1).ok_or("which file?")?;
    let image = image::open(file)?
        .resize_to_fill(32, 32, FilterType::Triangle)
        .to_rgb8();
    let about = weights.entry();
    let normalization = about.normalization.ok_or("no images")?;
    let x = normalization.of_rgb(&image, [32, 32], &device);
    let class = model.forward(x).argmax(1).into_data().iter::<i64>().next();
    println!("{}", about.classes[class.unwrap_or_default() as usize]);
    Ok(())
}
