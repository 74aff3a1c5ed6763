//! The kernels of attention.

// The macro writes functions with the arguments one by one.
#![allow(clippy::too_many_arguments)]

use cubecl::prelude::*;

use super::super::dropout::{Numbers, factor, of_call, of_row};
use super::super::sums::group_sum;
use super::tiles::{Four, Share, Tile, load, narrowed, products, weigh};

/// The score of a key that a query may not attend to: lower than any other.
const FORBIDDEN: f32 = -1e30;

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct How {
    /// The numbers of a head.
    pub width: usize,
    /// Rows of a cube's own block, and of the blocks that it walks along.
    pub resident: usize,
    pub streamed: usize,
    /// Whether the own block is one of keys.
    pub of_keys: bool,
    pub causal: bool,
    pub masked: bool,
    pub dropped: bool,
    pub narrow: bool,
}

impl How {
    /// The shared memory of a pass with blocks of so many rows.
    pub fn bytes(rows: usize, width: usize, backward: bool) -> usize {
        let tile = 16 * rows * (width.div_ceil(4) + 1);
        let weights = 16 * rows * (rows / 4 + 1);
        match backward {
            false => 2 * tile + weights + 4 * (16 * rows / 4 + rows),
            true => 4 * tile + 2 * weights + 4 * (5 * rows + 2),
        }
    }

    fn stay(&self) -> Tile {
        Tile {
            rows: self.resident,
            width: self.width,
            streamed: false,
            narrow: self.narrow,
        }
    }

    fn come(&self) -> Tile {
        Tile {
            rows: self.streamed,
            streamed: true,
            ..self.stay()
        }
    }

    fn tiles(&self) -> (Tile, Tile) {
        (self.stay(), self.come())
    }

    /// Vectors of weights.
    fn weights(&self) -> usize {
        self.resident * (self.streamed / 4 + 1)
    }

    pub fn units(&self) -> usize {
        4 * self.streamed
    }

    fn share(&self) -> Share {
        Share::of(self.stay(), self.units())
    }
}

/// Where the rows of a tensor are, in numbers.
#[derive(CubeLaunch, CubeType)]
pub(super) struct View {
    batch: u32,
    row: u32,
    from: u32,
}

#[derive(CubeLaunch, CubeType)]
pub(super) struct Sizes {
    heads: u32,
    queries: u32,
    keys: u32,
    /// Cubes with work.
    cubes: u32,
    mask_batch: u32,
    mask_row: u32,
    /// `1 / √d_head`
    scale: f32,
    dropout: Numbers,
}

/// The number of a head's row in a view.
#[cube]
fn start(view: &View, batch: u32, head: u32, row: u32, #[comptime] width: usize) -> u32 {
    batch * view.batch + row * view.row + view.from + head * comptime!(width as u32)
}

/// How many keys a query may attend to, before the mask.
#[cube]
fn seen(query: u32, sizes: &Sizes, #[comptime] causal: bool) -> u32 {
    let mut end = sizes.keys;
    if comptime!(causal) {
        let last = query + 1 + sizes.keys;
        end = select(
            last > sizes.queries,
            min(last - sizes.queries, sizes.keys),
            0u32,
        );
    }
    end
}

/// Whether a query may not attend to a key, one of which may be beyond the last one.
#[cube]
// The outer condition is the compiler's.
#[allow(clippy::collapsible_if)]
fn forbidden(
    query: u32,
    key: u32,
    batch: u32,
    mask: &[u32],
    sizes: &Sizes,
    #[comptime] how: How,
) -> bool {
    let mut found = key >= seen(query, sizes, comptime!(how.causal)) || query >= sizes.queries;
    if comptime!(how.masked) {
        if !found {
            let at = batch * sizes.mask_batch + query * sizes.mask_row + key;
            found = mask[at as usize] != 0;
        }
    }
    found
}

