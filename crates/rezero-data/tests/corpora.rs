use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use proptest::prelude::*;
use rezero_data::{DataError, Split, corpus};

use crate::support::sha256;

#[test]
fn a_file_is_split_in_proportion() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("book.txt");
    for n in [11usize, 19, 20, 21, 99, 100, 101, 1000] {
        let whole: Vec<u8> = (0..n).map(|i| (i * 7) as u8).collect();
        fs::write(&path, &whole).unwrap();
        let (a, b) = (n * 90 / 100, n * 95 / 100);
        for (split, range) in Split::ALL.into_iter().zip([0..a, a..b, b..n]) {
            let text = corpus::file(&path, split).unwrap();
            assert_eq!(text.bytes(), &whole[range], "{split} of {n}");
            assert_eq!((text.name(), text.split()), ("book.txt", split));
            let same = corpus::bytes("book.txt", whole.clone(), split).unwrap();
            assert_eq!(same.fingerprint(), text.fingerprint());
        }
    }
    let text = corpus::file(&path, Split::Train).unwrap();
    assert!(!text.is_subset() && !text.is_empty());
    assert_eq!(text.fingerprint(), sha256(text.bytes()));
    assert!(!text.clone().take(900).is_subset());
    let part = text.clone().take(10);
    assert_eq!(part.bytes(), &text.bytes()[..10]);
    assert_eq!(
        part.to_string(),
        "book.txt train: 10 bytes, a subset of 900"
    );
    assert!(part.take(20).is_subset());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_splits_join_to_the_whole(n in 11usize..3000) {
        let whole: Vec<u8> = (0..n).map(|i| (i * 11) as u8).collect();
        let mut joined = Vec::new();
        for split in Split::ALL {
            let text = corpus::bytes("whole", whole.clone(), split).unwrap();
            prop_assert!(!text.is_empty());
            joined.extend_from_slice(text.bytes());
        }
        prop_assert_eq!(joined, whole);
    }
}

#[test]
fn what_cannot_be_split_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("short");
    for n in [0, 1, 2, 10] {
        fs::write(&path, vec![b'x'; n]).unwrap();
        for split in Split::ALL {
            for result in [
                corpus::file(&path, split),
                corpus::bytes("short", vec![b'x'; n], split),
            ] {
                let message = result.unwrap_err().to_string();
                let rule = format!("the text short has {n} bytes, but a text must have between 11");
                assert!(message.contains(&rule), "{message}");
                assert!(message.ends_with("give a longer one"), "{message}");
            }
        }
    }
    let message = |path: &Path| corpus::file(path, Split::Train).unwrap_err().to_string();
    let of_folder = message(dir.path());
    assert!(of_folder.contains("is not a file"), "{of_folder}");
    let of_none = message(&dir.path().join("absent"));
    assert!(of_none.contains("check the path"), "{of_none}");

    // A file of 4 GiB and a byte that takes no room.
    let large = dir.path().join("large");
    let sparse = File::create(&large).unwrap();
    if sparse.set_len((1 << 32) + 1).is_ok() {
        let of_large = message(&large);
        assert!(
            of_large.contains("4294967297 bytes") && of_large.ends_with("cut it"),
            "{of_large}"
        );
    }
}

#[test]
fn another_file_is_not_taken_for_enwik8() {
    let dir = tempfile::tempdir().unwrap();
    let message = || {
        corpus::enwik8(dir.path(), Split::Valid)
            .unwrap_err()
            .to_string()
    };
    let absent = message();
    for part in ["no enwik8 in", "rezero fetch enwik8", "--text FILE"] {
        assert!(absent.contains(part), "{absent}");
    }
    let file = dir.path().join("enwik8");
    fs::write(&file, vec![b'x'; 4_000_000]).unwrap();
    let short = message();
    let remedy = format!("--text {}", file.display());
    for part in ["is 4000000 bytes", "has 100000000", &remedy] {
        assert!(short.contains(part), "{short}");
    }
    // As long as enwik8, but all zero.
    File::create(&file).unwrap().set_len(100_000_000).unwrap();
    let error = corpus::enwik8(dir.path(), Split::Valid).unwrap_err();
    assert!(matches!(error, DataError::HashMismatch { .. }), "{error:?}");
    let zeros = error.to_string();
    assert!(
        zeros.contains("2b49720e") && zeros.contains("--text"),
        "{zeros}"
    );
    assert!(file.exists());

    let message = corpus::enwik8(&file, Split::Test).unwrap_err().to_string();
    assert!(message.contains("enwik8 is not a folder"), "{message}");
}

#[test]
fn wiki_like_is_a_function_of_seed_and_split() {
    let text = corpus::wiki_like(100_000, 1, Split::Train);
    assert_eq!((text.len(), text.name()), (100_000, "wiki-like"));
    // A change here changes every figure measured on this text: mend the code, not the constant.
    assert_eq!(text.fingerprint(), PINNED);
    let longer = corpus::wiki_like(150_000, 1, Split::Train);
    assert_eq!(longer.take(100_000).fingerprint(), PINNED);
    for (seed, split) in [(2, Split::Train), (1, Split::Valid), (1, Split::Test)] {
        let other = corpus::wiki_like(100_000, seed, split);
        assert_ne!(other.fingerprint(), PINNED, "{seed} {split}");
    }
    for len in [0, 1, 100] {
        assert_eq!(corpus::wiki_like(len, 1, Split::Test).len(), len);
    }
}
const PINNED: &str = "ed02beace2ec5365c80ca97f6d9f8259b10ebfa847f3f4032dd87c1c11bd10a8";

#[test]
fn wiki_like_has_the_form_of_enwik8() {
    let text = corpus::wiki_like(1_000_000, 3, Split::Train);
    let text = std::str::from_utf8(text.bytes()).unwrap();
    assert!(text.starts_with("  <page>\n    <title>"));
    for part in [
        "\n== ",
        "\n* ",
        "[[",
        "|",
        "'''",
        "{{",
        "&quot;",
        "[[Category:",
    ] {
        assert!(text.contains(part), "{part}");
    }
    for tag in ["page", "title", "revision", "timestamp", "contributor"] {
        let count = |tag: String| text.matches(&tag).count();
        let (opened, closed) = (count(format!("<{tag}>")), count(format!("</{tag}>")));
        assert!(
            opened > 300 && opened - closed <= 1,
            "{tag}: {opened}, {closed}"
        );
    }

    // Bits a byte by frequency, and given the last byte, and given the last three: there is
    // something to learn from each.
    let bits = |order: usize| {
        let mut contexts: HashMap<&[u8], HashMap<u8, f64>> = HashMap::new();
        for window in text.as_bytes().windows(order + 1) {
            let next = contexts.entry(&window[..order]).or_default();
            *next.entry(window[order]).or_default() += 1.0;
        }
        let entropy = |next: &HashMap<u8, f64>| {
            let sum: f64 = next.values().sum();
            next.values().map(|n| n * (sum / n).log2()).sum::<f64>()
        };
        contexts.values().map(entropy).sum::<f64>() / text.len() as f64
    };
    let bits = [0, 1, 3].map(bits);
    assert!(
        bits[0] < 5.5 && bits[0] - bits[1] > 0.8 && bits[1] - bits[2] > 0.8 && bits[2] > 1.0,
        "{bits:?}"
    );
}
