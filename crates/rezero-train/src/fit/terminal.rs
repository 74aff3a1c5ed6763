//! Burn's terminal interface puts the terminal in raw mode. There Ctrl-C is a key, which the
//! interface ignores.

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode, is_raw_mode_enabled};

/// Lets Ctrl-C raise a signal again once the interface is up.
#[cfg(unix)]
pub(super) fn keep_ctrl_c() {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    use std::io::IsTerminal;
    use std::time::Duration;

    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
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
                let _ = tcsetattr(&stdin, OptionalActions::Now, &modes);
                return;
            }
        }
    });
}

/// Other systems end a process in their own way.
#[cfg(not(unix))]
pub(super) fn keep_ctrl_c() {}

/// Gives the terminal back as it was before Burn's interface, if the interface still has it. The interface
/// does so itself when a run ends, but not when the process ends in another way.
pub(crate) fn restore() {
    if is_raw_mode_enabled().unwrap_or(false) {
        let _ = disable_raw_mode();
        let _ = execute!(std::io::stdout(), LeaveAlternateScreen, Show);
    }
}
