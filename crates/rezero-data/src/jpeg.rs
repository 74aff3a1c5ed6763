//! JPEG files for the library that decodes images, by a decoder that withstands damaged ones.

use std::io::Cursor;

use image::error::{DecodingError, ImageFormatHint, UnsupportedError, UnsupportedErrorKind};
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult};
use jpeg_decoder::{Decoder, PixelFormat};

/// The header of a JPEG, and its decoder.
///
/// `image` has another decoder, zune-jpeg 0.5.15. It panics on some damaged files, and differs from libjpeg by up to 50
/// levels where colours have half the resolution.
pub(crate) struct Jpeg<'a> {
    decoder: Decoder<Cursor<&'a [u8]>>,
    size: (u16, u16),
    color: ColorType,
}

fn failed(error: jpeg_decoder::Error) -> ImageError {
    let format = ImageFormatHint::Exact(ImageFormat::Jpeg);
    match error {
        jpeg_decoder::Error::Unsupported(feature) => {
            let kind = UnsupportedErrorKind::GenericFeature(format!("{feature:?}"));
            ImageError::Unsupported(UnsupportedError::from_format_and_kind(format, kind))
        }
        other => ImageError::Decoding(DecodingError::new(format, other)),
    }
}

fn told(message: &str) -> ImageError {
    failed(jpeg_decoder::Error::Format(message.to_owned()))
}

impl<'a> Jpeg<'a> {
    /// Reads the header of `bytes`. Decoding takes at most `most` bytes for the pixels.
    pub(crate) fn new(bytes: &'a [u8], most: usize) -> ImageResult<Self> {
        let mut decoder = Decoder::new(Cursor::new(bytes));
        decoder.set_max_decoding_buffer_size(most);
        decoder.read_info().map_err(failed)?;
        let info = decoder.info().ok_or_else(|| told("it has no header"))?;
        let color = match info.pixel_format {
            PixelFormat::L8 => ColorType::L8,
            PixelFormat::RGB24 => ColorType::Rgb8,
            PixelFormat::L16 | PixelFormat::CMYK32 => {
                return Err(told("it is neither grey nor RGB of 8 bits"));
            }
        };
        Ok(Self {
            decoder,
            size: (info.width, info.height),
            color,
        })
    }
}

impl ImageDecoder for Jpeg<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.size.0.into(), self.size.1.into())
    }

    fn color_type(&self) -> ColorType {
        self.color
    }

    fn exif_metadata(&mut self) -> ImageResult<Option<Vec<u8>>> {
        Ok(self.decoder.exif_data().map(<[u8]>::to_vec))
    }

    fn read_image(mut self, buf: &mut [u8]) -> ImageResult<()> {
        let pixels = self.decoder.decode().map_err(failed)?;
        match pixels.len() == buf.len() {
            true => {
                buf.copy_from_slice(&pixels);
                Ok(())
            }
            false => Err(told("it has another number of pixels than its header says")),
        }
    }

    fn read_image_boxed(self: Box<Self>, buf: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(buf)
    }
}
