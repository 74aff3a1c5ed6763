use crate::image_set::{CHANNELS, IMAGE_BYTES, Normalization, SIDE};
use crate::rng::{Purpose, Rng};

/// Random crop and flip, as in torchvision's `RandomCrop(32, padding)` then
/// `RandomHorizontalFlip()`.
///
/// The image is framed by `crop_padding` black (0) pixels on each side *before* normalisation, a
/// window of 32 × 32 is cut at a uniform offset, and the window is mirrored left to right with
/// probability ½.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Width of the black frame in pixels, at most 31; 0 turns cropping off.
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

    /// What happens to `record` in `epoch`: a function of these values and `seed` alone.
    pub(crate) fn choose(self, seed: u64, epoch: u64, record: u32) -> Window {
        if self == Self::NONE {
            return Window {
                down: 0,
                right: 0,
                flip: false,
            };
        }
        let mut rng = Rng::stream(Purpose::Augment, &[seed, epoch, u64::from(record)]);
        let mut shift = || rng.below(2 * self.crop_padding + 1) as i32 - self.crop_padding as i32;
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
    pub(crate) down: i32,
    pub(crate) right: i32,
    pub(crate) flip: bool,
}

/// The normalised value of each byte, per channel: 3 KiB, which stay in the first-level cache.
pub(crate) struct Table([[f32; 256]; CHANNELS]);

impl Table {
    pub(crate) fn new(normalization: Normalization) -> Self {
        let channel = |c: usize| {
            let (mean, std) = (normalization.mean[c], normalization.std[c]);
            // The same operations in the same order as torchvision's ToTensor and Normalize.
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std)
        };
        Self(std::array::from_fn(channel))
    }

    /// Appends the window of `image` (3,072 bytes) to `out`, normalised.
    pub(crate) fn append(&self, image: &[u8], window: Window, out: &mut Vec<f32>) {
        let from = out.len();
        out.resize(from + IMAGE_BYTES, 0.0);
        let (side, right) = (SIDE as i32, window.right);
        // Columns of the window that lie on the image.
        let on = (-right).max(0) as usize..(side - right).min(side) as usize;
        let first = right.max(0) as usize;
        for (c, plane) in out[from..].chunks_exact_mut(SIDE * SIDE).enumerate() {
            let table = &self.0[c];
            let black = table[0];
            for (y, row) in plane.chunks_exact_mut(SIDE).enumerate() {
                let sy = y as i32 + window.down;
                if !(0..side).contains(&sy) {
                    row.fill(black);
                    continue;
                }
                let source = &image[(c * SIDE + sy as usize) * SIDE..][..SIDE];
                let source = &source[first..first + on.len()];
                row[..on.start].fill(black);
                row[on.end..].fill(black);
                for (value, &byte) in row[on.clone()].iter_mut().zip(source) {
                    *value = table[usize::from(byte)];
                }
                if window.flip {
                    row.reverse();
                }
            }
        }
    }
}
