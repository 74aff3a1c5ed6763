//! A run's directory: recipe, environment, metrics, checkpoints.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::environment::Environment;
use super::inside::{self, SMALL, is_file, is_there};
use super::listing::Stage;
use super::write::{remove_temporary, write_atomic};
use super::{checkpoint, events, metrics};
use crate::error::{Error, Result};
use crate::say::say;

pub(super) const RECIPE: &str = "recipe.toml";
pub(super) const ENV: &str = "env.json";
pub(super) const LOCK: &str = "run.lock";
/// The file that marks a complete run.
pub const DONE: &str = "DONE";

const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A run directory, locked for this process.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Whether this process made the directory.
    made: bool,
    // Held until the process ends, however it ends.
    _lock: File,
}

impl RunDir {
    /// Creates the directory at `path`, which must not hold a run.
    ///
    /// # Errors
    ///
    /// If it cannot be created, holds a run, or is in use.
    pub fn create(path: &Path) -> Result<Self> {
        let run = Self::lock(path)?;
        if is_abandoned(path) {
            let all = path.join(checkpoint::DIR);
            fs::remove_dir_all(&all).map_err(|e| Error::io("remove", &all, e))?;
        }
        if holds_run(path) {
            return Err(run.fail(
                "holds a run already; continue it with `rezero train RUN --resume`, or choose another --run-dir",
            ));
        }
        Ok(run)
    }

    /// Opens the directory of an existing run.
    ///
    /// # Errors
    ///
    /// If there is no run, or it is in use.
    pub fn open(path: &Path) -> Result<Self> {
        recipe(path)?;
        Self::lock(path)
    }

    fn lock(path: &Path) -> Result<Self> {
        let made = !path.exists();
        let busy = || Error::Run {
            dir: path.to_owned(),
            message: "is in use by another process; wait for it, or choose another directory"
                .to_owned(),
        };
        Ok(Self {
            _lock: lock(path, LOCK, busy)?,
            path: path.to_owned(),
            made,
        })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the description of the run before its first step: its name, the sections of its
    /// recipe, and `env.json`. A resumed run writes them again.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn describe(
        &self,
        name: &str,
        recipe: &str,
        seed: u64,
        environment: &Environment,
    ) -> Result<()> {
        write_atomic(&self.path.join(ENV), &environment.to_json(seed))?;
        // Last: a directory with a recipe is a run.
        let text = format!("# {name}\n\n{recipe}");
        write_atomic(&self.path.join(RECIPE), text.as_bytes())
    }

    /// Whether the run is complete.
    pub fn is_done(&self) -> bool {
        is_file(&self.path.join(DONE))
    }

    /// Removes the mark of a complete run, so that the run can continue.
    ///
    /// # Errors
    ///
    /// If the mark cannot be removed.
    pub fn reopen(&self) -> Result<()> {
        checkpoint::remove_file(&self.path.join(DONE))
    }

    /// Marks the run as complete.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn done(&self, summary: &str) -> Result<()> {
        write_atomic(&self.path.join(DONE), format!("{summary}\n").as_bytes())
    }

    /// Removes what a kill may have left: parts of an unfinished checkpoint, and temporary files.
    ///
    /// # Errors
    ///
    /// If it cannot be removed.
    pub fn clean(&self) -> Result<()> {
        for path in checkpoint::torn(&self.path)? {
            checkpoint::remove(&path)?;
        }
        remove_temporary(&self.path)
    }

    /// Removes the files of the run.
    ///
    /// # Errors
    ///
    /// If a file cannot be removed. What is left is still a run.
    pub(super) fn remove(self) -> Result<()> {
        self.clean()?;
        for (_, path) in checkpoint::list(&self.path)? {
            checkpoint::remove(&path)?;
        }
        let _ = fs::remove_dir(self.path.join(checkpoint::DIR));
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let figure = [".json", ".csv", ".svg", ".png"]
                .iter()
                .any(|end| name.ends_with(end));
            if name.starts_with("jacobian") && figure {
                checkpoint::remove_file(&entry.path())?;
            }
        }
        events::remove(&self.path)?;
        // The recipe makes it a run: what is left of it then is no run, and its name is free.
        for name in [DONE, metrics::FILE, RECIPE, ENV, LOCK] {
            checkpoint::remove_file(&self.path.join(name))?;
        }
        Ok(())
    }

    /// Undoes [`create`](Self::create): the run could not begin.
    pub(super) fn give_up(self) {
        let made = self.made.then(|| self.path.clone());
        let _ = self.remove();
        if let Some(path) = made {
            let _ = fs::remove_dir(path);
        }
    }

    fn fail(&self, message: &str) -> Error {
        Error::Run {
            dir: self.path.clone(),
            message: message.to_owned(),
        }
    }
}

