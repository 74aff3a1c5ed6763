//! Random draws that are functions of a seed, the number of the call, and the row.

use core::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::Device;
#[cfg(feature = "cube")]
use burn::tensor::{Int, Tensor};

/// What the draws of a thread are functions of.
#[derive(Clone)]
struct Stream {
    seed: u64,
    number: u64,
    calls: u64,
    first_row: usize,
    /// The seed in the memory of devices that have drawn.
    #[cfg(feature = "cube")]
    memory: Vec<Tensor<1, Int>>,
    /// Where the seed comes from, if it may change.
    #[cfg(feature = "cube")]
    held: Option<Seed>,
}

thread_local! {
    static STREAM: RefCell<Option<Stream>> = const { RefCell::new(None) };
    static HELD: RefCell<Option<Seed>> = const { RefCell::new(None) };
}

/// What one call draws from: a seed, and the number of its first row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Draw {
    pub seed: u64,
    pub first_row: usize,
    /// The number of the stream and that of the call, within [`seeded`].
    #[cfg(feature = "cube")]
    pub place: Option<[u64; 2]>,
}

/// Runs `work`, in which [`dropout`](crate::dropout) and the dropout of attention on Flex and CubeCL's backends draw as functions of (`seed`, the number of
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
            STREAM.set(self.0.take());
        }
    }

    let held = HELD.with_borrow(Clone::clone);
    let _back = Back(STREAM.replace(Some(Stream {
        seed: held.as_ref().map_or(seed, Seed::value),
        number: 0,
        calls: 0,
        first_row,
        #[cfg(feature = "cube")]
        memory: Vec::new(),
        #[cfg(feature = "cube")]
        held,
    })));
    work()
}

/// Within [`seeded`], lets the calls that follow draw from stream `number` of the seed, from its beginning. A layer that is run again
/// from the same stream drops the same values. Elsewhere it does nothing.
pub fn draw_from(number: u64) {
    STREAM.with_borrow_mut(|stream| {
        if let Some(stream) = stream {
            (stream.number, stream.calls) = (number, 0);
        }
    });
}

/// A seed that lies in a device's memory, too, so that a [captured](crate::capture) step, which repeats its launches, can draw others in
/// each replay.
///
/// ```
/// # use burn::tensor::{Device, Tensor};
/// use rezero_kernels::{Seed, dropout, seeded};
///
/// let device = Device::flex();
/// let x = Tensor::<2>::ones([4, 8], &device);
/// let seed = Seed::new(1, &device);
/// let step = || seed.within(|| seeded(0, 0, || dropout(x.clone(), 0.5).into_data()));
/// let first = step();
/// seed.set(2);
/// assert_ne!(step(), first);
/// assert_eq!(step(), seeded(2, 0, || dropout(x.clone(), 0.5).into_data()));
/// ```
#[derive(Clone, Debug)]
pub struct Seed {
    value: Arc<AtomicU64>,
    #[cfg(feature = "cube")]
    memory: Option<Memory>,
}

#[cfg(feature = "cube")]
#[derive(Clone, Debug)]
struct Memory {
    bits: Tensor<1, Int>,
    /// Whether a call has drawn from it. Otherwise it need not be written.
    used: Arc<core::sync::atomic::AtomicBool>,
}

impl Seed {
    /// The seed `value`, in the memory of `device` if that is one of CubeCL's.
    pub fn new(value: u64, device: &Device) -> Self {
        #[cfg(feature = "cube")]
        let memory = crate::cube::serves(device).then(|| Memory {
            bits: crate::cube::dropout::bits(value, device),
            used: Arc::default(),
        });
        let _ = device;
        Self {
            value: Arc::new(AtomicU64::new(value)),
            #[cfg(feature = "cube")]
            memory,
        }
    }

    /// Changes the seed, also for the next replay of a step that was captured [within](Self::within) it.
    pub fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
        #[cfg(feature = "cube")]
        if let Some(Memory { bits, used }) = &self.memory
            && used.load(Ordering::Relaxed)
        {
            let new = crate::cube::dropout::bits(value, &bits.device());
            crate::overwrite_int(bits, &new);
        }
    }

    /// Runs `work`, in which [`seeded`] takes this seed and not its argument.
    pub fn within<R>(&self, work: impl FnOnce() -> R) -> R {
        /// Puts back what was before, also after a panic.
        struct Back(Option<Seed>);

        impl Drop for Back {
            fn drop(&mut self) {
                HELD.set(self.0.take());
            }
        }

        let _back = Back(HELD.replace(Some(self.clone())));
        work()
    }

    fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// The draw of the next call. Outside of [`seeded`], it is for Flex only.
pub(crate) fn next(device: &Device) -> Draw {
    let draw = STREAM.with_borrow_mut(|stream| {
        let stream = stream.as_mut()?;
        let draw = Draw {
            seed: mix(mix(stream.seed, stream.number), stream.calls),
            first_row: stream.first_row,
            #[cfg(feature = "cube")]
            place: Some([stream.number, stream.calls]),
        };
        stream.calls += 1;
        Some(draw)
    });
    if let Some(draw) = draw {
        return draw;
    }
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        use burn::tensor::{DType, Distribution, Int, Tensor};

        let range = Distribution::Uniform(0.0, (1u64 << 62) as f64);
        let drawn = Tensor::<1, Int>::random([1], range, (device, DType::I64));
        return Draw {
            seed: drawn.into_scalar::<i64>() as u64,
            ..Draw::default()
        };
    }
    let _ = device;
    Draw::default()
}

/// The seed of this thread's stream in the memory of a CubeCL device, without autodiff. Outside of [`seeded`], one that is drawn there.
#[cfg(feature = "cube")]
pub(crate) fn in_memory(draw: Draw, device: &Device) -> Tensor<1, Int> {
    let own = STREAM.with_borrow_mut(|stream| {
        let stream = stream.as_mut().filter(|_| draw.place.is_some())?;
        let held = stream.held.as_ref().and_then(|seed| seed.memory.as_ref());
        if let Some(Memory { bits, used }) = held.filter(|held| held.bits.device() == *device) {
            used.store(true, Ordering::Relaxed);
            return Some(bits.clone());
        }
        let known = stream.memory.iter().find(|bits| bits.device() == *device);
        if let Some(bits) = known {
            return Some(bits.clone());
        }
        let bits = crate::cube::dropout::bits(stream.seed, device);
        stream.memory.push(bits.clone());
        Some(bits)
    });
    own.unwrap_or_else(|| crate::cube::dropout::drawn(device))
}

/// What [`mix`] adds for each number.
pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Number `n` of a seed, by SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) fn mix(seed: u64, n: u64) -> u64 {
    let count = n.wrapping_add(1);
    let mut z = seed.wrapping_add(count.wrapping_mul(GOLDEN));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
