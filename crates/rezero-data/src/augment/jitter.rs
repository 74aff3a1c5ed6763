use super::canvas::Canvas;
use super::{Augmentation, Step, colour};
use crate::image_set::ImageShape;
use crate::rng::Rng;
use crate::{DataError, Result};

/// Random brightness, contrast and saturation, as torchvision's
/// `ColorJitter(brightness, contrast, saturation)`.
///
/// Each has a factor that is uniformly random from 1 − v to 1 + v, where v is its setting. The three
/// changes follow one another in a uniformly random order. A change with the factor f makes
/// `a + f (byte − a)` of a byte, rounded down and cut to 0 … 255. Here `a` is 0 for brightness, the
/// mean grey of the image for contrast, and the grey of the pixel for saturation. They are those of
/// Pillow's `ImageEnhance` to the bit, which torchvision calls. On images of one channel saturation
/// does nothing.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jitter {
    /// The largest change of the brightness, from 0 to 1.
    pub brightness: f64,
    /// The largest change of the contrast, from 0 to 1.
    pub contrast: f64,
    /// The largest change of the saturation, from 0 to 1.
    pub saturation: f64,
}

/// 0.25 each, the choice of ReZero's authors for CIFAR-10.
impl Default for Jitter {
    fn default() -> Self {
        Self {
            brightness: 0.25,
            contrast: 0.25,
            saturation: 0.25,
        }
    }
}

impl From<Jitter> for Augmentation {
    fn from(jitter: Jitter) -> Self {
        Self::Jitter(jitter)
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Brightness,
    Contrast,
    Saturation,
}
use Change::{Brightness, Contrast, Saturation};

const ORDERS: [[Change; 3]; 6] = [
    [Brightness, Contrast, Saturation],
    [Brightness, Saturation, Contrast],
    [Contrast, Brightness, Saturation],
    [Contrast, Saturation, Brightness],
    [Saturation, Brightness, Contrast],
    [Saturation, Contrast, Brightness],
];

/// `factors` are those of brightness, contrast and saturation.
fn change(pixels: &mut [u8], shape: ImageShape, order: [Change; 3], factors: [f32; 3]) {
    for change in order {
        match change {
            Brightness => colour::brightness(pixels, factors[0]),
            Contrast => colour::contrast(pixels, shape, factors[1]),
            Saturation => colour::color(pixels, shape, factors[2]),
        }
    }
}

impl Step for Jitter {
    fn check(&self) -> Result<()> {
        for (name, value) in [
            ("jitter brightness", self.brightness),
            ("jitter contrast", self.contrast),
            ("jitter saturation", self.saturation),
        ] {
            let range = (0.0..=1.0).contains(&value);
            DataError::require(range, name, "from 0 to 1", &value)?;
        }
        DataError::require(
            self.brightness + self.contrast + self.saturation > 0.0,
            "a setting of jitter",
            "above 0, or the step has no effect",
            &"0 for brightness, contrast and saturation",
        )
    }

    fn fits(&self, shape: ImageShape) -> Result<()> {
        colour::fits("images for jitter", shape)
    }

    fn apply(&self, rng: &mut Rng, canvas: &mut Canvas<'_>) {
        let shape = canvas.shape();
        let order = ORDERS[rng.below(ORDERS.len())];
        let factors = [self.brightness, self.contrast, self.saturation]
            .map(|most| rng.range((1.0 - most) as f32, (1.0 + most) as f32));
        change(canvas.pixels().0, shape, order, factors);
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::Golden;
    use super::*;

    /// To the bit, see `tests/augmentations/generate.py`.
    #[test]
    fn the_changes_are_those_of_pillow() {
        let mut golden = Golden::open(include_bytes!("../../tests/augmentations/jitter.bin.gz"));
        for channels in [3, 1] {
            let shape = ImageShape::new(channels, 23, 26);
            let image = golden.bytes(shape.bytes());
            let mut results = std::collections::HashSet::new();
            for case in 0..48 {
                let order = ORDERS[case % ORDERS.len()];
                let factors = std::array::from_fn(|_| golden.float());
                let mut found = image.clone();
                change(&mut found, shape, order, factors);
                let expected = golden.bytes(shape.bytes());
                let wrong = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
                assert_eq!(wrong, 0, "bytes differ: {shape} {order:?} {factors:?}");
                results.insert(found);
            }
            // The cases differ from one another.
            assert!(results.len() > 40, "{}", results.len());
        }
        golden.end();
    }
}
