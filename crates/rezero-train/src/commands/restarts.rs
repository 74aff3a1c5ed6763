//! `rezero train --restarts N`: starts a run's process, or the launcher of its ranks, and starts it again where it was
//! lost.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{absolute, resume, say, train};
use crate::cli::Train;
use crate::error::{Error, LASTING, Result};
use crate::fit::OnTerm;
use crate::ranks;
use crate::record::{SUPERVISED, checkpoint, run_dir};
use crate::say as saying;
use crate::words;

/// The pause before the first restart. Each is twice the one before, up to the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// How often a process is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// How often a launcher is asked to stop.
#[cfg(unix)]
const AGAIN: Duration = Duration::from_secs(1);
/// So many restarts in a row that come to no further checkpoint are the last.
const IN_VAIN: usize = 2;

pub fn run(args: &Train, restarts: usize) -> Result<()> {
    ranks::must_be_one("train --restarts")?;
    // A wrong word, a wrong recipe and a directory that is taken are found here, once.
    let train::Place { dir, is_open, note } = train::place(args)?;
    if is_open {
        say!("run {}{note}", words::path(&dir));
    }
    let launcher = match &args.launcher {
        Some(text) => split(text)?,
        None => Vec::new(),
    };
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let mut begin: Vec<OsString> = launcher.iter().map(OsString::from).collect();
    // The process is in the background of a terminal, from which it cannot read.
    begin.extend([program.into_os_string(), "train".into(), "--plain".into()]);
    begin.push(SUPERVISED.into());
    if is_open || args.run_dir.is_some() {
        // A launcher may start it elsewhere.
        begin.extend(["--run-dir".into(), absolute(&dir)?.into_os_string()]);
    }
    let given = std::env::args_os()
        .skip(1)
        .skip_while(|word| word != "train");
    let words = without_flags(given.skip(1));
    let mut resumes = args.resume;
    let name = launcher.first().map_or("the process", String::as_str);

    let handing = Arc::new(Handing::new(args.on_term, !launcher.is_empty()));
    listen(&handing);
    let (mut done, mut in_vain, mut pause) = (0, 0, SHORTEST);
    loop {
        let before = newest(&dir);
        let added = (resumes && !args.resume).then(|| OsString::from("--resume"));
        // Before the words, among which `--` may be.
        let command: Vec<OsString> = begin.iter().chain(&added).chain(&words).cloned().collect();
        let Some(status) = handing.run(&command)? else {
            return ended(handing.status());
        };
        let code = status_of(status);
        if handing.asked().is_some() && code != 0 {
            return ended(handing.status());
        }
        match ending(code) {
            Ending::Done => return Ok(()),
            Ending::Final(status) => return ended(status),
            Ending::Lost => {}
        }
        let after = newest(&dir);
        in_vain = match done > 0 && after == before {
            true => in_vain + 1,
            false => 0,
        };
        let from = match after {
            Some(step) => format!("from step {step}"),
            None => "from the beginning".to_owned(),
        };
        let why = format!("{name} ended with the status {code}");
        let gave_up = |message: String| Error::Ended {
            message: format!(
                "{why}; {message}; its messages above say more; to continue: {}",
                resume(&dir)
            ),
            status: 1,
        };
        if in_vain == IN_VAIN {
            return Err(gave_up(format!(
                "not started again: {IN_VAIN} restarts in a row came to no further checkpoint"
            )));
        }
        if done == restarts {
            return Err(gave_up(format!(
                "not started again after {}",
                words::counted(restarts, "restarts")
            )));
        }
        done += 1;
        let wait = words::duration(pause);
        say!("{why}: restart {done} of {restarts} in {wait}, {from}");
        let begun = Instant::now();
        while begun.elapsed() < pause {
            if handing.asked().is_some() {
                return ended(handing.status());
            }
            std::thread::sleep(LOOK);
        }
        pause = (2 * pause).min(LONGEST);
        resumes |= run_dir::recipe(&dir).is_ok();
    }
}

/// The end of a process that has said why.
fn ended(status: u8) -> Result<()> {
    saying::be_silent(true);
    Err(Error::Ended {
        message: format!("the run ended with the status {status}"),
        status,
    })
}

