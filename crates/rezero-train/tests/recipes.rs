//! The recipe parser: shipped recipes, overrides, bad input.

use proptest::prelude::*;
use rezero_train::recipe::{Arm, EMBEDDED, Override, Recipe};

fn resolve(name: &str, overrides: &[&str]) -> Result<Recipe, String> {
    let overrides: Result<Vec<Override>, String> = overrides.iter().map(|o| o.parse()).collect();
    Recipe::resolve(name, &overrides?)
        .map(|r| r.recipe)
        .map_err(|e| e.to_string())
}

#[test]
fn every_shipped_recipe_resolves_and_survives_a_round_trip() {
    for (name, _) in EMBEDDED {
        let recipe = resolve(name, &[]).unwrap();
        let text = recipe.to_toml();
        assert_eq!(Recipe::parse(name, &text).unwrap().recipe, recipe, "{name}");
    }
}

#[test]
fn the_two_published_recipes_differ_where_the_authors_code_does() {
    let table = resolve("cifar10-resnet56", &[]).unwrap();
    let notebook = resolve("cifar10-resnet56-notebook", &[]).unwrap();
    assert_eq!((table.weight_decay, notebook.weight_decay), (5e-4, 1e-4));
    assert_eq!((table.bias_lr, notebook.bias_lr), (0.01, 0.0));
    assert_eq!(resolve("cifar10-resnet20-notebook", &[]).unwrap().lr, 0.2);
}

#[test]
fn overrides_are_typed_and_echoed() {
    let overrides = ["lr=1".parse().unwrap(), "arm=vanilla".parse().unwrap()];
    let resolved = Recipe::resolve("quickstart", &overrides).unwrap();
    assert_eq!(resolved.recipe.lr, 1.0);
    assert_eq!(resolved.recipe.arm, Arm::Vanilla);
    assert_eq!(
        resolved.changes,
        ["arm: \"rezero\" -> \"vanilla\"", "lr: 0.05 -> 1.0"]
    );
    assert_eq!(resolved.run_name(), "quickstart_arm=vanilla_lr=1.0");
    let milestones = resolve("cifar10-resnet20", &["milestones=[3, 5]"]).unwrap();
    assert_eq!(milestones.milestones, [3, 5]);
}

#[test]
fn bad_input_names_the_key_and_the_remedy() {
    for (overrides, parts) in [
        (&["epoch=3"][..], &["`epoch`", "did you mean `epochs`?"][..]),
        (&["batch=-1"], &["`batch`", "-1"]),
        (&["batch=0"], &["`batch`", "at least 1"]),
        (&["batch=many"], &["`batch`", "many"]),
        (&["epochs=0"], &["`epochs`", "at least 1"]),
        (&["epochs=1.5"], &["`epochs`", "1.5"]),
        (&["arm=vanila"], &["`arm`", "did you mean `vanilla`?"]),
        (&["depth=21"], &["`depth`", "6n+2", "21"]),
        (&["lr=nan"], &["`lr`", "finite"]),
        (&["lr=-0.1"], &["`lr`", "-0.1"]),
        (&["momentum=1"], &["`momentum`", "[0, 1)"]),
        (&["milestones=[5, 3]"], &["`milestones`", "rise"]),
        (&["seed=-1"], &["`seed`"]),
        (&["model=preact-resnet"], &["`depth`", "18, 34 or 50"]),
        (&["epochs"], &["key=value"]),
        (&["=3"], &["key=value"]),
    ] {
        let error = resolve("cifar10-resnet20", overrides).unwrap_err();
        for part in parts {
            assert!(
                error.contains(part),
                "{overrides:?}: no `{part}` in: {error}"
            );
        }
    }
    let error = resolve("cifar10-resnet2O", &[]).unwrap_err();
    assert!(
        error.contains("did you mean `cifar10-resnet20`?"),
        "{error}"
    );
    let error = resolve("absent.toml", &[]).unwrap_err();
    assert!(error.contains("absent.toml"), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        let _ = Recipe::parse("any", &text);
    }

    #[test]
    fn arbitrary_overrides_never_panic(key in "[a-z_]{0,12}", value in "\\PC*") {
        let _ = resolve("quickstart", &[&format!("{key}={value}")]);
    }

    #[test]
    fn arbitrary_values_of_real_keys_never_panic(i in 0usize..100, value in "\\PC{0,20}") {
        let keys = Recipe::keys();
        let _ = resolve("quickstart", &[&format!("{}={value}", keys[i % keys.len()])]);
    }

    #[test]
    fn run_names_are_safe_file_names(value in "\\PC*") {
        let over = Override { key: "device".to_owned(), value };
        // A number is no device name and is refused before it gets into a name.
        if let Ok(resolved) = Recipe::resolve("quickstart", &[over]) {
            let name = resolved.run_name();
            prop_assert!(!name.contains('/') && name.len() <= 200 && name.is_ascii());
        }
    }
}
