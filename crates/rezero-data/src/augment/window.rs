//! Windows of images: the common part of crop and flip, and the last step before a batch.

use crate::image_set::ImageShape;
use crate::normalization::Normalization;

/// A window moved by (`down`, `right`) pixels over the image, then mirrored or not. It is black
/// where it leaves the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) down: isize,
    pub(crate) right: isize,
    pub(crate) flip: bool,
}

impl Window {
    /// The image itself.
    pub(crate) const WHOLE: Self = Self {
        down: 0,
        right: 0,
        flip: false,
    };

    /// The window of the image in this window. `None` if it is no window of the image itself: what a first shift cuts off
    /// is lost to a second.
    pub(super) fn then(self, step: Move) -> Option<Self> {
        match step {
            Move::Mirror(flip) => Some(Self {
                flip: self.flip != flip,
                ..self
            }),
            Move::Shift { .. } if (self.down, self.right) != (0, 0) => None,
            // On the mirrored image, right is left.
            Move::Shift { down, right } => Some(Self {
                down,
                right: if self.flip { -right } else { right },
                ..self
            }),
        }
    }
}

/// A move of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Over the image. It is black where the window leaves the image.
    Shift { down: isize, right: isize },
    /// Left to right, or not.
    Mirror(bool),
}

/// Each byte's own value, as a table.
const BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut i = 0;
    while i < 256 {
        bytes[i] = i as u8;
        i += 1;
    }
    bytes
};

/// Writes the window of `image` to `out`, of the same size.
pub(super) fn cut(shape: ImageShape, image: &[u8], window: Window, out: &mut [u8]) {
    look_up(shape, image, window, std::iter::repeat(&BYTES), out);
}

/// Writes the window of `image` to `out`, each byte as the table of its channel has it.
fn look_up<'a, T: Copy + 'a>(
    shape: ImageShape,
    image: &[u8],
    window: Window,
    tables: impl Iterator<Item = &'a [T; 256]>,
    out: &mut [T],
) {
    let ImageShape { height, width, .. } = shape;
    let right = window.right;
    // Columns of the window that lie on the image, before it is mirrored and after.
    let on = (-right).max(0) as usize..(width as isize - right).min(width as isize) as usize;
    let first = right.max(0) as usize;
    let at = match window.flip {
        true => width - on.end..width - on.start,
        false => on.clone(),
    };
    let planes = out.chunks_exact_mut(height * width);
    let sources = image.chunks_exact(height * width);
    for ((plane, source), table) in planes.zip(sources).zip(tables) {
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
            let look_up = |(value, &byte): (&mut T, &u8)| *value = table[usize::from(byte)];
            match window.flip {
                true => values.rev().zip(source).for_each(look_up),
                false => values.zip(source).for_each(look_up),
            }
        }
    }
}

/// Normalises windows of images of one shape.
pub(crate) struct Cutter {
    shape: ImageShape,
    /// The normalised value of each byte, per channel: 1 KiB each, so that they stay in the
    /// first-level cache.
    table: Vec<[f32; 256]>,
    /// The byte nearest to the mean of each channel.
    mean: Vec<u8>,
}

impl Cutter {
    pub(crate) fn new(shape: ImageShape, normalization: &Normalization) -> Self {
        // A mean outside of [0, 1] becomes the nearest byte, too.
        let byte = |mean: &f32| (255.0 * mean).round() as u8;
        Self {
            shape,
            table: normalization.table(),
            mean: normalization.mean.iter().map(byte).collect(),
        }
    }

    pub(super) fn shape(&self) -> ImageShape {
        self.shape
    }

    pub(super) fn mean(&self) -> &[u8] {
        &self.mean
    }

    /// Appends the window of `image` to `out`, normalised.
    pub(super) fn append(&self, image: &[u8], window: Window, out: &mut Vec<f32>) {
        let from = out.len();
        out.resize(from + self.shape.bytes(), 0.0);
        look_up(
            self.shape,
            image,
            window,
            self.table.iter(),
            &mut out[from..],
        );
    }
}
