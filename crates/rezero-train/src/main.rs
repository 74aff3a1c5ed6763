//! The `rezero` command.

use std::process::ExitCode;

use rezero_train::cli::Cli;

/// Tests that are a part of the program, too.
#[cfg(feature = "conformance")]
#[path = "../tests/conformance/main.rs"]
mod conformance;

#[cfg(feature = "allocator")]
#[global_allocator]
static ALLOCATOR: rezero_kernels::allocator::Allocator = rezero_kernels::allocator::Allocator;

fn main() -> ExitCode {
    #[cfg(feature = "allocator")]
    rezero_kernels::allocator::keep_memory();
    #[cfg(feature = "persistence")]
    rezero_train::device::keep_kernels();
    #[cfg(feature = "conformance")]
    rezero_train::bring(rezero_train::Suite {
        choose: conformance::choose,
        tests: conformance::TESTS,
    });
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            rezero_train::print_usage(&error);
            return ExitCode::from(rezero_train::usage_status(&error));
        }
    };
    let Err(error) = rezero_train::run(cli) else {
        return ExitCode::SUCCESS;
    };
    rezero_train::print_error(&error);
    ExitCode::from(error.exit_code())
}
