//! Sums over the units of a cube, in a fixed order.

use cubecl::prelude::*;

/// The sum of `value` over the units with the same remainder of their position by `lanes`. The cube has `units` units; both are powers of two.
#[cube]
pub(super) fn lane_sum(value: f32, #[comptime] units: usize, #[comptime] lanes: usize) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(units);
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half >= lanes {
        if unit < half {
            shared[unit] += shared[unit + half];
        }
        sync_cube();
        half /= 2;
    }
    let sum = shared[unit % lanes];
    // The next sum may use the same memory.
    sync_cube();
    sum
}
