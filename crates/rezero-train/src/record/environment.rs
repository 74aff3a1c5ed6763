//! `env.json`: the environment in which a run was computed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::checkpoint::BURN_VERSION;

/// The facts about a run that `env.json` records, beside the recipe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    /// The command line of every process that worked on the run, the first one first.
    pub commands: Vec<Vec<String>>,
    /// The folder of the data, if it was given.
    #[serde(default)]
    pub data_dir: Option<PathBuf>,
    /// The file that `data.set = "text"` reads.
    #[serde(default)]
    pub text: Option<PathBuf>,
    /// The device, as the backend names it.
    pub device: String,
    /// The number of logical processors.
    pub processors: usize,
    /// The training data: name, images or bytes, SHA-256.
    pub data: String,
    /// Whether the data is a subset of the official set.
    pub subset: bool,
    /// The number of the model's parameters.
    pub parameters: usize,
    /// The task of the model, with its measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Described>,
    /// The run that it was grown from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grown_from: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process. If it continues a run, `before` is the run's environment:
    /// its commands come first, and its paths are taken over.
    pub fn here(before: Option<Self>) -> Self {
        let mut environment = before.unwrap_or_default();
        environment.commands.push(std::env::args().collect());
        environment.processors = std::thread::available_parallelism().map_or(1, usize::from);
        environment
    }

    /// The text of `env.json`.
    pub(super) fn to_json(&self, seed: u64) -> Vec<u8> {
        let file = EnvironmentFile {
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("REZERO_COMMIT"),
            dirty: env!("REZERO_DIRTY") == "true",
            burn: BURN_VERSION,
            rustc: env!("REZERO_RUSTC"),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            seed,
            environment: self,
        };
        serde_json::to_vec_pretty(&file).expect("an environment is JSON")
    }
}

#[derive(Serialize)]
struct EnvironmentFile<'a> {
    version: &'static str,
    commit: &'static str,
    dirty: bool,
    burn: &'static str,
    rustc: &'static str,
    os: &'static str,
    arch: &'static str,
    seed: u64,
    #[serde(flatten)]
    environment: &'a Environment,
}

/// A task as `env.json` records it, for reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// The name of the items.
    pub items: String,
    /// The unit of the loss, or empty.
    #[serde(default)]
    pub loss_unit: String,
    /// The measure's name in `metrics.jsonl`.
    pub key: String,
    /// Its name in figures.
    pub label: String,
    /// The factor for display.
    pub shown_times: f64,
    /// The sign after the displayed value.
    pub sign: String,
    /// Digits after the point in tables.
    pub digits: usize,
    /// Whether a higher value is better.
    pub higher_is_better: bool,
}
