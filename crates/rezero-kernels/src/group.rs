//! Batch norm over the batches of several processes.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Everybody's numbers, in the order of the processes.
type Gather = dyn Fn(Vec<f64>) -> Vec<Vec<f64>> + Send + Sync;

thread_local! {
    static CURRENT: RefCell<Option<Group>> = const { RefCell::new(None) };
}

/// Processes, or threads, that compute the parts of one batch at the same time. [`batch_norm`](crate::batch_norm) and
/// [`batch_norm_gated_sum`](crate::batch_norm_gated_sum) in [`run`](Self::run) take mean and variance over the batches of all, and so do
/// their backward passes: each part gets the results of the whole batch. It works for f32 on Flex.
#[derive(Clone)]
pub struct Group {
    gather: Arc<Gather>,
    givers: usize,
    exchanges: Arc<AtomicUsize>,
}

impl Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("givers", &self.givers)
            .finish_non_exhaustive()
    }
}

impl Group {
    /// A group that exchanges numbers by `gather`: it gets the numbers of this process, waits for all, and returns those of all in their
    /// order. The first `givers` processes count; others compute with the statistics of these.
    ///
    /// # Panics
    ///
    /// If `givers` is 0.
    pub fn new(
        givers: usize,
        gather: impl Fn(Vec<f64>) -> Vec<Vec<f64>> + Send + Sync + 'static,
    ) -> Self {
        assert!(givers > 0, "a group needs a process that counts.");
        Self {
            gather: Arc::new(gather),
            givers,
            exchanges: Arc::default(),
        }
    }

    /// Runs `work` with the statistics of the group. All processes must call the same batch norms in the same order, and the backward
    /// passes, which may follow later.
    ///
    /// # Panics
    ///
    /// If a process sends as many numbers as another norm has.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        /// Puts back what was before, also after a panic.
        struct Back(Option<Group>);

        impl Drop for Back {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }

        let _back = Back(CURRENT.replace(Some(self.clone())));
        work()
    }

    /// How often numbers have been exchanged: 0 if no batch norm has taken part, as Burn's own module does not.
    pub fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// The group in whose [`run`](Self::run) this is.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// The lists of those that count.
    #[cfg(feature = "flex")]
    pub(crate) fn lists(&self, own: Vec<f64>) -> Vec<Vec<f64>> {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        let len = own.len();
        let mut all = (self.gather)(own);
        assert!(
            all.iter().all(|list| list.len() == len),
            "the processes of a group must call the same batch norms in the same order."
        );
        all.truncate(self.givers);
        all
    }
}
