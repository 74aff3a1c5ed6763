use super::canvas::Canvas;
use super::window::Move;
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
    fn moves(&self, rng: &mut Rng) -> Option<Move> {
        Some(Move::Mirror(rng.coin()))
    }

    fn apply(&self, rng: &mut Rng, canvas: &mut Canvas<'_>) {
        canvas.moved(Move::Mirror(rng.coin()));
    }
}
