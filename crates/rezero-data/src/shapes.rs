//! `shapes`: generated images in ten classes, for tests and first runs without a download.
//!
//! Five shapes (disc, ring, square, triangle, cross), four textures (stripes three ways,
//! checkerboard) and a soft blob, 32 × 32 pixels in colour. Place, size, tilt and colours are
//! random. A light gradient and mild noise are added. Which of its two colours is the figure's is
//! random with probability ½, so the mean colour says nothing about the class.
//!
//! Record `i` of a split is a function of (seed, split, `i`) alone, and its label is `i mod 10`.
//! The arithmetic is IEEE 754 without library functions, so that every platform generates the same
//! bytes.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::cifar10::{BATCH_RECORDS, RECORD_BYTES, TEST_FILE, TRAIN_FILES};
use crate::image_set::{ImageSet, ImageShape};
use crate::normalization::Normalization;
use crate::rng::{Purpose, Rng};
use crate::{DataError, Result, Split};

/// The shape of every image.
pub const SHAPE: ImageShape = ImageShape::new(CHANNELS, SIDE, SIDE);

const CHANNELS: usize = 3;
const SIDE: usize = 32;

/// The ten classes, in label order.
pub const CLASS_NAMES: [&str; 10] = [
    "disc",
    "ring",
    "square",
    "triangle",
    "cross",
    "horizontal stripes",
    "vertical stripes",
    "diagonal stripes",
    "checkerboard",
    "blob",
];

/// The mean and standard deviation of all pixels of the first 10,000 training records of seed 0,
/// rounded to two digits.
pub fn normalization() -> Normalization {
    Normalization {
        mean: vec![0.5; CHANNELS],
        std: vec![0.24, 0.27, 0.24],
    }
}

/// Generates the first `len` records of a split. The splits of one seed are disjoint streams.
pub fn generate(split: Split, len: usize, seed: u64) -> ImageSet {
    let mut pixels = vec![0; len * SHAPE.bytes()];
    for (i, image) in pixels.chunks_exact_mut(SHAPE.bytes()).enumerate() {
        draw(split, i, seed, image);
    }
    let labels: Vec<u8> = (0..len).map(label).collect();
    ImageSet::from_raw("shapes", SHAPE, pixels, labels, CLASS_NAMES, 0)
        .expect("as many images as labels, and a label for each class")
}

/// Writes `shapes` in CIFAR-10's binary layout: five training files and a test file of
/// `records_per_batch` records each, directly into `dir`, which is created if needed.
///
/// The training files hold records 0, 1, … of [`Split::Train`] and the test file those of
/// [`Split::Test`]. [`cifar10`](crate::cifar10) reads them under its own class names.
///
/// # Errors
///
/// If `records_per_batch` is not in 1..=10,000, if one of the files exists already, or if a file
/// cannot be written.
pub fn write_cifar_layout(dir: &Path, records_per_batch: usize, seed: u64) -> Result<()> {
    if !(1..=BATCH_RECORDS).contains(&records_per_batch) {
        return Err(DataError::Setting {
            setting: "records_per_batch",
            rule: format!("between 1 and {BATCH_RECORDS}"),
            got: records_per_batch.to_string(),
        });
    }
    fs::create_dir_all(dir).map_err(DataError::io("create", dir))?;
    let train = TRAIN_FILES
        .iter()
        .enumerate()
        .map(|(k, name)| (*name, Split::Train, k));
    for (name, split, batch) in train.chain([(TEST_FILE, Split::Test, 0)]) {
        let mut bytes = vec![0; records_per_batch * RECORD_BYTES];
        for (i, record) in bytes.chunks_exact_mut(RECORD_BYTES).enumerate() {
            let i = batch * records_per_batch + i;
            record[0] = label(i);
            draw(split, i, seed, &mut record[1..]);
        }
        let path = dir.join(name);
        let mut file = File::create_new(&path).map_err(DataError::io("create", &path))?;
        file.write_all(&bytes)
            .map_err(DataError::io("write", &path))?;
    }
    Ok(())
}

fn label(i: usize) -> u8 {
    (i % CLASS_NAMES.len()) as u8
}

/// The classes, in label order.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Disc,
    Ring,
    Square,
    Triangle,
    Cross,
    Horizontal,
    Vertical,
    Diagonal,
    Checkerboard,
    Blob,
}

const CLASSES: [Class; CLASS_NAMES.len()] = {
    use Class::*;
    [
        Disc,
        Ring,
        Square,
        Triangle,
        Cross,
        Horizontal,
        Vertical,
        Diagonal,
        Checkerboard,
        Blob,
    ]
};

/// Draws record `i` into `image`, `[channel, row, column]`.
fn draw(split: Split, i: usize, seed: u64, image: &mut [u8]) {
    let rng = &mut Rng::stream(Purpose::Shapes, &[seed, split as u64, i as u64]);
    let figure = Figure::sample(CLASSES[usize::from(label(i))], rng);
    let (ground, ink) = colours(rng);
    // The light falls off along a random direction by up to 15 levels at the rim.
    let light = direction(rng);
    let strength = rng.range(0.0, 15.0 / 16.0);

    for y in 0..SIDE {
        for x in 0..SIDE {
            let (px, py) = (x as f32 - 15.5, y as f32 - 15.5);
            let cover = figure.cover(px, py);
            let shade = strength * (light.0 * px + light.1 * py);
            let noise = rng.next_u64().to_le_bytes();
            for c in 0..CHANNELS {
                // The sum of two uniform bytes is a triangle: a standard deviation of 8 levels.
                let sum = f32::from(noise[2 * c]) + f32::from(noise[2 * c + 1]) - 255.0;
                let value = ground[c] + cover * (ink[c] - ground[c]) + shade + sum * (8.0 / 104.5);
                // `as` saturates, so no value wraps.
                image[(c * SIDE + y) * SIDE + x] = (value + 0.5) as u8;
            }
        }
    }
}

