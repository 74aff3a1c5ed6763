//! The parameters of any module: their number and their values.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Int, Tensor};

/// The index, from 0, of the residual layer that a parameter belongs to: the number after `layers`
/// or `blocks` in its path.
pub fn layer_index<S: AsRef<str>>(path: &[S]) -> Option<usize> {
    path.windows(2).find_map(|pair| match pair[0].as_ref() {
        "layers" | "blocks" => pair[1].as_ref().parse().ok(),
        _ => None,
    })
}

/// `module` with all its parameters sampled now, in the order of its fields.
///
/// Burn samples a parameter's initial values when they are first used. So the values of a new
/// module depend on the order of use and on other samples from the device's random stream. After
/// this call they depend only on the seed. ([`Module::materialize`] concerns reparameterised
/// weights and samples nothing.)
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

/// The number of values in the floating-point parameters of a module. Unlike Burn's `num_params`,
/// it does not count the running statistics of normalisation layers.
pub fn parameter_count<M: Module>(module: &M) -> usize {
    let mut visitor = Count::default();
    module.visit(&mut visitor);
    visitor.count
}

/// The path of the first parameter of `module` that holds a value that is not finite. Reads the
/// values from the device.
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
        // Running statistics are visited like parameters. On a device without autodiff, only their
        // names distinguish them.
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
