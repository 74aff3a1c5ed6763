//! The keys of recipes, as the schema and `rezero recipes --keys` list them.

use std::collections::BTreeSet;

use rezero_train::recipe::{EMBEDDED, Recipe, described, parts, schema};
use serde_json::{Value, json};

use crate::support::{fail, kinds, resolve, scratch, succeed, with_family};

const SECTIONS: [&str; 7] = [
    "data",
    "gates",
    "model",
    "optimizer",
    "run",
    "schedule",
    "train",
];

/// The error of a value under a schema, for the parts of schemas that recipes use.
fn wrong(schema: &Value, value: &Value, at: &str) -> Option<String> {
    let fail = |what: &str| Some(format!("{at}: {what}: {value} by {schema}"));
    if let Some(wanted) = schema.get("const")
        && wanted != value
    {
        return fail("another constant");
    }
    if let Some(names) = schema["enum"].as_array()
        && !names.contains(value)
    {
        return fail("none of the names");
    }
    for (key, least, most) in [("oneOf", 1, 1), ("anyOf", 1, usize::MAX)] {
        if let Some(kinds) = schema[key].as_array() {
            let fitting = kinds.iter().filter(|kind| wrong(kind, value, at).is_none());
            if !(least..=most).contains(&fitting.count()) {
                return fail(key);
            }
        }
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("{at}: a new type, {other}"),
    };
    if let Some(name) = schema["type"].as_str()
        && !is(name)
    {
        return fail("another type");
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        return fail("too small");
    }
    if let Some(values) = value.as_array() {
        return values
            .iter()
            .find_map(|value| wrong(&schema["items"], value, at));
    }
    let object = value.as_object()?;
    for key in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(key.as_str().expect("a name")) {
            return fail("a key is missing");
        }
    }
    let none = serde_json::Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    object.iter().find_map(|(key, value)| {
        let at = format!("{at}.{key}");
        match properties.get(key) {
            Some(schema) => wrong(schema, value, &at),
            None if schema["additionalProperties"] == json!(false) => {
                Some(format!("{at}: no such key"))
            }
            None => None,
        }
    })
}

fn as_json(toml: &str) -> Value {
    let table: toml::Table = toml.parse().unwrap();
    serde_json::to_value(table).unwrap()
}

#[test]
fn the_schema_knows_every_shipped_recipe() {
    let dir = scratch();
    let said = succeed(dir.path(), &["recipes", "--schema"]);
    let printed: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(printed, schema());
    assert!(said.err.contains("#:schema"), "{}", said.err);
    for (name, text) in EMBEDDED {
        // The file itself, and the file with every key.
        let full = Recipe::parse(name, text).unwrap().recipe.to_toml();
        for text in [*text, &full] {
            assert_eq!(wrong(&printed, &as_json(text), name), None);
        }
    }
}

#[test]
fn the_schema_refuses_what_a_recipe_may_not_have() {
    let schema = schema();
    for text in [
        "[modle]\nfamily = 'mlp'\n[model]\nfamily = 'mlp'",
        "# no [model]",
        "[model]\ndepth = 8",
        "lr = 1",
        "[model]\nfamily = 'mlp'\nd_model = 8",
        "[model]\nfamily = 'mpl'",
        "[model]\nfamily = 'mlp'\nscheme = 'prenorm'",
        "[model]\nfamily = 'mlp'\ndepth = 'deep'",
        "[model]\nfamily = 'mlp'\ndepth = -1",
        "[data]\nset = 'cifar11'",
        "[data]\naugment = 'flip'\nstride = 4",
        "[optimizer]\nkind = 'adam'\nmomentum = 0.9",
        "[schedule]\nkind = 'constant'\nmilestones = [3]",
        "[schedule]\nkind = 'multi-step'\nmilestones = ['three']",
        "[gates]\nalpha = 1",
        "[train]\nepochs = 3",
        "[run]\nepochs = 1.5",
    ] {
        let text = with_family(text);
        let found = wrong(&schema, &as_json(&text), "recipe");
        assert!(found.is_some(), "nothing is wrong with {text:?}");
        assert!(Recipe::parse("file", &text).is_err(), "{text:?}");
    }
    let right = as_json(&with_family("[run]\nepochs = 3"));
    assert_eq!(wrong(&schema, &right, "recipe"), None);
}

