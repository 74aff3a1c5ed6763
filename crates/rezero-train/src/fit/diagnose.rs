//! The diagnosis of a run that diverged.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// Names the layer that diverged: the first layer with a parameter that is not finite, else the
/// layer whose gradient was not finite first. Also names the largest parameter and the largest
/// gate.
pub fn diagnose<M: Module>(model: &M, grads: &GradientsParams) -> String {
    let mut visitor = Diagnosis {
        grads,
        path: Vec::new(),
        bad_param: None,
        bad_grads: Vec::new(),
        largest_param: (String::new(), 0.0),
    };
    model.visit(&mut visitor);
    let mut text = match (&visitor.bad_param, visitor.bad_grads.last()) {
        (Some(path), _) => format!("parameter {path} is not finite"),
        // Gradients flow backwards: the last one in forward order went wrong first.
        (None, Some(path)) => format!("the gradient of {path} went wrong first"),
        (None, None) => "all parameters and gradients are finite".to_owned(),
    };
    let (path, value) = &visitor.largest_param;
    text.push_str(&format!(
        "; the largest parameter is {path} (|value| {value:.3e})"
    ));
    let gates = rezero_nn::gates(model);
    let values = gates
        .iter()
        .flat_map(|gate| gate.effective.iter().map(|value| (&gate.path, *value)));
    if let Some((path, value)) = values.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())) {
        text.push_str(&format!("; the largest gate is {path} = {value:.3e}"));
    }
    text
}

struct Diagnosis<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    bad_param: Option<String>,
    bad_grads: Vec<String>,
    largest_param: (String, f64),
}

impl ModuleVisitor for Diagnosis<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let value = param.val().inner().abs().max().into_scalar::<f64>();
        if !value.is_finite() && self.bad_param.is_none() {
            self.bad_param = Some(path.clone());
        }
        if let Some(grad) = self.grads.get::<D>(param.id)
            && !grad.sum().into_scalar::<f64>().is_finite()
        {
            self.bad_grads.push(path.clone());
        }
        if value > self.largest_param.1 && !path.contains("running_") {
            self.largest_param = (path, value);
        }
    }
}
