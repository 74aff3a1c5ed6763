//! Ranks that are connected by MPI. One thread makes all calls of MPI, the one that begins and ends it: a handle of MPI
//! does not leave its thread.
//!
//! Only point-to-point messages are used, and none is waited for without a limit: a rank that does not answer is known by
//! its number. `MPI_Allreduce` may add in any order, and names nobody.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use burn::tensor::bf16;
use mpi::Threading;
use mpi::point_to_point::MatchedReceiveVec;
use mpi::request::{LocalScope, Request, scope};
use mpi::topology::{Process, SimpleCommunicator};
use mpi::traits::{Communicator, Destination, Equivalence, Source};
use rezero_kernels::add_to;

use super::{Link, Silent, part};
use crate::error::{Error, Result};
use crate::recipe::Reduce;

/// A rank that has waited for so long no longer asks at every turn of its processor.
const PATIENT: Duration = Duration::from_millis(2);
/// The time between two questions then.
const PAUSE: Duration = Duration::from_micros(50);

/// The tags of messages. MPI keeps the order of those with one tag between two ranks.
const WORDS: i32 = 1;
const PARTS: i32 = 2;
const SUMS: i32 = 3;

/// A process's number, how many there are, and its host.
pub(super) struct Place {
    pub rank: usize,
    pub size: usize,
    pub host: String,
}

/// The way to the thread that calls MPI.
pub(super) struct Port {
    way: Option<Mutex<(Sender<Job>, Receiver<Answer>)>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Gather(Vec<u8>, Duration),
    Sum(Vec<u8>, Vec<f32>, usize, Reduce, Duration),
    Spread(Vec<u8>, Duration),
    End(u8),
}

type Answer = Result<(Vec<Vec<u8>>, Vec<f32>), Silent>;

