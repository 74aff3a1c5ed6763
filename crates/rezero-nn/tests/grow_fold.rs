//! Growing changes nothing, folding nothing but rounding.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Int, Tensor};
use rezero_nn::resnet::{CifarResNet, CifarResNetConfig, PreActDepth, PreActResNetConfig};
use rezero_nn::transformer::{RztxEncoderConfig, RztxLm, RztxLmConfig, RztxTransformerConfig};
use rezero_nn::{
    Fold, Grow, GrowError, Mlp, MlpConfig, NormKind, Place, ReZeroConfig, ResidualConfig,
    ResidualScheme, gates,
};

use crate::helpers::{open_gates, opened, random, scheme, values};

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
    let open = gates(&old).len();
    let new = grow(old).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(forward(&new), before, "{name}");
    let has = ids(&new);
    assert!(
        has.len() > had.len() && had.iter().all(|id| has.contains(id)),
        "{name}"
    );
    let closed = gates(&new)
        .iter()
        .filter(|gate| gate.raw.iter().all(|v| *v == 0.0))
        .count();
    assert_eq!(closed, gates(&new).len() - open, "{name}");
    new
}

#[test]
fn mlps_grow_by_identities() {
    let device = Device::flex();
    let x = random::<2>([3, 12], &device);
    for per_channel in [false, true] {
        for place in [Place::End, Place::Even] {
            let config = |n| {
                let residual = opened(ResidualScheme::ReZero, 0.2).with_per_channel(per_channel);
                MlpConfig::new(12, 16, n, 4).with_residual(residual)
            };
            let old = open_gates(config(5).init(&device), 0.3, true);
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
        for norm in [NormKind::Auto, NormKind::Rms] {
            if norm != NormKind::Auto && scheme != ResidualScheme::ReZero {
                continue;
            }
            let residual = ResidualConfig::new(scheme).with_norm(norm);
            let config = |n| {
                let encoder = RztxEncoderConfig::new(8, 12, 2, n).with_residual(residual.clone());
                RztxLmConfig::new(encoder, 6)
            };
            let old: RztxLm = open_gates(config(3).init(&device), 0.4, true);
            let name = scheme.to_string();
            let grow = |m| config(7).grow(m, Place::Even);
            check_grown(&name, old, grow, |m| values(m.forward(tokens.clone())));
        }
    }
}

#[test]
fn resnets_grow_by_identities_within_their_stages() {
    let device = Device::flex();
    let images = random::<4>([2, 3, 16, 16], &device);
    let growing = CifarResNetConfig::SCHEMES.iter().copied();
    for rule in growing.filter(|scheme| scheme.begins_as_identity()) {
        for place in [Place::End, Place::Even] {
            let config = |depth| CifarResNetConfig::new(depth).with_residual(scheme(rule));
            let old: CifarResNet = open_gates(config(14).init(&device), 0.3, true);
            let name = format!("{rule} {place:?}");
            let grow = |m| config(26).grow(m, place);
            let new = check_grown_of(&name, rule, old, grow, |m| {
                values(m.forward(images.clone()))
            });
            assert_eq!(new.depth(), 26);
        }
    }
    let config = |depth| PreActResNetConfig::new(depth);
    let old = open_gates(config(PreActDepth::D18).init(&device), 0.3, true);
    let grow = |m| config(PreActDepth::D34).grow(m, Place::End);
    check_grown("preact", old, grow, |m| values(m.forward(images.clone())));
}

/// Schemes without gates have none to be 0.
fn check_grown_of(
    name: &str,
    rule: ResidualScheme,
    old: CifarResNet,
    grow: impl FnOnce(CifarResNet) -> Result<CifarResNet, GrowError>,
    forward: impl Fn(&CifarResNet) -> Vec<f32>,
) -> CifarResNet {
    if rule.has_gate() {
        return check_grown(name, old, grow, forward);
    }
    let before = forward(&old);
    let new = grow(old).unwrap();
    assert_eq!(forward(&new), before, "{name}");
    new
}

#[test]
fn what_is_no_identity_or_not_deeper_does_not_grow() {
    let device = Device::flex();
    let config = |n, rule| MlpConfig::new(12, 16, n, 4).with_residual(scheme(rule));
    for &rule in MlpConfig::SCHEMES {
        if rule != ResidualScheme::ReZero {
            let error = config(9, rule)
                .grow(config(3, rule).init(&device), Place::End)
                .unwrap_err();
            assert_eq!(error, GrowError::NotIdentity { scheme: rule });
        }
    }
    let rezero = |n| config(n, ResidualScheme::ReZero);
    let same = rezero(3)
        .grow(rezero(3).init(&device), Place::End)
        .unwrap_err();
    assert_eq!(same, GrowError::NotDeeper { have: 3, wanted: 3 });
    let wider = MlpConfig::new(12, 17, 9, 4).grow(rezero(3).init(&device), Place::End);
    assert!(matches!(wider, Err(GrowError::Shape(_))));
    let other = rezero(9).grow(
        config(3, ResidualScheme::Residual).init(&device),
        Place::End,
    );
    assert!(matches!(other, Err(GrowError::Shape(_))));
    let resnet =
        |depth| CifarResNetConfig::new(depth).with_residual(scheme(ResidualScheme::Residual));
    let vanilla = resnet(20).grow(resnet(14).init(&device), Place::End);
    let Err(error @ GrowError::NotIdentity { .. }) = vanilla else {
        panic!("a plain ResNet has grown");
    };
    assert!(
        error
            .to_string()
            .contains("zero-gamma, fixup, rezero, gated, skipinit")
    );
    let images = CifarResNetConfig::new(14).with_in_channels(1).init(&device);
    let other = CifarResNetConfig::new(20).grow(images, Place::End);
    assert!(matches!(other, Err(GrowError::Shape(_))));
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
    assert_eq!(rezero_nn::gates(&folded).len(), gates, "{name}");
    let after = forward(&folded);
    let largest = before.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    for (a, b) in after.iter().zip(&before) {
        assert!((a - b).abs() <= 1e-5 * largest, "{name}: {a} for {b}");
    }
}

#[test]
fn folded_networks_have_no_gates_and_the_same_output() {
    let device = Device::flex();
    let x = random::<2>([3, 12], &device);
    let images = random::<4>([2, 3, 16, 16], &device);
    let tokens = Tensor::<1, Int>::arange(0..12, &device).reshape([2, 6]);
    for (scale, both) in [(0.5, false), (-0.5, false), (0.5, true), (0.0, false)] {
        for bound in [None, Some(0.4)] {
            let gate = ReZeroConfig::new().with_bound(bound);
            let mut config = MlpConfig::new(12, 16, 6, 4);
            config.residual.rezero = gate.clone();
            let net: Mlp = open_gates(config.init(&device), scale, both);
            check_folded("mlp", net, 0, |net| values(net.forward(x.clone())));
            for &rule in CifarResNetConfig::SCHEMES {
                let residual = scheme(rule).with_rezero(gate.clone());
                let config = CifarResNetConfig::new(14).with_residual(residual);
                let net = open_gates(config.init(&device), scale, both);
                let name = format!("{rule} {scale} {both}");
                check_folded(&name, net, 0, |net| values(net.forward(images.clone())));
            }
            for &rule in PreActResNetConfig::SCHEMES {
                let residual = scheme(rule).with_rezero(gate.clone());
                let config = PreActResNetConfig::new(PreActDepth::D18).with_residual(residual);
                let net = open_gates(config.init(&device), scale, both);
                check_folded("preact", net, 0, |net| values(net.forward(images.clone())));
            }
        }
        for &rule in RztxEncoderConfig::SCHEMES {
            for per_channel in [false, true] {
                if per_channel && rule == ResidualScheme::Gated {
                    continue;
                }
                let encoder = RztxEncoderConfig::new(8, 12, 2, 4)
                    .with_residual(scheme(rule).with_per_channel(per_channel));
                let net = RztxLmConfig::new(encoder, 6).init(&device);
                let net = open_gates(net, scale, both);
                let name = format!("{rule} {per_channel}");
                check_folded(&name, net, 0, |net| values(net.forward(tokens.clone())));
            }
        }
    }
    let residual = scheme(ResidualScheme::ReZero).with_norm(NormKind::Layer);
    let net = open_gates(
        RztxTransformerConfig::new(8, 12, 2, 2, 3)
            .with_residual(residual)
            .init(&device),
        0.5,
        true,
    );
    let (source, target) = (
        random::<3>([2, 5, 8], &device),
        random::<3>([2, 4, 8], &device),
    );
    check_folded("encoder and decoder", net, 0, |net| {
        values(net.forward(source.clone(), target.clone()))
    });
}

#[test]
fn gates_that_nothing_can_carry_stay() {
    let device = Device::flex();
    let x = random::<2>([3, 12], &device);
    let residual = scheme(ResidualScheme::ReZero).with_per_channel(true);
    let config = MlpConfig::new(12, 16, 3, 4).with_residual(residual);
    let gates = |both| open_gates(config.init(&device), 0.5, both);
    check_folded("one sign", gates(false), 0, |net| {
        values(net.forward(x.clone()))
    });
    check_folded("both signs", gates(true), 3, |net| {
        values(net.forward(x.clone()))
    });
}
