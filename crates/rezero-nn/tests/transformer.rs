//! Exact properties of the transformer modules: identity at α = 0, causality, padding, caches,
//! recomputation, every residual scheme, and what bad shapes say.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Device, Distribution, Int, Tensor, TensorData, Tolerance};
use rezero_nn::transformer::{
    Activation, AttentionMask, Positions, RztxInit, RztxLayerConfig, RztxLm, RztxLmConfig,
    RztxTransformerConfig, Sampler, SamplingConfig, SamplingError,
};
use rezero_nn::{NormKind, ReZeroConfig, ResidualConfig, ResidualScheme, alphas, parameter_count};

use crate::support::cross_entropy;

const SCHEMES: [ResidualScheme; 12] = [
    ResidualScheme::Plain,
    ResidualScheme::PlainNorm,
    ResidualScheme::Sum,
    ResidualScheme::PostNorm,
    ResidualScheme::PreNorm,
    ResidualScheme::PreNormNotebook,
    ResidualScheme::Gpt2Norm,
    ResidualScheme::ReZero,
    ResidualScheme::Gated,
    ResidualScheme::SkipInit,
    ResidualScheme::LayerScale,
    ResidualScheme::DeepNorm,
];

fn layer(scheme: ResidualScheme) -> RztxLayerConfig {
    RztxLayerConfig::new(16, 4)
        .with_d_ff(24)
        .with_dropout(0.0)
        .with_residual(ResidualConfig::new(scheme))
}

/// ReZero with open gates, so that every branch counts.
fn open() -> RztxLayerConfig {
    let gate = ReZeroConfig::new().with_alpha(0.7);
    layer(ResidualScheme::ReZero)
        .with_residual(ResidualConfig::new(ResidualScheme::ReZero).with_rezero(gate))
}

fn random(shape: [usize; 3], device: &Device) -> Tensor<3> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn bytes(batch: usize, length: usize, seed: usize, device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = (0..batch * length)
        .map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % 256) as i32)
        .collect();
    Tensor::from_data(TensorData::new(values, [batch, length]), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn near<const D: usize>(a: Tensor<D>, b: Tensor<D>, tolerance: f32) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(tolerance));
}

#[test]
fn a_stack_of_any_depth_is_the_identity_at_alpha_0() {
    let device = Device::flex();
    for norm in [None, Some(NormKind::Layer), Some(NormKind::Rms)] {
        for share in [true, false] {
            let residual = ResidualConfig::new(ResidualScheme::ReZero).with_norm(norm);
            let config = layer(ResidualScheme::ReZero)
                .with_residual(residual)
                .with_share_alpha(share);
            let x = random([2, 5, 16], &device);
            let encoder = config.init_encoder(64, &device);
            let y = encoder.forward(x.clone(), &AttentionMask::causal());
            assert_eq!(values(y), values(x.clone()));
            let decoder = config.init_decoder(8, &device);
            let none = AttentionMask::none();
            let y = decoder.forward(x.clone(), random([2, 3, 16], &device), &none, &none);
            assert_eq!(values(y), values(x));
        }
    }
}

#[test]
fn alpha_is_shared_split_or_per_channel() {
    let device = Device::flex();
    let base = layer(ResidualScheme::ReZero);
    let shapes = |config: RztxLayerConfig| -> Vec<(String, usize)> {
        let found = alphas(&config.init_decoder_layer(&device));
        found.into_iter().map(|(p, a)| (p, a.len())).collect()
    };
    let own = |i: usize| format!("residual.sub_layers.{i}.rezero.alpha");
    assert_eq!(
        shapes(base.clone()),
        [("residual.rezero.alpha".to_owned(), 1)]
    );
    assert_eq!(
        shapes(base.clone().with_share_alpha(false)),
        [(own(0), 1), (own(1), 1), (own(2), 1)]
    );
    assert_eq!(
        shapes(base.with_alpha_per_channel(true)),
        [("residual.rezero.alpha".to_owned(), 16)]
    );
    assert_eq!(
        shapes(layer(ResidualScheme::SkipInit)),
        [(own(0), 1), (own(1), 1), (own(2), 1)]
    );
    assert_eq!(
        shapes(layer(ResidualScheme::LayerScale)),
        [(own(0), 16), (own(1), 16), (own(2), 16)]
    );
}

