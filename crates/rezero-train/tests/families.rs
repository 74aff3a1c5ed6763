//! Properties of every family of the zoo, under every scheme that it has.

use rezero_nn::ResidualScheme;
use rezero_train::recipe::{Recipe, TaskRecipe};

use burn::tensor::Device;

use crate::support::{
    cifar_layout, families, has_batch_norm, last, network, of_split, recipe, resolve, rewind, rows,
    scratch, succeed,
};

/// The sizes that make a family's network small, and where its data is.
pub fn small(of_text: bool, family: &str) -> Vec<&'static str> {
    let mut all = match of_text {
        true => vec!["enwik8-tiny", "data=wiki-like", "valid_items=60"],
        false => vec!["cifar10-resnet20", "--data-dir", "data"],
    };
    all.extend(match family {
        "cifar-resnet" => &["depth=8"][..],
        "preact-resnet" => &["depth=18"],
        "mlp" => &["depth=3", "width=8"],
        "vit" => &["depth=2", "d_model=8", "d_ff=12", "patch_size=8"],
        "mixer" => &[
            "depth=2",
            "d_model=8",
            "d_tokens=6",
            "d_channels=12",
            "patch_size=8",
        ],
        "byte-lm" => &["depth=2", "d_model=8", "d_ff=12", "context=10"],
        other => panic!("{other} is new: which sizes make it small?"),
    });
    all
}

/// A batch with half on each of two devices gives the numbers of the whole batch on one device, if
/// the network has no batch norm. The loss of the second step depends on weights that the first
/// step has updated.
#[test]
fn two_devices_train_as_one() {
    let dir = scratch();
    cifar_layout(dir.path(), 4);
    let mut compared = 0;
    for family in families() {
        for &scheme in &family.schemes {
            let name = format!("{} {scheme}", family.name);
            let parsed = Recipe::parse(&name, &family.file(scheme)).unwrap();
            let settings = &parsed.recipe.settings;
            let device = Device::flex();
            let looks_over = match &parsed.recipe.task {
                TaskRecipe::Images(of) => has_batch_norm(&network(of, settings, &device)),
                TaskRecipe::Text(of) => has_batch_norm(&network(of, settings, &device)),
            };
            if looks_over {
                continue;
            }
            compared += 1;
            let train = |device: &str| {
                let run = format!("{name} {device}");
                let keys = [
                    format!("model={}", family.name),
                    format!("scheme={scheme}"),
                    "alpha_init=0.3".to_owned(),
                ];
                let gated = if scheme.has_gate() { 3 } else { 2 };
                let mut args = vec!["train"];
                args.extend(small(family.of_text, &family.name));
                args.extend(keys.iter().take(gated).map(String::as_str));
                args.extend(["batch=4", "steps=2", "log_every=1", "lr=0.01"]);
                args.extend(["--device", device, "--run-dir", &run]);
                succeed(dir.path(), &args);
                of_split(&rows(&dir.path().join(&run)), "train")
            };
            let (one, two) = (train("flex"), train("flex,flex"));
            assert_eq!((one.len(), two.len()), (2, 2), "{name}");
            for (one, two) in one.iter().zip(&two) {
                let near = |a: f64, b: f64| {
                    assert!((a / b - 1.0).abs() <= 1e-4, "{name}: {a} {b}");
                };
                near(one.loss, two.loss);
                near(one.grad_norm.unwrap(), two.grad_norm.unwrap());
                assert_eq!(one.items, two.items, "{name}");
            }
            assert_ne!(one[0].loss, one[1].loss, "{name}");
        }
    }
    // FixUp and SkipInit of the ResNets, and all schemes of the other families.
    assert_eq!(compared, 2 + 7 + 3 * 11);
}

/// Of each family of images: a resumed run is the whole run; `eval` scores it; a deeper network has its
/// loss; `jacobian` takes it; half precision trains another network that is near it.
#[test]
fn the_commands_take_every_family_of_images() {
    let dir = scratch();
    let dir = dir.path();
    cifar_layout(dir, 8);
    let mut families = families();
    // Eighteen layers take long.
    families.retain(|family| !family.of_text && family.name != "preact-resnet");
    assert_eq!(families.len(), 4);
    for family in &families {
        let name = family.name.as_str();
        let model = format!("model={name}");
        let train = |run: &str, more: &[&str]| {
            let mut args = vec!["train"];
            args.extend(small(false, name));
            args.extend([
                model.as_str(),
                "scheme=rezero",
                "batch=8",
                "steps=4",
                "lr=0.01",
            ]);
            args.extend([
                "log_every=1",
                "eval_every=2",
                "checkpoint_every=2",
                "--plain",
            ]);
            args.extend(["--run-dir", run]);
            args.extend(more);
            succeed(dir, &args);
            (rows(&dir.join(run)), last(&dir.join(run)))
        };
        let whole = train(name, &[]);
        rewind(&dir.join(name), 2);
        let again = train(name, &["--resume"]);
        assert_eq!(again.0, whole.0, "{name}");
        assert!(again.1 == whole.1, "{name}: other weights after a resume");

        let half = format!("{name}-half");
        let (half, _) = train(&half, &["dtype=bf16"]);
        let (half, full) = (of_split(&half, "train"), of_split(&whole.0, "train"));
        assert_eq!(half.len(), full.len(), "{name}");
        assert_ne!(half[3].loss, full[3].loss, "{name}");
        for (half, full) in half.iter().zip(&full) {
            assert!(
                (half.loss / full.loss - 1.0).abs() < 0.05,
                "{name}: {half:?}, {full:?}"
            );
        }

        let loss = |run: &str| -> f64 {
            let mut args = vec!["eval", run, "--split", "test", "--data-dir", "data"];
            args.extend(["--checkpoint", "last", "--json"]);
            let said = succeed(dir, &args);
            let scored: serde_json::Value = serde_json::from_str(&said.out).unwrap();
            scored["loss"].as_f64().unwrap()
        };
        let before = loss(name);
        assert!(before.is_finite(), "{name}");
        let grown = format!("{name}-grown");
        succeed(
            dir,
            &[
                "grow",
                name,
                "--layers",
                "14",
                "--only",
                "--run-dir",
                &grown,
            ],
        );
        assert_eq!(loss(&grown), before, "{name}: a new layer is the identity");
        // The Jacobian of a fully connected network is of all 3,072 values of an image: minutes.
        if name != "mlp" {
            let args = ["jacobian", name, "--inputs", "1", "--data-dir", "data"];
            succeed(dir, &args);
        }
    }
}

