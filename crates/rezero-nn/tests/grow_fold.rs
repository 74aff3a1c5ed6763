//! Growing changes nothing, folding nothing but rounding.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Distribution, Int, Tensor};
use rezero_nn::resnet::{Arm, CifarResNet, CifarResNetConfig, PreActDepth, PreActResNetConfig};
use rezero_nn::transformer::{RztxLayerConfig, RztxLm, RztxLmConfig, RztxTransformerConfig};
use rezero_nn::{
    Fold, Grow, GrowError, Mlp, MlpArm, MlpConfig, NormKind, Place, ReZeroConfig, ResidualConfig,
    ResidualScheme, alphas,
};

fn normal<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter().collect()
}

/// Gives each gate a value of its own, of the sign of `scale` or of both signs.
struct Open {
    scale: f32,
    both: bool,
    path: Vec<String>,
    seen: usize,
}

impl ModuleMapper for Open {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.path.last().is_none_or(|name| name != "alpha") {
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
        let device = param.val().device();
        param.map(|old| Tensor::<1>::from_floats(values.as_slice(), &device).reshape(old.dims()))
    }
}

fn opened<M: Module>(module: M, scale: f32, both: bool) -> M {
    let mut open = Open {
        scale,
        both,
        path: Vec::new(),
        seen: 0,
    };
    module.map(&mut open)
}

#[derive(Default)]
struct Ids(Vec<ParamId>);

impl ModuleVisitor for Ids {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.id);
    }
}

fn ids<M: Module>(module: &M) -> Vec<ParamId> {
    let mut ids = Ids::default();
    module.visit(&mut ids);
    ids.0
}

/// The grown network gives the same bits, keeps the ids of what there was, and its new gates are 0.
fn check_grown<M: Module>(
    name: &str,
    old: M,
    grow: impl FnOnce(M) -> Result<M, GrowError>,
    forward: impl Fn(&M) -> Vec<f32>,
) -> M {
    let before = forward(&old);
    let had = ids(&old);
    let gates = alphas(&old).len();
    let new = grow(old).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(forward(&new), before, "{name}");
    let has = ids(&new);
    assert!(
        has.len() > had.len() && had.iter().all(|id| has.contains(id)),
        "{name}"
    );
    let closed = alphas(&new)
        .iter()
        .filter(|(_, a)| a.iter().all(|v| *v == 0.0))
        .count();
    assert_eq!(closed, alphas(&new).len() - gates, "{name}");
    new
}

#[test]
fn mlps_grow_by_identities() {
    let device = Device::flex();
    let x = normal::<2>([3, 12], &device);
    for channels in [None, Some(16)] {
        for place in [Place::End, Place::Even] {
            let config = |n| {
                let mut config = MlpConfig::new(12, 16, n, 4);
                config.residual.rezero =
                    ReZeroConfig::new().with_alpha(0.2).with_channels(channels);
                config
            };
            let old = opened(config(5).init(&device), 0.3, true);
            let marks: Vec<f32> = old
                .layers
                .iter()
                .map(|l| values(l.linear.weight.val())[0])
                .collect();
            let new = check_grown(
                "mlp",
                old,
                |m| config(12).grow(m, place),
                |m| values(m.forward(x.clone())),
            );
            let at: Vec<usize> = marks
                .iter()
                .map(|mark| {
                    new.layers
                        .iter()
                        .position(|l| values(l.linear.weight.val())[0] == *mark)
                        .unwrap()
                })
                .collect();
            let expected = match place {
                Place::End => [0, 1, 2, 3, 4],
                Place::Even => [0, 2, 4, 7, 9],
            };
            assert_eq!(at, expected);
        }
    }
}

