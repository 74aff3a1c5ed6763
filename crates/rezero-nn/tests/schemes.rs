//! The table of residual schemes and the other named choices.

use std::fmt::{Debug, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use burn::tensor::{Device, Tensor};
use rezero_nn::resnet::{CifarResNetConfig, Definition, PreActDepth, PreActResNetConfig};
use rezero_nn::transformer::{
    Activation, Positions, RztxDecoderConfig, RztxEncoderConfig, RztxTransformerConfig,
};
use rezero_nn::{MlpConfig, NormKind, ResidualScheme, Site, UnknownName, WeightInit};
use serde::{Serialize, de::DeserializeOwned};

use crate::helpers::{opened, scheme, values};

/// Each scheme's layer with a branch that is known, by its formula.
#[test]
fn schemes_are_their_formulas() {
    let device = Device::flex();
    let norm = |v: [f32; 2]| {
        let (mean, half) = ((v[0] + v[1]) / 2.0, (v[0] - v[1]) / 2.0);
        let std = (half * half + 1e-5f32).sqrt();
        [(v[0] - mean) / std, (v[1] - mean) / std]
    };
    let branch = |v: [f32; 2]| [3.0 * v[0] + 1.0, -v[1]];
    let x = [0.5f32, -2.0];
    let add = |a: [f32; 2], b: [f32; 2], s: f32| [a[0] + s * b[0], a[1] + s * b[1]];
    let zero = [0.0, 0.0];
    for &rule in ResidualScheme::ALL {
        let expected = match rule {
            ResidualScheme::Plain => branch(x),
            ResidualScheme::PlainNorm => norm(branch(x)),
            // The network has the norm.
            ResidualScheme::PlainSharedNorm => branch(x),
            // Zero-γ and FixUp are particular in their branch.
            ResidualScheme::Residual | ResidualScheme::ZeroGamma | ResidualScheme::FixUp => {
                add(x, branch(x), 1.0)
            }
            ResidualScheme::PostNorm => norm(add(x, branch(x), 1.0)),
            ResidualScheme::PreNorm | ResidualScheme::PreNormNotebook => {
                add(x, branch(norm(x)), 1.0)
            }
            ResidualScheme::Gpt2Norm => add(x, norm(branch(x)), 1.0),
            ResidualScheme::ReZero | ResidualScheme::SkipInit => add(x, branch(x), 0.25),
            ResidualScheme::Gated => add(add(zero, x, 0.75), branch(x), 0.25),
            ResidualScheme::LayerScale => add(x, branch(norm(x)), 0.25),
            // n_layers = 8: c = 16^¼ = 2.
            ResidualScheme::DeepNorm => norm(add(branch(x), x, 2.0)),
        };
        let site = Site {
            channels: 2,
            channel_axis: 2,
            n_layers: 8,
        };
        let residual = opened(rule, 0.25).init(site, &device);
        let input = Tensor::<3>::from_data([[x]], &device);
        let gain = Tensor::<3>::from_data([[[3.0, -1.0]]], &device);
        let shift = Tensor::<3>::from_data([[[1.0, 0.0]]], &device);
        let y = values(residual.forward(input, |v| v * gain + shift));
        for (got, want) in y.iter().zip(expected) {
            assert!((got - want).abs() < 1e-5, "{rule}: {y:?} {expected:?}");
        }
    }
}

#[test]
fn the_table_answers_for_each_scheme() {
    use ResidualScheme::*;
    let with = |question: fn(ResidualScheme) -> bool| -> Vec<ResidualScheme> {
        let all = ResidualScheme::ALL.iter().copied();
        all.filter(|scheme| question(*scheme)).collect()
    };
    assert_eq!(
        with(ResidualScheme::has_gate),
        [ReZero, Gated, SkipInit, LayerScale]
    );
    assert_eq!(with(ResidualScheme::shares_gate), [ReZero, Gated]);
    assert_eq!(
        with(ResidualScheme::begins_as_identity),
        [ZeroGamma, FixUp, ReZero, Gated, SkipInit]
    );
    assert_eq!(ReZero.formula(), "x + α · F(x)");
    assert_eq!(DeepNorm.formula(), "Norm(c · x + F(x))");
}

/// Each name, by every way of reading and writing it, and no other.
fn check_names<T>(all: &[T], names: &[&str])
where
    T: Copy + Debug + Display + PartialEq + FromStr<Err = UnknownName>,
    T: Serialize + DeserializeOwned,
{
    let shown: Vec<String> = all.iter().map(T::to_string).collect();
    assert_eq!(shown, names);
    for (one, name) in all.iter().zip(names) {
        assert_eq!(name.parse::<T>().as_ref(), Ok(one));
        let json = serde_json::to_string(one).unwrap();
        assert_eq!(json, format!("{name:?}"));
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *one);
    }
    let error = "no such".parse::<T>().unwrap_err();
    assert_eq!(error.names, names);
    assert!(error.to_string().contains(&names.join(", ")), "{error}");
    assert!(serde_json::from_str::<T>("\"no such\"").is_err());
}