/// The step of the run's last checkpoint.
fn newest(run: &Path) -> Option<usize> {
    Some(*checkpoint::list(run).ok()?.last_key_value()?.0)
}

/// How a process has ended.
#[derive(Debug, PartialEq)]
enum Ending {
    Done,
    /// It would end in the same way again, or was stopped on purpose; with the status to hand on.
    Final(u8),
    /// It was lost.
    Lost,
}

/// What an exit status says: that of `rezero train`, or of a launcher, which hands it on.
fn ending(code: i32) -> Ending {
    /// Of a diverged run.
    const DIVERGED: i32 = 3;

    match code {
        0 => Ending::Done,
        code if code == i32::from(LASTING) => Ending::Final(1),
        DIVERGED => Ending::Final(3),
        code if STOPS.iter().any(|signal| 128 + signal == code) => Ending::Final(code as u8),
        _ => Ending::Lost,
    }
}

/// The exit status as a shell says it: 128 and the number of the signal that ended the process.
fn status_of(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal = None::<i32>;
    status
        .code()
        .unwrap_or_else(|| 128 + signal.unwrap_or_default())
}

/// The words of a launcher's command, in which quotes hold a word together.
fn split(command: &str) -> Result<Vec<String>> {
    let bad = |message: &str| Error::Ranks(format!("--launcher {command:?} {message}"));
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match (quote, words.is_empty()) {
        (Some(_), _) => Err(bad("has a quote without an end")),
        (None, true) => Err(bad("names no program")),
        (None, false) => Ok(words),
    }
}

/// The words without the flags that are for this process, and those that it gives itself.
fn without_flags(mut words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    const WITH_VALUE: [&str; 3] = ["--restarts", "--launcher", "--run-dir"];

    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let flag = text.split('=').next().unwrap_or_default();
        match &*text {
            // No flag follows.
            "--" => {
                kept.push(word);
                kept.extend(words);
                return kept;
            }
            "--plain" => {}
            _ if WITH_VALUE.contains(&flag) => {
                if flag == text {
                    words.next();
                }
            }
            _ => kept.push(word),
        }
    }
    kept
}

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXCPU};
#[cfg(not(unix))]
const SIGINT: i32 = 2;

/// The signals that stop a run with a checkpoint.
#[cfg(unix)]
const STOPS: [i32; 5] = [SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXCPU];
#[cfg(not(unix))]
const STOPS: [i32; 1] = [SIGINT];

/// Hands signals on to the process that runs.
struct Handing {
    on_term: OnTerm,
    /// Whether the process is a launcher.
    to_launcher: bool,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    child: Option<Child>,
    /// The signal that asked for the end.
    asked: Option<i32>,
}