#[test]
fn language_models_grow_by_identities() {
    let device = Device::flex();
    let tokens = Tensor::<1, Int>::arange(0..12, &device).reshape([2, 6]);
    let schemes = [
        ResidualScheme::ReZero,
        ResidualScheme::SkipInit,
        ResidualScheme::Gated,
    ];
    for scheme in schemes {
        for norm in [None, Some(NormKind::Rms)] {
            if norm.is_some() && scheme != ResidualScheme::ReZero {
                continue;
            }
            let residual = ResidualConfig::new(scheme).with_norm(norm);
            let layer = RztxLayerConfig::new(8, 2)
                .with_d_ff(12)
                .with_residual(residual);
            let config = |n| RztxLmConfig::new(layer.clone(), n, 6);
            let old: RztxLm = opened(config(3).init(&device), 0.4, true);
            let name = format!("{scheme:?}");
            let grow = |m| config(7).grow(m, Place::Even);
            check_grown(&name, old, grow, |m| values(m.forward(tokens.clone())));
        }
    }
}

#[test]
fn resnets_grow_by_identities_within_their_stages() {
    let device = Device::flex();
    let images = normal::<4>([2, 3, 16, 16], &device);
    let growing = [
        Arm::ReZero,
        Arm::Gated,
        Arm::SkipInit,
        Arm::ZeroGamma,
        Arm::FixUp,
    ];
    for arm in growing {
        for place in [Place::End, Place::Even] {
            let config = |depth| CifarResNetConfig::new(depth).with_arm(arm);
            let old: CifarResNet = opened(config(14).init(&device), 0.3, true);
            let name = format!("{arm:?} {place:?}");
            let grow = |m| config(26).grow(m, place);
            let new = check_grown_of(&name, arm, old, grow, |m| values(m.forward(images.clone())));
            assert_eq!(new.depth(), 26);
        }
    }
    let config = |depth| PreActResNetConfig::new(depth);
    let old = opened(config(PreActDepth::D18).init(&device), 0.3, true);
    let grow = |m| config(PreActDepth::D34).grow(m, Place::End);
    check_grown("preact", old, grow, |m| values(m.forward(images.clone())));
}

/// Arms without gates have none to be 0.
fn check_grown_of(
    name: &str,
    arm: Arm,
    old: CifarResNet,
    grow: impl FnOnce(CifarResNet) -> Result<CifarResNet, GrowError>,
    forward: impl Fn(&CifarResNet) -> Vec<f32>,
) -> CifarResNet {
    match arm {
        Arm::ZeroGamma | Arm::FixUp => {
            let before = forward(&old);
            let new = grow(old).unwrap();
            assert_eq!(forward(&new), before, "{name}");
            new
        }
        _ => check_grown(name, old, grow, forward),
    }
}

#[test]
fn what_is_no_identity_or_not_deeper_does_not_grow() {
    let device = Device::flex();
    let config = |n, arm| MlpConfig::new(12, 16, n, 4).with_arm(arm);
    for arm in [
        MlpArm::Vanilla,
        MlpArm::Residual,
        MlpArm::LayerNorm,
        MlpArm::PreNorm,
        MlpArm::PostNorm,
    ] {
        let error = config(9, arm)
            .grow(config(3, arm).init(&device), Place::End)
            .unwrap_err();
        assert!(matches!(error, GrowError::NotIdentity { .. }), "{arm:?}");
    }
    let rezero = |n| config(n, MlpArm::ReZero);
    let same = rezero(3)
        .grow(rezero(3).init(&device), Place::End)
        .unwrap_err();
    assert_eq!(same, GrowError::NotDeeper { have: 3, wanted: 3 });
    let wider = MlpConfig::new(12, 17, 9, 4).grow(rezero(3).init(&device), Place::End);
    assert!(matches!(wider, Err(GrowError::Shape(_))));
    let other = rezero(9).grow(config(3, MlpArm::Residual).init(&device), Place::End);
    assert!(matches!(other, Err(GrowError::Shape(_))));
    let resnet = |depth, arm| CifarResNetConfig::new(depth).with_arm(arm);
    let vanilla = resnet(20, Arm::Vanilla).grow(resnet(14, Arm::Vanilla).init(&device), Place::End);
    assert!(matches!(vanilla, Err(GrowError::NotIdentity { .. })));
}

/// The folded network has no gate and the same output within 1e-5 of its largest value.
fn check_folded<M: Module + Fold>(
    name: &str,
    net: M,
    gates: usize,
    forward: impl Fn(&M) -> Vec<f32>,
) {
    let before = forward(&net);
    let folded = net.fold();
    assert_eq!(alphas(&folded).len(), gates, "{name}");
    let after = forward(&folded);
    let largest = before.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    for (a, b) in after.iter().zip(&before) {
        assert!((a - b).abs() <= 1e-5 * largest, "{name}: {a} for {b}");
    }
}