impl Port {
    /// Begins MPI.
    pub fn open() -> Result<(Self, Place)> {
        let (jobs, inbox) = channel();
        let (outbox, answers) = channel();
        let (tell, told) = channel();
        let work = move || {
            let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
                return;
            };
            let world = universe.world();
            let (rank, size) = (world.rank() as usize, world.size() as usize);
            let host = mpi::environment::processor_name().unwrap_or_else(|_| "?".to_owned());
            let _ = tell.send(Place { rank, size, host });
            let engine = Engine {
                processes: (0..size as i32)
                    .map(|rank| world.process_at_rank(rank))
                    .collect(),
                world: &world,
                rank,
                size,
                inbox,
                outbox,
            };
            engine.serve();
            // Here `universe` is dropped, and MPI ends.
        };
        let thread = std::thread::Builder::new()
            .name("mpi".to_owned())
            .spawn(work);
        let thread = thread.map_err(|e| Error::Ranks(format!("no thread can be started: {e}")))?;
        let place = told.recv().map_err(|_| {
            Error::Ranks("MPI cannot be begun a second time in a process".to_owned())
        })?;
        let way = Some(Mutex::new((jobs, answers)));
        let thread = Some(thread);
        Ok((Self { way, thread }, place))
    }

    fn ask(&self, job: Job) -> Answer {
        let way = self.way.as_ref().expect("it is open until it is dropped");
        let way = way.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = way.0.send(job);
        // The thread ends only with the process.
        way.1.recv().unwrap_or_else(|_| Err(Vec::new()))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        drop(self.way.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Link for Port {
    fn gather(&self, mine: Vec<u8>, wait: Duration) -> Result<Vec<Vec<u8>>, Silent> {
        Ok(self.ask(Job::Gather(mine, wait))?.0)
    }

    fn sum(
        &self,
        mine: Vec<u8>,
        numbers: Vec<f32>,
        givers: usize,
        reduce: Reduce,
        wait: Duration,
    ) -> Result<(Vec<Vec<u8>>, Vec<f32>), Silent> {
        self.ask(Job::Sum(mine, numbers, givers, reduce, wait))
    }

    fn spread(&self, bytes: Vec<u8>, wait: Duration) -> Result<Vec<u8>, Silent> {
        Ok(self.ask(Job::Spread(bytes, wait))?.0.swap_remove(0))
    }

    fn end(&self, status: u8) -> ! {
        let _ = self.ask(Job::End(status));
        std::process::exit(status.into())
    }
}

struct Engine<'w> {
    world: &'w SimpleCommunicator,
    processes: Vec<Process<'w>>,
    rank: usize,
    size: usize,
    inbox: Receiver<Job>,
    outbox: Sender<Answer>,
}

/// Messages that are on their way, each with the other rank.
type Pending<'s, 'a, T> = Vec<(usize, Message<'s, 'a, T>)>;
type Message<'s, 'a, T> = Request<'a, [T], &'s LocalScope<'a>>;

impl Engine<'_> {
    fn serve(&self) {
        while let Ok(job) = self.inbox.recv() {
            let answer = match job {
                Job::Gather(mine, wait) => (self.gather(mine, wait), Vec::new()),
                Job::Sum(mine, numbers, givers, Reduce::F32, wait) => {
                    self.sum(mine, numbers, givers, wait)
                }
                Job::Sum(mine, numbers, givers, Reduce::BF16, wait) => {
                    let narrow = numbers.iter().map(|x| bf16::from_f32(*x).to_bits());
                    let (words, sum) = self.sum(mine, narrow.collect::<Vec<u16>>(), givers, wait);
                    (words, sum.into_iter().map(wide).collect())
                }
                Job::Spread(bytes, wait) => (vec![self.spread(bytes, wait)], Vec::new()),
                Job::End(status) => self.end(status),
            };
            if self.outbox.send(Ok(answer)).is_err() {
                return;
            }
        }
    }

    fn end(&self, status: u8) -> ! {
        self.world.abort(i32::from(status.max(1)))
    }

    /// Reports ranks that do not answer, and waits for the end. Messages to and from them stay open.
    fn stuck(&self, silent: Silent) -> ! {
        let _ = self.outbox.send(Err(silent));
        match self.inbox.recv() {
            Ok(Job::End(status)) => self.end(status),
            _ => self.end(1),
        }
    }

    fn others(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.size).filter(|rank| *rank != self.rank)
    }

    /// Waits until all messages have arrived, and those with words of the ranks in `words` too.
    fn complete<N>(
        &self,
        mut sent_words: Pending<'_, '_, u8>,
        mut numbers: Pending<'_, '_, N>,
        mut from: Vec<usize>,
        wait: Duration,
    ) -> Vec<Vec<u8>> {
        let begun = Instant::now();
        let mut words = vec![Vec::new(); self.size];
        loop {
            advance(&mut sent_words);
            advance(&mut numbers);
            from.retain(|rank| {
                match self.processes[*rank].immediate_matched_probe_with_tag(WORDS) {
                    Some(message) => {
                        words[*rank] = message.matched_receive_vec().0;
                        false
                    }
                    None => true,
                }
            });
            if sent_words.is_empty() && numbers.is_empty() && from.is_empty() {
                return words;
            }
            let waited = begun.elapsed();
            if waited > wait {
                let open = sent_words.iter().map(|(rank, _)| *rank);
                let open = open.chain(numbers.iter().map(|(rank, _)| *rank));
                let mut silent: Silent = open.chain(from.iter().copied()).collect();
                silent.sort_unstable();
                silent.dedup();
                self.stuck(silent);
            }
            match waited < PATIENT {
                true => std::thread::yield_now(),
                false => std::thread::sleep(PAUSE),
            }
        }
    }

    fn gather(&self, mine: Vec<u8>, wait: Duration) -> Vec<Vec<u8>> {
        let mut all = scope(|scope| {
            let words = self
                .others()
                .map(|rank| (rank, self.tell(scope, rank, &mine)));
            self.complete::<f32>(words.collect(), Vec::new(), self.others().collect(), wait)
        });
        all[self.rank] = mine;
        all
    }

    fn spread(&self, bytes: Vec<u8>, wait: Duration) -> Vec<u8> {
        if self.rank > 0 {
            let mut all = self.complete::<f32>(Vec::new(), Vec::new(), vec![0], wait);
            return all.swap_remove(0);
        }
        scope(|scope| {
            let words = self
                .others()
                .map(|rank| (rank, self.tell(scope, rank, &bytes)));
            self.complete::<f32>(words.collect(), Vec::new(), Vec::new(), wait);
        });
        bytes
    }

    fn tell<'s, 'a>(
        &self,
        scope: &'s LocalScope<'a>,
        rank: usize,
        words: &'a [u8],
    ) -> Message<'s, 'a, u8> {
        self.processes[rank].immediate_send_with_tag(scope, words, WORDS)
    }

    /// Each rank gets its part of the numbers of all, adds them in the order of the ranks, and sends the sum to all:
    /// 2 (n − 1) messages, and the bytes of a ring.
    fn sum<N: Number>(
        &self,
        mine: Vec<u8>,
        mut numbers: Vec<N>,
        givers: usize,
        wait: Duration,
    ) -> (Vec<Vec<u8>>, Vec<N>) {
        let parts: Vec<Range<usize>> = (0..self.size)
            .map(|rank| part(numbers.len(), rank, self.size))
            .collect();
        let own = parts[self.rank].clone();
        let gives = |rank: usize| rank < givers;
        let mut theirs: Vec<Vec<N>> = (0..self.size)
            .map(|rank| match rank != self.rank && gives(rank) {
                true => vec![N::default(); own.len()],
                false => Vec::new(),
            })
            .collect();
        let mut words = scope(|scope| {
            let told = self
                .others()
                .map(|rank| (rank, self.tell(scope, rank, &mine)));
            let told = told.collect();
            let mut open: Pending<'_, '_, N> = Vec::new();
            for (rank, part) in theirs.iter_mut().enumerate().filter(|(_, p)| !p.is_empty()) {
                let from = &self.processes[rank];
                open.push((
                    rank,
                    from.immediate_receive_into_with_tag(scope, &mut part[..], PARTS),
                ));
            }
            if gives(self.rank) {
                for rank in self.others().filter(|rank| !parts[*rank].is_empty()) {
                    let to = &self.processes[rank];
                    let part = &numbers[parts[rank].clone()];
                    open.push((rank, to.immediate_send_with_tag(scope, part, PARTS)));
                }
            }
            self.complete(told, open, self.others().collect(), wait)
        });
        words[self.rank] = mine;

        theirs[self.rank] = numbers[own].to_vec();
        let sum = N::sum(theirs.into_iter().take(givers));
        scope(|scope| {
            let mut open: Pending<'_, '_, N> = Vec::new();
            let mut rest = &mut numbers[..];
            for (rank, part) in parts.iter().enumerate() {
                let (now, after) = rest.split_at_mut(part.len());
                rest = after;
                if rank == self.rank {
                    now.copy_from_slice(&sum);
                } else if !now.is_empty() {
                    let from = &self.processes[rank];
                    open.push((rank, from.immediate_receive_into_with_tag(scope, now, SUMS)));
                }
            }
            for rank in self.others().filter(|_| !sum.is_empty()) {
                let to = &self.processes[rank];
                open.push((rank, to.immediate_send_with_tag(scope, &sum[..], SUMS)));
            }
            self.complete(Vec::new(), open, Vec::new(), wait)
        });
        (words, numbers)
    }
}

