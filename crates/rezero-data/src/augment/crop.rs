use super::canvas::Canvas;
use super::window::Move;
use super::{Augmentation, Step, smaller_side};
use crate::image_set::ImageShape;
use crate::rng::Rng;
use crate::{DataError, Result};

/// Random crops, as torchvision's `RandomCrop(size, padding)`: the image gets a black frame, and a
/// window of the image's size is cut at a uniformly random offset (He et al. 2015,
/// [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Crop {
    /// Width of the black frame in pixels, below the smaller side of the images.
    pub padding: usize,
}

impl Default for Crop {
    fn default() -> Self {
        Self { padding: 4 }
    }
}

impl From<Crop> for Augmentation {
    fn from(crop: Crop) -> Self {
        Self::Crop(crop)
    }
}

impl Step for Crop {
    fn check(&self) -> Result<()> {
        DataError::require(
            self.padding > 0,
            "crop padding",
            "at least 1",
            &self.padding,
        )
    }

    fn fits(&self, shape: ImageShape) -> Result<()> {
        let limit = smaller_side(shape) - 1;
        DataError::require(
            self.padding <= limit,
            "crop padding",
            &format!("at most {limit}, below the smaller side of the images"),
            &self.padding,
        )
    }

    fn moves(&self, rng: &mut Rng) -> Option<Move> {
        Some(self.draw(rng))
    }

    fn apply(&self, rng: &mut Rng, canvas: &mut Canvas<'_>) {
        canvas.moved(self.draw(rng));
    }
}

impl Crop {
    fn draw(&self, rng: &mut Rng) -> Move {
        let mut shift = || rng.below(2 * self.padding + 1) as isize - self.padding as isize;
        let (down, right) = (shift(), shift());
        Move::Shift { down, right }
    }
}