#[test]
fn a_bounded_gate_is_c_tanh_of_alpha_over_c() {
    let device = Device::flex();
    let gate = ReZeroConfig::new()
        .with_alpha(3.0)
        .with_bound(Some(0.5))
        .init(&device);
    let y = gate.forward(Tensor::<1>::zeros([1], &device), |x| x + 1.0);
    let expected = 0.5 * (3.0f32 / 0.5).tanh();
    assert!((values(y)[0] - expected).abs() < 1e-6);
    // At 0 its slope is α's own.
    let device = device.autodiff();
    let gate = ReZeroConfig::new().with_bound(Some(0.5)).init(&device);
    let y = gate.forward(Tensor::<1>::zeros([1], &device), |x| x + 1.0);
    let gradient = gate.alpha.val().grad(&y.sum().backward()).unwrap();
    assert_eq!(values(gradient), [1.0]);
}

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
    for scheme in SCHEMES {
        let expected = match scheme {
            ResidualScheme::Plain => branch(x),
            ResidualScheme::PlainNorm => norm(branch(x)),
            ResidualScheme::Sum => add(x, branch(x), 1.0),
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
        let residual = ResidualConfig::new(scheme)
            .with_rezero(ReZeroConfig::new().with_alpha(0.25))
            .with_d_model(2)
            .with_n_layers(8)
            .init(&device);
        let input = Tensor::<3>::from_data([[x]], &device);
        let gain = Tensor::<3>::from_data([[[3.0, -1.0]]], &device);
        let shift = Tensor::<3>::from_data([[[1.0, 0.0]]], &device);
        let y = values(residual.forward(input, |v| v * gain + shift));
        for (got, want) in y.iter().zip(expected) {
            assert!((got - want).abs() < 1e-5, "{scheme:?}: {y:?} {expected:?}");
        }
    }
}

#[test]
fn every_scheme_runs_with_the_same_branches() {
    let device = Device::flex().autodiff();
    let branches = parameter_count(&layer(ResidualScheme::Plain).init_encoder(3, &device));
    for scheme in SCHEMES {
        let lm = RztxLmConfig::new(layer(scheme), 3, 8).init(&device);
        let norms = match scheme {
            ResidualScheme::PlainNorm
            | ResidualScheme::PostNorm
            | ResidualScheme::Gpt2Norm
            | ResidualScheme::DeepNorm => 6,
            ResidualScheme::PreNorm | ResidualScheme::LayerScale => 7,
            ResidualScheme::PreNormNotebook => 3,
            _ => 0,
        };
        let gates: usize = alphas(&lm).iter().map(|(_, a)| a.len()).sum();
        assert_eq!(
            parameter_count(&lm.encoder),
            branches + norms * 32 + gates,
            "{scheme:?}"
        );
        let loss = cross_entropy(
            lm.forward(bytes(2, 8, 1, &device)).reshape([16, 256]),
            bytes(2, 8, 2, &device).reshape([16]),
        );
        let value = values(loss.clone())[0];
        assert!(
            value.is_finite() && (4.0..8.0).contains(&value),
            "{scheme:?}: {value}"
        );
        // Every parameter learns, be it drawn as it is or scaled afterwards.
        let grads = GradientsParams::from_grads(loss.backward(), &lm);
        let mut floats = Floats(0);
        lm.visit(&mut floats);
        assert_eq!(grads.len(), floats.0, "{scheme:?}");
    }
}

/// Counts the parameters that can learn.
struct Floats(usize);

impl burn::module::ModuleVisitor for Floats {
    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        self.0 += 1;
    }
}

