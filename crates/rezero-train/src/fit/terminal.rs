//! Burn's terminal interface puts the terminal in raw mode. There Ctrl-C is a key, which the
//! interface ignores.

use std::io::{IsTerminal, stdout};
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

/// Whether Burn's interface can be drawn: standard output is a terminal that can place text and is large
/// enough, and it is this process's own, not that of a container or a detached session.
pub(crate) fn can_draw() -> bool {
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|value| value.is_empty() || value == "dumb");
    #[cfg(unix)]
    let controlled = std::fs::File::open("/dev/tty").is_ok();
    #[cfg(not(unix))]
    let controlled = true;
    let large = || size().is_ok_and(|(columns, rows)| columns >= COLUMNS && rows >= ROWS);
    stdout().is_terminal()
        && controlled
        && !UNWATCHED.iter().any(set)
        && (!dumb || cfg!(windows))
        && large()
}

/// Notes that the interface has the terminal, and lets Ctrl-C raise a signal again.
pub(super) fn drawn() {
    DRAWN.store(true, Ordering::SeqCst);
    keep_ctrl_c();
}

/// Lets Ctrl-C raise a signal again once the interface is up.
#[cfg(unix)]
fn keep_ctrl_c() {
    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
    use std::time::Duration;

    if !stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return;
    }
    // The interface starts on a thread of its own and does not say when it is ready.
    std::thread::spawn(|| {
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(100));
            let stdin = std::io::stdin();
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
