//! SplitMix64 (Steele, Lea, Flood 2014) with streams named by a list of numbers: a few lines that
//! no upgrade of a dependency can change, so that a seed means the same data for ever.

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a stream is for, so that equal seeds in different places share nothing.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Order = 1,
    Augment = 2,
    Shapes = 3,
    Windows = 4,
    Wiki = 5,
}

pub(crate) struct Rng(u64);

impl Rng {
    /// The stream of `(purpose, keys)`: a function of these values alone.
    pub(crate) fn stream(purpose: Purpose, keys: &[u64]) -> Self {
        let mut state = mix(purpose as u64 ^ GAMMA);
        for &key in keys {
            state = mix(state
                .wrapping_mul(3)
                .wrapping_add(mix(key.wrapping_add(GAMMA))));
        }
        Self(state)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// Passes over `n` values.
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

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
