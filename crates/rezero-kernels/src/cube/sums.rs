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

/// The sum of `value` over each `group` neighbouring units. The cube has `units` units; both are powers of two.
#[cube]
pub(super) fn group_sum(value: f32, #[comptime] units: usize, #[comptime] group: usize) -> f32 {
    over_group(value, units, group, false)
}

/// The largest `value` of each `group` neighbouring units.
#[cube]
pub(super) fn group_max(value: f32, #[comptime] units: usize, #[comptime] group: usize) -> f32 {
    over_group(value, units, group, true)
}

#[cube]
fn over_group(
    value: f32,
    #[comptime] units: usize,
    #[comptime] group: usize,
    #[comptime] largest: bool,
) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(units);
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(group.ilog2() as usize) {
        let half = comptime!(group >> (level + 1));
        if unit % group < half {
            let own = shared[unit];
            let other = shared[unit + half];
            shared[unit] = joined(own, other, largest);
        }
        sync_cube();
    }
    let result = shared[unit / group * group];
    // The next sum may use the same memory.
    sync_cube();
    result
}

#[cube]
fn joined(a: f32, b: f32, #[comptime] largest: bool) -> f32 {
    if comptime!(largest) { max(a, b) } else { a + b }
}
