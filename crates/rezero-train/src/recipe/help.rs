//! What keys there are, told by the types of the sections.

use serde_json::{Map, Value, json};

use super::sections::{OF_A_RECIPE, Spec, specs};

/// Every key as a line of a recipe file with its default, below comments that say what it means and what
/// it may be. `only` shows one section or one kind: `optimizer`, `adam`, `byte-lm`.
pub fn described(only: Option<&str>) -> String {
    let mut text = String::new();
    for &section in OF_A_RECIPE {
        for spec in specs(section) {
            if only.is_none_or(|only| only == section || only == spec.kind) {
                text.push_str(&block(&spec));
            }
        }
    }
    text
}

/// The names that [`described`] can be narrowed to.
pub fn parts() -> Vec<String> {
    let of = |&section: &&'static str| {
        let kinds = specs(section).into_iter().map(|spec| spec.kind);
        std::iter::once(section.to_owned()).chain(kinds)
    };
    OF_A_RECIPE.iter().flat_map(of).collect()
}

fn block(spec: &Spec) -> String {
    let schema = of_kind(spec);
    let mut text = String::new();
    let about = |text: &mut String, schema: &Value| {
        for line in schema["description"].as_str().unwrap_or_default().lines() {
            text.push_str(&format!("# {line}\n"));
        }
    };
    about(&mut text, &schema);
    text.push_str(&format!("[{}]\n", spec.section));
    let defaults = spec.defaults();
    if let Some(tag) = spec.tag {
        text.push_str(&format!("{tag} = \"{}\"\n\n", spec.kind));
    }
    for (key, default) in &defaults {
        if Some(key.as_str()) == spec.tag {
            continue;
        }
        let property = &schema["properties"][key];
        about(&mut text, property);
        for (name, meaning) in choices(property) {
            let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
            text.push_str(&format!("#   \"{name}\"  {meaning}\n"));
        }
        text.push_str(&format!("{key} = {default}\n\n"));
    }
    text
}

/// The schema of one kind of a section.
fn of_kind(spec: &Spec) -> Value {
    let Some(tag) = spec.tag else {
        return spec.schema.clone();
    };
    let mut kinds = spec.schema["oneOf"].as_array().into_iter().flatten();
    let found = kinds.find(|kind| kind["properties"][tag]["const"] == json!(spec.kind));
    found.cloned().unwrap_or_default()
}

/// The names that a key may have, with what they mean.
fn choices(property: &Value) -> Vec<(String, String)> {
    let of = |choice: &Value| -> Vec<(String, String)> {
        let about = choice["description"].as_str().unwrap_or_default();
        let single = choice["const"].as_str().into_iter();
        let listed = choice["enum"].as_array().into_iter().flatten();
        let listed = listed.filter_map(Value::as_str);
        single
            .chain(listed)
            .map(|name| (name.to_owned(), about.to_owned()))
            .collect()
    };
    let several = property["oneOf"].as_array();
    match several {
        Some(several) => several.iter().flat_map(of).collect(),
        None => of(property)
            .into_iter()
            .map(|(name, _)| (name, String::new()))
            .collect(),
    }
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
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("$schema");
        }
        properties.insert(section.to_owned(), schema);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "In a recipe file: #:schema PATH/TO/THIS.json",
        "title": "A recipe of rezero",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}
