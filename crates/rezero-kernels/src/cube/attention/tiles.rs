//! Products of tiles in shared memory.
//!
//! Two tiles meet: `resident` rows that stay, and `streamed` rows that come, block after block. A cube has 16 units for each four streamed rows, `16 · X` in all with
//! `X = streamed / 4`. Unit `y · X + x` has the products of the rows `y + 16 i` that stay and the rows `4 x + j` that come.
//!
//! A row lies in memory as vectors of four numbers, padded with zeros, and one more vector, so that neighbouring units read from different banks. Of the rows that come,
//! row `4 x + j` is at place `j · X + x` for the same reason.

use cubecl::prelude::*;

pub(super) type Four = Vector<f32, Const<4>>;

/// A tile of `rows` rows of `width` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    pub rows: usize,
    pub width: usize,
    /// Whether its rows come.
    pub streamed: bool,
    /// Whether its numbers are rounded to bf16.
    pub narrow: bool,
}

impl Tile {
    /// Vectors of a row.
    pub fn fours(&self) -> usize {
        self.width.div_ceil(4)
    }

    /// Vectors from a row to the next.
    pub fn pitch(&self) -> usize {
        self.fours() + 1
    }

    pub fn vectors(&self) -> usize {
        self.rows * self.pitch()
    }
}

/// Copies `valid` rows, `stride` numbers apart from number `start` on, and zeros for the others.
#[cube]
pub(super) fn load<N: Size>(
    from: &[Vector<f32, N>],
    to: &mut Shared<[Four]>,
    start: u32,
    stride: u32,
    valid: u32,
    #[comptime] tile: Tile,
) {
    let fours = comptime!(tile.fours() as u32);
    let pitch = comptime!(tile.pitch() as u32);
    let mut i = UNIT_POS;
    while i < comptime!((tile.rows * tile.fours()) as u32) {
        let row = i / fours;
        let four = i % fours;
        let mut value = Four::new(0.0f32);
        if row < valid {
            let at = start + row * stride + four * 4;
            value = read::<N>(from, at, four * 4, comptime!(tile.width));
        }
        if comptime!(tile.narrow) {
            value = narrowed(value);
        }
        let mut place = row;
        if comptime!(tile.streamed) {
            place = (row % 4) * comptime!(tile.rows as u32 / 4) + row / 4;
        }
        to[(place * pitch + four) as usize] = value;
        i += CUBE_DIM;
    }
}

/// Four numbers from number `at` on, which are numbers `column ..` of a row of `width`.
#[cube]
fn read<N: Size>(from: &[Vector<f32, N>], at: u32, column: u32, #[comptime] width: usize) -> Four {
    let size = N::value();
    if comptime!(size == 4) {
        Four::cast_from(from[(at / 4) as usize])
    } else {
        let mut value = Four::new(0.0f32);
        #[unroll]
        for e in 0..4usize {
            let inside = column + comptime!(e as u32) < comptime!(width as u32);
            if inside {
                let number = from[(at + comptime!(e as u32)) as usize];
                value.insert(e, number.extract(0usize));
            }
        }
        value
    }
}

/// Numbers rounded to bf16, the nearest and then the even ones. By their bits: not every device has the type.
#[cube]
pub(super) fn narrowed(value: Four) -> Four {
    let mut rounded = value;
    #[unroll]
    for e in 0..4usize {
        rounded.insert(e, narrow(value.extract(e)));
    }
    rounded
}

#[cube]
fn narrow(x: f32) -> f32 {
    let bits = u32::reinterpret(x);
    let rounded = (bits + 0x7FFFu32 + ((bits >> 16u32) & 1u32)) & 0xFFFF_0000u32;
    // NaN stays NaN, whatever its bits.
    let nan = (bits & 0x7FFF_FFFFu32) > 0x7F80_0000u32;
    select(nan, x, f32::reinterpret(rounded))
}

/// `sums[4 i + j]`: the products of the unit's rows of both tiles.
#[cube]
pub(super) fn products(
    stay: &Shared<[Four]>,
    come: &Shared<[Four]>,
    sums: &mut Array<f32>,
    #[comptime] tiles: (Tile, Tile),
) {
    let rows = comptime!(tiles.0.rows / 16);
    let across = comptime!(tiles.1.rows / 4);
    let pitch = comptime!(tiles.0.pitch());
    let y = (UNIT_POS / comptime!(across as u32)) as usize;
    let x = (UNIT_POS % comptime!(across as u32)) as usize;
    #[unroll]
    for i in 0..comptime!(4 * rows) {
        sums[i] = 0.0f32;
    }
    let mut left = Array::<Four>::new(rows);
    let mut right = Array::<Four>::new(4usize);
    let mut four = 0usize;
    while four < comptime!(tiles.0.fours()) {
        #[unroll]
        for i in 0..rows {
            left[i] = stay[(y + comptime!(16 * i)) * pitch + four];
        }
        #[unroll]
        for j in 0..4usize {
            right[j] = come[(x + comptime!(j * across)) * pitch + four];
        }
        #[unroll]
        for i in 0..rows {
            #[unroll]
            for j in 0..4usize {
                #[unroll]
                for e in 0..4usize {
                    sums[comptime!(4 * i + j)] += left[i].extract(e) * right[j].extract(e);
                }
            }
        }
        four += 1;
    }
}

/// The vectors of a row that a unit of [`weigh`] has one of, and the rows of the resident tile that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Share {
    /// Units side by side in a row: at least as many as a row has vectors.
    pub across: usize,
    /// From one of the unit's rows to the next.
    pub step: usize,
    pub rows: usize,
}

impl Share {
    pub fn of(stay: Tile, units: usize) -> Self {
        let across = stay.fours().next_power_of_two();
        let step = (units / across).max(1);
        Self {
            across,
            step,
            rows: stay.rows.div_ceil(step),
        }
    }
}

/// Adds the rows that come, weighed: `sums[i] += Σ_c w[r, c] · come[c]` for the unit's rows r and its vector of each row. The weights of four rows lie in one vector, as
/// `[row that stays][X + 1]`.
#[cube]
pub(super) fn weigh(
    weights: &Shared<[Four]>,
    come: &Shared<[Four]>,
    sums: &mut Array<Four>,
    #[comptime] tiles: (Tile, Tile),
    #[comptime] share: Share,
) {
    let across = comptime!(tiles.1.rows / 4);
    let pitch = comptime!(tiles.1.pitch());
    let column = (UNIT_POS % comptime!(share.across as u32)) as usize;
    let first = (UNIT_POS / comptime!(share.across as u32)) as usize;
    if column < comptime!(tiles.1.fours()) && first < comptime!(tiles.0.rows) {
        let mut right = Array::<Four>::new(4usize);
        let mut four = 0usize;
        while four < across {
            #[unroll]
            for j in 0..4usize {
                right[j] = come[(comptime!(j * across) + four) * pitch + column];
            }
            #[unroll]
            for i in 0..comptime!(share.rows) {
                let row = first + comptime!(i * share.step);
                let left = weights[row * comptime!(across + 1) + four];
                #[unroll]
                for j in 0..4usize {
                    sums[i] += right[j] * Four::new(left.extract(j));
                }
            }
            four += 1;
        }
    }
}
