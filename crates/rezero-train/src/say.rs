//! Text for the user. All of it leaves the program here, or by the pages of a report and its figures. Names, recipes
//! and messages may come from a stranger's files, so no control character passes, and a line break in a name begins no
//! line of its own.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, LASTING};
use crate::record::SUPERVISED;
use crate::words::{in_lines, on_a_line};

/// Prints a line on standard error, where it does not mix with results. Standard error may be closed.
macro_rules! say {
    ($($arg:tt)*) => { $crate::say::message(&format!($($arg)*)) };
}
pub(crate) use say;

/// Prints a line of result. A closed pipe (`rezero recipes | head`) is no error. Any other failure
/// to write the result is an error.
macro_rules! out {
    ($($arg:tt)*) => { $crate::say::result(&format!($($arg)*))? };
}
pub(crate) use out;

/// Longer lines of an error's message are cut. Only a line that quotes a damaged file can be so long.
const LONGEST: usize = 2_000;

/// Whether another process says what this one would.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Makes this process print no message and no error, or print them again.
pub(crate) fn be_silent(silent: bool) {
    SILENT.store(silent, Ordering::SeqCst);
}

fn is_silent() -> bool {
    SILENT.load(Ordering::SeqCst)
}

pub(crate) fn message(line: &str) {
    if is_silent() {
        return;
    }
    let _ = writeln!(io::stderr(), "{}", on_a_line(line));
}

pub(crate) fn result(line: &str) -> Result<(), Error> {
    match writeln!(io::stdout(), "{}", on_a_line(line)) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(e)),
        _ => Ok(()),
    }
}

/// Prints a result of several lines.
pub(crate) fn results(lines: &str) -> Result<(), Error> {
    lines.trim_end().lines().try_for_each(result)
}

/// Makes what libraries log lines like ours: on standard error, without control characters, cut. `RUST_LOG` chooses
/// what is logged.
#[cfg(feature = "remote")]
pub(crate) fn write_log() {
    use tracing_subscriber::EnvFilter;

    struct Log;
    impl Write for Log {
        fn write(&mut self, event: &[u8]) -> io::Result<usize> {
            message(&log_line(event));
            Ok(event.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    // wgpu logs each of its resources.
    let filter = EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info,wgpu=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    // It fails if the program has a log already.
    let _ = log.with_ansi(false).with_writer(|| Log).try_init();
}

/// The line of an event, which is written at once. A client's first message may be in it, all of it.
#[cfg(any(feature = "remote", test))]
fn log_line(event: &[u8]) -> String {
    let begin = &event[..event.len().min(4 * LONGEST)];
    shortened(String::from_utf8_lossy(begin).trim_end())
}

/// Prints an error as the last words of the command. Standard error may be closed; the exit code says it too.
pub fn print_error(error: &Error) {
    if is_silent() {
        return;
    }
    // A stop that the user asked for is no error.
    let kind = match error {
        Error::Interrupted { .. } | Error::SweepStopped { .. } | Error::StoppedAtOnce => "",
        // The same of another rank.
        Error::OfRank { status: 129.., .. } => "",
        _ => "error: ",
    };
    let _ = writeln!(io::stderr(), "{kind}{}", told(&error.to_string()));
}

/// The exit status after a wrong command line, or after `--help`.
pub fn usage_status(error: &clap::Error) -> u8 {
    match error.use_stderr() {
        false => 0,
        // It would come again.
        true if std::env::args_os().any(|word| word == SUPERVISED) => LASTING,
        true => 1,
    }
}

/// Prints an error of the command line, which quotes its words.
pub fn print_usage(error: &clap::Error) {
    let text = error.render().to_string();
    let _ = match in_lines(&text) {
        // With its colours, where standard error is a terminal.
        Cow::Borrowed(_) => error.print(),
        Cow::Owned(shown) => io::stderr().write_all(shown.as_bytes()),
    };
}

/// A message whose lines after the first are indented: none of them can pass for another message.
fn told(message: &str) -> String {
    let lines: Vec<String> = message.lines().map(shortened).collect();
    in_lines(&lines.join("\n  ")).into_owned()
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_message_passes_for_another() {
        let name = "run\nerror: all is well\r\u{1b}[2Jgone";
        assert_eq!(
            told(&format!("no run in {name}")),
            "no run in run\n  error: all is well\\r\\u{1b}[2Jgone"
        );
        let event = ["refused ", &"\u{1b}\n".repeat(1 << 20), "\n"].concat();
        assert_eq!(log_line(event.as_bytes()).chars().count(), LONGEST + 1);
        assert_eq!(log_line(b"refused\n"), "refused");
        let error = Error::io("read", name, io::Error::other("x"));
        assert!(!told(&error.to_string()).contains('\n'), "{error}");
        assert_eq!(
            told(&"ä".repeat(3_000)),
            format!("{}…", "ä".repeat(LONGEST))
        );
    }
}