/// Two colours in random order that differ in luma (Rec. 601) by at least 70 levels.
fn colours(rng: &mut Rng) -> ([f32; 3], [f32; 3]) {
    let luma = |c: &[f32; 3]| 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2];
    loop {
        let mut colour = || [0; 3].map(|_: u8| rng.range(20.0, 235.0));
        let (a, b) = (colour(), colour());
        if (luma(&a) - luma(&b)).abs() >= 70.0 {
            return if rng.coin() { (a, b) } else { (b, a) };
        }
    }
}

/// A unit vector, uniform over the circle, without trigonometry.
fn direction(rng: &mut Rng) -> (f32, f32) {
    loop {
        let (x, y) = (rng.range(-1.0, 1.0), rng.range(-1.0, 1.0));
        let square = x * x + y * y;
        if (0.01..=1.0).contains(&square) {
            let norm = square.sqrt();
            return (x / norm, y / norm);
        }
    }
}

/// A figure in its own frame: a point is moved by `centre` and turned by `turn` (cosine, sine).
struct Figure {
    class: Class,
    centre: (f32, f32),
    turn: (f32, f32),
    /// Radius of a shape, or half the period of a texture, in pixels.
    size: f32,
    /// Width of a ring's or cross's stroke relative to `size`.
    stroke: f32,
}

impl Figure {
    fn sample(class: Class, rng: &mut Rng) -> Self {
        use Class::*;

        let size = match class {
            Disc | Ring | Square | Triangle | Cross => rng.range(8.0, 12.0),
            Horizontal | Vertical | Diagonal => rng.range(2.5, 5.0),
            Checkerboard => rng.range(3.5, 7.0),
            Blob => rng.range(12.0, 18.0),
        };
        // A texture fills the image wherever its phase lies; a shape stays nearly inside.
        let reach = match class {
            Horizontal | Vertical | Diagonal | Checkerboard => 16.0,
            Disc | Ring | Square | Triangle | Cross | Blob => 17.0 - size.min(12.0),
        };
        let centre = (rng.range(-reach, reach), rng.range(-reach, reach));
        // Tilts are up to atan 0.2 = 11°, about the axis of the class.
        let tilt = rng.range(-0.2, 0.2);
        let (cos, sin) = match class {
            Vertical => (tilt, 1.0),
            Diagonal if rng.coin() => (1.0, 1.0 + tilt),
            Diagonal => (1.0, -1.0 - tilt),
            Disc | Ring | Square | Triangle | Cross | Horizontal | Checkerboard | Blob => {
                (1.0, tilt)
            }
        };
        let norm = (cos * cos + sin * sin).sqrt();
        let stroke = rng.range(0.22, 0.34);
        Self {
            class,
            centre,
            turn: (cos / norm, sin / norm),
            size,
            stroke,
        }
    }

    /// How much of the pixel at (x, y) is ink, in `[0, 1]`.
    fn cover(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x - self.centre.0, y - self.centre.1);
        let (x, y) = (
            self.turn.0 * x + self.turn.1 * y,
            self.turn.0 * y - self.turn.1 * x,
        );
        let r = self.size;
        // Signed distance to the outline, negative inside.
        let distance = match self.class {
            Class::Disc => (x * x + y * y).sqrt() - r,
            Class::Ring => {
                let half = r * self.stroke / 2.0;
                ((x * x + y * y).sqrt() - (r - half)).abs() - half
            }
            Class::Square => x.abs().max(y.abs()) - 0.85 * r,
            // Three half-planes at 120°: a triangle of circumradius 1.1 r, the tip up.
            Class::Triangle => y.max(0.866_025_4 * x.abs() - 0.5 * y) - 0.55 * r,
            Class::Cross => {
                let bar = |along: f32, across: f32| (along - r).max(across - r * self.stroke);
                bar(x.abs(), y.abs()).min(bar(y.abs(), x.abs()))
            }
            Class::Horizontal | Class::Vertical | Class::Diagonal => wave(y, r),
            Class::Checkerboard => {
                let (a, b) = (wave(x, r), wave(y, r));
                // Exclusive or: inside where exactly one of the two waves is.
                a.max(-b).min(b.max(-a))
            }
            Class::Blob => {
                let t = (1.0 - (x * x + y * y).sqrt() / r).max(0.0);
                return t * (2.0 - t);
            }
        };
        (0.5 - distance).clamp(0.0, 1.0)
    }
}

/// The signed distance to the edges of bands of width `half`, every second one inside.
fn wave(v: f32, half: f32) -> f32 {
    let phase = v / (2.0 * half);
    let phase = phase - phase.floor();
    ((phase - 0.5).abs() - 0.25) * 2.0 * half
}
