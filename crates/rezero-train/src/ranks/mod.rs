//! Processes that compute each step together, the ranks of an MPI job: `mpirun -n 4 rezero train …`.
//!
//! Every rank has a replica of the model and computes its share of each step's batch. The gradients are then
//! added in the order of the ranks, so that n ranks get the bits of one process with `train.accumulate = n`.
//! All ranks have the same sum, so all take the same optimizer step, and all decide alike. Rank 0 writes the run
//! directory.
//!
//! [`Ranks`] is the one type that the trainer knows. Only the file `mpi.rs` knows MPI.

#[cfg(feature = "mpi")]
mod greeting;
#[cfg(feature = "mpi")]
mod mpi;
mod opening;
#[cfg(any(feature = "mpi", test))]
mod waiting;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::device::{in_words, panic_message};
use crate::error::{Error, Result};
use crate::recipe::Reduce;
use crate::record::RankPlace;
use crate::say::{self, say};

/// How long a rank waits for another by default. The first step of a device that compiles kernels is the longest.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// How often a rank that opens the data, which it may be downloading, tells the others that it is still at it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// The part of a file that is sent at once.
const PIECE: usize = 16 << 20;

/// The ranks that did not answer in time.
type Silent = Vec<usize>;

/// What carries bytes between ranks. After an error, only [`end`](Self::end) may be called.
trait Link: Send + Sync {
    /// Everybody's bytes, in the order of the ranks.
    fn gather(&self, mine: Vec<u8>, wait: Duration) -> Result<Vec<Vec<u8>>, Silent>;

    /// Everybody's bytes, and the sum of the numbers of the first `givers` ranks, added in their order in f32. The numbers travel as
    /// `reduce`.
    fn sum(
        &self,
        mine: Vec<u8>,
        numbers: Vec<f32>,
        givers: usize,
        reduce: Reduce,
        wait: Duration,
    ) -> Result<(Vec<Vec<u8>>, Vec<f32>), Silent>;

    /// The bytes of rank 0.
    fn spread(&self, bytes: Vec<u8>, wait: Duration) -> Result<Vec<u8>, Silent>;

    /// Ends all processes.
    fn end(&self, status: u8) -> !;
}

/// The processes that compute each step together, and this one's place among them.
///
/// ```
/// use rezero_train::ranks::Ranks;
///
/// let alone = Ranks::alone();
/// assert_eq!((alone.rank(), alone.size()), (0, 1));
/// assert_eq!(alone.share(10), 0..10);
/// ```
#[derive(Clone)]
pub struct Ranks {
    rank: usize,
    hosts: Arc<[String]>,
    /// For each rank the first rank on its host.
    nodes: Arc<[usize]>,
    patience: Duration,
    link: Option<Arc<dyn Link>>,
    traffic: Arc<Mutex<Traffic>>,
}

impl std::fmt::Debug for Ranks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.size())
    }
}

/// What a rank has sent, and how long it has waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Traffic {
    /// Bytes of gradients that this rank has sent.
    pub bytes: u64,
    /// Time in communication, with the wait for slower ranks.
    pub time: Duration,
}

/// An error of a rank on its way to the others.
#[derive(Serialize, Deserialize)]
struct Failure {
    message: String,
    status: u8,
}

/// The number of processes that a launcher has started together with this one, and the variable that says so. Slurm sets
/// its variable for the tasks of `srun` alone, not for the script of `sbatch`.
fn launched() -> Option<(&'static str, usize)> {
    const SAY_SO: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];
    SAY_SO.into_iter().find_map(|name| {
        let number = std::env::var(name).ok()?.trim().parse().ok()?;
        (number > 1).then_some((name, number))
    })
}

