//! Ranks that are connected by MPI. One thread makes all calls of MPI, the one that begins and ends it: a handle of MPI
//! does not leave its thread.
//!
//! Only point-to-point messages are used, and none is waited for without a limit: a rank that does not answer is known by
//! its number. `MPI_Allreduce` may add in any order, and names nobody. MPI's begin and end wait for all ranks; there
//! another thread has the limit.

use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mpi::Threading;
use mpi::request::{LocalScope, Request, scope};
use mpi::topology::{Process, SimpleCommunicator};
use mpi::traits::{Communicator, Destination, Equivalence, Root, Source};
use rezero_kernels::{add_bf16_to, add_to, from_bf16, to_bf16};

use super::waiting::{self, Waited};
use super::{Link, Silent, part};
use crate::error::{Error, Result};
use crate::recipe::Reduce;
use crate::say;

/// A rank that has waited for so long no longer asks at every turn of its processor.
const PATIENT: Duration = Duration::from_millis(2);
/// The least and the most time between two questions then. Between them it is a hundredth of what has been waited.
const PAUSES: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(1)];
/// The time in which MPI must end all processes when it is told to.
const TO_ABORT: Duration = Duration::from_secs(10);

/// The tags of messages. MPI keeps the order of those with one tag between two ranks.
const WORDS: i32 = 1;
const PARTS: i32 = 2;
const SUMS: i32 = 3;

/// A process's number, how many there are, and its host.
pub(super) struct Place {
    pub rank: usize,
    pub size: usize,
    pub host: String,
    /// The first rank on its host.
    pub node: usize,
}

/// The way to the thread that calls MPI.
pub(super) struct Port {
    way: Option<Mutex<(Sender<Job>, Receiver<Answer>)>>,
    /// The thread's end closes it.
    ended: Mutex<Receiver<()>>,
    patience: Duration,
    /// This process, for its last message.
    name: String,
}

enum Job {
    Gather(Vec<u8>, Duration),
    Sum(Vec<u8>, Vec<f32>, usize, Reduce, Duration),
    Spread(Vec<u8>, Duration),
    End(u8),
}

type Answer = Result<(Vec<Vec<u8>>, Vec<f32>), Silent>;

impl Port {
    /// Begins MPI, for which all ranks must come within `patience`.
    pub fn open(patience: Duration) -> Result<(Self, Place)> {
        let (jobs, inbox) = channel();
        let (outbox, answers) = channel();
        let (tell, told) = channel();
        let (end, ended) = channel();
        let work = move || {
            // Dropped last, after MPI has ended.
            let _end: Sender<()> = end;
            let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
                return;
            };
            let world = universe.world();
            let (rank, size) = (world.rank() as usize, world.size() as usize);
            let host = mpi::environment::processor_name().unwrap_or_else(|_| "?".to_owned());
            // Two hosts may have one name, and two containers of one host different ones.
            let mut node = rank as u64;
            let neighbours = world.split_shared(world.rank());
            neighbours.process_at_rank(0).broadcast_into(&mut node);
            let node = node as usize;
            drop(neighbours);
            let place = Place {
                rank,
                size,
                host,
                node,
            };
            let _ = tell.send(place);
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
        thread.map_err(|e| Error::Ranks(format!("no thread can be started: {e}")))?;
        let place = waiting::receive(&told, patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => Error::SilentRanks {
                ranks: format!(
                    "other ranks, for which MPI_Init waits in process {}",
                    std::process::id()
                ),
                seconds: patience.as_secs(),
            },
            RecvTimeoutError::Disconnected => {
                Error::Ranks("MPI cannot be begun a second time in a process".to_owned())
            }
        })?;
        let port = Self {
            way: Some(Mutex::new((jobs, answers))),
            ended: Mutex::new(ended),
            patience,
            name: format!("rank {} on {}", place.rank, place.host),
        };
        Ok((port, place))
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
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if waiting::receive(ended, self.patience) == Err(RecvTimeoutError::Timeout) {
            say::be_silent(false);
            say::print_error(&Error::SilentRanks {
                ranks: format!("other ranks, for which MPI_Finalize waits in {}", self.name),
                seconds: self.patience.as_secs(),
            });
            // The launcher ends the others.
            std::process::exit(1);
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
        if let Some(way) = &self.way {
            let way = way.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = way.0.send(Job::End(status));
            // MPI ends this process, too.
            let _ = waiting::receive(&way.1, TO_ABORT);
        }
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
                    let (words, sum) = self.sum(mine, to_bf16(&numbers), givers, wait);
                    (words, from_bf16(&sum))
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
        let mut waited = Waited::new();
        let mut words = vec![Vec::new(); self.size];
        scope(|scope| {
            let mut places: Vec<Option<&mut Vec<u8>>> = words.iter_mut().map(Some).collect();
            let mut bodies: Pending<'_, '_, u8> = Vec::new();
            loop {
                advance(&mut sent_words);
                advance(&mut numbers);
                advance(&mut bodies);
                from.retain(|rank| {
                    let probed = self.processes[*rank].immediate_matched_probe_with_tag(WORDS);
                    let Some((message, status)) = probed else {
                        return true;
                    };
                    let place = places[*rank].take().expect("a rank is asked once");
                    place.resize(status.count(u8::equivalent_datatype()) as usize, 0);
                    let body = message.immediate_matched_receive_into(scope, &mut place[..]);
                    bodies.push((*rank, body));
                    false
                });
                let words_are_here = sent_words.is_empty() && bodies.is_empty() && from.is_empty();
                if words_are_here && numbers.is_empty() {
                    return;
                }
                let waited = waited.now();
                if waited > wait {
                    let mut silent = from;
                    silent.extend(sent_words.iter().map(|(rank, _)| *rank));
                    silent.extend(bodies.iter().map(|(rank, _)| *rank));
                    silent.extend(numbers.iter().map(|(rank, _)| *rank));
                    silent.sort_unstable();
                    silent.dedup();
                    self.stuck(silent);
                }
                match waited < PATIENT {
                    true => std::thread::yield_now(),
                    false => std::thread::sleep((waited / 100).clamp(PAUSES[0], PAUSES[1])),
                }
            }
        });
        words
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
        let mut sum = from_bf16(&lists.next().unwrap_or_default());
        for list in lists {
            add_bf16_to(&mut sum, &list);
        }
        to_bf16(&sum)
    }
}

/// Leaves what has not arrived yet.
fn advance<T>(pending: &mut Pending<'_, '_, T>) {
    let all = std::mem::take(pending).into_iter();
    *pending = all
        .filter_map(|(rank, request)| Some((rank, request.test().err()?)))
        .collect();
}
