//! The optimizers of a run: one per parameter group, each following the [`Dials`].

use burn::module::ParamGroup;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdaGrad, AdaGradConfig, LearningRate, ModuleOptimizer, Optimizer, Sgd, SgdConfig,
};
use burn::tensor::{Device, Tensor};
use rezero_nn::alpha_group;

use crate::recipe::{AlphaOptim, Optim, Recipe};
use crate::schedule::{Dial, Dials};

/// PyTorch's AdaGrad ε; Burn's default is 1e-5.
const ADAGRAD_EPSILON: f32 = 1e-10;

/// The optimizer of `recipe`: weights, then biases, then gates; the last matching group wins.
pub fn build(recipe: &Recipe, dials: &Dials) -> ModuleOptimizer {
    let weights = |decay, lr: &Dial| match recipe.optimizer {
        Optim::Sgd => Group::Sgd(DialedSgd::new(decay, lr, &dials.momentum)),
        Optim::AdaGrad => Group::AdaGrad(DialedAdaGrad::new(decay, lr)),
    };
    let mut optimizer: ModuleOptimizer = match weights(recipe.weight_decay, &dials.lr) {
        Group::Sgd(sgd) => sgd.into(),
        Group::AdaGrad(adagrad) => adagrad.into(),
    };
    let mut add = |group: ParamGroup, optim: Group| {
        let base = optimizer.clone();
        optimizer = match optim {
            Group::Sgd(sgd) => base.with_group(group, sgd, None),
            Group::AdaGrad(adagrad) => base.with_group(group, adagrad, None),
        };
    };
    if recipe.bias_lr > 0.0 {
        add(bias_group(), weights(recipe.weight_decay, &dials.bias_lr));
    }
    let decay = recipe.alpha_weight_decay;
    match recipe.alpha_optimizer {
        AlphaOptim::Shared => {}
        AlphaOptim::Sgd => add(
            alpha_group(),
            Group::Sgd(DialedSgd::new(decay, &dials.alpha_lr, &dials.momentum)),
        ),
        AlphaOptim::AdaGrad => add(
            alpha_group(),
            Group::AdaGrad(DialedAdaGrad::new(decay, &dials.alpha_lr)),
        ),
    }
    optimizer
}

/// What the authors' table code gives a learning rate of its own: every parameter whose PyTorch
/// name contains `bias` (the linear layer's, batch norm's β, FixUp's) or `scale`.
fn bias_group() -> ParamGroup {
    ParamGroup::from_regex(r"(^|\.)(bias\w*|beta|scale)$")
        .expect("the pattern is a valid regular expression")
}

enum Group {
    Sgd(DialedSgd),
    AdaGrad(DialedAdaGrad),
}

/// SGD whose learning rate and momentum are dials. PyTorch's update:
/// `v ← μ·v + g + λ·w`, `w ← w − lr·v`.
#[derive(Clone)]
struct DialedSgd {
    weight_decay: Option<WeightDecayConfig>,
    lr: Dial,
    momentum: Dial,
}

impl DialedSgd {
    fn new(weight_decay: f64, lr: &Dial, momentum: &Dial) -> Self {
        Self {
            weight_decay: decay(weight_decay),
            lr: lr.clone(),
            momentum: momentum.clone(),
        }
    }
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

/// AdaGrad whose learning rate is a dial.
#[derive(Clone)]
struct DialedAdaGrad {
    inner: AdaGrad,
    lr: Dial,
}

impl DialedAdaGrad {
    fn new(weight_decay: f64, lr: &Dial) -> Self {
        Self {
            inner: AdaGradConfig::new()
                .with_epsilon(ADAGRAD_EPSILON)
                .with_weight_decay(decay(weight_decay))
                .build(),
            lr: lr.clone(),
        }
    }
}

impl Optimizer for DialedAdaGrad {
    type State<const D: usize> = <AdaGrad as Optimizer>::State<D>;

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
        AdaGrad::to_device(state, device)
    }
}

fn decay(penalty: f64) -> Option<WeightDecayConfig> {
    (penalty > 0.0).then(|| WeightDecayConfig::new(penalty as f32))
}
