//! PyTorch weights: what the authors' layers saved, round trips, and files that mean harm.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, bf16, f16};
use rezero_nn::torch::{ImportError, TorchWeights, export, load};
use rezero_nn::transformer::{
    Activation, LmShape, Positions, RztxEncoderConfig, RztxEncoderLayerConfig, RztxLm,
    RztxLmConfig, RztxTransformerConfig, lm_shape,
};
use rezero_nn::{NormKind, ReZeroConfig, ResidualConfig, ResidualScheme};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::helpers::{opened, scheme};
use crate::support::Fixture;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn lm(device: &Device) -> RztxLm {
    let encoder = RztxEncoderConfig::new(8, 12, 2, 2)
        .with_dropout(0.0)
        .with_activation(Activation::Gelu);
    RztxLmConfig::new(encoder, 16).init(device)
}

fn far(a: Tensor<3>, b: Tensor<3>) -> f32 {
    (a - b).abs().max().into_scalar::<f32>()
}

#[test]
fn the_authors_checkpoints_give_pytorchs_logits() {
    let device = Device::flex();
    let golden = Fixture::parse(include_bytes!("fixtures/authors_logits.safetensors"));
    let tokens: Vec<i32> = golden
        .get("tokens")
        .values
        .iter()
        .map(|v| *v as i32)
        .collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [2, 16]), &device);
    for (file, logits) in [
        ("authors_lm.pt", "logits"),
        ("authors_lm.safetensors", "logits"),
        ("notebook_lm.pt", "logits_f16"),
    ] {
        let weights = TorchWeights::open(fixture(file)).unwrap();
        assert_eq!(
            lm_shape(&weights),
            Some(LmShape {
                n_layers: 2,
                d_model: 8,
                d_ff: 12,
                vocab_size: 256,
                context: Some(16),
                tied: false,
                sinusoidal: false,
                bias: true,
                swiglu: false,
                norm: false,
                gate: true,
                alpha_shared: true,
                alpha_per_channel: false,
            }),
            "{file}"
        );
        let model = load(lm(&device), &weights).unwrap();
        let difference = far(
            model.forward(tokens.clone()),
            golden.get(logits).tensor(&device),
        );
        assert!(difference < 1e-5, "{file}: {difference}");
    }
    let file = |name| TorchWeights::open(fixture(name)).unwrap();
    assert_eq!(
        all(&file("authors_lm.pt").under("state_dict.")),
        all(&file("authors_lm.safetensors"))
    );
    let about = export(&lm(&device), [("n_heads".to_owned(), "2".to_owned())]).unwrap();
    assert_eq!(read(&about).metadata()["n_heads"], "2");
}

#[test]
fn a_stack_and_a_layer_are_found_behind_their_prefix() {
    let device = Device::flex();
    let bytes = export(&lm(&device).encoder, []).unwrap();
    let weights = read(&prefixed(&bytes, "net.decoder_only."));
    let config = RztxEncoderConfig::new(8, 12, 2, 2).with_dropout(0.0);
    let encoder = load(config.init(&device), &weights).unwrap();
    assert_eq!(export(&encoder, []).unwrap(), bytes);
    let one = export(&encoder.layers[1], []).unwrap();
    let layer = RztxEncoderLayerConfig::new(8, 12, 2).init(&device);
    let loaded = load(layer, &read(&one)).unwrap();
    assert_eq!(export(&loaded, []).unwrap(), one);
}

/// The same file with `prefix` before every name.
fn prefixed(bytes: &[u8], prefix: &str) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let renamed: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (format!("{prefix}{name}"), view))
        .collect();
    safetensors::serialize(renamed, None).unwrap()
}

/// The shape and the values of every tensor.
fn all(weights: &TorchWeights) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let tensor = |name: &str| {
        let tensor = weights.get(name).unwrap();
        (tensor.shape().to_vec(), tensor.values().unwrap())
    };
    let names = weights.names();
    names.map(|name| (name.to_owned(), tensor(name))).collect()
}

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn read(bytes: &[u8]) -> TorchWeights {
    TorchWeights::open(written(bytes).path()).unwrap()
}

