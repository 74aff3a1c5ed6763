//! Burn's terminal interface puts the terminal in raw mode. There Ctrl-C is a key, which the
//! interface ignores.

use std::io::{IsTerminal, stdin, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::event::DisableMouseCapture;
use crossterm::execute;
use crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode, is_raw_mode_enabled, size};

/// The smallest terminal that the interface is drawn on.
const COLUMNS: u16 = 60;
const ROWS: u16 = 16;

/// Whether the interface has the terminal.
static DRAWN: AtomicBool = AtomicBool::new(false);

/// Set where nobody watches a screen: by CI services, and by Jupyter for the commands of a cell.
const UNWATCHED: [&str; 2] = ["CI", "JPY_PARENT_PID"];

/// Whether Burn's interface can be drawn: standard input and output are a terminal that can place text and is
/// large enough; it is this process's own, not that of a container, a detached session or another job in the
/// foreground; and its end would end the process.
pub(crate) fn can_draw() -> bool {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|value| value.is_empty() || value == "dumb");
    let large = || size().is_ok_and(|(columns, rows)| columns >= COLUMNS && rows >= ROWS);
    // Without the keys of the terminal, Ctrl-C would do nothing.
    stdout().is_terminal()
        && stdin().is_terminal()
        && is_ours()
        && !UNWATCHED.iter().any(set)
        && (!dumb || cfg!(windows))
        && large()
}

#[cfg(unix)]
fn is_ours() -> bool {
    use rustix::process::getpgrp;
    use rustix::termios::tcgetpgrp;

    let terminal = std::fs::File::open("/dev/tty");
    let in_front = terminal.is_ok_and(|tty| tcgetpgrp(tty).is_ok_and(|group| group == getpgrp()));
    // Where SIGHUP is ignored, the run shall outlive the terminal. The interface cannot.
    in_front && !super::stop::is_ignored(super::stop::SIGHUP)
}

#[cfg(not(unix))]
fn is_ours() -> bool {
    true
}

/// Notes that the interface has the terminal, and lets Ctrl-C raise a signal again.
pub(super) fn drawn() {
    DRAWN.store(true, Ordering::SeqCst);
    keep_ctrl_c();
}

/// To be called before the interface is made. Where the terminal is gone, the interface's thread panics, and
/// would panic once more while it says so, which ends the process without a checkpoint.
pub(super) fn survive_its_end() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        detach_if_gone();
        previous(info);
    }));
}

/// Directs what would be written to a terminal that is gone to nowhere.
#[cfg(unix)]
pub(super) fn detach_if_gone() {
    use rustix::io::Errno;
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
    use rustix::termios::tcgetattr;

    let gone = |result: rustix::io::Result<_>| result.is_err_and(|e| e == Errno::IO);
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null");
    let Ok(null) = null else { return };
    if gone(tcgetattr(stdin())) {
        let _ = dup2_stdin(&null);
    }
    if gone(tcgetattr(stdout())) {
        let _ = dup2_stdout(&null);
    }
    if gone(tcgetattr(std::io::stderr())) {
        let _ = dup2_stderr(&null);
    }
}

#[cfg(not(unix))]
fn detach_if_gone() {}

/// Lets Ctrl-C raise a signal again once the interface is up.
#[cfg(unix)]
fn keep_ctrl_c() {
    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
    use std::time::Duration;

    // The interface starts on a thread of its own and does not say when it is ready.
    std::thread::spawn(|| {
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(100));
            let stdin = stdin();
            let Ok(mut modes) = tcgetattr(&stdin) else {
                return;
            };
            if !modes.local_modes.contains(LocalModes::ISIG) {
                modes.local_modes |= LocalModes::ISIG;
                // Ctrl-Z and Ctrl-\ would leave the terminal as it is. 0 is no key.
                modes.special_codes[SpecialCodeIndex::VSUSP] = 0;
                modes.special_codes[SpecialCodeIndex::VQUIT] = 0;
                let _ = tcsetattr(&stdin, OptionalActions::Now, &modes);
                return;
            }
        }
    });
}

/// Other systems end a process in their own way.
#[cfg(not(unix))]
fn keep_ctrl_c() {}

/// Gives the terminal back as it was before Burn's interface. The interface does so itself when a run
/// ends, but not when the process ends in another way.
pub(super) fn restore() {
    if DRAWN.swap(false, Ordering::SeqCst) {
        // After a panic, the interface has left its screen, but has not shown the cursor again.
        if is_raw_mode_enabled().unwrap_or(false) {
            let _ = disable_raw_mode();
            let _ = execute!(stdout(), DisableMouseCapture, LeaveAlternateScreen);
        }
        let _ = execute!(stdout(), Show);
    }
}
