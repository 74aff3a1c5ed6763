//! Language models and decoders: causality, caches, sampling and generation.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rezero_nn::ResidualScheme;
use rezero_nn::transformer::{
    Positions, RztxDecoderInput, RztxEncoderConfig, RztxEncoderInput, RztxLm, RztxLmConfig,
    RztxTransformerConfig, Sampler, SamplingConfig, SamplingError,
};

use crate::helpers::{bytes, near, opened, random, values};

/// ReZero with open gates, so that every branch counts.
fn open(n_layers: usize) -> RztxEncoderConfig {
    RztxEncoderConfig::new(16, 24, 4, n_layers)
        .with_dropout(0.0)
        .with_residual(opened(ResidualScheme::ReZero, 0.7))
}

fn lm(positions: Positions, tied: bool, device: &Device) -> RztxLm {
    RztxLmConfig::new(open(3), 32)
        .with_positions(positions)
        .with_tied(tied)
        // Large enough that positions and tokens matter.
        .with_embedding_scale(8.0)
        .init(device)
}

#[test]
fn no_logit_before_a_changed_byte_moves() {
    let device = Device::flex();
    for &positions in Positions::ALL {
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
    for &positions in Positions::ALL {
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
    for &positions in Positions::ALL {
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
    let lm = RztxLmConfig::new(open(2), 200).init(&device);
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
    let model = RztxTransformerConfig::new(16, 24, 4, 2, 3)
        .with_dropout(0.0)
        .with_residual(opened(ResidualScheme::ReZero, 0.7))
        .init(&device);
    let source = random([2, 6, 16], &device);
    let target = random([2, 9, 16], &device);
    let padding = Tensor::<2, Bool>::from_data(
        [[false, false, false, false, true, true], [false; 6]],
        &device,
    );
    let source = RztxEncoderInput::new(source).mask_pad(padding.clone());
    let memory = model.encoder.forward(source);
    let input = |target| RztxDecoderInput::new(target, memory.clone());
    let whole = input(target.clone()).causal();
    let whole = model
        .decoder
        .forward(whole.memory_mask_pad(padding.clone()));
    let mut cache = Default::default();
    let parts: Vec<_> = (0..9)
        .map(|t| {
            let x = target.clone().slice_dim(1, t..t + 1);
            let x = input(x).memory_mask_pad(padding.clone());
            model.decoder.forward_cached(x, &mut cache)
        })
        .collect();
    assert_eq!(cache.len(), 9);
    near(Tensor::cat(parts, 1), whole.clone(), 1e-5);
    let unmasked = model.decoder.forward(input(target).causal());
    assert_ne!(values(unmasked), values(whole));
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
    let lm = RztxLmConfig::new(open(2), 16)
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
    let mut stopped = lm
        .generate(b"abc", sampler(1), Some(stop), &device)
        .unwrap();
    assert_eq!(stopped.by_ref().count(), until);
    assert_eq!(stopped.next(), None, "nothing follows the stop byte");

    let error = |prompt: &[u8]| lm.generate(prompt, sampler(0), None, &device).err();
    assert_eq!(error(b""), Some(SamplingError::EmptyPrompt));
    assert_eq!(error(&[7; 17]), Some(SamplingError::PromptTooLong(17, 16)));
    assert!(error(&[7; 16]).is_none());
}

/// Greedy text through the cache is what repeated whole forwards give.
#[test]
fn generation_agrees_with_whole_forwards() {
    let device = Device::flex();
    let lm = RztxLmConfig::new(open(2), 32)
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
#[should_panic(expected = "a sequence of 9 tokens exceeds the model's context of 8")]
fn a_sequence_must_fit_the_positions() {
    let device = Device::flex();
    RztxLmConfig::new(open(1), 8)
        .init(&device)
        .forward(bytes(1, 9, 0, &device));
}
