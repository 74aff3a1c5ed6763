//! `rezero fetch`

use rezero_data::registry::Entry;
use rezero_data::{fetch, registry};

use super::{out, say};
use crate::cli::Fetch;
use crate::error::Result;
use crate::recipe::EMBEDDED;

pub fn run(args: &Fetch) -> Result<()> {
    let entries = match args.datasets.is_empty() {
        true => of_recipes(),
        false => args
            .datasets
            .iter()
            .map(|name| registry::find(name))
            .collect::<Result<Vec<_>, _>>()?,
    };
    for entry in entries {
        let mut urls = Vec::new();
        if let Some(url) = &args.url {
            urls.push(url.clone());
            urls.extend(entry.urls.iter().cloned());
        }
        let options = fetch::Options {
            dir: args.data_dir.clone(),
            offline: args.offline,
            urls,
            ..fetch::Options::default()
        };
        let dir = fetch::fetch(entry, &options)?;
        out!("{}: {}", entry.name, dir.display());
    }
    let others: Vec<&str> = registry::datasets()
        .iter()
        .map(|entry| entry.name.as_str())
        .filter(|name| {
            args.datasets.is_empty() && of_recipes().iter().all(|entry| entry.name != *name)
        })
        .collect();
    if !others.is_empty() {
        say!(
            "these are the data sets of the built-in recipes; for others: rezero fetch {}",
            others.join(" ")
        );
    }
    Ok(())
}

/// The data sets that a built-in recipe names.
fn of_recipes() -> Vec<&'static Entry> {
    let named = |entry: &&Entry| {
        let line = format!("set = \"{}\"", entry.name);
        EMBEDDED
            .iter()
            .any(|(_, text)| text.lines().any(|other| other.trim() == line))
    };
    registry::datasets().iter().filter(named).collect()
}

#[cfg(test)]
mod tests {
    use super::of_recipes;

    #[test]
    fn the_recipes_need_two_data_sets() {
        let names: Vec<&str> = of_recipes()
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(names, ["cifar10", "enwik8"]);
    }
}
