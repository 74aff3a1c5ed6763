//! From the values of keys to trials.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use super::file::Described;
use super::words::Word;
use crate::error::{Error, Result};
use crate::recipe::{Override, Recipe, Resolved, folder_name, sha256};
use crate::record::sweep::{MOST_TRIALS, Plan, Trial};

const SEED: &str = "train.seed";

/// What a sweep varies.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The recipe's name or path.
    pub recipe: OsString,
    /// The keys with their values.
    pub words: Vec<Word>,
    /// The keys that are tuned, if they are named.
    pub tune: Option<Vec<String>>,
    /// Arms with names: name, label, words.
    pub arms: Vec<(String, String, Vec<Word>)>,
}

/// A key with its values, of the recipe's.
struct Axis {
    /// `section.key`
    key: String,
    values: Vec<String>,
}

impl Grid {
    /// The sweep that a file describes. Words of the command line stand in for the file's words of the same key.
    ///
    /// # Errors
    ///
    /// If the file does not parse.
    pub fn of_file(path: &Path, words: &[Word], tune: Option<Vec<String>>) -> Result<Self> {
        let found = Described::read(path)?;
        let base = Recipe::resolve(&found.recipe, &[])?;
        let mut all = Described::words(path, &found.set)?;
        let given: BTreeSet<String> = words
            .iter()
            .map(|word| base.key(&word.key))
            .collect::<Result<_>>()?;
        let mut kept = Vec::new();
        for word in all.drain(..) {
            if !given.contains(&base.key(&word.key)?) {
                kept.push(word);
            }
        }
        kept.extend(words.iter().cloned());
        let arms = found.arm.iter().map(|arm| {
            let label = arm.label.clone().unwrap_or_else(|| arm.name.clone());
            Ok((arm.name.clone(), label, Described::words(path, &arm.set)?))
        });
        Ok(Self {
            recipe: found.recipe.into(),
            words: kept,
            tune: tune.or(found.tune),
            arms: arms.collect::<Result<_>>()?,
        })
    }

    /// The trials, seed by seed. Each is a recipe that can be trained. Trials that `before` has keep their names.
    ///
    /// # Errors
    ///
    /// If a key is unknown or has two lists of values, a trial's recipe is refused, two trials are equal, or there are
    /// too many.
    pub fn plan(&self, before: Option<&Plan>) -> Result<Plan> {
        let base = Recipe::resolve(&self.recipe, &[])?;
        let axes = axes(&base, &self.words)?;
        let tuned = self.tuned(&base, &axes)?;
        let arms = self.arms(&base, &axes, &tuned)?;
        let of = |key: &String| axes.iter().find(|axis| axis.key == *key);
        let tuning: Vec<&Axis> = tuned.iter().filter_map(of).collect();
        let seeds = axes.iter().find(|axis| axis.key == SEED);
        let seeds: Vec<Option<&String>> = match seeds {
            Some(axis) => axis.values.iter().map(Some).collect(),
            None => vec![None],
        };
        let many = tuning
            .iter()
            .map(|axis| axis.values.len())
            .chain([arms.len(), seeds.len()])
            .try_fold(1usize, usize::checked_mul)
            .filter(|n| *n <= MOST_TRIALS);
        if many.is_none() {
            return Err(wrong(
                "sweep",
                format!("has more than {MOST_TRIALS} trials; give fewer values"),
            ));
        }
        let fixed: BTreeMap<String, String> = axes
            .iter()
            .filter(|axis| axis.values.len() == 1 && axis.key != SEED && !tuned.contains(&axis.key))
            .map(|axis| (axis.key.clone(), axis.values[0].clone()))
            .collect();
        let old = Known::of(before);
        let (mut trials, mut prints, mut names) = (Vec::new(), BTreeMap::new(), old.names());
        for seed in &seeds {
            for arm in &arms {
                for values in product(&tuning) {
                    let mut set = fixed.clone();
                    set.extend(arm.set.clone());
                    set.extend(tuned.iter().cloned().zip(values.iter().cloned()));
                    set.extend(seed.map(|seed| (SEED.to_owned(), seed.clone())));
                    let recipe = base.clone().with(&overrides(&set))?.recipe;
                    let settings = recipe.to_toml();
                    let mut name = arm.name.clone();
                    for (key, value) in tuned.iter().zip(&values) {
                        name.push_str(&format!("_{}={value}", base.short_key(key)));
                    }
                    let number = recipe.settings.train.seed;
                    if seed.is_some() {
                        name.push_str(&format!("_seed={number}"));
                    }
                    if let Some(other) = prints.insert(sha256(&settings), name.clone()) {
                        return Err(wrong(
                            "sweep",
                            format!("has one trial twice, as {other} and as {name}"),
                        ));
                    }
                    let mut trial = Trial {
                        name: String::new(),
                        arm: arm.label.clone(),
                        values,
                        seed: number as i64,
                        set,
                    };
                    trial.name = match old.name(&trial) {
                        Some(name) => name,
                        None => fresh(&folder_name(&name), &mut names),
                    };
                    trials.push(trial);
                }
            }
        }
        let settings = sha256(&base.recipe.to_toml());
        Ok(Plan::new(base.name, settings, tuned, trials))
    }

