//! RandAugment and its operations.

use super::canvas::Canvas;
use super::{Augmentation, Step, affine, colour};
use crate::image_set::ImageShape;
use crate::rng::Rng;
use crate::{DataError, Result};

/// `n` random operations of one magnitude, one after the other: RandAugment, Cubuk et al. 2019,
/// [arXiv 1909.13719](https://arxiv.org/abs/1909.13719).
///
/// Each operation is one of [`Operation::ALL`] with equal probability, and its direction is positive
/// or negative with equal probability. Ranges are torchvision's. Pixels that a geometric operation
/// uncovers are black.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// How many operations an image gets, from 1 to 14.
    pub n: usize,
    /// Their magnitude, from 0 to 30.
    pub magnitude: usize,
}

/// Torchvision's defaults.
impl Default for RandAugment {
    fn default() -> Self {
        Self { n: 2, magnitude: 9 }
    }
}

impl From<RandAugment> for Augmentation {
    fn from(steps: RandAugment) -> Self {
        Self::RandAugment(steps)
    }
}

/// An operation of [`RandAugment`]. The strength of most grows linearly with the magnitude m.
///
/// | operation | what it does | at magnitude m |
/// | - | - | - |
/// | `Identity` | nothing | |
/// | `ShearX`, `ShearY` | pixel (x, y) is read from (x + v y, y), or from (x, y + v x) | v = ± 0.01 m |
/// | `TranslateX`, `TranslateY` | moved right, or down, by whole pixels | ± ⌊150/331 · m/30 · side⌋ |
/// | `Rotate` | rotated counter-clockwise around the middle | ± m degrees |
/// | `Brightness` | blended with black | factor 1 ± 0.03 m |
/// | `Color` | blended with the grey image | factor 1 ± 0.03 m |
/// | `Contrast` | blended with the mean of the grey image | factor 1 ± 0.03 m |
/// | `Sharpness` | blended with the image smoothed by (1 1 1, 1 5 1, 1 1 1) / 13 | factor 1 ± 0.03 m |
/// | `Posterize` | the leading bits of each byte are kept | 8 − round(m / 7.5) bits |
/// | `Solarize` | bytes from a threshold on are inverted | 255 − 8.5 m |
/// | `AutoContrast` | each channel is stretched to 0 … 255 | |
/// | `Equalize` | the histogram of each channel is made uniform | |
///
/// A blend of `a` and the image with factor f is `a + f (image − a)`, rounded down and cut to
/// 0 … 255. Geometric operations take the nearest pixel. All are those of Pillow to the bit. On
/// images of one channel `Color` does nothing, as in Pillow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Identity,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
        Self::Rotate,
        Self::Brightness,
        Self::Color,
        Self::Contrast,
        Self::Sharpness,
        Self::Posterize,
        Self::Solarize,
        Self::AutoContrast,
        Self::Equalize,
    ];

    /// The largest magnitude.
    pub const MAX_MAGNITUDE: usize = 30;

    /// Changes the bytes of an image, `[channel, row, column]`. `negative` chooses the direction of
    /// the operations that have two.
    ///
    /// # Errors
    ///
    /// If the image is neither of one channel nor of three, has another number of bytes than its
    /// shape or a side above 16,384, or the magnitude is above
    /// [`MAX_MAGNITUDE`](Self::MAX_MAGNITUDE).
    pub fn apply(
        self,
        pixels: &mut [u8],
        shape: ImageShape,
        magnitude: usize,
        negative: bool,
    ) -> Result<()> {
        let step = RandAugment { n: 1, magnitude };
        step.check()?;
        step.fits(shape)?;
        DataError::require(
            pixels.len() == shape.bytes(),
            "the number of bytes of an image",
            &format!("{}, as of {shape}", shape.bytes()),
            &pixels.len(),
        )?;
        self.change(pixels, &mut pixels.to_vec(), shape, magnitude, negative);
        Ok(())
    }

    /// Changes `pixels`; `spare` is of the same length.
    fn change(
        self,
        pixels: &mut [u8],
        spare: &mut [u8],
        shape: ImageShape,
        magnitude: usize,
        negative: bool,
    ) {
        let m = magnitude as f64;
        let sign = if negative { -1.0 } else { 1.0 };
        let shear = sign * 0.3 * m / 30.0;
        let shift = |side: usize| sign * (150.0 / 331.0 * side as f64 * m / 30.0).floor();
        let factor = (1.0 + sign * 0.9 * m / 30.0) as f32;
        let mut read_from = |matrix| affine::transform(pixels, spare, shape, matrix);
        match self {
            Self::Identity => {}
            Self::ShearX => read_from([1.0, shear, 0.0, 0.0, 1.0, 0.0]),
            Self::ShearY => read_from([1.0, 0.0, 0.0, shear, 1.0, 0.0]),
            Self::TranslateX => read_from([1.0, 0.0, -shift(shape.width), 0.0, 1.0, 0.0]),
            Self::TranslateY => read_from([1.0, 0.0, 0.0, 0.0, 1.0, -shift(shape.height)]),
            Self::Rotate => read_from(affine::rotation(sign * m, shape)),
            Self::Brightness => colour::brightness(pixels, factor),
            Self::Color => colour::color(pixels, shape, factor),
            Self::Contrast => colour::contrast(pixels, shape, factor),
            Self::Sharpness => colour::sharpness(pixels, spare, shape, factor),
            Self::Posterize => colour::posterize(pixels, 8 - (m / 7.5).round_ties_even() as u32),
            Self::Solarize => colour::solarize(pixels, 255.0 - 8.5 * m),
            Self::AutoContrast => colour::auto_contrast(pixels, shape),
            Self::Equalize => colour::equalize(pixels, shape),
        }
    }
}

impl Step for RandAugment {
    fn check(&self) -> Result<()> {
        let most = Operation::ALL.len();
        DataError::require(
            (1..=most).contains(&self.n),
            "rand-augment n",
            &format!("from 1 to {most}"),
            &self.n,
        )?;
        DataError::require(
            self.magnitude <= Operation::MAX_MAGNITUDE,
            "rand-augment magnitude",
            &format!("at most {}", Operation::MAX_MAGNITUDE),
            &self.magnitude,
        )
    }

    fn fits(&self, shape: ImageShape) -> Result<()> {
        colour::fits("images for rand-augment", shape)?;
        affine::fits("images for rand-augment", shape)
    }

    fn apply(&self, rng: &mut Rng, canvas: &mut Canvas<'_>) {
        let shape = canvas.shape();
        for _ in 0..self.n {
            let operation = Operation::ALL[rng.below(Operation::ALL.len())];
            let negative = rng.coin();
            let (pixels, spare) = canvas.with_spare();
            operation.change(pixels, spare, shape, self.magnitude, negative);
        }
    }
}