#[test]
fn every_model_survives_export_and_import_bit_for_bit() {
    let device = Device::flex();
    let config =
        |residual: ResidualConfig| RztxEncoderConfig::new(8, 12, 2, 3).with_residual(residual);
    let rezero = || opened(ResidualScheme::ReZero, 0.3);
    let schemes = RztxEncoderConfig::SCHEMES.iter();
    let mut models: Vec<_> = schemes.map(|rule| config(opened(*rule, 0.3))).collect();
    models.push(config(rezero().with_share_alpha(false)));
    models.push(config(rezero().with_per_channel(true)));
    models.push(config(
        rezero().with_share_alpha(false).with_per_channel(true),
    ));
    models.push(config(rezero()).with_bias(false));
    models.push(config(rezero()).with_activation(Activation::SwiGlu));
    models.push(config(
        scheme(ResidualScheme::PreNorm).with_norm(NormKind::Rms),
    ));
    for encoder in models {
        for (tied, positions) in [(false, Positions::Learned), (true, Positions::Rotary)] {
            let make = || {
                RztxLmConfig::new(encoder.clone(), 16)
                    .with_tied(tied)
                    .with_positions(positions)
                    .init(&device)
            };
            // Every value is another, so that none can end up in another's place.
            let bytes = distinct(&export(&make(), []).unwrap());
            let again = load(make(), &read(&bytes)).unwrap();
            // The same bytes every time, metadata included.
            let about =
                || [("n_heads", "2"), ("arm", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
            let back = export(&again, about()).unwrap();
            assert_same(&back, &bytes);
            let twice = load(make(), &read(&back)).unwrap();
            assert!(export(&twice, about()).unwrap() == back, "{encoder:?}");
        }
    }
    let both = RztxTransformerConfig::new(8, 12, 2, 2, 2).with_residual(rezero());
    let bytes = distinct(&export(&both.init(&device), []).unwrap());
    let names: Vec<String> = read(&bytes).names().map(str::to_owned).collect();
    assert!(names.contains(&"decoder.layers.1.multihead_attn.in_proj_weight".to_owned()));
    let again = load(both.init(&device), &read(&bytes)).unwrap();
    assert_same(&export(&again, []).unwrap(), &bytes);
}

/// The same file with other values, no two of them equal, of all signs and magnitudes.
fn distinct(bytes: &[u8]) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut n = 0u32;
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let values: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, view)| {
            let mut next = |_| {
                n += 1;
                // Odd multiplier: a permutation of u32; the mask keeps out infinities and NaN.
                (n.wrapping_mul(0x9e37_79b1) & 0xbfff_ffff).to_le_bytes()
            };
            (0..view.data().len() / 4).flat_map(&mut next).collect()
        })
        .collect();
    let views = tensors.iter().zip(&values).map(|((name, view), values)| {
        let view = TensorView::new(Dtype::F32, view.shape().to_vec(), values).unwrap();
        (name.clone(), view)
    });
    safetensors::serialize(views, None).unwrap()
}

/// The same names, shapes and bits.
fn assert_same(a: &[u8], b: &[u8]) {
    let [a, b] = [a, b].map(|bytes| {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let mut tensors: Vec<_> = file
            .tensors()
            .into_iter()
            .map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()))
            .collect();
        tensors.sort();
        tensors
    });
    assert!(!a.is_empty());
    for (a, b) in a.iter().zip(&b) {
        assert!(a == b, "{} {:?} and {} {:?}", a.0, a.1, b.0, b.1);
    }
    assert_eq!(a.len(), b.len());
}

#[test]
fn metadata_of_an_export_is_the_callers() {
    let model = lm(&Device::flex());
    let bytes = export(&model, [("n_heads".to_owned(), "2".to_owned())]).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let about = header.metadata().as_ref().unwrap();
    assert_eq!(about["format"], "pt");
    assert_eq!(about["n_heads"], "2");
}

