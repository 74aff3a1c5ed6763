//! The keys that a mask hides.

use burn::backend::flex::FlexTensor;
use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::{Bool, Tensor};

use crate::flex::memory::{contiguous, dims};

/// The keys that queries must not attend to, `[1 or batch, 1 or queries, keys]`, not 0 where it is forbidden.
#[derive(Clone, Debug)]
pub(crate) struct Mask(FlexTensor);

/// The part of a mask for one sequence.
#[derive(Clone, Copy)]
pub(super) struct Forbidden<'a> {
    rows: &'a [u8],
    keys: usize,
}

impl Mask {
    /// `None` for a mask on another backend.
    // The last arms are for other backends, where they are compiled in.
    #[allow(unreachable_patterns)]
    pub fn of(mask: &Tensor<3, Bool>) -> Option<Self> {
        let found = match mask.clone().into_dispatch().kind {
            DispatchTensorKind::Flex(BackendTensor::Bool(t)) => t,
            DispatchTensorKind::Autodiff(inner) => match *inner {
                DispatchTensorKind::Flex(BackendTensor::Bool(t)) => t,
                _ => return None,
            },
            _ => return None,
        };
        Some(Self(contiguous(&found)))
    }

    pub(super) fn sequence(&self, b: usize) -> Forbidden<'_> {
        let [n, queries, keys] = dims(&self.0);
        let layout = self.0.layout();
        let size = queries * keys;
        let from = layout.start_offset() + if n == 1 { 0 } else { b * size };
        Forbidden {
            rows: &self.0.storage::<u8>()[from..from + size],
            keys,
        }
    }
}

impl<'a> Forbidden<'a> {
    /// The row of a query.
    pub(super) fn row(self, query: usize) -> &'a [u8] {
        let query = if self.rows.len() == self.keys {
            0
        } else {
            query
        };
        &self.rows[query * self.keys..(query + 1) * self.keys]
    }

    /// The number of keys up to the last that one of some queries may attend to, of the first `keys`.
    pub(super) fn keys(self, queries: core::ops::Range<usize>, keys: usize) -> usize {
        let last = |query| {
            self.row(query)[..keys]
                .iter()
                .rposition(|hidden| *hidden == 0)
        };
        let queries = if self.rows.len() == self.keys {
            0..1
        } else {
            queries
        };
        queries.filter_map(last).max().map_or(0, |last| last + 1)
    }
}

/// Sets the scores of forbidden keys to −∞, and gives whether a key is left.
#[inline(always)]
pub(super) fn hide(scores: &mut [f32], forbidden: &[u8]) -> bool {
    let mut left = false;
    for (score, hidden) in scores.iter_mut().zip(forbidden) {
        left |= *hidden == 0;
        *score = if *hidden == 0 {
            *score
        } else {
            f32::NEG_INFINITY
        };
    }
    left
}
