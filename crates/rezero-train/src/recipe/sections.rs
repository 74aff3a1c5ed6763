//! From the text of a file and `key=value`s to complete sections.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rezero_data::nearest;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::names::key_of;
use super::overrides::Override;
use super::{Gates, ImageData, Optimizer, Run, Schedule, TextData, Train};
use crate::error::{Error, Result};
use crate::zoo;

/// Sections by name.
pub type Tables = BTreeMap<&'static str, Table>;

/// The sections of a recipe, in the order of a file.
pub(crate) const OF_A_RECIPE: &[&str] = &[
    "model",
    "data",
    "optimizer",
    "gates",
    "schedule",
    "train",
    "run",
];
/// The sections that a user's own model has.
pub(super) const OF_SETTINGS: &[&str] = &["optimizer", "gates", "schedule", "train", "run"];

type Complete = fn(Table) -> Result<Table, String>;

/// A section, or one of its kinds: what keys there are.
pub(super) struct Spec {
    /// The section.
    pub section: &'static str,
    /// The key that says which kind of section it is, where it comes in kinds.
    pub tag: Option<&'static str>,
    /// The kind.
    pub kind: String,
    /// A table of some keys with all others at their defaults, or why it cannot be read.
    complete: Complete,
    /// The JSON schema of all kinds.
    pub schema: serde_json::Value,
    /// All keys at their defaults.
    pub defaults: Table,
}

/// A key that has no effect, given the other keys, and why.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    /// `section.key`
    pub key: String,
    pub why: String,
}

impl Idle {
    pub fn new(section: &str, key: &str, why: impl Into<String>) -> Self {
        Self {
            key: format!("{section}.{key}"),
            why: why.into(),
        }
    }
}

/// A section as a table.
pub(crate) fn table<S: Serialize>(section: &S) -> Table {
    Table::try_from(section).expect("a section is a TOML table")
}

/// A complete table as its section.
pub(super) fn typed<S: DeserializeOwned>(section: &str, table: Table) -> Result<S> {
    table
        .try_into()
        .map_err(|e: toml::de::Error| Error::RecipeValue {
            key: section.to_owned(),
            message: e.message().to_owned(),
        })
}

pub(crate) fn complete<S: Serialize + DeserializeOwned>(given: Table) -> Result<Table, String> {
    let section: S = given
        .try_into()
        .map_err(|e: toml::de::Error| e.message().to_owned())?;
    Ok(table(&section))
}

pub(crate) fn schema_of<S: JsonSchema>() -> serde_json::Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<S>().into()
}

/// The kinds of a section. `[data]` has one for each task.
pub(super) fn specs(section: &str) -> &'static [Spec] {
    // They are made once: a sweep completes thousands of recipes.
    static ALL: LazyLock<Vec<(&str, Vec<Spec>)>> = LazyLock::new(|| {
        let all = OF_A_RECIPE.iter();
        all.map(|section| (*section, made(section))).collect()
    });
    let found = ALL.iter().find(|(name, _)| *name == section);
    &found
        .unwrap_or_else(|| panic!("there is no section {section}"))
        .1
}

/// What [`specs`] returns.
fn made(section: &'static str) -> Vec<Spec> {
    let of = |tag: Option<&'static str>, kind: String, complete: Complete, schema| {
        let mut base = Table::new();
        if let Some(tag) = tag {
            base.insert(tag.to_owned(), Value::String(kind.clone()));
        }
        Spec {
            section,
            tag,
            kind,
            complete,
            schema,
            defaults: complete(base).expect("a kind has defaults"),
        }
    };
    let one = |kind: &str, complete: Complete, schema| of(None, kind.to_owned(), complete, schema);
    let tagged = |tag: &'static str, complete: Complete, schema: serde_json::Value| {
        let kinds = kinds(&schema, tag).into_iter();
        kinds
            .map(|kind| of(Some(tag), kind, complete, schema.clone()))
            .collect()
    };
    match section {
        "model" => tagged("family", zoo::complete, zoo::schema()),
        "data" => vec![
            one("images", complete::<ImageData>, schema_of::<ImageData>()),
            one("text", complete::<TextData>, schema_of::<TextData>()),
        ],
        "optimizer" => tagged("kind", complete::<Optimizer>, schema_of::<Optimizer>()),
        "gates" => vec![one("gates", complete::<Gates>, schema_of::<Gates>())],
        "schedule" => tagged("kind", complete::<Schedule>, schema_of::<Schedule>()),
        "train" => vec![one("train", complete::<Train>, schema_of::<Train>())],
        "run" => vec![one("run", complete::<Run>, schema_of::<Run>())],
        other => panic!("there is no section {other}"),
    }
}