#[test]
fn names_of_the_notebook_and_split_projections_are_found_behind_a_prefix() {
    let device = Device::flex();
    let bytes = distinct(&export(&lm(&device), []).unwrap());
    let notebook = edited(&bytes, |name, view| {
        let name = match name {
            "embedding.weight" => "encoder.weight".to_owned(),
            "head.weight" => "decoder.weight".to_owned(),
            "head.bias" => "decoder.bias".to_owned(),
            _ => name.replacen("encoder.layers", "transformer_encoder.layers", 1),
        };
        let name = format!("module._orig_mod.{name}");
        match name.strip_suffix("in_proj_weight") {
            Some(layer) => ["q", "k", "v"]
                .into_iter()
                .zip(view.data().chunks(view.data().len() / 3))
                .map(|(part, rows)| {
                    (
                        format!("{layer}{part}_proj_weight"),
                        vec![8, 8],
                        rows.to_vec(),
                    )
                })
                .collect(),
            None => vec![(name, view.shape().to_vec(), view.data().to_vec())],
        }
    });
    let weights = read(&notebook);
    assert_eq!(lm_shape(&weights), lm_shape(&read(&bytes)));
    let loaded = load(lm(&device), &weights).unwrap();
    assert_same(&export(&loaded, []).unwrap(), &bytes);
}

type Edited = Vec<(String, Vec<usize>, Vec<u8>)>;

/// The file with each of its tensors made into others.
fn edited(bytes: &[u8], edit: impl Fn(&str, &TensorView) -> Edited) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let tensors = file.tensors();
    let all: Edited = tensors
        .iter()
        .flat_map(|(name, view)| edit(name, view))
        .collect();
    let views = all.iter().map(|(name, shape, values)| {
        (
            name.as_str(),
            TensorView::new(Dtype::F32, shape.clone(), values).unwrap(),
        )
    });
    safetensors::serialize(views, None).unwrap()
}

/// Its layers use `norm1` twice, so that `norm2` holds what nothing was trained with.
#[test]
fn norms_of_the_notebook_serve_both_branches() {
    let device = Device::flex();
    for rule in [ResidualScheme::PostNorm, ResidualScheme::PreNormNotebook] {
        let config = RztxEncoderConfig::new(8, 12, 2, 2).with_residual(scheme(rule));
        let make = || config.init(&device);
        let ours = distinct(&export(&make(), []).unwrap());
        let notebook = |gate: f32| {
            edited(&ours, |name, view| {
                let tensor = (name.to_owned(), view.shape().to_vec(), view.data().to_vec());
                let layer = match name.split_once("norm1.") {
                    Some((layer, "weight")) => layer,
                    Some((layer, _)) => {
                        let idle = (format!("{layer}norm2.bias"), vec![8], vec![9; 32]);
                        return vec![tensor, idle];
                    }
                    None if name.contains("norm2") => return Vec::new(),
                    None => return vec![tensor],
                };
                let gate = (
                    format!("{layer}resweight"),
                    vec![1],
                    gate.to_le_bytes().to_vec(),
                );
                let idle = (format!("{layer}norm2.weight"), vec![8], vec![9; 32]);
                vec![tensor, gate, idle]
            })
        };
        let loaded = load(make(), &read(&notebook(1.0))).unwrap();
        let back = export(&loaded, []).unwrap();
        let back = SafeTensors::deserialize(&back).unwrap();
        let ours = SafeTensors::deserialize(&ours).unwrap();
        for (name, view) in back.tensors() {
            let source = ours.tensor(&name.replace("norm2.", "norm1.")).unwrap();
            assert_eq!(view.data(), source.data(), "{name}");
        }
        // Another gate is no notebook's, and none of ours.
        assert!(load(make(), &read(&notebook(0.5))).is_err(), "{rule}");
    }
}

