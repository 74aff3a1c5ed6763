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

    /// The normalised value of each byte, per channel.
    pub(crate) fn table(&self) -> Vec<[f32; 256]> {
        let channel = |(&mean, &std): (&f32, &f32)| {
            // The same operations in the same order as torchvision's ToTensor and Normalize.
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std)
        };
        self.mean.iter().zip(&self.std).map(channel).collect()
    }
}
