use std::collections::HashSet;

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use proptest::prelude::*;
use rezero_data::{
    DataError, START_BYTE, ScoringConfig, Split, Text, TextBatch, TextLoader, WindowConfig, corpus,
};

use crate::support::{batches, host_text, text};

fn windows(text: &Text, config: WindowConfig) -> TextLoader {
    TextLoader::windows(text.clone(), config, &Device::flex()).unwrap()
}

fn scoring(text: &Text, batch_size: usize, context: usize, stride: usize) -> TextLoader {
    let config = ScoringConfig {
        batch_size,
        context,
        stride,
        prefetch: 0,
    };
    TextLoader::scoring(text.clone(), config, &Device::flex()).unwrap()
}

const CONFIG: WindowConfig = WindowConfig {
    batch_size: 3,
    context: 8,
    seed: 5,
    steps: 7,
    prefetch: 0,
};

#[test]
fn targets_are_inputs_one_byte_on_and_both_are_of_the_text() {
    let text = text(500);
    for batch in batches(&windows(&text, CONFIG)) {
        assert_eq!((batch.inputs.len(), batch.inputs[0].len()), (3, 8));
        for (inputs, targets) in batch.inputs.iter().zip(&batch.targets) {
            assert_eq!(inputs[1..], targets[..7]);
            let window = [&inputs[..], &targets[7..]].concat();
            assert!(text.bytes().windows(9).any(|w| w == window));
        }
        assert!(batch.scored.concat().iter().all(|&s| s));
    }
}

#[test]
fn the_windows_are_pinned() {
    // A change here changes every published run: do not adjust the numbers, mend the code.
    let bytes: Vec<u8> = (0..=255).collect();
    let text = corpus::bytes("bytes", bytes, Split::Train).unwrap();
    let firsts: Vec<Vec<u8>> = batches(&windows(&text, WindowConfig { steps: 2, ..CONFIG }))
        .iter()
        .map(|batch| batch.inputs.iter().map(|row| row[0]).collect())
        .collect();
    assert_eq!(firsts, FIRSTS);
}
const FIRSTS: [[u8; 3]; 2] = [[148, 133, 50], [75, 184, 203]];

#[test]
fn windows_cover_the_text_to_its_last_byte() {
    let bytes: Vec<u8> = (0..40).collect();
    let text = corpus::bytes("bytes", bytes, Split::Train).unwrap();
    assert_eq!(text.len(), 36);
    let config = WindowConfig {
        batch_size: 50,
        steps: 40,
        ..CONFIG
    };
    let mut seen = [0; 36];
    for batch in batches(&windows(&text, config)) {
        for inputs in &batch.inputs {
            seen[usize::from(inputs[0])] += 1;
        }
    }
    // 2,000 windows begin at 28 places: 71 each, with a standard deviation of 8.
    assert!(seen[..28].iter().all(|n| (30..120).contains(n)), "{seen:?}");
    assert_eq!(seen[28..], [0; 8]);
    // The shortest text has one window.
    let short = text.take(9);
    for batch in batches(&windows(&short, CONFIG)) {
        assert!(batch.inputs.iter().all(|row| row[..] == short.bytes()[..8]));
        assert!(
            batch
                .targets
                .iter()
                .all(|row| row[..] == short.bytes()[1..])
        );
    }
}

#[test]
fn steps_and_seeds_differ() {
    let text = text(5000);
    let mut seen = HashSet::new();
    for seed in 0..3 {
        for batch in batches(&windows(&text, WindowConfig { seed, ..CONFIG })) {
            assert!(seen.insert(batch.inputs));
        }
    }
}