#[test]
fn other_number_types_are_converted_or_named() {
    let values = [1.5f32, -0.25, 3e4, 0.0];
    let f64s: Vec<u8> = values
        .iter()
        .flat_map(|v| f64::from(*v).to_le_bytes())
        .collect();
    let f16s: Vec<u8> = values
        .iter()
        .flat_map(|v| f16::from_f32(*v).to_le_bytes())
        .collect();
    let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let bf16s: Vec<u8> = values
        .iter()
        .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
        .collect();
    let small = [0u8; 4];
    let views = [
        ("a", Dtype::F64, f64s.as_slice()),
        ("b", Dtype::F16, &f16s),
        ("c", Dtype::F32, &f32s),
        ("d", Dtype::BF16, &bf16s),
        ("steps", Dtype::U8, &small),
        ("mask", Dtype::BOOL, &small),
    ]
    .map(|(name, dtype, data)| (name, TensorView::new(dtype, vec![4], data).unwrap()));
    let weights = read(&safetensors::serialize(views, None).unwrap());
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(weights.ignored().collect::<Vec<_>>(), ["mask", "steps"]);
    let only = |name: &str| {
        let c = edited(&read_bytes_of(&f32s), |_, view| {
            vec![(String::new(), view.shape().to_vec(), view.data().to_vec())]
        });
        (weights.under(name), read(&c))
    };
    for name in ["a", "b", "c"] {
        let (one, expected) = only(name);
        assert_eq!(all(&one), all(&expected), "{name}");
    }
}

fn read_bytes_of(values: &[u8]) -> Vec<u8> {
    let view = TensorView::new(Dtype::F32, vec![values.len() / 4], values).unwrap();
    safetensors::serialize([("c", view)], None).unwrap()
}

#[test]
fn one_module_of_a_larger_one_is_loaded() {
    let device = Device::flex();
    let bytes = distinct(&export(&lm(&device), []).unwrap());
    let weights = read(&bytes).under("encoder.");
    let loaded = load(lm(&device).encoder, &weights).unwrap();
    let whole = load(lm(&device), &read(&bytes)).unwrap();
    assert_same(
        &export(&loaded, []).unwrap(),
        &export(&whole.encoder, []).unwrap(),
    );
}

#[test]
fn identities_and_frozen_gates_outlive_loading() {
    let device = Device::flex().autodiff();
    let gate = ReZeroConfig::new().with_trainable(false);
    let before = RztxEncoderConfig::new(8, 12, 2, 2)
        .with_residual(scheme(ResidualScheme::ReZero).with_rezero(gate))
        .init(&device);
    let ids = |m: &rezero_nn::transformer::RztxEncoder| burn::module::list_param_ids(m);
    let weights = read(&distinct(&export(&before, []).unwrap()));
    let expected = ids(&before);
    let after = load(before, &weights).unwrap();
    assert_eq!(ids(&after), expected);
    let layer = &after.layers[1];
    let alpha = &layer.residual.rezero.as_ref().unwrap().alpha;
    assert!(!alpha.val().is_require_grad());
    assert!(layer.attention.in_proj.weight.val().is_require_grad());
    assert_eq!(
        after.num_params(),
        2 * (3 * 72 + 72 + 8 * 12 + 12 + 12 * 8 + 8 + 1)
    );
}

#[test]
fn loaded_parameters_still_learn() {
    let device = Device::flex().autodiff();
    let weights = TorchWeights::open(fixture("authors_lm.pt")).unwrap();
    let model = load(lm(&device), &weights).unwrap();
    let tokens = Tensor::<2, Int>::zeros([1, 4], &device);
    let gradients = model.forward(tokens).sum().backward();
    let layer = &model.encoder.layers[0];
    for gradient in [
        layer.attention.in_proj.weight.val().grad(&gradients),
        layer.feed_forward.linear2.weight.val().grad(&gradients),
    ] {
        assert!(gradient.unwrap().abs().sum().into_scalar::<f32>() > 0.0);
    }
}

