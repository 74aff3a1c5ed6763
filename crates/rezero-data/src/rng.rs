//! Numbers from a seed: SplitMix64 (Steele, Lea and Flood, 2014).
//!
//! The generator is a few lines here, so that no upgrade of a dependency changes the data of a
//! seed. Two functions are for other crates: [`mix`] makes a seed out of a seed and a number, and
//! [`order`] is the shuffled order of a set in an epoch.

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A well-mixed function of both arguments. It gives the seed of step, record or device `n` in a
/// run with the seed `seed`.
///
/// `mix(0, n)` is output `n` (from 0) of the SplitMix64 generator that starts at 0. For one `seed`,
/// no two `n` give the same number; for one `n`, no two seeds do.
///
/// ```
/// use rezero_data::rng::mix;
///
/// assert_eq!(mix(0, 0), 0xe220_a839_7b1d_cdaf);
/// assert_ne!(mix(0, 1), mix(1, 0));
/// ```
pub fn mix(seed: u64, n: u64) -> u64 {
    finish(seed ^ n.wrapping_add(1).wrapping_mul(GAMMA))
}

/// The records `0..len` in the random order of `epoch`: the order in which a shuffling
/// [`ImageLoader`](crate::ImageLoader) with this seed yields them, on every platform.
///
/// # Panics
///
/// If `len` exceeds 2³² − 1.
///
/// ```
/// assert_eq!(rezero_data::rng::order(5, 0, 8), [2, 5, 6, 4, 0, 3, 1, 7]);
/// ```
pub fn order(seed: u64, epoch: u64, len: usize) -> Vec<u32> {
    let len = u32::try_from(len).expect("at most 2³² − 1 records have an order");
    let mut order: Vec<u32> = (0..len).collect();
    let mut rng = Rng::stream(Purpose::Order, &[seed, epoch]);
    // Fisher and Yates, from the end.
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i + 1));
    }
    order
}

/// The purpose of a stream, so that equal seeds give unrelated streams for different purposes.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Order = 1,
    Augment = 2,
    Shapes = 3,
    Windows = 4,
    Wiki = 5,
    Mixup = 6,
}

/// A generator whose streams are named by a list of numbers.
pub(crate) struct Rng(u64);

impl Rng {
    /// The stream of `(purpose, keys)`: a function of these values alone.
    pub(crate) fn stream(purpose: Purpose, keys: &[u64]) -> Self {
        let mut state = finish(purpose as u64 ^ GAMMA);
        for &key in keys {
            state = finish(
                state
                    .wrapping_mul(3)
                    .wrapping_add(finish(key.wrapping_add(GAMMA))),
            );
        }
        Self(state)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        finish(self.0)
    }

    /// Skips `n` values.
    pub(crate) fn skip(&mut self, n: u64) {
        self.0 = self.0.wrapping_add(GAMMA.wrapping_mul(n));
    }

    /// Uniform in `0..n`; the bias of the multiply-shift is below n / 2⁶⁴.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform in `[0, 1)`, 24 bits: exact in f32 on every platform.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.next_u64() >> 63 == 1
    }
}

/// The generator's output function, a bijection.
fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The outputs for the seed 1234567 that implementations are commonly checked against.
        let mut rng = Rng(1_234_567);
        let outputs: [u64; 5] = std::array::from_fn(|_| rng.next_u64());
        assert_eq!(outputs, PUBLISHED);
        let mut rng = Rng(1_234_567);
        rng.skip(3);
        assert_eq!(rng.next_u64(), PUBLISHED[3]);
        let mut zero = Rng(0);
        for n in 0..100 {
            assert_eq!(mix(0, n), zero.next_u64(), "{n}");
        }
    }
    const PUBLISHED: [u64; 5] = [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
        4_593_380_528_125_082_431,
        16_408_922_859_458_223_821,
    ];
}
