//! The keys of recipes, as the types of the sections describe them.

use serde_json::{Map, Value, json};

use super::names::key_of;
use super::sections::{OF_A_RECIPE, Spec, names, specs};
use crate::zoo;

/// Every key as a line of a recipe file with its default, below comments with its meaning and its
/// possible values. `only` shows one section, one kind or one key: `optimizer`, `adam`, `byte-lm`,
/// `lr`.
pub fn described(only: Option<&str>) -> String {
    let Some(only) = only else {
        return blocks(&all(), None).fold(overview(), |text, block| text + &block);
    };
    // `optimizer.lr` is the key of that section.
    if let Some((section, key)) = only.split_once('.') {
        let within: Vec<&Spec> = all().into_iter().filter(|s| s.section == section).collect();
        return blocks(&within, Some(key)).collect();
    }
    let (whole, rest): (Vec<&Spec>, Vec<&Spec>) = all()
        .into_iter()
        .partition(|spec| only == spec.section || only == spec.kind);
    match whole.as_slice() {
        [] => blocks(&rest, Some(only)).collect(),
        [family] if family.section == "model" => {
            blocks(&whole, None).collect::<String>() + &companions(family)
        }
        _ => blocks(&whole, None).collect(),
    }
}

fn all() -> Vec<&'static Spec> {
    OF_A_RECIPE
        .iter()
        .flat_map(|section| specs(section))
        .collect()
}

/// The head of the whole list: how it is narrowed down, and to what.
fn overview() -> String {
    let mut text = "\
# Every key of recipes, with its meaning, its values and its default. To see fewer:
# rezero recipes --keys NAME, where NAME is a section, a kind of a section, or a key.
#
"
    .to_owned();
    let mut line = |name: &str, content: &str| {
        text.push_str(&format!("#   {name:<23}{content}\n"));
    };
    line("sections", &OF_A_RECIPE.join(", "));
    for &section in OF_A_RECIPE {
        let kinds: Vec<&str> = specs(section)
            .iter()
            .map(|spec| spec.kind.as_str())
            .collect();
        if kinds.len() > 1 {
            line(&format!("kinds of [{section}]"), &kinds.join(", "));
        }
    }
    line("keys", "lr, depth, optimizer.kind, …");
    text + "\
#
# On the command line, write a key as lr=0.02, and the kind of a section as optimizer=adam.
# rezero recipes RECIPE shows the values of one recipe.

"
}

/// The end of a family's list: the sections that its recipes have too.
fn companions(family: &Spec) -> String {
    let data = match zoo::is_of_text(&family.defaults) {
        true => "text",
        false => "images",
    };
    let others = OF_A_RECIPE
        .iter()
        .filter(|s| !["model", "data"].contains(s));
    let others: Vec<&str> = others.copied().collect();
    format!(
        "\
# A recipe with this network also has the keys of [data] of {data}, and of the other sections:
# rezero recipes --keys NAME with NAME one of {data}, {}
",
        others.join(", ")
    )
}

/// The part of the list, or the key, that an unknown name was meant to be.
pub(crate) fn similar_part(name: &str) -> Option<String> {
    let mut all = parts();
    all.extend(names(OF_A_RECIPE));
    key_of(name, &all).map(|meant| meant.key().to_owned())
}

/// The names that [`described`] can be narrowed to.
pub fn parts() -> Vec<String> {
    let of = |&section: &&'static str| {
        let kinds = specs(section).iter().map(|spec| spec.kind.clone());
        std::iter::once(section.to_owned()).chain(kinds)
    };
    OF_A_RECIPE.iter().flat_map(of).collect()
}

/// Sections of one kind each, or one key of those that have it.
fn blocks(specs: &[&Spec], only: Option<&str>) -> impl Iterator<Item = String> {
    let has = move |spec: &&&Spec| only.is_none_or(|key| spec.defaults.contains_key(key));
    specs.iter().filter(has).map(move |spec| block(spec, only))
}

/// A section of one kind, or one key of it.
fn block(spec: &Spec, only: Option<&str>) -> String {
    let schema = spec.own_schema();
    let mut text = String::new();
    let about = |text: &mut String, schema: &Value| {
        for line in plain(schema["description"].as_str().unwrap_or_default()).lines() {
            text.push_str(&format!("# {line}\n"));
        }
    };
    text.push_str(&format!("# ===== {} =====\n", spec.titled()));
    about(&mut text, schema);
    text.push_str(&format!("[{}]\n", spec.section));
    if let Some(tag) = spec.tag {
        text.push_str(&format!("{tag} = \"{}\"\n\n", spec.kind));
    }
    for (key, default) in &spec.defaults {
        if Some(key.as_str()) == spec.tag || only.is_some_and(|only| only != key) {
            continue;
        }
        let property = &schema["properties"][key];
        about(&mut text, property);
        for (name, meaning) in spec.choices(key) {
            let meaning = plain(&meaning);
            let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
            text.push_str(&format!("#   \"{name}\"  {meaning}\n"));
        }
        // The parts that a text is made of.
        let list = |name: &str| property[name].as_array().into_iter().flatten();
        for (part, meaning) in list("examples").zip(list("x-meanings")) {
            text.push_str(&format!(
                "#   {part}  {}\n",
                meaning.as_str().unwrap_or_default()
            ));
        }
        text.push_str(&format!("{key} = {default}\n\n"));
    }
    text
}

/// Text without the marks of links: `[arXiv 1](https://…)` is `arXiv 1`, and [`Name`] is Name.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once('[') {
        plain.push_str(before);
        let Some((label, after)) = inside.split_once(']') else {
            rest = inside;
            continue;
        };
        let address = after.strip_prefix('(').and_then(|a| a.split_once(')'));
        match (address, label.starts_with('`')) {
            (Some((_, after)), _) => {
                plain.push_str(label.trim_matches('`'));
                rest = after;
            }
            (None, true) => {
                plain.push_str(label.trim_matches('`'));
                rest = after;
            }
            // Brackets of the text's own, such as an interval.
            (None, false) => {
                plain.push_str(&format!("[{label}]"));
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// A JSON schema of recipe files, for editors. A file names it in its first line:
/// `#:schema PATH`, as Taplo and Even Better TOML have it.
pub fn schema() -> Value {
    let mut properties = Map::new();
    for &section in OF_A_RECIPE {
        let specs = specs(section);
        let mut schema = match section {
            // Which of the two it is depends on the family.
            "data" => {
                json!({ "anyOf": specs.iter().map(|s| s.schema.clone()).collect::<Vec<_>>() })
            }
            _ => specs
                .first()
                .map_or(Value::Null, |spec| spec.schema.clone()),
        };
        schema = bare(&schema);
        properties.insert(section.to_owned(), schema);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "In a recipe file: #:schema PATH/TO/THIS.json",
        "title": "A recipe of rezero",
        "type": "object",
        "properties": properties,
        "required": ["model"],
        "additionalProperties": false,
    })
}

/// A schema without the keys that only a whole document has.
fn bare(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
        schema.remove("title");
    }
    schema
}
