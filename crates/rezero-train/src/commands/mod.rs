//! One file per subcommand.

pub mod devices;
pub mod eval;
pub mod fetch;
pub mod recipes;
pub mod train;

/// Prints a line; a reader that went away (`rezero recipes | head`) is no error.
macro_rules! out {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($arg)*);
    }};
}
pub(crate) use out;

/// Prints a line of progress or explanation to standard error, which may be closed.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}
pub(crate) use say;