impl Handing {
    fn new(on_term: OnTerm, to_launcher: bool) -> Self {
        Self {
            on_term,
            to_launcher,
            now: Mutex::default(),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> Option<i32> {
        self.now().asked
    }

    /// The exit status after a signal.
    fn status(&self) -> u8 {
        128 + self.asked().unwrap_or(SIGINT) as u8
    }

    /// Runs a process to its end. `None` if the end was asked for before.
    fn run(&self, command: &[OsString]) -> Result<Option<ExitStatus>> {
        let (program, words) = command.split_first().expect("it names a program");
        let mut starting = Command::new(program);
        starting.args(words).stdin(Stdio::null());
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            // A terminal's Ctrl-C would reach a launcher twice, which then ends all at once.
            starting.process_group(0);
        }
        let started = |e| Error::io("start", program, e);
        // A signal waits until there is somebody to hand it on to.
        let mut now = self.now();
        if now.asked.is_some() {
            return Ok(None);
        }
        now.child = Some(starting.spawn().map_err(started)?);
        drop(now);
        #[cfg(unix)]
        let mut told = Instant::now();
        loop {
            let mut now = self.now();
            #[cfg(unix)]
            let asked = now.asked.is_some();
            let child = now.child.as_mut().expect("it was started above");
            let ended = child.try_wait();
            if let Some(status) = ended.map_err(|e| Error::io("wait for", program, e))? {
                now.child = None;
                return Ok(Some(status));
            }
            // A launcher loses a signal that comes while it starts its processes; these ignore a second one.
            #[cfg(unix)]
            if self.to_launcher && asked && told.elapsed() >= AGAIN {
                hand(child, SIGUSR1);
                told = Instant::now();
            }
            drop(now);
            std::thread::sleep(LOOK);
        }
    }

    fn received(&self, signal: i32) {
        let mut now = self.now();
        #[cfg(unix)]
        if signal == SIGTERM && self.on_term == OnTerm::Finish {
            say!("SIGTERM: the run goes on to its end (--on-term finish)");
            return;
        }
        let again = signal == SIGINT && now.asked == Some(SIGINT);
        let before = now.asked.replace(signal);
        #[cfg(unix)]
        if let Some(child) = &now.child {
            // A launcher hands SIGUSR1 on, upon which each rank stops with a checkpoint; after a Ctrl-C it would not wait
            // for that.
            let handed = match self.to_launcher && !again {
                true => SIGUSR1,
                false => signal,
            };
            if again || before.is_none() || !self.to_launcher {
                hand(child, handed);
            }
        }
        // Elsewhere a console's Ctrl-C reaches the process too.
        #[cfg(not(unix))]
        let _ = (again, before, self.on_term, self.to_launcher);
        if before.is_none() {
            say!("stopping, with a checkpoint if the run has begun");
        }
    }
}

#[cfg(unix)]
fn hand(child: &Child, signal: i32) {
    if let Some(named) = rustix::process::Signal::from_named_raw(signal) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), named);
    }
}

#[cfg(unix)]
fn listen(handing: &Arc<Handing>) {
    let wanted = STOPS
        .into_iter()
        .filter(|signal| !crate::fit::is_ignored(*signal));
    if let Ok(mut signals) = signal_hook::iterator::Signals::new(wanted) {
        let handing = handing.clone();
        std::thread::spawn(move || signals.forever().for_each(|s| handing.received(s)));
    }
}

#[cfg(not(unix))]
fn listen(handing: &Arc<Handing>) {
    let handing = handing.clone();
    let _ = ctrlc::set_handler(move || handing.received(SIGINT));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn launchers_are_split_as_a_shell_splits_them() {
        let split = |text| split(text).map_err(|e| e.to_string());
        let plain = split("mpirun  -n 8 --host a,b").unwrap();
        assert_eq!(plain, ["mpirun", "-n", "8", "--host", "a,b"]);
        let quoted = split(r#"srun --comment="two words" '' "it's""#).unwrap();
        assert_eq!(quoted, ["srun", "--comment=two words", "", "it's"]);
        assert!(split("mpirun 'a").unwrap_err().contains("quote"));
        assert!(split("  ").unwrap_err().contains("names no program"));
    }

    #[test]
    fn a_run_gets_the_other_words() {
        let given =
            "r --restarts 5 --plain steps=9 --launcher=mpirun --run-dir d --resume --restarts=2";
        let kept = without_flags(words(given).into_iter());
        assert_eq!(kept, words("r steps=9 --resume"));
        let mut given = words("r --launcher");
        given.extend(["mpirun -n 2".into(), "lr=1".into()]);
        assert_eq!(without_flags(given.into_iter()), words("r lr=1"));
        let given = "--restarts 5 -- r --plain";
        assert_eq!(
            without_flags(words(given).into_iter()),
            words("-- r --plain")
        );
    }

    #[test]
    fn what_is_started_again() {
        assert_eq!(ending(0), Ending::Done);
        assert_eq!(ending(3), Ending::Final(3));
        assert_eq!(ending(i32::from(LASTING)), Ending::Final(1));
        assert_eq!(ending(130), Ending::Final(130));
        // A launcher's own error; a lost device; an abort; SIGKILL.
        for code in [1, 4, 134, 137, 255] {
            assert_eq!(ending(code), Ending::Lost, "{code}");
        }
        #[cfg(unix)]
        assert_eq!(ending(143), Ending::Final(143));
    }
}