/// Section, kind and keys of every block of `recipes --keys`.
fn blocks(text: &str) -> Vec<(String, toml::Table)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            Some(section) => blocks.push((section.to_owned(), String::new())),
            None => {
                let (_, block) = blocks.last_mut().expect("keys are in sections");
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    // A key that is there twice is no TOML.
    let blocks = blocks.into_iter();
    blocks
        .map(|(section, text)| (section, text.parse().expect("a block is TOML")))
        .collect()
}

#[test]
fn every_key_is_listed_once_per_kind() {
    let dir = scratch();
    let said = succeed(dir.path(), &["recipes", "--keys"]);
    let listed = blocks(&said.out);
    let schema = schema();
    let kinds = kinds(&schema);
    assert_eq!(listed.len(), kinds.len());
    let mut sections: Vec<&str> = listed.iter().map(|(section, _)| section.as_str()).collect();
    sections.sort_unstable();
    sections.dedup();
    assert_eq!(sections, SECTIONS);
    for (section, kind) in &kinds {
        let wanted = kind["properties"].as_object().unwrap();
        let found = listed.iter().filter(|(name, keys)| {
            let keys: BTreeSet<&str> = keys.keys().map(String::as_str).collect();
            name == section && keys == names(wanted)
        });
        assert_eq!(found.count(), kinds_like(&kinds, section, wanted), "{kind}");
        // Every key has a description.
        for (key, property) in wanted {
            let about = property["description"].as_str().unwrap_or_default();
            let is_tag = property.get("const").is_some();
            assert!(is_tag || !about.is_empty(), "{section}.{key} {property}");
            for line in about.lines() {
                assert!(said.out.contains(line), "{section}.{key}: {line}");
            }
        }
    }
    // The defaults that are listed are valid, kind by kind.
    for (section, keys) in &listed {
        let mut block = json!({ "model": { "family": "mlp" } });
        block[section] = serde_json::to_value(keys).unwrap();
        assert_eq!(wrong(&schema, &block, "recipe"), None);
    }
}

/// The values that `recipes --keys` lists are those of a recipe that sets no key.
#[test]
fn the_listed_values_are_the_defaults() {
    let mut compared = 0;
    for (section, keys) in blocks(&described(None)) {
        let tag = ["family", "kind"]
            .into_iter()
            .find(|tag| keys.contains_key(*tag));
        let mut file = match section.as_str() {
            "model" => String::new(),
            "data" if keys.contains_key("stride") => "[model]\nfamily = 'byte-lm'\n".to_owned(),
            _ => "[model]\nfamily = 'cifar-resnet'\n".to_owned(),
        };
        if let Some(tag) = tag {
            file.push_str(&format!("[{section}]\n{tag} = {}\n", keys[tag]));
        }
        if section != "run" {
            file.push_str("[run]\nsteps = 5\n");
        }
        let tables = Recipe::parse("defaults", &file).unwrap().recipe.to_tables();
        // Keys that have no effect without another are left out.
        for (key, value) in &tables[section.as_str()] {
            assert_eq!(keys.get(key), Some(value), "{section}.{key}");
            compared += 1;
        }
    }
    assert!(compared > 60, "{compared}");
}

fn names(keys: &serde_json::Map<String, Value>) -> BTreeSet<&str> {
    keys.keys().map(String::as_str).collect()
}

/// The number of kinds of a section that have the same keys: Adam and AdamW differ in their
/// defaults alone.
fn kinds_like(
    kinds: &[(String, Value)],
    section: &str,
    keys: &serde_json::Map<String, Value>,
) -> usize {
    let like = |(name, kind): &&(String, Value)| {
        name == section && names(kind["properties"].as_object().unwrap()) == names(keys)
    };
    kinds.iter().filter(like).count()
}

