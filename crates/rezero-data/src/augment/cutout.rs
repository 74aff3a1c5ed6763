use super::canvas::Canvas;
use super::{Augmentation, Step, smaller_side};
use crate::image_set::ImageShape;
use crate::rng::Rng;
use crate::{DataError, Result};

/// Hides a square: DeVries and Taylor 2017, [arXiv 1708.04552](https://arxiv.org/abs/1708.04552).
///
/// The square's centre is uniformly random among the pixels of the image, so that a part of the
/// square may lie outside. Rows `y − ⌊size/2⌋` to `y − ⌊size/2⌋ + size − 1` around the centre `y`
/// are hidden, and columns likewise. The authors fill the square with 0 after normalisation; here
/// it gets the byte nearest to the mean of the [`Normalization`](crate::Normalization), which
/// differs from 0 by at most 1 / (510 · std) after it. The authors' code hides one row and one
/// column less if the size is odd.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cutout {
    /// The side of the square in pixels, at most the smaller side of the images.
    pub size: usize,
}

/// 16 pixels, the authors' choice for CIFAR-10.
impl Default for Cutout {
    fn default() -> Self {
        Self { size: 16 }
    }
}

impl From<Cutout> for Augmentation {
    fn from(cutout: Cutout) -> Self {
        Self::Cutout(cutout)
    }
}

impl Step for Cutout {
    fn check(&self) -> Result<()> {
        DataError::require(self.size > 0, "cutout size", "at least 1", &self.size)
    }

    fn fits(&self, shape: ImageShape) -> Result<()> {
        let limit = smaller_side(shape);
        DataError::require(
            self.size <= limit,
            "cutout size",
            &format!("at most {limit}, the smaller side of the images"),
            &self.size,
        )
    }

    fn apply(&self, rng: &mut Rng, canvas: &mut Canvas<'_>) {
        let ImageShape { height, width, .. } = canvas.shape();
        let range = |centre: usize, side: usize| {
            let end = centre + self.size - self.size / 2;
            centre.saturating_sub(self.size / 2)..end.min(side)
        };
        let (rows, columns) = (
            range(rng.below(height), height),
            range(rng.below(width), width),
        );
        let (pixels, mean) = canvas.pixels();
        for (plane, &mean) in pixels.chunks_exact_mut(height * width).zip(mean) {
            for row in plane
                .chunks_exact_mut(width)
                .take(rows.end)
                .skip(rows.start)
            {
                row[columns.clone()].fill(mean);
            }
        }
    }
}