/// Whether a variable of the environment tells a process its place in a job of MPI or a step of Slurm.
pub(crate) fn is_of_a_launcher(name: &str) -> bool {
    const BEGIN: [&str; 10] = [
        "OMPI_",
        "ORTE_",
        "PMI_",
        "PMI2_",
        "PMIX_",
        "PRTE_",
        "HYDI_",
        "HYDRA_",
        "MPI_LOCAL",
        "SLURM_STEP",
    ];
    const NAMES: [&str; 6] = [
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NODEID",
        "SLURM_GTIDS",
        "SLURM_TASK_PID",
        "SLURM_MPI_TYPE",
    ];
    BEGIN.iter().any(|begin| name.starts_with(begin)) || NAMES.contains(&name)
}

/// Refuses `command`, of which a launcher has started several.
///
/// # Errors
///
/// If there are several.
pub(crate) fn must_be_one(command: &str) -> Result<()> {
    match launched() {
        Some((name, n)) => Err(Error::Ranks(format!(
            "{n} processes of `rezero {command}` were started at once ({name}={n}), which would all do the same \
             work in the same place; start it once, without mpirun or srun"
        ))),
        None => Ok(()),
    }
}

impl Ranks {
    /// This process alone.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            hosts: [String::new()].into(),
            nodes: [0].into(),
            patience: PATIENCE,
            link: None,
            traffic: Arc::default(),
        }
    }

    /// The processes that mpirun or srun has started together with this one, or this one alone. A rank that does not
    /// answer for `patience` ends the run of all. `same` are values that all ranks must have alike, each with its name.
    /// From then on, ranks above 0 print nothing but their own errors.
    ///
    /// MPI ends when the last clone is dropped, and cannot be begun again in a process.
    ///
    /// # Errors
    ///
    /// If there are several processes, and this program is built without `mpi`, MPI finds another number of them, or
    /// they are not of one version, or differ in `same`.
    pub fn join(patience: Duration, same: &[(&str, String)]) -> Result<Self> {
        let Some((variable, number)) = launched() else {
            return Ok(Self::alone());
        };
        Self::begin(variable, number, patience, same)
    }

    #[cfg(not(feature = "mpi"))]
    fn begin(
        variable: &str,
        number: usize,
        _patience: Duration,
        _same: &[(&str, String)],
    ) -> Result<Self> {
        Err(Error::Ranks(format!(
            "{number} processes were started at once ({variable}={number}), and this program is built without MPI, so \
             that each would do the same work in the same place; build it with --features mpi (docs/CLUSTERS.md), start \
             it once, or let each do its own work with --alone (and, to train, a --run-dir)"
        )))
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.hosts.len()
    }

    /// Whether this process is rank 0, which writes the run directory and prints.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// The host of each rank.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The number of this process among those on its host, from 0.
    pub fn local_rank(&self) -> usize {
        let own = self.nodes[self.rank];
        let before = self.nodes[..self.rank].iter();
        before.filter(|node| **node == own).count()
    }

    /// The number of hosts.
    pub(crate) fn count_hosts(&self) -> usize {
        let first = |(rank, node): (usize, &usize)| rank == *node;
        self.nodes.iter().enumerate().filter(|r| first(*r)).count()
    }

    /// Where each rank is, where there are several; this one computes on `devices`.
    ///
    /// # Errors
    ///
    /// If a rank does not answer.
    pub(crate) fn described(&self, devices: &[Device]) -> Result<Vec<RankPlace>> {
        if self.size() == 1 {
            return Ok(Vec::new());
        }
        self.gather(&RankPlace {
            host: self.hosts[self.rank].clone(),
            device: in_words(devices),
        })
    }

    /// The number of processes of this host, this one among them, that may use the same processors: a launcher may bind
    /// each to some.
    ///
    /// # Errors
    ///
    /// If a rank does not answer.
    pub(crate) fn share_processors(&self) -> Result<usize> {
        // Linux says which; elsewhere nothing is bound.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = |line: &&str| line.starts_with("Cpus_allowed_list:");
        let own = status.lines().find(allowed).unwrap_or_default();
        let all: Vec<String> = self.gather(&own)?;
        let beside = all.iter().zip(self.nodes.iter());
        let own = (own, self.nodes[self.rank]);
        Ok(beside
            .filter(|(list, node)| (&***list, **node) == own)
            .count())
    }

    /// What this process has sent so far.
    pub(crate) fn traffic(&self) -> Traffic {
        *self.counted()
    }

    /// This rank's rows of a batch of `rows`: the first ranks have one more where the rest does not divide. Of fewer rows
    /// than ranks, a rank that would have none has the first, too, and its results are left out.
    pub fn share(&self, rows: usize) -> Range<usize> {
        match part(rows, self.rank, self.size()) {
            none if none.is_empty() => 0..rows.min(1),
            own => own,
        }
    }

    /// The result of each rank, if all have one.
    ///
    /// # Errors
    ///
    /// The error of the first rank that has one, the same on all.
    pub(crate) fn agree<T>(&self, result: Result<T>) -> Result<T> {
        // A rank that has lost others can tell nobody.
        if self.link.is_none() || matches!(result, Err(Error::SilentRanks { .. })) {
            return result;
        }
        let failure = result.as_ref().err().map(|error| Failure {
            message: error.to_string(),
            status: error.exit_code(),
        });
        let all: Vec<Option<Failure>> = self.gather(&failure)?;
        let mut failed = all.into_iter().enumerate();
        match failed.find_map(|(rank, failure)| Some((rank, failure?))) {
            None => result,
            Some((rank, Failure { message, status })) => Err(self.of_rank(rank, &message, status)),
        }
    }

    /// Checks that all ranks have the same values, each with its name.
    ///
    /// # Errors
    ///
    /// The first rank that has another value than rank 0, the same error on all.
    pub(crate) fn same(&self, values: &[(&str, &str)]) -> Result<()> {
        if self.link.is_none() {
            return Ok(());
        }
        let all: Vec<Vec<String>> =
            self.gather(&values.iter().map(|(_, v)| *v).collect::<Vec<_>>())?;
        for (rank, theirs) in all.iter().enumerate() {
            for (i, (name, _)) in values.iter().enumerate() {
                if theirs.get(i) != all[0].get(i) {
                    return Err(self.differs(rank, name, &theirs[i], &all[0][i]));
                }
            }
        }
        Ok(())
    }

    /// Runs `work` on rank 0, then on the first rank of each other host, then on the rest: what one has downloaded,
    /// the others find. It may take any time: those at work give a sign of life every second.
    ///
    /// # Errors
    ///
    /// The error of the first rank that has one, the same on all.
    pub(crate) fn in_turn<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let turn = match (self.rank, self.local_rank()) {
            (0, _) => 0,
            (_, 0) => 1,
            _ => 2,
        };
        let mut work = Some(work);
        let mut done = None;
        for now in 0..3 {
            done = self.turn(work.take_if(|_| now == turn))?.or(done);
        }
        done.ok_or_else(|| Error::Training("a rank had no turn".to_owned()))
    }

    /// Runs `work` on rank 0 alone, which may take any time.
    ///
    /// # Errors
    ///
    /// The error of `work`, the same on all.
    pub(crate) fn on_first<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<Option<T>> {
        self.turn(self.leads().then_some(work))
    }

    /// Runs the `work` of those that have some, while the others wait.
    fn turn<T: Send>(&self, work: Option<impl FnOnce() -> Result<T> + Send>) -> Result<Option<T>> {
        let done = match work {
            Some(work) if self.link.is_none() => work().map(Some),
            Some(work) => self.with_signs_of_life(work).map(Some),
            None if self.link.is_none() => Ok(None),
            None => self.while_others_work().map(|()| None),
        };
        self.agree(done)
    }

    /// Does the work of a turn on a thread of its own, and tells the others that it goes on.
    fn with_signs_of_life<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let (at_work, ended) = channel::<()>();
            let worker = std::thread::Builder::new().spawn_scoped(scope, move || {
                let _at_work = at_work;
                work()
            });
            let mut said = Instant::now();
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(SIGN_OF_LIFE) {
                if let Err(error) = self.somebody_works(true, &mut said) {
                    // Not by way of the worker's end, for which a return from here would wait.
                    return Err(self.clone().end(error));
                }
            }
            let result = match worker.map(ScopedJoinHandle::join) {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(Error::Training(panic_message(panic.as_ref()).to_owned())),
                Err(e) => Err(Error::Ranks(format!("no thread can be started: {e}"))),
            };
            self.while_others_work()?;
            result
        })
    }

    fn while_others_work(&self) -> Result<()> {
        let mut said = Instant::now();
        while self.somebody_works(false, &mut said)? {}
        Ok(())
    }

    /// Whether a rank is at work. Says who is, if that takes long.
    fn somebody_works(&self, at_work: bool, said: &mut Instant) -> Result<bool> {
        let all: Vec<bool> = self.gather(&at_work)?;
        let busy: Vec<usize> = (0..self.size()).filter(|rank| all[*rank]).collect();
        if !busy.is_empty() && said.elapsed() > self.patience {
            *said = Instant::now();
            say!("waiting for the data of {}", self.named(&busy));
        }
        Ok(!busy.is_empty())
    }

    /// The value of rank 0, where `value` is Some.
    ///
    /// # Errors
    ///
    /// If a rank does not answer.
    pub(crate) fn of_first<T: Serialize + DeserializeOwned>(&self, value: Option<&T>) -> Result<T> {
        let bytes = value.map(to_bytes).unwrap_or_default();
        from_bytes(&self.spread(bytes)?)
    }

    /// The files of rank 0, which are at `from` there, in the directory `to` of all other ranks.
    ///
    /// # Errors
    ///
    /// If a rank does not answer, or a file cannot be read or written, the same error on all.
    pub(crate) fn copy_files(&self, from: Option<&Path>, to: Option<&Path>) -> Result<()> {
        let listed = from.map(files_in).transpose();
        let names = self.agree(listed)?;
        let names: Vec<String> = self.of_first(Some(&names.unwrap_or_default()))?;
        for name in names {
            let open = || -> Result<Option<(File, PathBuf)>> {
                let at = |dir: &Path, action, open: fn(&PathBuf) -> std::io::Result<File>| {
                    let path = dir.join(&name);
                    let file = open(&path).map_err(|e| Error::io(action, &path, e))?;
                    Ok(Some((file, path)))
                };
                match (from, to) {
                    (Some(from), _) => at(from, "read", |path| File::open(path)),
                    (None, Some(to)) => at(to, "write", |path| File::create(path)),
                    (None, None) => Ok(None),
                }
            };
            let mut opened = self.agree(open())?;
            loop {
                let mut piece = Vec::new();
                let mut result = Ok(());
                if let (Some((file, path)), true) = (&mut opened, from.is_some()) {
                    let read = (&*file).take(PIECE as u64).read_to_end(&mut piece);
                    result = read.map(drop).map_err(|e| Error::io("read", &*path, e));
                }
                self.agree(result)?;
                let piece = self.spread(piece)?;
                if piece.is_empty() {
                    break;
                }
                let mut result = Ok(());
                if let (Some((file, path)), true) = (&mut opened, from.is_none()) {
                    let written = file.write_all(&piece);
                    result = written.map_err(|e| Error::io("write", &*path, e));
                }
                self.agree(result)?;
            }
        }
        Ok(())
    }

    /// Everybody's value, in the order of the ranks.
    ///
    /// # Errors
    ///
    /// If a rank does not answer.
    pub(crate) fn gather<T: DeserializeOwned>(&self, mine: &impl Serialize) -> Result<Vec<T>> {
        let mine = to_bytes(mine);
        let Some(link) = &self.link else {
            return Ok(vec![from_bytes(&mine)?]);
        };
        let begun = Instant::now();
        let all = link
            .gather(mine, self.patience)
            .map_err(|ranks| self.silent(ranks))?;
        self.counted().time += begun.elapsed();
        all.iter().map(|bytes| from_bytes(bytes)).collect()
    }

    /// Everybody's bytes, and the sum of the numbers of the first `givers` ranks in their order:
    /// ((x₀ + x₁) + x₂) + …, in f32. As bf16, the numbers and the sum are rounded, on all ranks alike.
    ///
    /// # Errors
    ///
    /// If a rank does not answer.
    pub(crate) fn sum(
        &self,
        mine: Vec<u8>,
        numbers: Vec<f32>,
        givers: usize,
        reduce: Reduce,
    ) -> Result<(Vec<Vec<u8>>, Vec<f32>)> {
        let Some(link) = &self.link else {
            return Ok((vec![mine], numbers));
        };
        let (begun, count) = (Instant::now(), numbers.len());
        let sum = link
            .sum(mine, numbers, givers, reduce, self.patience)
            .map_err(|ranks| self.silent(ranks))?;
        let mut counted = self.counted();
        counted.time += begun.elapsed();
        counted.bytes += sent_by(self.rank, self.size(), givers, count, reduce);
        drop(counted);
        Ok(sum)
    }

    /// Everybody's numbers, in the order of the ranks.
    ///
    /// # Errors
    ///
    /// If a rank does not answer.
    pub(crate) fn numbers(&self, mine: Vec<f64>) -> Result<Vec<Vec<f64>>> {
        let Some(link) = &self.link else {
            return Ok(vec![mine]);
        };
        let begun = Instant::now();
        let bytes = mine.iter().flat_map(|x| x.to_le_bytes()).collect();
        let all = link
            .gather(bytes, self.patience)
            .map_err(|ranks| self.silent(ranks))?;
        self.counted().time += begun.elapsed();
        let numbers = |bytes: Vec<u8>| {
            let (numbers, _) = bytes.as_chunks::<8>();
            numbers.iter().map(|x| f64::from_le_bytes(*x)).collect()
        };
        Ok(all.into_iter().map(numbers).collect())
    }

    /// Ends this process's part in a run that failed, with this error. Where the other ranks do not know the error, it is printed, and
    /// the processes of all ranks end here; an error that all have is printed by rank 0 and returned.
    pub fn end(self, error: Error) -> Error {
        let Some(link) = &self.link else {
            return error;
        };
        if error.is_of_all_ranks() {
            say::print_error(&error);
            // Said before MPI ends, which waits for all ranks: the first exit status of a rank ends the others.
            say::be_silent(true);
            return error;
        }
        // What all ranks have after all is said by rank 0, which ends the others before they say it too.
        if !self.leads() {
            std::thread::sleep(Duration::from_millis(500));
        }
        say::be_silent(false);
        let status = error.exit_code();
        say::print_error(&match error {
            error if self.leads() => error,
            error @ Error::SilentRanks { .. } => error,
            error => self.of_rank(self.rank, &error.to_string(), status),
        });
        link.end(status)
    }

    /// Checks that each rank has a part of a step of `batch` rows.
    ///
    /// # Errors
    ///
    /// If there are more ranks than rows, the same error on all.
    pub(crate) fn must_have_rows(&self, batch: usize) -> Result<()> {
        self.agree(match batch < self.size() {
            false => Ok(()),
            true => Err(Error::RecipeValue {
                key: "train.batch".to_owned(),
                message: format!(
                    "must be at least the number of processes, each of which computes a part of every step: got \
                     batch={batch} and {} processes",
                    self.size()
                ),
            }),
        })
    }

    fn spread(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let Some(link) = &self.link else {
            return Ok(bytes);
        };
        let found = link.spread(bytes, self.patience);
        found.map_err(|ranks| self.silent(ranks))
    }

    fn counted(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent(&self, ranks: Vec<usize>) -> Error {
        Error::SilentRanks {
            ranks: self.named(&ranks),
            seconds: self.patience.as_secs(),
        }
    }

    fn named(&self, ranks: &[usize]) -> String {
        let named = ranks
            .iter()
            .map(|rank| format!("rank {rank} on {}", self.hosts[*rank]));
        named.collect::<Vec<_>>().join(", ")
    }

    fn of_rank(&self, rank: usize, message: &str, status: u8) -> Error {
        Error::OfRank {
            rank,
            host: self.hosts[rank].clone(),
            message: message.to_owned(),
            status,
        }
    }

    fn differs(&self, rank: usize, name: &str, theirs: &str, first: &str) -> Error {
        let of_0 = &self.hosts[0];
        let message =
            format!("has another {name} than rank 0 on {of_0}: {theirs} there, {first} on rank 0");
        self.of_rank(rank, &message, 1)
    }
}