#[test]
fn activations_and_biases() {
    let device = Device::flex();
    let count = |config: RztxLayerConfig| parameter_count(&config.init_encoder_layer(&device));
    let base = layer(ResidualScheme::ReZero);
    // 4·16² + 4·16 of attention, 2·16·24 + 24 + 16 of the feed-forward branch, α.
    assert_eq!(count(base.clone()), 1024 + 64 + 768 + 40 + 1);
    assert_eq!(count(base.clone().with_bias(false)), 1024 + 768 + 1);
    let swiglu = base.clone().with_activation(Activation::SwiGlu);
    assert_eq!(count(swiglu), 1024 + 64 + 768 + 40 + 1 + 16 * 24 + 24);
    for activation in [Activation::Relu, Activation::Gelu, Activation::Silu] {
        assert_eq!(count(base.clone().with_activation(activation)), 1897);
    }
}

fn lm(positions: Positions, tied: bool, device: &Device) -> RztxLm {
    RztxLmConfig::new(open(), 3, 32)
        .with_positions(positions)
        .with_tied(tied)
        // Large enough that positions and tokens matter.
        .with_embedding_scale(8.0)
        .init(device)
}

const POSITIONS: [Positions; 4] = [
    Positions::Learned,
    Positions::Sinusoidal,
    Positions::Rotary,
    Positions::None,
];

#[test]
fn no_logit_before_a_changed_byte_moves() {
    let device = Device::flex();
    for positions in POSITIONS {
        let lm = lm(positions, false, &device);
        let tokens = bytes(1, 24, 3, &device);
        let before = values(lm.forward(tokens.clone()));
        for t in [0, 7, 23] {
            let changed = tokens
                .clone()
                .slice_assign([0..1, t..t + 1], bytes(1, 1, 99 + t, &device));
            let after = values(lm.forward(changed));
            assert_eq!(before[..t * 256], after[..t * 256], "{positions:?} {t}");
            assert_ne!(before[t * 256..], after[t * 256..], "{positions:?} {t}");
        }
    }
}

#[test]
fn positions_tell_equal_bytes_apart() {
    let device = Device::flex();
    let same = Tensor::<2, Int>::from_data(TensorData::new(vec![65i32; 12], [1, 12]), &device);
    for positions in POSITIONS {
        let logits = lm(positions, false, &device).forward(same.clone());
        let first = logits.clone().slice_dim(1, 3..4).into_data();
        let last = logits.slice_dim(1, 11..12).into_data();
        // Rotary positions and none see equal values whatever their weights.
        let told_apart = matches!(positions, Positions::Learned | Positions::Sinusoidal);
        let differ = first
            .iter::<f32>()
            .zip(last.iter::<f32>())
            .any(|(a, b)| (a - b).abs() > 1e-4);
        assert_eq!(differ, told_apart, "{positions:?}");
    }
}

#[test]
fn the_cache_gives_the_logits_of_the_whole_forward() {
    let device = Device::flex();
    for positions in POSITIONS {
        for (tied, batch) in [(false, 1), (true, 3)] {
            let lm = lm(positions, tied, &device);
            let tokens = bytes(batch, 32, 5, &device);
            let whole = lm.forward(tokens.clone());
            for chunks in [vec![1; 32], vec![5, 1, 1, 20, 5], vec![32]] {
                let mut cache = Default::default();
                let mut parts = Vec::new();
                let mut start = 0;
                for n in chunks {
                    let part = tokens.clone().slice_dim(1, start..start + n);
                    parts.push(lm.forward_cached(part, &mut cache));
                    start += n;
                    assert_eq!(cache.len(), start);
                }
                near(Tensor::cat(parts, 1), whole.clone(), 1e-5);
            }
        }
    }
}

#[test]
fn the_cache_grows_past_its_first_capacity() {
    let device = Device::flex();
    let lm = RztxLmConfig::new(open(), 2, 200).init(&device);
    let tokens = bytes(1, 200, 5, &device);
    let mut cache = Default::default();
    let parts: Vec<_> = (0..200)
        .map(|t| lm.forward_cached(tokens.clone().slice_dim(1, t..t + 1), &mut cache))
        .collect();
    near(Tensor::cat(parts, 1), lm.forward(tokens), 1e-5);
}

