//! Ctrl-C and SIGTERM.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::train::Interrupter;

/// The first SIGINT or SIGTERM stops after the current step, a second one at once.
pub(crate) fn on_signal() -> Interrupter {
    static STOPPING: AtomicBool = AtomicBool::new(false);
    let interrupter = Interrupter::new();
    let handle = interrupter.clone();
    // Fails only if a handler is set already. That handler then stops the process.
    let _ = ctrlc::set_handler(move || {
        if STOPPING.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        let _ = writeln!(
            std::io::stderr(),
            "stopping after this step; press Ctrl-C again to stop at once"
        );
        handle.stop(Some("interrupted"));
    });
    interrupter
}
