//! Affine maps with the nearest pixel, in steps of 1/65536 of a pixel as Pillow computes them.

use crate::image_set::ImageShape;
use crate::{DataError, Result};

/// The longest side whose coordinates fit, wherever the maps of this crate lead.
const MAX_SIDE: usize = 1 << 14;

/// Whether the maps are defined for such images.
pub(super) fn fits(images: &'static str, shape: ImageShape) -> Result<()> {
    DataError::require(
        shape.height.max(shape.width) <= MAX_SIDE,
        images,
        &format!("of sides up to {MAX_SIDE}"),
        &format_args!("{shape} (channels, height, width)"),
    )
}

/// `(a, b, c, d, e, f)`: the pixel at (x, y) is read from `(a x + b y + c, d x + e y + f)`.
pub(super) type Matrix = [f64; 6];

/// A rotation by `degrees` counter-clockwise around the middle of the image.
pub(super) fn rotation(degrees: f64, shape: ImageShape) -> Matrix {
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    let (x, y) = (shape.width as f64 / 2.0, shape.height as f64 / 2.0);
    [
        cos,
        sin,
        x - cos * x - sin * y,
        -sin,
        cos,
        y + sin * x - cos * y,
    ]
}

/// Maps every channel of `pixels`; where it is read outside of the image, it is black.
pub(super) fn transform(pixels: &mut [u8], spare: &mut [u8], shape: ImageShape, matrix: Matrix) {
    const ONE: f64 = 65536.0;
    let fixed = |value: f64| (value * ONE + 0.5).floor() as i64;
    let [a, b, c, d, e, f] = matrix;
    let (right, down) = ((fixed(a), fixed(d)), (fixed(b), fixed(e)));
    // The middle of the first pixel.
    let first = (fixed(c + (a + b) / 2.0), fixed(f + (d + e) / 2.0));
    let (width, height) = (shape.width as i64, shape.height as i64);
    spare.copy_from_slice(pixels);
    let size = shape.width * shape.height;
    for (y, row) in (0..).zip(0..shape.height) {
        let mut at = (first.0 + y * down.0, first.1 + y * down.1);
        for x in 0..shape.width {
            let (column, line) = (at.0 >> 16, at.1 >> 16);
            let inside = (0..width).contains(&column) && (0..height).contains(&line);
            let from = if inside {
                (line * width + column) as usize
            } else {
                0
            };
            let mut to = row * shape.width + x;
            let mut plane = 0;
            while to < pixels.len() {
                pixels[to] = if inside { spare[plane + from] } else { 0 };
                to += size;
                plane += size;
            }
            at = (at.0 + right.0, at.1 + right.1);
        }
    }
}