#[test]
fn a_cached_decoder_gives_what_the_whole_one_gives() {
    let device = Device::flex();
    let model = RztxTransformerConfig::new(open())
        .with_n_encoder_layers(2)
        .with_n_decoder_layers(3)
        .init(&device);
    let source = random([2, 6, 16], &device);
    let target = random([2, 9, 16], &device);
    let padding = Tensor::<2, Bool>::from_data(
        [[false, false, false, false, true, true], [false; 6]],
        &device,
    );
    let none = AttentionMask::none();
    let mask = AttentionMask::none().with_padding(padding);
    let memory = model.encoder.forward(source, &mask);
    let causal = AttentionMask::causal();
    let whole = model
        .decoder
        .forward(target.clone(), memory.clone(), &causal, &mask);
    let mut cache = Default::default();
    let parts: Vec<_> = (0..9)
        .map(|t| {
            let x = target.clone().slice_dim(1, t..t + 1);
            model
                .decoder
                .forward_cached(x, memory.clone(), &mask, &mut cache)
        })
        .collect();
    assert_eq!(cache.len(), 9);
    near(Tensor::cat(parts, 1), whole.clone(), 1e-5);
    let unmasked = model.decoder.forward(target, memory, &causal, &none);
    assert_ne!(values(unmasked), values(whole));
}

#[test]
fn padded_positions_change_nothing() {
    let device = Device::flex();
    let encoder = open().init_encoder(3, &device);
    let x = random([2, 7, 16], &device);
    let mut padding = [[false; 7]; 2];
    padding[0][4..].fill(true);
    padding[1][0] = true;
    let padding = Tensor::<2, Bool>::from_data(padding, &device);
    let mask = AttentionMask::none().with_padding(padding.clone());
    let keep = padding.bool_not().float().reshape([2, 7, 1]);
    let y = encoder.forward(x.clone(), &mask) * keep.clone();
    let other =
        x.clone() * keep.clone() + random([2, 7, 16], &device) * 100.0 * (-keep.clone() + 1.0);
    let z = encoder.forward(other, &mask) * keep;
    assert_eq!(values(y.clone()), values(z));
    // And they are as good as absent.
    let short = encoder.forward(x.slice([0..1, 0..4, 0..16]), &AttentionMask::none());
    near(y.slice([0..1, 0..4, 0..16]), short, 1e-5);
}

#[test]
fn a_query_that_may_see_nothing_gets_zeros_not_nan() {
    let device = Device::flex().autodiff();
    let attention = layer(ResidualScheme::Plain)
        .init_encoder_layer(&device)
        .attention;
    let x = random([1, 3, 16], &device).require_grad();
    let all = Tensor::<2, Bool>::from_data([[true, true, true]], &device);
    let y = attention.forward(x.clone(), &AttentionMask::none().with_padding(all));
    // Biases of attention are 0 at the start.
    assert!(values(y.clone()).iter().all(|v| *v == 0.0));
    let gradient = x.grad(&y.sum().backward()).unwrap();
    assert!(values(gradient).iter().all(|v| v.is_finite()));
}

#[test]
fn masks_are_united() {
    let device = Device::flex();
    let attention = open().init_encoder_layer(&device).attention;
    let x = random([2, 4, 16], &device);
    let causal = Tensor::<2, Bool>::tril_mask([4, 4], 0, &device);
    let by_flag = attention.forward(x.clone(), &AttentionMask::causal());
    let by_mask = attention.forward(
        x.clone(),
        &AttentionMask::none().with_attention(causal.clone()),
    );
    near(by_flag.clone(), by_mask, 1e-6);
    let batch = causal.unsqueeze::<3>().expand([2, 4, 4]);
    let both = AttentionMask::causal().with_batch_attention(batch);
    near(by_flag, attention.forward(x, &both), 1e-6);
}

