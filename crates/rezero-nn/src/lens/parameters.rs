//! The parameters of any module: how many there are, and their values.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Int, Tensor};

/// Which residual layer of a network, from 0, a parameter belongs to: the number after `layers` or
/// `blocks` in the names of the modules that hold it.
pub fn layer_index<S: AsRef<str>>(path: &[S]) -> Option<usize> {
    path.windows(2).find_map(|pair| match pair[0].as_ref() {
        "layers" | "blocks" => pair[1].as_ref().parse().ok(),
        _ => None,
    })
}

/// `module` with the initial value of every parameter drawn, in the order of its fields.
///
/// Burn draws a parameter's initial values when they are first used, so that, of a module as it was
/// initialised, they depend on the order of use and on other draws from the device's random
/// stream; and a copy made before keeps its own. After this they are a function of the seed.
/// ([`Module::materialize`] is about reparameterised weights and draws nothing.)
#[must_use]
pub fn initialized<M: Module>(module: M) -> M {
    module.visit(&mut Draw);
    module
}

struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let _ = param.val();
    }
}

/// The number of values that a module learns: floating-point parameters without the running
/// statistics of normalisation layers, which Burn's `num_params` counts too.
pub fn parameter_count<M: Module>(module: &M) -> usize {
    let mut visitor = Count::default();
    module.visit(&mut visitor);
    visitor.count
}

/// The path of the first parameter of `module` with a value that is not finite. Reads from the
/// device.
pub fn not_finite<M: Module>(module: &M) -> Option<String> {
    let mut visitor = NotFinite::default();
    module.visit(&mut visitor);
    visitor.found
}

#[derive(Default)]
struct NotFinite {
    path: Vec<String>,
    found: Option<String>,
}

impl ModuleVisitor for NotFinite {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.found.is_none() {
            let data = param.val().into_data();
            if data.iter::<f32>().any(|value| !value.is_finite()) {
                self.found = Some(self.path.join("."));
            }
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
