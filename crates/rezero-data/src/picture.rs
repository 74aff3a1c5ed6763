//! PNG and JPEG files as bytes of pixels.
//!
//! The format is told by a file's content, whatever its name. What a file may hold:
//!
//! | file | how it is read |
//! | - | - |
//! | PNG of 1, 2, 4 or 8 bits: grey, RGB, palette, with or without alpha, interlaced or not | exactly |
//! | JPEG of 8 bits: grey, YCbCr or RGB, baseline or progressive | as libjpeg, exactly |
//! | PNG of 16 bits, JPEG of 12 bits, JPEG in CMYK | refused: a reduction is a choice to make before training |
//!
//! The orientation in a file's EXIF data is applied. Colour profiles and gamma are not. Channels are then made as
//! [`Preparation`] says: grey becomes three equal channels; colours become grey as
//! (19595 R + 38470 G + 7471 B + 32768) / 65536, rounded down, the luma of Rec. 601 as Pillow computes it; an alpha
//! channel is dropped unless it is asked for.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;

use image::codecs::png::PngDecoder;
use image::imageops::{self, FilterType};
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageError, Limits};

use crate::image_set::ImageShape;
use crate::jpeg::{Fault, Jpeg};
use crate::{DataError, Result};

/// The most bytes of a file.
pub const MAX_FILE_BYTES: u64 = 1 << 28;

/// The most pixels of an image, width times height: 8192 × 8192. A file that says it has more is
/// refused before it is decoded.
pub const MAX_PIXELS: u64 = 1 << 26;

/// How an image is made of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// 1: grey; 2: grey and alpha; 3: red, green and blue; 4: these and alpha.
    pub channels: usize,
    /// Its height and width.
    pub sizing: Sizing,
}

/// The height and width of an image made of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizing {
    /// Those of the file.
    Any,
    /// Those of the file, which must be these.
    Exactly {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
    },
    /// These: the image is scaled in both directions, whatever that does to its proportions.
    Stretch {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
    },
    /// These: the largest window of these proportions is cut from the middle of the image and
    /// scaled.
    Crop {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
    },
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Channels, height and width.
    pub shape: ImageShape,
    /// The pixel bytes, `[channel, row, column]`.
    pub pixels: Vec<u8>,
}

/// Reads a file. See [`decode`].
///
/// # Errors
///
/// As [`decode`], or if it is not a plain file, has more than [`MAX_FILE_BYTES`] or cannot be read.
pub fn read(file: &Path, preparation: &Preparation) -> Result<Picture> {
    // A pipe would be waited for.
    let meta = fs::metadata(file).map_err(DataError::io("read", file))?;
    if !meta.is_file() {
        return Err(DataError::WrongKind {
            path: file.to_path_buf(),
            expected: "file",
            remedy: "an image is a plain file".into(),
        });
    }
    let mut bytes = Vec::with_capacity(meta.len().min(MAX_FILE_BYTES) as usize + 1);
    let open = File::open(file).map_err(DataError::io("open", file))?;
    open.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(DataError::io("read", file))?;
    decode(&bytes, file, preparation)
}