#[test]
fn recomputing_layers_gives_the_same_gradients() {
    let device = Device::flex().autodiff();
    for (scheme, tied, positions, dropout) in [
        (ResidualScheme::ReZero, false, Positions::Learned, 0.0),
        (ResidualScheme::PreNorm, true, Positions::Sinusoidal, 0.0),
        (ResidualScheme::PostNorm, false, Positions::Rotary, 0.0),
    ] {
        let residual = ResidualConfig::new(scheme).with_rezero(ReZeroConfig::new().with_alpha(0.5));
        let lm = RztxLmConfig::new(
            layer(scheme).with_residual(residual).with_dropout(dropout),
            4,
            8,
        )
        .with_tied(tied)
        .with_positions(positions)
        .with_embedding_scale(16.0)
        .init(&device);
        let tokens = bytes(2, 8, 1, &device);
        let targets = bytes(2, 8, 2, &device).reshape([16]);
        let loss = |logits: Tensor<3>| cross_entropy(logits.reshape([16, 256]), targets.clone());
        let whole = loss(lm.forward(tokens.clone()));
        let (value, parts) = lm.loss_and_gradients(tokens, |part| part, loss);
        near(value.inner(), whole.clone().inner(), 1e-6);
        let whole = GradientsParams::from_grads(whole.backward(), &lm);
        assert_eq!(whole.len(), parts.len(), "{scheme:?}");
        let mut compared = 0;
        lm.visit(&mut Compare(&whole, &parts, &mut compared));
        assert_eq!(compared, whole.len());
    }
}

struct Compare<'a>(&'a GradientsParams, &'a GradientsParams, &'a mut usize);

impl burn::module::ModuleVisitor for Compare<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let (Some(a), Some(b)) = (self.0.get::<D>(param.id), self.1.get::<D>(param.id)) {
            near(a, b, 1e-6);
            *self.2 += 1;
        }
    }
}

/// The second run of a layer drops what the first one dropped: the gradient is that of the loss.
#[test]
fn recomputing_layers_repeats_their_dropout() {
    // Backends have one random stream a process, from which other tests draw meanwhile.
    const ALONE: &str = "REZERO_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "transformer::recomputing_layers_repeats_their_dropout";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(ALONE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let device = Device::flex().autodiff();
    device.seed(3);
    let config = open().with_dropout(0.3).with_activation(Activation::Gelu);
    let lm = RztxLmConfig::new(config, 3, 8)
        .with_embedding_scale(16.0)
        .init(&device);
    let tokens = bytes(2, 8, 1, &device);
    let targets = bytes(2, 8, 2, &device).reshape([16]);
    let run = |lm: &RztxLm| {
        lm.loss_and_gradients(
            tokens.clone(),
            |part| 1000 + part,
            |logits| cross_entropy(logits.reshape([16, 256]), targets.clone()),
        )
    };
    let (loss, gradients) = run(&lm);
    let (again, _) = run(&lm);
    assert_eq!(values(loss.clone()), values(again));
    // Along the gradient of a gate, the loss moves as the gradient says.
    let gate = &lm.encoder.layers[1].residual.rezero.as_ref().unwrap().alpha;
    let slope = values(gradients.get::<1>(gate.id).unwrap())[0];
    let shifted = |by: f64| {
        let mut lm = lm.clone();
        let gate = lm.encoder.layers[1].residual.rezero.as_mut().unwrap();
        gate.alpha = gate.alpha.clone().map(|a| (a + by).detach().require_grad());
        values(run(&lm).0)[0]
    };
    let numeric = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
    assert!(
        (slope - numeric).abs() < 2e-3 * slope.abs().max(0.1),
        "{slope} {numeric}"
    );
}