#[test]
fn folded_networks_have_no_gates_and_the_same_output() {
    let device = Device::flex();
    let x = normal::<2>([3, 12], &device);
    let images = normal::<4>([2, 3, 16, 16], &device);
    let tokens = Tensor::<1, Int>::arange(0..12, &device).reshape([2, 6]);
    for (scale, both) in [(0.5, false), (-0.5, false), (0.5, true), (0.0, false)] {
        for bound in [None, Some(0.4)] {
            let gate = ReZeroConfig::new().with_bound(bound);
            let mut config = MlpConfig::new(12, 16, 6, 4);
            config.residual.rezero = gate.clone();
            let net: Mlp = opened(config.init(&device), scale, both);
            check_folded("mlp", net, 0, |net| values(net.forward(x.clone())));
            for arm in [
                Arm::ReZero,
                Arm::Gated,
                Arm::SkipInit,
                Arm::Vanilla,
                Arm::ZeroGamma,
                Arm::FixUp,
            ] {
                let config = CifarResNetConfig::new(14)
                    .with_arm(arm)
                    .with_rezero(gate.clone());
                let net = opened(config.init(&device), scale, both);
                let name = format!("{arm:?} {scale} {both}");
                check_folded(&name, net, 0, |net| values(net.forward(images.clone())));
            }
            for scheme in [
                ResidualScheme::Sum,
                ResidualScheme::ReZero,
                ResidualScheme::Gated,
            ] {
                let config = PreActResNetConfig::new(PreActDepth::D18)
                    .with_scheme(scheme)
                    .with_rezero(gate.clone());
                let net = opened(config.init(&device), scale, both);
                check_folded("preact", net, 0, |net| values(net.forward(images.clone())));
            }
        }
        for scheme in [
            ResidualScheme::ReZero,
            ResidualScheme::SkipInit,
            ResidualScheme::Gated,
            ResidualScheme::LayerScale,
            ResidualScheme::PreNorm,
            ResidualScheme::PostNorm,
            ResidualScheme::DeepNorm,
        ] {
            for per_channel in [false, true] {
                if per_channel && scheme == ResidualScheme::Gated {
                    continue;
                }
                let layer = RztxLayerConfig::new(8, 2)
                    .with_d_ff(12)
                    .with_alpha_per_channel(per_channel)
                    .with_residual(ResidualConfig::new(scheme));
                let net = opened(RztxLmConfig::new(layer, 4, 6).init(&device), scale, both);
                let name = format!("{scheme:?} {per_channel}");
                check_folded(&name, net, 0, |net| values(net.forward(tokens.clone())));
            }
        }
    }
    let residual = ResidualConfig::new(ResidualScheme::ReZero).with_norm(Some(NormKind::Layer));
    let layer = RztxLayerConfig::new(8, 2)
        .with_d_ff(12)
        .with_residual(residual);
    let net = opened(
        RztxTransformerConfig::new(layer)
            .with_n_encoder_layers(2)
            .with_n_decoder_layers(3)
            .init(&device),
        0.5,
        true,
    );
    let (source, target) = (
        normal::<3>([2, 5, 8], &device),
        normal::<3>([2, 4, 8], &device),
    );
    check_folded("encoder and decoder", net, 0, |net| {
        values(net.forward(source.clone(), target.clone()))
    });
}

#[test]
fn gates_that_nothing_can_carry_stay() {
    let device = Device::flex();
    let x = normal::<2>([3, 12], &device);
    let mut config = MlpConfig::new(12, 16, 3, 4);
    config.residual.rezero = ReZeroConfig::new().with_channels(Some(16));
    let gates = |both| opened(config.init(&device), 0.5, both);
    check_folded("one sign", gates(false), 0, |net| {
        values(net.forward(x.clone()))
    });
    check_folded("both signs", gates(true), 3, |net| {
        values(net.forward(x.clone()))
    });
}