/// Where each target of a scoring loader lies, by the rule of its documentation.
fn check_scoring(n: usize, batch_size: usize, context: usize, stride: usize) {
    let text = text(n);
    let loader = scoring(&text, batch_size, context, stride);
    let batches = batches(&loader);
    assert_eq!(batches.len(), loader.batches_per_epoch());
    let sequence = [&[START_BYTE], text.bytes()].concat();
    let mut times = vec![0; n];
    let mut row = 0;
    for (i, batch) in batches.iter().enumerate() {
        let length = batch.inputs[0].len();
        let last = i + 1 == batches.len();
        assert!(length == context || last && batch.inputs.len() == 1);
        assert!(batch.inputs.len() <= batch_size);
        for ((inputs, targets), scored) in
            batch.inputs.iter().zip(&batch.targets).zip(&batch.scored)
        {
            let start = row * stride;
            assert_eq!(inputs[..], sequence[start..start + length]);
            assert_eq!(targets[..], sequence[start + 1..start + 1 + length]);
            for (j, &scored) in scored.iter().enumerate() {
                times[start + j] += usize::from(scored);
                // Enough is read before what is scored.
                assert!(!scored || row == 0 || j >= context - stride);
            }
            row += 1;
        }
    }
    assert_eq!(times, vec![1; n]);
    assert_eq!(row, loader.num_items());
}

#[test]
fn scoring_at_the_edges() {
    for (n, context, stride) in [
        (1, 1, 1),
        (1, 5, 2),
        (5, 5, 5),
        (5, 5, 1),
        (6, 5, 5),
        (6, 5, 1),
        (10, 5, 5),
        (4, 5, 3),
        (9, 1, 1),
        (7, usize::MAX, usize::MAX),
    ] {
        for batch_size in [1, 2, usize::MAX / 64] {
            check_scoring(n, batch_size, context, stride);
        }
    }
}

