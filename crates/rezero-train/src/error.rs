//! The errors of the trainer. A message says what is wrong, where it is, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::words::{self, on_a_line};

/// The exit status of a supervised process after an error that would come again: another one than that of a rank that
/// lost another, and of a launcher's own errors.
pub(crate) const LASTING: u8 = 78;

/// The exit status of errors that would come again.
static OF_LASTING: AtomicU8 = AtomicU8::new(1);

/// Lets the exit status tell errors that would come again from others.
pub(crate) fn tell_a_supervisor() {
    OF_LASTING.store(LASTING, Ordering::Relaxed);
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error that can stop a command. Its `Debug` output is its message, so a `main` that returns
/// this error prints the message.
#[derive(thiserror::Error)]
pub enum Error {
    /// No embedded recipe of that name.
    #[error("there is no recipe `{}`{} `rezero recipes` lists them, and a path to a .toml file works too", on_a_line(.name), did_you_mean(.nearest))]
    UnknownRecipe {
        /// The requested name.
        name: String,
        /// The recipes that were probably meant, the most likely first.
        nearest: Vec<String>,
    },
    /// A key that recipes do not have.
    #[error("unknown recipe key `{}`{} `rezero recipes --keys` lists all", on_a_line(.key), did_you_mean(.nearest.as_slice()))]
    UnknownKey {
        /// The given key.
        key: String,
        /// The most similar known name.
        nearest: Option<String>,
    },
    /// A value of the wrong type or out of range.
    #[error("recipe key `{}`: {message}", on_a_line(.key))]
    RecipeValue {
        /// The key.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A recipe file that does not parse.
    #[error("recipe `{}`: {message}", on_a_line(.name))]
    Recipe {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A device that cannot be used.
    #[error("device `{}`: {message}", on_a_line(.name))]
    Device {
        /// The requested name.
        name: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A benchmark that cannot be run.
    #[error("workload `{}`: {message}", on_a_line(.name))]
    Workload {
        /// The requested name.
        name: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A file system operation failed.
    #[error("cannot {action} {}: {source}{}", words::path(.path), io_remedy(.source))]
    Io {
        /// The operation that failed, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The result cannot be printed.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    /// The data set is not available or cannot be read.
    #[error(transparent)]
    Data(#[from] rezero_data::DataError),
    /// A run directory that cannot be used in this way.
    #[error("run {}: {message}", words::path(.dir))]
    Run {
        /// The directory.
        dir: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A sweep that cannot be made, or whose directory cannot be used in this way.
    #[error("sweep {}: {message}", words::path(.dir))]
    Sweep {
        /// The directory, or the file that describes the sweep.
        dir: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A sweep stopped by Ctrl-C or a signal.
    #[error("stopped, {ended} of {trials} trials have ended; continue with: {resume}")]
    SweepStopped {
        /// The trials that are done or diverged.
        ended: usize,
        /// All trials.
        trials: usize,
        /// The command that continues.
        resume: String,
        /// The process's exit status, as that of [`Interrupted`](Self::Interrupted).
        status: u8,
    },
    /// A checkpoint that cannot be used.
    #[error("checkpoint {}: {message}", words::path(.dir))]
    Checkpoint {
        /// The directory.
        dir: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// Weights that cannot be read, written or used.
    #[error("{hint}{source}")]
    Import {
        /// What is wrong with them.
        source: rezero_nn::torch::ImportError,
        /// The settings that would fit the weights, before the tensors that do not; or an empty text.
        hint: String,
    },
    /// A named model whose weights cannot be had.
    #[error(transparent)]
    Pretrained(#[from] rezero_nn::pretrained::PretrainedError),
    /// An argument of `rezero predict` that cannot be used.
    #[error("{} {message}", words::path(.path))]
    Predict {
        /// The file, or the flag.
        path: PathBuf,
        /// What is wrong and what to do, as the rest of a sentence.
        message: String,
    },
    /// A request for a Jacobian that cannot be fulfilled.
    #[error("{what}: {message}")]
    Jacobian {
        /// The network.
        what: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A Jacobian or its singular values cannot be computed.
    #[error("cannot take the Jacobian: {0}")]
    Spectrum(#[from] rezero_nn::JacobianError),
    /// A report that cannot be made.
    #[error("cannot report: {0}")]
    Report(String),
    /// Text cannot be sampled with these settings.
    #[error("cannot sample: {0}")]
    Sampling(#[from] rezero_nn::transformer::SamplingError),
    /// Devices whose results differ from Flex's.
    #[error("the check failed on {0}, as said above: do not train there")]
    SelfTest(String),
    /// An environment variable has a value that means nothing here.
    #[error("{0}")]
    Variable(String),
    /// Tests that failed, or that cannot be run.
    #[error("conformance: {0}")]
    Conformance(String),
    /// A device cannot be served.
    #[error("cannot serve: {0}")]
    Serve(String),
    /// A device's memory does not hold a step.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// A tensor of a step is larger than a buffer or a launch of the device may be.
    #[error("a tensor is too large for the device: {0}")]
    TooLarge(String),
    /// A device, or the connection to it, was lost during a run.
    #[error("device `{}` was lost ({message}); {kept}; continue with: {resume}", on_a_line(.name))]
    DeviceLost {
        /// The device.
        name: String,
        /// What its driver or the connection says.
        message: String,
        /// The checkpoint that is left.
        kept: String,
        /// What continues the run.
        resume: String,
    },
    /// A step could not be captured, and the device cannot go on from there.
    #[error(
        "a step could not be captured, and the device does not go on: {message}; {kept}; continue with run.capture=false: {resume}"
    )]
    Capture {
        /// What the device says.
        message: String,
        /// The checkpoint that is left.
        kept: String,
        /// What continues the run.
        resume: String,
    },
    /// Several processes cannot train together.
    #[error("{0}")]
    Ranks(String),
    /// A rank failed, and with it all. The same error is on every rank.
    #[error("{}{}", of_rank(*.rank, .host), .message)]
    OfRank {
        /// The rank.
        rank: usize,
        /// Its host.
        host: String,
        /// Its error.
        message: String,
        /// Its exit status.
        status: u8,
    },
    /// Ranks did not answer in time.
    #[error(
        "no answer for {seconds} s from {ranks}: dead, hanging or cut off; the last checkpoint stays (--rank-timeout sets the time)"
    )]
    SilentRanks {
        /// The ranks with their hosts.
        ranks: String,
        /// The time.
        seconds: u64,
    },
    /// A process that was started for a run has ended.
    #[error("{message}")]
    Ended {
        /// How it ended, and what to do.
        message: String,
        /// The exit status to hand on.
        status: u8,
    },
    /// Burn's training loop failed.
    #[error("training failed: {0}")]
    Training(String),
    /// The loss or a gradient is no longer finite.
    #[error("the run diverged at step {step}: {message}")]
    Diverged {
        /// The step whose loss or gradient was not finite.
        step: usize,
        /// The loss, the layer that diverged and what to try.
        message: String,
    },
    /// Stopped by a second Ctrl-C, or in the terminal interface.
    #[error("stopped at once; the last checkpoint stays")]
    StoppedAtOnce,
    /// Stopped by Ctrl-C or SIGTERM after a checkpoint.
    #[error("stopped at step {step}, saved; continue with: {resume}")]
    Interrupted {
        /// The last finished step.
        step: usize,
        /// The command that continues.
        resume: String,
        /// The process's exit status: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
        status: u8,
    },
}

impl From<rezero_nn::torch::ImportError> for Error {
    fn from(source: rezero_nn::torch::ImportError) -> Self {
        Self::Import {
            source,
            hint: String::new(),
        }
    }
}

impl Error {
    /// An [`Error::Io`].
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.as_ref().to_owned(),
            source,
        }
    }

    /// The process's exit status: 3 for a diverged run, 4 for one whose device was lost, 128 and the signal for a stopped one
    /// (130 for Ctrl-C), else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Diverged { .. } => 3,
            Self::DeviceLost { .. } => 4,
            Self::StoppedAtOnce => 130,
            Self::Interrupted { status, .. }
            | Self::SweepStopped { status, .. }
            | Self::Ended { status, .. }
            | Self::OfRank { status, .. } => *status,
            error if error.may_pass() => 1,
            _ => OF_LASTING.load(Ordering::Relaxed),
        }
    }

    /// Whether a process that continues the run may get further.
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::SilentRanks { .. } | Self::Training(_) | Self::OutOfMemory(_)
        )
    }

    /// Whether every rank of a run has this error: from numbers that all have, or by agreement.
    pub(crate) fn is_of_all_ranks(&self) -> bool {
        matches!(
            self,
            Self::Diverged { .. } | Self::Interrupted { .. } | Self::OfRank { .. }
        )
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The beginning of an error of another rank than the one that prints it.
fn of_rank(rank: usize, host: &str) -> String {
    match rank {
        0 => String::new(),
        rank => format!("rank {rank} on {}: ", on_a_line(host)),
    }
}

/// A question about the names that were probably meant, or a semicolon.
fn did_you_mean(nearest: &[String]) -> String {
    let quoted: Vec<String> = nearest
        .iter()
        .map(|name| format!("`{}`", on_a_line(name)))
        .collect();
    match quoted.split_last() {
        None => ";".to_owned(),
        Some((only, [])) => format!(", did you mean {only}?"),
        Some((last, others)) => format!(", did you mean {} or {last}?", others.join(", ")),
    }
}

fn io_remedy(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::*;
    match error.kind() {
        StorageFull => "; free some space and try again, what was complete before is intact",
        PermissionDenied | ReadOnlyFilesystem => "; it needs a directory that can be written",
        NotADirectory | AlreadyExists => "; a file stands where a directory is needed",
        _ => "",
    }
}
