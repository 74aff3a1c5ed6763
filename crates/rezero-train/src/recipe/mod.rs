//! A recipe: everything that decides a run's numbers, in sections.
//!
//! | section | content | keys |
//! | - | - | - |
//! | `[model]` | the network | the keys of its `family`, each a struct of [`zoo`](crate::zoo) |
//! | `[data]` | the data that it learns from | [`ImageData`] or [`TextData`], as the family needs |
//! | `[optimizer]` | how the weights are updated | the keys of its `kind`, see [`Optimizer`] |
//! | `[gates]` | how α starts and is trained | [`Gates`] |
//! | `[schedule]` | how learning rates change | the keys of its `kind`, see [`Schedule`] |
//! | `[train]` | how a step is computed | [`Train`] |
//! | `[run]` | the keys that may change when a run is resumed | [`Run`] |
//!
//! The recipes that ship are files in `recipes/`, embedded in the binary. They hold the keys that
//! differ from the defaults. Any key can be overridden as `key=value` if its name is unique, else
//! as `section.key=value`. A key that has no effect, given the other keys, is refused.

pub(crate) mod check;
mod data;
mod embedded;
mod gates;
mod help;
mod names;
mod optimizer;
mod overrides;
mod resume;
mod run;
mod schedule;
mod sections;
mod settings;
mod train;

use std::ffi::OsStr;
use std::path::Path;

use sha2::{Digest, Sha256};

pub use data::{ImageData, ImageSource, Pixels, Resize, TextData, TextSource};
pub use embedded::EMBEDDED;
pub use gates::{GateOptimizer, Gates};
pub(crate) use help::similar_part;
pub use help::{described, parts, schema};
pub use optimizer::*;
pub use overrides::Override;
pub use run::{OnDevice, Run};
pub use schedule::*;
pub use sections::Tables;
pub use settings::Settings;
pub use train::{DType, Reduce, Train};

use crate::error::{Error, Result};
use crate::record::run_dir;
use crate::task::{Domain, Images, Text};
pub(crate) use names::{Meant, key};
pub(crate) use resume::must_be_same;
use sections::Draft;
pub(crate) use sections::{Idle, complete, schema_of, table};

/// All settings of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The network and its data.
    pub task: TaskRecipe,
    /// How it is trained.
    pub settings: Settings,
}

/// The network and its data, which go together.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskRecipe {
    /// Classes of images.
    Images(TaskOf<Images>),
    /// The bytes of a text.
    Text(TaskOf<Text>),
}

/// The sections `[model]` and `[data]` of one kind of task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskOf<D: Domain> {
    /// The network.
    pub model: D::Family,
    /// The data that it learns from.
    pub data: D::Data,
}

impl<D: Domain> TaskOf<D> {
    fn is_complete(&self) -> bool {
        D::is_complete(&self.data)
    }

    fn completed_as(&self, before: &Self) -> Self {
        Self {
            model: self.model.clone(),
            data: D::complete_as(&self.data, &before.data),
        }
    }
}

/// Evaluates the same expression for the task of a recipe, whichever it is.
macro_rules! with_task {
    ($task:expr, $of:ident => $result:expr) => {
        match $task {
            $crate::recipe::TaskRecipe::Images($of) => $result,
            $crate::recipe::TaskRecipe::Text($of) => $result,
        }
    };
}
pub(crate) use with_task;

/// A recipe with the name it goes by and the changes that overrides made to it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The recipe's name, or the stem of its file.
    pub name: String,
    /// The final values.
    pub recipe: Recipe,
    /// `key: old -> new` for every override, in key order.
    pub changes: Vec<String>,
    draft: Draft,
}

