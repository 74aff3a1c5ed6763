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
    #[serde(default, with = "any_path")]
    pub data_dir: Option<PathBuf>,
    /// The file that `data.set = "text"` reads.
    #[serde(default, with = "any_path")]
    pub text: Option<PathBuf>,
    /// The device, as the backend names it.
    pub device: String,
    /// The processes that computed each step together, in the order of their ranks; none for one process alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<RankPlace>,
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
    #[serde(default, skip_serializing_if = "Option::is_none", with = "any_path")]
    pub grown_from: Option<PathBuf>,
    /// The checkpoint whose weights it began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_with: Option<BeganWith>,
}

/// Where a rank of a run was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankPlace {
    /// Its host.
    pub host: String,
    /// Its device, as the backend names it.
    pub device: String,
}

/// The checkpoint that gave a run its first weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BeganWith {
    /// Its run, as it was named.
    #[serde(with = "any_path")]
    pub run: Option<PathBuf>,
    /// Its step.
    pub step: usize,
    /// The SHA-256 of its weights.
    pub sha256: String,
}

/// The flag of a process that a sweep started, and that ends with it.
pub(crate) const OF_A_SWEEP: &str = "--of-sweep";
/// The option of such a process that says which data the sweep's other trials have.
pub(crate) const DATA_OF_A_SWEEP: &str = "--data-of-sweep";

/// The flag of a process that `rezero train --restarts` started.
pub(crate) const SUPERVISED: &str = "--supervised";

impl Environment {
    /// Whether the run's network began with new weights: not grown, imported, or with another run's.
    pub fn began_anew(&self) -> bool {
        let command = self.commands.first().and_then(|words| words.get(1));
        command.is_some_and(|command| command == "train") && self.began_with.is_none()
    }

    /// The environment of this process. If it continues a run, `before` is the run's environment:
    /// its commands come first, and its paths are taken over.
    pub fn here(before: Option<Self>) -> Self {
        let mut environment = before.unwrap_or_default();
        // Arguments that are no text are marked by the replacement character.
        let arguments = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        // The words by which a sweep starts its trials, and a supervisor its run: alone, a trial would wait for the sweep.
        let arguments = arguments.filter(|word| {
            word != OF_A_SWEEP && word != SUPERVISED && !word.starts_with(DATA_OF_A_SWEEP)
        });
        environment.commands.push(arguments.collect());
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

/// A path as its text or, if it is none (it may be any bytes on Unix), as serde writes an `OsString`:
/// `{"Unix": [bytes]}`. Both read back as they were.
mod any_path {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum AnyPath {
        Text(String),
        Raw(OsString),
    }

    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, s: S) -> Result<S::Ok, S::Error> {
        let path = path.clone().map(PathBuf::into_os_string);
        path.map(|path| path.into_string().map_or_else(AnyPath::Raw, AnyPath::Text))
            .serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
        let path = Option::<AnyPath>::deserialize(d)?;
        Ok(path.map(|path| match path {
            AnyPath::Text(text) => PathBuf::from(text),
            AnyPath::Raw(raw) => PathBuf::from(raw),
        }))
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
    /// Digits after the point in tables, at most 12.
    #[serde(deserialize_with = "at_most_12")]
    pub digits: usize,
    /// Whether a higher value is better.
    pub higher_is_better: bool,
}

/// A formatter refuses thousands of digits.
fn at_most_12<'de, D: serde::Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    Ok(usize::deserialize(d)?.min(12))
}

#[cfg(all(test, unix))]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn any_path_reads_back() {
        for bytes in [&b"/data/enwik8"[..], b"/data/\xff\xfe", b""] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let environment = Environment {
                text: Some(path.clone()),
                ..Environment::here(None)
            };
            let back: Environment = serde_json::from_slice(&environment.to_json(1)).unwrap();
            assert_eq!(back.text, Some(path));
            assert_eq!(back.data_dir, None);
        }
    }
}
