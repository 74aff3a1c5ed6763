//! Operations that leave pixels in their place.

use crate::image_set::ImageShape;
use crate::{DataError, Result};

/// Whether the operations are defined for such images.
pub(super) fn fits(images: &'static str, shape: ImageShape) -> Result<()> {
    DataError::require(
        [1, 3].contains(&shape.channels),
        images,
        "of 1 or 3 channels: its operations are of grey or red, green and blue",
        &format_args!("{shape} (channels, height, width)"),
    )
}

/// `other + factor (byte − other)`, rounded down and cut to 0 … 255.
fn blend(other: u8, byte: u8, factor: f32) -> u8 {
    let (other, byte) = (f32::from(other), f32::from(byte));
    // A cast cuts and rounds towards 0.
    (other + factor * (byte - other)) as u8
}

/// Each byte through the table of a function.
fn look_up(pixels: &mut [u8], of: impl Fn(u8) -> u8) {
    let mut table = [0; 256];
    for (byte, to) in (0..=255).zip(&mut table) {
        *to = of(byte);
    }
    for byte in pixels {
        *byte = table[usize::from(*byte)];
    }
}

pub(super) fn brightness(pixels: &mut [u8], factor: f32) {
    look_up(pixels, |byte| blend(0, byte, factor));
}

pub(super) fn posterize(pixels: &mut [u8], bits: u32) {
    let mask = 255u8.unbounded_shl(8 - bits);
    for byte in pixels {
        *byte &= mask;
    }
}

pub(super) fn solarize(pixels: &mut [u8], threshold: f64) {
    look_up(pixels, |byte| match f64::from(byte) < threshold {
        true => byte,
        false => 255 - byte,
    });
}

/// The luma of Rec. 601.
fn grey(red: u8, green: u8, blue: u8) -> u8 {
    let (red, green, blue) = (u32::from(red), u32::from(green), u32::from(blue));
    ((19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16) as u8
}

/// The planes of an image of three channels.
fn colours(pixels: &mut [u8], shape: ImageShape) -> Option<[&mut [u8]; 3]> {
    if shape.channels != 3 {
        return None;
    }
    let size = shape.width * shape.height;
    let (red, rest) = pixels.split_at_mut(size);
    let (green, blue) = rest.split_at_mut(size);
    Some([red, green, blue])
}

pub(super) fn color(pixels: &mut [u8], shape: ImageShape, factor: f32) {
    // Grey has no colour.
    let Some([red, green, blue]) = colours(pixels, shape) else {
        return;
    };
    for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
        let grey = grey(*red, *green, *blue);
        *red = blend(grey, *red, factor);
        *green = blend(grey, *green, factor);
        *blue = blend(grey, *blue, factor);
    }
}

pub(super) fn contrast(pixels: &mut [u8], shape: ImageShape, factor: f32) {
    let size = (shape.width * shape.height) as f64;
    let sum: u64 = match colours(pixels, shape) {
        Some([red, green, blue]) => {
            let all = red.iter().zip(green).zip(blue);
            all.map(|((red, green), blue)| u64::from(grey(*red, *green, *blue)))
                .sum()
        }
        None => pixels.iter().map(|byte| u64::from(*byte)).sum(),
    };
    let mean = (sum as f64 / size + 0.5) as u8;
    look_up(pixels, |byte| blend(mean, byte, factor));
}

pub(super) fn sharpness(pixels: &mut [u8], spare: &mut [u8], shape: ImageShape, factor: f32) {
    let (width, height) = (shape.width, shape.height);
    // The pixels of the edge are not smoothed, and a blend of two equal bytes is this byte.
    if width < 3 || height < 3 {
        return;
    }
    spare.copy_from_slice(pixels);
    let planes = spare.chunks_exact(width * height);
    for (plane, out) in planes.zip(pixels.chunks_exact_mut(width * height)) {
        for y in 1..height - 1 {
            let line = |y: usize| &plane[y * width..(y + 1) * width];
            let lines = line(y - 1)
                .windows(3)
                .zip(line(y).windows(3))
                .zip(line(y + 1).windows(3));
            let out = &mut out[y * width + 1..(y + 1) * width - 1];
            for (byte, ((above, own), below)) in out.iter_mut().zip(lines) {
                let three = |of: &[u8]| u32::from(of[0]) + u32::from(of[1]) + u32::from(of[2]);
                let sum = three(above) + three(own) + three(below) + 4 * u32::from(own[1]);
                // Rounded to the nearest byte: of thirteenths none is half way.
                let smooth = ((2 * sum + 13) / 26) as u8;
                *byte = blend(smooth, *byte, factor);
            }
        }
    }
}

fn histogram(plane: &[u8]) -> [usize; 256] {
    let mut counts = [0; 256];
    for byte in plane {
        counts[usize::from(*byte)] += 1;
    }
    counts
}

pub(super) fn auto_contrast(pixels: &mut [u8], shape: ImageShape) {
    for plane in pixels.chunks_exact_mut(shape.width * shape.height) {
        let (Some(&low), Some(&high)) = (plane.iter().min(), plane.iter().max()) else {
            continue;
        };
        if low == high {
            continue;
        }
        let scale = 255.0 / f64::from(high - low);
        let offset = -f64::from(low) * scale;
        look_up(plane, |byte| (f64::from(byte) * scale + offset) as u8);
    }
}

/// Byte i becomes `(h/2 + number of bytes below i) / h` with `h` a 255th of the bytes below the
/// largest, in whole numbers. Where `h` is 0, the channel stays.
pub(super) fn equalize(pixels: &mut [u8], shape: ImageShape) {
    for plane in pixels.chunks_exact_mut(shape.width * shape.height) {
        let counts = histogram(plane);
        let Some(largest) = counts.iter().rposition(|count| *count > 0) else {
            continue;
        };
        let step = (plane.len() - counts[largest]) / 255;
        if step == 0 {
            continue;
        }
        let mut below = step / 2;
        let mut table = [0; 256];
        for (value, count) in table.iter_mut().zip(counts) {
            *value = (below / step).min(255) as u8;
            below += count;
        }
        look_up(plane, |byte| table[usize::from(byte)]);
    }
}