#[cube(launch)]
pub(super) fn forward<N: Size>(
    q: &[Vector<f32, N>],
    k: &[Vector<f32, N>],
    v: &[Vector<f32, N>],
    mask: &[u32],
    seed: &[u32],
    output: &mut [f32],
    kept: &mut [f32],
    of_q: &View,
    of_k: &View,
    of_v: &View,
    sizes: &Sizes,
    #[comptime] how: How,
) {
    let stay = comptime!(how.stay());
    let come = comptime!(how.come());
    let share = comptime!(how.share());
    let width = comptime!(how.width);
    let rows = comptime!(how.resident / 16);
    let across = comptime!(how.streamed / 4);
    // Units of a row of weights.
    let side = comptime!((how.units() / how.resident) as u32);
    let mut own = Shared::<[Four]>::new_slice(comptime!(stay.vectors()));
    let mut others = Shared::<[Four]>::new_slice(comptime!(come.vectors()));
    let mut weights = Shared::<[Four]>::new_slice(comptime!(how.weights()));
    let mut parts = Shared::<[f32]>::new_slice(comptime!(how.units()));
    let mut factors = Shared::<[f32]>::new_slice(comptime!(how.resident));

    let cube = CUBE_POS as u32;
    if cube < sizes.cubes {
        let blocks = sizes.queries.div_ceil(comptime!(how.resident as u32));
        // Under a causal mask, the last blocks take longest: they begin first.
        let first = (blocks - 1 - cube % blocks) * comptime!(how.resident as u32);
        let head = (cube / blocks) % sizes.heads;
        let batch = cube / blocks / sizes.heads;
        let valid = min(comptime!(how.resident as u32), sizes.queries - first);
        let end = seen(first + valid - 1, sizes, comptime!(how.causal));

        let at = start(of_q, batch, head, first, width);
        load::<N>(q, &mut own, at, of_q.row, valid, stay);

        // The unit's row of weights, and its vectors there: `part + side · i`.
        let row = UNIT_POS / side;
        let part = UNIT_POS % side;
        let query = first + row;
        // The row's number among those of all heads.
        let number = (batch * sizes.heads + head) * sizes.queries + query;
        let mut hash_a = 0u32;
        let mut hash_b = 0u32;
        if comptime!(how.dropped) {
            let (low, high) = of_call(seed, &sizes.dropout);
            let (low, high) = of_row(low, high, number);
            hash_a = low;
            hash_b = high;
        }

        let mut scores = Array::<f32>::new(comptime!(4 * rows));
        let mut line = Array::<f32>::new(comptime!(4 * rows));
        let mut sums = Array::<Four>::new(comptime!(share.rows));
        #[unroll]
        for i in 0..comptime!(share.rows) {
            sums[i] = Four::new(0.0f32);
        }
        let mut largest = FORBIDDEN.runtime();
        let mut sum = 0.0f32;

        let mut key = 0u32;
        while key < end {
            let coming = min(comptime!(how.streamed as u32), sizes.keys - key);
            // The last block has been read.
            sync_cube();
            let at = start(of_k, batch, head, key, width);
            load::<N>(k, &mut others, at, of_k.row, coming, come);
            sync_cube();
            products(&own, &others, &mut scores, comptime!(how.tiles()));
            let y = (UNIT_POS / comptime!(across as u32)) as usize;
            let x = (UNIT_POS % comptime!(across as u32)) as usize;
            #[unroll]
            for i in 0..rows {
                let mut four = Four::new(0.0f32);
                #[unroll]
                for j in 0..4usize {
                    four.insert(j, scores[comptime!(4 * i + j)]);
                }
                weights[(y + comptime!(16 * i)) * comptime!(across + 1) + x] = four;
            }
            sync_cube();
            let at = start(of_v, batch, head, key, width);
            load::<N>(v, &mut others, at, of_v.row, coming, come);

            let mut most = FORBIDDEN.runtime();
            let from = row as usize * comptime!(across + 1) + part as usize;
            #[unroll]
            for i in 0..rows {
                let four = weights[from + i * side as usize];
                #[unroll]
                for j in 0..4usize {
                    let place = key + 4 * (part + comptime!(i as u32) * side) + comptime!(j as u32);
                    let hidden = forbidden(query, place, batch, mask, sizes, how);
                    let score = select(hidden, FORBIDDEN, four.extract(j) * sizes.scale);
                    line[comptime!(4 * i + j)] = score;
                    most = max(most, score);
                }
            }
            parts[UNIT_POS as usize] = most;
            sync_cube();
            let before = largest;
            #[unroll]
            for i in 0..comptime!(side as usize) {
                largest = max(largest, parts[(row * side) as usize + i]);
            }
            let factor_of_sums = (before - largest).exp();
            let mut own_sum = 0.0f32;
            #[unroll]
            for i in 0..rows {
                let mut four = Four::new(0.0f32);
                #[unroll]
                for j in 0..4usize {
                    let score = line[comptime!(4 * i + j)];
                    // Not `>`: a score that is no number gives a weight that is none.
                    let weight = select(score <= FORBIDDEN, 0.0f32, (score - largest).exp());
                    own_sum += weight;
                    let mut kept_weight = weight;
                    if comptime!(how.dropped) {
                        let place =
                            key + 4 * (part + comptime!(i as u32) * side) + comptime!(j as u32);
                        kept_weight = weight * factor(hash_a, hash_b, place, &sizes.dropout);
                    }
                    four.insert(j, kept_weight);
                }
                if comptime!(how.narrow) {
                    four = narrowed(four);
                }
                weights[from + i * side as usize] = four;
            }
            sum = sum * factor_of_sums + own_sum;
            if part == 0 {
                factors[row as usize] = factor_of_sums;
            }
            sync_cube();
            let own_first = (UNIT_POS / comptime!(share.across as u32)) as usize;
            if own_first < comptime!(how.resident) {
                #[unroll]
                for i in 0..comptime!(share.rows) {
                    sums[i] *= Four::new(factors[own_first + comptime!(i * share.step)]);
                }
            }
            weigh(&weights, &others, &mut sums, comptime!(how.tiles()), share);
            key += comptime!(how.streamed as u32);
        }

        sync_cube();
        parts[UNIT_POS as usize] = sum;
        sync_cube();
        let mut total = 0.0f32;
        #[unroll]
        for i in 0..comptime!(side as usize) {
            total += parts[(row * side) as usize + i];
        }
        if part == 0 {
            // A query that sees nothing has zeros.
            let inverse = select(total == 0.0f32, 0.0f32, 1.0f32 / total);
            factors[row as usize] = inverse;
            if query < sizes.queries {
                kept[(2 * number) as usize] = select(total == 0.0f32, 0.0f32, largest);
                kept[(2 * number + 1) as usize] = inverse;
            }
        }
        sync_cube();
        let own_first = UNIT_POS / comptime!(share.across as u32);
        let all = sizes.heads * comptime!(width as u32);
        #[unroll]
        for i in 0..comptime!(share.rows) {
            let row = own_first + comptime!((i * share.step) as u32);
            if row < valid {
                let inverse = factors[row as usize];
                let at =
                    (batch * sizes.queries + first + row) * all + head * comptime!(width as u32);
                write(sums[i] * Four::new(inverse), output, at, width, share);
            }
        }
    }
}