/// Part `i` of `n` of `0..len`. Their lengths differ by one at most, the longer ones first.
pub(crate) fn part(len: usize, i: usize, n: usize) -> Range<usize> {
    let (each, more) = (len / n, len % n);
    let start = |i: usize| i * each + i.min(more);
    start(i)..start(i + 1)
}

/// The bytes that a rank sends in a sum of `count` numbers: its parts for the others, if it is one of the `givers`, and
/// the sum of its own part to each of them.
fn sent_by(rank: usize, size: usize, givers: usize, count: usize, reduce: Reduce) -> u64 {
    let own = part(count, rank, size).len();
    let given = if rank < givers { count - own } else { 0 };
    let width = match reduce {
        Reduce::F32 => size_of::<f32>(),
        Reduce::BF16 => size_of::<u16>(),
    };
    (width * (given + own * (size - 1))) as u64
}

fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("messages of ranks are JSON")
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let read = serde_json::from_slice(bytes);
    read.map_err(|e| Error::Ranks(format!("a message of another rank cannot be read: {e}")))
}

/// The names of the files in a directory.
fn files_in(dir: &Path) -> Result<Vec<String>> {
    let fail = |e| Error::io("read", dir, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_type().map_err(fail)?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Ranks that are threads.
    struct Threads {
        words: Vec<Mutex<Vec<u8>>>,
        all: Barrier,
    }

    struct Thread(usize, Arc<Threads>);

    impl Link for Thread {
        fn gather(&self, mine: Vec<u8>, _wait: Duration) -> Result<Vec<Vec<u8>>, Silent> {
            let Self(rank, threads) = self;
            *threads.words[*rank].lock().unwrap() = mine;
            threads.all.wait();
            let all = threads.words.iter();
            let all = all.map(|words| words.lock().unwrap().clone()).collect();
            threads.all.wait();
            Ok(all)
        }

        fn sum(
            &self,
            _mine: Vec<u8>,
            _numbers: Vec<f32>,
            _givers: usize,
            _reduce: Reduce,
            _wait: Duration,
        ) -> Result<(Vec<Vec<u8>>, Vec<f32>), Silent> {
            unreachable!()
        }

        fn spread(&self, bytes: Vec<u8>, wait: Duration) -> Result<Vec<u8>, Silent> {
            Ok(self.gather(bytes, wait)?.swap_remove(0))
        }

        fn end(&self, _status: u8) -> ! {
            unreachable!()
        }
    }

    /// What `work` returns on ranks that are on these hosts.
    fn on_ranks<T: Send>(nodes: &[usize], work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
        let threads = Arc::new(Threads {
            words: nodes.iter().map(|_| Mutex::default()).collect(),
            all: Barrier::new(nodes.len()),
        });
        std::thread::scope(|scope| {
            let started: Vec<_> = (0..nodes.len())
                .map(|rank| {
                    let ranks = Ranks {
                        rank,
                        hosts: nodes.iter().map(|node| format!("host{node}")).collect(),
                        nodes: nodes.into(),
                        patience: PATIENCE,
                        link: Some(Arc::new(Thread(rank, threads.clone()))),
                        traffic: Arc::default(),
                    };
                    let work = &work;
                    scope.spawn(move || work(ranks))
                })
                .collect();
            started.into_iter().map(|s| s.join().unwrap()).collect()
        })
    }

    #[test]
    fn the_first_rank_of_each_host_goes_before_the_others() {
        let nodes = [0, 0, 2, 2, 0];
        let order = Mutex::new(Vec::new());
        let places = on_ranks(&nodes, |ranks| {
            let own = || {
                // Long enough for signs of life.
                std::thread::sleep(Duration::from_millis(1_200) * u32::from(ranks.rank() == 2));
                order.lock().unwrap().push(ranks.rank());
                Ok(ranks.rank())
            };
            assert_eq!(ranks.in_turn(own).unwrap(), ranks.rank());
            let first = ranks.on_first(|| Ok(ranks.rank())).unwrap();
            assert_eq!(first, ranks.leads().then_some(0));
            (ranks.local_rank(), ranks.count_hosts())
        });
        assert_eq!(places, [(0, 2), (1, 2), (0, 2), (1, 2), (2, 2)]);
        let mut order = order.into_inner().unwrap();
        order[2..].sort_unstable();
        assert_eq!(order, [0, 2, 1, 3, 4]);
    }

    #[test]
    fn an_error_in_a_turn_is_that_of_all() {
        let errors = on_ranks(&[0, 1, 1], |ranks| {
            let work = || match ranks.rank() {
                1 => panic!("no disk"),
                rank => Ok(rank),
            };
            ranks.in_turn(work).unwrap_err().to_string()
        });
        for error in errors {
            assert_eq!(error, "rank 1 on host1: training failed: no disk");
        }
    }

    #[test]
    fn variables_of_launchers_are_known() {
        for name in [
            "OMPI_COMM_WORLD_SIZE",
            "PMI_SIZE",
            "PMIX_RANK",
            "SLURM_STEP_NUM_TASKS",
            "SLURM_PROCID",
        ] {
            assert!(is_of_a_launcher(name), "{name}");
        }
        // Of the job, not of its step; of the user.
        for name in [
            "SLURM_JOB_ID",
            "SLURM_NTASKS",
            "CUDA_VISIBLE_DEVICES",
            "PATH",
        ] {
            assert!(!is_of_a_launcher(name), "{name}");
        }
    }

    #[test]
    fn parts_cover_all_and_differ_by_one_at_most() {
        for len in 0..40 {
            for n in 1..9 {
                let parts: Vec<Range<usize>> = (0..n).map(|i| part(len, i, n)).collect();
                assert_eq!(parts[0].start, 0);
                assert_eq!(parts[n - 1].end, len);
                assert!(parts.windows(2).all(|two| two[0].end == two[1].start));
                let lens = || parts.iter().map(Range::len);
                assert!(lens().max().unwrap() - lens().min().unwrap() <= 1);
                assert!(lens().is_sorted_by(|a, b| a >= b));
            }
        }
    }

    #[test]
    fn a_sum_costs_each_rank_what_a_ring_costs() {
        // 2 (n − 1) / n of the numbers, where all give.
        for (size, count) in [(2, 1_000), (4, 1_000), (8, 64_000)] {
            for rank in 0..size {
                let ring = 2 * 4 * count * (size - 1) / size;
                assert_eq!(sent_by(rank, size, size, count, Reduce::F32), ring as u64);
                let half = sent_by(rank, size, size, count, Reduce::BF16);
                assert_eq!(half, ring as u64 / 2);
            }
        }
        assert_eq!(sent_by(3, 4, 2, 1_000, Reduce::F32), 4 * 750);
    }
}
