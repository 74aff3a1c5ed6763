//! The names that a wrong name was meant to be.

use rezero_data::nearest;

use super::embedded::EMBEDDED;
use super::sections::{OF_A_RECIPE, names};

/// Names that other programs have for a key of ours, too different from it to be found as the nearest.
const RENAMED: &[(&str, &str)] = &[
    ("alpha", "alpha_init"),
    ("arch", "model"),
    ("arm", "scheme"),
    ("augmentation", "augment"),
    ("augmentations", "augment"),
    ("batch_size", "batch"),
    ("block_size", "context"),
    ("clip_grad", "clip_norm"),
    ("crop_padding", "augment"),
    ("dataset", "data"),
    ("dim", "d_model"),
    ("dropout_rate", "dropout"),
    ("flip", "augment"),
    ("grad_accum", "accumulate"),
    ("grad_clip", "clip_norm"),
    ("gradient_accumulation", "accumulate"),
    ("hidden_dim", "d_model"),
    ("hidden_size", "d_model"),
    ("iterations", "steps"),
    ("iters", "steps"),
    ("layers", "depth"),
    ("learning_rate", "lr"),
    ("max_epochs", "epochs"),
    ("max_iters", "steps"),
    ("max_steps", "steps"),
    ("minibatch", "batch"),
    ("n_embd", "d_model"),
    ("n_layer", "depth"),
    ("n_layers", "depth"),
    ("network", "model"),
    ("num_epochs", "epochs"),
    ("num_heads", "n_heads"),
    ("num_layers", "depth"),
    ("num_steps", "steps"),
    ("precision", "dtype"),
    ("random_seed", "seed"),
    ("residual", "scheme"),
    ("scheduler", "schedule"),
    ("seq_len", "context"),
    ("sequence_length", "context"),
    ("target_bpb", "target"),
    ("wd", "weight_decay"),
];

/// How a name leads to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meant {
    /// It is the key's name.
    Same(String),
    /// Other programs have this name for the key, or it is the key's with a hyphen or capitals.
    Renamed(String),
    /// It resembles the key's name.
    Near(String),
}

impl Meant {
    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::Same(key) | Self::Renamed(key) | Self::Near(key) => key,
        }
    }
}

/// The key of a recipe that a name stands for, if there is one. The name of a section that comes in
/// kinds, such as `optimizer`, stands for its kind.
pub(crate) fn key(name: &str) -> Option<Meant> {
    let keys = names(OF_A_RECIPE);
    // `optimizer.lr`
    let (_, short) = name.split_once('.').unwrap_or_default();
    match keys.iter().any(|key| key == short) {
        true => Some(Meant::Same(name.to_owned())),
        false => key_of(name, &keys),
    }
}

/// As [`key`], among `keys`.
pub(super) fn key_of(name: &str, keys: &[String]) -> Option<Meant> {
    let known = |name: &str| keys.iter().any(|key| key == name);
    if known(name) {
        return Some(Meant::Same(name.to_owned()));
    }
    let plain = name.to_lowercase().replace('-', "_");
    let renamed = RENAMED.iter().find(|(other, _)| *other == plain);
    let other = renamed.map_or(plain.as_str(), |(_, key)| key);
    if known(other) {
        return Some(Meant::Renamed(other.to_owned()));
    }
    let near = nearest(&plain, keys.iter().map(String::as_str));
    near.map(|key| Meant::Near(key.to_owned()))
}

/// The recipes that a name may mean, at most three, the most likely first.
pub(super) fn recipes(name: &str) -> Vec<String> {
    const MOST: usize = 3;

    // `resnet-20`, `ResNet20` and `resnet20` are one name.
    let letters = |name: &str| -> String {
        let letters = name.chars().filter(|c| c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    let word = letters(name);
    // A short piece is a piece of every name.
    if word.len() > 2 {
        let end = |(name, _): &&(&str, &str)| letters(name).ends_with(&word);
        let piece = |(name, _): &&(&str, &str)| letters(name).contains(&word);
        // `byte-lm` and `Transformer` are in no name, but in the recipe's family and first line.
        let family = format!("family = \"{}\"", name.to_lowercase());
        let about = |(_, text): &&(&str, &str)| {
            let first = text.lines().next().unwrap_or_default();
            text.contains(&family) || letters(first).contains(&word)
        };
        let mut found: Vec<String> = Vec::new();
        let all = EMBEDDED.iter();
        let ends = all.clone().filter(end);
        for (name, _) in ends.chain(all.clone().filter(piece)) {
            if !found.iter().any(|have| have == name) {
                found.push((*name).to_owned());
            }
        }
        if found.is_empty() {
            found.extend(all.filter(about).map(|(name, _)| (*name).to_owned()));
        }
        if !found.is_empty() {
            found.truncate(MOST);
            return found;
        }
    }
    // A spelling error, in the whole name or in the name without its data set.
    let whole = nearest(name, EMBEDDED.iter().map(|(name, _)| *name));
    let short = |name: &'static str| name.split_once('-').map_or(name, |(_, short)| short);
    let part = || nearest(name, EMBEDDED.iter().map(|(name, _)| short(name)));
    let of_part = || {
        let part = part()?;
        let found = EMBEDDED.iter().find(|(name, _)| short(name) == part);
        found.map(|(name, _)| *name)
    };
    whole
        .or_else(of_part)
        .map(str::to_owned)
        .into_iter()
        .collect()
}
