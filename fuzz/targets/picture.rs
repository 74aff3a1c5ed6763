//! A PNG or JPEG file. Images of one size alone are decoded, so that an input takes microseconds: a file of a few bytes
//! may say that it has millions of pixels.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rezero_data::ImageShape;
use rezero_data::picture::{self, Preparation, Sizing};

#[global_allocator]
static ALLOCATOR: rezero_fuzz::Counting = rezero_fuzz::Counting;

fuzz_target!(|bytes: &[u8]| {
    rezero_fuzz::within(64, bytes, || {
        let read = |channels, sizing| {
            let preparation = Preparation { channels, sizing };
            picture::decode(bytes, Path::new("file"), &preparation).map_err(|e| e.to_string())
        };
        let (height, width) = (14, 21);
        for channels in 1..=4 {
            if let Ok(image) = read(channels, Sizing::Exactly { height, width }) {
                assert_eq!(image.shape, ImageShape::new(channels, height, width));
                let cut = read(
                    channels,
                    Sizing::Crop {
                        height: 9,
                        width: 30,
                    },
                );
                assert_eq!(cut.map(|image| image.pixels.len()), Ok(channels * 9 * 30));
            }
        }
    });
});