/// Creates the directory at `path`, unless it is there, and locks the file `name` in it.
///
/// # Errors
///
/// `busy`, if another process has the lock; or if a file cannot be created.
pub(super) fn lock(path: &Path, name: &str, busy: impl Fn() -> Error) -> Result<File> {
    let file = path.join(name);
    // A process that was killed a moment ago may hold its lock until its memory is freed.
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
        inside::check(path)?;
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        let lock = inside::open(&file, &mut options).map_err(|e| Error::io("open", &file, e))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => return Err(busy()),
            // Another process may have removed the directory, and with it this lock, meanwhile.
            Ok(()) if !is_at(&lock, &file) => {}
            Ok(()) => return Ok(lock),
            // Lustre and some NFS have no locks. Without one, nothing but care keeps two processes apart.
            Err(TryLockError::Error(e)) if has_no_locks(&e) => {
                say!(
                    "warning: the file system of {} has no locks ({e}): do not run two processes \
                     in this directory",
                    path.display()
                );
                return Ok(lock);
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &file, e)),
        }
    }
}

/// Whether the open file is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |meta: std::io::Result<fs::Metadata>| meta.ok().map(|m| (m.dev(), m.ino()));
        id(file.metadata()) == id(fs::metadata(path))
    }
    // Elsewhere an open file is not removed.
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// Whether an error of a lock says that the file system has none, or that its lock server is out of
/// reach: ENOSYS, EOPNOTSUPP and ENOLCK.
fn has_no_locks(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    let no_server = rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::NOLCK);
    #[cfg(not(unix))]
    let no_server = false;
    no_server || error.kind() == std::io::ErrorKind::Unsupported
}

/// The name of the run at `path` and the text of its recipe. Each command that takes a run begins with it.
///
/// # Errors
///
/// If there is no run, or a link, a pipe or a device is in the place of one of its files.
pub fn recipe(path: &Path) -> Result<(String, String)> {
    let file = path.join(RECIPE);
    if !is_there(&file) {
        let below = Path::new("runs").join(path);
        let meant = match path.is_relative() && below.join(RECIPE).exists() {
            true => format!("; did you mean {}?", below.display()),
            false if path.is_file() => {
                "; a file of weights becomes a run by `rezero import`".to_owned()
            }
            false => String::new(),
        };
        return Err(Error::Run {
            dir: path.to_owned(),
            message: format!("holds no run ({RECIPE} is missing){meant}"),
        });
    }
    inside::check(path)?;
    let bytes = inside::read(&file, SMALL).map_err(|e| Error::io("read", &file, e))?;
    let text = String::from_utf8(bytes).map_err(|e| Error::Run {
        dir: path.to_owned(),
        message: format!("its {RECIPE} is no text: {e}"),
    })?;
    let name = text.lines().next().and_then(|line| line.strip_prefix("# "));
    Ok((name.unwrap_or("run").to_owned(), text))
}

/// Writes a run's files of another host into `dir`: its recipe and environment. Returns the folder that it makes for the
/// checkpoint of that step.
///
/// # Errors
///
/// If they cannot be written.
pub(crate) fn copy(
    dir: &Path,
    recipe: &str,
    environment: Option<&Environment>,
    step: usize,
) -> Result<PathBuf> {
    write_atomic(&dir.join(RECIPE), recipe.as_bytes())?;
    if let Some(environment) = environment {
        let json = serde_json::to_vec(environment).expect("an environment is JSON");
        write_atomic(&dir.join(ENV), &json)?;
    }
    let to = checkpoint::of_step(dir, step);
    fs::create_dir_all(&to).map_err(|e| Error::io("create", &to, e))?;
    Ok(to)
}

/// The line of the mark of a complete run at `path`, if it has one.
pub fn summary(path: &Path) -> Option<String> {
    let text = inside::read(&path.join(DONE), SMALL).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Some(text.lines().next()?.to_owned())
}

/// Whether `path` holds any file of a run, even if the recipe is lost.
pub(super) fn holds_run(path: &Path) -> bool {
    [RECIPE, metrics::FILE, checkpoint::DIR]
        .iter()
        .any(|name| is_there(&path.join(name)))
}