    /// The tuned keys: those that are named, else those of `[optimizer]` and `[schedule]` with several numbers.
    fn tuned(&self, base: &Resolved, axes: &[Axis]) -> Result<Vec<String>> {
        let Some(named) = &self.tune else {
            let is_tuned = |axis: &&Axis| {
                let section = axis.key.split('.').next();
                matches!(section, Some("optimizer" | "schedule"))
                    && axis.values.len() > 1
                    && axis.values.iter().all(|value| number(value).is_some())
            };
            let keys = axes.iter().filter(is_tuned);
            return Ok(keys.map(|axis| axis.key.clone()).collect());
        };
        let mut keys = Vec::new();
        for name in named {
            let key = base.key(name)?;
            if key == SEED {
                return Err(wrong(
                    name,
                    "is no key to tune: seeds repeat a trial".to_owned(),
                ));
            }
            if !axes.iter().any(|axis| axis.key == key) {
                return Err(wrong(
                    name,
                    format!("is to be tuned and has no values; write {name}=VALUE,VALUE"),
                ));
            }
            if keys.contains(&key) {
                return Err(wrong(name, "is named twice in --tune".to_owned()));
            }
            keys.push(key);
        }
        Ok(keys)
    }

    /// The arms: those with names, times the values of keys that are not tuned.
    fn arms(&self, base: &Resolved, axes: &[Axis], tuned: &[String]) -> Result<Vec<Arm>> {
        let several =
            |axis: &&Axis| axis.values.len() > 1 && axis.key != SEED && !tuned.contains(&axis.key);
        let varied: Vec<&Axis> = axes.iter().filter(several).collect();
        let mut named = Vec::new();
        for (name, label, words) in &self.arms {
            if name.is_empty()
                || named
                    .iter()
                    .any(|arm: &Arm| arm.name == *name || arm.label == *label)
            {
                return Err(wrong(
                    "arm",
                    format!("needs a name of its own, got `{name}`"),
                ));
            }
            let own = self::axes(base, words)?;
            for axis in &own {
                if axis.values.len() > 1 || axis.key == SEED {
                    return Err(wrong(
                        &axis.key,
                        format!(
                            "has several values in the arm {name}, or is the seed; an arm sets one value of other keys"
                        ),
                    ));
                }
                if axes.iter().any(|other| other.key == axis.key) {
                    return Err(wrong(
                        &axis.key,
                        format!("is set by the arm {name} and by the sweep; leave it out of one"),
                    ));
                }
            }
            let set = own.into_iter();
            named.push(Arm {
                name: name.clone(),
                label: label.clone(),
                set: set.map(|axis| (axis.key, axis.values[0].clone())).collect(),
            });
        }
        if named.is_empty() {
            named.push(Arm::default());
        }
        let mut arms = Vec::new();
        for arm in &named {
            for values in product(&varied) {
                let mut arm = arm.clone();
                for (axis, value) in varied.iter().zip(values) {
                    let word = match axis.key.as_str() {
                        "model.scheme" => value.clone(),
                        key => format!("{}={value}", base.short_key(key)),
                    };
                    for (text, gap) in [(&mut arm.name, "_"), (&mut arm.label, " ")] {
                        if !text.is_empty() {
                            text.push_str(gap);
                        }
                        text.push_str(&word);
                    }
                    arm.set.insert(axis.key.clone(), value);
                }
                if arm.name.is_empty() {
                    (arm.name, arm.label) = (base.name.clone(), base.name.clone());
                }
                arms.push(arm);
            }
        }
        Ok(arms)
    }
}

/// The settings that some trials share.
#[derive(Clone, Default)]
struct Arm {
    name: String,
    label: String,
    set: BTreeMap<String, String>,
}

/// The names of the trials that a sweep has already, by their settings.
struct Known(BTreeMap<String, String>);

