//! Comparisons with fixtures of `fixtures/by_path.py`, which name every parameter by the path of its field and keep
//! the weights of linear layers in PyTorch's layout.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig, momentum::MomentumConfig};
use burn::tensor::{Device, Int, Tensor};

use super::support::{Array, Checks, Fixture, cross_entropy};

/// The names of the fields that lead to a parameter, and the type that holds it.
#[derive(Default)]
struct Path(Vec<(String, String)>);

impl Path {
    fn name(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.join(".")
    }

    /// Whether PyTorch has the transpose.
    fn is_transposed(&self) -> bool {
        let last = self.0.last();
        last.is_some_and(|(name, holder)| name == "weight" && holder == "Struct:Linear")
    }
}

/// Gives every parameter the fixture's value of `PREFIX/NAME`.
struct Set<'a> {
    fixture: &'a Fixture,
    prefix: &'a str,
    path: Path,
    seen: BTreeSet<String>,
}

impl ModuleMapper for Set<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path
            .0
            .push((name.to_owned(), container_type.to_owned()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let device = param.lazy_device();
        let value = self.fixture.get(&format!("{}/{name}", self.prefix));
        let value = value.tensor::<D>(&device);
        let value = match self.path.is_transposed() {
            true => value.transpose(),
            false => value,
        };
        assert_eq!(value.dims(), param.lazy_shape().dims::<D>(), "{name}");
        self.seen.insert(name);
        // A leaf of the graph.
        Param::from_data(value.into_data(), &device)
    }
}

/// Every parameter, in PyTorch's layout: its name and, with `gradients`, its gradient, else its value.
struct Found<'a> {
    gradients: Option<&'a GradientsParams>,
    path: Path,
    all: Vec<(String, Option<Array>)>,
}

impl ModuleVisitor for Found<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path
            .0
            .push((name.to_owned(), container_type.to_owned()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = match self.gradients {
            Some(gradients) => gradients.get::<D>(param.id),
            None => Some(param.val()),
        };
        let tensor = tensor.map(|tensor| match self.path.is_transposed() {
            true => tensor.transpose(),
            false => tensor,
        });
        self.all.push((self.path.name(), tensor.map(Array::of)));
    }
}

/// `net` with the fixture's parameters. The fixture has no others.
fn set<M: Module>(fixture: &Fixture, prefix: &str, net: M) -> M {
    let mut mapper = Set {
        fixture,
        prefix,
        path: Path::default(),
        seen: BTreeSet::new(),
    };
    let net = net.map(&mut mapper);
    assert_eq!(
        mapper.seen,
        fixture.names(&format!("{prefix}/")),
        "{prefix}"
    );
    net
}

fn compare<M: Module>(
    checks: &mut Checks,
    fixture: &Fixture,
    prefix: &str,
    net: &M,
    gradients: Option<&GradientsParams>,
) {
    let mut found = Found {
        gradients,
        path: Path::default(),
        all: Vec::new(),
    };
    net.visit(&mut found);
    for (name, array) in found.all {
        let key = format!("{prefix}/{name}");
        match array {
            Some(array) => {
                let want = fixture.get(&key);
                match want.values.iter().all(|v| v.abs() < 1e-12) {
                    // It is 0 by symmetry, as where a norm removes a bias: rounding alone is left.
                    true => checks.within(&key, &array.values, &want.values, 1.0),
                    false => checks.near(&key, &array, &want),
                }
            }
            None => checks.fail(&key, "no gradient"),
        }
    }
}

fn targets(fixture: &Fixture, key: &str, device: &Device) -> Tensor<1, Int> {
    let classes: Vec<i64> = fixture.get(key).values.iter().map(|v| *v as i64).collect();
    Tensor::from_ints(classes.as_slice(), device)
}

/// Logits, loss and all gradients of one case.
pub fn check_case<M: Module>(
    fixture: &Fixture,
    case: &str,
    net: M,
    forward: impl Fn(&M, Tensor<4>) -> Tensor<2>,
    tolerance: f64,
    device: &Device,
) {
    let get = |key: &str| fixture.get(&format!("{case}/{key}"));
    let net = set(fixture, &format!("{case}/param"), net);
    let image = get("image").tensor::<4>(device).require_grad();
    let logits = forward(&net, image.clone());
    let loss = cross_entropy(
        logits.clone(),
        targets(fixture, &format!("{case}/targets"), device),
    );
    let mut gradients = loss.backward();
    let mut checks = Checks::new(tolerance);
    checks.near("logits", &Array::of(logits), &get("logits"));
    checks.near("loss", &Array::of(loss), &get("loss"));
    let of_image = image.grad(&gradients).expect("a gradient");
    checks.near("grad_input", &Array::of(of_image), &get("grad_input"));
    let gradients = GradientsParams::from_module(&mut gradients, &net);
    let prefix = format!("{case}/grad");
    compare(&mut checks, fixture, &prefix, &net, Some(&gradients));
    checks.finish(case);
}

/// Twenty steps of SGD with momentum: every loss, the last logits and the last parameters.
pub fn check_trajectory<M: Module>(
    fixture: &Fixture,
    case: &str,
    net: M,
    forward: impl Fn(&M, Tensor<4>) -> Tensor<2>,
    tolerance: f64,
    device: &Device,
) {
    let get = |key: &str| fixture.get(&format!("{case}/{key}"));
    let mut net = set(fixture, &format!("{case}/param"), net);
    // PyTorch's defaults; Burn would dampen by 0.1.
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let mut optimizer: ModuleOptimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
    let image = |i: usize| get(&format!("image.{i}")).tensor::<4>(device);
    let mut losses = Vec::new();
    for step in 0..20 {
        let i = step % 2;
        let targets = targets(fixture, &format!("{case}/targets.{i}"), device);
        let loss = cross_entropy(forward(&net, image(i)), targets);
        losses.push(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(0.05, net, gradients);
    }
    let mut checks = Checks::new(tolerance);
    let want = get("losses").values;
    assert_eq!(losses.len(), want.len());
    for (step, (got, want)) in losses.iter().zip(&want).enumerate() {
        let name = format!("loss of step {step}");
        checks.within(&name, &[*got], &[*want], f64::from(*want));
    }
    let logits = Array::of(forward(&net, image(0)));
    checks.near("logits after the last step", &logits, &get("logits"));
    compare(&mut checks, fixture, &format!("{case}/end"), &net, None);
    checks.finish(case);
}
