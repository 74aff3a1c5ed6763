use crate::image_set::ImageShape;
use crate::normalization::Normalization;
use crate::rng::{Purpose, Rng};

/// Random crop and flip, as in torchvision's `RandomCrop(size, padding)` then
/// `RandomHorizontalFlip()`.
///
/// *Before* normalisation, the image gets a frame of `crop_padding` black (0) pixels on each side.
/// A window of the image's size is cut at a uniformly random offset and mirrored left to right with
/// probability ½.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Width of the black frame in pixels, below the smaller side of the images; 0 turns cropping
    /// off.
    pub crop_padding: usize,
    /// Whether images are mirrored at random.
    pub flip: bool,
}

impl Augment {
    /// No change at all, for validation and test.
    pub const NONE: Self = Self {
        crop_padding: 0,
        flip: false,
    };
    /// A frame of 4 pixels and flips: the usual choice for CIFAR-10 (He et al. 2015, section 4.2).
    pub const STANDARD: Self = Self {
        crop_padding: 4,
        flip: true,
    };

    /// The window of `record` in `epoch`: a function of these values and `seed` alone.
    pub(crate) fn choose(self, seed: u64, epoch: u64, record: u32) -> Window {
        if self == Self::NONE {
            return Window {
                down: 0,
                right: 0,
                flip: false,
            };
        }
        let mut rng = Rng::stream(Purpose::Augment, &[seed, epoch, u64::from(record)]);
        let padding = self.crop_padding;
        let mut shift = || rng.below(2 * padding + 1) as isize - padding as isize;
        let (down, right) = (shift(), shift());
        Window {
            down,
            right,
            flip: self.flip && rng.coin(),
        }
    }
}

/// A window moved by (`down`, `right`) pixels over the image, then mirrored or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) down: isize,
    pub(crate) right: isize,
    pub(crate) flip: bool,
}

/// Cuts windows of images of one shape and normalises them.
pub(crate) struct Cutter {
    shape: ImageShape,
    /// The normalised value of each byte, per channel: 1 KiB each, so that they stay in the
    /// first-level cache.
    table: Vec<[f32; 256]>,
}

impl Cutter {
    pub(crate) fn new(shape: ImageShape, normalization: &Normalization) -> Self {
        Self {
            shape,
            table: normalization.table(),
        }
    }

    /// Appends the window of `image` to `out`, normalised.
    pub(crate) fn append(&self, image: &[u8], window: Window, out: &mut Vec<f32>) {
        let ImageShape { height, width, .. } = self.shape;
        let from = out.len();
        out.resize(from + self.shape.bytes(), 0.0);
        let right = window.right;
        // Columns of the window that lie on the image, before it is mirrored and after.
        let on = (-right).max(0) as usize..(width as isize - right).min(width as isize) as usize;
        let first = right.max(0) as usize;
        let at = match window.flip {
            true => width - on.end..width - on.start,
            false => on.clone(),
        };
        let planes = out[from..].chunks_exact_mut(height * width);
        let sources = image.chunks_exact(height * width);
        for ((plane, source), table) in planes.zip(sources).zip(&self.table) {
            let black = table[0];
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                let sy = y as isize + window.down;
                if !(0..height as isize).contains(&sy) {
                    row.fill(black);
                    continue;
                }
                let source = &source[sy as usize * width..][..width];
                let source = &source[first..first + on.len()];
                row[..at.start].fill(black);
                row[at.end..].fill(black);
                let values = row[at.clone()].iter_mut();
                let look_up = |(value, &byte): (&mut f32, &u8)| *value = table[usize::from(byte)];
                match window.flip {
                    true => values.rev().zip(source).for_each(look_up),
                    false => values.zip(source).for_each(look_up),
                }
            }
        }
    }
}
