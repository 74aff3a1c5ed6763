//! Running the `rezero` command in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rezero_train::metrics::Row;

/// A directory that goes away with the test.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The command, with `dir` as its working directory.
pub fn rezero(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rezero"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs the command to its end.
pub fn run(dir: &Path, args: &[&str]) -> Said {
    rezero(dir, args)
        .output()
        .expect("the command starts")
        .into()
}

/// Runs a command that must succeed.
pub fn succeed(dir: &Path, args: &[&str]) -> Said {
    let said = run(dir, args);
    assert_eq!(said.code, Some(0), "{args:?}: {said:?}");
    said
}

/// Runs a command that must fail with `code` and a message that has every one of `parts`.
pub fn fail(dir: &Path, args: &[&str], code: i32, parts: &[&str]) -> Said {
    let said = run(dir, args);
    assert_eq!(said.code, Some(code), "{args:?}: {said:?}");
    for part in parts {
        assert!(said.err.contains(part), "no `{part}` in: {}", said.err);
    }
    assert!(!said.err.contains("panicked"), "{}", said.err);
    said
}

/// CIFAR-10's layout with `records` drawn images a batch file.
pub fn cifar_layout(dir: &Path, records: usize) -> PathBuf {
    let data = dir.join("data");
    rezero_data::shapes::write_cifar_layout(&data, records, 7).expect("the layout is written");
    data
}

/// The rows of a run without their wall-clock fields.
pub fn rows(run: &Path) -> Vec<Row> {
    let mut rows = rezero_train::metrics::read(run).expect("metrics are read");
    for row in &mut rows {
        (row.items_per_s, row.warm_up_s, row.seconds) = (None, None, 0.0);
    }
    rows
}