/// Decodes the bytes of a file, which is named in errors.
///
/// Images are scaled by linear interpolation; where they become smaller, each pixel is the weighted
/// mean of all pixels that it covers (as Pillow's `BILINEAR` and torchvision's `antialias`). Channels
/// are scaled each on its own, alpha as well.
///
/// # Errors
///
/// - [`DataError::CorruptPicture`] if the bytes are neither PNG nor JPEG, end early or are damaged;
/// - [`DataError::PictureKind`] for 16 bits, CMYK and other kinds that are not read, and for more than
///   [`MAX_PIXELS`];
/// - [`DataError::PictureSize`] if the size is not that of [`Sizing::Exactly`];
/// - [`DataError::Setting`] if the preparation has a 0, or more than 4 channels.
pub fn decode(bytes: &[u8], file: &Path, preparation: &Preparation) -> Result<Picture> {
    preparation.check()?;
    let corrupt = |why: String| DataError::CorruptPicture {
        file: file.to_path_buf(),
        why,
    };
    let kind = |found: String| DataError::PictureKind {
        file: file.to_path_buf(),
        found,
    };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(kind(format!("more than {MAX_FILE_BYTES} bytes")));
    }
    let failed = |e: ImageError| match e {
        ImageError::Unsupported(e) => kind(e.to_string()),
        other => corrupt(other.to_string()),
    };
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        if !palette_is_whole(bytes) {
            return Err(corrupt(
                "its palette ends in the middle of a colour".to_owned(),
            ));
        }
        // Before the decoder asks for memory.
        if let Some(&[w3, w2, w1, w0, h3, h2, h1, h0]) = bytes.get(16..24) {
            let [width, height] = [[w3, w2, w1, w0], [h3, h2, h1, h0]].map(u32::from_be_bytes);
            within_limits(width, height).map_err(kind)?;
        }
        let mut limits = Limits::default();
        limits.max_alloc = Some(16 * MAX_PIXELS);
        let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(failed)?;
        let bits = decoder.color_type().bytes_per_pixel() / decoder.color_type().channel_count();
        if bits != 1 {
            return Err(kind("a PNG of 16 bits per channel".to_owned()));
        }
        prepare(decoder, file, preparation, failed)
    } else if bytes.starts_with(b"\xff\xd8") {
        let decoder = Jpeg::new(bytes).map_err(|fault| match fault {
            Fault::Kind(found) => kind(found),
            Fault::Damaged(why) => corrupt(why.to_owned()),
        })?;
        prepare(decoder, file, preparation, failed)
    } else if bytes.is_empty() {
        Err(corrupt("it is empty".to_owned()))
    } else {
        Err(corrupt("it is neither PNG nor JPEG".to_owned()))
    }
}

/// Whether every palette of a PNG has whole colours, of three bytes: png 0.18.1 panics on others.
fn palette_is_whole(bytes: &[u8]) -> bool {
    let mut rest = &bytes[8..];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if after.starts_with(b"PLTE") && !length.is_multiple_of(3) {
            return false;
        }
        // The type, the content, and its checksum.
        match after.get(length.saturating_add(8)..) {
            Some(next) => rest = next,
            None => break,
        }
    }
    true
}

impl Preparation {
    fn check(&self) -> Result<()> {
        let channels = self.channels;
        let require = DataError::require;
        require(
            (1..=4).contains(&channels),
            "channels",
            "1, 2, 3 or 4",
            &channels,
        )?;
        if let Some((height, width)) = self.sizing.size() {
            require(
                height > 0 && width > 0 && height.saturating_mul(width) as u64 <= MAX_PIXELS,
                "height and width",
                &format!("at least 1, and their product at most {MAX_PIXELS}"),
                &format_args!("{height} and {width}"),
            )?;
        }
        Ok(())
    }
}

impl Sizing {
    /// The height and the width, unless they are the file's.
    pub fn size(self) -> Option<(usize, usize)> {
        match self {
            Self::Any => None,
            Self::Exactly { height, width }
            | Self::Stretch { height, width }
            | Self::Crop { height, width } => Some((height, width)),
        }
    }
}

fn within_limits(width: u32, height: u32) -> std::result::Result<(), String> {
    match u64::from(width) * u64::from(height) <= MAX_PIXELS {
        true => Ok(()),
        false => Err(format!(
            "an image of {width} × {height} pixels, more than {MAX_PIXELS}"
        )),
    }
}

