//! Looking into a module: its gates, and how many parameters it learns.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::tensor::{Int, Tensor};

/// Whether a parameter path names a ReZero gate: its last component is `alpha`.
pub fn is_alpha(path: &str) -> bool {
    path.rsplit('.').next() == Some("alpha")
}

/// Which residual layer of a network, from 0, a parameter belongs to: the number after `layers` or
/// `blocks` in the names of the modules that hold it.
pub fn layer_index<S: AsRef<str>>(path: &[S]) -> Option<usize> {
    path.windows(2).find_map(|pair| match pair[0].as_ref() {
        "layers" | "blocks" => pair[1].as_ref().parse().ok(),
        _ => None,
    })
}

/// The group of all ReZero gates of a module, for an optimizer or a learning rate of their own.
///
/// α is one number that scales a whole layer, so its gradient is a sum over the layer and its scale
/// is not that of a weight. The authors advise against weight decay on it
/// (github.com/majumderb/rezero, issue 14).
///
/// ```
/// use burn::optim::{AdaGradConfig, SgdConfig};
/// use rezero_nn::alpha_group;
///
/// let optimizer = SgdConfig::new()
///     .with_weight_decay(Some(burn::optim::decay::WeightDecayConfig::new(5e-4)))
///     .init()
///     .with_group(alpha_group(), AdaGradConfig::new().build(), None);
/// ```
pub fn alpha_group() -> ParamGroup {
    ParamGroup::from_regex(r"(^|\.)alpha$").expect("the pattern is a valid regular expression")
}

/// `module` with every parameter drawn, in the order of its fields.
///
/// Burn draws a parameter's initial values when they are first used, so that, of a module as it was
/// initialised, they depend on the order of use and on what else draws from the device's random
/// stream; and a copy made before keeps its own. After this they are a function of the seed.
/// ([`Module::materialize`] is about reparameterised weights and draws nothing.)
#[must_use]
pub fn drawn<M: Module>(module: M) -> M {
    module.visit(&mut Draw);
    module
}

struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let _ = param.val();
    }
}

/// Every gate of `module` in forward order: its path and its value(s). Reads from the device.
pub fn alphas<M: Module>(module: &M) -> Vec<(String, Vec<f32>)> {
    let mut visitor = Alphas::default();
    module.visit(&mut visitor);
    visitor.found
}

/// The number of values that a module learns: floating-point parameters without the running
/// statistics of normalisation layers, which Burn's `num_params` counts too.
pub fn parameter_count<M: Module>(module: &M) -> usize {
    let mut visitor = Count::default();
    module.visit(&mut visitor);
    visitor.count
}

#[derive(Default)]
struct Alphas {
    path: Vec<String>,
    found: Vec<(String, Vec<f32>)>,
}

impl ModuleVisitor for Alphas {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.path.last().is_some_and(|name| name == "alpha") {
            let values = param.val().into_data().iter::<f32>().collect();
            self.found.push((self.path.join("."), values));
        }
    }
}

#[derive(Default)]
struct Count {
    path: Vec<String>,
    count: usize,
}

impl ModuleVisitor for Count {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Running statistics are visited like parameters; only their names tell them apart on a
        // device without autodiff.
        if !self
            .path
            .last()
            .is_some_and(|name| name.starts_with("running_"))
        {
            self.count += param.lazy_shape().num_elements();
        }
    }

    fn visit_int<const D: usize>(&mut self, _param: &Param<Tensor<D, Int>>) {}
}