impl Recipe {
    /// Finds `name` among the embedded recipes or, if it ends in `.toml`, on disk, applies
    /// `overrides` and validates the result.
    ///
    /// # Errors
    ///
    /// If there is no such recipe, it does not parse, a section or a key is unknown, a value is of the
    /// wrong type or out of range, or a key has no effect. Messages name the nearest valid key.
    pub fn resolve(name: impl AsRef<OsStr>, overrides: &[Override]) -> Result<Resolved> {
        // A path may be any bytes, a name of ours is text.
        let path = Path::new(name.as_ref());
        let name = path.to_string_lossy();
        let (short, text) = if name.ends_with(".toml") {
            let text = embedded::read_file(path)?;
            let stem = path.file_stem().unwrap_or_default();
            // A name makes a directory and a line of a file.
            let stem = stem.to_string_lossy().replace(char::is_control, "-");
            let stem = stem.trim_matches('.');
            (
                if stem.is_empty() { "recipe" } else { stem }.to_owned(),
                text,
            )
        } else {
            let found = EMBEDDED.iter().find(|(n, _)| *n == name);
            let (_, text) = found.ok_or_else(|| Error::UnknownRecipe {
                name: name.to_string(),
                nearest: names::recipes(&name),
            })?;
            (name.to_string(), (*text).to_owned())
        };
        Self::parse(&short, &text)?.with(overrides)
    }

    /// Parses the text of a recipe file.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn parse(name: &str, text: &str) -> Result<Resolved> {
        Self::of_file(name, text).map_err(|error| match error {
            Error::Recipe { .. } => error,
            other => Error::Recipe {
                name: name.to_owned(),
                message: other.to_string(),
            },
        })
    }

    fn of_file(name: &str, text: &str) -> Result<Resolved> {
        let draft = Draft::parse(name, text, sections::OF_A_RECIPE)?;
        draft.must_say_its_kinds(name)?;
        let recipe = Self::of(&draft.complete()?)?;
        if let Some(Idle { key, why }) =
            recipe.idle().into_iter().find(|idle| draft.sets(&idle.key))
        {
            return Err(Error::RecipeValue {
                key,
                message: format!("has no effect: {why}"),
            });
        }
        recipe.check()?;
        Ok(Resolved {
            name: name.to_owned(),
            recipe,
            changes: Vec::new(),
            draft,
        })
    }

    /// The recipe of the run at `dir`.
    ///
    /// # Errors
    ///
    /// If there is no run, or its recipe is not one of this program's.
    pub fn of_run(dir: &Path) -> Result<Resolved> {
        let (name, text) = run_dir::recipe(dir)?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| Error::Run {
            dir: dir.to_owned(),
            message: format!("its recipe.toml does not parse: {}", e.message()),
        })?;
        if table
            .get("model")
            .and_then(|model| model.get("family"))
            .is_none()
        {
            return Err(Error::Run {
                dir: dir.to_owned(),
                message:
                    "holds a model that is not one of ours (recipe.toml has no model.family): \
                          `rezero report` shows it, and the program that began it goes on with it"
                        .to_owned(),
            });
        }
        let resolved = Self::parse(&name, &text)?;
        // Whoever edits the file could leave a network without classes.
        match with_task!(&resolved.recipe.task, of => of.is_complete()) {
            true => Ok(resolved),
            false => Err(Error::Run {
                dir: dir.to_owned(),
                message: "its recipe.toml leaves values to the data that a run writes into it when it begins \
                          (data.class_names, data.size, data.mean, data.std): put them back"
                    .to_owned(),
            }),
        }
    }

    fn of(tables: &Tables) -> Result<Self> {
        let table = |name: &str| tables.get(name).cloned().unwrap_or_default();
        let (model, data) = (table("model"), table("data"));
        let task = match crate::zoo::is_of_text(&model) {
            false => TaskRecipe::Images(TaskOf {
                model: sections::typed("model", model)?,
                data: sections::typed("data", data)?,
            }),
            true => TaskRecipe::Text(TaskOf {
                model: sections::typed("model", model)?,
                data: sections::typed("data", data)?,
            }),
        };
        Ok(Self {
            task,
            settings: Settings::of(tables)?,
        })
    }

    /// Every section, with all keys that have an effect.
    pub fn to_tables(&self) -> Tables {
        let mut tables = self.settings.to_tables();
        let (model, data) = with_task!(&self.task, of => (
            sections::table(&of.model),
            sections::table(&of.data),
        ));
        tables.insert("model", model);
        tables.insert("data", data);
        for Idle { key, .. } in self.idle() {
            if let Some((section, key)) = key.split_once('.')
                && let Some(table) = tables.get_mut(section)
            {
                table.remove(key);
            }
        }
        tables.retain(|_, table| !table.is_empty());
        tables
    }

    /// The recipe as the text of a recipe file, with all keys that have an effect.
    pub fn to_toml(&self) -> String {
        text(&self.to_tables())
    }

    /// SHA-256 of all settings that decide the run's numbers. A resumed run must have the same
    /// value.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.to_tables(), &self.settings)
    }

    /// Whether two recipes have the same length.
    pub(crate) fn is_as_long_as(&self, other: &Self) -> bool {
        let length = |recipe: &Self| (recipe.settings.run.epochs, recipe.settings.run.steps);
        length(self) == length(other)
    }

    /// The network that a checkpoint's weights fit: two recipes with the same text build the same
    /// one.
    pub fn identity(&self) -> String {
        with_task!(&self.task, of => crate::zoo::identity(of, &self.settings.gates))
    }

    /// The recipe with the values that it leaves to the data, as the recipe of a run has them that
    /// has begun.
    #[must_use]
    pub(crate) fn completed_as(&self, before: &Self) -> Self {
        let task = match (&self.task, &before.task) {
            (TaskRecipe::Images(of), TaskRecipe::Images(before)) => {
                TaskRecipe::Images(of.completed_as(before))
            }
            (TaskRecipe::Text(of), TaskRecipe::Text(before)) => {
                TaskRecipe::Text(of.completed_as(before))
            }
            (TaskRecipe::Images(_), TaskRecipe::Text(_))
            | (TaskRecipe::Text(_), TaskRecipe::Images(_)) => self.task.clone(),
        };
        Self {
            task,
            settings: self.settings.clone(),
        }
    }

    /// Checks ranges and combinations.
    pub(crate) fn check(&self) -> Result<()> {
        self.settings.check()?;
        with_task!(&self.task, of => crate::zoo::check(of, &self.settings))
    }

    /// Keys that have no effect, given the other keys.
    fn idle(&self) -> Vec<Idle> {
        // The network's reasons come first: no other key helps against them.
        let mut idle = with_task!(&self.task, of => crate::zoo::idle(of));
        idle.extend(self.settings.idle());
        idle
    }
}