#[test]
fn samplers_keep_to_their_limits() {
    let logits = [0.0f32, 3.0, 1.0, 2.0];
    let draw = |config: SamplingConfig, n: usize| -> Vec<usize> {
        let mut sampler: Sampler = config.init().unwrap();
        (0..n).map(|_| sampler.sample(&logits)).collect()
    };
    let config = SamplingConfig::new;
    assert_eq!(draw(config().with_temperature(0.0), 3), [1, 1, 1]);
    assert_eq!(draw(config().with_top_k(Some(1)), 3), [1, 1, 1]);
    assert_eq!(draw(config().with_top_p(1e-9), 3), [1, 1, 1]);
    assert!(
        draw(config().with_top_k(Some(2)), 500)
            .iter()
            .all(|i| [1, 3].contains(i))
    );
    // Probabilities 0.64, 0.24, 0.09, 0.03: the first two sum to 0.88.
    assert!(
        draw(config().with_top_p(0.8), 500)
            .iter()
            .all(|i| [1, 3].contains(i))
    );
    assert!(draw(config().with_top_p(0.9), 500).contains(&2));
    assert_eq!(
        draw(config().with_seed(5), 50),
        draw(config().with_seed(5), 50)
    );
    assert_ne!(
        draw(config().with_seed(5), 50),
        draw(config().with_seed(6), 50)
    );
    // Frequencies are the softmax.
    let share = draw(config(), 20_000).iter().filter(|i| **i == 1).count() as f64 / 20_000.0;
    assert!((share - 0.6439).abs() < 0.015, "{share}");

    for (bad, error) in [
        (config().with_top_p(0.0), SamplingError::TopP(0.0)),
        (config().with_top_p(1.5), SamplingError::TopP(1.5)),
        (config().with_top_k(Some(0)), SamplingError::TopK),
        (
            config().with_temperature(-1.0),
            SamplingError::Temperature(-1.0),
        ),
    ] {
        assert_eq!(bad.init().err(), Some(error));
    }
}

#[test]
fn generation_is_deterministic_outgrows_the_context_and_stops() {
    let device = Device::flex();
    let lm = RztxLmConfig::new(open(), 2, 16)
        .with_embedding_scale(16.0)
        .init(&device);
    let sampler = |seed| SamplingConfig::new().with_seed(seed).init().unwrap();
    let text = |seed, stop| -> Vec<u8> {
        let generation = lm.generate(b"abc", sampler(seed), stop, &device).unwrap();
        generation.take(80).collect()
    };
    let first = text(1, None);
    assert_eq!((first.len(), &first), (80, &text(1, None)));
    assert_ne!(first, text(2, None));
    let stop = first[20];
    let until = first.iter().position(|b| *b == stop).unwrap();
    assert_eq!(text(1, Some(stop)), first[..until]);

    let error = |prompt: &[u8]| lm.generate(prompt, sampler(0), None, &device).err();
    assert_eq!(error(b""), Some(SamplingError::EmptyPrompt));
    assert_eq!(error(&[7; 17]), Some(SamplingError::PromptTooLong(17, 16)));
    assert!(error(&[7; 16]).is_none());
}

/// Greedy text through the cache is what repeated whole forwards give.
#[test]
fn generation_agrees_with_whole_forwards() {
    let device = Device::flex();
    let lm = RztxLmConfig::new(open(), 2, 32)
        .with_embedding_scale(16.0)
        .init(&device);
    let greedy = SamplingConfig::new().with_temperature(0.0).init().unwrap();
    let cached: Vec<u8> = lm
        .generate(b"xyz", greedy, None, &device)
        .unwrap()
        .take(29)
        .collect();
    let mut text = b"xyz".to_vec();
    for _ in 0..29 {
        let ids: Vec<i32> = text.iter().map(|b| i32::from(*b)).collect();
        let tokens = Tensor::from_data(TensorData::new(ids, [1, text.len()]), &device);
        let logits = lm.forward(tokens).slice_dim(1, text.len() - 1..text.len());
        let next = logits
            .reshape([256])
            .argmax(0)
            .into_data()
            .iter::<i64>()
            .next();
        text.push(next.unwrap() as u8);
    }
    assert_eq!(text[3..], cached);
}

#[test]
#[should_panic(expected = "d_model must be a multiple of n_heads, got d_model 10 and n_heads 3")]
fn heads_must_divide_the_width() {
    RztxLayerConfig::new(10, 3).init_encoder_layer(&Device::flex());
}

