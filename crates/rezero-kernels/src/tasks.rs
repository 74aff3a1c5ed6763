//! How many tasks the kernels make.

/// The parallel loops that the kernels of this process have run so far, by their number of tasks. The tasks of a loop are all that
/// several threads can share, so a machine with more threads than a loop has tasks leaves some idle. Loops inside of loops, and
/// those that ran on their caller's thread because another caller had the threads, are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tasks {
    /// The loops with 1 task, and from 2, 4, 8, 16 and 32 tasks on.
    pub loops: [u64; 6],
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

    /// The counts since `earlier`, an earlier [`Self::so_far`].
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            loops: core::array::from_fn(|i| self.loops[i].saturating_sub(earlier.loops[i])),
            seconds: core::array::from_fn(|i| (self.seconds[i] - earlier.seconds[i]).max(0.0)),
        }
    }

    /// The share of the time that was spent in loops of at least so many tasks: 1, 2, 4, 8, 16 or 32. Other numbers are rounded up to
    /// one of these, those above 32 down. 0 if there was no loop.
    pub fn share_of(&self, tasks: usize) -> f64 {
        let from = tasks.clamp(1, 32).next_power_of_two().ilog2() as usize;
        let (all, wide): (f64, f64) =
            (self.seconds.iter().sum(), self.seconds[from..].iter().sum());
        if all > 0.0 { wide / all } else { 0.0 }
    }
}
