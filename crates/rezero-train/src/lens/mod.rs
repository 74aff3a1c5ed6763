//! Jacobians of new networks and of runs: what `rezero jacobian` prints and reports show.

mod fresh;
mod record;
mod run;

pub use fresh::{Fresh, OF_TRANSFORMERS, mlp, transformer};
pub use record::{Record, csv, figure, table};
pub use run::of_run;

/// The records of a run, in its directory.
pub const FILE: &str = "jacobian.json";
