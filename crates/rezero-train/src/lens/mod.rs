//! Jacobians of new networks and of runs, for `rezero jacobian` and reports.

mod fresh;
mod record;
mod run;

pub use fresh::{Fresh, OF_TRANSFORMERS, mlp, transformer};
pub use record::{LEGEND, Record, csv, figure, of, table};
pub use run::of_run;

/// The file of the records in a run's directory.
pub const FILE: &str = "jacobian.json";
