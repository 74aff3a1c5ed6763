//! Checks of values, with errors that name the key.

use crate::error::{Error, Result};

/// An error of `key` unless `ok`.
pub(crate) fn check(ok: bool, key: &str, message: String) -> Result<()> {
    match ok {
        true => Ok(()),
        false => Err(Error::RecipeValue {
            key: key.to_owned(),
            message,
        }),
    }
}

/// A finite number from 0 on.
pub(crate) fn nonnegative(key: &str, value: f64) -> Result<()> {
    check(
        value.is_finite() && value >= 0.0,
        key,
        format!("must be finite and at least 0, got {value}"),
    )
}

/// A whole number from 1 to `most`.
pub(crate) fn positive(key: &str, value: usize, most: usize) -> Result<()> {
    check(
        (1..=most).contains(&value),
        key,
        format!("must be between 1 and {most}, got {value}"),
    )
}

/// Numbers each above the one before.
pub(crate) fn rising(key: &str, list: &[usize]) -> Result<()> {
    check(
        list.windows(2).all(|w| w[0] < w[1]),
        key,
        format!("must rise, got {list:?}"),
    )
}

/// The number that optimizers compute with.
pub(crate) fn in_f32(value: f64) -> f32 {
    value as f32
}