/// A number as it travels.
trait Number: Equivalence + Copy + Default {
    /// The sum of lists of one length, in their order, in f32.
    fn sum(lists: impl Iterator<Item = Vec<Self>>) -> Vec<Self>;
}

impl Number for f32 {
    fn sum(mut lists: impl Iterator<Item = Vec<Self>>) -> Vec<Self> {
        let mut sum = lists.next().unwrap_or_default();
        for list in lists {
            add_to(&mut sum, &list);
        }
        sum
    }
}

/// The bits of a bf16.
impl Number for u16 {
    fn sum(mut lists: impl Iterator<Item = Vec<Self>>) -> Vec<Self> {
        let first = lists.next().unwrap_or_default();
        let mut sum: Vec<f32> = first.into_iter().map(wide).collect();
        for list in lists {
            for (sum, x) in sum.iter_mut().zip(list) {
                *sum += wide(x);
            }
        }
        sum.into_iter()
            .map(|x| bf16::from_f32(x).to_bits())
            .collect()
    }
}

/// The f32 of a bf16's bits.
fn wide(bits: u16) -> f32 {
    bf16::from_bits(bits).to_f32()
}

/// Leaves what has not arrived yet.
fn advance<T>(pending: &mut Pending<'_, '_, T>) {
    let all = std::mem::take(pending).into_iter();
    *pending = all
        .filter_map(|(rank, request)| Some((rank, request.test().err()?)))
        .collect();
}
