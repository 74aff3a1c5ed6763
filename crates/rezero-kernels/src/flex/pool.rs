//! Threads that look for work for a short time before they sleep.
//!
//! A step of a deep network is thousands of operations of some 50 µs each, with a little serial
//! work between them. Waking a sleeping thread takes about as long as one operation. So a thread
//! looks for work for [`PATIENCE`] after its last task, and usually finds the next operation at
//! once. Results do not depend on which thread runs a task.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::tasks::Tasks;

/// How long a thread looks for work before it sleeps.
const PATIENCE: Duration = Duration::from_micros(100);

/// Runs `task(0)` to `task(n - 1)` on this thread and on the threads of the pool. Together they are
/// as many as rayon's pool has; users set the number there.
pub(super) fn run(n: usize, task: &(dyn Fn(usize) + Sync)) {
    if n == 0 {
        return;
    }
    let begun = now();
    let pool = Pool::global();
    let turn = match pool.turn.try_lock() {
        Ok(turn) => Some(turn),
        // A task of another caller panicked; the pool itself is in order.
        Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
        // The pool is busy with another caller's work, or this call comes from one of its tasks.
        Err(TryLockError::WouldBlock) => None,
    };
    if turn.is_none() || pool.workers == 0 || n == 1 {
        (0..n).for_each(task);
    } else {
        pool.run(n, task);
    }
    // Else the time belongs to the loop that this call is part of, or to another caller's.
    if turn.is_some() {
        let kind = n.ilog2().min(5) as usize;
        let nanoseconds = begun.map_or(0, |begun| begun.elapsed().as_nanos() as u64);
        LOOPS[kind].fetch_add(1, Ordering::Relaxed);
        NANOSECONDS[kind].fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// The time; `None` in a browser, where the standard library has no clock.
fn now() -> Option<Instant> {
    (!cfg!(all(target_family = "wasm", target_os = "unknown"))).then(Instant::now)
}

/// The loops with 1 task and from 2, 4, 8, 16 and 32 tasks on, and their time.
static LOOPS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];
static NANOSECONDS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

/// The loops so far.
pub(crate) fn tasks() -> Tasks {
    Tasks {
        loops: LOOPS.each_ref().map(|n| n.load(Ordering::Relaxed)),
        seconds: NANOSECONDS
            .each_ref()
            .map(|n| n.load(Ordering::Relaxed) as f64 * 1e-9),
    }
}

/// One piece of work. Workers may use it until [`Pool::run`] returns.
#[derive(Clone, Copy)]
struct Job {
    /// `&dyn Fn(usize) + Sync` with its lifetime erased.
    task: *const (dyn Fn(usize) + Sync),
    n: usize,
}

struct Pool {
    workers: usize,
    /// Locked by the caller whose work the pool does.
    turn: Mutex<()>,
    /// Work number (upper 32 bits), whether it is [`OPEN`], and how many workers have joined it.
    state: AtomicU64,
    /// Workers that have left the work they joined.
    left: AtomicUsize,
    /// The next task.
    next: AtomicUsize,
    job: Mutex<Option<SendJob>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

#[derive(Clone, Copy)]
struct SendJob(Job);

// SAFETY: the task it points to is `Sync`.
unsafe impl Send for SendJob {}

const OPEN: u64 = 1 << 31;
const JOINED: u64 = OPEN - 1;

impl Pool {
    fn global() -> &'static Pool {
        static POOL: OnceLock<&'static Pool> = OnceLock::new();
        POOL.get_or_init(|| {
            let pool: &'static Pool = Box::leak(Box::new(Pool {
                workers: rayon::current_num_threads().saturating_sub(1),
                turn: Mutex::new(()),
                state: AtomicU64::new(0),
                left: AtomicUsize::new(0),
                next: AtomicUsize::new(0),
                job: Mutex::new(None),
                panic: Mutex::new(None),
                sleepers: AtomicUsize::new(0),
                sleep: Mutex::new(()),
                wake: Condvar::new(),
            }));
            for i in 0..pool.workers {
                let started = std::thread::Builder::new()
                    .name(format!("rezero-kernels-{i}"))
                    .spawn(|| pool.work());
                // If a thread does not start, the caller runs more tasks itself.
                drop(started);
            }
            pool
        })
    }

    /// Only for the holder of `turn`.
    fn run(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        // SAFETY: workers use the job only between joining and leaving it. This function neither
        // returns nor unwinds before the job is closed to joining and all workers that joined have
        // left, so no use outlives the real lifetime.
        let task: &'static (dyn Fn(usize) + Sync) = unsafe { core::mem::transmute(task) };
        let job = Job { task, n };
        *lock(&self.job) = Some(SendJob(job));
        self.left.store(0, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        let number = (self.state.load(Ordering::Relaxed) >> 32).wrapping_add(1) & 0xffff_ffff;
        self.state.store(number << 32 | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| self.tasks(job)));
        let joined = self.state.fetch_and(!OPEN, Ordering::AcqRel) & JOINED;
        let mut looks = 0u32;
        while (self.left.load(Ordering::Acquire) as u64) < joined {
            looks += 1;
            // On a busy machine the worker may need this core.
            if looks.is_multiple_of(4096) {
                std::thread::yield_now();
            }
            core::hint::spin_loop();
        }
        let theirs = lock(&self.panic).take();
        if let Err(payload) = own {
            resume_unwind(payload);
        }
        if let Some(payload) = theirs {
            resume_unwind(payload);
        }
    }

    /// Runs tasks until none is left.
    fn tasks(&self, job: Job) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= job.n {
                return;
            }
            // SAFETY: this thread has opened the job or joined it, see `run`.
            unsafe { (*job.task)(i) };
        }
    }

    /// The loop of a worker thread.
    fn work(&self) {
        let mut done = 0;
        loop {
            let state = self.await_work(done);
            done = state >> 32;
            let joined =
                self.state
                    .compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
            if joined.is_err() {
                // Closed meanwhile, or another worker was faster: look again.
                done = done.wrapping_sub(1);
                continue;
            }
            let job = *lock(&self.job);
            if let Some(SendJob(job)) = job
                && let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.tasks(job)))
            {
                *lock(&self.panic) = Some(payload);
            }
            self.left.fetch_add(1, Ordering::Release);
        }
    }

    /// Waits for open work with another number than `done`, and gives its state.
    fn await_work(&self, done: u64) -> u64 {
        let since = Instant::now();
        let mut looks = 0u32;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state >> 32 != done {
                return state;
            }
            core::hint::spin_loop();
            looks += 1;
            if looks.is_multiple_of(256) && since.elapsed() > PATIENCE {
                break;
            }
        }
        let mut guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if state & OPEN != 0 && state >> 32 != done {
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                return state;
            }
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Locks also a poisoned mutex: no code under these locks leaves its data half changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::run;

    /// Fewer repetitions under Miri, which is a thousand times slower.
    const ROUNDS: usize = if cfg!(miri) { 2 } else { 50 };

    #[test]
    fn every_task_runs_once() {
        for n in [0, 1, 2, 3, 2 * ROUNDS, 20 * ROUNDS] {
            let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            run(n, &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) == 1)
            );
        }
    }

    #[test]
    fn tasks_may_run_tasks_and_callers_may_come_together() {
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        run(8, &|_| {
                            run(4, &|i| {
                                total.fetch_add(i, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * ROUNDS * 8 * 6);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_in_order() {
        for _ in 0..ROUNDS {
            let caught = std::panic::catch_unwind(|| {
                run(64, &|i| assert_ne!(i, 13, "thirteen"));
            });
            assert!(caught.is_err());
            every_task_runs_once();
        }
    }
}