/// Every key of some sections, and the names of the sections that come in kinds.
pub(super) fn names(sections: &[&'static str]) -> Vec<String> {
    let mut all = Vec::new();
    for &section in sections {
        let specs = specs(section);
        if of_its_name(section, specs).is_some() {
            all.push(section.to_owned());
        }
        for spec in specs {
            all.extend(spec.defaults.keys().cloned());
        }
    }
    all
}

/// The key that a section's name stands for: what `data=enwik8` and `optimizer=adam` set.
fn of_its_name(section: &str, specs: &[Spec]) -> Option<&'static str> {
    match section {
        "data" => Some("set"),
        _ => specs.first().and_then(|spec| spec.tag),
    }
}

/// The values of a tag, which the schema lists one for each kind.
fn kinds(schema: &serde_json::Value, tag: &str) -> Vec<String> {
    let kinds = schema["oneOf"].as_array().into_iter().flatten();
    kinds
        .filter_map(|kind| Some(kind["properties"][tag]["const"].as_str()?.to_owned()))
        .collect()
}

impl Spec {
    /// The schema of this kind alone.
    pub fn own_schema(&self) -> &serde_json::Value {
        let Some(tag) = self.tag else {
            return &self.schema;
        };
        let mut kinds = self.schema["oneOf"].as_array().into_iter().flatten();
        let found = kinds.find(|kind| kind["properties"][tag]["const"] == self.kind.as_str());
        found.unwrap_or(&serde_json::Value::Null)
    }

    /// The names that a key's value may be, with their meaning; none if its value is not a name.
    pub fn choices(&self, key: &str) -> Vec<(String, String)> {
        let property = &self.own_schema()["properties"][key];
        let of = |choice: &serde_json::Value| -> Vec<(String, String)> {
            let about = choice["description"].as_str().unwrap_or_default();
            let single = choice["const"].as_str().into_iter();
            let listed = choice["enum"].as_array().into_iter().flatten();
            single
                .chain(listed.filter_map(serde_json::Value::as_str))
                .map(|name| (name.to_owned(), about.to_owned()))
                .collect()
        };
        match property["oneOf"].as_array() {
            Some(several) => several.iter().flat_map(of).collect(),
            None => of(property)
                .into_iter()
                .map(|(name, _)| (name, String::new()))
                .collect(),
        }
    }

    /// The tag alone.
    fn base(&self) -> Table {
        let mut base = Table::new();
        if let Some(tag) = self.tag {
            base.insert(tag.to_owned(), Value::String(self.kind.clone()));
        }
        base
    }

    /// What it is called beside the others: `kind=sgd`, `[train]`.
    fn called(&self) -> String {
        match self.tag {
            Some(tag) => format!("{tag}={}", self.kind),
            None if self.section == "data" => format!("[data] of {}", self.kind),
            None => format!("[{}]", self.section),
        }
    }

    /// A heading: `[optimizer] kind=sgd`, `[train]`.
    pub fn titled(&self) -> String {
        match self.tag {
            Some(_) => format!("[{}] {}", self.section, self.called()),
            None => self.called(),
        }
    }

    /// A value in the type of its key: `lr=1` becomes a float.
    fn value(&self, key: &str, value: &Value) -> Result<Value> {
        let names: Vec<String> = self
            .choices(key)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        if let Some(word) = value.as_str()
            && !names.is_empty()
            && !names.iter().any(|name| name == word)
        {
            let meant = nearest(word, names.iter().map(String::as_str));
            let hint = meant.map_or(String::new(), |m| format!("; did you mean `{m}`?"));
            return Err(Error::RecipeValue {
                key: format!("{}.{key}", self.section),
                message: format!("there is no `{word}`, there are {}{hint}", names.join(", ")),
            });
        }
        let mut single = self.base();
        single.insert(key.to_owned(), value.clone());
        let typed = (self.complete)(single).map_err(|message| Error::RecipeValue {
            key: format!("{}.{key}", self.section),
            message,
        })?;
        Ok(typed[key].clone())
    }
}

/// A recipe before its sections are complete: the keys of a file, and those of the command line.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    sections: &'static [&'static str],
    file: Tables,
    given: Tables,
}

