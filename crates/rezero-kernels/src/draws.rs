//! Random draws that are functions of a seed, the number of the call, and the row.

use core::cell::Cell;

use burn::tensor::Device;

/// What the draws of a thread are functions of.
#[derive(Clone, Copy)]
struct Stream {
    seed: u64,
    number: u64,
    calls: u64,
    first_row: usize,
}

thread_local! {
    static STREAM: Cell<Option<Stream>> = const { Cell::new(None) };
}

/// What one call draws from: a seed, and the number of its first row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Draw {
    pub seed: u64,
    pub first_row: usize,
}

/// Runs `work`, in which [`dropout`](crate::dropout) and the dropout of attention on Flex draw as functions of (`seed`, the number of
/// the call, the row in the batch): row i of a tensor is row `first_row + i` of the whole batch. A batch that is computed in parts,
/// whatever the thread, the device or the process, thus drops what it drops in one part.
///
/// Without it, each call draws a seed from the device's random numbers.
///
/// ```
/// # use burn::tensor::{Device, Tensor};
/// use rezero_kernels::{dropout, seeded};
///
/// let x = Tensor::<2>::ones([4, 8], &Device::flex());
/// let whole = seeded(1, 0, || dropout(x.clone(), 0.5));
/// let last = seeded(1, 3, || dropout(x.slice_dim(0, 3..4), 0.5));
/// assert_eq!(whole.slice_dim(0, 3..4).into_data(), last.into_data());
/// ```
pub fn seeded<R>(seed: u64, first_row: usize, work: impl FnOnce() -> R) -> R {
    /// Puts back what was before, also after a panic.
    struct Back(Option<Stream>);

    impl Drop for Back {
        fn drop(&mut self) {
            STREAM.set(self.0);
        }
    }

    let _back = Back(STREAM.replace(Some(Stream {
        seed,
        number: 0,
        calls: 0,
        first_row,
    })));
    work()
}

/// Within [`seeded`], lets the calls that follow draw from stream `number` of the seed, from its beginning. A layer that is run again
/// from the same stream drops the same values. Elsewhere it does nothing.
pub fn draw_from(number: u64) {
    let stream = STREAM.get().map(|stream| Stream {
        number,
        calls: 0,
        ..stream
    });
    STREAM.set(stream);
}

/// The draw of the next call. Outside of [`seeded`] and on a backend whose random numbers stay on its device, it is always the same
/// one and must not be used.
pub(crate) fn next(device: &Device) -> Draw {
    if let Some(stream) = STREAM.get() {
        let calls = stream.calls + 1;
        STREAM.set(Some(Stream { calls, ..stream }));
        return Draw {
            seed: mix(mix(stream.seed, stream.number), stream.calls),
            first_row: stream.first_row,
        };
    }
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        use burn::tensor::{DType, Distribution, Int, Tensor};

        let range = Distribution::Uniform(0.0, (1u64 << 62) as f64);
        let drawn = Tensor::<1, Int>::random([1], range, (device, DType::I64));
        return Draw {
            seed: drawn.into_scalar::<i64>() as u64,
            first_row: 0,
        };
    }
    let _ = device;
    Draw::default()
}

/// Number `n` of a seed, by SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) fn mix(seed: u64, n: u64) -> u64 {
    let count = n.wrapping_add(1);
    let mut z = seed.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
