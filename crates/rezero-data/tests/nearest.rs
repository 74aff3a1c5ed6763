use proptest::collection::vec;
use proptest::prelude::*;
use rezero_data::nearest;

const NAMES: [&str; 12] = [
    "batch",
    "cifar10",
    "cifar10-resnet20",
    "cifar10-resnet56",
    "enwik8",
    "epochs",
    "flex",
    "lr",
    "quickstart",
    "seed",
    "steps",
    "vanilla",
];

#[test]
fn slips_of_the_finger_are_understood() {
    for (word, meant) in [
        ("epoch", "epochs"),
        ("vanila", "vanilla"),
        ("cifar10-resnet2O", "cifar10-resnet20"),
        ("quikstart", "quickstart"),
        ("fleks", "flex"),
        ("flx", "flex"),
        ("cifar11", "cifar10"),
        // Case aside.
        ("CIFAR-10", "cifar10"),
        ("LR", "lr"),
        // The beginning or the end of a name.
        ("resnet56", "cifar10-resnet56"),
        ("quick", "quickstart"),
        ("cifar10-", "cifar10"),
        // The name itself.
        ("seed", "seed"),
    ] {
        assert_eq!(nearest(word, NAMES), Some(meant), "{word}");
    }
}

#[test]
fn what_is_like_none_gets_none() {
    for word in [
        "banana",
        "",
        "xy",
        "ab",
        "resnet",
        "ß",
        "\u{1f980}\u{1f980}",
    ] {
        assert_eq!(nearest(word, NAMES), None, "{word}");
    }
    assert_eq!(nearest("epochs", []), None);
    // No slower for a word that nobody typed.
    assert_eq!(nearest(&"epochs".repeat(1_000_000), NAMES), None);
}

#[test]
fn of_equals_the_first_is_taken() {
    assert_eq!(nearest("cifar10-resnet", NAMES), Some("cifar10-resnet20"));
    let names = ["depth3", "depth1", "depth2"];
    assert_eq!(nearest("depth", names), Some("depth3"));
    // The nearest comes before the first.
    assert_eq!(nearest("depth2", names), Some("depth2"));
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..40).prop_map(String::from_iter)
}

fn letter() -> impl Strategy<Value = char> {
    proptest::char::range('a', 'z')
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_word_gets_a_candidate_or_none(word in text(), names in vec(text(), 0..20)) {
        let found = nearest(&word, names.iter().map(String::as_str));
        prop_assert!(found.is_none_or(|found| names.iter().any(|name| name == found)));
    }

    #[test]
    fn one_letter_more_is_near(name in vec(letter(), 2..=12).prop_map(String::from_iter), at in 0usize..12, letter in letter()) {
        let mut word = name.clone();
        word.insert(at.min(name.len()), letter);
        prop_assert_eq!(nearest(&word, [name.as_str()]), Some(name.as_str()));
    }
}
