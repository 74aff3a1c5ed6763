//! `rezero recipes`

use super::out;
use crate::cli::Recipes;
use crate::error::{Error, Result};
use crate::recipe::{EMBEDDED, Recipe};

pub fn run(args: &Recipes) -> Result<()> {
    if args.keys {
        out!("{}", Recipe::described().trim_end());
        return Ok(());
    }
    if let Some(name) = &args.name {
        // Resolving checks the name; the file's text has the comments.
        Recipe::resolve(name, &[])?;
        match EMBEDDED.iter().find(|(n, _)| n == name) {
            Some((_, text)) => out!("{}", text.trim_end()),
            None => {
                let text = std::fs::read_to_string(name).map_err(|e| Error::io("read", name, e))?;
                out!("{}", text.trim_end());
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
