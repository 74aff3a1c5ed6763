//! Gradient norms, and clipping by the global norm.

use std::collections::VecDeque;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use rezero_kernels::Tensors;

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
    let (mut found, layers) = squares.sums();
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
    let mut scale = Scale {
        grads,
        factor,
        together: Tensors::new(),
        ids: VecDeque::new(),
    };
    module.visit(&mut scale);
    let Scale {
        grads,
        factor,
        mut together,
        ids,
    } = scale;
    if ids.is_empty() {
        return grads;
    }
    together.scale(&factor);
    let mut put = PutBack {
        grads,
        together,
        ids,
    };
    module.visit(&mut put);
    put.grads
}

/// Collects the sum of squares of each gradient.
pub(super) struct Squares<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    /// Gradients whose squares are summed in a few launches, and their layers.
    together: Tensors,
    layers: Vec<Option<usize>>,
    /// The sums of the others, and their layers.
    alone: Vec<Tensor<1>>,
    layers_alone: Vec<Option<usize>>,
}

impl<'a> Squares<'a> {
    /// For the gradients of a module at `path`.
    pub(super) fn new(grads: &'a GradientsParams, path: Vec<String>) -> Self {
        Self {
            grads,
            path,
            together: Tensors::new(),
            layers: Vec::new(),
            alone: Vec::new(),
            layers_alone: Vec::new(),
        }
    }

    /// Sums, to be concatenated, and the layer of each of them.
    pub(super) fn sums(self) -> (Vec<Tensor<1>>, Vec<Option<usize>>) {
        let together = self.together.square_sums().into_iter();
        let layers = self.layers.into_iter().chain(self.layers_alone);
        (together.chain(self.alone).collect(), layers.collect())
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
            let layer = rezero_nn::layer_index(&self.path);
            if self.together.push(&grad) {
                self.layers.push(layer);
            } else {
                self.alone.push(grad.square().sum());
                self.layers_alone.push(layer);
            }
        }
    }
}

struct Scale {
    grads: GradientsParams,
    factor: Tensor<1>,
    /// Gradients that are scaled in a few launches, and whose they are.
    together: Tensors,
    ids: VecDeque<ParamId>,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return;
        };
        if self.together.push(&grad) {
            self.ids.push_back(param.id);
        } else {
            let scaled = grad * self.factor.clone().reshape([1; D]);
            self.grads.register::<D>(param.id, scaled);
        }
    }
}

/// Gives scaled gradients back, in the order in which they were taken.
struct PutBack {
    grads: GradientsParams,
    together: Tensors,
    ids: VecDeque<ParamId>,
}

impl ModuleVisitor for PutBack {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.ids.pop_front_if(|id| *id == param.id).is_some() {
            let scaled = self.together.pop::<D>().expect("as many as were taken");
            self.grads.register::<D>(param.id, scaled);
        }
    }
}