/// Sections as the text of a file, in the order of the [module's](self) table.
pub(crate) fn text(tables: &Tables) -> String {
    let mut text = String::new();
    for name in sections::OF_A_RECIPE {
        if let Some(table) = tables.get(name) {
            let body = toml::to_string(table).expect("a table is TOML");
            text.push_str(&format!("[{name}]\n{body}\n"));
        }
    }
    text
}

/// SHA-256 of the settings that decide the numbers: all sections except `[run]`, and the length of
/// the run if the schedule depends on it.
pub(crate) fn fingerprint(tables: &Tables, settings: &Settings) -> String {
    let mut kept = tables.clone();
    kept.remove("run");
    let mut text = text(&kept);
    if settings.schedule.spans_the_run() {
        text.push_str(&format!(
            "{} epochs {} steps",
            settings.run.epochs, settings.run.steps
        ));
    }
    sha256(&text)
}

/// Hexadecimal.
pub(crate) fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

impl Resolved {
    /// Whether the command line gives `section.key`, rather than a file.
    pub fn gives(&self, key: &str) -> bool {
        self.draft.gives(key)
    }

    /// Applies `overrides` and validates the result.
    ///
    /// An override that chooses another kind of optimizer, schedule, family or scheme also removes
    /// the file's keys that the new kind does not have.
    ///
    /// # Errors
    ///
    /// As [`Recipe::resolve`].
    pub fn with(self, overrides: &[Override]) -> Result<Self> {
        self.with_found(&[], overrides)
    }

