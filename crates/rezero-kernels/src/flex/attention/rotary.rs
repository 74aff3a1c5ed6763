//! Rotary positions.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use crate::attention::angle;

/// Cosines and sines of the angles of rotary positions.
pub(super) struct Table {
    length: usize,
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Table {
    /// The table for a base and a head's width, with at least `length` positions. Tables are
    /// cached.
    pub(super) fn of(base: f64, width: usize, length: usize) -> Arc<Self> {
        type Tables = HashMap<(u64, usize), Arc<Table>>;
        static TABLES: LazyLock<Mutex<Tables>> = LazyLock::new(Mutex::default);
        let mut tables = match TABLES.lock() {
            Ok(tables) => tables,
            // A table is complete before it is inserted.
            Err(poisoned) => poisoned.into_inner(),
        };
        let key = (base.to_bits(), width);
        match tables.get(&key) {
            Some(table) if table.length >= length => table.clone(),
            _ => {
                let table = Arc::new(Self::new(base, width, length.next_power_of_two()));
                tables.insert(key, table.clone());
                table
            }
        }
    }

    fn new(base: f64, width: usize, length: usize) -> Self {
        let half = width / 2;
        let table = |f: fn(f64) -> f64| {
            (0..length * half)
                .map(|n| f(angle(base, n / half, n % half, width)) as f32)
                .collect()
        };
        Self {
            length,
            half,
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Rotates a head's channels at position `i`, forwards (`sign` 1) or back (−1).
    pub(super) fn turn(&self, i: usize, x: &mut [f32], sign: f32) {
        let at = i * self.half..(i + 1) * self.half;
        let (a, b) = x.split_at_mut(self.half);
        for (((a, b), cos), sin) in a
            .iter_mut()
            .zip(b)
            .zip(&self.cos[at.clone()])
            .zip(&self.sin[at])
        {
            let sin = sin * sign;
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}
