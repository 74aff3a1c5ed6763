//! JPEG files (ITU T.81), decoded as libjpeg decodes them, to the bit.
//!
//! The standard leaves roundings to the decoder: the inverse cosine transform and the interpolation of colours. A network
//! that was trained on libjpeg's pixels shall see the same ones here. No decoder in safe Rust has them (docs/LOG.md).
//!
//! | file | content |
//! | - | - |
//! | `mod.rs` | markers, and what lies between them |
//! | `tables.rs` | quantisation and Huffman tables |
//! | `scan.rs` | the coefficients of a scan, sequential or progressive |
//! | `pixels.rs` | coefficients to pixels |
//!
//! Read are frames of 8 bits with Huffman codes and one or three components. A progressive file without its last scans is
//! read as it is; libjpeg would smooth it.

mod pixels;
mod scan;
mod tables;

use std::fmt;

use image::error::{DecodingError, ImageFormatHint};
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult};

use scan::{Bits, Progress, Scan};
use tables::{Quantisation, Tables};

/// More scans make a file of a few bytes take long. Encoders write about ten.
const MOST_SCANS: usize = 256;

/// Why a file is not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not what the standard says.
    Damaged(&'static str),
    /// It is of a kind that is not read.
    Kind(String),
}

type Result<T> = std::result::Result<T, Fault>;

fn damaged<T>(why: &'static str) -> Result<T> {
    Err(Fault::Damaged(why))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => f.write_str(why),
            Self::Kind(found) => f.write_str(found),
        }
    }
}

impl std::error::Error for Fault {}

/// A file, read to the header of its frame.
pub(crate) struct Jpeg<'a> {
    file: Segments<'a>,
    frame: Frame,
    tables: Tables,
    exif: Option<&'a [u8]>,
    colours: Colours,
}

/// What the application's segments say of the colours.
#[derive(Clone, Copy, Default)]
struct Colours {
    jfif: bool,
    /// Adobe's transform: 0 is none.
    adobe: Option<u8>,
}

/// The header of a frame.
struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    /// The largest sampling factors, across and down.
    most: (usize, usize),
    /// The units of a scan of several components, across and down.
    units: (usize, usize),
    components: Vec<Component>,
}

/// A component of a frame.
struct Component {
    id: u8,
    /// Sampling factors, across and down.
    sampling: (usize, usize),
    /// The place of its quantisation table, and the table as it was at its first scan.
    place: usize,
    table: Option<Quantisation>,
    /// Samples, across and down.
    size: (usize, usize),
    /// Blocks that have a sample of the image, across and down.
    blocks: (usize, usize),
    /// Blocks of whole units, across and down.
    padded: (usize, usize),
    /// The coefficients of a progressive frame.
    coefficients: Vec<[i16; 64]>,
    /// Rows of 8 samples for each padded block.
    samples: Vec<u8>,
}

impl Component {
    /// Turns coefficients into samples.
    fn put(&mut self, at: usize, block: &[i16; 64]) -> Result<()> {
        let Some(table) = &self.table else {
            return damaged("it lacks a quantisation table");
        };
        let stride = 8 * self.padded.0;
        let (row, column) = (at / self.padded.0, at % self.padded.0);
        let place = &mut self.samples[8 * row * stride + 8 * column..];
        pixels::inverse(block, table, place, stride);
        Ok(())
    }
}

