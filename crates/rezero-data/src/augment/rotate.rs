use super::canvas::Canvas;
use super::{Augmentation, Step, affine};
use crate::image_set::ImageShape;
use crate::rng::Rng;
use crate::{DataError, Result};

/// Rotates the image around its middle, as torchvision's `RandomRotation(degrees)`.
///
/// The angle is uniformly random from `−degrees` to `degrees`. Each pixel is the nearest one of the
/// image, and black where there is none: Pillow's `Image.rotate` to the bit.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotate {
    /// The largest angle in degrees, above 0 and at most 180.
    pub degrees: f64,
}

/// 2 degrees, the choice of ReZero's authors for CIFAR-10.
impl Default for Rotate {
    fn default() -> Self {
        Self { degrees: 2.0 }
    }
}

impl From<Rotate> for Augmentation {
    fn from(rotate: Rotate) -> Self {
        Self::Rotate(rotate)
    }
}

impl Step for Rotate {
    fn check(&self) -> Result<()> {
        DataError::require(
            self.degrees > 0.0 && self.degrees <= 180.0,
            "rotate degrees",
            "above 0 and at most 180",
            &self.degrees,
        )
    }

    fn fits(&self, shape: ImageShape) -> Result<()> {
        affine::fits("images for rotate", shape)
    }

    fn apply(&self, rng: &mut Rng, canvas: &mut Canvas<'_>) {
        let shape = canvas.shape();
        let most = self.degrees as f32;
        let matrix = affine::rotation(f64::from(rng.range(-most, most)), shape);
        let (pixels, spare) = canvas.with_spare();
        affine::transform(pixels, spare, shape, matrix);
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::Golden;
    use super::*;

    /// To the bit, see `tests/augmentations/generate.py`.
    #[test]
    fn an_image_is_rotated_as_by_pillow() {
        let mut golden = Golden::open(include_bytes!("../../tests/augmentations/rotate.bin.gz"));
        for channels in [3, 1] {
            let shape = ImageShape::new(channels, 23, 26);
            let image = golden.bytes(shape.bytes());
            for _ in 0..48 {
                let degrees = f64::from(golden.float());
                let (mut found, mut spare) = (image.clone(), image.clone());
                let matrix = affine::rotation(degrees, shape);
                affine::transform(&mut found, &mut spare, shape, matrix);
                let expected = golden.bytes(shape.bytes());
                let wrong = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
                assert_eq!(wrong, 0, "bytes differ: {shape} {degrees}");
            }
        }
        golden.end();
    }
}
