//! Gradient norms, and clipping by the global norm.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// The gradient norms of a step.
#[derive(Clone, Debug)]
pub struct Norms {
    /// The sum of squares of each parameter's gradient.
    pub(super) squares: Tensor<1>,
    /// The residual layer that each of these parameters belongs to.
    pub(super) layers: Vec<Option<usize>>,
}

impl Norms {
    /// The L2 norm of all gradients together, `[1]`.
    pub fn global(&self) -> Tensor<1> {
        self.squares.clone().sum().sqrt()
    }

    /// The L2 norm of each residual layer's gradients, in forward order. Reads from the device.
    pub fn by_layer(&self) -> Vec<f32> {
        let last = self.layers.iter().flatten().max();
        let mut sums = vec![0.0; last.map_or(0, |last| last + 1)];
        let squares = self.squares.to_data();
        for (layer, square) in self.layers.iter().zip(squares.iter::<f32>()) {
            if let Some(layer) = layer {
                sums[*layer] += square;
            }
        }
        sums.into_iter().map(f32::sqrt).collect()
    }
}

/// Scales all gradients by `min(1, max / norm)`, where `norm` is their global L2 norm, and returns
/// the norms before scaling. With `max` 0 the gradients stay unchanged. Burn's own clipping uses
/// the norm of each tensor separately. Source: Pascanu et al.,
/// [arXiv 1211.5063](https://arxiv.org/abs/1211.5063).
///
/// # Panics
///
/// If `module` has no parameter.
pub fn clip_global_norm<M: Module>(
    module: &M,
    grads: GradientsParams,
    max: f64,
) -> (GradientsParams, Norms) {
    let mut squares = Squares::new(&grads, Vec::new());
    module.visit(&mut squares);
    let Squares {
        mut found, layers, ..
    } = squares;
    if found.is_empty() {
        let device = module
            .devices()
            .into_iter()
            .next()
            .expect("a module with parameters");
        found.push(Tensor::zeros([1], &device.inner()));
    }
    let norms = Norms {
        squares: Tensor::cat(found, 0),
        layers,
    };
    if max <= 0.0 {
        return (grads, norms);
    }
    // Stays on the device: no read is needed to clip.
    let factor = (norms.global() + 1e-6)
        .recip()
        .mul_scalar(max)
        .clamp_max(1.0);
    (scaled(module, grads, factor), norms)
}

/// All gradients times a factor, `[1]`.
pub(super) fn scaled<M: Module>(
    module: &M,
    grads: GradientsParams,
    factor: Tensor<1>,
) -> GradientsParams {
    let mut scale = Scale { grads, factor };
    module.visit(&mut scale);
    scale.grads
}

/// Collects the sum of squares of each gradient.
pub(super) struct Squares<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    pub(super) found: Vec<Tensor<1>>,
    pub(super) layers: Vec<Option<usize>>,
}

impl<'a> Squares<'a> {
    /// For the gradients of a module at `path`.
    pub(super) fn new(grads: &'a GradientsParams, path: Vec<String>) -> Self {
        Self {
            grads,
            path,
            found: Vec::new(),
            layers: Vec::new(),
        }
    }
}

impl ModuleVisitor for Squares<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.found.push(grad.square().sum());
            self.layers.push(rezero_nn::layer_index(&self.path));
        }
    }
}

struct Scale {
    grads: GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            let scaled = grad * self.factor.clone().reshape([1; D]);
            self.grads.register::<D>(param.id, scaled);
        }
    }
}
