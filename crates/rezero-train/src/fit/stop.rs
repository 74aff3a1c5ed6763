//! Ctrl-C, SIGTERM, SIGHUP and SIGUSR1.
//!
//! | signal | first | repeated |
//! | - | - | - |
//! | SIGINT (Ctrl-C) | stops after the current step, with a checkpoint | ends the process at once, without one |
//! | SIGTERM, SIGHUP | stops after the current step, with a checkpoint | changes nothing: a scheduler may send it to a whole group, and twice |
//! | SIGXCPU (`ulimit -t`) | as SIGTERM | as SIGTERM |
//! | SIGUSR1, which mpirun hands on to all its processes, and Slurm's `--signal` sends | as SIGHUP | as SIGHUP |
//! | SIGTERM with [`OnTerm::Finish`] | changes nothing | changes nothing |
//!
//! A signal that the parent has set to be ignored, as `nohup` and a shell's `&` do, stays ignored.

use std::io::Read;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use burn::train::Interrupter;

use super::terminal;
use crate::error::Error;
use crate::say::say;

/// The effect of SIGTERM on a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnTerm {
    /// Stop after the current step, with a checkpoint
    #[default]
    Checkpoint,
    /// Go on to the end of the run
    Finish,
}

pub(super) const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
#[cfg(unix)]
const SIGXCPU: i32 = signal_hook::consts::SIGXCPU;
#[cfg(unix)]
const SIGUSR1: i32 = signal_hook::consts::SIGUSR1;

/// The signal that stopped the run, or 0.
static STOPPED_BY: AtomicI32 = AtomicI32::new(0);
/// The run that signals stop.
static RUN: Mutex<Option<(Interrupter, OnTerm)>> = Mutex::new(None);

/// An interrupter that signals stop.
pub(crate) fn on_signal(on_term: OnTerm) -> Interrupter {
    let interrupter = Interrupter::new();
    let mut run = RUN.lock().unwrap_or_else(PoisonError::into_inner);
    if run.replace((interrupter.clone(), on_term)).is_none() {
        listen();
    }
    STOPPED_BY.store(0, Ordering::SeqCst);
    interrupter
}

/// The exit status of a process that a signal has stopped: 128 and the signal, 130 for Ctrl-C.
pub(crate) fn status() -> u8 {
    match STOPPED_BY.load(Ordering::SeqCst) {
        0 => 130,
        signal => 128 + signal as u8,
    }
}

#[cfg(unix)]
fn listen() {
    let signals = [SIGHUP, SIGINT, SIGTERM, SIGXCPU, SIGUSR1];
    let wanted = signals.into_iter().filter(|signal| !is_ignored(*signal));
    // Without a handler, signals end the process; the last checkpoint stays.
    if let Ok(mut signals) = signal_hook::iterator::Signals::new(wanted) {
        std::thread::spawn(move || signals.forever().for_each(received));
    }
}

/// Makes a write beyond the limit of the size of files (`ulimit -f`, quotas) an error. Its signal would end
/// the process without a word.
pub(crate) fn survive_file_limits() {
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Default::default());
}

#[cfg(not(unix))]
fn listen() {
    let _ = ctrlc::set_handler(|| received(SIGINT));
}

/// Lets the sweep that started this process stop it by way of standard input: a byte stops the run as SIGTERM does,
/// and the end of the input ends the process at once.
pub(crate) fn obey_a_sweep() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|n| n == 1) {
            // Held, so that no run begins in the meantime.
            let run = RUN.lock().unwrap_or_else(PoisonError::into_inner);
            if run.is_none() {
                std::process::exit(128 + SIGTERM);
            }
            drop(run);
            received(SIGTERM);
        }
        std::process::exit(Error::StoppedAtOnce.exit_code().into());
    });
}

/// Whether this process was started with the signal ignored.
#[cfg(unix)]
pub(crate) fn is_ignored(signal: i32) -> bool {
    // Linux says so in a mask of hexadecimal digits. Elsewhere nothing says it without unsafe code.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

fn received(signal: i32) {
    let run = RUN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some((run, on_term)) = run else { return };
    if signal == SIGTERM && on_term == OnTerm::Finish {
        say!("SIGTERM: the run goes on to its end (--on-term finish)");
        return;
    }
    if signal == SIGINT {
        if STOPPED_BY.swap(SIGINT, Ordering::SeqCst) == SIGINT {
            terminal::restore();
            let error = Error::StoppedAtOnce;
            say!("{error}");
            std::process::exit(error.exit_code().into());
        }
        say!("stopping after this step; press Ctrl-C again to stop at once");
    } else {
        // A terminal that is closed raises SIGHUP.
        #[cfg(unix)]
        terminal::detach_if_gone();
        let first = STOPPED_BY.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
        if first.is_err() {
            return;
        }
        let name = match signal {
            SIGTERM => "SIGTERM",
            SIGHUP => "SIGHUP",
            #[cfg(unix)]
            SIGUSR1 => "SIGUSR1",
            _ => "SIGXCPU",
        };
        say!("{name}: stopping after this step, with a checkpoint");
    }
    run.stop(Some("interrupted"));
}