/// Whether a process has begun a run with given weights here, and ended before it was one: there is step 0
/// alone, and nothing that tells what it is of.
fn is_abandoned(path: &Path) -> bool {
    let absent = |name: &&str| !is_there(&path.join(name));
    let is_dir = |at: &Path| fs::symlink_metadata(at).is_ok_and(|meta| meta.is_dir());
    let all = path.join(checkpoint::DIR);
    let of_step_0 = |entry: std::io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() == "step-0" && is_dir(&entry.path()))
    };
    [RECIPE, ENV, metrics::FILE].iter().all(absent)
        && is_dir(&all)
        && fs::read_dir(&all).is_ok_and(|mut entries| entries.all(of_step_0))
}

/// The content of `env.json` of the run at `path`, if the file exists and is complete.
pub fn environment(path: &Path) -> Option<Environment> {
    serde_json::from_slice(&inside::read(&path.join(ENV), SMALL).ok()?).ok()
}

/// The directory of a run that begins.
#[derive(Clone, Debug)]
pub enum NewRun {
    /// This one.
    At(PathBuf),
    /// `base/name`; after runs of that name `base/name-2`, `base/name-3`, ….
    Named {
        /// The folder of runs.
        base: PathBuf,
        /// The run's name.
        name: String,
    },
}

impl NewRun {
    /// The directory, as far as no other process takes it first.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::At(path) => path.clone(),
            Self::Named { base, name } => {
                let last = numbered(base, name).pop().map_or(0, |(n, _)| n);
                match last + 1 {
                    1 => base.join(name),
                    n => base.join(format!("{name}-{n}")),
                }
            }
        }
    }

    /// Creates the directory and locks it.
    ///
    /// # Errors
    ///
    /// If it cannot be created. If a directory was given, also if it holds a run or is in use.
    pub(super) fn create(&self) -> Result<RunDir> {
        loop {
            let path = self.path();
            // Another name would not help, and waiting neither.
            if is_there(&path) {
                inside::check(&path)?;
            }
            match (self, RunDir::create(&path)) {
                // Another process has begun a run of this name, maybe without its recipe yet.
                (Self::Named { .. }, Err(Error::Run { dir, .. })) if !holds_run(&dir) => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                (Self::Named { .. }, Err(Error::Run { .. })) => {}
                (_, result) => return result,
            }
        }
    }
}

/// The directories `base/name`, `base/name-2`, … that hold anything of a run, each with its number, in order.
fn numbered(base: &Path, name: &str) -> Vec<(usize, PathBuf)> {
    // A larger number is a user's, such as a date.
    const MOST: usize = 99_999;
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let mut found: Vec<(usize, PathBuf)> = entries
        .filter_map(|entry| {
            let n = match entry.file_name().to_str()?.strip_prefix(name)? {
                "" => 1,
                rest => rest.strip_prefix('-')?.parse().ok()?,
            };
            Some((n, entry.path()))
        })
        .filter(|(n, path)| (1..=MOST).contains(n) && holds_run(path))
        .collect();
    found.sort_unstable();
    found
}

/// The runs of the recipe `recipe` with that directory name below `base`, in order. (`x-2` may be the second
/// run of the recipe `x`, or the first one of a recipe `x-2`.)
pub fn of_name(base: &Path, name: &str, recipe: &str) -> Vec<PathBuf> {
    let all = numbered(base, name).into_iter().map(|(_, path)| path);
    let ours = |path: &PathBuf| self::recipe(path).is_ok_and(|(name, _)| name == recipe);
    all.filter(ours).collect()
}

/// Of the runs of one name, that to continue: the newest that is stopped; else one that runs, which will be
/// refused, one that diverged, or one that is done.
pub fn latest(runs: &[PathBuf]) -> Option<(PathBuf, Stage)> {
    let runs = runs
        .iter()
        .rev()
        .map(|path| (path.clone(), Stage::of(path)));
    let rank = |stage| match stage {
        Stage::Stopped => 0,
        Stage::Running => 1,
        Stage::Diverged => 2,
        Stage::Done => 3,
    };
    runs.min_by_key(|(_, stage)| rank(*stage))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn file_systems_without_locks_are_recognised() {
        use rustix::io::Errno;
        for errno in [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP] {
            assert!(has_no_locks(&errno.into()), "{errno}");
        }
        for errno in [Errno::ACCESS, Errno::AGAIN, Errno::IO, Errno::NOSPC] {
            assert!(!has_no_locks(&errno.into()), "{errno}");
        }
    }
}
