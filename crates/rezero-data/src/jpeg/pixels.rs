//! Coefficients to pixels, with libjpeg's roundings.

use super::tables::Quantisation;
use super::{Component, Frame};

/// The bits behind the point of the factors of the inverse transform, and of what its first pass gives.
const FACTOR: u32 = 13;
const PASS: u32 = 2;

const fn factor(value: f64) -> i64 {
    (value * (1i64 << FACTOR) as f64 + 0.5) as i64
}

/// The inverse cosine transform of eight values, times 8^½ and 2^13: the factorisation with twelve products of Loeffler,
/// Ligtenberg and Moschytz (ICASSP 1989, figure 1), with the sums in the order of libjpeg's `islow`.
fn inverse_of_8(x: [i64; 8]) -> [i64; 8] {
    // The even values.
    let z = (x[2] + x[6]) * factor(0.541196100);
    let (low, high) = (
        z - x[6] * factor(1.847759065),
        z + x[2] * factor(0.765366865),
    );
    let (sum, difference) = ((x[0] + x[4]) << FACTOR, (x[0] - x[4]) << FACTOR);
    let even = [sum + high, difference + low, difference - low, sum - high];
    // The odd ones.
    let (a, b, c, d) = (x[7], x[5], x[3], x[1]);
    let all = (a + c + b + d) * factor(1.175875602);
    let ac = all - (a + c) * factor(1.961570560);
    let bd = all - (b + d) * factor(0.390180644);
    let ad = -(a + d) * factor(0.899976223);
    let bc = -(b + c) * factor(2.562915447);
    let odd = [
        d * factor(1.501321110) + ad + bd,
        c * factor(3.072711026) + bc + ac,
        b * factor(2.053119869) + bc + bd,
        a * factor(0.298631336) + ad + ac,
    ];
    std::array::from_fn(|i| match i {
        0..4 => even[i] + odd[i],
        _ => even[7 - i] - odd[7 - i],
    })
}

fn rounded(value: i64, bits: u32) -> i64 {
    (value + (1 << (bits - 1))) >> bits
}

/// Writes the 8 × 8 samples of a block, whose rows are `stride` apart.
pub(super) fn inverse(block: &[i16; 64], table: &Quantisation, samples: &mut [u8], stride: usize) {
    let mut values = [0; 64];
    for column in 0..8 {
        let at = |row: usize| 8 * row + column;
        let of = |row: usize| i64::from(block[at(row)]) * i64::from(table[at(row)]);
        let column = inverse_of_8(std::array::from_fn(of));
        for (row, value) in column.into_iter().enumerate() {
            values[at(row)] = rounded(value, FACTOR - PASS);
        }
    }
    for (row, line) in values.as_chunks::<8>().0.iter().enumerate() {
        let line = inverse_of_8(*line).map(|value| {
            // Three bits for the factor 8 of two passes.
            (rounded(value, FACTOR + PASS + 3) + 128).clamp(0, 255) as u8
        });
        samples[row * stride..][..8].copy_from_slice(&line);
    }
}

/// The pixels of a frame, with the channels of a pixel side by side.
pub(super) fn pixels(frame: &Frame, are_rgb: bool) -> Vec<u8> {
    let planes = frame.components.iter().map(|of| plane(of, frame));
    let planes: Vec<Vec<u8>> = planes.collect();
    let [first, second, third] = &planes[..] else {
        return planes.into_iter().flatten().collect();
    };
    let mut pixels = Vec::with_capacity(3 * first.len());
    for ((first, second), third) in first.iter().zip(second).zip(third) {
        pixels.extend(match are_rgb {
            true => [*first, *second, *third],
            false => rgb(*first, *second, *third),
        });
    }
    pixels
}

/// JFIF's R = Y + 1.402 Cr, G = Y − 0.34414 Cb − 0.71414 Cr, B = Y + 1.772 Cb, in fixed point with 16 bits behind
/// the point.
fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const fn fixed(value: f64) -> i32 {
        (value * 65536.0 + 0.5) as i32
    }
    const HALF: i32 = 1 << 15;
    let [y, cb, cr] = [i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128];
    let red = (fixed(1.402) * cr + HALF) >> 16;
    let green = (-fixed(0.34414) * cb - fixed(0.71414) * cr + HALF) >> 16;
    let blue = (fixed(1.772) * cb + HALF) >> 16;
    [red, green, blue].map(|more| (y + more).clamp(0, 255) as u8)
}

/// The samples of a component, one for each pixel of the image.
fn plane(of: &Component, frame: &Frame) -> Vec<u8> {
    let (width, height) = of.size;
    let stride = 8 * of.padded.0;
    let line = |row: usize| &of.samples[row * stride..][..width];
    // The line that an interpolated one is near to, and the one on its other side.
    let beside = |row: usize| {
        let near = row / 2;
        let other = match row % 2 {
            0 => near.saturating_sub(1),
            _ => (near + 1).min(height - 1),
        };
        line(near).iter().zip(line(other))
    };
    let times = (frame.most.0 / of.sampling.0, frame.most.1 / of.sampling.1);
    let mut plane = Vec::with_capacity(frame.width * frame.height);
    let mut wide = Vec::new();
    for row in 0..frame.height {
        wide.clear();
        match times {
            (1, 1) => wide.extend(line(row)),
            (1, 2) => {
                let bias = 1 + row as u16 % 2;
                let mean = |(near, other): (&u8, &u8)| {
                    ((3 * u16::from(*near) + u16::from(*other) + bias) >> 2) as u8
                };
                wide.extend(beside(row).map(mean));
            }
            // libjpeg repeats the samples of two columns.
            (2, 1) if width > 2 => {
                let sums: Vec<u16> = line(row).iter().map(|x| u16::from(*x)).collect();
                twice(&sums, 1, [1, 2], &mut wide);
            }
            (2, 2) if width > 2 => {
                let sum = |(near, other): (&u8, &u8)| 3 * u16::from(*near) + u16::from(*other);
                let sums: Vec<u16> = beside(row).map(sum).collect();
                twice(&sums, 4, [8, 7], &mut wide);
            }
            (h, v) => {
                let repeated = line(row / v)
                    .iter()
                    .flat_map(|x| std::iter::repeat_n(*x, h));
                wide.extend(repeated);
            }
        }
        plane.extend(&wide[..frame.width]);
    }
    plane
}

/// Each sum twice: three quarters of it, and a quarter of its neighbour on that side, over `scale`. The two biases share the
/// rounding between the sides.
fn twice(sums: &[u16], scale: u16, [left, right]: [u16; 2], wide: &mut Vec<u8>) {
    let last = sums.len() - 1;
    for (i, sum) in sums.iter().enumerate() {
        let before = sums[i.saturating_sub(1)];
        let after = sums[(i + 1).min(last)];
        wide.push(((3 * sum + before + left) / (4 * scale)) as u8);
        wide.push(((3 * sum + after + right) / (4 * scale)) as u8);
    }
}
