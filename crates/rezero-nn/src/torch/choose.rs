//! Which tensors of a file are meant for a module: a file may hold an optimizer beside the weights, two
//! sets of weights, and buffers that are no weights.

use std::collections::{BTreeMap, BTreeSet};

use super::ImportError;
use super::weights::{TorchTensors, TorchWeights};

/// The largest number of prefixes that are tried, and of components in one. They bound the work, since
/// the names come from the file and each prefix is tried on all of them.
const MAX_PREFIXES: usize = 16;
const MAX_COMPONENTS: usize = 4;

/// Where files keep the weights to use, if they hold several sets, in the order of preference.
const USUAL: [&str; 5] = [
    "state_dict.",
    "model_state_dict.",
    "model.",
    "net.",
    "module.",
];

/// The last components of names that no parameter has: constants that a module computes, counters.
const CONSTANTS: [&str; 14] = [
    "attn_mask",
    "causal_mask",
    "cos_cached",
    "freqs",
    "freqs_cis",
    "inv_freq",
    "mask",
    "num_batches_tracked",
    "pos_weight",
    "position_ids",
    "sin_cached",
    "total_ops",
    "total_params",
    "attention_mask",
];

/// The first components of the names of losses and measures, which are no part of a network.
const BESIDE: [&str; 6] = [
    "criterion",
    "criterions",
    "loss",
    "loss_fn",
    "loss_func",
    "metrics",
];

/// How [`load_with`](super::load_with) reads a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadRules {
    /// The module's tensors are those whose names begin so, such as `ema.`; the point may be left out. Unless it is set, it is the
    /// prefix under which most of the module's parameters are found.
    pub prefix: Option<String>,
    /// Tensors that are left out, by patterns of their names in the file: `*` stands for any text.
    pub ignore: Vec<String>,
}

/// What [`load_with`](super::load_with) did with a file, beside loading it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The text before the names of the module's tensors.
    pub prefix: String,
    /// The names, in the file, of the tensors that were left out.
    pub left_out: Vec<String>,
    /// The names of the module's parameters that the file lacks and that are 0, such as the bias of an
    /// output layer.
    pub zeros: Vec<String>,
    /// Other prefixes under which the file has as many of the module's parameters.
    pub others: Vec<String>,
}

/// The tensors that are meant for a module.
#[derive(Default)]
pub(super) struct Chosen {
    /// By the module's names.
    pub tensors: TorchTensors,
    pub prefix: String,
    pub left_out: Vec<String>,
    pub others: Vec<String>,
}

/// Changes names of a file to a module's.
pub(super) type Translate<'a> = dyn Fn(&mut TorchTensors, &BTreeSet<String>) + 'a;

impl TorchWeights {
    /// The tensors of a module whose parameters have the names in `expected`, after `translate`.
    ///
    /// # Errors
    ///
    /// If no name has the prefix of the rules or matches a pattern of theirs, or two prefixes fit equally.
    pub(super) fn choose(
        &self,
        translate: &Translate<'_>,
        expected: &BTreeSet<String>,
        rules: &LoadRules,
    ) -> Result<Chosen, ImportError> {
        let none = |pattern: &&String| !self.tensors.keys().any(|name| matches(pattern, name));
        if let Some(pattern) = rules.ignore.iter().find(none) {
            return Err(ImportError::Ignore {
                pattern: pattern.clone(),
            });
        }
        let kept = |name: &str| !rules.ignore.iter().any(|pattern| matches(pattern, name));
        let mut best: Vec<(usize, Chosen)> = Vec::new();
        let prefixes = match &rules.prefix {
            Some(prefix) => vec![self.whole_component(prefix)],
            None => self.prefixes(),
        };
        for prefix in prefixes {
            let (mut tensors, mut left_out) = (TorchTensors::new(), Vec::new());
            for (name, tensor) in &self.tensors {
                match name.strip_prefix(&prefix) {
                    Some(inner) if kept(name) && !is_constant(inner) => {
                        tensors.insert(inner.to_owned(), tensor.clone());
                    }
                    _ => left_out.push(name.clone()),
                }
            }
            let found_any = !tensors.is_empty();
            translate(&mut tensors, expected);
            let found = tensors.keys().filter(|name| expected.contains(*name));
            let score = found.count();
            if found_any && best.first().is_none_or(|(most, _)| score >= *most) {
                best.retain(|(most, _)| *most == score);
                let chosen = Chosen {
                    tensors,
                    prefix,
                    left_out,
                    others: Vec::new(),
                };
                best.push((score, chosen));
            }
        }
        let Some((score, _)) = best.first() else {
            let prefix = rules.prefix.clone().unwrap_or_default();
            return Err(self.no_such(prefix));
        };
        let usual = |chosen: &Chosen| USUAL.iter().position(|usual| chosen.prefix == *usual);
        // Without a prefix that helps, all of the file is the module's, and what differs is told.
        let at = match best.iter().position(|(_, chosen)| chosen.prefix.is_empty()) {
            Some(at) => at,
            None if best.len() == 1 || *score == 0 => 0,
            None => {
                let first = (0..best.len()).filter(|at| usual(&best[*at].1).is_some());
                first.min_by_key(|at| usual(&best[*at].1)).ok_or_else(|| {
                    ImportError::Ambiguous {
                        prefixes: best
                            .iter()
                            .map(|(_, chosen)| chosen.prefix.clone())
                            .collect(),
                    }
                })?
            }
        };
        let score = *score;
        let mut chosen = best.swap_remove(at).1;
        if score > 0 && !chosen.prefix.is_empty() {
            chosen.others = best.into_iter().map(|(_, other)| other.prefix).collect();
        }
        Ok(chosen)
    }