/// A run's recipe.toml is the recipe with which it began.
#[test]
fn recipes_survive_a_round_trip() {
    let mut networks = 0;
    for family in families() {
        for &scheme in &family.schemes {
            let name = format!("{} {scheme}", family.name);
            let first = Recipe::parse(&name, &family.file(scheme)).unwrap().recipe;
            let again = Recipe::parse(&name, &first.to_toml()).unwrap().recipe;
            assert_eq!(again, first, "{name}");
            assert_eq!(again.to_toml(), first.to_toml(), "{name}");
            assert_eq!(again.identity(), first.identity(), "{name}");
            assert_eq!(again.fingerprint(), first.fingerprint(), "{name}");
            networks += 1;
        }
    }
    assert_eq!(networks, 6 + 3 + 7 + 3 * 11);
}

/// Networks of different settings are never taken for each other.
#[test]
fn an_identity_is_of_one_network() {
    let mut all: Vec<String> = Vec::new();
    for family in families() {
        let schemes = family.schemes.iter();
        all.extend(schemes.map(|scheme| {
            let parsed = Recipe::parse(&family.name, &family.file(*scheme));
            parsed.unwrap().recipe.identity()
        }));
    }
    for changes in [
        &["depth=14"][..],
        &["depth=14", "definition=notebook"],
        &["alpha_per_channel=true"],
        &["alpha_bound=2"],
    ] {
        all.push(recipe("cifar10-resnet20", changes).identity());
    }
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "{all:?}");
}

/// A scheme that a family does not have is refused, and the message names the schemes that it has.
#[test]
fn a_scheme_of_another_family_is_refused() {
    for family in families() {
        let first = family.schemes.first().expect("a scheme").name();
        for &scheme in ResidualScheme::ALL {
            if family.schemes.contains(&scheme) {
                continue;
            }
            let wrong = format!("`{scheme}`");
            let parts = ["`model.scheme`", wrong.as_str(), first];
            let in_file = Recipe::parse("file", &family.file(scheme));
            let in_file = in_file.unwrap_err().to_string();
            let base = if family.of_text {
                "enwik8-tiny"
            } else {
                "quickstart"
            };
            let mut changes = vec![format!("model={}", family.name), format!("scheme={scheme}")];
            if family.name == "preact-resnet" {
                changes.push("depth=18".to_owned());
            }
            let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
            let given = resolve(base, &changes).unwrap_err();
            for part in parts {
                assert!(in_file.contains(part), "no `{part}` in: {in_file}");
                assert!(given.contains(part), "no `{part}` in: {given}");
            }
        }
    }
}

/// Sizes that a network of patches cannot have are refused before anything is allocated.
#[test]
fn networks_of_patches_are_refused_by_their_keys() {
    for (name, changes, parts) in [
        (
            "cifar10-vit",
            &["patch_size=5"][..],
            &["`model.patch_size`", "got 5"][..],
        ),
        (
            "cifar10-vit",
            &["patch_size=0"],
            &["`model.patch_size`", "got 0"],
        ),
        (
            "cifar10-vit",
            &["n_heads=5"],
            &["`model.n_heads`", "divide"],
        ),
        (
            "cifar10-vit",
            &["d_model=6", "n_heads=2", "positions=sinusoidal"],
            &["`model.positions`", "multiple of 4", "got 6"],
        ),
        (
            "cifar10-vit",
            &["norm=layer", "scheme=residual"],
            &["`model.norm`", "no norm"],
        ),
        ("cifar10-vit", &["dropout=1"], &["`model.dropout`", "got 1"]),
        (
            "cifar10-vit",
            &["depth=10000", "d_model=65536"],
            &["`model.d_model`", "at most"],
        ),
        (
            "cifar10-vit",
            &["pooling=max"],
            &["pooling", "token", "mean"],
        ),
        (
            "cifar10-vit",
            &["recompute=true"],
            &["`train.recompute`", "no effect"],
        ),
        (
            "cifar10-mixer",
            &["patch_size=64"],
            &["`model.patch_size`", "got 64"],
        ),
        (
            "cifar10-mixer",
            &["d_tokens=0"],
            &["`model.d_tokens`", "got 0"],
        ),
        (
            "cifar10-mixer",
            &["d_model=65536", "d_channels=1048576"],
            &["`model.d_model`", "at most"],
        ),
        ("cifar10-mixer", &["n_heads=2"], &["n_heads"]),
    ] {
        let error = resolve(name, changes).unwrap_err();
        for part in parts {
            assert!(
                error.contains(part),
                "{name} {changes:?}: no `{part}` in: {error}"
            );
        }
    }
}