#[test]
fn names_are_read_as_they_are_written() {
    check_names(
        ResidualScheme::ALL,
        &[
            "plain",
            "plain-norm",
            "plain-shared-norm",
            "residual",
            "zero-gamma",
            "fixup",
            "post-norm",
            "pre-norm",
            "pre-norm-notebook",
            "gpt2-norm",
            "rezero",
            "gated",
            "skipinit",
            "layerscale",
            "deepnorm",
        ],
    );
    check_names(Activation::ALL, &["relu", "gelu", "silu", "swiglu"]);
    check_names(NormKind::ALL, &["auto", "layer", "rms"]);
    check_names(Positions::ALL, &["learned", "sinusoidal", "rotary", "none"]);
    check_names(Definition::ALL, &["notebook", "table", "projection"]);
    check_names(WeightInit::ALL, &["pytorch", "notebook"]);
    check_names(PreActDepth::ALL, &["18", "34", "50"]);
}

#[test]
fn schemas_have_names_and_docs() {
    let schema = serde_json::to_value(schemars::schema_for!(ResidualScheme)).unwrap();
    let rows = schema["oneOf"].as_array().unwrap();
    assert_eq!(rows.len(), ResidualScheme::ALL.len());
    for (row, scheme) in rows.iter().zip(ResidualScheme::ALL) {
        assert_eq!(row["const"], scheme.name());
        assert!(row["description"].as_str().unwrap().starts_with('`'));
    }
}

/// Configurations go through serde, and a network's scheme is read by its name.
#[test]
fn configurations_are_read_back() {
    let encoder = RztxEncoderConfig::new(8, 12, 2, 3)
        .with_residual(scheme(ResidualScheme::Gpt2Norm))
        .with_activation(Activation::SwiGlu);
    let json = serde_json::to_value(&encoder).unwrap();
    assert_eq!(json["residual"]["scheme"], "gpt2-norm");
    assert_eq!(json["activation"], "swiglu");
    let back: RztxEncoderConfig = serde_json::from_value(json).unwrap();
    assert_eq!(back.residual.scheme, ResidualScheme::Gpt2Norm);
}

/// Every scheme of a family initialises, and any other is refused by a message with those it has.
fn check_family(schemes: &[ResidualScheme], init: impl Fn(ResidualScheme)) {
    let names: Vec<&str> = schemes.iter().map(|scheme| scheme.name()).collect();
    for &scheme in ResidualScheme::ALL {
        let result = catch_unwind(AssertUnwindSafe(|| init(scheme)));
        match (schemes.contains(&scheme), result) {
            (true, Ok(())) => {}
            (false, Err(panic)) => {
                let message = panic.downcast_ref::<String>().unwrap();
                let expected = format!("no residual scheme {scheme}; choose one of ");
                assert!(message.contains(&expected), "{message}");
                assert!(message.contains(&names.join(", ")), "{message}");
            }
            (true, Err(_)) => panic!("{scheme} is not taken"),
            (false, Ok(())) => panic!("{scheme} is taken"),
        }
    }
}

#[test]
fn families_take_their_schemes_and_no_others() {
    let device = Device::flex();
    check_family(MlpConfig::SCHEMES, |rule| {
        MlpConfig::new(4, 6, 2, 3)
            .with_residual(scheme(rule))
            .init(&device);
    });
    check_family(CifarResNetConfig::SCHEMES, |rule| {
        CifarResNetConfig::new(8)
            .with_residual(scheme(rule))
            .init(&device);
    });
    check_family(PreActResNetConfig::SCHEMES, |rule| {
        PreActResNetConfig::new(PreActDepth::D18)
            .with_residual(scheme(rule))
            .init(&device);
    });
    check_family(RztxEncoderConfig::SCHEMES, |rule| {
        RztxEncoderConfig::new(8, 12, 2, 2)
            .with_residual(scheme(rule))
            .init(&device);
    });
    check_family(RztxDecoderConfig::SCHEMES, |rule| {
        RztxDecoderConfig::new(8, 12, 2, 2)
            .with_residual(scheme(rule))
            .init(&device);
    });
    check_family(RztxTransformerConfig::SCHEMES, |rule| {
        RztxTransformerConfig::new(8, 12, 2, 2, 2)
            .with_residual(scheme(rule))
            .init(&device);
    });
}

#[test]
#[should_panic(expected = "the residual scheme plain has no norm: leave `norm` at auto, got rms")]
fn a_norm_where_the_scheme_has_none_is_refused() {
    let residual = scheme(ResidualScheme::Plain).with_norm(NormKind::Rms);
    MlpConfig::new(4, 6, 2, 3)
        .with_residual(residual)
        .init(&Device::flex());
}

#[test]
#[should_panic(
    expected = "CifarResNetConfig has batch norms alone: leave `norm` at auto, got layer"
)]
fn a_layer_norm_in_a_resnet_is_refused() {
    let residual = scheme(ResidualScheme::ReZero).with_norm(NormKind::Layer);
    CifarResNetConfig::new(8)
        .with_residual(residual)
        .init(&Device::flex());
}

#[test]
#[should_panic(expected = "the layer holds the gate: use LayerResiduals::forward")]
fn a_sub_layer_without_its_layers_gate_is_refused() {
    let device = Device::flex();
    let site = Site {
        channels: 2,
        channel_axis: 2,
        n_layers: 1,
    };
    let layer = scheme(ResidualScheme::ReZero).init_layer(2, site, &device);
    layer.sub_layers[0].forward(Tensor::<3>::ones([1, 1, 2], &device), |x| x);
}
