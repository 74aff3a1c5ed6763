//! Files that describe a sweep.

use std::path::Path;

use serde::Deserialize;

use super::words::Word;
use crate::error::{Error, Result};

/// The most bytes of such a file.
const MOST: u64 = 1 << 20;

/// A sweep as a file describes it.
///
/// ```toml
/// recipe = "enwik8-tiny"
/// set = ["lr=5e-4,1e-3", "steps=400", "seed=1..3"]
/// tune = ["lr"]
///
/// [[arm]]
/// name = "rezero-1"
/// label = "ReZero, α = 1"
/// set = ["scheme=rezero", "alpha_init=1"]
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Described {
    /// The recipe: a name, or the path of a file, from the folder of this file.
    pub recipe: String,
    /// `KEY=VALUE,VALUE`
    #[serde(default)]
    pub set: Vec<String>,
    /// The keys that are tuned.
    #[serde(default)]
    pub tune: Option<Vec<String>>,
    /// Arms that differ in more than one key.
    #[serde(default)]
    pub arm: Vec<Arm>,
}

/// An arm with a name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// The beginning of the names of its trials.
    pub name: String,
    /// What reports call it; its name, if it has none.
    #[serde(default)]
    pub label: Option<String>,
    /// `KEY=VALUE`
    pub set: Vec<String>,
}

impl Described {
    /// Whether the file at `path` describes a sweep: it has `recipe` outside of any section, which no recipe has.
    pub fn is_at(path: &Path) -> bool {
        let is_toml = path.extension().is_some_and(|end| end == "toml");
        is_toml && Self::table(path).is_ok_and(|table| table.contains_key("recipe"))
    }

    fn table(path: &Path) -> Result<toml::Table> {
        let bad = |message: String| Error::Sweep {
            dir: path.to_owned(),
            message,
        };
        let meta = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
        if !meta.is_file() || meta.len() > MOST {
            return Err(bad(format!("is no file of at most {MOST} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        text.parse()
            .map_err(|e: toml::de::Error| bad(format!("does not parse: {}", e.message())))
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// If it does not parse, or has an unknown key.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |message: String| Error::Sweep {
            dir: path.to_owned(),
            message,
        };
        let mut found: Self = Self::table(path)?
            .try_into()
            .map_err(|e: toml::de::Error| bad(e.message().to_owned()))?;
        if found.recipe.ends_with(".toml")
            && let Some(folder) = path.parent()
        {
            found.recipe = folder.join(&found.recipe).to_string_lossy().into_owned();
        }
        Ok(found)
    }

    /// The words of a list.
    ///
    /// # Errors
    ///
    /// The one that is none.
    pub fn words(path: &Path, list: &[String]) -> Result<Vec<Word>> {
        let parsed = list.iter().map(|text| text.parse());
        parsed
            .collect::<Result<_, _>>()
            .map_err(|message| Error::Sweep {
                dir: path.to_owned(),
                message,
            })
    }
}