impl Known {
    fn of(plan: Option<&Plan>) -> Self {
        let trials = plan.map_or(&[][..], |plan| &plan.trials);
        let all = trials.iter().rev();
        Self(
            all.map(|trial| (parsed(trial), trial.name.clone()))
                .collect(),
        )
    }

    fn names(&self) -> BTreeSet<String> {
        self.0.values().cloned().collect()
    }

    fn name(&self, trial: &Trial) -> Option<String> {
        self.0.get(&parsed(trial)).cloned()
    }
}

/// A name that is not in `names`, which then has it.
fn fresh(name: &str, names: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    let mut all = std::iter::once(name.to_owned()).chain(numbered);
    let free = all.find(|name| names.insert(name.clone()));
    free.expect("there is no end of numbers")
}

/// The words of the keys, as overrides.
pub fn overrides(set: &BTreeMap<String, String>) -> Vec<Override> {
    let set = set.iter();
    set.map(|(key, value)| Override::new(key, value)).collect()
}

/// The settings of a trial as a text: the same for two trials with the same settings, however their numbers are
/// written.
fn parsed(trial: &Trial) -> String {
    let all = trial.set.iter();
    let all: toml::Table = all
        .map(|(key, value)| (key.clone(), Override::new(key, value).parsed()))
        .collect();
    all.to_string()
}

/// Checks that the sweep `now` is the one in `dir`, or has all its trials and more. Returns how many more.
///
/// # Errors
///
/// What differs.
pub fn agree(dir: &Path, before: &Plan, now: &Plan) -> Result<usize> {
    let fail = |message: String| Error::Sweep {
        dir: dir.to_owned(),
        message: format!("{message}; give the same sweep or a larger one, or another --dir"),
    };
    if before.recipe != now.recipe {
        return Err(fail(format!(
            "is of the recipe {}, not of {}",
            before.recipe, now.recipe
        )));
    }
    if before.settings != now.settings {
        return Err(fail(format!(
            "is of another version of the recipe {}",
            now.recipe
        )));
    }
    if before.tuned != now.tuned {
        let list = |keys: &[String]| match keys.is_empty() {
            true => "no key".to_owned(),
            false => keys.join(", "),
        };
        return Err(fail(format!(
            "tunes {}, not {}",
            list(&before.tuned),
            list(&now.tuned)
        )));
    }
    let names: BTreeSet<&String> = now.trials.iter().map(|trial| &trial.name).collect();
    let missing: Vec<&Trial> = before
        .trials
        .iter()
        .filter(|trial| !names.contains(&trial.name))
        .collect();
    let Some(first) = missing.first() else {
        return Ok(now.trials.len() - before.trials.len());
    };
    let words: Vec<String> = first.set.iter().map(|(k, v)| format!("{k}={v}")).collect();
    Err(fail(format!(
        "is of another grid: it has {} trials that this one lacks, the first is {} ({})",
        missing.len(),
        first.name,
        words.join(" ")
    )))
}

/// The keys of words with their values, each key once.
fn axes(base: &Resolved, words: &[Word]) -> Result<Vec<Axis>> {
    let mut axes: Vec<Axis> = Vec::new();
    for word in words {
        let key = base.key(&word.key)?;
        if axes.iter().any(|axis| axis.key == key) {
            return Err(wrong(
                &word.key,
                "is given twice; write its values as one list".to_owned(),
            ));
        }
        if key == "run.device" {
            return Err(wrong(
                &word.key,
                "is not a key of trials; write --device LIST".to_owned(),
            ));
        }
        axes.push(Axis {
            key,
            values: word.values.clone(),
        });
    }
    Ok(axes)
}

/// Every combination of values, the last axis fastest.
fn product(axes: &[&Axis]) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    for axis in axes {
        let with = |begin: &Vec<String>| {
            let begin = begin.clone();
            let values = axis.values.iter();
            values.map(move |value| [begin.clone(), vec![value.clone()]].concat())
        };
        all = all.iter().flat_map(with).collect();
        if all.len() > MOST_TRIALS {
            break;
        }
    }
    all
}

/// A value as a number.
pub fn number(text: &str) -> Option<f64> {
    match Override::new("", text).parsed() {
        toml::Value::Integer(n) => Some(n as f64),
        toml::Value::Float(x) => Some(x).filter(|x| x.is_finite()),
        toml::Value::String(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}

fn wrong(key: &str, message: String) -> Error {
    Error::RecipeValue {
        key: key.to_owned(),
        message,
    }
}
