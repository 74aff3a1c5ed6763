//! Runs as child processes, several at a time.
//!
//! Each child reads its standard input, which is a pipe from here: a byte asks it to stop with a checkpoint, and the end
//! of the pipe ends it at once. So a sweep that ends, however it ends, leaves no child behind, on any system. Children
//! have process groups of their own, so that a terminal's Ctrl-C reaches the sweep alone.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::train::Interrupter;

use crate::error::{Error, Result};

/// A run to start.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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

/// What is shared between the slots.
struct State {
    jobs: VecDeque<Job>,
    pipes: Vec<Option<ChildStdin>>,
    stopping: bool,
}

/// Runs the jobs, and calls `ended` after each. True if it was interrupted: the children have then been asked to stop, and
/// have done so.
///
/// # Errors
///
/// If this program cannot be found.
pub fn run(
    jobs: Vec<Job>,
    slots: &[Slot],
    interrupter: &Interrupter,
    mut ended: impl FnMut(Ended),
) -> Result<bool> {
    /// How soon an interruption is passed on.
    const PATIENCE: Duration = Duration::from_millis(50);

    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let state = Mutex::new(State {
        jobs: jobs.into(),
        pipes: slots.iter().map(|_| None).collect(),
        stopping: false,
    });
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let work = |at: usize, slot: &Slot, tell: &dyn Fn(Ended)| {
        loop {
            let job = {
                let mut state = lock();
                match state.stopping {
                    true => return,
                    false => state.jobs.pop_front(),
                }
            };
            let Some(job) = job else { return };
            let begun = Instant::now();
            let (code, said) = match start(&program, &job, slot) {
                Ok(mut child) => {
                    {
                        let mut state = lock();
                        let stopping = state.stopping;
                        state.pipes[at] = child.stdin.take();
                        if stopping {
                            ask(&mut state.pipes[at]);
                        }
                    }
                    let said = last_message(&mut child);
                    let status = child.wait();
                    lock().pipes[at] = None;
                    match status {
                        Ok(status) => (status.code(), said),
                        Err(e) => (None, e.to_string()),
                    }
                }
                Err(e) => (None, format!("cannot start {}: {e}", program.display())),
            };
            tell(Ended {
                index: job.index,
                code,
                said,
                took: begun.elapsed(),
            });
        }
    };
    std::thread::scope(|scope| {
        let (outbox, inbox) = channel();
        for (at, slot) in slots.iter().enumerate() {
            let (outbox, work) = (outbox.clone(), &work);
            scope.spawn(move || {
                let tell = |event| {
                    let _ = outbox.send(event);
                };
                work(at, slot, &tell);
            });
        }
        drop(outbox);
        loop {
            match inbox.recv_timeout(PATIENCE) {
                Ok(event) => ended(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let mut state = lock();
            if interrupter.should_stop() && !state.stopping {
                state.stopping = true;
                state.pipes.iter_mut().for_each(ask);
            }
        }
        let stopped = lock().stopping;
        Ok(stopped)
    })
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