#[test]
fn the_keys_of_a_part() {
    let all = kinds(&schema());
    let kinds_of = |section: &str| all.iter().filter(|(name, _)| name == section).count();
    let most = all.iter().map(|(name, _)| kinds_of(name)).max().unwrap();
    for part in parts() {
        let listed = blocks(&described(Some(&part)));
        assert!(!listed.is_empty(), "{part}");
        assert!(listed.len() <= most, "{part}");
    }
    let one = |part: &str| {
        let mut listed = blocks(&described(Some(part)));
        assert_eq!(listed.len(), 1, "{part}");
        listed.remove(0)
    };
    let (section, keys) = one("adam");
    assert_eq!(section, "optimizer");
    assert_eq!(keys["kind"].as_str(), Some("adam"));
    assert!(keys.contains_key("beta1") && !keys.contains_key("momentum"));
    let (_, keys) = one("byte-lm");
    assert!(keys.contains_key("d_model") && !keys.contains_key("width"));
    let optimizers = blocks(&described(Some("optimizer")));
    assert_eq!(optimizers.len(), kinds_of("optimizer"));
    // A family's list ends with the other sections that its recipes have.
    for (family, data) in [("byte-lm", "text"), ("mlp", "images")] {
        let listed = described(Some(family));
        let others = format!("one of {data}, optimizer, gates, schedule, train, run\n");
        assert!(listed.ends_with(&others), "{listed}");
    }
    // The whole list begins with the parts that it can be narrowed to, and each has a heading.
    let whole = described(None);
    let (head, _) = whole.split_once("=====").expect("a heading");
    for part in parts() {
        assert!(head.contains(&part), "{part}: {head}");
    }
    for heading in ["[model] family=byte-lm", "[data] of text", "[run]"] {
        assert!(
            whole.contains(&format!("# ===== {heading} =====\n")),
            "{heading}"
        );
    }
    let dir = scratch();
    let args = ["recipes", "--keys", "optimiser"];
    fail(dir.path(), &args, 1, &["did you mean `optimizer`?"]);
    let args = ["recipes", "--keys", "learning_rate"];
    fail(dir.path(), &args, 1, &["did you mean `lr`?"]);
    let args = ["recipes", "--keys", "quickstart"];
    fail(dir.path(), &args, 1, &["`rezero recipes quickstart`"]);
}

/// The words that a key accepts: those of its own type, or the names of its section's kinds.
fn words(property: &Value) -> Vec<String> {
    let of = |schema: &Value| -> Vec<String> {
        let names = schema["enum"].as_array().into_iter().flatten();
        let names = names.chain(schema.get("const"));
        names
            .filter_map(|name| Some(name.as_str()?.to_owned()))
            .collect()
    };
    let mut all = of(property);
    for choice in property["oneOf"].as_array().into_iter().flatten() {
        all.extend(of(choice));
    }
    all
}

/// Every word of every key with a spelling error, in a file and on the command line.
#[test]
fn an_unknown_word_is_refused_with_the_word_that_was_meant() {
    let schema = schema();
    let mut refused = 0;
    for (section, kind) in kinds(&schema) {
        let properties = kind["properties"].as_object().unwrap();
        let tag = properties.iter().find(|(_, p)| p.get("const").is_some());
        let tag = tag.map(|(key, p)| (key.clone(), p["const"].as_str().unwrap().to_owned()));
        let of_text = match (&*section, &tag) {
            ("model", Some((_, family))) => family == "byte-lm",
            ("data", _) => properties.contains_key("stride"),
            _ => false,
        };
        let base = if of_text { "enwik8-tiny" } else { "quickstart" };
        for (key, property) in properties {
            let words = words(property);
            for word in &words {
                let typed = format!("{word}q");
                let mut changes = Vec::new();
                let mut file = String::new();
                if section != "model" {
                    let family = if of_text { "byte-lm" } else { "cifar-resnet" };
                    file.push_str(&format!("[model]\nfamily = \"{family}\"\n"));
                }
                file.push_str(&format!("[{section}]\n"));
                if let Some((tag, kind)) = tag.as_ref().filter(|(tag, _)| tag != key) {
                    changes.push(format!("{section}.{tag}={kind}"));
                    file.push_str(&format!("{tag} = \"{kind}\"\n"));
                }
                changes.push(format!("{section}.{key}={typed}"));
                file.push_str(&format!("{key} = \"{typed}\"\n"));
                let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
                let given = resolve(base, &changes).unwrap_err();
                let in_file = Recipe::parse("file", &file).unwrap_err().to_string();
                for error in [given, in_file] {
                    let full = format!("`{section}.{key}`");
                    for part in [full.as_str(), &typed, "did you mean `"] {
                        assert!(error.contains(part), "no `{part}` in: {error}");
                    }
                }
                refused += 1;
            }
            if words.len() > 1 {
                let change = format!("{section}.{key}=qqqqqqqqqqqqqqqqqqqq");
                let error = resolve(base, &[&change]);
                // A key of another kind than the recipe's is refused for that reason.
                let error = error.unwrap_err();
                assert!(!error.contains("did you mean"), "{error}");
            }
        }
    }
    assert!(refused > 60, "{refused}");
}