    /// As [`with`](Self::with), after the values that were `found` in a file of weights, whose keys have the
    /// form `section.key` and are none of `overrides`. Those that have no effect are left out.
    ///
    /// # Errors
    ///
    /// As [`Recipe::resolve`].
    pub(crate) fn with_found(self, found: &[Override], overrides: &[Override]) -> Result<Self> {
        if found.is_empty() && overrides.is_empty() {
            return Ok(self);
        }
        let before = self.recipe.to_tables();
        let mut draft = self.draft.given(found)?.given(overrides)?;
        let recipe = loop {
            let recipe = Recipe::of(&draft.complete()?)?;
            let idle = recipe.idle();
            let vain = |found: &&Override| idle.iter().any(|idle| idle.key == found.key);
            for found in found.iter().filter(vain) {
                draft.take_back(&found.key);
            }
            if let Some(Idle { key, why }) = idle.iter().find(|idle| draft.gives(&idle.key)) {
                return Err(Error::RecipeValue {
                    key: key.clone(),
                    message: format!("has no effect: {why}"),
                });
            }
            // The file's own keys had an effect until the overrides came.
            let dropped = idle.iter().filter(|idle| draft.drop(&idle.key)).count();
            if dropped == 0 {
                break recipe;
            }
        };
        recipe.check()?;
        let changes = draft.changes(&before, &recipe.to_tables());
        Ok(Self {
            name: self.name,
            recipe,
            changes,
            draft,
        })
    }

    /// A folder name that tells runs of different settings apart: the recipe's name and every
    /// override. A name that is too long for a folder, or has characters that a folder's name should not
    /// have, ends in a hash of the whole.
    pub fn run_name(&self) -> String {
        let mut name = self.name.clone();
        for (key, value) in self.draft.overrides(&self.recipe.to_tables()) {
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Float(number) => short(number),
                other => other.to_string(),
            };
            name.push_str(&format!("_{key}={text}"));
        }
        folder_name(&name)
    }

    /// The key that a name stands for, as `section.key`.
    ///
    /// # Errors
    ///
    /// If there is no such key, or several sections have it.
    pub(crate) fn key(&self, name: &str) -> Result<String> {
        let (section, key) = self.draft.locate(name)?;
        Ok(format!("{section}.{key}"))
    }

    /// The shortest name of `section.key`.
    pub(crate) fn short_key(&self, key: &str) -> String {
        let of_section = |(section, short): (&str, &str)| {
            let section = sections::OF_A_RECIPE.iter().find(|s| **s == section)?;
            Some(self.draft.short(section, short))
        };
        let short = key.split_once('.').and_then(of_section);
        short.unwrap_or_else(|| key.to_owned())
    }
}

/// `name` as the name of a folder. One that is too long, or has characters that a folder's name should not have, ends in
/// a hash of the whole.
pub(crate) fn folder_name(name: &str) -> String {
    const LONGEST: usize = 200;

    // A device's colon and comma can stand for nothing else.
    let safe = |c: char| c.is_ascii_alphanumeric() || "._-=:,".contains(c);
    let hash = match name.chars().all(safe) && name.len() <= LONGEST {
        true => String::new(),
        false => format!("_{}", &sha256(name)[..8]),
    };
    let plain = name.chars().map(|c| match c {
        ':' | ',' => '-',
        c if safe(c) => c,
        _ => '-',
    });
    let plain: String = plain.take(LONGEST - hash.len()).collect();
    plain + &hash
}

/// A number in the shorter of its two forms if the usual one is long: `0.001`, `1e30`.
fn short(number: f64) -> String {
    let (plain, power) = (number.to_string(), format!("{number:e}"));
    match plain.len() > 12 && power.len() < plain.len() {
        true => power,
        false => plain,
    }
}
