//! The table of named weights.

use burn::tensor::{Device, Tensor, TensorData};

/// A named set of weights.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Pretrained {
    /// The name: that of the network and that of the data.
    pub name: &'static str,
    /// One line: what it is, and how good.
    pub summary: &'static str,
    /// The card, Markdown: how it was trained, its figures, its limits, the licence of the data.
    pub card: &'static str,
    /// The length of the file in bytes.
    pub bytes: u64,
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: &'static str,
    /// The classes, in label order; of text: none.
    pub classes: &'static [&'static str],
    /// How pixels become inputs; of text: none.
    pub normalization: Option<Normalization>,
    /// The file, if it is part of the crate.
    pub(super) inside: Option<&'static [u8]>,
}

/// How a channel's pixel value `p`, from 0 to 1, becomes an input: `(p − mean) / std`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// The mean of each channel.
    pub mean: [f32; 3],
    /// The divisor of each channel.
    pub std: [f32; 3],
}

impl Normalization {
    /// The input of a network: `[1, 3, height, width]`, from the bytes of an image, red, green and blue of one
    /// pixel after the other, row by row.
    ///
    /// # Panics
    ///
    /// If `rgb` has not `3 · height · width` bytes.
    pub fn of_rgb(&self, rgb: &[u8], [height, width]: [usize; 2], device: &Device) -> Tensor<4> {
        assert_eq!(
            rgb.len(),
            3 * height * width,
            "an image of {height} × {width} pixels has 3 bytes for each pixel"
        );
        let channel = |c: usize| {
            let bytes = rgb.iter().skip(c).step_by(3);
            bytes.map(move |&p| (f32::from(p) / 255.0 - self.mean[c]) / self.std[c])
        };
        let values: Vec<f32> = (0..3).flat_map(channel).collect();
        Tensor::from_data(TensorData::new(values, [1, 3, height, width]), device)
    }
}

/// The classes of CIFAR-10.
const CIFAR10: &[&str] = &[
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// That of the recipes `cifar10-resnet*-notebook`.
const NOTEBOOK: Normalization = Normalization {
    mean: [0.485, 0.456, 0.406],
    std: [0.229, 0.224, 0.225],
};

pub(super) static RESNET20_CIFAR10: Pretrained = Pretrained {
    name: "resnet20-cifar10",
    summary: "ReZero ResNet-20 on CIFAR-10: 87.05 % of the test images",
    card: include_str!("cards/resnet20-cifar10.md"),
    bytes: 1_094_308,
    sha256: "e8add719eae91d89562b74298bcdae2a06eac5f0a92b2595372d27a00e163f35",
    classes: CIFAR10,
    normalization: Some(NOTEBOOK),
    inside: Some(include_bytes!("../../weights/resnet20-cifar10.safetensors")),
};

pub(super) static RESNET56_CIFAR10: Pretrained = Pretrained {
    name: "resnet56-cifar10",
    summary: "ReZero ResNet-56 on CIFAR-10: 88.14 % of the test images",
    card: include_str!("cards/resnet56-cifar10.md"),
    bytes: 3_455_316,
    sha256: "c0348bf011b81b1e13d76c5608a0b84d82cfb852d6d9925adf81ef5523ba2a3d",
    classes: CIFAR10,
    normalization: Some(NOTEBOOK),
    inside: None,
};

pub(super) static BYTES12_ENWIK8: Pretrained = Pretrained {
    name: "bytes12-enwik8",
    summary: "ReZero Transformer of 12 layers on bytes of enwik8: 2.440 bits per byte",
    card: include_str!("cards/bytes12-enwik8.md"),
    bytes: 2_531_416,
    sha256: "ed3f9b923642fedde1edaa43ca779a56b504a9329229deda53dc3471485b4b3a",
    classes: &[],
    normalization: None,
    inside: None,
};

pub(super) static BYTES48_ENWIK8: Pretrained = Pretrained {
    name: "bytes48-enwik8",
    summary: "ReZero Transformer of 48 layers on bytes of enwik8: 2.256 bits per byte",
    card: include_str!("cards/bytes48-enwik8.md"),
    bytes: 4_885_776,
    sha256: "b566a7678457ea8f97e9e594e70dfa4a89a044e2381fea640dfb9f23bd538954",
    classes: &[],
    normalization: None,
    inside: None,
};

/// Every set of weights, by name.
pub(super) static ALL: &[&Pretrained] = &[
    &BYTES12_ENWIK8,
    &BYTES48_ENWIK8,
    &RESNET20_CIFAR10,
    &RESNET56_CIFAR10,
];
