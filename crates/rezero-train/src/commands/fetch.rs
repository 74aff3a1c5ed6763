//! `rezero fetch`

use rezero_data::{fetch, registry};

use super::out;
use crate::cli::Fetch;
use crate::error::Result;

pub fn run(args: &Fetch) -> Result<()> {
    let entries = match args.datasets.is_empty() {
        true => registry::datasets().iter().collect(),
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
    Ok(())
}
