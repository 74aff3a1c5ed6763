//! Named models with weights: the registry, the committed files, the networks.

use burn::tensor::{Device, Tensor};
use rezero_nn::pretrained::{self, PretrainedError, weights};
use rezero_nn::resnet::CifarResNet;
use rezero_nn::torch::export;
use rezero_nn::transformer::RztxLm;

fn names(pattern: &str) -> Vec<&'static str> {
    pretrained::find(pattern).map(|one| one.name).collect()
}

#[test]
fn names_are_found_by_patterns() {
    let all = names("*");
    assert_eq!(all.len(), pretrained::list().len());
    assert!(all.is_sorted());
    assert_eq!(names("resnet20-cifar10"), ["resnet20-cifar10"]);
    assert_eq!(names("resnet?0*"), ["resnet20-cifar10"]);
    assert_eq!(names("*20*10"), ["resnet20-cifar10"]);
    for none in ["", "resnet", "RESNET*", "?", "resnet20-cifar10?", "*x"] {
        assert!(names(none).is_empty(), "{none}");
    }
    // Takes as long as its length, not as many ways as there are to match.
    assert!(names(&"*a".repeat(10_000)).is_empty());
    let error = pretrained::named("resnet21\u{1b}").unwrap_err();
    assert!(matches!(error, PretrainedError::Unknown { .. }));
    let message = error.to_string();
    assert!(
        message.contains("resnet20-cifar10") && !message.contains('\u{1b}'),
        "{message}"
    );
}

/// Files that are part of the crate or of a clone; a packed crate has the first alone.
#[test]
fn committed_weights_are_those_of_the_registry() {
    for one in pretrained::list() {
        match one.bytes() {
            Ok(bytes) => assert_eq!(bytes.len() as u64, one.bytes, "{}", one.name),
            Err(PretrainedError::NotFound { .. }) => {
                println!("{}: its file is not here", one.name);
            }
            Err(error) => panic!("{error}"),
        }
        assert!(
            one.card.contains(one.sha256) && one.card.contains(one.name),
            "{}",
            one.name
        );
        assert!(one.bytes <= 5_000_000, "{}", one.name);
    }
    let all: u64 = pretrained::list().iter().map(|one| one.bytes).sum();
    assert!(all <= 16_000_000, "{all} bytes");
}

#[test]
fn networks_of_a_name_have_the_weights_of_its_file() {
    let device = Device::flex();
    let model =
        CifarResNet::resnet20_pretrained(weights::ResNet20::Cifar10ReZero, &device).unwrap();
    let entry = weights::ResNet20::Cifar10ReZero.entry();
    let file = entry.weights().unwrap();
    let metadata = file
        .metadata()
        .clone()
        .into_iter()
        .filter(|(key, _)| key != "format");
    assert!(export(&model, metadata).unwrap() == *entry.bytes().unwrap());
    assert_eq!(
        entry.classes.len(),
        model.forward(Tensor::zeros([2, 3, 32, 32], &device)).dims()[1]
    );

    // Another head is new, and every other weight is the file's.
    let other = model.clone().with_classes(3);
    assert_eq!(
        other.forward(Tensor::zeros([2, 3, 32, 32], &device)).dims(),
        [2, 3]
    );
    assert_eq!(other.linear.weight.dims(), [64, 3]);
    let back = other.with_classes(10);
    let (back, model) = (export(&back, []).unwrap(), export(&model, []).unwrap());
    assert_eq!(back.len(), model.len());
    let differing = back.iter().zip(&model).filter(|(a, b)| a != b).count();
    assert!(differing > 0 && differing <= 650 * 4, "{differing}");

    // A packed crate has the first file alone.
    fn here<T>(loaded: Result<T, PretrainedError>) {
        match loaded {
            Ok(_) => {}
            Err(PretrainedError::NotFound { name, .. }) => println!("{name}: its file is not here"),
            Err(error) => panic!("{error}"),
        }
    }
    here(CifarResNet::resnet56_pretrained(
        weights::ResNet56::Cifar10ReZero,
        &device,
    ));
    here(RztxLm::bytes48_pretrained(
        weights::Bytes48::Enwik8ReZero,
        &device,
    ));
    here(RztxLm::bytes12_pretrained(
        weights::Bytes12::Enwik8ReZero,
        &device,
    ));
}

#[test]
fn pixels_are_normalised_by_channel() {
    let normalization = weights::ResNet20::Cifar10ReZero
        .entry()
        .normalization
        .unwrap();
    let rgb = [0, 51, 102, 255, 204, 153];
    let x = normalization.of_rgb(&rgb, [1, 2], &Device::flex());
    assert_eq!(x.dims(), [1, 3, 1, 2]);
    let values = x.into_data().try_to_vec::<f32>().unwrap();
    for (channel, pixel) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
        let p = f32::from(rgb[3 * pixel + channel]) / 255.0;
        let expected = (p - normalization.mean[channel]) / normalization.std[channel];
        assert!((values[2 * channel + pixel] - expected).abs() < 1e-6);
    }
}

#[test]
#[should_panic = "3 bytes for each pixel"]
fn an_image_of_another_size_panics() {
    let normalization = weights::ResNet20::Cifar10ReZero
        .entry()
        .normalization
        .unwrap();
    let _ = normalization.of_rgb(&[0; 5], [1, 2], &Device::flex());
}