#[test]
#[should_panic(expected = "a sequence of 9 tokens exceeds the model's context of 8")]
fn a_sequence_must_fit_the_positions() {
    let device = Device::flex();
    RztxLmConfig::new(open(), 1, 8)
        .init(&device)
        .forward(bytes(1, 9, 0, &device));
}

#[test]
#[should_panic(
    expected = "an attention mask must be [1 or batch, queries, keys] = [1 or 2, 4, 4], got [1, 4, 5]"
)]
fn a_mask_must_fit() {
    let device = Device::flex();
    let mask = Tensor::<2, Bool>::tril_mask([4, 5], 0, &device);
    open().init_encoder_layer(&device).forward(
        random([2, 4, 16], &device),
        &AttentionMask::none().with_attention(mask),
    );
}

#[test]
#[should_panic(expected = "a padding mask must be [batch, keys] = [2, 4], got [4, 2]")]
fn a_padding_mask_must_fit() {
    let device = Device::flex();
    let mask = Tensor::<2, Bool>::from_data([[false; 2]; 4], &device);
    open().init_encoder_layer(&device).forward(
        random([2, 4, 16], &device),
        &AttentionMask::none().with_padding(mask),
    );
}

/// Field names are the checkpoint contract.
#[test]
fn parameter_paths_are_pinned() {
    let device = Device::flex();
    let mut layer = layer(ResidualScheme::PreNorm).with_activation(Activation::SwiGlu);
    let paths = |module: &dyn Fn(&mut Paths)| {
        let mut found = Paths::default();
        module(&mut found);
        found.found
    };
    let lm = RztxLmConfig::new(layer.clone(), 1, 8).init(&device);
    assert_eq!(
        paths(&|p| lm.visit(p)),
        [
            "embedding.weight",
            "positions.weight",
            "encoder.layers.0.attention.in_proj.weight",
            "encoder.layers.0.attention.in_proj.bias",
            "encoder.layers.0.attention.out_proj.weight",
            "encoder.layers.0.attention.out_proj.bias",
            "encoder.layers.0.feed_forward.linear1.weight",
            "encoder.layers.0.feed_forward.linear1.bias",
            "encoder.layers.0.feed_forward.gate.weight",
            "encoder.layers.0.feed_forward.gate.bias",
            "encoder.layers.0.feed_forward.linear2.weight",
            "encoder.layers.0.feed_forward.linear2.bias",
            "encoder.layers.0.residual.sub_layers.0.norm.layer_norm.gamma",
            "encoder.layers.0.residual.sub_layers.0.norm.layer_norm.beta",
            "encoder.layers.0.residual.sub_layers.1.norm.layer_norm.gamma",
            "encoder.layers.0.residual.sub_layers.1.norm.layer_norm.beta",
            "encoder.norm.layer_norm.gamma",
            "encoder.norm.layer_norm.beta",
            "head.weight",
            "head.bias",
        ]
    );
    layer.bias = false;
    layer.residual = ResidualConfig::new(ResidualScheme::ReZero).with_norm(Some(NormKind::Rms));
    let decoder = layer
        .with_activation(Activation::Relu)
        .init_decoder_layer(&device);
    assert_eq!(
        paths(&|p| decoder.visit(p)),
        [
            "attention.in_proj.weight",
            "attention.out_proj.weight",
            "cross_attention.in_proj.weight",
            "cross_attention.out_proj.weight",
            "feed_forward.linear1.weight",
            "feed_forward.linear2.weight",
            "residual.rezero.alpha",
            "residual.sub_layers.0.norm.rms_norm.gamma",
            "residual.sub_layers.1.norm.rms_norm.gamma",
            "residual.sub_layers.2.norm.rms_norm.gamma",
        ]
    );
}

#[derive(Default)]
struct Paths {
    path: Vec<String>,
    found: Vec<String>,
}

impl burn::module::ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        self.found.push(self.path.join("."));
    }
}