    /// The tensors of a module with parameters of these names, if one part of the file has them.
    pub(crate) fn named(
        &self,
        translate: impl Fn(&mut TorchTensors, &BTreeSet<String>),
        expected: &BTreeSet<String>,
    ) -> Option<TorchTensors> {
        let mut rules = LoadRules::default();
        let mut chosen = self.choose(&translate, expected, &rules);
        // Which of several networks it is, is asked later.
        if let Err(ImportError::Ambiguous { prefixes }) = &chosen {
            rules.prefix = prefixes.first().cloned();
            chosen = self.choose(&translate, expected, &rules);
        }
        chosen.ok().map(|chosen| chosen.tensors)
    }

    /// `prefix`, with the point that ends it in the file's names if it lacks that.
    pub(super) fn whole_component(&self, prefix: &str) -> String {
        let pointed = format!("{prefix}.");
        match !prefix.is_empty() && self.tensors.keys().any(|name| name.starts_with(&pointed)) {
            true => pointed,
            false => prefix.to_owned(),
        }
    }

    /// The prefixes of whole components that names have, the shortest and the most frequent first.
    fn prefixes(&self) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in self.tensors.keys() {
            for (i, _) in name.match_indices('.').take(MAX_COMPONENTS) {
                *counts.entry(&name[..=i]).or_default() += 1;
            }
        }
        let mut prefixes: Vec<(&str, usize)> = counts.into_iter().collect();
        prefixes.sort_by_key(|(prefix, count)| (prefix.matches('.').count(), usize::MAX - count));
        prefixes.truncate(MAX_PREFIXES);
        let named = prefixes.into_iter().map(|(prefix, _)| prefix.to_owned());
        [String::new()].into_iter().chain(named).collect()
    }
}

/// Whether a tensor of that name can be no parameter.
fn is_constant(name: &str) -> bool {
    let mut components = name.split('.');
    let first = components.next().unwrap_or_default();
    let last = components.next_back();
    last.is_some_and(|last| BESIDE.contains(&first) || CONSTANTS.contains(&last))
        || CONSTANTS.contains(&name)
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, fits) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b.c", true),
            ("*.bias", "a.b.bias", true),
            ("*.bias", "a.bias.b", false),
            ("a*b*c", "a1b2c", true),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn constants_are_known_by_their_names() {
        for name in [
            "layers.0.attn.inv_freq",
            "criterion.weight",
            "inv_freq",
            "bn1.num_batches_tracked",
        ] {
            assert!(is_constant(name), "{name}");
        }
        for name in ["layers.12.weight", "mask.weight", "loss", "aux_head.weight"] {
            assert!(!is_constant(name), "{name}");
        }
    }
}
