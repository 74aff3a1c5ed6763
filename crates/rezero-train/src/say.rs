//! Messages to the user.

/// Prints a line on standard error, where it does not mix with results. Standard error may be closed.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}
pub(crate) use say;
