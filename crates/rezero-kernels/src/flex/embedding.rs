//! `y = scale · W[ids]`. Backward: the positions are sorted by their number, so that `dW[v] = scale · Σ g` over the positions of v is the
//! work of one task, in the order of the positions.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

use super::memory::{Fresh, contiguous, dims, elements, tensor, values};
use super::parallel::{Parts, each, wide};
use crate::op::Kernel;

/// Values of a task.
const CHUNK: usize = 1 << 14;
/// Columns of a task of the backward pass: a row whose number is frequent is the work of several.
const COLUMNS: usize = 128;
/// Rows of the table are cut into so many groups for the backward pass. Most rows of a large table are empty.
const GROUPS: usize = 256;

#[derive(Debug)]
pub(crate) struct Lookup {
    pub shape: [usize; 2],
    pub ids: Vec<i64>,
    pub scale: f32,
}

impl Kernel<Flex> for Lookup {
    /// The number of rows of the table.
    type State = usize;
    type Aux = ();

    fn forward(&self, inputs: &[FlexTensor]) -> (FlexTensor, usize, ()) {
        let weight = contiguous(&inputs[0]);
        let [rows, width] = dims(&weight);
        for id in &self.ids {
            assert!(
                usize::try_from(*id).is_ok_and(|id| id < rows),
                "a number must be from 0 to {}, got {id}.",
                rows - 1
            );
        }
        let w = values(&weight);
        let mut out = Fresh::new(elements(&[self.ids.len(), width]));
        let shared = out.shared();
        let parts = Parts::new(self.ids.len(), CHUNK.div_ceil(width));
        each(parts.count(), |part| {
            let (from, len) = parts.get(part);
            // SAFETY: the parts are disjoint.
            let out = unsafe { shared.fresh_part(from * width, len * width) };
            let ids = &self.ids[from..from + len];
            wide(
                #[inline(always)]
                || {
                    for (id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
                        let row = &w[*id as usize * width..][..width];
                        for (out, w) in out.iter_mut().zip(row) {
                            out.write(self.scale * w);
                        }
                    }
                },
            );
        });
        let [batch, length] = self.shape;
        // SAFETY: the parts cover it.
        let out = tensor(unsafe { out.written() }, [batch, length, width]);
        (out, rows, ())
    }

    fn backward(self, rows: usize, grad: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = contiguous(&grad);
        let [_, _, width] = dims(&grad);
        let g = values(&grad);
        let (starts, positions) = by_id(&self.ids, rows);
        let mut out = Fresh::new(elements(&[rows, width]));
        let shared = out.shared();
        let groups = Parts::new(rows, rows.div_ceil(GROUPS));
        let columns = Parts::new(width, COLUMNS);
        each(groups.count() * columns.count(), |task| {
            let (first, len) = groups.get(task / columns.count());
            let (from, width_here) = columns.get(task % columns.count());
            for row in first..first + len {
                // SAFETY: each part of a row is one task's.
                let out = unsafe { shared.fresh_part(row * width + from, width_here) };
                let out = out.write_copy_of_slice(&[0.0; COLUMNS][..width_here]);
                let own = &positions[starts[row]..starts[row + 1]];
                wide(
                    #[inline(always)]
                    || {
                        for position in own {
                            let g = &g[*position as usize * width + from..][..width_here];
                            for (out, g) in out.iter_mut().zip(g) {
                                *out += g;
                            }
                        }
                        for out in out {
                            *out *= self.scale;
                        }
                    },
                );
            }
        });
        // SAFETY: the tasks cover it.
        let out = unsafe { out.written() };
        vec![Some(tensor(out, [rows, width]))]
    }
}

/// The positions of each number, from 0 to `rows` − 1: where those of each begin, and all in order.
fn by_id(ids: &[i64], rows: usize) -> (Vec<usize>, Vec<u32>) {
    let mut starts = vec![0; rows + 1];
    for id in ids {
        starts[*id as usize + 1] += 1;
    }
    for row in 0..rows {
        starts[row + 1] += starts[row];
    }
    let (mut next, mut positions) = (starts.clone(), vec![0; ids.len()]);
    for (position, id) in (0u32..).zip(ids) {
        let at = &mut next[*id as usize];
        positions[*at] = position;
        *at += 1;
    }
    (starts, positions)
}
