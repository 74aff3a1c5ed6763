//! Sums over the units of a cube, in a fixed order.

use cubecl::prelude::*;

/// The sum of every unit's `value`. `UNITS` must be a power of two.
#[cube]
pub(super) fn cube_sum(value: f32, #[comptime] units: usize) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(units);
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half > 0 {
        if unit < half {
            shared[unit] = shared[unit] + shared[unit + half];
        }
        sync_cube();
        half /= 2;
    }
    let sum = shared[0];
    // The next sum may use the same memory.
    sync_cube();
    sum
}