#[test]
fn every_tensor_that_differs_is_named() {
    let device = Device::flex();
    let weights = TorchWeights::open(fixture("authors_lm.pt")).unwrap();
    let encoder = RztxEncoderConfig::new(8, 10, 2, 3);
    let other = RztxLmConfig::new(encoder, 16).with_tied(true).init(&device);
    let Err(ImportError::Mismatch(tensors)) = load(other, &weights) else {
        panic!("it fits");
    };
    let named = |text: &str| tensors.iter().filter(|t| t.contains(text)).count();
    assert_eq!(
        named("encoder.layers.0.linear1.weight: expected [10, 8], found [12, 8]"),
        1
    );
    // linear1's weight and bias and linear2's weight of two layers.
    assert_eq!(named("expected"), 6 + 9);
    assert_eq!(named("missing"), 9);
    assert_eq!(named("head.weight: unknown, found [256, 8]"), 1);
    assert_eq!(tensors.len(), 6 + 9 + 2);
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let device = Device::flex();
    let mut model = lm(&device);
    let bias = &mut model.encoder.layers[1].feed_forward.linear1.bias;
    *bias = bias.take().map(|b| b.map(|b| b / 0.0));
    let weights = read(&export(&model, []).unwrap());
    let Err(ImportError::Mismatch(tensors)) = load(lm(&device), &weights) else {
        panic!("it was loaded");
    };
    assert_eq!(
        tensors,
        ["encoder.layers.1.linear1.bias: holds values that are not finite"]
    );
}