/// The bounds of uniform draws are reached but for a little, and never passed.
#[test]
fn weights_are_drawn_as_published() {
    let device = Device::flex();
    let layer = RztxLayerConfig::new(64, 4).with_d_ff(96);
    let lm = RztxLmConfig::new(layer.clone(), 2, 128).init(&device);
    let reaches = |name: &str, bound: f64, values: Vec<f32>| {
        let most = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let ratio = f64::from(most) / bound;
        assert!((0.97..=1.000_001).contains(&ratio), "{name}: {ratio}");
    };
    let first = &lm.encoder.layers[0];
    // Xavier of the whole [64, 192]: PyTorch's nn.MultiheadAttention, not of each [64, 64].
    reaches(
        "in_proj",
        (6f64 / 256.0).sqrt(),
        values(first.attention.in_proj.weight.val()),
    );
    reaches(
        "out_proj",
        1.0 / 8.0,
        values(first.attention.out_proj.weight.val()),
    );
    reaches(
        "linear1",
        1.0 / 8.0,
        values(first.feed_forward.linear1.weight.val()),
    );
    reaches(
        "linear2",
        1.0 / 96f64.sqrt(),
        values(first.feed_forward.linear2.weight.val()),
    );
    reaches("embedding", 1.0 / 64.0, values(lm.embedding.weight.val()));
    let bias = first.attention.in_proj.bias.as_ref().unwrap();
    assert!(values(bias.val()).iter().all(|v| *v == 0.0));
    // Each layer on its own.
    let second = &lm.encoder.layers[1];
    assert_ne!(
        values(first.feed_forward.linear1.weight.val()),
        values(second.feed_forward.linear1.weight.val())
    );

    let notebook = RztxLmConfig::new(layer.with_init(RztxInit::notebook()), 1, 128).init(&device);
    let first = &notebook.encoder.layers[0];
    reaches(
        "linear1",
        (6f64 / 160.0).sqrt(),
        values(first.feed_forward.linear1.weight.val()),
    );
    reaches("embedding", 0.1, values(notebook.embedding.weight.val()));
    assert!(
        values(notebook.head.unwrap().bias.unwrap().val())
            .iter()
            .all(|v| *v == 0.0)
    );
}

/// Wang et al., arXiv 2203.00555, Table 1 (decoder-only: 2N and 8N; encoder–decoder: both).
#[test]
fn deepnorm_has_its_papers_constants() {
    let device = Device::flex();
    let layer = RztxLayerConfig::new(64, 4)
        .with_d_ff(64)
        .with_residual(ResidualConfig::new(ResidualScheme::DeepNorm));
    let largest = |w: Tensor<2>| f64::from(w.abs().max().into_scalar::<f32>());
    let stack = layer.init_encoder(8, &device);
    let residual = &stack.layers[3].residual.sub_layers[1];
    assert!((residual.skip_scale - 16f64.powf(0.25)).abs() < 1e-9);
    let gain = 64f64.powf(-0.25);
    let in_proj = stack.layers[3].attention.in_proj.weight.val();
    let bound = (6f64 / 256.0).sqrt();
    assert!((largest(in_proj.clone().slice_dim(1, 0..128)) / bound - 1.0).abs() < 0.03);
    assert!((largest(in_proj.slice_dim(1, 128..192)) / (gain * bound) - 1.0).abs() < 0.03);
    let linear1 = stack.layers[3].feed_forward.linear1.weight.val();
    assert!((largest(linear1) / (gain / 8.0) - 1.0).abs() < 0.03);

    let both = RztxTransformerConfig::new(layer)
        .with_n_encoder_layers(4)
        .with_n_decoder_layers(2)
        .init(&device);
    let encoder = both.encoder.layers[0].residual.sub_layers[0].skip_scale;
    let decoder = both.decoder.layers[0].residual.sub_layers[0].skip_scale;
    assert!((encoder - 0.81 * 512f64.powf(1.0 / 16.0)).abs() < 1e-9);
    assert!((decoder - 6f64.powf(0.25)).abs() < 1e-9);
}
