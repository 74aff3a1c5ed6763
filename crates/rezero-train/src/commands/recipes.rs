//! `rezero recipes`

use std::ffi::OsStr;

use super::{out, say};
use crate::cli::Recipes;
use crate::error::{Error, Result};
use crate::recipe::{self, EMBEDDED, Recipe};
use crate::say::results;

pub fn run(args: &Recipes) -> Result<()> {
    if args.schema {
        let schema = serde_json::to_string_pretty(&recipe::schema()).expect("a schema is JSON");
        results(&schema)?;
        say!("a recipe names it in its first line: #:schema PATH");
        return Ok(());
    }
    if args.keys {
        return keys(args.name.as_deref().map(OsStr::to_string_lossy).as_deref());
    }
    if let Some(name) = &args.name {
        // Resolving checks the name; the file's text has the comments.
        Recipe::resolve(name, &[])?;
        match EMBEDDED.iter().find(|(n, _)| name == *n) {
            Some((_, text)) => results(text)?,
            None => {
                let text = std::fs::read_to_string(name).map_err(|e| Error::io("read", name, e))?;
                results(&text)?;
            }
        }
        return Ok(());
    }
    for (name, text) in EMBEDDED {
        // The first comment line says what it is.
        let about = text.lines().next().unwrap_or_default();
        out!("{name:28}{}", about.trim_start_matches(['#', ' ']));
    }
    Ok(())
}

/// Every key, or those of one section, of one kind, or one key.
fn keys(part: Option<&str>) -> Result<()> {
    let text = recipe::described(part);
    if let (true, Some(part)) = (text.is_empty(), part) {
        return Err(match EMBEDDED.iter().any(|(name, _)| *name == part) {
            true => Error::Recipe {
                name: part.to_owned(),
                message: format!(
                    "`rezero recipes {part}` shows it; --keys takes a section, a kind or a key"
                ),
            },
            false => Error::UnknownKey {
                key: part.to_owned(),
                nearest: recipe::similar_part(part),
            },
        });
    }
    results(&text)
}
