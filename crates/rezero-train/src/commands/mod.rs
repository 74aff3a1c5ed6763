//! One file per subcommand.

pub mod bench;
pub mod devices;
pub mod eval;
pub mod export;
pub mod fetch;
pub mod grow;
pub mod import;
pub mod jacobian;
pub mod recipes;
pub mod report;
pub mod sample;
pub mod serve;
pub mod train;

pub(crate) use train::STACK_BYTES;

/// Prints a line of result. A reader that went away (`rezero recipes | head`) is no error; a result
/// that cannot be written is.
macro_rules! out {
    ($($arg:tt)*) => {{
        use std::io::Write;
        match writeln!(std::io::stdout(), $($arg)*) {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err($crate::error::Error::io("write to", "standard output", e));
            }
            _ => {}
        }
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
