//! The files of a run: its directory, its checkpoints, its metrics.

pub mod checkpoint;
mod environment;
pub mod events;
pub(crate) mod inside;
pub mod listing;
pub mod metrics;
mod number;
mod opening;
pub mod optimizer_state;
mod parts;
pub mod run_dir;
mod state;
pub mod sweep;
mod weights;
mod write;

pub use checkpoint::Reader;
pub use environment::{BeganWith, Described, Environment, RankPlace};
pub(crate) use environment::{DATA_OF_A_SWEEP, OF_A_SWEEP, SUPERVISED};
pub use listing::Stage;
pub use metrics::{Communication, Row};
pub use opening::Opening;
pub use optimizer_state::OptimizerState;
pub use run_dir::{NewRun, RunDir};
pub use state::{LossScale, Reached, Score, State, Totals};
pub use weights::Weights;
pub use write::write_atomic;
pub(crate) use write::{alone_in, write_named};