/// Decodes the pixels and makes them what `preparation` says.
fn prepare(
    mut decoder: impl ImageDecoder,
    file: &Path,
    preparation: &Preparation,
    failed: impl Fn(ImageError) -> DataError,
) -> Result<Picture> {
    use image::metadata::Orientation::{
        NoTransforms, Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH,
    };
    let (width, height) = decoder.dimensions();
    within_limits(width, height).map_err(|found| DataError::PictureKind {
        file: file.to_path_buf(),
        found,
    })?;
    // Damaged EXIF data is no reason to refuse the pixels.
    let orientation = decoder.orientation().unwrap_or(NoTransforms);
    let turned = matches!(
        orientation,
        Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH
    );
    let (rows, columns) = match turned {
        true => (width as usize, height as usize),
        false => (height as usize, width as usize),
    };
    if let Sizing::Exactly { height, width } = preparation.sizing
        && (rows, columns) != (height, width)
    {
        return Err(DataError::PictureSize {
            file: file.to_path_buf(),
            found: (rows, columns),
            expected: (height, width),
        });
    }
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    let planes = planes(&image, preparation.channels);
    let (pixels, rows, columns) = match preparation.sizing {
        Sizing::Any | Sizing::Exactly { .. } => (planes.concat(), rows, columns),
        Sizing::Stretch { height, width } => {
            let window = (0, 0, rows, columns);
            (
                scaled(planes, columns, window, height, width),
                height,
                width,
            )
        }
        Sizing::Crop { height, width } => {
            let window = middle(rows, columns, height, width);
            (
                scaled(planes, columns, window, height, width),
                height,
                width,
            )
        }
    };
    Ok(Picture {
        shape: ImageShape::new(preparation.channels, rows, columns),
        pixels,
    })
}

/// The channels of an image, each `[row, column]`.
fn planes(image: &DynamicImage, channels: usize) -> Vec<Vec<u8>> {
    let bytes = image.as_bytes();
    // Other types of pixels were refused.
    let stored = match image.color() {
        ColorType::L8 => 1,
        ColorType::La8 => 2,
        ColorType::Rgb8 => 3,
        _ => 4,
    };
    let plane = |of: &dyn Fn(&[u8]) -> u8| bytes.chunks_exact(stored).map(of).collect::<Vec<u8>>();
    let colours = [1, 3][usize::from(channels > 2)];
    let mut planes: Vec<Vec<u8>> = match (stored > 2, colours) {
        (true, 1) => vec![plane(&|pixel| luma(pixel[0], pixel[1], pixel[2]))],
        (true, _) => (0..3).map(|c| plane(&|pixel| pixel[c])).collect(),
        (false, colours) => vec![plane(&|pixel| pixel[0]); colours],
    };
    if channels > colours {
        planes.push(match stored {
            1 | 3 => vec![u8::MAX; bytes.len() / stored],
            _ => plane(&|pixel| pixel[stored - 1]),
        });
    }
    planes
}

fn luma(red: u8, green: u8, blue: u8) -> u8 {
    let [red, green, blue] = [red, green, blue].map(u32::from);
    ((19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16) as u8
}

/// The largest window of the proportions `height` to `width` in the middle of an image: its first row,
/// first column, rows and columns.
fn middle(
    rows: usize,
    columns: usize,
    height: usize,
    width: usize,
) -> (usize, usize, usize, usize) {
    // The product of two sides of images fits.
    let rounded = |side: usize, by: usize, over: usize| ((side * by + over / 2) / over).max(1);
    let (h, w) = match columns * height > rows * width {
        true => (rows, rounded(rows, width, height).min(columns)),
        false => (rounded(columns, height, width).min(rows), columns),
    };
    ((rows - h) / 2, (columns - w) / 2, h, w)
}

/// The window of each plane, scaled.
fn scaled(
    planes: Vec<Vec<u8>>,
    columns: usize,
    (top, left, rows, width_of_window): (usize, usize, usize, usize),
    height: usize,
    width: usize,
) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(planes.len() * height * width);
    for plane in planes {
        let lines = plane.chunks_exact(columns).skip(top).take(rows);
        let window: Vec<u8> = lines
            .flat_map(|line| &line[left..left + width_of_window])
            .copied()
            .collect();
        if (rows, width_of_window) == (height, width) {
            pixels.extend(window);
            continue;
        }
        let window = GrayImage::from_raw(width_of_window as u32, rows as u32, window)
            .expect("a byte for each pixel");
        let image = imageops::resize(&window, width as u32, height as u32, FilterType::Triangle);
        pixels.extend(image.into_raw());
    }
    pixels
}
