//! Running statistics that move towards a batch's, in place: those of all batch norms of a pass in few launches ([`many`](super::many)).

use std::cell::RefCell;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::buffer;
use super::many::{CUT, Cut, Many, ManyOps, most};
use super::optim::{blocks, by_axes, cuts, flushed, place_in, units};

/// Statistics that move by the same share of the way.
struct Moves {
    share: f32,
    /// Old and new of each.
    tensors: Vec<FloatTensor<Cube>>,
}

thread_local! {
    static GATHERED: RefCell<Option<Vec<Moves>>> = const { RefCell::new(None) };
}

/// Runs `work`, and then the moves that it asked for. If it panics, nothing is moved.
pub(crate) fn gathered<R>(work: impl FnOnce() -> R) -> R {
    struct Before(Option<Vec<Moves>>);
    impl Drop for Before {
        fn drop(&mut self) {
            GATHERED.replace(self.0.take());
        }
    }
    let before = Before(GATHERED.replace(Some(Vec::new())));
    let result = work();
    let gathered = GATHERED.take().unwrap_or_default();
    drop(before);
    run(gathered);
    result
}

/// Moves both means, `[old, new, old, new]`, by `share` of the way to the new ones, in the memory of the old ones, at the end of
/// [`gathered`].
pub(super) fn towards(pairs: [FloatTensor<Cube>; 4], share: f32) {
    let waiting = GATHERED.with_borrow_mut(|gathered| {
        let gathered = gathered.get_or_insert_default();
        let old = |tensors: &[FloatTensor<Cube>]| -> Vec<_> {
            tensors.iter().step_by(2).map(|old| old.id).collect()
        };
        let own = old(&pairs);
        let mut all = gathered.iter().flat_map(|moves| old(&moves.tensors));
        // A norm that is applied again moves from where the first call has left it.
        let again = all.any(|id| own.contains(&id));
        let waiting = if again {
            std::mem::take(gathered)
        } else {
            Vec::new()
        };
        match gathered.iter_mut().find(|moves| moves.share == share) {
            Some(moves) => moves.tensors.extend(pairs),
            None => gathered.push(Moves {
                share,
                tensors: pairs.into(),
            }),
        }
        waiting
    });
    run(waiting);
}

fn run(all: Vec<Moves>) {
    let Some(first) = all.first() else { return };
    let device = first.tensors[0].device();
    flushed(&device, || {
        for moves in all {
            Cube::rezero_many(Many::Towards(moves.share), moves.tensors);
        }
    });
}

/// Of old and new of each.
pub(super) fn moved(share: f32, tensors: &[CubeTensor]) {
    for (axes, all) in by_axes(tensors, 2) {
        let client = &all[0][0].client;
        for some in all.chunks(most(client, 2, 0, CUT + 3 * axes)) {
            let cuts = cuts(some, &[0, 1], axes, blocks);
            let pair = |own: &&[CubeTensor]| PairLaunch::new(buffer(&own[0]), buffer(&own[1]));
            let pairs = some.iter().map(pair).collect();
            towards_kernel::launch(
                client,
                cuts.grid(),
                units(),
                pairs,
                cuts.all,
                share,
                some.len(),
                axes,
            );
        }
    }
}

/// A statistic, and the batch's.
#[derive(CubeLaunch, CubeType)]
struct Pair {
    old: Box<[f32]>,
    new: Box<[f32]>,
}

#[cube(launch)]
fn towards_kernel(
    all: &mut Sequence<Pair>,
    cuts: &Sequence<Cut>,
    share: f32,
    #[comptime] count: usize,
    #[comptime] axes: usize,
) {
    let cube = CUBE_POS as u32;
    #[unroll]
    for k in 0..count {
        let cut = cuts.index(k);
        if cube >= cut.first && cube < cut.end {
            let own = all.index_mut(k);
            let step = (cut.end - cut.first) * CUBE_DIM;
            let mut i = (cube - cut.first) * CUBE_DIM + UNIT_POS;
            while i < cut.count {
                let to = place_in(cut, i, 0usize, axes);
                let from = place_in(cut, i, 1usize, axes);
                own.old[to] = own.old[to] * (1.0f32 - share) + own.new[from] * share;
                i += step;
            }
        }
    }
}
