//! The `rezero` command.

use std::io::Write;
use std::process::ExitCode;

use rezero_train::cli::Cli;
use rezero_train::error::Error;

#[cfg(feature = "allocator")]
#[global_allocator]
static ALLOCATOR: rezero_kernels::allocator::Allocator = rezero_kernels::allocator::Allocator;

/// Longer lines of a message are cut. Only a line that quotes a damaged file can be so long.
const LONGEST: usize = 2_000;

fn main() -> ExitCode {
    #[cfg(feature = "allocator")]
    rezero_kernels::allocator::keep_memory();
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors.
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let Err(error) = rezero_train::run(cli) else {
        return ExitCode::SUCCESS;
    };
    let message = error.to_string();
    // A damaged file may be quoted, and a terminal obeys control characters.
    let plain = |line: &str| line.replace(|c: char| c.is_control() && c != '\t', "?");
    let lines: Vec<String> = message
        .lines()
        .map(|line| plain(&shortened(line)))
        .collect();
    // A stop that the user asked for is no error.
    let kind = match error {
        Error::Interrupted { .. } | Error::StoppedAtOnce => "",
        _ => "error: ",
    };
    // Standard error may be closed; the exit code says it too.
    let _ = writeln!(std::io::stderr(), "{kind}{}", lines.join("\n"));
    ExitCode::from(error.exit_code())
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line.to_owned(),
    }
}