/// Writes the unit's vector of a row of `width` numbers that begins at number `at`.
#[cube]
fn write(value: Four, to: &mut [f32], at: u32, #[comptime] width: usize, #[comptime] share: Share) {
    let column = 4 * (UNIT_POS % comptime!(share.across as u32));
    #[unroll]
    for e in 0..4usize {
        if column + comptime!(e as u32) < comptime!(width as u32) {
            to[(at + column + comptime!(e as u32)) as usize] = value.extract(e);
        }
    }
}

/// `rowsum(dO ⊙ O)`
#[cube(launch)]
pub(super) fn means(
    grad: &[f32],
    output: &[f32],
    means: &mut [f32],
    rows: u32,
    queries: u32,
    heads: u32,
    width: u32,
    #[comptime] group: usize,
) {
    let of_group = comptime!(group as u32);
    let unit = UNIT_POS % of_group;
    let number = (CUBE_POS as u32 * CUBE_DIM + UNIT_POS) / of_group;
    // Units beyond the last row repeat its work, since the sums need all units of the cube.
    let row = min(number, rows - 1);
    // In memory, the heads of a query are side by side.
    let query = row % queries;
    let head = (row / queries) % heads;
    let batch = row / queries / heads;
    let start = ((batch * queries + query) * heads + head) * width;
    let mut sum = 0.0f32;
    let mut at = unit;
    while at < width {
        sum += grad[(start + at) as usize] * output[(start + at) as usize];
        at += of_group;
    }
    let sum = group_sum(sum, 256usize, group);
    if unit == 0 && number < rows {
        means[row as usize] = sum;
    }
}

/// What the weights of a block of queries are made of.
#[derive(CubeType)]
struct Queries {
    /// The largest score, the inverse sum and the mean of each.
    largest: Shared<[f32]>,
    inverse: Shared<[f32]>,
    mean: Shared<[f32]>,
    /// The seeds of the dropout.
    hash_a: Shared<[u32]>,
    hash_b: Shared<[u32]>,
}