impl Draft {
    /// Parses a file.
    pub fn parse(name: &str, text: &str, sections: &'static [&'static str]) -> Result<Self> {
        let bad = |message: String| Error::Recipe {
            name: name.to_owned(),
            message,
        };
        let table: Table = text.parse().map_err(|e| bad(format!("{e}")))?;
        let mut draft = Self {
            sections,
            file: Tables::new(),
            given: Tables::new(),
        };
        for (key, value) in table {
            let section = sections.iter().find(|section| **section == key);
            match (section, value) {
                (Some(section), Value::Table(table)) => {
                    draft.file.insert(section, table);
                }
                (Some(section), _) => {
                    return Err(bad(format!("`{section}` is a section: write [{section}]")));
                }
                (None, Value::Table(_)) => {
                    let meant = nearest(&key, sections.iter().copied());
                    let hint = meant.map_or(String::new(), |m| format!(", did you mean [{m}]?"));
                    return Err(bad(format!(
                        "unknown section [{key}]{hint} (there are {})",
                        sections.join(", ")
                    )));
                }
                (None, _) => {
                    let place = match draft.locate(&key) {
                        Ok((section, _)) => format!("it belongs to [{section}]"),
                        Err(_) => format!("there are {}", sections.join(", ")),
                    };
                    return Err(bad(format!(
                        "key `{key}` stands outside of a section; {place}"
                    )));
                }
            }
        }
        Ok(draft)
    }

    /// Checks that each section of the file that comes in kinds says which it is, and that a recipe has a
    /// model.
    pub fn must_say_its_kinds(&self, name: &str) -> Result<()> {
        for &section in self.sections {
            let specs = specs(section);
            let Some(tag) = specs.first().and_then(|spec| spec.tag) else {
                continue;
            };
            let silent = match self.file.get(section) {
                Some(table) => !table.contains_key(tag),
                None => section == "model",
            };
            if silent {
                let kinds: Vec<&str> = specs.iter().map(|spec| spec.kind.as_str()).collect();
                return Err(Error::Recipe {
                    name: name.to_owned(),
                    message: format!("[{section}] needs `{tag}`: one of {}", kinds.join(", ")),
                });
            }
        }
        Ok(())
    }

    /// The same with more keys from the command line. The last value of a key counts.
    pub fn given(mut self, overrides: &[Override]) -> Result<Self> {
        for change in overrides {
            let (section, key) = self.locate(&change.key)?;
            let table = self.given.entry(section).or_default();
            table.insert(key, change.parsed());
        }
        Ok(self)
    }

    /// Removes `section.key` from the keys of the command line.
    pub fn take_back(&mut self, key: &str) {
        if let Some((section, key)) = key.split_once('.')
            && let Some(table) = self.given.get_mut(section)
        {
            table.remove(key);
        }
    }

    /// Whether the file sets `section.key`.
    pub fn sets(&self, key: &str) -> bool {
        has(&self.file, key)
    }

    /// Whether the command line sets `section.key`.
    pub fn gives(&self, key: &str) -> bool {
        has(&self.given, key)
    }

    /// Removes `section.key` from the file's keys. True if it was there.
    pub fn drop(&mut self, key: &str) -> bool {
        let Some((section, key)) = key.split_once('.') else {
            return false;
        };
        let table = self.file.get_mut(section);
        table.is_some_and(|table| table.remove(key).is_some())
    }

    /// Every section with all its keys.
    pub fn complete(&self) -> Result<Tables> {
        let (none, mut tables) = (Table::new(), Tables::new());
        for &section in self.sections {
            let file = self.file.get(section).unwrap_or(&none);
            let given = self.given.get(section).unwrap_or(&none);
            let spec = self.spec(section, tables.get("model"), file, given)?;
            let mut table = spec.defaults.clone();
            for (key, value) in file {
                // The tag is read, and what the command line gives replaces what the file says.
                if Some(key.as_str()) == spec.tag || given.contains_key(key) {
                    continue;
                }
                // A file fits its own kind. The command line may have chosen another: a key that
                // the other kind lacks is left out, and the value of any other key must fit it.
                if table.contains_key(key) || self.given.is_empty() {
                    table.insert(key.clone(), spec.fits(&table, key, value)?);
                }
            }
            for (key, value) in given {
                let value = spec.fits(&table, key, value)?;
                table.insert(key.clone(), value);
            }
            tables.insert(section, table);
        }
        Ok(tables)
    }

    /// The kind that a section is of.
    fn spec(
        &self,
        section: &'static str,
        model: Option<&Table>,
        file: &Table,
        given: &Table,
    ) -> Result<&'static Spec> {
        let all = specs(section);
        let tag = all.first().and_then(|spec| spec.tag);
        let wanted = match (tag, model) {
            (Some(tag), _) => match given.get(tag).or(file.get(tag)) {
                Some(Value::String(kind)) => Some(kind.as_str()),
                Some(other) => {
                    return Err(Error::RecipeValue {
                        key: format!("{section}.{tag}"),
                        message: format!("must be a name, got {other}"),
                    });
                }
                None => None,
            },
            (None, Some(model)) if section == "data" => Some(match zoo::is_of_text(model) {
                true => "text",
                false => "images",
            }),
            (None, _) => None,
        };
        let names: Vec<String> = all.iter().map(|spec| spec.kind.clone()).collect();
        let mut all = all.iter();
        let found = match wanted {
            Some(wanted) => all.find(|spec| spec.kind == wanted),
            None => all.next(),
        };
        found.ok_or_else(|| {
            let (wanted, tag) = (wanted.unwrap_or_default(), tag.unwrap_or_default());
            let meant = nearest(wanted, names.iter().map(String::as_str));
            let hint = meant.map_or(String::new(), |m| format!("; did you mean `{m}`?"));
            Error::RecipeValue {
                key: format!("{section}.{tag}"),
                message: format!(
                    "there is no `{wanted}`, there are {}{hint}",
                    names.join(", ")
                ),
            }
        })
    }

    /// The section and key that a name stands for: `lr`, `optimizer.lr`, or `optimizer` for its kind.
    pub fn locate(&self, name: &str) -> Result<(&'static str, String)> {
        if let Some((section, key)) = name.split_once('.') {
            let found = self.sections.iter().find(|s| **s == section);
            return match found {
                Some(section) => Ok((*section, key.to_owned())),
                None => Err(Error::UnknownKey {
                    key: name.to_owned(),
                    nearest: nearest(section, self.sections.iter().copied())
                        .map(|section| format!("{section}.{key}")),
                }),
            };
        }
        let mut found: Vec<&'static str> = Vec::new();
        for &section in self.sections {
            let specs = specs(section);
            if let (true, Some(key)) = (section == name, of_its_name(section, specs)) {
                return Ok((section, key.to_owned()));
            }
            if specs.iter().any(|spec| spec.defaults.contains_key(name)) {
                found.push(section);
            }
        }
        match found.as_slice() {
            [one] => Ok((*one, name.to_owned())),
            [] => Err(Error::UnknownKey {
                key: name.to_owned(),
                nearest: key_of(name, &names(self.sections)).map(|meant| meant.key().to_owned()),
            }),
            several => {
                let full: Vec<String> = several.iter().map(|s| format!("{s}.{name}")).collect();
                Err(Error::RecipeValue {
                    key: name.to_owned(),
                    message: format!("several sections have it: write {}", full.join(" or ")),
                })
            }
        }
    }

    /// The shortest name of `section.key`.
    pub fn short(&self, section: &'static str, key: &str) -> String {
        for name in [section, key] {
            if self
                .locate(name)
                .is_ok_and(|(s, k)| s == section && k == key)
            {
                return name.to_owned();
            }
        }
        format!("{section}.{key}")
    }

    /// `key: old -> new` of every key that the command line changed, in the order of the keys.
    pub fn changes(&self, before: &Tables, after: &Tables) -> Vec<String> {
        let given = self.overrides(after);
        let mut changes = Vec::new();
        for (name, new) in given {
            let Ok((section, key)) = self.locate(&name) else {
                continue;
            };
            let old = before.get(section).and_then(|table| table.get(&key));
            match old {
                Some(old) if *old == new => {}
                Some(old) => changes.push(format!("{name}: {old} -> {new}")),
                None => changes.push(format!("{name}: {new}")),
            }
        }
        changes
    }

    /// The keys of the command line by their shortest names, with the values that they came to have.
    pub fn overrides(&self, after: &Tables) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for (&section, table) in &self.given {
            for key in table.keys() {
                if let Some(value) = after.get(section).and_then(|table| table.get(key)) {
                    all.insert(self.short(section, key), value.clone());
                }
            }
        }
        all
    }
}

fn has(tables: &Tables, key: &str) -> bool {
    let Some((section, key)) = key.split_once('.') else {
        return false;
    };
    tables
        .get(section)
        .is_some_and(|table| table.contains_key(key))
}

impl Spec {
    /// The value of a key of `table`, or why it cannot have it.
    fn fits(&self, table: &Table, key: &str, value: &Value) -> Result<Value> {
        if Some(key) == self.tag || table.contains_key(key) {
            return self.value(key, value);
        }
        let others: Vec<String> = specs(self.section)
            .iter()
            .filter(|spec| spec.defaults.contains_key(key))
            .map(Self::called)
            .collect();
        let own: Vec<String> = table.keys().cloned().collect();
        let full = format!("{}.{key}", self.section);
        Err(match others.is_empty() {
            true => Error::UnknownKey {
                key: full,
                nearest: key_of(key, &own).map(|m| format!("{}.{}", self.section, m.key())),
            },
            false => Error::RecipeValue {
                key: full,
                message: format!(
                    "is a key of {}; {} has {}",
                    others.join(" and "),
                    self.called(),
                    own.join(", ")
                ),
            },
        })
    }
}
