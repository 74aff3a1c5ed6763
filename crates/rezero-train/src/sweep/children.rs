//! Runs as child processes, several at a time, of one process or of the ranks of an MPI job.
//!
//! Each child reads its standard input, which is a pipe from here: a byte asks it to stop with a checkpoint, and the end
//! of the pipe ends it at once. So a sweep that ends, however it ends, leaves no child behind, on any system. Children
//! have process groups of their own, so that a terminal's Ctrl-C reaches the sweep alone.
//!
//! Rank 0 has the jobs. The ranks meet in rounds: each says which of its children have ended and how many slots are free,
//! and rank 0 gives it jobs for them. A process alone does the same with itself.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn::train::Interrupter;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ranks::{self, Ranks};

/// A run to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub index: usize,
    /// The words after the program's name.
    pub words: Vec<OsString>,
}

/// A place for one child at a time.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// The device, if it is named.
    pub device: Option<String>,
    /// The number of its threads, if it is given.
    pub threads: Option<usize>,
}

/// A child that has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// The number of its job.
    pub index: usize,
    /// Its exit status; none if a signal ended it.
    pub code: Option<i32>,
    /// Its last message.
    pub said: String,
    /// How long it took.
    pub took: Duration,
}

/// What a rank says in a round.
#[derive(Serialize, Deserialize)]
struct Report {
    ended: Vec<Ended>,
    free: usize,
    /// Whether all its slots are.
    idle: bool,
    /// Whether it was asked to stop.
    stop: bool,
}

/// What rank 0 answers.
#[derive(Serialize, Deserialize)]
struct Order {
    /// The jobs for each rank.
    jobs: Vec<Vec<Job>>,
    /// Whether all children are to stop.
    stop: bool,
    /// Whether nothing is left to do.
    over: bool,
}

/// What the slots of this process share.
struct State {
    /// Jobs that no slot has taken yet.
    jobs: VecDeque<Job>,
    pipes: Vec<Option<ChildStdin>>,
    stopping: bool,
    over: bool,
}

struct Slots<'a> {
    slots: &'a [Slot],
    state: Mutex<State>,
    changed: Condvar,
}

/// Runs the jobs of rank 0, and calls `ended` there after each, with the rank that had it. True if a rank was interrupted:
/// the children have then been asked to stop, and have done so.
///
/// # Errors
///
/// If this program cannot be found, or a rank does not answer; its children have been ended then.
pub fn run(
    jobs: Vec<Job>,
    slots: &[Slot],
    interrupter: &Interrupter,
    ranks: &Ranks,
    ended: impl FnMut(usize, Ended),
) -> Result<bool> {
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e));
    let program = ranks.agree(program)?;
    let all = Slots {
        slots,
        state: Mutex::new(State {
            jobs: VecDeque::new(),
            pipes: slots.iter().map(|_| None).collect(),
            stopping: false,
            over: false,
        }),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let (outbox, inbox) = channel();
        for at in 0..slots.len() {
            let (outbox, all, program) = (outbox.clone(), &all, &program);
            scope.spawn(move || all.work(at, program, &outbox));
        }
        let stopped = all.meet(jobs.into(), &inbox, interrupter, ranks, ended);
        all.end();
        stopped
    })
}