/// Reads the numbers of `count` queries from `first` on; `before` queries of other heads lie before those of this one.
#[cube]
fn read_queries(
    all: &mut Queries,
    kept: &[f32],
    means: &[f32],
    call: &Shared<[u32]>,
    before: u32,
    first: u32,
    sizes: &Sizes,
    #[comptime] count: usize,
    #[comptime] how: How,
) {
    let mut i = UNIT_POS;
    while i < comptime!(count as u32) {
        let query = first + i;
        let mut largest = 0.0f32;
        let mut inverse = 0.0f32;
        let mut mean = 0.0f32;
        if query < sizes.queries {
            let number = before + query;
            largest = kept[(2 * number) as usize];
            inverse = kept[(2 * number + 1) as usize];
            mean = means[number as usize];
        }
        all.largest[i as usize] = largest;
        all.inverse[i as usize] = inverse;
        all.mean[i as usize] = mean;
        if comptime!(how.dropped) {
            let (low, high) = of_row(call[0], call[1], before + query);
            all.hash_a[i as usize] = low;
            all.hash_b[i as usize] = high;
        }
        i += CUBE_DIM;
    }
}

/// The gradient of the queries (the own block is one of queries, and keys and values come), or those of the keys and the values (keys and values stay).
///
/// `a_stay` and `a_come` are queries and keys in either order, `b_stay` and `b_come` are dO and values.
#[cube(launch)]
pub(super) fn backward<N: Size>(
    a_stay: &[Vector<f32, N>],
    b_stay: &[Vector<f32, N>],
    a_come: &[Vector<f32, N>],
    b_come: &[Vector<f32, N>],
    kept: &[f32],
    means: &[f32],
    mask: &[u32],
    seed: &[u32],
    to: &mut [f32],
    of_a_stay: &View,
    of_b_stay: &View,
    of_a_come: &View,
    of_b_come: &View,
    to_a: &View,
    to_b: &View,
    sizes: &Sizes,
    #[comptime] how: How,
) {
    let stay = comptime!(how.stay());
    let come = comptime!(how.come());
    let share = comptime!(how.share());
    let width = comptime!(how.width);
    let rows = comptime!(how.resident / 16);
    let across = comptime!(how.streamed / 4);
    let mut own_a = Shared::<[Four]>::new_slice(comptime!(stay.vectors()));
    let mut own_b = Shared::<[Four]>::new_slice(comptime!(stay.vectors()));
    let mut others_a = Shared::<[Four]>::new_slice(comptime!(come.vectors()));
    let mut others_b = Shared::<[Four]>::new_slice(comptime!(come.vectors()));
    // dS, and for keys P with its dropout.
    let mut of_a = Shared::<[Four]>::new_slice(comptime!(how.weights()));
    let mut of_b =
        Shared::<[Four]>::new_slice(comptime!(if how.of_keys { how.weights() } else { 1 }));
    let numbers = comptime!(how.resident);
    let mut queries = Queries {
        largest: Shared::new_slice(numbers),
        inverse: Shared::new_slice(numbers),
        mean: Shared::new_slice(numbers),
        hash_a: Shared::new_slice(numbers),
        hash_b: Shared::new_slice(numbers),
    };
    let mut call = Shared::<[u32]>::new_slice(2usize);

    let cube = CUBE_POS as u32;
    if cube < sizes.cubes {
        let length = if comptime!(how.of_keys) {
            sizes.keys
        } else {
            sizes.queries
        };
        let blocks = length.div_ceil(comptime!(how.resident as u32));
        // The blocks that take longest begin first.
        let mut block = cube % blocks;
        if comptime!(!how.of_keys) {
            block = blocks - 1 - block;
        }
        let first = block * comptime!(how.resident as u32);
        let head = (cube / blocks) % sizes.heads;
        let batch = cube / blocks / sizes.heads;
        let before = (batch * sizes.heads + head) * sizes.queries;
        let valid = min(comptime!(how.resident as u32), length - first);

        if comptime!(how.dropped) {
            if UNIT_POS == 0 {
                let (low, high) = of_call(seed, &sizes.dropout);
                call[0] = low;
                call[1] = high;
            }
            sync_cube();
        }
        let at = start(of_a_stay, batch, head, first, width);
        load::<N>(a_stay, &mut own_a, at, of_a_stay.row, valid, stay);
        let at = start(of_b_stay, batch, head, first, width);
        load::<N>(b_stay, &mut own_b, at, of_b_stay.row, valid, stay);

        // What comes: the keys that the last query sees, or the queries that see the first key.
        let mut other = 0u32;
        let mut end = sizes.queries;
        if comptime!(how.of_keys) {
            if comptime!(how.causal) {
                let ahead = first + sizes.queries;
                let begin = select(ahead > sizes.keys, ahead - sizes.keys, 0u32);
                other = begin / comptime!(how.streamed as u32) * comptime!(how.streamed as u32);
            }
        } else {
            end = seen(first + valid - 1, sizes, comptime!(how.causal));
            read_queries(
                &mut queries,
                kept,
                means,
                &call,
                before,
                first,
                sizes,
                numbers,
                how,
            );
        }
        let all = if comptime!(how.of_keys) {
            sizes.queries
        } else {
            sizes.keys
        };

        let mut scores = Array::<f32>::new(comptime!(4 * rows));
        let mut slopes = Array::<f32>::new(comptime!(4 * rows));
        let mut sums_a = Array::<Four>::new(comptime!(share.rows));
        let mut sums_b = Array::<Four>::new(comptime!(share.rows));
        #[unroll]
        for i in 0..comptime!(share.rows) {
            sums_a[i] = Four::new(0.0f32);
            sums_b[i] = Four::new(0.0f32);
        }
        let y = (UNIT_POS / comptime!(across as u32)) as usize;
        let x = (UNIT_POS % comptime!(across as u32)) as usize;

        while other < end {
            let coming = min(comptime!(how.streamed as u32), all - other);
            // The last block has been read.
            sync_cube();
            let at = start(of_a_come, batch, head, other, width);
            load::<N>(a_come, &mut others_a, at, of_a_come.row, coming, come);
            let at = start(of_b_come, batch, head, other, width);
            load::<N>(b_come, &mut others_b, at, of_b_come.row, coming, come);
            if comptime!(how.of_keys) {
                read_queries(
                    &mut queries,
                    kept,
                    means,
                    &call,
                    before,
                    other,
                    sizes,
                    numbers,
                    how,
                );
            }
            sync_cube();
            products(&own_a, &others_a, &mut scores, comptime!(how.tiles()));
            products(&own_b, &others_b, &mut slopes, comptime!(how.tiles()));
            #[unroll]
            for i in 0..rows {
                let mut four_a = Four::new(0.0f32);
                let mut four_b = Four::new(0.0f32);
                #[unroll]
                for j in 0..4usize {
                    let row = y + comptime!(16 * i);
                    let column = 4 * x + j;
                    let mut query = first + row as u32;
                    let mut key = other + column as u32;
                    let mut at = row;
                    if comptime!(how.of_keys) {
                        query = other + column as u32;
                        key = first + row as u32;
                        at = column;
                    }
                    let hidden = forbidden(query, key, batch, mask, sizes, how);
                    let score = scores[comptime!(4 * i + j)] * sizes.scale;
                    let weight = queries.inverse[at] * (score - queries.largest[at]).exp();
                    let weight = select(hidden, 0.0f32, weight);
                    let mut slope = slopes[comptime!(4 * i + j)];
                    let mut kept_weight = weight;
                    if comptime!(how.dropped) {
                        let a = queries.hash_a[at];
                        let b = queries.hash_b[at];
                        let factor = factor(a, b, key, &sizes.dropout);
                        slope *= factor;
                        kept_weight *= factor;
                    }
                    let slope = weight * (slope - queries.mean[at]) * sizes.scale;
                    // A hidden pair has no part in it, not even of a query that is no number.
                    four_a.insert(j, select(hidden, 0.0f32, slope));
                    four_b.insert(j, kept_weight);
                }
                if comptime!(how.narrow) {
                    four_a = narrowed(four_a);
                    four_b = narrowed(four_b);
                }
                let at = (y + comptime!(16 * i)) * comptime!(across + 1) + x;
                of_a[at] = four_a;
                if comptime!(how.of_keys) {
                    of_b[at] = four_b;
                }
            }
            sync_cube();
            weigh(&of_a, &others_a, &mut sums_a, comptime!(how.tiles()), share);
            if comptime!(how.of_keys) {
                weigh(&of_b, &others_b, &mut sums_b, comptime!(how.tiles()), share);
            }
            other += comptime!(how.streamed as u32);
        }

        let own_first = UNIT_POS / comptime!(share.across as u32);
        #[unroll]
        for i in 0..comptime!(share.rows) {
            let row = own_first + comptime!((i * share.step) as u32);
            if row < valid {
                let at = start(to_a, batch, head, first + row, width);
                write(sums_a[i], to, at, width, share);
                if comptime!(how.of_keys) {
                    let at = start(to_b, batch, head, first + row, width);
                    write(sums_b[i], to, at, width, share);
                }
            }
        }
    }
}