impl Frame {
    /// Reads a frame's header, which begins with the `marker`.
    fn read(marker: u8, segment: &[u8]) -> Result<Self> {
        let [bits, h1, h0, w1, w0, n, rest @ ..] = segment else {
            return damaged("the header of its frame is too short");
        };
        let (height, width) = (
            u16::from_be_bytes([*h1, *h0]),
            u16::from_be_bytes([*w1, *w0]),
        );
        match (*bits, *n) {
            (8, 1 | 3) => {}
            (8, 4) => return Err(Fault::Kind("a JPEG in CMYK".to_owned())),
            (bits, n) => {
                return Err(Fault::Kind(format!(
                    "a JPEG of {bits} bits and {n} channels"
                )));
            }
        }
        if !(0xc0..=0xc2).contains(&marker) {
            let found = "a JPEG that is lossless, hierarchical or of arithmetic codes";
            return Err(Fault::Kind(found.to_owned()));
        }
        let (height, width) = (usize::from(height), usize::from(width));
        if height == 0 || width == 0 {
            return damaged("it has no pixels");
        }
        if rest.len() != 3 * usize::from(*n) {
            return damaged("the header of its frame has another length than it says");
        }
        let described = rest.chunks_exact(3);
        let sampling = |of: &[u8]| (usize::from(of[1] >> 4), usize::from(of[1] & 15));
        let within = |factor: usize| (1..=4).contains(&factor);
        let all: Vec<(usize, usize)> = described.clone().map(sampling).collect();
        if !all.iter().all(|(h, v)| within(*h) && within(*v))
            || rest.iter().skip(2).step_by(3).any(|t| *t > 3)
        {
            return damaged("its components are not what the standard allows");
        }
        let most = all
            .iter()
            .fold((1, 1), |most, of| (most.0.max(of.0), most.1.max(of.1)));
        if !all
            .iter()
            .all(|of| most.0 % of.0 == 0 && most.1 % of.1 == 0)
        {
            return Err(Fault::Kind(
                "a JPEG whose colours have a fraction of the pixels".to_owned(),
            ));
        }
        let units = (width.div_ceil(8 * most.0), height.div_ceil(8 * most.1));
        let components = described.zip(all).map(|(of, (h, v))| {
            let size = ((width * h).div_ceil(most.0), (height * v).div_ceil(most.1));
            Component {
                id: of[0],
                sampling: (h, v),
                place: usize::from(of[2]),
                table: None,
                size,
                blocks: (size.0.div_ceil(8), size.1.div_ceil(8)),
                padded: (units.0 * h, units.1 * v),
                coefficients: Vec::new(),
                samples: Vec::new(),
            }
        });
        Ok(Self {
            progressive: marker == 0xc2,
            width,
            height,
            most,
            units,
            components: components.collect(),
        })
    }
}

/// A file from one marker to the next.
struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    /// The next marker. Any bytes may stand before it.
    fn marker(&mut self) -> Result<u8> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let is_marker = |two: &[u8]| two[0] == 0xff && !matches!(two[1], 0x00 | 0xff);
        let Some(at) = rest.windows(2).position(is_marker) else {
            return damaged("it ends early");
        };
        self.at += at + 2;
        Ok(rest[at + 1])
    }

    /// The segment after a marker.
    fn segment(&mut self) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((length, _)) = rest.split_first_chunk::<2>() else {
            return damaged("it ends early");
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length < 2 {
            return damaged("it has a segment without a length");
        }
        self.at += length;
        match rest.get(2..length) {
            Some(segment) => Ok(segment),
            None => damaged("it ends early"),
        }
    }
}

