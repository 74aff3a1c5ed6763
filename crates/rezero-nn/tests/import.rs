//! PyTorch weights: what the authors' layers saved, round trips, and files that mean harm.

use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use rezero_nn::import::{ImportError, LmShape, TorchWeights, export, load};
use rezero_nn::transformer::{
    Activation, Positions, RztxLayerConfig, RztxLm, RztxLmConfig, RztxTransformerConfig,
};
use rezero_nn::{NormKind, ReZeroConfig, ResidualConfig, ResidualScheme};
use safetensors::SafeTensors;

use crate::support::Fixture;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn lm(device: &Device) -> RztxLm {
    let layer = RztxLayerConfig::new(8, 2)
        .with_d_ff(12)
        .with_dropout(0.0)
        .with_activation(Activation::Gelu);
    RztxLmConfig::new(layer, 2, 16).init(device)
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
            weights.lm_shape(),
            Some(LmShape {
                n_layers: 2,
                d_model: 8,
                d_ff: 12,
                context: Some(16),
                tied: false
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
    assert_eq!(file("authors_lm.pt"), file("authors_lm.safetensors"));
    let about = export(&lm(&device), [("n_heads".to_owned(), "2".to_owned())]).unwrap();
    assert_eq!(read(&about).metadata()["n_heads"], "2");
}

#[test]
fn a_stack_and_a_layer_are_found_behind_their_prefix() {
    let device = Device::flex();
    let bytes = export(&lm(&device).encoder, []).unwrap();
    let weights = read(&prefixed(&bytes, "net.decoder_only."));
    let layer = RztxLayerConfig::new(8, 2).with_d_ff(12).with_dropout(0.0);
    let encoder = load(layer.init_encoder(2, &device), &weights).unwrap();
    assert_eq!(export(&encoder, []).unwrap(), bytes);
    let one = export(&encoder.layers[1], []).unwrap();
    let loaded = load(layer.init_encoder_layer(&device), &read(&one)).unwrap();
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
    let config = |scheme| {
        let gate = ReZeroConfig::new().with_alpha(0.3);
        RztxLayerConfig::new(8, 2)
            .with_d_ff(12)
            .with_residual(ResidualConfig::new(scheme).with_rezero(gate))
    };
    use ResidualScheme::*;
    let mut models = Vec::new();
    for scheme in [
        Plain,
        Sum,
        PostNorm,
        PreNorm,
        PreNormNotebook,
        Gpt2Norm,
        ReZero,
        Gated,
        SkipInit,
        LayerScale,
        DeepNorm,
    ] {
        models.push(config(scheme));
    }
    models.push(config(ReZero).with_share_alpha(false));
    models.push(config(ReZero).with_alpha_per_channel(true));
    models.push(config(ReZero).with_bias(false));
    models.push(config(ReZero).with_activation(Activation::SwiGlu));
    let mut rms = config(PreNorm);
    rms.residual.norm = Some(NormKind::Rms);
    models.push(rms);
    for layer in models {
        for (tied, positions) in [(false, Positions::Learned), (true, Positions::Rotary)] {
            let make = || {
                RztxLmConfig::new(layer.clone(), 3, 16)
                    .with_tied(tied)
                    .with_positions(positions)
                    .init(&device)
            };
            let bytes = export(&make(), [("n_heads".to_owned(), "2".to_owned())]).unwrap();
            let again = load(make(), &read(&bytes)).unwrap();
            let back = export(&again, [("n_heads".to_owned(), "2".to_owned())]).unwrap();
            assert!(bytes == back, "{layer:?}");
        }
    }
    let both = RztxTransformerConfig::new(config(ReZero))
        .with_n_encoder_layers(2)
        .with_n_decoder_layers(2);
    let bytes = export(&both.init(&device), []).unwrap();
    let names: Vec<String> = read(&bytes).names().map(str::to_owned).collect();
    assert!(names.contains(&"decoder.layers.1.multihead_attn.in_proj_weight".to_owned()));
    let again = load(both.init(&device), &read(&bytes)).unwrap();
    assert_eq!(read(&export(&again, []).unwrap()), read(&bytes));
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
    let layer = RztxLayerConfig::new(8, 2).with_d_ff(10).with_dropout(0.0);
    let other = RztxLmConfig::new(layer, 3, 16)
        .with_tied(true)
        .init(&device);
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

/// `torch.load` of this would run a command.
#[test]
fn nothing_in_a_pickle_is_executed() {
    let dir = tempfile::tempdir().unwrap();
    let sentinel = dir.path().join("executed");
    for module in ["posix", "os", "nt", "subprocess"] {
        let mut pickle = b"\x80\x02c".to_vec();
        pickle.extend_from_slice(module.as_bytes());
        pickle.extend_from_slice(b"\nsystem\n(X");
        let command = format!("touch {}", sentinel.display());
        pickle.extend_from_slice(&(command.len() as u32).to_le_bytes());
        pickle.extend_from_slice(command.as_bytes());
        pickle.extend_from_slice(b"tR.");
        let error = TorchWeights::open(written(&pickle).path());
        assert!(error.is_err(), "{module}");
    }
    assert!(!sentinel.exists());
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
    for at in (0..good.len()).step_by(97) {
        let mut changed = good.clone();
        changed[at] ^= 0x55;
        let _ = TorchWeights::open(written(&changed).path());
    }
    let error = TorchWeights::open(fixture("absent.pt"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("absent.pt"), "{error}");
    assert!(TorchWeights::open(fixture("")).is_err());
}
