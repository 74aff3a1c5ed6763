//! An image while the augmentations of a list change it.

use super::window::{Cutter, Move, Window, cut};
use crate::image_set::ImageShape;

/// An image while the augmentations of a list change it, one after the other.
///
/// Crop and flip wait, since the copy into the batch can do them as well: a list of these two alone
/// makes no other copy.
pub(crate) struct Canvas<'a> {
    cutter: &'a Cutter,
    /// The pixels before the window. They are the record's own until the first change.
    image: Option<&'a [u8]>,
    pixels: Vec<u8>,
    spare: Vec<u8>,
    window: Window,
}

impl<'a> Canvas<'a> {
    pub(crate) fn new(cutter: &'a Cutter) -> Self {
        Self {
            cutter,
            image: None,
            pixels: Vec::new(),
            spare: Vec::new(),
            window: Window::WHOLE,
        }
    }

    /// Begins with another image, of the cutter's shape.
    pub(crate) fn begin(&mut self, image: &'a [u8]) {
        self.image = Some(image);
        self.window = Window::WHOLE;
    }

    /// Appends the image to `out`, normalised.
    pub(crate) fn finish(&self, out: &mut Vec<f32>) {
        let image = self.image.unwrap_or(&self.pixels);
        self.cutter.append(image, self.window, out);
    }

    pub(super) fn shape(&self) -> ImageShape {
        self.cutter.shape()
    }

    /// Moves the window.
    pub(super) fn moved(&mut self, step: Move) {
        let mut next = self.window.then(step);
        if next.is_none() {
            self.settle();
            next = self.window.then(step);
        }
        self.window = next.expect("every move is one of the whole image");
    }

    /// The bytes of the image, `[channel, row, column]`, and the byte nearest to each channel's
    /// mean.
    pub(super) fn pixels(&mut self) -> (&mut [u8], &[u8]) {
        self.settle();
        (&mut self.pixels, self.cutter.mean())
    }

    /// The bytes of the image, and room for a copy of it.
    pub(super) fn with_spare(&mut self) -> (&mut [u8], &mut [u8]) {
        self.settle();
        self.spare.resize(self.pixels.len(), 0);
        (&mut self.pixels, &mut self.spare)
    }

    /// Makes `pixels` the image in the window.
    fn settle(&mut self) {
        if self.image.is_none() && self.window == Window::WHOLE {
            return;
        }
        let shape = self.shape();
        self.spare.resize(shape.bytes(), 0);
        let image = self.image.unwrap_or(&self.pixels);
        cut(shape, image, self.window, &mut self.spare);
        std::mem::swap(&mut self.pixels, &mut self.spare);
        self.image = None;
        self.window = Window::WHOLE;
    }
}
