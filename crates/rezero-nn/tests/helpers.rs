//! What the tests of this crate share, apart from the comparisons with PyTorch (`support.rs`).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData, Tolerance};
use rezero_nn::{Gate, ResidualConfig, ResidualScheme, gates};

/// Standard normal.
pub fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Bytes that repeat with no simple period.
pub fn bytes(batch: usize, length: usize, seed: usize, device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = (0..batch * length)
        .map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % 256) as i32)
        .collect();
    Tensor::from_data(TensorData::new(values, [batch, length]), device)
}

pub fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

pub fn bits<const D: usize>(x: Tensor<D>) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

pub fn near<const D: usize>(a: Tensor<D>, b: Tensor<D>, tolerance: f32) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(tolerance));
}

/// ReZero, or another scheme with its defaults.
pub fn scheme(scheme: ResidualScheme) -> ResidualConfig {
    ResidualConfig::new(scheme)
}

/// The scheme with gates that start at `alpha`.
pub fn opened(scheme: ResidualScheme, alpha: f64) -> ResidualConfig {
    let mut residual = ResidualConfig::new(scheme);
    residual.rezero.alpha = alpha;
    residual
}

/// The paths of all floating-point parameters, in forward order.
pub fn paths<M: Module>(module: &M) -> Vec<String> {
    let mut visitor = Paths::default();
    module.visit(&mut visitor);
    visitor.found
}

#[derive(Default)]
struct Paths {
    path: Vec<String>,
    found: Vec<String>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        self.found.push(self.path.join("."));
    }
}

/// The module with a value of its own in each gate: of the sign of `scale`, or of both signs.
pub fn open_gates<M: Module>(module: M, scale: f32, both: bool) -> M {
    let gates = gates(&module);
    module.map(&mut Open {
        scale,
        both,
        gates,
        seen: 0,
    })
}

struct Open {
    scale: f32,
    both: bool,
    gates: Vec<Gate>,
    seen: usize,
}

impl ModuleMapper for Open {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.gates.iter().any(|gate| gate.id == param.id) {
            return param;
        }
        let n = param.lazy_shape().num_elements();
        let start = self.seen;
        self.seen += n;
        let values: Vec<f32> = (start..start + n)
            .map(|i| {
                let sign = if self.both && i % 2 == 1 { -1.0 } else { 1.0 };
                sign * self.scale * (1.0 + 0.1 * (i % 5) as f32)
            })
            .collect();
        param.map(|old| {
            let new = Tensor::<1>::from_floats(values.as_slice(), &old.device());
            let new = new.reshape(old.dims());
            match old.is_require_grad() {
                true => new.detach().require_grad(),
                false => new,
            }
        })
    }
}
