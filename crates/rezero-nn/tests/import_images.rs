//! PyTorch weights of image networks, and what people save beside a state dict.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use rezero_nn::mixer::{MixerConfig, MixerShape, mixer_shape};
use rezero_nn::resnet::{
    CifarResNetConfig, CifarResNetShape, Definition, PreActDepth, PreActResNetConfig,
    PreActResNetShape, cifar_resnet_shape, preact_resnet_shape,
};
use rezero_nn::torch::{ImportError, LoadRules, TorchNames, TorchWeights, export, load, load_with};
use rezero_nn::transformer::{Activation, RztxEncoderConfig, RztxLmConfig, lm_shape};
use rezero_nn::vit::{LayersShape, Pooling, VitConfig, VitShape, vit_shape};
use rezero_nn::{Mlp, MlpConfig, ResidualConfig, ResidualScheme, mlp};
use safetensors::tensor::{Dtype, TensorView};

use crate::support::{Fixture, h};

fn golden() -> Fixture {
    Fixture::parse(include_bytes!("fixtures/import_images.safetensors"))
}

/// A case's state dict as safetensors, under names that `rename` gives: `generate_import_images.py`.
fn state_dict(case: &str, rename: impl Fn(&str) -> String) -> Vec<u8> {
    let golden = golden();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = golden
        .names(&format!("{case}/names/"))
        .into_iter()
        .map(|name| {
            let about = golden.get(&format!("{case}/names/{name}")).values;
            let (p, shape) = about.split_first().unwrap();
            let shape: Vec<usize> = shape.iter().map(|extent| *extent as usize).collect();
            let n = shape.iter().product();
            let factor = shape.len() == 1 && name.ends_with("weight");
            let value = |h: f64| match () {
                () if name.ends_with("running_var") => 1.0 + h,
                () if factor && !name.ends_with("resweight") => 1.0 + 0.5 * h,
                () => h * 0.3,
            };
            let values = h(*p as usize, n).map(|h| value(h) as f32);
            let bytes = values.flat_map(f32::to_le_bytes).collect();
            (rename(&name), shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    safetensors::serialize(views, None).unwrap()
}

/// The test's images, `[2, 3, 12, 12]`.
fn images(device: &Device) -> Tensor<4> {
    let values: Vec<f32> = h(700, 2 * 3 * 144).map(|h| (h * 2.0) as f32).collect();
    Tensor::from_data(TensorData::new(values, [2, 3, 12, 12]), device)
}

/// Asserts that the network has PyTorch's logits and, exported, the names and values of the file.
fn check<M: TorchNames>(
    case: &str,
    net: M,
    same_names: bool,
    forward: impl Fn(&M, Tensor<4>) -> Tensor<2>,
) {
    let device = Device::flex();
    let bytes = state_dict(case, str::to_owned);
    let net = load(net, &TorchWeights::from_bytes(&bytes).unwrap()).unwrap();
    let expected = golden().get(&format!("{case}/logits")).tensor::<2>(&device);
    let largest = expected.clone().abs().max().into_scalar::<f32>();
    let far = (forward(&net, images(&device)) - expected).abs().max();
    let far = far.into_scalar::<f32>() / largest;
    assert!(far < 1e-5, "{case}: {far}");
    if same_names {
        assert_eq!(export(&net, []).unwrap(), bytes_of(&bytes), "{case}");
    }
}

/// The file as `export` would write it: without metadata, it has only the format's name.
fn bytes_of(bytes: &[u8]) -> Vec<u8> {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let about = [("format".to_owned(), "pt".to_owned())]
        .into_iter()
        .collect();
    safetensors::serialize(file.tensors(), Some(about)).unwrap()
}

fn resnet(definition: Definition, scheme: ResidualScheme) -> CifarResNetConfig {
    CifarResNetConfig::new(8)
        .with_definition(definition)
        .with_residual(ResidualConfig::new(scheme))
}

const RESNETS: [(&str, Definition, ResidualScheme, bool); 4] = [
    (
        "projection",
        Definition::Projection,
        ResidualScheme::Residual,
        true,
    ),
    (
        "option_a",
        Definition::Notebook,
        ResidualScheme::Residual,
        false,
    ),
    (
        "option_b",
        Definition::Projection,
        ResidualScheme::Residual,
        false,
    ),
    ("table", Definition::Table, ResidualScheme::ReZero, true),
];

#[test]
fn cifar_resnets_give_pytorchs_logits() {
    for (case, definition, scheme, same_names) in RESNETS {
        let net = resnet(definition, scheme).init(&Device::flex());
        check(case, net, same_names, |net, x| net.forward(x));
        let weights = TorchWeights::from_bytes(&state_dict(case, str::to_owned)).unwrap();
        let shape = CifarResNetShape {
            depth: 8,
            in_channels: 3,
            num_classes: 10,
            projection: definition == Definition::Projection,
            shortcut_norm: definition != Definition::Notebook,
            norm: true,
            gate: scheme == ResidualScheme::ReZero,
            fixup: false,
        };
        assert_eq!(cifar_resnet_shape(&weights), Some(shape), "{case}");
        assert_eq!(preact_resnet_shape(&weights), None, "{case}");
        assert_eq!(mlp::mlp_shape(&weights), None, "{case}");
    }
}

#[test]
fn other_image_networks_give_pytorchs_logits() {
    let device = Device::flex();
    let residual = ResidualConfig::new(ResidualScheme::Residual);
    let net = PreActResNetConfig::new(PreActDepth::D18).with_residual(residual);
    check("preact", net.init(&device), true, |net, x| net.forward(x));
    let weights = TorchWeights::from_bytes(&state_dict("preact", str::to_owned)).unwrap();
    let shape = PreActResNetShape {
        depth: 18,
        in_channels: 3,
        num_classes: 10,
        gate: false,
    };
    assert_eq!(preact_resnet_shape(&weights), Some(shape));
    assert_eq!(cifar_resnet_shape(&weights), None);

    let net = MlpConfig::new(3 * 144, 8, 3, 10).init(&device);
    check("mlp", net, false, |net, x| net.forward(x.flatten(1, 3)));
    let weights = TorchWeights::from_bytes(&state_dict("mlp", str::to_owned)).unwrap();
    let shape = mlp::MlpShape {
        d_input: 432,
        width: 8,
        n_layers: 3,
        num_classes: 10,
        gate: true,
        norm: false,
    };
    assert_eq!(mlp::mlp_shape(&weights), Some(shape));
}

/// The residual connections of two layers.
fn layers(scheme: ResidualScheme) -> LayersShape {
    let none = LayersShape {
        n_layers: 2,
        gates: 0,
        gate_per_channel: false,
        layer_scale: false,
        norms: 2,
        rms: false,
        final_norm: true,
    };
    match scheme {
        ResidualScheme::LayerScale => LayersShape {
            gates: 2,
            gate_per_channel: true,
            layer_scale: true,
            ..none
        },
        ResidualScheme::ReZero => LayersShape {
            gates: 1,
            norms: 0,
            final_norm: false,
            ..none
        },
        _ => none,
    }
}

#[test]
fn vision_transformers_give_pytorchs_logits() {
    let device = Device::flex();
    for (case, scheme, pooling) in [
        ("vit", ResidualScheme::PreNorm, Pooling::Token),
        ("vit_rezero", ResidualScheme::ReZero, Pooling::Mean),
        ("vit_scale", ResidualScheme::LayerScale, Pooling::Token),
        ("vit_vision", ResidualScheme::PreNorm, Pooling::Token),
    ] {
        let encoder = RztxEncoderConfig::new(8, 12, 2, 2)
            .with_activation(Activation::Gelu)
            .with_residual(ResidualConfig::new(scheme));
        let net = VitConfig::new(encoder, [12, 12], 4).with_pooling(pooling);
        let same_names = case != "vit_vision";
        check(case, net.init(&device), same_names, |net, x| net.forward(x));
        let weights = TorchWeights::from_bytes(&state_dict(case, str::to_owned)).unwrap();
        let shape = VitShape {
            layers: layers(scheme),
            d_model: 8,
            d_ff: 12,
            swiglu: false,
            patch_size: 4,
            in_channels: 3,
            num_classes: 10,
            class_token: pooling == Pooling::Token,
            patches: Some(9),
        };
        assert_eq!(vit_shape(&weights), Some(shape), "{case}");
        assert_eq!(shape.layers.scheme(), scheme);
        assert_eq!(mixer_shape(&weights), None, "{case}");
        assert_eq!(cifar_resnet_shape(&weights), None, "{case}");
    }
}

#[test]
fn mixers_give_pytorchs_logits() {
    let device = Device::flex();
    for (case, scheme) in [
        ("mixer", ResidualScheme::PreNorm),
        ("mixer_rezero", ResidualScheme::ReZero),
    ] {
        let net = MixerConfig::new(8, 5, 12, 2, [12, 12], 4)
            .with_residual(ResidualConfig::new(scheme))
            .init(&device);
        check(case, net, true, |net, x| net.forward(x));
        let weights = TorchWeights::from_bytes(&state_dict(case, str::to_owned)).unwrap();
        let shape = MixerShape {
            layers: layers(scheme),
            d_model: 8,
            d_tokens: 5,
            d_channels: 12,
            swiglu: false,
            patch_size: 4,
            patches: 9,
            in_channels: 3,
            num_classes: 10,
        };
        assert_eq!(mixer_shape(&weights), Some(shape), "{case}");
        assert_eq!(vit_shape(&weights), None, "{case}");
    }
}

/// Every scheme, with gates of each branch and SwiGLU, keeps its weights; the file tells the scheme, or one
/// with the same parameters.
#[test]
fn every_scheme_has_names_of_its_own_for_each_tensor() {
    let device = Device::flex();
    for scheme in RztxEncoderConfig::SCHEMES {
        for share in [true, false] {
            let residual = ResidualConfig::new(*scheme).with_share_alpha(share);
            let encoder = RztxEncoderConfig::new(8, 12, 2, 2)
                .with_activation(Activation::SwiGlu)
                .with_residual(residual.clone());
            let net = VitConfig::new(encoder, [8, 8], 4).init(&device);
            let bytes = export(&net, []).unwrap();
            let weights = TorchWeights::from_bytes(&bytes).unwrap();
            let back = load(net, &weights).unwrap();
            assert_eq!(export(&back, []).unwrap(), bytes, "vit {scheme}");
            let shape = vit_shape(&weights).unwrap();
            assert!(shape.swiglu && shape.d_ff == 12);
            let found = match scheme {
                ResidualScheme::Gated | ResidualScheme::SkipInit => ResidualScheme::ReZero,
                ResidualScheme::DeepNorm | ResidualScheme::Gpt2Norm => ResidualScheme::PostNorm,
                ResidualScheme::Plain => ResidualScheme::Residual,
                other => *other,
            };
            assert_eq!(shape.layers.scheme(), found, "vit {scheme}");

            let net = MixerConfig::new(8, 5, 12, 2, [8, 8], 4)
                .with_activation(Activation::SwiGlu)
                .with_residual(residual)
                .init(&device);
            let bytes = export(&net, []).unwrap();
            let weights = TorchWeights::from_bytes(&bytes).unwrap();
            let back = load(net, &weights).unwrap();
            assert_eq!(export(&back, []).unwrap(), bytes, "mixer {scheme}");
            let shape = mixer_shape(&weights).unwrap();
            assert_eq!(shape.layers.scheme(), found, "mixer {scheme}");
        }
    }
}

#[test]
fn names_behind_a_prefix_are_found() {
    let bytes = state_dict("table", |name| format!("module.net.{name}"));
    let weights = TorchWeights::from_bytes(&bytes).unwrap();
    assert!(cifar_resnet_shape(&weights).is_some());
    let net = resnet(Definition::Table, ResidualScheme::ReZero).init(&Device::flex());
    let (_, loaded) = load_with(net, &weights, &LoadRules::default()).unwrap();
    assert_eq!(loaded.prefix, "module.net.");
    assert_eq!(loaded.left_out, Vec::<String>::new());
}

#[test]
fn a_network_of_another_shortcut_is_told_by_its_tensors() {
    let weights = TorchWeights::from_bytes(&state_dict("projection", str::to_owned)).unwrap();
    let net = resnet(Definition::Notebook, ResidualScheme::Residual).init(&Device::flex());
    let error = load(net, &weights).unwrap_err().to_string();
    assert!(
        error.contains("layer2.0.downsample.0.weight: unknown"),
        "{error}"
    );
}

fn odd(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/odd")
        .join(format!("{name}.pt"))
}

fn small() -> Mlp {
    MlpConfig::new(4, 4, 2, 3).init(&Device::flex())
}

/// The weights of `generate_import_odd.py`, plus `more`.
fn assert_loaded(net: &Mlp, more: f32) {
    let exported = TorchWeights::from_bytes(&export(net, []).unwrap()).unwrap();
    let order = [
        "linear_input.weight",
        "linear_input.bias",
        "linear_output.weight",
        "linear_output.bias",
        "layers.0.weight",
        "layers.0.bias",
        "layers.0.resweight",
        "layers.1.weight",
        "layers.1.bias",
        "layers.1.resweight",
    ];
    for (p, name) in order.iter().enumerate() {
        let values = exported.get(name).unwrap().values().unwrap();
        let expected: Vec<f32> = h(p, values.len()).map(|h| h as f32 + more).collect();
        assert_eq!(values, expected, "{name}");
    }
}

#[test]
fn weights_beside_other_things_are_found() {
    for (name, prefix) in [
        ("net", "net."),
        ("any_key", "my_weights."),
        ("defaultdict", "state_dict."),
        ("average", "model."),
        ("scalar", ""),
    ] {
        let weights = TorchWeights::open(odd(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (net, loaded) = load_with(small(), &weights, &LoadRules::default())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(loaded.prefix, prefix, "{name}");
        assert_loaded(&net, 0.0);
        // The same from memory.
        let bytes = std::fs::read(odd(name)).unwrap();
        let weights = TorchWeights::from_bytes(&bytes).unwrap();
        let again = load(small(), &weights).unwrap();
        assert_eq!(
            export(&again, []).unwrap(),
            export(&net, []).unwrap(),
            "{name}"
        );
    }
}

/// `torch.save(model)`, and a dictionary with a module in it.
#[test]
fn a_whole_module_is_refused_with_the_remedy() {
    for name in ["module", "module_in_dict"] {
        let error = TorchWeights::open(odd(name)).unwrap_err().to_string();
        let expected = "it holds a whole module, and must hold weights alone: save model.state_dict() with torch.save";
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn of_two_sets_of_weights_one_is_chosen() {
    let weights = TorchWeights::open(odd("two")).unwrap();
    let error = load(small(), &weights).unwrap_err();
    assert_eq!(
        error,
        ImportError::Ambiguous {
            prefixes: vec!["first.".to_owned(), "second.".to_owned()]
        }
    );
    let rules = |prefix: &str| LoadRules {
        prefix: Some(prefix.to_owned()),
        ..LoadRules::default()
    };
    let (net, loaded) = load_with(small(), &weights, &rules("second.")).unwrap();
    assert_loaded(&net, 1.0);
    assert_eq!(loaded.left_out.len(), 10);
    let error = load_with(small(), &weights, &rules("third.")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no tensor's name begins with \"third.\"; names begin with first, second"
    );
    let averaged = TorchWeights::open(odd("average")).unwrap();
    let (net, _) = load_with(small(), &averaged, &rules("model_ema.")).unwrap();
    assert_loaded(&net, 1.0);
}

#[test]
fn constants_are_left_out_and_other_tensors_are_not() {
    let weights = TorchWeights::open(odd("buffers")).unwrap();
    let (net, loaded) = load_with(small(), &weights, &LoadRules::default()).unwrap();
    assert_loaded(&net, 0.0);
    assert_eq!(
        loaded.left_out,
        [
            "criterion.pos_weight",
            "layers.0.bn.num_batches_tracked",
            "layers.0.rotary.inv_freq"
        ]
    );
    let weights = TorchWeights::open(odd("extra")).unwrap();
    let error = load(small(), &weights).unwrap_err().to_string();
    assert!(
        error.contains("aux_head.weight: unknown, found [2, 4]"),
        "{error}"
    );
    let rules = LoadRules {
        ignore: vec!["aux_head.*".to_owned()],
        ..LoadRules::default()
    };
    let (net, loaded) = load_with(small(), &weights, &rules).unwrap();
    assert_loaded(&net, 0.0);
    assert_eq!(loaded.left_out, ["aux_head.weight"]);
}

/// Output layers that are tied to the embedding and saved twice, with a bias or without, and one without a bias.
#[test]
fn output_layers_of_several_forms_are_read() {
    let device = Device::flex();
    let golden = Fixture::parse(include_bytes!("fixtures/odd/lm_logits.safetensors"));
    let tokens = Tensor::<1, Int>::arange(0..8, &device).reshape([1, 8]);
    let rules = |ignore: &str| LoadRules {
        prefix: None,
        ignore: ignore.split_whitespace().map(str::to_owned).collect(),
    };
    for (name, tied, ignore, zeros) in [
        ("lm_tied", true, "", &[][..]),
        ("lm_tied", true, "head.weight", &[]),
        // A network whose output layer has weights of its own.
        ("lm_tied", false, "", &["head.bias"]),
        ("lm_tied_bias", false, "", &[]),
        ("lm_tied_bias", false, "head.weight", &[]),
        ("lm_no_bias", false, "", &["head.bias"]),
    ] {
        let weights = TorchWeights::open(odd(name)).unwrap();
        let found = lm_shape(&weights).map(|shape| shape.tied);
        assert_eq!(found, Some(name == "lm_tied"), "{name}");
        let encoder = RztxEncoderConfig::new(4, 6, 2, 1).with_activation(Activation::Gelu);
        let net = RztxLmConfig::new(encoder, 8).with_tied(tied).init(&device);
        let (net, loaded) =
            load_with(net, &weights, &rules(ignore)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(loaded.zeros, zeros, "{name}");
        let left_out: Vec<&str> = loaded.left_out.iter().map(String::as_str).collect();
        assert_eq!(left_out.join(" "), ignore, "{name}");
        let expected = golden.get(name).tensor::<3>(&device);
        let largest = expected.clone().abs().max().into_scalar::<f32>();
        let far = (net.forward(tokens.clone()) - expected).abs().max();
        let far = far.into_scalar::<f32>() / largest;
        assert!(far < 1e-5, "{name}, {ignore}: {far}");
    }
    // Weights that only look like the embedding's are not tied to it.
    let weights = TorchWeights::open(odd("lm_no_bias")).unwrap();
    let encoder = RztxEncoderConfig::new(4, 6, 2, 1).with_activation(Activation::Gelu);
    let net = RztxLmConfig::new(encoder, 8).with_tied(true).init(&device);
    let error = load(net, &weights).unwrap_err().to_string();
    assert!(error.contains("head.weight: unknown"), "{error}");
}

#[test]
fn parts_are_read_by_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let whole = export(&small(), []).unwrap();
    let file = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let mut map = serde_json::Map::new();
    for part in 1..=2 {
        let name = format!("model-0000{part}-of-00002.safetensors");
        let tensors = file.tensors().into_iter().enumerate();
        let some: Vec<_> = tensors
            .filter(|(i, _)| i % 2 == part % 2)
            .map(|(_, tensor)| tensor)
            .collect();
        for (tensor, _) in &some {
            map.insert(tensor.clone(), name.clone().into());
        }
        let bytes = safetensors::serialize(some, None).unwrap();
        std::fs::write(dir.path().join(&name), bytes).unwrap();
    }
    let index = dir.path().join("model.safetensors.index.json");
    let write = |map: &serde_json::Map<String, serde_json::Value>| {
        let text = serde_json::json!({ "metadata": {}, "weight_map": map });
        std::fs::write(&index, text.to_string()).unwrap();
    };
    write(&map);
    let net = load(small(), &TorchWeights::open(&index).unwrap()).unwrap();
    assert_eq!(export(&net, []).unwrap(), whole);

    let part = dir.path().join("model-00001-of-00002.safetensors");
    let error = TorchWeights::open(&part).unwrap_err().to_string();
    assert!(
        error.contains("it is part 1 of 2: name the index"),
        "{error}"
    );

    for (file, expected) in [
        ("../outside.safetensors", "files beside it"),
        ("/etc/passwd", "files beside it"),
        ("absent.safetensors", "absent.safetensors"),
        ("model-00002-of-00002.safetensors", "does not have it"),
    ] {
        let mut map = map.clone();
        map.insert("another".to_owned(), file.into());
        write(&map);
        let error = TorchWeights::open(&index).unwrap_err().to_string();
        assert!(error.contains(expected), "{file}: {error}");
    }
}
