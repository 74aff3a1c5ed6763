//! The extents of a call, and where the rows of its heads are.

use burn::backend::flex::FlexTensor;

use super::QUERIES;
use super::rotary::Table;
use crate::attention::DotProductAttention;
use crate::flex::memory::{Shared, dims};

/// The extents of one call.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) batch: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) n: usize,
    pub(super) width: usize,
    pub(super) causal: bool,
    pub(super) scale: f32,
}

impl Heads {
    pub(super) fn new(config: DotProductAttention, inputs: &[FlexTensor]) -> Self {
        let [batch, queries, all] = dims(&inputs[0]);
        let (keys, d_model) = match inputs {
            [_, k, _] => (dims::<3>(k)[1], all),
            _ => (queries, all / 3),
        };
        let width = d_model / config.n_heads;
        Self {
            batch,
            queries,
            keys,
            n: config.n_heads,
            width,
            causal: config.causal,
            scale: 1.0 / (width as f32).sqrt(),
        }
    }

    pub(super) fn d_model(self) -> usize {
        self.n * self.width
    }

    /// The number of keys that the causal mask leaves to the queries before `last`.
    pub(super) fn seen(self, last: usize) -> usize {
        match self.causal {
            true => (self.keys + last).saturating_sub(self.queries),
            false => self.keys,
        }
    }

    /// The blocks of queries: the first query of each, and the number of queries.
    pub(super) fn blocks(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.queries)
            .step_by(QUERIES)
            .map(move |from| (from, QUERIES.min(self.queries - from)))
    }

    /// The position of the first query among the keys, for rotary positions.
    pub(super) fn first(self) -> usize {
        self.keys - self.queries
    }
}

/// Queries, keys or values: the rows of the positions, with the heads side by side in each.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    /// The distance between sequences.
    pub(super) batch: usize,
    /// The distance between the rows of a sequence.
    pub(super) row: usize,
}

/// The tensor with contiguous rows: itself, or a copy.
pub(super) fn by_rows(tensor: &FlexTensor) -> FlexTensor {
    let strides = tensor.layout().strides();
    match strides[2] == 1 && strides.iter().all(|stride| *stride >= 0) {
        true => tensor.clone(),
        false => tensor.to_contiguous(),
    }
}

impl<'a> Rows<'a> {
    /// Queries, keys and values of a call, from tensors that [`by_rows`] has returned.
    pub(super) fn all(inputs: &'a [FlexTensor], d_model: usize) -> [Self; 3] {
        core::array::from_fn(|which| {
            let (input, from) = match inputs {
                [fused] => (fused, which * d_model),
                _ => (&inputs[which], 0),
            };
            let layout = input.layout();
            let stride = |axis: usize| usize::try_from(layout.strides()[axis]);
            let (Ok(batch), Ok(row)) = (stride(0), stride(1)) else {
                unreachable!("`by_rows` has copied a flipped tensor")
            };
            Self {
                values: &input.storage::<f32>()[layout.start_offset() + from..],
                batch,
                row,
            }
        })
    }

    /// The values from the first row of a head on.
    pub(super) fn head(self, (b, h): (usize, usize), width: usize) -> &'a [f32] {
        &self.values[b * self.batch + h * width..]
    }

    /// Copies the rows of a head, rotated as positions from that of `turn` on.
    pub(super) fn gather(
        self,
        head: (usize, usize),
        width: usize,
        turn: Option<(&Table, usize)>,
        to: &mut [f32],
    ) {
        let from = self.head(head, width);
        for (i, to) in to.chunks_exact_mut(width).enumerate() {
            to.copy_from_slice(&from[i * self.row..i * self.row + width]);
            if let Some((table, first)) = turn {
                table.turn(first + i, to, 1.0);
            }
        }
    }
}

/// Where the gradients of queries, keys or values go: the reverse of [`Rows`].
#[derive(Clone, Copy)]
pub(super) struct Gradients {
    pub(super) to: Shared,
    /// The rows of a sequence.
    pub(super) length: usize,
    /// The distance between rows.
    pub(super) row: usize,
    /// The first value of the first row.
    pub(super) from: usize,
}

impl Gradients {
    /// The reverse of [`Rows::gather`].
    ///
    /// # Safety
    ///
    /// No other task uses the head's part of the rows.
    pub(super) unsafe fn scatter(
        self,
        from: &mut [f32],
        (b, h): (usize, usize),
        width: usize,
        turn: Option<(&Table, usize)>,
    ) {
        for (i, from) in from.chunks_exact_mut(width).enumerate() {
            if let Some((table, first)) = turn {
                table.turn(first + i, from, -1.0);
            }
            let at = self.from + (b * self.length + i) * self.row + h * width;
            // SAFETY: as the caller promises.
            unsafe { self.to.fresh_part(at, width) }.write_copy_of_slice(from);
        }
    }
}
