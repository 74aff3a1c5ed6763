//! Parameters that keep their values: `train.freeze`.
//!
//! A frozen parameter has no gradient: it gets no update and no weight decay, the optimizer has no state for it, and it
//! does not count in the gradient norm. Its gradient is computed all the same. The running statistics of a batch norm
//! are no parameters: they go on following the data.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::optimizer::hidden_matrices;
use crate::error::{Error, Result};
use crate::recipe::{Optimizer, Settings};

/// The numbers of the parameters that are frozen.
#[derive(Clone, Debug, Default)]
pub(super) struct Frozen(Arc<BTreeSet<u64>>);

/// How much of a model is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrozenCount {
    /// The frozen parameter tensors, and all.
    pub tensors: [usize; 2],
    /// The numbers in them.
    pub values: [usize; 2],
}

impl Frozen {
    /// The parameters of `model` whose names match a pattern.
    pub fn of<M: Module>(model: &M, patterns: &[String]) -> Self {
        if patterns.is_empty() {
            return Self::default();
        }
        let all = Trainable::of(model).0.into_iter();
        let matching = all.filter(|part| patterns.iter().any(|p| matches(p, &part.name)));
        Self(Arc::new(matching.map(|part| part.id).collect()))
    }

    pub fn has(&self, id: ParamId) -> bool {
        self.0.contains(&id.val())
    }

    /// The gradients without those of frozen parameters.
    pub fn without<M: Module>(&self, model: &M, grads: GradientsParams) -> GradientsParams {
        if self.0.is_empty() {
            return grads;
        }
        let mut drop = Drop {
            frozen: self,
            grads,
        };
        model.visit(&mut drop);
        drop.grads
    }
}

/// Checks `train.freeze` against the model that is to be trained.
///
/// # Errors
///
/// If a pattern matches no parameter, or nothing is left to train, or nothing that Muon trains.
pub(crate) fn check_freeze<M: Module>(model: &M, settings: &Settings) -> Result<FrozenCount> {
    let patterns = &settings.train.freeze;
    let all = Trainable::of(model).0;
    let bad = |message: String| Error::RecipeValue {
        key: "train.freeze".to_owned(),
        message,
    };
    for pattern in patterns {
        if all.iter().any(|part| matches(pattern, &part.name)) {
            continue;
        }
        let mut names: Vec<&str> = all
            .iter()
            .map(|part| part.name.split('.').next().unwrap_or_default())
            .collect();
        names.dedup();
        let below = format!("{pattern}.");
        let hint = match all.iter().any(|part| part.name.starts_with(&below)) {
            true => format!("; for all of it write `{pattern}.*`"),
            false => String::new(),
        };
        return Err(bad(format!(
            "`{pattern}` matches no parameter{hint}; the names begin with {}, such as {}",
            names.join(", "),
            all.first().map_or("", |part| &part.name)
        )));
    }
    let frozen = |part: &&Part| patterns.iter().any(|pattern| matches(pattern, &part.name));
    let count = |parts: &[&Part]| (parts.len(), parts.iter().map(|part| part.values).sum());
    let ((some, values), (every, total)) = (
        count(&all.iter().filter(frozen).collect::<Vec<_>>()),
        count(&all.iter().collect::<Vec<_>>()),
    );
    if some == every {
        return Err(bad(
            "matches every parameter, so that nothing is trained; leave some out".to_owned(),
        ));
    }
    if let Optimizer::Muon(_) = settings.optimizer {
        let matrices = hidden_matrices(model);
        let is_frozen = |id: &ParamId| all.iter().any(|part| part.id == id.val() && frozen(&part));
        if !matrices.is_empty() && matrices.iter().all(is_frozen) {
            return Err(bad(
                "matches every matrix that optimizer=muon updates, those of the residual layers; choose another \
                 optimizer, or freeze fewer"
                    .to_owned(),
            ));
        }
    }
    Ok(FrozenCount {
        tensors: [some, every],
        values: [values, total],
    })
}

/// Whether a name matches a pattern, in which `*` stands for any characters and `?` for one.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stands, and the first character that it does not cover yet.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            Some(_) | None => match star {
                Some((at, from)) => {
                    (p, n) = (at + 1, from + 1);
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

struct Part {
    id: u64,
    name: String,
    values: usize,
}

/// The parameters of a module that have gradients, by their names in a checkpoint.
#[derive(Default)]
struct Trainable(Vec<Part>, Vec<String>, bool);

impl Trainable {
    fn of<M: Module>(model: &M) -> Self {
        let mut all = Self::default();
        model.visit(&mut all);
        all
    }
}

impl ModuleVisitor for Trainable {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if self.1.is_empty() {
            // The record of a network of the zoo is that of its variant.
            self.2 = container_type.starts_with("Enum:");
        }
        self.1.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.1.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.0.push(Part {
                id: param.id.val(),
                name: self.1[usize::from(self.2)..].join("."),
                values: param.shape().num_elements(),
            });
        }
    }
}

struct Drop<'a> {
    frozen: &'a Frozen,
    grads: GradientsParams,
}

impl ModuleVisitor for Drop<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.frozen.0.contains(&param.id.val()) {
            let _ = self.grads.remove::<D>(param.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, is) in [
            ("conv1*", "conv1.weight", true),
            ("conv1*", "conv10.weight", true),
            ("conv1.*", "conv10.weight", false),
            ("layer1.*", "layer1.0.conv", true),
            ("layer1", "layer1.0", false),
            ("*.weight", "a.b.weight", true),
            ("*a*b*", "xaxxbx", true),
            ("*ab", "abab", true),
            ("?b*", "ab", true),
            ("?", "ä", true),
            ("*", "", true),
            ("", "a", false),
            ("a*b", "acbc", false),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(200), &"a".repeat(150)));
    }
}
