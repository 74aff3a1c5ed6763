//! Batches of images that are cut from bytes in a device's memory.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Images of one shape as bytes in the memory of a device, and the value of each byte. [`cut`](Self::cut) makes batches of them.
///
/// Four bytes lie in a 32-bit word, since some devices compute with no smaller integers.
#[derive(Clone, Debug)]
pub struct ByteImages {
    /// `[bytes / 4, rounded up]`, u32
    words: Tensor<1, Int>,
    /// `[channels · 256]`
    table: Tensor<1>,
    images: usize,
    /// Channels, height and width.
    shape: [usize; 3],
}

/// An image of a batch: a window of an image of [`ByteImages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    /// The number of the image.
    pub image: u32,
    /// By how many rows the window is moved over the image.
    pub down: isize,
    /// By how many columns.
    pub right: isize,
    /// Whether the window is then mirrored left to right.
    pub flip: bool,
}

impl ByteImages {
    /// The most bytes that [`new`](Self::new) takes on a device: what fits into one buffer and can be counted in u32. `None` if the device is not
    /// one of CubeCL's (feature `cube`).
    pub fn most_bytes(device: &Device) -> Option<u64> {
        #[cfg(feature = "cube")]
        {
            let tensor = Tensor::<1>::zeros([1], (&device.clone().inner(), DType::F32));
            crate::cube::images::most_bytes(tensor.into_dispatch())
        }
        #[cfg(not(feature = "cube"))]
        {
            let _ = device;
            None
        }
    }

    /// Copies images to a device, outside autodiff. `None` if they have more than [`most_bytes`](Self::most_bytes).
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[images, channels, height, width]`
    /// - `shape`: channels, height, width
    /// - `table`: `[channels, 256]`, the value of each byte
    ///
    /// # Panics
    ///
    /// If the lengths do not match the shape, or there is no image.
    pub fn new(
        pixels: &[u8],
        shape: [usize; 3],
        table: &[[f32; 256]],
        device: &Device,
    ) -> Option<Self> {
        let bytes: usize = shape.iter().product();
        assert!(
            bytes > 0 && !pixels.is_empty() && pixels.len().is_multiple_of(bytes),
            "the pixels must be those of whole images of {shape:?}, got {}.",
            pixels.len()
        );
        assert_eq!(
            table.len(),
            shape[0],
            "the table must have a row for each channel."
        );
        let most = Self::most_bytes(device)?;
        if pixels.len() as u64 > most {
            return None;
        }
        let inner = device.clone().inner();
        let (whole, rest) = pixels.as_chunks::<4>();
        let mut words: Vec<u32> = whole.iter().map(|word| u32::from_le_bytes(*word)).collect();
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            words.push(u32::from_le_bytes(last));
        }
        let words = TensorData::new(words, [pixels.len().div_ceil(4)]);
        let table = TensorData::new(table.concat(), [256 * shape[0]]);
        Some(Self {
            words: Tensor::from_data(words, (&inner, DType::U32)),
            table: Tensor::from_data(table, (&inner, DType::F32)),
            images: pixels.len() / bytes,
            shape,
        })
    }

    /// The windows' values, outside autodiff: with the row t of a channel in the table and the bytes b of an image,
    ///
    /// `y[i, c, j, k] = t[c, b[imageᵢ, c, j + downᵢ, k' + rightᵢ]]`, where k' is `width − 1 − k` if the window is mirrored, else k.
    /// Outside of the image, b is 0.
    ///
    /// The values are those of the table, to the bit.
    ///
    /// # Shapes
    ///
    /// - output: `[cuts, channels, height, width]`
    ///
    /// # Panics
    ///
    /// If there is no image of such a number, or the output has 2³² values or more.
    pub fn cut(&self, cuts: &[Cut]) -> Tensor<4> {
        let [channels, height, width] = self.shape;
        let device = self.words.device();
        let dims = [cuts.len(), channels, height, width];
        let values = dims.iter().try_fold(1usize, |all, n| all.checked_mul(*n));
        assert!(
            values.is_some_and(|values| u32::try_from(values).is_ok()),
            "a batch must have less than 2^32 values, got {dims:?}."
        );
        if cuts.is_empty() {
            return Tensor::empty(dims, (&device, DType::F32));
        }
        // A window that is moved by more than the image is black as well.
        let within = |moved: isize, side: usize| {
            let side = i32::try_from(side).unwrap_or(i32::MAX);
            i32::try_from(moved).map_or(side, |moved| moved.clamp(-side, side))
        };
        let numbers = cuts.iter().flat_map(|cut| {
            let image = cut.image;
            assert!(
                (image as usize) < self.images,
                "there is no image {image} among {}.",
                self.images
            );
            [
                image as i32,
                within(cut.down, height),
                within(cut.right, width),
                i32::from(cut.flip),
            ]
        });
        let numbers = TensorData::new(numbers.collect::<Vec<i32>>(), [4 * cuts.len()]);
        let numbers = Tensor::from_data(numbers, (&device, DType::I32));
        launched(self.words.clone(), self.table.clone(), numbers, dims)
            .expect("`new` has found that the device has the kernel")
    }
}

fn launched(
    words: Tensor<1, Int>,
    table: Tensor<1>,
    cuts: Tensor<1, Int>,
    dims: [usize; 4],
) -> Option<Tensor<4>> {
    #[cfg(feature = "cube")]
    {
        let [words, table, cuts] = [
            words.into_dispatch(),
            table.into_dispatch(),
            cuts.into_dispatch(),
        ];
        crate::cube::images::cut(words, table, cuts, dims)
    }
    #[cfg(not(feature = "cube"))]
    {
        let _ = (words, table, cuts, dims);
        None
    }
}
