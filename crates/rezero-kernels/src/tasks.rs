//! How many tasks the kernels make.

/// What the kernels of this process have run so far, by the number of tasks. A *region* is one parallel loop of a kernel: its
/// tasks are all that several threads can share, so a machine with more threads than a region has tasks leaves some idle.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tasks {
    /// The regions with 1 task, and from 2, 4, 8, 16 and 32 tasks on.
    pub regions: [u64; 6],
    /// The seconds that these took.
    pub seconds: [f64; 6],
}

impl Tasks {
    /// The counts of this process so far; none without feature `flex`.
    pub fn so_far() -> Self {
        #[cfg(feature = "flex")]
        return crate::flex::tasks();
        #[cfg(not(feature = "flex"))]
        Self::default()
    }

    /// The counts since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            regions: core::array::from_fn(|i| self.regions[i] - earlier.regions[i]),
            seconds: core::array::from_fn(|i| self.seconds[i] - earlier.seconds[i]),
        }
    }

    /// The share of the time that was spent in regions of `tasks` or more, for 1, 2, 4, 8, 16 or 32 (others are rounded up to one
    /// of these); 0 if there was none.
    pub fn share_of(&self, tasks: usize) -> f64 {
        let from = tasks.max(1).next_power_of_two().ilog2().min(5) as usize;
        let (all, wide): (f64, f64) =
            (self.seconds.iter().sum(), self.seconds[from..].iter().sum());
        if all > 0.0 { wide / all } else { 0.0 }
    }
}
