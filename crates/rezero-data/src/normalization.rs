use crate::image_set::{ImageSet, ImageShape};
use crate::{DataError, Result};

/// Per-channel normalisation of pixels in `[0, 1]`: `(byte / 255 − mean) / std`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// The mean of each channel.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel.
    pub std: Vec<f32>,
}

impl Normalization {
    /// A mean of 0 and a standard deviation of 1: leaves pixels in `[0, 1]`.
    pub fn identity(channels: usize) -> Self {
        Self {
            mean: vec![0.0; channels],
            std: vec![1.0; channels],
        }
    }

    /// A mean and a standard deviation of 0.5: maps pixels to `[−1, 1]` in any data set.
    pub fn half(channels: usize) -> Self {
        Self {
            mean: vec![0.5; channels],
            std: vec![0.5; channels],
        }
    }

    /// The mean and the standard deviation of all pixels of each channel of a set, rounded to six
    /// digits after the point. A channel without any variation has the standard deviation 1.
    ///
    /// They are sums of integers, which do not depend on the order of the records.
    ///
    /// # Errors
    ///
    /// As [`ImageSet::pixels`].
    pub fn of(set: &ImageSet) -> Result<Self> {
        let counts = set.counts()?;
        let rounded = |value: f64| ((value * 1e6).round() / 1e6) as f32;
        let moments = counts.of_channels.iter().map(|counts| {
            let n = counts.iter().sum::<u64>().max(1) as f64;
            let sum = |of: &dyn Fn(f64) -> f64| -> f64 {
                let terms = (0u8..=255).zip(counts);
                terms
                    .map(|(byte, &count)| count as f64 * of(f64::from(byte) / 255.0))
                    .sum()
            };
            let mean = sum(&|value| value) / n;
            let std = (sum(&|value| (value - mean).powi(2)) / n).sqrt();
            (
                rounded(mean),
                if rounded(std) > 0.0 {
                    rounded(std)
                } else {
                    1.0
                },
            )
        });
        let (mean, std) = moments.unzip();
        Ok(Self { mean, std })
    }

    /// Checks that images of `channels` channels can be normalised.
    ///
    /// # Errors
    ///
    /// If there is not one mean and one standard deviation for each channel, or one of them is
    /// not finite, or a standard deviation is not above 0.
    pub fn check(&self, channels: usize) -> Result<()> {
        DataError::require(
            self.mean.len() == channels && self.std.len() == channels,
            "normalization",
            &format!("one mean and one standard deviation for each of {channels} channels"),
            &format_args!("{} and {}", self.mean.len(), self.std.len()),
        )?;
        DataError::require(
            self.mean.iter().all(|m| m.is_finite())
                && self.std.iter().all(|s| s.is_finite() && *s > 0.0),
            "normalization",
            "finite, with standard deviations above 0",
            &format_args!("{self:?}"),
        )
    }

    /// The normalised value of each byte, per channel: with it, a kernel gives the loader's values to the bit, however its
    /// device divides.
    pub fn table(&self) -> Vec<[f32; 256]> {
        let channel = |(&mean, &std): (&f32, &f32)| {
            // The same operations in the same order as torchvision's ToTensor and Normalize.
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std)
        };
        self.mean.iter().zip(&self.std).map(channel).collect()
    }
}

/// How often each byte is in each channel of some images.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    /// Pixels of a channel.
    plane: usize,
    of_channels: Vec<[u64; 256]>,
}

impl Counts {
    /// Those of no image.
    pub(crate) fn new(shape: ImageShape) -> Self {
        Self {
            plane: shape.height * shape.width,
            of_channels: vec![[0; 256]; shape.channels],
        }
    }

    /// Counts the bytes of an image.
    pub(crate) fn add(&mut self, pixels: &[u8]) {
        let planes = pixels.chunks_exact(self.plane);
        for (counts, plane) in self.of_channels.iter_mut().zip(planes) {
            for &byte in plane {
                counts[usize::from(byte)] += 1;
            }
        }
    }
}