#[test]
fn progress_counts_windows() {
    // Targets 0..4, 3..7, 6..10, 9..11: the last window is short.
    let loader = scoring(&text(11), 2, 4, 3);
    assert_eq!((loader.num_items(), loader.batches_per_epoch()), (4, 3));
    let sizes: Vec<_> = batches(&loader)
        .iter()
        .map(|b| (b.inputs.len(), b.inputs[0].len(), b.scored.concat()))
        .map(|(rows, length, scored)| (rows, length, scored.iter().filter(|&&s| s).count()))
        .collect();
    assert_eq!(sizes, [(2, 4, 7), (1, 4, 3), (1, 2, 1)]);
    let progress = |p: burn::data::dataloader::Progress| (p.items_processed, p.items_total);
    for (first, skipped) in [0, 2, 3, 4, 4].into_iter().enumerate() {
        let loader = loader.clone().starting_at(first);
        let mut iterator = loader.iter();
        assert_eq!(progress(iterator.progress()), (skipped, 4));
        assert_eq!(iterator.by_ref().count(), 3usize.saturating_sub(first));
        assert!(iterator.progress().is_completed());
    }
    let loader = windows(&text(50), CONFIG);
    assert_eq!((loader.num_items(), loader.batches_per_epoch()), (21, 7));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_is_scored_once(
        n in 1usize..200, context in 1usize..40, stride in 1usize..40, batch in 1usize..9,
    ) {
        check_scoring(n, batch, context, stride.min(context));
    }

    #[test]
    fn a_batch_is_a_function_of_seed_and_step(
        n in 9usize..300, seed: u64, at in 0usize..9, prefetch in 0usize..4, steps in 7usize..20,
    ) {
        let text = text(n);
        let undisturbed = windows(&text, WindowConfig { seed, ..CONFIG });
        let whole = batches(&undisturbed);
        // Neither the number of steps, the start, prefetching nor an earlier iteration matters.
        let config = WindowConfig { seed, prefetch, steps, ..CONFIG };
        let resumed = windows(&text, config).starting_at(at);
        let rest = batches(&resumed);
        prop_assert_eq!(rest.len(), steps.saturating_sub(at));
        for (a, b) in whole[at.min(7)..].iter().zip(&rest) {
            prop_assert_eq!(a, b);
        }
        prop_assert_eq!(&batches(&resumed), &rest);
        let from_step: Vec<_> = resumed.from_step(at).map(|b| host_text(b.unwrap())).collect();
        prop_assert_eq!(&from_step, &rest);
        prop_assert_eq!(undisturbed.from_step(7).count(), 0);
        prop_assert_eq!(&batches(&*resumed.to_device(&Device::flex())), &rest);
    }

    #[test]
    fn prefetch_changes_nothing_in_scoring(n in 1usize..200, prefetch in 1usize..5) {
        let text = text(n);
        let config = ScoringConfig { batch_size: 3, context: 7, stride: 5, prefetch };
        let ahead = TextLoader::scoring(text.clone(), config, &Device::flex()).unwrap();
        prop_assert_eq!(batches(&ahead), batches(&scoring(&text, 3, 7, 5)));
    }

    #[test]
    fn shards_are_disjoint_and_cover(n in 9usize..300, shards in 1usize..5, batch in 1usize..9) {
        let text = text(n);
        let rows = |loader: &dyn DataLoader<TextBatch>| -> Vec<_> {
            let batches = batches(loader).into_iter();
            batches.flat_map(|b| b.targets.into_iter().zip(b.scored)).collect()
        };
        for whole in [
            scoring(&text, batch, 7, 5),
            windows(&text, WindowConfig { batch_size: batch, ..CONFIG }),
        ] {
            let len = whole.num_items();
            let mut seen = Vec::new();
            for k in 0..shards {
                let shard = whole.slice(k * len / shards, (k + 1) * len / shards);
                let part = rows(&*shard);
                prop_assert_eq!(part.len(), shard.num_items());
                seen.extend(part);
            }
            prop_assert_eq!(&seen, &rows(&whole));
            let inner = whole.slice(len / 3, len).slice(1, usize::MAX);
            prop_assert_eq!(&rows(&*inner), &seen[(len / 3 + 1).min(len)..]);
        }
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let text = text(100);
    let device = Device::flex();
    let of_windows = |text: Text, config| TextLoader::windows(text, config, &device).err().unwrap();
    let cases = [
        (
            "batch_size must be at least 1, got 0",
            WindowConfig {
                batch_size: 0,
                ..CONFIG
            },
        ),
        (
            "context must be at least 1, got 0",
            WindowConfig {
                context: 0,
                ..CONFIG
            },
        ),
        (
            "context must be below 100, the number of bytes of the text, since each window has one \
             more, got 100",
            WindowConfig {
                context: 100,
                ..CONFIG
            },
        ),
        (
            "steps must be between 1 and",
            WindowConfig { steps: 0, ..CONFIG },
        ),
        (
            "steps must be between 1 and",
            WindowConfig {
                steps: usize::MAX,
                ..CONFIG
            },
        ),
    ];
    for (part, config) in cases {
        let error = of_windows(text.clone(), config);
        assert!(matches!(error, DataError::Setting { .. }));
        assert!(error.to_string().contains(part), "{error}");
    }
    let config = ScoringConfig {
        batch_size: 2,
        context: 8,
        stride: 4,
        prefetch: 0,
    };
    let cases = [
        (
            "batch_size must be at least 1, got 0",
            ScoringConfig {
                batch_size: 0,
                ..config
            },
        ),
        (
            "context must be at least 1, got 0",
            ScoringConfig {
                context: 0,
                ..config
            },
        ),
        (
            "stride must be between 1 and 8, the context, got 0",
            ScoringConfig {
                stride: 0,
                ..config
            },
        ),
        (
            "stride must be between 1 and 8, the context, got 9",
            ScoringConfig {
                stride: 9,
                ..config
            },
        ),
    ];
    for (part, config) in cases {
        let error = TextLoader::scoring(text.clone(), config, &device)
            .err()
            .unwrap();
        assert!(matches!(error, DataError::Setting { .. }));
        assert!(error.to_string().contains(part), "{error}");
    }
    let empty = text.clone().take(0);
    let error = TextLoader::scoring(empty.clone(), config, &device)
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("number of bytes must be at least 1, got 0"),
        "{error}"
    );
    let error = of_windows(empty, CONFIG);
    assert!(error.to_string().contains("below 0"), "{error}");
}