/// What `torch.save` writes around a pickle: entries that are stored as they are, or said to be
/// compressed by `method`.
fn archive(entries: &[(&str, &[u8])], method: u16) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let name = format!("archive/{name}");
        let at = file.len() as u32;
        let size = data.len() as u32;
        let mut common = [0u8; 26];
        common[0] = 20;
        common[4..6].copy_from_slice(&method.to_le_bytes());
        // No checksum, which the format allows here.
        common[14..18].copy_from_slice(&size.to_le_bytes());
        common[18..22].copy_from_slice(&size.to_le_bytes());
        common[22..24].copy_from_slice(&(name.len() as u16).to_le_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(common);
        file.extend(name.as_bytes());
        file.extend(*data);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(common);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let at = file.len() as u32;
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    let n = (entries.len() as u16).to_le_bytes();
    file.extend([n, n].concat());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(at.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// `{name: tensor}` over a storage of `stored` floats that it says holds `claimed`.
fn one_tensor(claimed: i64, offset: i64, shape: &[i64], stride: &[i64], stored: usize) -> Vec<u8> {
    let text = |s: &str| {
        [
            b"X",
            (s.len() as u32).to_le_bytes().as_slice(),
            s.as_bytes(),
        ]
        .concat()
    };
    let int = |i: i64| [[0x8a, 8].as_slice(), &i.to_le_bytes()].concat();
    let tuple = |parts: &[i64]| {
        let items: Vec<u8> = parts.iter().flat_map(|i| int(*i)).collect();
        [b"(".as_slice(), &items, b"t"].concat()
    };
    let pickle = [
        b"\x80\x02}".to_vec(),
        text("layers.0.linear1.bias"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        int(claimed),
        b"tQ".to_vec(),
        int(offset),
        tuple(shape),
        tuple(stride),
        b"\x89ccollections\nOrderedDict\n)RtRs.".to_vec(),
    ]
    .concat();
    let data = vec![0; 4 * stored];
    archive(&[("data.pkl", &pickle), ("data/0", &data)], 0)
}

fn message(bytes: &[u8]) -> String {
    let weights = match TorchWeights::open(written(bytes).path()) {
        Ok(weights) => weights,
        Err(error) => return error.to_string(),
    };
    let names = weights.names();
    let failed = names.filter_map(|name| weights.get(name)?.values().err());
    let failed: Vec<String> = failed.collect();
    assert!(
        !failed.is_empty(),
        "it is read: {:?}",
        weights.names().collect::<Vec<_>>()
    );
    failed.concat()
}

/// `torch.load` of these would run a command.
#[test]
fn nothing_in_a_pickle_is_executed() {
    let dir = tempfile::tempdir().unwrap();
    let sentinel = dir.path().join("executed");
    let command = format!("touch {}", sentinel.display());
    let argument = [
        b"(X".as_slice(),
        &(command.len() as u32).to_le_bytes(),
        command.as_bytes(),
        b"t",
    ]
    .concat();
    for callable in [
        "posix\nsystem",
        "os\nsystem",
        "nt\nsystem",
        "builtins\neval",
        "subprocess\ncall",
    ] {
        let global = format!("c{callable}\n");
        // Called, and made an instance of; alone, and as a value beside weights.
        for call in [b"R".as_slice(), b"\x81"] {
            let call = [global.as_bytes(), &argument, call].concat();
            let alone = [b"\x80\x02", call.as_slice(), b"."].concat();
            let value = [b"\x80\x02}X\x01\0\0\0a", call.as_slice(), b"s."].concat();
            for pickle in [alone, value] {
                assert!(TorchWeights::open(written(&pickle).path()).is_err());
                let file = archive(&[("data.pkl", &pickle)], 0);
                assert!(TorchWeights::open(written(&file).path()).is_err());
            }
        }
    }
    assert!(!sentinel.exists());
}

#[test]
fn tensors_stay_within_their_storage_and_file() {
    let good = read(&one_tensor(12, 0, &[12], &[1], 12));
    assert_eq!(good.names().collect::<Vec<_>>(), ["layers.0.linear1.bias"]);
    let max = i64::MAX;
    for (claimed, offset, shape, stride, stored, expected) in [
        (12, 1, vec![12], vec![1], 12, "needs 13 elements"),
        (12, max, vec![12], vec![1], 12, "needs"),
        (12, -1, vec![12], vec![1], 12, "non-negative"),
        (12, 0, vec![-12], vec![1], 12, "non-negative"),
        (12, 0, vec![13], vec![1], 12, "needs 13 elements"),
        (12, 0, vec![2], vec![max], 12, "needs"),
        (12, 0, vec![12, 1], vec![1], 12, "rank"),
        // More than the file has, whatever the pickle says.
        (1 << 20, 0, vec![1 << 20], vec![1], 12, "claim more"),
        (max / 8, 0, vec![max / 8], vec![1], 12, "limit"),
        (max, 0, vec![max], vec![1], 12, "overflows"),
        (12, 0, vec![max, max, max], vec![0, 0, 0], 12, "overflows"),
        (12, 0, vec![1 << 40], vec![0], 12, "limit"),
        (12, 0, vec![1 << 24], vec![0], 12, "claim more"),
        (24, 0, vec![24], vec![1], 12, "available"),
    ] {
        let error = message(&one_tensor(claimed, offset, &shape, &stride, stored));
        assert!(error.contains(expected), "{shape:?} {stride:?}: {error}");
    }
    // Of no values, so that nothing contradicts the shape: it fits no module.
    let empty = read(&one_tensor(12, 0, &[0, max], &[1, 1], 12));
    let device = Device::flex();
    let encoder = RztxEncoderConfig::new(8, 12, 2, 1).init(&device);
    assert!(load(encoder, &empty).is_err());
    let rows = edited(&read_bytes_of(&[0; 4]), |_, _| {
        ["q", "k", "v"]
            .map(|p| {
                (
                    format!("self_attn.{p}_proj_weight"),
                    vec![usize::MAX, 0],
                    Vec::new(),
                )
            })
            .to_vec()
    });
    let layer = RztxEncoderLayerConfig::new(8, 12, 2).init(&device);
    assert!(load(layer, &read(&rows)).is_err());
}

/// Each would take tens of gigabytes, or hours, if it were read as it asks to be.
#[test]
fn bombs_are_refused() {
    let long = vec![b'a'; 1 << 20];
    let length = (long.len() as u32).to_le_bytes();
    let fetched = b"h\0".repeat(20_000);
    let pickles: Vec<(&str, Vec<u8>)> = vec![
        (
            "a class name, copied",
            [b"}(c", long.as_slice(), b"\nx\nq\0", &fetched, b"."].concat(),
        ),
        (
            "a key, copied",
            [b"}X", length.as_slice(), &long, b"Nsq\0(", &fetched, b"."].concat(),
        ),
        (
            "a text, copied",
            [b"X", length.as_slice(), &long, b"q\0(", &fetched, b"l."].concat(),
        ),
        (
            "None, ten million times",
            [vec![b'N'; 10_000_000], b".".to_vec()].concat(),
        ),
        ("marks", [vec![b'('; 10_000_000], b".".to_vec()].concat()),
        ("lists that hold the last list ten times", {
            let mut pickle = b"]q\0".to_vec();
            for i in 0..50u8 {
                pickle.push(b'(');
                pickle.extend([b'h', i].repeat(10));
                pickle.extend([b'l', b'q', i + 1]);
            }
            [pickle, b".".to_vec()].concat()
        }),
        (
            "a long name over many tensors",
            [
                b"}X".as_slice(),
                &length,
                &long,
                b"}(",
                &b"X\x01\0\0\0bca\nb\n)R".repeat(2_000),
                b"us.",
            ]
            .concat(),
        ),
    ];
    for (what, pickle) in pickles {
        let pickle = [b"\x80\x02", pickle.as_slice()].concat();
        let error = message(&archive(&[("data.pkl", &pickle)], 0));
        assert!(
            error.contains("of memory and needs more"),
            "{what}: {error}"
        );
    }
    let error = message(&archive(
        &[("data.pkl", b"\x80\x02}."), ("data/0", b"x")],
        8,
    ));
    assert!(error.contains("compressed"), "{error}");
    let deep = [b"\x80\x02]".as_slice(), &[0x85; 100_000], b"."].concat();
    let error = message(&archive(&[("data.pkl", &deep)], 0));
    assert!(
        error.contains("nesting") || error.contains("memory"),
        "{error}"
    );
    // A name of a million components.
    let dots = "a.".repeat(1 << 19);
    let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    let weights = read(&safetensors::serialize([(dots, view)], None).unwrap());
    assert_eq!(lm_shape(&weights), None);
    assert!(load(lm(&Device::flex()), &weights).is_err());
}

#[test]
fn files_of_old_are_read_or_refused() {
    // A tar archive, which PyTorch wrote in 2016, though it has the later format's number in it.
    let mut tar = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
    tar.resize(257, 0);
    tar.extend(b"ustar\0");
    tar.resize(1024, 0);
    assert!(message(&tar).contains("neither"));
    let file = TorchWeights::open(fixture("authors_legacy.pt")).unwrap();
    let new = TorchWeights::open(fixture("authors_lm.pt")).unwrap();
    assert_eq!(all(&file), all(&new.under("state_dict.encoder.")));
}

/// A member of a tar archive.
fn member(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = data.len().next_multiple_of(512) - data.len();
    [header.as_slice(), data, &vec![0; padding]].concat()
}

/// The reader takes these for another container than a short look at them suggests.
#[test]
fn files_of_two_formats_are_checked_as_the_one_that_is_read() {
    let harmless = archive(&[("data.pkl", b"\x80\x02}.")], 0);
    let long = vec![b'a'; 1 << 20];
    let copies = b"h\0".repeat(5_000);
    let bomb = [b"\x80\x02}(c", long.as_slice(), b"\nx\nq\0", &copies, b"."].concat();
    // A tar archive of 2016, whose first name begins as a zip does, before a zip.
    let none = b"\x80\x02K\0.".as_slice();
    let tar = [
        member("PK", b""),
        member("storages", &[none, b"\x80\x02]."].concat()),
        member("tensors", none),
        member("pickle", &bomb),
        vec![0; 1024],
    ]
    .concat();
    assert!(message(&[tar, harmless.clone()].concat()).contains("neither"));
    // The number of the later format, then its pickles, before a zip.
    let number = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".as_slice();
    let legacy = [b"PK\n0".as_slice(), number, &bomb, &harmless].concat();
    assert!(message(&legacy).contains("needs more"));
}

/// Only the pickle that is read is checked, however many entries say that it is theirs.
#[test]
fn entries_that_share_a_pickle_cost_no_time() {
    let pickle = [b"\x80\x02".as_slice(), &b"N0".repeat(1 << 19), b"}."].concat();
    let mut file = archive(&[("data.pkl", &pickle)], 0);
    let end = file.split_off(file.len() - 22);
    let directory = u32::from_le_bytes(*end[16..].first_chunk().unwrap()) as usize;
    let entry = file.split_off(directory);
    let n = 20_000u16;
    for i in 0..n {
        let at = file.len() + 46;
        file.extend(&entry);
        // Another name of the same length.
        file[at..at + 7].copy_from_slice(format!("{i:07}").as_bytes());
    }
    let length = (file.len() - directory) as u32;
    file.extend(&end[..8]);
    file.extend([n.to_le_bytes(), n.to_le_bytes()].concat());
    file.extend(length.to_le_bytes());
    file.extend(&end[16..]);
    let begun = std::time::Instant::now();
    assert!(message(&file).contains("has none"));
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[test]
fn a_few_of_many_differences_are_shown() {
    let names: Vec<String> = (0..100_000).map(|i| format!("t{i}")).collect();
    let view = |name| (name, TensorView::new(Dtype::F32, vec![0], &[]).unwrap());
    let weights = read(&safetensors::serialize(names.iter().map(view), None).unwrap());
    let error = load(lm(&Device::flex()), &weights).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 7, "{error}");
    assert!(lines[0].contains("100022 tensors differ"), "{error}");
    assert_eq!(lines[6], "  and 100017 more");
}

#[test]
fn damaged_and_hostile_files_are_errors() {
    let good = std::fs::read(fixture("authors_lm.pt")).unwrap();
    let tensors = std::fs::read(fixture("authors_lm.safetensors")).unwrap();
    let mut files: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"{}".to_vec(),
        b"not a checkpoint at all".to_vec(),
        (0..4096u32).map(|i| (i * i % 251) as u8).collect(),
        // An empty pickled dictionary: no tensor.
        b"\x80\x02}.".to_vec(),
        // Lists in lists in lists.
        [
            b"\x80\x02".to_vec(),
            vec![b'('; 200_000],
            vec![b'l'; 200_000],
            b".".to_vec(),
        ]
        .concat(),
        [
            b"\x80\x02".to_vec(),
            vec![b']'; 100_000],
            vec![b'a'; 99_999],
            b".".to_vec(),
        ]
        .concat(),
        // A header that claims more than there is.
        [u64::MAX.to_le_bytes().as_slice(), b"{"].concat(),
        [
            40u64.to_le_bytes().as_slice(),
            b"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999",
        ]
        .concat(),
    ];
    for cut in [1, 9, 64, good.len() / 2, good.len() - 1] {
        files.push(good[..cut].to_vec());
    }
    for cut in [8, 100, tensors.len() - 1] {
        files.push(tensors[..cut].to_vec());
    }
    for (i, file) in files.iter().enumerate() {
        assert!(
            TorchWeights::open(written(file).path()).is_err(),
            "file {i}"
        );
    }
    // Whatever a byte is changed to, it is an error or other weights, never a panic.
    for good in [good, tensors] {
        for at in (0..good.len()).step_by(97) {
            let mut changed = good.clone();
            changed[at] ^= 0x55;
            if let Ok(weights) = TorchWeights::open(written(&changed).path()) {
                let _ = (lm_shape(&weights), load(lm(&Device::flex()), &weights));
            }
        }
    }
    let error = TorchWeights::open(fixture("absent.pt"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("absent.pt"), "{error}");
    assert!(TorchWeights::open(fixture("")).is_err());
}
