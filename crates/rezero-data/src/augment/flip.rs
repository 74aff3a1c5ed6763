use super::canvas::Canvas;
use super::{Augmentation, Step};
use crate::rng::Rng;

/// Mirrors the image left to right with probability ½, as torchvision's `RandomHorizontalFlip()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flip {}

impl From<Flip> for Augmentation {
    fn from(flip: Flip) -> Self {
        Self::Flip(flip)
    }
}

impl Step for Flip {
    fn apply(&self, rng: &mut Rng, canvas: &mut Canvas<'_>) {
        if rng.coin() {
            canvas.mirror();
        }
    }
}