impl Slots<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the jobs that a slot gets.
    fn work(&self, at: usize, program: &std::path::Path, outbox: &Sender<Ended>) {
        loop {
            let idle = |state: &mut State| state.jobs.is_empty() && !state.over;
            let waited = self.changed.wait_while(self.lock(), idle);
            let job = waited
                .unwrap_or_else(PoisonError::into_inner)
                .jobs
                .pop_front();
            let Some(job) = job else { return };
            let begun = Instant::now();
            let (code, said) = match start(program, &job, &self.slots[at]) {
                Ok(mut child) => {
                    {
                        let mut state = self.lock();
                        // Without its pipe, the child ends at once.
                        let pipe = child.stdin.take().filter(|_| !state.over);
                        let stopping = state.stopping;
                        state.pipes[at] = pipe;
                        if stopping {
                            ask(&mut state.pipes[at]);
                        }
                    }
                    let said = last_message(&mut child);
                    let status = child.wait();
                    self.lock().pipes[at] = None;
                    match status {
                        Ok(status) => (status.code(), said),
                        Err(e) => (None, e.to_string()),
                    }
                }
                Err(e) => (None, format!("cannot start {}: {e}", program.display())),
            };
            let _ = outbox.send(Ended {
                index: job.index,
                code,
                said,
                took: begun.elapsed(),
            });
        }
    }

    /// Meets the other ranks until all is done. Whether it was stopped.
    fn meet(
        &self,
        mut waiting: VecDeque<Job>,
        inbox: &Receiver<Ended>,
        interrupter: &Interrupter,
        ranks: &Ranks,
        mut ended: impl FnMut(usize, Ended),
    ) -> Result<bool> {
        /// The time between two rounds, if nothing happens: as soon is an interruption passed on.
        const PAUSE: Duration = Duration::from_millis(50);

        let mut busy = 0;
        loop {
            let first = inbox.recv_timeout(PAUSE).ok();
            let own: Vec<Ended> = first.into_iter().chain(inbox.try_iter()).collect();
            busy -= own.len();
            let reports: Vec<Report> = ranks.gather(&Report {
                ended: own,
                free: self.slots.len() - busy,
                idle: busy == 0,
                stop: interrupter.should_stop(),
            })?;
            let order = ranks
                .leads()
                .then(|| order(reports, &mut waiting, &mut ended));
            let Order {
                mut jobs,
                stop,
                over,
            } = ranks.of_first(order.as_ref())?;
            if over {
                return Ok(stop);
            }
            let own = std::mem::take(&mut jobs[ranks.rank()]);
            let mut state = self.lock();
            busy += own.len();
            state.jobs.extend(own);
            if stop && !state.stopping {
                state.stopping = true;
                // Another rank may be the one that was interrupted.
                interrupter.stop(None);
                // Those that a slot has not taken yet are as if they had not been given.
                busy -= state.jobs.len();
                state.jobs.clear();
                state.pipes.iter_mut().for_each(ask);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Ends the slots, and with the ends of their pipes the children that are left after an error.
    fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        state.jobs.clear();
        state.pipes.iter_mut().for_each(|pipe| *pipe = None);
        drop(state);
        self.changed.notify_all();
    }
}

/// What rank 0 answers to these reports of all ranks.
fn order(
    reports: Vec<Report>,
    waiting: &mut VecDeque<Job>,
    ended: &mut impl FnMut(usize, Ended),
) -> Order {
    let stop = reports.iter().any(|report| report.stop);
    let idle = reports.iter().all(|report| report.idle);
    let mut free: Vec<usize> = reports.iter().map(|report| report.free).collect();
    for (rank, report) in reports.into_iter().enumerate() {
        for event in report.ended {
            ended(rank, event);
        }
    }
    let mut jobs: Vec<Vec<Job>> = free.iter().map(|_| Vec::new()).collect();
    // One for each rank, then a second one where a rank has several slots.
    while !stop && !waiting.is_empty() && free.iter().any(|free| *free > 0) {
        for (rank, free) in free.iter_mut().enumerate().filter(|(_, free)| **free > 0) {
            let Some(job) = waiting.pop_front() else {
                break;
            };
            *free -= 1;
            jobs[rank].push(job);
        }
    }
    let none_given = jobs.iter().all(Vec::is_empty);
    Order {
        over: idle && none_given && (stop || waiting.is_empty()),
        jobs,
        stop,
    }
}

/// Asks a child to stop.
fn ask(pipe: &mut Option<ChildStdin>) {
    // A child that has ended does not read.
    if let Some(pipe) = pipe {
        let _ = pipe.write_all(b"s").and_then(|()| pipe.flush());
    }
}

fn start(program: &std::path::Path, job: &Job, slot: &Slot) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command.args(&job.words);
    if let Some(device) = &slot.device {
        command.args(["--device", device]);
    }
    // A child is no rank, whatever this process is.
    for (name, _) in std::env::vars_os() {
        if ranks::is_of_a_launcher(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    if let Some(threads) = slot.threads {
        command.env("RAYON_NUM_THREADS", threads.to_string());
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
    }
    command.spawn()
}

/// Reads what a child says to its end, and returns the last message: a line that is not indented, with the lines below it.
fn last_message(child: &mut Child) -> String {
    /// More of a line is not kept.
    const LONGEST: u64 = 4_000;

    let Some(pipe) = child.stderr.take() else {
        return String::new();
    };
    let (mut pipe, mut message) = (BufReader::new(pipe), String::new());
    loop {
        let mut line = Vec::new();
        match std::io::Read::take(&mut pipe, LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return message,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if line.starts_with("  ") && message.len() < LONGEST as usize {
            message.push(' ');
            message.push_str(line.trim_start());
        } else if !line.is_empty() {
            line.clone_into(&mut message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(free: usize, idle: bool) -> Report {
        Report {
            ended: Vec::new(),
            free,
            idle,
            stop: false,
        }
    }

    fn given(order: &Order) -> Vec<Vec<usize>> {
        let jobs = order.jobs.iter();
        jobs.map(|jobs| jobs.iter().map(|job| job.index).collect())
            .collect()
    }

    #[test]
    fn jobs_go_to_free_slots_in_order() {
        let mut waiting: VecDeque<Job> = (0..6)
            .map(|index| Job {
                index,
                words: Vec::new(),
            })
            .collect();
        let mut seen = Vec::new();
        let mut ended = |rank, event: Ended| seen.push((rank, event.index));
        let reports = vec![report(1, true), report(2, true), report(0, false)];
        let first = order(reports, &mut waiting, &mut ended);
        assert_eq!(given(&first), [vec![0], vec![1, 2], vec![]]);
        assert!(!first.over && !first.stop);
        let mut last = report(1, false);
        last.ended.push(Ended {
            index: 2,
            code: Some(0),
            said: String::new(),
            took: Duration::ZERO,
        });
        let reports = vec![report(0, false), last, report(1, true)];
        let next = order(reports, &mut waiting, &mut ended);
        assert_eq!(given(&next), [vec![], vec![3], vec![4]]);
        // One is asked to stop: no job is given, and all is over when all are idle.
        let stop = |free, idle| Report {
            stop: true,
            ..report(free, idle)
        };
        let reports = vec![stop(1, true), report(1, false), report(1, true)];
        let stopping = order(reports, &mut waiting, &mut ended);
        assert!(stopping.stop && !stopping.over);
        assert_eq!(given(&stopping), [vec![], vec![], Vec::<usize>::new()]);
        let reports = vec![stop(1, true), report(2, true), report(1, true)];
        let stopped = order(reports, &mut waiting, &mut ended);
        assert!(stopped.stop && stopped.over);
        assert_eq!((seen, waiting.len()), (vec![(1, 2)], 1));
    }
}