impl<'a> Jpeg<'a> {
    /// Reads the headers of `bytes`, which begin with the marker of an image's start.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self> {
        let mut file = Segments { bytes, at: 2 };
        let mut tables = Tables::default();
        let (mut exif, mut colours) = (None, Colours::default());
        loop {
            match file.marker()? {
                // Start of frame, of which 0xc4, 0xc8 and 0xcc are none.
                marker @ (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf) => {
                    let frame = Frame::read(marker, file.segment()?)?;
                    return Ok(Self {
                        file,
                        frame,
                        tables,
                        exif,
                        colours,
                    });
                }
                0xd9 | 0xda => return damaged("it has no frame"),
                marker => {
                    if let Some(data) = between(marker, &mut file, &mut tables, &mut colours)? {
                        exif.get_or_insert(data);
                    }
                }
            }
        }
    }

    /// The pixels, a row after the other, with the channels of a pixel side by side.
    fn decode(mut self) -> Result<Vec<u8>> {
        let frame = &mut self.frame;
        for of in &mut frame.components {
            let blocks = of.padded.0 * of.padded.1;
            of.samples = vec![0; 64 * blocks];
            if frame.progressive {
                of.coefficients = vec![[0; 64]; blocks];
            }
        }
        let mut progress = vec![Progress::default(); frame.components.len()];
        let mut scans = 0;
        loop {
            match self.file.marker()? {
                0xd9 => break,
                0xda => {
                    scans += 1;
                    if scans > MOST_SCANS {
                        return damaged("it has too many scans");
                    }
                    let scan = Scan::read(self.file.segment()?, frame, &mut progress)?;
                    for (component, _) in &scan.components {
                        let of = &mut frame.components[*component];
                        if of.table.is_none() {
                            of.table = self.tables.quantisation[of.place];
                        }
                    }
                    let mut bits = Bits::new(self.file.bytes, self.file.at);
                    scan.decode(&mut bits, frame, &self.tables)?;
                    self.file.at = bits.at();
                }
                0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    return damaged("it has two frames");
                }
                marker => {
                    between(marker, &mut self.file, &mut self.tables, &mut self.colours)?;
                }
            }
        }
        if !progress.iter().all(Progress::has_begun) {
            return damaged("it lacks the data of a component");
        }
        for of in &mut frame.components {
            for (at, block) in std::mem::take(&mut of.coefficients).iter().enumerate() {
                of.put(at, block)?;
            }
        }
        Ok(pixels::pixels(frame, self.colours.are_rgb(frame)))
    }
}

/// Reads a segment that is neither frame nor scan. Returns EXIF data.
fn between<'a>(
    marker: u8,
    file: &mut Segments<'a>,
    tables: &mut Tables,
    colours: &mut Colours,
) -> Result<Option<&'a [u8]>> {
    match marker {
        // Markers without a segment.
        0x01 | 0xd0..=0xd8 => {}
        0xc4 => tables.read_huffman(file.segment()?)?,
        0xdb => tables.read_quantisation(file.segment()?)?,
        0xdd => match file.segment()? {
            [high, low] => tables.restart = u16::from_be_bytes([*high, *low]).into(),
            _ => return damaged("its restart interval is damaged"),
        },
        0xdc => {
            return Err(Fault::Kind(
                "a JPEG that tells its height at its end".to_owned(),
            ));
        }
        0xe0 => colours.jfif |= file.segment()?.starts_with(b"JFIF\0"),
        0xe1 => return Ok(file.segment()?.strip_prefix(b"Exif\0\0")),
        0xee => {
            if let Some(of) = file.segment()?.strip_prefix(b"Adobe") {
                colours.adobe = of.get(6).copied().or(colours.adobe);
            }
        }
        _ => {
            file.segment()?;
        }
    }
    Ok(None)
}

impl Colours {
    /// Whether the three components are red, green and blue, by the rules of libjpeg.
    fn are_rgb(self, frame: &Frame) -> bool {
        let ids = || frame.components.iter().map(|of| of.id).eq(*b"RGB");
        match (self.jfif, self.adobe) {
            (true, _) => false,
            (_, Some(transform)) => transform == 0,
            _ => ids(),
        }
    }
}

impl ImageDecoder for Jpeg<'_> {
    fn dimensions(&self) -> (u32, u32) {
        // Both are of 16 bits.
        (self.frame.width as u32, self.frame.height as u32)
    }

    fn color_type(&self) -> ColorType {
        match self.frame.components.len() {
            1 => ColorType::L8,
            // Three: a frame of another number is refused.
            _ => ColorType::Rgb8,
        }
    }

    fn exif_metadata(&mut self) -> ImageResult<Option<Vec<u8>>> {
        Ok(self.exif.map(<[u8]>::to_vec))
    }

    fn read_image(self, buf: &mut [u8]) -> ImageResult<()> {
        let pixels = self.decode().map_err(|fault| {
            let format = ImageFormatHint::Exact(ImageFormat::Jpeg);
            ImageError::Decoding(DecodingError::new(format, fault))
        })?;
        buf.copy_from_slice(&pixels);
        Ok(())
    }

    fn read_image_boxed(self: Box<Self>, buf: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(buf)
    }
}
