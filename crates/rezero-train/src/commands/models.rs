//! `rezero models`

use rezero_nn::pretrained::{self, Pretrained, PretrainedError};

use super::out;
use super::source::ZOO;
use crate::cli::Models;
use crate::error::Result;
use crate::say::results;
use crate::words;

pub fn run(args: &Models) -> Result<()> {
    let pattern = args.name.as_deref().unwrap_or("*");
    let pattern = pattern.strip_prefix(ZOO).unwrap_or(pattern);
    let found: Vec<&Pretrained> = pretrained::find(pattern).collect();
    if found.is_empty() {
        let name = pattern.to_owned();
        return Err(PretrainedError::Unknown { name }.into());
    }
    if args.json {
        let all: Vec<serde_json::Value> = found.iter().map(|one| described(one)).collect();
        out!("{}", words::json(&all).expect("a table of values is JSON"));
        return Ok(());
    }
    match found.as_slice() {
        [one] if one.name == pattern => results(one.card),
        _ => {
            for one in found {
                out!("{:20}{:>7}  {}", one.name, size(one.bytes), one.summary);
            }
            Ok(())
        }
    }
}

fn described(one: &Pretrained) -> serde_json::Value {
    serde_json::json!({
        "name": one.name, "summary": one.summary, "bytes": one.bytes, "sha256": one.sha256,
        "classes": one.classes,
        "mean": one.normalization.map(|n| n.mean), "std": one.normalization.map(|n| n.std),
    })
}

/// `1.1 MB`.
fn size(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
