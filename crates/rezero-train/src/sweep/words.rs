//! `KEY=VALUE,VALUE,…`

use std::collections::BTreeSet;

/// A key with one value or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The key as it was typed.
    pub key: String,
    /// The values as they were typed; `1..3` is three of them.
    pub values: Vec<String>,
}

impl std::str::FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, values) = text.split_once('=').unwrap_or_default();
        let key = key.trim();
        if key.is_empty() {
            return Err(format!(
                "`{text}` is not of the form key=value,value (for example lr=1e-3,1e-2)"
            ));
        }
        let mut all = Vec::new();
        for part in parts(values) {
            let part = part.trim();
            if part.is_empty() {
                return Err(format!(
                    "{key} has an empty value; write {key}=VALUE,VALUE, or leave the key out"
                ));
            }
            match range(key, part)? {
                Some(range) => all.extend(range),
                None => all.push(part.to_owned()),
            }
        }
        let mut seen = BTreeSet::new();
        if let Some(value) = all.iter().find(|value| !seen.insert(*value)) {
            return Err(format!("{key} has the value {value} twice"));
        }
        Ok(Self {
            key: key.to_owned(),
            values: all,
        })
    }
}

/// The parts between commas that are neither in brackets nor in quotes: `[2,3],"a,b"` has two.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth, mut quote) = (Vec::new(), 0, 0usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) => {
                if c == open {
                    quote = None;
                }
            }
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// The whole numbers from `A` to `B` of `A..B`, both included.
fn range(key: &str, text: &str) -> Result<Option<Vec<String>>, String> {
    use crate::record::sweep::MOST_TRIALS;

    let Some((first, last)) = text.split_once("..") else {
        return Ok(None);
    };
    let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) else {
        return Ok(None);
    };
    if first > last {
        return Err(format!("{key}={text} has no values; write {last}..{first}"));
    }
    if last - first >= MOST_TRIALS as u64 {
        return Err(format!(
            "{key}={text} has more values than a sweep may have trials, {MOST_TRIALS}"
        ));
    }
    Ok(Some((first..=last).map(|n| n.to_string()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_at_their_commas() {
        let of = |text: &str| text.parse::<Word>().map(|word| word.values);
        let is = |text: &str, values: &[&str]| assert_eq!(of(text).unwrap(), values, "{text}");
        is("lr=1e-3", &["1e-3"]);
        is(" lr = 1e-3, 3e-3 ", &["1e-3", "3e-3"]);
        is("seed=1..3", &["1", "2", "3"]);
        is("seed=7..7,9", &["7", "9"]);
        is("milestones=[2,3],[4]", &["[2,3]", "[4]"]);
        is("text='a,b',\"c,]\"", &["'a,b'", "\"c,]\""]);
        is("a=b..c", &["b..c"]);
        is("a=b=c", &["b=c"]);
        for (text, part) in [
            ("lr", "key=value"),
            ("=1", "key=value"),
            ("lr=", "empty value"),
            ("lr=1,,2", "empty value"),
            ("lr=1,2,1", "the value 1 twice"),
            ("seed=1..3,2", "the value 2 twice"),
            ("seed=3..1", "write 1..3"),
            ("seed=0..18446744073709551615", "10000"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
