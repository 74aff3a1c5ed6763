//! The optimizers of a run: one per parameter group, each following the [`Dials`].

use burn::module::ParamGroup;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdaGrad, AdaGradConfig, Adam, AdamConfig, AdamW, AdamWConfig, Lamb, LambConfig, LearningRate,
    ModuleOptimizer, Optimizer, Sgd, SgdConfig,
};
use burn::tensor::{Device, Tensor};
use rezero_nn::alpha_group;

use crate::recipe::{AlphaOptim, Optim, Recipe};
use crate::schedule::{Dial, Dials};

/// PyTorch's AdaGrad ε; Burn's default is 1e-5.
const ADAGRAD_EPSILON: f32 = 1e-10;

/// The optimizer of `recipe`: weights, then biases, then gates; the last matching group wins.
pub fn build(recipe: &Recipe, dials: &Dials) -> ModuleOptimizer {
    let groups = Groups { recipe, dials };
    let decay = recipe.weight_decay;
    let mut optimizer = match groups.of(recipe.optimizer, decay, &dials.lr) {
        Group::Sgd(o) => ModuleOptimizer::from(o),
        Group::AdaGrad(o) => ModuleOptimizer::from(o),
        Group::Adam(o) => ModuleOptimizer::from(o),
        Group::AdamW(o) => ModuleOptimizer::from(o),
        Group::Lamb(o) => ModuleOptimizer::from(o),
    };
    let mut add = |which: ParamGroup, group: Group| {
        let base = optimizer.clone();
        optimizer = match group {
            Group::Sgd(o) => base.with_group(which, o, None),
            Group::AdaGrad(o) => base.with_group(which, o, None),
            Group::Adam(o) => base.with_group(which, o, None),
            Group::AdamW(o) => base.with_group(which, o, None),
            Group::Lamb(o) => base.with_group(which, o, None),
        };
    };
    if recipe.bias_lr > 0.0 {
        let group = groups.of(recipe.optimizer, decay, &dials.bias_lr);
        add(bias_group(), group);
    }
    let gates = match recipe.alpha_optimizer {
        AlphaOptim::Shared => return optimizer,
        AlphaOptim::Sgd => Optim::Sgd,
        AlphaOptim::AdaGrad => Optim::AdaGrad,
        AlphaOptim::Adam => Optim::Adam,
    };
    let group = groups.of(gates, recipe.alpha_weight_decay, &dials.alpha_lr);
    add(alpha_group(), group);
    optimizer
}

/// What the authors' table code gives a learning rate of its own: every parameter whose PyTorch
/// name contains `bias` (the linear layer's, batch norm's β, FixUp's) or `scale`.
fn bias_group() -> ParamGroup {
    ParamGroup::from_regex(r"(^|\.)(bias\w*|beta|scale)$")
        .expect("the pattern is a valid regular expression")
}

/// An optimizer of one of the kinds, which are types of their own.
enum Group {
    Sgd(DialedSgd),
    AdaGrad(Dialed<AdaGrad>),
    Adam(Dialed<Adam>),
    AdamW(Dialed<AdamW>),
    Lamb(Dialed<Lamb>),
}

struct Groups<'a> {
    recipe: &'a Recipe,
    dials: &'a Dials,
}

impl Groups<'_> {
    fn of(&self, kind: Optim, weight_decay: f64, lr: &Dial) -> Group {
        let r = self.recipe;
        let (beta1, beta2, epsilon) = (r.beta1 as f32, r.beta2 as f32, r.epsilon as f32);
        match kind {
            Optim::Sgd => Group::Sgd(DialedSgd {
                weight_decay: decay(weight_decay),
                lr: lr.clone(),
                momentum: self.dials.momentum.clone(),
            }),
            Optim::AdaGrad => Group::AdaGrad(Dialed::new(
                AdaGradConfig::new()
                    .with_epsilon(ADAGRAD_EPSILON)
                    .with_weight_decay(decay(weight_decay))
                    .build(),
                lr,
            )),
            Optim::Adam => Group::Adam(Dialed::new(
                AdamConfig::new()
                    .with_beta_1(beta1)
                    .with_beta_2(beta2)
                    .with_epsilon(epsilon)
                    .with_weight_decay(decay(weight_decay))
                    .build(),
                lr,
            )),
            Optim::AdamW => Group::AdamW(Dialed::new(
                AdamWConfig::new()
                    .with_beta_1(beta1)
                    .with_beta_2(beta2)
                    .with_epsilon(epsilon)
                    .with_weight_decay(weight_decay as f32)
                    .build(),
                lr,
            )),
            Optim::Lamb => Group::Lamb(Dialed::new(
                LambConfig::new()
                    .with_beta_1(beta1)
                    .with_beta_2(beta2)
                    .with_epsilon(epsilon)
                    .with_weight_decay(weight_decay as f32)
                    .build(),
                lr,
            )),
        }
    }
}

/// SGD whose learning rate and momentum are dials. PyTorch's update:
/// `v ← μ·v + g + λ·w`, `w ← w − lr·v`.
#[derive(Clone)]
struct DialedSgd {
    weight_decay: Option<WeightDecayConfig>,
    lr: Dial,
    momentum: Dial,
}

impl Optimizer for DialedSgd {
    type State<const D: usize> = <Sgd as Optimizer>::State<D>;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let momentum = MomentumConfig::new()
            .with_momentum(self.momentum.get())
            .with_dampening(0.0);
        let sgd = SgdConfig::new()
            .with_weight_decay(self.weight_decay.clone())
            .with_momentum(Some(momentum))
            .build();
        sgd.step(self.lr.get(), tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        Sgd::to_device(state, device)
    }
}

/// An optimizer whose learning rate is a dial.
#[derive(Clone)]
struct Dialed<O> {
    inner: O,
    lr: Dial,
}

impl<O> Dialed<O> {
    fn new(inner: O, lr: &Dial) -> Self {
        Self {
            inner,
            lr: lr.clone(),
        }
    }
}

impl<O: Optimizer> Optimizer for Dialed<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        _lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        self.inner.step(self.lr.get(), tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        O::to_device(state, device)
    }
}

fn decay(penalty: f64) -> Option<WeightDecayConfig> {
    (penalty > 0.0).then(|| WeightDecayConfig::new(penalty as f32))
}
