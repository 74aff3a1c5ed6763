//! The recipes that ship with the binary, and recipe files.

use std::path::Path;

use crate::error::{Error, Result};

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        /// The recipes that ship with the binary: name and file text.
        pub const EMBEDDED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../recipes/", $name, ".toml")))),*];
    };
}
embedded!(
    "quickstart",
    "cifar10-resnet20",
    "cifar10-resnet56",
    "cifar10-resnet110",
    "cifar10-resnet20-notebook",
    "cifar10-resnet56-notebook",
    "cifar10-resnet110-notebook",
    "cifar10-preact18",
    "cifar10-mlp64",
    "cifar10-mlp10000",
    "cifar10-vit",
    "cifar10-mixer",
    "enwik8-small",
    "enwik8-tiny",
    "enwik8-rztx12",
    "enwik8-rztx64",
    "enwik8-rztx128",
);

/// The text of a recipe file, which is small: a larger file is not one.
pub(super) fn read_file(path: &Path) -> Result<String> {
    const MOST: u64 = 1 << 20;
    let meta = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
    let bad = |message: String| Error::Recipe {
        name: path.display().to_string(),
        message,
    };
    if !meta.is_file() {
        return Err(bad("is not a file".to_owned()));
    }
    let length = meta.len();
    if length > MOST {
        return Err(bad(format!(
            "is {length} bytes, more than any recipe has ({MOST})"
        )));
    }
    std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))
}
